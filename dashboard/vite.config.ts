import { fileURLToPath } from "node:url";

import { defineConfig } from "vite";

// The page must work below any origin, and its bytes depend on nothing but the sources: the gateway's repository
// holds the build.
export default defineConfig({
  base: "./",
  // The client package, from its sources: no build of its own has to come first.
  resolve: { alias: { streamgate: fileURLToPath(new URL("../clients/typescript/src/index.ts", import.meta.url)) } },
  build: {
    target: "es2022",
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    sourcemap: false,
    reportCompressedSize: false,
  },
  // `npm run dev` beside a gateway at its default address.
  server: { proxy: { "/v1": { target: "http://127.0.0.1:8080", ws: true } } },
});

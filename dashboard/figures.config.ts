import { defineConfig } from "@playwright/test";

import config from "./playwright.config";

// What scripts/dashboard-figures measures: one thing at a time.
export default defineConfig({
  ...config,
  workers: 1,
  timeout: 240_000,
  reporter: "line",
  // A trace would cost what is measured.
  use: { ...config.use, trace: "off" },
  projects: [{ name: "figures", testMatch: "figures/*.test.ts", use: { viewport: { width: 1280, height: 820 } } }],
});

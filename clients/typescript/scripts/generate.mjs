// Writes the types of `src/protocol.ts` from the schemas, which the gateway's own types give.
//
//   node scripts/generate.mjs           write
//   node scripts/generate.mjs --check   fail if what is there is not what the schemas give
import { readFile, writeFile } from "node:fs/promises";
import { compile } from "json-schema-to-typescript";

const schemas = new URL("../../../schemas/", import.meta.url);
const target = new URL("../src/protocol.ts", import.meta.url);

const read = async (name) => JSON.parse(await readFile(new URL(name, schemas), "utf8"));
const [asyncapi, openapi] = [await read("asyncapi.json"), await read("openapi.json")];

async function types() {
  // What both have is the same.
  const both = { ...openapi.components.schemas, ...asyncapi.components.schemas };
  const definitions = JSON.parse(JSON.stringify(both).replaceAll("#/components/schemas/", "#/definitions/"));
  for (const [name, schema] of Object.entries(definitions)) {
    schema.title = name;
    // Types say nothing about what can't go together.
    delete schema.not;
  }
  const whole = { title: "Everything", definitions };
  const text = await compile(whole, "Everything", {
    additionalProperties: false,
    bannerComment: "",
    unreachableDefinitions: true,
    unknownAny: true,
  });
  return text
    .replace(/export (interface|type) Everything\b[^}]*\}?\n/, "")
    .replaceAll(/( \*\n)? \* This interface was referenced by [^*]* \* via the `definition` "\w+"\.\n/g, "")
    .replaceAll("/**\n */\n", "");
}

const channel = asyncapi.channels.stream;
const text = `// Made from schemas/ by \`npm run generate\`. Not to be edited.

/** The subprotocol that asks for all event types. */
export const SUBPROTOCOL = ${JSON.stringify(channel["x-subprotocol"])};

/** The codes that the gateway closes a socket with. */
export const CLOSE_CODES = ${JSON.stringify(channel["x-close-codes"], null, 2)} as const;

${(await types()).trim()}
`;

if (process.argv.includes("--check")) {
  if ((await readFile(target, "utf8").catch(() => "")) !== text) {
    console.error("clients/typescript/src/protocol.ts is stale; mend it: npm run generate");
    process.exit(1);
  }
} else {
  await writeFile(target, text);
}

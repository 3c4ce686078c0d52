// What the README tells people to do.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { Gateway } from "./gateway.mjs";

const run = promisify(execFile);
const here = fileURLToPath(new URL("..", import.meta.url));
const place = await mkdtemp(join(tmpdir(), "streamgate-readme-"));
const gateway = await Gateway.start();
after(async () => {
  await gateway.stop();
  await rm(place, { recursive: true, force: true });
});

test("the README's example streams", async () => {
  const readme = await readFile(join(here, "README.md"), "utf8");
  const [, code] = readme.match(/<!-- example -->\n```js\n(.*?)```\n<!-- \/example -->/s);
  const example = code.replace("http://127.0.0.1:8080", gateway.url);
  assert.notEqual(example, code);
  assert.ok(code.trim().split("\n").length <= 10, "ten lines");
  // What `npm install` does, without a registry.
  const { stdout: packed } = await run("npm", ["pack", "--silent", "--pack-destination", place], { cwd: here });
  const modules = join(place, "node_modules");
  await mkdir(modules);
  await run("tar", ["-xzf", join(place, packed.trim().split("\n").at(-1)), "-C", modules]);
  await run("mv", [join(modules, "package"), join(modules, "streamgate")]);
  await cp(join(here, "node_modules/ws"), join(modules, "ws"), { recursive: true });
  await writeFile(join(place, "example.mjs"), example);
  const environment = { ...process.env, STREAMGATE_TOKEN: gateway.token };
  const { stdout } = await run(process.execPath, [join(place, "example.mjs")], { env: environment, timeout: 60_000 });
  assert.equal(stdout, "You said: What's the weather?");
});

// The real gateway, in a process of its own, on a free port, with a data directory that goes when it does.
import { spawn } from "node:child_process";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../../../", import.meta.url));
const binary = process.env.STREAMGATE_TEST_BINARY ?? join(process.env.CARGO_TARGET_DIR ?? join(root, "target"), "debug/streamgate");
const PATIENCE_MS = 60_000;

export class Gateway {
  static async start(settings = {}) {
    const gateway = new Gateway();
    gateway.directory = await mkdtemp(join(tmpdir(), "streamgate-client-"));
    gateway.port = await freePort();
    gateway.url = `http://127.0.0.1:${gateway.port}`;
    gateway.environment = {
      PATH: process.env.PATH,
      STREAMGATE_LISTEN: `127.0.0.1:${gateway.port}`,
      STREAMGATE_ADMIN__LISTEN: "127.0.0.1:0",
      STREAMGATE_DATA_DIR: gateway.directory,
      STREAMGATE_DRAIN_NOTICE_SECONDS: "0",
      ...settings,
    };
    await gateway.run();
    gateway.token = (await readFile(join(gateway.directory, "first-token"), "utf8")).trim();
    return gateway;
  }

  /** Starts it, again, and returns when it is ready. */
  async run() {
    const child = spawn(binary, [], { env: this.environment, stdio: ["ignore", "ignore", "pipe"] });
    this.child = child;
    let log = "";
    child.stderr.on("data", (part) => (log += part));
    const ended = new Promise((resolve) => child.once("exit", resolve));
    this.ended = ended;
    const deadline = Date.now() + PATIENCE_MS;
    while (!(await fetch(`${this.url}/health/ready`).catch(() => undefined))?.ok) {
      if (child.exitCode !== null || Date.now() > deadline) throw new Error(`the gateway did not start:\n${log}`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  /** Ends the process as a crash does: its agents go on. */
  async kill() {
    this.child.kill("SIGKILL");
    await this.ended;
  }

  /** Ends the process as an update does: clients are told to come back. */
  async drain() {
    this.child.kill("SIGTERM");
    await this.ended;
  }

  /** Ends it and all that it left, and takes its data away. */
  async stop() {
    await this.kill();
    for (const pid of await readdir("/proc")) {
      if (!/^\d+$/.test(pid)) continue;
      const line = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
      const place = await readFile(`/proc/${pid}/environ`, "utf8").catch(() => "");
      if (!line.includes(this.directory) && !place.includes(this.directory)) continue;
      try {
        process.kill(Number(pid), "SIGKILL");
      } catch {
        // It has ended meanwhile.
      }
    }
    await rm(this.directory, { recursive: true, force: true, maxRetries: 10 });
  }
}

async function freePort() {
  const server = createServer();
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

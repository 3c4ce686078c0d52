// A gateway of the tests' own: the real binary, its data in a directory that goes with it.

import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

const BINARY = process.env["STREAMGATE_TEST_BINARY"] ?? join(import.meta.dirname, "../../target/debug/streamgate");

export class Gateway {
  readonly directory = mkdtempSync(join(tmpdir(), "streamgate-dashboard-"));
  private process: ChildProcess | null = null;

  private constructor(readonly port: number, private readonly operators: number, private readonly settings: NodeJS.ProcessEnv) {}

  static async start(settings: NodeJS.ProcessEnv = {}): Promise<Gateway> {
    const gateway = new Gateway(await freePort(), await freePort(), settings);
    await gateway.run();
    return gateway;
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  /** The token of the printed link: an admin's. */
  get token(): string {
    return readFileSync(join(this.directory, "first-token"), "utf8").trim();
  }

  /** The printed link. */
  get link(): string {
    return `${this.url}/#token=${this.token}`;
  }

  /** Runs it, again after it was killed, and returns when it answers. */
  async run(): Promise<void> {
    const child = spawn(BINARY, [], { env: this.environment, stdio: ["ignore", "pipe", "pipe"] });
    this.process = child;
    let said = "";
    child.stderr.on("data", (data: Buffer) => { said += data.toString(); });
    for await (const line of child.stdout) if (String(line).includes("streamgate is ready")) break;
    if (child.exitCode !== null) throw new Error(`the gateway did not start: ${said}`);
    child.stdout.resume();
  }

  /** As a crash does. */
  async kill(): Promise<void> {
    await this.end("SIGKILL");
  }

  /** Takes the sessions with it, whose agents would outlive it. */
  async stop(): Promise<void> {
    for (const { session_id } of await this.sessions()) await this.ask("DELETE", `/v1/sessions/${session_id}`);
    await this.end("SIGTERM");
    rmSync(this.directory, { recursive: true });
  }

  /** Somebody's token. */
  async tokenOf(user: string): Promise<string> {
    const child = spawn(BINARY, ["token", "create", "--user", user], { env: this.environment, stdio: ["ignore", "pipe", "inherit"] });
    let token = "";
    for await (const data of child.stdout) token += String(data);
    return token.trim();
  }

  async sessions(): Promise<{ session_id: string; title: string | null }[]> {
    const list = await this.ask("GET", "/v1/sessions?all=true&limit=200");
    return ((await list.json()) as { sessions: { session_id: string; title: string | null }[] }).sessions;
  }

  /** Has a task done, and returns when it is. */
  async task(prompt: string, session?: string): Promise<{ session: string; task: string }> {
    const body = JSON.stringify({ prompt, ...(session ? { session_id: session } : {}) });
    const accepted = await (await this.ask("POST", "/v1/tasks", body)).json() as { session_id: string; task_id: string };
    for (;;) {
      const task = await (await this.ask("GET", `/v1/tasks/${accepted.task_id}`)).json() as { status: string };
      if (["completed", "failed", "cancelled"].includes(task.status)) break;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    return { session: accepted.session_id, task: accepted.task_id };
  }

  async ask(method: string, path: string, body?: string): Promise<Response> {
    const response = await fetch(this.url + path, {
      method, headers: { authorization: `Bearer ${this.token}`, "content-type": "application/json" }, ...(body ? { body } : {}),
    });
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`);
    return response;
  }

  private get environment(): NodeJS.ProcessEnv {
    const { PATH, HOME } = process.env;
    return {
      PATH, HOME,
      STREAMGATE_LISTEN: `127.0.0.1:${this.port}`,
      STREAMGATE_ADMIN__LISTEN: `127.0.0.1:${this.operators}`,
      STREAMGATE_DATA_DIR: this.directory,
      // All the tests are one user here.
      STREAMGATE_LIMITS__CONTAINERS_PER_USER: "40",
      STREAMGATE_LIMITS__RUNNING_PER_USER: "40",
      STREAMGATE_LIMITS__CONNECTIONS_PER_USER: "100",
      STREAMGATE_DRAIN_NOTICE_SECONDS: "0",
      ...this.settings,
    };
  }

  private async end(signal: NodeJS.Signals): Promise<void> {
    const child = this.process;
    this.process = null;
    if (!child || child.exitCode !== null) return;
    child.kill(signal);
    await once(child, "exit");
  }
}

async function freePort(): Promise<number> {
  const server = createServer();
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  server.close();
  if (address === null || typeof address === "string") throw new Error("no port");
  return address.port;
}

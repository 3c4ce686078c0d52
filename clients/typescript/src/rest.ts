// REST beside the socket, typed.
import { GatewayError } from "./errors.ts";
import type {
  AcceptedTask,
  Answer,
  AnsweredTask,
  CancelledTask,
  ErrorBody,
  EventPage,
  FileList,
  Health,
  NewToken,
  ProfileList,
  Readiness,
  SessionList,
  StartBody,
  StartedSession,
  Submit,
  TaskList,
  TaskState,
  TokenBody,
  TokenList,
  WholeSession,
  WholeTask,
} from "./protocol.ts";

export interface PageOptions {
  limit?: number;
  /** `next_cursor` of the page before. */
  cursor?: string | null;
  /** Everybody's; for admins. */
  all?: boolean;
}

type Query = Record<string, string | number | boolean | null | undefined>;

export class Rest {
  readonly #base: URL;
  readonly #token: () => Promise<string | undefined>;
  readonly #fetch: typeof fetch;

  constructor(base: URL, token: () => Promise<string | undefined>, fetch: typeof globalThis.fetch) {
    this.#base = base;
    this.#token = token;
    this.#fetch = fetch;
  }

  /** Sessions, newest first. */
  sessions(options: PageOptions = {}): Promise<SessionList> {
    return this.#json("GET", "v1/sessions", { ...options });
  }

  /** A session and what happens in it now. */
  session(sessionId: string): Promise<WholeSession> {
    return this.#json("GET", `v1/sessions/${sessionId}`);
  }

  /** Starts a session. Returns when its container is up. */
  startSession(body: StartBody = {}): Promise<StartedSession> {
    return this.#json("POST", "v1/sessions", {}, body);
  }

  /** Names a session; `null` takes its title away. */
  rename(sessionId: string, title: string | null): Promise<WholeSession> {
    return this.#json("PATCH", `v1/sessions/${sessionId}`, {}, { title });
  }

  /** Ends a session and erases its history and files. */
  erase(sessionId: string): Promise<void> {
    return this.#json("DELETE", `v1/sessions/${sessionId}`);
  }

  /** A part of a session's history, oldest first. */
  events(sessionId: string, options: { after?: number; limit?: number } = {}): Promise<EventPage> {
    return this.#json("GET", `v1/sessions/${sessionId}/events`, { after_seq: options.after, limit: options.limit });
  }

  /** The files of a session's workspace. */
  files(sessionId: string): Promise<FileList> {
    return this.#json("GET", `v1/sessions/${sessionId}/files`);
  }

  /** A file; its body has not been read. */
  readFile(sessionId: string, path: string): Promise<Response> {
    return this.request("GET", filePath(sessionId, path));
  }

  /** Writes a file. Tells whether it is new. */
  async writeFile(sessionId: string, path: string, content: BodyInit): Promise<{ created: boolean }> {
    const headers = { "content-type": "application/octet-stream" };
    const response = await this.request("PUT", filePath(sessionId, path), {}, content, headers);
    return { created: response.status === 201 };
  }

  /** Tasks, newest first. */
  tasks(options: PageOptions & { session_id?: string; status?: TaskState } = {}): Promise<TaskList> {
    return this.#json("GET", "v1/tasks", { ...options });
  }

  /** A task, with its result once it has ended. */
  task(taskId: string): Promise<WholeTask> {
    return this.#json("GET", `v1/tasks/${taskId}`);
  }

  /** Submits a prompt without following it. */
  submit(body: Submit): Promise<AcceptedTask> {
    return this.#json("POST", "v1/tasks", {}, body);
  }

  /** Cancels a task. Returns when nothing of it runs any more. */
  cancel(taskId: string): Promise<CancelledTask> {
    return this.#json("DELETE", `v1/tasks/${taskId}`);
  }

  /** Answers a question of a task, the oldest open one by default. */
  answer(taskId: string, answer: Answer, askId?: string): Promise<AnsweredTask> {
    return this.#json("POST", `v1/tasks/${taskId}/answer`, {}, { answer, ask_id: askId });
  }

  /** The agents to choose from. */
  profiles(): Promise<ProfileList> {
    return this.#json("GET", "v1/profiles");
  }

  /** One's tokens, newest first. */
  tokens(options: PageOptions = {}): Promise<TokenList> {
    return this.#json("GET", "v1/api-tokens", { ...options });
  }

  /** Makes a token. It is shown once. */
  createToken(body: TokenBody = {}): Promise<NewToken> {
    return this.#json("POST", "v1/api-tokens", {}, body);
  }

  /** Makes a token useless. */
  revokeToken(tokenId: string): Promise<void> {
    return this.#json("DELETE", `v1/api-tokens/${tokenId}`);
  }

  /** The gateway's version and how full it is. */
  health(): Promise<Health> {
    return this.#json("GET", "health");
  }

  /** Whether work should come here now. */
  async ready(): Promise<Readiness> {
    const response = await this.#send("GET", "health/ready");
    return (await response.json()) as Readiness;
  }

  async #json<T>(method: string, path: string, query: Query = {}, body?: unknown): Promise<T> {
    const headers: Record<string, string> = body === undefined ? {} : { "content-type": "application/json" };
    const response = await this.request(method, path, query, body === undefined ? undefined : JSON.stringify(body), headers);
    return (response.status === 204 ? undefined : await response.json()) as T;
  }

  /** Any request; throws what the gateway refuses. */
  async request(method: string, path: string, query: Query = {}, body?: BodyInit, headers: Record<string, string> = {}): Promise<Response> {
    const response = await this.#send(method, path, query, body, headers);
    if (response.ok) return response;
    const told = (await response.json().catch(() => undefined)) as ErrorBody | undefined;
    const message = `${method} /${path}: HTTP ${response.status}`;
    throw new GatewayError(told?.error ?? { code: "INTERNAL_ERROR", message }, response.status);
  }

  async #send(method: string, path: string, query: Query = {}, body?: BodyInit, headers: Record<string, string> = {}): Promise<Response> {
    const url = new URL(path, this.#base);
    for (const [name, value] of Object.entries(query)) {
      if (value !== undefined && value !== null) url.searchParams.set(name, String(value));
    }
    const token = await this.#token();
    const authorization: Record<string, string> = token === undefined ? {} : { authorization: `Bearer ${token}` };
    return this.#fetch(url, { method, headers: { ...headers, ...authorization }, ...(body === undefined ? {} : { body }) });
  }
}

function filePath(sessionId: string, path: string): string {
  return `v1/sessions/${sessionId}/files/${path.split("/").map(encodeURIComponent).join("/")}`;
}

// What people use: prompts in, events out.
import { Connection, type ConnectionState, type Reply } from "./connection.ts";
import { Emitter } from "./emitter.ts";
import { ConnectionError } from "./errors.ts";
import { Feeds, QUEUE, type CatchingUp, type Subscription } from "./feeds.ts";
import type {
  AckFrame,
  Answer,
  ErrorFrame,
  ServerFrame,
  SessionEvent,
  SessionReadyFrame,
  SessionStateFrame,
  TaskDoneEvent,
  TaskFailedEvent,
  TaskSubmitFrame,
  TurnDoneEvent,
} from "./protocol.ts";
import { Rest } from "./rest.ts";
import type { SocketConstructor } from "./socket.ts";

export interface StreamgateOptions {
  /** The gateway: `http://127.0.0.1:8080`. In a browser by default the page's own origin. */
  url?: string | URL;
  /** An API token, or what gives one at each connect. None: the browser's session cookie. */
  token?: string | (() => string | undefined | Promise<string | undefined>) | undefined;
  /** A WebSocket other than the one of this place. */
  WebSocket?: SocketConstructor;
  fetch?: typeof fetch;
  /** Silence after which the gateway is asked for a sign of life; after as much again the connection is given up. */
  heartbeatMs?: number;
  /** The longest wait between two attempts to connect. */
  maxBackoffMs?: number;
}

type Camel<Name extends string> = Name extends `${infer Head}_${infer Tail}` ? `${Head}${Capitalize<Camel<Tail>>}` : Name;
type Camels<Frame> = { [Field in keyof Frame as Camel<Field & string>]: Frame[Field] };

/** How to run a prompt. */
export type SubmitOptions = Camels<Omit<TaskSubmitFrame, "type" | "prompt" | "request_id">>;

export interface FollowOptions {
  /** Events after this one. By default 0: all. */
  after?: number;
  /** Instead: the last so many events. */
  tail?: number;
  /** Ends the iteration. */
  signal?: AbortSignal;
}

/** What can be heard of with `on`. */
export interface StreamgateEvents {
  /** How the connection is. */
  state: ConnectionState;
  /** History of a session comes, or has come. */
  catching_up: CatchingUp;
  /** All of a session that a user interface needs; after each replay. */
  session: SessionStateFrame;
  /** What the gateway refused without being asked. */
  error: ErrorFrame;
  /** Every frame, as it comes. */
  frame: ServerFrame;
}

export class Streamgate {
  /** What has no need of a socket. */
  readonly rest: Rest;
  readonly #connection: Connection;
  readonly #feeds: Feeds;
  readonly #events = new Emitter<StreamgateEvents>();

  constructor(options: StreamgateOptions = {}) {
    const page = (globalThis as { location?: { origin: string } }).location?.origin;
    const base = withSlash(new URL(options.url ?? page ?? "http://127.0.0.1:8080"));
    const given = options.token;
    const token = async () => (typeof given === "function" ? given() : given);
    this.rest = new Rest(base, token, options.fetch ?? ((...request) => fetch(...request)));
    const socketUrl = new URL("v1/stream", base);
    socketUrl.protocol = socketUrl.protocol.replace("http", "ws");
    this.#connection = new Connection({
      socketUrl: socketUrl.href,
      token,
      WebSocket: options.WebSocket,
      heartbeatMs: options.heartbeatMs ?? 25_000,
      maxBackoffMs: options.maxBackoffMs ?? 20_000,
    });
    const history = (sessionId: string, after: number) => this.rest.events(sessionId, { after, limit: QUEUE });
    this.#feeds = new Feeds(this.#connection, history, (told) => this.#events.emit("catching_up", told));
    this.#connection.on("state", (state) => this.#events.emit("state", state));
    this.#connection.on("frame", (frame) => {
      this.#events.emit("frame", frame);
      if (frame.type === "session.state") this.#events.emit("session", frame);
      if (frame.type === "error" && frame.request_id === undefined) this.#events.emit("error", frame);
    });
  }

  /** Hears of something. Returns what ends that. */
  on<Name extends keyof StreamgateEvents>(name: Name, listener: (value: StreamgateEvents[Name]) => void): () => void {
    return this.#events.on(name, listener);
  }

  get state(): ConnectionState {
    return this.#connection.state;
  }

  /** Connects now instead of at the first use. */
  connect(): void {
    this.#connection.connect();
  }

  /** Ends the connection and all iterations. */
  close(): void {
    this.#connection.close();
  }

  /** Sends a prompt. The task that it makes will not be lost: it is accepted when this returns. */
  async submit(prompt: string, options: SubmitOptions = {}): Promise<Task> {
    // The same prompt under the same key runs once, on however many connections it is said.
    const { sessionId, idempotencyKey, ...others } = options;
    const fields = { prompt, ...snakes(others), idempotency_key: idempotencyKey ?? randomKey() };
    if (typeof sessionId === "string") {
      // Under a key of the caller's the task may be an earlier one.
      const from = idempotencyKey === undefined ? { tail: 0 } : {};
      const subscription = this.#feeds.subscribe(sessionId, from, true);
      try {
        const reply = await this.#connection.request(
          { type: "session.turn", session_id: sessionId, ...fields },
          { onReply: (reply) => (subscription.taskId = taskOf(reply)) },
        );
        return this.#task(reply, subscription);
      } catch (error) {
        subscription.end();
        throw error;
      }
    }
    let subscription: Subscription | undefined;
    const reply = await this.#connection.request(
      { type: "task.submit", ...fields },
      {
        onReply: (reply, repeated) => {
          const session = sessionOf(reply);
          // What came between two connections is replayed.
          subscription = repeated ? this.#feeds.subscribe(session, {}, true) : this.#feeds.subscribeNew(session);
          subscription.taskId = taskOf(reply);
        },
      },
    );
    return this.#task(reply, subscription);
  }

  /** Events of a session, typed and in order, each once: history first, then live, over reconnects. */
  follow(sessionId: string, options: FollowOptions = {}): AsyncIterableIterator<SessionEvent> {
    const subscription = this.#feeds.subscribe(sessionId, options);
    options.signal?.addEventListener("abort", () => subscription.end(), { once: true });
    if (options.signal?.aborted) subscription.end();
    return subscription;
  }

  /** Makes a session without a prompt. */
  async start(options: { profileId?: string; title?: string } = {}): Promise<SessionReadyFrame> {
    const reply = await this.#connection.request({ type: "session.start", ...snakes(options) }, { repeatable: false });
    const ready = reply as SessionReadyFrame;
    this.#feeds.unfollow(ready.session_id);
    return ready;
  }

  /** Stops a task. Returns when nothing of it runs any more. */
  async cancel(taskId: string): Promise<AckFrame> {
    return (await this.#connection.request({ type: "task.cancel", task_id: taskId })) as AckFrame;
  }

  /** Answers a question of a task, the oldest open one by default. */
  async answer(taskId: string, answer: Answer, askId?: string): Promise<AckFrame> {
    const ask = askId === undefined ? {} : { ask_id: askId };
    return (await this.#connection.request({ type: "task.answer", task_id: taskId, answer, ...ask })) as AckFrame;
  }

  /** Ends a session; its history and files stay. */
  async end(sessionId: string): Promise<AckFrame> {
    return (await this.#connection.request({ type: "session.end", session_id: sessionId })) as AckFrame;
  }

  #task(reply: Reply, subscription: Subscription | undefined): Task {
    if (!subscription) throw new ConnectionError("the gateway accepted the prompt, but named no task");
    const ready = reply.type === "session.ready" ? reply : undefined;
    const position = reply.type === "ack" ? (reply.position ?? 0) : 0;
    const open = () => this.#feeds.subscribe(sessionOf(reply), { after: subscription.begin }, true);
    return new Task(this, sessionOf(reply), taskOf(reply), ready, position, subscription, open);
  }
}

/** A prompt at work. */
export class Task {
  readonly sessionId: string;
  readonly taskId: string;
  /** The session's container and profile, if the prompt made the session. */
  readonly ready: SessionReadyFrame | undefined;
  /** How many tasks of the session went first when it was accepted. */
  readonly position: number;
  readonly #gate: Streamgate;
  #first: Subscription | undefined;
  readonly #open: () => Subscription;

  /** @internal */
  constructor(
    gate: Streamgate,
    sessionId: string,
    taskId: string,
    ready: SessionReadyFrame | undefined,
    position: number,
    first: Subscription,
    open: () => Subscription,
  ) {
    this.#gate = gate;
    this.sessionId = sessionId;
    this.taskId = taskId;
    this.ready = ready;
    this.position = position;
    this.#first = first;
    this.#open = open;
  }

  /** All its events, from its prompt to its `task:done` or `task:failed`. Can be read more than once. */
  events(): AsyncIterableIterator<SessionEvent> {
    const subscription = this.#first ?? this.#open();
    if (!this.#first) subscription.taskId = this.taskId;
    this.#first = undefined;
    return subscription;
  }

  /** Waits for its end. `turn` holds the text and what it cost, if its turn ended. */
  async result(): Promise<{ end: TaskDoneEvent | TaskFailedEvent; turn: TurnDoneEvent | undefined }> {
    let turn: TurnDoneEvent | undefined;
    for await (const event of this.events()) {
      if (event.type === "turn.done") turn = event;
      if (event.type === "task:done" || event.type === "task:failed") return { end: event, turn };
    }
    throw new ConnectionError("the client was closed before the task ended");
  }

  /** Stops it. Returns when nothing of it runs any more. */
  cancel(): Promise<AckFrame> {
    return this.#gate.cancel(this.taskId);
  }

  /** Answers its question, the oldest open one by default. */
  answer(answer: Answer, askId?: string): Promise<AckFrame> {
    return this.#gate.answer(this.taskId, answer, askId);
  }
}

function sessionOf(reply: Reply): string {
  return ("session_id" in reply && reply.session_id) || "";
}

function taskOf(reply: Reply): string {
  return ("task_id" in reply && reply.task_id) || "";
}

function snakes<Fields extends object>(fields: Fields): Record<string, never> {
  const snake = (name: string) => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
  return Object.fromEntries(Object.entries(fields).map(([name, value]) => [snake(name), value])) as Record<string, never>;
}

function randomKey(): string {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

function withSlash(url: URL): URL {
  return url.pathname.endsWith("/") ? url : new URL(`${url.pathname}/`, url);
}

// One socket to the gateway, and the next one when it is gone: connecting, coming back, requests and their
// replies, heartbeats. What sessions are followed is `feed`'s.
import { Emitter } from "./emitter.ts";
import { closeWord, ConnectionError, GatewayError, retryAfterMs, verdictOf } from "./errors.ts";
import { SUBPROTOCOL, type ClientFrame, type ServerFrame } from "./protocol.ts";
import { findSocket, type Socket, type SocketConstructor } from "./socket.ts";

/** How the connection is. */
export type ConnectionState =
  | { status: "idle" }
  | { status: "connecting"; attempt: number }
  | { status: "open" }
  /** It will be tried again in `retryInMs`. */
  | { status: "waiting"; attempt: number; retryInMs: number; why: string }
  /** For good: closed by us, or the credential is refused. */
  | { status: "closed"; error?: Error };

export interface ConnectionOptions {
  /** The socket's address. */
  socketUrl: string;
  token: () => Promise<string | undefined>;
  WebSocket?: SocketConstructor | undefined;
  /** Silence after which the gateway is asked for a sign of life; after as much again it is taken for dead. */
  heartbeatMs: number;
  /** The longest wait between two attempts. */
  maxBackoffMs: number;
}

/** A direct reply. */
export type Reply = Extract<ServerFrame, { request_id?: string }>;

/** A client frame before it has a request id. */
export type Request = ClientFrame extends infer Frame ? (Frame extends unknown ? Omit<Frame, "request_id"> : never) : never;

interface Pending {
  frame: Request;
  resolve: (reply: Reply) => void;
  reject: (error: Error) => void;
  options: RequestOptions;
  /** How many connections it was said on. */
  said: number;
}

export interface RequestOptions {
  /** Whether asking once more does no harm: then it is asked again on the next connection. */
  repeatable?: boolean;
  /** Hears the positive reply before any frame that follows it, and whether it was asked more than once. */
  onReply?: (reply: Reply, repeated: boolean) => void;
}

interface Events {
  state: ConnectionState;
  /** A frame that came, in order. */
  frame: ServerFrame;
  /** The socket is open: say who follows what, before the requests that wait are said. */
  open: undefined;
  /** The socket is gone. */
  gone: undefined;
}

const FIRST_BACKOFF_MS = 500;
const LEAST_BACKOFF_41XX_MS = 1_000;

export class Connection extends Emitter<Events> {
  readonly #options: ConnectionOptions;
  readonly #pending = new Map<string, Pending>();
  #socket: Socket | undefined;
  #state: ConnectionState = { status: "idle" };
  #attempt = 0;
  #requests = 0;
  /** Tells the requests of this client from those of another on its server's log. */
  readonly #prefix = Math.random().toString(36).slice(2, 8);
  #timer: ReturnType<typeof setTimeout> | undefined;
  #heartbeat: ReturnType<typeof setTimeout> | undefined;
  #heardAt = 0;
  /** Whether it was asked for a sign of life since then. */
  #asked = false;
  #refusal: GatewayError | undefined;

  constructor(options: ConnectionOptions) {
    super();
    this.#options = options;
    const scope = globalThis as { addEventListener?: (name: string, listener: () => void) => void };
    scope.addEventListener?.("online", this.#online);
  }

  get state(): ConnectionState {
    return this.#state;
  }

  get isOpen(): boolean {
    return this.#state.status === "open";
  }

  /** Connects, if that is not so or under way. */
  connect(): void {
    if (this.#state.status === "idle") void this.#connect();
  }

  /** Ends it for good. */
  close(error?: Error): void {
    if (this.#state.status === "closed") return;
    const scope = globalThis as { removeEventListener?: (name: string, listener: () => void) => void };
    scope.removeEventListener?.("online", this.#online);
    const socket = this.#socket;
    this.#leave();
    socket?.close(1000);
    this.#become(error ? { status: "closed", error } : { status: "closed" });
    this.#rejectAll(() => error ?? new ConnectionError("the client was closed"));
  }

  /** Asks and waits for the direct reply. */
  request(frame: Request, options: RequestOptions = {}): Promise<Reply> {
    if (this.#state.status === "closed") {
      return Promise.reject(this.#state.error ?? new ConnectionError("the client is closed"));
    }
    this.connect();
    return new Promise((resolve, reject) => {
      const id = `${this.#prefix}-${++this.#requests}`;
      const pending = { frame, resolve, reject, options, said: 0 };
      this.#pending.set(id, pending);
      if (this.isOpen) this.#say(id, pending);
    });
  }

  #online = (): void => {
    if (this.#state.status !== "waiting") return;
    clearTimeout(this.#timer);
    void this.#connect();
  };

  async #connect(): Promise<void> {
    this.#attempt += 1;
    this.#become({ status: "connecting", attempt: this.#attempt });
    let token: string | undefined;
    try {
      token = await this.#options.token();
    } catch (error) {
      // What gives it may be as far away as the gateway.
      if (this.#state.status === "connecting") this.#again(1006, undefined, `no token: ${String(error)}`);
      return;
    }
    let socket: Socket;
    try {
      const constructor = this.#options.WebSocket ?? (await findSocket());
      if (this.#state.status !== "connecting") return;
      const protocols = token === undefined ? [SUBPROTOCOL] : [SUBPROTOCOL, `Bearer.${token}`];
      socket = new constructor(this.#options.socketUrl, protocols);
    } catch (error) {
      this.close(error instanceof Error ? error : new Error(String(error)));
      return;
    }
    this.#socket = socket;
    socket.onopen = () => this.#opened();
    socket.onmessage = (event: { data: unknown }) => this.#heard(String(event.data));
    socket.onerror = () => undefined; // A close follows.
    socket.onclose = (event: { code: number; reason: string }) => this.#closed(event.code, event.reason);
    this.#alive();
    this.#beat();
  }

  #alive(): void {
    this.#heardAt = Date.now();
    this.#asked = false;
  }

  #opened(): void {
    this.#alive();
    this.#refusal = undefined;
    this.#become({ status: "open" });
    const waiting = [...this.#pending];
    this.emit("open", undefined);
    for (const [id, pending] of waiting) this.#say(id, pending);
  }

  #say(id: string, pending: Pending): void {
    pending.said += 1;
    this.#socket?.send(JSON.stringify({ ...pending.frame, request_id: id }));
  }

  #heard(text: string): void {
    this.#alive();
    const frame = JSON.parse(text) as ServerFrame;
    if (frame.type !== "error") this.#attempt = 0;
    else if (frame.request_id === undefined) this.#refusal = new GatewayError(frame);
    this.emit("frame", frame);
    const id = "request_id" in frame ? frame.request_id : undefined;
    const pending = id === undefined ? undefined : this.#pending.get(id);
    if (id === undefined || pending === undefined) return;
    this.#pending.delete(id);
    if (frame.type === "error") {
      pending.reject(new GatewayError(frame));
      return;
    }
    pending.options.onReply?.(frame as Reply, pending.said > 1);
    pending.resolve(frame as Reply);
  }

  /** Never gives up what was not asked: timers come late where a page is hidden or a machine is busy. */
  #beat(): void {
    const { heartbeatMs } = this.#options;
    const silence = Date.now() - this.#heardAt;
    let next = heartbeatMs;
    if (silence < heartbeatMs) {
      next = Math.min(heartbeatMs, heartbeatMs - silence); // Clocks are set back, too.
    } else if (!this.#asked) {
      this.#asked = true;
      if (this.isOpen) this.#socket?.send('{"type":"ping"}');
    } else {
      // A close frame would wait for an answer that nobody gives.
      const socket = this.#socket;
      this.#closed(1006, "");
      socket?.close();
      return;
    }
    this.#heartbeat = setTimeout(() => this.#beat(), next);
  }

  #closed(code: number, reason: string): void {
    if (!this.#socket) return;
    this.#leave();
    const why = this.#refusal?.message ?? closeWord(code);
    const verdict = verdictOf(code);
    if (verdict === "give up") {
      this.close(this.#refusal ?? new ConnectionError(why, code));
      return;
    }
    const lost = () => new ConnectionError(`${why} (close code ${code}); whether it was done is not known`, code);
    const gone = ({ said, options }: Pending) => said > 0 && (verdict === "drop requests" || options.repeatable === false);
    this.#rejectAll(lost, gone);
    this.#again(code, retryAfterMs(reason), why);
  }

  #again(code: number, told: number | undefined, why: string): void {
    const retryInMs = this.#wait(code, told);
    this.#become({ status: "waiting", attempt: this.#attempt, retryInMs, why });
    if (this.#state.status === "waiting") this.#timer = setTimeout(() => void this.#connect(), retryInMs);
  }

  /** Doubles, never less than the gateway asked for, and spread out: all its clients lost it at once. */
  #wait(code: number, told: number | undefined): number {
    const failures = Math.max(0, this.#attempt - 1);
    if (verdictOf(code) === "at once" && failures === 0) return Math.round((told ?? 0) * Math.random());
    const backoff = Math.min(this.#options.maxBackoffMs, FIRST_BACKOFF_MS * 2 ** Math.min(failures, 16));
    const least = Math.max(told ?? 0, code >= 4100 && code < 4200 ? LEAST_BACKOFF_41XX_MS : 0);
    return Math.round(least + backoff * Math.random());
  }

  #leave(): void {
    clearTimeout(this.#timer);
    clearTimeout(this.#heartbeat);
    const socket = this.#socket;
    this.#socket = undefined;
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    this.emit("gone", undefined);
  }

  #rejectAll(error: () => Error, which: (pending: Pending) => boolean = () => true): void {
    for (const [id, pending] of this.#pending) {
      if (!which(pending)) continue;
      this.#pending.delete(id);
      pending.reject(error());
    }
  }

  #become(state: ConnectionState): void {
    this.#state = state;
    this.emit("state", state);
  }
}

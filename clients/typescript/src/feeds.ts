// Followed sessions. Each subscription is a cursor: it takes every event after the one it has seen, once, in
// order, whatever happens to connections. Several subscriptions of one session share what the gateway sends.
//
// A subscription that is not read fast enough holds no more than its queue: it then forgets the live events and
// rereads them from the gateway's journal, a page at a time, when its reader asks for them.
import type { Connection } from "./connection.ts";
import { ConnectionError, GatewayError } from "./errors.ts";
import type { EventPage, ServerFrame, SessionEvent } from "./protocol.ts";

/** How far a session's replay is. */
export interface CatchingUp {
  sessionId: string;
  /** Whether history comes now; live events follow it. */
  catchingUp: boolean;
  /** The last event of that history. */
  lastSeq: number;
}

/** Events that wait for a reader, at most. */
export const QUEUE = 4_096;
const RETRY_MS = 1_000;
/** What the gateway refuses now and may accept later. */
const PASSING = ["RATE_LIMITED", "STORAGE_UNAVAILABLE", "INTERNAL_ERROR", "CAPACITY"];

/** Whether the same request may do later. */
export function passes(error: unknown): boolean {
  return error instanceof GatewayError ? PASSING.includes(error.code) : error instanceof TypeError || error instanceof ConnectionError;
}

/** A while, longer than asked for by up to half of it. */
export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms * (1 + Math.random() / 2)));
}

export class Subscription implements AsyncIterableIterator<SessionEvent> {
  readonly sessionId: string;
  /** The last event that was taken or passed over; `undefined` until it is known. */
  cursor: number | undefined;
  /** Where to begin when there is no cursor: with the last so many events. */
  readonly tail: number;
  /** Whether what comes on this connection is all that follows the cursor. */
  armed = false;
  /** Whether events were forgotten, to be reread. */
  behind = false;
  ended = false;
  readonly #feeds: Feeds;
  #taskId: string | undefined;
  /** Where it began, once that is known. */
  begin: number | undefined;
  /** Whether it is of one task only, whose id may not be known yet. */
  readonly ofTask: boolean;
  #queue: SessionEvent[] = [];
  #error: Error | undefined;
  #wake: (() => void) | undefined;

  constructor(feeds: Feeds, sessionId: string, from: { after?: number | undefined; tail?: number | undefined }, ofTask: boolean) {
    this.#feeds = feeds;
    this.sessionId = sessionId;
    if (from.tail === undefined) this.startAt(from.after ?? 0);
    this.tail = from.tail ?? 0;
    this.ofTask = ofTask;
  }

  /** Now that it is known: what came of other tasks is passed over. */
  set taskId(taskId: string) {
    this.#taskId = taskId;
    const waiting = this.#queue;
    this.#queue = [];
    for (const event of waiting) this.#keep(event);
  }

  /** Its cursor, if it has none yet. */
  startAt(seq: number): void {
    this.cursor ??= seq;
    this.begin ??= seq;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async next(): Promise<IteratorResult<SessionEvent, undefined>> {
    for (;;) {
      const event = this.#queue.shift();
      if (event) return { done: false, value: event };
      if (this.#error) throw this.#error;
      if (this.ended) return { done: true, value: undefined };
      if (this.behind) await this.#reread();
      else await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }

  async return(): Promise<IteratorResult<SessionEvent, undefined>> {
    this.#queue = [];
    this.end();
    return { done: true, value: undefined };
  }

  /** An event of its session, live or replayed. */
  take(event: SessionEvent): void {
    // Nobody need send more: what was missed is reread.
    if (this.behind && this.#endsTask(event)) this.#feeds.drop(this);
    if (!this.armed || this.ended || event.seq <= (this.cursor ?? 0)) return;
    if (this.#queue.length >= QUEUE) {
      this.behind = true;
      this.armed = false;
      return;
    }
    this.cursor = event.seq;
    this.#keep(event);
    this.#wake?.();
  }

  /** Nothing more comes; what waits is still read. */
  end(error?: Error): void {
    if (this.ended) return;
    this.ended = true;
    this.#error = error;
    this.#feeds.drop(this);
    this.#wake?.();
  }

  #keep(event: SessionEvent): void {
    if (this.ended) return;
    if (this.ofTask && this.#taskId !== undefined && event.task_id !== this.#taskId) return;
    this.#queue.push(event);
    const last = this.ofTask ? this.#endsTask(event) : event.type === "session.closed";
    if (last) this.end();
  }

  #endsTask(event: SessionEvent): boolean {
    const ends = event.type === "task:done" || event.type === "task:failed";
    return this.ofTask && ends && this.#taskId !== undefined && event.task_id === this.#taskId;
  }

  async #reread(): Promise<void> {
    try {
      const page = await this.#feeds.history(this.sessionId, this.cursor ?? 0);
      for (const event of page.events) this.#keep(event);
      this.cursor = page.next_after_seq;
      if (page.next_after_seq < page.last_seq || this.ended) return;
      this.behind = false;
      this.#feeds.follow(this.sessionId);
    } catch (error) {
      if (!passes(error)) this.end(error as Error);
      else await pause((error as GatewayError).retryAfterMs ?? RETRY_MS);
    }
  }
}

interface Feed {
  subscriptions: Set<Subscription>;
  /** Whether the gateway sends its events on this connection. */
  followed: boolean;
  /** Whether a resume is under way. */
  resuming: boolean;
  /** Whether history comes. */
  replaying: boolean;
  /** The last event that came on this connection. */
  position: number;
}

export class Feeds {
  readonly #connection: Connection;
  readonly #feeds = new Map<string, Feed>();
  readonly #catchingUp: (told: CatchingUp) => void;
  /** Reads a page of a session's history. */
  readonly history: (sessionId: string, after: number) => Promise<EventPage>;

  constructor(
    connection: Connection,
    history: (sessionId: string, after: number) => Promise<EventPage>,
    catchingUp: (told: CatchingUp) => void,
  ) {
    this.#connection = connection;
    this.history = history;
    this.#catchingUp = catchingUp;
    connection.on("frame", (frame) => this.#heard(frame));
    connection.on("open", () => {
      for (const sessionId of this.#feeds.keys()) this.follow(sessionId);
    });
    connection.on("gone", () => {
      for (const feed of this.#feeds.values()) this.#gone(feed);
    });
    connection.on("state", (state) => {
      if (state.status !== "closed") return;
      const all = [...this.#feeds.values()].flatMap((feed) => [...feed.subscriptions]);
      for (const subscription of all) subscription.end(state.error);
    });
  }

  /** A cursor into a session: after an event, or from `tail` events before its head. */
  subscribe(sessionId: string, from: { after?: number | undefined; tail?: number | undefined }, ofTask = false): Subscription {
    const subscription = new Subscription(this, sessionId, from, ofTask);
    const feed = this.#feed(sessionId);
    feed.subscriptions.add(subscription);
    // From here on: here is known while the session is followed.
    const live = feed.followed && !feed.resuming && [...feed.subscriptions].some(({ armed }) => armed);
    if (from.tail === 0 && live && (ofTask || !feed.replaying)) {
      subscription.startAt(feed.position);
      subscription.armed = true;
    }
    this.#connection.connect();
    this.follow(sessionId);
    return subscription;
  }

  /** A cursor into a session that the gateway has just begun to send, from its first event on. */
  subscribeNew(sessionId: string): Subscription {
    // Begun long ago, by the same prompt under the same key: its first events have gone by.
    if (this.#feeds.has(sessionId)) return this.subscribe(sessionId, {}, true);
    const subscription = new Subscription(this, sessionId, { after: 0 }, true);
    const feed = this.#feed(sessionId);
    feed.followed = true;
    feed.subscriptions.add(subscription);
    subscription.armed = true;
    return subscription;
  }

  /** Has the gateway send what the subscriptions of a session wait for. */
  follow(sessionId: string): void {
    const feed = this.#feeds.get(sessionId);
    if (!feed || feed.resuming || !this.#connection.isOpen) return;
    const waiting = [...feed.subscriptions].filter(({ armed, behind }) => !armed && !behind);
    if (waiting.length === 0) return;
    feed.resuming = true;
    const atTail = waiting.filter(({ cursor }) => cursor === undefined);
    const cursors = [...feed.subscriptions].filter(({ behind }) => !behind).map(({ cursor }) => cursor ?? Infinity);
    const from = atTail.length > 0 ? { tail: Math.max(...atTail.map(({ tail }) => tail)) } : { after_seq: Math.min(...cursors) };
    // On the next connection it is asked again from where it is then.
    const asked = this.#connection.request({ type: "session.resume", session_id: sessionId, ...from }, { repeatable: false });
    asked.catch(async (error: unknown) => {
      if (error instanceof ConnectionError) return;
      if (passes(error)) {
        // What was asked after it may have been accepted.
        for (const subscription of feed.subscriptions) if (subscription.ofTask) subscription.startAt(0);
        await pause((error as GatewayError).retryAfterMs ?? RETRY_MS);
        feed.resuming = false;
        this.follow(sessionId);
        return;
      }
      feed.resuming = false;
      for (const subscription of [...feed.subscriptions]) if (!subscription.armed) subscription.end(error as Error);
    });
  }

  /** Forgets a subscription; the last one of a session takes the session with it. */
  drop(subscription: Subscription): void {
    const feed = this.#feeds.get(subscription.sessionId);
    if (!feed?.subscriptions.delete(subscription) || feed.subscriptions.size > 0) return;
    this.#feeds.delete(subscription.sessionId);
    if (feed.followed || feed.resuming) this.unfollow(subscription.sessionId);
  }

  /** Tells the gateway that nobody listens, if so. */
  unfollow(sessionId: string): void {
    if (this.#feeds.has(sessionId) || !this.#connection.isOpen) return;
    const asked = this.#connection.request({ type: "session.unsubscribe", session_id: sessionId }, { repeatable: false });
    asked.catch(() => undefined); // Then the connection is gone, or what comes is passed over.
  }

  #feed(sessionId: string): Feed {
    const feed = this.#feeds.get(sessionId) ?? { subscriptions: new Set(), followed: false, resuming: false, replaying: false, position: 0 };
    this.#feeds.set(sessionId, feed);
    return feed;
  }

  #gone(feed: Feed): void {
    for (const subscription of feed.subscriptions) {
      subscription.armed = false;
      // Its prompt may be accepted by now: the place from which to follow was told to nobody.
      if (subscription.ofTask && feed.resuming) subscription.startAt(0);
    }
    Object.assign(feed, { followed: false, resuming: false, replaying: false, position: 0 });
  }

  #heard(frame: ServerFrame): void {
    if ("seq" in frame) {
      const feed = this.#feeds.get(frame.session_id);
      if (!feed) return;
      feed.position = frame.seq;
      for (const subscription of [...feed.subscriptions]) subscription.take(frame);
      return;
    }
    switch (frame.type) {
      case "session.replay_start": {
        const feed = this.#feeds.get(frame.session_id);
        if (!feed) return;
        Object.assign(feed, { followed: true, resuming: false, replaying: true, position: frame.after_seq });
        for (const subscription of feed.subscriptions) {
          subscription.startAt(frame.after_seq);
          subscription.armed = !subscription.behind && (subscription.cursor ?? 0) >= frame.after_seq;
        }
        this.#tell(frame.session_id, frame.last_seq > frame.after_seq, frame.last_seq);
        this.follow(frame.session_id); // Who is not served by this one.
        return;
      }
      case "session.replay_end": {
        const feed = this.#feeds.get(frame.session_id);
        if (!feed) return;
        Object.assign(feed, { replaying: false, position: Math.max(feed.position, frame.last_seq) });
        for (const subscription of feed.subscriptions) {
          // The last ones may be for admins only.
          if (subscription.armed) subscription.cursor = Math.max(subscription.cursor ?? 0, frame.last_seq);
        }
        this.#tell(frame.session_id, false, frame.last_seq);
        return;
      }
      case "session.state": {
        const feed = this.#feeds.get(frame.session_id);
        if (!feed || frame.status !== "closed") return;
        for (const subscription of [...feed.subscriptions]) {
          if (subscription.armed && (subscription.cursor ?? 0) >= frame.last_seq) subscription.end();
        }
        return;
      }
    }
  }

  #tell(sessionId: string, catchingUp: boolean, lastSeq: number): void {
    this.#catchingUp({ sessionId, catchingUp, lastSeq });
  }
}

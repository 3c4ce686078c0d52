// The open session as it happens: its events become a conversation, once per frame of the screen however many come.

import { computed, effect, signal, untracked } from "@preact/signals";
import type { Answer, ConnectionState, ServerFrame } from "streamgate";
import { announce, announcement } from "./announce";
import { activeTurn, advance, emptyConversation, type Conversation, type Frame, type Turn } from "./conversation";
import { refreshFiles } from "./files";
import { client, gateway, words } from "./gateway";
import { open, sessionId } from "./route";
import { listProblem, profiles, reload, sessions, work } from "./sessions";

export { profiles } from "./sessions";

/** A history that is longer is loaded from here on; all of it when somebody asks. */
const MOST_EVENTS = 20_000;
/** Conversations that are kept, to be gone on with when they are opened again. */
const KEPT = 8;
/** Older than this, an event that comes as a live one says that we are behind. */
const BEHIND_MS = 2_500;
/** Events that are asked for at once. */
const HISTORY_PAGE = 5_000;
/** A replay of fewer events is over before anybody could read that it goes on. */
const SHORT_REPLAY = 400;
/** What has come of a long replay is shown after so long, if there is more to come. */
const PATIENCE_MS = 1_500;

export const conversation = signal<Conversation>(emptyConversation());
/** Why the open session can't be shown. */
export const loadProblem = signal<string | null>(null);
/** Whether all of its history has come, and live events follow. */
export const follows = signal(false);
/** What went wrong with something that has no place of its own. */
export const trouble = signal<string | null>(null);
/** The task that is being stopped. */
export const stopping = signal<string | null>(null);

const online = signal(navigator.onLine);
addEventListener("online", () => { online.value = true; });
addEventListener("offline", () => { online.value = false; });
const socket = signal<ConnectionState["status"]>("idle");

export type Connection = "online" | "offline" | "lost";
export const connection = computed<Connection>(() => {
  if (!online.value) return "offline";
  return socket.value === "open" || socket.value === "idle" ? "online" : "lost";
});

const kept = new Map<string, Conversation>();
const late = signal(false);
/** How much of a long replay has come, from 0 to 1. */
const replayed = signal<number | null>(null);
let skew = Infinity;
let whole: string | null = null;
const opening = signal(0);

/** How much this clock is ahead of the gateway's. */
export const clockSkew = (): number => (Number.isFinite(skew) ? skew : 0);

/** How far a replay is, from 0 to 1; `progress` is `null` where the end is not known. `null`: nothing to catch up with. */
export const catchingUp = computed<{ progress: number | null } | null>(() => {
  if (replayed.value !== null) return { progress: replayed.value };
  return late.value ? { progress: null } : null;
});

export const agentName = computed(() => {
  const listed = sessions.value?.find((session) => session.session_id === sessionId.value);
  const id = conversation.value.state?.profile_id ?? listed?.profile_id;
  return profiles.value.find((profile) => profile.profile_id === id)?.name || "Agent";
});

// Frames wait for the next frame of the screen.

let waiting: Frame[] = [];
let scheduled = false;
/** The long replay that is on its way: the page is made when it has come, not again and again until then. */
let replay: { from: number; to: number; showAt: number } | null = null;

function take(frame: Frame): void {
  waiting.push(frame);
  if (frame.type === "session.replay_start" && frame.last_seq - frame.after_seq > SHORT_REPLAY) {
    replay = { from: frame.after_seq, to: frame.last_seq, showAt: performance.now() + PATIENCE_MS };
  }
  if (frame.type === "session.replay_end") replay = null;
  schedule();
}

function schedule(): void {
  if (scheduled) return;
  scheduled = true;
  // A page that nobody sees gets no frames of the screen.
  if (document.visibilityState === "visible") requestAnimationFrame(flush);
  else setTimeout(flush, 250);
}

document.addEventListener("visibilitychange", () => { if (waiting.length > 0) flush(); });

function flush(): void {
  scheduled = false;
  const last = waiting.at(-1);
  if (!last) return;
  if (replay) {
    if ("seq" in last) replayed.value = (last.seq - replay.from) / (replay.to - replay.from);
    if (performance.now() < replay.showAt) return schedule();
    replay.showAt = performance.now() + PATIENCE_MS;
  } else {
    replayed.value = null;
  }
  const frames = waiting;
  waiting = [];
  const before = conversation.value;
  const next = advance(before, frames);
  if (!next.replay && next.lastAt !== before.lastAt) {
    const age = Date.now() - next.lastAt;
    if (!before.replay && before.state) skew = Math.min(skew, age);
    late.value = before.state !== null && age - clockSkew() > BEHIND_MS;
  }
  if (next.state && next.state !== before.state) {
    follows.value = true;
    late.value = false;
  }
  conversation.value = next;
}

// What is open is followed.

effect(() => {
  const current = gateway.value;
  const id = sessionId.value;
  void opening.value;
  waiting = [];
  replay = null;
  replayed.value = null;
  loadProblem.value = null;
  follows.value = false;
  late.value = false;
  trouble.value = null;
  if (!current || !id) {
    conversation.value = emptyConversation();
    return;
  }
  const ended = new AbortController();
  conversation.value = kept.get(id) ?? emptyConversation();
  // What it reads is none of what this depends on.
  untracked(() => void follow(id, ended.signal));
  const unheard = current.on("frame", (frame: ServerFrame) => {
    const about = frame.type === "session.replay_start" || frame.type === "session.replay_end" || frame.type === "session.state";
    if (about && frame.session_id === id) take(frame);
  });
  return () => {
    ended.abort();
    unheard();
    untracked(() => {
      replay = null;
      flush();
      // Nothing is kept for who signs in next.
      if (gateway.value === current) keep(id, conversation.value);
    });
  };
});

async function follow(id: string, signal: AbortSignal): Promise<void> {
  try {
    if (conversation.value.seq === 0) await load(id, signal);
    if (signal.aborted) return;
    for await (const event of client().follow(id, { after: conversation.value.seq, signal })) {
      if (signal.aborted) return;
      take(event);
    }
  } catch (error) {
    if (!signal.aborted) loadProblem.value = words(error);
  }
}

/** Loads a long history, more or less: thousands of events at once, where the socket has a frame for each. */
async function load(id: string, signal: AbortSignal): Promise<void> {
  try {
    const { rest } = client();
    let end = (sessions.value?.find((session) => session.session_id === id) ?? await rest.session(id)).last_seq;
    const begin = whole === id ? 0 : Math.max(0, end - MOST_EVENTS);
    let loaded = emptyConversation(begin);
    while (end - loaded.seq > SHORT_REPLAY && !signal.aborted) {
      replayed.value = (loaded.seq - begin) / (end - begin);
      const page = await rest.events(id, { after: loaded.seq, limit: HISTORY_PAGE });
      loaded = { ...advance(loaded, page.events), seq: page.next_after_seq };
      end = page.last_seq;
    }
    if (signal.aborted) return;
    conversation.value = loaded;
  } catch {
    // The socket replays it, as soon as there is one; or says why not.
  }
  if (!signal.aborted) replayed.value = null;
}

function keep(id: string, seen: Conversation): void {
  kept.delete(id);
  kept.set(id, { ...seen, replay: null, state: null });
  const oldest = kept.keys().next().value;
  if (kept.size > KEPT && oldest !== undefined) kept.delete(oldest);
}

/** Opens the session anew. */
export function reopen(): void {
  opening.value++;
}

/** Loads what is before the beginning that is shown. */
export function showAll(): void {
  whole = sessionId.value;
  conversation.value = emptyConversation();
  reopen();
  if (whole) kept.delete(whole);
}

effect(() => {
  const current = gateway.value;
  skew = Infinity;
  socket.value = "idle";
  return current?.on("state", ({ status }) => {
    // The first attempt is no loss; a later one is none yet that is over.
    if (status !== "connecting") socket.value = status;
  });
});

let wasOnline = true;
effect(() => {
  const isOnline = connection.value === "online";
  if (isOnline !== wasOnline && untracked(() => gateway.value)) {
    announce(isOnline ? "Connected again." : "The connection is lost.");
    if (isOnline) {
      listProblem.value = null;
      untracked(() => void reload());
    }
  }
  wasOnline = isOnline;
});

// What goes on elsewhere on the page follows what happens here.

const activity = computed(() => {
  const turn = activeTurn(conversation.value);
  const asks = turn?.segments.some((segment) => segment.kind === "ask" && segment.status === "open") ?? false;
  return turn ? (asks ? "asking" : "working") : conversation.value.queue.length > 0 ? "queued" : null;
});

effect(() => {
  const id = sessionId.value;
  const doing = activity.value;
  if (!id || !follows.value) return;
  untracked(() => {
    const next = new Map(work.value);
    if (doing) next.set(id, doing);
    else next.delete(id);
    work.value = next;
    void reload();
    void refreshFiles();
  });
});

// What the user does.

interface Sending {
  readonly key: number;
  readonly sessionId: string | null;
  readonly text: string;
  readonly taskId: string | null;
  /** What had been said before. */
  readonly before: ReadonlySet<string>;
}

/** The tasks that were asked for here and whose end nobody has been told yet. */
export const asked = new Set<string>();

const sending = signal<readonly Sending[]>([]);
let keys = 0;

// Whoever signs in next finds nothing of who was here.
effect(() => {
  if (gateway.value) return;
  kept.clear();
  asked.clear();
  whole = null;
  sending.value = [];
  announcement.value = "";
});

// What is in the conversation has arrived, also if it leaves it again.
effect(() => {
  const { turns, queue } = conversation.value;
  const there = [...turns.slice(-30), ...queue];
  const isThere = (prompt: Sending) => there.some((turn) => prompt.taskId === null
    ? turn.prompt === prompt.text && !prompt.before.has(turn.taskId)
    : turn.taskId === prompt.taskId);
  if (sending.value.some(isThere)) sending.value = sending.value.filter((prompt) => !isThere(prompt));
});

/** Prompts on their way to the open session. */
export const pending = computed(() => {
  const state = connection.value !== "online" ? "Goes out when the connection is back" : sessionId.value ? "Sending…" : "Starting a session…";
  return sending.value.filter((prompt) => prompt.sessionId === sessionId.value)
    .map(({ key, text }) => ({ key, text, state }));
});

/** Sends a prompt to the open session, or to a new one, which is then opened. Returns when it can't be lost. */
export async function send(text: string, profileId?: string): Promise<void> {
  const id = sessionId.value;
  const { turns, queue } = conversation.value;
  const key = ++keys;
  const prompt: Sending = { key, sessionId: id, text, taskId: null, before: new Set([...turns, ...queue].map((turn) => turn.taskId)) };
  sending.value = [...sending.value, prompt];
  const forgetIt = () => { sending.value = sending.value.filter((other) => other.key !== key); };
  try {
    const task = await client().submit(text, id ? { sessionId: id } : profileId ? { profileId } : {});
    asked.add(task.taskId);
    sending.value = sending.value.map((other) => other.key === key ? { ...other, sessionId: task.sessionId, taskId: task.taskId } : other);
    if (id === null && sessionId.value === null) open(task.sessionId);
    // Its events come with the session's.
    void task.events().return?.();
    if (id === null) void reload();
    setTimeout(forgetIt, 60_000);
  } catch (error) {
    forgetIt();
    throw error;
  }
}

/** Says the prompt of a turn once more. */
export function again(turn: Turn): void {
  send(turn.prompt ?? "").catch((error: unknown) => { trouble.value = words(error); });
}

export async function stop(taskId: string): Promise<void> {
  stopping.value = taskId;
  try {
    await client().cancel(taskId);
  } finally {
    stopping.value = null;
  }
}

/** Takes a prompt out of the queue. */
export async function remove(taskId: string): Promise<void> {
  await client().cancel(taskId);
}

export async function answer(taskId: string, askId: string, given: Answer): Promise<void> {
  await client().answer(taskId, given, askId);
}

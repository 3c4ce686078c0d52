// The user's sessions, as they are listed.

import { signal } from "@preact/signals";
import type { ProfileView, SessionView, TaskState } from "streamgate";
import { client, gateway, words } from "./gateway";
import { open, sessionId } from "./route";

export type Session = SessionView;

export type Work = "working" | "asking" | "queued";

/** By last activity; `null` until the first answer. */
export const sessions = signal<readonly Session[] | null>(null);
export const listProblem = signal<string | null>(null);
/** Where older sessions follow, if there are any. */
export const more = signal<string | null>(null);
/** The sessions that have something to do. */
export const work = signal<ReadonlyMap<string, Work>>(new Map());
export const profiles = signal<readonly ProfileView[]>([]);

const POLL_MS = 10_000;
const PAGE = 50;

/** How often something was changed from here: an answer from before that is out of date. */
let changes = 0;

/** Asks anew. Returns what went wrong. */
export async function reload(): Promise<unknown> {
  const asked = gateway.value;
  const before = changes;
  try {
    const page = await client().rest.sessions({ limit: PAGE });
    // Somebody else may have signed in meanwhile.
    if (asked !== gateway.value) return null;
    if (before !== changes) return await reload();
    // Newest first: what is as new as these but not among them is gone.
    const oldest = page.next_cursor === null ? "" : page.sessions.at(-1)?.session_id ?? "";
    sessions.value = sessions.value?.filter((session) => session.session_id < oldest) ?? null;
    merge(page.sessions);
    if (sessions.value!.length <= page.sessions.length) more.value = page.next_cursor;
    const [running, asking, queued] = await Promise.all([
      sessionsWithTasks("running"), sessionsWithTasks("awaiting_answer"), sessionsWithTasks("queued"),
    ]);
    if (asked !== gateway.value) return null;
    work.value = new Map<string, Work>([
      ...queued.map((id) => [id, "queued"] as const),
      ...running.map((id) => [id, "working"] as const),
      ...asking.map((id) => [id, "asking"] as const),
    ]);
    listProblem.value = null;
    return null;
  } catch (error) {
    if (asked === gateway.value) listProblem.value = words(error);
    return error;
  }
}

export async function loadMore(): Promise<void> {
  const asked = gateway.value;
  if (!more.value) return;
  try {
    const page = await client().rest.sessions({ limit: PAGE, cursor: more.value });
    if (asked !== gateway.value) return;
    merge(page.sessions);
    more.value = page.next_cursor;
  } catch (error) {
    if (asked === gateway.value) listProblem.value = words(error);
  }
}

export async function loadProfiles(): Promise<void> {
  const asked = gateway.value;
  try {
    const known = (await client().rest.profiles()).profiles;
    if (asked === gateway.value) profiles.value = known;
  } catch {
    // There is a default that the gateway knows.
  }
}

export async function rename(id: string, title: string): Promise<void> {
  const asked = gateway.value;
  const renamed = await client().rest.rename(id, title);
  if (asked !== gateway.value) return;
  changes++;
  merge([renamed]);
}

export async function erase(id: string): Promise<void> {
  await client().rest.erase(id);
  changes++;
  sessions.value = sessions.value?.filter((session) => session.session_id !== id) ?? null;
  if (sessionId.value === id) open(null);
}

/** Forgets everything: another user may come. */
export function forget(): void {
  sessions.value = null;
  more.value = null;
  listProblem.value = null;
  work.value = new Map();
  profiles.value = [];
}

async function sessionsWithTasks(status: TaskState): Promise<string[]> {
  const { tasks } = await client().rest.tasks({ status, limit: 100 });
  return tasks.map((task) => task.session_id);
}

function merge(news: readonly Session[]): void {
  const all = new Map((sessions.value ?? []).map((session) => [session.session_id, session]));
  for (const session of news) all.set(session.session_id, session);
  sessions.value = [...all.values()].sort((left, right) => right.updated_at - left.updated_at);
}

setInterval(() => {
  if (gateway.value && document.visibilityState === "visible") void reload();
}, POLL_MS);
document.addEventListener("visibilitychange", () => {
  if (gateway.value && document.visibilityState === "visible") void reload();
});

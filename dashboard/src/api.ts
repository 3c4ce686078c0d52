// What the dashboard asks for over REST.

import type { TaskState, Usage } from "streamgate";
import { client } from "./gateway";

export interface Session {
  session_id: string;
  status: "active" | "closed";
  title: string | null;
  profile_id: string;
  last_seq: number;
  usage: Usage;
  updated_at: number;
}

export interface Profile {
  profile_id: string;
  name: string;
  default: boolean;
}

export interface FileEntry {
  path: string;
  size: number;
  modified_ms: number;
}

async function json<T>(method: string, path: string, query?: Record<string, unknown>, body?: object): Promise<T> {
  const response = await client().rest.request(method, path, query, body && JSON.stringify(body));
  return await response.json() as T;
}

export function listSessions(cursor?: string): Promise<{ sessions: Session[]; next_cursor: string | null }> {
  return json("GET", "sessions", { limit: 50, cursor });
}

export function readSession(id: string): Promise<Session> {
  return json("GET", `sessions/${id}`);
}

export function renameSession(id: string, title: string): Promise<Session> {
  return json("PATCH", `sessions/${id}`, {}, { title });
}

export async function eraseSession(id: string): Promise<void> {
  await client().rest.request("DELETE", `sessions/${id}`);
}

export async function sessionsWithTasks(status: TaskState): Promise<string[]> {
  const page = await json<{ tasks: { session_id: string }[] }>("GET", "tasks", { status, limit: 100 });
  return page.tasks.map((task) => task.session_id);
}

export async function listProfiles(): Promise<Profile[]> {
  return (await json<{ profiles: Profile[] }>("GET", "profiles")).profiles;
}

export async function listFiles(id: string): Promise<FileEntry[]> {
  return (await json<{ files: FileEntry[] }>("GET", `sessions/${id}/files`)).files;
}

export async function readFile(id: string, path: string): Promise<Blob> {
  return await (await client().rest.request("GET", filePath(id, path))).blob();
}

export async function putFile(id: string, path: string, content: Blob): Promise<void> {
  await client().rest.request("PUT", filePath(id, path), {}, content);
}

function filePath(id: string, path: string): string {
  return `sessions/${id}/files/${path.split("/").map(encodeURIComponent).join("/")}`;
}

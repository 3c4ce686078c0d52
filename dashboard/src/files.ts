// The files of the open session's workspace.

import { effect, signal } from "@preact/signals";
import type { FileEntry } from "streamgate";
import { client, gateway, words } from "./gateway";
import { sessionId } from "./route";

export const filesShown = signal(false);
export const files = signal<readonly FileEntry[] | null>(null);
export const filesProblem = signal<string | null>(null);
export const uploading = signal(0);

let wanted = 0;

/** Asks anew what there is. */
export async function refreshFiles(): Promise<void> {
  const id = sessionId.value;
  const request = ++wanted;
  if (!id || !filesShown.value) return;
  try {
    const listed = (await client().rest.files(id)).files;
    if (request !== wanted) return;
    files.value = listed;
    filesProblem.value = null;
  } catch (error) {
    if (request === wanted) filesProblem.value = words(error);
  }
}

effect(() => {
  const isIn = gateway.value !== null;
  void sessionId.value;
  wanted++; // What was asked before is another's.
  files.value = null;
  filesProblem.value = null;
  if (isIn && filesShown.value) void refreshFiles();
});

/** Puts files into the workspace and says what they are called there. */
export async function uploadFiles(id: string, chosen: readonly File[]): Promise<string[]> {
  uploading.value += chosen.length;
  try {
    const names: string[] = [];
    for (const file of chosen) {
      await client().rest.writeFile(id, file.name, file);
      names.push(file.name);
    }
    return names;
  } finally {
    uploading.value -= chosen.length;
    void refreshFiles();
  }
}

export type Preview =
  | { kind: "text"; text: string; cut: boolean }
  | { kind: "image"; url: string }
  | { kind: "none"; why: string };

async function read(id: string, path: string): Promise<Blob> {
  return await (await client().rest.readFile(id, path)).blob();
}

/** Text beyond this is not shown. */
const TEXT_BYTES = 200_000;
const IMAGES = /^image\/(png|jpeg|gif|webp|avif|bmp|svg\+xml)$/;

/** What can be shown of a file. An image's address has to be revoked. */
export async function preview(id: string, path: string): Promise<Preview> {
  const blob = await read(id, path);
  const kind = blob.type.split(";")[0]!;
  if (IMAGES.test(kind)) return { kind: "image", url: URL.createObjectURL(blob) };
  const beginning = new Uint8Array(await blob.slice(0, TEXT_BYTES).arrayBuffer());
  if (beginning.includes(0)) return { kind: "none", why: "This is not text: it can be downloaded." };
  // The cut may be within a character.
  const text = new TextDecoder().decode(beginning, { stream: blob.size > TEXT_BYTES });
  return { kind: "text", text, cut: blob.size > TEXT_BYTES };
}

export async function download(id: string, path: string): Promise<void> {
  const url = URL.createObjectURL(await read(id, path));
  const link = document.createElement("a");
  link.href = url;
  link.download = path.split("/").at(-1)!;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

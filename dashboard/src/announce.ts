// What a screen reader says without being asked: the few things that matter, never each word of an answer.

import { signal } from "@preact/signals";

export const announcement = signal("");

export function announce(text: string): void {
  // The same words twice would not be said twice.
  announcement.value = announcement.value === text ? `${text} ` : text;
}

// Which session is open: the address says it, so that it can be kept, shared and gone back from.

import { signal } from "@preact/signals";

const read = () => /^#(sess_[0-9a-f]{32})$/.exec(location.hash)?.[1] ?? null;

/** The session that is open; `null` for the place where a new one begins. */
export const sessionId = signal<string | null>(read());

addEventListener("hashchange", () => { sessionId.value = read(); });

export function open(id: string | null): void {
  if (id === sessionId.value) return;
  history.pushState(null, "", id ? `#${id}` : location.pathname);
  sessionId.value = id;
}

addEventListener("popstate", () => { sessionId.value = read(); });

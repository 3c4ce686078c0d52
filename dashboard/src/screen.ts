// What kind of screen this is.

import { signal, type Signal } from "@preact/signals";

function matches(query: string): Signal<boolean> {
  const list = matchMedia(query);
  const result = signal(list.matches);
  list.addEventListener("change", () => { result.value = list.matches; });
  return result;
}

export const sizes = {
  phone: matches("(max-width: 720px)"),
  /** Too narrow for files beside the conversation. */
  narrow: matches("(max-width: 1080px)"),
};

/** The time, to the half minute, for what says how long ago something was. */
export const now = signal(Date.now());

setInterval(() => { now.value = Date.now(); }, 30_000);

// The one client of this page, while somebody is signed in.

import { signal } from "@preact/signals";
import { GatewayError, Streamgate } from "streamgate";

export const gateway = signal<Streamgate | null>(null);

/** The page is served below the gateway's address, whatever path a proxy gives it. */
const url = new URL(".", location.href);

export function connect(token: string | undefined): Streamgate {
  gateway.value?.close();
  const client = new Streamgate({ url, token, heartbeatMs: 10_000 });
  gateway.value = client;
  return client;
}

export function disconnect(): void {
  gateway.value?.close();
  gateway.value = null;
}

/** The client, for what only somebody who is signed in can ask for. */
export function client(): Streamgate {
  if (!gateway.value) throw new Error("You are signed out.");
  return gateway.value;
}

/** What went wrong, for people. */
export function words(error: unknown): string {
  if (error instanceof GatewayError && error.code === "SESSION_NOT_FOUND") return "There is no such session, or it is not yours.";
  if (error instanceof TypeError) return "The gateway can't be reached now.";
  return error instanceof Error ? sentence(error.message) : String(error);
}

function sentence(text: string): string {
  const begun = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?…]$/.test(begun) ? begun : `${begun}.`;
}

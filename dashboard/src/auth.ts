// Who is here: a token from the printed link, kept for as long as the tab; or the session cookie of the application
// that the gateway is part of.

import { signal } from "@preact/signals";
import { GatewayError } from "streamgate";
import { connect, disconnect, gateway, words } from "./gateway";
import { forget, loadProfiles, reload } from "./sessions";

export interface Account {
  status: "starting" | "out" | "checking" | "in";
  /** Signed in by a cookie: somebody else's to end. */
  byCookie: boolean;
  problem: string | null;
}

export const account = signal<Account>({ status: "starting", byCookie: false, problem: null });

const KEY = "streamgate.token";

/** Signs in with what there is. */
export async function start(): Promise<void> {
  addEventListener("hashchange", () => {
    const token = tokenFromLink();
    if (token) void signIn(token);
  });
  const token = tokenFromLink() ?? sessionStorage.getItem(KEY);
  await enter(token ?? undefined, token ? "This token does not do any more." : null);
}

export async function signIn(token: string): Promise<void> {
  account.value = { status: "checking", byCookie: false, problem: null };
  await enter(token, "This token is unknown, expired or revoked.");
}

export function signOut(problem: string | null = null): void {
  sessionStorage.removeItem(KEY);
  disconnect();
  forget();
  account.value = { status: "out", byCookie: false, problem };
}

async function enter(token: string | undefined, refusal: string | null): Promise<void> {
  forget();
  disconnect(); // What was another's is not kept.
  const client = connect(token);
  const problem = await reload();
  if (gateway.value !== client) return; // Somebody else has signed in meanwhile.
  if (problem instanceof GatewayError && (problem.code === "UNAUTHORIZED" || problem.code === "FORBIDDEN")) {
    signOut(problem.code === "FORBIDDEN" ? words(problem) : refusal);
    return;
  }
  if (token) sessionStorage.setItem(KEY, token);
  account.value = { status: "in", byCookie: token === undefined, problem: null };
  // A credential that ends while the page is open.
  client.on("state", (state) => {
    if (state.status === "closed" && state.error) signOut(words(state.error));
  });
  client.connect();
  await loadProfiles();
}

/** The token of a link, which leaves the address bar and the history at once. */
function tokenFromLink(): string | null {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (token !== null) history.replaceState(null, "", location.pathname + location.search);
  return token || null;
}

// REST beside the socket, with its types.
import { GatewayError } from "./errors.ts";
import type { HistoryPage } from "./feeds.ts";

export class Rest {
  readonly #base: URL;
  readonly #token: () => Promise<string | undefined>;
  readonly #fetch: typeof fetch;

  constructor(base: URL, token: () => Promise<string | undefined>, fetch: typeof globalThis.fetch) {
    this.#base = base;
    this.#token = token;
    this.#fetch = fetch;
  }

  /** A part of a session's history, oldest first. */
  events(sessionId: string, options: { after?: number; limit?: number } = {}): Promise<HistoryPage> {
    return this.#json("GET", `sessions/${sessionId}/events`, { after_seq: options.after, limit: options.limit });
  }

  async #json<T>(method: string, path: string, query: Record<string, unknown> = {}, body?: unknown): Promise<T> {
    const response = await this.request(method, path, query, body === undefined ? undefined : JSON.stringify(body));
    return (response.status === 204 ? undefined : await response.json()) as T;
  }

  /** Any request below `/v1/`; throws what the gateway refuses. */
  async request(method: string, path: string, query: Record<string, unknown> = {}, body?: BodyInit): Promise<Response> {
    const url = new URL(`v1/${path}`, this.#base);
    for (const [name, value] of Object.entries(query)) if (value !== undefined) url.searchParams.set(name, String(value));
    const token = await this.#token();
    const headers: Record<string, string> = token === undefined ? {} : { authorization: `Bearer ${token}` };
    if (typeof body === "string") headers["content-type"] = "application/json";
    const response = await this.#fetch(url, { method, headers, ...(body === undefined ? {} : { body }) });
    if (response.ok) return response;
    const told = (await response.json().catch(() => ({}))) as { error?: ConstructorParameters<typeof GatewayError>[0] };
    const error = told.error ?? { code: "INTERNAL_ERROR", message: `${method} ${url.pathname}: HTTP ${response.status}` };
    throw new GatewayError(error, response.status);
  }
}

// The WebSocket that this place has: the browser's, Node's (22 and newer), or the package `ws`.

/** As much of a WebSocket as is needed here. */
export interface Socket {
  readonly readyState: number;
  readonly protocol: string;
  send(text: string): void;
  close(code?: number, reason?: string): void;
  onopen: ((event: never) => void) | null;
  onmessage: ((event: never) => void) | null;
  onerror: ((event: never) => void) | null;
  onclose: ((event: never) => void) | null;
}

/** What makes one: `WebSocket` of a browser, of Node, of `ws`. */
export type SocketConstructor = new (url: string, protocols: string[]) => Socket;

export async function findSocket(): Promise<SocketConstructor> {
  const found: unknown = (globalThis as { WebSocket?: unknown }).WebSocket;
  if (found) return found as SocketConstructor;
  try {
    // Not for bundlers: where they are used there is a WebSocket.
    const name = "ws";
    const module = await import(/* @vite-ignore */ /* webpackIgnore: true */ name);
    return module.WebSocket as SocketConstructor;
  } catch {
    throw new Error("this Node has no WebSocket: `npm install ws`, or pass one as `WebSocket`");
  }
}

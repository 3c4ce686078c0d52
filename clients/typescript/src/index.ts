/** Client of streamgate, the gateway that streams AI agents at work. */
export { Streamgate, Task } from "./client.ts";
export type { FollowOptions, StreamgateEvents, StreamgateOptions, SubmitOptions } from "./client.ts";
export type { ConnectionState } from "./connection.ts";
export { ConnectionError, GatewayError } from "./errors.ts";
export type { CatchingUp } from "./feeds.ts";
export type { PageOptions, Rest } from "./rest.ts";
export type { Socket, SocketConstructor } from "./socket.ts";
export * from "./protocol.ts";

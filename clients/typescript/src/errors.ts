// What can go wrong, in the gateway's words or in the connection's.
import { CLOSE_CODES, type Detail, type ErrorCode, type ErrorFrame } from "./protocol.ts";

/** The gateway refused something. `message` is for people, `code` for programs. */
export class GatewayError extends Error {
  override readonly name = "GatewayError";
  readonly code: ErrorCode;
  /** When trying again makes sense. */
  readonly retryAfterMs: number | undefined;
  readonly sessionId: string | undefined;
  readonly taskId: string | undefined;
  /** The session's last event, for `CURSOR_AHEAD`. */
  readonly lastSeq: number | undefined;
  /** What is wrong with each field, for `VALIDATION_FAILED`. */
  readonly details: readonly Detail[];
  /** Of an answer over HTTP. */
  readonly status: number | undefined;

  constructor(error: Omit<ErrorFrame, "type">, status?: number) {
    super(error.message);
    this.code = error.code;
    this.retryAfterMs = error.retry_after_ms;
    this.sessionId = error.session_id;
    this.taskId = error.task_id;
    this.lastSeq = error.last_seq;
    this.details = error.details ?? [];
    this.status = status;
  }
}

/** The connection is gone, and with it the answer; or it can't be had at all. */
export class ConnectionError extends Error {
  override readonly name = "ConnectionError";
  /** What the socket was closed with. */
  readonly closeCode: number | undefined;

  constructor(message: string, closeCode?: number) {
    super(message);
    this.closeCode = closeCode;
  }
}

/** What to do after a close: the ranges tell it of codes that are not known here too. */
export type Verdict =
  /** The same credential will not do another time. */
  | "give up"
  /** What was asked broke the connection; asked again it would break the next one. */
  | "drop requests"
  | "back off"
  | "at once";

/** What a close code asks of a client. */
export function verdictOf(code: number): Verdict {
  if (code >= 4000 && code < 4100) return "give up";
  if (code >= 4200 && code < 4300) return "at once";
  if ([1002, 1003, 1007, 1009].includes(code)) return "drop requests";
  return "back off";
}

/** The word for a close code. */
export function closeWord(code: number): string {
  return CLOSE_CODES.find((known) => known.code === code)?.word ?? "connection lost";
}

/** What a close reason says of when to come back, if it does. */
export function retryAfterMs(reason: string): number | undefined {
  try {
    const told: unknown = JSON.parse(reason).retry_after_ms;
    return typeof told === "number" && told >= 0 ? told : undefined;
  } catch {
    return undefined;
  }
}

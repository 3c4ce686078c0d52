// Made from schemas/ by `npm run generate`. Not to be edited.

/** The subprotocol that asks for all event types. */
export const SUBPROTOCOL = "streamgate.v1";

/** The codes that the gateway closes a socket with. */
export const CLOSE_CODES = [
  {
    "code": 1000,
    "retry_after_ms": null,
    "word": "normal"
  },
  {
    "code": 1002,
    "retry_after_ms": null,
    "word": "protocol_error"
  },
  {
    "code": 1003,
    "retry_after_ms": null,
    "word": "binary_refused"
  },
  {
    "code": 1007,
    "retry_after_ms": null,
    "word": "bad_utf8"
  },
  {
    "code": 1009,
    "retry_after_ms": null,
    "word": "frame_too_big"
  },
  {
    "code": 1011,
    "retry_after_ms": 1000,
    "word": "internal_error"
  },
  {
    "code": 1012,
    "retry_after_ms": 500,
    "word": "restart"
  },
  {
    "code": 1013,
    "retry_after_ms": 1000,
    "word": "try_later"
  },
  {
    "code": 4001,
    "retry_after_ms": null,
    "word": "unauthorized"
  },
  {
    "code": 4003,
    "retry_after_ms": null,
    "word": "origin_refused"
  },
  {
    "code": 4100,
    "retry_after_ms": 5000,
    "word": "flooding"
  },
  {
    "code": 4102,
    "retry_after_ms": 1000,
    "word": "slow_consumer"
  },
  {
    "code": 4103,
    "retry_after_ms": 1000,
    "word": "no_pong"
  },
  {
    "code": 4104,
    "retry_after_ms": 5000,
    "word": "too_many_connections"
  },
  {
    "code": 4200,
    "retry_after_ms": 500,
    "word": "max_age"
  }
] as const;

/**
 * When it was accepted.
 */
export type Timestamp = number;
/**
 * Its session.
 */
export type SessionId = string;
/**
 * A repeat under an idempotency key is answered like the first.
 */
export type TaskState = "queued" | "starting" | "running" | "awaiting_answer" | "completed" | "failed" | "cancelled";
/**
 * The task it makes.
 */
export type TaskId = string;
/**
 * What the user says to a question.
 */
export type Answer =
  | string
  | {
      [k: string]: string;
    };
/**
 * The answer.
 */
export type Answer1 =
  | string
  | {
      [k: string]: string;
    };
/**
 * One question an agent put to the user.
 */
export type AskId = string;
/**
 * Its session.
 */
export type SessionId1 = string;
/**
 * Whose it was.
 */
export type TaskId1 = string;
/**
 * Its session.
 */
export type SessionId2 = string;
/**
 * How it ended.
 */
export type TaskState1 = "queued" | "starting" | "running" | "awaiting_answer" | "completed" | "failed" | "cancelled";
/**
 * Which.
 */
export type TaskId2 = string;
/**
 * A box that an agent lives in, with its workspace.
 */
export type ContainerId = string;
/**
 * What went wrong, for programs. Source: docs/protocol.md §4.
 */
export type ErrorCode =
  | "UNAUTHORIZED"
  | "FORBIDDEN"
  | "INVALID_JSON"
  | "UNKNOWN_TYPE"
  | "VALIDATION_FAILED"
  | "NOT_FOUND"
  | "SESSION_NOT_FOUND"
  | "SESSION_CLOSED"
  | "CURSOR_AHEAD"
  | "CONFLICT"
  | "RATE_LIMITED"
  | "QUEUE_FULL"
  | "TOO_MANY_CONNECTIONS"
  | "PAYLOAD_TOO_LARGE"
  | "CAPACITY"
  | "STORAGE_UNAVAILABLE"
  | "INTERNAL_ERROR";
/**
 * Position of an event within its session: 1 for the first, no gaps; 0 is "before the first".
 *
 * This interface was referenced by `undefined`'s JSON-Schema definition
 * via the `patternProperty` "^sess_[0-9a-f]{32}$".
 */
export type Seq = number;
/**
 * What a client calls one of its frames; echoed in the direct reply.
 */
export type RequestId = string;
/**
 * A conversation: one journal, one workspace.
 */
export type SessionId3 = string;
/**
 * One prompt and all the work it causes.
 */
export type TaskId3 = string;
/**
 * What happened in a session: journalled, numbered by `seq`, replayed.
 */
export type SessionEvent =
  | UserMessageEvent
  | TaskQueuedEvent
  | TaskStartedEvent
  | TaskTokenEvent
  | TaskToolUseEvent
  | TaskToolResultEvent
  | TaskAskUserEvent
  | TaskAnsweredEvent
  | TaskSystemPromptEvent
  | TurnContinuingEvent
  | TurnDoneEvent
  | TaskDoneEvent
  | TaskFailedEvent
  | SessionClosedEvent;
/**
 * A moment: Unix milliseconds.
 */
export type Timestamp1 = number;
/**
 * Where a task is in its life: `queued → starting → running ⇄ awaiting_answer →` one of the last three.
 */
export type TaskState2 = "queued" | "starting" | "running" | "awaiting_answer" | "completed" | "failed" | "cancelled";
/**
 * Position of an event within its session: 1 for the first, no gaps; 0 is "before the first".
 */
export type Seq1 = number;
/**
 * Position of an event within its session: 1 for the first, no gaps; 0 is "before the first".
 */
export type Seq2 = number;
/**
 * How a task relates to its session.
 */
export type Mode = "session" | "batch";
/**
 * Its handle, to revoke it by.
 */
export type TokenId = string;
/**
 * Whose it is.
 */
export type UserId = string;
/**
 * What to do with a prompt when the session is at work.
 */
export type OnBusy = "queue" | "reject" | "interrupt";
/**
 * Which waiting task of a session goes first; equal ones go in order of arrival.
 */
export type Priority = "low" | "normal" | "high";
/**
 * Which kind of agent runs, as `prof_` and a slug (`prof_demo`).
 */
export type ProfileId = string;
/**
 * What to send as `profile_id`.
 */
export type ProfileId1 = string;
/**
 * A moment: Unix milliseconds.
 */
export type Timestamp2 = number;
/**
 * Position of an event within its session: 1 for the first, no gaps; 0 is "before the first".
 */
export type Seq3 = number;
/**
 * A conversation, or for one batch task.
 */
export type Mode1 = "session" | "batch";
/**
 * Which agent.
 */
export type ProfileId2 = string;
/**
 * A conversation: one journal, one workspace.
 */
export type SessionId4 = string;
/**
 * Whether it takes turns.
 */
export type SessionStatus = "active" | "closed";
/**
 * A moment: Unix milliseconds.
 */
export type Timestamp3 = number;
/**
 * Its owner.
 */
export type UserId1 = string;
/**
 * Whether a session still takes turns.
 */
export type SessionStatus1 = "active" | "closed";
/**
 * A box that an agent lives in, with its workspace.
 */
export type ContainerId1 = string;
/**
 * Which kind of agent runs, as `prof_` and a slug (`prof_demo`).
 */
export type ProfileId3 = string;
/**
 * A conversation: one journal, one workspace.
 */
export type SessionId5 = string;
/**
 * A moment: Unix milliseconds.
 */
export type Timestamp4 = number;
/**
 * How a task relates to its session.
 */
export type Mode2 = "session" | "batch";
/**
 * Which waiting task of a session goes first; equal ones go in order of arrival.
 */
export type Priority1 = "low" | "normal" | "high";
/**
 * A conversation: one journal, one workspace.
 */
export type SessionId6 = string;
/**
 * Where a task is in its life: `queued → starting → running ⇄ awaiting_answer →` one of the last three.
 */
export type TaskState3 = "queued" | "starting" | "running" | "awaiting_answer" | "completed" | "failed" | "cancelled";
/**
 * One prompt and all the work it causes.
 */
export type TaskId4 = string;
/**
 * Who wants it.
 */
export type UserId2 = string;
/**
 * An API token's public handle; never the token itself.
 */
export type TokenId1 = string;
/**
 * A moment: Unix milliseconds.
 */
export type Timestamp5 = number;
/**
 * Its handle, to revoke it by.
 */
export type TokenId2 = string;
/**
 * Whose it is.
 */
export type UserId3 = string;
/**
 * Who somebody is: an API token's user or a Better Auth user id. Opaque text.
 */
export type UserId4 = string;
/**
 * A moment: Unix milliseconds.
 */
export type Timestamp6 = number;
/**
 * Position of an event within its session: 1 for the first, no gaps; 0 is "before the first".
 */
export type Seq4 = number;
/**
 * How a task relates to its session.
 */
export type Mode3 = "session" | "batch";
/**
 * Which kind of agent runs, as `prof_` and a slug (`prof_demo`).
 */
export type ProfileId4 = string;
/**
 * A conversation: one journal, one workspace.
 */
export type SessionId7 = string;
/**
 * Whether it takes turns.
 */
export type SessionStatus2 = "active" | "closed";
/**
 * A moment: Unix milliseconds.
 */
export type Timestamp7 = number;
/**
 * Its owner.
 */
export type UserId5 = string;
/**
 * A moment: Unix milliseconds.
 */
export type Timestamp8 = number;
/**
 * How a task relates to its session.
 */
export type Mode4 = "session" | "batch";
/**
 * Which waiting task of a session goes first; equal ones go in order of arrival.
 */
export type Priority2 = "low" | "normal" | "high";
/**
 * A conversation: one journal, one workspace.
 */
export type SessionId8 = string;
/**
 * Where a task is in its life: `queued → starting → running ⇄ awaiting_answer →` one of the last three.
 */
export type TaskState4 = "queued" | "starting" | "running" | "awaiting_answer" | "completed" | "failed" | "cancelled";
/**
 * One prompt and all the work it causes.
 */
export type TaskId5 = string;
/**
 * Who wants it.
 */
export type UserId6 = string;
/**
 * Everything that a client can say.
 */
export type ClientFrame =
  | TaskSubmitFrame
  | SessionTurnFrame
  | TaskCancelFrame
  | SessionStartFrame
  | SessionResumeFrame
  | TaskAnswerFrame
  | SessionEndFrame
  | SessionUnsubscribeFrame
  | PingFrame;
/**
 * What is about the connection: not journalled, without `seq`.
 */
export type ConnectionFrame =
  | SessionReadyFrame
  | SessionReplayStartFrame
  | SessionReplayEndFrame
  | SessionStateFrame
  | AckFrame
  | PongFrame
  | ErrorFrame1;
/**
 * Everything that the gateway says.
 */
export type ServerFrame =
  | UserMessageEvent
  | TaskQueuedEvent
  | TaskStartedEvent
  | TaskTokenEvent
  | TaskToolUseEvent
  | TaskToolResultEvent
  | TaskAskUserEvent
  | TaskAnsweredEvent
  | TaskSystemPromptEvent
  | TurnContinuingEvent
  | TurnDoneEvent
  | TaskDoneEvent
  | TaskFailedEvent
  | SessionClosedEvent
  | SessionReadyFrame
  | SessionReplayStartFrame
  | SessionReplayEndFrame
  | SessionStateFrame
  | AckFrame
  | PongFrame
  | ErrorFrame1;

/**
 * A prompt that was accepted.
 */
export interface AcceptedTask {
  created_at: Timestamp;
  session_id: SessionId;
  status: TaskState;
  task_id: TaskId;
}
/**
 * What the user says to a question.
 */
export interface AnswerBody {
  answer: Answer1;
  /**
   * Which question; the oldest open one if absent.
   */
  ask_id?: AskId | null;
}
/**
 * A question that is answered.
 */
export interface AnsweredTask {
  session_id: SessionId1;
  task_id: TaskId1;
}
/**
 * A task that is cancelled, or had ended before.
 */
export interface CancelledTask {
  session_id: SessionId2;
  status: TaskState1;
  task_id: TaskId2;
}
/**
 * What is wrong with one field.
 */
export interface Detail {
  /**
   * The field's name; `a.b` for a field in a field.
   */
  field: string;
  /**
   * What it must be.
   */
  problem: string;
}
/**
 * An error over HTTP.
 */
export interface ErrorBody {
  error: ErrorFrame;
}
/**
 * What is wrong.
 */
export interface ErrorFrame {
  /**
   * For programs.
   */
  code: ErrorCode;
  /**
   * What is wrong with each field, for `VALIDATION_FAILED`.
   */
  details?: Detail[];
  /**
   * The session's last event, for `CURSOR_AHEAD`.
   */
  last_seq?: Seq;
  /**
   * For people: what happened and what to do.
   */
  message: string;
  /**
   * The frame that this answers.
   */
  request_id?: RequestId;
  /**
   * When trying again makes sense, in milliseconds.
   */
  retry_after_ms?: number;
  /**
   * The session it is about.
   */
  session_id?: SessionId3;
  /**
   * The task it is about.
   */
  task_id?: TaskId3;
  type: "error";
}
/**
 * Something can't be done.
 */
export interface ErrorFrame1 {
  /**
   * For programs.
   */
  code: ErrorCode;
  /**
   * What is wrong with each field, for `VALIDATION_FAILED`.
   */
  details?: Detail[];
  /**
   * The session's last event, for `CURSOR_AHEAD`.
   */
  last_seq?: Seq;
  /**
   * For people: what happened and what to do.
   */
  message: string;
  /**
   * The frame that this answers.
   */
  request_id?: RequestId;
  /**
   * When trying again makes sense, in milliseconds.
   */
  retry_after_ms?: number;
  /**
   * The session it is about.
   */
  session_id?: SessionId3;
  /**
   * The task it is about.
   */
  task_id?: TaskId3;
  type: "error";
}
/**
 * A page of a session's history, as `events` writes it piece by piece.
 */
export interface EventPage {
  /**
   * Oldest first; not those that are for others.
   */
  events: SessionEvent[];
  last_seq: Seq1;
  next_after_seq: Seq2;
}
/**
 * **[x]** A prompt was accepted.
 */
export interface UserMessageEvent {
  /**
   * Its place in the session.
   */
  seq: Seq;
  /**
   * Whose it is.
   */
  session_id: SessionId3;
  /**
   * The task that it is of.
   */
  task_id?: TaskId3;
  /**
   * The prompt.
   */
  text: string;
  /**
   * When it happened.
   */
  ts: Timestamp1;
  type: "user.message";
}
/**
 * **[x]** A task waits; 0 = next.
 */
export interface TaskQueuedEvent {
  /**
   * How many tasks of the session go first.
   */
  position: number;
  /**
   * Its place in the session.
   */
  seq: Seq;
  /**
   * Whose it is.
   */
  session_id: SessionId3;
  /**
   * The task that it is of.
   */
  task_id?: TaskId3;
  /**
   * When it happened.
   */
  ts: Timestamp1;
  type: "task:queued";
}
/**
 * **[x]** A task's turn begins.
 */
export interface TaskStartedEvent {
  /**
   * Where.
   */
  container_id: ContainerId;
  /**
   * What the container is called.
   */
  container_name: string;
  /**
   * Its place in the session.
   */
  seq: Seq;
  /**
   * Whose it is.
   */
  session_id: SessionId3;
  /**
   * The task that it is of.
   */
  task_id?: TaskId3;
  /**
   * When it happened.
   */
  ts: Timestamp1;
  type: "task:started";
}
/**
 * A chunk of the model's text.
 */
export interface TaskTokenEvent {
  /**
   * Its place in the session.
   */
  seq: Seq;
  /**
   * Whose it is.
   */
  session_id: SessionId3;
  /**
   * The task that it is of.
   */
  task_id?: TaskId3;
  /**
   * The chunk.
   */
  text: string;
  /**
   * Whether it was cut at the event limit.
   */
  truncated?: boolean;
  /**
   * When it happened.
   */
  ts: Timestamp1;
  type: "task:token";
}
/**
 * The agent called a tool.
 */
export interface TaskToolUseEvent {
  /**
   * Its arguments.
   */
  input: {
    [k: string]: unknown;
  };
  /**
   * Its place in the session.
   */
  seq: Seq;
  /**
   * Whose it is.
   */
  session_id: SessionId3;
  /**
   * The task that it is of.
   */
  task_id?: TaskId3;
  /**
   * The tool's name.
   */
  tool: string;
  /**
   * What its result will carry too.
   */
  tool_use_id: string;
  /**
   * Whether the input was cut at the event limit: it is then `{"truncated": "<its beginning>"}`.
   */
  truncated?: boolean;
  /**
   * When it happened.
   */
  ts: Timestamp1;
  type: "task:tool_use";
}
/**
 * A tool's result.
 */
export interface TaskToolResultEvent {
  /**
   * Whether the tool failed.
   */
  is_error: boolean;
  /**
   * What it put out.
   */
  output: string;
  /**
   * Its place in the session.
   */
  seq: Seq;
  /**
   * Whose it is.
   */
  session_id: SessionId3;
  /**
   * The task that it is of.
   */
  task_id?: TaskId3;
  /**
   * The tool's name.
   */
  tool: string;
  /**
   * Which use it answers.
   */
  tool_use_id: string;
  /**
   * Whether the output was cut at the event limit.
   */
  truncated?: boolean;
  /**
   * When it happened.
   */
  ts: Timestamp1;
  type: "task:tool_result";
}
/**
 * The agent asks the user.
 */
export interface TaskAskUserEvent {
  /**
   * Names the question in `task.answer`.
   */
  ask_id: AskId;
  /**
   * The questions.
   */
  questions: Question[];
  /**
   * Its place in the session.
   */
  seq: Seq;
  /**
   * Whose it is.
   */
  session_id: SessionId3;
  /**
   * The task that it is of.
   */
  task_id?: TaskId3;
  /**
   * When it happened.
   */
  ts: Timestamp1;
  type: "task:ask_user";
}
/**
 * One question of an `AskUserQuestion`.
 */
export interface Question {
  /**
   * A word or two above it.
   */
  header?: string;
  /**
   * Whether several may be chosen.
   */
  multiSelect?: boolean;
  /**
   * The choices; none for a free answer.
   */
  options: QuestionOption[];
  /**
   * The question's words; also its key in a structured answer.
   */
  question: string;
}
/**
 * One choice of a question.
 */
export interface QuestionOption {
  /**
   * What the choice means.
   */
  description?: string;
  /**
   * What the button says.
   */
  label: string;
}
/**
 * **[x]** A question was answered.
 */
export interface TaskAnsweredEvent {
  /**
   * With what: text, or an object question → answer.
   */
  answer: Answer;
  /**
   * Which.
   */
  ask_id: AskId;
  /**
   * Its place in the session.
   */
  seq: Seq;
  /**
   * Whose it is.
   */
  session_id: SessionId3;
  /**
   * The task that it is of.
   */
  task_id?: TaskId3;
  /**
   * When it happened.
   */
  ts: Timestamp1;
  type: "task:answered";
}
/**
 * **admins** The system prompt of this turn.
 */
export interface TaskSystemPromptEvent {
  /**
   * The whole prompt.
   */
  prompt: string;
  /**
   * Its place in the session.
   */
  seq: Seq;
  /**
   * Whose it is.
   */
  session_id: SessionId3;
  /**
   * The task that it is of.
   */
  task_id?: TaskId3;
  /**
   * When it happened.
   */
  ts: Timestamp1;
  type: "task:system_prompt";
}
/**
 * The orchestrator continues an agent that stopped at its turn limit.
 */
export interface TurnContinuingEvent {
  /**
   * 1 for the first continuation.
   */
  continuation: number;
  /**
   * After which no more follow.
   */
  max_continuations: number;
  /**
   * Its place in the session.
   */
  seq: Seq;
  /**
   * Whose it is.
   */
  session_id: SessionId3;
  /**
   * The task that it is of.
   */
  task_id?: TaskId3;
  /**
   * When it happened.
   */
  ts: Timestamp1;
  type: "turn.continuing";
}
/**
 * The end of a turn.
 */
export interface TurnDoneEvent {
  /**
   * Whether the agent told the cost.
   */
  cost_known: boolean;
  /**
   * US dollars.
   */
  cost_usd: number;
  /**
   * From start to end, questions included, in milliseconds.
   */
  duration_ms: number;
  /**
   * Tokens the model read.
   */
  input_tokens: number;
  /**
   * Model calls of this turn.
   */
  num_turns: number;
  /**
   * Tokens the model wrote.
   */
  output_tokens: number;
  /**
   * All the text of the turn, polished; links to files are placeholders here and signed when shown.
   */
  result_text: string;
  /**
   * Its place in the session.
   */
  seq: Seq;
  /**
   * Whose it is.
   */
  session_id: SessionId3;
  /**
   * Why it ended: `end_turn`, `max_turns` or `cancelled`; more may come.
   */
  stop_reason: string;
  /**
   * The task that it is of.
   */
  task_id?: TaskId3;
  /**
   * Whether the text was cut at the event limit.
   */
  truncated?: boolean;
  /**
   * When it happened.
   */
  ts: Timestamp1;
  type: "turn.done";
}
/**
 * A task ended as `completed` or `cancelled`.
 */
export interface TaskDoneEvent {
  /**
   * Its place in the session.
   */
  seq: Seq;
  /**
   * Whose it is.
   */
  session_id: SessionId3;
  /**
   * How.
   */
  status: TaskState2;
  /**
   * The task that it is of.
   */
  task_id?: TaskId3;
  /**
   * When it happened.
   */
  ts: Timestamp1;
  type: "task:done";
}
/**
 * A task ended by an error.
 */
export interface TaskFailedEvent {
  /**
   * US dollars.
   */
  cost_usd: number;
  /**
   * The cause, in words.
   */
  error: string;
  /**
   * Tokens the model read.
   */
  input_tokens: number;
  /**
   * Tokens the model wrote.
   */
  output_tokens: number;
  /**
   * Whether the same prompt may succeed later.
   */
  retryable: boolean;
  /**
   * Its place in the session.
   */
  seq: Seq;
  /**
   * Whose it is.
   */
  session_id: SessionId3;
  /**
   * The task that it is of.
   */
  task_id?: TaskId3;
  /**
   * When it happened.
   */
  ts: Timestamp1;
  type: "task:failed";
}
/**
 * **[x]** The session ended.
 */
export interface SessionClosedEvent {
  /**
   * Why: `ended` (somebody ended it), `batch_done` or `no_container`; more may come.
   */
  reason: string;
  /**
   * Its place in the session.
   */
  seq: Seq;
  /**
   * Whose it is.
   */
  session_id: SessionId3;
  /**
   * The task that it is of.
   */
  task_id?: TaskId3;
  /**
   * When it happened.
   */
  ts: Timestamp1;
  type: "session.closed";
}
/**
 * One regular file.
 */
export interface FileEntry {
  /**
   * Unix milliseconds.
   */
  modified_ms: number;
  /**
   * From the workspace's root: `plots/a.png`.
   */
  path: string;
  /**
   * Bytes.
   */
  size: number;
}
/**
 * The files of a workspace.
 */
export interface FileList {
  /**
   * In order of their paths.
   */
  files: FileEntry[];
}
/**
 * A process that is alive.
 */
export interface Health {
  /**
   * It is.
   */
  ok: boolean;
  pool: PoolStats;
  /**
   * Which streamgate.
   */
  version: string;
}
/**
 * Its boxes.
 */
export interface PoolStats {
  /**
   * Boxes that have an owner and nothing to do.
   */
  idle: number;
  /**
   * The most that there may be.
   */
  limit: number;
  /**
   * Boxes at work or being started.
   */
  running: number;
  /**
   * Boxes that wait for an owner.
   */
  warm: number;
}
/**
 * A token that was made.
 */
export interface NewToken {
  /**
   * When it ends, if it does.
   */
  expires_at: Timestamp1 | null;
  /**
   * Its first characters.
   */
  hint: string;
  /**
   * What its maker calls it.
   */
  name: string | null;
  /**
   * Its roles, comma-separated; `user` for none.
   */
  role: string;
  /**
   * The token. It is not shown again.
   */
  token: string;
  token_id: TokenId;
  user_id: UserId;
}
/**
 * The open question of a session, as `session.state` shows it.
 */
export interface PendingAsk {
  /**
   * Names it in `task.answer`.
   */
  ask_id: AskId;
  /**
   * What is asked.
   */
  questions: Question[];
  /**
   * Who asks.
   */
  task_id: TaskId3;
}
/**
 * How full it is.
 */
export interface PoolStats1 {
  /**
   * Boxes that have an owner and nothing to do.
   */
  idle: number;
  /**
   * The most that there may be.
   */
  limit: number;
  /**
   * Boxes at work or being started.
   */
  running: number;
  /**
   * Boxes that wait for an owner.
   */
  warm: number;
}
/**
 * Agents to choose from.
 */
export interface ProfileList {
  /**
   * In order of their ids.
   */
  profiles: ProfileView[];
}
/**
 * An agent to choose.
 */
export interface ProfileView {
  /**
   * The tools it may use; `null` where that is the agent's own business.
   */
  allowed_tools: string[] | null;
  /**
   * Whether it is the one that is taken when none is named.
   */
  default: boolean;
  /**
   * Its model, if it names one.
   */
  model: string | null;
  /**
   * What people call it.
   */
  name: string;
  profile_id: ProfileId1;
}
/**
 * Whether traffic should come here.
 */
export interface Readiness {
  /**
   * Whether the gateway is about to end.
   */
  draining: boolean;
  /**
   * Whether it should.
   */
  ready: boolean;
  /**
   * Whether the database answers.
   */
  storage: boolean;
}
/**
 * What to call a session.
 */
export interface RenameBody {
  /**
   * `null` takes the title away.
   */
  title: string | null;
}
/**
 * Sessions, newest first.
 */
export interface SessionList {
  /**
   * Where the next page starts; `null` on the last one.
   */
  next_cursor: string | null;
  /**
   * Those of this page.
   */
  sessions: SessionView[];
}
/**
 * A session, as lists show it.
 */
export interface SessionView {
  /**
   * The box it lives in, once it has one.
   */
  container_id: ContainerId | null;
  /**
   * What that is called.
   */
  container_name: string | null;
  created_at: Timestamp2;
  last_seq: Seq3;
  mode: Mode1;
  profile_id: ProfileId2;
  session_id: SessionId4;
  status: SessionStatus;
  /**
   * What its user calls it; else the first words of its first prompt.
   */
  title: string | null;
  updated_at: Timestamp3;
  usage: Usage;
  user_id: UserId1;
}
/**
 * Summed over its tasks.
 */
export interface Usage {
  /**
   * US dollars.
   */
  cost_usd: number;
  /**
   * Tokens the model read.
   */
  input_tokens: number;
  /**
   * Tokens the model wrote.
   */
  output_tokens: number;
}
/**
 * A session to be.
 */
export interface StartBody {
  /**
   * Which agent; the user's default if absent.
   */
  profile_id?: ProfileId | null;
  /**
   * What to call the session; if absent, the first words of its first prompt.
   */
  title?: string | null;
}
/**
 * A session whose container is up.
 */
export interface StartedSession {
  container_id: ContainerId1;
  /**
   * What the container is called.
   */
  container_name: string;
  profile_id: ProfileId3;
  session_id: SessionId5;
}
/**
 * A prompt and how to run it. The body of `POST /v1/tasks` too.
 */
export interface Submit {
  /**
   * The tools the agent may use; the profile's if absent.
   *
   * @maxItems 256
   */
  allowed_tools?: string[] | null;
  /**
   * Makes a repeat harmless.
   */
  idempotency_key?: string | null;
  /**
   * US dollars after which the task is not continued.
   */
  max_budget_usd?: number | null;
  /**
   * Model calls before the agent stops and is continued.
   */
  max_turns?: number | null;
  /**
   * A turn of a conversation, or alone.
   */
  mode?: Mode | null;
  /**
   * Which model.
   */
  model?: string | null;
  /**
   * What to do when the session is at work.
   */
  on_busy?: OnBusy | null;
  /**
   * Its place in line.
   */
  priority?: Priority | null;
  /**
   * Which agent; the session's or the user's default if absent.
   */
  profile_id?: ProfileId | null;
  /**
   * What the user wants.
   */
  prompt: string;
  /**
   * Which session; a new one if absent.
   */
  session_id?: SessionId3 | null;
  /**
   * Working time, questions excluded.
   */
  timeout_seconds?: number | null;
}
/**
 * Tasks, newest first.
 */
export interface TaskList {
  /**
   * Where the next page starts; `null` on the last one.
   */
  next_cursor: string | null;
  /**
   * Those of this page.
   */
  tasks: TaskView[];
}
/**
 * A task, as lists show it.
 */
export interface TaskView {
  created_at: Timestamp4;
  /**
   * When it ended.
   */
  ended_at: Timestamp1 | null;
  mode: Mode2;
  priority: Priority1;
  /**
   * What is wanted; its beginning only in lists.
   */
  prompt: string;
  session_id: SessionId6;
  /**
   * When its turn came.
   */
  started_at: Timestamp1 | null;
  status: TaskState3;
  task_id: TaskId4;
  user_id: UserId2;
}
/**
 * What a task passes to its run. Stored with the task as JSON.
 */
export interface TaskOptions {
  /**
   * The tools the agent may use; the profile's if absent.
   *
   * @maxItems 256
   */
  allowed_tools?: string[];
  /**
   * US dollars after which the task is not continued.
   */
  max_budget_usd?: number;
  /**
   * Model calls before the agent stops and is continued.
   */
  max_turns?: number;
  /**
   * Which model.
   */
  model?: string;
  /**
   * Working time, questions excluded.
   */
  timeout_seconds?: number;
}
/**
 * What came of a task.
 */
export interface TaskResult {
  /**
   * Why it failed.
   */
  error: string | null;
  /**
   * All its text, polished, links signed.
   */
  result_text: string | null;
  /**
   * Whether the same prompt may succeed later.
   */
  retryable: boolean | null;
  /**
   * Why its turn ended: `end_turn`, `max_turns` or `cancelled`; more may come. `null`: it failed.
   */
  stop_reason: string | null;
  usage: Usage1;
}
/**
 * What it used.
 */
export interface Usage1 {
  /**
   * US dollars.
   */
  cost_usd: number;
  /**
   * Tokens the model read.
   */
  input_tokens: number;
  /**
   * Tokens the model wrote.
   */
  output_tokens: number;
}
/**
 * A task as `session.state` shows it.
 */
export interface TaskSummary {
  /**
   * Its place in line.
   */
  priority: Priority;
  /**
   * Where it is in its life.
   */
  status: TaskState2;
  /**
   * Which.
   */
  task_id: TaskId3;
}
/**
 * A token to be.
 */
export interface TokenBody {
  /**
   * When it ends, in the future; never if absent.
   */
  expires_at?: Timestamp1 | null;
  /**
   * What to call it.
   */
  name?: string | null;
  /**
   * What its user may do besides, at most what its maker may: `admin`.
   */
  role?: string | null;
}
/**
 * Tokens, newest first.
 */
export interface TokenList {
  /**
   * Where the next page starts; `null` on the last one.
   */
  next_cursor: string | null;
  /**
   * Those of this page.
   */
  tokens: TokenView[];
}
/**
 * A token, without its secret part.
 */
export interface TokenView {
  created_at: Timestamp5;
  /**
   * When it ends, if it does.
   */
  expires_at: Timestamp1 | null;
  /**
   * Its first characters.
   */
  hint: string;
  /**
   * What its maker calls it.
   */
  name: string | null;
  /**
   * Its roles, comma-separated; `user` for none.
   */
  role: string;
  token_id: TokenId2;
  user_id: UserId3;
}
/**
 * What an agent used. Tokens are counts; cost is in US dollars.
 */
export interface Usage2 {
  /**
   * US dollars.
   */
  cost_usd: number;
  /**
   * Tokens the model read.
   */
  input_tokens: number;
  /**
   * Tokens the model wrote.
   */
  output_tokens: number;
}
/**
 * All of a session.
 */
export interface WholeSession {
  /**
   * The box it lives in, once it has one.
   */
  container_id: ContainerId | null;
  /**
   * What that is called.
   */
  container_name: string | null;
  created_at: Timestamp6;
  last_seq: Seq4;
  mode: Mode3;
  /**
   * The oldest open question.
   */
  pending_ask: PendingAsk | null;
  profile_id: ProfileId4;
  /**
   * The tasks that wait, next first.
   */
  queue: TaskSummary[];
  session_id: SessionId7;
  status: SessionStatus2;
  /**
   * The task at work.
   */
  task: TaskSummary | null;
  /**
   * What its user calls it; else the first words of its first prompt.
   */
  title: string | null;
  updated_at: Timestamp7;
  usage: Usage3;
  user_id: UserId5;
}
/**
 * Summed over its tasks.
 */
export interface Usage3 {
  /**
   * US dollars.
   */
  cost_usd: number;
  /**
   * Tokens the model read.
   */
  input_tokens: number;
  /**
   * Tokens the model wrote.
   */
  output_tokens: number;
}
/**
 * All of a task.
 */
export interface WholeTask {
  created_at: Timestamp8;
  /**
   * When it ended.
   */
  ended_at: Timestamp1 | null;
  mode: Mode4;
  options: TaskOptions1;
  /**
   * Its open question.
   */
  pending_ask: PendingAsk | null;
  priority: Priority2;
  /**
   * What is wanted; its beginning only in lists.
   */
  prompt: string;
  /**
   * What came of it, once it has ended.
   */
  result: TaskResult | null;
  session_id: SessionId8;
  /**
   * When its turn came.
   */
  started_at: Timestamp1 | null;
  status: TaskState4;
  task_id: TaskId5;
  user_id: UserId6;
}
/**
 * The agent's settings.
 */
export interface TaskOptions1 {
  /**
   * The tools the agent may use; the profile's if absent.
   *
   * @maxItems 256
   */
  allowed_tools?: string[];
  /**
   * US dollars after which the task is not continued.
   */
  max_budget_usd?: number;
  /**
   * Model calls before the agent stops and is continued.
   */
  max_turns?: number;
  /**
   * Which model.
   */
  model?: string;
  /**
   * Working time, questions excluded.
   */
  timeout_seconds?: number;
}
/**
 * Done, and will not be lost.
 */
export interface AckFrame {
  /**
   * The task's place in line.
   */
  position?: number;
  /**
   * Echo.
   */
  request_id: RequestId;
  /**
   * The session it is about.
   */
  session_id?: SessionId3;
  /**
   * The task's or the session's status.
   */
  status?: string;
  /**
   * The task it is about.
   */
  task_id?: TaskId3;
  type: "ack";
}
/**
 * `task.submit`: a prompt. `session.turn` is the same; its `session_id` is required.
 */
export interface TaskSubmitFrame {
  /**
   * The tools the agent may use; the profile's if absent.
   *
   * @maxItems 256
   */
  allowed_tools?: string[] | null;
  /**
   * Makes a repeat harmless.
   */
  idempotency_key?: string | null;
  /**
   * US dollars after which the task is not continued.
   */
  max_budget_usd?: number | null;
  /**
   * Model calls before the agent stops and is continued.
   */
  max_turns?: number | null;
  /**
   * A turn of a conversation, or alone.
   */
  mode?: Mode | null;
  /**
   * Which model.
   */
  model?: string | null;
  /**
   * What to do when the session is at work.
   */
  on_busy?: OnBusy | null;
  /**
   * Its place in line.
   */
  priority?: Priority | null;
  /**
   * Which agent; the session's or the user's default if absent.
   */
  profile_id?: ProfileId | null;
  /**
   * What the user wants.
   */
  prompt: string;
  /**
   * Asks for a direct reply.
   */
  request_id?: RequestId | null;
  /**
   * Which session; a new one if absent.
   */
  session_id?: SessionId3 | null;
  /**
   * Working time, questions excluded.
   */
  timeout_seconds?: number | null;
  type: "task.submit";
}
/**
 * `session.turn`: a prompt into a session that is there.
 */
export interface SessionTurnFrame {
  /**
   * The tools the agent may use; the profile's if absent.
   *
   * @maxItems 256
   */
  allowed_tools?: string[] | null;
  /**
   * Makes a repeat harmless.
   */
  idempotency_key?: string | null;
  /**
   * US dollars after which the task is not continued.
   */
  max_budget_usd?: number | null;
  /**
   * Model calls before the agent stops and is continued.
   */
  max_turns?: number | null;
  /**
   * A turn of a conversation, or alone.
   */
  mode?: Mode | null;
  /**
   * Which model.
   */
  model?: string | null;
  /**
   * What to do when the session is at work.
   */
  on_busy?: OnBusy | null;
  /**
   * Its place in line.
   */
  priority?: Priority | null;
  /**
   * Which agent; the session's or the user's default if absent.
   */
  profile_id?: ProfileId | null;
  /**
   * What the user wants.
   */
  prompt: string;
  /**
   * Asks for a direct reply.
   */
  request_id?: RequestId | null;
  /**
   * Which session.
   */
  session_id: SessionId3;
  /**
   * Working time, questions excluded.
   */
  timeout_seconds?: number | null;
  type: "session.turn";
}
/**
 * `task.cancel`: stops a task, or takes it out of the line.
 */
export interface TaskCancelFrame {
  /**
   * Asks for a direct reply.
   */
  request_id?: RequestId | null;
  /**
   * Which task.
   */
  task_id: TaskId3;
  type: "task.cancel";
}
/**
 * `session.start`: a new session, and follow it.
 */
export interface SessionStartFrame {
  /**
   * Which agent; the user's default if absent.
   */
  profile_id?: ProfileId | null;
  /**
   * Asks for a direct reply.
   */
  request_id?: RequestId | null;
  /**
   * What to call the session.
   */
  title?: string | null;
  type: "session.start";
}
/**
 * `session.resume`: follow a session, its history first.
 */
export interface SessionResumeFrame {
  /**
   * Replay what follows this event; 0 or absent: from the first.
   */
  after_seq?: Seq | null;
  /**
   * Asks for a direct reply.
   */
  request_id?: RequestId | null;
  /**
   * Which session.
   */
  session_id: SessionId3;
  /**
   * Replay the last so many events.
   */
  tail?: number | null;
  type: "session.resume";
}
/**
 * `task.answer`: what the user says to a question.
 */
export interface TaskAnswerFrame {
  /**
   * The answer.
   */
  answer: Answer;
  /**
   * Which question; the oldest open one if absent.
   */
  ask_id?: AskId | null;
  /**
   * Asks for a direct reply.
   */
  request_id?: RequestId | null;
  /**
   * Which task.
   */
  task_id: TaskId3;
  type: "task.answer";
}
/**
 * `session.end`: no more turns; history and files stay.
 */
export interface SessionEndFrame {
  /**
   * Asks for a direct reply.
   */
  request_id?: RequestId | null;
  /**
   * Which session.
   */
  session_id: SessionId3;
  type: "session.end";
}
/**
 * `session.unsubscribe`: follow a session no more.
 */
export interface SessionUnsubscribeFrame {
  /**
   * Asks for a direct reply.
   */
  request_id?: RequestId | null;
  /**
   * Which session.
   */
  session_id: SessionId3;
  type: "session.unsubscribe";
}
/**
 * `ping`: are you there, and where am I?
 */
export interface PingFrame {
  /**
   * Asks for a direct reply.
   */
  request_id?: RequestId | null;
  type: "ping";
}
/**
 * A session was created.
 */
export interface SessionReadyFrame {
  /**
   * Its container, which is up.
   */
  container_id: ContainerId;
  /**
   * What the container is called.
   */
  container_name: string;
  /**
   * Its profile.
   */
  profile_id: ProfileId;
  /**
   * Echo.
   */
  request_id?: RequestId;
  /**
   * The new session.
   */
  session_id: SessionId3;
  /**
   * The task, when a `task.submit` created the session.
   */
  task_id?: TaskId3;
  type: "session.ready";
}
/**
 * A replay begins.
 */
export interface SessionReplayStartFrame {
  /**
   * The replay holds what follows this.
   */
  after_seq: Seq;
  /**
   * And ends here.
   */
  last_seq: Seq;
  /**
   * Echo.
   */
  request_id?: RequestId;
  /**
   * Which session.
   */
  session_id: SessionId3;
  type: "session.replay_start";
}
/**
 * A replay ended; live events follow.
 */
export interface SessionReplayEndFrame {
  /**
   * Frames sent.
   */
  count: number;
  /**
   * Where it ended.
   */
  last_seq: Seq;
  /**
   * Which session.
   */
  session_id: SessionId3;
  type: "session.replay_end";
}
/**
 * **[x]** All that a UI needs on attach.
 */
export interface SessionStateFrame {
  /**
   * The last event.
   */
  last_seq: Seq;
  /**
   * The oldest open question.
   */
  pending_ask: PendingAsk | null;
  /**
   * Which agent.
   */
  profile_id: ProfileId;
  /**
   * The tasks that wait, next first.
   */
  queue: TaskSummary[];
  /**
   * Which session.
   */
  session_id: SessionId3;
  /**
   * Whether it takes turns.
   */
  status: SessionStatus1;
  /**
   * The task at work.
   */
  task: TaskSummary | null;
  /**
   * What its user calls it.
   */
  title: string | null;
  type: "session.state";
  /**
   * Summed over all turns.
   */
  usage: Usage2;
}
/**
 * Reply to `ping`.
 */
export interface PongFrame {
  /**
   * Echo.
   */
  request_id?: RequestId;
  /**
   * Per followed session, the last event sent on this connection.
   */
  sessions: {
    [k: string]: Seq;
  };
  type: "pong";
}

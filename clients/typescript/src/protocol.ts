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
 * What a client calls one of its frames; echoed in the direct reply.
 */
export type RequestId = string;
/**
 * A conversation: one journal, one workspace.
 */
export type SessionId = string;
/**
 * One prompt and all the work it causes.
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
 * One question an agent put to the user.
 */
export type AskId = string;
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
 * How a task relates to its session.
 */
export type Mode = "session" | "batch";
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
 * Position of an event within its session: 1 for the first, no gaps; 0 is "before the first".
 *
 * This interface was referenced by `undefined`'s JSON-Schema definition
 * via the `patternProperty` "^sess_[0-9a-f]{32}$".
 */
export type Seq = number;
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
  | ErrorFrame;
/**
 * A box that an agent lives in, with its workspace.
 */
export type ContainerId = string;
/**
 * Where a task is in its life: `queued → starting → running ⇄ awaiting_answer →` one of the last three.
 */
export type TaskState = "queued" | "starting" | "running" | "awaiting_answer" | "completed" | "failed" | "cancelled";
/**
 * Whether a session still takes turns.
 */
export type SessionStatus = "active" | "closed";
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
  | ErrorFrame;
/**
 * A moment: Unix milliseconds.
 */
export type Timestamp = number;
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
  session_id?: SessionId;
  /**
   * The task's or the session's status.
   */
  status?: string;
  /**
   * The task it is about.
   */
  task_id?: TaskId;
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
  mode?: Mode & string;
  /**
   * Which model.
   */
  model?: string | null;
  /**
   * What to do when the session is at work.
   */
  on_busy?: OnBusy & string;
  /**
   * Its place in line.
   */
  priority?: Priority & string;
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
  session_id?: SessionId | null;
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
  mode?: Mode & string;
  /**
   * Which model.
   */
  model?: string | null;
  /**
   * What to do when the session is at work.
   */
  on_busy?: OnBusy & string;
  /**
   * Its place in line.
   */
  priority?: Priority & string;
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
  session_id: SessionId;
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
  task_id: TaskId;
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
  session_id: SessionId;
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
  task_id: TaskId;
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
  session_id: SessionId;
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
  session_id: SessionId;
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
  session_id: SessionId;
  /**
   * The task, when a `task.submit` created the session.
   */
  task_id?: TaskId;
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
  session_id: SessionId;
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
  session_id: SessionId;
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
  session_id: SessionId;
  /**
   * Whether it takes turns.
   */
  status: SessionStatus;
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
  usage: Usage;
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
  task_id: TaskId;
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
  status: TaskState;
  /**
   * Which.
   */
  task_id: TaskId;
}
/**
 * What an agent used. Tokens are counts; cost is in US dollars.
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
/**
 * Something can't be done.
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
  session_id?: SessionId;
  /**
   * The task it is about.
   */
  task_id?: TaskId;
  type: "error";
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
  session_id: SessionId;
  /**
   * The task that it is of.
   */
  task_id?: TaskId;
  /**
   * The prompt.
   */
  text: string;
  /**
   * When it happened.
   */
  ts: Timestamp;
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
  session_id: SessionId;
  /**
   * The task that it is of.
   */
  task_id?: TaskId;
  /**
   * When it happened.
   */
  ts: Timestamp;
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
  session_id: SessionId;
  /**
   * The task that it is of.
   */
  task_id?: TaskId;
  /**
   * When it happened.
   */
  ts: Timestamp;
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
  session_id: SessionId;
  /**
   * The task that it is of.
   */
  task_id?: TaskId;
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
  ts: Timestamp;
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
  session_id: SessionId;
  /**
   * The task that it is of.
   */
  task_id?: TaskId;
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
  ts: Timestamp;
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
  session_id: SessionId;
  /**
   * The task that it is of.
   */
  task_id?: TaskId;
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
  ts: Timestamp;
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
  session_id: SessionId;
  /**
   * The task that it is of.
   */
  task_id?: TaskId;
  /**
   * When it happened.
   */
  ts: Timestamp;
  type: "task:ask_user";
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
  session_id: SessionId;
  /**
   * The task that it is of.
   */
  task_id?: TaskId;
  /**
   * When it happened.
   */
  ts: Timestamp;
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
  session_id: SessionId;
  /**
   * The task that it is of.
   */
  task_id?: TaskId;
  /**
   * When it happened.
   */
  ts: Timestamp;
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
  session_id: SessionId;
  /**
   * The task that it is of.
   */
  task_id?: TaskId;
  /**
   * When it happened.
   */
  ts: Timestamp;
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
  session_id: SessionId;
  /**
   * `end_turn`, `max_turns` or `cancelled`.
   */
  stop_reason: string;
  /**
   * The task that it is of.
   */
  task_id?: TaskId;
  /**
   * Whether the text was cut at the event limit.
   */
  truncated?: boolean;
  /**
   * When it happened.
   */
  ts: Timestamp;
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
  session_id: SessionId;
  /**
   * How.
   */
  status: TaskState;
  /**
   * The task that it is of.
   */
  task_id?: TaskId;
  /**
   * When it happened.
   */
  ts: Timestamp;
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
  session_id: SessionId;
  /**
   * The task that it is of.
   */
  task_id?: TaskId;
  /**
   * When it happened.
   */
  ts: Timestamp;
  type: "task:failed";
}
/**
 * **[x]** The session ended.
 */
export interface SessionClosedEvent {
  /**
   * Why: `ended`, `batch_done`, `no_container`.
   */
  reason: string;
  /**
   * Its place in the session.
   */
  seq: Seq;
  /**
   * Whose it is.
   */
  session_id: SessionId;
  /**
   * The task that it is of.
   */
  task_id?: TaskId;
  /**
   * When it happened.
   */
  ts: Timestamp;
  type: "session.closed";
}

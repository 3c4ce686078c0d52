"""Everything that goes over the wire. Made from schemas/ by generate.py; not to be edited."""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypeAlias, TypedDict, Union

# The subprotocol that asks for all event types.
SUBPROTOCOL = "streamgate.v1"


# The codes that the gateway closes a socket with.
CLOSE_CODES = {1000: 'normal', 1002: 'protocol_error', 1003: 'binary_refused', 1007: 'bad_utf8', 1009: 'frame_too_big', 1011: 'internal_error', 1012: 'restart', 1013: 'try_later', 4001: 'unauthorized', 4003: 'origin_refused', 4100: 'flooding', 4102: 'slow_consumer', 4103: 'no_pong', 4104: 'too_many_connections', 4200: 'max_age'}


class AcceptedTask(TypedDict):
    """A prompt that was accepted."""

    created_at: Timestamp
    session_id: SessionId
    status: TaskState
    task_id: TaskId


class AckFrame(TypedDict):
    """Done, and will not be lost."""

    position: NotRequired[int]
    request_id: RequestId
    session_id: NotRequired[SessionId]
    status: NotRequired[str]
    task_id: NotRequired[TaskId]
    type: Literal["ack"]


# What the user says to a question.
Answer: TypeAlias = "Union[str, dict[str, str]]"


class AnswerBody(TypedDict):
    """What the user says to a question."""

    answer: Answer
    ask_id: NotRequired[Union[AskId, None]]


class AnsweredTask(TypedDict):
    """A question that is answered."""

    session_id: SessionId
    task_id: TaskId


# One question an agent put to the user.
AskId: TypeAlias = "str"


class CancelledTask(TypedDict):
    """A task that is cancelled, or had ended before."""

    session_id: SessionId
    status: TaskState
    task_id: TaskId


# Everything that a client can say.
ClientFrame: TypeAlias = "Union[TaskSubmitFrame, SessionTurnFrame, TaskCancelFrame, SessionStartFrame, SessionResumeFrame, TaskAnswerFrame, SessionEndFrame, SessionUnsubscribeFrame, PingFrame]"


# What is about the connection: not journalled, without `seq`.
ConnectionFrame: TypeAlias = "Union[SessionReadyFrame, SessionReplayStartFrame, SessionReplayEndFrame, SessionStateFrame, AckFrame, PongFrame, ErrorFrame]"


# A box that an agent lives in, with its workspace.
ContainerId: TypeAlias = "str"


class Detail(TypedDict):
    """What is wrong with one field."""

    field: str
    problem: str


class ErrorBody(TypedDict):
    """An error over HTTP."""

    error: ErrorFrame


# What went wrong, for programs. Source: docs/protocol.md §4.
ErrorCode: TypeAlias = "Literal[\"UNAUTHORIZED\", \"FORBIDDEN\", \"INVALID_JSON\", \"UNKNOWN_TYPE\", \"VALIDATION_FAILED\", \"NOT_FOUND\", \"SESSION_NOT_FOUND\", \"SESSION_CLOSED\", \"CURSOR_AHEAD\", \"CONFLICT\", \"RATE_LIMITED\", \"QUEUE_FULL\", \"TOO_MANY_CONNECTIONS\", \"PAYLOAD_TOO_LARGE\", \"CAPACITY\", \"STORAGE_UNAVAILABLE\", \"INTERNAL_ERROR\"]"


class ErrorFrame(TypedDict):
    """Something can't be done."""

    code: ErrorCode
    details: NotRequired[list[Detail]]
    last_seq: NotRequired[Seq]
    message: str
    request_id: NotRequired[RequestId]
    retry_after_ms: NotRequired[int]
    session_id: NotRequired[SessionId]
    task_id: NotRequired[TaskId]
    type: Literal["error"]


class EventPage(TypedDict):
    """A page of a session's history, as `events` writes it piece by piece."""

    events: list[SessionEvent]
    last_seq: Seq
    next_after_seq: Seq


class FileEntry(TypedDict):
    """One regular file."""

    modified_ms: int
    path: str
    size: int


class FileList(TypedDict):
    """The files of a workspace."""

    files: list[FileEntry]


class Health(TypedDict):
    """A process that is alive."""

    ok: bool
    pool: PoolStats
    version: str


# How a task relates to its session.
Mode: TypeAlias = "Literal[\"session\", \"batch\"]"


class NewToken(TypedDict):
    """A token that was made."""

    expires_at: Union[Timestamp, None]
    hint: str
    name: Union[str, None]
    role: str
    token: str
    token_id: TokenId
    user_id: UserId


# What to do with a prompt when the session is at work.
OnBusy: TypeAlias = "Literal[\"queue\", \"reject\", \"interrupt\"]"


class PendingAsk(TypedDict):
    """The open question of a session, as `session.state` shows it."""

    ask_id: AskId
    questions: list[Question]
    task_id: TaskId


class PingFrame(TypedDict):
    """`ping`: are you there, and where am I?"""

    request_id: NotRequired[Union[RequestId, None]]
    type: Literal["ping"]


class PongFrame(TypedDict):
    """Reply to `ping`."""

    request_id: NotRequired[RequestId]
    sessions: dict[str, Any]
    type: Literal["pong"]


class PoolStats(TypedDict):
    """How full it is."""

    idle: int
    limit: int
    running: int
    warm: int


# Which waiting task of a session goes first; equal ones go in order of arrival.
Priority: TypeAlias = "Literal[\"low\", \"normal\", \"high\"]"


# Which kind of agent runs, as `prof_` and a slug (`prof_demo`).
ProfileId: TypeAlias = "str"


class ProfileList(TypedDict):
    """Agents to choose from."""

    profiles: list[ProfileView]


class ProfileView(TypedDict):
    """An agent to choose."""

    allowed_tools: Union[list[str], None]
    default: bool
    model: Union[str, None]
    name: str
    profile_id: ProfileId


class Question(TypedDict):
    """One question of an `AskUserQuestion`."""

    header: NotRequired[str]
    multiSelect: NotRequired[bool]
    options: list[QuestionOption]
    question: str


class QuestionOption(TypedDict):
    """One choice of a question."""

    description: NotRequired[str]
    label: str


class Readiness(TypedDict):
    """Whether traffic should come here."""

    draining: bool
    ready: bool
    storage: bool


class RenameBody(TypedDict):
    """What to call a session."""

    title: Union[str, None]


# What a client calls one of its frames; echoed in the direct reply.
RequestId: TypeAlias = "str"


# Position of an event within its session: 1 for the first, no gaps; 0 is "before the first".
Seq: TypeAlias = "int"


# Everything that the gateway says.
ServerFrame: TypeAlias = "Union[UserMessageEvent, TaskQueuedEvent, TaskStartedEvent, TaskTokenEvent, TaskToolUseEvent, TaskToolResultEvent, TaskAskUserEvent, TaskAnsweredEvent, TaskSystemPromptEvent, TurnContinuingEvent, TurnDoneEvent, TaskDoneEvent, TaskFailedEvent, SessionClosedEvent, SessionReadyFrame, SessionReplayStartFrame, SessionReplayEndFrame, SessionStateFrame, AckFrame, PongFrame, ErrorFrame]"


class SessionClosedEvent(TypedDict):
    """**[x]** The session ended."""

    reason: str
    seq: Seq
    session_id: SessionId
    task_id: NotRequired[TaskId]
    ts: Timestamp
    type: Literal["session.closed"]


class SessionEndFrame(TypedDict):
    """`session.end`: no more turns; history and files stay."""

    request_id: NotRequired[Union[RequestId, None]]
    session_id: SessionId
    type: Literal["session.end"]


# What happened in a session: journalled, numbered by `seq`, replayed.
SessionEvent: TypeAlias = "Union[UserMessageEvent, TaskQueuedEvent, TaskStartedEvent, TaskTokenEvent, TaskToolUseEvent, TaskToolResultEvent, TaskAskUserEvent, TaskAnsweredEvent, TaskSystemPromptEvent, TurnContinuingEvent, TurnDoneEvent, TaskDoneEvent, TaskFailedEvent, SessionClosedEvent]"


# A conversation: one journal, one workspace.
SessionId: TypeAlias = "str"


class SessionList(TypedDict):
    """Sessions, newest first."""

    next_cursor: Union[str, None]
    sessions: list[SessionView]


class SessionReadyFrame(TypedDict):
    """A session was created."""

    container_id: ContainerId
    container_name: str
    profile_id: ProfileId
    request_id: NotRequired[RequestId]
    session_id: SessionId
    task_id: NotRequired[TaskId]
    type: Literal["session.ready"]


class SessionReplayEndFrame(TypedDict):
    """A replay ended; live events follow."""

    count: int
    last_seq: Seq
    session_id: SessionId
    type: Literal["session.replay_end"]


class SessionReplayStartFrame(TypedDict):
    """A replay begins."""

    after_seq: Seq
    last_seq: Seq
    request_id: NotRequired[RequestId]
    session_id: SessionId
    type: Literal["session.replay_start"]


class SessionResumeFrame(TypedDict):
    """`session.resume`: follow a session, its history first."""

    after_seq: NotRequired[Union[Seq, None]]
    request_id: NotRequired[Union[RequestId, None]]
    session_id: SessionId
    tail: NotRequired[Union[int, None]]
    type: Literal["session.resume"]


class SessionStartFrame(TypedDict):
    """`session.start`: a new session, and follow it."""

    profile_id: NotRequired[Union[ProfileId, None]]
    request_id: NotRequired[Union[RequestId, None]]
    title: NotRequired[Union[str, None]]
    type: Literal["session.start"]


class SessionStateFrame(TypedDict):
    """**[x]** All that a UI needs on attach."""

    last_seq: Seq
    pending_ask: Union[PendingAsk, None]
    profile_id: ProfileId
    queue: list[TaskSummary]
    session_id: SessionId
    status: SessionStatus
    task: Union[TaskSummary, None]
    title: Union[str, None]
    type: Literal["session.state"]
    usage: Usage


# Whether a session still takes turns.
SessionStatus: TypeAlias = "Literal[\"active\", \"closed\"]"


class SessionTurnFrame(TypedDict):
    """`session.turn`: a prompt into a session that is there."""

    allowed_tools: NotRequired[Union[list[str], None]]
    idempotency_key: NotRequired[Union[str, None]]
    max_budget_usd: NotRequired[Union[float, None]]
    max_turns: NotRequired[Union[int, None]]
    mode: NotRequired[Union[Mode, None]]
    model: NotRequired[Union[str, None]]
    on_busy: NotRequired[Union[OnBusy, None]]
    priority: NotRequired[Union[Priority, None]]
    profile_id: NotRequired[Union[ProfileId, None]]
    prompt: str
    request_id: NotRequired[Union[RequestId, None]]
    session_id: SessionId
    timeout_seconds: NotRequired[Union[int, None]]
    type: Literal["session.turn"]


class SessionUnsubscribeFrame(TypedDict):
    """`session.unsubscribe`: follow a session no more."""

    request_id: NotRequired[Union[RequestId, None]]
    session_id: SessionId
    type: Literal["session.unsubscribe"]


class SessionView(TypedDict):
    """A session, as lists show it."""

    container_id: Union[ContainerId, None]
    container_name: Union[str, None]
    created_at: Timestamp
    last_seq: Seq
    mode: Mode
    profile_id: ProfileId
    session_id: SessionId
    status: SessionStatus
    title: Union[str, None]
    updated_at: Timestamp
    usage: Usage
    user_id: UserId


class StartBody(TypedDict):
    """A session to be."""

    profile_id: NotRequired[Union[ProfileId, None]]
    title: NotRequired[Union[str, None]]


class StartedSession(TypedDict):
    """A session whose container is up."""

    container_id: ContainerId
    container_name: str
    profile_id: ProfileId
    session_id: SessionId


class Submit(TypedDict):
    """A prompt and how to run it. The body of `POST /v1/tasks` too."""

    allowed_tools: NotRequired[Union[list[str], None]]
    idempotency_key: NotRequired[Union[str, None]]
    max_budget_usd: NotRequired[Union[float, None]]
    max_turns: NotRequired[Union[int, None]]
    mode: NotRequired[Union[Mode, None]]
    model: NotRequired[Union[str, None]]
    on_busy: NotRequired[Union[OnBusy, None]]
    priority: NotRequired[Union[Priority, None]]
    profile_id: NotRequired[Union[ProfileId, None]]
    prompt: str
    session_id: NotRequired[Union[SessionId, None]]
    timeout_seconds: NotRequired[Union[int, None]]


class TaskAnswerFrame(TypedDict):
    """`task.answer`: what the user says to a question."""

    answer: Answer
    ask_id: NotRequired[Union[AskId, None]]
    request_id: NotRequired[Union[RequestId, None]]
    task_id: TaskId
    type: Literal["task.answer"]


class TaskAnsweredEvent(TypedDict):
    """**[x]** A question was answered."""

    answer: Answer
    ask_id: AskId
    seq: Seq
    session_id: SessionId
    task_id: NotRequired[TaskId]
    ts: Timestamp
    type: Literal["task:answered"]


class TaskAskUserEvent(TypedDict):
    """The agent asks the user."""

    ask_id: AskId
    questions: list[Question]
    seq: Seq
    session_id: SessionId
    task_id: NotRequired[TaskId]
    ts: Timestamp
    type: Literal["task:ask_user"]


class TaskCancelFrame(TypedDict):
    """`task.cancel`: stops a task, or takes it out of the line."""

    request_id: NotRequired[Union[RequestId, None]]
    task_id: TaskId
    type: Literal["task.cancel"]


class TaskDoneEvent(TypedDict):
    """A task ended as `completed` or `cancelled`."""

    seq: Seq
    session_id: SessionId
    status: TaskState
    task_id: NotRequired[TaskId]
    ts: Timestamp
    type: Literal["task:done"]


class TaskFailedEvent(TypedDict):
    """A task ended by an error."""

    cost_usd: float
    error: str
    input_tokens: int
    output_tokens: int
    retryable: bool
    seq: Seq
    session_id: SessionId
    task_id: NotRequired[TaskId]
    ts: Timestamp
    type: Literal["task:failed"]


# One prompt and all the work it causes.
TaskId: TypeAlias = "str"


class TaskList(TypedDict):
    """Tasks, newest first."""

    next_cursor: Union[str, None]
    tasks: list[TaskView]


class TaskOptions(TypedDict):
    """What a task passes to its run. Stored with the task as JSON."""

    allowed_tools: NotRequired[list[str]]
    max_budget_usd: NotRequired[float]
    max_turns: NotRequired[int]
    model: NotRequired[str]
    timeout_seconds: NotRequired[int]


class TaskQueuedEvent(TypedDict):
    """**[x]** A task waits; 0 = next."""

    position: int
    seq: Seq
    session_id: SessionId
    task_id: NotRequired[TaskId]
    ts: Timestamp
    type: Literal["task:queued"]


class TaskResult(TypedDict):
    """What came of a task."""

    error: Union[str, None]
    result_text: Union[str, None]
    retryable: Union[bool, None]
    stop_reason: Union[str, None]
    usage: Usage


class TaskStartedEvent(TypedDict):
    """**[x]** A task's turn begins."""

    container_id: ContainerId
    container_name: str
    seq: Seq
    session_id: SessionId
    task_id: NotRequired[TaskId]
    ts: Timestamp
    type: Literal["task:started"]


# Where a task is in its life: `queued → starting → running ⇄ awaiting_answer →` one of the last three.
TaskState: TypeAlias = "Literal[\"queued\", \"starting\", \"running\", \"awaiting_answer\", \"completed\", \"failed\", \"cancelled\"]"


class TaskSubmitFrame(TypedDict):
    """`task.submit`: a prompt. `session.turn` is the same; its `session_id` is required."""

    allowed_tools: NotRequired[Union[list[str], None]]
    idempotency_key: NotRequired[Union[str, None]]
    max_budget_usd: NotRequired[Union[float, None]]
    max_turns: NotRequired[Union[int, None]]
    mode: NotRequired[Union[Mode, None]]
    model: NotRequired[Union[str, None]]
    on_busy: NotRequired[Union[OnBusy, None]]
    priority: NotRequired[Union[Priority, None]]
    profile_id: NotRequired[Union[ProfileId, None]]
    prompt: str
    request_id: NotRequired[Union[RequestId, None]]
    session_id: NotRequired[Union[SessionId, None]]
    timeout_seconds: NotRequired[Union[int, None]]
    type: Literal["task.submit"]


class TaskSummary(TypedDict):
    """A task as `session.state` shows it."""

    priority: Priority
    status: TaskState
    task_id: TaskId


class TaskSystemPromptEvent(TypedDict):
    """**admins** The system prompt of this turn."""

    prompt: str
    seq: Seq
    session_id: SessionId
    task_id: NotRequired[TaskId]
    ts: Timestamp
    type: Literal["task:system_prompt"]


class TaskTokenEvent(TypedDict):
    """A chunk of the model's text."""

    seq: Seq
    session_id: SessionId
    task_id: NotRequired[TaskId]
    text: str
    truncated: NotRequired[bool]
    ts: Timestamp
    type: Literal["task:token"]


class TaskToolResultEvent(TypedDict):
    """A tool's result."""

    is_error: bool
    output: str
    seq: Seq
    session_id: SessionId
    task_id: NotRequired[TaskId]
    tool: str
    tool_use_id: str
    truncated: NotRequired[bool]
    ts: Timestamp
    type: Literal["task:tool_result"]


class TaskToolUseEvent(TypedDict):
    """The agent called a tool."""

    input: Any
    seq: Seq
    session_id: SessionId
    task_id: NotRequired[TaskId]
    tool: str
    tool_use_id: str
    truncated: NotRequired[bool]
    ts: Timestamp
    type: Literal["task:tool_use"]


class TaskView(TypedDict):
    """A task, as lists show it."""

    created_at: Timestamp
    ended_at: Union[Timestamp, None]
    mode: Mode
    priority: Priority
    prompt: str
    session_id: SessionId
    started_at: Union[Timestamp, None]
    status: TaskState
    task_id: TaskId
    user_id: UserId


# A moment: Unix milliseconds.
Timestamp: TypeAlias = "int"


class TokenBody(TypedDict):
    """A token to be."""

    expires_at: NotRequired[Union[Timestamp, None]]
    name: NotRequired[Union[str, None]]
    role: NotRequired[Union[str, None]]


# An API token's public handle; never the token itself.
TokenId: TypeAlias = "str"


class TokenList(TypedDict):
    """Tokens, newest first."""

    next_cursor: Union[str, None]
    tokens: list[TokenView]


class TokenView(TypedDict):
    """A token, without its secret part."""

    created_at: Timestamp
    expires_at: Union[Timestamp, None]
    hint: str
    name: Union[str, None]
    role: str
    token_id: TokenId
    user_id: UserId


class TurnContinuingEvent(TypedDict):
    """The orchestrator continues an agent that stopped at its turn limit."""

    continuation: int
    max_continuations: int
    seq: Seq
    session_id: SessionId
    task_id: NotRequired[TaskId]
    ts: Timestamp
    type: Literal["turn.continuing"]


class TurnDoneEvent(TypedDict):
    """The end of a turn."""

    cost_known: bool
    cost_usd: float
    duration_ms: int
    input_tokens: int
    num_turns: int
    output_tokens: int
    result_text: str
    seq: Seq
    session_id: SessionId
    stop_reason: str
    task_id: NotRequired[TaskId]
    truncated: NotRequired[bool]
    ts: Timestamp
    type: Literal["turn.done"]


class Usage(TypedDict):
    """What an agent used. Tokens are counts; cost is in US dollars."""

    cost_usd: float
    input_tokens: int
    output_tokens: int


# Who somebody is: an API token's user or a Better Auth user id. Opaque text.
UserId: TypeAlias = "str"


class UserMessageEvent(TypedDict):
    """**[x]** A prompt was accepted."""

    seq: Seq
    session_id: SessionId
    task_id: NotRequired[TaskId]
    text: str
    ts: Timestamp
    type: Literal["user.message"]


class WholeSession(TypedDict):
    """All of a session."""

    container_id: Union[ContainerId, None]
    container_name: Union[str, None]
    created_at: Timestamp
    last_seq: Seq
    mode: Mode
    pending_ask: Union[PendingAsk, None]
    profile_id: ProfileId
    queue: list[TaskSummary]
    session_id: SessionId
    status: SessionStatus
    task: Union[TaskSummary, None]
    title: Union[str, None]
    updated_at: Timestamp
    usage: Usage
    user_id: UserId


class WholeTask(TypedDict):
    """All of a task."""

    created_at: Timestamp
    ended_at: Union[Timestamp, None]
    mode: Mode
    options: TaskOptions
    pending_ask: Union[PendingAsk, None]
    priority: Priority
    prompt: str
    result: Union[TaskResult, None]
    session_id: SessionId
    started_at: Union[Timestamp, None]
    status: TaskState
    task_id: TaskId
    user_id: UserId

"""What people use: prompts in, events out."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self, TypedDict, Unpack, cast

from .connection import Connection, ConnectionState, Frame, Token
from .errors import ConnectionLost
from .feeds import QUEUE, CatchingUp, Feeds, Subscription
from .protocol import (
    AckFrame,
    Answer,
    Mode,
    OnBusy,
    Priority,
    SessionEvent,
    SessionReadyFrame,
    TaskDoneEvent,
    TaskFailedEvent,
    TurnDoneEvent,
)
from .rest import Rest


class SubmitOptions(TypedDict, total=False):
    """How to run a prompt; as of `Submit`."""

    mode: Mode
    profile_id: str
    allowed_tools: list[str]
    max_turns: int
    max_budget_usd: float
    model: str
    timeout_seconds: int
    priority: Priority
    on_busy: OnBusy


class Result(NamedTuple):
    """How a task ended, and its turn, if that did."""

    end: TaskDoneEvent | TaskFailedEvent
    turn: TurnDoneEvent | None


class Streamgate:
    """A client of a gateway. Connects at the first use; `async with` closes it."""

    def __init__(
        self,
        url: str = "http://127.0.0.1:8080",
        token: Token = None,
        *,
        heartbeat: float = 25.0,
        max_backoff: float = 20.0,
        timeout: float = 60.0,
    ) -> None:
        """`token` may be a function, which is asked at each connect. `heartbeat`: seconds of silence after which the
        gateway is asked for a sign of life, and then given up. `max_backoff`: the longest wait between two attempts
        to connect. `timeout`: of requests without a socket."""
        base = url if url.endswith("/") else f"{url}/"
        #: What has no need of a socket.
        self.rest = Rest(base, token, timeout)
        self._connection = Connection(f"{base}v1/stream".replace("http", "ws", 1), token, heartbeat, max_backoff)
        self._listeners: dict[str, list[Callable[[Any], None]]] = {}
        self._feeds = Feeds(self._connection, self._history, lambda told: self._emit("catching_up", told))
        self._connection.on_state.append(lambda state: self._emit("state", state))
        self._connection.on_frame.append(self._heard)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def state(self) -> ConnectionState:
        """How the connection is."""
        return self._connection.state

    def on(
        self, name: Literal["state", "catching_up", "session", "error", "frame"], listener: Callable[[Any], None]
    ) -> Callable[[], None]:
        """Hears of something; returns what ends that. `state`: how the connection is; `catching_up`: history of a
        session comes, or has come; `session`: all of a session that a user interface needs, after each replay;
        `error`: what the gateway refused without being asked; `frame`: every frame."""
        listeners = self._listeners.setdefault(name, [])
        listeners.append(listener)
        return lambda: listeners.remove(listener) if listener in listeners else None

    async def close(self) -> None:
        """Ends the connection and all iterations."""
        await self._connection.close()

    async def submit(
        self,
        prompt: str,
        *,
        session_id: str | None = None,
        idempotency_key: str | None = None,
        **options: Unpack[SubmitOptions],
    ) -> Task:
        """Sends a prompt. The task that it makes will not be lost: it is accepted when this returns."""
        # The same prompt under the same key runs once, on however many connections it is said.
        key = idempotency_key or secrets.token_hex(16)
        fields: Frame = {"prompt": prompt, "idempotency_key": key, **options}
        if session_id is not None:
            # Under a key of the caller's the task may be an earlier one.
            return await self._turn(session_id, fields, None if idempotency_key else 0)
        made: list[Subscription] = []

        def accepted(reply: Frame, repeated: bool) -> None:
            # What came between two connections is replayed.
            session = reply["session_id"]
            one = self._feeds.subscribe(session, of_task=True) if repeated else self._feeds.subscribe_new(session)
            one.name_task(reply["task_id"])
            made.append(one)

        reply = await self._connection.request({"type": "task.submit", **fields}, on_reply=accepted)
        return Task(self, self._feeds, reply, made[0])

    async def _turn(self, session_id: str, fields: Frame, tail: int | None) -> Task:
        subscription = self._feeds.subscribe(session_id, tail=tail, of_task=True)
        try:
            reply = await self._connection.request(
                {"type": "session.turn", "session_id": session_id, **fields},
                on_reply=lambda reply, _: subscription.name_task(reply["task_id"]),
            )
        except BaseException:
            subscription.end()
            raise
        return Task(self, self._feeds, reply, subscription)

    def follow(self, session_id: str, *, after: int = 0, tail: int | None = None) -> Subscription:
        """Events of a session, in order, each once: history first, then live, over reconnects. Those after an event,
        or the last `tail` ones. `aclose` ends it early."""
        return self._feeds.subscribe(session_id, after=after, tail=tail)

    async def start(self, *, profile_id: str | None = None, title: str | None = None) -> SessionReadyFrame:
        """Makes a session without a prompt."""
        frame = {"type": "session.start", "profile_id": profile_id, "title": title}
        reply = await self._connection.request(frame, repeatable=False)
        self._feeds.unfollow(reply["session_id"])
        return cast(SessionReadyFrame, reply)

    async def cancel(self, task_id: str) -> AckFrame:
        """Stops a task. Returns when nothing of it runs any more."""
        return cast(AckFrame, await self._connection.request({"type": "task.cancel", "task_id": task_id}))

    async def answer(self, task_id: str, answer: Answer, ask_id: str | None = None) -> AckFrame:
        """Answers a question of a task, the oldest open one by default."""
        frame = {"type": "task.answer", "task_id": task_id, "answer": answer, "ask_id": ask_id}
        return cast(AckFrame, await self._connection.request(frame))

    async def end(self, session_id: str) -> AckFrame:
        """Ends a session; its history and files stay."""
        return cast(AckFrame, await self._connection.request({"type": "session.end", "session_id": session_id}))

    async def _history(self, session_id: str, after: int) -> Any:
        return await self.rest.events(session_id, after=after, limit=QUEUE)

    def _heard(self, frame: Frame) -> None:
        self._emit("frame", frame)
        if frame["type"] == "session.state":
            self._emit("session", frame)
        if frame["type"] == "error" and "request_id" not in frame:
            self._emit("error", frame)

    def _emit(self, name: str, value: Any) -> None:
        for listener in list(self._listeners.get(name, [])):
            listener(value)


class Task:
    """A prompt at work."""

    def __init__(self, gate: Streamgate, feeds: Feeds, reply: Frame, first: Subscription) -> None:
        self.session_id: str = reply["session_id"]
        self.task_id: str = reply["task_id"]
        #: The session's container and profile, if the prompt made the session.
        self.ready = cast(SessionReadyFrame, reply) if reply["type"] == "session.ready" else None
        #: How many tasks of the session went first when it was accepted.
        self.position: int = reply.get("position", 0)
        self._gate = gate
        self._feeds = feeds
        self._first: Subscription | None = first
        self._all = first

    def events(self) -> AsyncIterator[SessionEvent]:
        """All its events, from its prompt to its `task:done` or `task:failed`. Can be read more than once."""
        first, self._first = self._first, None
        if first is None:
            first = self._feeds.subscribe(self.session_id, after=self._all.begin or 0, of_task=True)
            first.name_task(self.task_id)
        return first

    async def result(self) -> Result:
        """Waits for its end. The turn holds the text and what it cost."""
        turn: TurnDoneEvent | None = None
        async for event in self.events():
            if event["type"] == "turn.done":
                turn = event
            if event["type"] == "task:done" or event["type"] == "task:failed":
                return Result(event, turn)
        raise ConnectionLost("the client was closed before the task ended")

    async def cancel(self) -> AckFrame:
        """Stops it. Returns when nothing of it runs any more."""
        return await self._gate.cancel(self.task_id)

    async def answer(self, answer: Answer, ask_id: str | None = None) -> AckFrame:
        """Answers its question, the oldest open one by default."""
        return await self._gate.answer(self.task_id, answer, ask_id)

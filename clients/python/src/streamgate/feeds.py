"""Followed sessions. Each subscription is a cursor: it takes every event after the one it has seen, once, in order,
whatever happens to connections. Several subscriptions of one session share what the gateway sends.

A subscription that is not read fast enough holds no more than its queue: it then forgets the live events and
rereads them from the gateway's journal, a page at a time, when its reader asks for them."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, cast

from .connection import Connection, ConnectionState, Frame
from .errors import ConnectionLost, GatewayError
from .protocol import EventPage, SessionEvent

#: Events that wait for a reader, at most.
QUEUE = 4_096
RETRY = 1.0
#: What the gateway refuses now and may accept later.
PASSING = ("RATE_LIMITED", "STORAGE_UNAVAILABLE", "INTERNAL_ERROR", "CAPACITY")


@dataclass(frozen=True)
class CatchingUp:
    """How far a session's replay is."""

    session_id: str
    #: Whether history comes now; live events follow it.
    catching_up: bool
    #: The last event of that history.
    last_seq: int


def passes(error: Exception) -> bool:
    """Whether the same request may do later."""
    if isinstance(error, GatewayError):
        return error.code in PASSING
    return isinstance(error, (ConnectionLost, OSError))


async def pause(error: Exception) -> None:
    """A while, longer than asked for by up to half of it."""
    told = getattr(error, "retry_after_ms", None)
    await asyncio.sleep((RETRY if told is None else told / 1_000) * (1 + random.random() / 2))


class Subscription(AsyncIterator[SessionEvent]):
    """Events of a session, or of one task of it. For one reader."""

    def __init__(self, feeds: Feeds, session_id: str, after: int, tail: int | None, of_task: bool) -> None:
        self.session_id = session_id
        #: The last event that was taken or passed over; `None` until it is known.
        self.cursor: int | None = None
        #: Where it began, once that is known.
        self.begin: int | None = None
        #: Where to begin when there is no cursor: with the last so many events.
        self.tail = tail or 0
        #: Whether it is of one task only, whose id may not be known yet.
        self.of_task = of_task
        #: Whether what comes on this connection is all that follows the cursor.
        self.armed = False
        #: Whether events were forgotten, to be reread.
        self.behind = False
        self.ended = False
        self._feeds = feeds
        self._task_id: str | None = None
        self._queue: deque[Frame] = deque()
        self._error: Exception | None = None
        self._wake = asyncio.Event()
        if tail is None:
            self.start_at(after)

    def start_at(self, seq: int) -> None:
        """Its cursor, if it has none yet."""
        self.cursor = seq if self.cursor is None else self.cursor
        self.begin = seq if self.begin is None else self.begin

    def name_task(self, task_id: str) -> None:
        """Now that it is known: what came of other tasks is passed over."""
        self._task_id = task_id
        waiting, self._queue = self._queue, deque()
        for event in waiting:
            self._keep(event)

    async def __anext__(self) -> SessionEvent:
        while True:
            if self._queue:
                return cast(SessionEvent, self._queue.popleft())
            if self._error is not None:
                raise self._error
            if self.ended:
                raise StopAsyncIteration
            if self.behind:
                await self._reread()
            else:
                self._wake.clear()
                await self._wake.wait()

    async def aclose(self) -> None:
        """Forgets what waits, and asks for no more."""
        self._queue.clear()
        self.end()

    def take(self, event: Frame) -> None:
        """An event of its session, live or replayed."""
        # Nobody need send more: what was missed is reread.
        if self.behind and self._ends_task(event):
            self._feeds.drop(self)
        if not self.armed or self.ended or event["seq"] <= (self.cursor or 0):
            return
        if len(self._queue) >= QUEUE:
            self.behind, self.armed = True, False
            return
        self.cursor = event["seq"]
        self._keep(event)
        self._wake.set()

    def end(self, error: Exception | None = None) -> None:
        """Nothing more comes; what waits is still read."""
        if self.ended:
            return
        self.ended, self._error = True, error
        self._feeds.drop(self)
        self._wake.set()

    def _keep(self, event: Frame) -> None:
        if self.ended or (self._task_id is not None and event.get("task_id") != self._task_id):
            return
        self._queue.append(event)
        if not self.of_task and event["type"] == "session.closed":
            self.end()
        if self._ends_task(event):
            self.end()

    def _ends_task(self, event: Frame) -> bool:
        ends = event["type"] in ("task:done", "task:failed")
        return ends and self._task_id is not None and event.get("task_id") == self._task_id

    async def _reread(self) -> None:
        try:
            page = await self._feeds.history(self.session_id, self.cursor or 0)
        except Exception as error:  # noqa: BLE001 - its reader gets it
            if passes(error):
                await pause(error)
            else:
                self.end(error)
            return
        for event in page["events"]:
            self._keep(cast(Frame, event))
        self.cursor = page["next_after_seq"]
        if page["next_after_seq"] >= page["last_seq"] and not self.ended:
            self.behind = False
            self._feeds.follow(self.session_id)


@dataclass
class _Feed:
    subscriptions: set[Subscription] = field(default_factory=set)
    #: Whether the gateway sends its events on this connection.
    followed: bool = False
    #: Whether a resume is under way.
    resuming: bool = False
    #: Whether history comes.
    replaying: bool = False
    #: The last event that came on this connection.
    position: int = 0


class Feeds:
    """All followed sessions."""

    def __init__(
        self,
        connection: Connection,
        history: Callable[[str, int], Awaitable[EventPage]],
        catching_up: Callable[[CatchingUp], None],
    ) -> None:
        #: Reads a page of a session's history.
        self.history = history
        self._connection = connection
        self._catching_up = catching_up
        self._feeds: dict[str, _Feed] = {}
        self._asked: set[asyncio.Task[None]] = set()
        connection.on_frame.append(self._heard)
        connection.on_open.append(self._opened)
        connection.on_gone.append(self._gone)
        connection.on_state.append(self._became)

    def subscribe(
        self, session_id: str, *, after: int = 0, tail: int | None = None, of_task: bool = False
    ) -> Subscription:
        """A cursor into a session: after an event, or from `tail` events before its head."""
        subscription = Subscription(self, session_id, after, tail, of_task)
        feed = self._feeds.setdefault(session_id, _Feed())
        # From here on: here is known while the session is followed.
        live = feed.followed and not feed.resuming and any(other.armed for other in feed.subscriptions)
        feed.subscriptions.add(subscription)
        if tail == 0 and live and (of_task or not feed.replaying):
            subscription.start_at(feed.position)
            subscription.armed = True
        self._connection.connect()
        self.follow(session_id)
        return subscription

    def subscribe_new(self, session_id: str) -> Subscription:
        """A cursor into a session that the gateway has just begun to send, from its first event on."""
        if session_id in self._feeds:
            # Begun long ago, by the same prompt under the same key: its first events have gone by.
            return self.subscribe(session_id, of_task=True)
        subscription = Subscription(self, session_id, 0, None, True)
        feed = self._feeds.setdefault(session_id, _Feed())
        feed.followed = True
        feed.subscriptions.add(subscription)
        subscription.armed = True
        return subscription

    def follow(self, session_id: str) -> None:
        """Has the gateway send what the subscriptions of a session wait for."""
        feed = self._feeds.get(session_id)
        if feed is None or feed.resuming or not self._connection.is_open:
            return
        waiting = [one for one in feed.subscriptions if not one.armed and not one.behind]
        if not waiting:
            return
        feed.resuming = True
        tails = [one.tail for one in waiting if one.cursor is None]
        cursors = [one.cursor for one in feed.subscriptions if not one.behind and one.cursor is not None]
        place = {"tail": max(tails)} if tails else {"after_seq": min(cursors)}
        # On the next connection it is asked again from where it is then.
        asked = self._connection.request(
            {"type": "session.resume", "session_id": session_id, **place}, repeatable=False
        )
        self._spawn(self._resumed(session_id, feed, asked))

    def drop(self, subscription: Subscription) -> None:
        """Forgets a subscription; the last one of a session takes the session with it."""
        feed = self._feeds.get(subscription.session_id)
        if feed is None:
            return
        feed.subscriptions.discard(subscription)
        if not feed.subscriptions:
            del self._feeds[subscription.session_id]
            if feed.followed or feed.resuming:
                self.unfollow(subscription.session_id)

    def unfollow(self, session_id: str) -> None:
        """Tells the gateway that nobody listens, if so."""
        if session_id not in self._feeds and self._connection.is_open:
            # If that fails, the connection is gone, or what comes is passed over.
            self._connection.request({"type": "session.unsubscribe", "session_id": session_id}, repeatable=False)

    async def _resumed(self, session_id: str, feed: _Feed, asked: asyncio.Future[Frame]) -> None:
        try:
            await asked
        except ConnectionLost:
            return
        except GatewayError as error:
            if passes(error):
                # What was asked after it may have been accepted.
                for one in feed.subscriptions:
                    if one.of_task:
                        one.start_at(0)
                await pause(error)
                feed.resuming = False
                self.follow(session_id)
                return
            feed.resuming = False
            for one in list(feed.subscriptions):
                if not one.armed:
                    one.end(error)

    def _opened(self) -> None:
        for session_id in list(self._feeds):
            self.follow(session_id)

    def _gone(self) -> None:
        for feed in self._feeds.values():
            for one in feed.subscriptions:
                one.armed = False
                # Its prompt may be accepted by now: the place from which to follow was told to nobody.
                if one.of_task and feed.resuming:
                    one.start_at(0)
            feed.followed = feed.resuming = feed.replaying = False
            feed.position = 0

    def _became(self, state: ConnectionState) -> None:
        if state.status != "closed":
            return
        for asked in self._asked:
            asked.cancel()
        for one in [one for feed in self._feeds.values() for one in feed.subscriptions]:
            one.end(state.error)

    def _heard(self, frame: Frame) -> None:
        feed = self._feeds.get(frame.get("session_id", ""))
        if feed is None:
            return
        if "seq" in frame:
            feed.position = frame["seq"]
            for one in list(feed.subscriptions):
                one.take(frame)
        elif frame["type"] == "session.replay_start":
            self._replay_starts(feed, frame)
        elif frame["type"] == "session.replay_end":
            feed.replaying = False
            feed.position = max(feed.position, frame["last_seq"])
            for one in feed.subscriptions:
                # The last ones may be for admins only.
                if one.armed:
                    one.cursor = max(one.cursor or 0, frame["last_seq"])
            self._catching_up(CatchingUp(frame["session_id"], False, frame["last_seq"]))
        elif frame["type"] == "session.state" and frame["status"] == "closed":
            for one in list(feed.subscriptions):
                if one.armed and (one.cursor or 0) >= frame["last_seq"]:
                    one.end()

    def _replay_starts(self, feed: _Feed, frame: Frame) -> None:
        after, last = frame["after_seq"], frame["last_seq"]
        feed.followed, feed.resuming, feed.replaying, feed.position = True, False, True, after
        for one in feed.subscriptions:
            one.start_at(after)
            one.armed = not one.behind and (one.cursor or 0) >= after
        self._catching_up(CatchingUp(frame["session_id"], last > after, last))
        self.follow(frame["session_id"])  # Who is not served by this one.

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._asked.add(task)
        task.add_done_callback(self._asked.discard)

"""One socket to the gateway, and the next one when it is gone: connecting, coming back, requests and their
replies, heartbeats. What sessions are followed is the business of `feeds`."""

from __future__ import annotations

import asyncio
import inspect
import json
import random
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.typing import Subprotocol

from .errors import ConnectionLost, GatewayError, close_word, retry_after_ms, verdict_of
from .protocol import SUBPROTOCOL

FIRST_BACKOFF = 0.5
LEAST_BACKOFF_41XX = 1.0
#: The gateway's largest event is well below.
FRAME_BYTES = 64 << 20

Token = str | None | Callable[[], str | None | Awaitable[str | None]]
Frame = dict[str, Any]


@dataclass(frozen=True)
class ConnectionState:
    """How the connection is."""

    #: `closed` is for good: closed by us, or the credential is refused.
    status: Literal["idle", "connecting", "open", "waiting", "closed"] = "idle"
    attempt: int = 0
    #: Seconds until the next attempt, and why there has to be one.
    retry_in: float = 0.0
    why: str = ""
    error: Exception | None = None


class _Pending:
    def __init__(self, frame: Frame, repeatable: bool, on_reply: Callable[[Frame, bool], None] | None) -> None:
        self.frame = frame
        self.repeatable = repeatable
        self.on_reply = on_reply
        #: How many connections it was said on.
        self.said = 0
        self.reply: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()


class Connection:
    """Connects at the first use, and again until it is closed."""

    def __init__(self, url: str, token: Token, heartbeat: float, max_backoff: float) -> None:
        self._url = url
        self._token = token
        self._heartbeat = heartbeat
        self._max_backoff = max_backoff
        self._pending: dict[str, _Pending] = {}
        self._prefix = secrets.token_hex(4)
        self._requests = 0
        self._attempt = 0
        self._refusal: GatewayError | None = None
        self._outbox: asyncio.Queue[str] | None = None
        self._task: asyncio.Task[None] | None = None
        self.state = ConnectionState()
        #: Who hears of a new state; of a frame; of an open socket before requests that wait are said; of its end.
        self.on_state: list[Callable[[ConnectionState], None]] = []
        self.on_frame: list[Callable[[Frame], None]] = []
        self.on_open: list[Callable[[], None]] = []
        self.on_gone: list[Callable[[], None]] = []

    @property
    def is_open(self) -> bool:
        return self.state.status == "open"

    def connect(self) -> None:
        """Connects, if that is not so or under way."""
        if self.state.status == "idle" and self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self, error: Exception | None = None) -> None:
        """Ends it for good."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self._end(error)

    def request(
        self, frame: Frame, *, repeatable: bool = True, on_reply: Callable[[Frame, bool], None] | None = None
    ) -> asyncio.Future[Frame]:
        """Asks for a direct reply. If `repeatable`, asks again on the next connection. `on_reply` hears the positive
        reply before any frame that follows it, and whether it was asked more than once."""
        pending = _Pending(frame, repeatable, on_reply)
        if self.state.status == "closed":
            pending.reply.set_exception(self.state.error or ConnectionLost("the client is closed"))
            return pending.reply
        self.connect()
        self._requests += 1
        request_id = f"{self._prefix}-{self._requests}"
        self._pending[request_id] = pending
        # Whoever does not wait any more need not be told.
        pending.reply.add_done_callback(lambda _: self._pending.pop(request_id, None))
        if self.is_open:
            self._say(request_id, pending)
        return pending.reply

    def _say(self, request_id: str, pending: _Pending) -> None:
        if self._outbox is not None:
            pending.said += 1
            self._outbox.put_nowait(json.dumps({**pending.frame, "request_id": request_id}))

    async def _run(self) -> None:
        while True:
            self._attempt += 1
            self._become(ConnectionState("connecting", self._attempt))
            try:
                code, reason = await self._live()
            except asyncio.CancelledError:
                raise
            except (OSError, WebSocketException, TimeoutError) as error:
                code, reason, why = 1006, "", str(error) or type(error).__name__
            except Exception as error:  # noqa: BLE001 - of a listener: whoever waits gets it
                self._end(error)
                return
            else:
                why = str(self._refusal) if self._refusal else close_word(code)
            verdict = verdict_of(code)
            if verdict == "give up":
                self._end(self._refusal or ConnectionLost(why, code))
                return
            for pending in list(self._pending.values()):
                if pending.said and (verdict == "drop requests" or not pending.repeatable):
                    message = f"{why} (close code {code}); whether it was done is not known"
                    _fail(pending, ConnectionLost(message, code))
            wait = self._wait(code, retry_after_ms(reason))
            self._become(ConnectionState("waiting", self._attempt, wait, why))
            await asyncio.sleep(wait)

    async def _live(self) -> tuple[int, str]:
        """One connection, from its start to its end: the close code and reason."""
        try:
            token = self._token() if callable(self._token) else self._token
            if inspect.isawaitable(token):
                token = await token
        except Exception as error:  # noqa: BLE001 - what gives it may be as far away as the gateway
            raise ConnectionError(f"no token: {error}") from error
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        socket = await connect(
            self._url,
            additional_headers=headers,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            ping_interval=self._heartbeat,
            ping_timeout=self._heartbeat,
            max_size=FRAME_BYTES,
            close_timeout=1,
        )
        self._refusal = None
        self._outbox = asyncio.Queue()
        writer = asyncio.get_running_loop().create_task(_write(socket, self._outbox))
        try:
            self._become(ConnectionState("open"))
            waiting = list(self._pending.items())
            for hear in self.on_open:
                hear()
            for request_id, pending in waiting:
                self._say(request_id, pending)
            async for text in socket:
                self._heard(json.loads(text))
            closed = socket.close_code, socket.close_reason
        except ConnectionClosed as error:
            closed = (error.rcvd.code, error.rcvd.reason) if error.rcvd else (1006, "")
        finally:
            self._outbox = None
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)
            await socket.close()
            for hear in self.on_gone:
                hear()
        return closed[0] or 1006, closed[1] or ""

    def _heard(self, frame: Frame) -> None:
        failed = frame["type"] == "error"
        if not failed:
            self._attempt = 0
        elif "request_id" not in frame:
            self._refusal = GatewayError(frame)
        for hear in list(self.on_frame):
            hear(frame)
        pending = self._pending.pop(frame.get("request_id", ""), None)
        if pending is None:
            return
        if failed:
            _fail(pending, GatewayError(frame))
        elif not pending.reply.done():
            if pending.on_reply is not None:
                pending.on_reply(frame, pending.said > 1)
            pending.reply.set_result(frame)

    def _wait(self, code: int, told_ms: int | None) -> float:
        """Doubles, never less than the gateway asked for, and spread out: all its clients lost it at once."""
        failures, told = max(0, self._attempt - 1), (told_ms or 0) / 1_000
        if verdict_of(code) == "at once" and failures == 0:
            return told * random.random()
        backoff = min(self._max_backoff, FIRST_BACKOFF * float(2 ** min(failures, 16)))
        least = max(told, LEAST_BACKOFF_41XX if 4100 <= code < 4200 else 0.0)
        return least + backoff * random.random()

    def _end(self, error: Exception | None) -> None:
        if self.state.status == "closed":
            return
        self._become(ConnectionState("closed", error=error))
        for pending in list(self._pending.values()):
            _fail(pending, error or ConnectionLost("the client was closed"))

    def _become(self, state: ConnectionState) -> None:
        self.state = state
        for hear in list(self.on_state):
            hear(state)


async def _write(socket: ClientConnection, outbox: asyncio.Queue[str]) -> None:
    while True:
        await socket.send(await outbox.get())


def _fail(pending: _Pending, error: Exception) -> None:
    if not pending.reply.done():
        pending.reply.set_exception(error)
        pending.reply.exception()  # Whoever waits gets it; nobody has to.

"""The client against the real gateway."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import tempfile
import unittest
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from gateway import Gateway
from websockets.asyncio.server import ServerConnection, serve
from websockets.typing import Subprotocol

from streamgate import ConnectionLost, ConnectionState, GatewayError, Streamgate

README = Path(__file__).resolve().parents[1] / "README.md"

gateway: Gateway


def setUpModule() -> None:
    global gateway
    gateway = Gateway()


def tearDownModule() -> None:
    gateway.stop()


async def everything(events: AsyncIterator[Any]) -> list[Any]:
    return [event async for event in events]


def types(events: list[Any]) -> list[str]:
    return [event["type"] for event in events]


def words(events: list[Any]) -> str:
    return "".join(event["text"] for event in events if event["type"] == "task:token")


def tokens(count: int) -> str:
    return "".join(f"t{at} " for at in range(1, count + 1))


class Proxy:
    """A way to the gateway on which `passes` says what comes through of each part that it sends; `None` cuts."""

    def __init__(self, passes: Callable[[bytes, int], bytes | None]) -> None:
        self.passes = passes

    async def __aenter__(self) -> Proxy:
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", gateway.port)

        async def inwards() -> None:
            while part := await reader.read(65_536):
                inner_writer.write(part)

        async def outwards() -> None:
            parts = 0
            while part := await inner_reader.read(65_536):
                parts += 1
                shown = self.passes(part, parts)
                if shown is None:
                    return
                writer.write(shown)

        ways = [asyncio.create_task(inwards()), asyncio.create_task(outwards())]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        writer.transport.abort()
        inner_writer.close()


class TestClient(unittest.IsolatedAsyncioTestCase):
    def open(self, url: str | None = None, token: str | None = None, **options: float) -> Streamgate:
        gate = Streamgate(url or gateway.url, token or gateway.token, **options)
        self.addAsyncCleanup(gate.close)
        return gate

    async def test_a_prompt_streams_from_its_prompt_to_its_end(self) -> None:
        task = await self.open().submit("Say hello")
        assert task.ready is not None
        self.assertRegex(task.session_id, "^sess_[0-9a-f]{32}$")
        events = await everything(task.events())
        self.assertEqual(types(events)[:3], ["user.message", "task:queued", "task:started"])
        self.assertEqual(types(events)[-2:], ["turn.done", "task:done"])
        self.assertEqual(words(events), "You said: Say hello")
        self.assertEqual(await everything(task.events()), events, "read again, it is the same")
        result = await task.result()
        assert result.turn is not None
        self.assertEqual(result.turn["result_text"], "You said: Say hello")

    async def test_turns_of_one_session_are_told_apart_and_a_follower_sees_both(self) -> None:
        gate, other = self.open(), self.open()
        first = await gate.submit("/say one")
        follower = gate.follow(first.session_id)
        await first.result()
        second = await other.submit("/say two", session_id=first.session_id, priority="high", max_turns=3)
        of_second = await everything(second.events())
        self.assertEqual(words(of_second), "two")
        self.assertEqual({event["task_id"] for event in of_second}, {second.task_id})
        await gate.end(first.session_id)
        seen = await everything(follower)
        self.assertEqual((words(seen), seen[-1]["type"]), ("onetwo", "session.closed"))
        self.assertEqual(seen, (await gate.rest.events(first.session_id))["events"])
        self.assertEqual(await everything(other.follow(first.session_id)), seen)
        self.assertEqual(await everything(other.follow(first.session_id, after=seen[-1]["seq"])), [])

    async def test_a_question_is_answered(self) -> None:
        task = await self.open().submit("/ask Which one? | Red | Blue")
        events = []
        async for event in task.events():
            events.append(event)
            if event["type"] == "task:ask_user":
                self.assertEqual([option["label"] for option in event["questions"][0]["options"]], ["Red", "Blue"])
                await task.answer("Blue", event["ask_id"])
        self.assertEqual(words(events), "You chose: Blue.")

    async def test_a_task_is_cancelled(self) -> None:
        task = await self.open().submit("/tokens 100000 20")
        async for event in task.events():
            if event["type"] == "task:token":
                break
        self.assertEqual((await task.cancel())["status"], "cancelled")
        end, turn = await task.result()
        assert turn is not None and end["type"] == "task:done"
        self.assertEqual((end["status"], turn["stop_reason"]), ("cancelled", "cancelled"))

    async def test_refusals_say_why(self) -> None:
        gate = self.open()
        nothing = f"sess_{'0' * 32}"
        task = await gate.submit("hello")
        await task.result()
        for code, refused in [
            ("SESSION_NOT_FOUND", gate.submit("hello", session_id=nothing)),
            ("VALIDATION_FAILED", gate.submit("")),
            ("NOT_FOUND", gate.cancel(f"task_{'0' * 32}")),
            ("SESSION_NOT_FOUND", everything(gate.follow(nothing))),
            ("CURSOR_AHEAD", everything(gate.follow(task.session_id, after=1_000))),
        ]:
            with self.assertRaises(GatewayError) as raised:
                await refused
            self.assertEqual(raised.exception.code, code)

    async def test_a_prompt_that_is_repeated_under_its_key_is_heard_whole(self) -> None:
        gate, later = self.open(), self.open()
        first = await gate.submit("/tokens 40 20", idempotency_key="one")
        await anext(aiter(first.events()))
        repeated = await gate.submit("/tokens 40 20", idempotency_key="one")
        self.assertEqual(repeated.task_id, first.task_id)
        self.assertEqual(words(await everything(repeated.events())), tokens(40))
        second = await gate.submit("/say two", session_id=first.session_id, idempotency_key="two")
        await second.result()
        again = await later.submit("/say two", session_id=first.session_id, idempotency_key="two")
        self.assertEqual(again.task_id, second.task_id)
        self.assertEqual(words(await everything(again.events())), "two")

    async def test_a_token_that_cannot_be_had_now_is_asked_for_again(self) -> None:
        asked: list[int] = []

        def token() -> str:
            asked.append(1)
            if len(asked) < 3:
                raise ValueError("not now")
            return str(gateway.token)

        gate = Streamgate(gateway.url, token)
        self.addAsyncCleanup(gate.close)
        task = await gate.submit("/say well")
        self.assertEqual(words(await everything(task.events())), "well")
        self.assertEqual(len(asked), 3)

    async def test_a_bad_token_is_not_tried_again(self) -> None:
        gate = self.open(token=f"rc_{'0' * 48}")
        for _ in range(2):
            with self.assertRaises(GatewayError) as raised:
                await gate.submit("hello")
            self.assertEqual((raised.exception.code, gate.state.status), ("UNAUTHORIZED", "closed"))

    async def test_closing_ends_what_is_under_way(self) -> None:
        gate = self.open()
        task = await gate.submit("/sleep 60000")
        end = asyncio.create_task(task.result())
        await asyncio.sleep(0)
        await gate.close()
        with self.assertRaises(ConnectionLost):
            await end
        with self.assertRaises(ConnectionLost):
            await gate.submit("hello")

    async def test_a_crash_of_the_gateway_in_mid_stream_loses_nothing_and_doubles_nothing(self) -> None:
        gate = self.open(max_backoff=0.5)
        states: list[str] = []
        gate.on("state", lambda state: states.append(state.status))
        task = await gate.submit("/tokens 400 10")
        followed = asyncio.create_task(everything(gate.follow(task.session_id)))
        events: list[Any] = []

        def crash() -> None:
            gateway.kill()
            gateway.run()

        crashed = None
        async for event in task.events():
            events.append(event)
            if words(events).endswith("t50 ") and crashed is None:
                crashed = asyncio.create_task(asyncio.to_thread(crash))
        assert crashed is not None
        await crashed
        self.assertEqual(words(events), tokens(400))
        self.assertIn("waiting", states)
        await gate.end(task.session_id)
        self.assertEqual([event for event in await followed if "task_id" in event], events)

    async def test_what_a_close_code_asks_for_is_done(self) -> None:
        # The code, the wait that is told, and the least and the most that is waited; `None`: it is over.
        for code, told, least, most in [
            (1001, None, 0.0, 0.5),
            (1012, 700, 0.7, 1.2),
            (1013, 1_500, 1.5, 2.0),
            (4001, None, None, None),
            (4003, None, None, None),
            (4099, None, None, None),
            (4100, 5_000, 5.0, 5.5),
            (4150, None, 1.0, 1.5),
            (4200, 40, 0.0, 0.04),
            (4299, None, 0.0, 0.0),
        ]:
            reason = "" if told is None else f'{{"code":"x","retry_after_ms":{told}}}'

            async def close(socket: ServerConnection, code: int = code, reason: str = reason) -> None:
                await socket.send('{"type":"pong","sessions":{}}')
                await socket.close(code, reason)

            with self.subTest(code):
                async with serve(close, "127.0.0.1", 0, subprotocols=[Subprotocol("streamgate.v1")]) as server:
                    gate = self.open(f"http://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}")
                    heard: asyncio.Queue[ConnectionState] = asyncio.Queue()
                    gate.on("state", heard.put_nowait)
                    asked = asyncio.create_task(gate.submit("hello"))
                    while (state := await heard.get()).status not in ("waiting", "closed"):
                        pass
                    if least is None or most is None:
                        self.assertEqual(state.status, "closed")
                    else:
                        self.assertTrue(least <= state.retry_in <= most, state)
                    await gate.close()
                    with self.assertRaises(ConnectionLost):
                        await asked

    async def test_what_is_lost_between_a_prompt_and_its_reply_is_asked_once_more(self) -> None:
        cuts = 2

        def passes(part: bytes, parts: int) -> bytes | None:
            nonlocal cuts
            # The first part on a connection is the answer to its upgrade.
            if parts == 2 and cuts > 0:
                cuts -= 1
                return None
            return part

        async with Proxy(passes) as proxy:
            task = await self.open(proxy.url, max_backoff=0.1).submit("/tokens 50")
            events = await everything(task.events())
            self.assertEqual((words(events), events[0]["type"], cuts), (tokens(50), "user.message", 0))
            cuts = 2
            gate = self.open(proxy.url, max_backoff=0.1)
            turn = await gate.submit("/tokens 30", session_id=task.session_id)
            events = await everything(turn.events())
            self.assertEqual((words(events), events[0]["type"], cuts), (tokens(30), "user.message", 0))
            history = await gate.rest.events(task.session_id)
            self.assertEqual(words(history["events"]), tokens(50) + tokens(30), "both ran once")
            await gate.close()

    async def test_silence_is_noticed(self) -> None:
        frozen = False

        def passes(part: bytes, parts: int) -> bytes | None:
            nonlocal frozen
            frozen = frozen and parts > 1
            return b"" if frozen else part

        async with Proxy(passes) as proxy:
            gate = self.open(proxy.url, heartbeat=0.3, max_backoff=0.1)
            task = await gate.submit("/say before\n/sleep 2500\n/say after")
            waited = asyncio.Event()
            gate.on("state", lambda state: waited.set() if state.status == "waiting" else None)
            frozen = True
            await asyncio.wait_for(waited.wait(), 30)
            self.assertEqual(words(await everything(task.events())), "beforeafter")
            await gate.close()

    async def test_a_task_whose_events_nobody_reads_is_followed_to_its_end_and_no_further(self) -> None:
        gate = self.open()
        # More than waits for a reader.
        task = await gate.submit("/tokens 12000")
        left = asyncio.Event()
        gate.on("frame", lambda frame: left.set() if frame["type"] == "ack" else None)
        await asyncio.wait_for(left.wait(), 60)
        more: list[str] = []
        gate.on("frame", lambda frame: more.append(frame["type"]))
        await (await self.open().submit("/say more", session_id=task.session_id)).result()
        await gate.cancel(task.task_id)  # Its answer comes after whatever the gateway had sent.
        self.assertEqual(more, ["ack"])
        self.assertEqual(words(await everything(task.events())), tokens(12_000), "and is read when somebody does")

    async def test_a_reader_that_is_slow_holds_little_and_misses_nothing(self) -> None:
        gate = self.open()
        task = await gate.submit("/tokens 12000")
        done = asyncio.Event()
        gate.on("frame", lambda frame: done.set() if frame["type"] == "task:done" else None)
        follower = gate.follow(task.session_id)
        await asyncio.wait_for(done.wait(), 60)
        # Nobody has read so far.
        events = []
        async for event in follower:
            events.append(event)
            if event["type"] == "task:done":
                break
        self.assertEqual(words(events), tokens(12_000))
        self.assertEqual(words(await everything(task.events())), tokens(12_000))

    async def test_catching_up_is_told_and_so_is_the_state_of_a_session(self) -> None:
        task = await self.open().submit("/tokens 20")
        await task.result()
        gate = self.open()
        told: list[bool] = []
        state: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        gate.on("catching_up", lambda value: told.append(value.catching_up))
        gate.on("session", state.set_result)
        tail = gate.follow(task.session_id, tail=3)
        last = [await anext(tail) for _ in range(3)]
        self.assertEqual(types(last), ["task:token", "turn.done", "task:done"])
        self.assertEqual((await state)["status"], "active")
        self.assertEqual(told, [True, False])

    async def test_a_session_is_made_followed_and_left(self) -> None:
        gate = self.open()
        ready = await gate.start(title="Mine")
        task = await gate.submit("/say hello", session_id=ready["session_id"])
        seen = []
        async for event in gate.follow(ready["session_id"]):
            seen.append(event)
            if event["type"] == "task:done":
                break
        self.assertEqual(words(seen), "hello")
        self.assertEqual(await everything(task.events()), seen)

    async def test_what_has_no_need_of_a_socket(self) -> None:
        rest = self.open().rest
        started = await rest.start_session(title="First")
        session = started["session_id"]
        self.assertEqual((await rest.session(session))["title"], "First")
        self.assertEqual((await rest.rename(session, "Second"))["title"], "Second")
        self.assertIn(session, [one["session_id"] for one in (await rest.sessions(limit=5))["sessions"]])
        self.assertTrue(await rest.write_file(session, "notes/a b.txt", b"hello"))
        self.assertFalse(await rest.write_file(session, "notes/a b.txt", b"hello!"))
        self.assertEqual([one["path"] for one in (await rest.files(session))["files"]], ["notes/a b.txt"])
        self.assertEqual(await rest.read_file(session, "notes/a b.txt"), b"hello!")
        task = (await rest.submit("/ask Which? | A | B", session_id=session))["task_id"]
        while not (await rest.task(task))["pending_ask"]:
            await asyncio.sleep(0.02)
        await rest.answer(task, "A")
        self.assertEqual((await rest.tasks(session_id=session))["tasks"][0]["task_id"], task)
        self.assertIn((await rest.cancel(task))["status"], ("completed", "cancelled"))
        self.assertTrue(any(profile["default"] for profile in (await rest.profiles())["profiles"]))
        made = await rest.create_token(name="mine")
        theirs = self.open(token=made["token"]).rest
        self.assertEqual((await theirs.tokens())["tokens"][0]["token_id"], made["token_id"])
        await rest.revoke_token(made["token_id"])
        self.assertRegex((await rest.health())["version"], r"^\d+\.\d+\.\d+")
        self.assertEqual(await rest.ready(), {"ready": True, "storage": True, "draining": False})
        await rest.erase(session)
        with self.assertRaises(GatewayError) as raised:
            await rest.session(session)
        self.assertEqual((raised.exception.code, raised.exception.status), ("SESSION_NOT_FOUND", 404))

    def test_the_readmes_example_streams(self) -> None:
        found = re.search(r"<!-- example -->\n```python\n(.*?)```\n<!-- /example -->", README.read_text(), re.DOTALL)
        assert found is not None
        code = found[1].replace("http://127.0.0.1:8080", gateway.url)
        self.assertNotEqual(code, found[1])
        with tempfile.TemporaryDirectory() as place:
            script = Path(place) / "example.py"
            script.write_text(code)
            environment = {**os.environ, "STREAMGATE_TOKEN": gateway.token}
            ran = subprocess.run(
                [sys.executable, script], env=environment, capture_output=True, text=True, timeout=60, check=False
            )
        self.assertEqual((ran.stdout, ran.stderr), ("You said: What's the weather?", ""))


if __name__ == "__main__":
    unittest.main()

#!/usr/bin/env python3
"""A client that knows the document of the WebSocket events and nothing else.

It does everything that the document says, against a gateway whose profile is the demo agent, and prints
a line for each check. It offers no subprotocol but the token, sends no field that the document doesn't
have, and relies on no field beyond it: what else is in a frame, it ignores. Only one thing it has to
know besides: the document cancels a task by its `task_id`, and names that in `task:ask_user` and at the
end of a task; for a task that only talks, it is taken from `task:token`.

    document_client.py ws://127.0.0.1:8080/v1/stream rc_… [prof_demo]
"""

import asyncio
import json
import sys
import urllib.request
from collections import Counter

import websockets

EVENTS = {
    "session.ready", "session.replay_start", "session.replay_end",
    "task:token", "task:tool_use", "task:tool_result", "task:ask_user",
    "turn.continuing", "turn.done", "task:done", "task:failed", "error",
}  # fmt: skip
ENDS = ("task:done", "task:failed")
PATIENCE = 60  # Seconds for one frame: the machine may be busy.

passed, failed, seen = 0, 0, Counter()


def check(what, good, *detail):
    global passed, failed
    if good:
        passed += 1
        print(f"ok      {what}", flush=True)
    else:
        failed += 1
        print(f"FAILED  {what}: {' '.join(map(str, detail))}", flush=True)


class Socket:
    """A connection."""

    def __init__(self, url, **arguments):
        self.opening = websockets.connect(url, max_size=None, open_timeout=PATIENCE, **arguments)

    async def __aenter__(self):
        self.socket = await self.opening.__aenter__()
        return self

    async def __aexit__(self, *error):
        await self.opening.__aexit__(*error)

    async def send(self, kind, **fields):
        await self.socket.send(json.dumps({"type": kind, **fields}))

    async def next(self):
        """The next frame: one JSON object with a type."""
        frame = json.loads(await asyncio.wait_for(self.socket.recv(), PATIENCE))
        seen[frame["type"]] += 1
        return frame

    async def until(self, *kinds):
        """All frames up to the first of these types. An error ends the checks."""
        frames = []
        while True:
            frames.append(await self.next())
            if frames[-1]["type"] in kinds:
                return frames
            if frames[-1]["type"] == "error":
                raise RuntimeError(frames[-1])

    async def turn(self, session, prompt):
        """A turn of a session, up to the end of its task."""
        await self.send("session.turn", session_id=session, prompt=prompt)
        return await self.until(*ENDS)

    async def close_code(self):
        try:
            while True:
                await self.next()
        except websockets.ConnectionClosed:
            return self.socket.close_code


def of(kind, frames):
    return [frame for frame in frames if frame["type"] == kind]


def spoken(frames):
    return "".join(frame["text"] for frame in of("task:token", frames))


def result(frames):
    done = of("turn.done", frames)
    return done[0]["result_text"] if done else f"no turn.done: {frames[-1]}"


def is_text(frame, *fields):
    return all(isinstance(frame.get(field), str) and frame[field] for field in fields)


def is_number(frame, *fields):
    return all(isinstance(frame.get(field), (int, float)) for field in fields)


def well_ended(frames, session):
    """A turn's shape: all tokens, then turn.done, then task:done, each of the session."""
    kinds = [frame["type"] for frame in frames]
    return (
        kinds[-2:] == ["turn.done", "task:done"]
        and kinds.count("turn.done") == kinds.count("task:done") == 1
        and frames[-1]["status"] == "completed"
        and is_text(frames[-1], "task_id")
        and frames[-1]["session_id"] == frames[-2]["session_id"] == session
        and all(frame["session_id"] == session for frame in of("task:token", frames))
    )


class Client:
    def __init__(self, url, token, profile):
        self.url, self.token, self.profile = url, token, profile

    def by_subprotocol(self):
        return Socket(self.url, subprotocols=[f"Bearer.{self.token}"])

    def by_query(self):
        return Socket(f"{self.url}?token={self.token}")

    async def refused(self):
        bad = "rc_" + "0" * 48
        for how, socket in (
            ("a bad token as a subprotocol", Socket(self.url, subprotocols=[f"Bearer.{bad}"])),
            ("a bad token in the query", Socket(f"{self.url}?token={bad}")),
            ("no token", Socket(self.url)),
        ):
            async with socket:
                error = await socket.next()
                good = error["type"] == "error" and error["code"] == "UNAUTHORIZED" and is_text(error, "message")
                check(f"{how}: an error UNAUTHORIZED", good, error)
                code = await socket.close_code()
                check(f"{how}: close 4001", code == 4001, code)

    async def submit(self, socket):
        """task.submit without a session."""
        prompt = "/say Hello there\n/remember me"
        await socket.send("task.submit", mode="session", profile_id=self.profile, prompt=prompt)
        ready, *frames = await socket.until(*ENDS)
        check("task.submit without a session: session.ready first", ready["type"] == "session.ready", ready)
        good = is_text(ready, "session_id", "container_id", "container_name") and ready["profile_id"] == self.profile
        check("session.ready names session, container and profile", good, ready)
        session = ready["session_id"]
        check("tokens, then turn.done, then task:done", well_ended(frames, session), frames)
        check("the tokens are what was said", spoken(frames).startswith("Hello there"), spoken(frames))
        tokens = len(of("task:token", frames))
        check("a text comes in several tokens", tokens > 1, tokens)
        done = of("turn.done", frames)[0]
        good = is_text(done, "result_text") and is_number(done, "input_tokens", "output_tokens", "cost_usd")
        check("turn.done has result_text, tokens and cost", good, done)

        await socket.send("task.submit", mode="session", profile_id=self.profile, session_id=session, prompt="/recall")
        frames = await socket.until(*ENDS)
        check("task.submit with a session goes on in it", result(frames) == "me" and well_ended(frames, session), frames)

        # The same body by REST, with the same credential: what comes of it comes here.
        body = {"mode": "session", "profile_id": self.profile, "session_id": session, "prompt": "/say by REST"}
        rest = self.url.replace("ws", "http", 1).replace("/v1/stream", "/v1/tasks")
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        post = urllib.request.Request(rest, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(post, timeout=PATIENCE) as response:
            check("POST /v1/tasks takes the same", response.status in (200, 201, 202), response.status)
        frames = await socket.until(*ENDS)
        check("and streams to the socket", result(frames) == "by REST" and well_ended(frames, session), frames)

    async def start(self, socket):
        """session.start, then turns; all frames of the session, as they came."""
        await socket.send("session.start", profile_id=self.profile)
        ready = await socket.next()
        good = ready["type"] == "session.ready" and is_text(ready, "session_id", "container_id", "container_name")
        check("session.start is answered by session.ready", good, ready)
        session = ready["session_id"]
        frames = await socket.turn(session, "/say one")
        check("session.turn needs no profile", result(frames) == "one" and well_ended(frames, session), frames)
        usage = await socket.turn(session, "/usage 1234 567 0.0123\n/say counted")
        done = of("turn.done", usage)[0]
        counted = (done["input_tokens"], done["output_tokens"], done["cost_usd"])
        check("turn.done tells what the turn used", counted == (1234, 567, 0.0123), done)
        return session, frames + usage

    async def tools(self, socket, session):
        frames = await socket.turn(session, "/say Look:\n/tool echo file1; echo file2\n/parallel echo a && echo b\n/say done")
        uses, results = of("task:tool_use", frames), of("task:tool_result", frames)
        good = all(use["tool"] == "Bash" and is_text(use["input"], "command") for use in uses)
        check("task:tool_use has tool and input", good and len(uses) == 3, uses)
        outputs = [result["output"] for result in results]
        check("task:tool_result has the output", outputs[:1] == ["file1\nfile2\n"], outputs)
        open_uses, depths = Counter(), []
        for frame in frames:
            if frame["type"] in ("task:tool_use", "task:tool_result"):
                open_uses[frame["tool"]] += 1 if frame["type"] == "task:tool_use" else -1
                depths.append(open_uses[frame["tool"]])
        good = depths == [1, 0, 1, 2, 1, 0] and sorted(outputs[1:]) == ["a\n", "b\n"]
        check("each task:tool_use is followed by its one task:tool_result", good, frames)
        kinds = [frame["type"] for frame in frames]
        between = kinds.index("task:token") < kinds.index("task:tool_use") < len(kinds) - kinds[::-1].index("task:token")
        check("a turn interleaves tokens and tools", between and well_ended(frames, session), kinds)
        return frames

    async def ask(self, socket, session):
        await socket.send("session.turn", session_id=session, prompt="/ask Pick one | Option A | Option B")
        asked = await socket.until("task:ask_user")
        use, ask = of("task:tool_use", asked)[0], asked[-1]
        questions = [{"question": "Pick one", "options": [{"label": "Option A"}, {"label": "Option B"}]}]
        good = use["tool"] == "AskUserQuestion" and use["input"]["questions"] == questions
        check("AskUserQuestion is a task:tool_use with its questions", good, use)
        good = is_text(ask, "task_id") and ask["session_id"] == session and ask["questions"] == questions
        check("task:ask_user has the same, flattened", good, ask)
        await socket.send("task.answer", task_id=ask["task_id"], answer="Option B")
        frames = await socket.until(*ENDS)
        good = result(frames) == "You chose: Option B." and len(of("task:tool_result", frames)) == 1
        check("task.answer is what the agent gets", good and frames[-1]["task_id"] == ask["task_id"], frames)
        return asked + frames

    async def go_on(self, socket, session):
        frames = await socket.turn(session, "/continue 2\n/say through")
        marks = [(mark["continuation"], mark["max_continuations"]) for mark in of("turn.continuing", frames)]
        check("turn.continuing counts the chains", [mark[0] for mark in marks] == [1, 2], marks)
        check("turn.continuing tells the most", all(most >= 2 for _, most in marks), marks)
        check("one turn.done for all of them", well_ended(frames, session) and result(frames) == "through", frames)
        return frames

    async def images(self, socket, session):
        frames = await socket.turn(session, "/image shot.png")
        text = result(frames)
        link = text.partition("](")[2].partition(")")[0]
        check("result_text links an image, signed", "_pvt" in link and link.startswith("http"), text)
        with urllib.request.urlopen(link, timeout=PATIENCE) as response:
            good = response.headers["content-type"] == "image/png" and response.read(4) == b"\x89PNG"
        check("the link opens as it is", good, link)

    async def cancel(self, socket, session):
        await socket.send("session.turn", session_id=session, prompt="/ask Shall I? | Yes | No")
        task = (await socket.until("task:ask_user"))[-1]["task_id"]
        await socket.send("task.cancel", task_id=task)
        done = (await socket.until(*ENDS))[-1]
        good = done["type"] == "task:done" and (done["task_id"], done["status"]) == (task, "cancelled")
        check("task.cancel of a task that asks: task:done, cancelled", good, done)
        await socket.send("session.turn", session_id=session, prompt="/tokens 1000000 1")
        task = (await socket.until("task:token"))[-1]["task_id"]
        await socket.send("task.cancel", task_id=task)
        frames = await socket.until(*ENDS)
        done = frames[-1]
        good = done["type"] == "task:done" and (done["task_id"], done["status"]) == (task, "cancelled")
        check("task.cancel of a task that talks: task:done, cancelled", good, done)
        check("a cancelled turn has its turn.done too", frames[-2]["type"] == "turn.done", frames[-2:])
        frames = await socket.turn(session, "/say on")
        check("the session goes on after it", result(frames) == "on", frames)

    async def fail(self, socket, session):
        for prompt, error in (("/say x\n/crash 3", "Container exited 3"), ("/say x\n/fail told to", "told to")):
            frames = await socket.turn(session, prompt)
            end = frames[-1]
            good = end["type"] == "task:failed" and is_text(end, "task_id") and end["error"] == error
            check(f"task:failed says `{error}`", good and not of("turn.done", frames), end)
        frames = await socket.turn(session, "/say on")
        check("the session goes on after it", result(frames) == "on", frames)

    async def mistakes(self, socket, session):
        for what, text in (
            ("an unknown type", '{"type": "task.fly"}'),
            ("no JSON", "hello"),
            ("an unknown session", '{"type": "session.resume", "session_id": "sess_1"}'),
            ("an unknown task", '{"type": "task.cancel", "task_id": "task_1"}'),
            ("no prompt", json.dumps({"type": "session.turn", "session_id": session})),
        ):
            await socket.socket.send(text)
            error = await socket.next()
            good = error["type"] == "error" and is_text(error, "code", "message")
            check(f"{what} is an error with a code and a message", good, error)
        frames = await socket.turn(session, "/say on")
        check("the connection stays open after it", result(frames) == "on", frames)

    async def resume(self, socket, session, before):
        """Another connection sees what was, then what is."""
        async with self.by_query() as other:
            await other.send("session.resume", session_id=session)
            start, *replay, end = await other.until("session.replay_end")
            good = start["type"] == "session.replay_start" and start["session_id"] == end["session_id"] == session
            check("session.resume: session.replay_start first, session.replay_end last", good, start, end)
            check("between them is what was seen, frame by frame", replay == before, replay, before)
            mine = await socket.turn(session, "/say to both")
            theirs = await other.until(*ENDS)
            check("then what happens comes live, to both", mine == theirs and result(mine) == "to both", theirs)

    async def reconnect(self):
        """A client that goes away in the middle of a turn misses nothing when it comes back."""
        async with self.by_subprotocol() as socket:
            await socket.send("session.start", profile_id=self.profile)
            session = (await socket.next())["session_id"]
            await socket.send("session.turn", session_id=session, prompt="/tokens 200 5")
            await socket.until("task:token")
            await socket.socket.close()
            check("a clean close is answered cleanly", socket.socket.close_code == 1000, socket.socket.close_code)
        async with self.by_subprotocol() as socket:
            await socket.send("session.resume", session_id=session)
            frames = await socket.until("session.replay_end")
            if not any(frame["type"] in ENDS for frame in frames):
                frames += await socket.until(*ENDS)
            whole = "".join(f"t{number} " for number in range(1, 201))
            check("who left in the middle of a turn has all of it", spoken(frames) == whole, spoken(frames))

    async def all(self):
        await self.refused()
        async with self.by_subprotocol() as socket:
            chosen = socket.socket.subprotocol
            check("the token's subprotocol opens the door", chosen == f"Bearer.{self.token}", chosen)
            await self.submit(socket)
            session, frames = await self.start(socket)
            frames += await self.tools(socket, session)
            frames += await self.ask(socket, session)
            frames += await self.go_on(socket, session)
            await self.resume(socket, session, frames)
            await self.images(socket, session)
            await self.cancel(socket, session)
        async with self.by_query() as socket:
            frames = await socket.turn(session, "/say by query")
            check("the token in the query opens it too", result(frames) == "by query", frames)
            await self.fail(socket, session)
            await self.mistakes(socket, session)
        await self.reconnect()
        unknown = sorted(set(seen) - EVENTS)
        check("nothing came but the document's events", not unknown, unknown)
        missing = sorted(EVENTS - set(seen))
        check("all of the document's events came", not missing, missing)


def main():
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    url, token, profile = [*sys.argv[1:], "prof_demo"][:3]
    try:
        asyncio.run(Client(url, token, profile).all())
    except Exception as error:  # Whatever breaks a check off is a failure of it.
        check("all checks run to their end", False, type(error).__name__, error)
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


main()

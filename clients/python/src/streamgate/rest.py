"""REST beside the socket, typed."""

from __future__ import annotations

import asyncio
import inspect
import json
import urllib.error
import urllib.parse
import urllib.request
from typing import Any, cast

from .connection import Token
from .errors import GatewayError
from .protocol import (
    AcceptedTask,
    Answer,
    AnsweredTask,
    CancelledTask,
    EventPage,
    FileList,
    Health,
    NewToken,
    ProfileList,
    Readiness,
    SessionList,
    StartedSession,
    TaskList,
    TaskState,
    TokenList,
    WholeSession,
    WholeTask,
)


class Rest:
    """What has no need of a socket. Requests run in threads of the loop's own."""

    def __init__(self, url: str, token: Token, timeout: float) -> None:
        self._url = url
        self._token = token
        self._timeout = timeout

    async def sessions(self, *, limit: int | None = None, cursor: str | None = None, all: bool = False) -> SessionList:
        """Sessions, newest first; for admins who ask for it everybody's."""
        return cast(SessionList, await self._json("GET", "v1/sessions", {"limit": limit, "cursor": cursor, "all": all}))

    async def session(self, session_id: str) -> WholeSession:
        """A session and what happens in it now."""
        return cast(WholeSession, await self._json("GET", f"v1/sessions/{session_id}"))

    async def start_session(self, *, profile_id: str | None = None, title: str | None = None) -> StartedSession:
        """Starts a session. Returns when its container is up."""
        body = {"profile_id": profile_id, "title": title}
        return cast(StartedSession, await self._json("POST", "v1/sessions", body=body))

    async def rename(self, session_id: str, title: str | None) -> WholeSession:
        """Names a session; `None` takes its title away."""
        return cast(WholeSession, await self._json("PATCH", f"v1/sessions/{session_id}", body={"title": title}))

    async def erase(self, session_id: str) -> None:
        """Ends a session and erases its history and files."""
        await self.request("DELETE", f"v1/sessions/{session_id}")

    async def events(self, session_id: str, *, after: int = 0, limit: int | None = None) -> EventPage:
        """A part of a session's history, oldest first."""
        query = {"after_seq": after, "limit": limit}
        return cast(EventPage, await self._json("GET", f"v1/sessions/{session_id}/events", query))

    async def files(self, session_id: str) -> FileList:
        """The files of a session's workspace."""
        return cast(FileList, await self._json("GET", f"v1/sessions/{session_id}/files"))

    async def read_file(self, session_id: str, path: str) -> bytes:
        """A file."""
        return (await self.request("GET", _file(session_id, path)))[1]

    async def write_file(self, session_id: str, path: str, content: bytes) -> bool:
        """Writes a file. Tells whether it is new."""
        kind = "application/octet-stream"
        return (await self.request("PUT", _file(session_id, path), body=content, kind=kind))[0] == 201

    async def tasks(
        self,
        *,
        session_id: str | None = None,
        status: TaskState | None = None,
        limit: int | None = None,
        cursor: str | None = None,
        all: bool = False,
    ) -> TaskList:
        """Tasks, newest first; for admins who ask for it everybody's."""
        query = {"session_id": session_id, "status": status, "limit": limit, "cursor": cursor, "all": all}
        return cast(TaskList, await self._json("GET", "v1/tasks", query))

    async def task(self, task_id: str) -> WholeTask:
        """A task, with its result once it has ended."""
        return cast(WholeTask, await self._json("GET", f"v1/tasks/{task_id}"))

    async def submit(self, prompt: str, **fields: Any) -> AcceptedTask:
        """Submits a prompt without following it; `fields` as of `Submit`."""
        return cast(AcceptedTask, await self._json("POST", "v1/tasks", body={"prompt": prompt, **fields}))

    async def cancel(self, task_id: str) -> CancelledTask:
        """Cancels a task. Returns when nothing of it runs any more."""
        return cast(CancelledTask, await self._json("DELETE", f"v1/tasks/{task_id}"))

    async def answer(self, task_id: str, answer: Answer, ask_id: str | None = None) -> AnsweredTask:
        """Answers a question of a task, the oldest open one by default."""
        body = {"answer": answer, "ask_id": ask_id}
        return cast(AnsweredTask, await self._json("POST", f"v1/tasks/{task_id}/answer", body=body))

    async def profiles(self) -> ProfileList:
        """The agents to choose from."""
        return cast(ProfileList, await self._json("GET", "v1/profiles"))

    async def tokens(self, *, limit: int | None = None, cursor: str | None = None, all: bool = False) -> TokenList:
        """One's tokens, newest first; for admins who ask for it everybody's."""
        return cast(TokenList, await self._json("GET", "v1/api-tokens", {"limit": limit, "cursor": cursor, "all": all}))

    async def create_token(self, **fields: Any) -> NewToken:
        """Makes a token, which is shown once; `fields` as of `TokenBody`."""
        return cast(NewToken, await self._json("POST", "v1/api-tokens", body=fields))

    async def revoke_token(self, token_id: str) -> None:
        """Makes a token useless."""
        await self.request("DELETE", f"v1/api-tokens/{token_id}")

    async def health(self) -> Health:
        """The gateway's version and how full it is."""
        return cast(Health, await self._json("GET", "health"))

    async def ready(self) -> Readiness:
        """Whether work should come here now."""
        _, content = await self.request("GET", "health/ready", accept=(200, 503))
        return cast(Readiness, json.loads(content))

    async def _json(self, method: str, path: str, query: dict[str, Any] | None = None, body: Any = None) -> Any:
        encoded = None if body is None else json.dumps(body).encode()
        _, content = await self.request(method, path, query, encoded, "application/json")
        return json.loads(content)

    async def request(
        self,
        method: str,
        path: str,
        query: dict[str, Any] | None = None,
        body: bytes | None = None,
        kind: str = "application/json",
        accept: tuple[int, ...] = (),
    ) -> tuple[int, bytes]:
        """Any request: the status and the body; raises what the gateway refuses."""
        token = self._token() if callable(self._token) else self._token
        if inspect.isawaitable(token):
            token = await token
        given = {name: value for name, value in (query or {}).items() if value is not None}
        words = {name: str(value).lower() if isinstance(value, bool) else value for name, value in given.items()}
        url = f"{self._url}{path}" + (f"?{urllib.parse.urlencode(words)}" if words else "")
        request = urllib.request.Request(url, data=body, method=method)
        if body is not None:
            request.add_header("Content-Type", kind)
        if token is not None:
            request.add_header("Authorization", f"Bearer {token}")
        status, content = await asyncio.to_thread(self._send, request)
        if status < 300 or status in accept:
            return status, content
        try:
            error = json.loads(content)["error"]
        except (ValueError, KeyError, TypeError):
            error = {"code": "INTERNAL_ERROR", "message": f"{method} /{path}: HTTP {status}"}
        raise GatewayError(error, status)

    def _send(self, request: urllib.request.Request) -> tuple[int, bytes]:
        try:
            with urllib.request.urlopen(request, timeout=self._timeout) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()


def _file(session_id: str, path: str) -> str:
    return f"v1/sessions/{session_id}/files/{urllib.parse.quote(path)}"

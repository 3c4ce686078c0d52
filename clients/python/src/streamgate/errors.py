"""What can go wrong, in the gateway's words or in the connection's."""

from __future__ import annotations

import json
from typing import Any, Literal

from .protocol import CLOSE_CODES, Detail, ErrorCode


class GatewayError(Exception):
    """The gateway refused something. Its text is for people, `code` for programs."""

    def __init__(self, error: Any, status: int | None = None) -> None:
        super().__init__(error["message"])
        self.code: ErrorCode = error["code"]
        self.message: str = error["message"]
        #: When trying again makes sense.
        self.retry_after_ms: int | None = error.get("retry_after_ms")
        self.session_id: str | None = error.get("session_id")
        self.task_id: str | None = error.get("task_id")
        #: The session's last event, for `CURSOR_AHEAD`.
        self.last_seq: int | None = error.get("last_seq")
        #: What is wrong with each field, for `VALIDATION_FAILED`.
        self.details: list[Detail] = error.get("details", [])
        #: Of an answer over HTTP.
        self.status = status


class ConnectionLost(Exception):
    """The connection is gone, and with it the answer; or it can't be had at all."""

    def __init__(self, message: str, close_code: int | None = None) -> None:
        super().__init__(message)
        self.close_code = close_code


#: "drop requests": what was asked broke the connection; asked again it would break the next one.
Verdict = Literal["give up", "drop requests", "back off", "at once"]


def verdict_of(code: int) -> Verdict:
    """What a close code asks of a client; ranges tell it of codes that are not known here too."""
    if 4000 <= code < 4100:
        return "give up"
    if 4200 <= code < 4300:
        return "at once"
    return "drop requests" if code in (1002, 1003, 1007, 1009) else "back off"


def close_word(code: int) -> str:
    """The word for a close code."""
    return CLOSE_CODES.get(code, "connection lost")


def retry_after_ms(reason: str) -> int | None:
    """What a close reason says of when to come back, if it does."""
    try:
        told = json.loads(reason).get("retry_after_ms")
    except (ValueError, AttributeError):
        return None
    return told if isinstance(told, int) and told >= 0 else None

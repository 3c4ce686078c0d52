"""Client of streamgate, the gateway that streams AI agents at work."""

from .client import Result, Streamgate, SubmitOptions, Task
from .connection import ConnectionState
from .errors import ConnectionLost, GatewayError
from .feeds import CatchingUp, Subscription

__all__ = [
    "CatchingUp",
    "ConnectionLost",
    "ConnectionState",
    "GatewayError",
    "Result",
    "Streamgate",
    "SubmitOptions",
    "Subscription",
    "Task",
]

"""Isolation proven on a user's own server: each tenant observes exactly what it would observe alone.

Write a `Subject`, and `examine` it; or ``hivetenancy conform module:Subject``. Subjects for servers that speak HTTP,
RESP or WebSocket, and for plain objects, are in `http`, `resp`, `websocket` and `objects`.

The names are loaded when they are first asked for: pytest imports this room at its start.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .arguments import (
        Argument,
        Choice,
        Count,
        Draw,
        Handle,
        Mapping,
        Name,
        Names,
        Optional,
        Pattern,
        Several,
        Value,
    )
    from .subject import Observable, Operation, Running, ServerCrashedError, Setting, Subject, TenantSetting
    from .suite import Options, examine, examine_async
    from .verdicts import Cell, Leak, Report, Verdict

_WHERE = {
    "Argument": "arguments",
    "Cell": "verdicts",
    "Choice": "arguments",
    "Count": "arguments",
    "Draw": "arguments",
    "Handle": "arguments",
    "Leak": "verdicts",
    "Mapping": "arguments",
    "Name": "arguments",
    "Names": "arguments",
    "Observable": "subject",
    "Operation": "subject",
    "Optional": "arguments",
    "Options": "suite",
    "Pattern": "arguments",
    "Report": "verdicts",
    "Running": "subject",
    "ServerCrashedError": "subject",
    "Setting": "subject",
    "Several": "arguments",
    "Subject": "subject",
    "TenantSetting": "subject",
    "Value": "arguments",
    "Verdict": "verdicts",
    "examine": "suite",
    "examine_async": "suite",
}

__all__ = [
    "Argument",
    "Cell",
    "Choice",
    "Count",
    "Draw",
    "Handle",
    "Leak",
    "Mapping",
    "Name",
    "Names",
    "Observable",
    "Operation",
    "Optional",
    "Options",
    "Pattern",
    "Report",
    "Running",
    "ServerCrashedError",
    "Setting",
    "Several",
    "Subject",
    "TenantSetting",
    "Value",
    "Verdict",
    "examine",
    "examine_async",
]


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f".{_WHERE[name]}", __name__), name)
    globals()[name] = value  # asked once
    return value


def __dir__() -> list[str]:
    return list(__all__)

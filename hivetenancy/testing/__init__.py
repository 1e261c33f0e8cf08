"""What users test with: a hub in memory, clocks that move by hand, a driver of ASGI applications.

The names are loaded when they are first asked for, so that importing the room costs nothing. The contract kits for
engines of your own are in `hivetenancy.testing.contracts`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .asgi import AsgiClient, AsgiProtocolError, LifespanFailedError, WebSocketClosedError
    from .clock import ManualClock, ShiftedClock
    from .hub import FakeHiveHub, FakeTenant, IssuedKey

_WHERE = {
    "AsgiClient": "asgi",
    "AsgiProtocolError": "asgi",
    "FakeHiveHub": "hub",
    "FakeTenant": "hub",
    "IssuedKey": "hub",
    "LifespanFailedError": "asgi",
    "ManualClock": "clock",
    "ShiftedClock": "clock",
    "WebSocketClosedError": "asgi",
}

__all__ = [
    "AsgiClient",
    "AsgiProtocolError",
    "FakeHiveHub",
    "FakeTenant",
    "IssuedKey",
    "LifespanFailedError",
    "ManualClock",
    "ShiftedClock",
    "WebSocketClosedError",
]


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f".{_WHERE[name]}", __name__), name)
    globals()[name] = value  # asked once
    return value


def __dir__() -> list[str]:
    return list(__all__)

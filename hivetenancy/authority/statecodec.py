"""The values of a control plane as JSON text, and back to the very same values.

Only the classes listed here are made from a file, each through its own constructor, which checks what it is given; so a
file that somebody has written to can hold wrong facts and never run anything.

Own code, because what is at hand loses what matters here: plain JSON has no tuples, sets, bytes or keys that are no
text, pydantic reads a standard dataclass's bytes as UTF-8 only, and pickles run whatever they are told to.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from types import MappingProxyType
from typing import Any, Final

from hivetenancy.ids import Environment, Permission
from hivetenancy.periods import Period
from hivetenancy.plans import CalendarPolicy, ConcurrencyPolicy, Plan, QuotaKind, QuotaLimit, RatePolicy, Scope
from hivetenancy.sources import (
    ChangeEvent,
    ChangeType,
    RejectCode,
    RejectedLine,
    TenantStatus,
    UsageKind,
    UsageLine,
    UsageReply,
    UsageReport,
)

from .book import _Level, _Source
from .credentials import ServiceKey, ServiceSecret
from .idempotency import Claim, Replay, SecretMade, _Entry
from .keys import Key, KeyVersion
from .resources import RegisteredCollection, RegisteredResource
from .state import TenantRecord

_CLASSES: Final[Mapping[str, type[Any]]] = {
    kind.__name__.lstrip("_"): kind
    for kind in (
        *(CalendarPolicy, ConcurrencyPolicy, Plan, QuotaLimit, RatePolicy, TenantRecord, Key, KeyVersion, ServiceKey),
        *(ServiceSecret, RegisteredCollection, RegisteredResource, ChangeEvent, RejectedLine, UsageLine, UsageReply),
        *(UsageReport, Claim, Replay, SecretMade, _Entry, _Level, _Source),
    )
}
_ENUMS: Final[Mapping[str, type[Enum]]] = {
    kind.__name__: kind
    for kind in (ChangeType, Environment, Period, Permission, QuotaKind, RejectCode, Scope, TenantStatus, UsageKind)
}
_NAMES: Final = {kind: name for name, kind in _CLASSES.items()}


def encode(value: object) -> bytes:
    """Return *value* as JSON.

    Raises:
        TypeError: There is something in it that is not of the model.
    """
    return json.dumps(_packed(value), separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode(
        "utf-8", "surrogatepass"
    )


def decode(body: bytes) -> Any:
    """Return what `encode` was given; a mapping comes back as a dict, inside a value as one that is read only.

    Raises:
        ValueError: It is not what `encode` returns, or a value of the model refuses its fields.
    """
    try:
        return _unpacked(json.loads(body.decode("utf-8", "surrogatepass")))
    except (TypeError, KeyError, AttributeError, IndexError, RecursionError) as error:
        raise ValueError(f"no value of the model ({type(error).__name__})") from error


def _packed(value: Any) -> Any:
    if isinstance(value, Enum):
        return {"e": type(value).__name__, "v": value.value}
    if value is None or type(value) in (bool, int, str):
        return value
    if is_dataclass(value) and type(value) in _NAMES:
        stated = {field.name: _packed(getattr(value, field.name)) for field in fields(value) if field.init}
        return {"d": _NAMES[type(value)], "v": stated}
    if isinstance(value, bytes):
        return {"b": value.hex()}
    if isinstance(value, tuple):
        return [_packed(item) for item in value]
    if isinstance(value, frozenset):
        return {"s": [_packed(item) for item in sorted(value)]}
    if isinstance(value, Mapping):
        return {"m": [[_packed(key), _packed(item)] for key, item in value.items()]}
    if isinstance(value, str):  # of a class of its own: a name that is a string
        return str(value)
    raise TypeError(f"a control plane holds no {type(value).__name__}")


def _unpacked(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_unpacked(item) for item in value)
    if not isinstance(value, dict):
        return value
    if "d" in value:
        return _CLASSES[value["d"]](**{name: _inside(item) for name, item in value["v"].items()})
    if "e" in value:
        return _ENUMS[value["e"]](value["v"])
    if "b" in value:
        return bytes.fromhex(value["b"])
    if "s" in value:
        return frozenset(_unpacked(item) for item in value["s"])
    return {_unpacked(key): _unpacked(item) for key, item in value["m"]}


def _inside(value: Any) -> Any:
    made = _unpacked(value)
    return MappingProxyType(made) if isinstance(made, dict) else made

"""Observations in one plain form, in which two of them can be compared, searched and shown."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Hashable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any, Final

_ATOMS: Final = frozenset({str, bytes, int, float, bool, type(None)})

_LONG: Final = 8
"""From how many characters on a handle is recognised inside a longer text; shorter ones would be found by chance."""


def plain(value: Any) -> Any:
    """Return *value* as text, bytes, numbers, ``None``, lists and mappings of these.

    An exception becomes a mapping with ``raised``, its class, and ``message``.
    """
    if type(value) in _ATOMS:
        return value
    if isinstance(value, (list, tuple, deque)):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {plain_key(key): plain(item) for key, item in value.items()}
    return _unusual(value)


def plain_key(key: Any) -> Hashable:
    """Return a key of a mapping in that form."""
    if type(key) in _ATOMS:
        return key  # type: ignore[no-any-return]
    found = plain(key)
    return found if isinstance(found, Hashable) else repr(found)


def _unusual(value: Any) -> Any:
    if isinstance(value, BaseException):
        return {"raised": type(value).__name__, "message": str(value)}
    if isinstance(value, Enum):
        return plain(value.value)
    for kind in (str, int, float):
        if isinstance(value, kind):  # a subclass, as a physical name is one
            return kind.__str__(value) if kind is str else kind(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, (set, frozenset)):
        return sorted((plain(item) for item in value), key=repr)
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))


def is_failure(observation: Any) -> bool:
    """Return whether it is what `plain` makes of an exception."""
    return isinstance(observation, dict) and "raised" in observation


def is_empty(observation: Any) -> bool:
    """Return whether *observation* tells nothing: no value, no items, zero, a failure.

    An answer with a body, as one of HTTP, is as empty as its body.
    """
    if isinstance(observation, dict):
        if "raised" in observation:
            return True
        if "body" in observation:
            return is_empty(observation["body"])
        return all(is_empty(item) for item in observation.values())
    if isinstance(observation, list):
        return all(is_empty(item) for item in observation)
    return not observation


def leaves(observation: Any, into: list[bytes]) -> None:
    """Add all text and bytes of *observation* to *into*."""
    kind = type(observation)
    if kind is str:
        into.append(observation.encode("utf-8", "surrogatepass"))
    elif kind is bytes:
        into.append(observation)
    elif kind is list:
        for item in observation:
            leaves(item, into)
    elif kind is dict:
        for key, item in observation.items():
            leaves(key, into)
            leaves(item, into)


def content(observation: Any) -> bytes:
    """Return all text and bytes of *observation*, a line each."""
    if type(observation) is str:
        return observation.encode("utf-8", "surrogatepass")
    found: list[bytes] = []
    leaves(observation, found)
    return b"\n".join(found)


class Renaming:
    """Puts agreed words for handles into observations: the same handle is another text on each server."""

    __slots__ = ("_exact", "_inside")

    def __init__(self) -> None:
        self._exact: dict[Hashable, str] = {}
        self._inside: list[tuple[str, str]] = []

    def add(self, raw: Hashable, word: str) -> None:
        """Say *word* for *raw* from now on, if it is long enough to be no coincidence."""
        if not isinstance(raw, (str, bytes)) or len(raw) < _LONG:
            return
        text = raw if isinstance(raw, str) else raw.decode("utf-8", "surrogateescape")
        self._exact[raw] = word
        self._inside.append((text, word))

    def __bool__(self) -> bool:
        return bool(self._exact)

    def apply(self, observation: Any) -> Any:
        """Return *observation* with the words in place."""
        kind = type(observation)
        if kind is str:
            return self._text(observation)
        if kind is bytes:
            word = self._exact.get(observation)
            return observation if word is None else word.encode()
        if kind is list:
            return [self.apply(item) for item in observation]
        if kind is dict:
            return {self.apply(key): self.apply(item) for key, item in observation.items()}
        return observation

    def _text(self, text: str) -> str:
        word = self._exact.get(text)
        if word is not None:
            return word
        if len(text) > _LONG:
            for raw, word in self._inside:
                if raw in text:
                    text = text.replace(raw, word)
        return text


def handle_in(observation: Any, kind: str) -> Hashable | None:
    """Return the handle in an answer that holds one of *kind*, or ``None``."""
    if isinstance(observation, dict):
        if "raised" in observation:
            return None
        for key in (kind, "handle", "id", "result", "body"):
            found = handle_in(observation[key], kind) if key in observation else None
            if found is not None:
                return found
        return None
    if type(observation) in (str, bytes, int) and observation not in ("", b""):
        return observation  # type: ignore[no-any-return]
    return None

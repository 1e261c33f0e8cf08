"""Handles: where they stand in calls and answers, others that look like them, and how hard they are to guess."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from functools import lru_cache
from math import log2
from typing import Any, Final

from .arguments import HandleUse


def uses(value: Any) -> list[HandleUse]:
    """Return all places in an argument where handles go."""
    if isinstance(value, HandleUse):
        return [value]
    if isinstance(value, list):
        return [use for item in value for use in uses(item)]
    if isinstance(value, dict):
        return [use for item in value.values() for use in uses(item)]
    return []


def replaced(observation: Any, handle: Hashable, word: str) -> Any:
    """Return *observation* with *word* wherever just the handle stands."""
    if isinstance(observation, dict):
        return {key: replaced(item, handle, word) for key, item in observation.items()}
    if isinstance(observation, list):
        return [replaced(item, handle, word) for item in observation]
    return word if type(observation) is type(handle) and observation == handle else observation


def words(foreign: Mapping[str, Any], never: Mapping[str, Any]) -> dict[Any, str]:
    """Return what differs between two lists of arguments, each to be called the same."""
    found: dict[Any, str] = {}
    for name, value in foreign.items():
        _pair(value, never[name], found)
    return found


def _pair(one: Any, other: Any, into: dict[Any, str]) -> None:
    if isinstance(one, list) and isinstance(other, list):
        for mine, its in zip(one, other, strict=True):
            _pair(mine, its, into)
    elif isinstance(one, dict) and isinstance(other, dict):
        for key, value in one.items():
            _pair(value, other[key], into)
    elif one != other:
        into[one] = into[other] = "<handle>"


def worded(observation: Any, agreed: Mapping[Any, str]) -> Any:
    """Return *observation* with each handle of *agreed* by its word."""
    kind = type(observation)
    if kind is list:
        return [worded(item, agreed) for item in observation]
    if kind is dict:
        return {worded(key, agreed): worded(item, agreed) for key, item in observation.items()}
    if kind in (str, bytes, int):
        if observation in agreed:
            return agreed[observation]
        for raw, word in agreed.items():
            if kind is str:
                observation = _whole(str(raw)).sub(word, observation)
            elif kind is bytes:
                text = raw if isinstance(raw, bytes) else str(raw).encode()
                observation = observation.replace(text, word.encode()) if len(text) > _SHORT else observation
    return observation


_SHORT: Final = 2
"""Handles of so few bytes are not looked for inside of bytes: they would be found by chance."""


@lru_cache(maxsize=256)
def _whole(text: str) -> re.Pattern[str]:
    """Finds *text* where it is no part of a longer word."""
    return re.compile(rf"(?<![0-9A-Za-z]){re.escape(text)}(?![0-9A-Za-z])")


def never_issued(like: Hashable, salt: int, *, keep: int = 0) -> Any:
    """Return a handle of the same shape as *like* that no server issues: digits for digits, letters for letters.

    Args:
        like: One that was issued.
        salt: Another one for each number.
        keep: How many characters at the beginning are the same in all handles of the kind.
    """
    if isinstance(like, bool) or not isinstance(like, (str, bytes, int)):
        return f"never-issued-{salt}"
    if isinstance(like, int):
        return like + 7_000_000 + salt
    text = like if isinstance(like, str) else like.decode("latin-1")
    changed = text[:keep] + "".join(_other(character, place + salt) for place, character in enumerate(text[keep:]))
    return changed if isinstance(like, str) else changed.encode("latin-1")


_WORD: Final = re.compile(r"[A-Za-z]+[-_:./]")


def same_start(handles: Sequence[Any]) -> int:
    """Return how many characters all *handles* begin with; of one alone, the length of a word and what ends it."""
    texts = [str(handle) for handle in handles if isinstance(handle, str)]
    if len(texts) > 1:
        low, high = min(texts), max(texts)  # what these two begin with alike, all do
        same = next((place for place, pair in enumerate(zip(low, high, strict=False)) if pair[0] != pair[1]), len(low))
        return min(same, min(map(len, texts)) - 1)
    start = _WORD.match(texts[0]) if texts else None
    return start.end() if start else 0


def _other(character: str, salt: int) -> str:
    for alphabet in ("0123456789", "abcdef", "ABCDEF", "ghijklmnopqrstuvwxyz", "GHIJKLMNOPQRSTUVWXYZ"):
        if character in alphabet:
            return alphabet[(alphabet.index(character) + 1 + salt * 7 % (len(alphabet) - 1)) % len(alphabet)]
    return character


_DIGITS: Final = re.compile(r"[0-9]*")
_HEX: Final = re.compile(r"[0-9a-fA-F-]*")


def bits_apart(one: Hashable, other: Hashable) -> float:
    """Return how many bits the part has, at most, in which two handles differ: whoever has one guesses so many."""
    a, b = str(one), str(other)
    start = next(
        (place for place, pair in enumerate(zip(a, b, strict=False)) if pair[0] != pair[1]), min(len(a), len(b))
    )
    end = 0
    while end < min(len(a), len(b)) - start and a[-1 - end] == b[-1 - end]:
        end += 1
    part = max(a[start : len(a) - end], b[start : len(b) - end], key=len)
    alphabet = 10 if _DIGITS.fullmatch(part) else 16 if _HEX.fullmatch(part) else 64
    return len(part) * log2(alphabet)

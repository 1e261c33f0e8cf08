"""How calls and answers are written in every report."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from .canaries import SERVICE_KEY
from .runner import Shown

_MARK: Final = re.compile(r"hvcanary([0-9a-f]{4})([0-9a-f]{6})")
_LONGEST: Final = 240


def shown(value: Any, ids: Sequence[str]) -> str:
    """Return *value* as Python writes it, with marks in words: ``acme#4`` is the fourth value, and acme's."""
    text = _MARK.sub(lambda match: _mark(match, ids), repr(value))
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}... ({len(text)} characters)"


def _mark(match: re.Match[str], ids: Sequence[str]) -> str:
    tag = match[1]
    if tag == SERVICE_KEY:
        return "THE-SERVICE-KEY"
    if tag.startswith("ee"):
        return f"ACCESS-KEY-OF-{_id(int(tag, base=16) & 0xFF, ids)}"
    return f"{_id(int(tag, base=16), ids)}#{int(match[2], base=16)}"


def _id(place: int, ids: Sequence[str]) -> str:
    return repr(ids[place])[1:-1] if place < len(ids) else f"tenant {place}"


def call(one: Shown, ids: Sequence[str]) -> str:
    """Return a call as one would write it: ``get(key='k')``."""
    arguments = ", ".join(f"{name}={shown(value, ids)}" for name, value in one.arguments.items())
    return f"{one.step.operation.name}({arguments})"

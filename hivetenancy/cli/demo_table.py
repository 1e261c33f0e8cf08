"""The table of ``hivetenancy demo``: what was expected of each step, and what came."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import httpx


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step: what was expected, what came, and how long the server took, in milliseconds."""

    step: str
    expected: str
    got: str
    ms: float

    @property
    def ok(self) -> bool:
        """Whether what came is what was expected."""
        return self.got == self.expected


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRow:
    """What a tenant's clients did, and what the hub was told of it."""

    tenant: str
    dimension: str
    done: int
    reported: int


@dataclass(slots=True)
class Outcome:
    """Everything that the run showed."""

    steps: list[Step] = field(default_factory=list)
    usage: list[UsageRow] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether every step and every figure of usage is as expected."""
        return (
            bool(self.steps)
            and all(step.ok for step in self.steps)
            and bool(self.usage)
            and all(row.done == row.reported for row in self.usage)
        )

    def as_json(self) -> dict[str, Any]:
        """Return the run as one JSON object."""
        return {
            "ok": self.ok,
            "steps": [asdict(step) for step in self.steps],
            "usage": [asdict(row) for row in self.usage],
        }


class Table:
    """Enters steps into an outcome, and shows each as a line.

    Args:
        show: Takes the lines.
    """

    def __init__(self, show: Callable[[str], None]) -> None:
        self.show = show
        self.outcome = Outcome()

    def head(self) -> None:
        """Show the head of the table."""
        self.show(f"{'step':52} {'expected':30} {'got':30} {'ms':>7}")

    async def expect(
        self, step: str, expected: str, call: Any, *, body: bool = False, code: bool = False
    ) -> httpx.Response:
        """Make *call*, and enter whether its status (with its body, or its code) is what was expected."""
        began = time.perf_counter()
        response: httpx.Response = await call
        ms = (time.perf_counter() - began) * 1000
        got = str(response.status_code)
        if body:
            got += f" {response.text}"
        elif code:
            got += f" {_code(response)}"
        self.enter(Step(step=step, expected=expected, got=got, ms=round(ms, 2)))
        return response

    def note(self, step: str, expected: str, got: str) -> None:
        """Enter something that is no call of its own."""
        self.enter(Step(step=step, expected=expected, got=got, ms=0.0))

    def enter(self, step: Step) -> None:
        """Add a line to the table."""
        self.outcome.steps.append(step)
        mark = "" if step.ok else "   <-- not as expected"
        self.show(f"{step.step:52} {step.expected:30} {step.got:30} {step.ms:7.2f}{mark}")


def bearer(key: str) -> Mapping[str, str]:
    """Return the headers that present a key."""
    return {"Authorization": f"Bearer {key}"}


def _code(response: httpx.Response) -> str:
    try:
        return str(response.json()["code"])
    except (ValueError, KeyError):
        return "without a code"

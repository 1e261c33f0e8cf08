"""What can go wrong between a fake hub and code under test, and the journal of what was asked.

A fault of one call is a `Fault`: what happens to the request, to the work, or to the reply. It means the same to code
that calls the fake's methods and to code that reaches it over HTTP; `unheard` says what a method raises where HTTP
would break the connection or answer with something else.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from hivetenancy.authority.bell import Bell
from hivetenancy.clock import SECOND_US
from hivetenancy.errors import ConfigurationError, HubContractError, HubUnavailableError, TenancyError

SOURCE_CALLS: Final = ("introspect", "introspect_batch", "limits", "limits_batch", "changes", "report")
"""The calls that stand behind the four source protocols."""

WIRE_CALLS: Final = (
    "access_keys.generate",
    "access_keys.list",
    "access_keys.get",
    "access_keys.revoke",
    "access_keys.rotate",
    "vectorizer.get_user_collections",
    "vectorizer.create_collection",
    "vectorizer.validate_collection",
    "vectorizer.update_usage",
    "vectorizer.check_quota",
    "nexus.get_user_database",
    "nexus.check_quota",
    "nexus.consume_credits",
    "nexus.update_usage",
    "synap.get_user_resources",
    "synap.validate_resource",
    "synap.create_resource",
    "synap.update_usage",
    "synap.check_quota",
    "lesstokens.get_user_tokens",
    "lesstokens.validate_tokens",
    "lesstokens.consume_tokens",
    "lesstokens.check_limit",
    "lesstokens.check_quota",
    "announcement",
    "limits_page",
)
"""The other calls of the wire, which need HTTP, or `FakeHiveHub.service` and its desk."""

CALLS: Final = (*SOURCE_CALLS, *WIRE_CALLS)
"""What code under test can ask a hub, by the names that faults and the journal use."""

Connection: TypeAlias = Literal["refused", "reset"]
Reply: TypeAlias = Literal["lost", "malformed", "truncated", "slow"]
Events: TypeAlias = Literal["reversed", "repeated", "skipped", "cursor_lost"]

_CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "connection": ("refused", "reset"),
    "reply": ("lost", "malformed", "truncated", "slow"),
    "events": ("reversed", "repeated", "skipped", "cursor_lost"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One question that code under test asked.

    Attributes:
        name: Which, of `CALLS`.
        arguments: What was asked, as far as it is no secret: a key by its id, ``unknown`` where it has none.
        at_us: When, in wall microseconds of the hub's clock.
        outcome: ``answered``, ``outage``, ``reply lost``, ``refused`` with the status that the hub gave, or the fault
            that it met, as `Fault.label` says.
    """

    name: str
    arguments: Mapping[str, object]
    at_us: int
    outcome: str

    def __str__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.arguments.items())
        return f"{self.name}({arguments}): {self.outcome}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What happens to one call. Of *status*, *connection*, *reply* and *events* at most one is stated.

    Attributes:
        status: The status of the answer, 300 to 599; nothing is done. What the status means is the client's affair.
        retry_after: Whole seconds, sent as ``Retry-After`` with *status*.
        connection: ``refused``: no connection; ``reset``: it breaks before an answer. Nothing is done in either.
        reply: The call is done, and its reply is ``lost`` (the connection breaks), ``malformed`` (no JSON),
            ``truncated`` (it breaks half-way) or ``slow`` (one byte in each *latency* seconds, 0.1 if that is 0).
        events: What ``changes`` tells of: ``reversed`` order, each ``repeated``, every second one ``skipped``, or
            ``cursor_lost``, which is a reset.
        latency: Seconds of the hub's clock before anything else happens.
        again: Deliver the request a second time, after so many further calls (0: when `FakeHiveHub.deliver_late` says
            so). With *connection* ``reset`` it is the first time that it arrives. ``None``: no.

    Raises:
        ConfigurationError: A value is wrong, they do not go together, or none is stated.
    """

    status: int | None = None
    retry_after: int | None = None
    connection: Connection | None = None
    reply: Reply | None = None
    events: Events | None = None
    latency: float = 0.0
    again: int | None = None

    def __post_init__(self) -> None:
        stated = [name for name in ("status", "connection", "reply", "events") if getattr(self, name) is not None]
        if len(stated) > 1 or (not stated and not self.latency and self.again is None):
            raise ConfigurationError(
                f"a fault is one of status, connection, reply and events, or a latency alone; got {stated or 'nothing'}"
            )
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in (None, *choices):
                raise ConfigurationError(f"{name} is one of {', '.join(choices)}, got {getattr(self, name)!r}")
        _check_number("status", self.status, 300, 599)
        _check_number("retry_after", self.retry_after, 0, 86_400)
        _check_number("again", self.again, 0, 1_000_000)
        if type(self.latency) not in (int, float) or not 0 <= self.latency <= 86_400:
            raise ConfigurationError(f"latency is 0 to 86400 seconds, got {self.latency!r}")
        if self.retry_after is not None and self.status is None:
            raise ConfigurationError("retry_after goes with status")

    @property
    def label(self) -> str:
        """What the journal calls it."""
        for name in ("status", "connection", "reply", "events"):
            if getattr(self, name) is not None:
                return f"{name} {getattr(self, name)}"
        return "answered"

    @property
    def prevents(self) -> bool:
        """Whether the call is not done."""
        return self.status is not None or self.connection is not None

    @property
    def latency_us(self) -> int:
        """The latency in microseconds."""
        return round(self.latency * SECOND_US)


def _check_number(name: str, value: int | None, least: int, most: int) -> None:
    if value is not None and (type(value) is not int or not least <= value <= most):
        raise ConfigurationError(f"{name} is a whole number from {least} to {most}, got {value!r}")


def made_fault(stated: Fault | Mapping[str, Any]) -> Fault:
    """Return *stated* as a `Fault`.

    Raises:
        ConfigurationError: It is none; the message names the field.
    """
    if isinstance(stated, Fault):
        return stated
    if not isinstance(stated, Mapping):
        raise ConfigurationError(f"a fault is a Fault, or a mapping of its fields, got {type(stated).__name__}")
    fields = Fault.__dataclass_fields__
    for name in stated:
        if name not in fields:
            raise ConfigurationError(f"a fault has no {name!r}; it has {', '.join(fields)}")
    return Fault(**stated)


USUAL_FAULTS: Final = (
    Fault(status=503),
    Fault(status=500),
    Fault(status=429, retry_after=1),
    Fault(connection="refused"),
    Fault(connection="reset"),
    Fault(connection="reset", again=3),
    Fault(reply="lost"),
    Fault(reply="lost", again=3),
    Fault(reply="malformed"),
    Fault(reply="truncated"),
)
"""What `FakeHiveHub.faults` draws from where it is told nothing else. None of them takes time."""


def unheard(fault: Fault, name: str) -> TenancyError | None:
    """Return what a method raises for *fault*, as the real client would; ``None``: it returns its answer."""
    what = f"FakeHiveHub: {fault.label}, in the place of an answer to {name}"
    if fault.reply == "lost":
        what = f"FakeHiveHub lost the reply to {name}, as the test said"
    wait_us = None if fault.retry_after is None else fault.retry_after * SECOND_US
    if fault.connection == "refused":
        return HubUnavailableError(what, outcome_unknown=False)
    if fault.connection == "reset" or fault.reply in ("lost", "truncated", "slow"):
        return HubUnavailableError(what)
    if fault.status in (401, 403):
        return HubUnavailableError(what, transient=False, outcome_unknown=False)
    if fault.status == 404 or (fault.status == 429 and wait_us is not None):
        return HubUnavailableError(what, retry_after_us=wait_us, outcome_unknown=False)
    if fault.status is not None and fault.status >= 500:
        return HubUnavailableError(what, retry_after_us=wait_us)
    if fault.status is not None or fault.reply == "malformed":
        return HubContractError(what)
    return None


# --- which call meets which ------------------------------------------------------------------------------------------


class Planted:
    """A fault that waits for its calls; as a context manager it is taken away at the end of the block.

    Attributes:
        fault: What happens.
        names: To which calls.
        hits: How many met it.
    """

    def __init__(self, names: Sequence[str], fault: Fault, times: int | None, end: Callable[[Planted], None]) -> None:
        self.names = frozenset(names)
        self.fault = fault
        self.hits = 0
        self._times = times
        self._end = end

    def __repr__(self) -> str:
        left = "every call" if self._times is None else f"{self._times - self.hits} calls"
        return f"<Planted {self.fault.label} for {left} of {', '.join(sorted(self.names))}>"

    def __enter__(self) -> Planted:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    @property
    def spent(self) -> bool:
        """Whether no further call meets it."""
        return self._times is not None and self.hits >= self._times

    def remove(self) -> None:
        """Take it away; a second time changes nothing."""
        self._end(self)


class Weather:
    """Faults by chance, the same for the same seed and the same order of calls; ends with its block.

    Attributes:
        hits: How many calls met a fault.
    """

    def __init__(
        self, names: Sequence[str], kinds: Sequence[Fault], *, seed: int, rate: float, end: Callable[[Weather], None]
    ) -> None:
        if type(seed) is not int:
            raise ConfigurationError(f"seed is a whole number, got {seed!r}")
        if type(rate) not in (int, float) or not 0 <= rate <= 1:
            raise ConfigurationError(f"rate is 0 to 1, got {rate!r}")
        if not kinds:
            raise ConfigurationError("faults by chance need at least one kind")
        self.names = frozenset(names)
        self.hits = 0
        self._kinds = tuple(kinds)
        self._rate = rate
        self._draw = random.Random(seed)
        self._end = end

    def __repr__(self) -> str:
        return f"<Weather: {self._rate:.0%} of the calls, {self.hits} hit so far>"

    def __enter__(self) -> Weather:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def drawn(self) -> Fault | None:
        """Return what the next call meets. Two numbers are drawn whatever comes of it, so that nothing shifts."""
        chance, kind = self._draw.random(), self._draw.choice(self._kinds)
        if chance >= self._rate:
            return None
        self.hits += 1
        return kind

    def remove(self) -> None:
        """End it; a second time changes nothing."""
        self._end(self)


class FaultPlan:
    """Which fault the next call of each name meets: scripts first, then what was planted last, then the weather.

    Concurrency:
        Any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._scripts: dict[str, list[Fault | None]] = {}
        self._planted: list[Planted] = []
        self._weather: list[Weather] = []

    def plant(self, names: Sequence[str], fault: Fault, times: int | None) -> Planted:
        """Let the next *times* calls of *names* meet *fault*; ``None``: all until it is removed."""
        _check_number("times", times, 1, 1_000_000_000)
        if fault.events is not None and set(names) != {"changes"}:
            raise ConfigurationError('events is a fault of "changes" alone: hub.fail("changes", events=...)')
        planted = Planted(names, fault, times, self._remove)
        with self._lock:
            self._planted.append(planted)
        return planted

    def script(self, name: str, faults: Sequence[Fault | None]) -> None:
        """Let the next calls of *name* meet these, one each; ``None``: none."""
        with self._lock:
            self._scripts.setdefault(name, []).extend(faults)

    def chance(self, names: Sequence[str], kinds: Sequence[Fault], *, seed: int, rate: float) -> Weather:
        """Let calls of *names* meet faults by chance."""
        weather = Weather(names, kinds, seed=seed, rate=rate, end=self._remove)
        with self._lock:
            self._weather.append(weather)
        return weather

    def _remove(self, what: Planted | Weather) -> None:
        with self._lock:
            self._planted = [each for each in self._planted if each is not what]
            self._weather = [each for each in self._weather if each is not what]

    def clear(self) -> None:
        """Take everything away."""
        with self._lock:
            self._scripts.clear()
            self._planted.clear()
            self._weather.clear()

    def waits_for(self, name: str) -> bool:
        """Whether a call of *name* may meet a fault."""
        with self._lock:
            waiting: list[Planted | Weather] = [*self._planted, *self._weather]
            return any(name in each.names for each in waiting) or bool(self._scripts.get(name))

    def next(self, name: str) -> Fault | None:
        """Return what this call of *name* meets, and count it."""
        with self._lock:
            script = self._scripts.get(name)
            if script:
                return script.pop(0)
            for planted in reversed(self._planted):
                if name in planted.names:
                    planted.hits += 1
                    if planted.spent:
                        self._planted.remove(planted)
                    return planted.fault
            drawn = [weather.drawn() for weather in self._weather if name in weather.names]
            return next((fault for fault in drawn if fault is not None), None)

    def listed(self) -> list[str]:
        """Return what is planted, in words."""
        with self._lock:
            scripts = [f"<script of {len(faults)} calls of {name}>" for name, faults in self._scripts.items() if faults]
            return [*scripts, *map(repr, (*self._planted, *self._weather))]


# --- what reaches the wire -------------------------------------------------------------------------------------------


class ConnectionFaultError(Exception):
    """Raised out of the ASGI application where a fault breaks the connection: a server has to cut it.

    Attributes:
        kind: ``refused`` or ``reset``.
    """

    def __init__(self, kind: Connection) -> None:
        super().__init__(f"the connection is {kind}, as a fault of the fake says")
        self.kind = kind


@dataclass(slots=True)
class Exchange:
    """One HTTP request on its way through the fake: the fault that its call met."""

    fault: Fault | None = None


EXCHANGE: Final[ContextVar[Exchange | None]] = ContextVar("hivetenancy_fake_exchange", default=None)
"""The request that the running call came by; ``None``: a method call."""


# --- replies held back -----------------------------------------------------------------------------------------------


class Held:
    """Replies held back, from `FakeHiveHub.hold`: made, and not yet delivered.

    Concurrency:
        `release` from any thread; `wait_for` needs a running loop.
    """

    def __init__(self, name: str, when_released: Callable[[], None]) -> None:
        self._name = name
        self._when_released = when_released
        self._open = False
        self._lock = threading.Lock()
        self._arrivals = Bell()
        self._gate = Bell()
        self._count = 0

    def __repr__(self) -> str:
        return f"<Held {self._name}: {self._count} held>"

    @property
    def released(self) -> bool:
        """Whether it holds nothing any more."""
        return self._open

    @property
    def count(self) -> int:
        """How many replies are held now."""
        return self._count

    async def wait_for(self, count: int = 1, *, timeout: float = 5) -> None:
        """Wait until *count* replies are held.

        Raises:
            TimeoutError: They were not after *timeout* seconds.
        """
        try:
            async with asyncio.timeout(timeout):
                while True:
                    arrival = self._arrivals.listen()
                    try:
                        if self._count >= count:
                            return
                        await arrival
                    finally:
                        self._arrivals.drop(arrival)
        except TimeoutError:
            raise TimeoutError(
                f"{self._count} replies to {self._name} are held, waited {timeout:g} s for {count}"
            ) from None

    def release(self) -> None:
        """Deliver what is held, and hold nothing from now on."""
        with self._lock:
            self._open = True
        self._gate.ring()
        self._when_released()

    async def pass_through(self) -> None:
        """Wait until released."""
        with self._lock:
            if self._open:
                return
            opened = self._gate.listen()
            self._count += 1
        self._arrivals.ring()
        try:
            await opened
        finally:
            self._gate.drop(opened)
            with self._lock:
                self._count -= 1


def known(names: Sequence[str]) -> tuple[str, ...]:
    """Return *names* if each is one of `CALLS`.

    Raises:
        ConfigurationError: One is not; the message lists them.
    """
    for name in names:
        if name not in CALLS:
            raise ConfigurationError(f"{name!r} is no call of a hub; the calls are {', '.join(CALLS)}")
    return tuple(names)

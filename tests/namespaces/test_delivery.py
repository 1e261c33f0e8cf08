"""The second lock: a name that comes back and is not the tenant's fails, is reported once, and is never shown."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from hivetenancy.errors import InvalidNameError
from hivetenancy.hooks import IsolationEvent, IsolationKind, LoggingAudit
from hivetenancy.ids import TenantId
from hivetenancy.namespaces.delivery import Delivery, Owner

ACME = TenantId("acme")
FOREIGN = ["user:acme", "user:acme:", "user:victim:secret", "", "acme:x", "x user:acme:y"]


class Names:
    """A tenant's names as text."""

    prefix = "user:acme:"

    def owns(self, physical: str, /) -> bool:
        return physical.startswith(self.prefix)

    def strip(self, physical: str, /) -> str:
        return physical[len(self.prefix) :]  # on purpose without a check: the lock must not lean on it


class RawNames:
    """The same in bytes."""

    def owns(self, physical: bytes, /) -> bool:
        return physical.startswith(b"user:acme:")

    def strip(self, physical: bytes, /) -> bytes:
        return physical[len(b"user:acme:") :]


class Kept:
    """A sink that keeps events."""

    def __init__(self) -> None:
        self.events: list[IsolationEvent] = []

    def isolation(self, event: IsolationEvent, *, now: object = None) -> None:
        self.events.append(event)


def leaks(deliver: Callable[[Owner[str], str], str]) -> list[str]:
    """What *deliver* lets through of what is not the tenant's."""
    through = []
    for physical in FOREIGN:
        try:
            deliver(Names(), physical)
        except InvalidNameError:
            continue
        through.append(physical)
    return through


def test_a14_a_foreign_name_is_never_delivered() -> None:
    """Only the tenant's own names come through; stripping without asking lets all of them out."""
    assert leaks(Delivery(ACME, "topics.deliver").deliver) == []
    assert leaks(lambda scope, physical: scope.strip(physical)) == FOREIGN, "without the defence this is a leak"
    assert Delivery(ACME, "x").deliver(Names(), "user:acme:a:b") == "a:b"
    assert Delivery(ACME, "x").deliver(RawNames(), b"user:acme:a") == b"a"


def test_a_foreign_name_is_reported_once_and_not_shown() -> None:
    """One event with a digest; neither the message nor the event holds the name or its owner."""
    sink = Kept()
    delivery = Delivery(ACME, "kv.scan", sink=sink)
    with pytest.raises(InvalidNameError) as caught:
        delivery.deliver_all(Names(), ["user:acme:a", "user:victim:secret", "user:victim:other"])
    (event,) = sink.events
    assert (event.kind, event.tenant, event.operation) == (IsolationKind.FOREIGN_NAME, ACME, "kv.scan")
    assert "victim" not in repr(event) + str(caught.value)
    assert delivery.deliver_all(Names(), ["user:acme:a", "user:acme:b"]) == ["a", "b"]
    assert len(sink.events) == 1


def test_a_sink_that_fails_lets_nothing_through(caplog: pytest.LogCaptureFixture) -> None:
    """The answer is the same, and the failure is in the log."""

    class Failing:
        def isolation(self, event: IsolationEvent, *, now: object = None) -> None:
            raise OSError("disk full")

    with caplog.at_level(logging.ERROR), pytest.raises(InvalidNameError):
        Delivery(ACME, "kv.scan", sink=Failing()).deliver(Names(), "user:victim:x")
    assert "the isolation sink failed" in caplog.text
    assert "user:victim" not in caplog.text


def test_the_log_has_an_event_without_the_name(caplog: pytest.LogCaptureFixture) -> None:
    """`LoggingAudit` writes one WARNING with the fields as attributes."""
    with pytest.raises(InvalidNameError):
        Delivery(ACME, "kv.scan", sink=LoggingAudit()).deliver(Names(), "user:victim:x")
    (record,) = caplog.records
    assert (record.levelno, record.kind, record.tenant) == (logging.WARNING, "foreign_name", "acme")  # type: ignore[attr-defined]
    assert "victim" not in record.getMessage()

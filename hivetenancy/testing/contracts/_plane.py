"""What the cases of the kit for control planes share: who is under test, what each case needs, and how it asks."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias
from uuid import uuid4

from hivetenancy.errors import HubRefusedError
from hivetenancy.ids import Dimension, KeyId, TenantId
from hivetenancy.sources import (
    ChangeBatch,
    ControlPlane,
    InactiveKey,
    InactiveReason,
    KeyRecord,
    KeyState,
    QuotaStanding,
    TenantStatus,
    UsageKind,
    UsageLine,
    UsageReply,
    UsageReport,
)

from ._cases import Case, Cases

if TYPE_CHECKING:
    from hivetenancy.hub.client import HiveHub


class Need(Enum):
    """What a case cannot do without; its value says so to whoever wonders why it did not run."""

    WIRE = "it makes the calls of the wire, and this control plane is not reached over HTTP"
    OPERATOR = "somebody has to do to the control plane what its administrators do, and nobody is there who could"


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """A key as it was issued."""

    key_id: KeyId
    secret: str = field(repr=False)

    @property
    def credential(self) -> bytes:
        """As a caller presents it."""
        return self.secret.encode("ascii")


@dataclass(frozen=True, slots=True, kw_only=True)
class RawReply:
    """A reply as it came."""

    status: int
    body: bytes = field(repr=False)

    @property
    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)


class Operator(Protocol):
    """Does what the administrators of a control plane do, and moves its clock."""

    async def add_tenant(self, *, plan: str) -> TenantId:
        """Create a tenant of any name."""
        ...

    async def issue_key(
        self,
        tenant: TenantId,
        *,
        permissions: Sequence[str] = ("read", "write"),
        functions: Sequence[str] | None = None,
        expires_in_s: float | None = None,
        service: str | None = None,
    ) -> Issued:
        """Issue a key; *service*: of that one alone."""
        ...

    async def revoke_key(self, key_id: KeyId) -> None:
        """Revoke a key."""
        ...

    async def rotate_key(self, key_id: KeyId, *, overlap_s: int, compromised: bool = False) -> Issued:
        """Give a key another secret."""
        ...

    async def set_plan(self, tenant: TenantId, plan: str) -> None:
        """Put a tenant on another plan."""
        ...

    async def set_limit(self, tenant: TenantId, dimension: Dimension, limit: int) -> None:
        """Give a tenant a limit of its own."""
        ...

    async def set_status(self, tenant: TenantId, status: TenantStatus) -> None:
        """Suspend or resume a tenant."""
        ...

    async def advance(self, seconds: float) -> None:
        """Move the clock of the control plane."""
        ...


class Subject(Protocol):
    """A control plane under test."""

    @property
    def plane(self) -> ControlPlane:
        """The four sources, opened."""
        ...

    @property
    def calls(self) -> HiveHub:
        """The typed calls, opened. Asked for by cases of `Need.WIRE` alone."""
        ...

    @property
    def operator(self) -> Operator:
        """Asked for by cases of `Need.OPERATOR` alone."""
        ...

    @property
    def tenant(self) -> TenantId:
        """A tenant that is there; on a real hub one that is for this."""
        ...

    async def raw(
        self, method: str, target: bytes, body: bytes | None = None, *, headers: Sequence[tuple[str, str]] = ()
    ) -> RawReply:
        """Send exactly this, with the service key unless *headers* hold one. Asked for as `calls` is.

        Args:
            method: The method.
            target: Raw path, with its query, below ``/api/internal``.
            body: The body.
            headers: More headers.
        """
        ...


CASES: Final[Cases[Subject]] = Cases()
"""All cases."""

_NEEDS: Final[dict[str, frozenset[Need]]] = {}
_Run: TypeAlias = Callable[[Subject], Awaitable[None]]


def contract(*needs: Need) -> Callable[[_Run], _Run]:
    def add(run: _Run) -> _Run:
        CASES.add(run)
        _NEEDS[getattr(run, "__name__", "")] = frozenset(needs)
        return run

    return add


def needs(case: Case[Subject]) -> frozenset[Need]:
    """Return what *case* cannot do without."""
    return _NEEDS[case.name]


def runnable(*has: Need) -> list[Case[Subject]]:
    """Return the cases that a subject with *has* can run."""
    return [case for case in CASES if needs(case) <= set(has)]


def left_out(*has: Need) -> dict[str, str]:
    """Return the other cases by name, each with the reason."""
    return {
        case.name: "; ".join(sorted(need.value for need in needs(case) - set(has)))
        for case in CASES
        if not needs(case) <= set(has)
    }


WIRE, OPERATOR = Need.WIRE, Need.OPERATOR
NOBODY: Final = TenantId("00000000-0000-4000-8000-000000000000")
"""A user that no hub has."""


# --- what the cases share --------------------------------------------------------------------------------------------


async def refused(call: Awaitable[object], status: int, *, text: str = "", code: str | None = None) -> HubRefusedError:
    """Assert that *call* is refused so."""
    found: HubRefusedError | None = None
    answer: object = None
    try:
        answer = await call
    except HubRefusedError as error:
        found = error
    assert found is not None, f"expected to be refused with {status}, got {answer!r}"
    assert found.status == status, f"expected {status}, got {found.status}: {found}"
    assert text in str(found), f"expected {text!r} in {found}"
    assert code is None or found.code == code, f"expected the code {code!r}, got {found.code!r}"
    return found


async def state_of(subject: Subject, key: Issued) -> KeyState:
    return (await subject.plane.introspect(key.credential)).key


def live(state: KeyState) -> KeyRecord:
    assert isinstance(state, KeyRecord), f"expected a live key, got {state!r}"
    return state


def dead(state: KeyState, reason: InactiveReason) -> InactiveKey:
    assert isinstance(state, InactiveKey), f"expected a key that is not active, got {state!r}"
    assert state.reason is reason, f"expected {reason}, got {state.reason}"
    return state


async def cursor_now(subject: Subject) -> str:
    batch = await subject.plane.changes(None, wait_seconds=0)
    while batch.more:
        batch = await subject.plane.changes(batch.cursor, wait_seconds=0)
    return batch.cursor


async def since(subject: Subject, cursor: str) -> ChangeBatch:
    """Return what a feed tells within its second."""
    batch = await subject.plane.changes(cursor, wait_seconds=2)
    assert not batch.reset, "a cursor of a moment ago was reset"
    return batch


async def standing(
    subject: Subject, tenant: TenantId, dimension: Dimension, sources: Sequence[str] = ()
) -> QuotaStanding:
    limits = (await subject.plane.limits(tenant, sources=sources)).limits
    assert limits is not None, "the limits of a tenant that is there are not"
    return next(each for each in limits.quotas if each.limit.dimension == dimension and each.limit.resource is None)


def new_source() -> str:
    return uuid4().hex


def gauge(tenant: TenantId, value: int, dimension: Dimension = "storage_bytes") -> UsageLine:
    return UsageLine(tenant_id=tenant, dimension=dimension, resource=None, kind=UsageKind.CONTRIBUTION, value=value)


async def count_of(subject: Subject, tenant: TenantId, value: int, dimension: Dimension = "operations") -> UsageLine:
    start = (await standing(subject, tenant, dimension)).period_start_us
    assert start is not None, "a count has no period"
    return UsageLine(
        tenant_id=tenant,
        dimension=dimension,
        resource=None,
        kind=UsageKind.COUNTER,
        value=value,
        period_start_us=start,
    )


def report_of(source: str, *lines: UsageLine, sequence: int = 1, previous: int = 0, writer: str = "w") -> UsageReport:
    return UsageReport(source=source, writer=writer, sequence=sequence, previous_sequence=previous, lines=lines)


async def receipt(subject: Subject, report: UsageReport) -> UsageReply:
    outcome = await subject.plane.report(report)
    assert isinstance(outcome, UsageReply), f"expected a receipt, got {outcome!r}"
    assert outcome.last_sequence == report.sequence
    return outcome


def service_of(subject: Subject) -> str:
    return subject.calls.extensions.service or "synap"

"""Where metrics, logs and audits plug in.

Hooks and sinks of decisions are called synchronously by the gate, on the request path: an implementation must be quick
and must not block. What it raises is caught, logged once per kind, and changes no answer.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
from collections import OrderedDict
from dataclasses import dataclass, replace
from enum import StrEnum
from threading import Lock
from typing import Final, Protocol

from hivetenancy.clock import MINUTE_US, Clock, Instant, SystemClock
from hivetenancy.decision import Decision, Reason
from hivetenancy.errors import ConfigurationError
from hivetenancy.ids import KeyId, TenantId


class DecisionHook(Protocol):
    """Sees each decision, allowed and refused."""

    def decided(self, decision: Decision) -> None:
        """Take note of *decision*. Must not block."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEvent:
    """One refusal, or one acceptance on stale knowledge, for the audit trail. Holds no secret by construction.

    Attributes:
        what: ``refused`` or ``accepted_stale``.
        reason: The exact reason; ``None`` for an acceptance.
        tenant: The tenant; ``None`` where no key was accepted.
        key_id: The public key id; ``None`` likewise.
        function: The declared function, if one was known.
        at_us: Wall microseconds.
    """

    what: str
    reason: Reason | None
    tenant: TenantId | None
    key_id: KeyId | None
    function: str | None
    at_us: int


class AuditSink(Protocol):
    """Keeps audit events."""

    def audit(self, event: AuditEvent) -> None:
        """Keep *event*. Must not block."""
        ...


class IsolationKind(StrEnum):
    """What stood against the wall between two tenants."""

    FOREIGN_NAME = "foreign_name"
    """A store returned a physical name that is not the tenant's. Always a fault of the host or of this library."""
    FOREIGN_HANDLE = "foreign_handle"
    """A handle that was not issued to the tenant, or no longer is."""
    UNSCOPABLE = "unscopable"
    """A pattern, query, filter or command that cannot be confined to the tenant's names."""
    PATH_ESCAPE = "path_escape"
    """A path that leads out of the tenant's directory: a planted symlink, a directory of somebody else."""
    MISSING_CONTEXT = "missing_context"
    """Work without a tenant."""
    GENERATION_MISMATCH = "generation_mismatch"
    """Something of an earlier life of the tenant."""
    OPERATOR = "operator"
    """Somebody acted as operator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IsolationEvent:
    """Something stood against the wall between two tenants, and was held. It names no foreign name and no other tenant.

    Attributes:
        kind: What.
        tenant: For whom the work was; ``None`` without one.
        operation: What was being done, as the code that reports calls it: ``topics.deliver``.
        subject_hash: `subject_hash` of the name, handle or path. The same for the same subject in one process, so that
            events about one thing can be told from many.
        suppressed: How many more of this tenant were not written since the last that was.
    """

    kind: IsolationKind
    tenant: TenantId | None
    operation: str
    subject_hash: str
    suppressed: int = 0


class IsolationSink(Protocol):
    """Keeps isolation events."""

    def isolation(self, event: IsolationEvent, *, now: Instant | None = None) -> None:
        """Keep *event*. Must not block. *now*: when it came about; ``None``: just now."""
        ...


#: Of this process alone: whoever reads the events cannot find a short name by trying all of them.
_SUBJECTS: Final = secrets.token_bytes(16)


def subject_hash(subject: str | bytes) -> str:
    """Return 16 hex digits that stand for *subject* in an event, and from which nobody can tell what it is."""
    raw = subject.encode("utf-8", "surrogatepass") if isinstance(subject, str) else subject
    return hashlib.blake2b(raw, digest_size=8, key=_SUBJECTS).hexdigest()


def report_isolation(
    sink: IsolationSink | None,
    kind: IsolationKind,
    *,
    tenant: TenantId | None,
    operation: str,
    subject: str | bytes,
    now: Instant | None = None,
) -> None:
    """Tell *sink*, if there is one, of what was just held back. What it raises is logged and changes no answer."""
    if sink is None:
        return
    event = IsolationEvent(kind=kind, tenant=tenant, operation=operation, subject_hash=subject_hash(subject))
    try:
        sink.isolation(event, now=now)
    except Exception:
        logging.getLogger("hivetenancy.audit").exception("the isolation sink failed")


class LimitedIsolation:
    """Hands isolation events on to *sink*, but no more than *burst* a tenant in each *period_us*.

    A tenant that tries a million names writes *burst* lines and a number, and takes nothing from the events of others.

    Args:
        sink: Keeps what passes.
        burst: How many pass in a period; at least 1.
        period_us: Length of a period in microseconds, from a tenant's first event in it.
        tenants: Of how many tenants a count is kept; beyond, the one whose period is oldest is forgotten.
        clock: Tells the time where the caller does not.

    Raises:
        ConfigurationError: A number is below 1.

    Concurrency:
        Any number of threads; one short lock, which no request without an event takes.
    """

    __slots__ = ("_burst", "_clock", "_counts", "_lock", "_period_us", "_sink", "_tenants")

    def __init__(
        self,
        sink: IsolationSink,
        *,
        burst: int = 10,
        period_us: int = MINUTE_US,
        tenants: int = 10_000,
        clock: Clock | None = None,
    ) -> None:
        if min(burst, period_us, tenants) < 1:
            raise ConfigurationError("burst, period_us and tenants must each be at least 1")
        self._sink, self._clock = sink, clock or SystemClock()
        self._burst, self._period_us, self._tenants = burst, period_us, tenants
        #: By tenant: when its period began, in monotonic microseconds, and how many events it saw.
        self._counts: OrderedDict[TenantId | None, tuple[int, int]] = OrderedDict()
        self._lock = Lock()

    def isolation(self, event: IsolationEvent, *, now: Instant | None = None) -> None:
        """Hand *event* on, unless its tenant has had its share of the period."""
        now = now or self._clock.now()
        with self._lock:
            suppressed = self._count(event.tenant, now[0])
        if suppressed is not None:
            self._sink.isolation(replace(event, suppressed=event.suppressed + suppressed), now=now)

    def _count(self, tenant: TenantId | None, at_us: int) -> int | None:
        """Count one event; return how many were held back before, ``None``: hold this one back too."""
        began, seen = self._counts.get(tenant, (at_us, 0))
        if 0 <= at_us - began < self._period_us and tenant in self._counts:
            self._counts[tenant] = (began, seen + 1)
            return 0 if seen < self._burst else None
        self._counts[tenant] = (at_us, 1)
        self._counts.move_to_end(tenant)
        if len(self._counts) > self._tenants:
            self._counts.popitem(last=False)
        return max(0, seen - self._burst)


_EVERYDAY: Final = frozenset(
    {
        Reason.RATE_LIMITED,
        Reason.TOO_MANY_IN_FLIGHT,
        Reason.QUOTA_EXCEEDED,
        Reason.PAYLOAD_TOO_LARGE,
        Reason.BATCH_TOO_LARGE,
        Reason.COST_TOO_LARGE,
        Reason.STATIC_LIMIT,
        Reason.NOT_FOUND,
        Reason.INVALID_NAME,
    }
)


class LoggingAudit:
    """An `AuditSink` and `IsolationSink` that writes one log record an event, on the logger ``hivetenancy.audit``.

    The event's fields are attributes of the record as well (``tenant``, ``key_id``, ``reason``, ``function``), so that
    a structured formatter needs no parsing.
    """

    __slots__ = ("_log",)

    def __init__(self, logger: logging.Logger | None = None) -> None:
        self._log = logger or logging.getLogger("hivetenancy.audit")

    def audit(self, event: AuditEvent) -> None:
        """Write *event*: WARNING for what concerns keys and permissions, INFO for limits, which are everyday life."""
        level = logging.INFO if event.reason in _EVERYDAY else logging.WARNING
        if not self._log.isEnabledFor(level):
            return
        self._log.log(
            level,
            "%s reason=%s tenant=%s key_id=%s function=%s",
            event.what,
            event.reason and event.reason.value,
            event.tenant,
            event.key_id,
            event.function,
            extra={
                "audit": event.what,
                "reason": event.reason and event.reason.value,
                "tenant": event.tenant,
                "key_id": event.key_id,
                "function": event.function,
            },
        )

    def isolation(self, event: IsolationEvent, *, now: Instant | None = None) -> None:
        """Write *event* as a WARNING: nothing of this kind is everyday life."""
        self._log.warning(
            "isolation kind=%s tenant=%s operation=%s subject=%s suppressed=%d",
            event.kind.value,
            event.tenant,
            event.operation,
            event.subject_hash,
            event.suppressed,
            extra={
                "audit": "isolation",
                "kind": event.kind.value,
                "tenant": event.tenant,
                "operation": event.operation,
                "subject_hash": event.subject_hash,
            },
        )

"""Where metrics, logs and audits plug in.

Both are called synchronously by the gate, on the request path: an implementation must be quick and must not block. What
it raises is caught, logged once per kind, and changes no answer.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final, Protocol

from hivetenancy.decision import Decision, Reason
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
    """An `AuditSink` that writes one log record an event, on the logger ``hivetenancy.audit``.

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

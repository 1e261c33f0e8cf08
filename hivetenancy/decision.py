"""What the gate answers: a reason, a refusal with its numbers, a decision for those who watch, a ticket to wait on.

A *refusal* is an ordinary answer and therefore a value; an exception means that the question could not be asked
(architecture, law 5). An admitted request builds none of these: cores answer with integers and tuples, and the full
`Decision` exists only when a hook asks for it.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, Protocol

from hivetenancy.clock import Instant
from hivetenancy.ids import Dimension, Effect, KeyId, TenantId


class Reason(StrEnum):
    """Why a request was refused. Internal: callers see the merged form of `hivetenancy.adapters.catalogue`."""

    # The carrier or the path is at fault: 400.
    AMBIGUOUS_CREDENTIAL = "ambiguous_credential"
    CREDENTIAL_IN_QUERY = "credential_in_query"
    MALFORMED_CREDENTIAL = "malformed_credential"
    INVALID_PATH = "invalid_path"
    INVALID_NAME = "invalid_name"
    # Who is asking: 401. But for the first, all look the same from outside.
    NO_CREDENTIAL = "no_credential"
    UNKNOWN_KEY = "unknown_key"
    REVOKED_KEY = "revoked_key"
    EXPIRED_KEY = "expired_key"
    KEY_NOT_YET_VALID = "key_not_yet_valid"
    WRONG_ENVIRONMENT = "wrong_environment"
    SUSPENDED_TENANT = "suspended_tenant"
    UNOWNED_KEY = "unowned_key"
    UNSUPPORTED_RESTRICTION = "unsupported_restriction"
    # Not a refusal of a request, but why an open connection ends: its server stops.
    SERVER_STOPS = "server_stops"
    # What they may do: 403.
    MISSING_PERMISSION = "missing_permission"
    FUNCTION_NOT_ALLOWED = "function_not_allowed"
    SURFACE_NOT_ALLOWED = "surface_not_allowed"
    UNDECLARED_FUNCTION = "undeclared_function"
    # Another tenant's object, or none: 404.
    NOT_FOUND = "not_found"
    # How fast: 429.
    RATE_LIMITED = "rate_limited"
    TOO_MANY_IN_FLIGHT = "too_many_in_flight"
    # How much: 429 by default.
    QUOTA_EXCEEDED = "quota_exceeded"
    # Never, however long one waits: 413, and 422 for a value over a static limit.
    PAYLOAD_TOO_LARGE = "payload_too_large"
    BATCH_TOO_LARGE = "batch_too_large"
    COST_TOO_LARGE = "cost_too_large"
    STATIC_LIMIT = "static_limit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """The answer "no", with the numbers that explain it.

    Attributes:
        reason: Why; never shown to a caller in this exact form.
        tenant: Whose request it was; ``None`` before a key was accepted.
        key_id: With which key; ``None`` before a key was accepted.
        function: The function that was refused (403), or during which the refusal came.
        retry_after_us: Microseconds until *this* request would pass; ``None``: no wait is known to help.
        policy: Name of the rate policy that refused.
        dimension: The dimension that was short, or whose static limit was passed.
        resource: The resource within the dimension, if it has one.
        limit: The limit in force, in the unit of the policy or dimension; ``None``: not a matter of a limit.
        used: What was used when the question was asked.
        held: What open reservations held then.
        requested: What was asked for.
        resets_at_us: Wall microseconds at which the period ends; ``None`` for a gauge.
        stale: Whether the answer rests on knowledge older than it should be.
    """

    reason: Reason
    tenant: TenantId | None = None
    key_id: KeyId | None = None
    function: str | None = None
    retry_after_us: int | None = None
    policy: str | None = None
    dimension: Dimension | None = None
    resource: str | None = None
    limit: int | None = None
    used: int | None = None
    held: int | None = None
    requested: int | None = None
    resets_at_us: int | None = None
    stale: bool = False

    def about(self, *, tenant: TenantId | None, key_id: KeyId | None, function: str | None) -> Refusal:
        """Return this refusal completed with who asked for what; what is already set stays."""
        if (tenant is None or self.tenant) and (key_id is None or self.key_id) and (function is None or self.function):
            return self
        return replace(
            self,
            tenant=self.tenant or tenant,
            key_id=self.key_id or key_id,
            function=self.function or function,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """One answer of the gate, for hooks, logs and tests. Built only where someone asked for it.

    Attributes:
        allowed: Whether the request went on.
        refusal: The refusal; ``None`` exactly when *allowed*.
        tenant: The tenant; ``None`` where no key was accepted, or on a public route.
        key_id: The key; ``None`` likewise.
        function: The declared function; ``None`` before one was known.
        effect: The effect of that function.
        cost: Rate units the request pays for.
        at: When it was decided.
        stale: Whether a key was accepted on knowledge past its fresh window (hub unreachable).
        bound_us: How long a key that is revoked at this moment could still be accepted, in microseconds; ``None``:
            whoever validates does not say.
    """

    allowed: bool
    refusal: Refusal | None
    tenant: TenantId | None
    key_id: KeyId | None
    function: str | None
    effect: Effect | None
    cost: int
    at: Instant
    stale: bool = False
    bound_us: int | None = None


class Ticket(Protocol):
    """A promise that something committed has become durable.

    Awaiting it, or `wait` from a thread, returns once the record is as durable as its dimension asks for.
    """

    @property
    def done(self) -> bool:
        """Whether there is nothing left to wait for."""
        ...

    def wait(self, timeout: float | None = None) -> bool:
        """Block the calling thread until durable; *timeout* in seconds, ``None`` for ever. True when durable."""
        ...

    def __await__(self) -> Generator[object, None, None]:
        """Suspend until durable."""
        ...


class _Done:
    """The ticket of everything that has nothing to wait for. One shared constant: `DONE`."""

    __slots__ = ()

    done = True

    def wait(self, timeout: float | None = None) -> bool:
        """Return at once."""
        return True

    def __await__(self) -> Generator[object, None, None]:
        """Return at once, without suspending."""
        yield from ()

    def __repr__(self) -> str:
        return "DONE"


DONE: Final[Ticket] = _Done()
"""The shared ticket that is done."""

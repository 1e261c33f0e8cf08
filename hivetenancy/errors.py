"""The exception tree.

A refusal is an ordinary answer, hence a value (`hivetenancy.decision.Refusal`); an exception is for what could not be
answered, or for code that preferred a block (``async with tenant.reserve(...)``) to a value::

    TenancyError
    ├── DeniedError               abstract; built only by DeniedError.of(refusal), which picks the leaf
    │   ├── UnauthenticatedError  missing, unknown, revoked, expired key, suspended tenant: one message for all
    │   ├── InvalidRequestError   the carrier or the path is at fault
    │   ├── StaticLimitError      a value over a static limit such as TTL
    │   ├── ForbiddenError        known tenant, missing permission or undeclared function
    │   ├── NotFoundError         another tenant's object, or none: never told apart
    │   ├── RateLimitedError      retry_after is set
    │   ├── QuotaExceededError    dimension, limit, used, requested
    │   └── NeverFitsError        payload, batch or cost that can never fit; waiting cannot help
    ├── UnavailableError          the question could not be asked; .transient says whether to try again
    │   ├── HubUnavailableError
    │   └── StoreUnavailableError
    ├── MissingTenantError        no tenant in context where one is needed
    ├── MisuseError               committed twice, used after stop, a `with` that would block its own loop
    ├── HubContractError          HiveHub answered outside the agreed wire
    ├── HubRefusedError           HiveHub heard the call and says no: unknown id, limit reached, bad field
    ├── InvalidNameError          cannot be encoded (also a ValueError)
    └── ConfigurationError        found when an object is built, never later (also a ValueError)

Messages name the fix and never hold a secret.
"""

from __future__ import annotations

from typing import TypeVar, assert_never

from hivetenancy.decision import Reason, Refusal

Answer = TypeVar("Answer")


class TenancyError(Exception):
    """Everything this library raises on purpose."""


class DeniedError(TenancyError):
    """A refusal, raised because the caller asked for a block instead of a value.

    Abstract: build one with `DeniedError.of`, which picks the leaf that fits the reason.

    Attributes:
        refusal: The answer itself, with its numbers.
    """

    def __init__(self, refusal: Refusal, message: str) -> None:
        super().__init__(message)
        self.refusal = refusal

    @staticmethod
    def of(refusal: Refusal) -> DeniedError:
        """Return the leaf error for *refusal*, with a message fit for a log of the host."""
        leaf = _leaf(refusal.reason)
        return leaf(refusal, leaf._describe(refusal))

    @property
    def retry_after_us(self) -> int | None:
        """Microseconds until the same request would pass; ``None``: no wait is known to help."""
        return self.refusal.retry_after_us

    @classmethod
    def _describe(cls, refusal: Refusal) -> str:
        return refusal.reason.value.replace("_", " ")


class UnauthenticatedError(DeniedError):
    """No acceptable access key: missing, unknown, revoked, expired, or its tenant is suspended."""

    @classmethod
    def _describe(cls, refusal: Refusal) -> str:
        return "no valid access key"  # one message for all: the reason is for the audit log


class InvalidRequestError(DeniedError):
    """The credential's carrier or the path is at fault."""


class StaticLimitError(DeniedError):
    """A value passes a static limit of the plan, such as the longest TTL."""

    @classmethod
    def _describe(cls, refusal: Refusal) -> str:
        return f"{refusal.dimension}: {refusal.requested} is over the plan's limit of {refusal.limit}"


class ForbiddenError(DeniedError):
    """The tenant is known; the key lacks the permission, or the function was never declared."""

    @classmethod
    def _describe(cls, refusal: Refusal) -> str:
        return f"the access key may not call {refusal.function!r}"


class NotFoundError(DeniedError):
    """Another tenant's object, or none: never told apart."""


class RateLimitedError(DeniedError):
    """Too fast, or too many at once; `retry_after_us` says when the same request passes."""

    @classmethod
    def _describe(cls, refusal: Refusal) -> str:
        wait = refusal.retry_after_us
        hint = "" if wait is None else f"; passes in {wait} us"
        return f"rate limit {refusal.policy!r} of {refusal.limit} reached{hint}"


class QuotaExceededError(DeniedError):
    """A dimension has no room for the demand; nothing was held."""

    @classmethod
    def _describe(cls, refusal: Refusal) -> str:
        what = refusal.dimension if refusal.resource is None else f"{refusal.dimension} of {refusal.resource!r}"
        return (
            f"quota exceeded: {what} has limit {refusal.limit}, used {refusal.used}, "
            f"held {refusal.held}, requested {refusal.requested}"
        )


class NeverFitsError(DeniedError):
    """A payload, batch or cost that can never fit; waiting cannot help."""

    @classmethod
    def _describe(cls, refusal: Refusal) -> str:
        return f"{refusal.reason.value.replace('_', ' ')}: {refusal.requested} is over {refusal.limit}"


class UnavailableError(TenancyError):
    """The question could not be asked, so the answer is neither yes nor no (503).

    Attributes:
        transient: Whether trying again can help.
        retry_after_us: A hint in microseconds, ``None`` where nothing is known.
    """

    def __init__(self, message: str, *, transient: bool = True, retry_after_us: int | None = None) -> None:
        super().__init__(message)
        self.transient = transient
        self.retry_after_us = retry_after_us


class HubUnavailableError(UnavailableError):
    """The control plane did not answer, or not usefully.

    Attributes:
        outcome_unknown: Whether the call may have taken effect all the same. ``False`` only where it certainly has not:
            no connection, an open circuit breaker, a refused service key, a throttled caller.
    """

    def __init__(
        self,
        message: str,
        *,
        transient: bool = True,
        retry_after_us: int | None = None,
        outcome_unknown: bool = True,
    ) -> None:
        super().__init__(message, transient=transient, retry_after_us=retry_after_us)
        self.outcome_unknown = outcome_unknown


class StoreUnavailableError(UnavailableError):
    """A shared store (Redis, a journal) did not answer."""


class MissingTenantError(TenancyError):
    """No tenant is bound where one is needed; in cluster mode nothing runs without one."""


class MisuseError(TenancyError):
    """The library was used against its rules: a reservation committed twice, use after stop."""


class HubContractError(TenancyError):
    """The control plane answered outside the agreed wire; nothing of the answer is used."""


class HubRefusedError(TenancyError):
    """The control plane heard the call and says no; nothing was changed.

    Attributes:
        status: The HTTP status: 400, 404, 409, 413, 422, or a 429 that is a verdict.
        code: The hub's word for it (HiveHub wire 4), ``None`` where it gave none.
        field: The field at fault, where the hub names one.
    """

    def __init__(self, status: int, message: str, *, code: str | None = None, field: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.field = field


class InvalidNameError(TenancyError, ValueError):
    """A name that cannot be encoded: empty, too long, or of the wrong type."""


class ConfigurationError(TenancyError, ValueError):
    """A setting is wrong; found when the object is built, never later. The message names the fix."""


def _leaf(reason: Reason) -> type[DeniedError]:
    R = Reason  # noqa: N806 - thirty long names in one table
    match reason:
        case R.AMBIGUOUS_CREDENTIAL | R.CREDENTIAL_IN_QUERY | R.MALFORMED_CREDENTIAL | R.INVALID_PATH:
            return InvalidRequestError
        case R.INVALID_NAME:
            return InvalidRequestError
        case R.NO_CREDENTIAL | R.UNKNOWN_KEY | R.REVOKED_KEY | R.EXPIRED_KEY | R.KEY_NOT_YET_VALID:
            return UnauthenticatedError
        case R.WRONG_ENVIRONMENT | R.SUSPENDED_TENANT | R.UNOWNED_KEY | R.UNSUPPORTED_RESTRICTION:
            return UnauthenticatedError
        case R.MISSING_PERMISSION | R.FUNCTION_NOT_ALLOWED | R.SURFACE_NOT_ALLOWED | R.UNDECLARED_FUNCTION:
            return ForbiddenError
        case R.NOT_FOUND:
            return NotFoundError
        case R.RATE_LIMITED | R.TOO_MANY_IN_FLIGHT:
            return RateLimitedError
        case R.QUOTA_EXCEEDED:
            return QuotaExceededError
        case R.PAYLOAD_TOO_LARGE | R.BATCH_TOO_LARGE | R.COST_TOO_LARGE:
            return NeverFitsError
        case R.STATIC_LIMIT:
            return StaticLimitError
        case R.SERVER_STOPS:
            return UnauthenticatedError  # it closes connections, and refuses no request
    assert_never(reason)


def raise_if_refused(answer: Answer | Refusal) -> Answer:
    """Return *answer*, or raise the `DeniedError` for it when it is a refusal.

    Raises:
        DeniedError: The leaf that fits the refusal's reason.

    Example:
        >>> raise_if_refused(7)
        7
    """
    if isinstance(answer, Refusal):
        raise DeniedError.of(answer)
    return answer

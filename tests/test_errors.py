"""Each reason has one leaf error, and no message tells more than it may."""

from __future__ import annotations

import pytest

from hivetenancy.decision import Reason, Refusal
from hivetenancy.errors import (
    ConfigurationError,
    DeniedError,
    ForbiddenError,
    HubUnavailableError,
    InvalidNameError,
    InvalidRequestError,
    NeverFitsError,
    NotFoundError,
    QuotaExceededError,
    RateLimitedError,
    StaticLimitError,
    StoreUnavailableError,
    TenancyError,
    UnauthenticatedError,
    UnavailableError,
    raise_if_refused,
)
from hivetenancy.ids import KeyId, TenantId

LEAVES = {
    InvalidRequestError: {
        Reason.AMBIGUOUS_CREDENTIAL,
        Reason.CREDENTIAL_IN_QUERY,
        Reason.MALFORMED_CREDENTIAL,
        Reason.INVALID_PATH,
        Reason.INVALID_NAME,
    },
    UnauthenticatedError: {
        Reason.NO_CREDENTIAL,
        Reason.UNKNOWN_KEY,
        Reason.REVOKED_KEY,
        Reason.EXPIRED_KEY,
        Reason.KEY_NOT_YET_VALID,
        Reason.WRONG_ENVIRONMENT,
        Reason.SUSPENDED_TENANT,
        Reason.UNOWNED_KEY,
        Reason.UNSUPPORTED_RESTRICTION,
        Reason.SERVER_STOPS,
    },
    ForbiddenError: {
        Reason.MISSING_PERMISSION,
        Reason.FUNCTION_NOT_ALLOWED,
        Reason.SURFACE_NOT_ALLOWED,
        Reason.UNDECLARED_FUNCTION,
    },
    NotFoundError: {Reason.NOT_FOUND},
    RateLimitedError: {Reason.RATE_LIMITED, Reason.TOO_MANY_IN_FLIGHT},
    QuotaExceededError: {Reason.QUOTA_EXCEEDED},
    NeverFitsError: {Reason.PAYLOAD_TOO_LARGE, Reason.BATCH_TOO_LARGE, Reason.COST_TOO_LARGE},
    StaticLimitError: {Reason.STATIC_LIMIT},
}


def _refusal(reason: Reason) -> Refusal:
    return Refusal(
        reason=reason,
        tenant=TenantId("tenant-id-marker"),
        key_id=KeyId("key-id-marker"),
        function="kv.set",
        retry_after_us=1_234,
        policy="per-minute",
        dimension="storage_bytes",
        resource="docs",
        limit=10,
        used=7,
        held=2,
        requested=5,
    )


def test_the_table_names_every_reason_once() -> None:
    """A reason added later must be given its leaf here too."""
    listed = [reason for reasons in LEAVES.values() for reason in reasons]
    assert sorted(listed) == sorted(Reason)


@pytest.mark.parametrize("reason", Reason)
def test_each_reason_has_its_leaf(reason: Reason) -> None:
    """`DeniedError.of` picks exactly the class of the table, and keeps the refusal with its numbers."""
    refusal = _refusal(reason)
    error = DeniedError.of(refusal)
    (expected,) = [leaf for leaf, reasons in LEAVES.items() if reason in reasons]
    assert type(error) is expected
    assert error.refusal is refusal
    assert error.retry_after_us == 1_234
    assert str(error)


@pytest.mark.parametrize("reason", Reason)
def test_no_message_names_the_tenant_or_the_key(reason: Reason) -> None:
    """Who asked is in the refusal, for the audit log; the message may end up anywhere."""
    assert "marker" not in str(DeniedError.of(_refusal(reason)))


def test_every_fault_of_a_key_reads_the_same() -> None:
    """From the message nobody learns whether a key is unknown, revoked, or its tenant suspended."""
    assert {str(DeniedError.of(_refusal(reason))) for reason in LEAVES[UnauthenticatedError]} == {"no valid access key"}


@pytest.mark.parametrize(
    "reason, words",
    [
        (Reason.RATE_LIMITED, ["'per-minute'", "10", "1234 us"]),
        (Reason.QUOTA_EXCEEDED, ["storage_bytes", "'docs'", "limit 10", "used 7", "held 2", "requested 5"]),
        (Reason.PAYLOAD_TOO_LARGE, ["payload too large", "5", "10"]),
        (Reason.STATIC_LIMIT, ["storage_bytes", "5", "10"]),
        (Reason.MISSING_PERMISSION, ["'kv.set'"]),
        (Reason.INVALID_PATH, ["invalid path"]),
    ],
)
def test_messages_carry_the_numbers(reason: Reason, words: list[str]) -> None:
    """A log line of the host says what was asked for and what there is."""
    message = str(DeniedError.of(_refusal(reason)))
    assert all(word in message for word in words), message


def test_a_rate_refusal_without_a_wait_promises_none() -> None:
    """Where a slot must be freed by others, no time is named; nor is a resource where there is none."""
    assert " us" not in str(DeniedError.of(Refusal(reason=Reason.TOO_MANY_IN_FLIGHT, policy="in-flight", limit=1)))
    assert "None" not in str(
        DeniedError.of(Refusal(reason=Reason.QUOTA_EXCEEDED, dimension="keys", limit=1, used=1, held=0, requested=1))
    )


def test_raise_if_refused_lets_answers_through() -> None:
    """Anything but a refusal comes back as it is, falsy things too."""
    answer = object()
    assert raise_if_refused(answer) is answer
    assert raise_if_refused(0) == 0
    assert raise_if_refused(None) is None
    with pytest.raises(NotFoundError) as caught:
        raise_if_refused(Refusal(reason=Reason.NOT_FOUND))
    assert caught.value.refusal.reason is Reason.NOT_FOUND


def test_cannot_tell_is_no_refusal() -> None:
    """503 is another branch of the tree than no, and says whether trying again can help."""
    for kind in (HubUnavailableError, StoreUnavailableError):
        error = kind("no answer", transient=False, retry_after_us=5)
        assert isinstance(error, UnavailableError)
        assert not isinstance(error, DeniedError)
        assert (error.transient, error.retry_after_us) == (False, 5)
    assert UnavailableError("no answer").transient is True


def test_errors_of_values_are_value_errors_too() -> None:
    """What a host already catches around parsing catches a bad name and a bad setting."""
    for kind in (InvalidNameError, ConfigurationError):
        assert issubclass(kind, ValueError)
        assert issubclass(kind, TenancyError)

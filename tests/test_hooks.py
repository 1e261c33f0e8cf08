"""The audit sink that writes log records."""

from __future__ import annotations

import logging

import pytest

from hivetenancy.decision import Reason
from hivetenancy.hooks import AuditEvent, LoggingAudit
from hivetenancy.ids import KeyId, TenantId

EVERYDAY = {
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


def _event(reason: Reason | None, what: str = "refused") -> AuditEvent:
    return AuditEvent(what=what, reason=reason, tenant=TenantId("a"), key_id=KeyId("k"), function="kv.get", at_us=1)


@pytest.mark.parametrize("reason", Reason)
def test_limits_are_everyday_life_and_keys_are_not(reason: Reason, caplog: pytest.LogCaptureFixture) -> None:
    """Refusals by limits are INFO, everything about keys, permissions and carriers is a WARNING."""
    caplog.set_level(logging.DEBUG, "hivetenancy.audit")
    LoggingAudit().audit(_event(reason))
    (record,) = caplog.records
    assert record.levelno == (logging.INFO if reason in EVERYDAY else logging.WARNING)
    assert (record.tenant, record.key_id, record.reason, record.function, record.audit) == (  # type: ignore[attr-defined]
        "a",
        "k",
        reason.value,
        "kv.get",
        "refused",
    )
    assert reason.value in record.getMessage()


def test_an_acceptance_on_stale_knowledge_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """It has no reason, and is something an operator wants to see."""
    caplog.set_level(logging.DEBUG, "hivetenancy.audit")
    LoggingAudit().audit(_event(None, "accepted_stale"))
    (record,) = caplog.records
    assert (record.levelno, record.reason) == (logging.WARNING, None)  # type: ignore[attr-defined]
    assert record.getMessage().startswith("accepted_stale")


def test_what_the_logger_does_not_want_is_not_written(caplog: pytest.LogCaptureFixture) -> None:
    """A logger of one's own is used, and asked before anything is formatted."""
    own = logging.getLogger("test.audit")
    caplog.set_level(logging.WARNING, "test.audit")
    LoggingAudit(own).audit(_event(Reason.RATE_LIMITED))
    assert caplog.records == []
    LoggingAudit(own).audit(_event(Reason.REVOKED_KEY))
    assert [record.name for record in caplog.records] == ["test.audit"]

"""Tenant and key on the host's own records."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from hivetenancy.context import TenantContext, bound
from hivetenancy.errors import MissingTenantError
from hivetenancy.ids import KeyId, TenantId
from hivetenancy.logs import TenantLogFilter


class _Bound:
    tenant = object()
    context = TenantContext(tenant_id=TenantId("acme"), key_id=KeyId("k1"), generation=3)

    def await_later(self, ticket: object) -> None: ...


class _Public(_Bound):
    @property
    def context(self) -> TenantContext:  # type: ignore[override]
        raise MissingTenantError("public")


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """Log lines of the logger ``host``, formatted with tenant and key."""
    written: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            written.append(self.format(record))

    handler, logger = Keep(), logging.getLogger("host")
    handler.addFilter(TenantLogFilter())
    handler.setFormatter(logging.Formatter("%(tenant)s %(key_id)s %(message)s"))
    logger.addHandler(handler)
    before = bound.get()
    yield written
    bound.set(before)
    logger.removeHandler(handler)


def test_records_name_the_bound_tenant(lines: list[str]) -> None:
    """Within a request the tenant, outside nobody; a child's records too; what the host set itself stays."""
    log = logging.getLogger("host.part")
    log.error("outside")
    bound.set(_Bound())
    log.error("inside")
    log.error("own", extra={"tenant": "mine"})
    assert lines == ["None None outside", "acme k1 inside", "mine k1 own"]


def test_a_public_route_may_log(lines: list[str]) -> None:
    """What is bound there has no tenant and raises when asked; a log line must come through all the same."""
    bound.set(_Public())
    logging.getLogger("host").error("alive")
    assert lines == ["None None alive"]

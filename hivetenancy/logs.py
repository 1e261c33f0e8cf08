"""Tenant and key id on the host's own log records."""

from __future__ import annotations

import logging

from hivetenancy.context import TenantContext, bound
from hivetenancy.errors import MissingTenantError


class TenantLogFilter(logging.Filter):
    """Adds ``tenant`` and ``key_id`` to every record, ``None`` where no tenant is bound. Lets every record pass.

    Put it on a *handler*: a filter on a logger is not asked about the records of that logger's children.

    Example:
        >>> handler = logging.StreamHandler()
        >>> handler.addFilter(TenantLogFilter())
        >>> handler.setFormatter(logging.Formatter("%(tenant)s %(key_id)s %(message)s"))
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Complete *record*; what the host already set on it stays."""
        context = _context()
        for name, value in (
            ("tenant", context and context.tenant_id),
            ("key_id", context and context.key_id),
        ):
            if not hasattr(record, name):
                setattr(record, name, value)
        return True


def _context() -> TenantContext | None:
    here = bound.get()
    if here is None:
        return None
    try:
        return here.context
    except MissingTenantError:  # a public route: the host's own log line must come through
        return None

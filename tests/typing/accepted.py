"""What a type checker must accept. Checked by mypy, never run.

Each function is a piece of code as a user would write it; `rejected.py` holds the mistakes beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hivetenancy.access_keys import AccessKeyValidator, Principal
from hivetenancy.clock import Clock, Instant
from hivetenancy.context import TenantContext
from hivetenancy.decision import DONE, Refusal, Ticket
from hivetenancy.errors import raise_if_refused
from hivetenancy.functions import function
from hivetenancy.ids import Amounts, Effect, TenantId
from hivetenancy.namespaces import KeyName, NamespaceManager
from hivetenancy.quota import QuotaManager
from hivetenancy.ratelimit import Permit, RateLimiter, Subject
from hivetenancy.usage import UsageReporter


async def who(validator: AccessKeyValidator, credential: bytes) -> TenantId | None:
    """A refusal is told apart by its type, and what is left is a principal."""
    answer = await validator.validate(credential, effect=Effect.READ)
    if isinstance(answer, Refusal):
        return None
    principal: Principal = answer
    return principal.tenant_id


async def who_or_raise(validator: AccessKeyValidator, credential: bytes) -> Principal:
    """`raise_if_refused` leaves the answer without the refusal."""
    return raise_if_refused(await validator.validate(credential, effect=Effect.WRITE))


async def hold(quota: QuotaManager, tenant: TenantId) -> Ticket | None:
    """A demand names dimensions, or a dimension of a resource."""
    held = await quota.reserve(tenant, {"storage_bytes": 10, ("vectors", "docs"): 3}, op_id="one")
    return None if isinstance(held, Refusal) else held.commit({"storage_bytes": 8})


def scope(names: NamespaceManager, context: TenantContext, store: dict[KeyName, bytes]) -> bytes | None:
    """A store that is keyed by scoped names takes them."""
    return store.get(names.for_tenant(context).kv.key("greeting"))


class Unlimited:
    """An engine of a user's own."""

    async def acquire(
        self, subjects: Sequence[Subject], *, cost: int = 1, now: Instant | None = None
    ) -> Permit | Refusal:
        return Permit()

    def release(self, subjects: Sequence[Subject], *, cost: int = 1, taken: Instant, refund: bool = False) -> None: ...


class Silent:
    """A reporter of a user's own, with the amounts spelt out."""

    def record(
        self, tenant: TenantId, amounts: Mapping[str | tuple[str, str], int], *, now: Instant | None = None
    ) -> Ticket:
        return DONE


class Fixed:
    """A clock of a user's own."""

    def now(self) -> Instant:
        return (1, 2)


LIMITER: RateLimiter = Unlimited()
REPORTER: UsageReporter = Silent()
CLOCK: Clock = Fixed()
AMOUNTS: Amounts = {"operations": 1}


@function("kv.get", effect="read")
async def handler(name: str) -> int:
    """The marker leaves the type of the handler alone."""
    return len(name)


async def call() -> int:
    return await handler("x")

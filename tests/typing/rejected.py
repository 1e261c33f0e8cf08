"""What a type checker must refuse: each line marked ``E`` with the code of the error mypy gives there.

Never run, and left out of the plain mypy run; `test_typing.py` compares mypy's errors with the marks, one by one.
"""

from __future__ import annotations

from collections.abc import Sequence

from hivetenancy.access_keys import AccessKeyValidator
from hivetenancy.clock import Instant
from hivetenancy.context import TenantContext
from hivetenancy.decision import DONE, Refusal, Ticket
from hivetenancy.functions import function
from hivetenancy.ids import Amounts, Effect, KeyId, TenantId
from hivetenancy.namespaces import CollectionName, KeyName, NamespaceManager
from hivetenancy.quota import QuotaManager
from hivetenancy.ratelimit import Permit, RateLimiter, Subject
from hivetenancy.usage import UsageReporter


async def forgotten_refusal(validator: AccessKeyValidator, quota: QuotaManager, tenant: TenantId) -> None:
    answer = await validator.validate(b"key", effect=Effect.READ)
    print(answer.tenant_id)  # E: union-attr
    held = await quota.reserve(tenant, {"keys": 1})
    held.commit()  # E: union-attr


async def forgotten_effect(validator: AccessKeyValidator) -> None:
    await validator.validate(b"key")  # E: call-arg
    await validator.validate("key", effect=Effect.READ)  # E: arg-type


async def wrong_tenant(quota: QuotaManager, usage: UsageReporter, key: KeyId, text: str) -> None:
    await quota.reserve(key, {"keys": 1})  # E: arg-type
    usage.record(text, {"searches": 1})  # E: arg-type
    usage.record(None, {"searches": 1})  # E: arg-type


def no_tenant(names: NamespaceManager, nobody: TenantContext | None) -> None:
    names.for_tenant(nobody)  # E: arg-type
    TenantContext(key_id=None, generation=1)  # E: call-arg


def wrong_names(names: NamespaceManager, context: TenantContext, store: dict[KeyName, bytes]) -> None:
    mine = names.for_tenant(context)
    store["user:1:greeting"]  # E: index
    store[mine.collections.key("greeting")]  # E: index
    mine.kv.key(mine.kv.key("greeting"))  # E: arg-type
    made: CollectionName = "user_1:docs"  # E: assignment


async def wrong_numbers(limiter: RateLimiter, quota: QuotaManager, tenant: TenantId, who: Subject) -> None:
    await limiter.acquire([who], 2)  # E: call-arg
    await limiter.acquire([who], cost=0.5)  # E: arg-type
    await limiter.acquire([who], now=1.5)  # E: arg-type
    await quota.reserve(tenant, {"storage_bytes": 1.5})  # E: dict-item
    limiter.release([who])  # E: call-arg


def changed_value(refusal: Refusal, context: TenantContext) -> None:
    refusal.limit = 3  # E: misc
    context.tenant_id = TenantId("another")  # E: misc


class ForgetsToRelease:
    async def acquire(
        self, subjects: Sequence[Subject], *, cost: int = 1, now: Instant | None = None
    ) -> Permit | Refusal:
        return Permit()


class TakesNoInstant:
    def record(self, tenant: TenantId, amounts: Amounts) -> Ticket:
        return DONE


LIMITER: RateLimiter = ForgetsToRelease()  # E: assignment
REPORTER: UsageReporter = TakesNoInstant()  # E: assignment


@function("kv.get", effect="read")
async def handler(name: str) -> int:
    return len(name)


async def call() -> None:
    await handler(3)  # E: arg-type

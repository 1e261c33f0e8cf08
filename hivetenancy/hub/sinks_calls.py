"""The calls of today's wire that add, each as one thing that can be made and, mostly, read back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Protocol

from hivetenancy.errors import ConfigurationError
from hivetenancy.ids import Dimension

from . import wire
from .sinks import Account
from .sinks_absolute import StatesResources, check_resource_fields, split_resource


class Adds(Protocol):
    """A call that adds.

    Attributes:
        name: As it is pinned.
        fields: Its field for each dimension.
    """

    @property
    def name(self) -> str:
        """As it is pinned."""
        ...

    @property
    def fields(self) -> Mapping[Dimension, str]:
        """Its field for each dimension."""
        ...

    @property
    def of_resources(self) -> bool:
        """Whether it is about a resource, or about a tenant as a whole."""
        ...

    async def add(self, account: Account, amounts: Mapping[str, int], key: str | None) -> None:
        """Make the call; a field that is not in *amounts* adds nothing."""
        ...


class ReadsBack(Adds, Protocol):
    """One whose effect the hub tells."""

    async def read(self, account: Account) -> Mapping[str, int]:
        """Return what the hub counts, by field; bytes in megabytes as ``storage_mb``."""
        ...


class AddsToGraph(Protocol):
    """The calls of Nexus that usage needs (10, 12 and 13)."""

    async def get_user_database(self, user_id: str) -> wire.UserDatabase:
        """Call 10."""
        ...

    async def consume_credits(
        self,
        user_id: str,
        *,
        amount: int,
        operation: str,
        description: str | None = None,
        idempotency_key: str | None = None,
    ) -> wire.ConsumedCredits:
        """Call 12."""
        ...

    async def update_usage(
        self,
        user_id: str,
        *,
        nodes_created: int,
        relationships_created: int,
        storage_bytes: int,
        credits_used: int,
        idempotency_key: str | None = None,
    ) -> None:
        """Call 13."""
        ...


class TakesTokens(Protocol):
    """The calls of LessTokens that usage needs (19 and 21)."""

    async def get_user_tokens(self, user_id: str) -> wire.UserTokens:
        """Call 19."""
        ...

    async def consume_tokens(
        self,
        user_id: str,
        *,
        amount: int,
        operation: str,
        description: str | None = None,
        idempotency_key: str | None = None,
    ) -> wire.ConsumedTokens:
        """Call 21."""
        ...


_NEXUS: Final = ("nodes_created", "relationships_created", "storage_bytes", "credits_used")


class GraphUsage:
    """Call 13: what a tenant's graph gained.

    Args:
        calls: The calls of Nexus.
        fields: Which of ``nodes_created``, ``relationships_created``, ``storage_bytes`` and ``credits_used`` each
            dimension is added to.

    Raises:
        ConfigurationError: The call has no such field.
    """

    name: Final = "nexus.update_usage"
    of_resources: Final = False

    def __init__(self, calls: AddsToGraph, fields: Mapping[Dimension, str]) -> None:
        _check_fields("call 13", fields, _NEXUS)
        self.fields: Mapping[Dimension, str] = dict(fields)
        self._calls = calls

    async def add(self, account: Account, amounts: Mapping[str, int], key: str | None) -> None:
        """Make call 13."""
        nodes, relationships, stored, spent = (amounts.get(name, 0) for name in _NEXUS)
        await self._calls.update_usage(
            account.tenant,
            nodes_created=nodes,
            relationships_created=relationships,
            storage_bytes=stored,
            credits_used=spent,
            idempotency_key=key,
        )

    async def read(self, account: Account) -> Mapping[str, int]:
        """Make call 10."""
        found = await self._calls.get_user_database(account.tenant)
        return {
            "nodes_created": found.quota.current_nodes,
            "relationships_created": found.quota.current_relationships,
            "storage_mb": found.quota.storage_used_mb,
            "credits_used": found.credits.used,
        }


class CreditsSpent:
    """Call 12: credits a tenant spent. A tenant without enough is refused, and the line comes again.

    Args:
        calls: The calls of Nexus.
        dimensions: Those that count credits.
        operation: What the hub is told they were for.
    """

    name: Final = "nexus.consume_credits"
    of_resources: Final = False

    def __init__(
        self, calls: AddsToGraph, dimensions: tuple[Dimension, ...] = ("credits",), *, operation: str = "usage"
    ) -> None:
        self.fields: Mapping[Dimension, str] = dict.fromkeys(dimensions, "amount")
        self._calls = calls
        self._operation = operation

    async def add(self, account: Account, amounts: Mapping[str, int], key: str | None) -> None:
        """Make call 12."""
        await self._calls.consume_credits(
            account.tenant, amount=amounts["amount"], operation=self._operation, idempotency_key=key
        )

    async def read(self, account: Account) -> Mapping[str, int]:
        """Make call 10."""
        return {"amount": (await self._calls.get_user_database(account.tenant)).credits.used}


class TokensSpent:
    """Call 21: tokens a tenant spent. A tenant without enough is refused, and the line comes again.

    Args:
        calls: The calls of LessTokens.
        dimensions: Those that count tokens.
        operation: What the hub is told they were for.
    """

    name: Final = "lesstokens.consume_tokens"
    of_resources: Final = False

    def __init__(
        self, calls: TakesTokens, dimensions: tuple[Dimension, ...] = ("tokens",), *, operation: str = "usage"
    ) -> None:
        self.fields: Mapping[Dimension, str] = dict.fromkeys(dimensions, "amount")
        self._calls = calls
        self._operation = operation

    async def add(self, account: Account, amounts: Mapping[str, int], key: str | None) -> None:
        """Make call 21."""
        await self._calls.consume_tokens(
            account.tenant, amount=amounts["amount"], operation=self._operation, idempotency_key=key
        )

    async def read(self, account: Account) -> Mapping[str, int]:
        """Make call 19."""
        return {"amount": (await self._calls.get_user_tokens(account.tenant)).tokens.used}


class ResourceUsage:
    """Call 17, where the operator says that it takes increments. The resource of a line is ``queue/orders``.

    Args:
        calls: The calls of Synap.
        fields: Which of ``message_count`` and ``storage_bytes`` a dimension is added to.

    Raises:
        ConfigurationError: The call has no such field.
    """

    name: Final = "synap.update_usage"
    of_resources: Final = True

    def __init__(self, calls: StatesResources, fields: Mapping[Dimension, str]) -> None:
        check_resource_fields(fields)
        self.fields: Mapping[Dimension, str] = dict(fields)
        self._calls = calls

    async def add(self, account: Account, amounts: Mapping[str, int], key: str | None) -> None:
        """Make call 17."""
        found = split_resource(account.resource)
        assert found is not None  # `IncrementCall.field` let no other in
        await self._calls.update_usage(
            account.tenant,
            resource_type=found[0],
            resource_name=found[1],
            message_count=amounts.get("message_count"),
            storage_bytes=amounts.get("storage_bytes"),
            idempotency_key=key,
        )


def _check_fields(call: str, fields: Mapping[Dimension, str], known: tuple[str, ...]) -> None:
    unknown = set(fields.values()).difference(known)
    if unknown:
        raise ConfigurationError(f"{call} adds {', '.join(known)}, not {', '.join(sorted(unknown))}")


if TYPE_CHECKING:
    _reads: tuple[type[ReadsBack], type[ReadsBack], type[ReadsBack]] = (GraphUsage, CreditsSpent, TokensSpent)
    _adds: type[Adds] = ResourceUsage

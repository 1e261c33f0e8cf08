"""Ready data sources: a store under a prefix, a cache, a tree of files.

The one rule: what is deleted is judged by the tenant's own scope, name by name, and never by what a store answered to a
search. A store whose search is wider than asked (a glob, a ``LIKE``, an unfinished prefix) then costs time and no
neighbour (isolation note, A39).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, Final, Protocol

from hivetenancy.context import TenantContext
from hivetenancy.errors import ConfigurationError, InvalidNameError, MisuseError
from hivetenancy.ids import TenantId
from hivetenancy.namespaces import FileScope, NameScope, NamespaceManager, TenantNames
from hivetenancy.namespaces.codec import canonical

_BATCH: Final = 500
"""How many names go into one call of ``delete``."""


class PrefixSource:
    """A store whose keys carry the tenant's prefix.

    Args:
        name: What receipts call it.
        names: What makes the names in this store, the same as the application uses.
        scopes: Which kinds of names the store holds: ``lambda names: [names.kv, names.hashes]``.
        scan: Finds the names in the store that begin with a prefix; more than those does no harm.
        delete: Removes names from the store, up to 500 a call; what is gone already is no failure.

    Example:
        >>> from hivetenancy.namespaces.prefix import PrefixNamespaces
        >>> async def find(prefix):
        ...     return [name for name in store if name.startswith(prefix)]
        >>> async def remove(names):
        ...     for name in names:
        ...         store.pop(name, None)
        >>> source = PrefixSource("kv", PrefixNamespaces(), lambda names: [names.kv], scan=find, delete=remove)
    """

    def __init__(
        self,
        name: str,
        names: NamespaceManager,
        scopes: Callable[[TenantNames], Sequence[NameScope[Any]]],
        *,
        scan: Callable[[str], Awaitable[Iterable[str]] | AsyncIterable[str]],
        delete: Callable[[Sequence[str]], Awaitable[object]],
    ) -> None:
        self.name = name
        self._names, self._scopes, self._scan, self._delete = names, scopes, scan, delete

    def check(self, context: TenantContext) -> None:
        """See that the tenant's id is one, as requests have it; see `ChecksTenant`."""
        _check_spelling(self._names, context)

    async def purge(self, context: TenantContext) -> int:
        """Delete what the tenant's scopes own; return how many names that were."""
        found = await self._found(context)
        for start in range(0, len(found), _BATCH):
            await self._delete(found[start : start + _BATCH])
        return len(found)

    async def count(self, context: TenantContext) -> int:
        """Return how many names the tenant's scopes own now."""
        return len(await self._found(context))

    async def _found(self, context: TenantContext) -> list[str]:
        found: dict[str, None] = {}
        for scope in self._scopes(self._names.for_tenant(context)):
            if not scope.prefix:  # the one owner's, in standalone mode: everything would be
                raise ConfigurationError(
                    f"data source {self.name!r} has names without tenants; give it the tenants' own"
                )
            answer = self._scan(scope.prefix)
            names = [name async for name in answer] if isinstance(answer, AsyncIterable) else await answer
            found.update((name, None) for name in names if scope.owns(name))
        return list(found)


class CacheSource:
    """What this process keeps in memory by tenant, such as a `hivetenancy.cache.TenantCache`.

    Args:
        name: What receipts call it.
        drop: Drops all of a tenant, of whatever life; returns how many entries that were.
        count: Returns how many entries there are of a tenant.

    Concurrency:
        Both are called in the loop that deletions run in.

    Example:
        >>> from hivetenancy.cache import TenantCache
        >>> cache = TenantCache()
        >>> source = CacheSource("cache", drop=cache.drop, count=cache.count)
    """

    def __init__(self, name: str, *, drop: Callable[[TenantId], int], count: Callable[[TenantId], int]) -> None:
        self.name = name
        self._drop, self._count = drop, count

    async def purge(self, context: TenantContext) -> int:
        """Drop the tenant's entries, of whatever life."""
        return self._drop(context.tenant_id)

    async def count(self, context: TenantContext) -> int:
        """Return how many entries there are of the tenant."""
        return self._count(context.tenant_id)


class _Directory(Protocol):
    def count(self) -> int: ...
    def purge(self) -> None: ...


class OpensFiles(Protocol):
    """What opens the files of tenants: `hivetenancy.namespaces.files.TenantFiles`."""

    def directory(self, scope: FileScope, *, tenant: TenantId, generation: int) -> _Directory:
        """Return the directory of one tenant."""
        ...


class FilesSource:
    """The tenants' directories below one root.

    Args:
        name: What receipts call it.
        names: What makes the paths, the same as the application uses.
        files: What opens them.

    Concurrency:
        The disk is touched in a thread.
    """

    def __init__(self, name: str, names: NamespaceManager, files: OpensFiles) -> None:
        self.name = name
        self._names, self._files = names, files

    def check(self, context: TenantContext) -> None:
        """See that the tenant's id is one, as requests have it; see `ChecksTenant`."""
        _check_spelling(self._names, context)

    async def purge(self, context: TenantContext) -> int:
        """Remove the tenant's directory, of whatever life; return how many entries it had."""
        directory = self._directory(context)
        entries = await asyncio.to_thread(directory.count)
        await asyncio.to_thread(directory.purge)
        return entries

    async def count(self, context: TenantContext) -> int:
        """Return how many entries there are below the tenant's directory."""
        return await asyncio.to_thread(self._directory(context).count)

    def _directory(self, context: TenantContext) -> _Directory:
        scope = self._names.for_tenant(context).files
        if not scope.directory:
            raise ConfigurationError(f"data source {self.name!r} has paths without tenants; give it the tenants' own")
        return self._files.directory(scope, tenant=context.tenant_id, generation=context.generation)


def _check_spelling(names: NamespaceManager, context: TenantContext) -> None:
    """Raise where *names* takes the tenant's id for another spelling of the one that HiveHub prints."""
    try:
        mine = names.for_tenant(context)
    except MisuseError:
        return  # names without tenants: refused where they would be swept
    try:
        usual = canonical(context.tenant_id)
    except InvalidNameError:
        return  # no UUID, so it has one spelling
    if usual != context.tenant_id and names.for_tenant(replace(context, tenant_id=usual)).kv.prefix == mine.kv.prefix:
        raise InvalidNameError(f"this is another spelling of the tenant {usual!r}; nothing was changed: use that")

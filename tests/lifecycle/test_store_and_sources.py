"""The file of lives, and the ready sources."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from hivetenancy.cache import TenantCache
from hivetenancy.context import TenantContext
from hivetenancy.errors import ConfigurationError, MisuseError, StoreUnavailableError
from hivetenancy.hooks import LimitedIsolation, LoggingAudit
from hivetenancy.ids import STANDALONE
from hivetenancy.lifecycle import Receipt, Standing, State, Step, TenantStateError
from hivetenancy.lifecycle.sources import CacheSource, FilesSource, PrefixSource
from hivetenancy.lifecycle.store import LifecycleStore
from hivetenancy.namespaces.files import TenantFiles
from hivetenancy.namespaces.prefix import IdentityNamespaces
from tests.lifecycle.world import ACME, NAMES, OTHER, KeyStore

pytestmark = pytest.mark.anyio

CONTEXT = TenantContext(tenant_id=ACME, key_id=None, generation=1)
BEGUN = Standing(State.DELETING, 1)


def reopened(path: Path) -> LifecycleStore:
    """The store in *path*."""
    store = LifecycleStore(path)
    store.open()
    return store


# --- the store --------------------------------------------------------------------------------------------------------


def test_everything_is_found_again(tmp_path: Path) -> None:
    """Standings, the step, receipts added up; of a file that nobody else may read."""
    path = tmp_path / "life"
    store = reopened(path)
    assert store.standing(ACME) == Standing(State.ACTIVE, 1)
    assert store.begin(ACME, Standing(State.ACTIVE, 1), ["b", "a"]) == BEGUN
    store.step(ACME, BEGUN, Step.PURGE, ["c", "a"])
    for at in (1, 2):
        store.receive(ACME, 1, Receipt(source="a", amount=4, at_us=at))
    store.move(OTHER, Standing(State.ACTIVE, 1), State.BLOCKED)
    store.close()
    store = reopened(path)
    assert store.standings() == [(ACME, BEGUN), (OTHER, Standing(State.BLOCKED, 1))]
    deletion = store.deletion(ACME, 1)
    assert (deletion.step, deletion.sources) == (Step.PURGE, ("a", "b", "c"))
    assert deletion.receipts == (Receipt(source="a", amount=8, at_us=2),)
    assert store.tombstone(ACME, 1) is None
    store.close()
    if os.name == "posix":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_in_memory_nothing_is_forgotten_by_closing() -> None:
    """A tenancy that is stopped and started again in one process goes on."""
    store = LifecycleStore()
    store.open()
    store.move(ACME, Standing(State.ACTIVE, 1), State.BLOCKED)
    store.close()
    store.open()
    assert store.standing(ACME).state is State.BLOCKED
    assert repr(store) == "<LifecycleStore in memory: open>"


def test_the_file_is_of_one_process_and_one_program(tmp_path: Path) -> None:
    """A second opener, another program's database and a closed store are refused; nothing is changed."""
    first = reopened(tmp_path / "life")
    with pytest.raises(ConfigurationError, match="in use already"):
        reopened(tmp_path / "life")
    first.open()
    first.close()
    with pytest.raises(MisuseError, match="closed"):
        first.standings()
    foreign = tmp_path / "foreign"
    foreign.touch(0o600)
    with closing(sqlite3.connect(foreign)) as connection:
        connection.execute("CREATE TABLE t (x)")
    with pytest.raises(ConfigurationError, match="not a lifecycle file"):
        reopened(foreign)


def test_what_cannot_be_written_changes_nothing() -> None:
    """A disk that fails is a store that cannot be used, and the transaction is taken back."""
    store = LifecycleStore()
    store.open()
    assert store._connection is not None
    store._connection.execute("DROP TABLE sources")
    with pytest.raises(StoreUnavailableError):
        store.begin(ACME, Standing(State.ACTIVE, 1), ["kv"])
    assert store.standing(ACME) == Standing(State.ACTIVE, 1)


def test_a_step_is_of_a_deletion_under_way() -> None:
    """Not of a tenant that stands elsewhere."""
    store = LifecycleStore()
    store.open()
    with pytest.raises(TenantStateError):
        store.step(ACME, BEGUN, Step.PURGE)


# --- the sources ------------------------------------------------------------------------------------------------------


async def test_a_prefix_source_takes_any_kind_of_search_and_small_calls() -> None:
    """An async iterator serves as well; 1,200 names go in three calls; a name found twice is counted once."""
    store, sizes = KeyStore(), []
    for number in range(1200):
        store.put(ACME, f"k{number}")
    store.put(OTHER, "k")

    async def search(prefix: str) -> AsyncIterator[str]:
        for name in [*store.rows, *store.rows]:
            yield name

    async def remove(names: Any) -> None:
        sizes.append(len(names))
        await store.remove(names)

    source = PrefixSource("kv", NAMES, lambda names: [names.kv, names.hashes], scan=search, delete=remove)
    assert await source.count(CONTEXT) == 1200
    assert await source.purge(CONTEXT) == 1200
    assert (sizes, await source.count(CONTEXT), store.of(OTHER)) == ([500, 500, 200], 0, 1)
    assert await source.purge(CONTEXT) == 0


async def test_names_without_tenants_are_never_swept(tmp_path: Path) -> None:
    """Under the identity everything would be the tenant's: refused, nothing is touched."""
    store = KeyStore()
    store.put(ACME, "a")
    owner = TenantContext(tenant_id=STANDALONE, key_id=None, generation=0)
    names = IdentityNamespaces()
    sources: list[Any] = [
        PrefixSource("kv", names, lambda names: [names.kv], scan=store.scan, delete=store.remove),
        FilesSource("files", names, TenantFiles(tmp_path, sink=LimitedIsolation(LoggingAudit()))),
    ]
    (tmp_path / "kept").touch()
    for source in sources:
        for ask in (source.purge, source.count):
            with pytest.raises(ConfigurationError, match="without tenants"):
                await ask(owner)
    assert (store.of(ACME), (tmp_path / "kept").exists()) == (1, True)


async def test_a_cache_source_drops_every_life() -> None:
    """Of the tenant alone."""
    cache, dropped = TenantCache(), []

    def drop(tenant: Any) -> int:
        dropped.append(tenant)
        return cache.drop(tenant)

    source = CacheSource("cache", drop=drop, count=cache.count)
    assert (await source.purge(CONTEXT), await source.count(CONTEXT), dropped) == (0, 0, [ACME])


async def test_a_files_source_removes_the_tenant_s_own_directory(tmp_path: Path) -> None:
    """Files and folders of whatever life; a link in it goes, what it leads to stays, and so does the neighbour."""
    outside, root = tmp_path / "outside", tmp_path / "root"
    outside.mkdir()
    root.mkdir()
    (outside / "kept").touch()
    files = TenantFiles(root, sink=LimitedIsolation(LoggingAudit()))
    directories = {}
    for tenant in (ACME, OTHER):
        context = TenantContext(tenant_id=tenant, key_id=None, generation=1)
        scope = NAMES.for_tenant(context).files
        directories[tenant] = directory = files.directory(scope, tenant=tenant, generation=1)
        directory.provision()
        with directory.create("deep", "file") as file:
            file.write(b"x")
        (root / scope.directory / "link").symlink_to(outside)
    source = FilesSource("files", NAMES, files)
    assert await source.count(CONTEXT) == 3
    assert await source.purge(CONTEXT) == 3
    assert (await source.count(CONTEXT), await source.purge(CONTEXT)) == (0, 0)
    assert directories[OTHER].exists("deep", "file")
    assert (outside / "kept").exists()

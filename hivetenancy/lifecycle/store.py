"""Where tenants stand in their lives, kept in one SQLite file, or in memory.

Each method is one transaction that is on disk when it returns: whoever acts on a transition acts on what a restart will
find. In memory it is the same database without a file, so that there is no second implementation.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import weakref
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple, TypeAlias

from hivetenancy.errors import MisuseError, StoreUnavailableError
from hivetenancy.files import checked_path, open_database
from hivetenancy.ids import TenantId

from .protocol import Receipt, Standing, State, Step, Tombstone
from .states import FIRST, moved

APPLICATION_ID: Final = 0x48544C43
"""``HTLC``: what tells the file from anybody else's."""

SCHEMA_VERSION: Final = 1

_TABLES: Final = (
    "CREATE TABLE tenants (tenant TEXT PRIMARY KEY, state TEXT NOT NULL, generation INTEGER NOT NULL, step TEXT)"
    " WITHOUT ROWID",
    "CREATE TABLE sources (tenant TEXT NOT NULL, generation INTEGER NOT NULL, source TEXT NOT NULL,"
    " amount INTEGER NOT NULL, at_us INTEGER, PRIMARY KEY (tenant, generation, source)) WITHOUT ROWID",
    "CREATE TABLE tombstones (tenant TEXT NOT NULL, generation INTEGER NOT NULL, token TEXT NOT NULL,"
    " receipts_hash TEXT NOT NULL, at_us INTEGER NOT NULL, PRIMARY KEY (tenant, generation)) WITHOUT ROWID",
)


_Run: TypeAlias = Callable[..., list[tuple[Any, ...]]]


class Deletion(NamedTuple):
    """What is written down of a deletion.

    Attributes:
        step: How far it has come; ``None``: it has not begun, or is over.
        sources: The sources that there were when it began. All of them have to be proven empty.
        receipts: Of those that were purged so far, in order of their names.
    """

    step: Step | None
    sources: tuple[str, ...]
    receipts: tuple[Receipt, ...]


class LifecycleStore:
    """Keeps states, generations, steps, receipts and tombstones.

    Args:
        path: The file, made with mode 0600; its folder must be there. ``None``: in memory, so a restart forgets.

    Raises:
        ConfigurationError: *path* is no path of a file.

    Concurrency:
        Any thread, one at a time: a lock of its own is held while the disk is written. One process: the file is locked.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self.path = None if path is None else checked_path(path)
        self._connection: sqlite3.Connection | None = None
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        where = "memory" if self.path is None else repr(str(self.path))
        return f"<LifecycleStore in {where}: {'closed' if self._connection is None else 'open'}>"

    def open(self) -> None:
        """Open the file, or make it. Does nothing while it is open.

        Raises:
            ConfigurationError: It is refused (see `hivetenancy.files`); it was left as it is.
        """
        with self._lock:
            if self._connection is not None:
                return
            if self.path is not None:
                self._connection = open_database(
                    self.path,
                    what="a lifecycle file of hivetenancy",
                    application_id=APPLICATION_ID,
                    schema_version=SCHEMA_VERSION,
                    make_tables=_make_tables,
                )
                return
            self._connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
            weakref.finalize(self, self._connection.close)  # `close` keeps it, so that nothing is forgotten
            _make_tables(self._connection)

    def close(self) -> None:
        """Let the file go. In memory nothing is closed: what is known stays for the next `open`."""
        with self._lock:
            if self.path is not None and self._connection is not None:
                self._connection.close()
                self._connection = None

    # --- reading ---

    def standings(self) -> list[tuple[TenantId, Standing]]:
        """Return every tenant that was ever written down, and where it stands."""
        rows = self._rows("SELECT tenant, state, generation FROM tenants ORDER BY tenant")
        return [(TenantId(tenant), Standing(State(state), generation)) for tenant, state, generation in rows]

    def standing(self, tenant: TenantId) -> Standing:
        """Return where *tenant* stands: active in its first generation if nothing was written down."""
        rows = self._rows("SELECT state, generation FROM tenants WHERE tenant = ?", tenant)
        return Standing(State(rows[0][0]), rows[0][1]) if rows else FIRST

    def deletion(self, tenant: TenantId, generation: int) -> Deletion:
        """Return what is written down of the deletion of one life."""
        step = self._rows("SELECT step FROM tenants WHERE tenant = ? AND generation = ?", tenant, generation)
        rows = self._rows(
            "SELECT source, amount, at_us FROM sources WHERE tenant = ? AND generation = ? ORDER BY source",
            tenant,
            generation,
        )
        receipts = (Receipt(source=name, amount=amount, at_us=at) for name, amount, at in rows if at is not None)
        known = step[0][0] if step else None
        return Deletion(None if known is None else Step(known), tuple(row[0] for row in rows), tuple(receipts))

    def tombstone(self, tenant: TenantId, generation: int) -> Tombstone | None:
        """Return what is left of one life; ``None``: it has not ended."""
        rows = self._rows(
            "SELECT token, receipts_hash, at_us FROM tombstones WHERE tenant = ? AND generation = ?", tenant, generation
        )
        if not rows:
            return None
        token, receipts_hash, at_us = rows[0]
        return Tombstone(tenant=tenant, generation=generation, token=token, receipts_hash=receipts_hash, at_us=at_us)

    # --- writing: each is one transaction, and durable when it returns ---

    def move(self, tenant: TenantId, believed: Standing, to: State) -> Standing:
        """Have *tenant* go *to* another state, if it stands where it is *believed* to; return where it stands then.

        To `begin` and to `conclude` a deletion there are methods of their own.

        Raises:
            TenantStateError: It does not, or cannot; nothing was changed.
            StoreUnavailableError: It cannot be written; nothing was changed.
        """
        with self._transaction() as run:
            return self._move(run, tenant, believed, to, None)

    def begin(self, tenant: TenantId, believed: Standing, sources: Sequence[str]) -> Standing:
        """Have the deletion of *tenant* begin, with the sources that will have to be empty; raises as `move`."""
        with self._transaction() as run:
            standing = self._move(run, tenant, believed, State.DELETING, Step.DRAIN)
            for name in sources:
                run("INSERT INTO sources VALUES (?, ?, ?, 0, NULL)", tenant, standing.generation, name)
            return standing

    def step(self, tenant: TenantId, standing: Standing, step: Step, sources: Sequence[str] = ()) -> None:
        """Note that a deletion comes to *step*, and which *sources* there are beside those from its beginning.

        Raises:
            TenantStateError: The tenant does not stand at *standing*; nothing was changed.
            StoreUnavailableError: It cannot be written; nothing was changed.
        """
        with self._transaction() as run:
            moved(tenant, self._found(run, tenant), standing, State.DELETED)  # it is being deleted, in this generation
            run("UPDATE tenants SET step = ? WHERE tenant = ?", step.value, tenant)
            for name in sources:
                run("INSERT OR IGNORE INTO sources VALUES (?, ?, ?, 0, NULL)", tenant, standing.generation, name)

    def receive(self, tenant: TenantId, generation: int, receipt: Receipt) -> None:
        """Keep a receipt; one of the same source is added to.

        Raises:
            StoreUnavailableError: It cannot be written; nothing was changed.
        """
        with self._transaction() as run:
            run(
                "UPDATE sources SET amount = amount + ?, at_us = ? WHERE tenant = ? AND generation = ? AND source = ?",
                receipt.amount,
                receipt.at_us,
                tenant,
                generation,
                receipt.source,
            )

    def conclude(self, standing: Standing, tombstone: Tombstone) -> Standing:
        """Have a deletion end with its *tombstone*; raises as `move`."""
        with self._transaction() as run:
            after = self._move(run, tombstone.tenant, standing, State.DELETED, None)
            run(
                "INSERT INTO tombstones VALUES (?, ?, ?, ?, ?)",
                tombstone.tenant,
                tombstone.generation,
                tombstone.token,
                tombstone.receipts_hash,
                tombstone.at_us,
            )
            return after

    def _move(self, run: _Run, tenant: TenantId, believed: Standing, to: State, step: Step | None) -> Standing:
        after = moved(tenant, self._found(run, tenant), believed, to)
        run("REPLACE INTO tenants VALUES (?, ?, ?, ?)", tenant, after.state.value, after.generation, step)
        return after

    def _found(self, run: _Run, tenant: TenantId) -> Standing:
        rows = run("SELECT state, generation FROM tenants WHERE tenant = ?", tenant)
        return Standing(State(rows[0][0]), rows[0][1]) if rows else FIRST

    def _rows(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        with self._transaction() as run:
            return run(statement, *values)

    @contextmanager
    def _transaction(self) -> Generator[_Run, None, None]:
        with self._lock:
            connection = self._connection
            if connection is None:
                raise MisuseError("the lifecycle store is closed: open() it first, or start the tenancy")
            try:
                connection.execute("BEGIN IMMEDIATE")
                try:
                    yield lambda statement, *values: connection.execute(statement, values).fetchall()
                    connection.execute("COMMIT")
                except BaseException:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                raise StoreUnavailableError(f"the lifecycle store cannot be used: {error}") from error


def _make_tables(connection: sqlite3.Connection) -> None:
    for statement in _TABLES:
        connection.execute(statement)

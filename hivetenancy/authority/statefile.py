"""A control plane that outlives its process: everything it knows in one SQLite file, written before it answers.

Memory is what is asked; the file is what is believed after a restart. At the end of each transaction, still under the
control plane's lock, whatever differs from the file is written in one transaction of SQLite, and only then does anybody
hear of the change. So a reader never sees a revision that a kill could take away, and after a restart ids, revisions,
epoch, cursors, usage sources, service keys and idempotency keys go on where they were: nothing acknowledged is lost, so
no new epoch begins.

Where the file cannot be written, memory goes back to what the file holds, and the change is refused. Where that fails
too, the control plane answers nothing more: an answer that the file does not know of would be unsaid later.

The file has one owner. SQLite's exclusive lock says so, which the kernel drops with its process. It is stamped with who
it is the authority of, so that a fake's tenants never become anybody's production, nor the other way round.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from itertools import dropwhile
from os import PathLike
from pathlib import Path
from typing import Any, Final, TypeAlias

from hivetenancy.clock import Clock
from hivetenancy.errors import ConfigurationError, HubUnavailableError
from hivetenancy.files import checked_path, damaged, open_database, refused
from hivetenancy.plans import Plan
from hivetenancy.sources import ChangeBatch

from .feed import ChangeLog
from .idempotency import IdempotencyStore
from .service import HubService
from .state import HubState
from .statecodec import decode, encode
from .view import HubView

APPLICATION_ID: Final = 0x48764870
"""``HvHp`` in the file's header."""

SCHEMA_VERSION: Final = 1

_Key: TypeAlias = tuple[str, Any]
"""Kind of a row, and its key within that kind."""


class StateFile:
    """The file, open and ours.

    Args:
        path: Where it is; made if there is none, in a folder that is there.
        authority: Whose it is: ``fake`` or ``local``.

    Raises:
        ConfigurationError: It belongs to another process, another authority, another program or another user, is
            readable by others, damaged, or cannot be written. It is left as it was.

    Concurrency:
        None of its own: the control plane's lock covers it.
    """

    def __init__(self, path: str | PathLike[str], authority: str) -> None:
        self.path = checked_path(path)
        self._connection = _opened(self.path)
        self._known: dict[_Key, Any] = {}
        self._upto = 0
        try:
            self._claim(authority)
        except BaseException as error:
            self.close()
            if isinstance(error, sqlite3.Error):
                raise refused(self.path, error) from error
            raise

    def __repr__(self) -> str:
        return f"<StateFile {self.path}>"

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def _claim(self, authority: str) -> None:
        found = self._connection.execute(
            "SELECT body FROM rows WHERE kind = 'meta' AND key = ?", (encode("authority"),)
        )
        row = found.fetchone()
        if row is None:
            with self._writing() as connection:
                _put(connection, {("meta", "authority"): authority})
        elif (whose := _decoded(self.path, row[0])) != authority:
            raise ConfigurationError(
                f"the state file {str(self.path)!r} is that of authority {whose!r}, and this is {authority!r}: neither "
                "takes the other's file. It was left as it is; name another path"
            )

    def load(self, log: Callable[[str], ChangeLog]) -> tuple[str, HubState, ChangeLog] | None:
        """Return the hub's id, its state and its log as they were; ``None``: nothing was written yet.

        Args:
            log: Makes an empty log for 32 hex digits.

        Raises:
            ConfigurationError: The file is damaged.
        """
        rows: dict[str, dict[Any, Any]] = {}
        try:
            for kind, key, body in self._connection.execute("SELECT kind, key, body FROM rows ORDER BY rowid"):
                rows.setdefault(kind, {})[_decoded(self.path, key)] = _decoded(self.path, body)
            if "hub_id" not in rows.get("meta", {}):
                return None
            hub_id = str(rows["meta"]["hub_id"])
            made = log(hub_id.replace("-", ""))
            made.epoch, made.revision = rows["meta"]["log"]
            events = self._connection.execute("SELECT body FROM events ORDER BY revision")
            made._events.extend(_decoded(self.path, body) for (body,) in events)
            state = _state_of(rows)
        except sqlite3.Error as error:
            raise refused(self.path, error) from error
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise damaged(self.path, f"what it holds does not fit together ({type(error).__name__})") from error
        self._known = {key: _copied(value) for key, value in _rows(hub_id, state, made)}
        self._upto = made.revision
        return hub_id, state, made

    def save(self, hub_id: str, state: HubState, log: ChangeLog) -> None:
        """Write whatever differs from the file; when this returns it is there after a power failure, too.

        Raises:
            sqlite3.Error: It could not be written. The file is as it was.
        """
        now = dict(_rows(hub_id, state, log))
        changed = {key: value for key, value in now.items() if not _same(self._known.get(key), value)}
        gone = () if len(now) == len(self._known.keys() | changed.keys()) else tuple(self._known.keys() - now.keys())
        if not changed and not gone:
            return
        oldest = log.revision - len(log._events) + 1
        with self._writing() as connection:
            _put(connection, changed)
            connection.executemany("DELETE FROM rows WHERE kind = ? AND key = ?", ((k, encode(v)) for k, v in gone))
            connection.execute("DELETE FROM events WHERE revision < ? OR revision > ?", (oldest, log.revision))
            recent = dropwhile(lambda event: event.revision <= self._upto, log._events)
            rows = ((event.revision, encode(event)) for event in recent)
            connection.executemany("INSERT OR REPLACE INTO events (revision, body) VALUES (?, ?)", rows)
        for key in gone:
            del self._known[key]
        self._known.update((key, _copied(value)) for key, value in changed.items())
        self._upto = log.revision

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield self._connection
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise


class KeptHubService(HubService):
    """A `HubService` that is kept in a file.

    Args:
        path: The file; ``None``: kept in memory alone.
        authority: What it says it is, and what the file is stamped with.
        **options: See `HubService`. Of plans, those stated here count over those of the file.

    Raises:
        ConfigurationError: As `HubService`, or the file is refused.

    Concurrency:
        As `HubService`. A change returns when it is on disk.
    """

    def __init__(
        self,
        path: str | PathLike[str] | None,
        *,
        authority: str,
        clock: Clock | None = None,
        **options: Any,
    ) -> None:
        super().__init__(authority=authority, clock=clock, **options)
        self._first_plans: Mapping[str, Plan] = dict(self._state.plans)
        self._broken: str | None = None
        self._file = None if path is None else StateFile(path, authority)
        if self._file is not None:
            try:
                self._recall(options.get("plans", ()))
            except BaseException:
                self._file.close()
                raise

    @property
    def path(self) -> Path | None:
        """Where it is kept; ``None``: in memory alone."""
        return None if self._file is None else self._file.path

    def close(self) -> None:
        """Let go of the file; no change is taken afterwards. Without a file nothing happens. May be called again."""
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._broken = "it was closed"

    def _recall(self, plans: Any) -> None:
        with self._lock:
            found = self._load()
            if not found:
                self._commit()
                return
        stated = plans.values() if isinstance(plans, Mapping) else plans
        for plan in stated:
            if self._state.plans.get(plan.name) != plan:
                self.define_plan(plan)

    def _load(self) -> bool:
        assert self._file is not None
        log = self._log
        found = self._file.load(lambda hub: _empty(log, hub))
        if found is not None:
            self._hub_id, self._state, self._log = found
        return found is not None

    def _commit(self) -> None:
        if self._file is None:
            return
        self._check()
        try:
            self._file.save(self._hub_id, self._state, self._log)
        except (sqlite3.Error, OSError) as error:
            self._go_back(error)
            raise HubUnavailableError(
                f"the change was not made: the state file {str(self._file.path)!r} cannot be written ({error})",
                outcome_unknown=False,
            ) from error

    def _go_back(self, error: Exception) -> None:
        """Know what the file holds, and nothing else."""
        try:
            if not self._load():
                self._broken = str(error)
        except (sqlite3.Error, OSError, ConfigurationError) as again:
            self._broken = str(again)

    def _check(self) -> None:
        if self._broken is not None:
            raise HubUnavailableError(f"this hub's state file is out of use: {self._broken}", transient=False)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[HubState]:
        """See `HubAccounts.transaction`.

        Raises:
            HubUnavailableError: The file could not be written: nothing was changed; or it is out of use.
        """
        self._check()
        with super().transaction() as state:
            yield state

    @contextlib.contextmanager
    def reading(self) -> Iterator[HubState]:
        """See `HubAccounts.reading`."""
        self._check()
        with super().reading() as state:
            yield state

    async def changes(self, cursor: str | None, *, wait_seconds: int = 2) -> ChangeBatch:
        """See `HubService.changes`."""
        self._check()
        return await super().changes(cursor, wait_seconds=wait_seconds)

    def try_changes(self, cursor: str | None) -> ChangeBatch:
        """See `HubService.try_changes`."""
        self._check()
        return super().try_changes(cursor)

    def _view(self) -> HubView:
        self._check()
        return super()._view()


# --- rows ------------------------------------------------------------------------------------------------------------

#: Fields of the state whose values are frozen and replaced whole: a row for each, compared by identity.
_PLAIN: Final = ("plans", "tenants", "keys", "collections", "service_keys", "last_used")

#: Books of usage, whose nested dicts change in place: a row for each tenant and dimension, compared by value.
_BOOKS: Final = ("_totals", "_corrections", "_levels")


def _rows(hub_id: str, state: HubState, log: ChangeLog) -> Iterator[tuple[_Key, Any]]:
    yield ("meta", "hub_id"), hub_id
    yield ("meta", "log"), (log.epoch, log.revision)
    for name in _PLAIN:
        for key, value in getattr(state, name).items():
            yield (name, key), value
    for tenant, resources in state.resources.items():
        for place, value in resources.items():
            yield ("resources", (tenant, *place)), value
    for name in _BOOKS:
        for place, cells in getattr(state.usage, name).items():
            yield (name, place), cells
    for name, value in state.usage._sources.items():
        yield ("sources", name), value
    for name, value in state.usage._owners.items():
        yield ("owners", name), value
    for claim, entry in state.idempotency._kept.items():
        yield ("idempotency", claim), entry


def _state_of(rows: Mapping[str, Mapping[Any, Any]]) -> HubState:
    """Build the state that `_rows` were made from."""
    state = HubState(dict(rows["plans"]))
    for name in ("tenants", "service_keys", "last_used"):
        getattr(state, name).update(rows.get(name, {}))
    for key in rows.get("keys", {}).values():
        state.put_key(key)
    for collection in rows.get("collections", {}).values():
        state.put_collection(collection)
    for resource in rows.get("resources", {}).values():
        state.put_resource(resource)
    for name in _BOOKS:
        getattr(state.usage, name).update(rows.get(name, {}))
    state.usage._sources.update(rows.get("sources", {}))
    state.usage._owners.update(rows.get("owners", {}))
    state.idempotency = _idempotency(rows.get("idempotency", {}))
    return state


def _idempotency(entries: Mapping[Any, Any]) -> IdempotencyStore:
    store = IdempotencyStore()
    store._kept.update(sorted(entries.items(), key=lambda item: item[1].until_us))
    store._bytes = sum(len(getattr(entry.outcome, "body", b"")) for entry in entries.values())
    return store


def _same(known: Any, value: Any) -> bool:
    return known is value or (isinstance(value, dict | int | str | tuple) and known == value)


def _copied(value: Any) -> Any:
    """Return what stands for *value* until the next comparison: a copy of what changes in place."""
    if isinstance(value, dict):
        return {key: dict(item) if isinstance(item, dict) else item for key, item in value.items()}
    return value


def _put(connection: sqlite3.Connection, rows: Mapping[_Key, Any]) -> None:
    """Write rows; one that is there keeps its place in the order."""
    connection.executemany(
        "INSERT INTO rows (kind, key, body) VALUES (?, ?, ?) "
        "ON CONFLICT (kind, key) DO UPDATE SET body = excluded.body",
        ((kind, encode(key), encode(value)) for (kind, key), value in rows.items()),
    )


def _empty(log: ChangeLog, hub: str) -> ChangeLog:
    return ChangeLog(hub, at_most=log._at_most, spread_seconds=log._spread_seconds)


# --- the file itself -------------------------------------------------------------------------------------------------


def _opened(path: Path) -> sqlite3.Connection:
    """Open and lock the file, made if there is none."""
    return open_database(
        path,
        what="the state of a hub",
        application_id=APPLICATION_ID,
        schema_version=SCHEMA_VERSION,
        make_tables=_make_tables,
    )


def _make_tables(connection: sqlite3.Connection) -> None:
    connection.execute(
        "CREATE TABLE rows (kind TEXT NOT NULL, key BLOB NOT NULL, body BLOB NOT NULL, UNIQUE (kind, key))"
    )
    connection.execute("CREATE TABLE events (revision INTEGER PRIMARY KEY, body BLOB NOT NULL)")


def _decoded(path: Path, body: bytes) -> Any:
    try:
        return decode(body)
    except ValueError as error:
        raise damaged(path, "a row of it cannot be read") from error

"""What a node knows, kept over a restart: one SQLite file with limits, the feed's place, digests and what is in flight.

Nobody who calls ``put_...`` waits for the disk. Changes go to a buffer in which a later one replaces an earlier one of
the same row; one thread commits the buffer in groups. What fails is kept and tried again, but for deliveries: whoever
was told that a delivery is not on disk does not send it, so it must not be found there after a restart either.

Ages are wall time, for no other clock survives a restart. A clock that is set back must not make anything look younger:
the file remembers the latest time it was written at, and when the clock is behind that, or fell behind the monotonic
one while the process ran, everything kept counts as old. A clock set back while nothing runs, by less than the pause
lasted, cannot be noticed.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Final

from hivetenancy.clock import SECOND_US, Clock, SystemClock
from hivetenancy.decision import DONE, Ticket
from hivetenancy.errors import ConfigurationError, MisuseError, StoreUnavailableError
from hivetenancy.files import checked_path, damaged
from hivetenancy.ids import Dimension, TenantId

from .kept import (
    ROW_VERSION,
    Delivery,
    FeedPlace,
    KeptAnnouncement,
    KeptLimits,
    KeptTenants,
    Knowledge,
    UsageCell,
    as_json,
    can_decode,
    check_time,
)
from .keptfile import (
    ABSOLUTES,
    ANNOUNCEMENT,
    DELIVERIES,
    DIGESTS,
    FACTS,
    HUB_ID,
    LIMITS,
    PINS,
    PLACE,
    TABLES,
    WRITTEN,
    Contents,
    Identity,
    Row,
    check_hub,
    check_there,
    from_key,
    identity_of,
    open_file,
    read_announcement,
    read_cell,
    read_place,
    to_key,
    write_rows,
)
from .keptgroup import Group

_log: Final = logging.getLogger("hivetenancy")

COMMIT_SECONDS: Final = 0.2
"""How long changes gather before they are committed, unless somebody waits for them."""

MAX_DELIVERIES: Final = 10_000
"""Deliveries in flight. None is ever dropped for another, so one more is refused."""

MAX_DELIVERY_BYTES: Final = 2**20
"""Longest body of a delivery: what the hub takes at most (HiveHub wire 5)."""

MAX_ABSOLUTES: Final = 1_000_000
"""Cells with an absolute total. None is ever dropped for another, so one more is refused."""

DIGEST_BYTES: Final = 32

_RETRY_SECONDS: Final = 5.0
"""Longest pause between two attempts while the disk refuses."""

_STEP_US: Final = SECOND_US
"""A wall clock that falls behind by more was set back; less is its being kept in time."""


class StateStore:
    """Keeps what a node knows of its hub, in one SQLite file that belongs to one process.

    The file is made with mode 0600. It holds digests of keys and ids of tenants, never a key and never what a key may
    do.

    Args:
        path: The file. Its folder must be there.
        clock: For the times of writing and of seeing a key.
        max_tenants: Tenants whose limits are kept; those asked for longest ago go first.
        max_digests: Digests kept; those seen longest ago go first.
        pause: Waits for the event that it is given, at most so many seconds. Tests hand in one that never times out.

    Raises:
        ConfigurationError: *path* is none, or a bound is below 1. Nothing is looked at on disk before `open`.

    Concurrency:
        ``put_...``, ``drop_...`` and ``pin`` are called from any thread and never wait for the disk. A forked child
        must not use it. `close` blocks: call it in a thread while a loop runs.

    Source:
        Architecture, decision 17; HiveHub wire 4.1, 4.2, 4.6.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        clock: Clock | None = None,
        max_tenants: int = 100_000,
        max_digests: int = 100_000,
        pause: Callable[[threading.Event, float], object] = threading.Event.wait,
    ) -> None:
        self.path = checked_path(path)
        for name, bound in (("max_tenants", max_tenants), ("max_digests", max_digests)):
            if type(bound) is not int or bound < 1:
                raise ConfigurationError(f"{name} must be a whole number of at least 1, got {bound!r}")
        self._most: Final = {LIMITS: max_tenants, DIGESTS: max_digests}
        self._clock: Clock = clock or SystemClock()
        self._pause = pause
        self._lock = threading.Lock()  # never held while the disk is touched
        self._writer: threading.Thread | None = None
        self._owner = 0
        self._connection: sqlite3.Connection | None = None
        self._identity: Identity | None = None
        self._reset(None)

    def __repr__(self) -> str:
        state = "closed" if self._writer is None else self.last_error or "open"
        return f"<StateStore {str(self.path)!r}: {state}>"

    def _reset(self, hub_id: str | None) -> None:
        self._hub_id = hub_id
        self._group = self._committing = Group()
        self._work, self._urgent, self._closing = threading.Event(), threading.Event(), False
        self._pinned: dict[str, str] = {}
        self._absolutes: dict[UsageCell, int] = {}
        self._deliveries: dict[str, tuple[Delivery, Ticket]] = {}
        self._rows_at_most = dict.fromkeys(self._most, 0)
        self._written_us = 0
        self._offset_us = 0
        self._failures = 0
        self._last_error: str | None = None

    # --- opening and closing ---

    def open(self, hub_id: str | None = None) -> Knowledge:
        """Open the file, or make it, and return what it holds.

        Blocks while it reads. A file that is refused stays as it is.

        Args:
            hub_id: The hub this node speaks to, with which the file is stamped; ``None``: not known yet, so what is
                stamped stays, and a new file takes nothing before `stamp` or `put_announcement`.

        Raises:
            ConfigurationError: The file is another process's, another hub's, another program's, damaged, readable for
                others, or of a later version; or it cannot be made. The message names it and the remedy.
            MisuseError: It is open already.
        """
        if self._writer is not None:
            raise MisuseError(f"the state file {self.path} is open already: close() it first")
        connection, contents = open_file(self.path)
        try:
            knowledge = self._learn(contents, hub_id)
        except BaseException:
            connection.close()
            raise
        self._connection, self._owner, self._identity = connection, os.getpid(), identity_of(self.path)
        self._writer = threading.Thread(target=self._write, name="hivetenancy state", daemon=True)
        self._writer.start()
        if hub_id is not None:
            self.stamp(hub_id)
        with self._lock:
            if self._group.undated:  # on disk at once: after a kill the clock may have caught up, and nobody would know
                self._hurry(self._group)
                self._work.set()
        return knowledge

    def close(self, timeout: float = 5.0) -> bool:
        """Commit what is left, for at most *timeout* seconds, and let the file go; a second time changes nothing.

        Returns:
            Whether everything is on disk. Otherwise `last_error` says why, and whoever waited has been told.
        """
        writer = self._writer
        if writer is None:
            return self._last_error is None
        if self._owner != os.getpid():  # a forked child: the file, its lock and the thread are the parent's
            self._writer = self._connection = None
            return False
        with self._lock:  # the writer clears its events under it, and must not clear these
            self._closing = True
            self._urgent.set()
            self._work.set()
        writer.join(timeout)
        if writer.is_alive():
            self._note("the disk did not answer in time")
            for group in (self._committing, self._group):
                group.settle(self._unavailable())
        self._writer = self._connection = None
        return self._last_error is None

    def _learn(self, contents: Contents, hub_id: str | None) -> Knowledge:
        rows, facts = contents.rows, contents.rows[FACTS]
        stamped = from_key(facts[HUB_ID].body) if HUB_ID in facts else None
        if stamped is None and any(rows.values()):
            raise damaged(self.path, "its stamp is missing")
        if hub_id is not None and stamped is not None:
            check_hub(self.path, stamped, hub_id)
        self._reset(stamped)
        self._rows_at_most = {table: len(rows[table]) for table in self._most}
        try:
            self._learn_own(rows)
            announcement, place = read_announcement(facts), read_place(facts)
            limits = self._dated(rows[LIMITS], facts.get(WRITTEN))
        except (ValueError, LookupError, TypeError) as error:
            raise damaged(self.path, "it holds what this version cannot read") from error
        digests = rows[DIGESTS]
        return Knowledge(
            hub_id=stamped or hub_id,
            announcement=announcement,
            place=place,
            limits=limits,
            digests=tuple(sorted(digests, key=lambda key: -digests[key].at_us)),
            forgotten=contents.forgotten + len(rows[LIMITS]) - len(limits),
        )

    def _learn_own(self, rows: Mapping[str, Mapping[bytes, Row]]) -> None:
        self._pinned = {from_key(key): from_key(row.body) for key, row in rows[PINS].items()}
        self._absolutes = {read_cell(key): int(row.body) for key, row in rows[ABSOLUTES].items()}
        for key, row in sorted(rows[DELIVERIES].items(), key=lambda item: item[1].at_us):
            delivery = Delivery(id=from_key(key), first_sent_us=row.at_us, body=row.body)
            self._deliveries[delivery.id] = delivery, DONE

    def _dated(self, rows: Mapping[bytes, Row], written: Row | None) -> KeptTenants:
        """Date limits; if the clock is behind the last writing, they are as old as can be, now and ever after."""
        monotonic_us, now_us = self._clock.now()
        self._offset_us = now_us - monotonic_us
        self._written_us = now_us if written is None else int(written.body)
        undated = bool(rows) and (written is None or now_us < self._written_us - _STEP_US)
        self._group.undated = undated
        readable = ((key, row) for key, row in rows.items() if can_decode(row.body))
        return KeptTenants({TenantId(from_key(key)): (0 if undated else row.at_us, row.body) for key, row in readable})

    # --- what is known here alone ---

    @property
    def hub_id(self) -> str | None:
        """Which hub the file is of; ``None``: not known yet."""
        return self._hub_id

    def stamp(self, hub_id: str, *, formerly: str | None = None) -> None:
        """Say which hub the file is of.

        Args:
            hub_id: Its id.
            formerly: What it was called before it said its id; ``None``: nothing else.

        Raises:
            ConfigurationError: It is another one's; nothing changes.
            MisuseError: The store is not open.
        """
        with self._changing(stamped=False) as group:
            if not hub_id:
                raise ConfigurationError("hub_id must not be empty")
            if self._hub_id not in (None, hub_id, formerly):
                check_hub(self.path, self._hub_id, hub_id)
            if self._hub_id != hub_id:
                self._hub_id = hub_id
                group.set(FACTS, HUB_ID, Row(0, to_key(hub_id)))

    def put_announcement(self, announcement: KeptAnnouncement, *, formerly: str | None = None) -> None:
        """Keep what the hub announced, and stamp a new file with its id; *formerly* as for `stamp`.

        Raises:
            ConfigurationError: It is another hub than the file's; nothing is kept.
            MisuseError: The store is not open.
        """
        self.stamp(announcement.hub_id, formerly=formerly)
        body = [ROW_VERSION, announcement.hub_id, announcement.epoch, sorted(announcement.extensions)]
        with self._changing() as group:
            group.set(FACTS, ANNOUNCEMENT, Row(0, as_json(body)))

    def pin(self, name: str, strategy: str) -> Ticket:
        """Settle how the cell or dimension *name* is reported, for good.

        Returns:
            A ticket that is done when that is on disk. Report nothing before.

        Raises:
            ConfigurationError: Another strategy is pinned; it stays until an operator calls `unpin`.
            MisuseError: The store is not open, or of no hub yet.
        """
        with self._changing() as group:
            pinned = self._pinned.setdefault(name, strategy)
            if pinned != strategy:
                raise ConfigurationError(
                    f"usage of {name!r} is reported as {pinned!r}, says {str(self.path)!r}, and the settings say "
                    f"{strategy!r}. Totals would be counted twice or lost: set it to {pinned!r}, or settle with the "
                    "hub what was reported, and unpin it"
                )
            group.set(PINS, to_key(name), Row(0, to_key(strategy)))
            return self._hurry(group)

    def unpin(self, name: str) -> Ticket:
        """Forget the strategy of *name*: an operator's decision, never the program's. None pinned changes nothing."""
        with self._changing() as group:
            self._pinned.pop(name, None)
            group.set(PINS, to_key(name), None)
            return self._hurry(group)

    def pinned(self) -> Mapping[str, str]:
        """Return a copy of the pinned strategies by name."""
        with self._lock:
            return dict(self._pinned)

    def put_absolute(self, tenant: TenantId, dimension: Dimension, resource: str | None, value: int) -> Ticket:
        """Keep the absolute total of a cell, in the place of an earlier one.

        Returns:
            A ticket that is done when it is on disk, at the next group commit; `flush` hurries that.

        Raises:
            ValueError: *value* is no whole number.
            StoreUnavailableError: `MAX_ABSOLUTES` other cells are kept.
            MisuseError: The store is not open, or of no hub yet.
        """
        if type(value) is not int:
            raise ValueError(f"an absolute total is a whole number, got {value!r}")
        cell = UsageCell(tenant, dimension, resource)
        with self._changing() as group:
            if cell not in self._absolutes and len(self._absolutes) >= MAX_ABSOLUTES:
                raise StoreUnavailableError(f"{str(self.path)!r} keeps totals of {MAX_ABSOLUTES} cells already")
            self._absolutes[cell] = value
            group.set(ABSOLUTES, as_json(cell), Row(0, b"%d" % value))
            return group

    def drop_absolute(self, tenant: TenantId, dimension: Dimension, resource: str | None) -> None:
        """Forget the total of a cell, as when its tenant was deleted; none changes nothing."""
        cell = UsageCell(tenant, dimension, resource)
        with self._changing() as group:
            self._absolutes.pop(cell, None)
            group.set(ABSOLUTES, as_json(cell), None)

    def absolutes(self) -> Mapping[UsageCell, int]:
        """Return a copy of all totals, those included that are not on disk yet."""
        with self._lock:
            return dict(self._absolutes)

    def put_delivery(self, id: str, first_sent_us: int, body: bytes) -> Ticket:  # noqa: A002 - what it is
        """Freeze a call that is about to be sent for the first time. It is committed at once.

        Args:
            id: Its idempotency key, or a name of the caller's.
            first_sent_us: Wall time of the sending, in microseconds.
            body: What will be sent, and sent again; no secret.

        Returns:
            A ticket. Send only when it is done: if it raises `StoreUnavailableError`, the delivery is not kept.

        Raises:
            StoreUnavailableError: The disk refuses at present, or `MAX_DELIVERIES` are in flight. Nothing is kept.
            ValueError: The id is taken by other bytes, the body is too long, or the time is none.
            MisuseError: The store is not open, or of no hub yet.
        """
        check_time("first_sent_us", first_sent_us)
        if len(body) > MAX_DELIVERY_BYTES:
            raise ValueError(f"a delivery has at most {MAX_DELIVERY_BYTES} bytes, got {len(body)}")
        delivery = Delivery(id=id, first_sent_us=first_sent_us, body=bytes(body))
        with self._changing() as group:
            if id in self._deliveries:
                kept, ticket = self._deliveries[id]
                if kept != delivery:
                    raise ValueError(f"delivery {id!r} is frozen with other bytes or another time")
                return ticket
            if self._last_error is not None:
                raise self._unavailable()
            if len(self._deliveries) >= MAX_DELIVERIES:
                raise StoreUnavailableError(f"{MAX_DELIVERIES} deliveries are in flight already")
            self._deliveries[id] = delivery, group
            group.set(DELIVERIES, to_key(id), Row(first_sent_us, delivery.body))
            return self._hurry(group)

    def drop_delivery(self, id: str) -> None:  # noqa: A002 - what it is
        """Forget a delivery whose outcome is known; none changes nothing.

        A crash within `COMMIT_SECONDS` may bring it back: it is then sent again, which its idempotency key absorbs. Of
        an increment, wait for `flush`.
        """
        with self._changing() as group:
            if self._deliveries.pop(id, None) is not None:
                group.set(DELIVERIES, to_key(id), None)

    def deliveries(self) -> tuple[Delivery, ...]:
        """Return all deliveries whose outcome is not known, in the order of their first sending."""
        with self._lock:
            kept = [delivery for delivery, _ in self._deliveries.values()]
        return tuple(sorted(kept, key=lambda delivery: delivery.first_sent_us))

    # --- copies of what the hub knows ---

    def put_place(self, place: FeedPlace | None) -> None:
        """Keep how far the feed was followed; ``None``: begin anew."""
        row = None if place is None else Row(0, as_json([ROW_VERSION, place.epoch, place.cursor, place.revision]))
        with self._changing() as group:
            group.set(FACTS, PLACE, row)

    def put_limits(self, tenant: TenantId, kept: KeptLimits) -> None:
        """Keep the limits of *tenant*, in the place of earlier ones.

        Raises:
            ValueError: They are another tenant's.
            MisuseError: The store is not open, or of no hub yet.
        """
        if kept.limits.tenant_id != tenant:
            raise ValueError(f"these are the limits of {kept.limits.tenant_id!r}, not of {tenant!r}")
        with self._changing() as group:
            group.set(LIMITS, to_key(tenant), kept, self._most[LIMITS])

    def drop_limits(self, tenant: TenantId) -> None:
        """Forget the limits of *tenant*; none changes nothing."""
        with self._changing() as group:
            group.set(LIMITS, to_key(tenant), None, self._most[LIMITS])

    def put_digests(self, digests: Iterable[bytes]) -> None:
        """Keep the digests of keys that were seen now; the keys themselves and what they may do are kept nowhere.

        Raises:
            ValueError: One is not 32 bytes long; none is kept.
            MisuseError: The store is not open, or of no hub yet.
        """
        seen = Row(self._clock.now()[1], b"")
        self._set_digests(digests, seen)

    def drop_digests(self, digests: Iterable[bytes]) -> None:
        """Forget *digests*; otherwise as `put_digests`."""
        self._set_digests(digests, None)

    def _set_digests(self, digests: Iterable[bytes], row: Row | None) -> None:
        keys = [bytes(digest) for digest in digests]
        if any(len(key) != DIGEST_BYTES for key in keys):
            raise ValueError(f"a digest has {DIGEST_BYTES} bytes")  # and says no more: it might be a key
        with self._changing() as group:
            for key in keys:
                group.set(DIGESTS, key, row, self._most[DIGESTS])

    # --- durability ---

    @property
    def last_error(self) -> str | None:
        """Why the disk refused the last time; ``None``: it did not."""
        return self._last_error

    @property
    def failures(self) -> int:
        """How often a commit failed since `open`."""
        return self._failures

    async def flush(self) -> None:
        """Have everything that was put before on disk.

        Raises:
            StoreUnavailableError: The disk refuses. What was put is kept in memory and tried again, but for deliveries.
            MisuseError: The store is not open.
        """
        with self._changing(stamped=False) as group:
            ticket = self._hurry(group)
        await ticket

    def _hurry(self, group: Group) -> Ticket:
        self._urgent.set()
        return group

    @contextlib.contextmanager
    def _changing(self, *, stamped: bool = True) -> Generator[Group, None, None]:
        """Give the group that changes go to."""
        with self._lock:
            if self._writer is None or self._closing:
                raise MisuseError(f"the state file {self.path} is not open: call open() first")
            if self._owner != os.getpid():
                raise MisuseError(f"the state file {self.path} was opened before a fork: open it in the child")
            if stamped and self._hub_id is None:
                raise MisuseError("it is not known yet which hub this is: call stamp() or put_announcement() first")
            yield self._group
            self._work.set()

    # --- the writer's thread ---

    def _write(self) -> None:
        connection, ending, again = self._connection, False, 0
        assert connection is not None
        try:
            while not ending:
                self._work.wait()
                if not self._urgent.is_set():
                    self._pause(self._urgent, min(COMMIT_SECONDS * 2**again, _RETRY_SECONDS))
                with self._lock:
                    ending = self._closing
                    group = self._committing = self._group
                    self._group = Group()
                    self._work.clear()
                    self._urgent.clear()
                again = 0 if self._committed(connection, group) else min(again + 1, 10)
        finally:
            with contextlib.suppress(sqlite3.Error):  # a checkpoint that fails leaves the log, which is read again
                connection.close()

    def _committed(self, connection: sqlite3.Connection, group: Group) -> bool:
        try:
            if group:
                self._commit(connection, group)
        except Exception as error:  # noqa: BLE001 - the thread must live, and those who wait must hear of it
            self._give_back(group, f"{type(error).__name__}: {error}")
            group.settle(self._unavailable())
            return False
        if self._last_error is not None and group:
            _log.warning("the state file %s takes changes again", self.path)
            self._last_error = None
        group.settle(None)
        return True

    def _give_back(self, group: Group, why: str) -> None:
        self._note(why)
        with self._lock:
            later = self._group.changes[DELIVERIES]
            for key in group.changes[DELIVERIES]:
                if key not in later:
                    self._deliveries.pop(from_key(key), None)
            self._group.take_over(group, self._most)
            self._work.set()

    def _note(self, why: str) -> None:
        self._failures += 1
        if self._last_error is None:
            _log.error("the state file %s takes no changes (%s); serving goes on from memory", self.path, why)
        self._last_error = why

    def _unavailable(self) -> StoreUnavailableError:
        return StoreUnavailableError(f"the state file {str(self.path)!r} takes no changes: {self._last_error}")

    def _commit(self, connection: sqlite3.Connection, group: Group) -> None:
        check_there(self.path, self._identity)
        now = self._clock.now()
        offset = now[1] - now[0]
        set_back = offset < self._offset_us - _STEP_US
        undated = group.undated or set_back
        written = now[1] if undated else max(self._written_us, now[1])
        connection.execute("BEGIN IMMEDIATE")
        try:
            for table in TABLES:
                if table in group.wipe:
                    connection.execute(f"DELETE FROM {table}")
                write_rows(connection, table, group.changes[table], now[1])
                self._trim(connection, table, len(group.changes[table]))
            if undated:
                connection.execute("UPDATE limits SET at_us = 0, crc = crc(key, 0, body)")
            write_rows(connection, FACTS, {WRITTEN: Row(0, b"%d" % written)}, now[1])
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        self._offset_us, self._written_us = offset, written

    def _trim(self, connection: sqlite3.Connection, table: str, changed: int) -> None:
        """Keep a table within its bound. Counting is dear, so it is done when it might be over."""
        most = self._most.get(table)
        if most is None:
            return
        self._rows_at_most[table] += changed
        if self._rows_at_most[table] <= most:
            return
        (count,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
        if count > most:
            keep = most - most // 16  # some more than needed, so that it is not due again at once
            oldest = f"SELECT key FROM {table} ORDER BY at_us LIMIT ?"
            connection.execute(f"DELETE FROM {table} WHERE key IN ({oldest})", (count - keep,))
            count = keep
        self._rows_at_most[table] = count

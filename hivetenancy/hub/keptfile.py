"""The SQLite file that a node's knowledge lies in: made, judged, locked, read and changed.

Damage is judged by kind. Limits, digests and the feed's place are *copies* of what the hub knows: a damaged row is
forgotten, and the tenant or key is merely unknown again. The stamp, the announcement, pinned strategies, absolute
totals and frozen deliveries are known *here alone*: if one of them is damaged the file is refused, because guessing
would bill somebody wrongly. SQLite keeps no checksum of its pages, so each row carries one.

The file belongs to one process. SQLite's own exclusive lock says so, and nothing beside the file: it is a POSIX record
lock, which the kernel drops with its process and which a forked child does not inherit. For that reason nothing here
opens and closes an existing file on the side: closing any descriptor of it would drop the lock.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import zlib
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

from hivetenancy.errors import ConfigurationError
from hivetenancy.files import damaged, open_database, refused
from hivetenancy.ids import TenantId

from .kept import ROW_VERSION, FeedPlace, KeptAnnouncement, KeptLimits, UsageCell, encode_limits

_log: Final = logging.getLogger("hivetenancy")

APPLICATION_ID: Final = 0x48764B6E
"""``HvKn`` in the file's header: what tells our file from anybody else's SQLite file."""

SCHEMA_VERSION: Final = 1
"""Of the tables. A file of a later version is refused, never rewritten."""

LIMITS, DIGESTS, FACTS, PINS, ABSOLUTES, DELIVERIES = TABLES = (
    "limits",
    "digests",
    "facts",
    "pins",
    "absolutes",
    "deliveries",
)
HUB_ID, ANNOUNCEMENT, PLACE, WRITTEN = b"hub_id", b"announcement", b"place", b"written"
"""The rows of ``facts``; *written* is the latest wall time at which the file was written."""

_COPIES: Final = frozenset({(LIMITS, None), (DIGESTS, None), (FACTS, PLACE), (FACTS, WRITTEN)})


class Row(NamedTuple):
    """What stands under a key: a time, where it has one (otherwise 0), and the text or bytes."""

    at_us: int
    body: bytes


Change: TypeAlias = "Row | KeptLimits | None"
"""A row to write, limits to be written down by the writer's thread, or ``None``: remove it."""


def checksum(key: bytes, at_us: int, body: bytes) -> int:
    """Return the checksum of a row, its key included."""
    return zlib.crc32(body, zlib.crc32(b"%d:%d:" % (len(key), at_us), zlib.crc32(key)))


def to_key(value: str) -> bytes:
    """Return *value* as a key; every string has one."""
    return value.encode("utf-8", "surrogatepass")  # a name that cannot be encoded must not fail a whole group


def from_key(value: bytes) -> str:
    """Return what `to_key` was given."""
    return value.decode("utf-8", "surrogatepass")


def write_rows(connection: sqlite3.Connection, table: str, changes: Mapping[bytes, Change], now_us: int) -> None:
    """Apply *changes* to a table within a transaction; limits asked for after *now_us* are dated as unknown."""

    def rows() -> Generator[tuple[bytes, int, bytes, int], None, None]:
        for key, change in changes.items():
            if isinstance(change, KeptLimits):  # of a time to come: asked before the clock was set back
                sent_us = change.sent_us if change.sent_us <= now_us else 0
                change = Row(sent_us, encode_limits(change))
            if change is not None:
                yield key, change.at_us, change.body, checksum(key, *change)

    connection.executemany(f"INSERT OR REPLACE INTO {table} (key, at_us, body, crc) VALUES (?, ?, ?, ?)", rows())
    gone = [(key,) for key, change in changes.items() if change is None]
    connection.executemany(f"DELETE FROM {table} WHERE key = ?", gone)


class Contents(NamedTuple):
    """All rows by table and key, and how many were passed over because they are damaged."""

    rows: dict[str, dict[bytes, Row]]
    forgotten: int


def open_file(path: Path) -> tuple[sqlite3.Connection, Contents]:
    """Open, lock and read the file, made if there is none. Until it is known to be ours nothing in it is changed.

    Raises:
        ConfigurationError: It is refused; the message names it and the remedy.
    """
    connection = open_database(
        path,
        what="a state file of hivetenancy",
        application_id=APPLICATION_ID,
        schema_version=SCHEMA_VERSION,
        make_tables=_make_tables,
    )
    try:
        connection.create_function("crc", 3, checksum, deterministic=True)
        return connection, _read(connection, path)
    except sqlite3.Error as error:
        connection.close()
        raise refused(path, error) from error
    except UnicodeError as error:  # sqlite3 cannot even say what is wrong with a schema whose names are damaged
        connection.close()
        raise damaged(path, "its schema cannot be read") from error
    except BaseException:
        connection.close()
        raise


def _make_tables(connection: sqlite3.Connection) -> None:
    for table in TABLES:
        connection.execute(
            f"CREATE TABLE {table} (key BLOB PRIMARY KEY NOT NULL, at_us INTEGER NOT NULL, body BLOB NOT NULL, "
            "crc INTEGER NOT NULL)" + ("" if table in (LIMITS, DELIVERIES) else " WITHOUT ROWID")
        )  # rows as large as those two are slow to find in a table without row ids


def _read(connection: sqlite3.Connection, path: Path) -> Contents:
    contents: dict[str, dict[bytes, Row]] = {table: {} for table in TABLES}
    forgotten = 0
    for table, rows in contents.items():
        for key, at_us, body, crc in connection.execute(f"SELECT key, at_us, body, crc FROM {table}"):
            if type(key) is bytes and type(body) is bytes and type(at_us) is int and checksum(key, at_us, body) == crc:
                rows[key] = Row(at_us, body)
            elif (table, key if table == FACTS else None) in _COPIES:
                forgotten += 1
            else:
                raise damaged(path, f"a row of {table} does not match its checksum")
    if forgotten:
        _log.warning("%d damaged rows of the state file %s count as never kept", forgotten, path)
    return Contents(contents, forgotten)


def read_announcement(facts: Mapping[bytes, Row]) -> KeptAnnouncement | None:
    """Return the announcement that is kept, if any."""
    row = facts.get(ANNOUNCEMENT)
    if row is None:
        return None
    version, hub_id, epoch, extensions = json.loads(row.body)
    if version != ROW_VERSION:
        raise ValueError(version)
    return KeptAnnouncement(hub_id=hub_id, epoch=epoch, extensions=frozenset(extensions))


def read_place(facts: Mapping[bytes, Row]) -> FeedPlace | None:
    """Return the feed's place that is kept, if any."""
    row = facts.get(PLACE)
    if row is None:
        return None
    version, epoch, cursor, revision = json.loads(row.body)
    if version != ROW_VERSION:
        return None  # begin anew: everything is verified again
    return FeedPlace(epoch=epoch, cursor=cursor, revision=revision)


def read_cell(key: bytes) -> UsageCell:
    """Return the cell that a total is kept for."""
    tenant, dimension, resource = json.loads(key)
    return UsageCell(TenantId(tenant), dimension, resource)


def check_hub(path: Path, stamped: str, hub_id: str) -> None:
    """Refuse another hub than the one that the file is stamped with."""
    if stamped != hub_id:
        raise ConfigurationError(
            f"the state file {str(path)!r} is of the hub {stamped!r}, and this is {hub_id!r}. Check the hub's URL; if "
            "the hub was really replaced, settle what is unreported and name another state file"
        )


Identity: TypeAlias = tuple[int, int]
"""Device and number of a file, which stay its own whatever it is called."""


def identity_of(path: Path) -> Identity | None:
    """Return which file lies at *path*; ``None``: none."""
    try:
        status = path.lstat()  # not opened: closing any descriptor of it would drop the lock
    except OSError:
        return None
    return status.st_dev, status.st_ino


def check_there(path: Path, identity: Identity | None) -> None:
    """See that the file still lies where it was opened: SQLite goes on writing to one that nobody will find again.

    Raises:
        OSError: It was removed, or another one lies in its place.
    """
    found = identity_of(path)
    if os.name == "posix" and found != identity:
        raise OSError("it was removed while it was used" if found is None else "another file was put in its place")

"""Files that this library keeps: one SQLite database each, of one process and one user, told from anybody else's.

The lock is SQLite's own exclusive one: a POSIX record lock, which the kernel drops with its process and which a forked
child does not inherit. For that reason nothing here opens and closes an existing file on the side: closing any
descriptor of it would drop the lock.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

from hivetenancy.errors import ConfigurationError

_PRAGMAS: Final = ("trusted_schema=OFF", "cell_size_check=ON", "locking_mode=EXCLUSIVE")


def checked_path(path: str | os.PathLike[str]) -> Path:
    """Return *path* as an absolute one, without a look at the disk.

    Raises:
        ConfigurationError: It is no path of a file.
    """
    try:
        text = os.fsdecode(path)
    except TypeError:
        text = ""
    if not text or "\0" in text or text.startswith((":memory:", "file:")):
        raise ConfigurationError(f"the state file must be the path of a file, got {path!r}")
    return Path(os.path.abspath(text))


def open_database(
    path: Path,
    *,
    what: str,
    application_id: int,
    schema_version: int,
    make_tables: Callable[[sqlite3.Connection], None],
) -> sqlite3.Connection:
    """Open and lock a database, made if there is none. Until it is known to be ours nothing in it is changed.

    Args:
        path: Where it is; nobody but this user may reach it.
        what: What it is, for messages.
        application_id: What tells it from anybody else's SQLite file.
        schema_version: Of its tables.
        make_tables: Fills a new one, within a transaction.

    Raises:
        ConfigurationError: It is refused; the message names it and the remedy.
    """
    _prepare(path)
    connection: sqlite3.Connection | None = None
    try:
        connection = sqlite3.connect(
            path.as_uri() + "?mode=rw", uri=True, timeout=0, isolation_level=None, check_same_thread=False
        )
        for pragma in _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
        connection.execute("BEGIN EXCLUSIVE")  # the lock stays when this ends: that is the locking mode
        fresh = _is_fresh(connection, path, what, application_id, schema_version)
        connection.execute("COMMIT")
        if connection.execute("PRAGMA journal_mode=WAL").fetchone()[0] != "wal":
            raise ConfigurationError(f"the file system of {str(path)!r} cannot hold a state file: name a local disk")
        connection.execute("PRAGMA synchronous=FULL")  # what is acknowledged survives a power failure, too
        if fresh:
            connection.execute("BEGIN IMMEDIATE")
            make_tables(connection)
            connection.execute(f"PRAGMA application_id={application_id}")
            connection.execute(f"PRAGMA user_version={schema_version}")
            connection.execute("COMMIT")
        return connection
    except sqlite3.Error as error:
        if connection is not None:
            connection.close()
        raise refused(path, error) from error
    except UnicodeError as error:  # sqlite3 cannot even say what is wrong with a schema whose names are damaged
        if connection is not None:
            connection.close()
        raise damaged(path, "its schema cannot be read") from error
    except BaseException:
        if connection is not None:
            connection.close()
        raise


def _is_fresh(connection: sqlite3.Connection, path: Path, what: str, application_id: int, version: int) -> bool:
    """Tell a new file from one of ours; refuse any other."""
    (found,) = connection.execute("PRAGMA application_id").fetchone()
    (schema,) = connection.execute("PRAGMA user_version").fetchone()
    (things,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if found == schema == things == 0:
        return True
    if found != application_id:
        raise ConfigurationError(
            f"{str(path)!r} is a database, but not {what}; it was left as it is. Name another path"
        )
    if schema > version:
        raise ConfigurationError(
            f"the state file {str(path)!r} was written by a later version of hivetenancy (schema {schema}, this one "
            f"knows {version}); it was left as it is. Upgrade, or name another path"
        )
    if schema < version:
        raise damaged(path, f"its schema is {schema}, which never was")
    if connection.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
        raise damaged(path, "its pages do not fit together")
    return False


def _prepare(path: Path) -> None:
    """Make the file if there is none, or see that it is one of ours alone."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o600)
    except FileExistsError:
        pass
    except FileNotFoundError:
        raise ConfigurationError(f"the folder of the state file {str(path)!r} does not exist: create it") from None
    except OSError as error:
        raise ConfigurationError(f"the state file {str(path)!r} cannot be made: {error.strerror}") from error
    else:
        with contextlib.closing(os.fdopen(descriptor)):
            if os.name == "posix":
                os.fchmod(descriptor, 0o600)  # whatever the umask took away
    size = _judge(path)
    log = path.with_name(path.name + "-wal")
    if os.path.lexists(log) and _judge(log) and not size:  # SQLite would throw the log away
        raise damaged(path, f"it is empty, and its changes lie in {log.name}")


def _judge(path: Path) -> int:
    """Return the size of a file that nobody else can read or write."""
    try:
        status = path.lstat()
    except OSError as error:
        raise ConfigurationError(f"the state file {str(path)!r} cannot be looked at: {error.strerror}") from error
    if not stat.S_ISREG(status.st_mode):
        kind = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "no file"
        raise ConfigurationError(f"the state file {str(path)!r} is {kind}: name a file, or a path where none is yet")
    if os.name == "posix":
        if status.st_uid != os.geteuid():
            raise ConfigurationError(f"the state file {str(path)!r} belongs to another user: chown it, or name another")
        if status.st_mode & 0o077:
            mode = stat.S_IMODE(status.st_mode)
            raise ConfigurationError(
                f"the state file {str(path)!r} has mode {mode:04o}, so others may reach it: chmod 600 {path}"
            )
    return status.st_size


def damaged(path: Path, how: str) -> ConfigurationError:
    """Return the error for a file of ours that cannot be trusted."""
    return ConfigurationError(
        f"the state file {str(path)!r} is damaged: {how}. It was left as it is: restore it with its -wal file from a "
        "backup, or move both aside, which forgets what was not reported yet, and start with none"
    )


def refused(path: Path, error: sqlite3.Error) -> ConfigurationError:
    """Return the error for a file that SQLite refuses, with the remedy."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF  # the rest tells more than is needed
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return ConfigurationError(
            f"the state file {str(path)!r} is in use already: give each process a file of its own, or end the other"
        )
    if code == sqlite3.SQLITE_NOTADB:
        return ConfigurationError(
            f"{str(path)!r} is no state file, or its header is damaged; it was left as it is. Name another path, or "
            "restore it from a backup"
        )
    if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_FULL):
        return ConfigurationError(
            f"the state file {str(path)!r} cannot be written ({error}): make it, its folder and its disk writable"
        )
    if code == sqlite3.SQLITE_IOERR:
        return ConfigurationError(f"the disk of the state file {str(path)!r} fails ({error}): see to it")
    return damaged(path, str(error))

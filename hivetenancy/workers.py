"""Noticing a second worker process of the same application.

Engines in memory do not know of each other: N workers would admit N times every limit. No variable of the environment
tells how many workers a launcher starts (uvicorn, gunicorn and granian set none in theirs), so the first process of an
application takes an exclusive lock of the operating system, named after the application and its parent process, and the
next child of the same parent finds it taken. The lock goes with the process, however it ends.

No package serves: process-wide lock packages lock a path that the user must choose, and know no siblings.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import tempfile
from pathlib import Path
from typing import IO, Final, NamedTuple

from hivetenancy.errors import ConfigurationError

if sys.platform == "win32":  # where no launcher forks, and the lock is the byte range below
    import msvcrt
else:
    import fcntl


class _Lock(NamedTuple):
    path: Path
    handle: IO[bytes]


_held: dict[str, tuple[_Lock, int]] = {}
"""Locks of this process, with how many tenancies share each: a second handle of one process would lock itself out."""

REMEDY: Final = (
    "a second process of this application started, and engines in memory would admit every limit once per process. "
    "Run one worker, or pass allow_workers=True if every worker may admit the full limits"
)


def lock_name() -> str:
    """Return the name that all workers of this application under one parent share, and nobody else."""
    parts = [
        str(os.getppid()),
        str(getattr(os, "getuid", int)()),
        os.getcwd(),
        *sys.argv,
        # Parallel test processes are children of one parent too, and each has a world of its own.
        os.environ.get("PYTEST_XDIST_WORKER", ""),
    ]
    return "hivetenancy-" + hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def claim(name: str) -> None:
    """Take the lock called *name* for this process, or one more share of it.

    Raises:
        ConfigurationError: Another process holds it; the message says what to do.
    """
    if name in _held:
        lock, shares = _held[name]
        _held[name] = lock, shares + 1
        return
    _held[name] = _locked(Path(tempfile.gettempdir()) / f"{name}.lock"), 1


def give_up(name: str) -> None:
    """Give one share of the lock back; the last one frees it."""
    lock, shares = _held.pop(name)
    if shares > 1:
        _held[name] = lock, shares - 1
        return
    with contextlib.suppress(OSError):
        lock.path.unlink()
    lock.handle.close()


def _locked(path: Path) -> _Lock:
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
        except OSError as error:
            raise ConfigurationError(
                f"the lock {str(path)!r}, which a second worker is noticed by, cannot be opened ({error.strerror}); "
                "remove it, or set TMPDIR to a directory of your own"
            ) from error
        handle = os.fdopen(descriptor, "r+b")
        try:
            _lock(handle)
            if path.stat().st_ino == os.fstat(descriptor).st_ino:
                return _Lock(path, handle)
        except FileNotFoundError:  # its last holder removed it between our opening and our locking it
            pass
        except OSError:
            handle.close()
            raise ConfigurationError(REMEDY) from None
        handle.close()


def _lock(handle: IO[bytes]) -> None:
    if sys.platform == "win32":  # pragma: no cover
        msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)

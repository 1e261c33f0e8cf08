"""Files of one tenant, opened so that nothing leads out of the tenant's directory.

Two things keep a tenant in. Names become components that mean nothing to a file system
(`hivetenancy.namespaces.paths`). And no path is ever resolved as a whole: each directory on the way is opened from the
one before, without following a link, and so is the file. So a link that somebody planted inside is refused, and it does
not matter when it was planted: there is no moment between a check and an opening, since the opening is the check.

Where a system has no such calls (Windows), each step is checked by its resolved path instead, and the file again after
it was opened. That finds every link that is there, and most but not all that appear in between; nobody but the server
should be able to write below the root there.

A directory is stamped: ``tenant.json`` says whose it is, in which life of the tenant, and under which profile. It is
read before each operation. What an earlier tenant of that name left is not there for a later one, and cannot be taken
over; a directory without a stamp that is not empty belongs to nobody.

All calls block. In asyncio, use ``asyncio.to_thread``.

Source: isolation note, 6.4; attacks A4, A5, A35, A36, A38 and A42.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, cast

from hivetenancy.decision import Reason, Refusal
from hivetenancy.errors import ConfigurationError, DeniedError, InvalidNameError, MisuseError
from hivetenancy.hooks import IsolationKind, IsolationSink, report_isolation
from hivetenancy.ids import STANDALONE, TenantId

from .paths import component_name, is_component
from .protocol import FileScope

STAMP: Final = "tenant.json"
"""What stands in each tenant's directory. No name becomes it: components begin with ``n.`` or ``h.``."""
_STAMP_BYTES_MAX: Final = 4096

WALKS: Final = {os.open, os.mkdir, os.stat, os.unlink, os.rmdir, os.rename} <= os.supports_dir_fd and (
    os.scandir in os.supports_fd and shutil.rmtree.avoids_symlink_attacks and hasattr(os, "O_NOFOLLOW")
)
"""Whether this system can open a directory from another one, without following links."""

_CLOEXEC: Final = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_NOFOLLOW: Final = getattr(os, "O_NOFOLLOW", 0)
# A pipe that somebody planted would block whoever opens it, until somebody writes.
_NONBLOCK: Final = getattr(os, "O_NONBLOCK", 0)
_DIRECTORY: Final = getattr(os, "O_DIRECTORY", 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """One line of a listing.

    Attributes:
        name: The tenant's name for it; ``None`` where it was too long to stand in a path.
        component: The part of the path.
        directory: Whether it is a directory.
        size_bytes: Its size; 0 for a directory.
    """

    name: str | None
    component: str
    directory: bool
    size_bytes: int


class _EscapeError(Exception):
    """Something on the way is not what it should be: a link, a pipe, a directory that is elsewhere."""


class _Place:
    """An open directory: by its descriptor where the system walks, else by its path."""

    __slots__ = ("fd", "path")

    def __init__(self, fd: int | None, path: str) -> None:
        self.fd, self.path = fd, path

    def at(self, part: str) -> str:
        """Return what to call the entry *part* in a system call."""
        return part if self.fd is not None else os.path.join(self.path, part)

    def enter(self, part: str) -> _Place:
        """Return the directory *part* in this one; the caller closes it."""
        if self.fd is None:
            path = self.at(part)
            _prove(path, os.lstat(path), directory=True)
            return _Place(None, path)
        try:
            flags = os.O_RDONLY | _DIRECTORY | _NOFOLLOW | _CLOEXEC
            return _Place(os.open(part, flags, dir_fd=self.fd), self.at(part))
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR) and stat.S_ISLNK(self.look(part).st_mode):
                raise _EscapeError from None
            raise

    def open(self, part: str, flags: int) -> int:
        """Return a descriptor of the regular file *part* in this directory."""
        try:
            fd = os.open(self.at(part), flags | _NOFOLLOW | _NONBLOCK | _CLOEXEC, 0o600, dir_fd=self.fd)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO):
                raise _EscapeError from None
            raise
        try:
            found = os.fstat(fd)
            if stat.S_ISDIR(found.st_mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            if not stat.S_ISREG(found.st_mode):
                raise _EscapeError
            if self.fd is None:
                _prove(self.at(part), found, directory=False)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def make(self, part: str) -> bool:
        """Make the directory *part*, for this user alone; return whether it was not there."""
        try:
            os.mkdir(self.at(part), 0o700, dir_fd=self.fd)
        except FileExistsError:
            return False
        return True

    def look(self, part: str) -> os.stat_result:
        """Return what the entry *part* itself is, link or not."""
        return os.stat(self.at(part), dir_fd=self.fd, follow_symlinks=False)

    def names(self) -> list[str]:
        """Return all that is in this directory."""
        return sorted(os.listdir(self.path if self.fd is None else self.fd))

    def remove(self, part: str) -> None:
        """Remove the file or empty directory *part*; a link itself, never what it leads to."""
        if stat.S_ISDIR(self.look(part).st_mode):
            os.rmdir(self.at(part), dir_fd=self.fd)
        else:
            os.unlink(self.at(part), dir_fd=self.fd)

    def remove_tree(self, part: str) -> None:
        """Remove *part* and what is below it, following no link."""
        if stat.S_ISDIR(self.look(part).st_mode):
            shutil.rmtree(self.at(part), dir_fd=self.fd)
        else:
            os.unlink(self.at(part), dir_fd=self.fd)

    def rename(self, part: str, to: str) -> None:
        """Call *part* *to*, in place of what was called so."""
        os.replace(self.at(part), self.at(to), src_dir_fd=self.fd, dst_dir_fd=self.fd)

    def close(self) -> None:
        """Give the descriptor back."""
        if self.fd is not None:
            os.close(self.fd)


def _prove(path: str, seen: os.stat_result, *, directory: bool) -> None:
    """Raise unless *path* is the very thing that was *seen*, and no link leads to it."""
    now = os.lstat(path)
    if stat.S_ISLNK(now.st_mode) or os.path.realpath(path) != path or not os.path.samestat(seen, now):
        raise _EscapeError
    if directory and not stat.S_ISDIR(now.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))


class TenantFiles:
    """A directory tree that several tenants share without meeting.

    Args:
        root: An existing directory, which only the server should be able to write in. It may be reached by a link; what
            is below it may not.
        profile: Name of the profile of names, for the stamps.
        sink: Told of what tried to lead out; see `hivetenancy.hooks.LimitedIsolation`.
        walk: Whether to open each directory from the one before. ``None``: where the system can.

    Raises:
        ConfigurationError: *root* is no directory, or the system cannot *walk*.

    Concurrency:
        Any number of threads and processes; nothing is kept open between calls.
    """

    __slots__ = ("_profile", "_root", "_sink", "_walk")

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        profile: str = "default",
        sink: IsolationSink | None = None,
        walk: bool | None = None,
    ) -> None:
        if walk and not WALKS:
            raise ConfigurationError("this system cannot open a directory from another one; leave out walk")
        self._root = os.path.realpath(root)
        if not os.path.isdir(self._root):
            raise ConfigurationError("the root of the tenants' files is no directory; make it first")
        self._profile, self._sink, self._walk = profile, sink, WALKS if walk is None else walk

    def directory(self, scope: FileScope, *, tenant: TenantId = STANDALONE, generation: int = 0) -> TenantDirectory:
        """Return the directory of one tenant; nothing is read or made yet.

        Args:
            scope: ``names.files`` of the tenant.
            tenant: For the audit.
            generation: Which life of the tenant. One that was deleted and made anew has another number.
        """
        return TenantDirectory(self, scope, tenant, generation)

    @contextmanager
    def _open_root(self) -> Iterator[_Place]:
        place = _Place(os.open(self._root, os.O_RDONLY | _DIRECTORY | _CLOEXEC) if self._walk else None, self._root)
        try:
            yield place
        finally:
            place.close()


class TenantDirectory:
    """The files of one tenant in one of its lives; made by `TenantFiles.directory`.

    Each method takes the tenant's own names, one text a level, and raises

    - ``NotFoundError`` where there is no such file, the tenant's directory was never made, or is of another life of the
      tenant: never told apart;
    - ``InvalidNameError`` for a name as `FileScope.path`, and where a link or the like stands in the way (reported as
      ``path_escape``; nothing was opened, written or removed);
    - what the system raises otherwise (``FileExistsError``, ``IsADirectoryError``, no space), naming the tenant's names
      and no physical path.
    """

    __slots__ = ("_files", "_generation", "_scope", "_tenant")

    def __init__(self, files: TenantFiles, scope: FileScope, tenant: TenantId, generation: int) -> None:
        self._files, self._scope, self._tenant, self._generation = files, scope, tenant, generation

    def provision(self) -> None:
        """Make and stamp the tenant's directory; do nothing where that is done already.

        Raises:
            MisuseError: It holds something without a stamp, or is stamped for another life, tenant or profile. Purge it
                first; nobody takes over what is there.
        """
        with (
            self._translated("provision", ()),
            self._files._open_root() as root,
            _descend(root, self._home(), make=True) as home,
        ):
            if STAMP not in home.names():
                self._stamp(home)
            if _read_stamp(home) != self._expected():
                raise MisuseError(
                    "the tenant's directory is stamped for another life, tenant or profile; purge it first"
                )

    def create(self, *parts: str) -> BinaryIO:
        """Create the file *parts* and open it for writing; directories on the way are made.

        It is readable and writable for the server's user alone (0600, directories 0700), and never one that exists.
        """
        return self._file("create", parts, os.O_RDWR | os.O_CREAT | os.O_EXCL, "w+b", make=True)

    def open(self, *parts: str, write: bool = False) -> BinaryIO:
        """Open the file *parts*, from its beginning.

        Args:
            parts: The tenant's names.
            write: Whether for reading and writing; nothing is cut off.
        """
        return self._file("open", parts, os.O_RDWR if write else os.O_RDONLY, "r+b" if write else "rb", make=False)

    def make_directory(self, *parts: str) -> None:
        """Make the directory *parts*, and those on the way; do nothing where it is there."""
        with self._at("make_directory", parts, whole=True, make=True):
            pass

    def entries(self, *parts: str) -> list[FileEntry]:
        """Return what is in the directory *parts*, by component; without parts, in the tenant's own.

        What this library did not make is left out: the stamp, and whatever somebody else put there.
        """
        with self._at("entries", parts, whole=True) as place:
            return [_entry(place, each) for each in place.names() if is_component(each)]

    def remove(self, *parts: str) -> None:
        """Remove the file or the empty directory *parts*."""
        with self._at("remove", parts) as place:
            last = self._components(parts)[-1]
            if stat.S_ISLNK(place.look(last).st_mode):
                raise _EscapeError
            place.remove(last)

    def exists(self, *parts: str) -> bool:
        """Whether there is a file or directory *parts*; what is no file, such as a link, is refused."""
        try:
            with self._at("exists", parts) as place:
                mode = place.look(self._components(parts)[-1]).st_mode
                if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                    raise _EscapeError
        except (DeniedError, NotADirectoryError):
            return False
        return True

    def resolve(self, *parts: str) -> Path:
        """Return the absolute path of *parts*, for libraries that open files themselves; it need not exist.

        It has been proven, now, that no link is on the way and that the resolved path lies in the tenant's directory.
        What happens to the directory between this and the opening is not seen. Where others may write, use `open`.
        """
        with self._at("resolve", parts) as place:
            last = self._components(parts)[-1]
            home = os.path.join(self._files._root, *self._home())
            path = os.path.join(home, *self._components(parts))
            with suppress(FileNotFoundError):
                if stat.S_ISLNK(place.look(last).st_mode):
                    raise _EscapeError
            if os.path.realpath(path) != path or os.path.commonpath([home, path]) != home:
                raise _EscapeError
            return Path(path)

    def count(self) -> int:
        """Return how many entries there are below the tenant's directory, of whatever life, without the stamp.

        0 where there is no directory: what a proof of emptiness asks. Links count, and are not followed.
        """
        with self._translated("count", ()), ExitStack() as stack:
            root = stack.enter_context(self._files._open_root())
            try:
                home = stack.enter_context(_descend(root, self._home()))
            except FileNotFoundError:
                return 0
            return sum(_count(home, each) for each in self._mine(home))

    def purge(self) -> None:
        """Remove the tenant's directory with all that is in it, of whatever life; do nothing where there is none.

        The stamp goes last, so that after a crash half way what is left cannot be taken for a new tenant's. A link is
        removed and what it leads to is not touched. In standalone mode the root stays, and what is not ours in it.
        """
        way = self._home()
        with self._translated("purge", ()), self._files._open_root() as root, suppress(FileNotFoundError):
            with _descend(root, way) as home:
                for each in self._mine(home):
                    home.remove_tree(each)
                with suppress(FileNotFoundError):
                    home.remove(STAMP)
            if way:
                with _descend(root, way[:-1]) as parent:
                    parent.remove(way[-1])

    def _file(self, operation: str, parts: tuple[str, ...], flags: int, mode: str, *, make: bool) -> BinaryIO:
        with self._at(operation, parts, make=make) as place:
            return cast(BinaryIO, os.fdopen(place.open(self._components(parts)[-1], flags), mode))

    @contextmanager
    def _at(
        self, operation: str, parts: tuple[str, ...], *, whole: bool = False, make: bool = False
    ) -> Iterator[_Place]:
        """Open the directory of *parts*, or with *whole* the directory that they are themselves."""
        way = self._components(parts) if parts or not whole else []
        with (
            self._translated(operation, parts),
            self._files._open_root() as root,
            _descend(root, self._home()) as home,
        ):
            self._check(home, operation)
            with _descend(home, way if whole else way[:-1], make=make) as place:
                yield place

    @contextmanager
    def _translated(self, operation: str, parts: tuple[str, ...]) -> Iterator[None]:
        """Turn what the system raises into what a tenant may see: never a physical path."""
        try:
            yield
        except _EscapeError:
            self._report(IsolationKind.PATH_ESCAPE, operation, parts)
            raise InvalidNameError("something in the way leads out of the tenant's directory") from None
        except FileNotFoundError:
            raise DeniedError.of(Refusal(reason=Reason.NOT_FOUND, tenant=self._tenant)) from None
        except OSError as error:
            raise type(error)(error.errno, error.strerror, "/".join(parts)) from None

    def _report(self, kind: IsolationKind, operation: str, parts: tuple[str, ...]) -> None:
        subject = "/".join((self._scope.directory, *parts))
        report_isolation(self._files._sink, kind, tenant=self._tenant, operation=f"files.{operation}", subject=subject)

    def _home(self) -> list[str]:
        return self._scope.directory.split("/") if self._scope.directory else []

    def _components(self, parts: tuple[str, ...]) -> list[str]:
        """Return the components of *parts* below the tenant's directory."""
        return str(self._scope.path(*parts)).split("/")[len(self._home()) :]

    def _mine(self, home: _Place) -> list[str]:
        """Return what is the tenant's in *home*: all but the stamp; in standalone mode only what we made."""
        return [each for each in home.names() if each != STAMP and (self._scope.directory or is_component(each))]

    def _expected(self) -> bytes:
        token = self._scope.directory.rpartition("/")[2]
        stamp = {"format": 1, "generation": self._generation, "profile": self._files._profile, "token": token}
        return json.dumps(stamp, sort_keys=True).encode() + b"\n"

    def _check(self, home: _Place, operation: str) -> None:
        """Raise as if there were nothing, unless *home* is stamped for this tenant in this life."""
        found = _read_stamp(home)
        if found != self._expected():
            if found:
                self._report(IsolationKind.GENERATION_MISMATCH, operation, ())
            raise FileNotFoundError

    def _stamp(self, home: _Place) -> None:
        if any(not each.startswith(f".{STAMP}.") for each in self._mine(home)):
            return  # somebody's, but nobody knows whose: not taken over
        draft = f".{STAMP}.{secrets.token_hex(8)}"
        with os.fdopen(home.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as file:
            file.write(self._expected())
            file.flush()
            os.fsync(file.fileno())
        home.rename(draft, STAMP)
        if home.fd is not None:
            os.fsync(home.fd)


@contextmanager
def _descend(start: _Place, way: Sequence[str], *, make: bool = False) -> Iterator[_Place]:
    """Open the directories *way*, each from the one before; with *make*, make what is not there."""
    place = start
    try:
        for part in way:
            if make:
                place.make(part)
            inner = place.enter(part)
            if place is not start:
                place.close()
            place = inner
        yield place
    finally:
        if place is not start:
            place.close()


def _read_stamp(home: _Place) -> bytes:
    """Return the stamp, as far as a stamp goes; empty: there is none."""
    try:
        fd = home.open(STAMP, os.O_RDONLY)
    except FileNotFoundError:
        return b""
    with os.fdopen(fd, "rb") as file:
        return file.read(_STAMP_BYTES_MAX)


def _entry(place: _Place, part: str) -> FileEntry:
    found = place.look(part)
    directory = stat.S_ISDIR(found.st_mode)
    if not (directory or stat.S_ISREG(found.st_mode)):
        raise _EscapeError
    name = component_name(part) if part.startswith("n.") else None
    return FileEntry(name=name, component=part, directory=directory, size_bytes=0 if directory else found.st_size)


def _count(place: _Place, part: str) -> int:
    """Return the number of entries of which *part* is the first and the others are below it."""
    try:
        if not stat.S_ISDIR(place.look(part).st_mode):
            return 1
        with _descend(place, [part]) as inner:
            return 1 + sum(_count(inner, each) for each in inner.names())
    except FileNotFoundError:
        return 1  # it was there just now: whoever wants proof that nothing is left has none

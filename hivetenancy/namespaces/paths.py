r"""Paths of files and directories, from names that are any text at all: pure, injective, inert on every file system.

A tenant's directory is ``tenants/{t}/``. Below it each part of a path is a *component* made from one name:

- ``n.`` and the name, every byte but ``a-z``, ``0-9`` and ``-`` written ``_xx``, where that takes 200 bytes or less;
- else ``h.``, the beginning of the same, ``.`` and a digest of the whole: BLAKE2b of 160 bits in base 32, lower case.

So no component holds a capital letter (``A`` is ``_41``, and two names never meet where case is folded), nothing that
Unicode could fold, no ``/``, ``\``, NUL, or a dot of the name's; none is hidden, ``..``, an option (``-rf``) or a
device (``n.con`` is none), none ends in a dot or a space, and none is longer than 200 bytes. A name that was too long
can be written and looked for, but not read back from its path.

Source: isolation note, section 4.2, R5, and section 6.4.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import TYPE_CHECKING, Final

from hivetenancy.errors import ConfigurationError, InvalidNameError

from .codec import DEVICES
from .kinds import FilePath, Scoped
from .protocol import FileScope

COMPONENT_BYTES_MAX: Final = 200
"""Longest component. File systems take 255; the rest is for a suffix of the host's own."""
HINT_BYTES_MAX: Final = 120
"""How much of a name that is too long stands before its digest, for people who look into the directory."""
PATH_BYTES_MAX: Final = 3_000
"""Longest path relative to the root. Linux takes 4,096 with the root and a NUL. A longer one is refused, never cut."""
PARTS_MAX: Final = 64
"""Most parts of one path: who walks a tree recursively must not run out of stack."""

_SAFE: Final = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789-")
_PLAIN: Final = re.compile(r"[a-z0-9-]{1,198}")
_WORDS: Final = re.compile(r"(?:[a-z0-9-]|_[0-9a-f]{2})+")
_WORD: Final = re.compile(r"_([0-9a-f]{2})")
_HASHED: Final = re.compile(r"h\.(?:[a-z0-9-]|_[0-9a-f]{2}){1,120}\.[a-z2-7]{32}")


def component(name: str) -> str:
    """Return the component of a path that stands for *name*, the same for this name and no other.

    Raises:
        InvalidNameError: *name* is no plain ``str``, is empty, or holds a lone surrogate.

    Concurrency:
        Pure.

    Example:
        >>> component("docs"), component("../Etc"), component("con")
        ('n.docs', 'n._2e_2e_2f_45tc', 'n.con')
    """
    if type(name) is not str:
        hint = "this one is physical already" if isinstance(name, Scoped) else type(name).__name__
        raise InvalidNameError(f"a part of a path is a plain str: {hint}")
    if _PLAIN.fullmatch(name):
        return "n." + name  # as most are: nothing to do
    try:
        raw = name.encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidNameError("a part of a path must not hold a lone surrogate") from None
    if not raw:
        raise InvalidNameError("a part of a path must not be empty")
    # No more words than can be of use: a name of a gigabyte makes none.
    words = [chr(byte) if byte in _SAFE else f"_{byte:02x}" for byte in raw[:COMPONENT_BYTES_MAX]]
    escaped = "".join(words)
    if len(raw) <= COMPONENT_BYTES_MAX and len(escaped) + len("n.") <= COMPONENT_BYTES_MAX:
        return "n." + escaped
    digest = base64.b32encode(hashlib.blake2b(raw, digest_size=20).digest()).decode().lower()
    return f"h.{_hint(words)}.{digest}"


def _hint(words: list[str]) -> str:
    """Return as many whole *words* as fit."""
    hint = ""
    for word in words:
        if len(hint) + len(word) > HINT_BYTES_MAX:
            break
        hint += word
    return hint


def component_name(part: str) -> str:
    """Return the name that *part* stands for: exactly the inverse of `component`.

    Raises:
        InvalidNameError: `component` makes no such *part*, or its name was too long to stand in it.
    """
    if _HASHED.fullmatch(part):
        raise InvalidNameError("this part of a path holds only a digest of its name")
    name = _read(part)
    if name is None:
        raise InvalidNameError("not a part of a path as this library makes them")
    return name


def is_component(part: str) -> bool:
    """Whether *part* looks like what `component` makes; of a digest nobody can tell whether a name has it."""
    return _HASHED.fullmatch(part) is not None or _read(part) is not None


def _read(part: str) -> str | None:
    """Return the name in *part*, ``None`` where there is none. What is written another way than ours is none."""
    if not part.startswith("n.") or not _WORDS.fullmatch(part, 2):
        return None
    raw = _WORD.sub(lambda word: chr(int(word[1], 16)), part[2:]).encode("latin-1")
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return name if component(name) == part else None


class PrefixFiles:
    """One tenant's share of a directory tree: the `FileScope` of cluster mode.

    Args:
        prefix: The tenant's directory relative to the root, with ``/`` at its end, as ``tenants/{t}/``.

    Raises:
        ConfigurationError: *prefix* does not end in ``/``, begins with it, or one of its parts is empty, hidden, a
            device of Windows, or holds what means something in paths.

    Attributes:
        directory: *prefix* without the ``/`` at its end.

    Concurrency:
        Without state that changes; any number of threads.

    Example:
        >>> files = PrefixFiles("tenants/acme/")
        >>> str(files.path("collections", "Docs")), files.strip("tenants/acme/n.a")
        ('tenants/acme/n.collections/n._44ocs', ('a',))
    """

    __slots__ = ("_prefix", "directory")

    def __init__(self, prefix: str) -> None:
        parts = prefix.split("/")
        if parts.pop() or not parts or not all(map(_harmless, parts)):
            raise ConfigurationError(
                "a tenant's directory is relative, ends in '/', and no part of it is empty, hidden or a device: "
                f"{prefix!r} is not"
            )
        self._prefix, self.directory = prefix, prefix[:-1]

    def path(self, *parts: str) -> FilePath:
        """Return the path of the file or directory called *parts*."""
        if not parts:
            raise InvalidNameError("a path has at least one part")
        if len(parts) > PARTS_MAX:
            raise InvalidNameError(f"the path has {len(parts)} parts; {PARTS_MAX} is the most")
        path = self._prefix + "/".join(map(component, parts))
        if len(path) > PATH_BYTES_MAX:
            raise InvalidNameError(f"the path has {len(path)} bytes; {PATH_BYTES_MAX} is the most")
        return Scoped(path)

    def owns(self, path: str, /) -> bool:
        """Whether *path* lies in the tenant's directory. Judged part by part: ``tenants/a/../b`` begins well."""
        return self._parts(path) is not None

    def strip(self, path: str, /) -> tuple[str, ...]:
        """Return the parts of *path*."""
        parts = self._parts(path)
        if parts is None:
            raise InvalidNameError("not a path of this tenant")
        return tuple(map(component_name, parts))

    def _parts(self, path: str) -> list[str] | None:
        if not isinstance(path, str):
            raise InvalidNameError(f"a path is a str, not {type(path).__name__}; decode what the system returned")
        if not path.startswith(self._prefix):
            return None
        parts = path[len(self._prefix) :].split("/")
        return parts if all(map(is_component, parts)) else None

    def __repr__(self) -> str:
        return f"<files in {self.directory or '.'!r}>"


class IdentityFiles(PrefixFiles):
    """The whole tree, for a server without tenants: `directory` is empty.

    The parts of a path are written in the same way. A name is as little to be trusted there, and ``..`` leads out of
    the root as it leads out of a tenant's directory.
    """

    __slots__ = ()

    def __init__(self) -> None:
        self._prefix = self.directory = ""


def _harmless(part: str) -> bool:
    stem = part.partition(".")[0]
    return (
        re.fullmatch(r"[A-Za-z0-9_~!@{}()+=,;'-][A-Za-z0-9_~!@{}()+=,;'.-]*", part) is not None
        and not part.startswith("-")
        and not part.endswith(".")
        and stem.lower() not in DEVICES
    )


if TYPE_CHECKING:
    _conforms: tuple[type[FileScope], type[FileScope]] = (PrefixFiles, IdentityFiles)

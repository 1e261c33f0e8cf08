"""The manifest of a keyspace: what says, in the store itself, how the names in it are written.

Two formats in one store cannot be told apart afterwards: what one writes, the other does not find, counts as nobody's,
and never deletes. So a store is stamped once, before its first name is written, with the profile and the id scheme;
whoever comes with another refuses to start. The stamp is one small JSON document. In a store of keys it lies under
`SYSTEM_NAME`, which no tenant's name can be or begin with; beside a store of another kind it is a file.

What counts is what decides about names: the templates, the id scheme, and for UUIDs their form. The profile's name is
for people, and the longest name and the dialect of topics may change.

Source: isolation note, A45 and A47; upstream note, V1 and N4: stores with two formats at once.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from hivetenancy.errors import ConfigurationError

from .inspection import Owned
from .prefix import PrefixNamespaces
from .profiles import SYSTEM

SYSTEM_NAME: Final = SYSTEM + "manifest"
"""Under which physical name a store of keys keeps its manifest."""

FORMAT: Final = 1
"""Version of the document."""

_BYTES_MAX: Final = 65_536


class ManifestStore(Protocol):
    """Where the manifest of one keyspace is kept."""

    def load(self) -> str | None:
        """Return the document; ``None``: there is none yet.

        Raises:
            ConfigurationError: What is there cannot be read.
        """
        ...

    def store_if_absent(self, document: str) -> str:
        """Keep *document* if there is none, as one step, and return the one that is there then.

        Two servers that start at once see the same: in Redis this is ``SET name document NX`` and then ``GET``.

        Raises:
            ConfigurationError: It cannot be kept.
        """
        ...


def document_of(namespaces: PrefixNamespaces) -> str:
    """Return the manifest of *namespaces*: JSON of one line, the same for the same names.

    Concurrency:
        Pure.
    """
    profile = namespaces.profile
    body = {
        "format": FORMAT,
        "profile": profile.name,
        "scheme": str(namespaces.scheme),
        "templates": profile.templates(),
        "uuid_form": str(profile.uuid_form),
    }
    return json.dumps(body, sort_keys=True, separators=(",", ":"))


def check_document(document: str, namespaces: PrefixNamespaces) -> None:
    """Check that *document*, as a store keeps it, is the manifest of *namespaces*; for stores with an API of their own.

    Raises:
        ConfigurationError: It is no manifest, or one of other names. The message says what differs, and the remedy.
    """
    theirs, ours = _read(document), _read(document_of(namespaces))
    differences = [f"{key}: {then!r} there, {now!r} here" for key, then, now in _compared(theirs, ours) if then != now]
    if differences:
        raise ConfigurationError(
            f"the names in this store are written another way, by the profile {theirs['profile']!r} with ids by the "
            f"scheme {theirs['scheme']!r} ({'; '.join(differences)}). Nothing was changed. Set names.profile and "
            "names.scheme as they were, or use a store that is empty"
        )


def claim(store: ManifestStore, namespaces: PrefixNamespaces, *, existing: Iterable[str] = ()) -> None:
    """Stamp the keyspace of *store* with how *namespaces* writes names, or see that it is stamped so already.

    To be called before the first name is written, on every start.

    Args:
        store: Where the manifest is kept.
        namespaces: The manager that this server uses.
        existing: Physical names that the keyspace holds, all or some; looked at only where it has no manifest yet, so
            that names of an older format are not taken over by mistake.

    Raises:
        ConfigurationError: The keyspace belongs to other names, or holds some without a manifest. It was left as it is.
        InvalidNameError: One of *existing* is no ``str``: decode what the store returned. It was left as it is.

    Concurrency:
        As atomic as *store*: of two servers with different names that start at once, one is refused.
    """
    kept = store.load()
    if kept is None:
        _check_existing(existing, namespaces)
        kept = store.store_if_absent(document_of(namespaces))
    check_document(kept, namespaces)


def _check_existing(existing: Iterable[str], namespaces: PrefixNamespaces) -> None:
    strangers = sum(type(namespaces.inspect(name)) is not Owned and not name.startswith(SYSTEM) for name in existing)
    if strangers:
        raise ConfigurationError(
            f"the store has no manifest, and {strangers} of its names are not written as this server writes them. "
            "Nothing was changed. Choose the names.profile that wrote them, migrate them, or use a store that is empty"
        )


def _compared(theirs: dict[str, Any], ours: dict[str, Any]) -> Iterable[tuple[str, object, object]]:
    yield "scheme", theirs["scheme"], ours["scheme"]
    if ours["scheme"] == "uuid":
        yield "uuid_form", theirs["uuid_form"], ours["uuid_form"]
    for group in sorted({*theirs["templates"], *ours["templates"]}):
        yield group, theirs["templates"].get(group), ours["templates"].get(group)


def _read(document: str) -> dict[str, Any]:
    """Return what *document* says."""
    try:
        body = json.loads(document)
    except (TypeError, ValueError, RecursionError):
        body = None
    if not isinstance(body, dict) or type(body.get("format")) is not int:
        raise _damaged()
    if body["format"] != FORMAT:
        raise ConfigurationError(
            f"the manifest of the store has format {body['format']}; this version of hivetenancy knows {FORMAT}. "
            "Nothing was changed. Upgrade, or use a store that is empty"
        )
    texts = [body.get(key) for key in ("profile", "scheme", "uuid_form")]
    templates = body.get("templates")
    if not isinstance(templates, dict) or not all(type(text) is str for text in [*texts, *templates.values()]):
        raise _damaged()
    return body


def _damaged() -> ConfigurationError:
    return ConfigurationError(
        f"what the store keeps as its manifest ({SYSTEM_NAME!r}) is none. Nothing was changed. Restore it from a "
        "backup, or, if the store is empty, take it away"
    )


# --- where it is kept ------------------------------------------------------------------------------------------------


class MemoryManifest:
    """A manifest in memory, for a keyspace in memory; and the place to look how a store of your own does it.

    Concurrency:
        Any number of threads.
    """

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: dict[str, str] = {}

    def load(self) -> str | None:
        """Return the document; ``None``: there is none yet."""
        return self._kept.get(SYSTEM_NAME)

    def store_if_absent(self, document: str) -> str:
        """Keep *document* if there is none, and return the one that is there then."""
        return self._kept.setdefault(SYSTEM_NAME, document)  # one step of the interpreter


class FileManifest:
    """A manifest in a file, beside the store that it is for; several servers may name one file.

    The file appears whole or not at all: it is written under another name and then linked, which fails where there is
    one already. A symbolic link in its place is refused.

    Args:
        path: Where the file is, or is to be; its folder has to exist.

    Concurrency:
        Any number of threads and processes.
    """

    __slots__ = ("_path",)

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(os.path.abspath(path))

    def load(self) -> str | None:
        """Return the document; ``None``: there is none yet.

        Raises:
            ConfigurationError: The file cannot be read, is a link or no file, or is no text.
        """
        try:
            descriptor = os.open(self._path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
            with os.fdopen(descriptor, "rb") as file:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise self._refused("is no file: name a file, or a path where none is yet")
                return file.read(_BYTES_MAX + 1)[:_BYTES_MAX].decode()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._refused(f"cannot be read ({error.strerror}): it has to be a file of this user") from error
        except UnicodeDecodeError:
            raise _damaged() from None

    def store_if_absent(self, document: str) -> str:
        """Keep *document* if there is none, and return the one that is there then.

        Raises:
            ConfigurationError: The file cannot be written or read.
        """
        draft = self._path.with_name(f".{self._path.name}.{secrets.token_hex(8)}")
        try:
            self._write(draft, document)
        except OSError as error:
            raise self._refused(f"cannot be made ({error.strerror}): its folder must exist and be writable") from error
        finally:
            with contextlib.suppress(OSError):
                draft.unlink()
        kept = self.load()
        if kept is None:
            raise self._refused("vanished while it was made: see who deletes it")
        return kept

    def _write(self, draft: Path, document: str) -> None:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(document.encode())
            file.flush()
            os.fsync(descriptor)
        with contextlib.suppress(FileExistsError):
            os.link(draft, self._path)  # unlike a rename it never takes another's place
        if os.name == "posix":
            folder = os.open(self._path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)  # the name, too, survives a power failure
            finally:
                os.close(folder)

    def _refused(self, why: str) -> ConfigurationError:
        return ConfigurationError(f"the manifest {str(self._path)!r} {why}")


if TYPE_CHECKING:
    _conforms: tuple[type[ManifestStore], type[ManifestStore]] = (MemoryManifest, FileManifest)

"""The manifest of a keyspace: written once, and whoever would write names another way is refused."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hivetenancy.errors import ConfigurationError, InvalidNameError
from hivetenancy.namespaces.manifest import (
    FORMAT,
    SYSTEM_NAME,
    FileManifest,
    ManifestStore,
    MemoryManifest,
    check_document,
    claim,
    document_of,
)
from hivetenancy.namespaces.prefix import PrefixNamespaces
from hivetenancy.namespaces.profiles import PROFILES, Profile

ACME = "550e8400-e29b-41d4-a716-446655440000"

#: Managers of which no two write the same names.
MANAGERS: dict[str, Callable[[], PrefixNamespaces]] = {
    **{name: (lambda name=name: PrefixNamespaces(profile=name)) for name in PROFILES},
    "slugs": lambda: PrefixNamespaces(scheme="slug"),
    "topics by slash": lambda: PrefixNamespaces(topic_separator="/"),
    "own": lambda: PrefixNamespaces(profile=Profile(name="own", keys="k:{t}:")),
}


@pytest.fixture(params=["memory", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ManifestStore:
    """An empty store of each kind."""
    return MemoryManifest() if request.param == "memory" else FileManifest(tmp_path / "names.json")


def test_the_document() -> None:
    """The manifest is JSON that says what decides about names, and its name is one that no tenant can produce."""
    assert json.loads(document_of(PrefixNamespaces(profile="synap"))) == {
        "format": FORMAT,
        "profile": "synap",
        "scheme": "uuid",
        "uuid_form": "simple",
        "templates": {
            **dict.fromkeys(("keys", "containers", "channels", "topics", "graph"), "user_{t}:"),
            **dict.fromkeys(("blobs", "files"), "tenants/{t}/"),
        },
    }
    assert SYSTEM_NAME == "hvt!manifest"


def test_a47_two_formats_never_share_a_store(store: ManifestStore) -> None:
    """The first to come stamps the store; its like is let in, everybody else refused, and the stamp stays."""
    names = list(MANAGERS)
    claim(store, MANAGERS[names[0]]())
    kept = store.load()
    assert kept == document_of(MANAGERS[names[0]]())
    claim(store, MANAGERS[names[0]]())
    for other in names[1:]:
        with pytest.raises(ConfigurationError, match=r"Set names\.profile and names\.scheme as they were"):
            claim(store, MANAGERS[other]())
    assert store.load() == kept


def test_a47_each_pair_is_told_apart() -> None:
    """Of managers that write names in different ways, no manifest of one passes for another, in either direction."""
    for one in MANAGERS:
        for other in MANAGERS:
            kept = MemoryManifest()
            claim(kept, MANAGERS[one]())
            if one == other:
                claim(kept, MANAGERS[other]())
            else:
                with pytest.raises(ConfigurationError):
                    claim(kept, MANAGERS[other]())


class Forgetful(MemoryManifest):
    """A store that takes whatever comes last: not the atomic step that it says it is."""

    def load(self) -> str | None:
        """There is never one yet."""
        return None

    def store_if_absent(self, document: str) -> str:
        """Overwrite."""
        return document


def test_a47_a_store_that_overwrites_lets_two_formats_in() -> None:
    """The tests above can fail: without the one atomic step both servers start."""
    store = Forgetful()
    claim(store, PrefixNamespaces())
    claim(store, PrefixNamespaces(profile="synap"))


def test_what_differs_is_said() -> None:
    """The message names the profile and scheme of the store, what differs, and the remedy."""
    with pytest.raises(ConfigurationError) as refused:
        check_document(document_of(PrefixNamespaces()), PrefixNamespaces(profile="synap"))
    for said in ("'default'", "'uuid'", "uuid_form: 'hyphenated' there, 'simple' here", "keys: 'user:{t}:' there"):
        assert said in str(refused.value)


def test_what_decides_about_no_name_may_change(store: ManifestStore) -> None:
    """Profile name, longest name, dialect of topics and secret make no names; nor does a UUID's form without UUIDs."""
    claim(store, PrefixNamespaces())
    claim(store, PrefixNamespaces(max_name_bytes=511, secret=bytes(16)))
    claim(store, PrefixNamespaces(profile=Profile(name="renamed", topic_dialect="nats")))
    slugs = MemoryManifest()
    claim(slugs, PrefixNamespaces(profile="synap", scheme="slug"))
    same = dict.fromkeys(("keys", "containers", "channels", "topics", "graph"), "user_{t}:")
    claim(slugs, PrefixNamespaces(profile=Profile(name="like-synap", **same), scheme="slug"))


def test_names_without_a_manifest_are_not_taken_over(store: ManifestStore) -> None:
    """A store with names that this server would not write is not stamped; with its own it is."""
    for strange in (f"user_{ACME}:docs", f"user:{ACME.upper()}:x", "session:1"):
        with pytest.raises(ConfigurationError, match="1 of its names"):
            claim(store, PrefixNamespaces(profile="tagged"), existing=["hvt!other", strange])
        assert store.load() is None
    claim(store, PrefixNamespaces(), existing=[f"user:{ACME}:x", f"user_{ACME}:docs", "hvt!other"])
    claim(store, PrefixNamespaces(), existing=["session:1"])  # with a manifest nobody looks


def test_names_in_bytes_are_not_taken_for_none() -> None:
    """What a driver returns undecoded is refused in words, and nothing is stamped."""
    store = MemoryManifest()
    with pytest.raises(InvalidNameError, match="decode what the store returned"):
        claim(store, PrefixNamespaces(), existing=[b"session:1"])  # type: ignore[list-item]
    assert store.load() is None


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("", "is none"),
        ("{", "is none"),
        ("[]", "is none"),
        ("null", "is none"),
        ("{}", "is none"),
        ('{"format":"1"}', "is none"),
        ('{"format":true}', "is none"),
        ('{"format":1}', "is none"),
        ('{"format":1,"profile":"a","scheme":"uuid","uuid_form":"x","templates":[]}', "is none"),
        ('{"format":1,"profile":"a","scheme":"uuid","uuid_form":"x","templates":{"keys":1}}', "is none"),
        ("[" * 100_000, "is none"),
        ('{"format":2}', "has format 2; this version of hivetenancy knows 1"),
    ],
)
def test_what_is_no_manifest_is_refused(document: str, message: str) -> None:
    """A document that is damaged, or of a later version, is refused, and says what to do."""
    with pytest.raises(ConfigurationError, match=message):
        check_document(document, PrefixNamespaces())
    with pytest.raises(ConfigurationError, match="is none"):
        check_document(None, PrefixNamespaces())  # type: ignore[arg-type]


# --- the file --------------------------------------------------------------------------------------------------------


def test_the_file_appears_whole(tmp_path: Path) -> None:
    """The file is its owner's, holds the document, and leaves no draft beside it, not even when it is refused."""
    path = tmp_path / "names.json"
    claim(FileManifest(path), PrefixNamespaces())
    with pytest.raises(ConfigurationError):
        claim(FileManifest(path), PrefixNamespaces(profile="nexus"))
    FileManifest(path).store_if_absent("another")
    assert [entry.name for entry in tmp_path.iterdir()] == ["names.json"]
    assert path.read_text() == document_of(PrefixNamespaces())
    if os.name == "posix":
        assert path.stat().st_mode & 0o777 == 0o600


def test_a47_of_two_that_start_at_once_one_wins(tmp_path: Path) -> None:
    """Servers with different names that claim one file in the same moment: one format is let in, the others are not."""
    names = list(MANAGERS)
    let_in: list[str] = []
    barrier = threading.Barrier(len(names))

    def start(name: str) -> None:
        manager = MANAGERS[name]()
        barrier.wait()
        try:
            claim(FileManifest(tmp_path / "names.json"), manager)
        except ConfigurationError:
            return
        let_in.append(name)

    threads = [threading.Thread(target=start, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(let_in) == 1
    assert FileManifest(tmp_path / "names.json").load() == document_of(MANAGERS[let_in[0]]())


@pytest.mark.skipif(os.name != "posix", reason="links and modes of POSIX")
def test_a_file_that_is_not_ours_to_read(tmp_path: Path) -> None:
    """A link, a folder, a pipe and what is no text are refused, and nothing is written through them."""
    target = tmp_path / "target"
    link, folder, pipe, blob = (tmp_path / name for name in ("link", "folder", "pipe", "blob"))
    link.symlink_to(target)
    folder.mkdir()
    os.mkfifo(pipe)
    blob.write_bytes(b"\xff\xfe")
    for path, message in (
        (link, "cannot be read"),
        (pipe, "is no file"),
        (folder, "is no file|cannot be read"),
        (blob, "is none"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            claim(FileManifest(path), PrefixNamespaces())
    assert not target.exists()


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """Where the file cannot be made, the message says what to make."""
    with pytest.raises(ConfigurationError, match="its folder must exist"):
        claim(FileManifest(tmp_path / "none" / "names.json"), PrefixNamespaces())


def test_a_file_that_vanishes_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that somebody deletes while it is made does not count as made."""
    store = FileManifest(tmp_path / "names.json")

    def link(source: Any, target: Any) -> None:
        """Nothing is linked, as if it were deleted at once."""

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(ConfigurationError, match="vanished"):
        claim(store, PrefixNamespaces())

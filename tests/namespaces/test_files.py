"""A tenant's files: nothing planted inside leads out, whenever it was planted, and nothing outlives its tenant.

Both ways of opening run on one machine: walking from directory to directory, and the checks of resolved paths for
systems without such calls.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from hivetenancy.errors import ConfigurationError, InvalidNameError, MisuseError, NotFoundError
from hivetenancy.hooks import IsolationEvent, IsolationKind
from hivetenancy.ids import TenantId
from hivetenancy.namespaces import files as module
from hivetenancy.namespaces.files import WALKS, TenantDirectory, TenantFiles
from hivetenancy.namespaces.paths import IdentityFiles, PrefixFiles
from tests.namespaces.test_paths import NASTY

SECRET = b"CANARY-of-beta"

pytestmark = pytest.mark.skipif(not WALKS, reason="planting links and pipes needs a POSIX system")


class Kept:
    """A sink that keeps events."""

    def __init__(self) -> None:
        self.events: list[IsolationEvent] = []

    def isolation(self, event: IsolationEvent, *, now: object = None) -> None:
        self.events.append(event)


class Tree:
    """A root with two tenants, of whom beta has a secret, and something outside."""

    def __init__(self, folder: Path, walk: bool) -> None:
        self.root = Path(os.path.realpath(folder)) / "root"
        self.root.mkdir()
        self.outside = self.root.parent / "outside"
        self.outside.mkdir()
        (self.outside / "n.secret").write_bytes(SECRET)
        self.sink = Kept()
        self.files = TenantFiles(self.root, sink=self.sink, walk=walk)
        self.acme, self.beta = self.of("acme"), self.of("beta")
        for directory in (self.acme, self.beta):
            directory.provision()
        write(self.beta, SECRET, "secret")

    def of(self, tenant: str, generation: int = 1) -> TenantDirectory:
        return self.files.directory(PrefixFiles(f"tenants/{tenant}/"), tenant=TenantId(tenant), generation=generation)

    def home(self, tenant: str) -> Path:
        return self.root / "tenants" / tenant


def write(directory: TenantDirectory, content: bytes, *parts: str) -> None:
    with directory.create(*parts) as file:
        file.write(content)


def read(directory: TenantDirectory, *parts: str) -> bytes:
    with directory.open(*parts) as file:
        return file.read()


@pytest.fixture(params=[True, False], ids=["walking", "by-path"])
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Tree:
    """A tree for each way of opening."""
    return Tree(tmp_path, request.param)


def test_files_are_written_read_listed_and_removed(tree: Tree) -> None:
    """The ordinary life of a file, under names that no file system would take."""
    write(tree.acme, b"one", "Docs", "../a")
    write(tree.acme, b"three", "Docs", "x" * 5000)
    with tree.acme.open("Docs", "../a", write=True) as file:
        file.seek(0, os.SEEK_END)
        file.write(b" two")
    assert read(tree.acme, "Docs", "../a") == b"one two"
    listed = {(entry.name, entry.directory, entry.size_bytes) for entry in tree.acme.entries("Docs")}
    assert listed == {("../a", False, 7), (None, False, 5)}
    assert [(entry.name, entry.directory) for entry in tree.acme.entries()] == [("Docs", True)]
    assert tree.acme.exists("Docs", "../a")
    assert tree.acme.exists("Docs")
    assert not tree.acme.exists("Docs", "../a", "b")
    assert tree.acme.count() == 3
    tree.acme.remove("Docs", "../a")
    assert not tree.acme.exists("Docs", "../a")
    tree.acme.make_directory("Docs", "in", "in")
    tree.acme.make_directory("Docs", "in", "in")
    tree.acme.remove("Docs", "in", "in")
    with pytest.raises(OSError, match="Docs"):
        tree.acme.remove("Docs")
    assert sorted(os.listdir(tree.root)) == ["tenants"]
    assert tree.sink.events == []


def test_a35_nasty_names_stay_in_the_directory(tree: Tree) -> None:
    """Files under every nasty name lie in the tenant's directory, apart from each other, and are found again."""
    for number, name in enumerate(NASTY):
        write(tree.acme, b"%d" % number, "in", name)
    assert [read(tree.acme, "in", name) for name in NASTY] == [b"%d" % number for number in range(len(NASTY))]
    found = [Path(folder, name) for folder, _, names in os.walk(tree.root.parent) for name in names]
    inside = tree.home("acme") / "n.in"
    assert sum(path.parent == inside for path in found) == len(NASTY)
    assert len(found) == len(NASTY) + len(["two stamps", "both", "and two secrets", "of the fixture"])


def test_a_file_is_the_servers_alone_and_never_taken_over(tree: Tree) -> None:
    """0600 and 0700, and a file that exists is not created again."""
    write(tree.acme, b"1", "a", "b")
    home = tree.home("acme")
    assert stat.S_IMODE((home / "n.a" / "n.b").stat().st_mode) == 0o600
    assert stat.S_IMODE((home / "n.a").stat().st_mode) == stat.S_IMODE(home.stat().st_mode) == 0o700
    with pytest.raises(FileExistsError) as caught:
        tree.acme.create("a", "b")
    assert str(tree.root) not in str(caught.value)
    assert caught.value.filename == "a/b"
    assert read(tree.acme, "a", "b") == b"1"


@pytest.mark.parametrize(
    "refused",
    [
        lambda d: d.open("a"),
        lambda d: d.open("a", "b"),
        lambda d: d.remove("a"),
        lambda d: d.entries("a"),
    ],
)
def test_what_is_missing_is_missing(tree: Tree, refused: Callable[[TenantDirectory], object]) -> None:
    """A missing file, a tenant that was never made and one of another life: one answer, the same in every byte."""
    answers = set()
    for directory in (tree.acme, tree.of("acme", 2), tree.of("never")):
        with pytest.raises(NotFoundError) as caught:
            refused(directory)
        answers.add((type(caught.value), str(caught.value)))
    assert len(answers) == 1


PLANTED: dict[str, Callable[[Tree, Path], None]] = {
    "link to a file": lambda tree, at: at.symlink_to(tree.outside / "n.secret"),
    "link to another tenant's file": lambda tree, at: at.symlink_to(tree.home("beta") / "n.secret"),
    "relative link": lambda tree, at: at.symlink_to("../beta/n.secret"),
    "link to nothing": lambda tree, at: at.symlink_to(tree.outside / "new"),
    "link to an own file": lambda tree, at: at.symlink_to("n.own"),
    "link to a directory": lambda tree, at: at.symlink_to(tree.outside),
    "pipe": lambda tree, at: os.mkfifo(at),
}


@pytest.mark.parametrize("what", PLANTED)
def test_a35_what_was_planted_is_refused(tree: Tree, what: str) -> None:
    """A link or pipe in place of a file is not opened, made use of, listed or called there; each time is reported."""
    write(tree.acme, b"mine", "own")
    planted = tree.home("acme") / "n.x"
    PLANTED[what](tree, planted)
    if "file" in what and "own" not in what:
        assert planted.read_bytes() == SECRET, "without the defence this is a leak"
    operations: list[Callable[[], object]] = [
        lambda: tree.acme.open("x"),
        lambda: tree.acme.open("x", write=True),
        lambda: tree.acme.entries(),
        lambda: tree.acme.exists("x"),
    ]
    if what != "pipe":
        operations += [lambda: tree.acme.remove("x"), lambda: tree.acme.resolve("x")]
    for operation in operations:
        with pytest.raises(InvalidNameError, match="leads out") as caught:
            operation()
        assert str(tree.root) not in str(caught.value)
    with pytest.raises((FileExistsError, InvalidNameError)):
        tree.acme.create("x")
    assert {event.kind for event in tree.sink.events} == {IsolationKind.PATH_ESCAPE}
    assert len(tree.sink.events) >= len(operations)
    assert not (tree.outside / "new").exists()


def test_a35_a_directory_on_the_way_that_is_a_link_is_refused(tree: Tree) -> None:
    """Nothing is read from, written to, listed in or removed from where it leads."""
    (tree.home("acme") / "n.d").symlink_to(tree.outside)
    assert (tree.home("acme") / "n.d" / "n.secret").read_bytes() == SECRET, "without the defence this is a leak"
    for operation in (
        lambda: tree.acme.open("d", "secret"),
        lambda: tree.acme.create("d", "new"),
        lambda: tree.acme.make_directory("d", "new"),
        lambda: tree.acme.entries("d"),
        lambda: tree.acme.remove("d", "secret"),
        lambda: tree.acme.resolve("d", "secret"),
        lambda: tree.acme.exists("d", "secret"),
    ):
        with pytest.raises(InvalidNameError, match="leads out"):
            operation()
    assert os.listdir(tree.outside) == ["n.secret"]


def test_a35_a_tenants_directory_that_is_a_link_is_refused(tree: Tree) -> None:
    """The tenant's own directory, or the one above, may be no link to another tenant's either."""
    (tree.root / "tenants" / "evil").symlink_to("beta")
    assert (tree.root / "tenants" / "evil" / "n.secret").read_bytes() == SECRET, "without the defence this is a leak"
    evil = tree.of("evil")
    for operation in (evil.provision, evil.count, evil.purge, lambda: evil.open("secret")):
        with pytest.raises(InvalidNameError, match="leads out"):
            operation()
    assert read(tree.beta, "secret") == SECRET


def test_a35_a_swap_between_check_and_opening_does_not_escape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that becomes a link at any moment of an operation is never followed; checking first would be too
    late."""
    tree = Tree(tmp_path, walk=True)
    tree.acme.make_directory("d", "e")
    write(tree.acme, b"mine", "d", "e", "secret")
    (tree.outside / "n.e").mkdir()
    (tree.outside / "n.e" / "n.secret").write_bytes(SECRET)
    way = tree.home("acme") / "n.d"

    def swap() -> None:
        if not way.is_symlink():
            way.rename(tree.root.parent / "aside")
            way.symlink_to(tree.outside)

    def back() -> None:
        if way.is_symlink():
            way.unlink()
            (tree.root.parent / "aside").rename(way)

    def checked_first() -> bytes:
        """What most code does: resolve, compare, open."""
        path = way / "n.e" / "n.secret"
        assert os.path.realpath(path).startswith(str(tree.home("acme")))
        swap()
        return path.read_bytes()

    assert checked_first() == SECRET, "without the defence this is a leak"
    back()
    opened = os.open
    for moment in range(12):
        calls = 0

        def counted(*args: object, moment: int = moment, **kwargs: object) -> int:
            nonlocal calls
            calls += 1
            if calls == moment:
                swap()
            return opened(*args, **kwargs)  # type: ignore[arg-type]

        with monkeypatch.context() as patched:
            patched.setattr(module.os, "open", counted)
            try:
                assert read(tree.acme, "d", "e", "secret") == b"mine"
            except InvalidNameError:
                assert way.is_symlink()
        back()
    assert calls < 12, "every moment of the operation was tried"


def test_a38_what_an_earlier_tenant_left_is_not_there_for_a_later_one(tree: Tree) -> None:
    """Another life sees nothing, takes nothing over, and starts empty after a purge; the old handle ends."""
    write(tree.acme, b"old", "a")
    again = tree.of("acme", 2)
    with pytest.raises(NotFoundError):
        again.open("a")
    assert [event.kind for event in tree.sink.events] == [IsolationKind.GENERATION_MISMATCH]
    with pytest.raises(MisuseError, match="purge it first"):
        again.provision()
    assert tree.acme.count() == again.count() == 1
    again.purge()
    assert again.count() == 0
    again.provision()
    assert again.entries() == []
    for operation in (lambda: tree.acme.open("a"), lambda: tree.acme.create("b"), lambda: tree.acme.entries()):
        with pytest.raises(NotFoundError):
            operation()
    assert again.entries() == [], "the handle of the old life wrote nothing into the new one"


def test_a38_a_purge_that_stopped_half_way_frees_nothing(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stamp goes last: whatever is left when the process dies is still the old tenant's."""
    for name in "abc":
        write(tree.acme, b"old", name)
    removed = module._Place.remove_tree
    calls = 0

    def dies(self: object, part: str) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        removed(self, part)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(module._Place, "remove_tree", dies)
        with pytest.raises(KeyboardInterrupt):
            tree.acme.purge()
    assert "tenant.json" in os.listdir(tree.home("acme"))
    again = tree.of("acme", 2)
    assert again.count() == 1
    with pytest.raises(MisuseError):
        again.provision()
    again.purge()
    again.purge()
    again.provision()
    assert again.count() == 0


def test_a39_a_purge_touches_no_neighbour_and_follows_no_link(tree: Tree) -> None:
    """Links that were planted are removed, what they lead to stays, and so does the tenant whose name goes on."""
    neighbour = tree.of("acme-2")
    neighbour.provision()
    write(neighbour, b"theirs", "a")
    (tree.home("acme") / "n.link").symlink_to(tree.outside)
    (tree.home("acme") / "stray").write_bytes(b"planted")
    (tree.home("acme") / "n.up").symlink_to("..")
    assert tree.acme.count() == 3
    tree.acme.purge()
    assert not tree.home("acme").exists()
    assert read(neighbour, "a") == b"theirs"
    assert read(tree.beta, "secret") == SECRET
    assert (tree.outside / "n.secret").read_bytes() == SECRET


def test_a42_a_directory_that_nobody_owns_is_nobodys(tree: Tree) -> None:
    """One without a stamp that is not empty is not taken over; an empty one is."""
    home = tree.home("legacy")
    home.mkdir()
    (home / "n.a").write_bytes(b"whose?")
    legacy = tree.of("legacy")
    with pytest.raises(MisuseError):
        legacy.provision()
    with pytest.raises(NotFoundError):
        legacy.open("a")
    (home / "n.a").unlink()
    legacy.provision()
    legacy.provision()


def test_the_stamp_says_whose_a_directory_is(tree: Tree) -> None:
    """Token, life and profile; under another profile nothing is there."""
    stamp = json.loads((tree.home("acme") / "tenant.json").read_text())
    assert stamp == {"format": 1, "generation": 1, "profile": "default", "token": "acme"}
    other = TenantFiles(tree.root, profile="synap").directory(PrefixFiles("tenants/acme/"), generation=1)
    with pytest.raises(MisuseError):
        other.provision()
    with pytest.raises(NotFoundError):
        other.entries()
    assert sorted(os.listdir(tree.home("acme"))) == ["tenant.json"], "no draft of a stamp is left"
    (tree.home("acme") / "tenant.json").write_text("{}")
    with pytest.raises(NotFoundError):
        tree.acme.entries()


def test_a_path_for_others_is_proven(tree: Tree) -> None:
    """`resolve` gives an absolute path within the directory, of what is there and of what is not yet."""
    write(tree.acme, b"1", "a")
    assert tree.acme.resolve("a") == tree.home("acme") / "n.a"
    assert tree.acme.resolve("../b") == tree.home("acme") / "n._2e_2e_2fb"
    with pytest.raises(NotFoundError):
        tree.acme.resolve("no", "b")


def test_without_tenants_the_root_is_the_directory(tmp_path: Path) -> None:
    """The same calls; what is not ours in the root is left alone, by a purge too."""
    (tmp_path / "lost+found").mkdir()
    alone = TenantFiles(tmp_path).directory(IdentityFiles())
    alone.provision()
    write(alone, b"1", "../a")
    assert [entry.name for entry in alone.entries()] == ["../a"]
    assert alone.count() == 1
    alone.purge()
    assert os.listdir(tmp_path) == ["lost+found"]
    assert alone.count() == 0


def test_a_directory_is_no_file(tree: Tree) -> None:
    """What is a directory is not opened as a file; the error names the tenant's name for it."""
    tree.acme.make_directory("d")
    for write_too in (False, True):
        with pytest.raises(IsADirectoryError) as caught:
            tree.acme.open("d", write=write_too)
        assert caught.value.filename == "d"
    write(tree.acme, b"", "f")
    with pytest.raises(NotADirectoryError):
        tree.acme.create("f", "x")


def test_a_root_is_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is none, and walking where the system cannot, are found when the object is built."""
    with pytest.raises(ConfigurationError, match="root"):
        TenantFiles(tmp_path / "none")
    monkeypatch.setattr(module, "WALKS", False)
    with pytest.raises(ConfigurationError, match="walk"):
        TenantFiles(tmp_path, walk=True)


def test_no_descriptor_stays_open(tree: Tree) -> None:
    """Operations that succeed and that fail give every descriptor back."""
    (tree.home("acme") / "n.x").symlink_to(tree.outside)
    folder = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"
    before = len(os.listdir(folder))
    for _ in range(3):
        with pytest.raises(InvalidNameError):
            tree.acme.open("x", "y")
        with pytest.raises(NotFoundError):
            tree.acme.open("a", "b")
        tree.acme.exists("y")
        tree.acme.provision()
    assert len(os.listdir(folder)) == before


def test_a35_without_the_defences_a_link_leads_out(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """Following links, and without the proof of the resolved path, both ways of opening hand out the secret."""
    (tree.home("acme") / "n.x").symlink_to(tree.outside / "n.secret")
    (tree.home("acme") / "n.d").symlink_to(tree.outside)
    monkeypatch.setattr(module, "_NOFOLLOW", 0)
    monkeypatch.setattr(module, "_prove", lambda *_args, **_kwargs: None)
    assert read(tree.acme, "x") == SECRET
    assert read(tree.acme, "d", "secret") == SECRET


def test_a38_a42_without_the_stamp_what_was_left_is_handed_out(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not asked which life it is, a tenant reads what an older one left; not asked whose it is, it takes over."""
    write(tree.acme, b"old", "a")
    home = tree.home("legacy")
    home.mkdir()
    (home / "n.a").write_bytes(b"whose?")
    with monkeypatch.context() as patched:
        patched.setattr(TenantDirectory, "_check", lambda *_: None)
        assert read(tree.of("acme", 2), "a") == b"old"
    monkeypatch.setattr(TenantDirectory, "_mine", lambda *_: [])
    legacy = tree.of("legacy")
    legacy.provision()
    assert read(legacy, "a") == b"whose?"

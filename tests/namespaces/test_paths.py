"""Paths: any name becomes a component that means nothing to a file system, one of its own, and is read back."""

from __future__ import annotations

import itertools
import random
import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hivetenancy.errors import ConfigurationError, InvalidNameError
from hivetenancy.namespaces.codec import DEVICES
from hivetenancy.namespaces.kinds import Scoped
from hivetenancy.namespaces.paths import (
    COMPONENT_BYTES_MAX,
    IdentityFiles,
    PrefixFiles,
    component,
    component_name,
    is_component,
)
from tests.tiers import examples

ACME, BETA = PrefixFiles("tenants/acme/"), PrefixFiles("tenants/beta/")

NASTY = [
    *("..", ".", "/", "\\", "../x", "/etc/passwd", "C:\\x", "\\\\host\\share", "a/../../b", "a/b", "~", "~root"),
    *("con", "CON", "con.txt", "nul", "COM1", "lpt9.", "aux ", "CONIN$", "com¹"),
    *("a.", "a ", " a", ".a", "-rf", "--", "a\0b", "a\nb", "\x7f", "%2e%2e", "%2f", "a:stream", "a::$DATA", "a?*<>|"),
    *("Docs", "docs", "DOCS", "ſ", "\u212a", "K", "k", "ﬁ", "fi", "İ", "i", "ı", "é", "e\u0301", "\u212b", "\u00c5"),
    *("…", "․․", "／"),
    *("n.a", "h.a", "_2e", "tenant.json", ".tenant.json", "x" * 198, "x" * 199, "x" * 5000, "é" * 33, "é" * 34),
]


def dangers(part: str) -> list[str]:
    """What a file system could make of one component that a name should not decide."""
    stem = part.partition(".")[0].lower()
    return [
        danger
        for danger, there in {
            "separator": bool(re.search(r"[/\\\0:]", part)),
            "up": part in ("", ".", ".."),
            "hidden": part.startswith("."),
            "option": part.startswith(("-", "~")),
            "device": stem in DEVICES,
            "trimmed": part != part.rstrip(". ") or part != part.strip(),
            "case": part != part.lower() or part != part.casefold(),
            "unicode": not part.isascii() or unicodedata.normalize("NFKC", part) != part,
            "long": len(part.encode("utf-8", "surrogatepass")) > 255,
            "shell": bool(re.search(r"[?*<>|\"'`$;&% \x00-\x1f\x7f]", part)),
        }.items()
        if there
    ]


def folded(part: str) -> str:
    """What a file system may compare that knows neither case nor ways to write a letter."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", part).casefold()).rstrip(". ")


@pytest.mark.parametrize("name", NASTY)
def test_a35_no_name_means_anything_to_a_file_system(name: str) -> None:
    """Every nasty name is inert as a component; as it is, it would not be, or it has a twin."""
    part = component(name)
    assert dangers(part) == []
    assert is_component(part)
    path = ACME.path("collections", name)
    assert path.startswith("tenants/acme/n.collections/")
    assert path.count("/") == 3
    assert ACME.owns(path)
    assert not BETA.owns(path)
    if part.startswith("n."):
        assert component_name(part) == name
        assert ACME.strip(path) == ("collections", name)
    else:
        with pytest.raises(InvalidNameError, match="digest"):
            ACME.strip(path)


def test_a35_most_of_these_names_are_dangerous_as_they_are() -> None:
    """The check above can fail: without the escape most of the names are caught by it."""
    assert sum(bool(dangers(name)) for name in NASTY) > len(NASTY) * 0.7


def test_a35_a_fuzz_of_names() -> None:
    """Random names (200,000 in the deep tier): inert, apart from each other when folded, and read back."""
    rng = random.Random(5)
    alphabet = "aAbB.-_/\\ :*~$%0nh\0\n\x7féÉßſKıİ．／\u0301"
    seen: dict[str, str] = {}
    for _ in range(examples(6_000, 200_000)):
        size = rng.choice([1, 2, 3, 5, 8, 60, 70, 250])
        name = "".join(rng.choices(alphabet, k=size))
        part = component(name)
        assert not dangers(part), (name, part)
        assert len(part) <= COMPONENT_BYTES_MAX
        assert seen.setdefault(folded(part), name) == name, "two names have one component"
        if part.startswith("n."):
            assert component_name(part) == name


def test_a4_nothing_is_trimmed_or_repaired() -> None:
    """Names that a repair would make one stay apart: with blanks, dots, slashes, nothing at the ends."""
    twins = ["a", "a ", " a", "a.", ".a", "a/", "/a", "./a", "a//", "a\n", "a\0", "\ufeffa"]
    paths = [str(ACME.path(name)) for name in twins]
    assert len(set(paths)) == len(twins)
    assert len({re.sub(r"\W", "", name) for name in twins}) < len(twins), "a repair makes two of them one"


def test_a5_names_that_differ_in_case_alone_stay_apart() -> None:
    """On a file system that folds case, all spellings of a word have files of their own."""
    words = ["".join(each) for each in itertools.product(*(c + c.upper() for c in "docs"))]
    words += ["ß", "ẞ", "ss", "SS", "ſs", "ﬁ", "fi", "FI", "\u212a", "K", "k", "é", "É", "e\u0301"]
    assert len({folded(component(word)) for word in words}) == len(words)
    assert len({folded("n." + word) for word in words}) < len(words), "without the escape some meet"


def test_a3_levels_cannot_be_forged() -> None:
    """A name with a slash is one level; where parts are joined as they are, two sequences have one path."""
    sequences = [("a", "b"), ("a/b",), ("a", "", "b")[:1], ("a/", "b"), ("a", "/b"), ("a/b", "c"), ("a", "b/c")]
    assert len({str(ACME.path(*parts)) for parts in sequences}) == len(sequences)
    assert len({"/".join(parts) for parts in sequences}) < len(sequences)


def test_a36_a_name_that_is_too_long_is_digested_and_never_cut() -> None:
    """Long names that begin alike have paths of their own; a path as a whole is refused when it is too long."""
    long = ["x" * 5000 + end for end in "ab"] + ["x" * 4999]
    parts = [component(name) for name in long]
    assert len(set(parts)) == 3
    assert len({part[:150] for part in parts}) > 1
    assert len({name[:200] for name in long}) == 1, "cut, they are one"
    assert all(len(part) == 155 for part in parts)
    assert component("é" * 5000).startswith("h._c3_a9")
    with pytest.raises(InvalidNameError, match="bytes"):
        ACME.path(*["x" * 180] * 20)
    with pytest.raises(InvalidNameError, match="parts"):
        ACME.path(*["x"] * 65)


@given(
    # sixteen characters of four bytes, each of them escaped, still fit a part as they are
    names=st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=16), min_size=1, max_size=4)
)
def test_a_path_is_read_back(names: list[str]) -> None:
    """Any parts come back from their path, with a tenant and without, and only from a path as it was made."""
    for files in (ACME, IdentityFiles()):
        path = files.path(*names)
        assert files.owns(path)
        assert files.strip(path) == tuple(names)
        for wrong in (path + "/", path + "/..", "/" + path, path.upper().replace("TENANTS/ACME", "tenants/acme")):
            assert not files.owns(wrong)


@pytest.mark.parametrize(
    "path",
    [
        "tenants/acme",
        "tenants/acme/",
        "tenants/acme/../beta/n.a",
        "tenants/acme/n.a/../../beta/n.b",
        "tenants/acme/n.a//n.b",
        "tenants/acme/a",
        "tenants/acme/n.",
        "tenants/acme/n._61",
        "tenants/acme/n.A",
        "tenants/acme/n._ff",
        "tenants/acme/n.a\n",
        "tenants/acme/tenant.json",
        "tenants/acme/n." + "x" * 199,
        "tenants/acme/h.x.aaaa",
        "tenants/acme2/n.a",
        "tenants/beta/n.a",
        "/tenants/acme/n.a",
        "",
    ],
)
def test_a35_a_path_that_we_did_not_make_is_not_the_tenants(path: str) -> None:
    """What merely begins well is refused; a check of the beginning alone would take some of it."""
    assert not ACME.owns(path)
    with pytest.raises(InvalidNameError) as caught:
        ACME.strip(path)
    assert "beta" not in str(caught.value)
    assert "tenants/acme/../beta/n.a".startswith("tenants/acme/")


@pytest.mark.parametrize("name", ["", None, b"a", 1, "\ud800", Scoped("tenants/acme/n.a")])
def test_a_part_is_a_plain_text(name: str) -> None:
    """What is no name is refused, a path that was made already above all."""
    for files in (ACME, IdentityFiles()):
        with pytest.raises(InvalidNameError):
            files.path("a", name)
    with pytest.raises(InvalidNameError):
        ACME.path()
    if not isinstance(name, str):
        with pytest.raises(InvalidNameError, match="decode"):
            ACME.owns(name)


@pytest.mark.parametrize(
    "prefix",
    [
        "",
        "/",
        "tenants",
        "/tenants/a/",
        "../a/",
        "tenants/../a/",
        "a//",
        ".a/",
        "a./",
        "-a/",
        "con/",
        "a\\b/",
        "a b/",
        "é/",
    ],
)
def test_a_directory_that_could_lead_elsewhere_is_refused(prefix: str) -> None:
    """The tenant's own directory is as inert as what is in it."""
    with pytest.raises(ConfigurationError, match="directory"):
        PrefixFiles(prefix)


def test_what_a_directory_is_called() -> None:
    """With tenants it is the prefix without its end, without tenants there is none."""
    assert ACME.directory == "tenants/acme"
    assert IdentityFiles().directory == ""
    assert repr(ACME) == "<files in 'tenants/acme'>"

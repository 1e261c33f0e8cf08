"""The ways into another tenant's names: each is tried on the library, and on a variant that it works on.

The numbers are those of the isolation note, section 3. Every attack is a function that takes a way of making names and
returns what it got hold of; the library's way gives it nothing, and a plausible broken way does.
"""

from __future__ import annotations

import itertools
import random
import re
import sys
import unicodedata
import uuid
from collections.abc import Callable, Iterable
from typing import TypeAlias
from urllib.parse import urljoin

import pytest

from hivetenancy.context import TenantContext
from hivetenancy.errors import InvalidNameError
from hivetenancy.ids import TenantId
from hivetenancy.namespaces import TenantNames
from hivetenancy.namespaces.codec import IdScheme, encode, token_of
from hivetenancy.namespaces.prefix import PrefixNamespaces
from hivetenancy.testing.contracts.namespaces import scopes
from tests.tiers import examples

UUID = "550e8400-e29b-41d4-a716-446655440000"

Tokens: TypeAlias = Callable[[str], str]
"""What makes the part of a name that stands for a tenant; raises `InvalidNameError` for what is no id."""


def opaque(tenant: str) -> str:
    """The token of an id of any text."""
    return token_of(tenant, IdScheme.OPAQUE)


def names_of(tenant: str, scheme: str = "opaque") -> TenantNames:
    """The names of a tenant under the default profile."""
    context = TenantContext(tenant_id=TenantId(tenant), key_id=None, generation=1)
    return PrefixNamespaces(scheme=scheme).for_tenant(context)


def accepted(tokens: Tokens, ids: Iterable[str]) -> dict[str, list[str]]:
    """The ids that are taken, by what they become."""
    found: dict[str, list[str]] = {}
    for text in ids:
        try:
            found.setdefault(tokens(text), []).append(text)
        except (InvalidNameError, ValueError):
            continue
    return found


def texts(alphabet: str, longest: int) -> list[str]:
    """All texts of one character to *longest*."""
    return ["".join(each) for size in range(1, longest + 1) for each in itertools.product(alphabet, repeat=size)]


# --- A1, A2, A3: ids that run into what stands behind them ------------------------------------------------------------


def collisions(tokens: Tokens) -> list[tuple[str, str]]:
    """Physical names that two tenants share, over all ids and names of up to three symbols."""
    owner: dict[str, str] = {}
    found = []
    for tenant, name in itertools.product(texts("a:", 3), repeat=2):
        physical = f"user:{tokens(tenant)}:{name}"
        if owner.setdefault(physical, tenant) != tenant:
            found.append((tenant, name))
    return found


def test_a01_a_separator_in_an_id() -> None:
    """No separator in an id makes two tenants share a name; written out raw, ids do."""
    assert collisions(opaque) == []
    assert ("a:", "a") in collisions(str)


def nested(prefixes: Iterable[str]) -> list[tuple[str, str]]:
    """Prefixes of which one begins the other; sorted, such a one stands right before one that it begins."""
    ordered = sorted(prefixes)
    return [(one, other) for one, other in itertools.pairwise(ordered) if other.startswith(one)]


def test_a02_no_delimiter_behind_an_id() -> None:
    """Tenant 1 holds nothing of tenant 12; without a delimiter it does."""
    ids = [str(number) for number in range(200)]
    assert nested(scope.prefix for tenant in ids for scope in (names_of(tenant).kv, names_of(tenant).queues)) == []
    assert ("user:1", "user:10") in nested(f"user:{opaque(tenant)}" for tenant in ids)


def test_a03_ids_within_ids() -> None:
    """Of ids that are made to lie within each other no prefix begins another; with a slash left in them they do."""
    draw = random.Random(3)
    parts = ["acme", "resources", "a", "_2f", "/", "_", ":", "", "é", "-", "acme/resources"]
    ids = {"".join(draw.choices(parts, k=draw.randrange(1, 6))) for _ in range(examples(1_500, 20_000))} - {""}
    assert len(ids) > 800
    assert nested(f"tenants/{opaque(tenant)}/" for tenant in ids) == []
    assert nested(f"tenants/{tenant}/" for tenant in ids)


# --- A4, A5, A6, A7, A8: ids that are taken for each other ------------------------------------------------------------


def meeting(tokens: Tokens, *ids: str) -> list[list[str]]:
    """Ids that become the same."""
    return [found for found in accepted(tokens, ids).values() if len(found) > 1]


def test_a04_an_id_is_never_trimmed() -> None:
    """What surrounds an id makes it another one, or none; trimming makes them meet."""
    around = [f"{before}acme{after}" for before in ("", "/", " ", "\t") for after in ("", "/", " ", "\n", ":")]
    assert meeting(opaque, *around) == []
    assert meeting(lambda text: opaque(text.strip(" /\n\t:")), *around)
    assert accepted(lambda text: token_of(text, IdScheme.SLUG), around) == {"acme": ["acme"]}


def test_a05_upper_and_lower_case() -> None:
    """Ids that differ in case have tokens that differ without it, so that no file system makes them one."""
    ids = ["Acme", "acme", "ACME", "aCME", "É", "é", "ß", "ẞ", "ſ", "s", "İ", "i̇"]
    assert meeting(lambda text: encode(text).casefold(), *ids) == []
    assert meeting(str.casefold, *ids)
    for text in ids:
        assert encode(text) == encode(text).lower() == encode(text).casefold()


def folded(text: str) -> str:
    """What a well-meant helper makes of an id."""
    return unicodedata.normalize("NFKC", text).casefold()


def test_a06_unicode_that_folds() -> None:
    """No code point becomes the token of an ASCII character that it folds onto; a helper that folds has a thousand."""
    plain = set("abcdefghijklmnopqrstuvwxyz0123456789-")
    points = [chr(point) for point in range(examples(0x2200, sys.maxunicode + 1)) if not 0xD800 <= point < 0xE000]
    onto = [point for point in points if point not in plain and folded(point) in plain]
    assert len(onto) > 50
    assert [point for point in onto if point in accepted(opaque, onto).get(folded(point), [])] == []
    assert all(len(found) == 1 for found in accepted(opaque, [*plain, *onto]).values())
    assert len(meeting(folded, *plain, *onto)) >= 30


def test_a06_the_same_letter_in_two_forms() -> None:
    """Of the composed and the decomposed form of a letter one is an id, and the other is refused, never repaired."""
    assert opaque("é") == "_c3_a9"
    for text in ("e\u0301", "\u212b", "a\u0308", "\u0958"):
        with pytest.raises(InvalidNameError, match="NFC"):
            opaque(text)
    assert meeting(lambda text: encode(unicodedata.normalize("NFC", text)), "é", "e\u0301")


ALIASES = (
    *("{" + UUID + "}", "urn:uuid:" + UUID, "uuid:" + UUID, UUID + "\n", "\n" + UUID, " " + UUID, UUID + " "),
    *(UUID + "\0", UUID[:-1], UUID + "0", "", UUID.replace("-", "", 1), UUID.replace("-", "--", 1), "-" + UUID),
    *(UUID.replace("-", "_"), UUID.replace("-", ":"), UUID.replace("-", "\u2010"), UUID.replace("-", " ")),
    *(
        UUID.replace("5", "５"),
        UUID.replace("4", "٤"),
        UUID.replace("0", "𝟎"),
        UUID.replace("a", "а"),
        UUID.replace("a", "g"),
    ),
    *("5-50e8400e29b41d4a716446655440000", "550e8400e29b-41d4-a716-446655440000", UUID.replace("-", "")[::-1] + "-"),
    *(
        "0x" + UUID.replace("-", ""),
        UUID.replace("-", "")[:-1],
        "(" + UUID + ")",
        '"' + UUID + '"',
        UUID + ";",
        "user:" + UUID,
    ),
    *("{" + UUID.replace("-", "") + "}", "URN:UUID:" + UUID.upper(), str(int(uuid.UUID(UUID))), "default"),
)


def test_a07_spellings_of_one_uuid() -> None:
    """Of more than thirty spellings that others take, none is an id; the four that are, are one tenant."""
    assert len(set(ALIASES)) >= 30
    assert accepted(token_of, ALIASES) == {}
    hexadecimal = UUID.replace("-", "")
    assert accepted(token_of, (UUID, UUID.upper(), hexadecimal, hexadecimal.upper())).keys() == {UUID}
    # The standard library, which many servers ask, takes a good part of them for the same tenant.
    assert len(accepted(lambda text: str(uuid.UUID(text)), ALIASES)[UUID]) >= 8


def loosely(text: str) -> str:
    r"""A check with ``$`` and ``\d``: both take more than they seem to."""
    if not re.match(r"^[a-z\d][a-z\d-]*$", text):
        raise InvalidNameError("no slug")
    return text


LOOSE = ("acme\n", "acme١", "１", "acme²", "acme\n\n", "acme\r")


def test_a08_a_pattern_that_takes_more_than_it_seems() -> None:
    """A trailing newline and foreign digits make no id of any scheme that has a pattern; a loose pattern takes both."""
    assert accepted(lambda text: token_of(text, IdScheme.SLUG), LOOSE) == {}
    assert accepted(token_of, [UUID + "\n", UUID.replace("5", "٥")]) == {}
    assert {"acme\n", "acme١"} <= set(accepted(loosely, LOOSE))


# --- A12, A35, A36, A42 ----------------------------------------------------------------------------------------------

#: What means something to the glob of Redis, fnmatch, MQTT, AMQP, NATS, regular expressions and SQL's LIKE but for `_`.
METACHARACTERS = frozenset("*?[]{}^$.|()+#>/\\%!~`'\"<&; \t")


def test_a12_wildcards_in_an_id() -> None:
    """No token holds a character that any dialect reads as more than text, whatever is in the id; raw ids do."""
    ids = texts("*?[]#>+$a%", examples(2, 4))
    assert [text for text in ids if METACHARACTERS & set(opaque(text))] == []
    assert [text for text in ids if METACHARACTERS & set(text)]
    for tenant in ("*", "?", "[a-z]", "#", "%"):
        for _, scope in scopes(names_of(tenant)):
            assert not METACHARACTERS.difference("./") & set(scope.prefix)
    assert re.search(r"user:*:x".replace("*", ".*"), "user:acme:x")


def test_a35_an_id_that_is_a_path() -> None:
    """No token is a path, a device, hidden, or an option, so a tenant's directory is one directory; raw ids are."""
    ids = [
        "..",
        ".",
        "a/b",
        "/etc",
        "a\\b",
        "con",
        "nul",
        "aux",
        "com1",
        "-rf",
        "a.",
        "a ",
        "C:",
        "~",
        "a\u200bb",
        ".ssh",
    ]

    def escapes(tokens: Tokens) -> set[str]:
        bad = re.compile(r"[-.~]|.*[./\\: ]|(?:con|nul|aux|prn|com\d|lpt\d)\Z")
        return {text for text in ids if bad.match(tokens(text))}

    assert escapes(opaque) == set()
    assert escapes(str) >= {"..", "a/b", "con", "-rf", "C:", "a."}
    with pytest.raises(InvalidNameError):
        opaque("a\0b")


def truncating(longest: int) -> Callable[[str, str], str]:
    """A store that cuts names, as PostgreSQL does, in front of which nobody looks."""
    return lambda tenant, name: f"user_{tenant}:{name}"[:longest]


def test_a36_a_name_is_refused_before_it_is_cut() -> None:
    """Names beyond the store's limit are refused, so what it would cut is never sent; unchecked, two become one."""
    names = PrefixNamespaces(scheme="slug", max_name_bytes=75).for_tenant(
        TenantContext(tenant_id=TenantId("a" * 50), key_id=None, generation=1)
    )
    for scope in (names.queues, names.queues.binary):
        taken: set[bytes] = set()
        for size in range(1, 40):
            for end in "xy":
                text = "n" * size + end
                try:
                    made = names.queues.key(text) if scope is names.queues else names.queues.binary.key(text.encode())
                except InvalidNameError:
                    assert len("user_") + 50 + 1 + len(text) > 75
                    continue
                taken.add((str(made).encode() if isinstance(made, str) else bytes(made))[:75])
        assert len(taken) == 2 * (75 - 56 - 1)
    for refused in ("a" * 129, "é" * 22):
        with pytest.raises(InvalidNameError, match="is the most"):
            opaque(refused)
    cut = truncating(75)
    assert cut("a" * 50, "n" * 30 + "x") == cut("a" * 50, "n" * 30 + "y")


def test_a42_what_nobody_owns_is_nobodys() -> None:
    """Names from before there were tenants are found by no tenant: not owned, not stripped, in no range."""
    legacy = ["docs", "config:app", "user:docs", "user_docs", ":", "\x00", "zzz", "user:", f"user-{UUID}-kv"]
    for tenant in ("a", "docs", "config", "user", ""):
        if not tenant:
            continue
        for _, scope in scopes(names_of(tenant)):
            low, high = scope.range()
            assert low is not None
            assert high is not None
            assert [name for name in legacy if scope.owns(name) or low <= name < high] == []
            for name in legacy:
                with pytest.raises(InvalidNameError):
                    scope.strip(name)
    fallback = [name for name in legacy if name.startswith("user:docs") or ":" not in name]
    assert fallback  # what a server that takes a name without prefix for everybody's would show


@pytest.mark.parametrize(
    "name", ["../beta/x", "a/../../beta/x", "%2e%2e/beta/x", "..%2Fbeta%2Fx", "..\\beta", ".\t./beta/x"]
)
def test_a35_a_blobs_address_climbs_out_of_no_tenant(name: str) -> None:
    """What clients resolve on the way is refused; glued together by hand the address is another tenant's."""
    context = TenantContext(tenant_id=TenantId("acme"), key_id=None, generation=1)
    with pytest.raises(InvalidNameError, match="addresses resolve them"):
        PrefixNamespaces(scheme="slug").for_tenant(context).blobs.key(name)
    if name in ("../beta/x", "a/../../beta/x"):
        resolved = urljoin("http://store.example/", f"tenants/acme/{name}")
        assert resolved == "http://store.example/tenants/beta/x"

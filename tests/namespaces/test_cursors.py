"""Cursors: sealed for one tenant and one listing; and what listings make of them."""

from __future__ import annotations

from base64 import urlsafe_b64decode
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hivetenancy.context import TenantContext
from hivetenancy.errors import ConfigurationError, InvalidNameError, MisuseError
from hivetenancy.ids import STANDALONE, TenantId
from hivetenancy.namespaces import NameScope
from hivetenancy.namespaces.cursors import SECRET_BYTES_MIN, behind, cursor_key, seal, unseal
from hivetenancy.namespaces.prefix import IdentityNamespaces, PrefixNamespaces

SECRET = bytes(range(32))
KEY = cursor_key(SECRET)

texts = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=12)


def scope_of(tenant: str, **options: Any) -> NameScope[Any]:
    """The keys of a tenant whose id is a slug."""
    context = TenantContext(tenant_id=TenantId(tenant), key_id=None, generation=1)
    return PrefixNamespaces(scheme="slug", **options).for_tenant(context).kv


@given(prefix=texts, beginning=texts, last=texts)
def test_a_cursor_is_read_back(prefix: str, beginning: str, last: str) -> None:
    """What was sealed comes back, for any texts, and stands in a URL as it is."""
    cursor = seal(KEY, prefix=prefix, beginning=beginning, last=last)
    assert unseal(KEY, cursor, prefix=prefix, beginning=beginning) == last
    assert set(cursor) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


Opener = Callable[..., str]


def passes(opener: Opener, cursor: str, **binding: str) -> bool:
    """Whether a cursor is taken."""
    try:
        opener(KEY, cursor, **binding)
    except InvalidNameError:
        return False
    return True


def leaks(opener: Opener, sealer: Callable[..., str] = seal) -> list[str]:
    """What an implementation takes that it must not."""
    cursor = sealer(KEY, prefix="user:1:", beginning="ab", last="abc")
    flipped = [cursor[:at] + chr(ord(cursor[at]) ^ 1) + cursor[at + 1 :] for at in range(len(cursor))]
    tries = {
        "another tenant's": (cursor, {"prefix": "user:2:", "beginning": "ab"}),
        "another kind's": (cursor, {"prefix": "user_1:", "beginning": "ab"}),
        "another listing's": (cursor, {"prefix": "user:1:", "beginning": "a"}),
        "run together": (cursor, {"prefix": "user:1:a", "beginning": "b"}),
        "run together at the end": (
            sealer(KEY, prefix="user:1:", beginning="", last="abc"),
            {"prefix": "user:1:", "beginning": "abc"},
        ),
        **{f"changed at {at}": (text, {"prefix": "user:1:", "beginning": "ab"}) for at, text in enumerate(flipped)},
        "cut": (cursor[:-1], {"prefix": "user:1:", "beginning": "ab"}),
        "padded": (cursor + "=", {"prefix": "user:1:", "beginning": "ab"}),
        "with a blank": (cursor + " ", {"prefix": "user:1:", "beginning": "ab"}),
        "nothing": ("", {"prefix": "user:1:", "beginning": "ab"}),
        "no ASCII": ("é", {"prefix": "user:1:", "beginning": "ab"}),
    }
    return [name for name, (text, binding) in tries.items() if passes(opener, text, **binding)]


def test_a20_a_cursor_is_for_one_tenant_and_one_listing() -> None:
    """Whatever is not the very cursor of this tenant and listing is refused, with one message."""
    assert leaks(unseal) == []
    messages = set()
    for bad in ("", "é", "AAAA", "A" * 40, seal(KEY, prefix="other:", beginning="", last="x")):
        with pytest.raises(InvalidNameError) as refused:
            unseal(KEY, bad, prefix="user:1:", beginning="")
        messages.add(str(refused.value))
    assert messages == {"the cursor was not given for this listing"}


def _plain(key: bytes, cursor: str, *, prefix: str, beginning: str) -> str:
    """No MAC at all."""
    try:
        return urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))[16:].decode()
    except ValueError:
        raise InvalidNameError("no cursor") from None


def _for_anybody(key: bytes, cursor: str, *, prefix: str, beginning: str) -> str:
    return unseal(key, cursor, prefix="", beginning=beginning)


def _for_any_listing(key: bytes, cursor: str, *, prefix: str, beginning: str) -> str:
    return unseal(key, cursor, prefix=prefix, beginning="")


def _run_together(key: bytes, cursor: str, *, prefix: str, beginning: str) -> str:
    return unseal(key, cursor, prefix=prefix + beginning, beginning="")


@pytest.mark.parametrize(
    ("opener", "sealer", "leak"),
    [
        (_plain, seal, "another tenant's"),
        (
            _for_anybody,
            lambda key, prefix, beginning, last: seal(key, prefix="", beginning=beginning, last=last),
            "another tenant's",
        ),
        (
            _for_any_listing,
            lambda key, prefix, beginning, last: seal(key, prefix=prefix, beginning="", last=last),
            "another listing's",
        ),
        (
            _run_together,
            lambda key, prefix, beginning, last: seal(key, prefix=prefix + beginning, beginning="", last=last),
            "run together",
        ),
    ],
)
def test_a20_an_unsound_cursor_is_found_out(opener: Opener, sealer: Callable[..., str], leak: str) -> None:
    """The test above can fail: without a MAC, or without tenant, listing or lengths in it, foreign cursors pass."""
    assert leak in leaks(opener, sealer)


def test_a_secret_is_needed_to_make_one() -> None:
    """Another secret opens nothing; the same one does, in another process too; without one each manager has its own."""
    found = ["user:1:a", "user:1:b"]
    cursor = scope_of("1", secret=SECRET).page(found, limit=1).cursor
    assert scope_of("1", secret=SECRET).after(cursor)[0] == "user:1:a\0"
    for other in (scope_of("1"), scope_of("1", secret=SECRET[::-1])):
        with pytest.raises(InvalidNameError, match="not given"):
            other.after(cursor)


def test_a_secret_that_is_too_short_is_refused_and_not_shown() -> None:
    """A secret of fewer bits than the MAC is refused, and no message or repr shows one."""
    for bad in (b"", b"hunter2" * 2, "0123456789abcdef", None, 16):
        with pytest.raises(ConfigurationError, match="at least 16 bytes") as refused:
            cursor_key(bad)  # type: ignore[arg-type]
        assert "hunter2" not in str(refused.value)
    assert len(cursor_key(bytes(SECRET_BYTES_MIN))) == 32
    assert cursor_key(bytes(100)) != cursor_key(bytes(101)) != cursor_key(bytes(64))
    assert b"hunter2" not in repr(PrefixNamespaces(secret=b"hunter2" * 5)).encode()
    with pytest.raises(ConfigurationError):
        IdentityNamespaces(secret=b"short")


@given(beginning=texts, others=st.lists(texts, max_size=8))
def test_behind_is_the_end_of_what_begins_so(beginning: str, others: list[str]) -> None:
    """Between a text and what is behind it lies just what begins with it; no text of the bounds holds a surrogate."""
    end = behind(beginning)
    for text in [*others, *(beginning + other for other in others)]:
        inside = beginning <= text and (end is None or text < end)
        assert inside == text.startswith(beginning)
    assert end is None or end.encode()


def test_the_ends_of_the_code_space() -> None:
    """Next to the surrogates and at the last character the end is still right."""
    assert behind("a\ud7ff") == "a\ue000"
    assert behind("a\U0010ffff") == "b"
    assert behind("\U0010ffff") is None
    assert behind("") is None


@pytest.mark.parametrize("limit", [0, -1, 1.0, True, "5", None])
def test_a_limit_that_is_none_is_misuse(limit: Any) -> None:
    """A part of a listing has at least one name."""
    with pytest.raises(MisuseError, match="above 0"):
        scope_of("1").page([], limit=limit)


def test_names_out_of_order_are_misuse() -> None:
    """Names that the store did not sort would be skipped or shown twice, so they are refused."""
    with pytest.raises(MisuseError, match="not in order"):
        scope_of("1").page(["user:1:b", "user:1:a"], limit=2)


def test_the_end_of_a_listing() -> None:
    """The last part has no cursor, and neither has a part of nothing; one that just fits ends, too."""
    scope = scope_of("1")
    assert scope.page([], limit=2).cursor is None
    page = scope.page(["user:1:a", "user:1:b"], limit=2)
    assert (page.names, page.cursor) == (["a", "b"], None)
    assert scope.page(["user:1:a", "user:1:b", "user:1:c"], limit=2).cursor is not None


def test_without_tenants_a_cursor_is_sealed_all_the_same() -> None:
    """A standalone server refuses a cursor that it did not give, as a server with tenants does."""
    context = TenantContext(tenant_id=STANDALONE, key_id=None, generation=0)
    scope = IdentityNamespaces(secret=SECRET).for_tenant(context).kv
    cursor = scope.page(["a", "b"], limit=1).cursor
    assert scope.after(cursor) == ("a\0", None)
    assert IdentityNamespaces(secret=SECRET).for_tenant(context).queues.after(cursor) == ("a\0", None)
    for bad in ("", "AAAA", scope_of("1", secret=SECRET).page(["user:1:a", "user:1:b"], limit=1).cursor):
        with pytest.raises(InvalidNameError, match="not given"):
            scope.after(bad)

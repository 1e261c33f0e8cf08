"""Tenant ids that a careless server takes for one another, and names that make it do so.

A *clique* is a handful of ids of one id scheme. Each is tried: chance would hardly come upon them. The names of a case
are made to fit: those that would collide if an id and a name were glued together, and the very names that the store
sees for other tenants.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from typing import Final

from hivetenancy.context import TenantContext
from hivetenancy.errors import InvalidNameError
from hivetenancy.ids import TenantId
from hivetenancy.namespaces import NamespaceManager
from hivetenancy.namespaces.codec import IdScheme


@dataclass(frozen=True, slots=True, kw_only=True)
class Clique:
    """Some ids, and what is confusing about them."""

    about: str
    ids: tuple[str, ...]


_UUID: Final = "550e8400-e29b-41d4-a716-446655440000"

_SLUGS: Final = {
    "one begins another": ("1", "12", "123"),
    "parts of one another": ("a", "a-b", "a-b-c"),
    "a word of the template": ("user", "user-1", "1"),
    "digits": ("0", "00", "01"),
    "ends in the escape's neighbour": ("acme", "acme-", "acme--"),
    "sentinels": ("system", "public", "default"),
    "devices": ("con", "nul", "aux"),
}
_OPAQUE: Final = {
    "the separator": ("a", "a:b", "a:b:b"),
    "upper and lower case": ("Alice", "alice", "ALICE"),
    "slashes": ("acme", "acme/", "/acme"),
    "nested": ("acme", "acme/resources", "acme/resources/x"),
    "globs": ("*", "a*", "a"),
    "wild characters": ("?", "a?", "ab"),
    "brackets": ("[ab]", "a", "b"),
    "underscores": ("a_b", "a-b", "a b"),
    "escapes": ("a_3ab", "a:b", "a%3Ab"),
    "compatibility forms": ("x\u00b2", "x2", "\uff58\uff12"),
    "composed and not": ("caf\u00e9", "cafe\u0301", "cafe"),
    "long and sharp s": ("strasse", "stra\u00dfe", "STRASSE"),
    "a word of the template": ("user", "user:1", "user_1"),
    "dots": ("a.b", "a", "a..b"),
    "hash tags": ("{a}", "a", "{a}b"),
    "spellings of a UUID": (_UUID, _UUID.replace("-", ""), _UUID.upper()),
    "sentinels": ("__system__", "system", "default"),
    "mail addresses": ("ada@example.org", "ada@example.org.", "ada+x@example.org"),
    "wild topics": ("#", "a.#", "a"),
    "blanks": ("a", "a ", " a"),
    "prototypes": ("None", "null", "0"),
    "LIKE": ("a%", "a_", "ab"),
}
_UUIDS: Final = {
    "unlike": (_UUID, "0b0e3d5c-7a1f-4f6e-9a53-2c1d8e9f0a1b"),
    "one digit apart": (_UUID, _UUID[:-1] + "1", _UUID[:-1] + "2"),
    "one beginning": (_UUID, _UUID[:9] + "e29b-41d4-a716-000000000001", _UUID[:18] + "-a716-00000000000f"),
    "one end": (_UUID, "1" + _UUID[1:], "651e8400-e29b-41d4-a716-446655440000"),
    "nearly nothing": ("00000000-0000-0000-0000-000000000000", "00000000-0000-0000-0000-000000000001"),
    "letters": ("abcdefab-cdef-abcd-efab-cdefabcdefab", "abcdefab-cdef-abcd-efab-cdefabcdefac"),
}


def cliques(scheme: IdScheme | str) -> list[Clique]:
    """Return the cliques of a scheme."""
    chosen: Mapping[IdScheme, Sequence[Mapping[str, tuple[str, ...]]]] = {
        IdScheme.UUID: (_UUIDS,),
        IdScheme.SLUG: (_SLUGS,),
        IdScheme.OPAQUE: ({"one begins another": _SLUGS["one begins another"]}, _OPAQUE, {"UUIDs": _UUIDS["one end"]}),
    }
    return [Clique(about=about, ids=ids) for table in chosen[IdScheme(scheme)] for about, ids in table.items()]


def accepted(clique: Clique, names: NamespaceManager) -> Clique:
    """Return *clique* without the ids that the manager refuses: who cannot be a tenant harms none."""
    return Clique(about=clique.about, ids=tuple(one for one in clique.ids if _takes(names, one)))


def _takes(names: NamespaceManager, one: str) -> bool:
    try:
        names.for_tenant(context(one))
    except InvalidNameError:
        return False
    return True


def context(one: str) -> TenantContext:
    """Return the context of the tenant whose id is *one*."""
    return TenantContext(tenant_id=TenantId(one), key_id=None, generation=1)


_GLUE: Final = (":", "", "_", ".", "/")
_ODD: Final = (
    "*",
    "a*",
    "[k]",
    "K",
    "k ",
    "user:k",
    "..",
    "k/../k",
    "k\u00e9",
    "a.b",
    "#",
    "{k}",
    "%",
    "k:1",
    "k" * 72,
)
_KINDS: Final = ("kv", "collections", "topics", "blobs", "channels")


def names_for(ids: Sequence[str], manager: NamespaceManager, random: Random) -> list[str]:
    """Return the names of a case, the three that are used most at its head."""
    hot = list(dict.fromkeys(["k", "a:b", *_colliding(ids)]))
    random.shuffle(hot)
    physical = list(_physical(ids, manager, hot[:2]))
    chosen = [*hot[:3], *random.sample(physical, min(len(physical), 4)), *random.sample(_ODD, 3), *hot[3:5]]
    return list(dict.fromkeys(chosen))


def _colliding(ids: Sequence[str]) -> Iterator[str]:
    """Names that one tenant may use so that id and name together read as another tenant's."""
    for short in ids:
        for long in ids:
            if long != short and long.startswith(short):
                rest = long[len(short) :]
                yield rest.lstrip(":/._-") + ":k"
                yield from (f"{rest}{glue}k" for glue in _GLUE[:2])


def _physical(ids: Sequence[str], manager: NamespaceManager, names: Sequence[str]) -> Iterator[str]:
    """What the store sees for the tenants' own names: a server must not take a tenant's word for it."""
    for one in ids:
        of_tenant = manager.for_tenant(context(one))
        for kind in _KINDS:
            for name in names if kind == "kv" else names[:1]:
                with suppress(AttributeError, InvalidNameError):  # a manager of the user's own has fewer kinds
                    yield str(getattr(of_tenant, kind).key(name))

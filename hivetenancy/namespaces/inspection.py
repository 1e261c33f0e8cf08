"""Whose name is this physical name? For operators, migrations and reports; never for deciding what a tenant may see.

Ownership is ``startswith(prefix)`` of a known tenant and nothing else. Reading a name the other way round, from the
name to the tenant, is a guess wherever other programs may have written to the store: `user:alice:x` reads as tenant
`alice`'s though it may be older than any tenant. So the answer can also be `Ambiguous`, which is for a person to
settle (isolation note, R8, A43).
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass
from typing import TypeAlias

from hivetenancy.errors import InvalidNameError
from hivetenancy.ids import TenantId

from .codec import IdScheme, UuidForm, canonical, decode, tenant_of, token_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Owned:
    """A name as `key` makes them.

    Attributes:
        tenant: Whose it is.
        kinds: What it may name, as the handles are called; kinds with one template share their names.
        logical: What its tenant calls it; may be empty, which no `key` makes.
    """

    tenant: TenantId
    kinds: tuple[str, ...]
    logical: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unowned:
    """A name that no tenant of this scheme could have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ambiguous:
    """A name that reads as a tenant's, and may not be: a person has to look.

    Attributes:
        tenant: Whose it would be.
        kinds: As for `Owned`.
        logical: As for `Owned`.
        why: What speaks against it.
    """

    tenant: TenantId
    kinds: tuple[str, ...]
    logical: str
    why: str


Finding: TypeAlias = Owned | Unowned | Ambiguous


def inspect(
    physical: str,
    templates: Iterable[tuple[str, str, tuple[str, ...]]],
    *,
    scheme: IdScheme,
    form: UuidForm,
    known: Container[TenantId] | None = None,
) -> Finding:
    """Return whose name *physical* is.

    Args:
        physical: A name from the store.
        templates: Head, tail and kinds of each; prefix-free, so at most one fits.
        scheme: Which texts are ids.
        form: How a UUID is printed.
        known: The tenants that there are, or were; ``None``: any id may be one.
    """
    for head, tail, kinds in templates:
        token, found, logical = physical.removeprefix(head).partition(tail)
        # What the tail begins with is in no token: the first such character behind the head ends the token.
        if not physical.startswith(head) or not found or tail[0] in token:
            continue
        try:
            tenant = tenant_of(token, scheme, form)
        except InvalidNameError:
            other = _another_spelling(token, scheme)
            if other is not None:
                why = "its id is not spelt as this library prints it"
                return Ambiguous(tenant=other, kinds=kinds, logical=logical, why=why)
            continue
        if known is None or tenant in known:
            return Owned(tenant=tenant, kinds=kinds, logical=logical)
        return Ambiguous(tenant=tenant, kinds=kinds, logical=logical, why="there is no such tenant")
    return Unowned()


def _another_spelling(token: str, scheme: IdScheme) -> TenantId | None:
    """Return the tenant that *token* means though no token is written so: a UUID in another form or case."""
    for read in (str, decode):
        try:
            tenant = canonical(read(token), scheme)
            token_of(tenant, scheme)  # what is too long for a token is nobody's id
        except InvalidNameError:
            continue
        return tenant
    return None

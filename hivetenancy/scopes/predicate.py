"""The tenant as a predicate: for stores in which tenants share a collection or table, and a field says whose a row is.

The weakest way to keep tenants apart, since every query has to bring its predicate along; prefer names of their own
(`hivetenancy.namespaces`). Where there is no choice, the rule is: the tenant's predicate is put *around* the tenant's
own filter, as a node around a tree, after that filter was parsed. Text is never put beside text. With
``"tenant == 'a' && " + filter`` the filter ``x' || 1 == 1`` reads everything (CVE-2026-41705).

So a filter as text is refused here, whatever is in it, and so is one that names the tenant's field: a tenant has no
business with it, and what it says about it is either of no use or an attempt.

Source: isolation note, attack A33.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Generic, TypeAlias, TypeVar

from hivetenancy.errors import ConfigurationError, InvalidNameError
from hivetenancy.ids import TenantId

F = TypeVar("F")

JsonFilter: TypeAlias = Mapping[str, Any]
"""A filter as vector stores of Qdrant's kind take it: ``must``, ``should``, ``must_not``, ``min_should``."""

DEPTH_MAX: Final = 32
"""How deep filters may lie in one another: who walks them must not run out of stack."""

_CLAUSES: Final = frozenset({"must", "should", "must_not"})
_TESTS: Final = frozenset(
    {"match", "range", "geo_bounding_box", "geo_radius", "geo_polygon", "values_count", "is_empty", "is_null"}
)
_PATH: Final = re.compile(r'"(?P<quoted>[^"]*)"|(?P<plain>[^."\[\]]+)|(?P<item>\[\d*\])|(?P<dot>\.)')


class TenantPredicate(Generic[F]):
    """Puts the tenant's predicate around filters of the type *F*, whatever a host's own filters are made of.

    Args:
        field: What the rows keep the tenant in.
        equals: Makes the filter "*field* is this value". The value has to become a value of the tree or a parameter,
            and never text in a query.
        both: Makes the filter "this one and that one", each a node of its own.
        fields: Names all fields that a tenant's filter mentions, and raises `InvalidNameError` for every node whose
            meaning it cannot be sure of: raw text above all, such as SQLAlchemy's ``text()``, which ``and_()`` does not
            even put in brackets.

    Raises:
        ConfigurationError: *field* is empty.

    Concurrency:
        That of the callables; it keeps nothing.

    Example:
        >>> predicate = TenantPredicate(
        ...     "owner",
        ...     equals=lambda field, value: ("=", field, value),
        ...     both=lambda one, other: ("and", one, other),
        ...     fields=lambda filter: [filter[1]],
        ... )
        >>> predicate.confine(TenantId("acme"), ("=", "colour", "red"))
        ('and', ('=', 'owner', 'acme'), ('=', 'colour', 'red'))
    """

    __slots__ = ("_both", "_equals", "_fields", "field")

    def __init__(
        self,
        field: str,
        *,
        equals: Callable[[str, str], F],
        both: Callable[[F, F], F],
        fields: Callable[[F], Iterable[str]],
    ) -> None:
        if not field:
            raise ConfigurationError("the field that holds the tenant needs a name")
        self.field = field
        self._equals, self._both, self._fields = equals, both, fields

    def confine(self, tenant: TenantId, wanted: F | None) -> F:
        """Return the filter that finds what *wanted* finds among the rows of *tenant*.

        Args:
            tenant: From the context, never from the request.
            wanted: The tenant's own filter, parsed; ``None``: all of the tenant's rows.

        Raises:
            InvalidNameError: *wanted* is text, or names the tenant's field, or holds what nobody can be sure of.
        """
        if not tenant:
            raise InvalidNameError("a filter is confined to a tenant, and there is none")
        mine = self._equals(self.field, tenant)
        if wanted is None:
            return mine
        if isinstance(wanted, str | bytes | bytearray | memoryview):
            raise InvalidNameError("a filter as text cannot be confined: parse it first, and hand in the tree")
        field = path_segments(self.field)
        for name in self._fields(wanted):
            if _overlap(path_segments(name), field):
                raise InvalidNameError("a filter must not name the field that holds the tenant")
        return self._both(mine, wanted)


def path_segments(path: str) -> list[str]:
    """Return the names in the path of a field, without case: ``meta."Owner"[]`` is ``["meta", "owner"]``.

    Raises:
        InvalidNameError: *path* is no path.
    """
    segments, at = [], 0
    while at < len(path):
        part = _PATH.match(path, at)
        if part is None:
            raise InvalidNameError("a filter names a field whose path cannot be read")
        name = part["quoted"] if part["quoted"] is not None else part["plain"]
        if name is not None:
            segments.append(name.strip().casefold())
        at = part.end()
    if not segments:
        raise InvalidNameError("a filter names a field without a name")
    return segments


def _overlap(one: list[str], other: list[str]) -> bool:
    """Whether one path is the other, leads to it, or goes on from it."""
    return all(mine == theirs for mine, theirs in zip(one, other, strict=False))


def json_predicate(field: str) -> TenantPredicate[JsonFilter]:
    """Return the predicate for filters of Qdrant's kind.

    What it does not know in a filter it refuses; a new kind of condition is added here, not let through.

    Example:
        >>> json_predicate("tenant").confine(TenantId("acme"), {"should": [{"key": "n", "match": {"value": 1}}]})
        ... # doctest: +NORMALIZE_WHITESPACE
        {'must': [{'key': 'tenant', 'match': {'value': 'acme'}},
                  {'should': [{'key': 'n', 'match': {'value': 1}}]}]}
    """
    return TenantPredicate(
        field,
        equals=lambda name, value: {"key": name, "match": {"value": value}},
        # A filter inside of `must` is one condition: its own `should` stays its own.
        both=lambda mine, wanted: {"must": [mine, wanted]},
        fields=lambda wanted: _filter_fields(wanted, "", 0),
    )


def _filter_fields(wanted: object, within: str, depth: int) -> list[str]:
    """Return the fields that a filter names, below the field *within*."""
    if not isinstance(wanted, Mapping) or depth > DEPTH_MAX:
        raise InvalidNameError(f"a filter is an object, and at most {DEPTH_MAX} of them lie in one another")
    found = []
    for clause, content in wanted.items():
        if clause == "min_should":
            content = _only(content, {"conditions", "min_count"})["conditions"]
        elif clause not in _CLAUSES:
            raise InvalidNameError("a filter holds must, should, must_not and min_should, and nothing else")
        for condition in content if isinstance(content, list | tuple) else [content]:
            found += _condition_fields(condition, within, depth + 1)
    return found


def _condition_fields(condition: object, within: str, depth: int) -> list[str]:
    """Return the fields that one condition names."""
    if not isinstance(condition, Mapping):
        raise InvalidNameError("a condition of a filter is an object")
    match sorted(map(str, condition)):
        case ["has_id"] | ["has_vector"]:
            return []
        case [("is_empty" | "is_null") as test]:
            return [_below(within, _only(condition[test], {"key"})["key"])]
        case ["nested"]:
            nested = _only(condition["nested"], {"key", "filter"})
            name = _below(within, nested["key"])
            return [name, *_filter_fields(nested["filter"], name, depth)]
        case _ if "key" in condition and _TESTS.issuperset(set(condition) - {"key"}):
            return [_below(within, condition["key"])]
    return _filter_fields(condition, within, depth)


def _only(content: object, keys: set[str]) -> Mapping[str, Any]:
    if not isinstance(content, Mapping) or set(content) != keys:
        raise InvalidNameError(f"this part of a filter holds {' and '.join(sorted(keys))}, and nothing else")
    return content


def _below(within: str, name: object) -> str:
    if type(name) is not str:
        raise InvalidNameError("the key of a condition is the name of a field")
    return f"{within}.{name}" if within else name

"""The tenant's predicate goes around a filter that was parsed, and text is never put beside text."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hivetenancy.errors import ConfigurationError, InvalidNameError
from hivetenancy.ids import TenantId
from hivetenancy.scopes.predicate import DEPTH_MAX, TenantPredicate, json_predicate, path_segments

ACME = TenantId("acme")

ROWS: list[dict[str, Any]] = [
    {"tenant": tenant, "n": n, "items": [{"tenant": "x", "n": n}]} for tenant in ("acme", "beta") for n in range(3)
]


def holds(wanted: dict[str, Any], row: dict[str, Any]) -> bool:
    """What Qdrant does with a filter: all of must, one of should, none of must_not."""
    if "key" in wanted:
        return bool(row.get(wanted["key"]) == wanted["match"]["value"])
    if "nested" in wanted:
        return any(holds(wanted["nested"]["filter"], item) for item in row[wanted["nested"]["key"]])
    if "is_empty" in wanted:
        return row.get(wanted["is_empty"]["key"]) in (None, [])
    enough = wanted.get("min_should", {"conditions": [], "min_count": 0})
    return (
        all(holds(each, row) for each in wanted.get("must", []))
        and ("should" not in wanted or any(holds(each, row) for each in wanted["should"]))
        and not any(holds(each, row) for each in wanted.get("must_not", []))
        and sum(holds(each, row) for each in enough["conditions"]) >= enough["min_count"]
    )


def found(wanted: Any) -> list[tuple[str, int]]:
    """Whose rows a filter finds."""
    return [(row["tenant"], row["n"]) for row in ROWS if holds(wanted, row)]


conditions = st.deferred(
    lambda: (
        st.builds(lambda n: {"key": "n", "match": {"value": n}}, st.integers(0, 3))
        | st.just({"is_empty": {"key": "n"}})
        | st.builds(lambda inner: {"nested": {"key": "items", "filter": inner}}, st.just({"must": []}))
        | filters
    )
)
filters = st.fixed_dictionaries(
    {},
    optional={
        "must": st.lists(conditions, max_size=2),
        "should": st.lists(conditions, min_size=1, max_size=2),
        "must_not": st.lists(conditions, max_size=2),
        "min_should": st.fixed_dictionaries(
            {"conditions": st.lists(conditions, max_size=2), "min_count": st.integers(0, 2)}
        ),
    },
)


@given(wanted=filters)
def test_a33_a_confined_filter_finds_the_tenants_rows_that_the_filter_means(wanted: dict[str, Any]) -> None:
    """Whatever the filter: the rows of the tenant that it finds, and no others."""
    confined = json_predicate("tenant").confine(ACME, wanted)
    assert found(confined) == [each for each in found(wanted) if each[0] == "acme"]


def test_a33_a_filter_that_is_merged_instead_of_enclosed_leaks() -> None:
    """Put among the tenant's own alternatives, the predicate is one alternative more; enclosed, it is a condition."""
    wanted = {"should": [{"key": "n", "match": {"value": 1}}]}
    mine = {"key": "tenant", "match": {"value": "acme"}}
    merged = {"should": [mine, *wanted["should"]]}
    assert ("beta", 1) in found(merged), "without the defence this is a leak"
    assert found(json_predicate("tenant").confine(ACME, wanted)) == [("acme", 1)]
    assert found(json_predicate("tenant").confine(ACME, None)) == [("acme", 0), ("acme", 1), ("acme", 2)]


def test_a33_a_filter_as_text_breaks_out_and_is_refused() -> None:
    """Beside a predicate as text, ``x' or 1 == 1`` reads everything; here no text is taken at all."""
    injected = "'x' or 1 == 1"

    def by_text(row: dict[str, Any]) -> object:
        tree = ast.parse(f"tenant == 'acme' and n == {injected}", mode="eval")
        return eval(compile(tree, "", "eval"), {}, row)

    assert [row["tenant"] for row in ROWS if by_text(row)].count("beta") == 3, "without the defence this is a leak"
    for text in (injected, injected.encode(), bytearray(b"n"), memoryview(b"n"), ""):
        with pytest.raises(InvalidNameError, match="parse it first"):
            json_predicate("tenant").confine(ACME, text)  # type: ignore[arg-type]


NAMING = [
    {"must": [{"key": "tenant", "match": {"value": "beta"}}]},
    {"must_not": [{"key": "tenant", "match": {"value": "acme"}}]},
    {"should": [{"must": [{"must": [{"key": "TENANT", "match": {"value": "beta"}}]}]}]},
    {"must": [{"key": '"tenant"', "match": {"value": "beta"}}]},
    {"must": [{"key": "tenant[]", "match": {"value": "beta"}}]},
    {"must": [{"key": " tenant ", "match": {"value": "beta"}}]},
    {"must": [{"key": "tenant.id", "match": {"value": "beta"}}]},
    {"must": [{"is_empty": {"key": "tenant"}}]},
    {"must_not": [{"is_null": {"key": "tenant"}}]},
    {"must": [{"nested": {"key": "tenant", "filter": {"must": []}}}]},
    {"min_should": {"conditions": [{"key": "tenant", "range": {"gte": ""}}], "min_count": 1}},
    {"must": {"key": "tenant", "match": {"value": "beta"}}},
]


@pytest.mark.parametrize("wanted", NAMING)
def test_a33_a_filter_that_names_the_tenants_field_is_refused(wanted: dict[str, Any]) -> None:
    """However the field is written and wherever it stands; the message does not say what was asked."""
    with pytest.raises(InvalidNameError, match="must not name the field") as caught:
        json_predicate("tenant").confine(ACME, wanted)
    assert "beta" not in str(caught.value)


def test_a33_a_field_in_parts_is_found_in_parts() -> None:
    """A field ``meta.tenant`` is named by its whole path, by what it lies in, and through a nested filter."""
    predicate = json_predicate("meta.tenant")
    for wanted in (
        {"must": [{"key": "meta.tenant", "match": {"value": 1}}]},
        {"must": [{"is_null": {"key": "meta"}}]},
        {"must": [{"nested": {"key": "meta[]", "filter": {"must": [{"key": "tenant", "match": {"value": 1}}]}}}]},
    ):
        with pytest.raises(InvalidNameError, match="must not name the field"):
            predicate.confine(ACME, wanted)
    predicate.confine(ACME, {"must": [{"key": "other.tenant", "match": {"value": 1}}]})


DEEP: dict[str, Any] = {}
for _ in range(DEPTH_MAX + 2):
    DEEP = {"must": [DEEP]}


@pytest.mark.parametrize(
    "wanted",
    [
        {"must": [{"script": "true"}]},
        {"must": [{"key": "n", "script": "true"}]},
        {"raw": "1 == 1"},
        {"must": ["tenant == 'beta'"]},
        {"must": [{"key": 7, "match": {"value": 1}}]},
        {"must": [{"key": "", "match": {"value": 1}}]},
        {"must": [{"key": 'a"b', "match": {"value": 1}}]},
        {"must": [{"is_empty": {"key": "n", "or": "tenant"}}]},
        {"must": [{"nested": {"key": "items"}}]},
        {"must": [{"nested": {"key": "items", "filter": {"must": [{"script": "true"}]}}}]},
        {"min_should": [{"key": "n", "match": {"value": 1}}]},
        {"must": [None]},
        ["n"],
        7,
        DEEP,
    ],
    ids=lambda wanted: repr(wanted)[:50],
)
def test_a33_what_nobody_can_be_sure_of_is_refused(wanted: Any) -> None:
    """Unknown clauses and conditions, text among them, broken paths, endless depth: refused, not let through."""
    with pytest.raises(InvalidNameError):
        json_predicate("tenant").confine(ACME, wanted)


def test_conditions_without_fields_pass() -> None:
    """Ids and vectors name no field; the tenant's predicate around them decides whose they are."""
    json_predicate("tenant").confine(ACME, {"must": [{"has_id": [1, 2]}, {"has_vector": "v"}]})
    assert path_segments('a."B.c"[0].d') == ["a", "b.c", "d"]


@dataclass(frozen=True)
class Node:
    """A node as those of SQLAlchemy: an operator and what it stands between."""

    operator: str
    parts: tuple[Any, ...]


def columns(node: Node) -> list[str]:
    """What a host writes for its own trees: the columns, and no to what is raw text."""
    if node.operator == "text":
        raise InvalidNameError("raw text cannot be confined")
    if node.operator == "=":
        return [node.parts[0]]
    return [name for part in node.parts for name in columns(part)]


def test_a33_any_tree_is_confined_by_two_builders() -> None:
    """A host's own expressions: the predicate is a node above them, with the value as a value."""
    predicate = TenantPredicate[Node](
        "tenant",
        equals=lambda field, value: Node("=", (field, value)),
        both=lambda one, other: Node("and", (one, other)),
        fields=columns,
    )
    mine = Node("=", ("tenant", "acme"))
    wanted = Node("or", (Node("=", ("n", 1)), Node("=", ("n", 2))))
    assert predicate.confine(ACME, wanted) == Node("and", (mine, wanted))
    assert predicate.confine(ACME, None) == mine
    for bad in (Node("=", ("tenant", "beta")), Node("or", (wanted, Node("text", ("1 = 1) OR (1 = 1",))))):
        with pytest.raises(InvalidNameError):
            predicate.confine(ACME, bad)
    with pytest.raises(InvalidNameError, match="there is none"):
        predicate.confine(TenantId(""), wanted)
    with pytest.raises(ConfigurationError, match="name"):
        json_predicate("")

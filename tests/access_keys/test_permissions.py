"""Presets, allow lists and the masks they compile to."""

from __future__ import annotations

import gc
from itertools import product
from weakref import ref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hivetenancy.access_keys import permissions as rights
from hivetenancy.errors import ConfigurationError
from hivetenancy.functions import FunctionRegistry
from hivetenancy.ids import Effect, Permission, Surface

SEGMENTS = ("kv", "get", "admin", "a-b", "x_1")
NAMES = [".".join(parts) for depth in (1, 2, 3) for parts in product(SEGMENTS[:4], repeat=depth)]
R, W, D, A = Permission.READ, Permission.WRITE, Permission.DELETE, Permission.ADMIN

segments = st.sampled_from([*SEGMENTS, "*"])
patterns = st.builds(
    lambda parts, rest, deny: ("!" if deny else "") + ".".join([*parts, "**"] if rest or not parts else parts),
    st.lists(segments, max_size=3),
    st.booleans(),
    st.booleans(),
)
lists = st.none() | st.lists(patterns, max_size=4).map(tuple)
sets = st.frozensets(st.sampled_from(list(Permission)))


def registry() -> FunctionRegistry:
    """A registry with every name, their effects in turn."""
    made = FunctionRegistry()
    for number, name in enumerate(NAMES):
        made.declare(name, effect=list(Effect)[number % 4])
    return made


REGISTRY = registry()


def matches(pattern: str, name: str) -> bool:
    """The grammar again, by another road: try every way to spell the pattern out."""
    parts, want = pattern.split("."), name.split(".")
    if parts[-1] == "**":
        return any(matches(".".join(parts[:-1] + ["*"] * count), name) for count in range(1, len(want) + 1))
    return len(parts) == len(want) and all(a in ("*", b) for a, b in zip(parts, want, strict=True))


@given(sets, lists)
def test_masks_are_the_intersection(permissions: frozenset[Permission], functions: tuple[str, ...] | None) -> None:
    """A bit is set exactly for a registered function of a granted effect that the list lets through."""
    mask = rights.compile_mask(permissions, functions, REGISTRY)
    for each in REGISTRY:
        granted = A in permissions or each.effect.value in permissions
        listed = functions is None or (
            any(matches(p, each.name) for p in functions if p[0] != "!")
            and not any(matches(p[1:], each.name) for p in functions if p[0] == "!")
        )
        assert (mask >> each.bit & 1) == (granted and listed)
    assert mask >> len(REGISTRY) == 0


@given(sets, lists, sets, lists)
def test_narrower_never_lies(
    child: frozenset[Permission],
    child_list: tuple[str, ...] | None,
    parent: frozenset[Permission],
    parent_list: tuple[str, ...] | None,
) -> None:
    """What is called narrower grants no bit more."""
    if rights.narrower((child, child_list), (parent, parent_list)):
        mine = rights.compile_mask(child, child_list, REGISTRY)
        assert mine & ~rights.compile_mask(parent, parent_list, REGISTRY) == 0


@pytest.mark.parametrize(
    "child, parent, expected",
    [
        (None, None, True),
        ((), ("kv.get",), True),
        (("kv.get",), None, True),
        (None, ("**",), False),
        (("kv.get",), ("kv.*",), True),
        (("kv.*",), ("kv.get",), False),
        (("kv.**",), ("kv.*",), False),
        (("kv.*",), ("kv.**",), True),
        (("kv.get",), ("**", "!kv.get"), False),
        (("kv.*", "!kv.get"), ("**", "!kv.get"), True),
        (("kv.get", "!kv.**"), ("a",), True),
    ],
)
def test_narrower(child: tuple[str, ...] | None, parent: tuple[str, ...] | None, expected: bool) -> None:
    """Attenuation is judged by the patterns alone."""
    assert rights.narrower((frozenset({R}), child), (frozenset({R}), parent)) is expected
    assert not rights.narrower((frozenset({A}), child), (frozenset({R}), parent))


BAD_PATTERNS = (
    *("", "!", "!!kv", "KV.get", "kv..get", ".kv", "kv.", "kv.g*", "k*", "**.get", "kv.**.get", "kv.***", "kv get"),
    *("kv\n", "\u212av", "kv.?", "kv.[a]", "kv/get", "a" * 131, "kv.get ", "ключ"),
)


@pytest.mark.parametrize("pattern", BAD_PATTERNS)
def test_anything_else_is_no_pattern(pattern: str) -> None:
    """A list with a pattern outside the grammar is refused as a whole."""
    with pytest.raises(ConfigurationError, match="no pattern"):
        rights.compile_mask(frozenset({A}), ("kv.get", pattern), REGISTRY)


def test_a_list_has_an_end() -> None:
    """A hostile list costs a look at its length."""
    rights.check_patterns(("kv.get",) * rights.MAX_PATTERNS)
    with pytest.raises(ConfigurationError, match="at most 1024"):
        rights.check_patterns(("kv.get",) * (rights.MAX_PATTERNS + 1))


def test_d29_allow_lists_were_never_asked() -> None:
    """A list takes away from what is called, not only from what is shown: an empty one means nothing at all."""
    assert rights.compile_mask(frozenset({A}), (), REGISTRY) == 0
    only = rights.compile_mask(frozenset({A}), ("kv.get",), REGISTRY)
    found = REGISTRY.get("kv.get")
    assert found is not None
    assert only == 1 << found.bit


def test_permissions_grant_their_own_effect() -> None:
    """Write grants no read, delete no write; admin grants all four."""
    for each in (R, W, D):
        assert rights.effects({each}) == {Effect(each.value)}
    assert rights.effects({A}) == set(Effect)
    assert rights.effects(()) == frozenset()


def test_presets_are_ordered_by_inclusion() -> None:
    """Admin includes all, MCP and ReadOnly include neither each other nor more."""
    admin, write, read, mcp = (rights.PRESETS[name] for name in ("Admin", "ReadWrite", "ReadOnly", "MCP"))
    assert admin.includes(write)
    assert admin.includes(mcp)
    assert write.includes(read)
    assert write.includes(mcp)
    assert not mcp.includes(read)  # which is not confined to MCP
    assert not read.includes(mcp)
    assert not write.includes(admin)
    assert mcp.surfaces == {Surface.MCP}
    assert rights.effects(mcp.permissions) == {Effect.READ, Effect.WRITE}
    assert rights.effects(write.permissions) == {Effect.READ, Effect.WRITE, Effect.DELETE}


def test_masks_follow_the_registry() -> None:
    """A function that is registered later is in a mask compiled later, and the memory of masks is bounded."""
    functions = FunctionRegistry()
    assert rights.compile_mask(frozenset({R}), None, functions) == 0
    added = functions.declare("kv.get", effect="read")
    assert rights.compile_mask(frozenset({R}), None, functions) == 1 << added.bit
    for number in range(3000):
        rights.compile_mask(frozenset({R}), (f"kv.n{number}",), functions)
    assert len(rights._memos[functions][1]) <= 1024


def test_masks_keep_no_registry_alive() -> None:
    """A host that is gone takes its masks along."""
    functions = FunctionRegistry()
    rights.compile_mask(frozenset({R}), None, functions)
    gone = ref(functions)
    del functions
    gc.collect()
    assert gone() is None

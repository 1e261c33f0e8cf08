"""Functions: their bits, their terms, and the marker on handlers."""

from __future__ import annotations

import functools

import pytest

from hivetenancy.errors import ConfigurationError
from hivetenancy.functions import FunctionRegistry, FunctionSpec, declared, function
from hivetenancy.ids import Effect


def test_each_function_has_a_bit_of_its_own() -> None:
    """Bits rise from 0 without a gap, and the version rises with each."""
    registry = FunctionRegistry()
    assert registry.version == 0
    made = [registry.declare(f"kv.f{n}", effect="read") for n in range(70)]
    assert [each.bit for each in made] == list(range(70))
    assert (registry.version, len(registry), list(registry)) == (70, 70, made)
    assert registry.get("kv.f3") is made[3]
    assert registry.get("kv.g") is None


def test_declaring_the_same_terms_again_changes_nothing() -> None:
    """Two routes may perform one function; masks compiled before stay good."""
    registry = FunctionRegistry()
    first = registry.declare("kv.set", effect="write", cost=2, demand={"operations": 1})
    again = registry.declare("kv.set", effect=Effect.WRITE, cost=2, demand={"operations": 1})
    assert again is first
    assert registry.version == 1


@pytest.mark.parametrize(
    "terms", [{"effect": "read"}, {"effect": "write", "cost": 2}, {"effect": "write", "demand": {"keys": 1}}]
)
def test_other_terms_for_a_taken_name_are_an_error(terms: dict[str, object]) -> None:
    """A read-only twin of a writing function must not slip in."""
    registry = FunctionRegistry()
    registry.declare("kv.set", effect="write")
    with pytest.raises(ConfigurationError, match="declared twice"):
        registry.declare("kv.set", **terms)  # type: ignore[arg-type]
    assert registry.version == 1


@pytest.mark.parametrize("name", ["", "KV.set", "kv.", ".kv", "kv..set", "kv set", "kv.*", "kv.s\n", "ü", "a" * 129])
def test_a_bad_name_is_refused(name: str) -> None:
    """Patterns of allow lists compare names bytewise, so there is one spelling."""
    with pytest.raises(ConfigurationError, match="function name"):
        FunctionSpec(name=name, effect=Effect.READ)


@pytest.mark.parametrize("cost", [0, -1, 1.0, True, "1"])
def test_a_bad_cost_is_refused(cost: object) -> None:
    """An attempt costs at least one unit, in whole numbers."""
    with pytest.raises(ConfigurationError, match="cost"):
        FunctionSpec(name="kv.get", effect=Effect.READ, cost=cost)  # type: ignore[arg-type]


@pytest.mark.parametrize("amount", [-1, 0.5, True, None])
def test_a_bad_demand_is_refused(amount: object) -> None:
    """A negative demand would be a way to gain quota."""
    with pytest.raises(ConfigurationError, match="demand"):
        FunctionSpec(name="kv.get", effect=Effect.READ, demand={"keys": amount})  # type: ignore[dict-item]


def test_an_unknown_effect_names_the_known_ones() -> None:
    """The message lists what can be written."""
    with pytest.raises(ConfigurationError, match="read, write, delete, admin"):
        function("kv.get", effect="peek")


def test_a_demand_cannot_be_changed_afterwards() -> None:
    """The spec copies what it was given, and shows it read-only."""
    demand = {"keys": 1}
    spec = FunctionSpec(name="kv.set", effect=Effect.WRITE, demand=demand)
    demand["keys"] = 0
    assert spec.demand == {"keys": 1}
    with pytest.raises(TypeError):
        spec.demand["keys"] = 0  # type: ignore[index]


class Endpoint:
    """A class-based endpoint."""

    @function("kv.get", effect="read")
    def get(self) -> str:
        """Answer."""
        return "got"


class Mounted:
    """A callable object."""

    def __call__(self) -> str:
        return "called"


class Slotted:
    """An object that cannot carry anything."""

    __slots__ = ()

    def __call__(self) -> None: ...


def test_the_marker_stays_on_functions_methods_and_objects() -> None:
    """The handler is returned as it is, and its declaration is found again."""

    def handler() -> str:
        return "ran"

    mounted, partial = Mounted(), functools.partial(handler)
    assert function("kv.set", effect="write", cost=3)(handler) is handler
    assert function("files.get", effect="read")(mounted) is mounted
    function("kv.part", effect="read")(partial)
    assert (declared(handler), declared(handler).cost) == (  # type: ignore[union-attr]
        FunctionSpec(name="kv.set", effect=Effect.WRITE, cost=3),
        3,
    )
    assert declared(Endpoint.get).name == "kv.get"  # type: ignore[union-attr]
    assert declared(Endpoint().get) is declared(Endpoint.get)
    assert declared(mounted).name == "files.get"  # type: ignore[union-attr]
    assert declared(partial).name == "kv.part"  # type: ignore[union-attr]
    assert (handler(), mounted(), Endpoint().get()) == ("ran", "called", "got")


def test_a_decorator_that_keeps_attributes_keeps_the_marker() -> None:
    """`functools.wraps` carries it on; a wrapper without it hides the marker, which an adapter then reports."""

    @function("kv.get", effect="read")
    def handler() -> None: ...

    @functools.wraps(handler)
    def kept() -> None: ...

    def hidden() -> None: ...

    assert declared(kept) is declared(handler)
    assert declared(hidden) is None


@pytest.mark.parametrize("thing", [Slotted(), len, 7, Endpoint().get])
def test_an_object_that_cannot_carry_the_marker_is_an_error(thing: object) -> None:
    """Never silently unmarked: the message says what to do instead."""
    with pytest.raises(ConfigurationError, match="cannot carry a marker; wrap it"):
        function("kv.get", effect="read")(thing)


def test_something_else_under_the_marker_is_no_declaration() -> None:
    """An object that answers every attribute, as mocks do, declares nothing."""

    class Anything:
        def __getattr__(self, name: str) -> object:
            return object()

    assert declared(Anything()) is None

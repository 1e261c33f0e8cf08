"""The façade: logical names in, logical names out, and nothing that the table does not state."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import pytest

from hivetenancy.errors import ConfigurationError, InvalidNameError, MissingTenantError, MisuseError
from hivetenancy.hooks import IsolationKind, subject_hash
from hivetenancy.ids import Effect
from hivetenancy.namespaces.prefix import IdentityNamespaces
from hivetenancy.stores import facade as facade_module
from hivetenancy.stores.facade import StoreFacade
from hivetenancy.stores.guarded import GuardedStore
from hivetenancy.stores.operations import KINDS, Argument, Reply, StoreOperation
from hivetenancy.tenant import Tenant, standalone_tenant
from tests.stores.world import GUARD, OPERATIONS, AsyncStore, RawStore
from tests.tenants import ACME, BETA, Sink, a_process, a_tenant

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give each test a process in cluster mode, with nothing bound."""
    with a_process(monkeypatch):
        yield


def facade(raw: object, sink: Sink | None = None, **options: Any) -> Any:
    """A façade over the guard over *raw*."""
    return StoreFacade(GuardedStore(raw, GUARD, sink=sink), OPERATIONS, sink=sink or Sink(), **options)


CALLS: list[tuple[str, tuple[Any, ...], dict[str, Any], Any]] = [
    ("set", ("a:1", 1), {"ttl": 5}, True),
    ("set", (), {"key": "b", "value": 2}, True),
    ("mset", ({"c": 3, "d*": 4},), {}, None),
    ("get", ("a:1",), {}, 1),
    ("get", ("x", "default"), {}, "default"),
    ("get", (), {"key": "b"}, 2),
    ("mget", (["a:1", "b"], "c", "x"), {}, [1, 2, 3, None]),
    ("mget", (iter(["a:1"]),), {}, [1]),
    ("several", (["b", "x"],), {}, {"b": 2, "x": None}),
    ("several", (), {"keys": ("b",)}, {"b": 2}),
    ("keys", (), {}, ["a:1", "b", "c", "d*"]),
    ("keys", ("a*",), {}, ["a:1"]),
    ("keys", (None,), {}, ["a:1", "b", "c", "d*"]),
    ("scan", (), {"count": 2}, (2, ["a:1", "b"])),
    ("scan", (2, "*", 2), {}, (0, ["c", "d*"])),
    ("scan", (0,), {"match": "[bc]"}, (0, ["b", "c"])),
    ("between", (), {}, [("a:1", 1), ("b", 2), ("c", 3), ("d*", 4)]),
    ("between", ("b",), {}, [("b", 2), ("c", 3), ("d*", 4)]),
    ("between", ("b", "c"), {}, [("b", 2)]),
    ("between", (), {"high": "b"}, [("a:1", 1)]),
    ("first", (), {}, "a:1"),
    ("first", ("c",), {}, "c"),
    ("first", ("x",), {}, None),
    ("pop", ("c",), {}, ("c", 3)),
    ("pop", ("c",), {}, None),
    ("rename", ("b", "e"), {}, None),
    ("delete", ("a:1", "x", "e"), {}, 2),
    ("delete", (), {}, 0),
    ("ping", (), {}, "pong"),
    ("keys", (), {}, ["d*"]),
]


async def answers(store: Any) -> list[Any]:
    """What *store* answers to the calls above."""
    found = []
    for name, args, options, _ in CALLS:
        fresh = tuple(iter(["a:1"]) if isinstance(each, Iterator) else each for each in args)
        reply = getattr(store, name)(*fresh, **options)
        found.append(await reply if inspect.isawaitable(reply) else reply)
    return found


def neighbour() -> dict[str, Any]:
    """What others have in the store."""
    return {"user:beta:a:1": "theirs", "user:beta:z": "theirs", "user:acme2:a:1": "theirs", "a:1": "nobody's"}


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_tenant_sees_what_it_would_see_alone(asynchronous: bool) -> None:
    """Every operation, by position and by name: the same with neighbours in the store and in standalone mode."""
    raw: Any = AsyncStore() if asynchronous else RawStore()
    data = raw.inner.data if asynchronous else raw.data
    data.update(neighbour())
    guarded = GuardedStore(raw, GUARD)
    shared = StoreFacade(guarded, OPERATIONS)
    with ACME.bound():
        assert await answers(shared) == [expected for *_, expected in CALLS]
    assert data == {**neighbour(), "user:acme:d*": 4}
    assert guarded.trips == 0
    with standalone_tenant(IdentityNamespaces()).bound():
        assert await answers(facade(RawStore())) == [expected for *_, expected in CALLS]
    assert {name for name, *_ in CALLS} | {"scan_iter", "items_iter"} == {each.name for each in OPERATIONS}


async def test_iterators_give_logical_names() -> None:
    """Synchronous and asynchronous, names and pairs."""
    raw, later = RawStore(), AsyncStore()
    for data in (raw.data, later.inner.data):
        data.update(neighbour())
        data.update({"user:acme:a": 1, "user:acme:b": 2})
    with ACME.bound():
        assert list(facade(raw).scan_iter()) == ["a", "b"]
        assert list(facade(raw).items_iter("b*")) == [("b", 2)]
        assert [name async for name in facade(later).scan_iter()] == ["a", "b"]
        assert [pair async for pair in facade(later).items_iter(match="a")] == [("a", 1)]
        await facade(later).scan_iter().aclose()


def test_names_in_bytes() -> None:
    """A store that answers in bytes is asked in bytes, and gives bytes."""
    raw = RawStore()
    store = facade(raw)
    with ACME.bound():
        store.set(b"a", 1)
        store.mset({b"b": 2})
        assert raw.data == {b"user:acme:a": 1, b"user:acme:b": 2}
        assert (store.get(b"a"), store.several([b"b"]), store.first(b"")) == (1, {b"b": 2}, b"a")
        assert store.between(b"a", b"b") == [(b"a", 1)]
        assert store.mget([b"a"], b"b") == [1, 2]


# --- G5: without a tenant ---------------------------------------------------------------------------------------------


def public(store: Any) -> list[str]:
    """The public methods of a façade, as one finds them without knowing its table."""
    found = []
    for name in dir(type(store)):
        if not name.startswith("_"):
            try:
                member = getattr(store, name)
            except AttributeError:
                continue
            if callable(member):
                found.append(name)
    return found


async def open_doors(store: Any) -> list[str]:
    """The public methods that answer though there is no tenant, whatever they are given."""
    found = []
    methods = public(store)
    assert len(methods) >= len(OPERATIONS)
    for name in methods:
        for args in ((), ("a",), ("a", "b"), (["a"],), ({"a": 1},), ("a", 1, 2)):
            try:
                reply = getattr(store, name)(*args)
                if inspect.isawaitable(reply):
                    await reply
                elif hasattr(reply, "__aiter__"):
                    [each async for each in reply]
                elif isinstance(reply, Iterator):
                    list(reply)
            except MissingTenantError:
                continue
            except Exception as error:  # it got further than to ask for the tenant
                found.append(f"{name}: {error!r}")
            else:
                found.append(name)
    return found


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a10_without_a_tenant_every_public_method_raises(asynchronous: bool) -> None:
    """All of them, found by introspection, iteration included; and the store is not asked anything."""
    raw: Any = AsyncStore() if asynchronous else RawStore()
    assert await open_doors(facade(raw)) == []
    assert await open_doors(GuardedStore(raw, GUARD)) == []
    assert (raw.inner if asynchronous else raw).calls == 0


async def test_a10_an_open_door_is_found() -> None:
    """The introspection finds a method that asks for no tenant, also one that looks harmless."""

    class Open(StoreFacade):
        def exists(self, name: str) -> bool:
            return name in self._raw.data

        async def scan_all(self) -> list[Any]:
            return list(self._raw.data)

    doors = await open_doors(Open(RawStore(), OPERATIONS))
    assert {"exists", "scan_all"} <= {door.split(":")[0] for door in doors}


# --- what the table does not state ------------------------------------------------------------------------------------


def test_a10_an_unregistered_operation_does_not_exist() -> None:
    """It is an attribute error with the remedy; there is no ``__getattr__``; the driver's own attributes are closed."""
    store = facade(RawStore())
    raw = StoreFacade(RawStore(), OPERATIONS)
    with ACME.bound():
        for each in (store, raw):
            for name in ("flush", "setex", "version", "data"):
                assert not hasattr(each, name)
        with pytest.raises(
            AttributeError, match=r"'setex' is no operation of this façade.*StoreOperation\(name='setex'"
        ):
            raw.setex("a", 1, 2)
        with pytest.raises(AttributeError, match=r"'setex' is not in the guard's table.*at\(0\)"):
            GuardedStore(RawStore(), GUARD).setex("a", 1, 2)
        with pytest.raises(AttributeError):
            raw.never_heard_of  # noqa: B018 - that is the question
    assert "__getattr__" not in {name for kind in type(raw).__mro__ for name in vars(kind)}
    assert dir(raw) == sorted(each.name for each in OPERATIONS)
    assert repr(raw) == "<StoreFacade of RawStore>"


def test_a10_every_method_of_the_driver_is_stated_or_closed() -> None:
    """What a new version of the driver brings along is closed by itself."""

    class Newer(RawStore):
        def getdel(self, key: Any) -> Any:
            return self.data.pop(key, None)

    stated = {each.name for each in OPERATIONS}
    store = StoreFacade(Newer(), OPERATIONS)
    driver = {name for name in dir(Newer()) if not name.startswith("_")}
    assert {name for name in driver if hasattr(store, name)} == stated
    assert driver - stated == {"calls", "data", "flush", "getdel", "lies", "setex", "version"}


WRONG: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("get", (), {}),
    ("get", ("a", "default", "user:beta:a:1"), {}),
    ("get", ("a",), {"key": "user:beta:a:1"}),
    ("get", ("a",), {"keys": "user:beta:a:1"}),
    ("set", (), {"value": 1}),
    ("mset", (), {}),
    ("mget", (), {}),
    ("mget", ("abc",), {}),
    ("mget", (["a"],), {"more": "user:beta:a:1"}),
    ("delete", (), {"keys": ["user:beta:a:1"]}),
    ("scan", (), {"pattern": "*"}),
    ("ping", ("user:beta:a:1",), {}),
    ("rename", ("a",), {}),
]


@pytest.mark.parametrize("call", WRONG, ids=repr)
def test_a10_arguments_that_the_table_does_not_state_are_refused(
    call: tuple[str, tuple[Any, ...], dict[str, Any]],
) -> None:
    """One too many, one too few, an unknown keyword, one given twice: the store is not asked."""
    raw = RawStore()
    name, args, options = call
    with ACME.bound(), pytest.raises(TypeError):
        getattr(StoreFacade(raw, OPERATIONS), name)(*args, **options)
    assert raw.calls == 0


def test_a09_names_that_cannot_be_scoped_are_refused() -> None:
    """Physical names, other types, empty ones; wherever they stand."""
    raw = RawStore()
    store: Any = StoreFacade(raw, OPERATIONS)
    with ACME.bound():
        for wrong in (ACME.kv.key("a"), "", None, 7, "\ud800", BETA.kv.key("a")):
            for call in (
                lambda wrong=wrong: store.get(wrong),
                lambda wrong=wrong: store.set(key=wrong, value=1),
                lambda wrong=wrong: store.delete("a", wrong),
                lambda wrong=wrong: store.mget([wrong]),
                lambda wrong=wrong: store.mget([], wrong),
                lambda wrong=wrong: store.mset({wrong: 1}),
                lambda wrong=wrong: store.rename("a", wrong),
            ):
                with pytest.raises(InvalidNameError):
                    call()
    assert raw.calls == 0


# --- what the store must not return -----------------------------------------------------------------------------------

LISTING = ("keys", "scan", "between", "first", "pop", "several", "scan_iter", "items_iter")


def test_every_kind_of_reply_is_read() -> None:
    """A kind that nobody reads would hand out physical names: each has its reader, but for plain values."""
    assert set(facade_module._READ) == set(Reply) - {Reply.VALUE}


def test_one_foreign_name_among_own_ones_is_told() -> None:
    """A listing is cut at one go; where that fails, the name that is foreign is the one that is written down."""
    raw, sink = RawStore(), Sink()
    raw.keys = lambda pattern="*": ["user:acme:a", "user:beta:b", "user:acme:c"]  # type: ignore[method-assign]
    store: Any = StoreFacade(raw, OPERATIONS, sink=sink)
    with ACME.bound(), pytest.raises(MisuseError):
        store.keys()
    assert [event.subject_hash for event in sink.isolations] == [subject_hash("user:beta:b")]


@pytest.mark.parametrize("name", LISTING)
@pytest.mark.parametrize("lie", ["user:beta:secret", "", "user:acme2:x", b"user:beta:secret", 7])
async def test_a_foreign_name_in_a_reply_raises_and_is_never_shown(name: str, lie: Any) -> None:
    """Each shape of reply: it raises, one event is written, and neither shows the name."""
    raw, sink = RawStore(), Sink()
    raw.lies = lie
    raw.data["user:beta:secret"] = raw.data[b"user:beta:secret"] = raw.data[7] = raw.data[""] = raw.data[
        "user:acme2:x"
    ] = 1
    raw.keys = lambda pattern="*": [lie]  # type: ignore[method-assign]
    raw.first = raw._first = lambda beginning="": lie  # type: ignore[method-assign, attr-defined]
    raw.pop = lambda beginning="": (lie, 1)  # type: ignore[method-assign]
    raw.between = lambda low=None, high=None: [(lie, 1)]  # type: ignore[method-assign]
    store: Any = StoreFacade(raw, OPERATIONS, sink=sink)
    with ACME.bound():
        with pytest.raises(MisuseError, match="returned a name that is not this tenant's") as caught:
            reply = getattr(store, name)(["a"]) if name == "several" else getattr(store, name)()
            list(reply)
    assert "beta" not in str(caught.value)
    assert caught.value.__cause__ is caught.value.__context__ is None
    (event,) = sink.isolations
    assert (event.kind, event.tenant, event.operation) == (IsolationKind.FOREIGN_NAME, "acme", f"store.{name}")
    assert "beta" not in repr(event)


async def test_a_sink_that_fails_changes_no_answer() -> None:
    """It still raises for the name, and not for the sink."""
    raw = RawStore()
    raw.lies = "user:beta:secret"
    with ACME.bound(), pytest.raises(MisuseError, match="not this tenant's"):
        facade(raw, Sink(ZeroDivisionError())).keys()


async def test_an_iterator_that_is_handed_to_another_tenant_raises() -> None:
    """The next step of somebody else's listing, or of nobody's, or of another life's, gives nothing."""
    raw, later = RawStore(), AsyncStore()
    for data in (raw.data, later.inner.data):
        data.update({f"user:acme:{name}": 1 for name in "abcd"})
    with ACME.bound():
        names, slow = facade(raw).scan_iter(), facade(later).scan_iter()
        assert (next(names), await anext(slow)) == ("a", "a")
    for other in (BETA, a_tenant("acme", generation=2)):
        with other.bound():
            with pytest.raises(MisuseError, match="another tenant's work"):
                next(names)
            with pytest.raises(MisuseError, match="another tenant's work"):
                await anext(slow)
    with pytest.raises(MissingTenantError):
        next(names)
    with a_tenant("acme").bound():
        assert (next(names), await anext(slow)) == ("b", "b")


# --- tables -----------------------------------------------------------------------------------------------------------


def test_only_the_effects_that_are_wanted() -> None:
    """A façade of reads has no writes, not even by another name."""
    store = StoreFacade(RawStore(), OPERATIONS, effects=[Effect.READ])
    assert dir(store) == sorted(each.name for each in OPERATIONS if each.effect is Effect.READ)
    with ACME.bound(), pytest.raises(AttributeError, match="no operation"):
        store.set("a", 1)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "_raw"},
        {"name": "a b"},
        {"name": "get", "kind": "files"},
        {"name": "get", "kind": "reserve"},
        {"name": "get", "arguments": {"keys": Argument.EACH_NAME, "more": Argument.VALUE}},
    ],
)
def test_tables_that_cannot_be(wrong: dict[str, Any]) -> None:
    """They are refused when they are written."""
    with pytest.raises(ConfigurationError):
        StoreOperation(**{"effect": Effect.READ, **wrong})


def test_a_table_that_does_not_fit_the_store() -> None:
    """A method that the store does not have, or that stands there twice."""
    with pytest.raises(ConfigurationError, match="no method 'getset'"):
        StoreFacade(RawStore(), [StoreOperation(name="getset", effect=Effect.WRITE)])
    with pytest.raises(ConfigurationError, match="'ping' is stated twice"):
        StoreFacade(RawStore(), [StoreOperation(name="ping", effect=Effect.READ)] * 2)
    with pytest.raises(ConfigurationError, match="no method 'version'"):
        StoreFacade(RawStore(), [StoreOperation(name="version", effect=Effect.READ)])
    with pytest.raises(ConfigurationError, match="getset"):
        GuardedStore(RawStore(), {**GUARD, "getset": GUARD["get"]})
    with pytest.raises(ConfigurationError, match="no kind"):
        GuardedStore(RawStore(), GUARD, kind={"get": "kv"})


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_name(kind: str) -> None:
    """The names are those of the tenant's handle of that kind; the guard of another kind stops them."""
    raw = RawStore()
    table = [
        StoreOperation(
            name="set", arguments={"key": Argument.NAME, "value": Argument.VALUE}, effect=Effect.WRITE, kind=kind
        ),
        StoreOperation(
            name="first", arguments={"b": Argument.BEGINNING}, effect=Effect.READ, reply=Reply.NAME, kind=kind
        ),
    ]
    guard = GuardedStore(raw, {"set": GUARD["set"], "first": lambda args, options: [options["b"]]}, kind=kind)
    store: Any = StoreFacade(guard, table[:1])
    with ACME.bound():
        store.set("a.b", 1)
        assert list(raw.data) == [getattr(ACME, kind).key("a.b")]
        assert isinstance(ACME, Tenant)


def test_topics_need_their_pattern() -> None:
    """There is no one pattern for every topic, so it has to be given."""
    table = [
        StoreOperation(
            name="keys", arguments={"pattern": Argument.PATTERN}, effect=Effect.READ, reply=Reply.NAMES, kind="topics"
        )
    ]
    store: Any = StoreFacade(RawStore(), table)
    with ACME.bound():
        for call in (lambda: store.keys(), lambda: store.keys(None), lambda: store.keys(pattern=None)):
            with pytest.raises(TypeError, match="'pattern' is missing"):
                call()

"""The second lock: what it stops, and that it does so by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from hivetenancy.errors import MissingTenantError, MisuseError
from hivetenancy.hooks import IsolationKind
from hivetenancy.ids import Effect
from hivetenancy.namespaces.prefix import IdentityNamespaces, PrefixNamespaces
from hivetenancy.stores.facade import StoreFacade
from hivetenancy.stores.guarded import GuardedStore
from hivetenancy.stores.operations import Argument, StoreOperation
from hivetenancy.tenant import current_tenant, standalone_tenant
from tests.stores.world import GUARD, OPERATIONS, AsyncStore, RawStore
from tests.tenants import ACME, BETA, Sink, a_process, a_tenant

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give each test a process in cluster mode, with nothing bound."""
    with a_process(monkeypatch):
        yield


A, B = "user:acme:a", "user:acme:b"
OWN: dict[str, list[tuple[Any, ...]]] = {
    "get": [(A,), (b"user:acme:a",), (ACME.kv.key("a"),)],
    "set": [(A, "user:beta:a")],
    "delete": [(), (A, B)],
    "mget": [([A, B],), ((A,), B), ([],)],
    "mset": [({A: 1},), ({},)],
    "keys": [("user:acme:*",)],
    "scan": [(0, "user:acme:*")],
    "between": [(A, B), ("user:acme:", "user:acme;")],
    "first": [("user:acme:",)],
    "pop": [("user:acme:a",)],
    "several": [([A],)],
    "scan_iter": [("user:acme:*",)],
    "items_iter": [("user:acme:a",)],
    "ping": [()],
    "rename": [(A, B)],
}
FOREIGN_NAMES: list[Any] = [
    "user:beta:a",
    "a",
    "",
    None,
    7,
    b"user:beta:a",
    "user:acme2:a",
    "user:acm",
    "USER:acme:a",
    "*",
]
FOREIGN: dict[str, list[tuple[Any, ...]]] = {
    "get": [(), *((name,) for name in FOREIGN_NAMES)],
    "set": [(name, 1) for name in FOREIGN_NAMES],
    "delete": [(A, name) for name in FOREIGN_NAMES] + [([A, "user:beta:a"],)],
    "mget": [([A, name],) for name in FOREIGN_NAMES] + [([A], "user:beta:a"), (iter([A]),)],
    "mset": [({A: 1, name: 2},) for name in FOREIGN_NAMES] + [(None,), (iter([]),), ("user:acme:a",)],
    "keys": [(), *((name,) for name in FOREIGN_NAMES)],
    "scan": [(), (0,), *((0, name) for name in FOREIGN_NAMES)],
    "between": [(), (A,), (A, None), (A, "user:acme;a"), (A, "user:beta:a"), (A, b""), (None, B), ("user:acm", B)],
    "first": [(), ("",), ("user:acm",)],
    "pop": [(), ("",), ("user:beta:",)],
    "several": [([A, name],) for name in FOREIGN_NAMES],
    "scan_iter": [(), ("*",)],
    "items_iter": [(), ("user:*",)],
    "rename": [(A, "user:beta:a"), ("user:beta:a", A), (A,), (A, None)],
}


@pytest.mark.parametrize("method", OWN)
def test_own_names_pass(method: str) -> None:
    """Every method, with the running tenant's names, in every form: the store is asked."""
    raw = RawStore()
    guarded = GuardedStore(raw, GUARD)
    for args in OWN[method]:
        raw.data = {A: 1, "user:acme:b": 2}
        with ACME.bound():
            reply = getattr(guarded, method)(*args)
        if isinstance(reply, Iterator):
            list(reply)
    assert (guarded.trips, raw.calls > 0) == (0, True)
    assert set(OWN) == set(GUARD)


@pytest.mark.parametrize("method", FOREIGN)
def test_a10_foreign_names_trip(method: str) -> None:
    """Every method, with one name of somebody else among the arguments, or none at all: loud, counted, written once."""
    for args in FOREIGN[method]:
        raw, sink = RawStore(), Sink()
        guarded = GuardedStore(raw, GUARD, sink=sink)
        with ACME.bound(), pytest.raises(MisuseError, match=f"{method}: a physical name") as caught:
            getattr(guarded, method)(*args)
        assert (guarded.trips, raw.calls) == (1, 0)
        (event,) = sink.isolations
        assert (event.kind, event.tenant, event.operation) == (
            IsolationKind.FOREIGN_NAME,
            "acme",
            f"guard.{method}",
        )
        assert "beta" not in f"{event!r}{caught.value}"


def test_names_that_are_given_by_name() -> None:
    """Keywords are read too."""
    guarded = GuardedStore(RawStore(), GUARD)
    with ACME.bound():
        guarded.set(key=A, value=1)
        guarded.mset(mapping={A: 1})
        guarded.between(low=A, high=B)
        guarded.rename(old=A, new=B)
        for wrong in (
            lambda: guarded.set(key="a", value=1),
            lambda: guarded.mset(mapping={"a": 1}),
            lambda: guarded.between(low=A, high="user:beta:"),
            lambda: guarded.rename(old=B, new="a"),
            lambda: guarded.delete(A, keys="user:beta:a"),
        ):
            with pytest.raises(MisuseError):
                wrong()
    assert guarded.trips == 5


async def test_a24_the_active_context_counts_and_not_the_callers_handle() -> None:
    """A handle of acme used in beta's work, or in nobody's: the façade's scope is right, and the guard stops it."""
    raw, sink = RawStore(), Sink()
    guarded = GuardedStore(raw, GUARD, sink=sink)
    key = ACME.kv.key("a")
    with BETA.bound(), pytest.raises(MisuseError):
        guarded.get(key)
    with pytest.raises(MissingTenantError):
        guarded.get(key)
    with pytest.raises(MissingTenantError):
        await asyncio.get_running_loop().run_in_executor(None, guarded.get, key)
    assert [event.kind for event in sink.isolations] == [IsolationKind.FOREIGN_NAME] + [
        IsolationKind.MISSING_CONTEXT
    ] * 2
    assert (guarded.trips, raw.calls) == (3, 0)
    later = GuardedStore(AsyncStore(), GUARD)
    with ACME.bound():
        await later.set(key, 1)
        assert await later.get(key) == 1
    with BETA.bound(), pytest.raises(MisuseError):
        await later.get(key)


def test_a_sink_that_fails_changes_no_answer() -> None:
    """The call is stopped and counted all the same."""
    guarded = GuardedStore(RawStore(), GUARD, sink=Sink(ZeroDivisionError()))
    with ACME.bound(), pytest.raises(MisuseError):
        guarded.get("a")
    assert guarded.trips == 1
    assert repr(guarded) == "<GuardedStore of RawStore, 1 trips>"


def test_standalone_mode_passes_everything_that_is_a_name() -> None:
    """There is nobody else; an open range has no end."""
    raw = RawStore()
    guarded = GuardedStore(raw, GUARD)
    with standalone_tenant(IdentityNamespaces()).bound():
        guarded.set("a", 1)
        assert (guarded.get(b"a"), guarded.between("", None), guarded.keys("*")) == (None, [("a", 1)], ["a"])
    assert guarded.trips == 0


# --- two locks --------------------------------------------------------------------------------------------------------


class Forgot(StoreFacade):
    """A façade on which somebody has written an operation by hand, and forgot to scope."""

    def mget(self, keys: Any) -> Any:
        """Of all operations, that one."""
        current_tenant()
        return self._raw.mget(keys)


def leaks(store: Any) -> bool:
    """Whether acme reads what is beta's."""
    with ACME.bound():
        try:
            return "secret" in store.mget(["user:beta:a"])
        except (MisuseError, AttributeError):
            return False


def test_a10_a_forgotten_mget_leaks_without_the_second_lock() -> None:
    """Written by hand it leaks; behind the guard it trips; stated in the table it does neither."""
    raw = RawStore()
    raw.data["user:beta:a"] = "secret"
    rest = [each for each in OPERATIONS if each.name != "mget"]
    table = StoreFacade(raw, OPERATIONS)
    assert not leaks(table)
    # A method of a subclass stands behind what the table closes, so even this needs the store to have no such method.
    assert not leaks(Forgot(raw, rest))
    hand = type("Hand", (), {"mget": lambda self, keys: raw.mget(keys)})()
    assert leaks(hand)
    guarded = GuardedStore(raw, GUARD)
    assert not leaks(type("Hand", (), {"mget": lambda self, keys: guarded.mget(keys)})())
    assert guarded.trips == 1


def test_a10_a_table_that_calls_a_name_a_value_trips_the_guard() -> None:
    """The other way to forget it: ``mget`` in the table, with its names declared as values."""
    raw = RawStore()
    raw.data["user:beta:a"] = "secret"
    wrong = [StoreOperation(name="mget", arguments={"keys": Argument.VALUE}, effect=Effect.READ)]
    assert leaks(StoreFacade(raw, wrong))
    guarded = GuardedStore(raw, GUARD)
    assert not leaks(StoreFacade(guarded, wrong))
    assert guarded.trips == 1


def test_a_handle_that_was_built_wrongly_trips_a_guard_of_its_own_names() -> None:
    """Two tenants who share their names by a fault of the handle are stopped where the guard asks its own manager."""
    raw = RawStore()
    wrong = a_tenant("acme")
    wrong.names, wrong.kv = BETA.names, BETA.kv
    own = GuardedStore(raw, GUARD, names=PrefixNamespaces(scheme="slug"))
    believing = GuardedStore(raw, GUARD)
    with wrong.bound():
        StoreFacade(believing, OPERATIONS).set("a", 1)  # type: ignore[attr-defined]
        with pytest.raises(MisuseError):
            StoreFacade(own, OPERATIONS).set("a", 1)  # type: ignore[attr-defined]
    assert (own.trips, believing.trips, list(raw.data)) == (1, 0, ["user:beta:a"])

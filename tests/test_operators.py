"""Operators: a type of their own, a reason, an audit of every act."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from hivetenancy.compose import Tenancy
from hivetenancy.errors import ConfigurationError, InvalidNameError, MisuseError
from hivetenancy.hooks import AuditEvent, LoggingAudit
from hivetenancy.ids import STANDALONE, TenantId
from hivetenancy.namespaces.inspection import Owned
from hivetenancy.operators import Operator, OperatorEvent, keys
from hivetenancy.tenant import Tenant
from hivetenancy.testing import FakeHiveHub, ManualClock
from tests.tenants import ACME, BETA, NAMES, Sink, a_process, who

pytestmark = pytest.mark.anyio

GOAL, HOME = TenantId("acme"), TenantId("beta")


@pytest.fixture(autouse=True)
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give each test a process in cluster mode, with nothing bound."""
    with a_process(monkeypatch):
        yield


def an_operator(sink: Any = None, *, reason: Any = "ticket 4711", names: Any = NAMES) -> Operator:
    """One that is not at work yet."""
    clock = ManualClock()
    return Operator(names, generation=lambda tenant: 1, audit=sink or Sink(), now=clock.now, reason=reason)


def acts(sink: Sink) -> list[tuple[str, Any, Any, int]]:
    """What was written down."""
    events = [event for event in sink.events if isinstance(event, OperatorEvent)]
    assert len(events) == len(sink.events)
    assert {event.why for event in events} <= {"ticket 4711"}
    return [(event.act, event.tenant, event.target, event.count) for event in events]


async def test_a48_every_act_is_written_down_once_and_before_it_is_done() -> None:
    """On entry and for each act one event, with the reason; in it nobody is bound, whoever was outside."""
    sink, store = Sink(), {"user:acme:a": 1, "user:acme:b": 2}
    operator = an_operator(sink)

    def copy(old: Any, new: Any) -> None:
        assert sink.events[-1].act == "copy"  # type: ignore[attr-defined]  # written down by then
        store[str(new)] = store[str(old)]

    async def copy_later(old: Any, new: Any) -> None:
        copy(old, new)

    with ACME.bound(), operator as same:
        assert (same, who()) == (operator, "nobody")
        assert operator.tenant_names(GOAL).kv.key("a") == "user:acme:a"
        assert operator.inspect("user:beta:x") == Owned(
            tenant=HOME,
            kinds=operator.inspect("user:beta:x").kinds,
            logical="x",  # type: ignore[attr-defined]
        )
        assert operator.copy(GOAL, HOME, ["a"], copy, kind=keys) == 1
        assert await operator.copy_async(GOAL, HOME, iter(["a", "b"]), copy_later, kind=keys) == 2
        with BETA.bound():
            assert who() == "beta"
    assert who() == "nobody"
    assert store == {"user:acme:a": 1, "user:acme:b": 2, "user:beta:a": 1, "user:beta:b": 2}
    assert acts(sink) == [
        ("enter", None, None, 0),
        ("tenant_names", GOAL, None, 0),
        ("inspect", None, None, 1),
        ("inspect", None, None, 1),
        ("copy", GOAL, HOME, 1),
        ("copy", GOAL, HOME, 2),
    ]
    async with operator:
        assert who() == "nobody"
    assert len(sink.events) == 7


class Silent(Operator):
    """An operator who writes nothing down."""

    def _write(self, act: str, **options: Any) -> None: ...


class Staying(Operator):
    """An operator in whose block the tenant stays bound."""

    def _enter(self) -> Any:
        self._binding = type("Nothing", (), {"end": lambda self: None})()  # type: ignore[assignment]
        return self


def test_a48_an_operator_without_audit_or_with_a_tenant_is_found() -> None:
    """What the test above asserts does not hold of these two."""
    sink = Sink()
    for broken in (Silent, Staying):
        operator = broken(NAMES, generation=lambda tenant: 1, audit=sink, now=ManualClock().now, reason="ticket 4711")
        with ACME.bound(), operator:
            assert (who() == "nobody") is (broken is Silent)
    assert acts(sink) == []


@pytest.mark.parametrize("reason", ["", " ", "\t\n", None, 7, "a\nb", "x" * 501, "\x1b[31m", b"why"])
def test_a48_a_reason_that_is_none(reason: Any) -> None:
    """Blank, too long, with line breaks or escapes: refused before anything is done."""
    sink = Sink()
    with pytest.raises(MisuseError):
        an_operator(sink, reason=reason)
    for tenancy in (Tenancy.standalone(), Tenancy.embedded(FakeHiveHub(), audit=sink)):
        with pytest.raises(MisuseError):
            tenancy.as_operator(reason=reason)
    assert sink.events == []


def test_a48_what_cannot_be_written_down_is_not_done() -> None:
    """Without a sink there is no operator; a sink that fails stops the act."""
    with pytest.raises(MisuseError, match="audit="):
        Operator(NAMES, generation=lambda tenant: 1, audit=None, now=ManualClock().now, reason="why")
    with pytest.raises(MisuseError, match="audit="):
        Tenancy.embedded(FakeHiveHub(), audit=None).as_operator(reason="why")
    with pytest.raises(ZeroDivisionError):
        with an_operator(Sink(ZeroDivisionError())):
            pass
    assert who() == "nobody"
    sink, copied = Sink(), []
    with an_operator(sink) as operator:
        sink.failure = ZeroDivisionError()
        with pytest.raises(ZeroDivisionError):
            operator.copy(GOAL, HOME, ["a"], lambda old, new: copied.append(old), kind=keys)
        with pytest.raises(ZeroDivisionError):
            operator.tenant_names(GOAL)
    assert copied == []


async def test_an_operator_acts_in_its_block_alone() -> None:
    """Before and after it, twice at once, in a generator: refused."""
    operator = an_operator()
    calls: list[Any] = [
        lambda: operator.tenant_names(GOAL),
        lambda: operator.inspect("x"),
        lambda: operator.copy(GOAL, HOME, [], lambda old, new: None, kind=keys),
    ]
    for _ in range(2):
        for call in calls:
            with pytest.raises(MisuseError, match="inside its block"):
                call()
        with operator, pytest.raises(MisuseError, match="at work already"):
            with operator:
                pass

    def works() -> Iterator[str]:
        with operator:
            yield who()

    async def works_too() -> AsyncIterator[str]:
        async with operator:
            yield who()

    with pytest.raises(MisuseError, match="around a yield"):
        next(works())
    with pytest.raises(MisuseError, match="around a yield"):
        await anext(works_too())
    assert repr(operator) == "<Operator, not at work: ticket 4711>"


async def test_a_copy_is_all_scoped_before_it_begins() -> None:
    """A wrong id, a wrong name, one tenant twice, a coroutine function: nothing is copied."""
    sink, copied = Sink(), []

    def copy(old: Any, new: Any) -> None:
        copied.append((old, new))

    async def later(old: Any, new: Any) -> None:
        copied.append((old, new))

    with an_operator(sink) as operator:
        for source, target, names in ((GOAL, "Beta!", ["a"]), ("", HOME, ["a"]), (GOAL, HOME, ["a", ""])):
            with pytest.raises(InvalidNameError):
                operator.copy(TenantId(source), TenantId(target), names, copy, kind=keys)
        with pytest.raises(MisuseError, match="one tenant"):
            operator.copy(GOAL, GOAL, ["a"], copy, kind=keys)
        with pytest.raises(MisuseError, match="copy_async"):
            operator.copy(GOAL, HOME, ["a"], later, kind=keys)
        with pytest.raises(ConfigurationError, match="has no inspect"):
            with an_operator(names=object()) as blind:
                blind.inspect("x")
        with pytest.raises(InvalidNameError):
            operator.tenant_names(TenantId("Beta!"))
    assert copied == []
    assert [act for act, *_ in acts(sink)] == ["enter", "copy"]


def test_a48_no_tenant_leads_to_an_operator() -> None:
    """An operator is no tenant and has nothing of one; nothing of a tenant's public face gives an operator."""
    assert not issubclass(Operator, Tenant)
    assert not issubclass(Tenant, Operator)
    public = {name for name in dir(Operator) if not name.startswith("_")}
    assert public == {"copy", "copy_async", "inspect", "reason", "tenant_names"}
    assert not {"reserve", "charge", "record", "bind", "kv", "usage"} & public
    face = {name: getattr(Tenant, name) for name in dir(Tenant) if not name.startswith("_")}
    assert not [name for name in face if "operator" in name or "inspect" in name]
    for name, member in face.items():
        function = member.fget if isinstance(member, property) else member
        if callable(function) and not isinstance(function, type):
            assert "Operator" not in str(inspect.signature(function)), name


async def test_a48_operators_of_both_modes(caplog: pytest.LogCaptureFixture) -> None:
    """A tenancy gives one with its names, audit, generations and clock; the default audit shows the reason."""
    hub, sink = FakeHiveHub(clock=ManualClock()), Sink()
    tenancy = Tenancy.embedded(hub, audit=sink)
    acme, beta = hub.add_tenant("acme"), hub.add_tenant("beta")
    with tenancy.as_operator(reason=" move to another plan ") as operator:
        names = operator.tenant_names(acme.id)
        assert names.kv.key("a") == f"user:{acme.id}:a"
        assert operator.copy(acme.id, beta.id, ["a"], lambda old, new: None, kind=lambda names: names.blobs) == 1
    assert [event.what for event in sink.events] == [
        f"operator {act}: move to another plan" for act in ("enter", "tenant_names", "copy")
    ]
    assert {event.at_us for event in sink.events} == {tenancy.clock.now()[1]}
    alone = Tenancy.standalone()
    async with alone.as_operator(reason="look") as operator:
        assert operator.tenant_names(STANDALONE).kv.key("a") == "a"
        with pytest.raises(MisuseError, match="one tenant"):
            operator.copy(STANDALONE, STANDALONE, ["a"], print, kind=keys)
    assert [record.getMessage() for record in caplog.records if record.name == "hivetenancy.audit"] == [
        f"operator {act}: look reason=None tenant={tenant} key_id=None function=None"
        for act, tenant in (("enter", None), ("tenant_names", "standalone"))
    ]
    assert issubclass(OperatorEvent, AuditEvent)
    assert isinstance(LoggingAudit(), LoggingAudit)


async def _nothing(old: object, new: object) -> None:
    """A copy that copies nothing."""


@pytest.mark.anyio
async def test_a48_a39_nothing_is_copied_to_a_tenant_that_is_being_deleted() -> None:
    """Before the first name and before each further one it is asked; without the question all would be copied."""
    copied: list[object] = []
    gone: set[str] = set()

    def operator(*, asks: bool = True) -> Operator:
        ending = (lambda tenant: tenant in gone) if asks else (lambda tenant: False)
        return Operator(
            NAMES, generation=lambda tenant: 1, ending=ending, audit=Sink(), now=ManualClock().now, reason="why"
        )

    def copy(old: object, new: object) -> None:
        copied.append(new)
        gone.add("beta")  # the deletion begins meanwhile

    with operator() as acting, pytest.raises(MisuseError, match="being deleted"):
        acting.copy(TenantId("acme"), TenantId("beta"), ["a", "b"], copy, kind=keys)
    assert len(copied) == 1
    async with operator() as acting:
        with pytest.raises(MisuseError, match="being deleted"):
            await acting.copy_async(TenantId("acme"), TenantId("beta"), ["a"], _nothing, kind=keys)
    with operator(asks=False) as acting:
        assert acting.copy(TenantId("acme"), TenantId("beta"), ["a", "b"], copy, kind=keys) == 2

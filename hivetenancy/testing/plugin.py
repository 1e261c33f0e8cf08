"""Fixtures for tests of multi-tenant servers: a clock, a hub, tenants, a tenancy, a client.

They are plain fixtures and bind to no event loop, so they serve under anyio, pytest-asyncio and `asyncio.run` alike.
``@pytest.mark.hive(...)`` says what a test needs:

- ``plan``: the plan of the tenants that it names; ``free`` if it does not say.
- ``faults``: what goes wrong, each a mapping of ``calls`` (a name or a list; all without), ``times`` and the fields of
  `hivetenancy.testing.faults.Fault`.
- ``calls``: the calls that it expects; it fails where it causes any other. In strict mode (``--hive-strict``, or
  ``hive_strict`` in the configuration) a test that does not say expects none.
- ``extensions``: what the hub announces, for its wire.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from hivetenancy.compose import ClusterTenancy

    from .asgi import AsgiClient
    from .clock import ManualClock
    from .hub import FakeHiveHub
    from .hub_tenants import FakeTenant

_STATED = ("plan", "faults", "calls", "extensions")
_HUB: Final = pytest.StashKey["FakeHiveHub"]()
"""The hub of a test, as long as that has not failed.

Kept with the test and not looked up among its fixtures: a test may ask for the hub while it runs, and may have a
``hive_hub`` of its own that is no hub of ours.
"""


class Tenants:
    """The tenants of a test, each made when it is first named: ``hive_tenants["acme"]``.

    Args:
        hub: Where they are.
        plan: Their plan.
    """

    def __init__(self, hub: FakeHiveHub, plan: str) -> None:
        self._hub = hub
        self._plan = plan

    def __repr__(self) -> str:
        return f"<Tenants {[tenant.name for tenant in self._hub.tenants]}>"

    def __getitem__(self, name: str) -> FakeTenant:
        known = {tenant.name: tenant for tenant in self._hub.tenants}
        return known[name] if name in known else self._hub.add_tenant(name, plan=self._plan)


def _marker(node: Any) -> Mapping[str, Any]:
    """What the markers of a test say; the nearest counts."""
    stated: dict[str, Any] = {}
    for marker in reversed(list(node.iter_markers("hive"))):
        unknown = sorted(set(marker.kwargs) - set(_STATED))
        if marker.args or unknown:
            raise pytest.UsageError(
                f"@pytest.mark.hive takes {', '.join(_STATED)} by name; got {marker.args or unknown}"
            )
        stated |= marker.kwargs
    return stated


def _names(calls: str | Sequence[str]) -> Sequence[str]:
    return [calls] if isinstance(calls, str) else calls


def _is_strict(config: pytest.Config) -> bool:
    asked = config.getoption("--hive-strict")
    return bool(config.getini("hive_strict") if asked is None else asked)


@pytest.fixture
def hive_clock() -> ManualClock:
    """A clock that stands still until it is moved."""
    from .clock import ManualClock

    return ManualClock()


@pytest.fixture
def hive_hub(hive_clock: ManualClock, request: pytest.FixtureRequest) -> Iterator[FakeHiveHub]:
    """A fake HiveHub in that time, as the marker wants it. What is called in the end of other fixtures counts too."""
    from .hub import FakeHiveHub

    stated = _marker(request.node)
    hub = FakeHiveHub(clock=hive_clock, extensions=stated.get("extensions"))
    for fault in stated.get("faults", ()):
        fields = {**fault}
        hub.fail(*_names(fields.pop("calls", ())), **fields)
    if "calls" in stated or _is_strict(request.config):
        hub.expect(*_names(stated.get("calls", ())))
    request.node.stash[_HUB] = hub
    yield hub
    try:
        _assert_expected(request.node)
    finally:
        _forget(request.node)  # pytest keeps its tests to the end of the run


@pytest.fixture
def hive_tenants(hive_hub: FakeHiveHub, request: pytest.FixtureRequest) -> Tenants:
    """The tenants, each made when it is first named."""
    return Tenants(hive_hub, _marker(request.node).get("plan", "free"))


@pytest.fixture
def hive_tenancy(hive_hub: FakeHiveHub) -> ClusterTenancy:
    """A tenancy on that hub, not started: ``async with`` it, or serve an application of it."""
    from hivetenancy.compose import Tenancy

    return Tenancy.embedded(hive_hub)


@pytest.fixture
def hive_asgi_client(hive_tenancy: ClusterTenancy) -> Callable[..., AsgiClient]:
    """Takes an ASGI application, and the options of `Tenancy.asgi`, and returns a client of it behind the tenancy."""
    from .asgi import AsgiClient

    def client(app: Any, **options: Any) -> AsgiClient:
        return AsgiClient(hive_tenancy.asgi(app, **options))

    return client


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Fail a test that passed, but caused a call of its hub that it did not expect."""
    try:
        yield
        _assert_expected(item)
    except BaseException:
        _forget(item)
        raise


def _assert_expected(item: pytest.Item) -> None:
    hub = item.stash.get(_HUB, None)
    if hub is not None:
        hub.assert_expected()


def _forget(item: pytest.Item) -> None:
    if _HUB in item.stash:
        del item.stash[_HUB]

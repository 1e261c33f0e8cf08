"""Every setting reaches what is built from it, and is told of as it is."""

from __future__ import annotations

import inspect
import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from hivetenancy.access_keys.cached import CachedAccessKeys, Freshness
from hivetenancy.adapters.http import HttpOptions
from hivetenancy.compose import ClusterTenancy
from hivetenancy.context import TenantContext
from hivetenancy.errors import ConfigurationError, HubUnavailableError, InvalidNameError
from hivetenancy.hub.client import HiveHub
from hivetenancy.ids import Environment, TenantId
from hivetenancy.periods import Period
from hivetenancy.plans import CalendarPolicy, ConcurrencyPolicy, Plan, RatePolicy, Scope, quota_limit
from hivetenancy.settings import Settings, file_schema, hub_arguments, load, shown, tenancy_arguments
from hivetenancy.settings.model import LEAVES, FreshnessSettings, Leaf, PlanSettings, RateSettings, Secret
from hivetenancy.settings.sources import FOREIGN_VARIABLES, Problems, variable
from hivetenancy.stamps import ClusterSecret
from hivetenancy.testing.asgi import AsgiClient
from hivetenancy.testing.hub import FakeHiveHub
from tests.adapters.example import example
from tests.readme import ROOT
from tests.settings_inputs import (
    CLUSTER,
    KEY,
    STANDALONE,
    URL,
    fault,
    tree,
    write,
)

# --- what is built from them -----------------------------------------------------------------------------------------


class Observed:
    """A hub that answers 503 and notes how it was called."""

    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return httpx.Response(503)


async def _no_pause(seconds: float) -> None:
    """Wait for nothing."""


async def called_with(settings: Settings, arguments: Callable[[Settings], dict[str, Any]]) -> list[httpx.Request]:
    """What a hub sees of one call, repeats included, of the `HiveHub` that *settings* give."""
    seen = Observed()
    async with httpx.AsyncClient(transport=httpx.MockTransport(seen)) as client:
        transport = HiveHub(**arguments(settings), http=client)._transport
        assert transport is not None
        transport._sleep = _no_pause
        with pytest.raises(HubUnavailableError, match="503"):
            await transport.call("GET", "/api/internal/extensions", repeatable=True)
    return seen.requests


HUB_EFFECTS: dict[str, tuple[object, Callable[[list[httpx.Request]], object], object]] = {
    "hub.url": ("https://other.example/p", lambda seen: str(seen[0].url).split("/api")[0], "https://other.example/p"),
    "hub.service_key": ("svc_other_key", lambda seen: seen[0].headers["x-service-key"], "svc_other_key"),
    "hub.timeout_seconds": (2, lambda seen: round(seen[0].extensions["timeout"]["read"]), 2),
    "hub.retries": (1, len, 2),
}
"""Setting, value, and what a hub sees of it."""


async def assert_reaches_the_hub(key: str, arguments: Callable[[Settings], dict[str, Any]]) -> None:
    """Fail unless the setting shows in the calls that the hub gets, and did not show before."""
    value, effect, expected = HUB_EFFECTS[key]
    base = {"hub": {"url": URL, "service_key": KEY}}
    before, after = load(None, {}, **base), load(None, {}, hub={**base["hub"], key.removeprefix("hub."): value})
    assert effect(await called_with(before, arguments)) != expected
    assert effect(await called_with(after, arguments)) == expected


@pytest.mark.anyio
@pytest.mark.parametrize("key", HUB_EFFECTS)
async def test_d05_a_setting_reaches_the_calls(key: str) -> None:
    """Time-out, retries, URL and key show in the calls: Vectorizer read them and gave its client none of them."""
    await assert_reaches_the_hub(key, hub_arguments)


@pytest.mark.anyio
@pytest.mark.parametrize(("key", "argument"), [("hub.timeout_seconds", "timeout_s"), ("hub.retries", "retries")])
async def test_d05_the_check_fails_arguments_that_forget(key: str, argument: str) -> None:
    """The check above finds a function that reads a setting and does not hand it on, as Vectorizer's."""
    with pytest.raises(AssertionError):
        await assert_reaches_the_hub(
            key, lambda settings: {name: v for name, v in hub_arguments(settings).items() if name != argument}
        )


PLANS = """
[plans.default.quotas]
keys = 1000
storage_bytes = "unlimited"
[plans.default.statics]
max_batch = 10
[[plans.default.rates]]
name = "minute"
limit = 60
period_seconds = 60
burst = 5
scope = "key"
[[plans.default.rates]]
name = "day"
limit = 1000
calendar = "day"
[[plans.default.rates]]
name = "at-once"
limit = 4
concurrent = true
"""


def test_d05_the_profile_of_the_service_reaches_the_hub(tmp_path: Path) -> None:
    """Service, meaning of usage and plans reach the hub; what nobody states is left to it."""
    synap = load(write(tmp_path, PLANS), CLUSTER, hub={"service": "synap", "synap_usage": "increment"})
    hub = HiveHub(**hub_arguments(synap))
    assert (hub._service, hub._synap_usage) == ("synap", "increment")
    rates = (
        RatePolicy(name="minute", limit=60, period_us=60_000_000, burst=5, scope=Scope.KEY),
        CalendarPolicy(name="day", limit=1000, period=Period.DAY),
        ConcurrencyPolicy(name="at-once", limit=4),
    )
    quotas = (quota_limit("keys", 1000), quota_limit("storage_bytes", None))
    assert hub._plans == {"default": Plan(name="default", rates=rates, quotas=quotas, statics={"max_batch": 10})}
    assert {"service", "synap_usage", "plans"}.isdisjoint(hub_arguments(load(None, CLUSTER)))
    told = next(row.value for row in shown(synap) if row.key == "plans")
    assert json.loads(json.dumps(told))["default"]["quotas"] == {"keys": 1000, "storage_bytes": "unlimited"}


def test_there_is_no_hub_in_standalone_mode() -> None:
    """Asking for the hub's arguments where there is none is an error, not an empty answer."""
    with pytest.raises(ConfigurationError, match="no hub is stated"):
        hub_arguments(load(None, STANDALONE))


ACME = TenantContext(tenant_id=TenantId("acme"), key_id=None, generation=1)
ADA = TenantContext(tenant_id=TenantId("550e8400-e29b-41d4-a716-446655440000"), key_id=None, generation=1)


def _takes(tenancy: ClusterTenancy, context: TenantContext, name: str) -> bool:
    try:
        tenancy.gate._names.for_tenant(context).kv.key(name)  # type: ignore[attr-defined]
    except InvalidNameError:
        return False
    return True


def _topic(tenancy: ClusterTenancy) -> str:
    return str(tenancy.gate._names.for_tenant(ADA).topics.key("t"))  # type: ignore[attr-defined]


def _window(name: str) -> Callable[[ClusterTenancy], object]:
    return lambda tenancy: getattr(tenancy._keys.freshness, name)


SHARED = "do-not-show-me-" + "0123456789abcdef" * 2


def _stamps_of(secret: str) -> Callable[[ClusterTenancy], object]:
    """Whether stamps are made with *secret*."""
    key = ClusterSecret(secret.encode()).derive("stamps")
    return lambda tenancy: tenancy._press._key == key


TENANCY_EFFECTS: dict[str, tuple[object, Callable[[ClusterTenancy], object], object]] = {
    "environment": ("live", lambda tenancy: tenancy._keys._environment, Environment.LIVE),
    "report_seconds": (3, lambda tenancy: tenancy._reporter._interval_s, 3.0),
    "report_threshold": (5, lambda tenancy: tenancy._reporter._threshold, 5),
    "hub.wait_seconds": (7, lambda tenancy: tenancy._wait_seconds, 7.0),
    "secret": (SHARED, _stamps_of(SHARED), True),
    "allow_workers": (True, lambda tenancy: tenancy._allow_workers, True),
    "freshness.fresh_seconds": (20, _window("fresh_us"), 20_000_000),
    "freshness.admin_seconds": (2.5, _window("admin_us"), 2_500_000),
    "freshness.stale_read_seconds": (0, _window("stale_read_us"), 0),
    "freshness.stale_write_seconds": (1, _window("stale_write_us"), 1_000_000),
    "freshness.stale_delete_seconds": (2, _window("stale_delete_us"), 2_000_000),
    "freshness.negative_seconds": (3, _window("negative_us"), 3_000_000),
    "freshness.refresh_percent": (50, _window("refresh_percent"), 50),
    "http.realm": ("mine", lambda tenancy: tenancy.options.realm, "mine"),
    "http.rate_headers": ("off", lambda tenancy: tenancy.options.rate_headers, "off"),
    "http.quota_status": ({"keys": 507}, lambda tenancy: dict(tenancy.options.quota_status), {"keys": 507}),
    "http.max_body_bytes": (9, lambda tenancy: tenancy.options.max_body_bytes, 9),
    "names.profile": ("synap", _topic, "user_550e8400e29b41d4a716446655440000:t"),
    "names.scheme": ("slug", lambda tenancy: _takes(tenancy, ACME, "x"), True),
    "names.max_name_bytes": (60, lambda tenancy: _takes(tenancy, ADA, "x" * 40), False),
    "names.topic_separator": ("/", _topic, "user_550e8400-e29b-41d4-a716-446655440000/t"),
}
"""Setting, value, and where it is found in the tenancy that is built."""

FILES = {"hub.service_key_file", "secret_file"}
HANDED_ON = {"mode", "plans", "hub.service", "hub.synap_usage", "hub.state", "names.manifest", *FILES}
"""Settings whose arguments are looked at above and below."""


@pytest.mark.parametrize("key", TENANCY_EFFECTS)
def test_d05_a_setting_reaches_the_tenancy(key: str) -> None:
    """Each setting changes the tenancy that is built from it, from the environment too."""
    value, effect, expected = TENANCY_EFFECTS[key]
    hub = FakeHiveHub()
    before, after = load(None, CLUSTER), load(None, CLUSTER, **tree({key: value}))
    assert effect(ClusterTenancy(hub, **tenancy_arguments(before))) != expected
    assert effect(ClusterTenancy(hub, **tenancy_arguments(after))) == expected
    if not isinstance(value, dict):
        text = str(int(value)) if isinstance(value, bool) else str(value)
        found = load(None, {**CLUSTER, variable(key): text}).value_of(key)
        assert (found.get_secret_value() if isinstance(found, Secret) else found) == value


def test_d05_no_setting_does_nothing() -> None:
    """Every setting there is stands in one of the tables of effects."""
    assert {*HUB_EFFECTS, *TENANCY_EFFECTS, *HANDED_ON} == set(LEAVES)


def test_d05_the_state_is_handed_on() -> None:
    """The file of the hub's state is an option where it is stated, and none where it is not."""
    assert tenancy_arguments(load(None, {**CLUSTER, "HIVETENANCY_HUB__STATE": "/x"}))["state"] == Path("/x")
    assert "state" not in tenancy_arguments(load(None, CLUSTER))


def test_a47_a_keyspace_of_another_profile_stops_the_start(tmp_path: Path) -> None:
    """The file of names.manifest is made at the first start, and a later one with other names is refused."""
    file = tmp_path / "names.json"
    stated = {"HIVETENANCY_NAMES__MANIFEST": str(file), **CLUSTER}
    tenancy_arguments(load(None, {**CLUSTER, "HIVETENANCY_NAMES__PROFILE": "synap"}))
    assert not file.exists()
    before = [tenancy_arguments(load(None, stated)) for _ in range(2)]
    assert len(before) == 2
    written = file.read_text()
    for other in ({"HIVETENANCY_NAMES__PROFILE": "synap"}, {"HIVETENANCY_NAMES__SCHEME": "slug"}):
        settings = load(None, {**stated, **other})
        with pytest.raises(ConfigurationError, match=r"Set names\.profile"):
            tenancy_arguments(settings)
    assert file.read_text() == written


SECONDS = st.floats(2, 6) | st.floats(0, 90_000) | st.sampled_from([2.0, 2.000001, 5.0, 86_400.0])


@given(
    st.dictionaries(st.sampled_from(sorted(FreshnessSettings.model_fields)), SECONDS | st.integers(1, 100), max_size=3)
)
def test_what_is_accepted_can_be_built(windows: dict[str, float]) -> None:
    """Whatever the windows are, they are refused when they are read, or a tenancy can be built with them."""
    try:
        settings = load(None, CLUSTER, freshness=windows)
    except ConfigurationError:
        reject()
    ClusterTenancy(FakeHiveHub(), **tenancy_arguments(settings))


def test_defaults_are_those_of_what_is_built() -> None:
    """Settings that say nothing change nothing: their defaults are those of the objects."""
    arguments = tenancy_arguments(load(None, CLUSTER))
    assert arguments.pop("freshness") == Freshness()
    assert arguments.pop("http") == HttpOptions()
    del arguments["names"]
    parameters = inspect.signature(ClusterTenancy).parameters
    assert arguments == {name: parameters[name].default for name in arguments}
    hub = {
        name: value for name, value in hub_arguments(load(None, CLUSTER)).items() if name not in ("url", "service_key")
    }
    parameters = inspect.signature(HiveHub).parameters
    assert hub == {name: parameters[name].default for name in hub}


@pytest.mark.parametrize("key", ["freshness.fresh_seconds", "freshness.admin_seconds", "freshness.negative_seconds"])
def test_a_window_outlasts_a_look_up(key: str) -> None:
    """The shortest window that is taken is one that a tenancy can be built with: above the time of a look-up."""
    look_up = inspect.signature(CachedAccessKeys).parameters["deadline_us"].default / 1_000_000
    code = {"freshness.admin_seconds": look_up + 0.1, key: look_up + 0.1}
    ClusterTenancy(FakeHiveHub(), **tenancy_arguments(load(None, CLUSTER, **tree(code))))
    assert key in fault(environ={**CLUSTER, variable(key): f"{look_up:g}"})


@pytest.mark.anyio
async def test_d30_turning_cluster_mode_on_admits_who_has_a_key() -> None:
    """Cluster mode by settings alone admits a key and refuses none: Nexus' refused everybody, Vectorizer's nobody."""
    pytest.importorskip("starlette", reason="starlette is not installed: the example needs its extra")
    hub = FakeHiveHub()
    key = hub.add_tenant("acme", plan="pro").issue_key(permissions=["read", "write"])
    settings = load(ROOT / "examples/cluster.toml", {**CLUSTER, "HIVETENANCY_ENVIRONMENT": "test"})
    tenancy = ClusterTenancy(hub, **{**tenancy_arguments(settings), "allow_workers": True})
    async with AsgiClient(example("configured_kv").build(tenancy)) as client:
        assert (await client.request("PUT", "/kv/a", headers=key.headers, body=b"x")).status == 204
        assert (await client.request("GET", "/kv/a", headers=key.headers)).body == b"x"
        assert (await client.request("GET", "/kv/a")).status == 401


# --- what is told about them -----------------------------------------------------------------------------------------


def test_the_schema_knows_every_key() -> None:
    """The schema of the file has each setting, refuses others, and requires none."""
    schema = file_schema()
    found = {}
    for key in LEAVES:
        node = schema
        for part in key.split("."):
            reference = node.get("$ref", "").rpartition("/")[2]
            node = (schema["$defs"][reference] if reference else node)["properties"][part]
        found[key] = node.get("description")
    assert found == {key: leaf.meaning for key, leaf in LEAVES.items()}
    assert all(table["additionalProperties"] is False for table in (schema, *schema["$defs"].values()))
    assert "required" not in schema


@pytest.mark.parametrize("leaf", LEAVES.values(), ids=lambda leaf: leaf.key)
def test_every_example_value_is_right(leaf: Leaf) -> None:
    """What an error advises to write can be written."""
    base: dict[str, Any] = {"hub.url": URL, "hub.service": "synap"}
    if leaf.key not in ("hub.service_key", "hub.service_key_file"):
        base["hub.service_key"] = KEY
    if leaf.key in FILES:
        return  # it names a file that is not on this machine
    settings = load(None, {}, **tree({**base, leaf.key: leaf.example}))
    value = settings.value_of(leaf.key)
    if leaf.kind == "plans":
        assert value["default"].quotas == {"keys": 1000}
        return
    assert (str(value) if isinstance(value, Path) else value) == (
        Secret(str(leaf.example)) if leaf.kind == "secret" else leaf.example
    )


def test_a_setting_that_is_not_there() -> None:
    """Asking for the origin of what is no setting is an error."""
    settings = load(None, STANDALONE)
    for ask in (settings.origin_of, settings.value_of):
        with pytest.raises(KeyError):
            ask("hub.nothing")


def test_settings_are_frozen() -> None:
    """Nobody changes settings after they were checked."""
    settings = load(None, STANDALONE)
    with pytest.raises(ValueError, match="frozen"):
        settings.mode = "cluster"  # type: ignore[misc]


def table_row(leaf: Leaf) -> str:
    """The line of the reference for *leaf*."""
    kind = " ".join(f"`{choice}`" for choice in leaf.choices) if leaf.choices else leaf.kind
    kind = f"table of {kind}" if leaf.kind == "table" else kind
    default = "" if leaf.default in (None, {}) else f"`{_word(leaf.default)}`"
    variables = " ".join(f"`{name}`" for name in leaf.variables)
    return f"| `{leaf.key}` | {kind} | {default} | {leaf.meaning} | {variables} |"


def _word(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def test_the_reference_has_every_setting() -> None:
    """The tables of the reference are the model: key, type, default, meaning and variables, in its order."""
    page = (ROOT / "docs/reference/settings.md").read_text("utf-8").split("## The environment")[0]
    lines = [line for line in page.splitlines() if line.startswith("| `")]
    assert lines == [table_row(leaf) for leaf in LEAVES.values()]


def test_the_reference_has_every_foreign_variable() -> None:
    """Each variable of HiveHub's services stands in its table, in the order in which they count."""
    page = (ROOT / "docs/reference/settings.md").read_text("utf-8").split("## The environment")[1]
    told = re.findall(r"^\| `([A-Z_]+)` \| `([a-z_.]+)` \|", page, flags=re.MULTILINE)
    assert told == [(each.variable, each.key) for each in FOREIGN_VARIABLES]


def test_the_reference_has_every_key_of_a_plan() -> None:
    """Each key of a plan and of a rate stands in its table, in the order of the model."""
    page = (ROOT / "docs/reference/settings.md").read_text("utf-8").split("## Plans")[1].split("## In code")[0]
    told = re.findall(r"^\| `([a-z_]+)` \|", page, flags=re.MULTILINE)
    assert told == [*PlanSettings.model_fields, *RateSettings.model_fields]


# --- the examples ----------------------------------------------------------------------------------------------------


def test_the_files_of_the_example() -> None:
    """Both files are right; the one for cluster mode needs nothing but its key's file, or a key."""
    standalone = load(ROOT / "examples/standalone.toml", {})
    assert standalone.mode == "standalone"
    cluster = load(ROOT / "examples/cluster.toml", {"HIVETENANCY_HUB__SERVICE_KEY": KEY})
    assert (cluster.mode, cluster.origin_of("hub.url").kind) == ("cluster", "file")
    assert "hub.service_key_file" in fault(path=ROOT / "examples/cluster.toml", environ={})
    assert tomllib.loads((ROOT / "examples/cluster.toml").read_text("utf-8"))["hub"]["url"].startswith("https://")


@pytest.mark.anyio
async def test_the_example_without_tenants() -> None:
    """The same server in standalone mode asks for no key."""
    pytest.importorskip("starlette", reason="starlette is not installed: the example needs its extra")
    from hivetenancy.compose import Tenancy

    assert load(ROOT / "examples/standalone.toml", {}).mode == "standalone"
    async with AsgiClient(example("configured_kv").build(Tenancy.standalone())) as client:
        assert (await client.request("PUT", "/kv/a", body=b"x")).status == 204
        assert (await client.request("GET", "/kv/a")).body == b"x"
        assert (await client.request("GET", "/kv/b")).status == 404


def test_nothing_wrong_raises_nothing() -> None:
    """A collection without problems lets the load go on."""
    Problems().raise_if_any()

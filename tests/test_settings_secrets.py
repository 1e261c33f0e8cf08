"""A service key among the settings is shown nowhere, wherever it was written."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from hivetenancy import settings as reading
from hivetenancy.compose import ClusterTenancy
from hivetenancy.context import TenantContext
from hivetenancy.errors import ConfigurationError, InvalidNameError
from hivetenancy.ids import TenantId
from hivetenancy.settings import Settings, file_schema, hub_arguments, load, shown, tenancy_arguments
from hivetenancy.settings.model import LEAVES, Secret
from hivetenancy.settings.sources import Origin, Stated, variable
from hivetenancy.testing import FakeHiveHub
from tests.settings_inputs import (
    CLUSTER,
    KEY,
    STANDALONE,
    URL,
    all_that_an_error_shows,
    not_shown,
    toml,
    tree,
    write,
)

# --- secrets ---------------------------------------------------------------------------------------------------------


def everything_shown(settings: Settings) -> str:
    """Whatever a host may print of its settings without meaning to."""
    parts = [repr(settings), str(settings), f"{settings.hub}", repr(settings.hub.service_key), repr(vars(settings))]
    parts += [repr(shown(settings)), settings.model_dump_json(), repr(settings.model_dump()), repr(dict(settings))]
    parts += [json.dumps(file_schema()), repr(settings.origin_of("hub.service_key")), repr(settings.hub.__dict__)]
    return "\n".join(parts)


def places(folder: Path) -> list[Settings]:
    """Settings with the key from each place that it can come from."""
    inside = write(folder, f'[hub]\nurl = "{URL}"\nservice_key = "{KEY}"')
    key = write(folder, KEY, name="key")
    by_file = {"HIVETENANCY_HUB__URL": URL, "HIVETENANCY_HUB__SERVICE_KEY_FILE": str(key)}
    code = load(None, {}, hub={"url": URL, "service_key": KEY})
    hidden = load(None, {}, hub={"url": URL, "service_key": Secret(KEY)})
    return [load(inside, {}), load(None, CLUSTER), load(None, by_file), code, hidden]


def test_a_secret_is_shown_nowhere(tmp_path: Path) -> None:
    """Wherever the key comes from, it is in no repr, text, dump or schema, and yet it is there."""
    for settings in places(tmp_path):
        assert not_shown(everything_shown(settings))
        assert hub_arguments(settings)["service_key"] == KEY
        row = next(row for row in shown(settings) if row.key == "hub.service_key")
        assert row.value == "set"


def test_a_secret_is_not_pickled(tmp_path: Path) -> None:
    """Settings with a secret are not pickled, in part either; a copy shares it, and others pickle as ever."""
    for settings in places(tmp_path):
        for part in (settings, settings.hub, settings.hub.service_key, settings.model_dump()):
            with pytest.raises(TypeError, match="load them in the process that needs them"):
                pickle.dumps(part)
        assert copy.copy(settings.hub.service_key) is settings.hub.service_key
        for twin in (copy.deepcopy(settings), copy.copy(settings), settings.model_copy(deep=True)):
            assert twin == settings
            assert twin.hub.service_key == Secret(KEY)
    alone = load(None, STANDALONE)
    assert pickle.loads(pickle.dumps(alone)) == alone


MISPLACED = [leaf.key for leaf in LEAVES.values() if leaf.kind not in ("text", "path", "secret", "table", "plans")]


def misplaced(key: str, folder: Path) -> list[tuple[Path | None, dict[str, str], dict[str, Any]]]:
    """Ways to write the secret where *key* is meant."""
    return [
        (write(folder, toml(tree({key: KEY}))), {}, {}),
        (None, {variable(key): KEY}, {}),
        (None, {}, tree({key: KEY})),
    ]


@pytest.mark.parametrize("key", [*MISPLACED, "hub.url", "hub.service_key"])
def test_a_secret_in_the_wrong_place_is_not_shown(key: str, tmp_path: Path) -> None:
    """A key that was pasted into another setting, or is wrong itself, shows in no message and no traceback."""
    secret = f"{KEY} " if key == "hub.service_key" else KEY
    for path, environ, code in misplaced(key, tmp_path):
        if path is not None:
            path.write_text(path.read_text().replace(KEY, secret))
        with pytest.raises(ConfigurationError) as caught:
            load(path, dict.fromkeys(environ, secret), **tree({key: secret} if code else {}))
        del environ, code
        assert f": {key}: " in str(caught.value)
        assert not_shown(all_that_an_error_shows(caught.value))


def test_the_check_fails_messages_that_quote(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check above finds messages as pydantic writes them, with the value in them."""
    monkeypatch.setattr(reading, "_in_words", lambda leaf, error: str(error.errors()))
    with pytest.raises(ConfigurationError) as caught:
        load(None, {"HIVETENANCY_MODE": KEY})
    assert not not_shown(all_that_an_error_shows(caught.value))


@pytest.mark.parametrize("part", ["rates", "quotas", "statics", "keys"])
def test_a_secret_in_a_plan_is_not_shown(part: str) -> None:
    """A key that was pasted into a plan shows in no message."""
    for value in (KEY, {"keys": KEY}, [{"name": KEY, "limit": KEY}]):
        with pytest.raises(ConfigurationError) as caught:
            load(None, CLUSTER, plans={"default": {part: value}})
        assert not_shown(all_that_an_error_shows(caught.value))


def test_a_secret_beside_a_mistake_is_not_shown(tmp_path: Path) -> None:
    """A file that is wrong somewhere else shows nothing of the key in it, nor does a clash of two keys."""
    for text in (f'[hub]\nservice_key = "{KEY}"\nx = 1', f'[hub]\nservice_key = "{KEY}"\noops', f'k = "{KEY}"'):
        with pytest.raises(ConfigurationError) as caught:
            load(write(tmp_path, text), {})
        assert not_shown(all_that_an_error_shows(caught.value))
    with pytest.raises(ConfigurationError) as caught:
        load(None, {"HIVEHUB_API_URL": URL, "HIVEHUB_SERVICE_API_KEY": KEY, "SYNAP_HUB_SERVICE_API_KEY": f"{KEY}2"})
    assert not_shown(all_that_an_error_shows(caught.value))


def test_a_statement_shows_no_value() -> None:
    """What is carried between reading and judging has a repr without its value."""
    assert not_shown(repr(Stated(key="hub.service_key", value=KEY, origin=Origin(kind="code"), rank=4)))


# --- the secret of the cluster ---------------------------------------------------------------------------------------

CLUSTERS = "do-not-show-me-" + "0123456789abcdef" * 2


def of_the_cluster(folder: Path) -> list[Settings]:
    """Settings with the cluster's secret from each place that it can come from."""
    inside = write(folder, f'secret = "{CLUSTERS}"')
    key = write(folder, CLUSTERS + "\n", name="cluster")
    named = {**CLUSTER, "HIVETENANCY_SECRET_FILE": str(key)}
    stated = {**CLUSTER, "HIVETENANCY_SECRET": CLUSTERS}
    return [load(inside, CLUSTER), load(None, stated), load(None, named), load(None, CLUSTER, secret=Secret(CLUSTERS))]


def test_a49_the_secret_of_the_cluster_is_shown_nowhere(tmp_path: Path) -> None:
    """Wherever it comes from it is in no repr, dump, error or pickle, reaches the tenancy, and shows as "set"."""
    for settings in of_the_cluster(tmp_path):
        arguments = tenancy_arguments(settings)
        assert arguments["secret"] == CLUSTERS.encode()
        tenancy = ClusterTenancy(FakeHiveHub(), **arguments)
        holders = [tenancy, tenancy._secret, tenancy._press, tenancy.gate, arguments["names"]]
        assert not_shown(everything_shown(settings) + "".join(map(repr, holders)))
        assert next(row.value for row in shown(settings) if row.key == "secret") == "set"
        with pytest.raises(TypeError):
            pickle.dumps(settings)
        with pytest.raises(TypeError):
            pickle.dumps(tenancy._secret)


def test_two_processes_with_one_secret_take_each_others_cursors(tmp_path: Path) -> None:
    """The names that settings make are sealed with what is derived from the secret; without it, with a random one."""
    context = TenantContext(tenant_id=TenantId("550e8400-e29b-41d4-a716-446655440000"), key_id=None, generation=1)
    one, other, *_ = (tenancy_arguments(each)["names"].for_tenant(context).kv for each in of_the_cluster(tmp_path))
    alone = tenancy_arguments(load(None, CLUSTER))["names"].for_tenant(context).kv
    cursor = one.page(one.keys(["a", "b"]), limit=1).cursor
    assert other.after(cursor) == one.after(cursor)
    with pytest.raises(InvalidNameError):
        alone.after(cursor)


@pytest.mark.parametrize("wrong", ["short", CLUSTERS + " ", CLUSTERS + "\t", "é" * 40, CLUSTERS * 20])
def test_a_secret_of_the_cluster_that_is_none(wrong: str, tmp_path: Path) -> None:
    """Too short, too long, blanks, what is not ASCII: refused in each place, and not shown."""
    file = write(tmp_path, wrong, name="cluster")
    for environ, place in (
        ({"HIVETENANCY_SECRET": wrong}, "secret"),
        ({"HIVETENANCY_SECRET_FILE": str(file)}, "secret_file"),
    ):
        with pytest.raises(ConfigurationError) as caught:
            load(None, {**CLUSTER, **environ})
        assert f": {place}: must " in str(caught.value)
        del environ
        assert not_shown(str(caught.value))


def test_the_secret_and_its_file(tmp_path: Path) -> None:
    """Both of one rank clash; a file of either that others may read is refused."""
    file = write(tmp_path, CLUSTERS, name="cluster")
    both = {**CLUSTER, "HIVETENANCY_SECRET": CLUSTERS, "HIVETENANCY_SECRET_FILE": str(file)}
    for path, environ, fault in (
        (None, both, "secret: is stated, and secret_file too"),
        (write(tmp_path, f'secret = "{CLUSTERS}"', mode=0o644), CLUSTER, "secret: others than the owner"),
    ):
        with pytest.raises(ConfigurationError, match=fault):
            load(path, environ)
    file.chmod(0o640)
    with pytest.raises(ConfigurationError, match="secret_file: others than its owner"):
        load(None, {**CLUSTER, "HIVETENANCY_SECRET_FILE": str(file)})

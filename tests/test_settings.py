"""What an operator writes is read in one order, and nothing wrong or unclear passes in silence."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hivetenancy.errors import ConfigurationError
from hivetenancy.settings import Settings, load
from hivetenancy.settings.model import Secret
from hivetenancy.settings.sources import FOREIGN_VARIABLES, NOT_SETTINGS, Origin, variable
from tests.readme import ROOT
from tests.settings_inputs import (
    CLUSTER,
    KEY,
    LINE,
    STANDALONE,
    URL,
    fault,
    not_shown,
    toml,
    tree,
    write,
)

Load = Callable[..., Settings]


# --- the order -------------------------------------------------------------------------------------------------------

PLACES = ("file", "HIVEHUB_TIMEOUT", "HIVETENANCY_HUB__TIMEOUT_SECONDS", "code")
"""Where the time-out of a call can be stated, the weakest first."""


@given(st.lists(st.none() | st.integers(1, 3600), min_size=4, max_size=4))
def test_what_stands_higher_wins(said: list[int | None]) -> None:
    """Of all places that state a setting the highest counts, and the origin names it; without any, the default."""
    file, foreign, own, code = said
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder), "" if file is None else f"[hub]\ntimeout_seconds = {file}\n")
        environ = dict(CLUSTER)
        for name, value in ((PLACES[1], foreign), (PLACES[2], own)):
            if value is not None:
                environ[name] = str(value)
        settings = load(path, environ, hub={"timeout_seconds": code})
        highest = max((rank for rank, value in enumerate(said) if value is not None), default=None)
        origin = settings.origin_of("hub.timeout_seconds")
        if highest is None:
            assert (settings.hub.timeout_seconds, origin) == (30.0, Origin(kind="default"))
        else:
            assert settings.hub.timeout_seconds == said[highest]
            assert str(origin) == (f"file {path}", *(f"environment {name}" for name in PLACES[1:3]), "code")[highest]


@given(st.permutations(["file", "own", "code"]), st.integers(3, 5))
def test_each_setting_is_overridden_by_itself(places: list[str], count: int) -> None:
    """Stating one setting in one place leaves what other places say of others as it is."""
    of = dict(zip(("report_seconds", "freshness.negative_seconds", "http.realm"), places, strict=True))
    value: dict[str, Any] = {"report_seconds": 7, "freshness.negative_seconds": count, "http.realm": "mine"}
    trees = {place: tree({key: value[key] for key in of if of[key] == place}) for place in places}
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder), toml(trees["file"]))
        environ = {variable(key): str(value[key]) for key in of if of[key] == "own"}
        settings = load(path, {**CLUSTER, **environ}, **trees["code"])
    assert {key: settings.value_of(key) for key in of} == value
    kinds = {"file": "file", "own": "environment", "code": "code"}
    assert {key: settings.origin_of(key).kind for key in of} == {key: kinds[of[key]] for key in of}


def test_a_value_that_is_overridden_must_be_right_too(tmp_path: Path) -> None:
    """A wrong number is found now, not on the day when what stands above it is removed."""
    path = write(tmp_path, "[hub]\nretries = -1\n")
    assert "hub.retries" in fault(path=path, environ={**CLUSTER, "HIVETENANCY_HUB__RETRIES": "2"})
    assert "HIVEHUB_RETRIES" in fault(environ={**CLUSTER, "HIVEHUB_RETRIES": "x", "HIVETENANCY_HUB__RETRIES": "2"})


def test_the_file_is_the_one_that_is_named(tmp_path: Path) -> None:
    """A variable names the file; an argument overrides it; without either none is looked for."""
    mine = write(tmp_path, 'mode = "standalone"\nreport_seconds = 1', name="mine.toml")
    theirs = write(tmp_path, 'mode = "standalone"\nreport_seconds = 2', name="theirs.toml")
    assert load(environ={"HIVETENANCY_FILE": str(theirs)}).report_seconds == 2
    assert load(mine, {"HIVETENANCY_FILE": str(theirs)}).report_seconds == 1
    assert load(environ={"HIVETENANCY_MODE": "standalone"}).report_seconds == 10
    assert "HIVETENANCY_FILE" in fault(environ={"HIVETENANCY_FILE": ""})


def test_the_environment_of_the_process_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an environment given, that of the process is read."""
    for name in [name for name in os.environ if re.match("HIVE|SYNAP", name)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HIVETENANCY_MODE", "standalone")
    assert load().mode == "standalone"


def test_paths_of_a_file_start_at_its_folder(tmp_path: Path) -> None:
    """A relative path in the file is relative to the file, one in a variable to the working directory."""
    write(tmp_path, f"{KEY}\n", name="key")
    path = write(tmp_path, f'[hub]\nurl = "{URL}"\nservice_key_file = "key"\nstate = "hub.sqlite"\n')
    settings = load(path, {})
    assert settings.hub.service_key == Secret(KEY)
    assert settings.hub.state == tmp_path / "hub.sqlite"
    assert load(path, {"HIVETENANCY_HUB__STATE": "x.sqlite"}).hub.state == Path("x.sqlite")


# --- the variables of HiveHub's services -----------------------------------------------------------------------------

SAID: dict[str, tuple[str, object]] = {
    "mode": ("1", "cluster"),
    "hub.url": ("https://other.example/", "https://other.example"),
    "hub.service_key": ("svc_other_key", Secret("svc_other_key")),
    "hub.timeout_seconds": ("12", 12.0),
    "hub.retries": ("5", 5),
    "report_seconds": ("300", 300.0),
    "freshness.fresh_seconds": ("60", 60.0),
}
"""For each setting that a foreign variable states: a text, and the value that it gives."""


@pytest.mark.parametrize("foreign", FOREIGN_VARIABLES, ids=lambda each: each.variable)
def test_a_foreign_variable_reaches_its_setting(foreign: Any) -> None:
    """Each variable that HiveHub's services read states its setting, and the origin names it."""
    text, value = SAID[foreign.key]
    base = {"hub.url": URL, "hub.service_key": KEY}
    environ = {variable(key): said for key, said in base.items() if key != foreign.key and foreign.off is None}
    if foreign.variable == "HIVEHUB_DISABLED":
        environ, value = {}, "standalone"
    elif foreign.variable == "SYNAP_HUB_ENABLED":
        environ = dict(CLUSTER)
    settings = load(None, {**environ, foreign.variable: text})
    assert settings.value_of(foreign.key) == value
    assert settings.origin_of(foreign.key) == Origin(kind="environment", name=foreign.variable)


FAMILIES = [
    (key, [each.variable for each in group if not each.is_switch])
    for key, group in itertools.groupby(sorted(FOREIGN_VARIABLES, key=lambda each: each.key), key=lambda each: each.key)
]
PAIRS = [(key, *pair) for key, names in FAMILIES for pair in itertools.combinations(names, 2)]


@pytest.mark.parametrize(("key", "first", "second"), PAIRS, ids=lambda part: part)
def test_foreign_variables_must_agree(key: str, first: str, second: str) -> None:
    """Two that say the same are taken, the first counting as the origin; two that do not are named, both."""
    other = {"hub.url": "https://third.example", "hub.service_key": "svc_third_key"}.get(key, "7")
    environ = {name: value for name, value in CLUSTER.items() if name != variable(key)}
    agreed = load(None, {**environ, first: SAID[key][0], second: SAID[key][0]})
    assert agreed.origin_of(key).name == first
    clash = {**environ, first: SAID[key][0], second: other}
    message = fault(environ=clash)
    assert all(name in message for name in (first, second, key, variable(key)))
    ours = {**clash, variable(key): SAID[key][0]}
    assert load(None, ours).origin_of(key).name == variable(key)


@pytest.mark.parametrize("text", ["", " 30", "30s", "30.5", "1_0", "-1", "0x10", "٣٠", "nan", "9" * 30])
def test_a_foreign_number_that_does_not_parse_is_refused(text: str) -> None:
    """Where HiveHub's SDK falls back to its default in silence, a variable that is no whole number is an error."""
    message = fault(environ={**CLUSTER, "HIVEHUB_CLOUD_TIMEOUT": text})
    assert "environment HIVEHUB_CLOUD_TIMEOUT: hub.timeout_seconds: " in message


def test_a_switch_is_yes_or_no() -> None:
    """A switch that is neither is refused; a no of HIVEHUB_DISABLED says nothing about the mode."""
    assert "neither yes nor no" in fault(environ={"HIVEHUB_DISABLED": "2"})
    assert "is not stated" in fault(environ={"HIVEHUB_DISABLED": "false"})
    assert load(None, {**CLUSTER, "HIVEHUB_DISABLED": "0"}).mode == "cluster"


def test_the_synap_switch_states_either_mode() -> None:
    """SYNAP_HUB_ENABLED says cluster or standalone."""
    assert load(None, {**CLUSTER, "SYNAP_HUB_ENABLED": "true"}).mode == "cluster"
    assert load(None, {"SYNAP_HUB_ENABLED": "false"}).mode == "standalone"


# --- the mode --------------------------------------------------------------------------------------------------------


def test_the_mode_is_stated_or_implied_by_a_hub() -> None:
    """A hub implies cluster mode and the origin says so; nothing implies standalone mode."""
    implied = load(None, CLUSTER)
    assert (implied.mode, str(implied.origin_of("mode"))) == ("cluster", "implied hub.url")
    assert load(None, {}, mode="standalone").mode == "standalone"


UNCLEAR: list[tuple[str, dict[str, str], str]] = [
    ("nothing at all", {}, ""),
    ("a time-out alone", {"HIVEHUB_TIMEOUT": "3"}, ""),
    ("a key without a URL", {"HIVEHUB_SERVICE_API_KEY": KEY}, ""),
    ("a URL without a key", {"HIVEHUB_API_URL": URL}, ""),
    ("cluster mode alone", {"HIVETENANCY_MODE": "cluster"}, ""),
    ("disabled, with a key", {"HIVEHUB_DISABLED": "1", "HIVEHUB_SERVICE_API_KEY": KEY}, ""),
    ("disabled, with a key in the file", {"HIVEHUB_DISABLED": "1"}, f'[hub]\nservice_key = "{KEY}"'),
    ("disabled, with a key file", {"HIVEHUB_DISABLED": "1"}, '[hub]\nservice_key_file = "none"'),
    ("disabled, against our variable", {"HIVEHUB_DISABLED": "1", "HIVETENANCY_MODE": "cluster"}, ""),
    ("disabled, against the file", {"HIVEHUB_DISABLED": "1"}, 'mode = "cluster"'),
    ("disabled, against Synap's", {"HIVEHUB_DISABLED": "1", "SYNAP_HUB_ENABLED": "1"}, ""),
    ("Synap's off, against the file", {"SYNAP_HUB_ENABLED": "0"}, f'mode = "cluster"\n[hub]\nurl = "{URL}"'),
    ("standalone, with a key", {**STANDALONE, "HIVEHUB_SERVICE_API_KEY": KEY}, ""),
    ("standalone, with a key file", STANDALONE, '[hub]\nservice_key_file = "none"'),
    ("a key file that is not there", {}, f'[hub]\nurl = "{URL}"\nservice_key_file = "none"'),
    ("a mode that is none", {"HIVETENANCY_MODE": "Standalone"}, ""),
    ("an empty mode", {"HIVETENANCY_MODE": ""}, ""),
    ("an empty key", {"HIVEHUB_API_URL": URL, "HIVEHUB_SERVICE_API_KEY": ""}, ""),
    ("a file that is not TOML", {}, "mode = standalone"),
    ("a key that is none", {"HIVEHUB_API_URL": URL, "HIVEHUB_SERVICE_API_KEY": "a b"}, ""),
]
"""What leaves it unclear whether there are tenants; each was, in one server or another, a start without any."""


def never_silently_single_tenant(load: Load, environ: dict[str, str], text: str, folder: Path) -> None:
    """Fail where *load* makes something of what is unclear."""
    path = write(folder, text)
    with pytest.raises(ConfigurationError):
        load(path, environ)


@pytest.mark.parametrize(("environ", "text"), [row[1:] for row in UNCLEAR], ids=[row[0] for row in UNCLEAR])
def test_d16_a_failure_never_becomes_single_tenant(environ: dict[str, str], text: str, tmp_path: Path) -> None:
    """Where it is unclear whether there are tenants there are no settings: Vectorizer warned and ran without any."""
    never_silently_single_tenant(load, environ, text, tmp_path)


def falling_back(path: Path | None, environ: Mapping[str, str]) -> Settings:
    """`load` as Vectorizer's start had it: whatever goes wrong means that there are no tenants."""
    try:
        return load(path, environ)
    except ConfigurationError:
        return load(None, STANDALONE)


@pytest.mark.parametrize(("environ", "text"), [row[1:] for row in UNCLEAR], ids=[row[0] for row in UNCLEAR])
def test_d16_the_check_fails_a_loader_that_falls_back(environ: dict[str, str], text: str, tmp_path: Path) -> None:
    """The rows above find a loader that falls back to standalone mode, each of them."""
    with pytest.raises(pytest.fail.Exception):
        never_silently_single_tenant(falling_back, environ, text, tmp_path)


# --- wrong input -----------------------------------------------------------------------------------------------------

WRONG_FILES = {
    "an unknown key": ('mode = "cluster"\nhubb = 1', "hubb", "hub"),
    "an unknown table": ('[hbu]\nurl = "x"', "hbu", "hub"),
    "an unknown key below": ("[hub]\ntimeout = 3", "hub.timeout", "hub.timeout_seconds"),
    "a key of another table": ('url = "https://x.example"', "url", "hub.url"),
    "a quoted dot": ('"hub.url" = "https://x.example"', "hub.url", "hub.url"),
    "a bad number": ("[hub]\ntimeout_seconds = 0", "hub.timeout_seconds", "timeout_seconds = 10"),
    "a number in quotes": ('[hub]\nretries = "3"', "hub.retries", "retries = 3"),
    "a yes for a number": ("[hub]\nretries = true", "hub.retries", "retries = 3"),
    "half a retry": ("[hub]\nretries = 2.5", "hub.retries", "retries = 3"),
    "no number": ("report_seconds = nan", "report_seconds", "report_seconds = 10"),
    "an endless number": ("report_seconds = inf", "report_seconds", "report_seconds = 10"),
    "a huge number": (f"report_threshold = 1{'0' * 400}", "report_threshold", "report_threshold = 10000"),
    "a number for a yes": ("allow_workers = 1", "allow_workers", "allow_workers = true"),
    "a choice that is none": ('mode = "clutser"', "mode", "standalone, cluster"),
    "a value for a table": ('hub = "https://x.example"', "hub", "[hub]"),
    "a table for a value": ("[mode]\nx = 1", "mode", 'mode = "cluster"'),
    "a list for a value": ('mode = ["cluster"]', "mode", 'mode = "cluster"'),
    "a status that is none": ("[http.quota_status]\nkeys = 500", "http.quota_status.keys", "403, 429, 507"),
    "a realm with a quote": ("[http]\nrealm = 'a\"b'", "http.realm", 'realm = "hivehub"'),
    "no URL": ('[hub]\nurl = "hub.example"', "hub.url", "https://"),
    "a URL in the clear": ('[hub]\nurl = "http://hub.example"', "hub.url", "https"),
    "a URL with a query": ('[hub]\nurl = "https://hub.example/?a"', "hub.url", "https"),
    "a tenant's key": ('[hub]\nservice_key = "hh_live_0123456789"', "hub.service_key", "svc_"),
    "an empty path": ('[hub]\nstate = ""', "hub.state", "hub.sqlite"),
    "engines to come": ('path = "/var/lib/server"', "path", "hub.state"),
    "a window below a look-up": ("[freshness]\nnegative_seconds = 2", "freshness.negative_seconds", "= 5"),
    "Redis to come": ('[redis]\nurl = "redis://x"', "redis", "leave it out"),
    "an unknown key of a plan": ("[plans.free]\nkeys = 1", "plans.free.keys", "rates, quotas, statics"),
    "an unknown key of a rate": ("[[plans.a.rates]]\nlimit = 1\nperiod = 1", "plans.a.rates.0.period", "burst"),
    "a name of a plan": ("[plans.Free]\n", "plans.Free", "a-z"),
    "a dimension that is none": ("[plans.a.quotas]\nkey = 1", "plans.a.quotas.key", "keys"),
    "a static limit as a quota": ("[plans.a.quotas]\nmax_batch = 1", "plans.a.quotas.max_batch", "keys"),
    "a negative quota": ("[plans.a.quotas]\nkeys = -1", "plans.a.quotas.keys", "unlimited"),
    "a word for a quota": ('[plans.a.quotas]\nkeys = "many"', "plans.a.quotas.keys", "unlimited"),
    "a huge static limit": (f"[plans.a.statics]\nmax_batch = 1{'0' * 30}", "plans.a.statics.max_batch", "less than"),
    "a rate of no kind": ("[[plans.a.rates]]\nlimit = 1", "plans.a.rates.0", "exactly one of"),
    "a rate of two kinds": ('[[plans.a.rates]]\nlimit = 1\nperiod_seconds = 1\ncalendar = "day"', "plans.a", "one of"),
    "a burst of a day": ('[[plans.a.rates]]\nlimit = 1\nburst = 1\ncalendar = "day"', "plans.a", "period_seconds"),
    "two rates of one name": (
        "[plans.a]\nrates = [{limit=1,period_seconds=1},{limit=2,period_seconds=2}]",
        "plans.a",
        "names",
    ),
    "a plan that is none": ("[plans]\na = 1", "plans.a", "[plans.default.quotas]"),
    "plans that are none": ("plans = 1", "plans", "[plans.default.quotas]"),
    "policies": ("[policies]\nx = 1", "policies", "[[plans.NAME.rates]]"),
    "public routes": ('public = ["GET /livez"]', "public", "asgi(app, public=...)"),
    "a fake": ("allow_fake = true", "allow_fake", "only code"),
    "a fake below": ("[hub]\nallow_fake = true", "hub.allow_fake", "only code"),
}


@pytest.mark.parametrize(("text", "key", "remedy"), WRONG_FILES.values(), ids=WRONG_FILES)
def test_a_wrong_file(text: str, key: str, remedy: str, tmp_path: Path) -> None:
    """The error names file, key and remedy, in one line each."""
    path = write(tmp_path, text)
    lines = fault(path=path, environ={}).splitlines()
    assert all(LINE.fullmatch(line) for line in lines), lines
    mine = [line for line in lines if f": {key}" in line or f'"{key}"' in line]
    assert mine
    assert mine[0].startswith(f"file {path}: ")
    assert remedy in mine[0]


def test_everything_wrong_with_plans_is_said_at_once(tmp_path: Path) -> None:
    """A line for each, in one reading, with a remedy for what it is."""
    text = "[plans.a]\nquota = 1\n[plans.a.quotas]\nkeys = -1\nkey = 1\n[[plans.b.rates]]\nlimit = 1\n"
    said = fault(path=write(tmp_path, text), environ={}).splitlines()
    wrong = {line.split(": ")[1]: line for line in said if ": plans" in line}
    assert set(wrong) == {"plans.a.quota", "plans.a.quotas.keys", "plans.a.quotas.key", "plans.b.rates.0"}
    assert "[[plans.default.rates]] with limit" in wrong["plans.b.rates.0"]


WRONG_VARIABLES = {
    "one underscore": ("HIVETENANCY_HUB_URL", URL, "HIVETENANCY_HUB__URL"),
    "a mistake": ("HIVETENANCY_HUB__RETRYS", "3", "HIVETENANCY_HUB__RETRIES"),
    "nothing near": ("HIVETENANCY_XYZZY", "3", "known are HIVETENANCY_MODE"),
    "small letters": ("hivetenancy_mode", "cluster", "HIVETENANCY_MODE"),
    "a table": ("HIVETENANCY_HUB", "x", "HIVETENANCY_HUB"),
    "nothing in it": ("HIVETENANCY_HUB__RETRIES", "", "unset it"),
    "a bad number": ("HIVETENANCY_HUB__RETRIES", "3 ", "set HIVETENANCY_HUB__RETRIES to, for example, 3"),
    "a bad fraction": ("HIVETENANCY_REPORT_SECONDS", "1e3", "set HIVETENANCY_REPORT_SECONDS to, for example, 10"),
    "a bad yes": ("HIVETENANCY_ALLOW_WORKERS", "maybe", "set HIVETENANCY_ALLOW_WORKERS to, for example, 1"),
    "a bad status": ("HIVETENANCY_HTTP__QUOTA_STATUS__KEYS", "200", "403, 429, 507"),
    "no dimension": ("HIVETENANCY_HTTP__QUOTA_STATUS", "507", "HIVETENANCY_HTTP__QUOTA_STATUS"),
    "Redis to come": ("HIVETENANCY_REDIS__URL", "redis://x", "leave it out"),
    "plans": ("HIVETENANCY_PLANS", "{}", "settings file"),
    "a plan": ("HIVETENANCY_PLANS__FREE__QUOTAS__KEYS", "1", "settings file"),
    "a fake": ("HIVETENANCY_ALLOW_FAKE", "1", "only code"),
    "a fake below": ("HIVETENANCY_HUB__ALLOW_FAKE", "1", "only code"),
    "another's, empty": ("HIVEHUB_API_URL", "", "unset it"),
}


@pytest.mark.parametrize(("name", "value", "remedy"), WRONG_VARIABLES.values(), ids=WRONG_VARIABLES)
def test_a_wrong_variable(name: str, value: str, remedy: str) -> None:
    """The error names variable, key and remedy; one that begins like ours and is none is no exception."""
    lines = fault(environ={**CLUSTER, name: value}).splitlines()
    assert all(LINE.fullmatch(line) or "hivetenancy_mode" in line for line in lines), lines
    mine = [line for line in lines if line.startswith(f"environment {name}: ")]
    assert mine
    assert remedy in mine[0]


def test_wrong_code() -> None:
    """What code states is judged like the rest."""
    message = fault(environ=CLUSTER, hub={"retries": 11, "urls": 1}, modes="cluster", allow_fake=True)
    assert [LINE.fullmatch(line)["key"] for line in message.splitlines()] == [  # type: ignore[index]
        "hub.urls", "modes", "allow_fake", "hub.retries",
    ]  # fmt: skip


def test_everything_wrong_is_said_at_once(tmp_path: Path) -> None:
    """An operator is not led through mistakes one start at a time."""
    path = write(tmp_path, 'modes = "x"\n[hub]\nretries = -1')
    assert len(fault(path=path, environ={"HIVEHUB_TIMEOUT": "x", "HIVETENANCY_X": "1"}).splitlines()) == 4


TOGETHER = {
    "a usage of Synap's elsewhere": ({"hub": {"synap_usage": "absolute"}}, "hub.synap_usage"),
    "admin beyond fresh": ({"freshness": {"fresh_seconds": 3}}, "freshness.admin_seconds"),
    "names too short": ({"names": {"max_name_bytes": 40}}, "names.max_name_bytes"),
}


@pytest.mark.parametrize(("code", "key"), TOGETHER.values(), ids=TOGETHER)
def test_what_is_wrong_together(code: dict[str, Any], key: str) -> None:
    """Settings that are right one by one and wrong together are found when they are read."""
    assert f": {key}: " in fault(environ=CLUSTER, **code)


def test_variables_that_are_no_settings() -> None:
    """The variable that names the file, and the one of this library's own test suite, are no unknown keys."""
    environ = {name: "" for name in NOT_SETTINGS if name != "HIVETENANCY_FILE"}
    assert environ
    assert load(None, {**CLUSTER, **environ}).mode == "cluster"


def test_a_key_writes_no_line_of_its_own() -> None:
    """A key with a line end in it is shown escaped, so that an error cannot be made to say something else."""
    assert len(fault(environ=CLUSTER, **{"x\nfile y: hub.url": 1}).splitlines()) == 1


# --- files -----------------------------------------------------------------------------------------------------------

NO_FILES = {
    "not there": (None, "server.toml", "cannot be read"),
    "of another kind": (b"", "server.json", ".toml, .yaml or .yml"),
    "of no kind": (b"", "server", ".toml, .yaml or .yml"),
    "not UTF-8": (b"mode = '\xff'", "server.toml", "UTF-8"),
    "no TOML": (b"mode cluster", "server.toml", "line 1, column 6"),
    "deep": (b"x = " + b"[" * 100_000, "server.toml", "no valid TOML"),
    "twice": (b"mode = 'cluster'\nmode = 'standalone'", "server.toml", "no valid TOML"),
    "too large": (b"#" * ((1 << 20) + 1), "server.toml", "at most"),
}


@pytest.mark.parametrize(("content", "name", "what"), NO_FILES.values(), ids=NO_FILES)
def test_a_file_that_is_none(content: bytes | None, name: str, what: str, tmp_path: Path) -> None:
    """A file that cannot be read as settings is an error that names it, what is wrong, and the remedy."""
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    message = fault(path=path, environ=STANDALONE)
    assert message.startswith(f"file {path}: ")
    assert what in message
    assert "; " in message


def test_a_folder_and_a_pipe_are_no_files(tmp_path: Path) -> None:
    """A folder is refused, and a pipe without waiting for somebody to write to it."""
    (tmp_path / "folder.toml").mkdir()
    os.mkfifo(tmp_path / "pipe.toml")
    for name in ("folder.toml", "pipe.toml"):
        assert fault(path=tmp_path / name, environ=STANDALONE).startswith(f"file {tmp_path / name}: ")


EXPOSED = [0o640, 0o604, 0o644, 0o660, 0o666, 0o620]


@pytest.mark.parametrize("mode", EXPOSED, ids=oct)
def test_a_secret_that_others_may_read(mode: int, tmp_path: Path) -> None:
    """A settings file that holds a service key, or a key's own file, is for its owner alone, overridden or not."""
    path = write(tmp_path, f'[hub]\nurl = "{URL}"\nservice_key = "{KEY}"', mode=mode)
    for environ in ({}, CLUSTER):
        message = fault(path=path, environ=environ)
        assert message.startswith(f"file {path}: hub.service_key: ")
        assert f"chmod 600 {path}" in message
    path.chmod(0o600)
    assert load(path, {}).hub.service_key == Secret(KEY)
    apart = write(tmp_path, KEY, name="key", mode=mode)
    message = fault(environ={"HIVETENANCY_HUB__URL": URL, "HIVETENANCY_HUB__SERVICE_KEY_FILE": str(apart)})
    assert message.startswith(f"key file {apart}: hub.service_key_file: ")
    assert f"chmod 600 {apart}" in message


def test_a_file_without_a_secret_may_be_read_by_all(tmp_path: Path) -> None:
    """Where no key is in it, a settings file is no secret."""
    path = write(tmp_path, f'mode = "cluster"\n[hub]\nurl = "{URL}"', mode=0o644)
    assert load(path, {"HIVEHUB_SERVICE_API_KEY": KEY}).hub.url == URL


def test_a_key_and_its_file_override_each_other(tmp_path: Path) -> None:
    """A key in the environment wins over a key's file in the settings file; stated together they clash."""
    write(tmp_path, "svc_in_the_file\n", name="key")
    path = write(tmp_path, f'[hub]\nurl = "{URL}"\nservice_key_file = "key"')
    inside = load(path, {})
    assert inside.hub.service_key == Secret("svc_in_the_file")
    assert str(inside.origin_of("hub.service_key")) == f"key file {tmp_path / 'key'}"
    above = load(path, {"HIVEHUB_SERVICE_API_KEY": KEY})
    assert (above.hub.service_key, above.hub.service_key_file) == (Secret(KEY), None)
    both = {**CLUSTER, "HIVETENANCY_HUB__SERVICE_KEY_FILE": str(tmp_path / "key")}
    assert "HIVETENANCY_HUB__SERVICE_KEY and environment HIVETENANCY_HUB__SERVICE_KEY_FILE" in fault(environ=both)


@pytest.mark.parametrize("content", ["", "\n", "two words", f"{KEY}\n\n", f"{KEY}\n{KEY}", " " + KEY, "\xff" * 9])
def test_a_key_file_holds_the_key_alone(content: str, tmp_path: Path) -> None:
    """Anything but one line with one key is refused, and nothing of it is shown."""
    key = tmp_path / "key"
    key.write_bytes(content.encode("latin-1"))
    key.chmod(0o600)
    message = fault(environ={"HIVETENANCY_HUB__URL": URL, "HIVETENANCY_HUB__SERVICE_KEY_FILE": str(key)})
    assert message.startswith(f"key file {key}: hub.service_key_file: ")
    assert not_shown(message)


# --- YAML ------------------------------------------------------------------------------------------------------------


def test_yaml_says_the_same_as_toml(tmp_path: Path) -> None:
    """The same settings in YAML and TOML are the same settings."""
    pytest.importorskip("yaml", reason="PyYAML is not installed: it belongs to the extra yaml")
    toml = f'mode = "cluster"\n[hub]\nurl = "{URL}"\nservice_key = "{KEY}"\n[http.quota_status]\nkeys = 507\n'
    yaml = f"mode: cluster\nhub:\n  url: {URL}\n  service_key: {KEY}\nhttp: {{quota_status: {{keys: 507}}}}\n"
    for name in ("server.yaml", "server.yml"):
        made = load(write(tmp_path, yaml, name=name), {})
        assert dict(made) == dict(load(write(tmp_path, toml), {}))
    assert load(write(tmp_path, "", name="empty.yaml"), STANDALONE).mode == "standalone"


WRONG_YAML = {
    "no YAML": ("mode: [", "no valid YAML"),
    "a key twice": ("mode: standalone\nmode: cluster", "twice (line 1)"),
    "a key twice below": ("hub:\n  url: a\n  url: b", "twice (line 2)"),
    "an object": ("mode: !!python/object/apply:os.getcwd []", "no valid YAML (line 1)"),
    "an alias that is a secret": (f"hub:\n  service_key: *{KEY}", "no valid YAML"),
    "a date that is none": ("mode: 2024-99-99", "no valid YAML"),
    "a list": ("- mode", "no table"),
    "no value": ("mode:", "must be one of"),
    "a mode that YAML reads as a no": ("http:\n  rate_headers: off", "must be one of"),
    "itself": ("hub: &a\n  url: *a", "hub.url"),
}


@pytest.mark.parametrize(("text", "what"), WRONG_YAML.values(), ids=WRONG_YAML)
def test_wrong_yaml(text: str, what: str, tmp_path: Path) -> None:
    """YAML's own surprises are errors that name the file and show nothing of it."""
    pytest.importorskip("yaml", reason="PyYAML is not installed: it belongs to the extra yaml")
    path = write(tmp_path, text, name="server.yaml")
    message = fault(path=path, environ={})
    assert message.startswith(f"file {path}: ")
    assert what in message
    assert not_shown(message)


def test_yaml_without_its_extra_names_it(tmp_path: Path) -> None:
    """Without PyYAML a TOML file works as ever, and a YAML file is an `ImportError` that names the extra."""
    write(tmp_path, 'mode = "standalone"')
    write(tmp_path, "mode: standalone", name="server.yaml")
    program = (
        "import sys; sys.modules['yaml'] = None\n"
        "from hivetenancy.settings import load\n"
        "print(load('server.toml', {}).mode)\n"
        "try:\n    load('server.yaml', {})\n"
        "except ImportError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[0] == "standalone"
    assert "pip install 'hivetenancy[yaml]'" in done.stdout.splitlines()[1]

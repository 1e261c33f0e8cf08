"""What an operator writes: one model, from a file, the environment and code.

`load` reads a TOML file (YAML with the extra ``yaml``), lets the environment override it, and code both. The rules:

- **One order.** Code, then our own variables (``HIVETENANCY_HUB__URL``), then those that HiveHub's services read
  (``SYNAP_HUB_*``, ``HIVEHUB_CLOUD_*``, ``HIVEHUB_*``), then the file, then the default. `Settings.origin_of` says
  which it was.
- **The mode is stated.** Standalone mode is never what is left when something fails: without a mode, and without a hub
  that implies cluster mode, there are no settings at all, and a service key beside standalone mode is a contradiction.
- **Nothing is guessed.** Unknown keys, numbers that do not parse, empty variables, two foreign variables that disagree:
  each is an error with place, key and remedy, and an operator sees all of them at once. There is no default URL.
- **A secret stays one.** It is in no repr, error, schema or pickle, and a file that others may read must not hold it.

No setting lets a fake hub stand in for a real one: that is ``allow_fake=True`` in code.

Source:
    Architecture, decision 29; HiveHub wire, part 1 (environment).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import SecretStr, ValidationError

from hivetenancy.access_keys.cached import Freshness
from hivetenancy.adapters.http import HttpOptions
from hivetenancy.clock import SECOND_US
from hivetenancy.errors import ConfigurationError
from hivetenancy.ids import Environment
from hivetenancy.namespaces.manifest import FileManifest, claim
from hivetenancy.namespaces.prefix import PrefixNamespaces
from hivetenancy.periods import Period
from hivetenancy.plans import CalendarPolicy, ConcurrencyPolicy, Plan, Policy, RatePolicy, Scope, quota_limit
from hivetenancy.stamps import ClusterSecret

from .model import KNOWN, LEAVES, Leaf, PlanSettings, RateSettings, Secret, cluster_secret, leaf_of, secret
from .model import Settings as Settings
from .sources import (
    FILE_VARIABLE,
    FOREIGN,
    Origin,
    Problems,
    Stated,
    UnreadableError,
    flag,
    foreign_variables,
    own_variables,
    read_file,
    read_key_file,
    statements,
    variable,
)

_FILES: Mapping[str, tuple[str, Callable[[object], Secret]]] = {
    "hub.service_key": ("hub.service_key_file", secret),
    "secret": ("secret_file", cluster_secret),
}
"""Each secret, with the setting that names a file with it, and what judges it."""

# --- judging one value -----------------------------------------------------------------------------------------------


def _judge(said: Stated, problems: Problems) -> tuple[bool, object]:
    """Return whether *said* holds a right value, and that value; a wrong one becomes a problem."""
    leaf = leaf_of(said.key)
    value: Any = None
    wrong: list[tuple[str, str]] = []
    try:
        raw = _from_text(leaf, str(said.value), said.whole) if said.textual else said.value
        value = leaf.adapter.validate_python(raw.value if isinstance(raw, StrEnum) else raw, strict=True)
    except ValidationError as error:
        wrong = _parts_of_plans(error) if leaf.kind == "plans" else [(said.key, _in_words(leaf, error))]
    except ValueError as error:
        wrong = [(said.key, str(error))]
    for key, fault in wrong:
        problems.add(said.origin, key, fault, _remedy(leaf, said, key))
    if wrong:
        return False, None
    if isinstance(value, Path) and said.origin.kind == "file":
        value = Path(said.origin.name).absolute().parent / value
    return True, value


def _from_text(leaf: Leaf, text: str, whole: bool) -> object:
    """Return what *text*, from a variable, stands for; stricter than Python, which reads ``1_0`` and ``nan``."""
    is_whole = re.fullmatch(r"-?[0-9]{1,18}", text) is not None
    counts = leaf.kind == "whole number" or (whole and leaf.kind == "number")
    if counts or any(isinstance(choice, int) for choice in leaf.choices):
        if not is_whole:
            raise ValueError("must be a whole number")
        return int(text)
    if leaf.kind == "number":
        if not re.fullmatch(r"-?[0-9]{1,18}(\.[0-9]{1,9})?", text):
            raise ValueError("must be a number")
        return float(text)
    if leaf.kind == "yes or no":
        if flag(text) is None:
            raise ValueError("must be yes or no")
        return flag(text)
    return text


def _in_words(leaf: Leaf, error: ValidationError) -> str:
    """Say what is wrong with a value, without the value: a secret may have been put into the wrong place."""
    if leaf.choices:
        return f"must be one of {', '.join(map(str, leaf.choices))}"
    fault = error.errors(include_input=False, include_context=False, include_url=False)[0]["msg"]
    if "pattern" in fault:
        return "must be printable ASCII without quotes and backslashes"
    return re.sub(r"^(Value error, |(Input|String|Value) should )", _opening, fault)


def _opening(found: re.Match[str]) -> str:
    return "" if found[0].startswith("Value error") else "must "


def _parts_of_plans(error: ValidationError) -> list[tuple[str, str]]:
    """Return which parts of plans are wrong, each once, and what is wrong with it."""
    every = error.errors(include_input=False, include_context=False, include_url=False)
    return list(dict(map(_part_of_a_plan, every)).items())


def _part_of_a_plan(first: Mapping[str, Any]) -> tuple[str, str]:
    place = [str(part) for part in first["loc"] if part != "[key]"]
    if place[1:2] == ["quotas"] and first["type"] != "value_error":
        return ".".join(["plans", *place[:3]]), 'must be a whole number from 0, or "unlimited"'
    if first["type"] == "extra_forbidden":
        known = RateSettings if "rates" in place else PlanSettings
        return ".".join(["plans", *place]), f"unknown key; known are {', '.join(known.model_fields)}"
    words = re.sub(r"^(Value error, |(Input|String|Value|List) should )", _opening, first["msg"])
    if "pattern" in words:
        words = "the name must be 1-64 of a-z, 0-9, '-', '_' and '.'"
    return ".".join(["plans", *place]), words


def _remedy(leaf: Leaf, said: Stated, key: str) -> str:
    if leaf.kind == "plans" and ".rates." in key:
        return "correct it; for example [[plans.default.rates]] with limit = 600 and period_seconds = 60"
    if leaf.kind == "plans":
        return "correct it; for example [plans.default.quotas] with keys = 1000"
    example = leaf.example
    if isinstance(example, Mapping):
        example = next(iter(example.values()))
    match said.origin.kind:
        case "environment":
            shown = str(int(example)) if isinstance(example, bool) else example
            return f"set {said.origin.name} to, for example, {shown}"
        case "code":
            return f"pass, for example, {example!r}"
        case _:
            shown = str(example).lower() if isinstance(example, bool | int | float) else f'"{example}"'
            return f"write, for example, {said.key.rpartition('.')[2]} = {shown}"


# --- loading ---------------------------------------------------------------------------------------------------------


def load(
    path: str | os.PathLike[str] | None = None, environ: Mapping[str, str] | None = None, **code: object
) -> Settings:
    """Read the settings of this process.

    Args:
        path: The settings file, ``.toml``, ``.yaml`` or ``.yml``; ``None``: the one that ``HIVETENANCY_FILE`` names,
            and without that variable no file. None is ever searched for.
        environ: The environment; ``None``: that of the process.
        **code: What code states, over both: ``mode="cluster"``, ``hub={"url": ...}``; ``None`` states nothing.

    Raises:
        ConfigurationError: Something is wrong or missing; a line for each, with place, key and remedy.
        ImportError: The file is YAML and the extra ``yaml`` is not installed.

    Concurrency:
        Reads files; for the start of a process, not for a request. Safe from any thread.
    """
    try:
        return _load(path, os.environ if environ is None else environ, code)
    except ConfigurationError as error:
        fault = str(error)
    del environ, code  # a traceback that shows variables shows no secret
    raise ConfigurationError(fault)


def _load(path: str | os.PathLike[str] | None, environ: Mapping[str, str], code: Mapping[str, object]) -> Settings:
    problems = Problems()
    said: list[Stated] = []
    file = _file(path, environ)
    if file is not None:
        said += _file_statements(file, problems)
    said += foreign_variables(environ, problems)
    said += own_variables(environ, KNOWN, problems)
    said += statements({**code}, Origin(kind="code"), KNOWN, problems)
    judged = _Judged(said, problems)
    problems.raise_if_any()  # what belongs together is looked at once each part is right
    settings = judged.settle(Origin(kind="file", name=str(file)) if file else None)
    problems.raise_if_any()
    return settings


def _file(path: str | os.PathLike[str] | None, environ: Mapping[str, str]) -> Path | None:
    if path is not None:
        return Path(path)
    named = environ.get(FILE_VARIABLE)
    if named == "":
        raise ConfigurationError(f"environment {FILE_VARIABLE}: is set and empty; unset it, or name a settings file")
    return None if named is None else Path(named)


def _file_statements(file: Path, problems: Problems) -> Iterable[Stated]:
    origin = Origin(kind="file", name=str(file))
    tree, exposed = read_file(file)
    found = list(statements(tree, origin, KNOWN, problems))
    for each in found:
        if exposed and each.key in _FILES:
            problems.add(
                origin,
                each.key,
                "others than the owner of the file may read it",
                f"chmod 600 {file}, and change the key if somebody did; or name a file with {_FILES[each.key][0]}",
            )
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Right:
    """A statement with a right value."""

    said: Stated
    value: object


class _Judged:
    """What was said, each by itself right, being brought together."""

    def __init__(self, said: Iterable[Stated], problems: Problems) -> None:
        self._problems = problems
        self._right: dict[str, list[_Right]] = {}
        for each in said:
            right, value = _judge(each, problems)
            if right:
                self._right.setdefault(each.key, []).append(_Right(said=each, value=value))

    def settle(self, file: Origin | None) -> Settings:
        """Return the settings; contradictions become problems, and then what is returned is of no use."""
        for key, (file_key, _) in _FILES.items():
            self._choose(key, file_key)
        chosen = {key: self._strongest(key) for key in self._right}
        values = {key: right.value for key, right in chosen.items()}
        origins = {key: right.said.origin for key, right in chosen.items()}
        self._settle_mode(values, origins, file)
        settings = Settings.model_validate(_tree(values))
        settings._origins.update(origins)
        _check_together(settings, self._problems)
        return settings

    def _strongest(self, key: str) -> _Right:
        """Return what counts for *key*: of the highest rank, and of foreign variables the first; they must agree."""
        rank = max(right.said.rank for right in self._right[key])
        first, *others = (right for right in self._right[key] if right.said.rank == rank)
        for other in others:
            if rank == FOREIGN and other.value != first.value:
                names = f"{first.said.origin} and {other.said.origin.name}"
                remedy = f"unset one of them, or say which with {variable(key)}"
                self._problems.add(names, key, "do not say the same", remedy)
        return first

    def _choose(self, key: str, file_key: str) -> None:
        """Let a secret and a file with one override each other like one setting; stated together they clash."""
        both = {each: self._right[each] for each in (key, file_key) if each in self._right}
        if len(both) < 2:
            return
        ranks = {each: max(right.said.rank for right in said) for each, said in both.items()}
        weaker = min(ranks, key=lambda each: ranks[each])
        if len(set(ranks.values())) == 2:
            del self._right[weaker]
            return
        places = " and ".join(str(max(said, key=lambda right: right.said.rank).said.origin) for said in both.values())
        self._problems.add(places, key, f"is stated, and {file_key} too", "take one of them away")

    def _settle_mode(self, values: dict[str, object], origins: dict[str, Origin], file: Origin | None) -> None:
        """Find the mode and what contradicts it. Standalone mode is only ever stated."""
        where: object = file or "environment"
        keys = [key for key in ("hub.service_key", "hub.service_key_file") if key in values]
        implied = next((key for key in ("hub.url", *keys) if key in values), None)
        if "mode" not in values and implied is None:
            remedy = f'say mode = "standalone" or mode = "cluster" there, or set {variable("mode")}'
            self._problems.add(where, "mode", "is not stated", remedy)
        elif "mode" not in values:
            values["mode"], origins["mode"] = "cluster", Origin(kind="implied", name=str(implied))
        against = [f"{key} ({origins[key]})" for key in keys]
        if not self._switched_off_against(against) and values.get("mode") == "standalone" and against:
            what = f"is standalone, against {against[0]}"
            self._problems.add(origins["mode"], "mode", what, "say cluster, or take the key away")
        if values.setdefault("mode", "standalone") == "cluster":
            self._complete(values, origins, where)

    def _switched_off_against(self, keys: Sequence[str]) -> bool:
        """Say what contradicts a foreign variable that turns the hub off: it neither wins nor loses in silence."""
        said = self._right.get("mode", [])
        off = [each.said.origin for each in said if each.value == "standalone" and each.said.rank == FOREIGN]
        against = [f"mode = cluster ({each.said.origin})" for each in said if each.value == "cluster"] + list(keys)
        if not off or not against:
            return False
        what, remedy = f"turns the hub off, against {against[0]}", f"unset {off[0].name}, or take the other away"
        self._problems.add(off[0], "mode", what, remedy)
        return True

    def _complete(self, values: dict[str, object], origins: dict[str, Origin], where: object) -> None:
        """Read the file of the service key, and name what cluster mode needs and nobody stated."""
        if "hub.url" not in values:
            remedy = f"say where the hub is: url below [hub], or {variable('hub.url')}"
            self._problems.add(where, "hub.url", "is missing, and has no default", remedy)
        for key in _FILES:
            self._take_from_file(key, values, origins)
        if "hub.service_key" not in values:
            remedy = f"name its file: service_key_file below [hub], or set {variable('hub.service_key')}"
            self._problems.add(where, "hub.service_key", "is missing", remedy)

    def _take_from_file(self, key: str, values: dict[str, object], origins: dict[str, Origin]) -> None:
        file_key, check = _FILES[key]
        path = values.get(file_key)
        if isinstance(path, Path):
            origins[key] = Origin(kind="key file", name=str(path))
            values[key] = self._secret_in(path, file_key, check, origins[key])

    def _secret_in(self, path: Path, file_key: str, check: Callable[[object], Secret], origin: Origin) -> object:
        try:
            text, exposed = read_key_file(path)
        except UnreadableError as error:
            self._problems.add(origin, file_key, error.what, error.remedy)
            return None
        if exposed:
            self._problems.add(
                origin,
                file_key,
                "others than its owner may read it",
                f"chmod 600 {path}, and change the key if somebody did",
            )
        try:
            return check(text)
        except ValueError as error:
            self._problems.add(origin, file_key, str(error), "write the key alone into the file")
            return None


def _tree(values: Mapping[str, object]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, value in values.items():
        *tables, last = key.split(".") if key in LEAVES else [*leaf_of(key).key.split("."), _own_part(key)]
        table = tree
        for name in tables:
            table = table.setdefault(name, {})
        table[last] = value
    return tree


def _own_part(key: str) -> str:
    return key.removeprefix(f"{leaf_of(key).key}.")


def _check_together(settings: Settings, problems: Problems) -> None:
    """Look at what is right by itself and wrong together."""
    hub, fresh = settings.hub, settings.freshness

    def add(key: str, what: str, remedy: str) -> None:
        problems.add(settings.origin_of(key), key, what, remedy)

    if hub.synap_usage is not None and hub.service != "synap":
        add("hub.synap_usage", "goes with hub.service = synap", 'take it away, or say service = "synap"')
    if fresh.admin_seconds > fresh.fresh_seconds:
        at = settings.origin_of("freshness.fresh_seconds")
        add(
            "freshness.admin_seconds",
            f"is {fresh.admin_seconds:g}, above freshness.fresh_seconds, {fresh.fresh_seconds:g} ({at})",
            "lower it, or raise the other",
        )
    try:
        _names(settings)
    except ConfigurationError as error:
        add("names.max_name_bytes", str(error), "raise it, or choose another names.scheme")


# --- what is built from them -----------------------------------------------------------------------------------------


def hub_arguments(settings: Settings) -> dict[str, Any]:
    """Return the arguments of ``HiveHub`` that *settings* state: url, service key, and what has a value.

    The service key is in it as plain text; pass it on at once, and keep it nowhere.

    Raises:
        ConfigurationError: The mode is standalone, where there is no hub, or url or key are missing because the
            settings were not built by `load`.
    """
    hub = settings.hub
    if settings.mode != "cluster" or hub.url is None or hub.service_key is None:
        raise ConfigurationError("settings: hub: no hub is stated; load settings of cluster mode with url and key")
    plans = {name: _plan(name, plan) for name, plan in settings.plans.items()} or None
    optional = {"service": hub.service, "synap_usage": hub.synap_usage, "plans": plans}
    return {
        "url": hub.url,
        "service_key": hub.service_key.get_secret_value(),
        "timeout_s": hub.timeout_seconds,
        "retries": hub.retries,
    } | {name: value for name, value in optional.items() if value is not None}


def tenancy_arguments(settings: Settings) -> dict[str, Any]:
    """Return the options of `Tenancy.embedded` that *settings* state; ``state`` and ``secret`` only if there is one.

    The secret is in it as plain bytes; pass it on at once, and keep it nowhere.

    Where ``names.manifest`` is stated, the names are claimed in that file.

    Raises:
        ConfigurationError: The file was written for names of another profile or id scheme, or cannot be used.
    """
    names = _names(settings)
    if settings.names.manifest is not None:
        claim(FileManifest(settings.names.manifest), names)
    state = {} if settings.hub.state is None else {"state": settings.hub.state}
    shared = {} if settings.secret is None else {"secret": settings.secret.get_secret_value().encode("ascii")}
    return (
        {
            "environment": None if settings.environment is None else Environment(settings.environment),
            "freshness": _freshness(settings),
            "http": _http(settings),
            "names": names,
            "report_seconds": settings.report_seconds,
            "report_threshold": settings.report_threshold,
            "allow_workers": settings.allow_workers,
            "wait_seconds": settings.hub.wait_seconds,
        }
        | state
        | shared
    )


def _plan(name: str, given: PlanSettings) -> Plan:
    quotas = [
        quota_limit(dimension, limit if isinstance(limit, int) else None) for dimension, limit in given.quotas.items()
    ]
    return Plan(name=name, rates=tuple(map(_policy, given.rates)), quotas=tuple(quotas), statics=given.statics)


def _policy(given: RateSettings) -> Policy:
    scope = Scope(given.scope)
    if given.calendar is not None:
        return CalendarPolicy(limit=given.limit, period=Period(given.calendar), name=given.name, scope=scope)
    if given.period_seconds is None:
        return ConcurrencyPolicy(limit=given.limit, name=given.name, scope=scope)
    period_us = round(given.period_seconds * SECOND_US)
    return RatePolicy(limit=given.limit, period_us=period_us, burst=given.burst, name=given.name, scope=scope)


def _freshness(settings: Settings) -> Freshness:
    given = settings.freshness
    seconds = {name: value for name, value in given if name.endswith("_seconds")}
    windows = {name.replace("_seconds", "_us"): round(value * SECOND_US) for name, value in seconds.items()}
    return Freshness(**windows, refresh_percent=given.refresh_percent)


def _http(settings: Settings) -> HttpOptions:
    return HttpOptions(**dict(settings.http))


def _names(settings: Settings) -> PrefixNamespaces:
    root = settings.secret
    cursors = None if root is None else ClusterSecret(root.get_secret_value().encode("ascii")).derive("names")
    return PrefixNamespaces(**settings.names.model_dump(exclude={"manifest"}), secret=cursors)


# --- what is shown of them -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A setting as it may be shown.

    Attributes:
        key: Its name, dotted.
        value: Its value in JSON's types; a secret as ``"set"``, ``None`` where there is no value.
        origin: Where it comes from.
    """

    key: str
    value: object
    origin: Origin


def shown(settings: Settings) -> Sequence[Shown]:
    """Return every setting with its value and origin, fit for the eyes of anybody."""
    found = []
    for key, leaf in LEAVES.items():
        value = settings.value_of(key)
        if leaf.kind == "table":
            for name in value:
                below = f"{key}.{name}"
                found.append(Shown(key=below, value=value[name], origin=settings.origin_of(below)))
        else:
            found.append(Shown(key=key, value=_showable(value), origin=settings.origin_of(key)))
    return found


def _showable(value: object) -> object:
    if isinstance(value, Mapping):
        return {name: plan.model_dump(exclude_defaults=True) for name, plan in value.items()}
    if isinstance(value, SecretStr):
        return "set"
    return str(value) if isinstance(value, Path) else value


def file_schema() -> dict[str, Any]:
    """Return the JSON schema (2020-12) of a settings file. Nothing is required: the environment may state the rest."""
    schema = Settings.model_json_schema(mode="validation")
    schema.pop("required", None)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "hivetenancy settings"}

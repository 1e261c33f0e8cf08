"""Where settings come from: a file, the environment, code. Everything here is raw; `hivetenancy.settings` judges it.

Each place states *keys* (dotted, as ``hub.url``), and each statement carries its origin and its rank: what stands
higher wins, and nothing is ever taken because something else could not be read. Rules that are easy to break:

- A value that is overridden must still be right. A wrong number that shows only once the variable above it is removed
  would be found in the worst moment.
- Two foreign names that disagree (``SYNAP_HUB_API_URL`` and ``HIVEHUB_API_URL``) are an error that names both: each
  was meant for somebody, and no order of ours says for whom. Our own names override them in silence.
- A raw value never enters a message: it may be a secret that was put into the wrong place.
"""

from __future__ import annotations

import os
import re
import stat
import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, Literal

from hivetenancy.errors import ConfigurationError

PREFIX: Final = "HIVETENANCY_"
"""How every variable of our own begins; a variable that begins so and is none is an error."""

FILE_VARIABLE: Final = "HIVETENANCY_FILE"
"""Names the settings file where code does not."""

NOT_SETTINGS: Final = frozenset({FILE_VARIABLE, "HIVETENANCY_TIER"})
"""Our own variables that are no settings; the second chooses how much this library's test suite draws."""

MAX_FILE_BYTES: Final = 1 << 20
"""No settings file comes near 1 MiB: what is larger is another file, named by mistake."""

MAX_KEY_FILE_BYTES: Final = 4096
"""A service key is one line."""

FILE, FOREIGN, OWN, CODE = range(1, 5)
"""Ranks, from the weakest: the file, variables of HiveHub's services, our own variables, code."""

_ON: Final = frozenset({"1", "true", "yes", "on"})
_OFF: Final = frozenset({"0", "false", "no", "off"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a value comes from.

    Attributes:
        kind: ``default``, ``file``, ``environment``, ``code``, ``key file`` (the content of
            ``hub.service_key_file``) or ``implied`` (*name* is the setting that implies it).
        name: Path of the file, or name of the variable; empty for ``default`` and ``code``.
    """

    kind: Literal["default", "file", "environment", "code", "key file", "implied"]
    name: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.name}".rstrip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Stated:
    """One thing that one place says. It has no useful repr: the value may be a secret.

    Attributes:
        key: The setting, dotted.
        value: What was written.
        origin: Where.
        rank: What stands higher wins.
        textual: Whether *value* is text that stands for a number or a switch, as in the environment.
        whole: Whether a number must be a whole one: what HiveHub's services read.
    """

    key: str
    value: object
    origin: Origin
    rank: int
    textual: bool = False
    whole: bool = False

    def __repr__(self) -> str:
        return f"Stated({self.key!r}, {str(self.origin)!r})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """The keys that there are.

    Attributes:
        keys: Every key, dotted.
        open_tables: Keys whose value is a table with keys of the operator's own.
        no_variable: Keys that a file or code states, and no variable.
        refused: Keys that have a reason to be refused, by their first or last part.
    """

    keys: Collection[str]
    open_tables: Collection[str]
    no_variable: Collection[str]
    refused: Mapping[str, str]


class UnreadableError(Exception):
    """A file cannot be read; never leaves `hivetenancy.settings`, which says whose file it is.

    Attributes:
        what: What is wrong.
        remedy: What to do about it.
    """

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what)
        self.what, self.remedy = what, remedy


class Problems:
    """What is wrong, collected, so that an operator sees all of it at once."""

    def __init__(self) -> None:
        self._found: list[str] = []

    def add(self, where: object, key: str, what: str, remedy: str) -> None:
        """Add a problem: *what* is wrong with *key* in *where*, and what to do about it."""
        shown = key if key.isprintable() else ascii(key)  # so that a key cannot write lines of its own
        self._found.append(f"{where}: {shown}: {what}; {remedy}")

    def raise_if_any(self) -> None:
        """Raise one `ConfigurationError` that holds a line for each problem, if there is one."""
        if self._found:
            raise ConfigurationError("\n".join(dict.fromkeys(self._found)))


# --- names -----------------------------------------------------------------------------------------------------------


def variable(key: str) -> str:
    """Return our own variable for *key*.

    Example:
        >>> variable("hub.service_key")
        'HIVETENANCY_HUB__SERVICE_KEY'
    """
    return PREFIX + key.upper().replace(".", "__")


def _unknown(problems: Problems, origin: Origin, shown: str, key: str, known: Known) -> None:
    """Say that there is no such key: why it is refused if there is a reason, else the nearest that there is."""
    parts = key.split(".")
    reason = known.refused.get(parts[0]) or known.refused.get(parts[-1])
    if reason is not None:
        problems.add(origin, shown, "is no setting", reason)
        return
    spell: Callable[[str], str] = variable if origin.kind == "environment" else str
    near = _nearest(key, known)
    remedy = f"did you mean {spell(near)}?" if near else f"known are {', '.join(map(spell, known.keys))}"
    problems.add(origin, shown, "unknown key", f"correct or remove it; {remedy}")


def _nearest(key: str, known: Known) -> str | None:
    tables = {name.rsplit(".", 1)[0] for name in known.keys if "." in name}
    last = key.rsplit(".", 1)[-1]
    moved = [name for name in known.keys if name.rsplit(".", 1)[-1] == last]  # right name, wrong table
    flat = {name.replace(".", "_"): name for name in known.keys}  # one underscore where two are needed
    found = flat.get(key.replace(".", "_")) or next(iter(moved), None)
    return found or next(iter(get_close_matches(key, [*known.keys, *tables], n=1, cutoff=0.6)), None)


# --- a tree of tables: a file, or code -------------------------------------------------------------------------------


def statements(tree: Mapping[Any, object], origin: Origin, known: Known, problems: Problems) -> Iterator[Stated]:
    """Yield what *tree* states, table by table; keys that there are not become problems."""
    yield from _table(tree, "", origin, known, problems)


def _table(
    table: Mapping[Any, object], above: str, origin: Origin, known: Known, problems: Problems
) -> Iterator[Stated]:
    rank = CODE if origin.kind == "code" else FILE
    for name, value in table.items():
        key = f"{above}{name}"
        is_table = key in known.open_tables or any(each.startswith(f"{key}.") for each in known.keys)
        if "." in str(name) and above.removesuffix(".") not in known.open_tables:
            _unknown(problems, origin, f'"{key}" (quoted)', key, known)
        elif is_table and isinstance(value, Mapping):
            yield from _table(value, f"{key}.", origin, known, problems)
        elif is_table:
            problems.add(origin, key, "is a table of settings, not a value", f"write its keys below [{key}]")
        elif key not in known.keys and above.removesuffix(".") not in known.open_tables:
            _unknown(problems, origin, key, key, known)
        elif value is None and rank == CODE:
            continue  # an argument that was left out
        else:
            yield Stated(key=key, value=value, origin=origin, rank=rank)


# --- the file --------------------------------------------------------------------------------------------------------


def read_file(path: Path) -> tuple[Mapping[Any, object], bool]:
    """Return the tree that the settings file holds, and whether others than its owner may read it.

    Raises:
        ConfigurationError: There is no such file, its kind is unknown, or it is no valid TOML or YAML.
        ImportError: It is YAML, and the extra is not installed; the message names it.
    """
    suffix = path.suffix.lower()
    if suffix not in (".toml", ".yaml", ".yml"):
        raise ConfigurationError(f"file {path}: unknown kind of settings file; name it .toml, .yaml or .yml")
    parse = _toml if suffix == ".toml" else _yaml_parser()  # before anything is read: an ImportError holds no text
    try:
        content, exposed = _read(path, MAX_FILE_BYTES)
    except UnreadableError as error:
        raise ConfigurationError(f"file {path}: {error.what}; {error.remedy}") from None
    if not _is_utf8(content):
        raise ConfigurationError(f"file {path}: is not UTF-8; save it as UTF-8")
    tree = parse(content.decode("utf-8"), path)
    if tree is None:
        return {}, exposed
    if not isinstance(tree, Mapping):
        raise ConfigurationError(f"file {path}: is no table of settings; write `key: value` lines")
    return tree, exposed


def read_key_file(path: Path) -> tuple[str, bool]:
    """Return the text of a file that holds a service key, without the line's end, and whether others may read it.

    Raises:
        UnreadableError: There is no such file, or it is too large.
    """
    content, exposed = _read(path, MAX_KEY_FILE_BYTES)
    return content.decode("utf-8", "replace").removesuffix("\n").removesuffix("\r"), exposed


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:  # it holds the content: nothing is raised from it
        return False
    return True


def _read(path: Path, most: int) -> tuple[bytes, bool]:
    fault, content, regular, exposed = "", b"", False, False
    try:
        with open(path, "rb", opener=_open_without_waiting) as file:
            status = os.fstat(file.fileno())  # of what is read, not of what the name leads to a moment later
            regular = stat.S_ISREG(status.st_mode)
            exposed = os.name == "posix" and bool(status.st_mode & 0o077)
            content = file.read(most + 1) if regular else b""
    except (OSError, ValueError) as error:
        fault = getattr(error, "strerror", None) or "is no path"
    if fault:
        raise UnreadableError(f"cannot be read ({fault})", "correct the path or the rights of the file")
    if not regular or len(content) > most:
        raise UnreadableError(f"is no file of at most {most} bytes", "correct the path")
    return content, exposed


def _open_without_waiting(path: str, flags: int) -> int:
    """Open a pipe without waiting for somebody to write to it: it is refused a line later."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))


def _toml(text: str, path: Path) -> object:
    fault = ""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        where = re.search(r"\((?:at line \d+, column \d+|at end of document)\)", str(error))
        fault = f" {where[0]}" if where else ""
    except RecursionError:
        fault = " (nested too deeply)"
    raise ConfigurationError(f"file {path}: is no valid TOML{fault}; correct it there, or name it .yaml if it is YAML")


def _yaml_parser() -> Callable[[str, Path], object]:
    from .yaml_file import parse  # only here: PyYAML is an extra

    def parse_at(text: str, path: Path) -> object:
        fault = ""
        try:
            return parse(text)
        except ConfigurationError as error:
            fault = str(error)
        raise ConfigurationError(f"file {path}: {fault}; correct it there")

    return parse_at


# --- the environment -------------------------------------------------------------------------------------------------


def own_variables(environ: Mapping[str, str], known: Known, problems: Problems) -> Iterator[Stated]:
    """Yield what our own variables state; one that begins like ours and is none becomes a problem."""
    for name in sorted(environ):
        if not name.upper().startswith(PREFIX) or name in NOT_SETTINGS:
            continue
        origin = Origin(kind="environment", name=name)
        key = name[len(PREFIX) :].lower().replace("__", ".")
        if key.split(".")[0] in known.no_variable:
            problems.add(origin, key, "has no variable", "unset it, and say it in the settings file")
            continue
        if name != name.upper():
            problems.add(origin, key, "is not in capital letters", f"call it {name.upper()}")
        elif key not in known.keys and key.rpartition(".")[0] not in known.open_tables:
            _unknown(problems, origin, key, key, known)
        elif key in known.open_tables:
            problems.add(origin, key, "is a table", f"set one variable for each key of it: {name}__STORAGE_BYTES")
        elif not environ[name]:
            _empty(problems, origin, key)
        else:
            yield Stated(key=key, value=environ[name], origin=origin, rank=OWN, textual=True)


def _empty(problems: Problems, origin: Origin, key: str) -> None:
    problems.add(origin, key, "is set and empty", "unset it, or give it a value")


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreign:
    """A variable that one of HiveHub's services reads.

    Attributes:
        variable: Its name.
        key: The setting that it stands for.
        on: For a switch: what a yes says; ``None``: it says nothing.
        off: For a switch: what a no says.
    """

    variable: str
    key: str
    on: str | None = None
    off: str | None = None

    @property
    def is_switch(self) -> bool:
        """Whether it is a yes or a no."""
        return self.on is not None or self.off is not None


FOREIGN_VARIABLES: Final = (
    Foreign(variable="SYNAP_HUB_ENABLED", key="mode", on="cluster", off="standalone"),
    Foreign(variable="SYNAP_HUB_API_URL", key="hub.url"),
    Foreign(variable="SYNAP_HUB_SERVICE_API_KEY", key="hub.service_key"),
    Foreign(variable="SYNAP_HUB_TIMEOUT", key="hub.timeout_seconds"),
    Foreign(variable="SYNAP_HUB_USAGE_REPORT_INTERVAL", key="report_seconds"),
    Foreign(variable="SYNAP_HUB_CACHE_TTL", key="freshness.fresh_seconds"),
    Foreign(variable="HIVEHUB_CLOUD_BASE_URL", key="hub.url"),
    Foreign(variable="HIVEHUB_CLOUD_SERVICE_API_KEY", key="hub.service_key"),
    Foreign(variable="HIVEHUB_CLOUD_TIMEOUT", key="hub.timeout_seconds"),
    Foreign(variable="HIVEHUB_CLOUD_RETRIES", key="hub.retries"),
    Foreign(variable="HIVEHUB_API_URL", key="hub.url"),
    Foreign(variable="HIVEHUB_SERVICE_API_KEY", key="hub.service_key"),
    Foreign(variable="HIVEHUB_TIMEOUT", key="hub.timeout_seconds"),
    Foreign(variable="HIVEHUB_RETRIES", key="hub.retries"),
    Foreign(variable="HIVEHUB_DISABLED", key="mode", on="standalone"),
)
"""The variables of others, in the order in which they are looked at: families from the first to the last.

Source: HiveHub wire, part 1 (the SDK's ``HIVEHUB_CLOUD_*``); the upstream study, A.5.
"""


def foreign_variables(environ: Mapping[str, str], problems: Problems) -> Iterator[Stated]:
    """Yield what the variables of HiveHub's services state."""
    for foreign in FOREIGN_VARIABLES:
        value = environ.get(foreign.variable)
        if value is None:
            continue
        origin = Origin(kind="environment", name=foreign.variable)
        said = _switch(foreign, value, origin, problems) if foreign.is_switch else value
        if not value:
            _empty(problems, origin, foreign.key)
        elif said is not None:
            yield Stated(key=foreign.key, value=said, origin=origin, rank=FOREIGN, textual=True, whole=True)


def _switch(foreign: Foreign, value: str, origin: Origin, problems: Problems) -> str | None:
    word = value.lower()
    if word in _ON:
        return foreign.on
    if word in _OFF:
        return foreign.off
    if value:
        problems.add(origin, foreign.key, "is neither yes nor no", "write 1 or 0, or unset it")
    return None


def flag(text: str) -> bool | None:
    """Return what *text* says as a yes or a no; ``None``: neither."""
    word = text.lower()
    return True if word in _ON else False if word in _OFF else None

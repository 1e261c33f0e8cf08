"""What the tests of settings share: inputs, and what an error shows."""

from __future__ import annotations

import json
import re
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from hivetenancy.errors import ConfigurationError
from hivetenancy.settings import load

URL = "https://hub.example"
KEY = "svc_vectorizer_do-not-show-me"
CLUSTER = {"HIVETENANCY_HUB__URL": URL, "HIVETENANCY_HUB__SERVICE_KEY": KEY}
"""The least that cluster mode needs."""

STANDALONE = {"HIVETENANCY_MODE": "standalone"}

LINE = re.compile(r"(?P<place>(?:key )?file [^;]+?|environment(?: [A-Z_]+)?|code): (?P<key>[^:]+): .+; .+")
"""Place, key, what is wrong, remedy."""


def write(folder: Path, text: str, *, name: str = "server.toml", mode: int = 0o600) -> Path:
    """A file of the operator's."""
    path = folder / name
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


def fault(*, path: Path | None = None, environ: Mapping[str, str] | None = None, **code: object) -> str:
    """What `load` says against it."""
    with pytest.raises(ConfigurationError) as caught:
        load(path, environ or {}, **code)
    return str(caught.value)


def tree(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values by dotted key, as tables."""
    tables_of: dict[str, Any] = {}
    for key, value in values.items():
        *tables, last = key.split(".")
        below = tables_of
        for table in tables:
            below = below.setdefault(table, {})
        below[last] = value
    return tables_of


def toml(tables: Mapping[str, Any]) -> str:
    """Tables as TOML."""
    plain = [f"{key} = {json.dumps(value)}" for key, value in tables.items() if not isinstance(value, dict)]
    nested = [f"[{key}]\n{toml(value)}" for key, value in tables.items() if isinstance(value, dict)]
    return "\n".join([*plain, *nested])


def not_shown(text: str | bytes) -> bool:
    """Whether *text* holds nothing of the key that tests use."""
    secret = "do-not-show-me"
    return (secret.encode() if isinstance(text, bytes) else secret) not in text  # type: ignore[operator]


def all_that_an_error_shows(error: BaseException) -> str:
    """Message, traceback, causes, and the variables of every frame of the library."""
    told = traceback.TracebackException.from_exception(error, capture_locals=True)
    for frame in told.stack:
        if "/hivetenancy/" not in frame.filename:
            frame.locals = None
    chain = [repr(each) for each in (error, error.__cause__, error.__context__)]
    return "\n".join([*told.format(), *chain])

"""The floors as a contract of import-linter, which follows chains of imports where `tests/layers.py` reads
one file.

Run by ``lint-imports`` in the root of the repository. It takes the floors from the table, so that a new file
costs one line; a room's ``__init__.py`` is left out, because import-linter takes a package together with all
that lies in it.
"""

from __future__ import annotations

from typing import Any

from importlinter.contracts.layers import LayersContract

from tests.layers import parse


def floors() -> list[str]:
    """The layers of the contract, highest floor first; optional, because `test_layers.py` names a missing file."""
    by_floor: dict[int, list[str]] = {}
    for entry in parse().values():
        if not entry.path.endswith("__init__.py"):
            by_floor.setdefault(entry.floor, []).append(f"({entry.module})")
    return [" : ".join(modules) for _, modules in sorted(by_floor.items(), reverse=True)]


class FloorsContract(LayersContract):
    """import-linter's own contract of layers, with the layers read from the table."""

    type_name = "floors"

    def __init__(self, name: str, session_options: dict[str, Any], contract_options: dict[str, Any]) -> None:
        super().__init__(name, session_options, {**contract_options, "layers": floors()})

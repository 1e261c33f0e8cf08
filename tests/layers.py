"""The floors and rooms of the package, as one table, and what a file may import.

A file imports from lower floors, and from files listed above it in its own room; never from another room's
same floor, never upwards, never from the front door ``hivetenancy`` itself, which is where import cycles are
born. A room is a folder with what lies below it; the root's files are one room for each floor.

The table is the only place to enter a new file: one line with floor, path and the foreign packages it may
import (beside those of `EVERYWHERE`). `tests/test_layers.py` holds the package to it by reading the sources,
and import-linter (`tests/import_contract.py`) by following chains of imports.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

TABLE: Final = """
F0 ids.py
F0 clock.py
F0 decision.py
F0 errors.py
F0 periods.py
F0 hooks.py
F0 plans.py
F0 functions.py
F0 context.py

F1 home.py
F1 background.py
F1 logs.py
F1 files.py

F1 sources/protocol.py
F1 sources/__init__.py

F1 namespaces/kinds.py
F1 namespaces/protocol.py
F1 namespaces/__init__.py
F2 namespaces/codec.py
F2 namespaces/patterns.py
F2 namespaces/paths.py
F2 namespaces/profiles.py
F2 namespaces/names.py
F2 namespaces/cursors.py
F2 namespaces/inspection.py
F3 namespaces/identity.py
F3 namespaces/prefix.py
F3 namespaces/manifest.py
F3 namespaces/delivery.py
F3 namespaces/files.py

F1 handles/protocol.py
F1 handles/__init__.py
F3 handles/registry.py

F1 access_keys/protocol.py
F1 access_keys/__init__.py
F2 access_keys/format.py
F2 access_keys/permissions.py
F2 access_keys/floors.py
F3 access_keys/feed.py
F3 access_keys/cached.py

F1 ratelimit/protocol.py
F1 ratelimit/__init__.py
F2 ratelimit/gcra.py
F2 ratelimit/window.py
F2 ratelimit/program.py
F3 ratelimit/memory.py

F1 quota/protocol.py
F1 quota/__init__.py
F2 quota/ledger.py
F2 quota/items.py
F2 quota/cells.py
F3 quota/fixed.py
F3 quota/local.py

F1 usage/protocol.py
F1 usage/__init__.py
F2 usage/cumulative.py
F3 usage/memory.py
F3 usage/reporter.py

F1 scopes/__init__.py
F2 scopes/predicate.py
F2 scopes/command_table.py
F2 scopes/command_keys.py
F2 scopes/resp.py
F2 scopes/command_replies.py
F2 scopes/command_front.py
F3 scopes/commands.py
F3 scopes/command_sweeps.py
F3 scopes/command_session.py
F2 scopes/cypher.py
F2 scopes/cypher_kinds.py
F2 scopes/cypher_patterns.py
F2 scopes/cypher_expressions.py
F2 scopes/cypher_clauses.py
F3 scopes/graph.py
F3 scopes/graph_visitor.py

F1 lifecycle/protocol.py
F1 lifecycle/__init__.py
F2 lifecycle/states.py
F2 lifecycle/fence.py
F3 lifecycle/store.py
F3 lifecycle/sources.py
F3 lifecycle/deletion.py

F2 lint.py

F1 hub/__init__.py
F1 hub/wire.py pydantic pydantic_core
F1 hub/names.py
F3 hub/kept.py
F3 hub/keptfile.py
F3 hub/keptgroup.py
F3 hub/store.py
F3 hub/translate.py pydantic
F3 hub/breaker.py
F3 hub/origin.py httpx
F3 hub/transport.py httpx
F3 hub/caller.py pydantic
F3 hub/calls.py pydantic
F3 hub/composed.py
F3 hub/extensions.py pydantic
F3 hub/sinks_state.py
F3 hub/sinks.py
F3 hub/sinks_absolute.py
F3 hub/sinks_calls.py
F3 hub/sinks_increment.py
F3 hub/sinks_build.py
F3 hub/client.py

F3 authority/__init__.py
F3 authority/bell.py
F3 authority/book.py
F3 authority/feed.py
F3 authority/keys.py
F3 authority/plans.py
F3 authority/resources.py
F3 authority/credentials.py
F3 authority/idempotency.py
F3 authority/state.py
F3 authority/view.py
F3 authority/accounts.py
F3 authority/admin.py
F3 authority/keydesk.py
F3 authority/booking.py
F3 authority/desk.py
F3 authority/service.py
F3 authority/statecodec.py
F3 authority/answers.py pydantic
F3 authority/api_http.py pydantic
F3 authority/api_routes.py pydantic
F3 authority/backend.py
F3 authority/api_once.py
F3 authority/api_extensions.py
F3 authority/api_services.py pydantic
F3 authority/api_keys.py
F3 authority/api.py
F3 authority/openapi.py pydantic
F3 authority/statefile.py

F3 workers.py
F3 limits.py
F3 connections.py
F3 tenant.py
F3 gate.py
F3 cache.py
F3 pools.py
F3 stamps.py
F3 operators.py

F3 adapters/__init__.py
F3 adapters/catalogue.py
F3 adapters/http.py
F4 adapters/host.py
F4 adapters/declare.py
F4 adapters/exchange.py
F4 adapters/sessions.py
F4 adapters/guards.py
F4 adapters/asgi.py
F4 adapters/routes.py starlette
F4 adapters/fastapi.py fastapi starlette
F4 adapters/litestar.py litestar
F4 adapters/quart.py quart
F4 adapters/aiohttp_exchange.py aiohttp
F4 adapters/aiohttp.py aiohttp
F4 adapters/streams.py
F4 adapters/standalone.py

F2 stores/operations.py
F4 stores/facade.py
F4 stores/guarded.py
F4 stores/__init__.py

F4 recollection.py
F4 settings/yaml_file.py yaml
F4 settings/sources.py
F4 settings/model.py pydantic
F4 settings/__init__.py pydantic
F5 compose.py aiohttp

F1 testing/clock.py
F4 testing/asgi_run.py
F4 testing/asgi_http.py
F4 testing/asgi_websocket.py
F4 testing/asgi_lifespan.py
F4 testing/asgi.py
F4 testing/faults.py
F4 testing/hub_door.py
F4 testing/hub_model.py
F4 testing/hub_tenants.py
F4 testing/hub_core.py
F4 testing/hub_app.py
F4 testing/hub_seed.py pydantic
F4 testing/hub_control.py pydantic
F4 testing/hub_guard.py
F4 testing/hub_http.py httpx
F4 testing/hub.py
F4 testing/contracts/_cases.py
F4 testing/contracts/_plane.py
F4 testing/contracts/_plane_sources.py
F4 testing/contracts/_plane_wire.py
F4 testing/contracts/control_plane.py
F4 testing/contracts/_keyhub.py
F4 testing/contracts/access_keys.py
F4 testing/contracts/_names.py
F4 testing/contracts/namespaces.py
F4 testing/contracts/quota.py
F4 testing/contracts/ratelimit.py
F4 testing/contracts/usage.py
F4 testing/contracts/__init__.py
F4 testing/lint.py
F4 testing/conformance/arguments.py
F4 testing/conformance/subject.py
F4 testing/conformance/canaries.py
F4 testing/conformance/observations.py
F4 testing/conformance/cliques.py
F4 testing/conformance/handles.py
F4 testing/conformance/programs.py
F4 testing/conformance/runner.py
F4 testing/conformance/minimise.py
F4 testing/conformance/text.py
F4 testing/conformance/verdicts.py
F4 testing/conformance/suite.py
F4 testing/conformance/faulty.py
F4 testing/conformance/power.py
F4 testing/conformance/jsonfile.py
F4 testing/conformance/page.py
F4 testing/conformance/html.py
F4 testing/conformance/__init__.py
F4 testing/conformance/objects.py
F4 testing/conformance/resp.py hiredis
F4 testing/conformance/websocket.py websockets
F6 testing/conformance/hosting.py
F6 testing/conformance/http.py httpx
F6 testing/conformance/plugin.py pytest
F6 testing/plugin.py pytest
F6 testing/entry.py
F6 testing/__init__.py

F6 cli/kv_server.py starlette
F6 cli/serving.py uvicorn
F6 cli/hub_serve.py
F6 cli/hub.py uvicorn
F6 cli/demo_table.py httpx
F6 cli/demo_hub.py httpx
F6 cli/demo_steps.py httpx
F6 cli/demo.py starlette uvicorn
F6 cli/bench.py starlette
F6 cli/config.py
F6 cli/lint.py
F6 cli/conform.py
F6 cli/__init__.py

F6 __init__.py
F7 __main__.py
"""

PACKAGE: Final = "hivetenancy"
CORE_FLOOR: Final = 2

#: Base dependencies that load fast enough to be imported by any file. pydantic and httpx are base
#: dependencies too, and stay at the edges: the files that may import them say so in the table.
EVERYWHERE: Final = frozenset({"cachetools", "tenacity", "typing_extensions"})

#: What the arithmetic of a core has no business with: I/O, a clock, a lock, randomness, logging.
IMPURE: Final = """
asyncio concurrent http io logging multiprocessing os pathlib queue random secrets select selectors socket
sqlite3 ssl subprocess tempfile threading time urllib anyio httpx pydantic redis tenacity
"""

#: Rooms that may import `hivetenancy.testing`: the command line shows the fake at work.
MAY_USE_FAKES: Final = frozenset({"testing", "cli"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of the table."""

    path: str
    floor: int
    position: int
    foreign: frozenset[str]

    @property
    def module(self) -> str:
        """The dotted name the file is imported by."""
        parts = [PACKAGE, *self.path.removesuffix(".py").split("/")]
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @property
    def folder(self) -> str:
        """The room's folder; empty for a file of the root."""
        return self.path.split("/")[0] if "/" in self.path else ""

    @property
    def room(self) -> str:
        """The room: a folder, or a floor of the root."""
        return self.folder or f"the root's floor {self.floor}"


def parse(table: str = TABLE) -> dict[str, Entry]:
    """Read a table into entries by path, in its order."""
    entries: dict[str, Entry] = {}
    for position, line in enumerate(line.split() for line in table.splitlines() if line.strip()):
        floor, path, *foreign = line
        if path in entries:
            raise ValueError(f"{path} stands in the table twice")
        entries[path] = Entry(path=path, floor=int(floor[1:]), position=position, foreign=frozenset(foreign))
    return entries


def sources(package: Path) -> list[str]:
    """The Python files below *package*, as the table writes them."""
    return sorted(path.relative_to(package).as_posix() for path in package.rglob("*.py"))


def violations(package: Path, table: str = TABLE) -> list[str]:
    """Everything in the sources below *package* that breaks the table, each as ``path:line: what and
    why``."""
    entries = parse(table)
    present = sources(package)
    found = [f"{path}: not in the table: add its line to tests/layers.py" for path in present if path not in entries]
    found += [f"{path}: in the table, but there is no such file" for path in entries if path not in present]
    modules = {entry.module: entry for entry in entries.values()}
    for path in present:
        if path in entries:
            tree = ast.parse((package / path).read_text(encoding="utf-8"), filename=path)
            found += [f"{path}:{line}: {what}" for line, what in _faults(tree, entries[path], modules)]
    return found


def _faults(tree: ast.Module, importer: Entry, modules: dict[str, Entry]) -> Iterator[tuple[int, str]]:
    """Judge each import of a file.

    Imports under ``TYPE_CHECKING`` and inside functions are judged like any other. They never run at start,
    but the floors are there for the reader: a type borrowed from above ties two files together as firmly as a
    call does.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from ((node.lineno, what) for what in _judge(alias.name, None, 0, importer, modules))
        elif isinstance(node, ast.ImportFrom):
            origin = _origin(node, importer)
            for alias in node.names:
                faults = _judge(origin, alias.name, node.level, importer, modules)
                yield from ((node.lineno, what) for what in faults)


def _origin(node: ast.ImportFrom, importer: Entry) -> str:
    """The absolute name of the module that a ``from`` import names."""
    if not node.level:
        return node.module or ""
    here = [PACKAGE, *importer.path.split("/")[:-1]]
    above = here[: len(here) - (node.level - 1)]
    return ".".join(above + ([node.module] if node.module else []))


def _judge(origin: str, name: str | None, level: int, importer: Entry, modules: dict[str, Entry]) -> Iterator[str]:
    """Say what is wrong with importing *name* from *origin* (or *origin* itself), if anything."""
    top = origin.split(".")[0]
    if top != PACKAGE:
        yield from _judge_foreign(top, importer)
        return
    target = modules.get(f"{origin}.{name}") or modules.get(origin)
    if origin == PACKAGE and (target is None or target.path == "__init__.py" or not level):
        yield "imports the front door: name the file that holds what is needed"
        return
    if target is None:
        yield f"imports {origin}, which is not in the table"
        return
    same_folder = importer.folder == target.folder
    if level and not (same_folder and importer.folder):
        yield f"imports {target.path} relatively: relative inside a room, absolute across and in the root"
    if not level and same_folder and importer.folder:
        yield f"imports {target.path} absolutely: relative inside a room, absolute across and in the root"
    yield from _judge_floor(importer, target)


def _judge_floor(importer: Entry, target: Entry) -> Iterator[str]:
    if target.floor > importer.floor:
        yield f"imports {target.path}, which is up: floor {target.floor} from floor {importer.floor}"
    elif target.floor == importer.floor and target.room != importer.room:
        yield f"imports {target.path}, another room's file on the same floor {target.floor}"
    elif target.room == importer.room and target.position >= importer.position:
        yield f"imports {target.path}, which the table lists below it in the same room"
    if target.folder == "testing" and importer.folder not in MAY_USE_FAKES and importer.path != "__init__.py":
        yield f"imports {target.path}: the product imports nothing of testing"


def _judge_foreign(top: str, importer: Entry) -> Iterator[str]:
    if importer.floor == CORE_FLOOR and top in IMPURE.split():
        yield f"imports {top}: a core does no I/O, reads no clock, takes no lock and draws no random number"
    elif top not in sys.stdlib_module_names and top not in EVERYWHERE | importer.foreign:
        yield f"imports {top}, which its line of the table does not name"

"""``hivetenancy bench``: each row does what it says, the arithmetic is right, and the table shows it."""

from __future__ import annotations

import functools
import gc
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from types import SimpleNamespace

import pytest

from hivetenancy.cli import bench, main
from hivetenancy.cli.bench import Figure, Report, Row, World
from tests.readme import ROOT

FEW = 3


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let rows that stand for 100,000 tenants stand for three."""
    monkeypatch.setattr(bench, "MANY", FEW)
    monkeypatch.setattr(bench, "SOME", FEW)
    # What is frozen here is the whole test session's (tests/conftest.py), and stays so.
    kept = SimpleNamespace(collect=gc.collect, freeze=lambda: None, unfreeze=lambda: None)
    monkeypatch.setattr(bench, "gc", kept)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """A started world of three tenants."""
    made = await World(FEW).start()
    yield made
    await made.tenancy.stop()


# --- the arithmetic --------------------------------------------------------------------------------------------------


def figure(name: str = "a row", ratio: float = 0.5, gate: float | None = None, peer: bool = False) -> Figure:
    """A figure with numbers that nobody measured."""
    return Figure(name=name, us=1.25, per="SHA", ratio=ratio, low=ratio / 2, high=ratio * 2, gate=gate, peer=peer)


async def nothing(count: int) -> None:
    """Work that is done."""


def test_a_figure_is_the_median_of_ratios() -> None:
    """Each round is divided by its own denominator, and what lies beyond is taken off first."""
    row = Row(name="row", work=nothing, per="SHA", gate=2.0)
    made = bench._figure(row, [12.0, 22.0, 14.0, 16.0], [1.0, 2.0, 2.0, 1.0], [2.0, 2.0, 4.0, 10.0])
    assert (made.us, made.ratio, made.low, made.high) == (10.0, 8.0, 6.0, 10.0)
    assert made.met is False


def test_a_gate_is_met_up_to_itself() -> None:
    """A ratio at the gate meets it, one above misses it, and a row without a gate says neither."""
    assert [figure(ratio=r, gate=0.6).met for r in (0.6, 0.61)] == [True, False]
    assert figure(gate=None).met is None


@pytest.mark.anyio
async def test_measuring() -> None:
    """Every row is run in each round with the count it was calibrated to, and beside it only the denominators used."""
    calls: dict[str, list[int]] = {"row": [], "beyond": []}

    async def work(count: int) -> None:
        calls["row"].append(count)
        await bench._sha(2 * count)

    async def beyond(count: int) -> None:
        calls["beyond"].append(count)

    rows = [
        Row(name="row", work=work, per="SHA", beyond=beyond),
        Row(name="scoped", work=bench._f_string, per="f-string"),
    ]
    figures = await bench.measure(rows, rounds=3, seconds=0.0005)
    assert [each.name for each in figures] == ["row", "scoped"]
    assert all(each.us > 0 and each.low <= each.ratio <= each.high for each in figures)
    for counts in calls.values():
        assert len(counts) > 3
        assert len(set(counts[-3:])) == 1, "a round ran another count than the others"


def test_the_table_renders() -> None:
    """Each row stands with its time, ratio, middle half and gate; peers are marked, notes follow."""
    report = Report(
        [figure("met", 0.5, 0.6), figure("missed", 0.7, 0.6), figure("limits", 10.0, peer=True)],
        {"bytes: a cell (gate 200)": "167"},
    )
    lines = bench.table(report).splitlines()
    rows = [line.split() for line in lines[3:6]]
    assert rows[0] == ["met", "1.25", "0.50", "0.25", "-", "1.00", "0.6", "met", "of", "SHA"]
    assert rows[1][-4:] == ["0.6", "missed", "of", "SHA"]
    assert rows[2][:3] == ["peer:", "limits", "1.25"]
    assert lines[-1].split() == ["bytes:", "a", "cell", "(gate", "200)", "167"]


# --- the rows --------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_rows_of_engines_run() -> None:
    """The work of each row of an engine runs, across the end of its tenants."""
    for row in bench.engine_rows():
        await row.work(2 * FEW + 1)


@pytest.mark.anyio
async def test_rows_of_the_gate_run(world: World) -> None:
    """The work of each row of the gate runs, is admitted, and leaves nothing held."""
    rows = bench.gate_rows(world, world)
    assert len(rows) == 5
    for row in rows:
        await row.work(2 * FEW + 1)
    used = [
        cell.used
        for key in world.keys
        for cell in await (await world.tenancy.gate.authenticate(key, now=world.tenancy.gate.now())).tenant.usage()  # type: ignore[union-attr]
        if cell.dimension == "storage_bytes" and not cell.held
    ]
    assert len(used) == FEW
    # Start admits each key once, and of the rows two reserve and two admit; 10 bytes each time.
    assert sum(used) == 10 * (FEW + 4 * (2 * FEW + 1))


@pytest.mark.anyio
async def test_rows_over_asgi_run(world: World) -> None:
    """The work of each row over ASGI runs, with what lies beyond it."""
    pytest.importorskip("starlette", reason="starlette is not installed: it belongs to an extra")
    rows = await bench.asgi_rows(world, world)
    assert [row.per for row in rows] == ["bare"] * 4
    for row in rows:
        await row.work(2 * FEW + 1)
        if row.beyond is not None:
            await row.beyond(1)


@pytest.mark.anyio
async def test_a_row_measures_what_it_says(world: World) -> None:
    """A request is served with a key, and refused where the row is about refusals or has none."""
    pytest.importorskip("starlette", reason="starlette is not installed: it belongs to an extra")
    app, key = world.tenancy.asgi(bench.starlette_app(100)), world.keys[0]
    assert await bench.request(app, bench._headers(key)) == 204
    assert await bench.request(app, bench._headers(b"hh_test_" + b"0" * 40)) == 401
    assert await bench.request(bench.starlette_app(functions=False), bench._headers(key)) == 204
    narrow = await World(1, bench._NARROW).start()
    guarded = narrow.tenancy.asgi(bench.starlette_app())
    assert await bench.request(guarded, bench._headers(narrow.keys[0])) == 429
    await narrow.tenancy.stop()


@pytest.mark.anyio
async def test_the_page_has_the_gates_of_the_rows(world: World) -> None:
    """What the reference says of a gate is what the command measures against."""
    page = (ROOT / "docs/reference/performance.md").read_text(encoding="utf-8")
    pytest.importorskip("starlette", reason="starlette is not installed: it belongs to an extra")
    rows = bench.engine_rows() + bench.gate_rows(world, world) + await bench.asgi_rows(world, world)
    table = {
        cells[1].strip(): [float(number) for number in re.findall(r"\d+(?:\.\d+)?", cells[2])]
        for cells in (line.split("|") for line in page.splitlines() if line.startswith("| "))
        if len(cells) == 4
    }
    for row in rows:
        first = row.name.split(",")[0].removeprefix("async with ").removesuffix(" hot")
        stated = [
            numbers for what, numbers in table.items() if first in what.replace("`", "").replace("async with ", "")
        ]
        assert stated, f"{row.name} stands on no line of the page"
        assert row.gate in stated[0], row.name


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole run holds every row and note, with the peers it was given beside them, and stops what it started."""
    monkeypatch.setattr(bench, "memory_notes", lambda: {"bytes": "1"})
    monkeypatch.setattr(bench, "stall_note", lambda: {"stall": "1"})
    monkeypatch.setattr(bench, "import_note", lambda: {"import": "1"})
    seen: list[tuple[int, float, int]] = []

    async def measured(rows: list[Row], *, rounds: int, seconds: float) -> list[Figure]:
        seen.append((rounds, seconds, len(rows)))
        return [figure(row.name, gate=row.gate, peer=row.peer) for row in rows]

    monkeypatch.setattr(bench, "measure", measured)
    quick = await bench.everything(quick=True)
    whole = await bench.everything(quick=False, peers=lambda: [Row(name="limits", work=nothing, per="SHA", peer=True)])
    assert seen[0][0] < seen[1][0]
    assert seen[0][1] < seen[1][1]
    names = [each.name for each in whole.figures]
    assert len(set(names)) == len(names)
    assert names[-1] == "limits"
    assert {each.name for each in quick.figures} < set(names)
    assert whole.notes == {"bytes": "1", "stall": "1", "import": "1"}


@pytest.mark.anyio
async def test_without_starlette(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Where Starlette is missing its rows are left out, and it says what to install."""
    for name in [name for name in sys.modules if name.split(".")[0] == "starlette"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "starlette", None)
    monkeypatch.setattr(bench, "memory_notes", dict)
    monkeypatch.setattr(bench, "stall_note", dict)
    monkeypatch.setattr(bench, "import_note", dict)
    real = bench.measure
    monkeypatch.setattr(bench, "measure", lambda rows, **_: real(rows, rounds=1, seconds=0.0001))
    report = await bench.everything(quick=True)
    assert report.figures
    assert not any("ASGI" in each.name for each in report.figures)
    assert "pip install 'hivetenancy[starlette]'" in capsys.readouterr().err


@pytest.mark.parametrize("as_json", [False, True], ids=["table", "json"])
def test_the_command_prints(as_json: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The command prints a table, or one JSON object, and ends with 0 whatever was missed."""
    asked: list[bool] = []

    async def everything(*, quick: bool) -> Report:
        asked.append(quick)
        return Report([figure("missed", 0.7, 0.6)], {"note": "1"})

    monkeypatch.setattr(bench, "everything", everything)
    assert main(["bench", "--quick", *(["--json"] if as_json else [])]) == 0
    printed = capsys.readouterr().out
    assert asked == [True]
    if as_json:
        told = json.loads(printed)
        assert list(told) == ["figures", "notes"]
        assert list(told["figures"][0]) == ["name", "us", "per", "ratio", "low", "high", "gate", "peer"]
        assert told["notes"] == {"note": "1"}
    else:
        assert "0.6 missed" in printed


# --- what is no ratio ------------------------------------------------------------------------------------------------


def test_notes() -> None:
    """Stalls and import times are told as numbers; memory is in proportion to what is built."""
    assert re.fullmatch(r"\d+\.\d\d ms", *bench.stall_note().values())
    small, large = (bench._bytes(lambda size=size: bytearray(size)) for size in (1_000, 1_000_000))  # type: ignore[misc]
    assert 990_000 < large - small < 1_010_000
    assert bench._import_us("sys") > 0


def test_memory_notes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every gate on bytes has a note, as a whole number."""
    monkeypatch.setattr(bench, "_bytes", lambda build: FEW * (100 if build() else 0))
    monkeypatch.setattr(bench, "_key_bytes", functools.partial(bench._key_bytes, FEW))
    notes = bench.memory_notes(FEW)
    assert len(notes) == 4
    assert all(value.isdigit() for value in notes.values())


def test_the_import_note(monkeypatch: pytest.MonkeyPatch) -> None:
    """The note is the ratio of two new interpreters, the one with the library over the one with asyncio."""
    times = {"hivetenancy": 130.0, "asyncio": 100.0}
    monkeypatch.setattr(bench, "_import_us", times.__getitem__)
    assert list(bench.import_note().values()) == ["1.30"]


def test_an_import_that_fails_is_an_error() -> None:
    """A module that cannot be imported gives no time."""
    with pytest.raises(subprocess.CalledProcessError):
        bench._import_us("no_such_module_anywhere")

"""A second worker of one application is noticed, by a lock that goes with its process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hivetenancy import workers
from hivetenancy.errors import ConfigurationError

ROOT = Path(__file__).parents[1]

CHILD = """
    import sys
    from hivetenancy.errors import ConfigurationError
    from hivetenancy.workers import claim, lock_name
    try:
        claim(lock_name())
    except ConfigurationError as error:
        print("refused", error, flush=True)
    else:
        print("claimed", flush=True)
        sys.stdin.readline()
"""


@contextmanager
def child(tmp: Path, code: str = CHILD, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Start a worker: a process of its own, with this one as parent."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp)}
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=tmp,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def said(process: subprocess.Popen[str]) -> str:
    """Return the next line that a worker printed."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_second_process_is_refused_with_the_remedy(tmp_path: Path) -> None:
    """Two children of one parent with the same command: the first counts, the second is told what to do."""
    with child(tmp_path) as first:
        assert said(first) == "claimed"
        with child(tmp_path) as second:
            answer = said(second)
            assert answer.startswith("refused")
            assert "allow_workers=True" in answer
        with child(tmp_path, CHILD, "--another-application") as other:
            assert said(other) == "claimed"


def test_the_lock_goes_with_its_process(tmp_path: Path) -> None:
    """After kill -9, and after a plain end, the next one may start."""
    with child(tmp_path) as first:
        assert said(first) == "claimed"
        first.send_signal(signal.SIGKILL)
        first.wait(10)
        with child(tmp_path) as second:
            assert said(second) == "claimed"
            second.communicate("\n", timeout=10)
            assert second.returncode == 0
        with child(tmp_path) as third:
            assert said(third) == "claimed"


NO_LOCK = "import hivetenancy.workers as workers\nworkers._lock = lambda handle: None\n" + textwrap.dedent(CHILD)


def test_a_lock_that_locks_nothing_is_caught(tmp_path: Path) -> None:
    """Without the operating system's lock both start, which is what the first test looks for."""
    with child(tmp_path, NO_LOCK) as first:
        assert said(first) == "claimed"
        with child(tmp_path, NO_LOCK) as second:
            assert said(second) == "claimed"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory for locks of this process."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_tenancies_of_one_process_share_it(place: Path) -> None:
    """Two applications in one process would otherwise lock each other out; the last one frees it."""
    workers.claim("hivetenancy-test")
    workers.claim("hivetenancy-test")
    assert len(list(place.iterdir())) == 1
    workers.give_up("hivetenancy-test")
    assert len(list(place.iterdir())) == 1
    workers.give_up("hivetenancy-test")
    assert list(place.iterdir()) == []
    workers.claim("hivetenancy-test")
    workers.give_up("hivetenancy-test")


def test_a_lock_that_was_removed_under_us_is_taken_anew(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Locking a file that its last holder has just unlinked would keep nobody out."""
    real, raced = workers._lock, []

    def races(handle: object) -> None:
        if not raced:
            raced.append(1)
            (place / "hivetenancy-test.lock").unlink()
        real(handle)  # type: ignore[arg-type]

    monkeypatch.setattr(workers, "_lock", races)
    workers.claim("hivetenancy-test")
    assert (place / "hivetenancy-test.lock").exists()
    workers.give_up("hivetenancy-test")


def test_a_lock_that_cannot_be_opened_says_which(place: Path) -> None:
    """A link in its place is not followed, and the message names the file and the way out."""
    (place / "hivetenancy-test.lock").symlink_to(place / "elsewhere")
    with pytest.raises(ConfigurationError, match=r"hivetenancy-test\.lock.*TMPDIR"):
        workers.claim("hivetenancy-test")
    assert not (place / "elsewhere").exists()


def test_the_name_tells_applications_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """By command, directory, user, parent and test worker; no secret of the command line shows in it."""
    before = workers.lock_name()
    assert before == workers.lock_name()
    monkeypatch.setattr(sys, "argv", ["server", "--key", "hh_live_secret"])
    second = workers.lock_name()
    monkeypatch.setattr(os, "getppid", lambda: 1)
    third = workers.lock_name()
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw7")
    assert len({before, second, third, workers.lock_name()}) == 4
    assert "secret" not in second


# --- under a real launcher -------------------------------------------------------------------------------------------

APP = """
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from hivetenancy import Tenancy
from hivetenancy.testing import FakeHiveHub


async def alive(request):
    return PlainTextResponse("alive")


tenancy = Tenancy.embedded(FakeHiveHub(), allow_workers={allow})
app = tenancy.asgi(Starlette(routes=[Route("/livez", alive)]), public=("GET /livez",))
"""


@pytest.mark.parametrize(
    "options, allow, refused",
    [(["--workers", "2"], False, True), (["--workers", "2"], True, False), (["--reload"], False, False)],
)
def test_under_uvicorn(tmp_path: Path, options: list[str], allow: bool, refused: bool) -> None:
    """Two workers are refused with the remedy unless that is wanted; the reloader's one child is no second worker."""
    pytest.importorskip("uvicorn")
    (tmp_path / "served.py").write_text(APP.format(allow=allow))
    log = tmp_path / "log"
    with log.open("w") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "served:app", "--port", "0", *options],
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}", "TMPDIR": str(tmp_path)},
        )
    wanted = 2 if allow else 1
    try:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            text = log.read_text()
            if text.count("Application startup complete") >= wanted and ("a second process" in text) >= refused:
                break
            time.sleep(0.1)
        text = log.read_text()
        assert text.count("Application startup complete") >= wanted, text
        assert ("a second process of this application" in text) is refused, text
    finally:
        server.send_signal(signal.SIGINT)
        try:
            server.wait(15)
        except subprocess.TimeoutExpired:
            server.kill()

"""The oracles themselves: marks, plain observations, handles, and what a run makes of them."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import re
import zlib
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

import pytest

from hivetenancy.testing.conformance import (
    Handle,
    Name,
    Names,
    Observable,
    Operation,
    Options,
    Report,
    Running,
    ServerCrashedError,
    Setting,
    Subject,
    Value,
    Verdict,
    examine,
    runner,
)
from hivetenancy.testing.conformance.canaries import access_key, canary, describe, found, service_key, strangers
from hivetenancy.testing.conformance.cliques import accepted, cliques
from hivetenancy.testing.conformance.handles import bits_apart, never_issued, same_start, worded, words
from hivetenancy.testing.conformance.observations import Renaming, content, handle_in, is_empty, plain
from hivetenancy.testing.conformance.runner import OUTSIDE

MARK = canary(2, 17)


@pytest.mark.parametrize("offset", range(4))
@pytest.mark.parametrize("after", ["", "!", "and more"])
def test_marks_are_found_in_every_form(offset: int, after: str) -> None:
    """Raw, hex, base64 at each offset and in both alphabets, gzip, zlib, wide characters, and layers of these."""
    text = ("x" * offset + MARK + after).encode()
    forms = [
        text,
        text.hex().encode(),
        text.hex().upper().encode(),
        base64.b64encode(text),
        base64.urlsafe_b64encode(text).rstrip(b"="),
        b'{"payload": "' + base64.b64encode(text) + b'"}',
        b"head" + gzip.compress(text),
        zlib.compress(text),
        base64.b64encode(gzip.compress(text)),
        base64.b64encode(zlib.compress(text)),
        text.decode().encode("utf-16"),
    ]
    assert [number for number, form in enumerate(forms) if found(form) != {"0002"}] == []


def test_a_text_without_marks_holds_none() -> None:
    """Random bytes and ordinary text are no alarm."""
    random = Random(1)
    assert all(found(random.randbytes(500)) == set() for _ in range(200))
    assert found(b"a canary, hvcanary, hvcanary00, aHZDYW5hcnk=") == set()


def test_a_bomb_is_inflated_within_bounds() -> None:
    """A41: what inflates to 40 MB is looked at as far as a megabyte, in no time."""
    bomb = zlib.compress(bytes(40_000_000), 1)
    assert found(bomb * 2) == set()


def test_strangers_are_all_marks_but_ones_own() -> None:
    """A tenant may see its own marks and no others, and secrets are nobody's."""
    seen = f"{canary(1, 1)} {canary(2, 1)} {service_key()} {access_key(1)}".encode()
    assert strangers(seen, "0001") == {"0002", "ffff", "ee01"}
    assert strangers(seen, None, secrets_only=True) == {"ffff", "ee01"}
    assert [describe(tag) for tag in ("0002", "ffff", "ee01")] == [
        "data of tenant 2",
        "the service key",
        "the access key of tenant 1",
    ]


@dataclass
class Point:
    x: int
    y: bytes


def test_observations_become_plain() -> None:
    """Whatever a server answers is text, bytes, numbers, lists and mappings in the end."""
    seen = plain({"a": (1, {3, 2}), "b": deque([Point(1, b"y")]), "c": KeyError("k"), 4: bytearray(b"z")})
    assert seen == {
        "a": [1, [2, 3]],
        "b": [{"x": 1, "y": b"y"}],
        "c": {"raised": "KeyError", "message": "'k'"},
        4: b"z",
    }
    assert plain(object()) == "<object object>"
    assert content(seen) == b"a\nb\nx\ny\ny\nc\nraised\nKeyError\nmessage\n'k'\nz"


@pytest.mark.parametrize(
    "empty", [None, "", 0, [], {}, {"raised": "X"}, [None, []], {"status": 200, "body": b""}, False]
)
def test_what_tells_nothing_is_empty(empty: Any) -> None:
    """No value, none of several, a failure, a body of nothing."""
    assert is_empty(empty)
    assert not is_empty([empty, 1])


def test_handles_are_found_in_answers() -> None:
    """A handle is the answer, or stands in it under its kind, as handle, or as id."""
    assert handle_in("h", "cursor") == "h"
    assert handle_in({"cursor": 7, "id": 8}, "cursor") == 7
    assert handle_in({"status": 200, "body": {"id": "x"}}, "cursor") == "x"
    assert handle_in({"raised": "X", "message": "m"}, "cursor") is None
    assert handle_in([], "cursor") is None


def test_handles_get_words() -> None:
    """The same handle reads the same on two servers, inside longer texts too; short ones are left alone."""
    renaming = Renaming()
    renaming.add("0123456789abcdef", "<a>")
    renaming.add("7", "<b>")
    assert renaming.apply(["0123456789abcdef", {"x": "no 0123456789abcdef"}, "7", 7]) == [
        "<a>",
        {"x": "no <a>"},
        "7",
        7,
    ]


@pytest.mark.parametrize("like", ["sub_0af3", "7f9c2e10-aaaa-4bbb-8ccc-0123456789ab", b"abc123", 12, ("a", 1)])
def test_a_never_issued_handle_looks_like_one(like: Any) -> None:
    """It has another value, the same type and length, and the same kinds of characters."""
    other = never_issued(like, 5)
    assert other != like
    if isinstance(like, (str, bytes)):
        assert type(other) is type(like)
        assert len(other) == len(like)
    kept = never_issued("sub_0af3", 1, keep=same_start(["sub_0af3"]))
    assert kept.startswith("sub_")
    assert kept != "sub_0af3"


@pytest.mark.parametrize("issued", [1, "1", "h-1", b"abc", "0123456789abcdef"])
def test_two_handles_read_the_same_in_answers(issued: Any) -> None:
    """An answer that repeats the handle is compared without it, also where the handle is one digit."""
    other = never_issued(issued, 3)
    agreed = words({"h": issued}, {"h": other})
    for make in (lambda one: {"raised": "X", "message": f"no {one}!"}, lambda one: [one, {"at": one}, "11"]):
        assert worded(make(issued), agreed) == worded(make(other), agreed)


def test_guessing_is_counted_in_bits() -> None:
    """Two numbers in a row are a few bits apart, random ones many."""
    assert bits_apart("job-10", "job-11") < 5
    assert bits_apart(10, 11) < 5
    assert bits_apart("0123456789abcdef" * 2, "f123456789abcde0" * 2) > 100


def test_every_scheme_has_cliques() -> None:
    """Ids of each scheme, no two alike in a clique, and refused ones are left out."""
    from hivetenancy.namespaces.prefix import PrefixNamespaces

    for scheme in ("uuid", "slug", "opaque"):
        of_scheme = [accepted(clique, PrefixNamespaces(scheme=scheme)) for clique in cliques(scheme)]
        assert len(of_scheme) >= 6
        assert all(len(set(clique.ids)) == len(clique.ids) >= 2 for clique in of_scheme)


# --- what a run makes of a server -------------------------------------------------------------------------------------


class Tiny(Subject):
    """A subject whose server is one dict, with names, and an answer to `look` that a test chooses."""

    operations = (
        Operation("put", effect="write", key=Name(), value=Value()),
        Operation("look", key=Name()),
    )

    def __init__(self, look: Any, *, trips: Any = None, left: Any = ()) -> None:
        self.look, self.trips, self.left = look, trips, left

    def start(self, setting: Setting) -> Running:
        return TinyRunning(self, setting)


class TinyRunning(Running):
    def __init__(self, subject: Tiny, setting: Setting) -> None:
        self.subject, self.setting, self.rows = subject, setting, dict[str, Any]()
        self.given = dict[str, str]()

    def call(self, tenant: str, operation: str, arguments: Mapping[str, Any], surface: str) -> Any:
        key = str(self.setting.names_of(tenant).kv.key(arguments["key"])) if "key" in arguments else ""
        if operation == "put":
            self.rows[key] = arguments["value"]
            return "OK"
        return self.subject.look(self, tenant, key, arguments)

    def trips(self) -> Any:
        return self.subject.trips and self.subject.trips(self)

    def observables(self) -> Any:
        return [make(self) for make in self.subject.left]


def right(server: TinyRunning, tenant: str, key: str, arguments: Any) -> Any:
    return server.rows.get(key)


def run(subject: Subject, **options: int) -> Report:
    return examine(subject, Options(**{"rounds": 1, "steps": 30, **options}))


def verdict(report: Report, oracle: str) -> Verdict | None:
    return report.cell("look", "direct", oracle).verdict


def test_a_right_server_passes() -> None:
    """Nothing is wrong, something was to be seen, and what does not apply has no verdict."""
    report = run(Tiny(right))
    assert report.verdict is Verdict.PASS, str(report)
    assert verdict(report, "guard") is verdict(report, "handles") is None


def test_a_foreign_mark_is_a_leak() -> None:
    """The canary oracle names whose data it was."""
    report = run(Tiny(lambda server, tenant, key, arguments: list(server.rows.values())[-1:]))
    assert verdict(report, "canary") is Verdict.LEAK
    assert any(re.search("holds data of '(acme|globex|initech)'", leak.finding.text) for leak in report.leaks)


def test_a_packed_foreign_mark_is_a_leak() -> None:
    """A canary is seen through JSON, gzip and base64, in an error too."""

    def look(server: TinyRunning, tenant: str, key: str, arguments: Any) -> Any:
        raise ValueError(base64.b64encode(gzip.compress(json.dumps(server.rows).encode())).decode())

    assert verdict(run(Tiny(look)), "canary") is Verdict.LEAK


@pytest.mark.parametrize("secret", ["service_key", "access_key"])
def test_a49_a_secret_in_an_answer_is_a_leak(secret: str) -> None:
    """A49: even the tenant's own access key, and on a private server too."""

    def look(server: TinyRunning, tenant: str, key: str, arguments: Any) -> Any:
        of_server = server.setting
        return of_server.service_key if secret == "service_key" else of_server.tenants[0].access_key

    report = run(Tiny(look))
    assert verdict(report, "canary") is Verdict.LEAK
    assert "key" in report.leaks[0].finding.text


def test_a_trip_is_a_leak() -> None:
    """That the second lock held does not make the first one right."""
    report = run(Tiny(right, trips=lambda server: ["user:b:k"] if len(server.rows) > 1 else []))
    assert verdict(report, "guard") is Verdict.LEAK
    assert verdict(run(Tiny(right, trips=lambda server: [])), "guard") is Verdict.PASS


@pytest.mark.parametrize(
    ("kind", "own", "leaks"),
    [("log", False, True), ("metrics", False, True), ("file", False, False), ("file", True, True)],
)
def test_a51_what_is_left_outside(kind: Any, own: bool, leaks: bool) -> None:
    """A51: values belong in no log and no metric, in an operator's file, and in no other tenant's file."""

    def make(server: TinyRunning) -> Observable:
        tenant = server.setting.tenants[0].id if own else None
        return Observable(source="x", content=json.dumps(server.rows), kind=kind, tenant=tenant)

    report = run(Tiny(right, left=[make]))
    assert (report.cell("x", OUTSIDE, "canary").verdict is Verdict.LEAK) is leaks


def test_what_differs_by_itself_is_no_leak() -> None:
    """An answer that two private servers give differently is inconclusive, and the report says why."""
    random = Random(5)
    report = run(Tiny(lambda server, tenant, key, arguments: random.random()))
    assert verdict(report, "equality") is Verdict.INCONCLUSIVE
    assert report.leaks == ()
    assert "normalise" in report.doubts[0].reason


def test_what_is_seen_once_is_no_leak() -> None:
    """A difference that does not come back is inconclusive."""
    calls = iter(range(10**9))

    def look(server: TinyRunning, tenant: str, key: str, arguments: Any) -> Any:
        return next(calls) == 7

    report = run(Tiny(look))
    assert report.leaks == ()
    assert report.doubts[0].reason == "It was seen once, and not again."


def test_a_foreign_mark_that_is_seen_once_is_a_leak() -> None:
    """What was seen of another tenant has been there, whether it comes back or not; the report says which."""
    seen: list[str] = []

    def look(server: TinyRunning, tenant: str, key: str, arguments: Any) -> Any:
        own = f"{[one.id for one in server.setting.tenants].index(tenant):04x}"
        foreign = [value for value in server.rows.values() if strangers(value.encode(), own)]
        if not seen and foreign and len(server.setting.tenants) > 1:
            seen.extend(foreign)
            return foreign
        return server.rows.get(key)

    report = run(Tiny(look), rounds=3)
    assert report.verdict is Verdict.LEAK
    assert report.leaks[0].finding.place.oracle == "canary"
    assert report.leaks[0].finding.text.endswith("It was seen once, and not again in the same calls.")


def test_a_mark_that_is_normalised_away_is_a_leak() -> None:
    """Marks are looked for before an observation is normalised: a careless `normalise` hides none."""

    class Careless(Tiny):
        def normalise(self, observation: Any) -> Any:
            return "an answer"

    def look(server: TinyRunning, tenant: str, key: str, arguments: Any) -> Any:
        return list(server.rows.values())

    assert run(Careless(look)).cell("look", "direct", "canary").verdict is Verdict.LEAK


@pytest.mark.parametrize("scoped", [True, False])
def test_what_is_always_the_same_is_vacuous(scoped: bool) -> None:
    """A read that is answered alike whatever was written proves nothing, unless it is said to be no tenant's."""
    subject = Tiny(lambda server, tenant, key, arguments: "pong")
    subject.operations = (Tiny.operations[0], Operation("look", key=Name(), scoped=scoped))
    report = run(subject)
    assert report.verdict is (Verdict.VACUOUS if scoped else Verdict.PASS)
    assert report.cell("look", "direct", "equality").reason.startswith("every answer was the same" if scoped else "")


def test_a_server_that_hangs_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What awaits for ever is bounded; a time-out of the server's own is an answer."""
    monkeypatch.setattr(runner, "PATIENCE", 0.01)

    async def hang() -> None:
        await asyncio.Event().wait()

    async def fails() -> None:
        raise TimeoutError("of my own")

    report = run(Tiny(lambda *_: hang()))
    assert report.stopped == "The server was gone 3 times."
    assert "it did nothing for 0.01 seconds" in report.doubts[0].reason
    assert run(Tiny(lambda *_: fails())).verdict is Verdict.VACUOUS


ODD: Any = {
    "empty": lambda server, key: server.rows.get(key) == "",
    "long": lambda server, key: len(server.rows.get(key) or "") > 1_000,
    "late": lambda server, key: len(server.rows) > 12,
}


@pytest.mark.parametrize("when", ODD)
def test_what_leaks_seldom_is_found(when: str) -> None:
    """Default settings find what leaks only where a value is empty or long, or only after many writes."""

    def look(server: TinyRunning, tenant: str, key: str, arguments: Any) -> Any:
        return list(server.rows.values()) if ODD[when](server, key) else server.rows.get(key)

    assert examine(Tiny(look), Options(most_leaks=1)).verdict is Verdict.LEAK


def test_what_leaks_in_long_lists_is_found() -> None:
    """A server that scopes the first eight names of a list alone."""

    class Batches(Tiny):
        operations = (Tiny.operations[0], Operation("look", about="key", keys=Names()))

    def look(server: TinyRunning, tenant: str, key: str, arguments: Any) -> Any:
        names = server.setting.names_of(tenant).kv
        late = [name for name in server.rows if any(name.endswith(one) for one in arguments["keys"][8:])]
        return [server.rows.get(name) for name in [*map(str, names.keys(arguments["keys"][:8])), *late]]

    assert examine(Batches(look), Options(most_leaks=1)).verdict is Verdict.LEAK


def test_a_crash_is_no_leak() -> None:
    """A server that is gone is inconclusive; after three times the suite gives up."""

    def look(server: TinyRunning, tenant: str, key: str, arguments: Any) -> Any:
        raise ServerCrashedError("gone")

    report = run(Tiny(look))
    assert report.verdict is Verdict.INCONCLUSIVE
    assert report.stopped == "The server was gone 3 times."


@pytest.mark.parametrize(
    ("answer", "reason"), [(None, "every answer was empty"), (ValueError("no"), "never succeeded; the last answer was")]
)
def test_what_shows_nothing_is_vacuous(answer: Any, reason: str) -> None:
    """A read that is always empty, or always refused, proves nothing."""

    def look(server: TinyRunning, tenant: str, key: str, arguments: Any) -> Any:
        if answer is not None:
            raise answer
        return None

    report = run(Tiny(look))
    assert verdict(report, "equality") is verdict(report, "control") is Verdict.VACUOUS
    assert report.cell("look", "direct", "equality").reason.startswith(reason)
    assert report.verdict is Verdict.VACUOUS


class Tickets(Tiny):
    """A subject with handles: `take` gives one, `look` shows what it was taken with."""

    operations = (
        Operation("take", effect="write", gives="ticket", value=Value()),
        Operation("look", ticket=Handle("ticket")),
    )

    def __init__(self, take: Any, look: Any) -> None:
        super().__init__(look)
        self.take = take

    def start(self, setting: Setting) -> Running:
        return TicketsRunning(self, setting)


class TicketsRunning(TinyRunning):
    def call(self, tenant: str, operation: str, arguments: Mapping[str, Any], surface: str) -> Any:
        own = self.setting.names_of(tenant).kv
        if operation == "take":
            ticket = self.subject.take(self)  # type: ignore[attr-defined]
            self.rows[str(own.key(ticket))] = arguments["value"]
            return {"ticket": ticket}
        return self.subject.look(self, own, arguments["ticket"])

    def trace(self) -> Any:
        done, self.given["trace"] = self.given.get("trace", ""), ""
        return [done]


def random_ticket(server: TinyRunning) -> str:
    return f"t-{Random(len(server.rows) + id(server)).getrandbits(128):032x}"


def own_ticket(server: TinyRunning, own: Any, ticket: str) -> Any:
    server.given["trace"] = "get"
    if str(own.key(ticket)) not in server.rows:
        raise KeyError("no such ticket")
    return server.rows[str(own.key(ticket))]


def test_own_tickets_pass() -> None:
    """A20: a handle under the tenant's own name is worth nothing to others, and is not told from none."""
    report = run(Tickets(random_ticket, own_ticket))
    assert report.verdict is Verdict.PASS, str(report)
    assert verdict(report, "handles") is Verdict.PASS


def test_a22_more_work_for_a_foreign_handle_is_a_leak() -> None:
    """A22: the same answer after other calls of the store is told apart by its time."""

    def look(server: TinyRunning, own: Any, ticket: str) -> Any:
        answer = None
        try:
            answer = own_ticket(server, own, ticket)
        finally:
            if answer is None and any(name.endswith(ticket) for name in server.rows):
                server.given["trace"] = "get, owner"
        return answer

    report = run(Tickets(random_ticket, look))
    assert verdict(report, "handles") is Verdict.LEAK
    assert verdict(report, "equality") is Verdict.PASS


def test_a21_tickets_in_a_row_are_a_leak() -> None:
    """A21: numbers in a row over all tenants tell what others do; a row of one's own does not."""
    report = run(Tickets(lambda server: f"ticket-{len(server.rows)}", own_ticket))
    assert report.cell("take", "direct", "handles").verdict is Verdict.LEAK


def test_nothing_is_never_called() -> None:
    """What no program called is inconclusive, not well."""
    report = run(Tiny(right), steps=1)
    assert Verdict.INCONCLUSIVE in {cell.verdict for cell in report.cells} or report.verdict is not Verdict.PASS

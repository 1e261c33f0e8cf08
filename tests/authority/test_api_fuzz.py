"""Requests that nobody would send, by the thousand: each gets an answer of the wire, and none a success it must not."""

from __future__ import annotations

import json
import random
from collections import Counter
from copy import deepcopy
from typing import Any

import pytest

from hivetenancy.authority import api, api_http
from hivetenancy.authority.api_routes import ROUTES
from tests.tiers import TIER, examples

from .asking import BASE, UNKNOWN, Asker, Example, Reply, examples_of

pytestmark = pytest.mark.anyio

REQUESTS = examples(1_000, 20_000)
"""Those of the deep tier are what the wire's bad input is held to."""

PER_HUB = 250
VALUES: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    1.5,
    1e300,
    -0.0,
    2**31,
    2**32,
    2**53,
    2**63,
    2**64,
    10**400,
    "",
    " ",
    ".",
    "..",
    "a/b",
    "*",
    "\x00",
    "\x1f",
    "\u202e",
    "e\u0301",
    "\U0010ffff",
    "é" * 128,
    "x" * 256,
    "x" * 5_000,
    UNKNOWN,
    UNKNOWN.upper(),
    f"user_{UNKNOWN}:jobs",
    "Queue",
    "synap",
    "nexus",
    "2100-13-01T00:00:00Z",
    "2100-01-01T00:00:00Z",
    "0001-01-01T00:00:00+23:59",
    "9999-12-31T23:59:59.999999999-23:59",
    "now",
    [],
    [[]],
    {},
    {"a": {"b": []}},
    ["read"],
    [UNKNOWN],
    ["0" * 64] * 1_001,
]
TEXTS = [json.dumps(value, ensure_ascii=True)[:600] for value in VALUES] + ["%", "%zz", "%00", "%2f", "%ff", "a=b", "+"]
RAW = [b"NaN", b"Infinity", b"-", b"1e400", b"9" * 5_000, b'"\\ud800"', b'"\xff"', b"[" * 2_000, b"01", b"+1", b"\x00"]
METHODS = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "get", "X" * 100]


class Fuzz:
    """Draws requests near those that succeed."""

    def __init__(self, seed: int, hub: Asker) -> None:
        self.random = random.Random(seed)
        self.hub = hub
        self.told = examples_of(hub)

    def request(self) -> tuple[str, bytes, bytes, list[tuple[bytes, bytes]]]:
        """Method, target, body and headers."""
        example = self.random.choice(self.told)
        damages = self.random.choice([self.path, self.query, self.body, self.body, self.body, self.nothing])
        path, query, body = damages(example)
        method = example.method if self.random.random() < 0.93 else self.random.choice(METHODS)
        target = BASE.encode() + path + (b"?" + query if query or self.random.random() < 0.1 else b"")
        return method, target, body, self.headers()

    def plain(self, example: Example) -> tuple[bytes, bytes, bytes]:
        """The request as it succeeds."""
        body = b"" if example.body is None else json.dumps(example.body).encode()
        return example.path.encode(), example.query.encode(), body

    def nothing(self, example: Example) -> tuple[bytes, bytes, bytes]:
        """No damage: only method and headers may be wrong."""
        return self.plain(example)

    def path(self, example: Example) -> tuple[bytes, bytes, bytes]:
        """One segment is replaced, added, dropped or damaged."""
        path, query, body = self.plain(example)
        parts = path.split(b"/")
        place = self.random.randrange(1, len(parts))
        text = self.random.choice(TEXTS).encode().replace(b" ", b"%20").replace(b'"', b"").replace(b"?", b"")
        match self.random.randrange(5):
            case 0:
                parts[place] = text
            case 1:
                parts.insert(place, text)
            case 2:
                del parts[place]
            case 3:
                parts[place] += text
            case 4:
                parts[place] = self.flipped(parts[place]).replace(b"?", b"")
        return b"/".join(parts), query, body

    def query(self, example: Example) -> tuple[bytes, bytes, bytes]:
        """One field is replaced, added, dropped or there twice."""
        path, query, body = self.plain(example)
        fields = query.split(b"&") if query else []
        names = [
            b"user_id",
            b"service",
            b"limit",
            b"cursor",
            b"source",
            b"type",
            b"required",
            b"epoch",
            b"wait",
            b"\xff",
        ]
        new = self.random.choice(names) + b"=" + self.random.choice(TEXTS).encode().replace(b" ", b"%20")
        match self.random.randrange(4):
            case 0:
                fields.append(new)
            case 1 if fields:
                fields.append(self.random.choice(fields))
            case 2 if fields:
                del fields[self.random.randrange(len(fields))]
            case _ if fields:
                place = self.random.randrange(len(fields))
                fields[place] = fields[place].split(b"=")[0] + b"=" + self.random.choice(TEXTS).encode()
            case _:
                fields.append(new)
        # what would make the hub wait says nothing here
        return path, b"&".join(field for field in fields if b"wait_seconds=2" not in field), body

    def body(self, example: Example) -> tuple[bytes, bytes, bytes]:
        """A value somewhere inside is replaced, dropped or added, or the bytes are damaged."""
        path, query, body = self.plain(example)
        if example.body is None:
            return path, query, self.flipped(b'{"a": 1}')
        value = json.loads(body)
        for _ in range(self.random.randint(1, 3)):
            self.damage(value)
        body = json.dumps(value, ensure_ascii=self.random.random() < 0.5).encode()
        match self.random.randrange(8):
            case 0:
                body = self.flipped(body)
            case 1:
                body = body[: self.random.randrange(len(body) + 1)]
            case 2:
                place = body.find(b": ") + 2
                body = body[:place] + self.random.choice(RAW) + body[body.find(b",", place) :]
            case 3:
                body = body[:-1] + b", " + body[1:]
        return path, query, body

    def damage(self, value: Any) -> None:
        """Change something in an object or list, at some depth."""
        places: list[Any] = [value]
        for each in places:
            children = each.values() if isinstance(each, dict) else each
            places += [child for child in children if isinstance(child, dict | list)]
        place = self.random.choice(places)
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        new = deepcopy(self.random.choice(VALUES))
        if keys and self.random.random() < 0.8:
            key = self.random.choice(keys)
            if self.random.random() < 0.25:
                del place[key]
            else:
                place[key] = new
        elif isinstance(place, dict):
            place[self.random.choice(["epoch", "min_revision", "colour", "", "\x00", "user_id"])] = new
        else:
            place.append(new)

    def flipped(self, text: bytes) -> bytes:
        """With a byte replaced by any other."""
        if not text:
            return bytes([self.random.randrange(256)])
        place = self.random.randrange(len(text))
        return text[:place] + bytes([self.random.randrange(256)]) + text[place + 1 :]

    def headers(self) -> list[tuple[bytes, bytes]]:
        """The service key, mostly; sometimes an idempotency key, a length, or nonsense."""
        headers = [(b"x-service-key", self.hub.key.encode())]
        chance = self.random.random()
        if chance < 0.05:
            headers[0] = (b"x-service-key", self.flipped(self.hub.key.encode()))
        elif chance < 0.08:
            headers = headers * self.random.choice([0, 2])
        if self.random.random() < 0.2:
            value = self.random.choice([b"0123456789", b"9876543210", b"", b"short", b"\xff" * 10, b"x" * 200])
            headers.append((b"idempotency-key", value))
        if self.random.random() < 0.1:
            headers.append((b"content-length", self.random.choice([b"", b"-1", b"x", b"9" * 20, b"0", b"\xb2"])))
        if self.random.random() < 0.1:
            headers.append((self.random.choice([b"host", b"origin", b"x-forwarded-for"]), b"evil.example"))
        return headers


def known(hub: Asker) -> object:
    """What a refusal must leave as it was: revision, usage, things, and which calls were made."""
    with hub.hub.reading() as state:
        things = dict(state.collections), {user: dict(held) for user, held in state.resources.items()}
        return hub.hub.revision, state.usage.copy(), things, len(state.idempotency)


async def one(fuzz: Fuzz) -> Reply:
    """Ask once; `Asker.raw` holds the reply against the document."""
    method, target, body, headers = fuzz.request()
    before = known(fuzz.hub)
    reply = await fuzz.hub.raw(method, target, body, headers=headers)
    assert reply.status < 500 or reply.json["code"] == "replica_behind", (method, target, body, reply.json)
    assert reply.status < 300 or known(fuzz.hub) == before, "a refusal changed something"
    assert fuzz.hub.key.encode() not in reply.raw
    if [name for name, _ in headers].count(b"x-service-key") != 1 or headers[0][1] != fuzz.hub.key.encode():
        assert reply.status == 401
    else:
        assert reply.status != 401
    return reply


async def run(seed: int, count: int) -> Counter[int]:
    """Ask the fake so many times, a new one every now and then."""
    seen: Counter[int] = Counter()
    for start in range(0, count, PER_HUB):
        fuzz = Fuzz(seed + start, Asker(fake=True))
        for _ in range(min(PER_HUB, count - start)):
            seen[(await one(fuzz)).status] += 1
    return seen


@pytest.mark.deep
@pytest.mark.timeout(600)
async def test_no_request_gets_anything_but_an_answer_of_the_wire() -> None:
    """No 5xx that was not asked for, never a redirect, every 400 names what is at fault, no refusal has an effect.

    The seeds differ from tier to tier and stay the same from run to run; a failure shows the request.
    """
    seen = await run(2_100 if TIER == "fast" else 21, REQUESTS)
    assert sum(seen.values()) == REQUESTS
    assert {200, 201, 400, 401, 404, 405} <= set(seen), seen
    assert sum(seen[status] for status in (200, 201)) > REQUESTS / 10, "most of it must get past the first check"
    assert seen[400] > REQUESTS / 5


def _careless(raw: bytes, model: Any) -> Any:
    """Broken: reads a body without a care for what is no JSON."""
    return model.model_validate(json.loads(raw))


async def test_the_run_finds_a_careless_application(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that lets a bad body raise fails within requests that the real one answers."""
    await run(7, 200)
    monkeypatch.setattr(api, "parse_body", _careless)
    with pytest.raises(ValueError):
        await run(7, 200)


def test_every_route_is_drawn() -> None:
    """The examples that requests are drawn near are of all calls."""
    assert {example.name for example in examples_of(Asker())} == {route.name for route in ROUTES}
    assert api_http.MAX_BODY == 1 << 20

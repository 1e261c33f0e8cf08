"""The mechanics of one call to HiveHub, over both families of HTTP clients and against servers that misbehave."""

from __future__ import annotations

import asyncio
import copy
import gc
import gzip
import inspect
import logging
import pickle
import random
import ssl
import subprocess
import traceback
import warnings
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from typing import Any

import httpx
import pytest

from hivetenancy.errors import (
    ConfigurationError,
    HubContractError,
    HubUnavailableError,
    MisuseError,
    TenancyError,
)
from hivetenancy.hub.breaker import CircuitBreaker, CircuitState, Outcome, Passage, RetryBudget
from hivetenancy.hub.origin import KEEPALIVE_SECONDS, MAX_CONNECTIONS
from hivetenancy.hub.transport import HubReply, HubTransport
from hivetenancy.testing.clock import ManualClock
from tests.tiers import examples, needs_program

KEY = "svc_synap_5uperSecretServiceKey"
URL = "http://127.0.0.1:12000"
PATH = "/api/internal/extensions"
SECOND = 1_000_000
PLAIN = ssl.create_default_context()  # loaded once: each client would read the certificates again

Handler = Callable[[Any], Any]

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["httpx", "httpx2"])
def family(request: pytest.FixtureRequest) -> Any:
    """The library that the client is of."""
    return pytest.importorskip(
        request.param, reason=f"{request.param} is not installed: it belongs to the extra `test`"
    )


@dataclass
class Bench:
    """A transport over a scripted client, with what it did."""

    transport: HubTransport
    clock: ManualClock
    sent: list[Any] = field(default_factory=list)
    slept: list[float] = field(default_factory=list)

    async def get(self, **options: Any) -> HubReply:
        return await self.transport.call("GET", PATH, **{"repeatable": True} | options)

    async def post(self, **options: Any) -> HubReply:
        return await self.transport.call("POST", PATH, **{"repeatable": False, "body": b"{}"} | options)


def bench(family: Any, handler: Handler, *, jitter: float = 0.5, **options: Any) -> Bench:
    """A transport whose hub is *handler*: it gives a reply, a status, or raises."""
    clock = ManualClock()
    made: Bench

    async def answer(request: Any) -> Any:
        made.sent.append(request)
        result = handler(request)
        if inspect.isawaitable(result):
            result = await result
        return family.Response(result) if isinstance(result, int) else result

    async def sleep(seconds: float) -> None:
        made.slept.append(seconds)
        clock.advance(seconds)

    client = family.AsyncClient(transport=family.MockTransport(answer), verify=PLAIN)
    timing: dict[str, Any] = {"clock": clock, "sleep": sleep, "random": lambda: jitter}
    transport = HubTransport(URL, KEY, http=client, **timing | options)
    made = Bench(transport, clock)
    return made


def script(*steps: Any) -> Handler:
    """Give one step after the other, and the last for ever; an exception is raised."""
    left = list(steps)

    def handler(request: Any) -> Any:
        step = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(step, type | Exception):
            raise step("what the library says", request=request) if isinstance(step, type) else step
        return step

    return handler


async def error_of(call: Awaitable[Any]) -> Any:
    """The library's error that *call* ends in."""
    with pytest.raises(TenancyError) as caught:
        await call
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    return caught.value


@asynccontextmanager
async def raw_server(
    talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]], context: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """A server of bytes on this machine; gives its port."""

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await talk(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(one, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


def says(answer: bytes, seen: list[bytes] | None = None) -> Callable[..., Awaitable[None]]:
    """Read one request's head, send *answer*, hang up."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if seen is not None:
            seen.append(head)
        writer.write(answer)
        await writer.drain()

    return talk


@asynccontextmanager
async def towards(port: int, family: Any, **options: Any) -> AsyncIterator[HubTransport]:
    """A transport to a raw server, that never repeats unless told to."""
    async with family.AsyncClient(verify=PLAIN, trust_env=False) as client:
        transport = HubTransport(f"http://127.0.0.1:{port}", KEY, http=client, **{"retries": 0} | options)
        yield transport
        await transport.aclose()


# -- what may be configured --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url, kept",
    [
        ("https://hub.example.com", "https://hub.example.com"),
        ("https://hub.example.com:8443/", "https://hub.example.com:8443"),
        ("https://gateway.example.com/hive/hub//", "https://gateway.example.com/hive/hub"),
        ("http://localhost:12000", "http://localhost:12000"),
        ("http://127.9.9.9/", "http://127.9.9.9"),
        ("http://[::1]:12000", "http://[::1]:12000"),
    ],
)
def test_a_url_is_taken_without_its_trailing_slashes(url: str, kept: str) -> None:
    """https: anywhere, http: to this machine."""
    assert repr(HubTransport(url, KEY)) == f"<HubTransport {kept}>"


@pytest.mark.parametrize(
    "url",
    [
        "",
        None,
        "hub.example.com",
        "/api",
        "https://",
        "http://hub.example.com",
        "http://10.0.0.1:12000",
        "http://0.0.0.0:12000",
        "http://127.0.0.1.evil.example",
        "http://localhost.evil.example",
        "http://localhost@evil.example",
        "https://user:s3cretword@hub.example.com",
        "https://hub.example.com?key=s3cretword",
        "https://hub.example.com#s3cretword",
        "https://hub.example.com?",
        "https://hub.example.com:s3cretword",
        "https://hub.example.com:99999",
        "https://hub.example.com/../x",
        "https://hub.example.com/%2e%2e/x",
        "https://hub.example.com/a b",
        "https://hub.example.com\n",
        "https://hüb.example.com",
        "https:\\\\hub.example.com",
        "https://[::1",
        "ftp://hub.example.com",
        "http+unix://%2Frun%2Fhub.sock",
    ],
)
def test_a_url_that_could_lead_elsewhere_is_refused(url: str) -> None:
    """Refused when it is built, without quoting what could be a secret."""
    with pytest.raises(ConfigurationError, match="hub URL") as caught:
        HubTransport(url, KEY)
    assert "s3cretword" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "key",
    [
        "",
        None,
        "short",
        "x" * 513,
        "svc with space",
        "svc_line\nend",
        "svc_ünicode",
        "svc_end\n",
        "hh_test_seeded_0123456789ab_abcdef",
        "hh_live_0123456789ab_abcdefghijkl",
    ],
)
def test_what_is_no_service_key_is_refused(key: str) -> None:
    """So that an access key, or one that anybody can make, is never sent as the service's."""
    with pytest.raises(ConfigurationError, match="service key") as caught:
        HubTransport(URL, key)
    assert not key or key not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"timeout_s": 0},
        {"timeout_s": float("nan")},
        {"timeout_s": 1000000000.0},
        {"retries": -1},
        {"retries": 11},
        {"max_response_bytes": 0},
    ],
)
def test_numbers_out_of_range_are_refused(options: dict[str, Any]) -> None:
    """Found when it is built."""
    with pytest.raises(ConfigurationError):
        HubTransport(URL, KEY, **options)


def test_certificates_are_always_verified() -> None:
    """No argument switches verification off, and none is taken that would have no effect."""
    unchecked = ssl.create_default_context()
    unchecked.check_hostname = False
    anyname = ssl.create_default_context()
    anyname.check_hostname = False
    unchecked.verify_mode = ssl.CERT_NONE
    for context in (False, unchecked, anyname):
        with pytest.raises(ConfigurationError, match="verify"):
            HubTransport(URL, KEY, verify=context)
    with pytest.raises(ConfigurationError, match="no effect"):
        HubTransport(URL, KEY, verify=PLAIN, http=httpx.AsyncClient(verify=PLAIN))
    HubTransport(URL, KEY, verify=PLAIN)


# -- what is sent ------------------------------------------------------------------------------------------------------


async def test_a_request_is_what_the_wire_page_says(family: Any) -> None:
    """Path and query arrive byte by byte as they were meant, beside the headers of part 1."""
    seen: list[bytes] = []
    odd = "/api/internal/synap/resources/a%20b%2Fc%3F;v=1,(x)~'!$&*+:@=/validate"
    async with raw_server(says(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", seen)) as port:
        async with towards(port, family) as transport:
            query = [("user_id", "a b&c=d+e%41é#"), ("type", "Queue"), ("type", "")]
            headers = [("Idempotency-Key", "one")]
            reply = await transport.call("PUT", odd, query=query, headers=headers, body=b"{}", repeatable=True)
    assert (reply.status, reply.ok, reply.body, reply.headers["content-length"]) == (200, True, b"{}", "2")
    first, *lines = seen[0].decode().split("\r\n")
    assert first == f"PUT {odd}?user_id=a%20b%26c%3Dd%2Be%2541%C3%A9%23&type=Queue&type= HTTP/1.1"
    found = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines if line)}
    assert (
        found.items()
        >= {
            "x-service-key": KEY,
            "content-type": "application/json",
            "accept": "application/json",
            "accept-encoding": "identity",
            "user-agent": "hivetenancy",
            "idempotency-key": "one",
        }.items()
    )
    assert not {"authorization", "cookie"} & set(found)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "api",
        "http://evil.example/",
        "/a?b",
        "/a#b",
        "/a b",
        "/a\\b",
        "/a/../b",
        "/.",
        "/%2E%2e/b",
        "/ä",
        "/a%2",
        "/\n",
    ],
)
async def test_a_path_that_would_arrive_as_another_is_not_sent(path: str) -> None:
    """The caller encodes; nothing is repaired on the way."""
    one = bench(httpx, script(200))
    with pytest.raises(MisuseError):
        await one.transport.call("GET", path, repeatable=True)
    assert not one.sent


@pytest.mark.parametrize(
    "header",
    [
        ("X-Service-Key", "other"),
        ("x-service-key", "other"),
        ("Host", "evil.example"),
        ("Content-Length", "9"),
        ("Authorization", "Bearer x"),
        ("X-A", "a\r\nX-B: b"),
        ("X A", "a"),
        ("X-A", ""),
        ("X-A", "é"),
        ("X-A", " a"),
    ],
)
async def test_a_header_that_would_change_the_request_is_not_sent(header: tuple[str, str]) -> None:
    """Neither those of the transport, nor one that ends the line."""
    one = bench(httpx, script(200))
    with pytest.raises(MisuseError):
        await one.get(headers=[header])
    assert not one.sent


async def test_other_misuse_is_named_before_anything_is_sent() -> None:
    """A method in small letters, a deadline in the past, a URL without end."""
    one = bench(httpx, script(200))
    with pytest.raises(MisuseError):
        await one.transport.call("get", PATH, repeatable=True)
    for deadline in (0, -1, float("nan")):
        with pytest.raises(MisuseError):
            await one.get(deadline_s=deadline)
    with pytest.raises(MisuseError):
        await one.get(query=[("source", "x" * 20_000)])
    assert not one.sent


# -- what answers mean -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 201, 204, 206, 400, 404, 409, 413, 422, 429])
async def test_an_answer_is_handed_on(family: Any, status: int) -> None:
    """2xx, a refusal, and a 429 that is a verdict; each is a success for the breaker and is asked for once."""
    one = bench(family, script(family.Response(status, content=b"body", headers={"X-One": "1"})))
    for _ in range(8):
        reply = await one.get()
        assert (reply.status, reply.body, reply.headers["x-one"]) == (status, b"body", "1")
    assert len(one.sent) == 8
    assert one.transport.circuit is CircuitState.CLOSED


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refused_service_key_is_not_transient(family: Any, status: int) -> None:
    """Said once, with the remedy, and not repeated."""
    one = bench(family, script(status))
    error = await error_of(one.get())
    assert isinstance(error, HubUnavailableError)
    assert (error.transient, error.outcome_unknown, error.retry_after_us) == (False, False, None)
    assert "service key" in str(error)
    assert len(one.sent) == 1


@pytest.mark.parametrize("status", [101, 300, 301, 302, 303, 304, 307, 308, 402, 405, 406, 410, 418, 431, 451, 499])
async def test_a_status_outside_the_wire_is_no_answer(family: Any, status: int) -> None:
    """Said once; nothing of what came is quoted."""
    reply = family.Response(status, headers={"Location": "https://evil.example/?t=s3cretword"}, content=b"s3cretword")
    one = bench(family, script(reply))
    error = await error_of(one.get())
    assert isinstance(error, HubContractError)
    assert str(status) in str(error)
    assert "s3cretword" not in str(error)
    assert "evil" not in str(error)
    assert len(one.sent) == 1


@pytest.mark.parametrize("status", [500, 501, 502, 503, 504, 520, 599])
async def test_a_5xx_may_have_taken_effect(family: Any, status: int) -> None:
    """A call that may be repeated is, others are not; the outcome is unknown either way."""
    one = bench(family, script(status))
    for call, attempts in ((one.get, 4), (one.post, 1)):
        one.sent.clear()
        error = await error_of(call())
        assert isinstance(error, HubUnavailableError)
        assert (error.transient, error.outcome_unknown) == (True, True)
        assert len(one.sent) == attempts


@pytest.mark.parametrize(
    "after, wait_s",
    [
        ("7", 7.0),
        (" 0 ", 0.0),
        (formatdate(4102444800 + 9, usegmt=True), 9.0),
        ("9999999999999999", 86400.0),
        (formatdate(0, usegmt=True), 0.0),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("²", None),
        ("", None),
        ("Fri, 99 Xyz 9999999999 00:00:00 GMT", None),
        ("Mon, 01 Jan 1971 00:00:00 +2359", 0.0),
    ],
)
async def test_retry_after_is_read_as_seconds_or_a_date(family: Any, after: str, wait_s: float | None) -> None:
    """Anything else is no hint, yet marks a 429 as a throttle; nothing is longer than a day."""
    one = bench(family, script(family.Response(429, headers={"Retry-After": after.encode("latin-1")})), retries=0)
    error = await error_of(one.post())
    assert (error.transient, error.outcome_unknown) == (True, False)
    assert error.retry_after_us == (None if wait_s is None else round(wait_s * SECOND))


# -- repeating ---------------------------------------------------------------------------------------------------------


async def test_a_throttled_call_waits_as_told_and_goes_out_again(family: Any) -> None:
    """Whatever it is, since nothing was done; the wait is what was asked for and jitter on top."""
    throttle = family.Response(429, headers={"Retry-After": "3"})
    one = bench(family, script(throttle, throttle, 200))
    assert (await one.post()).ok
    assert one.slept == pytest.approx([3.1, 3.2])
    assert one.transport.circuit is CircuitState.CLOSED


async def test_a_wait_beyond_the_deadline_is_not_begun(family: Any) -> None:
    """The hub's hint is handed on instead."""
    one = bench(family, script(family.Response(503, headers={"Retry-After": "31"})))
    error = await error_of(one.get())
    assert error.retry_after_us == 31 * SECOND
    assert one.slept == []
    one = bench(family, script(family.Response(503, headers={"Retry-After": "31"})))
    await error_of(one.get(deadline_s=100))
    assert one.slept == pytest.approx([31.1, 31.2, 31.4])


async def test_pauses_are_jittered_grow_and_end_with_the_deadline(family: Any) -> None:
    """Full jitter over a doubling width, and the sum stays below the deadline."""
    one = bench(family, script(500), jitter=0.999, retries=10, breaker=None, timeout_s=9.0)
    await error_of(one.get())
    assert one.slept == pytest.approx([0.1998, 0.3996, 0.7992, 1.5984])  # the fifth failure opens the circuit
    patient = CircuitBreaker(clock=ManualClock(), failures=1000)
    one = bench(family, script(500), jitter=0.999, retries=10, breaker=patient, timeout_s=9.0)
    await error_of(one.get())
    assert one.slept == pytest.approx([0.1998, 0.3996, 0.7992, 1.5984, 3.1968])
    assert sum(one.slept) < 9.0
    one = bench(family, script(500), jitter=0.0)
    await error_of(one.get())
    assert one.slept == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    "fault, repeated, unknown",
    [
        ("ConnectError", True, False),
        ("ConnectTimeout", True, False),
        ("PoolTimeout", True, False),
        ("ProxyError", True, False),
        ("ReadError", False, True),
        ("ReadTimeout", False, True),
        ("WriteError", False, True),
        ("WriteTimeout", False, True),
        ("CloseError", False, True),
        ("RemoteProtocolError", False, True),
    ],
)
async def test_what_may_have_arrived_is_repeated_only_by_leave(
    family: Any, fault: str, repeated: bool, unknown: bool
) -> None:
    """A call that was certainly not sent goes out again in any case, another only if its caller allows it."""
    one = bench(family, script(getattr(family, fault), 200))
    if repeated:
        assert (await one.post()).ok
    else:
        error = await error_of(one.post())
        assert (error.transient, error.outcome_unknown) == (True, unknown)
    assert len(one.sent) == 1 + repeated
    one = bench(family, script(getattr(family, fault), 200))
    assert (await one.get()).ok
    one = bench(family, script(getattr(family, fault)))
    assert (await error_of(one.get())).outcome_unknown is unknown


@pytest.mark.parametrize("last", ["ConnectError", 401, "throttle"])
async def test_doubt_adds_up_over_attempts(family: Any, last: Any) -> None:
    """A lost reply stays lost, even if the next attempt certainly did nothing."""
    end = {"ConnectError": family.ConnectError, "throttle": family.Response(429, headers={"Retry-After": "99"})}
    one = bench(family, script(family.ReadError, end.get(last, last)))
    error = await error_of(one.get())
    assert error.outcome_unknown is True
    assert len(one.sent) > 1


async def test_a_hub_that_never_answers_ends_with_the_deadline(family: Any) -> None:
    """One deadline over everything; a call on its way may have taken effect, and the breaker hears of it."""
    one = bench(family, lambda _request: asyncio.Event().wait())
    for _ in range(5):
        error = await error_of(one.get(deadline_s=0.005))
        assert (error.transient, error.outcome_unknown) == (True, True)
        assert "0.005 s" in str(error)
    assert len(one.sent) == 5
    assert one.transport.circuit is CircuitState.OPEN


async def test_a_deadline_during_a_pause_leaves_no_doubt_that_was_not_there(family: Any) -> None:
    """Where every attempt was certainly not sent, so was the call."""

    async def for_ever(_seconds: float) -> None:
        await asyncio.Event().wait()

    one = bench(family, script(family.ConnectError), jitter=0.0, sleep=for_ever)
    assert (await error_of(one.post(deadline_s=0.01))).outcome_unknown is False
    assert len(one.sent) == 1


async def test_each_attempt_has_what_is_left_of_the_deadline(family: Any) -> None:
    """Connecting and waiting for a free connection at most five seconds, so that a harmless failure comes early."""
    throttle = family.Response(429, headers={"Retry-After": "7"})
    one = bench(family, script(throttle, throttle, throttle, 200), jitter=0.0)
    await one.get()
    await one.get(deadline_s=2)
    limits = [request.extensions["timeout"] for request in one.sent]
    assert [(limit["connect"], limit["pool"]) for limit in limits] == [(5.0, 5.0)] * 4 + [(2.0, 2.0)]
    assert [limit["read"] for limit in limits] == pytest.approx([30.0, 23.0, 16.0, 9.0, 2.0])
    assert [limit["write"] for limit in limits] == [limit["read"] for limit in limits]


async def test_a_circuit_that_opens_during_a_pause_ends_the_call_with_what_it_knew(family: Any) -> None:
    """The last answer of the hub tells an operator more than that it was not asked again."""

    async def others_fail(_seconds: float) -> None:
        for _ in range(5):
            passage = breaker.enter()
            if passage is not None:
                breaker.settle(passage, Outcome.FAILURE)

    breaker = CircuitBreaker(clock=ManualClock())
    one = bench(family, script(502), breaker=breaker, sleep=others_fail)
    error = await error_of(one.get())
    assert "502" in str(error)
    assert len(one.sent) == 1
    assert "probed" in str(await error_of(one.get()))


async def test_a_fault_that_is_nobodys_is_not_hidden(family: Any) -> None:
    """An assertion of a test's own handler comes through, and leaves the breaker as it was."""
    one = bench(family, script(AssertionError("mine")))
    for _ in range(9):
        with pytest.raises(AssertionError, match="mine"):
            await one.get()
    assert len(one.sent) == 9
    assert one.transport.circuit is CircuitState.CLOSED


# -- outages -----------------------------------------------------------------------------------------------------------


async def test_an_open_circuit_sends_nothing_and_says_when_to_come_back(family: Any) -> None:
    """Five failures, then refusals without a request; the first call after the pause is the probe."""
    one = bench(family, script(*[500] * 5, 200), retries=0)
    for _ in range(5):
        await error_of(one.get())
    error = await error_of(one.get())
    assert (error.transient, error.outcome_unknown) == (True, False)
    assert 0 < error.retry_after_us <= SECOND
    assert len(one.sent) == 5
    one.clock.advance(us=error.retry_after_us)
    assert (await one.get()).ok
    assert one.transport.circuit is CircuitState.CLOSED


async def test_exactly_one_of_a_thousand_callers_is_the_probe(family: Any) -> None:
    """All others are refused while it is on its way, none of them waits."""
    gate = asyncio.Event()

    async def slow(_request: Any) -> int:
        await gate.wait()
        return 200

    steps = iter([500] * 5)
    one = bench(family, lambda request: next(steps, None) or slow(request), retries=0)
    for _ in range(5):
        await error_of(one.get())
    one.clock.advance(seconds=1)
    callers = [asyncio.create_task(one.get()) for _ in range(1000)]
    done, waiting = await asyncio.wait(callers, timeout=30, return_when=asyncio.FIRST_EXCEPTION)
    while len(done) < 999:
        await asyncio.sleep(0)
        done = {caller for caller in callers if caller.done()}
    assert len(one.sent) == 6
    assert all(isinstance(caller.exception(), HubUnavailableError) for caller in done)
    gate.set()
    replies = await asyncio.gather(*callers, return_exceptions=True)
    assert sum(isinstance(reply, HubReply) for reply in replies) == 1
    assert one.transport.circuit is CircuitState.CLOSED
    assert len(waiting) >= 1


@pytest.mark.parametrize("cancelled", [True, False])
async def test_a_probe_that_ends_without_a_verdict_gives_its_place_away(family: Any, cancelled: bool) -> None:
    """Cancelled or throttled, the next call is the probe."""
    throttle = family.Response(429, headers={"Retry-After": "99"})
    steps = iter([500] * 5 + [None if cancelled else throttle])
    one = bench(family, lambda _request: next(steps, 200) or asyncio.Event().wait(), retries=0)
    for _ in range(5):
        await error_of(one.get())
    one.clock.advance(seconds=1)
    probe = asyncio.create_task(one.get())
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(one.sent) == 6
    if cancelled:
        probe.cancel()
    await asyncio.gather(probe, return_exceptions=True)
    assert probe.cancelled() is cancelled
    assert one.transport.circuit is CircuitState.HALF_OPEN
    assert (await one.get()).ok


class NeverOpens(CircuitBreaker):
    """Lets everybody through, so that the budget stands alone."""

    def enter(self) -> Passage | None:
        return Passage(-1)

    def settle(self, passage: Passage, outcome: Outcome) -> None:
        """Hear nothing."""


class Boundless(RetryBudget):
    """A budget that counts nothing."""

    def spend(self) -> bool:
        return True


async def outage(calls: int, budget: RetryBudget, *, breaker: bool) -> int:
    """Make calls while the hub answers 500, a tenth of a second apart; return how many requests arrived."""
    arrived = 0

    class Client:
        """A client of nobody's family: the transport asks no more of one than the protocol says."""

        is_closed = False

        @asynccontextmanager
        async def stream(self, _method: str, _url: str, **_options: Any) -> AsyncIterator[Any]:
            nonlocal arrived
            arrived += 1
            yield Reply()

        async def aclose(self) -> None: ...

    class Reply:
        def __init__(self) -> None:
            self.status_code = 500
            self.headers: dict[str, str] = {}

        async def aiter_bytes(self) -> AsyncIterator[bytes]:
            yield b""

    async def sleep(seconds: float) -> None:
        clock.advance(seconds)

    clock = ManualClock()
    kind = CircuitBreaker if breaker else NeverOpens
    transport = HubTransport(
        URL, KEY, http=Client(), clock=clock, sleep=sleep, budget=budget, breaker=kind(clock=clock)
    )
    for _ in range(calls):
        await error_of(transport.call("GET", PATH, repeatable=True))
        clock.advance(seconds=0.1)
    return arrived


async def test_retries_do_not_multiply_an_outage() -> None:
    """10,000 failing calls of four attempts each make at most 11,010 requests, with the breaker a few hundred; a budget
    that counts nothing makes four times as many."""
    calls = examples(2_000, 10_000)
    alone = await outage(calls, RetryBudget(), breaker=False)
    assert calls <= alone <= calls * 11 // 10 + 10
    guarded = await outage(calls, RetryBudget(), breaker=True)
    assert guarded <= calls * 0.1 / 2.5 + 20
    assert await outage(200, Boundless(), breaker=False) == 800 > 200 * 11 // 10 + 10


# -- bodies ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("announced", [True, False])
async def test_a_reply_of_100_mb_is_cut_off_at_the_cap(family: Any, announced: bool) -> None:
    """What was not announced is read up to the cap and dropped with its connection."""
    sent = 0
    gone = asyncio.Event()

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        try:
            await reader.readuntil(b"\r\n\r\n")
            length = b"content-length: 100000000" if announced else b"transfer-encoding: chunked"
            writer.write(b"HTTP/1.1 200 OK\r\n" + length + b"\r\n\r\n")
            while sent < 100_000_000:
                writer.write((b"" if announced else b"10000\r\n") + bytes(65536) + (b"" if announced else b"\r\n"))
                await writer.drain()
                sent += 65536
        finally:
            gone.set()

    async with raw_server(flood) as port, towards(port, family, max_response_bytes=1 << 20) as transport:
        error = await error_of(transport.call("GET", PATH, repeatable=True))
        assert isinstance(error, HubContractError)
        assert "max_response_bytes" in str(error)
        await gone.wait()
    assert sent < 50_000_000  # the cap and what the kernel's buffers hold


async def test_a_body_may_be_exactly_as_long_as_the_cap(family: Any) -> None:
    """And not a byte longer, however it arrives."""

    async def pieces(size: int) -> AsyncIterator[bytes]:
        for _ in range(size):
            yield b"x"

    for size, fits in ((100, True), (101, False)):
        for content in (bytes(size), pieces(size)):
            one = bench(family, script(family.Response(200, content=content)), max_response_bytes=100)
            if fits:
                assert len((await one.get()).body) == 100
            else:
                assert isinstance(await error_of(one.get()), HubContractError)


@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_is_left_in_order(announced: bool) -> None:
    """One that is announced as too long is not begun; one that becomes too long is closed before its connection."""
    events: list[str] = []

    class Reply:
        def __init__(self) -> None:
            self.status_code = 200
            self.headers = {"Content-Length": "101"} if announced else {}

        async def aiter_bytes(self) -> AsyncIterator[bytes]:
            events.append("begun")
            try:
                while True:
                    yield b"x"
            finally:
                events.append("body closed")

    class Client:
        is_closed = False

        @asynccontextmanager
        async def stream(self, _method: str, _url: str, **_options: Any) -> AsyncIterator[Any]:
            yield Reply()
            events.append("connection closed")

        async def aclose(self) -> None: ...

    transport = HubTransport(URL, KEY, http=Client(), max_response_bytes=100)
    assert isinstance(await error_of(transport.call("GET", PATH, repeatable=True)), HubContractError)
    assert events == (["connection closed"] if announced else ["begun", "body closed", "connection closed"])


@pytest.mark.parametrize("encoding", [b"gzip", b"GZIP", b"deflate", b"br", b"zstd", b"identity, gzip", b"nonsense"])
async def test_a_bomb_is_not_even_opened(family: Any, encoding: bytes) -> None:
    """A compressed reply was not asked for; no decoder sees 100 KB that become 100 MB."""
    bomb = gzip.compress(bytes(10_000_000))
    head = b"HTTP/1.1 200 OK\r\ncontent-encoding: %s\r\ncontent-length: %d\r\n\r\n" % (encoding, len(bomb))
    async with raw_server(says(head + bomb)) as port, towards(port, family) as transport:
        error = await error_of(transport.call("GET", PATH, repeatable=True))
    assert isinstance(error, HubContractError)
    assert "compress" in str(error)


async def test_a_reply_that_comes_byte_by_byte_ends_with_the_deadline(family: Any) -> None:
    """Each byte would restart a timeout between bytes; the deadline is over the whole."""

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0)

    async with raw_server(drip) as port:
        async with towards(port, family, max_response_bytes=1 << 40) as transport:
            error = await error_of(transport.call("GET", PATH, repeatable=True, deadline_s=0.1))
    assert isinstance(error, HubUnavailableError)
    assert error.outcome_unknown is True


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{}",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n{}",
        b"HTTP/1.1 banana\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\x15\x03\x01\x00\x02\x02\x46",
        b"\x00" * 100,
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 300_000 + b"\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 50,
    ],
)
async def test_what_is_no_http_is_an_outage_of_ours(family: Any, answer: bytes) -> None:
    """Garbage, cut short or too long, it ends in the library's error and in no other."""
    async with raw_server(says(answer)) as port, towards(port, family) as transport:
        error = await error_of(transport.call("GET", PATH, repeatable=True, deadline_s=5))
    assert isinstance(error, HubUnavailableError)
    assert error.outcome_unknown is True


async def test_random_answers_raise_nothing_else(family: Any) -> None:
    """Heads with hostile headers, statuses and lengths: a reply, or an error of ours."""
    chance = random.Random()
    values = ["", "0", "-1", "99999999999999999999", "é", "\x01", "a" * 5000, "gzip", "chunked", "https://[::", "//"]
    values += ["http://%/", "a=b; expires=Fri, 99", "a=b; domain=.com; Max-Age=9", "text/html; charset=nonsense", "://"]
    names = ["Location", "Set-Cookie", "Content-Type", "Content-Length", "Content-Encoding", "Transfer-Encoding"]
    names += ["Retry-After", "Connection", "Date", "X"]

    def answer() -> bytes:
        status = chance.choice(["200", "204", "302", "307", "401", "429", "500", "503", "099", "999", "1000", ""])
        lines = [f"{chance.choice(names)}: {chance.choice(values)}" for _ in range(chance.randrange(5))]
        return "\r\n".join([f"HTTP/1.1 {status} x", *lines, "", "{}"]).encode("latin-1")

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer())
        await writer.drain()

    async with raw_server(talk) as port:
        results: list[object] = []
        for _ in range(examples(25, 500)):
            # A client of its own for a few calls each: a strange cookie spoils all that a caller's client sends after.
            async with towards(port, family, breaker=NeverOpens(clock=ManualClock())) as transport:
                for _ in range(6):
                    call = transport.call("GET", PATH, repeatable=True)
                    results += await asyncio.gather(call, return_exceptions=True)
    strange = [result for result in results if type(result) not in (HubReply, HubContractError, HubUnavailableError)]
    assert strange == []
    assert {type(result) for result in results} == {HubReply, HubContractError, HubUnavailableError}
    assert not any(result.__context__ for result in results if isinstance(result, Exception))


# -- secrets -----------------------------------------------------------------------------------------------------------


async def test_a_redirect_is_not_followed_and_takes_no_key_along(family: Any) -> None:
    """Neither by a client that follows by default; the other origin hears nothing at all."""
    heard: list[bytes] = []
    async with raw_server(says(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", heard)) as other:
        for status in (301, 302, 303, 307, 308):
            head = (
                f"HTTP/1.1 {status} Go\r\nlocation: http://127.0.0.1:{other}/?t=s3cretword\r\ncontent-length: 0\r\n\r\n"
            )
            async with raw_server(says(head.encode())) as port:
                async with family.AsyncClient(verify=PLAIN, trust_env=False, follow_redirects=True) as client:
                    transport = HubTransport(f"http://127.0.0.1:{port}", KEY, http=client)
                    error = await error_of(transport.call("GET", PATH, repeatable=True))
                    assert isinstance(error, HubContractError)
                    assert "redirect" in str(error)
                    assert "s3cretword" not in str(error)
                    assert heard == []
                    await client.get(f"http://127.0.0.1:{port}/", headers={"X-Service-Key": KEY})
                    assert KEY.encode() in heard.pop()  # the trap does catch: the library alone takes the key along


async def test_the_own_client_follows_no_redirect_and_keeps_no_cookie() -> None:
    """What a hub sets is not sent back."""
    seen: list[bytes] = []
    answer = b"HTTP/1.1 200 OK\r\nset-cookie: a=b; path=/\r\ncontent-length: 0\r\n\r\n"
    async with raw_server(says(answer, seen)) as port:
        async with HubTransport(f"http://127.0.0.1:{port}", KEY, verify=PLAIN) as transport:
            for _ in range(2):
                assert (await transport.call("GET", PATH, repeatable=True)).ok
    assert len(seen) == 2
    assert b"cookie" not in seen[1].lower()


def test_the_key_shows_nowhere_in_what_it_is_held_by() -> None:
    """Not in a representation, not in the variables, and neither is copied or pickled."""
    transport = HubTransport(URL, KEY)
    for text in (repr(transport), str(transport), f"{transport}", repr(vars(transport)), repr(transport._key)):
        assert KEY not in text
    for take in (pickle.dumps, copy.deepcopy, copy.copy):
        with pytest.raises(TypeError):
            take(transport._key)
    with pytest.raises(TypeError):
        vars(transport._key)
    with pytest.raises(TypeError):
        pickle.dumps(transport)


def test_a_reply_shows_neither_headers_nor_body() -> None:
    """Both may hold a secret."""
    assert repr(HubReply(status=201, headers={"x": "s3cretword"}, body=b"s3cretword")) == "HubReply(status=201)"


async def test_the_key_is_in_no_log_and_no_traceback(family: Any, caplog: pytest.LogCaptureFixture) -> None:
    """With every logger at its most talkative, over good, bad and broken answers, an echo of the request included."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readuntil(b"\r\n\r\n"))
        await writer.drain()

    talks = [echo, says(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"), says(b""), says(b"HTTP/1.1 500 x\r\n\r\n")]
    texts = []
    with caplog.at_level(logging.DEBUG):
        for talk in talks:
            async with raw_server(talk) as port, towards(port, family) as transport:
                try:
                    await transport.call("GET", PATH, repeatable=True)
                except TenancyError as error:
                    logging.getLogger("test").exception("failed")
                    lines = traceback.TracebackException.from_exception(error, capture_locals=True).format()
                    texts.append("".join(lines))
    assert len(texts) == 3
    assert "HTTP Request" in caplog.text  # the client did talk
    assert "send_request_headers" in caplog.text
    for text in (caplog.text, *texts):
        assert KEY not in text


def exception_classes(family: Any) -> list[type[Exception]]:
    """Every exception class in the namespace of a library."""
    found = [item for item in vars(family).values() if isinstance(item, type) and issubclass(item, Exception)]
    assert len(found) >= 28
    return found


def instance(kind: type[Exception], request: Any, family: Any) -> Exception:
    """One such exception, with the request in it where it takes one."""
    wanted = inspect.signature(kind.__init__).parameters
    extra = {"request": request, "response": family.Response(500, request=request)}
    named = {name: value for name, value in extra.items() if name in wanted}
    return kind(*([f"quotes {KEY}"] if "message" in wanted or kind.__name__ == "CookieConflict" else []), **named)


async def test_every_exception_of_a_family_becomes_one_of_ours(family: Any) -> None:
    """The whole tree is walked, so a class of a later release is met here; none brings its request along."""
    for kind in exception_classes(family):

        def broken(request: Any, kind: type[Exception] = kind) -> Any:
            assert request.headers["X-Service-Key"] == KEY  # this is what must not come along
            raise instance(kind, request, family)

        one = bench(family, broken, retries=0)
        error = await error_of(one.post())
        assert isinstance(error, HubUnavailableError | HubContractError), kind
        assert kind.__name__ in str(error)
        assert KEY not in str(error)
        certain = kind.__name__ in {"ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError"}
        if isinstance(error, HubUnavailableError):
            assert error.outcome_unknown is not certain, kind
        else:
            assert kind.__name__ in {
                "TooManyRedirects",
                "DecodingError",
                "HTTPStatusError",
                "CookieConflict",
                "InvalidURL",
            }


@pytest.mark.parametrize("fault", [OSError("x"), TimeoutError("x"), ConnectionResetError("x"), ssl.SSLError("x")])
async def test_an_error_of_the_system_becomes_one_of_ours(family: Any, fault: Exception) -> None:
    """Also where a transport of the caller's lets it through."""
    one = bench(family, script(fault), retries=0)
    error = await error_of(one.get())
    assert isinstance(error, HubUnavailableError)
    assert error.outcome_unknown is True


async def test_a_hub_that_is_not_there_is_named_with_the_reason(family: Any) -> None:
    """A refused connection and a name that does not resolve: certainly not sent, and repeated for any call."""
    async with raw_server(says(b"")) as port:
        pass  # closed again: nobody listens there
    async with towards(port, family) as transport:
        error = await error_of(transport.call("POST", PATH, repeatable=False))
    assert (error.transient, error.outcome_unknown) == (True, False)
    assert f"no connection to HiveHub at http://127.0.0.1:{port} (" in str(error)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate that vouches for itself, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    cert, secret = folder / "cert.pem", folder / "key.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    subprocess.run(
        [*command.split(), "-addext", "subjectAltName=DNS:localhost", "-keyout", secret, "-out", cert],
        check=True,
        capture_output=True,
    )
    return cert, secret


@needs_program("openssl")
async def test_a_certificate_that_is_not_trusted_ends_the_call(family: Any, certificate: tuple[Path, Path]) -> None:
    """Over real TLS: refused before the key is sent, not transient; with the authority in verify= it is accepted."""
    cert, secret = certificate
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(cert, secret)
    seen: list[bytes] = []
    async with raw_server(says(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", seen), server) as port:
        url = f"https://localhost:{port}"
        async with family.AsyncClient(verify=PLAIN, trust_env=False) as client:
            error = await error_of(HubTransport(url, KEY, http=client).call("POST", PATH, repeatable=False))
        assert (error.transient, error.outcome_unknown, seen) == (False, False, [])
        assert "certificate" in str(error)
        async with HubTransport(url, KEY, verify=ssl.create_default_context(cafile=str(cert))) as transport:
            assert (await transport.call("GET", PATH, repeatable=True)).ok
        assert len(seen) == 1


async def test_a_failure_is_freed_with_its_last_reference(family: Any) -> None:
    """An outage makes many; none waits for the collector, with what its frames hold."""
    one = bench(family, script(500))
    gc.collect()
    gc.disable()
    try:
        try:
            await one.get()
        except HubUnavailableError as error:
            left = weakref.ref(error)
        assert left() is None
    finally:
        gc.enable()


# -- life cycle --------------------------------------------------------------------------------------------------------


async def test_cancelled_calls_leave_the_pool_and_the_breaker_as_they_were() -> None:
    """Twice as many calls as there are connections are cancelled at any moment; all connections are free again."""
    silent = True

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if not silent:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            await writer.drain()
        await reader.read()

    async with raw_server(talk) as port:
        async with HubTransport(f"http://127.0.0.1:{port}", KEY, verify=PLAIN) as transport:
            calls = [
                asyncio.create_task(transport.call("GET", PATH, repeatable=True)) for _ in range(2 * MAX_CONNECTIONS)
            ]
            for number, call in enumerate(calls):
                for _ in range(number % 5):
                    await asyncio.sleep(0)
                call.cancel()
            results = await asyncio.gather(*calls, return_exceptions=True)
            assert all(isinstance(result, asyncio.CancelledError) for result in results)
            assert transport.circuit is CircuitState.CLOSED
            silent = False
            replies = await asyncio.gather(
                *(transport.call("GET", PATH, repeatable=True) for _ in range(MAX_CONNECTIONS))
            )
            assert all(reply.ok for reply in replies)


async def test_the_own_client_has_the_stated_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    """32 connections, idle ones dropped before the server does; a proxy of the environment for https: alone."""
    made: list[dict[str, Any]] = []
    real = httpx.AsyncClient

    def recorded(**options: Any) -> httpx.AsyncClient:
        made.append(options)
        return real(**options)

    monkeypatch.setattr(httpx, "AsyncClient", recorded)
    for url in (URL, "https://hub.example.com"):
        async with HubTransport(url, KEY, verify=PLAIN):
            pass
    assert [options["trust_env"] for options in made] == [False, True]
    for options in made:
        assert options["limits"].max_connections == MAX_CONNECTIONS == 32
        assert options["limits"].keepalive_expiry == KEEPALIVE_SECONDS < 5
        assert (options["follow_redirects"], options["http2"]) == (False, False)


async def test_a_proxy_of_the_environment_does_not_get_a_key_in_the_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    """With http: the call goes to the hub itself, whatever HTTP_PROXY says."""
    proxied: list[bytes] = []
    direct: list[bytes] = []
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
    async with raw_server(says(answer, proxied)) as proxy, raw_server(says(answer, direct)) as port:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy}")
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        async with HubTransport(f"http://127.0.0.1:{port}", KEY, verify=PLAIN) as transport:
            assert (await transport.call("GET", PATH, repeatable=True)).ok
    assert (len(proxied), len(direct)) == (0, 1)


async def test_a_proxy_that_cannot_be_used_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """Found by open(), as a setting to correct."""
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "nonsense://user:s3cretword@proxy.example:1")
    with pytest.raises(ConfigurationError, match="HTTPS_PROXY") as caught:
        await HubTransport("https://hub.example.com", KEY, verify=PLAIN).open()
    assert caught.value.__context__ is None
    assert "s3cretword" not in str(caught.value)


async def test_a_client_is_closed_by_whoever_made_it(family: Any) -> None:
    """Ours with the transport, the caller's by the caller; nothing is sent after either."""
    async with family.AsyncClient(transport=family.MockTransport(lambda _request: family.Response(200))) as client:
        transport = HubTransport(URL, KEY, http=client)
        assert (await transport.call("GET", PATH, repeatable=True)).ok
        await transport.aclose()
        await transport.aclose()
        assert not client.is_closed
        with pytest.raises(MisuseError):
            await transport.call("GET", PATH, repeatable=True)
        with pytest.raises(MisuseError):
            await transport.open()
        orphan = HubTransport(URL, KEY, http=client)
    with pytest.raises(MisuseError, match="http="):
        await orphan.call("GET", PATH, repeatable=True)
    own = HubTransport(URL, KEY, verify=PLAIN)
    await own.open()
    inner = own._http
    assert inner is not None
    await own.aclose()
    assert inner.is_closed


async def test_closing_ends_the_calls_that_are_on_their_way() -> None:
    """Each ends in an error of ours, and no connection stays."""
    arrived = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        arrived.set()
        await reader.read()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        async with raw_server(talk) as port:
            transport = HubTransport(f"http://127.0.0.1:{port}", KEY, verify=PLAIN)
            call = asyncio.create_task(transport.call("GET", PATH, repeatable=True))
            await arrived.wait()
            await transport.aclose()
            error = await error_of(call)
    assert isinstance(error, HubUnavailableError | MisuseError)


def test_retry_after_as_a_date_is_counted_from_the_hubs_own() -> None:
    """A hub whose clock is a day ahead asks for ten seconds, and not for a day without usage reports."""
    transport = HubTransport("https://hub", "svc_synap_0123456789abcdef", clock=ManualClock())
    later = {"retry-after": "Sat, 02 Jan 2100 00:00:10 GMT"}
    assert transport.retry_after_us(later) == 86_400 * 1_000_000
    assert transport.retry_after_us({**later, "date": "Sat, 02 Jan 2100 00:00:00 GMT"}) == 10 * 1_000_000
    assert transport.retry_after_us({**later, "date": "nonsense"}) == 86_400 * 1_000_000

"""How one call reaches HiveHub and what of its answer comes back: the mechanics below `HiveHub`, without any JSON.

A call is one request and its repetitions under a single deadline. What may be repeated follows from one question, "may
it have taken effect?": where it certainly has not (no connection, a throttle) any call may go out again; where that is
unknown, only one whose caller says that repeating is harmless. Over several attempts the doubt adds up: a lost reply
followed by a refused connection is still a lost reply. Repetitions are further limited by a budget
(`hivetenancy.hub.breaker.RetryBudget`) and by a circuit breaker, so that they never multiply an outage.

The service key opens every tenant's data. It is kept in an object that shows itself to nobody and sent to one origin:
redirects are not followed, cookies neither kept nor sent, an HTTP proxy of the environment is used for ``https:``
alone, where it sees a tunnel. An exception of the HTTP library carries the request with its headers, so none is
chained to ours, not even as a suppressed context.

A reply is read piece by piece up to a cap. It is asked for without compression and refused with: a decoder turns 64 KiB
into 64 MiB before anybody can count them.
"""

from __future__ import annotations

import asyncio
import random as _random
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from enum import Enum
from types import TracebackType
from typing import Final, Protocol, Self
from urllib.parse import quote, urlencode

from tenacity import AsyncRetrying, RetryCallState

from hivetenancy.clock import DAY_US, SECOND_US, Clock, SystemClock
from hivetenancy.errors import ConfigurationError, HubContractError, HubUnavailableError, MisuseError, TenancyError

from .breaker import CircuitBreaker, CircuitState, Outcome, Passage, RetryBudget
from .origin import ServiceKey, check_request, checked_context, checked_url, own_client, taken_key

CONNECT_SECONDS: Final = 5.0
"""Longest wait for a connection, new or free: a failure at this stage is harmless, so it should come early."""

MAX_RESPONSE_BYTES: Final = 8 * 1024 * 1024
"""The largest reply of the wire, 1,000 introspected keys or a user's 1,000 collections, stays near 1 MiB."""

MAX_URL_LENGTH: Final = 16_384
"""In characters, query included; far below what servers accept."""

_FIRST_PAUSE_S: Final = 0.2
_LONGEST_PAUSE_S: Final = 5.0

Timeouts = tuple[float, float, float, float]
"""Connect, read, write and pool, in seconds: the one form that both families of clients take as a plain value."""


class HttpResponse(Protocol):
    """A reply whose body has not been read: what `httpx.Response` and `httpx2.Response` have in common."""

    @property
    def status_code(self) -> int:
        """The HTTP status."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers, repeated ones joined."""
        ...

    def aiter_bytes(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives."""
        ...


class HttpClient(Protocol):
    """A client with a pool: what `httpx.AsyncClient` and `httpx2.AsyncClient` have in common."""

    @property
    def is_closed(self) -> bool:
        """Whether it was closed."""
        ...

    def stream(
        self,
        method: str,
        url: str,
        *,
        content: bytes | None,
        headers: Sequence[tuple[str, str]],
        timeout: Timeouts,
        follow_redirects: bool,
    ) -> AbstractAsyncContextManager[HttpResponse]:
        """Send a request and enter its reply; leaving gives the connection back or drops it."""
        ...

    async def aclose(self) -> None:
        """Close the pool."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class HubReply:
    """What the hub answered: a success, or a refusal that the caller is to read.

    Neither headers nor body show in its representation: both may hold a secret.

    Attributes:
        status: 2xx, 400, 404, 409, 413, 422, or 429 where it is a verdict and no throttle.
        headers: Names in lower case; repeated ones joined with a comma.
        body: The body as it came, at most as long as the transport's cap.
    """

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    @property
    def ok(self) -> bool:
        """Whether the hub did what it was asked (2xx)."""
        return 200 <= self.status < 300


class _Fault(Enum):
    """What an exception of an HTTP library says about the call."""

    NOT_SENT = "not sent"  # the hub cannot have heard of it
    PROXY = "proxy"  # nor here, and the hub may be well
    CROWDED = "crowded"  # nor here: our own pool was full
    LOST = "lost"  # it may have taken effect
    OUR_REQUEST = "our request"  # something that we send is not HTTP
    NONSENSE = "nonsense"  # the answer is none of a hub


#: Packages whose exceptions are known by the names below. A client is found out by its exceptions rather than by its
#: class: httpx2 is never imported for it, and a user's subclass or wrapper of a client is judged all the same.
_FAMILIES: Final = frozenset({"httpx", "httpx2", "httpcore", "httpcore2"})

#: The nearest class of an exception's own line of ancestors counts, so that one added to a family by a later release
#: is judged like its parent; everything in doubt is `LOST`.
_FAULTS: Final[Mapping[str, _Fault]] = {
    "ConnectError": _Fault.NOT_SENT,
    "ConnectTimeout": _Fault.NOT_SENT,
    "ProxyError": _Fault.PROXY,
    "PoolTimeout": _Fault.CROWDED,
    "UnsupportedProtocol": _Fault.OUR_REQUEST,
    "LocalProtocolError": _Fault.OUR_REQUEST,
    "TooManyRedirects": _Fault.NONSENSE,
    "DecodingError": _Fault.NONSENSE,
    "HTTPStatusError": _Fault.NONSENSE,
    "CookieConflict": _Fault.NONSENSE,
    "InvalidURL": _Fault.NONSENSE,  # in a Location; our own URL was checked
    "StreamError": _Fault.LOST,
    "HTTPError": _Fault.LOST,
    "NetworkError": _Fault.LOST,  # the roots of httpcore, which has no HTTPError
    "TimeoutException": _Fault.LOST,
    "ProtocolError": _Fault.LOST,
}


class _Again(Enum):
    """Whether another attempt may be made."""

    NEVER = 0
    IF_REPEATABLE = 1
    ALWAYS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class _Failure:
    """An attempt that gave nothing to hand on, as a value: raised once, by `call`, with no other exception behind."""

    error: TenancyError
    health: Outcome
    again: _Again = _Again.NEVER
    after_us: int | None = None  # what the hub asked for


class HubTransport:
    """One hub, one service key, one pool of connections.

    Args:
        url: Where the hub is, ``https:``; ``http:`` to this machine only. There is no default. A path in it is put in
            front of each call's.
        service_key: 8-512 visible ASCII characters, as HiveHub issued it (``svc_...``).
        http: A client of the caller's, of httpx or httpx2: for a unix socket, a proxy, an ASGI application in a test.
            It is used as it is, for TLS, proxies and cookies too, and not closed. ``None``: one of httpx is made at the
            first call and closed by `aclose`.
        timeout_s: How long a call may take in all, in seconds.
        retries: How often a call is repeated at most.
        max_response_bytes: The longest body that is accepted.
        clock: For deadlines, the breaker and ``Retry-After``; ``None``: the machine's.
        verify: ``True``, or a context with other certificates or a client certificate. Verification cannot be
            switched off.
        breaker: ``None``: one with the defaults.
        budget: ``None``: one with the defaults.
        sleep: Waits for a number of seconds.
        random: A number in [0, 1), for jitter.

    Raises:
        ConfigurationError: An argument is wrong; the message names the fix and quotes no secret.

    Concurrency:
        Any number of calls on the event loop that made the first.
    """

    _url = "?"  # for whoever looks at one that could not be built

    def __init__(
        self,
        url: str,
        service_key: str | ServiceKey,
        *,
        http: HttpClient | None = None,
        timeout_s: float = 30.0,
        retries: int = 3,
        max_response_bytes: int = MAX_RESPONSE_BYTES,
        clock: Clock | None = None,
        verify: ssl.SSLContext | bool = True,
        breaker: CircuitBreaker | None = None,
        budget: RetryBudget | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        random: Callable[[], float] = _random.random,
    ) -> None:
        key = taken_key(service_key)
        del service_key  # whatever is raised from here on brings this frame along
        if isinstance(key, ConfigurationError):
            raise key
        self._url, self._key = checked_url(url), key
        self._verify = checked_context(verify)
        if http is not None and verify is not True:
            raise ConfigurationError("verify= has no effect on a client given as http=: build that client with it")
        if not 0 < timeout_s <= 3600 or not 0 <= retries <= 10 or max_response_bytes < 1:
            raise ConfigurationError(
                "hub: timeout_s must be above 0 and at most 3600, retries 0 to 10, max_response_bytes 1 or more"
            )
        self._http, self._owned = http, http is None
        self._timeout_s, self._retries, self._cap = timeout_s, retries, max_response_bytes
        self._clock = SystemClock() if clock is None else clock
        self._sleep, self._random = sleep, random
        self._breaker = CircuitBreaker(clock=self._clock, random=random) if breaker is None else breaker
        self._budget = RetryBudget() if budget is None else budget
        self._closed = False

    def __repr__(self) -> str:
        return f"<HubTransport {self._url}>"

    @property
    def circuit(self) -> CircuitState:
        """How the circuit breaker stands, for health and for who would rather not send a long poll as its probe."""
        return self._breaker.state

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def open(self) -> None:
        """Make the client. No connection is opened; the first call does the same where this was not called.

        Raises:
            ConfigurationError: The environment names a proxy that cannot be used.
            MisuseError: The transport was closed.
        """
        self._client()

    async def aclose(self) -> None:
        """Close the pool, where it is ours; calls in flight end as lost. A second time does nothing."""
        self._closed = True
        client, self._http = self._http, None
        if client is not None and self._owned:
            await client.aclose()

    def retry_after_us(self, headers: Mapping[str, str]) -> int | None:
        """Return what ``Retry-After`` asks for in microseconds, at most a day; ``None`` without a readable one.

        Args:
            headers: With names in lower case, as those of `HubReply`.
        """
        at_us = _date_us(headers.get("date"))  # the hub's own, whose clock may be another than ours
        return _retry_after_us(headers.get("retry-after"), self._clock.now()[1] if at_us is None else at_us)

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Sequence[tuple[str, str]] = (),
        body: bytes | None = None,
        headers: Sequence[tuple[str, str]] = (),
        repeatable: bool,
        deadline_s: float | None = None,
    ) -> HubReply:
        """Make one call and return its answer.

        Args:
            method: The HTTP method, in capitals.
            path: Begins with ``/``; encoded, since it is sent as it stands.
            query: Names and values, not encoded.
            body: JSON, encoded.
            headers: Further headers, such as ``Idempotency-Key``; none of those that are set here.
            repeatable: Whether the call may reach the hub twice without harm.
            deadline_s: How long it may take in all, attempts and pauses together; ``None``: the transport's.

        Raises:
            HubUnavailableError: No answer, or one that says "not now" (429 with ``Retry-After``, 5xx), or the service
                key was refused (401, 403: not transient). ``outcome_unknown`` speaks of all attempts together.
            HubContractError: A status outside the wire, a redirect, a reply that is too long or compressed.
            MisuseError: The path or a header cannot be sent, or the transport was closed.

        Concurrency:
            A cancelled call drops its connection, and its place as the breaker's probe goes to the next.
        """
        deadline_s = self._timeout_s if deadline_s is None else deadline_s
        if not deadline_s > 0:
            raise MisuseError("deadline_s must be above 0")
        check_request(method, path, headers)
        url = self._url + path + ("?" + urlencode(query, quote_via=quote) if query else "")
        if len(url) > MAX_URL_LENGTH:
            raise MisuseError(f"{method} {path[:80]}: the URL is over {MAX_URL_LENGTH} characters")
        self._client()
        call = _Call(self, f"{method} {path}", repeatable=repeatable, deadline_s=deadline_s)

        async def exchange(timeout_s: float) -> HubReply | _Failure:
            return await self._exchange(call.name, method, url, body, headers, timeout_s)

        return await call.run(exchange)

    async def _exchange(
        self,
        name: str,
        method: str,
        url: str,
        body: bytes | None,
        headers: Sequence[tuple[str, str]],
        timeout_s: float,
    ) -> HubReply | _Failure:
        """Send one request and read its reply.

        What goes wrong comes back as a value: an exception would bring this frame along, and the client's below it,
        where the request stands with its headers for whatever tool reports variables.
        """
        connect_s = min(CONNECT_SECONDS, timeout_s)
        try:
            async with self._client().stream(
                method,
                url,
                content=body,
                headers=[*headers, *self._headers()],
                timeout=(connect_s, timeout_s, timeout_s, connect_s),
                follow_redirects=False,
            ) as response:
                reply = await self._read(response, name)
        except Exception as error:
            failure = _translate(error, name, self._key.reveal(), where=self._url)
            if failure is None:
                raise
            reply = failure
        return reply if isinstance(reply, _Failure) else self._judge(reply, name)

    def _headers(self) -> list[tuple[str, str]]:
        return [
            ("X-Service-Key", self._key.reveal()),
            ("Content-Type", "application/json"),  # on every method, as HiveHub's own SDK sends it (wire part 1)
            ("Accept", "application/json"),
            ("Accept-Encoding", "identity"),
            ("User-Agent", "hivetenancy"),
        ]

    async def _read(self, response: HttpResponse, name: str) -> HubReply | _Failure:
        """Read a body up to the cap. What is left unread makes the client drop the connection."""
        headers = {key.lower(): value for key, value in response.headers.items()}
        if headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
            return _contract(f"{name}: HiveHub compressed a reply that was asked for without compression")
        length = headers.get("content-length", "")
        if length.isdecimal() and len(length) < 20 and int(length) > self._cap:
            return self._too_long(name)
        body = bytearray()
        pieces = response.aiter_bytes()
        try:
            async for piece in pieces:
                body += piece
                if len(body) > self._cap:
                    return self._too_long(name)
        finally:
            if isinstance(pieces, AsyncGenerator):
                await pieces.aclose()
        return HubReply(status=response.status_code, headers=headers, body=bytes(body))

    def _too_long(self, name: str) -> _Failure:
        return _contract(f"{name}: HiveHub's reply is longer than {self._cap} bytes (max_response_bytes)")

    def _judge(self, reply: HubReply, name: str) -> HubReply | _Failure:
        """Tell answers from statuses that are none."""
        status, after_us = reply.status, self.retry_after_us(reply.headers)
        match status:
            case 400 | 404 | 409 | 413 | 422:
                return reply
            case 401 | 403:
                return _refused_key(name, status)
            case 429 if "retry-after" not in reply.headers:
                return reply
            case 429:
                error = HubUnavailableError(
                    f"{name}: HiveHub throttles this service (429)", retry_after_us=after_us, outcome_unknown=False
                )
                return _Failure(error=error, health=Outcome.NEITHER, again=_Again.ALWAYS, after_us=after_us)
            case _ if reply.ok:
                return reply
            case _ if status >= 500:
                error = HubUnavailableError(f"{name}: HiveHub answered {status}", retry_after_us=after_us)
                return _Failure(error=error, health=Outcome.FAILURE, again=_Again.IF_REPEATABLE, after_us=after_us)
            case _:
                return _outside(name, status)

    def _client(self) -> HttpClient:
        if self._closed:
            raise MisuseError("this hub transport was closed: open another one")
        if self._http is None:
            self._http = own_client(self._url, self._verify)
        if self._http.is_closed:
            raise MisuseError("the client given as http= was closed: close it after the hub that uses it")
        return self._http


class _Call:
    """One call on its way: its attempts, and what is left of its deadline."""

    __slots__ = ("_began_us", "_deadline_s", "_passage", "_pause_s", "_repeatable", "_t", "_tries", "_unknown", "name")

    def __init__(self, transport: HubTransport, name: str, *, repeatable: bool, deadline_s: float) -> None:
        self._t = transport
        self.name = name
        self._repeatable = repeatable
        self._deadline_s = deadline_s
        self._began_us = transport._clock.now()[0]
        self._pause_s = 0.0
        self._tries = 0
        self._unknown = False  # whether any attempt may have taken effect
        self._passage: Passage | None = None

    async def run(self, exchange: Callable[[float], Awaitable[HubReply | _Failure]]) -> HubReply:
        """Attempt until there is an answer, or nothing more may be attempted."""
        outcome: HubReply | _Failure
        last: _Failure | None = None

        async def attempt() -> HubReply | _Failure:
            nonlocal last
            result = await self._attempt(exchange, last)
            last = result if isinstance(result, _Failure) else None
            return result

        retrying = AsyncRetrying(sleep=self._t._sleep, retry=self._go_on, wait=lambda _state: self._pause_s)
        try:
            async with asyncio.timeout(self._deadline_s):
                outcome = await retrying(attempt)
        except TimeoutError:
            outcome = self._timed_out()
        finally:
            self._settle(Outcome.NEITHER)  # cancelled: it says nothing of the hub
        if isinstance(outcome, HubReply):
            return outcome
        error = outcome.error
        if isinstance(error, HubUnavailableError):
            error.outcome_unknown |= self._unknown
        try:
            raise error
        finally:
            del error, outcome, last  # or each failure is a cycle through this frame, for the collector to find

    async def _attempt(
        self, exchange: Callable[[float], Awaitable[HubReply | _Failure]], last: _Failure | None
    ) -> HubReply | _Failure:
        self._passage = self._t._breaker.enter()
        if self._passage is None:
            return self._kept_out() if last is None else _Failure(error=last.error, health=Outcome.NEITHER)
        if not self._tries:
            self._t._budget.earn()
        self._tries += 1
        result = await exchange(max(self._left_s(), 0.001))
        self._settle(result.health if isinstance(result, _Failure) else Outcome.SUCCESS)
        if isinstance(result, _Failure):
            self._unknown |= isinstance(result.error, HubUnavailableError) and result.error.outcome_unknown
        return result

    def _go_on(self, state: RetryCallState) -> bool:
        """Decide whether to attempt again, and after which pause.

        All conditions stand here, the budget last, rather than in tenacity's ``stop``: that is asked after this and
        would leave a token spent on a repetition that is not made.
        """
        outcome = state.outcome
        if outcome is None or outcome.failed or not isinstance(failure := outcome.result(), _Failure):
            return False  # answered, cancelled, or a fault that is no business of ours
        if failure.again is _Again.NEVER or (failure.again is _Again.IF_REPEATABLE and not self._repeatable):
            return False
        # Full jitter; on top of what the hub asked for, since it asked everybody for the same.
        jitter_s = self._t._random() * min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** (self._tries - 1))
        self._pause_s = (failure.after_us or 0) / SECOND_US + jitter_s
        return (
            self._tries <= self._t._retries
            and self._pause_s < self._left_s()
            and self._t._breaker.state is not CircuitState.OPEN
            and self._t._budget.spend()
        )

    def _left_s(self) -> float:
        return self._deadline_s - (self._t._clock.now()[0] - self._began_us) / SECOND_US

    def _settle(self, outcome: Outcome) -> None:
        passage, self._passage = self._passage, None
        if passage is not None:
            self._t._breaker.settle(passage, outcome)

    def _timed_out(self) -> _Failure:
        self._unknown |= self._passage is not None
        self._settle(Outcome.FAILURE)
        message = f"{self.name}: HiveHub did not answer within {self._deadline_s:g} s"
        return _Failure(error=HubUnavailableError(message, outcome_unknown=False), health=Outcome.FAILURE)

    def _kept_out(self) -> _Failure:
        wait_us = self._t._breaker.wait_us or None
        message = f"{self.name}: not sent, HiveHub has not been answering and is being probed"
        error = HubUnavailableError(message, retry_after_us=wait_us, outcome_unknown=False)
        return _Failure(error=error, health=Outcome.NEITHER)


def _translate(error: Exception, name: str, key: str, *, where: str) -> _Failure | None:
    """Return what *error* means for the call, ``None`` where it is none of an HTTP library or the network.

    Its text may quote what the other side sent, hence perhaps our own request. It is repeated only where nothing was
    sent yet, without the key (a proxy's, a resolver's and a TLS library's words are what an operator needs then).
    """
    fault = _fault(error)
    kind = type(error).__name__
    if fault is None and isinstance(error, RuntimeError):  # of the loop; it stands on frames that hold the key
        message = f"{name}: the HTTP client cannot be used ({kind}): open and use a hub in one event loop"
        return _Failure(error=HubUnavailableError(message, transient=False), health=Outcome.NEITHER)
    if fault is None:
        return None
    if fault is _Fault.NONSENSE:
        return _contract(f"{name}: HiveHub's reply cannot be read ({kind})")
    if fault is _Fault.OUR_REQUEST:
        refused = HubUnavailableError(f"{name}: the request could not be sent ({kind})", transient=False)
        return _Failure(error=refused, health=Outcome.NEITHER)
    if fault is _Fault.LOST:
        lost = HubUnavailableError(f"{name}: HiveHub did not answer ({kind})")
        return _Failure(error=lost, health=Outcome.FAILURE, again=_Again.IF_REPEATABLE)
    if fault is _Fault.CROWDED:
        crowded = HubUnavailableError(f"{name}: no free connection to HiveHub ({kind})", outcome_unknown=False)
        return _Failure(error=crowded, health=Outcome.NEITHER, again=_Again.ALWAYS)
    if _is_certificate(error):
        message = (
            f"{name}: HiveHub's certificate was not accepted ({_words(error, key)}): correct the URL, or give verify= "
            "an ssl.SSLContext with the right authority"
        )
        distrusted = HubUnavailableError(message, transient=False, outcome_unknown=False)
        return _Failure(error=distrusted, health=Outcome.FAILURE)
    message = f"{name}: no connection to HiveHub at {where} ({kind}: {_words(error, key)})"
    return _Failure(
        error=HubUnavailableError(message, outcome_unknown=False), health=Outcome.FAILURE, again=_Again.ALWAYS
    )


def _fault(error: Exception) -> _Fault | None:
    for ancestor in type(error).__mro__:
        if ancestor.__module__.partition(".")[0] in _FAMILIES and ancestor.__name__ in _FAULTS:
            return _FAULTS[ancestor.__name__]
    if isinstance(error, ConnectionRefusedError | ssl.SSLCertVerificationError):
        return _Fault.NOT_SENT
    if isinstance(error, UnicodeError):  # httpx, for a cookie of the hub's in the jar of a client of the caller's
        return _Fault.OUR_REQUEST
    return _Fault.LOST if isinstance(error, OSError) else None  # TimeoutError, ssl.SSLError and gaierror are OSErrors


def _is_certificate(error: BaseException) -> bool:
    """Say whether a certificate is at the bottom of *error*; waiting does not help then."""
    seen: BaseException | None = error
    for _ in range(8):
        if seen is None or isinstance(seen, ssl.SSLCertVerificationError):
            return seen is not None
        seen = seen.__cause__ or seen.__context__
    return False


def _words(error: Exception, key: str) -> str:
    return ascii(str(error).replace(key, "***")[:200])


def _contract(message: str) -> _Failure:
    return _Failure(error=HubContractError(message), health=Outcome.FAILURE)


def _refused_key(name: str, status: int) -> _Failure:
    message = (
        f"{name}: HiveHub refused the service key ({status}): check that it is this hub's, not revoked, and has the "
        "scope for this call"
    )
    error = HubUnavailableError(message, transient=False, outcome_unknown=False)
    return _Failure(error=error, health=Outcome.SUCCESS)


def _outside(name: str, status: int) -> _Failure:
    if 300 <= status < 400:
        return _contract(
            f"{name}: answered with a redirect ({status}), which HiveHub never does and which is not followed: check "
            "the URL, perhaps a gateway or a login page stands in front"
        )
    health = Outcome.SUCCESS if 400 <= status < 500 else Outcome.FAILURE
    return _Failure(error=HubContractError(f"{name}: {status} is no answer of HiveHub"), health=health)


def _retry_after_us(value: str | None, wall_us: int) -> int | None:
    """Read ``Retry-After``: whole seconds or an HTTP date (RFC 9110, 10.2.3)."""
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdecimal():
        return min(int(value[:12]) * SECOND_US, DAY_US)
    at_us = _date_us(value)
    return None if at_us is None else min(max(0, at_us - wall_us), DAY_US)


def _date_us(value: str | None) -> int | None:
    if value is None:
        return None
    try:
        date = parsedate_to_datetime(value)
        return int(date.replace(tzinfo=date.tzinfo or UTC).timestamp()) * SECOND_US
    except (ValueError, TypeError, OverflowError, IndexError):
        return None

"""One HTTP request and its answer, as the two layers of the ASGI adapter see it.

The object has two faces. `Exchange.send` is what the outer layer hands to the application: it lets no answer out that
no guard admitted, and adds the headers that every answer carries. `Exchange.guarded_send` and
`Exchange.guarded_receive` are what a guard hands to the handler behind it: they settle the admission on the first
byte, close it at the last, and count the body as it arrives.

An answer of ours, once begun, wins: what the handler sends afterwards meets a closed connection (`OSError`, as the
ASGI specification has it for a client that left), however much it caught. A refusal that comes when the handler's own
answer has begun cannot be told any more; the transfer is then left unfinished, so that no client takes it for whole.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Final, TypeAlias

from hivetenancy.clock import Instant
from hivetenancy.connections import ConnectionRegistry, OpenConnection
from hivetenancy.context import bound
from hivetenancy.decision import Reason, Refusal
from hivetenancy.errors import DeniedError, InvalidNameError, UnavailableError
from hivetenancy.gate import Admission, Caller, Gate
from hivetenancy.sources import TenantLimits

from .catalogue import INTERNAL_ERROR, METHOD_NOT_ALLOWED, NOT_FOUND
from .http import (
    BASE_HEADERS,
    Answer,
    Header,
    HttpOptions,
    answer,
    policy_header,
    rate_headers,
    render,
    render_unavailable,
)

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

KEY: Final = "hivetenancy"
"""Where a scope holds its exchange (HTTP) or session (WebSocket)."""

DENIALS: Final = (DeniedError, InvalidNameError, UnavailableError)
"""What a handler may raise to be answered from the catalogue."""

_BLOCKED_MAX: Final = 10_000
"""Callers that are remembered as refused; the oldest go first, and cost no more than a request through the router."""

_NO_LENGTH: Final = frozenset({"GET", "HEAD", "OPTIONS", "DELETE"})
"""Methods whose declared length is not looked up, because they seldom have a body; it is counted as it arrives."""

_VARY: Final = dict(BASE_HEADERS)[b"vary"]

_log: Final = logging.getLogger("hivetenancy")


class Layer:
    """What all exchanges of one application share.

    Attributes:
        gate: The gate that decides.
        options: How answers look.
        connections: Where long answers and WebSockets are entered.
        blocked: Callers that a rate limit refused, and the monotonic time from which one unit can pass again.
    """

    __slots__ = ("blocked", "connections", "gate", "options")

    def __init__(self, gate: Gate, options: HttpOptions, connections: ConnectionRegistry) -> None:
        self.gate = gate
        self.options = options
        self.connections = connections
        self.blocked: dict[Caller, int] = {}

    def block(self, caller: Caller, refusal: Refusal, cost: int, now: Instant) -> None:
        """Remember that *caller* cannot pass before the wait of *refusal* is over.

        Only a refusal of a single unit says so for every function. What is remembered refuses nobody by itself: it
        makes the outer layer ask the limiter first, so that a flood is refused without the router's work.
        """
        if refusal.reason is Reason.RATE_LIMITED and cost == 1 and refusal.retry_after_us is not None:
            if len(self.blocked) >= _BLOCKED_MAX:
                del self.blocked[next(iter(self.blocked))]
            self.blocked[caller] = now[0] + refusal.retry_after_us

    def rates(self, admission: Admission, now: Instant) -> list[Header]:
        """Return the rate headers of an answer to *admission*."""
        which = self.options.rate_headers
        if which == "off":
            return []
        states = admission.states()
        caller = admission.caller
        if caller is None:
            return rate_headers(states, which, now)
        if caller.shown is None:
            caller.shown = policy_header(states)
        return rate_headers(states, which, now, None, caller.shown)

    def refusal(self, refusal: Refusal, caller: Caller | None, now: Instant) -> Answer:
        """Render *refusal*, with rate headers where they tell the caller about itself."""
        if caller is None or self.options.rate_headers == "off":
            return render(refusal, self.options)
        states = self.gate.states(caller.subjects, now) if caller.subjects else ()
        return render(refusal, self.options, states=states, now=now)

    def denial(self, error: Exception, caller: Caller | None, now: Instant) -> Answer:
        """Render what a handler raised, one of `DENIALS`."""
        if isinstance(error, UnavailableError):
            return render_unavailable(error)
        if isinstance(error, DeniedError):
            return self.refusal(error.refusal, caller, now)
        return self.refusal(self.gate.refuse(Reason.INVALID_NAME, caller=caller, function=None, now=now), caller, now)


def denial_in(error: BaseException) -> Exception | None:
    """Find the one of `DENIALS` that *error* is, was raised from, or holds as its only member."""
    for _ in range(8):  # a chain of causes may be a circle
        if isinstance(error, DENIALS):
            return error
        if isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        elif isinstance(error, RuntimeError) and error.__cause__ is not None:
            error = error.__cause__  # Starlette wraps what its handlers find once the answer has begun
        else:
            return None
    return None


def dressed(headers: Iterable[Header]) -> list[Header]:
    """Return *headers* with `BASE_HEADERS`; a ``Vary`` that is there is added to."""
    out = list(headers)
    for name, _ in out:
        if name == b"vary" or name == b"x-content-type-options":
            return _merged(out)
    out += BASE_HEADERS
    return out


def _merged(out: list[Header]) -> list[Header]:
    varies = sniffs = False
    for index, (name, value) in enumerate(out):
        if name == b"vary":
            if not varies and value != b"*":
                out[index] = (name, value + b", " + _VARY if value else _VARY)
            varies = True
        elif name == b"x-content-type-options":
            sniffs = True
    return out + [row for row in BASE_HEADERS if not (varies if row[0] == b"vary" else sniffs)]


class ClosedError(OSError):
    """The exchange is over; what ``send`` raises then."""


async def _gone(_message: Message) -> None:
    raise ClosedError("the exchange is over")


class Exchange:
    """One HTTP request and its answer.

    Attributes:
        layer: What is shared.
        caller: Who is asking; ``None``: nobody said, and the request may only reach a public route.
        now: The request's one instant.
        method: The method as the server gave it.
        admission: What a guard admitted.
        passed: Whether a guard admitted the request, or answered it; nothing gets out before.
        out: Whether an answer has begun to leave.
        broken: Whether the answer is to stay unfinished.
        cors: Whether the request is a CORS preflight without a credential.
    """

    admission: Admission | None = None
    passed = False
    out = False
    broken = False
    cors = False

    _begun = False  # the handler's answer, or ours in its place, has begun
    _ours = False  # the answer is ours: it carries its rate headers already
    _shut = False  # nothing of the handler goes out any more
    _replaced = False
    _late: Answer | None = None  # came too late for the guard; the outer layer sends it if nothing has left yet
    _ended: Reason | None = None
    _entry: OpenConnection | None = None
    _task: asyncio.Task[Any] | None = None
    _inner: Send
    _receive: Receive
    _room = 0

    def __init__(self, layer: Layer, caller: Caller | None, method: str, send: Send, now: Instant) -> None:
        self.layer = layer
        self.caller = caller
        self.method = method
        self.now = now
        self._send = send

    # --- the outer layer ---------------------------------------------------------------------------------------------

    async def send(self, message: Message) -> None:
        """Let *message* out, if a guard admitted the request; replace the answer otherwise."""
        if message["type"] == "http.response.start":
            if self.broken:
                return
            if not self.passed:
                await self._replace(message)
                return
            self.out = True
            headers = dressed(message.get("headers") or ())
            admission = self.admission
            if admission is not None and not self._ours:
                headers += self.layer.rates(admission, self.now)
            message = {**message, "headers": headers}
        elif self._replaced or self.broken or not self.passed:
            return
        await self._send(message)

    async def say(self, said: Answer) -> None:
        """Send an answer of ours from the outer layer."""
        self.out = self._replaced = True
        await send_answer(self._send, said, self.method)

    async def finish(self) -> None:
        """Send what a guard could not, if nothing has left: a middleware in between had held the answer back."""
        if self._late is not None and not self.out:
            await self.say(self._late)

    async def _replace(self, message: Message) -> None:
        """Answer in the place of whoever answered without a guard: the router itself, or a middleware."""
        status = int(message["status"])
        if self.cors and (status < 300 or status in (400, 403)):
            self.passed = True
            await self.send(message)
            return
        self._replaced = True
        await self.say(await self._instead(status, message.get("headers") or ()))

    async def _instead(self, status: int, headers: Iterable[Header]) -> Answer:
        layer = self.layer
        if status >= 500:
            return answer(INTERNAL_ERROR)
        if self.caller is None:
            return layer.refusal(
                layer.gate.refuse(Reason.NO_CREDENTIAL, caller=None, function=None, now=self.now), None, self.now
            )
        try:
            taken = await layer.gate.admit_attempt(self.caller, now=self.now)
        except UnavailableError as error:
            return render_unavailable(error)
        if isinstance(taken, Refusal):
            layer.block(self.caller, taken, 1, self.now)
            return layer.refusal(taken, self.caller, self.now)
        try:
            rates = layer.rates(taken, self.now)
        finally:
            taken.close()
        if status == 404:
            return answer(NOT_FOUND, headers=rates)
        if status == 405:
            return answer(METHOD_NOT_ALLOWED, headers=[*picked(headers, b"allow"), *rates])
        if 300 <= status < 400 and status != 304:
            return Answer(status, [(b"content-length", b"0"), *picked(headers, b"location"), *rates], b"")
        _log.error(
            "an answer with status %d was withheld: no function was declared for it. A middleware answered before the "
            "router did, or a route escaped the walk; answer from a route that has a function, or put the middleware "
            "outside of the tenancy",
            status,
        )
        refusal = layer.gate.refuse(Reason.UNDECLARED_FUNCTION, caller=self.caller, function=None, now=self.now)
        return layer.refusal(refusal, self.caller, self.now)

    # --- the guard ---------------------------------------------------------------------------------------------------

    def guard(self, admission: Admission, receive: Receive, send: Send) -> Receive:
        """Take over for the handler behind a guard; return what it is to receive from."""
        self.admission = admission
        self.passed = True
        caller = admission.caller
        if caller is not None:
            caller.life.requests.add(self)
        return self.enclose(None if caller is None else caller.limits, receive, send)

    def admit(self, admission: Admission) -> None:
        """Note what was admitted, where `enclose` came first."""
        self.admission = admission
        self.passed = True
        self._task = asyncio.current_task()
        if admission.caller is not None:
            admission.caller.life.requests.add(self)
        bound.set(admission)  # for the rest of this task, which is this request's own

    def enclose(self, limits: TenantLimits | None, receive: Receive, send: Send) -> Receive:
        """Take over for a handler that is admitted already, or will be; return what it is to receive from."""
        self._inner = send
        self._task = asyncio.current_task()  # the guard's: a streamed answer is sent from a task of its own
        room = self.layer.options.max_body_bytes
        if limits is not None:
            plan = limits.statics.get("max_payload_bytes")
            if plan is not None and (room is None or plan < room):
                room = plan
        if room is None:
            return receive
        self._room = room
        self._receive = receive
        return self.guarded_receive

    def too_long(self, headers: Iterable[Header]) -> bool:
        """Whether the request declares more than the room that `guard` found."""
        if self.method in _NO_LENGTH:
            return False
        for name, value in headers:
            if name == b"content-length":
                return value.isdigit() and int(value) > self._room
        return False

    async def refuse_payload(self) -> None:
        """Answer 413."""
        layer = self.layer
        function = None if self.admission is None else self.admission.function
        refusal = layer.gate.refuse(Reason.PAYLOAD_TOO_LARGE, caller=self.caller, function=function, now=self.now)
        await self.answer(layer.refusal(refusal, self.caller, self.now))

    async def guarded_receive(self) -> Message:
        """Receive for the handler, counting the body; what is too long ends as if the client had left."""
        if self._shut:
            return {"type": "http.disconnect"}
        message = await self._receive()
        if message["type"] == "http.request":
            self._room -= len(message.get("body") or b"")
            if self._room < 0:
                await self.refuse_payload()
                return {"type": "http.disconnect"}
        return message

    async def guarded_send(self, message: Message) -> None:
        """Send for the handler: settle at the first byte, close at the last."""
        if self._shut:
            raise ClosedError("the exchange is over")
        kind = message["type"]
        admission = self.admission
        if admission is None:
            await self._inner(message)  # of a framework that knows its routes alone, before it came to one
        elif kind == "http.response.start":
            admission.settle(succeeded=message["status"] < 400)
            if not admission.durable:
                await admission.until_durable()
                if self._shut:
                    raise ClosedError("the exchange is over")
            self._begun = True
            await self._inner(message)
        elif kind == "http.response.body" and message.get("more_body", False):
            if self._entry is None and admission.caller is not None:
                self._watch(admission.caller)
            await self._inner(message)
        elif kind == "http.response.body" or kind == "http.response.pathsend":
            if not admission.durable:
                await admission.until_durable()
            await self._inner(message)
            admission.close()
            if self._entry is not None:
                self._entry.remove()
        else:
            await self._inner(message)

    async def answer(self, said: Answer, *, refund: bool = False) -> None:
        """Answer from the guard, through whatever stands between it and the outer layer."""
        admission = self.admission
        self._shut = True
        if admission is not None:
            admission.settle(succeeded=False)
            if not self._begun:
                admission.close(refund=refund)
        if self._begun:
            _log.warning("a request was refused after its answer had begun; the answer is left unfinished")
            self.broken, self._late = True, said
            return
        self.passed = self._ours = self._begun = True
        await send_answer(self._inner, said, self.method, base=False)

    async def turn_away(self, said: Answer, send: Send) -> None:
        """Answer from a guard that did not admit."""
        self._inner = send
        await self.answer(said)

    async def failed(self, error: Exception) -> bool:
        """Deal with what a handler raised; ``False``: it is the host's own failure and goes on."""
        if self._shut:
            return True  # it ran into the end that we made
        denial = denial_in(error)
        if denial is None:
            return False
        caller = None if self.admission is None else self.admission.caller
        said = self.layer.denial(denial, caller, self.now)
        await self.answer(said, refund=isinstance(denial, UnavailableError))
        return True

    def leave(self) -> None:
        """End the guard's part, whatever happened: nothing stays held."""
        admission = self.admission
        if admission is not None:
            if admission.caller is not None:
                admission.caller.life.requests.discard(self)
            if admission.open:
                admission.close()
        if self._entry is not None:
            self._entry.remove()
        self._task = None
        self._inner = (
            _gone  # the framework's own `send` ends in this object: together they would wait for the collector
        )

    # --- answers that outlive their key ------------------------------------------------------------------------------

    def _watch(self, caller: Caller) -> None:
        if caller.life.shut:  # streams of a tenant are ended when it is fenced off, and this one was none yet
            self._shut = self.broken = True
            raise ClosedError("the tenant is fenced off")
        self._entry = self.layer.connections.add(caller.principal, self.end)

    def end(self, reason: Reason) -> None:
        """Break off: the key ended, or was revoked, the tenant is fenced off, or the server stops."""
        self._ended = reason
        self._shut = self.broken = True
        task = self._task
        if task is not None and not task.done():
            task.cancel()

    def ended(self) -> bool:
        """Whether a cancellation was ours, in which case it is taken back."""
        if self._ended is None:
            return False
        task = asyncio.current_task()
        return task is None or task is not self._task or task.uncancel() == 0


def picked(headers: Iterable[Header], wanted: bytes) -> list[Header]:
    """Return the headers called *wanted*."""
    return [(name, value) for name, value in headers if name.lower() == wanted]


async def send_answer(send: Send, said: Answer, method: str, *, base: bool = True) -> None:
    """Send a whole answer; HEAD gets its headers alone."""
    headers = dressed(said.headers) if base else said.headers
    await send({"type": "http.response.start", "status": said.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if method == "HEAD" else said.body})

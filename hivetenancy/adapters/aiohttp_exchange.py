"""One aiohttp request and its answer, as the outer middleware, the guard and the signal of `aiohttp` see it.

A response that a handler prepares by itself (``StreamResponse``, ``WebSocketResponse``) is met in the signal
``on_response_prepare``, the last moment before its first byte: there it is settled, waited for and given its headers.
The signal also sees a WebSocket before its handshake leaves, takes one of the tenant's connections, enters it in the
registry and stands in front of its ``receive``: as over ASGI, each message is one call of the route's function.

A key that is confined to the WebSocket surface opens routes that the table declares as ``"WEBSOCKET /path"`` and no
others: a plain handler looks the same to the router, and the header ``Upgrade`` is the client's word.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

try:
    from aiohttp import WSMessage, WSMsgType, hdrs, web
except ImportError as error:
    raise ImportError("this adapter needs its extra: pip install 'hivetenancy[aiohttp]'") from error

from hivetenancy.clock import SECOND_US, Instant
from hivetenancy.connections import OpenConnection
from hivetenancy.context import bound
from hivetenancy.decision import Reason, Refusal
from hivetenancy.errors import DeniedError, InvalidNameError, MisuseError, UnavailableError
from hivetenancy.functions import Function
from hivetenancy.gate import Admission, Caller
from hivetenancy.ids import Surface
from hivetenancy.quota import Reservation
from hivetenancy.tenant import Tenant

from .catalogue import INTERNAL_ERROR, INVALID_NAME, METHOD_NOT_ALLOWED, NOT_FOUND, UNAVAILABLE, Entry, entry_for
from .declare import ANY, WEBSOCKET, Public, Rule, Rules
from .exchange import Layer, denial_in
from .http import BASE_HEADERS, Answer, Header, answer, render_unavailable

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]

_log: Final = logging.getLogger("hivetenancy")

if TYPE_CHECKING or hasattr(web, "RequestKey"):
    TENANT: Final = web.RequestKey("hivetenancy.tenant", Tenant)
    """Where a request keeps its tenant: ``request[TENANT]``. Absent on public routes."""

    EXCHANGE: Final = web.RequestKey("hivetenancy.exchange", object)
else:  # aiohttp before 3.14
    TENANT = "hivetenancy.tenant"
    EXCHANGE = "hivetenancy.exchange"

_READS_LESS: Final = 0 if hasattr(web, "RequestKey") else 1
"""Before 3.14 aiohttp refused a body of exactly ``client_max_size`` bytes."""

_WHOLE: Final = (web.Response, web.FileResponse)
"""Answers that end by themselves; any other may go on for days."""

_VARY: Final = dict(BASE_HEADERS)[b"vary"].decode()
_NOSNIFF: Final = dict(BASE_HEADERS)[b"x-content-type-options"].decode()


def metered_content(request: web.Request) -> MeteredContent:
    """Return the body of *request* as a stream that stops at the caller's limit.

    ``request.read()``, ``json()``, ``text()`` and ``post()`` are limited by themselves. ``request.content`` is not:
    aiohttp has no way to stand in front of it. A handler that reads a body piece by piece takes this instead.
    """
    exchange = request.get(EXCHANGE)
    return MeteredContent(request, exchange if isinstance(exchange, Exchange) else None)


class MeteredContent:
    """The body of a request, counted as it is read.

    Each method is that of `aiohttp.StreamReader`. What goes over the limit raises a `NeverFitsError`, which is answered
    with 413; nothing of the piece that went over is given out.
    """

    def __init__(self, request: web.Request, exchange: Exchange | None) -> None:
        self._content = request.content
        self._exchange = exchange
        self.size = 0
        """Bytes given out so far."""

    async def read(self, n: int = -1) -> bytes:
        """Return up to *n* bytes; -1: all of it; ``b""`` at the end."""
        if n >= 0:
            return self._counted(await self._content.read(n))
        return b"".join([piece async for piece in self.iter_any()])

    async def readany(self) -> bytes:
        """Return what has arrived, waiting for something; ``b""`` at the end."""
        return self._counted(await self._content.readany())

    async def iter_chunked(self, n: int) -> AsyncIterator[bytes]:
        """Give pieces of up to *n* bytes."""
        while piece := await self.read(n):
            yield piece

    async def iter_any(self) -> AsyncIterator[bytes]:
        """Give pieces as they arrive."""
        while piece := await self.readany():
            yield piece

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self.iter_any()

    def _counted(self, piece: bytes) -> bytes:
        self.size += len(piece)
        exchange = self._exchange
        if exchange is not None and exchange.room is not None and self.size > exchange.room:
            raise exchange.too_large()
        return piece


class UnadmittedError(Exception):
    """Somebody prepared a response though no guard had admitted the request. Never leaves this file."""

    def __init__(self, response: web.StreamResponse) -> None:
        super().__init__("no guard admitted this request")
        self.response = response


class Way:
    """What a guard knows about its route."""

    __slots__ = ("_rules", "allow", "expect", "layer", "only", "sockets")

    def __init__(self, layer: Layer, rules: Rules, sockets: bool, expect: Handler) -> None:
        self.layer = layer
        self.sockets = sockets
        self.expect = expect
        wildcard = WEBSOCKET if sockets else ANY
        self.only: Rule | None = rules.get(wildcard) if len(rules) == 1 else None
        self._rules = rules
        self.allow = ", ".join(sorted(method for method in rules if method != ANY))

    def rule(self, method: str) -> Rule | None:
        """The rule for *method*; ``None``: it is not allowed here."""
        return self.only or self._rules.get(method) or self._rules.get(ANY)


class Exchange:
    """One request and its answer.

    Attributes:
        layer: What all exchanges of the application share.
        caller: Who is asking; ``None``: nobody said.
        now: The request's one instant.
        cors: Whether this is a CORS preflight without a credential.
        passed: Whether a guard admitted it; nothing of the application gets out before.
        said: What a guard answered in the place of the handler; it wins over what middlewares make of it.
        sent: What was sent in the place of the response that the application gave.
        room: Bytes that the body may have; ``None``: no limit.
    """

    def __init__(self, layer: Layer, request: web.Request, lasting: set[Exchange]) -> None:
        self.layer = layer
        self.now: Instant = layer.gate.now()
        self.caller: Caller | None = None
        self.cors = False
        self.passed = False
        self.said: web.StreamResponse | None = None
        self.sent: web.StreamResponse | None = None
        self.room: int | None = None
        self._request = request
        self._admission: Admission | None = None
        self._ours: web.StreamResponse | None = None  # rendered here: carries its rate headers already
        self._met: web.StreamResponse | None = None  # seen by `begin`
        self._begun: web.StreamResponse | None = None  # its headers are out, or about to
        self._lasting = lasting
        self._entry: OpenConnection | None = None
        self._socket: _Socket | None = None
        self._task: asyncio.Task[Any] | None = None
        self._ended: Reason | None = None

    # --- answers of ours -----------------------------------------------------------------------------------------

    def say(self, said: Answer) -> web.Response:
        """Make an answer of ours into the response."""
        self._ours = response = rendered(said)
        return response

    def refuse(self, refusal: Refusal) -> web.Response:
        """Make a refusal into the response."""
        caller = None if entry_for(refusal.reason).status == 401 else self.caller
        return self.say(self.layer.refusal(refusal, caller, self.now))

    def too_large(self) -> DeniedError:
        """Return the error for a body that has no room."""
        admission = self._admission
        function = None if admission is None else admission.function
        gate = self.layer.gate
        return DeniedError.of(
            gate.refuse(Reason.PAYLOAD_TOO_LARGE, caller=self.caller, function=function, now=self.now)
        )

    async def unless_cors(self, response: web.StreamResponse) -> web.StreamResponse:
        """Let a middleware's answer to a preflight out; replace any other that no guard admitted."""
        if self.cors and (response.status < 300 or response.status in (400, 403)):
            self._ours = response
            return response
        return await self.instead(response.status, _raw(response))

    async def instead(self, status: int, headers: Iterable[Header]) -> web.StreamResponse:
        """Answer in the place of whoever answered without a guard: the router itself, or a middleware."""
        gate = self.layer.gate
        if status >= 500:
            return self.say(answer(INTERNAL_ERROR))
        rates = await self._attempt()
        if isinstance(rates, web.StreamResponse):
            return rates
        if status == NOT_FOUND.status:
            return self.say(answer(NOT_FOUND, headers=rates))
        if status == METHOD_NOT_ALLOWED.status:
            return self.say(answer(METHOD_NOT_ALLOWED, headers=[*_picked(headers, b"allow"), *rates]))
        if 300 <= status < 400 and status != 304:
            return self.say(Answer(status, [*_picked(headers, b"location"), *rates], b""))
        _log.error(
            "an answer with status %d was withheld: no function was declared for it. A middleware answered before the "
            "router did, or a route was added after the start; answer from a route that has a function",
            status,
        )
        return self.refuse(gate.refuse(Reason.UNDECLARED_FUNCTION, caller=self.caller, function=None, now=self.now))

    async def not_allowed(self, allow: str) -> web.StreamResponse:
        """Answer, from a guard, a method that no part of the handler takes."""
        rates = await self._attempt()
        if isinstance(rates, web.StreamResponse):
            self.said = rates
        else:
            self.said = self.say(answer(METHOD_NOT_ALLOWED, headers=[(b"allow", allow.encode()), *rates]))
        return self.said

    async def _attempt(self) -> list[Header] | web.StreamResponse:
        """Take one unit for a request that reached no function; return rate headers, or the answer if it is refused."""
        gate = self.layer.gate
        if self.caller is None:
            return self.refuse(gate.refuse(Reason.NO_CREDENTIAL, caller=None, function=None, now=self.now))
        try:
            taken = await gate.admit_attempt(self.caller, now=self.now)
        except UnavailableError as error:
            return self.say(render_unavailable(error))
        if isinstance(taken, Refusal):
            return self.refuse(taken)
        try:
            return self.layer.rates(taken, self.now)
        finally:
            taken.close()

    # --- the guard -----------------------------------------------------------------------------------------------

    async def run(self, request: web.Request, handler: Any, rule: Rule, way: Way) -> web.StreamResponse:
        """Admit *request* and run *handler* for it, or answer in its place."""
        if self._admission is not None:
            raise MisuseError("this request was admitted before; a guarded handler must not be run twice for it")
        try:
            admission = await self._open(request, rule, way)
        except UnavailableError as error:
            self.said = self.say(render_unavailable(error))
            return self.said
        if isinstance(admission, Refusal):
            self.said = self.refuse(admission)
            return self.said
        self._admission, self.passed, self.said = admission, True, None
        if admission.caller is not None:
            self.caller = admission.caller
            request[TENANT] = admission.tenant
            self._task = asyncio.current_task()
            admission.caller.life.requests.add(self)
        before = bound.get()
        bound.set(admission)
        try:
            return await self._handle(request, handler, way, admission)
        finally:
            bound.set(before)

    async def _open(self, request: web.Request, rule: Rule, way: Way) -> Admission | Refusal:
        gate, caller = self.layer.gate, self.caller
        if isinstance(rule, Public):
            return gate.admit_public(now=self.now)
        if caller is None:
            return gate.refuse(Reason.NO_CREDENTIAL, caller=None, function=rule, now=self.now)
        return await gate.admit(caller, rule, surface=_surface(request, caller, way), now=self.now)

    async def _handle(self, request: web.Request, handler: Any, way: Way, admission: Admission) -> web.StreamResponse:
        response: web.StreamResponse
        try:
            self._limit_body(request, admission)
            if request.headers.get(hdrs.EXPECT):
                early = await way.expect(request)
                if early is not None:
                    return early
            response = await handler(request)
        except web.HTTPRequestEntityTooLarge:
            return await self._denied(self.too_large())
        except web.HTTPException as error:
            admission.settle(succeeded=error.status < 400)
            raise
        except Exception as error:
            denial = denial_in(error)
            if denial is None:
                admission.settle(succeeded=False)
                raise
            return await self._denied(denial)
        except asyncio.CancelledError:
            if not self._was_ended():
                raise
            self._break_off()
            if self._begun is None:
                raise
            return self._begun
        if self._begun is None:
            admission.settle(succeeded=is_response(response) and response.status < 400)
        return response

    def _limit_body(self, request: web.Request, admission: Admission) -> None:
        """Refuse a body that declares to be too long, and have aiohttp stop reading one that turns out to be."""
        self.room = room = self._limit(admission)
        if room is None:
            return
        declared = request.headers.get(hdrs.CONTENT_LENGTH, "")
        if declared.isdecimal() and int(declared) > room:
            raise self.too_large()
        known = request.client_max_size
        if request.can_read_body and (known == 0 or known > room):
            # Not `request.clone`: what handlers then keep in the clone would be lost on middlewares and signals.
            wanted = request._client_max_size = max(room + _READS_LESS, 1)  # 0 would mean "no limit"
            if request.client_max_size != wanted:
                raise MisuseError("this version of aiohttp does not let a request be limited; please report it")

    def _limit(self, admission: Admission) -> int | None:
        most, caller = self.layer.options.max_body_bytes, admission.caller
        if caller is not None and caller.limits is not None:
            plan = caller.limits.statics.get("max_payload_bytes")
            if plan is not None and (most is None or plan < most):
                return plan
        return most

    async def _denied(self, denial: Exception) -> web.StreamResponse:
        """Answer what a handler raised, one of `hivetenancy.adapters.exchange.DENIALS`."""
        admission, begun = self._admission, self._begun
        assert admission is not None
        if begun is None:
            admission.settle(succeeded=False)
            admission.close(refund=isinstance(denial, UnavailableError))
            self._restore_writer()
            return self.say(self.layer.denial(denial, self.caller, self.now))
        if self._socket is not None:
            await self._socket.close_for(denial)
        else:
            _log.warning("a request was refused after its answer had begun; the answer is left unfinished")
            self._break_off()
        return begun

    # --- the answer ----------------------------------------------------------------------------------------------

    async def begin(self, request: web.Request, response: web.StreamResponse) -> None:
        """Settle, wait and dress, just before the first byte of *response*."""
        if self._met is response and self._begun is response:
            return
        self._met = response
        admission, plain = self._admission, type(response) is web.Response
        if response is self._ours:
            dress(response)
        elif not self.passed or admission is None:
            raise UnadmittedError(response)
        elif not plain and isinstance(response, web.WebSocketResponse):
            await self._open_socket(request, response, admission)
            dress(response)
        else:
            admission.settle(succeeded=response.status < 400)
            if not admission.durable:
                await admission.until_durable()
            dress(response, self.layer.rates(admission, self.now))
            if not plain and admission.caller is not None and not isinstance(response, _WHOLE):
                if admission.caller.life.shut:  # streams of a tenant end when it is fenced off; this was none yet
                    raise DeniedError.of(self._fenced(admission.caller))
                self._watch(admission.caller)
        self._begun = response

    async def deliver(self, response: web.StreamResponse) -> None:
        """Send *response*, or the rest of it: after this its last byte is with the server."""
        if not is_response(response):
            return  # aiohttp says so in its log, and answers 500
        try:
            await self._send(response)
        except UnavailableError as error:  # what was committed is not durable
            if self._begun is not None:
                self._break_off()
                return
            if self._admission is not None:
                self._admission.close(refund=True)
            self._restore_writer()
            self.sent = self.say(render_unavailable(error))
            await self._send(self.sent)

    async def _send(self, response: web.StreamResponse) -> None:
        try:
            if response is self._ours:
                self._restore_writer()
            await response.prepare(self._request)
            admission = self._admission
            if admission is not None and not admission.durable:
                await admission.until_durable()
            await response.write_eof()
        except ConnectionError:
            pass  # the client has left; aiohttp meets the same once more, and knows what to do

    def _restore_writer(self) -> None:
        """Undo what a response that never began had set up for its body."""
        if self._met is not None and self._begun is None:
            writer = cast("Any", self._request.writer)
            writer.chunked, writer.length, writer._compress = False, None, None
            self._met = None

    def _break_off(self) -> None:
        """End the connection in the middle of an answer, so that no client takes it for whole."""
        transport = self._request.transport
        if transport is not None:
            transport.abort()

    # --- answers that outlive their key --------------------------------------------------------------------------

    def _fenced(self, caller: Caller) -> Refusal:
        gate = self.layer.gate
        return gate.refuse(Reason.SUSPENDED_TENANT, caller=caller, function=None, now=gate.now())

    def _watch(self, caller: Caller) -> None:
        self._task = asyncio.current_task()
        self._lasting.add(self)
        self._entry = self.layer.connections.add(caller.principal, self.end)

    async def _open_socket(self, request: web.Request, ws: web.WebSocketResponse, admission: Admission) -> None:
        caller, gate = admission.caller, self.layer.gate
        admission.settle(succeeded=False)  # a handshake demands nothing; each message is a call of its own
        if caller is None:
            return
        surfaces = caller.principal.surfaces
        if surfaces is not None and Surface.WEBSOCKET not in surfaces:
            refusal = gate.refuse(Reason.SURFACE_NOT_ALLOWED, caller=caller, function=admission.function, now=self.now)
            raise DeniedError.of(refusal)
        held = await gate.hold_connection(caller, now=self.now)
        if isinstance(held, Refusal):
            raise DeniedError.of(held)
        assert admission.function is not None
        self._socket = _Socket(self.layer, request, ws, caller, admission, held)
        self._lasting.add(self)
        admission.close()

    def end(self, reason: Reason) -> None:
        """Break off, because the key ended or was revoked, or the server stops."""
        if self._socket is not None and not self._socket.over:
            self._socket.end(reason)
        elif self._ended is None and self._task is not None and not self._task.done():
            self._ended = reason
            self._task.cancel()

    def _was_ended(self) -> bool:
        """Whether a cancellation was ours, in which case it is taken back."""
        task = asyncio.current_task()
        return self._ended is not None and task is not None and task is self._task and task.uncancel() == 0

    def leave(self) -> None:
        """End it, whatever happened: nothing stays held."""
        self._lasting.discard(self)
        if self._entry is not None:
            self._entry.remove()
        if self._socket is not None:
            self._socket.leave()
        if self._admission is not None:
            if self._admission.caller is not None:
                self._admission.caller.life.requests.discard(self)
            self._admission.close()


_closings: Final[set[asyncio.Task[None]]] = set()
"""Closing handshakes under way; the loop itself keeps no hold of a task."""


class _Socket:
    """One open WebSocket: each message that comes in is admitted before the handler sees it."""

    def __init__(
        self,
        layer: Layer,
        request: web.Request,
        ws: web.WebSocketResponse,
        caller: Caller,
        handshake: Admission,
        held: Reservation | None,
    ) -> None:
        assert handshake.function is not None
        self._gate = layer.gate
        self._request = request
        self._ws = ws
        self._caller = caller
        self._handshake = handshake
        self._function: Function = handshake.function
        self._held = held
        self._call: Admission | None = None
        self._undurable: list[Admission] = []
        self.over = False  # a close is about to leave
        self._entry = layer.connections.add(caller.principal, self.end)
        self._receive = ws.receive
        socket: Any = ws
        socket.receive = self.receive
        for name in ("send_str", "send_bytes", "send_frame"):
            if hasattr(ws, name):  # aiohttp before 3.11 has no send_frame
                setattr(socket, name, self._after_records(getattr(ws, name)))

    async def receive(self, timeout: float | None = None) -> WSMessage:
        """Receive for the handler. What is refused closes the WebSocket, and the handler sees that it is closed."""
        self._next_call(succeeded=True)
        message = await self._receive(timeout)
        if message.type in (WSMsgType.TEXT, WSMsgType.BINARY) and not await self._admit():
            return await self._receive(timeout)
        return message

    async def _admit(self) -> bool:
        gate, function, now = self._gate, self._function, self._gate.now()
        try:
            known = await gate.still(self._caller, effect=function.effect, now=now)
            if isinstance(known, Refusal):
                await self._close(entry_for(known.reason))
                return False
            if known is not self._caller:
                self._caller = known
                self._entry.renew(known.principal)
            call = await gate.admit(known, function, surface=Surface.WEBSOCKET, now=now)
        except UnavailableError:
            await self._close(UNAVAILABLE)
            return False
        if isinstance(call, Refusal):
            await self._close(entry_for(call.reason), call)
            return False
        self._call = call
        return True

    def _next_call(self, *, succeeded: bool) -> None:
        """End the call of the message before."""
        call, self._call = self._call, None
        if call is not None:
            call.settle(succeeded=succeeded)
            if not call.durable:
                self._undurable.append(call)
            call.close()

    def _after_records(self, send: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
        """Return *send*, which then waits until what the handler committed is durable."""

        async def sent(*args: Any, **kwargs: Any) -> None:
            if self.over:
                raise ConnectionResetError("the WebSocket was closed")  # as aiohttp does, once the close has left
            while self._undurable:
                await self._undurable[0].until_durable()
                self._undurable.pop(0)
            if not self._handshake.durable:
                await self._handshake.until_durable()
            await send(*args, **kwargs)

        return sent

    async def close_for(self, denial: Exception) -> None:
        """Close it for what the handler raised."""
        self._next_call(succeeded=False)
        if isinstance(denial, DeniedError):
            await self._close(entry_for(denial.refusal.reason), denial.refusal)
        else:
            await self._close(INVALID_NAME if isinstance(denial, InvalidNameError) else UNAVAILABLE)

    async def _close(self, entry: Entry, refusal: Refusal | None = None) -> None:
        text = entry.code
        if refusal is not None and refusal.retry_after_us is not None:
            text += f"; retry after {-(-refusal.retry_after_us // SECOND_US)} s"
        try:
            await self._ws.close(code=entry.close_code, message=text.encode())
        except RuntimeError:  # the handshake has not left yet
            transport = self._request.transport
            if transport is not None:
                transport.abort()

    def end(self, reason: Reason) -> None:
        """Close it, because the key ended or was revoked, or the server stops."""
        self.over = True
        self._let_go()
        closing = asyncio.get_running_loop().create_task(self._close(entry_for(reason)))
        _closings.add(closing)
        closing.add_done_callback(_closings.discard)

    def leave(self) -> None:
        """The handler is done with it."""
        self._next_call(succeeded=False)
        self._let_go()

    def _let_go(self) -> None:
        self._entry.remove()
        if self._held is not None:
            self._held.release()


# --- small parts -----------------------------------------------------------------------------------------------------


def _surface(request: web.Request, caller: Caller, way: Way) -> Surface:
    """Through which door the request came; see the head of this file."""
    if way.sockets:
        return Surface.WEBSOCKET
    surfaces = caller.principal.surfaces
    if surfaces is not None and Surface.HTTP not in surfaces:
        return Surface.HTTP
    upgrade = request.headers.get(hdrs.UPGRADE)
    return Surface.WEBSOCKET if upgrade is not None and upgrade.strip().lower() == "websocket" else Surface.HTTP


def is_response(value: object) -> bool:
    """Whether a handler gave what it should; many a one forgets its ``return``."""
    # Responses are abstract mappings, for which isinstance() takes the long way.
    return type(value) is web.Response or isinstance(value, web.StreamResponse)


def rendered(said: Answer) -> web.Response:
    """Return *said* as a response; aiohttp counts its bytes itself."""
    headers = [(name.decode(), value.decode()) for name, value in said.headers if name != b"content-length"]
    return web.Response(status=said.status, headers=headers, body=said.body)


def _raw(response: web.StreamResponse) -> list[Header]:
    return [(name.lower().encode(), value.encode()) for name, value in response.headers.items()]


def _picked(headers: Iterable[Header], wanted: bytes) -> list[Header]:
    return [(name, value) for name, value in headers if name == wanted]


def dress(response: web.StreamResponse, rates: Iterable[Header] = ()) -> None:
    """Add `BASE_HEADERS` and *rates*; a ``Vary`` that is there is added to."""
    headers = response.headers
    headers.setdefault("x-content-type-options", _NOSNIFF)
    varies = headers.get(hdrs.VARY)
    if varies is None:
        headers[hdrs.VARY] = _VARY
    elif varies != "*":
        headers[hdrs.VARY] = f"{varies}, {_VARY}" if varies else _VARY
    for name, value in rates:
        headers[name.decode()] = value.decode()

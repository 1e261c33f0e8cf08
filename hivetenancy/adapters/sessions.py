"""One WebSocket, as the two layers of the ASGI adapter see it.

What it costs: the handshake is checked like a call of the route's function and takes that function's rate units; its
demand is not charged. From then on **each inbound message is one call**: the key is looked at again, the function's
cost is taken, its permission is checked, its demand is held, and committed when the handler comes back for the next
message. What the handler sends is not counted, but waits for what the handler committed to be durable.

How it ends from our side: by a message that is refused, by `ConnectionRegistry` (the key was revoked or has ended,
the tenant was suspended, the server stops) even if nobody sends anything, or by a refusal that the handler raises.
The close code is the catalogue's (4401, 4403, 4429, 1013 ...), the reason its code. Before ``accept`` a refusal is an
HTTP answer, where the server offers that (``websocket.http.response``), and the bare 403 of a closed handshake
otherwise.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

from hivetenancy.clock import SECOND_US, Instant
from hivetenancy.connections import OpenConnection
from hivetenancy.context import bound
from hivetenancy.decision import Reason, Refusal
from hivetenancy.errors import DeniedError, InvalidNameError, UnavailableError
from hivetenancy.functions import Function
from hivetenancy.gate import Admission, Caller
from hivetenancy.ids import Surface
from hivetenancy.quota import Reservation

from .catalogue import INVALID_NAME, NOT_FOUND, UNAVAILABLE, Entry, entry_for
from .exchange import ASGIApp, ClosedError, Layer, Message, Receive, Scope, Send, denial_in, dressed
from .http import Answer, answer, render_unavailable

POLICY_VIOLATION: Final = 1008
"""Close code of a handshake that is refused where the server lets us give no answer."""

_ANSWERS: Final = "websocket.http.response"

_log: Final = logging.getLogger("hivetenancy")


class Session:
    """One WebSocket.

    Attributes:
        layer: What is shared.
        caller: Who is asking; ``None``: nobody said, and only a public route may be reached.
        now: The instant of the handshake.
        passed: Whether a guard admitted the handshake, or refused it.
    """

    def __init__(self, layer: Layer, caller: Caller | None, scope: Scope, send: Send, now: Instant) -> None:
        self.layer = layer
        self.caller = caller
        self.now = now
        self.passed = False
        self.admission: Admission | None = None
        self._answers = _ANSWERS in (scope.get("extensions") or {})
        self._send = send
        self._accepted = False
        self._over = False  # closed by us, or refused: nothing of the handler goes out any more
        self._ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()  # the close code, once we close
        self._function: Function | None = None
        self._call: Admission | None = None  # of the message that the handler works on
        self._undurable: list[Admission] = []  # calls before, whose records are still on their way
        self._held: Reservation | None = None
        self._entry: OpenConnection | None = None
        self._waiting: asyncio.Future[Message] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._task: asyncio.Task[Any] | None = None  # the handler's, to be ended if it does not end by itself
        self._cut = False

    # --- the outer layer ---------------------------------------------------------------------------------------------

    async def send(self, message: Message) -> None:
        """Let *message* out, if a guard admitted the handshake; refuse it otherwise."""
        if self.passed:
            await self._send(message)
        elif not self._over:
            await self.deny(await self._instead(message["type"]))

    async def deny(self, said: Answer) -> None:
        """Refuse the handshake."""
        self._over = True
        if not self._answers:
            await self._send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": ""})
            return
        await self._send({"type": f"{_ANSWERS}.start", "status": said.status, "headers": dressed(said.headers)})
        await self._send({"type": f"{_ANSWERS}.body", "body": said.body})

    async def _instead(self, kind: str) -> Answer:
        """The answer in the place of whoever answered without a guard; a router closes where nothing matches."""
        layer, caller = self.layer, self.caller
        if caller is None:
            refusal = layer.gate.refuse(Reason.NO_CREDENTIAL, caller=None, function=None, now=self.now)
            return layer.refusal(refusal, None, self.now)
        try:
            taken = await layer.gate.admit_attempt(caller, now=self.now)
        except UnavailableError as error:
            return render_unavailable(error)
        if isinstance(taken, Refusal):
            return layer.refusal(taken, caller, self.now)
        taken.close()
        if kind != "websocket.accept":
            return answer(NOT_FOUND)
        _log.error("a WebSocket was accepted where no function was declared, and refused; declare the route's function")
        refusal = layer.gate.refuse(Reason.UNDECLARED_FUNCTION, caller=caller, function=None, now=self.now)
        return layer.refusal(refusal, caller, self.now)

    # --- the guard ---------------------------------------------------------------------------------------------------

    async def refuse(self, refusal: Refusal) -> None:
        """Refuse the handshake from a guard."""
        self.passed = True
        await self.deny(self.layer.refusal(refusal, self.caller, self.now))

    async def run(self, app: ASGIApp, function: Function | None, scope: Scope, receive: Receive) -> None:
        """Admit the handshake for *function* (``None``: a public route), and run *app* behind it.

        Raises:
            Exception: What *app* raised, unless it is a refusal or comes of an end that we made.
        """
        if await self.open(function):
            await self.serve(app, scope, receive)

    async def open(self, function: Function | None) -> bool:
        """Admit the handshake, or refuse it and return ``False``; see `run`."""
        self._function = function
        try:
            admission = await self._open()
        except UnavailableError as error:
            self.passed = True
            await self.deny(render_unavailable(error))
            return False
        if isinstance(admission, Refusal):
            await self.refuse(admission)
            return False
        self.admission, self.passed = admission, True
        if admission.caller is not None:  # a deletion waits for the handler, also between two messages
            self._task = asyncio.current_task()
            admission.caller.life.requests.add(self)
        return True

    async def serve(self, app: ASGIApp, scope: Scope, receive: Receive) -> None:
        """Run *app*, to be admitted before or, where only it knows its routes, by `open` meanwhile; see `run`."""
        self._receive = receive
        before = bound.get()
        bound.set(self.admission)
        try:
            await app(scope, self.guarded_receive, self.guarded_send)
        except Exception as error:
            if not await self.failed(error):
                raise
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not self._cut or task is None or task is not self._task or task.uncancel():
                raise
        else:
            self._next_call(succeeded=True)
        finally:
            bound.set(before)
            self._release()
            await self._settle_tasks()

    async def _open(self) -> Admission | Refusal:
        layer, caller, function = self.layer, self.caller, self._function
        if function is None:
            public = layer.gate.admit_public(now=self.now)
            public.close()
            return public
        if caller is None:
            return layer.gate.refuse(Reason.NO_CREDENTIAL, caller=None, function=function, now=self.now)
        admission = await layer.gate.admit(caller, function, surface=Surface.WEBSOCKET, now=self.now)
        if isinstance(admission, Refusal):
            layer.block(caller, admission, function.cost, self.now)
            return admission
        try:
            held = await layer.gate.hold_connection(caller, now=self.now)
        except BaseException as error:
            admission.close(refund=isinstance(error, UnavailableError))
            raise
        admission.close()  # the handshake is over; what follows are calls of their own
        if isinstance(held, Refusal):
            return held
        self._held = held
        if admission.caller is not None:
            self.caller = admission.caller
            self._entry = layer.connections.add(admission.caller.principal, self._revoked)
        return admission

    def _release(self) -> None:
        self._next_call(succeeded=False)
        if self.admission is not None and self.admission.caller is not None:
            self.admission.caller.life.requests.discard(self)
        if self._entry is not None:
            self._entry.remove()
        if self._held is not None:
            self._held.release()

    async def _settle_tasks(self) -> None:
        tasks = [task for task in (self._waiting, self._closing) if task is not None]
        if self._waiting is not None and not self._waiting.done():
            self._waiting.cancel()
        if tasks:
            await asyncio.gather(*tasks, return_exceptions=True)

    # --- what the handler receives -----------------------------------------------------------------------------------

    async def guarded_receive(self) -> Message:
        """Receive for the handler; each message is admitted before the handler sees it."""
        ended = self._ended
        self._next_call(succeeded=True)
        while not ended.done():
            if self._waiting is None:
                self._waiting = asyncio.ensure_future(self._receive())
            await asyncio.wait((self._waiting, ended), return_when=asyncio.FIRST_COMPLETED)
            if not self._waiting.done():
                break
            waiting, self._waiting = self._waiting, None
            message = waiting.result()
            if message["type"] != "websocket.receive" or self._function is None:
                return message
            if await self._admit_message(self._function):
                return message
        return {"type": "websocket.disconnect", "code": ended.result(), "reason": ""}

    async def _admit_message(self, function: Function) -> bool:
        gate, caller = self.layer.gate, self.caller
        assert caller is not None
        now = gate.now()
        try:
            known = await gate.still(caller, effect=function.effect, now=now)
            if isinstance(known, Refusal):
                await self._close_with(entry_for(known.reason))
                return False
            if known is not caller:
                self.caller = known
                if self._entry is not None:
                    self._entry.renew(known.principal)
            call = await gate.admit(known, function, surface=Surface.WEBSOCKET, now=now)
        except UnavailableError:
            await self._close_with(UNAVAILABLE)
            return False
        if isinstance(call, Refusal):
            await self._close_with(entry_for(call.reason), call)
            return False
        self._call = call
        return True

    def _next_call(self, *, succeeded: bool) -> None:
        """End the call of the message before."""
        call, self._call = self._call, None
        if call is None:
            return
        call.settle(succeeded=succeeded)
        if not call.durable:
            self._undurable.append(call)
        call.close()

    async def _until_durable(self) -> None:
        """Wait for what the handler, and the calls before, committed."""
        while self._undurable:
            await self._undurable[0].until_durable()
            self._undurable.pop(0)
        if self.admission is not None and not self.admission.durable:
            await self.admission.until_durable()

    # --- what the handler sends --------------------------------------------------------------------------------------

    async def guarded_send(self, message: Message) -> None:
        """Send for the handler, once what it committed is durable."""
        await self._until_durable()
        if self._over or self._closing is not None:  # a close that is only about to leave counts already
            raise ClosedError("the WebSocket was closed")
        if self.admission is not None and message["type"] == "websocket.accept":
            self._accepted = True
        await self.send(message)

    async def failed(self, error: Exception) -> bool:
        """Deal with what a handler raised; ``False``: it is the host's own failure and goes on."""
        if self._over or self._closing is not None:
            return True
        denial = denial_in(error)
        if denial is None:
            return False
        self._next_call(succeeded=False)
        if not self._accepted:
            await self.deny(self.layer.denial(denial, self.caller, self.now))
        elif isinstance(denial, DeniedError):
            await self._close_with(entry_for(denial.refusal.reason), denial.refusal)
        else:
            await self._close_with(INVALID_NAME if isinstance(denial, InvalidNameError) else UNAVAILABLE)
        return True

    # --- the end from our side ---------------------------------------------------------------------------------------

    def end(self, reason: Reason) -> None:
        """Cancel the handler: the tenant is fenced off, and that the WebSocket was closed has not ended it."""
        if self._closing is None:
            self._revoked(reason)
        if self._task is not None and not self._task.done():
            self._cut = True
            self._task.cancel()

    def _revoked(self, reason: Reason) -> None:
        """Close an idle connection; called by the registry, from another task."""
        entry = entry_for(reason)
        self._closing = asyncio.get_running_loop().create_task(self._close_with(entry))

    async def _close_with(self, entry: Entry, refusal: Refusal | None = None) -> None:
        if self._over:
            return
        self._over = True
        self._ended.set_result(entry.close_code)
        reason = entry.code
        if refusal is not None and refusal.retry_after_us is not None:
            reason += f"; retry after {-(-refusal.retry_after_us // SECOND_US)} s"
        if self._accepted:
            await self._send({"type": "websocket.close", "code": entry.close_code, "reason": reason})
        else:
            await self.deny(answer(entry))

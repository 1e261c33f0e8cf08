"""Servers with a protocol of their own, over plain asyncio: authenticate a connection, admit each command.

A server keeps one `Connection` for each peer. It is *unauthenticated* until a key was accepted, then *authenticated*,
and *closing* from the moment its key, its tenant or the server ends it. Only the second state admits anything::

    connection = Connection(host, close=lambda reason: writer.close())
    refusal = await connection.authenticate(b"...")        # None: accepted
    async with connection.admit("kv.get") as tenant:       # per command; binds the tenant around the block
        reply = store.get(tenant.kv.key(name))
    ...
    await connection.aclose()

A request over HTTP shows its key every time. A connection showed it once, so the key is asked about again for every
command, reads included; and while the peer is silent, the registry of connections closes it when its key ends.

A command is settled when its block ends: a clean exit commits what the function demands and waits until that is
durable, so the reply that follows is as good as the record; an exception releases it.
"""

from __future__ import annotations

import asyncio
import warnings
import weakref
from collections.abc import Callable
from enum import StrEnum
from sys import _getframe
from types import TracebackType
from typing import TYPE_CHECKING, Final, Protocol, Self
from urllib.parse import quote

from hivetenancy.access_keys.format import credential_from_text
from hivetenancy.clock import SECOND_US
from hivetenancy.connections import OpenConnection
from hivetenancy.context import Bound, bound, refuse_generator
from hivetenancy.decision import Reason, Refusal
from hivetenancy.errors import DeniedError, InvalidNameError, MisuseError, UnavailableError
from hivetenancy.gate import Admission, Caller
from hivetenancy.ids import Effect, Surface
from hivetenancy.quota import Reservation
from hivetenancy.tenant import Tenant, bound_to

from .catalogue import INTERNAL_ERROR, INVALID_NAME, UNAVAILABLE, Entry, entry_for
from .host import Host

Close = Callable[[Reason], None]
"""How a server closes one of its connections: soon, without blocking. Called at most once."""

_RETRY_UNKNOWN_US: Final = SECOND_US
"""What an unavailable answer advises where nothing better is known, as over HTTP."""


class State(StrEnum):
    """Where a connection stands."""

    UNAUTHENTICATED = "unauthenticated"
    AUTHENTICATED = "authenticated"
    CLOSING = "closing"


class Command(Protocol):
    """What `admit` gives: a block around one command, entered with ``async with``."""

    async def __aenter__(self) -> Tenant: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


class AnyConnection(Protocol):
    """What `Connection` and `StandaloneConnection` share, for servers that run in either mode."""

    @property
    def state(self) -> State:
        """Where the connection stands."""
        ...

    async def authenticate(self, credential: bytes) -> Refusal | None:
        """Accept a key, or say why not."""
        ...

    def admit(self, function: str, *, cost: int | None = None) -> Command:
        """Return a block around one command."""
        ...

    async def attempt(self) -> None:
        """Take a unit for a command that is no function."""
        ...

    async def aclose(self) -> None:
        """End the connection."""
        ...


class Connection:
    """One peer's connection in cluster mode.

    Args:
        host: The tenancy, started.
        close: How the server closes the connection. Called at most once, when the key is revoked or ends, the tenant is
            suspended, the server stops, or the time for authentication is over; not by `aclose`.
        peer: Anything that names the peer in the server's own logs, such as its address. Never trusted.
        auth_timeout: Seconds until an unauthenticated connection is closed; ``None``: the server sees to that itself.

    Raises:
        MisuseError: The tenancy is not running.

    Concurrency:
        Belongs to the loop that the tenancy was started in. Commands may overlap; each has its own block.
    """

    _state = State.CLOSING  # until __init__ has succeeded, for __del__

    def __init__(self, host: Host, *, close: Close, peer: object = None, auth_timeout: float | None = None) -> None:
        self._entry: OpenConnection | None = None
        self._held: Reservation | None = None
        self._caller: Caller | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._host, self._gate, self._close = host, host.gate, close
        self.peer = peer
        self.closed_for: Reason | None = None
        """Why it is closing; ``None`` while it is not, or when the server itself ended it."""
        if not host.running:
            raise MisuseError("the tenancy is not running; serve inside `async with tenancy`")
        if auth_timeout is not None:
            self._deadline = asyncio.get_running_loop().call_later(auth_timeout, self._too_late)
        self._state = State.UNAUTHENTICATED

    def __repr__(self) -> str:
        return f"<Connection of {self.peer!r}, {self._state.value}>"

    @property
    def state(self) -> State:
        """Where the connection stands."""
        return self._state

    # --- who it is ---------------------------------------------------------------------------------------------------

    async def authenticate(self, credential: bytes) -> Refusal | None:
        """Accept *credential* for this connection.

        An accepted connection may show another key, and then acts for that one. A refused one stays what it was before.

        Args:
            credential: The key as the peer sent it, bytes end to end; nothing is trimmed.

        Returns:
            ``None`` when accepted; else the refusal, after which nothing more is held than before: no key, a malformed
            or unknown one, or no room for one more of the tenant's ``connections``.

        Raises:
            UnavailableError: It cannot be told.
        """
        gate = self._gate
        if self._closing():
            return self._closed()
        caller = await gate.authenticate(credential_from_text(credential), now=gate.now())
        if isinstance(caller, Refusal):
            return caller
        # Entered before anything is awaited again: a revocation from here on finds the connection.
        entry = self._host.connections.add(caller.principal, _weakly(self._end))
        try:
            held = await self._hold(caller)
        except BaseException:
            entry.remove()
            raise
        if isinstance(held, Refusal):
            entry.remove()
            return held
        if self._closing():  # ended while it waited
            entry.remove()
            _release(held)
            return self._closed()
        self._accept(caller, entry, held)
        return None

    async def _hold(self, caller: Caller) -> Reservation | Refusal | None:
        """Hold one of the tenant's connections, or go on with the one that this connection holds already."""
        if self._held is not None and self._held.tenant == caller.principal.tenant_id:
            return self._held
        return await self._gate.hold_connection(caller, now=self._gate.now())

    def _accept(self, caller: Caller, entry: OpenConnection, held: Reservation | None) -> None:
        if self._entry is not None:  # another key, or the same one again
            self._entry.remove()
        if self._held is not held:
            _release(self._held)
        self._caller, self._entry, self._held = caller, entry, held
        self._state = State.AUTHENTICATED
        self._forget_deadline()

    # --- what it may do ----------------------------------------------------------------------------------------------

    def admit(self, function: str, *, cost: int | None = None) -> Command:
        """Return a block around one command.

        Args:
            function: Name of a function that was declared with the tenancy.
            cost: Rate units; ``None``: as the function declares.

        Returns:
            A block for ``async with``. Entering admits the command, binds its tenant and gives it; leaving settles it:
            commits what the function demands and waits until that is durable, or releases it if there was an exception.

        Raises on entering:
            DeniedError: The command is refused; nothing is held. Where the key no longer counts, the connection is
                closed once the server has had a turn to send its reply.
            UnavailableError: It cannot be told.
        """
        return _Admitted(self, function, cost)

    async def attempt(self) -> None:
        """Take a unit for a command that is no function: an unknown one, one with the wrong arguments.

        Raises:
            DeniedError: No key was accepted, or the rate is used up: answer that instead.
            UnavailableError: It cannot be told.
        """
        admission = await self._gate.admit_attempt(self._known(), now=self._gate.now())
        if isinstance(admission, Refusal):
            raise self._denied(admission)
        admission.close()

    async def _admit(self, name: str, cost: int | None) -> Admission:
        gate, now, caller = self._gate, self._gate.now(), self._known()
        function = gate.functions.get(name)
        if function is None:
            await self.attempt()
            refusal = gate.refuse(Reason.UNDECLARED_FUNCTION, caller=caller, function=None, now=now)
            raise DeniedError.of(refusal.about(tenant=None, key_id=None, function=name))
        if function.effect is Effect.READ:  # `Gate.admit` asks again for the others only
            answer = await gate.still(caller, effect=Effect.READ, now=now)
            if isinstance(answer, Refusal):
                raise self._denied(answer)
            self._renew(caller, answer)
            caller = answer
        admission = await gate.admit(caller, function, surface=Surface.STREAM, now=now, cost=cost)
        if isinstance(admission, Refusal):
            raise self._denied(admission)
        if self._closing():  # ended while it waited
            admission.close()
            raise DeniedError.of(self._closed())
        if admission.caller is not None:
            self._renew(caller, admission.caller)
        return admission

    def _known(self) -> Caller:
        """Return who it is."""
        if self._state is State.AUTHENTICATED and self._caller is not None:
            return self._caller
        raise DeniedError.of(self._closed())

    def _renew(self, before: Caller, caller: Caller) -> None:
        """Go on with a newer answer about the same key."""
        if caller is not before and self._caller is before and self._entry is not None:
            self._caller = caller
            self._entry.renew(caller.principal)

    def _denied(self, refusal: Refusal) -> DeniedError:
        """Return the error for *refusal*; where the key no longer counts, close the connection after the reply."""
        if entry_for(refusal.reason).status == _UNAUTHENTICATED and not self._closing():
            self.closed_for = refusal.reason
            self._drop()
            asyncio.get_running_loop().call_soon(self._close, refusal.reason)
        return DeniedError.of(refusal)

    def _closed(self) -> Refusal:
        """Return the refusal of a connection that has no key, or not any more."""
        reason = self.closed_for or Reason.NO_CREDENTIAL
        return self._gate.refuse(reason, caller=None, function=None, now=self._gate.now())

    def _closing(self) -> bool:
        return self._state is State.CLOSING

    # --- how it ends -------------------------------------------------------------------------------------------------

    async def aclose(self) -> None:
        """End the connection: leave the registry, free what is held. May be called again. Does not call ``close``."""
        self._drop()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        await self.aclose()

    def _end(self, reason: Reason) -> None:
        """Close it, because the registry says so or the time is over."""
        if not self._closing():
            self.closed_for = reason
            self._drop()
            self._close(reason)

    def _too_late(self) -> None:
        if self._state is State.UNAUTHENTICATED:
            self._end(Reason.NO_CREDENTIAL)

    def _drop(self) -> None:
        self._state = State.CLOSING
        self._forget_deadline()
        entry, self._entry = self._entry, None
        if entry is not None:
            entry.remove()
        held, self._held = self._held, None
        _release(held)

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def __del__(self) -> None:
        if not self._closing():
            warnings.warn(f"connection of {self.peer!r} was never closed", ResourceWarning, stacklevel=2)
            self._gate.home.post(self._drop)


def _release(held: Reservation | None) -> None:
    if held is not None:
        held.release()


def _weakly(end: Close) -> Close:
    """Return *end*, without keeping its connection alive: one that a server dropped shall warn, not linger."""
    known = weakref.WeakMethod(end)

    def call(reason: Reason) -> None:
        found = known()
        if found is not None:
            found(reason)

    return call


class _Admitted:
    """A block around one command of a `Connection`."""

    __slots__ = ("_admission", "_before", "_connection", "_cost", "_name")

    def __init__(self, connection: Connection, name: str, cost: int | None) -> None:
        self._connection = connection
        self._name, self._cost = name, cost
        self._admission: Admission | None = None
        self._before: Bound | None = None

    async def __aenter__(self) -> Tenant:
        if self._admission is not None:
            raise MisuseError("this block is open already; call admit() for each command")
        refuse_generator(_getframe(1))
        admission = await self._connection._admit(self._name, self._cost)
        self._admission = admission
        self._before = bound.get()
        bound.set(admission)
        return admission.tenant

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        admission, self._admission = self._admission, None
        if admission is None:
            return
        bound.set(self._before)
        refund = isinstance(error, UnavailableError)
        try:
            admission.settle(succeeded=error is None)
            if error is None and not admission.durable:
                await admission.until_durable()
        except UnavailableError:
            refund = True
            raise
        finally:
            admission.close(refund=refund)


class StandaloneConnection:
    """The twin of `Connection` in standalone mode: every key is accepted, every command admitted, nothing counted.

    Args:
        tenant: The one owner of everything.
        close: Never called; taken so that both are built alike.
        peer: As for `Connection`.
        auth_timeout: Has no effect: there is no key to wait for.
    """

    def __init__(
        self, tenant: Tenant, *, close: Close | None = None, peer: object = None, auth_timeout: float | None = None
    ) -> None:
        self._tenant = tenant
        self._state = State.AUTHENTICATED
        self.peer = peer
        self.closed_for: Reason | None = None

    @property
    def state(self) -> State:
        """Where the connection stands: authenticated until it is closed."""
        return self._state

    async def authenticate(self, credential: bytes) -> Refusal | None:
        """Return ``None``: there are no keys."""
        return None

    def admit(self, function: str, *, cost: int | None = None) -> Command:
        """Return a block that binds the one tenant."""
        return _Free(self._tenant)

    async def attempt(self) -> None:
        """Do nothing."""

    async def aclose(self) -> None:
        """End the connection."""
        self._state = State.CLOSING

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        await self.aclose()


class _Free:
    """A block around one command of a `StandaloneConnection`."""

    __slots__ = ("_before", "_tenant")

    def __init__(self, tenant: Tenant) -> None:
        self._tenant = tenant
        self._before: Bound | None = None

    async def __aenter__(self) -> Tenant:
        refuse_generator(_getframe(1))
        self._before = bound.get()
        bound.set(bound_to(self._tenant))
        return self._tenant

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        bound.set(self._before)


# --- answers in text -------------------------------------------------------------------------------------------------


def error_line(error: Refusal | Exception) -> str:
    """Return one line that says what went wrong, such as ``NOAUTH An access key is needed.``, in RESP's prefixes.

    Args:
        error: A refusal, or what a block raised. Anything else than a refusal of this library becomes
            ``ERR The server failed.``; its text is not shown.

    Returns:
        Prefix, numbers as ``name=value`` and a sentence, in ASCII and without line breaks; RESP's leading ``-`` and
        trailing CR LF are not part of it.

    Example:
        >>> error_line(Refusal(reason=Reason.RATE_LIMITED, policy="burst", limit=10, retry_after_us=250_000))
        'RATELIMITED retry_after_ms=250 policy=burst limit=10 Too many requests.'
    """
    if isinstance(error, DeniedError):
        error = error.refusal
    if isinstance(error, Refusal):
        entry = entry_for(error.reason)
        return _line(entry, "" if entry.status in _SILENT else _numbers(error))
    if isinstance(error, UnavailableError):
        wait = _RETRY_UNKNOWN_US if error.retry_after_us is None else error.retry_after_us
        return _line(UNAVAILABLE, f"retry_after_ms={_milliseconds(wait)} ")
    return _line(INVALID_NAME if isinstance(error, InvalidNameError) else INTERNAL_ERROR, "")


def _line(entry: Entry, numbers: str) -> str:
    return f"{entry.resp} {numbers}{entry.title}"


def _numbers(refusal: Refusal) -> str:
    shown = ""
    if refusal.retry_after_us is not None:
        shown = f"retry_after_ms={_milliseconds(refusal.retry_after_us)} "
    for name in ("function", "policy", "dimension", "resource", "limit", "used", "held", "requested"):
        value = getattr(refusal, name)
        if value is not None:
            shown += f"{name}={quote(str(value), safe=_PLAIN)} "
    return shown


def _milliseconds(us: int) -> int:
    return -(-us // 1000)


_UNAUTHENTICATED: Final = 401

_SILENT: Final = frozenset({400, 401, 404})
"""Refusals that show no number, as over HTTP: they would tell what the caller may not know."""

_PLAIN: Final = "!#$&'()*+,-./:;<>?@[]^_`{|}~"
"""Left as it is in a value; blanks, ``=``, ``%``, quotes and whatever is not ASCII are percent-encoded."""


if TYPE_CHECKING:
    _conforms: tuple[type[AnyConnection], type[AnyConnection]] = (Connection, StandaloneConnection)

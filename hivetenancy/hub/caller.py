"""One call: a model in, a model out, and every other outcome one of our errors.

What comes back is read as exactly one thing. A status of success is read as the reply and nothing else, so that an
error that says "200" is an answer outside the wire; every other status that got through the transport is the hub's
"no".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, TypeAlias, TypeVar, overload

from pydantic import BaseModel, ValidationError

from hivetenancy.clock import SECOND_US
from hivetenancy.errors import ConfigurationError, HubContractError, HubRefusedError, HubUnavailableError

from . import wire
from .breaker import CircuitState
from .translate import explain
from .transport import HubReply, HubTransport

Method: TypeAlias = Literal["GET", "POST", "PUT", "DELETE"]
Query: TypeAlias = Sequence[tuple[str, str]]

_Model = TypeVar("_Model", bound=BaseModel)

_PREFIX: Final = "/api/internal"
_AUTHORITY: Final = "x-hivehub-authority"

A_FAKE: Final = (
    "this HiveHub is a fake, which nothing but a test may believe; point the url at a real one, or, in a test, build "
    "HiveHub(..., allow_fake=True)"
)
"""Why a hub that says it is a fake is refused, in X0 or in any reply."""


class Caller:
    """Makes the calls of one hub.

    Args:
        transport: Carries them.
        allow_fake: Whether a hub that says it is a fake is believed.

    Concurrency:
        For the loop of the transport; any number of calls at a time.
    """

    def __init__(self, transport: HubTransport, *, allow_fake: bool) -> None:
        self._transport = transport
        self._allow_fake = allow_fake
        self.honours_keys = False
        """Whether the hub has said that it honours idempotency keys; only then does one make a call repeatable."""

    def use(self, transport: HubTransport) -> None:
        """Let *transport* carry the calls from now on."""
        self._transport = transport

    @property
    def probing(self) -> bool:
        """Whether the next call decides if the hub counts as reachable again. It should not be one that waits."""
        return self._transport.circuit is not CircuitState.CLOSED

    @overload
    async def ask(
        self,
        reply: type[_Model],
        method: Method,
        path: str,
        *,
        query: Query = ...,
        body: BaseModel | None = ...,
        repeatable: bool,
        key: str | None = ...,
        deadline_s: float | None = ...,
    ) -> _Model: ...

    @overload
    async def ask(
        self,
        reply: None,
        method: Method,
        path: str,
        *,
        query: Query = ...,
        body: BaseModel | None = ...,
        repeatable: bool,
        key: str | None = ...,
        deadline_s: float | None = ...,
    ) -> None: ...

    async def ask(
        self,
        reply: type[_Model] | None,
        method: Method,
        path: str,
        *,
        query: Query = (),
        body: BaseModel | None = None,
        repeatable: bool,
        key: str | None = None,
        deadline_s: float | None = None,
    ) -> _Model | None:
        """Make a call and read its reply.

        Args:
            reply: What a success holds; ``None``: nothing that is read.
            method: The method.
            path: Below ``/api/internal``, encoded.
            query: Fields, not yet encoded.
            body: What is sent.
            repeatable: Whether sending it twice does what sending it once does.
            key: An idempotency key (HiveHub wire 4.7), which makes any call repeatable where the hub honours it.
            deadline_s: Seconds for everything together; ``None``: the transport's.

        Raises:
            HubUnavailableError: No answer, or none of use; see ``outcome_unknown``.
            HubRefusedError: The hub says no.
            HubContractError: The answer is none of this wire.
            ConfigurationError: The hub is a fake.
        """
        got = await self.send(
            method, path, query=query, body=body, repeatable=repeatable, key=key, deadline_s=deadline_s
        )
        if not 200 <= got.status < 300:
            raise _refused(got)
        return _read(reply, got.body)

    async def send(
        self,
        method: Method,
        path: str,
        *,
        query: Query = (),
        body: BaseModel | None = None,
        repeatable: bool,
        key: str | None = None,
        deadline_s: float | None = None,
    ) -> HubReply:
        """Make a call and return what came back, whatever its status; otherwise as `ask`."""
        got = await self._transport.call(
            method,
            _PREFIX + path,
            query=query,
            body=None if body is None else body.model_dump_json(exclude_none=True).encode(),
            headers=() if key is None else (("Idempotency-Key", key),),
            repeatable=repeatable or (key is not None and self.honours_keys),
            deadline_s=deadline_s,
        )
        if got.headers.get(_AUTHORITY) == "fake" and not self._allow_fake:
            raise ConfigurationError(A_FAKE)
        return got


def read_error(got: HubReply) -> wire.ErrorBody:
    """Return what a status that is no success says; where it does not parse, the status is the message (wire 1)."""
    try:
        return wire.ErrorBody.model_validate_json(got.body)
    except ValidationError:
        return wire.ErrorBody(error=f"status {got.status}")


def _refused(got: HubReply) -> HubRefusedError | HubUnavailableError:
    said = read_error(got)
    if got.status == 409 and said.code == "in_progress":
        seconds = got.headers.get("retry-after", "")
        wait = int(seconds) * SECOND_US if seconds.isdecimal() and len(seconds) < 6 else SECOND_US
        return HubUnavailableError("HiveHub is still at work on the first sending of this call", retry_after_us=wait)
    message = said.error if said.error.isprintable() else "?"
    return HubRefusedError(got.status, f"HiveHub says {got.status}: {message[:200]}", code=said.code, field=said.field)


def _read(reply: type[_Model] | None, body: bytes) -> _Model | None:
    if reply is None:
        _read_nothing(body)
        return None
    try:
        return reply.model_validate_json(body)
    except ValidationError as error:
        raise HubContractError(f"HiveHub's answer is none of its wire: {explain(error)}") from None
    except RecursionError:
        raise HubContractError("HiveHub's answer is nested too deeply") from None


def _read_nothing(body: bytes) -> None:
    """Take any body for a success but one that is an error."""
    try:
        said = wire.ErrorBody.model_validate_json(body)
    except ValidationError:
        return
    raise HubContractError(f"HiveHub says 200 and {said.error[:100]!r}")

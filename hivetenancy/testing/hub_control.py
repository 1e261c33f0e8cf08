"""The control routes of a fake, for tests in other languages: what a test does to the hub, over HTTP.

They stand in front of the wire, below ``/_fake/``, and exist only where somebody asked for them. They have a token of
their own (header ``X-Fake-Control``), so a service key opens none of them and a leaked token no call of the wire. No
answer holds a secret, but for a key that was asked for, once.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from hmac import compare_digest
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import Field

from hivetenancy.authority.api_http import (
    Answer,
    ClientGoneError,
    Receive,
    RequestError,
    Scope,
    Send,
    bad_field,
    encoded,
    parse_body,
    read_body,
)
from hivetenancy.authority.keys import Key, checked_permissions, checked_rules, checked_service
from hivetenancy.authority.view import ALL_EXTENSIONS
from hivetenancy.clock import SECOND_US
from hivetenancy.errors import ConfigurationError, HubUnavailableError, TenancyError
from hivetenancy.hub.names import split_path

from .faults import USUAL_FAULTS, Fault, known, made_fault
from .hub_core import FakeHubCore
from .hub_seed import KeySeed, Stated, TenantSeed, card, issue
from .hub_tenants import FakeTenant

Application: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

TOKEN: Final = b"x-fake-control"
_OF_THE_HUB: Final = ("down", "new_epoch", "stale_replica", "service_key_rejected", "without")
_LATEST_US: Final = 221_845_392_000 * SECOND_US
"""The year 9000. No clock goes on from the year 9999, whose times are the last that have a text."""

_FAULT_FIELDS: Final = ("status", "retry_after", "connection", "reply", "events", "latency", "again")


class _NewTenant(TenantSeed):
    """What POST /_fake/tenants takes."""


class _TenantChange(Stated):
    plan: str | None = None
    status: Literal["active", "suspended", "deleting"] | None = None
    limits: dict[str, Annotated[int, Field(ge=0, lt=2**53)] | None] | None = None


class _Clock(Stated):
    advance_seconds: Annotated[float, Field(ge=0, le=315_360_000)] = 0.0
    skew_seconds: Annotated[float, Field(ge=-315_360_000, le=315_360_000)] | None = None


class _Fault(Stated):
    calls: list[str] = Field(default_factory=list)
    times: Annotated[int, Field(ge=1)] | None = 1
    status: int | None = None
    retry_after: int | None = None
    connection: str | None = None
    reply: str | None = None
    events: str | None = None
    latency: float = 0.0
    again: int | None = None
    down: bool | None = None
    new_epoch: Literal[True] | None = None
    stale_replica: bool | None = None
    service_key_rejected: bool | None = None
    without: list[str] | None = None
    seed: int | None = None
    rate: Annotated[float, Field(ge=0, le=1)] | None = None


class _Nothing(Stated):
    """An empty object."""


@dataclass(frozen=True, slots=True)
class _Question:
    hub: FakeHubCore
    path: Mapping[str, str]
    receive: Receive
    headers: list[tuple[bytes, bytes]]
    lasting: dict[str, AbstractContextManager[object]]

    async def body(self, model: type[Any]) -> Any:
        """Return the body as *model*; an empty one is an empty object."""
        return parse_body(await read_body(self.receive, self.headers) or b"{}", model)

    @property
    def tenant(self) -> FakeTenant:
        """The tenant that the path names by its id."""
        for tenant in self.hub.tenants:
            if tenant.id == self.path["id"]:
                return tenant
        raise RequestError(404, "No tenant has that id", code="not_found")


_Handler: TypeAlias = Callable[[_Question], Awaitable[tuple[int, Any]]]


class ControlApp:
    """The control routes of *hub* in front of *app*.

    Args:
        app: The wire.
        hub: The fake.
        token: What opens the routes; ``None``: a random one.

    Attributes:
        token: What opens them.
    """

    def __init__(self, app: Application, hub: FakeHubCore, token: str | None = None) -> None:
        self._app = app
        self._hub = hub
        self._lasting: dict[str, AbstractContextManager[object]] = {}
        self.token = secrets.token_urlsafe(32) if token is None else token

    def __repr__(self) -> str:
        return f"<ControlApp of {self._hub!r}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request below ``/_fake/``; hand any other on."""
        if scope["type"] != "http" or not scope["raw_path"].startswith(b"/_fake"):
            await self._app(scope, receive, send)
            return
        try:
            answer = await self._answer(scope, receive)
        except RequestError as error:
            answer = Answer(status=error.status, body=encoded(error.body), headers=error.headers)
        except ClientGoneError:
            return
        await reply(answer, send)

    async def _answer(self, scope: Scope, receive: Receive) -> Answer:
        headers = list(scope["headers"])
        shown = [value for name, value in headers if name.lower() == TOKEN]
        if len(shown) != 1 or not compare_digest(shown[0], self.token.encode("ascii")):
            raise RequestError(401, "Invalid control token")
        handler, path = _found(scope)
        with _field("body"):
            status, value = await handler(_Question(self._hub, path, receive, headers, self._lasting))
        return Answer(status=status, body=json.dumps(value, default=str).encode("utf-8"))


@contextmanager
def _field(name: str) -> Iterator[None]:
    """Turn what the model refuses into 400 with the field's name; what it cannot keep is nobody's field: 503."""
    try:
        yield
    except HubUnavailableError as error:
        raise RequestError(503, "Service temporarily unavailable", details=str(error)) from None
    except TenancyError as error:
        raise bad_field(name, str(error)) from None


def _issued(tenant: FakeTenant, seed: KeySeed) -> dict[str, Any]:
    with _field("permissions"):
        checked_permissions(seed.permissions)
    with _field("functions"):
        checked_rules("functions", seed.functions)
    with _field("service"):
        checked_service(seed.service)
    with _field("name"):
        return issue(tenant, seed)


async def reply(answer: Answer, send: Send) -> None:
    """Send an answer of the fake's own."""
    standing = [
        (b"content-type", b"application/json"),
        (b"x-hivehub-authority", b"fake"),
        (b"cache-control", b"no-store"),
        (b"content-length", str(len(answer.body)).encode("ascii")),
    ]
    await send({"type": "http.response.start", "status": answer.status, "headers": [*standing, *answer.headers]})
    await send({"type": "http.response.body", "body": answer.body})


# --- routes ----------------------------------------------------------------------------------------------------------


async def _reset(question: _Question) -> tuple[int, Any]:
    await question.body(_Nothing)
    _end_lasting(question)
    question.hub.reset()
    return 200, {}


async def _tenants(question: _Question) -> tuple[int, Any]:
    return 200, {"tenants": [_told(tenant) for tenant in question.hub.tenants]}


async def _add_tenant(question: _Question) -> tuple[int, Any]:
    asked: _NewTenant = await question.body(_NewTenant)
    if any(tenant.name == asked.name for tenant in question.hub.tenants):
        raise RequestError(409, "A tenant has that name", code="exists", field="name")
    _check_plan(question.hub, asked.plan)
    with _field("name"):
        tenant = question.hub.add_tenant(asked.name, plan=asked.plan)
    try:
        _limit(tenant, asked.limits)
        made = card(tenant, [_issued(tenant, key) for key in asked.keys])
    except RequestError:
        tenant.delete()  # who was refused finds nothing begun
        raise
    return 201, made if asked.keys else {name: made[name] for name in ("id", "name", "plan")}


async def _tenant(question: _Question) -> tuple[int, Any]:
    return 200, _told(question.tenant)


def _limit(tenant: FakeTenant, limits: Mapping[str, int | None]) -> None:
    for dimension, limit in limits.items():
        with _field("limits"):
            tenant.set_limit(dimension, limit)


async def _change_tenant(question: _Question) -> tuple[int, Any]:
    asked: _TenantChange = await question.body(_TenantChange)
    tenant = question.tenant
    with question.hub.service.transaction() as state:
        before = state.tenants[tenant.id]
        try:
            _change(question.hub, tenant, asked)
        except RequestError:
            state.tenants[tenant.id] = before  # all that was asked for, or nothing
            raise
    return 200, _told(tenant)


def _change(hub: FakeHubCore, tenant: FakeTenant, asked: _TenantChange) -> None:
    if asked.plan is not None:
        _check_plan(hub, asked.plan)
        tenant.set_plan(asked.plan)
    if asked.status is not None:
        change = {"active": tenant.resume, "suspended": tenant.suspend, "deleting": tenant.begin_deletion}
        with _field("status"):
            change[asked.status]()
    _limit(tenant, asked.limits or {})


def _check_plan(hub: FakeHubCore, plan: str) -> None:
    if plan not in hub.plans:
        raise bad_field("plan", f"there are {', '.join(sorted(hub.plans))}")


async def _delete_tenant(question: _Question) -> tuple[int, Any]:
    question.tenant.delete()
    return 200, {}


async def _add_key(question: _Question) -> tuple[int, Any]:
    tenant = question.tenant
    return 201, _issued(tenant, await question.body(KeySeed))


async def _faults(question: _Question) -> tuple[int, Any]:
    hub = question.hub
    return 200, {"down": hub.down, "faults": hub.planted, "late": hub.late, "lasting": sorted(question.lasting)}


async def _add_fault(question: _Question) -> tuple[int, Any]:
    asked: _Fault = await question.body(_Fault)
    hub = question.hub
    stated: dict[str, Any] = {name: getattr(asked, name) for name in _FAULT_FIELDS if name in asked.model_fields_set}
    with _field("calls"):
        known(asked.calls)
    whole = {name for name in _OF_THE_HUB if getattr(asked, name) is not None}
    if whole and not asked.model_fields_set <= whole:
        raise bad_field(min(asked.model_fields_set - whole), "goes with no fault of the hub as a whole")
    if whole:
        _of_the_hub(question, asked)
    elif asked.rate is not None or asked.seed is not None:
        if asked.rate is None or asked.seed is None:
            raise bad_field("seed" if asked.seed is None else "rate", "goes with the other")
        kinds = [_fault(stated)] if stated else USUAL_FAULTS
        hub.faults(*asked.calls, seed=asked.seed, rate=asked.rate, kinds=kinds)
    else:
        _fault(stated)
        with _field("events"):
            hub.fail(*asked.calls, times=asked.times, **stated)
    return 201, {"faults": hub.planted}


def _fault(stated: Mapping[str, Any]) -> Fault:
    """Return the fault, or say which field of it is wrong: its own message begins with that."""
    try:
        return made_fault(stated)
    except ConfigurationError as error:
        name = next((name for name in _FAULT_FIELDS if str(error).startswith(name)), "body")
        raise bad_field(name, str(error)) from None


def _of_the_hub(question: _Question, asked: _Fault) -> None:
    """Begin or end what is wrong with the hub as a whole."""
    hub = question.hub
    if asked.without is not None:
        if not set(asked.without) <= set(ALL_EXTENSIONS):
            raise bad_field("without", f"extensions are {', '.join(ALL_EXTENSIONS)}")
        _let_last(question, "without", hub.without(*asked.without) if asked.without else None)
    if asked.down is not None:
        hub.down = asked.down
    if asked.new_epoch:
        hub.start_epoch()
    if asked.stale_replica is not None:
        _let_last(question, "stale_replica", hub.stale_replica() if asked.stale_replica else None)
    if asked.service_key_rejected is not None:
        _let_last(question, "service_key_rejected", hub.service_key_rejected() if asked.service_key_rejected else None)


def _let_last(question: _Question, name: str, block: AbstractContextManager[object] | None) -> None:
    """End what lasts under *name*, and let *block* last in its place."""
    before = question.lasting.pop(name, None)
    if before is not None:
        before.__exit__(None, None, None)
    if block is not None:
        block.__enter__()
        question.lasting[name] = block


def _end_lasting(question: _Question) -> None:
    for name in tuple(question.lasting):
        _let_last(question, name, None)


async def _heal(question: _Question) -> tuple[int, Any]:
    _end_lasting(question)
    question.hub.heal()
    return 200, {}


async def _clock(question: _Question) -> tuple[int, Any]:
    hub = question.hub
    wall, true = hub.service.clock.now()[1], hub.clock.now()[1]
    return 200, {"now": wall, "skew_seconds": round((wall - true) / SECOND_US, 3)}


async def _move_clock(question: _Question) -> tuple[int, Any]:
    asked: _Clock = await question.body(_Clock)
    wall, true = question.hub.service.clock.now()[1], question.hub.clock.now()[1]
    skew_us = wall - true if asked.skew_seconds is None else asked.skew_seconds * SECOND_US
    if true + skew_us + asked.advance_seconds * SECOND_US > _LATEST_US:
        raise bad_field("skew_seconds" if not asked.advance_seconds else "advance_seconds", "goes beyond the year 9000")
    if asked.skew_seconds is not None:
        question.hub.skew(asked.skew_seconds)
    question.hub.advance(asked.advance_seconds)
    return await _clock(question)


async def _calls(question: _Question) -> tuple[int, Any]:
    return 200, {
        "calls": [
            {"name": call.name, "arguments": dict(call.arguments), "at": call.at_us, "outcome": call.outcome}
            for call in question.hub.calls
        ]
    }


async def _forget_calls(question: _Question) -> tuple[int, Any]:
    question.hub.forget_calls()
    return 200, {}


async def _snapshot(question: _Question) -> tuple[int, Any]:
    service = question.hub.service
    return 200, {
        "hub_id": service.hub_id,
        "authority": service.authority,
        "epoch": service.epoch,
        "revision": service.revision,
        "extensions": sorted(service.extensions),
        "plans": sorted(service.plans),
        "tenants": [_told(tenant) for tenant in question.hub.tenants],
    }


def _told(tenant: FakeTenant) -> dict[str, Any]:
    """Return all of a tenant that is no secret."""
    return {
        "id": tenant.id,
        "name": tenant.name,
        "plan": tenant.plan,
        "status": tenant.status,
        "keys": [_told_key(key) for key in tenant.keys],
        "used": tenant.all_used(),
    }


def _told_key(key: Key) -> dict[str, Any]:
    revoked = key.revoked_at_us is not None
    return {"id": key.key_id, "name": key.name, "version": key.newest.version, "revoked": revoked}


_ROUTES: Final[Mapping[str, Mapping[str, _Handler]]] = {
    "reset": {"POST": _reset},
    "tenants": {"GET": _tenants, "POST": _add_tenant},
    "tenants/{id}": {"GET": _tenant, "PATCH": _change_tenant, "DELETE": _delete_tenant},
    "tenants/{id}/keys": {"POST": _add_key},
    "faults": {"GET": _faults, "POST": _add_fault, "DELETE": _heal},
    "clock": {"GET": _clock, "POST": _move_clock},
    "calls": {"GET": _calls, "DELETE": _forget_calls},
    "snapshot": {"GET": _snapshot},
}


def _found(scope: Scope) -> tuple[_Handler, dict[str, str]]:
    try:
        segments = split_path(scope["raw_path"])
    except ValueError as error:
        raise bad_field("path", str(error)) from None
    for template, methods in _ROUTES.items():
        wanted = ["_fake", *template.split("/")]
        if len(wanted) == len(segments) and all(w in (s, "{id}") for w, s in zip(wanted, segments, strict=True)):
            if scope["method"] not in methods:
                allow = ", ".join(sorted(methods)).encode("ascii")
                raise RequestError(405, "Method not allowed", headers=((b"allow", allow),))
            return methods[scope["method"]], {"id": segments[wanted.index("{id}")]} if "{id}" in wanted else {}
    raise RequestError(404, "Not found")

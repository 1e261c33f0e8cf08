"""HiveHub's wire as an ASGI application, over any control plane of ours.

A request is looked at in one order, and what is wrong first is what is answered: the service key (401, whatever else
the request is), the path (400 for one that cannot be taken apart, 404), the method (405), what the service key is good
for (403), the path's values, the query, the body, the call itself. So a stranger learns nothing but that it is one, and
a path proves nothing.

It is plain ASGI with a router of its own, because wire 4.9 wants the *raw* path split before it is decoded. Servers
hand that over as ``raw_path`` (uvicorn, hypercorn and httpx do); it is served at the root of its server, at no path
below. It never redirects and derives nothing from ``Host``. An error that is nobody's mistake but ours is raised to the
server, which logs it and answers 500.

Source: HiveHub wire, all parts; 4.9 for paths, part 5 for bad input.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from hivetenancy.clock import SECOND_US
from hivetenancy.errors import ConfigurationError, HubRefusedError, HubUnavailableError
from hivetenancy.hub import wire
from hivetenancy.hub.names import split_path

from . import api_extensions, api_keys, api_services
from .api_http import (
    Answer,
    ClientGoneError,
    Receive,
    RequestError,
    Scope,
    Send,
    encoded,
    parse_body,
    read_body,
    read_query,
)
from .api_once import read_key
from .api_routes import IDEMPOTENCY, KEY_MANAGEMENT, PATH_PARAMETERS, PREFIX, ROUTES, Route
from .backend import Backend, Handler, Question, ServiceBackend
from .credentials import ServiceIdentity
from .service import HubService

SERVICE_KEY: Final = b"x-service-key"
AUTHORITY: Final = b"x-hivehub-authority"

_HANDLERS: Final[Mapping[str, Handler]] = {
    **api_keys.HANDLERS,
    **api_services.HANDLERS,
    **api_extensions.HANDLERS,
}
_SERVICES: Final = frozenset(service.value for service in wire.Service)
_Headers = Iterable[tuple[bytes, bytes]]


def hub_app(backend: Backend | HubService) -> HubApp:
    """Return the application that speaks the wire for *backend*.

    Args:
        backend: The control plane, or what stands in front of it.
    """
    return HubApp(ServiceBackend(backend) if isinstance(backend, HubService) else backend)


class HubApp:
    """HiveHub's wire as an ASGI application; see `hub_app`.

    Concurrency:
        Any number of requests under one event loop.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._headers = (
            (b"content-type", b"application/json"),
            (AUTHORITY, backend.service.authority.encode("ascii")),
        )

    def __repr__(self) -> str:
        return f"<HubApp of {self._backend.service!r}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or take part in the server's start and stop; a websocket is refused."""
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": ""})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            answer = await self.answer(scope, receive)
        except ClientGoneError:
            return  # nobody is left to be told
        headers = [*self._headers, *answer.headers, (b"content-length", str(len(answer.body)).encode("ascii"))]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})

    async def answer(self, scope: Scope, receive: Receive) -> Answer:
        """Return the answer to one request, refusals included; nothing is sent.

        Raises:
            ClientGoneError: The caller hung up.
            ConfigurationError: The server passes no ``raw_path``.
        """
        try:
            return await self._success(scope, receive)
        except RequestError as error:
            return Answer(status=error.status, body=encoded(error.body), headers=error.headers)
        except HubRefusedError as error:
            return _refused(error)
        except HubUnavailableError as error:
            return _unavailable(error)

    async def _success(self, scope: Scope, receive: Receive) -> Answer:
        headers: Sequence[tuple[bytes, bytes]] = list(scope["headers"])
        identity = self._authenticated(headers)
        extensions = self._backend.service.extensions
        found = find_route(_segments(scope), scope["method"], extensions)
        _authorise(identity, found)
        route = found.route
        path = {name: PATH_PARAMETERS[name].read(text) for name, text in found.path.items()}
        known = [each for each in route.query if each.extension is None or each.extension in extensions]
        query = read_query(scope["query_string"], known, strict=route.strict)
        raw_body, body = b"", None
        if route.body is not None:
            raw_body = await read_body(receive, headers)
            body = parse_body(raw_body, _body_model(route, extensions) or route.body)
        takes_key = route.idempotent and IDEMPOTENCY in extensions
        question = Question(
            route=route,
            identity=identity,
            extensions=extensions,
            path=path,
            query=query,
            body=body,
            raw_body=raw_body,
            target=scope["raw_path"] + b"?" + scope["query_string"],
            idempotency_key=read_key(_values(headers, b"idempotency-key")) if takes_key else None,
            receive=receive,
        )
        return await _HANDLERS[route.name](self._backend, question)

    def _authenticated(self, headers: _Headers) -> ServiceIdentity:
        """Return who calls; the same 401 for a key that is missing, there twice, or wrong."""
        presented = _values(headers, SERVICE_KEY)
        identity = self._backend.authenticate(presented[0].decode("latin-1")) if len(presented) == 1 else None
        if identity is None:
            raise RequestError(401, "Invalid API key")
        return identity


def _values(headers: _Headers, name: bytes) -> list[bytes]:
    return [value for header, value in headers if header.lower() == name]


def _body_model(route: Route, extensions: frozenset[str]) -> Any:
    return route.body_with_keys if KEY_MANAGEMENT in extensions else None


# --- routing ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A route, with what the path says for its parameters, decoded and not yet judged."""

    route: Route
    path: Mapping[str, str]


def _segments(scope: Scope) -> Sequence[str]:
    raw: bytes | None = scope.get("raw_path")
    if raw is None:
        raise ConfigurationError("this ASGI server passes no raw_path, without which a path cannot be read safely")
    try:
        return split_path(raw)
    except ValueError as error:
        raise RequestError(400, str(error), code="bad_field", field="path") from None


def find_route(segments: Sequence[str], method: str, extensions: frozenset[str]) -> Found:
    """Return the route for a path and method, among those that the hub speaks.

    A path whose every route belongs to an extension that is off is unknown, even where another path's parameter would
    take it in: switching an extension off must not turn it into a bad request.

    Raises:
        RequestError: 404, or 405 with ``Allow``.
    """
    candidates: list[tuple[int, Route, dict[str, str]]] = []
    for route, template in _TEMPLATES:
        values = _match(template, segments)
        if values is not None:
            candidates.append((len(values), route, values))
    least = min((count for count, _, _ in candidates), default=0)
    spoken = {
        route.method: Found(route=route, path=values)
        for count, route, values in candidates
        if count == least and (route.extension is None or route.extension in extensions)
    }
    if not spoken:
        raise RequestError(404, "Not found")
    if method not in spoken:
        allow = ", ".join(sorted(spoken)).encode("ascii")
        raise RequestError(405, "Method not allowed", headers=((b"allow", allow),))
    return spoken[method]


_TEMPLATES: Final = tuple((route, (PREFIX + route.path)[1:].split("/")) for route in ROUTES)


def _match(template: Sequence[str], segments: Sequence[str]) -> dict[str, str] | None:
    """Return the parameters of a path that fits; a trailing slash and an unknown service fit nothing."""
    if len(template) != len(segments) or not segments[-1]:
        return None
    values: dict[str, str] = {}
    for wanted, got in zip(template, segments, strict=True):
        if wanted.startswith("{"):
            values[wanted[1:-1]] = got
        elif wanted != got:
            return None
    return None if values.get("service", "nexus") not in _SERVICES else values


def _authorise(identity: ServiceIdentity, found: Found) -> None:
    """Refuse what the service key is not good for, by scope and by the service in the path."""
    route = found.route
    service = found.path.get("service") or (None if route.service is None else route.service.value)
    scope_is_there = route.scope is None or route.scope in identity.scopes
    if not scope_is_there or (service is not None and identity.service not in (None, service)):
        raise RequestError(403, "Access denied", code="forbidden")


# --- refusals --------------------------------------------------------------------------------------------------------


def _refused(error: HubRefusedError) -> Answer:
    """Whatever the control plane refuses. A throttle always says when to come back."""
    headers = ((b"retry-after", b"1"),) if error.code == "rate_limited" else ()
    body = wire.ErrorBody(error=str(error), code=error.code, field=error.field)
    return Answer(status=error.status, body=encoded(body), headers=headers)


def _unavailable(error: HubUnavailableError) -> Answer:
    wait = error.retry_after_us
    headers = () if wait is None else ((b"retry-after", str(max(1, -(-wait // SECOND_US))).encode("ascii")),)
    body = wire.ErrorBody(error="Service temporarily unavailable", details=str(error))
    return Answer(status=503, body=encoded(body), headers=headers)


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return

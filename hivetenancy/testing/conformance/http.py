"""A subject for servers that speak HTTP: an ASGI application in this process, or a URL.

Write `app`, and a `Route` for each operation. The tenancy comes from the suite: a fake hub with the tenants of the
case, behind the namespace manager that is under test. What a tenant observes is status, content type and body; headers
of the tenancy, which say how much of a limit is left, are its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal
from urllib.parse import quote

import httpx

from hivetenancy.adapters.exchange import ASGIApp
from hivetenancy.compose import Tenancy
from hivetenancy.errors import ConfigurationError

from .hosting import Hosted
from .subject import Running, ServerCrashedError, Setting, Subject

_TIMEOUT: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """How an operation is called over HTTP.

    Attributes:
        method: The method.
        path: The path; ``{key}`` is the argument of that name, with every reserved character escaped.
        body: The argument that is the body, as text or bytes; ``None``: there is none, or *json* says it.
        json: The arguments that make up a body of JSON, an object.
        query: The arguments that go into the query.
    """

    method: str
    path: str
    body: str | None = None
    json: tuple[str, ...] = ()
    query: tuple[str, ...] = ()

    def request(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return what `httpx.AsyncClient.request` takes."""
        path = self.path
        for name, value in arguments.items():
            path = path.replace("{" + name + "}", quote(str(value), safe=""))
        made: dict[str, Any] = {"method": self.method, "url": path}
        if self.body is not None:
            value = arguments[self.body]
            made["content"] = value if isinstance(value, bytes) else str(value).encode()
        if self.json:
            made["json"] = {name: arguments[name] for name in self.json}
        if self.query:
            made["params"] = {name: arguments[name] for name in self.query if arguments[name] is not None}
        return made


class HttpSubject(Subject):
    """A subject for an ASGI application.

    For a server elsewhere, override `start`: start it, and return an `HttpRunning` with its URL and the headers of each
    tenant.

    Attributes:
        routes: How each operation is called, by its name.
        public: As for `Tenancy.asgi`.
    """

    surfaces = ("http",)
    alone: Literal["standalone", "single"] = "single"
    routes: ClassVar[Mapping[str, Route]] = {}
    public: tuple[str, ...] = ()

    def app(self, tenancy: Tenancy) -> ASGIApp:
        """Return the application that holds nothing, with *tenancy* around it."""
        raise TypeError(f"{type(self).__name__} has no method app(tenancy)")

    async def start(self, setting: Setting) -> Any:
        """Return the application, running."""
        missing = [operation.name for operation in self.operations if operation.name not in self.routes]
        if missing:
            raise ConfigurationError(f"{type(self).__name__}.routes has no Route for operation {missing[0]!r}")
        hosted = Hosted(setting)
        transport = httpx.ASGITransport(app=self.app(hosted.tenancy), raise_app_exceptions=False)
        stack = AsyncExitStack()
        await stack.enter_async_context(hosted.tenancy)
        client = httpx.AsyncClient(transport=transport, base_url="http://server", timeout=_TIMEOUT)
        await stack.enter_async_context(client)
        headers = {one.id: hosted.headers(one.id) for one in setting.tenants}
        return HttpRunning(self.routes, client, headers, hosted.secrets(), stack)


class HttpRunning(Running):
    """A server that is reached over HTTP.

    Args:
        routes: How each operation is called.
        client: Reaches it.
        headers: What each tenant's requests carry, by its id.
        secrets: What nothing may show.
        stack: What to close at the end.
    """

    def __init__(
        self,
        routes: Mapping[str, Route],
        client: httpx.AsyncClient,
        headers: Mapping[str, Mapping[str, str]],
        secrets: list[str],
        stack: AsyncExitStack,
    ) -> None:
        self.client = client
        self._routes = routes
        self._headers = headers
        self._secrets = secrets
        self._stack = stack

    async def call(self, tenant: str, operation: str, arguments: Mapping[str, Any], surface: str) -> Any:
        """Send the request, and return status, type and body.

        Raises:
            ServerCrashedError: Nothing answers.
        """
        request = self._routes[operation].request(arguments)
        try:
            answer = await self.client.request(**request, headers=dict(self._headers[tenant]))
        except httpx.TransportError as error:
            raise ServerCrashedError(f"no answer to {operation}: {type(error).__name__}") from error
        return observed(answer)

    async def stop(self) -> None:
        """Close the client, and stop what was started for it."""
        await self._stack.aclose()

    def secrets(self) -> list[str]:
        """Return the access keys."""
        return self._secrets


def observed(answer: httpx.Response) -> dict[str, Any]:
    """Return what a tenant observes of an answer: status, type, where it is sent, and the body."""
    kind = answer.headers.get("content-type", "").partition(";")[0]
    body: Any = answer.content
    if kind == "application/json" or kind.endswith("+json"):
        try:
            body = json.loads(answer.content)
        except ValueError:
            body = answer.content
    elif kind.startswith("text/"):
        body = answer.text
    seen = {"status": answer.status_code, "type": kind, "body": body}
    location = answer.headers.get("location")
    return seen if location is None else {**seen, "location": location}

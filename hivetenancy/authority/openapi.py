"""The OpenAPI document of the wire, made from the table that the application routes by and the models it answers with.

So it cannot say anything else than the application does, and the tests hold every reply of the application against it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, Final, TypeAlias

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from hivetenancy.hub import wire

from .api_http import Parameter
from .api_routes import IDEMPOTENCY, PATH_PARAMETERS, PREFIX, ROUTES, Route
from .view import WIRE_VERSION

_JSON: Final = "application/json"
_ERRORS: Final[Mapping[int, str]] = {
    400: "A field, the path, the query or the body is wrong; `field` names it.",
    401: "The service key is missing or wrong. Nothing else was looked at.",
    403: "The service key is not good for this scope or service.",
    404: "There is no such thing, or it is somebody else's.",
    409: "Not as things stand; `code` says why.",
    413: "The body has more than 1 MiB.",
    422: "The idempotency key was used for another body.",
    429: "A limit is reached; with `code` `rate_limited` and `Retry-After`, a throttle.",
    503: "Cannot be told now; `code` is `replica_behind` where the state here is older than what was asked for.",
}
_Models: TypeAlias = Mapping[tuple[Any, JsonSchemaMode], dict[str, Any]]


def openapi() -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of all calls, extensions included, as plain JSON values."""
    schemas, definitions = models_json_schema(
        sorted(_models(), key=lambda item: (item[0].__name__, item[1])),
        ref_template="#/components/schemas/{model}",
    )
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(PREFIX + route.path, {})[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "HiveHub, as hivetenancy speaks it",
            "version": WIRE_VERSION,
            "description": "The 23 calls of HiveHub's internal wire, and the extensions X0 to X6.",
        },
        "security": [{"serviceKey": []}],
        "paths": paths,
        "components": {
            "schemas": definitions["$defs"],
            "securitySchemes": {"serviceKey": {"type": "apiKey", "in": "header", "name": "X-Service-Key"}},
        },
    }


def _models() -> set[tuple[type[BaseModel], JsonSchemaMode]]:
    found: set[tuple[type[BaseModel], JsonSchemaMode]] = {(wire.ErrorBody, "serialization")}
    for route in ROUTES:
        found |= {(model, "validation") for model in (route.body, route.body_with_keys) if model is not None}
        found |= {(model, "serialization") for model in route.reply}
    return found


def _operation(route: Route, schemas: _Models) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.about,
        "description": _description(route),
        "tags": [route.name.split(".")[0] if "." in route.name else "extensions"],
        "parameters": list(_parameters(route)),
        "responses": {str(status): _response(route, status, schemas) for status in route.statuses},
    }
    bodies = [model for model in (route.body_with_keys, route.body) if model is not None]
    if bodies:
        content = [schemas[model, "validation"] for model in bodies]
        schema = content[0] if len(content) == 1 else {"anyOf": content}
        operation["requestBody"] = {"required": True, "content": {_JSON: {"schema": schema}}}
    return operation


def _description(route: Route) -> str:
    number = f"Call {route.number}." if route.number.isdigit() else f"Extension {route.number}."
    scope = "" if route.scope is None else f" Needs the scope `{route.scope}`."
    extension = "" if route.extension is None else f" 404 where `{route.extension}` is not spoken."
    return number + scope + extension


def _parameters(route: Route) -> Iterable[dict[str, Any]]:
    for name in route.parameters:
        yield {**_parameter(PATH_PARAMETERS[name]), "in": "path", "required": True}
    for parameter in route.query:
        yield {**_parameter(parameter), "in": "query", "required": parameter.required}
    if route.idempotent:
        yield {
            "name": "Idempotency-Key",
            "in": "header",
            "required": False,
            "description": f"The call has its effect once under it, where `{IDEMPOTENCY}` is spoken.",
            "schema": {"type": "string", "pattern": "^[!-~]{8,128}$"},
        }


def _parameter(parameter: Parameter) -> dict[str, Any]:
    schema = parameter.type.json_schema()
    if parameter.at_most > 1:
        schema = {"type": "array", "items": schema, "maxItems": parameter.at_most}
    return {"name": parameter.name, "description": parameter.about, "schema": schema}


def _response(route: Route, status: int, schemas: _Models) -> dict[str, Any]:
    headers = {"X-Hivehub-Authority": {"schema": {"type": "string"}, "description": "What this hub says it is."}}
    if status != route.status:
        schema = schemas[wire.ErrorBody, "serialization"]
        return {"description": _ERRORS[status], "headers": headers, "content": {_JSON: {"schema": schema}}}
    replies = [schemas[model, "serialization"] for model in route.reply]
    schema = {"type": "object"} if not replies else replies[0] if len(replies) == 1 else {"allOf": replies}
    return {"description": HTTPStatus(status).phrase, "headers": headers, "content": {_JSON: {"schema": schema}}}

"""The OpenAPI document: that it is one, that it is complete, and that replies are really held against it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from hivetenancy.authority import api, api_services
from hivetenancy.authority.api_http import Answer
from hivetenancy.authority.api_routes import ROUTES
from hivetenancy.authority.openapi import openapi

from .asking import BASE, DOCUMENT, Asker, examples_of

pytestmark = pytest.mark.anyio

OPERATIONS = {
    operation["operationId"]: (path, method, operation)
    for path, item in DOCUMENT["paths"].items()
    for method, operation in item.items()
}


def test_it_is_openapi_3_1_and_plain_json() -> None:
    """The fields that a reader looks for first, and the same document each time."""
    assert DOCUMENT["openapi"] == "3.1.0"
    assert DOCUMENT["components"]["securitySchemes"]["serviceKey"]["name"] == "X-Service-Key"
    assert json.loads(json.dumps(DOCUMENT)) == openapi()


def test_it_has_every_call_of_the_table_and_the_table_every_call_of_the_wire() -> None:
    """Each with a handler; 23 calls of today, and X0 to X6."""
    assert set(OPERATIONS) == {route.name for route in ROUTES} == set(api._HANDLERS)
    assert len(OPERATIONS) == len(ROUTES) == 32
    numbers = {route.number for route in ROUTES}
    assert {number for number in numbers if number.isdigit()} == {str(number) for number in range(1, 24)}
    assert numbers - {str(number) for number in range(1, 24)} == {"X0", "X1", "X2", "X3", "X4", "X6"}


def test_every_schema_is_one_and_every_reference_leads_somewhere() -> None:
    """A reference to nothing would let any reply pass."""
    found: list[str] = []

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            if isinstance(value.get("$ref"), str):
                found.append(value["$ref"])
            for each in value.values():
                walk(each)
        elif isinstance(value, list):
            for each in value:
                walk(each)

    walk(DOCUMENT)
    prefix = "#/components/schemas/"
    schemas = DOCUMENT["components"]["schemas"]
    assert found
    assert {reference for reference in found if reference.removeprefix(prefix) not in schemas} == set()
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)


def test_every_parameter_of_a_path_is_described() -> None:
    """Once, as required."""
    for path, _, operation in OPERATIONS.values():
        described = [each["name"] for each in operation["parameters"] if each["in"] == "path"]
        assert described == [part[1:-1] for part in path.split("/") if part.startswith("{")]
        assert all(each["required"] for each in operation["parameters"] if each["in"] == "path")


def test_every_call_says_each_way_it_can_be_refused() -> None:
    """401, 403, 429 and 503 for all; 413 for those with a body; 422 for those under an idempotency key."""
    for _, _, operation in OPERATIONS.values():
        statuses = set(operation["responses"])
        assert {"401", "403", "429", "503"} <= statuses
        assert ("requestBody" in operation) == ("413" in statuses)
        headers = {each["name"] for each in operation["parameters"] if each["in"] == "header"}
        assert (headers == {"Idempotency-Key"}) == ("422" in statuses)


@pytest.mark.parametrize("fake", [False, True])
async def test_an_example_of_every_call_succeeds_as_documented(fake: bool) -> None:
    """Each body fits the document too, and each reply is held against it: the model's, and the fake's own."""
    hub = Asker(fake=fake)
    told = examples_of(hub)
    assert {example.name for example in told} == set(OPERATIONS)
    for example in told:
        if example.body is not None:
            schema = OPERATIONS[example.name][2]["requestBody"]["content"]["application/json"]["schema"]
            Draft202012Validator({**schema, "components": DOCUMENT["components"]}).validate(example.body)
        query = f"?{example.query}" if example.query else ""
        got = await hub.ask(example.method, example.path + query, example.body)
        expected = next(route.status for route in ROUTES if route.name == example.name)
        assert got.status == expected, (example.name, got.json)


def test_the_document_knows_no_size_below_0() -> None:
    """What every call refuses is no example that a generated client may send."""
    size = DOCUMENT["components"]["schemas"]["QuotaCheck"]["properties"]["estimated_size"]
    assert [each["minimum"] for each in size["anyOf"] if each["type"] == "integer"] == [0]


def _without_total(reply: Any, made: Any) -> Any:
    answer = _real_call(reply, made)
    return answer.model_construct(**{name: value for name, value in answer if name != "total_collections"})


def _with_text(model: Any) -> bytes:
    return _real_encoded(model).replace(b'"total_collections":0', b'"total_collections":"0"')


_real_call = api_services.answers.call
_real_encoded = api_services.encoded


@pytest.mark.parametrize(
    "place, name, broken",
    [
        (api_services.answers, "call", _without_total),
        (api_services, "encoded", _with_text),
    ],
)
async def test_a_reply_outside_the_document_is_found(
    monkeypatch: pytest.MonkeyPatch, place: Any, name: str, broken: Any
) -> None:
    """An application that drops a field, or writes a number as a text, fails."""
    hub = Asker()
    monkeypatch.setattr(place, name, broken)
    with pytest.raises(AssertionError, match="total_collections"):
        await hub.ask("GET", f"/vectorizer/users/{hub.acme}/collections")


async def test_a_status_outside_the_document_is_found() -> None:
    """Likewise one that no refusal has, and a redirect."""
    hub = Asker()
    for status, match in ((418, "not in the document"), (307, "redirects")):

        async def answer(_scope: Any, _receive: Any, status: int = status) -> Answer:
            return Answer(status=status, body=b'{"error":"x"}')

        hub.app.answer = answer
        with pytest.raises(AssertionError, match=match):
            await hub.raw("GET", f"{BASE}/extensions".encode())

"""Calls 5 to 23 over HTTP: what the four services ask about their users.

They need no scope: today's wire knows none. What confines them is the service of the service key, which the application
holds against the path before it comes here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from pydantic import BaseModel

from hivetenancy.hub import wire
from hivetenancy.hub.names import check_name, owned

from . import answers
from .api_http import Answer, bad_field, encoded
from .api_once import Effect, once
from .backend import Backend, Handler, Question
from .desk import Desk

_Call = Callable[[Desk, Question], Any]


def _calls(reply: type[BaseModel] | None, call: _Call) -> Handler:
    """Return the handler that makes *call* and answers with its result as a *reply*, ``{}`` without one."""

    async def handler(backend: Backend, question: Question) -> Answer:
        desk = backend.service.desk

        def effect() -> Effect:
            made = call(desk, question)
            body = encoded(None if reply is None else answers.call(reply, made))
            return Effect(answer=Answer(status=question.route.status, body=body))

        return await backend.perform(
            question.route.name, lambda: once(backend.service, question, effect), journal(question)
        )

    return handler


def journal(question: Question) -> dict[str, object]:
    """What of a question a journal may keep: ids, names and numbers, and no free text."""
    asked: dict[str, object] = {**question.path}
    asked |= {name: value for name, value in question.query.items() if value is not None}
    if isinstance(question.body, BaseModel):
        fields = question.body.model_dump(mode="json", exclude_none=True, exclude={"description"})
        asked |= {name: value for name, value in fields.items() if name not in asked}
    if question.idempotency_key is not None:
        asked["idempotency_key"] = question.idempotency_key
    return asked


# --- vectorizer ------------------------------------------------------------------------------------------------------


def _get_user_collections(desk: Desk, question: Question) -> object:
    return desk.get_user_collections(question.path["user_id"])


def _create_collection(desk: Desk, question: Question) -> object:
    asked: wire.CreateCollection = question.body
    return desk.create_collection(question.path["user_id"], asked.collection_name, asked.project_id, asked.dimension)


def _validate_collection(desk: Desk, question: Question) -> object:
    return desk.validate_collection(question.path["collection_id"], question.query["user_id"])


def _update_collection(desk: Desk, question: Question) -> object:
    told: wire.CollectionUsage = question.body
    return desk.update_collection_usage(question.path["collection_id"], told.vector_count, told.storage_bytes)


def _check_quota(desk: Desk, question: Question) -> object:
    asked: wire.QuotaCheck = question.body
    assert question.route.service is not None  # each of the four routes has one
    return desk.check_quota(question.route.service.value, asked.project_id, asked.operation, asked.estimated_size)


# --- nexus -----------------------------------------------------------------------------------------------------------


def _get_user_database(desk: Desk, question: Question) -> object:
    return desk.get_user_database(question.path["user_id"])


def _consume_credits(desk: Desk, question: Question) -> object:
    asked: wire.Consume = question.body
    return desk.consume_credits(question.path["user_id"], asked.amount, asked.operation, asked.description)


def _update_nexus(desk: Desk, question: Question) -> None:
    told: wire.NexusUsage = question.body
    desk.update_nexus_usage(
        question.path["user_id"],
        nodes_created=told.nodes_created,
        relationships_created=told.relationships_created,
        storage_bytes=told.storage_bytes,
        credits_used=told.credits_used,
    )


# --- synap -----------------------------------------------------------------------------------------------------------


def _get_user_resources(desk: Desk, question: Question) -> object:
    return desk.get_user_resources(question.path["user_id"])


def _validate_resource(desk: Desk, question: Question) -> object:
    name, user = question.path["resource_name"], question.query["user_id"]
    return desk.validate_resource(_resource_name(name, user), user, question.query["type"].value)


def _create_resource(desk: Desk, question: Question) -> object:
    asked: wire.CreateResource = question.body
    config = asked.config or wire.ResourceConfig()
    return desk.create_resource(
        question.path["user_id"],
        asked.resource_type.value,
        asked.resource_name,
        max_size=config.max_size,
        ttl=config.ttl,
    )


def _update_resource(desk: Desk, question: Question) -> None:
    told: wire.SynapUsage = question.body
    user = question.path["user_id"]
    desk.update_synap_usage(
        user,
        told.resource_type.value,
        _resource_name(told.resource_name, user),
        message_count=told.message_count,
        storage_bytes=told.storage_bytes,
    )


def _resource_name(name: str, user: str) -> str:
    """Return *name* if it is a short name, or one with any user's prefix; whose it is, the desk says.

    Raises:
        RequestError: 400: no resource can have that name.
    """
    short = owned(name, user)
    if short is None:
        short = name.split(":", 1)[1]  # another user's prefix: foreign, and read like one's own
    try:
        check_name(short)
    except ValueError as error:
        raise bad_field("resource_name", str(error)) from None
    return name


# --- lesstokens ------------------------------------------------------------------------------------------------------


def _get_user_tokens(desk: Desk, question: Question) -> object:
    return desk.get_user_tokens(question.path["user_id"])


def _validate_tokens(desk: Desk, question: Question) -> object:
    return desk.validate_tokens(question.path["user_id"], question.query["required"])


def _consume_tokens(desk: Desk, question: Question) -> object:
    asked: wire.Consume = question.body
    return desk.consume_tokens(question.path["user_id"], asked.amount, asked.operation, asked.description)


def _check_token_limit(desk: Desk, question: Question) -> object:
    return desk.check_token_limit(question.path["user_id"])


HANDLERS: Final[Mapping[str, Handler]] = MappingProxyType(
    {
        "vectorizer.get_user_collections": _calls(wire.UserCollections, _get_user_collections),
        "vectorizer.create_collection": _calls(wire.CreatedCollection, _create_collection),
        "vectorizer.validate_collection": _calls(wire.CollectionValidation, _validate_collection),
        "vectorizer.update_usage": _calls(wire.UpdatedCollection, _update_collection),
        "vectorizer.check_quota": _calls(wire.QuotaVerdict, _check_quota),
        "nexus.get_user_database": _calls(wire.UserDatabase, _get_user_database),
        "nexus.check_quota": _calls(wire.QuotaVerdict, _check_quota),
        "nexus.consume_credits": _calls(wire.ConsumedCredits, _consume_credits),
        "nexus.update_usage": _calls(None, _update_nexus),
        "synap.get_user_resources": _calls(wire.UserResources, _get_user_resources),
        "synap.validate_resource": _calls(wire.ResourceValidation, _validate_resource),
        "synap.create_resource": _calls(wire.CreatedResource, _create_resource),
        "synap.update_usage": _calls(None, _update_resource),
        "synap.check_quota": _calls(wire.QuotaVerdict, _check_quota),
        "lesstokens.get_user_tokens": _calls(wire.UserTokens, _get_user_tokens),
        "lesstokens.validate_tokens": _calls(wire.TokenValidation, _validate_tokens),
        "lesstokens.consume_tokens": _calls(wire.ConsumedTokens, _consume_tokens),
        "lesstokens.check_limit": _calls(wire.TokenLimit, _check_token_limit),
        "lesstokens.check_quota": _calls(wire.QuotaVerdict, _check_quota),
    }
)
"""By name of the call."""

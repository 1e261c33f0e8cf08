"""Calls 1 to 4 and X6 over HTTP: access keys.

A service key of one service makes, sees and revokes keys of that service alone. Without ``key_management`` the calls
are those of today: a key that call 1 makes belongs to nobody, and no reply says whose a key is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from hivetenancy.hub import wire

from .api_http import Answer, encoded
from .api_once import Effect, once
from .api_routes import KEY_MANAGEMENT
from .api_services import journal
from .backend import Backend, Handler, Question
from .resources import KeyEntry, RevokedKey, ShownKey

_NO_STORE: Final = ((b"cache-control", b"no-store"),)


async def _perform(backend: Backend, question: Question, effect: Callable[[], Effect]) -> Answer:
    return await backend.perform(
        question.route.name, lambda: once(backend.service, question, effect), journal(question)
    )


def _managed(question: Question) -> bool:
    return KEY_MANAGEMENT in question.extensions


async def _generate(backend: Backend, question: Question) -> Answer:
    asked: wire.GenerateKey | wire.GenerateOwnedKey = question.body
    question.identity.require("keys", asked.service.value)

    def effect() -> Effect:
        made = backend.service.desk.generate_key(
            asked.service.value,
            asked.name,
            [permission.value for permission in asked.permissions],
            expires_at_us=asked.expires_at,
            **_confined(asked),
        )
        body = encoded(_generated(made, managed=_managed(question)))
        return Effect(answer=Answer(body=body, headers=_NO_STORE), secret_of=(made.key.id, made.key.version))

    return await _perform(backend, question, effect)


def _confined(asked: wire.GenerateKey | wire.GenerateOwnedKey) -> dict[str, Any]:
    if isinstance(asked, wire.GenerateKey):
        return {}
    return {
        "user_id": asked.user_id,
        "functions": asked.functions,
        "resources": asked.resources,
        "networks": asked.networks or (),
        "environment": asked.environment,
        "not_before_us": asked.not_before,
        "parent_key_id": asked.parent_key_id,
    }


def _generated(made: ShownKey, *, managed: bool) -> wire.GeneratedKey:
    key = made.key
    shown = wire.GeneratedKey(
        success=True,
        access_key=made.access_key,
        access_key_id=key.id,
        service=wire.Service(key.service),
        name=key.name,
        permissions=tuple(wire.WirePermission(permission.value) for permission in key.permissions),
        created_at=key.created_at_us,
        expires_at=key.expires_at_us,
    )
    if not managed:
        return shown
    return shown.model_copy(
        update={
            "user_id": key.user_id,
            "functions": key.functions,
            "resources": key.resources,
            "networks": key.networks,
            "environment": key.environment.value,
            "not_before": key.not_before_us,
            "version": key.version,
            "epoch": made.epoch,
            "revision": made.revision,
            "now": made.now_us,
        }
    )


async def _list(backend: Backend, question: Question) -> Answer:
    query, caller = question.query, question.identity.service
    service = None if query["service"] is None else query["service"].value
    question.identity.require("keys", service)

    def effect() -> Effect:
        page = backend.service.desk.list_keys(
            service,
            user_id=query.get("user_id"),
            limit=query.get("limit"),
            cursor=query.get("cursor"),
            caller=caller,
        )
        keys = tuple(_info(key, managed=_managed(question)) for key in page.keys)
        shown = wire.KeyList(keys=keys, cursor=page.cursor)
        if _managed(question):
            shown = shown.model_copy(update={"epoch": page.epoch, "revision": page.revision, "now": page.now_us})
        return Effect(answer=Answer(body=encoded(shown)))

    return await _perform(backend, question, effect)


async def _get(backend: Backend, question: Question) -> Answer:
    def effect() -> Effect:
        key = backend.service.desk.get_key(question.path["key_id"], caller=question.identity.service)
        return Effect(answer=Answer(body=encoded(_info(key, managed=_managed(question)))))

    return await _perform(backend, question, effect)


def _info(key: KeyEntry, *, managed: bool) -> wire.KeyInfo:
    return wire.KeyInfo(
        id=key.id,
        service=wire.Service(key.service),
        name=key.name,
        permissions=tuple(wire.WirePermission(permission.value) for permission in key.permissions),
        active=key.active,
        created_at=key.created_at_us,
        last_used_at=key.last_used_at_us,
        expires_at=key.expires_at_us,
        user_id=key.user_id if managed else None,
        version=key.version if managed else None,
    )


async def _revoke(backend: Backend, question: Question) -> Answer:
    def effect() -> Effect:
        done = backend.service.desk.revoke_key(question.path["key_id"], caller=question.identity.service)
        return Effect(answer=Answer(body=encoded(_revoked(done, managed=_managed(question)))))

    return await _perform(backend, question, effect)


def _revoked(done: RevokedKey, *, managed: bool) -> wire.RevokedKey:
    shown = wire.RevokedKey(success=done.success, message=done.message)
    if not managed:
        return shown
    return shown.model_copy(update={"epoch": done.epoch, "revision": done.revision, "now": done.now_us})


async def _rotate(backend: Backend, question: Question) -> Answer:
    asked: wire.RotateKey = question.body

    def effect() -> Effect:
        made = backend.service.desk.rotate_key(
            question.path["key_id"],
            overlap_seconds=asked.overlap_seconds,
            expected_version=asked.expected_version,
            compromised=asked.compromised,
            caller=question.identity.service,
        )
        shown = wire.RotatedKey(
            access_key=made.access_key,
            access_key_id=made.key.id,
            version=made.key.version,
            overlap_until=made.key.overlap_until_us,
            epoch=made.epoch,
            revision=made.revision,
            now=made.now_us,
        )
        answer = Answer(body=encoded(shown), headers=_NO_STORE)
        return Effect(answer=answer, secret_of=(made.key.id, made.key.version))

    return await _perform(backend, question, effect)


HANDLERS: Final[Mapping[str, Handler]] = MappingProxyType(
    {
        "access_keys.generate": _generate,
        "access_keys.list": _list,
        "access_keys.get": _get,
        "access_keys.revoke": _revoke,
        "access_keys.rotate": _rotate,
    }
)
"""By name of the call."""

"""The extensions X0 to X4 over HTTP. X5 is `hivetenancy.authority.api_once`, X6 belongs to the calls about keys."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from types import MappingProxyType
from typing import Any, Final, Protocol, TypeVar

from hivetenancy.access_keys.format import digest
from hivetenancy.hub import wire
from hivetenancy.ids import TenantId
from hivetenancy.sources import SourceConflict

from . import answers
from .api_http import Answer, ClientGoneError, Receive, RequestError, bad_field, encoded, merged
from .api_routes import DEFAULT_WAIT_SECONDS
from .backend import Backend, Handler, Question

_PAGE: Final = 100
_Value = TypeVar("_Value")


class _Ordered(Protocol):
    @property
    def epoch(self) -> int: ...
    @property
    def revision(self) -> int: ...


def _recent_enough(answer: _Ordered, asked: Mapping[str, Any]) -> None:
    """Refuse to give an answer to who knows of something later than it (HiveHub wire 4.2).

    Raises:
        RequestError: 503 ``replica_behind``.
    """
    epoch = answer.epoch if asked["epoch"] is None else asked["epoch"]
    least = asked["min_revision"] if asked["min_revision"] is not None and epoch == answer.epoch else 0
    if (epoch, least) > (answer.epoch, answer.revision):
        raise RequestError(
            503,
            "Service temporarily unavailable",
            code="replica_behind",
            details=f"at revision {answer.epoch}/{answer.revision}, asked for {epoch}/{asked['min_revision'] or 0}",
            headers=((b"retry-after", b"1"),),
        )


async def _announcement(backend: Backend, question: Question) -> Answer:
    said = await backend.perform("announcement", lambda: backend.service.announcement(question.identity), {})
    return Answer(body=encoded(answers.announcement(said)))


async def _introspect(backend: Backend, question: Question) -> Answer:
    asked: wire.Introspect = question.body
    order = _order(asked.min_revision, asked.epoch)
    found = await backend.inspect(
        "introspect",
        [digest(asked.access_key.encode("utf-8"))],
        service=question.identity.service,
        use=True,
        **order,
    )
    _recent_enough(found, order)
    return Answer(body=merged(answers.stamp(found), answers.key(found.keys[0])))


async def _introspect_batch(backend: Backend, question: Question) -> Answer:
    asked: wire.IntrospectBatch = question.body
    order = _order(asked.min_revision, asked.epoch)
    found = await backend.inspect(
        "introspect_batch",
        [bytes.fromhex(text) for text in asked.digests],
        service=question.identity.service,
        use=False,
        **order,
    )
    _recent_enough(found, order)
    return Answer(body=encoded(answers.keys(found)))


async def _changes(backend: Backend, question: Question) -> Answer:
    wait = question.query["wait_seconds"]
    poll = backend.changes(question.query["cursor"], wait_seconds=DEFAULT_WAIT_SECONDS if wait is None else wait)
    return Answer(body=encoded(answers.changes(await _unless_gone(poll, question.receive))))


async def _unless_gone(answer: Awaitable[_Value], receive: Receive) -> _Value:
    """Wait for *answer* as long as the caller does.

    Raises:
        ClientGoneError: The caller hung up first; the wait was cancelled.
    """
    waiting = asyncio.ensure_future(answer)
    gone = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait({waiting, gone}, return_when=asyncio.FIRST_COMPLETED)
        if waiting.done():
            return waiting.result()
        gone.result()  # what kept it from being watched is not hidden
        raise ClientGoneError
    finally:
        waiting.cancel()
        gone.cancel()
        await asyncio.gather(waiting, gone, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass  # a body, which this call has no use for


async def _limits(backend: Backend, question: Question) -> Answer:
    order = _order(question.query["min_revision"], question.query["epoch"])
    tenant = TenantId(question.path["user_id"])
    found = await backend.limits(tenant, sources=question.query["source"], **order)
    _recent_enough(found, order)
    if found.limits is None:
        raise RequestError(
            404, "User not found", code="not_found", epoch=found.epoch, revision=found.revision, now=found.now_us
        )
    return Answer(body=encoded(answers.limits(found, found.limits)))


async def _limits_page(backend: Backend, question: Question) -> Answer:
    query = question.query
    limit = _PAGE if query["limit"] is None else query["limit"]
    found = await backend.limits_page(limit, query["cursor"], sources=query["source"])
    _recent_enough(found, query)
    return Answer(body=encoded(answers.limits_page(found)))


async def _limits_batch(backend: Backend, question: Question) -> Answer:
    asked: wire.LimitsQuestion = question.body
    order = _order(asked.min_revision, asked.epoch)
    tenants = [TenantId(user) for user in asked.user_ids]
    before = backend.service.revision  # what an answer about nobody is as recent as
    found = answers.limits_batch(
        await backend.limits_batch(tenants, sources=asked.sources, **order), tenants, revision=before
    )
    _recent_enough(found, order)
    return Answer(body=encoded(found))


async def _report(backend: Backend, question: Question) -> Answer:
    told: wire.Report = question.body
    if told.previous_sequence >= told.sequence:
        raise bad_field("previous_sequence", "must be below sequence")
    report = answers.report(question.path["source"], told)
    outcome = await backend.report(report, owner=question.identity.identity)
    if isinstance(outcome, SourceConflict):
        raise RequestError(
            409,
            "Another report was taken for this source",
            code="source_conflict",
            last_sequence=outcome.last_sequence,
        )
    return Answer(body=encoded(answers.receipt(outcome)))


def _order(min_revision: int | None, epoch: int | None) -> dict[str, int | None]:
    return {"min_revision": min_revision, "epoch": epoch}


HANDLERS: Final[Mapping[str, Handler]] = MappingProxyType(
    {
        "announcement": _announcement,
        "introspect": _introspect,
        "introspect_batch": _introspect_batch,
        "changes": _changes,
        "limits": _limits,
        "limits_page": _limits_page,
        "limits_batch": _limits_batch,
        "report": _report,
    }
)
"""By name of the call."""

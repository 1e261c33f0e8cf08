"""What `hivetenancy` asks of a hub that wants to be exact: X0 to X4, answered with the values of the four sources.

A hub announces what it speaks (`Announcement`); asking for what it does not is refused with 404. What was announced and
is missing later is an outage of that extension, so a 404 is one here, never an answer (HiveHub wire 4.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Final, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError

from hivetenancy.clock import SECOND_US
from hivetenancy.errors import HubContractError, HubRefusedError, HubUnavailableError
from hivetenancy.ids import TenantId
from hivetenancy.sources import (
    BatchAnswer,
    ChangeBatch,
    KeyAnswer,
    LimitsAnswer,
    LimitsBatch,
    SourceConflict,
    UsageReply,
    UsageReport,
)

from . import wire
from .caller import Caller, Query, read_error
from .calls import MAX_LIST, body, cursor_field, path_id, whole
from .translate import (
    batch_answer,
    change_batch,
    explain,
    key_answer,
    limits_answer,
    limits_batch,
    usage_reply,
    wire_report,
)
from .transport import HubReply

_Model = TypeVar("_Model", bound=BaseModel)


class Extension(StrEnum):
    """The extensions, by the names that a hub announces."""

    INTROSPECTION = "introspection"
    CHANGES = "changes"
    LIMITS = "limits"
    USAGE = "usage"
    IDEMPOTENCY = "idempotency"
    KEY_MANAGEMENT = "key_management"


POLL_MARGIN_S: Final = 5.0
"""What the deadline of a poll is beyond its waiting time (HiveHub wire 4.4)."""

MAX_WAIT_S: Final = 25
"""The longest that a poll may wait (HiveHub wire 4.4)."""

_USER_UNKNOWN: Final = "User not found"


class Extensions:
    """X0 to X4 of one hub.

    Args:
        caller: Makes the calls.
        service: Whose keys and limits are asked about; ``None``: of whatever service the service key is. Set once the
            hub has said which that is.
    """

    def __init__(self, caller: Caller, service: str | None) -> None:
        self._caller = caller
        self.service = service

    async def announcement(self) -> wire.Announcement | None:
        """X0: what the hub says of itself; ``None``: it speaks today's wire and no more.

        Raises:
            HubUnavailableError: No answer.
            HubContractError: No answer of this wire.
        """
        got = await self._caller.send("GET", "/extensions", repeatable=True)
        if got.status == 404:
            return None
        if not 200 <= got.status < 300:
            _unusable(got)
        return _read(wire.Announcement, got)

    async def introspect(
        self, credential: bytes, *, min_revision: int | None = None, epoch: int | None = None
    ) -> KeyAnswer:
        """X1: say what one key is; see `IntrospectionSource.introspect`."""
        try:
            text = credential.decode("ascii")
        except UnicodeDecodeError:
            raise HubContractError("an access key is visible ASCII; whoever asks has to see to that") from None
        question = body(lambda: wire.Introspect(access_key=text, min_revision=min_revision, epoch=epoch))
        got = await self._post("/access-keys/introspect", question)
        return key_answer(_read(wire.Stamped, got), _read(wire.IntrospectedKey, got), self.service)

    async def introspect_batch(
        self, digests: Sequence[bytes], *, min_revision: int | None = None, epoch: int | None = None
    ) -> BatchAnswer:
        """X1: say what several keys are; see `IntrospectionSource.introspect_batch`."""
        question = body(
            lambda: wire.IntrospectBatch(
                digests=tuple(digest.hex() for digest in digests), min_revision=min_revision, epoch=epoch
            )
        )
        got = await self._post("/access-keys/introspect/batch", question)
        return batch_answer(_read(wire.IntrospectedKeys, got), self.service)

    async def changes(self, cursor: str | None, *, wait_seconds: int = 2) -> ChangeBatch:
        """X2: say what happened since *cursor*; see `ChangeSource.changes`."""
        if self._caller.probing:
            wait_seconds = 0  # the breaker lets this one call through, and keeps every other out until it has ended
        fields = [("wait_seconds", whole("wait_seconds", wait_seconds, 0, MAX_WAIT_S)), *cursor_field(cursor)]
        got = await self._caller.send(
            "GET", "/changes", query=fields, repeatable=False, deadline_s=wait_seconds + POLL_MARGIN_S
        )
        return change_batch(_read(wire.Changes, _usable(got)))

    async def limits(
        self,
        tenant: TenantId,
        *,
        sources: Sequence[str] = (),
        min_revision: int | None = None,
        epoch: int | None = None,
    ) -> LimitsAnswer:
        """X3: say what limits *tenant*; see `LimitsSource.limits`."""
        path = f"/{self._of()}/users/{path_id(tenant)}/limits"
        got = await self._caller.send("GET", path, query=_order(sources, min_revision, epoch), repeatable=True)
        if got.status == 404 and read_error(got).error == _USER_UNKNOWN:
            stamp = _read(wire.Stamped, got)  # "no such user" has its place in the order like any other answer
            return LimitsAnswer(epoch=stamp.epoch, revision=stamp.revision, now_us=stamp.now, limits=None)
        return limits_answer(tenant, _read(wire.Limits, _usable(got)))

    async def limits_batch(
        self,
        tenants: Sequence[TenantId],
        *,
        sources: Sequence[str] = (),
        min_revision: int | None = None,
        epoch: int | None = None,
    ) -> LimitsBatch:
        """X3: say what limits several tenants; see `LimitsSource.limits_batch`."""
        question = body(
            lambda: wire.LimitsQuestion(
                user_ids=tuple(path_id(tenant) for tenant in tenants),
                sources=tuple(sources),
                min_revision=min_revision,
                epoch=epoch,
            )
        )
        got = await self._post(f"/{self._of()}/limits", question)
        return limits_batch(tenants, _read(wire.LimitsPage, got))

    async def limits_page(
        self, *, limit: int = 100, cursor: str | None = None, sources: Sequence[str] = ()
    ) -> wire.LimitsPage:
        """X3: one page of all users; *cursor* is that of the page before."""
        fields = [("limit", whole("limit", limit, 1, MAX_LIST)), *_sources(sources), *cursor_field(cursor)]
        got = await self._caller.send("GET", f"/{self._of()}/limits", query=fields, repeatable=True)
        return _read(wire.LimitsPage, _usable(got))

    async def report(self, report: UsageReport) -> UsageReply | SourceConflict:
        """X4: hand in running totals; see `UsageSink.report`."""
        question, left_out = wire_report(report)
        got = await self._caller.send("PUT", f"/{self._of()}/usage/{report.source}", body=question, repeatable=True)
        if got.status == 409:
            said = read_error(got)
            if said.code == "source_conflict" and said.last_sequence is not None and said.last_sequence >= 0:
                return SourceConflict(last_sequence=said.last_sequence)
        return usage_reply(_read(wire.Receipt, _usable(got)), len(report.lines), left_out)

    async def _post(self, path: str, question: BaseModel) -> HubReply:
        return _usable(await self._caller.send("POST", path, body=question, repeatable=True))

    def _of(self) -> str:
        if self.service is None:
            raise HubContractError("limits and usage are asked for a service: HiveHub(..., service=...)")
        return self.service


def _order(sources: Sequence[str], min_revision: int | None, epoch: int | None) -> Query:
    fields = _sources(sources)
    if min_revision is not None:
        fields.append(("min_revision", str(min_revision)))
    if epoch is not None:
        fields.append(("epoch", str(epoch)))
    return fields


def _sources(sources: Sequence[str]) -> list[tuple[str, str]]:
    question = body(lambda: wire.LimitsQuestion(user_ids=(), sources=tuple(sources)))
    assert isinstance(question, wire.LimitsQuestion)
    return [("source", source) for source in question.sources]


def _usable(got: HubReply) -> HubReply:
    if not 200 <= got.status < 300:
        _unusable(got)
    return got


def _unusable(got: HubReply) -> NoReturn:
    """Raise for an answer that is no verdict about a tenant: none of these questions can be refused."""
    said = read_error(got)
    if got.status == 404:
        raise HubUnavailableError(
            "HiveHub no longer speaks an extension that it announced", retry_after_us=SECOND_US, outcome_unknown=False
        )
    if got.status == 429:
        raise HubUnavailableError("HiveHub takes no more questions for now", outcome_unknown=False)
    refused = HubRefusedError(got.status, said.error, code=said.code, field=said.field)
    field = f" ({said.field})" if said.field else ""
    raise HubContractError(f"HiveHub says {got.status} to a question of its own wire{field}") from refused


def _read(model: type[_Model], got: HubReply) -> _Model:
    try:
        return model.model_validate_json(got.body)
    except ValidationError as error:
        raise HubContractError(f"HiveHub's answer is none of its wire: {explain(error)}") from None
    except RecursionError:
        raise HubContractError("HiveHub's answer is nested too deeply") from None

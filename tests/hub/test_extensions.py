"""The extensions over the wire: nothing is lost on it, and what is missing is an outage."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from hivetenancy.access_keys.format import digest
from hivetenancy.authority.view import ALL_EXTENSIONS
from hivetenancy.clock import SECOND_US
from hivetenancy.errors import HubContractError, HubUnavailableError
from hivetenancy.hub.caller import Caller
from hivetenancy.hub.extensions import Extension, Extensions
from hivetenancy.hub.transport import HubTransport
from hivetenancy.ids import Environment
from hivetenancy.periods import Period
from hivetenancy.plans import Plan, QuotaKind, QuotaLimit, RatePolicy, Scope
from hivetenancy.sources import SourceConflict, UsageKind, UsageLine, UsageReport

from .wired import SOURCE, UNKNOWN, Got, Sent, Wired

pytestmark = pytest.mark.anyio


def test_the_names_are_those_that_are_announced() -> None:
    """All but the announcement itself, which nobody has to announce."""
    assert {each.value for each in Extension} == set(ALL_EXTENSIONS) - {"announcement"}


async def everything() -> Wired:
    """A world with keys of every state and limits of every kind."""
    world = Wired()
    service, now = world.service, world.clock.now()[1]
    service.define_plan(
        Plan(
            name="odd",
            rates=(
                RatePolicy(name="per-key", limit=5, period_us=1_500_000, burst=9, scope=Scope.KEY),
                RatePolicy(name="window", limit=5, period_us=SECOND_US),
            ),
            quotas=(
                QuotaLimit(dimension="storage_bytes", limit=None, kind=QuotaKind.CONTRIBUTION),
                QuotaLimit(dimension="storage_bytes", limit=5, kind=QuotaKind.CONTRIBUTION, resource="a b"),
                QuotaLimit(dimension="ram", limit=5, kind=QuotaKind.LEVEL),
                QuotaLimit(dimension="hourly", limit=0, kind=QuotaKind.COUNTER, period=Period.HOUR),
                QuotaLimit(
                    dimension="daily", limit=2**53 - 1, kind=QuotaKind.COUNTER, period=Period.DAY, zone="Asia/Kolkata"
                ),
            ),
            statics={"payload_bytes": 0},
        )
    )
    service.set_plan(world.other, "odd")
    world.keys = [  # type: ignore[attr-defined]
        service.issue_key(
            world.acme,
            name="é" * 100,
            permissions=["read", "admin"],
            functions=["kv.*"],
            resources=["a"],
            networks=["10.0.0.0/8", "::/0"],
            environment=Environment.LIVE,
            not_before_us=now - 1,
            expires_at_us=now + 1_234_567,
        ),
        service.issue_key(world.acme, name="later", permissions=["read"], not_before_us=now + 5),
        service.issue_key(None, name="nobody's", permissions=["read"]),
        service.issue_key(world.other, name="dead", permissions=["delete"], functions=[]),
    ]
    service.revoke_key(world.keys[3].key_id)  # type: ignore[attr-defined]
    world.rotated = service.rotate_key(world.issued.key_id, overlap_seconds=60)  # type: ignore[attr-defined]
    await world.hub.open()
    return world


async def test_the_wire_loses_nothing() -> None:
    """Each answer over it equals the same one by a method call, to the microsecond."""
    world: Any = await everything()
    secrets = [world.key, world.rotated.secret.encode(), *(key.secret.encode() for key in world.keys)]
    for secret in secrets:
        assert await world.hub.introspect(secret) == await world.service.introspect(secret)
    digests = [*map(digest, secrets), bytes(32)]
    assert await world.hub.introspect_batch(digests) == await world.service.introspect_batch(digests)
    for tenant in (world.acme, world.other, UNKNOWN):
        assert await world.hub.limits(tenant) == await world.service.limits(tenant)
    asked = [world.other, UNKNOWN, world.acme]
    assert await world.hub.limits_batch(asked) == await world.service.limits_batch(asked)
    start = await world.service.changes(None)
    everything_since = start.cursor.rpartition("-")[0] + "-0"
    told = await world.hub.changes(everything_since, wait_seconds=0)
    assert told == await world.service.changes(everything_since, wait_seconds=0)
    assert len(told.events) > 5
    assert await world.hub.changes("strange", wait_seconds=0) == await world.service.changes("strange", wait_seconds=0)


async def test_a_report_over_the_wire_is_the_report() -> None:
    """Every kind of line; the receipt and the conflict as the model gives them."""
    world: Any = await everything()
    found = (await world.hub.limits(world.other)).limits
    hour = next(each for each in found.quotas if each.limit.dimension == "hourly")

    def cell(dimension: str, kind: UsageKind, value: int, **more: Any) -> UsageLine:
        given = {"tenant_id": world.other, "resource": None, **more}
        return UsageLine(dimension=dimension, kind=kind, value=value, **given)

    lines = (
        cell("storage_bytes", UsageKind.CONTRIBUTION, -7),
        cell("storage_bytes", UsageKind.CONTRIBUTION, 2**53 - 1, resource="a b"),
        cell("ram", UsageKind.LEVEL, 5, term=3),
        cell("hourly", UsageKind.COUNTER, 9, period_start_us=hour.period_start_us),
        cell("hourly", UsageKind.CORRECTION, -2, period_start_us=hour.period_start_us, reason="closed"),
        cell("nothing", UsageKind.CONTRIBUTION, 1),
    )
    report = UsageReport(source=SOURCE, writer="w", sequence=2, previous_sequence=0, lines=lines, final=True)
    other = Wired()
    other.service.define_plan(world.service.plans["odd"])
    reply = await world.hub.report(report)
    assert reply.last_sequence == 2
    assert [(line.index, line.permanent) for line in reply.rejected] == [(5, True)]
    used = {dimension: world.service.used(world.other, dimension) for dimension in ("storage_bytes", "ram", "hourly")}
    assert used == {"storage_bytes": -7, "ram": 5, "hourly": 7}
    assert world.service.used(world.other, "storage_bytes", resource="a b") == 2**53 - 1
    again = UsageReport(source=SOURCE, writer="w", sequence=5, previous_sequence=4, lines=())
    assert await world.hub.report(again) == SourceConflict(last_sequence=2)


async def test_a_page_holds_what_single_answers_say() -> None:
    """Page by page, every user once."""
    world = await everything()
    seen: dict[str, Any] = {}
    cursor: str | None = None
    for _ in range(2):
        page = await world.hub.extensions.limits_page(limit=1, cursor=cursor)
        seen |= {item.user_id: item.limits for item in page.items}
        cursor = page.cursor
    assert cursor is None
    assert set(seen) == {world.acme, world.other}
    odd = seen[world.other]
    assert odd is not None
    assert odd.plan == "odd"


@pytest.mark.parametrize(
    "call, path",
    [
        (lambda world: world.hub.introspect(world.key), "/introspect"),
        (lambda world: world.hub.introspect_batch([bytes(32)]), "/batch"),
        (lambda world: world.hub.changes("x", wait_seconds=0), "/changes"),
        (lambda world: world.hub.limits(world.acme), "/limits"),
        (lambda world: world.hub.limits_batch([world.acme]), "/limits"),
    ],
)
@pytest.mark.parametrize("text", [b'{"error": "Not found"}', b"<html>", b"", b'{"error": "User not found."}'])
async def test_a_404_is_an_outage_of_the_extension(
    call: Callable[[Wired], Awaitable[object]], path: str, text: bytes
) -> None:
    """And never "no such key" or "no such tenant", whatever its text; it may be asked again in a second."""
    world = await everything()
    with world.bent(lambda sent, got: Got(404, text) if sent.path.endswith(path) else got):
        with pytest.raises(HubUnavailableError) as caught:
            await call(world)
    assert caught.value.retry_after_us == SECOND_US
    assert not caught.value.outcome_unknown


async def test_a_404_about_a_user_needs_its_place_in_the_order() -> None:
    """ "No such user" drops what is kept about one, so without epoch and revision it is no answer."""
    world = await everything()
    assert (await world.hub.limits(UNKNOWN)).limits is None
    with world.bent(lambda _sent, _got: Got(404, b'{"error": "User not found"}')), pytest.raises(HubContractError):
        await world.hub.limits(UNKNOWN)


async def test_the_probe_of_a_breaker_does_not_wait() -> None:
    """A poll that waits 20 s would keep everybody else out for as long."""
    world = await everything()
    with world.down():
        for _ in range(6):
            with pytest.raises(HubUnavailableError):
                await world.hub.limits(world.acme)
    world.clock.advance(61)
    cursor = (await world.service.changes(None)).cursor
    await world.hub.changes(cursor, wait_seconds=20)
    assert ("wait_seconds", "0") in world.line.sent[-1].query
    world.service.set_limit(world.acme, "keys", 5)
    await world.hub.changes(cursor, wait_seconds=20)
    assert ("wait_seconds", "20") in world.line.sent[-1].query


async def test_a_poll_may_take_its_wait_and_five_seconds() -> None:
    """Its deadline is its own, whatever the client's is for everything else."""
    world = await everything()
    deadlines: list[float | None] = []
    transport = world.hub._transport
    assert transport is not None
    real = transport.call

    async def call(*args: Any, **options: Any) -> Any:
        deadlines.append(options.get("deadline_s"))
        return await real(*args, **options)

    transport.call = call  # type: ignore[method-assign]
    await world.hub.changes(None, wait_seconds=20)
    await world.hub.limits(world.acme)
    assert deadlines == [25.0, None]


async def test_limits_are_asked_for_a_service() -> None:
    """Where nothing says which, that is an error of ours and no request."""
    world = Wired()
    transport = HubTransport("https://hub.example", world.service_key.secret)
    extensions = Extensions(Caller(transport, allow_fake=True), None)
    with pytest.raises(HubContractError, match="service"):
        await extensions.limits(world.acme)


async def test_a_credential_that_is_no_text_is_not_sent() -> None:
    """Whoever asks has to have looked at its form."""
    world = await everything()
    sent = len(world.line.sent)
    with pytest.raises(HubContractError):
        await world.hub.extensions.introspect(b"\xff\xfe")
    assert len(world.line.sent) == sent


async def test_a_reset_has_the_hub_looked_at_again() -> None:
    """What was reset may be another hub; and a poll without a cursor asks for nothing more."""
    world = await everything()
    for cursor, looked in (("strange", 1), (None, 0)):
        before = [sent.path for sent in world.line.sent].count("/extensions")
        await world.hub.changes(cursor, wait_seconds=0)
        assert [sent.path for sent in world.line.sent].count("/extensions") - before == looked


async def test_a_lost_reply_to_a_report_is_repaired_by_sending_it_again() -> None:
    """The client does so by itself, with the same bytes, and it counts once."""
    world = Wired(retries=3)
    await world.hub.open()
    lost: list[Sent] = []

    def lose(sent: Sent, got: Got) -> Got:
        if sent.method == "PUT" and len(lost) < 2:
            lost.append(sent)
            raise httpx.ReadError("reset")
        return got

    cell = UsageLine(
        tenant_id=world.acme, dimension="storage_bytes", resource=None, kind=UsageKind.CONTRIBUTION, value=5
    )
    report = UsageReport(source=SOURCE, writer="w", sequence=1, previous_sequence=0, lines=(cell,))
    with world.bent(lose):
        await world.hub.report(report)
    assert len({sent.body for sent in world.line.sent if sent.method == "PUT"}) == 1
    assert world.service.used(world.acme, "storage_bytes") == 5

"""The contract of a control plane, on everything of ours that is one, on a real hub, and on broken ones."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack

import pytest

from hivetenancy.testing.contracts import _plane_sources, control_plane
from hivetenancy.testing.contracts._cases import Case
from hivetenancy.testing.contracts.control_plane import CASES, Need, left_out, needs, runnable

from .subjects import MUTANTS, Process, Subject, in_process, mutated, over_asgi, real

pytestmark = pytest.mark.anyio

BOTH = (Need.WIRE, Need.OPERATOR)
URL, KEY, TENANT = "HIVEHUB_CONFORMANCE_URL", "HIVEHUB_CONFORMANCE_SERVICE_KEY", "HIVEHUB_CONFORMANCE_TENANT"


@pytest.fixture
async def life() -> AsyncIterator[AsyncExitStack]:
    """What is closed after the test."""
    async with AsyncExitStack() as stack:
        yield stack


@pytest.mark.parametrize("case", runnable(Need.OPERATOR), ids=str)
async def test_in_this_process(case: Case[control_plane.Subject], life: AsyncExitStack) -> None:
    """The fake, by method calls."""
    await case(await in_process(life))


@pytest.mark.parametrize("family", ["httpx", "httpx2"])
@pytest.mark.parametrize("case", CASES, ids=str)
async def test_over_asgi(case: Case[control_plane.Subject], family: str, life: AsyncExitStack) -> None:
    """The same fake under the real client, over both families of HTTP clients."""
    library = pytest.importorskip(family, reason=f"{family} is not installed: it belongs to the extra `test`")
    await case(await over_asgi(life, library))


@pytest.fixture(scope="module")
def process() -> Iterator[Process]:
    """`hivetenancy hub serve`, once for all cases."""
    pytest.importorskip("uvicorn", reason="uvicorn is not installed: `hub serve` needs the extra `demo`")
    started = Process()
    yield started
    started.end()


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_as_a_process(case: Case[control_plane.Subject], process: Process, life: AsyncExitStack) -> None:
    """The same over TCP, operated through the control routes."""
    await case(await process.subject(life))


THERE = all(os.environ.get(name) for name in (URL, KEY, TENANT))
NOBODY = pytest.param(None, marks=pytest.mark.skip(f"no real HiveHub to ask: set {URL}, {KEY} and {TENANT}"), id="none")


@pytest.mark.parametrize("case", CASES if THERE else [NOBODY], ids=str)
async def test_a_real_hub(case: Case[control_plane.Subject], life: AsyncExitStack) -> None:
    """What needs nothing but the wire; the others say what they lack."""
    why = left_out(Need.WIRE).get(case.name)
    if why:
        pytest.skip(why)
    service = os.environ.get("HIVEHUB_CONFORMANCE_SERVICE")
    await case(await real(life, os.environ[URL], os.environ[KEY], os.environ[TENANT], service))


async def test_what_a_real_hub_is_asked(life: AsyncExitStack, process: Process) -> None:
    """The cases for a real hub, on a hub that nobody operates: they need nobody indeed."""
    subject = await process.subject(life)
    alone = await real(life, process.url, process.key, subject.tenant, "synap")
    for case in runnable(Need.WIRE):
        await case(alone)


def test_each_case_says_what_it_needs() -> None:
    """Every one is run or left out with its reason, and those for a real hub are not few."""
    for has in ((), (Need.WIRE,), (Need.OPERATOR,), BOTH):
        assert {case.name for case in runnable(*has)} | set(left_out(*has)) == {case.name for case in CASES}
        assert not {case.name for case in runnable(*has)} & set(left_out(*has))
    assert all(left_out(Need.OPERATOR).values())
    assert len(runnable(*BOTH)) == len(CASES)
    assert len(runnable(Need.WIRE)) >= 14
    assert {need for case in CASES for need in needs(case)} == set(BOTH)


BROKEN: dict[str, str] = {
    "a_key_that_was_never_issued_is_unknown": "alive",
    "a_live_key_is_described_whole": "off by one",
    "a_revoked_key_is_revoked_for_good": "frozen",
    "a_key_ends_when_it_says": "frozen",
    "a_suspended_tenants_keys_are_suspended": "frozen",
    "both_secrets_count_while_a_rotation_lasts": "frozen",
    "a_compromised_secret_ends_at_once": "alive",
    "a_batch_answers_in_the_order_asked": "backwards",
    "a_key_that_nobody_owns_opens_nothing": "alive",
    "a_key_of_another_service_is_unknown": "everybody's",
    "every_change_has_a_revision_of_its_own": "revisionless",
    "an_answer_is_as_new_as_what_was_announced": "revisionless",
    "a_revision_that_is_asked_for_is_given": "forgetful",
    "a_poll_without_a_cursor_answers_at_once": "in no hurry",
    "a_strange_cursor_is_reset": "polite",
    "a_poll_that_waits_hears_of_a_change": "deaf",
    "each_change_is_told_by_its_name": "deaf",
    "a_tenant_that_is_not_there_has_no_limits": "default owner",
    "limits_are_the_same_alone_and_in_a_batch": "backwards",
    "a_limit_that_is_changed_counts": "frozen",
    "our_own_share_is_told_apart": "forgetful",
    "a_report_counts_once_however_often_it_comes": "careless",
    "totals_replace_and_are_summed_over_sources": "off by one",
    "a_conflict_changes_nothing": "careless",
    "a_line_that_cannot_be_counted_is_named": "careless",
    "a_cell_stands_in_a_report_once": "careless",
    "a_count_never_falls": "careless",
    "a_period_that_is_over_long_enough_is_closed": "frozen",
    "a_source_that_is_closed_stays_counted": "forgetful",
    "the_service_key_is_asked_for_first": "open",
    "every_read_answers": "possessive",
    "a_user_that_is_not_there_is_not_found": "wordless",
    "a_key_lives_through_the_calls": "agreeable",
    "collections_are_registered_and_measured": "twice",
    "a_graph_is_counted_by_increments": "twice",
    "resources_are_registered_by_name": "possessive",
    "tokens_are_spent": "twice",
    "what_is_anothers_is_as_good_as_missing": "possessive",
    "a_name_that_cannot_travel_is_refused": "agreeable",
    "a_path_is_taken_apart_before_it_is_decoded": "agreeable",
    "bad_input_is_named_and_never_a_fault": "wordless",
    "a_call_with_a_key_takes_effect_once": "forgetful",
    "a_secret_is_not_repeated": "forgetful",
    "a_key_is_made_as_it_was_asked_for": "forgetful",
    "a_rotation_names_the_version_it_is_of": "wordless",
    "a_child_is_no_wider_than_its_parent": "forgetful",
    "pages_hold_everybody_once": "stuck",
    "a_hub_says_which_it_is": "nameless",
}
"""The broken control plane that each case fails on."""


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_a_broken_control_plane_fails_the_case(
    case: Case[control_plane.Subject], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each case notices something: there is a broken control plane that it fails on."""
    monkeypatch.setattr(_plane_sources, "PATIENCE_S", 0.5)  # the hub in no hurry takes 5 s
    subject: Subject = await mutated(MUTANTS[BROKEN[case.name]])
    with pytest.raises(Exception) as caught:
        await case(subject)
    assert not isinstance(caught.value, TypeError | KeyError | AttributeError | NameError), caught.value


def test_each_broken_control_plane_is_of_use() -> None:
    """None is kept that no case fails on, and each case has one."""
    assert set(BROKEN) == {case.name for case in CASES}
    assert set(BROKEN.values()) == set(MUTANTS)

"""Which ways there are into another tenant's data, and that each has a test that fails when its defence is taken away.

The numbers are those of our study of what goes wrong in the field. A test belongs to a number when it is called
``test_a07_...``, or stands in `ELSEWHERE` because it was there before. What the study lists of migration and backups
(A40, A41, A43, A44) belongs to what is not built yet.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Final

import pytest

from tests.readme import ROOT
from tests.test_upstream import functions

ATTACKS: Final = {
    1: "a separator in an id: tenant a:b with key c is tenant a with key b:c",
    2: "no delimiter after an id: tenant 1 holds what is tenant 12's",
    3: "nested ids: tenant acme/resources lies within tenant acme",
    4: "ids that are trimmed or repaired meet",
    5: "ids that differ in case alone meet, or do so on a file system",
    6: "ids that Unicode folds onto each other meet",
    7: "several spellings of one UUID are several tenants, or one where they should not be",
    8: "a regular expression that takes a trailing newline or foreign digits",
    9: "a name that looks scoped already is let through",
    10: "an operation that nobody thought of",
    11: "a surface that nobody thought of",
    12: "wildcards in an id or a prefix",
    13: "a regular expression that leaves its group",
    14: "wildcard topics, system topics, shared subscriptions, keyspace notifications",
    15: "keys that stand where nobody looks: SORT BY, numkeys, EVAL, MIGRATE",
    16: "commands without a key that speak of the whole key space",
    17: "a cache whose key lacks the tenant",
    18: "content that is stored once for all tenants tells that it exists",
    19: "403 beside 404, a conflict, an error text or a count tells that something exists",
    20: "a handle of another tenant is taken",
    21: "handles that can be guessed",
    22: "what is foreign takes other steps than what is missing",
    23: "statistics of the whole server",
    24: "a thread that lost its tenant",
    25: "a worker that kept the first tenant",
    26: "a connection that kept the tenant of the message before",
    27: "a generator that leaks its tenant to whoever takes the next value",
    28: "a hook outside the window in which the tenant is bound",
    29: "thread-locals under asyncio",
    30: "a pooled connection that keeps a tenant, or a reply that nobody waited for",
    31: "a job without a tenant",
    32: "a plan or a role that was compiled for another tenant",
    33: "a filter expression that breaks out of the tenant's predicate",
    34: "graph queries that name no label, or call what nobody scoped",
    35: "paths that leave the tenant's directory",
    36: "names that the store cuts",
    37: "a hash tag in a key chooses another tenant's slot",
    38: "what was deleted is there again when the tenant is made anew",
    39: "a deletion that sweeps a neighbour, or leaves something behind",
    42: "what nobody owns is everybody's",
    45: "a tenant called system, public or default",
    46: "a tenant that the caller names",
    47: "two formats of names in one store",
    48: "an operator's rights as the ordinary way round",
    49: "the server's own credentials within reach of tenants",
    50: "a stream that outlives its key, its tenant or its suspension",
    51: "tenants in metrics, logs and listings that tenants see",
}

ELSEWHERE: Final[dict[int, tuple[str, ...]]] = {
    11: (
        "tests/adapters/asgi/test_random_routes.py::test_no_request_reaches_a_handler_unguarded",
        "tests/adapters/asgi/test_random_routes.py::test_a_guard_that_is_left_off_is_found",
        "tests/adapters/aiohttp/test_requests.py::test_an_outer_layer_that_lets_everything_out_is_seen",
    ),
    19: (
        "tests/conformance/test_mutants.py::test_every_mutant_is_killed",
        "tests/conformance/test_natural.py::test_forbidden_in_place_of_missing_is_found",
    ),
    46: (
        "tests/test_upstream_weaknesses.py::test_d31_gateway_headers_were_trusted_from_anyone",
        "tests/test_upstream_weaknesses.py::test_d31_a_key_and_a_gateway_header_disagreed",
    ),
    49: (
        "tests/hub/test_trust.py::test_the_service_key_is_in_nothing_that_a_client_is_made_of",
        "tests/test_settings_secrets.py::test_a_secret_is_shown_nowhere",
        "tests/test_settings_secrets.py::test_the_check_fails_messages_that_quote",
    ),
    50: (
        "tests/adapters/asgi/test_websockets.py::test_revocation_closes_an_idle_and_a_busy_connection",
        "tests/adapters/asgi/test_websockets.py::test_suspension_closes_and_another_tenant_goes_on",
        "tests/adapters/asgi/test_streams.py::test_revocation_breaks_a_stream_off",
    ),
}
"""Tests that were there before the numbers: by number, ``path::test``."""


@cache
def numbered() -> dict[int, dict[str, str]]:
    """The tests that carry a number in their name, with their docstrings."""
    found: dict[int, dict[str, str]] = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for name, text in functions(path).items():
            numbers = re.match(r"test_((?:a\d\d?_)+)", name)
            for number in re.findall(r"\d+", numbers[1]) if numbers else ():
                found.setdefault(int(number), {})[f"{path.relative_to(ROOT)}::{name}"] = text
    return found


@pytest.mark.parametrize("number", ATTACKS)
def test_an_attack_has_its_test(number: int) -> None:
    """At least one test carries the number or stands in the table, and says what it shows."""
    tests = numbered().get(number, {})
    elsewhere = ELSEWHERE.get(number, ())
    assert tests or elsewhere, f"A{number}: {ATTACKS[number]}"
    assert all(tests.values()), f"without a docstring: {[name for name, text in tests.items() if not text]}"
    for reference in elsewhere:
        path, name = reference.split("::")
        assert name in functions(ROOT / path), reference


def test_no_test_carries_a_number_that_is_no_attack() -> None:
    """A mistyped number is noticed."""
    assert set(numbered()) <= set(ATTACKS)

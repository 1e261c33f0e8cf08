"""Which cases of the three servers' own suites hold here, which hold in another form, and which are turned around.

The cases are those that their tests assert about what these rooms do: access keys, names, quotas, rates, usage, the
tenant's context, middleware and configuration. Each row names the test that shows what holds here. What is turned
around names the law that does so, by its number in the architecture:

1. No missing tenant. 2. Closed by default. 3. The request path touches memory only. 4. Never over, never lost, never
twice. 5. A refusal is a value, an exception means that it could not be asked. 6. Nothing is trusted for being present.
7. Foreign equals missing. 8. Every bound is stated and measured.

`WEAKNESSES` are the numbers, in our study of those servers, of what went wrong there and has to have a test here.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Final, Literal, NamedTuple

import pytest

import hivetenancy
from tests.readme import ROOT

Verdict = Literal["adopted", "adapted", "reversed"]


class Case(NamedTuple):
    """One case of their suites.

    Attributes:
        says: What it asserts.
        verdict: What became of it.
        test: Where that shows: ``path::test``, with ``[case]`` for a case of a contract kit.
        law: The law that turns it around; ``None`` for the others.
        because: What holds instead; empty where the case is adopted.
    """

    says: str
    verdict: Verdict
    test: str
    law: int | None = None
    because: str = ""


def adopted(says: str, test: str) -> Case:
    """A case that holds here as it stands."""
    return Case(says, "adopted", test)


def adapted(says: str, because: str, test: str) -> Case:
    """A case that holds here in another form."""
    return Case(says, "adapted", test, None, because)


def turned(says: str, law: int, because: str, test: str) -> Case:
    """A case whose contrary holds here."""
    return Case(says, "reversed", test, law, because)


ROAD: Final = "tests/test_upstream_weaknesses.py"
KEYS: Final = "tests/access_keys/test_contract.py::test_the_shipped_engine"
RIGHTS: Final = "tests/access_keys/test_permissions.py"
FORMAT: Final = "tests/access_keys/test_format.py"
CACHED: Final = "tests/access_keys/test_cached.py"
NAMES: Final = "tests/namespaces/test_contract.py::test_the_managers_keep_the_contract"
PREFIX: Final = "tests/namespaces/test_prefix.py"
CODEC: Final = "tests/namespaces/test_codec.py"
QUOTA: Final = "tests/quota/test_contract.py::test_the_engine_passes"
RATE: Final = "tests/ratelimit/test_memory.py"
USAGE: Final = "tests/usage/test_contract.py::test_the_reporter_keeps_the_contract"
ASGI: Final = "tests/adapters/asgi/test_answers.py"
LIMITS: Final = "tests/test_limits.py"
DEMO: Final = "tests/cli/test_demo.py"

VECTORIZER: Final = (
    # keys and permissions
    turned(
        "a key with the right prefix and 32 characters is accepted",
        2,
        "only a key that the hub knows",
        f"{CACHED}::test_d01_any_well_formed_key_was_a_tenant",
    ),
    adapted(
        "a key with another prefix is refused",
        "a prefix is no grammar; the hub is asked about any 16 to 512 visible ASCII characters",
        f"{KEYS}[a_well_formed_key_is_nobody]",
    ),
    adopted("a short or empty key is refused", f"{KEYS}[malformed_keys_never_reach_the_hub]"),
    adopted("the hash of a key is stable and differs by key", f"{FORMAT}::test_the_digest_is_the_one_of_the_wire"),
    turned(
        "an administrator's key allows unknown operations too",
        2,
        "an operation that nobody declared is allowed to nobody",
        f"{ROAD}::test_an_unknown_operation_is_allowed_to_nobody",
    ),
    adapted(
        "a key for MCP may insert and search, and not create a collection or delete vectors",
        "it may read and write on that surface; what an operation does is declared, not guessed from its name",
        f"{RIGHTS}::test_presets_are_ordered_by_inclusion",
    ),
    adopted(
        "a key that reads and writes may not call what is for administrators",
        f"{RIGHTS}::test_permissions_grant_their_own_effect",
    ),
    adopted("a key that holds admin holds every permission", f"{RIGHTS}::test_permissions_grant_their_own_effect"),
    adopted("a list of permissions allows what any member allows", f"{RIGHTS}::test_masks_are_the_intersection"),
    adapted(
        "permissions have an order, and the highest counts",
        "they are sets and compare by inclusion",
        f"{RIGHTS}::test_presets_are_ordered_by_inclusion",
    ),
    turned(
        "an empty list of permissions counts as read-only",
        2,
        "it grants nothing",
        f"{RIGHTS}::test_permissions_grant_their_own_effect",
    ),
    turned(
        "tenancy is off by default",
        1,
        "there is no default: the object that is built says which mode",
        f"{ROAD}::test_d40_a_mode_between_the_two_was_an_open_door",
    ),
    adapted(
        "the cache of keys is on, keeps an answer for 300 s and 10,000 entries",
        "an answer is asked for again after 30 s, 100,000 keys are kept, and both bounds are printed",
        f"{CACHED}::test_the_bound_is_printed",
    ),
    # middleware
    adapted(
        "an error body has error and code, and details only where there are any",
        "a problem body of RFC 9457 with a code",
        f"{ROAD}::test_a_refusal_says_its_code_in_json",
    ),
    turned(
        "the bearer is preferred, X-API-Key comes second",
        2,
        "two credentials are refused: whoever ranks them can be made to see another one than the next server",
        f"{FORMAT}::test_find_credential",
    ),
    adopted(
        "without a header there is no key",
        f"{ASGI}::test_no_key_is_401_with_a_challenge_and_without_rate_headers",
    ),
    turned(
        "the service header is detected",
        6,
        "no header stands for a key",
        f"{ROAD}::test_d02_a_header_skipped_authentication",
    ),
    # quotas
    adopted("999 of 1,000 used: one more fits, two do not", f"{ROAD}::test_room_to_the_unit"),
    adapted(
        "a limit of zero refuses, with 0 remaining and 100 percent",
        "no percentage is shown",
        f"{ROAD}::test_room_to_the_unit",
    ),
    adapted(
        "1,500 of 1,000 used: refused, 0 remaining, 150 percent",
        "no percentage is shown",
        f"{ROAD}::test_a_tenant_over_its_limit_has_nothing_remaining",
    ),
    adapted(
        "with the tenant's flag off everything is refused regardless",
        "a suspended tenant is nobody: 401",
        f"{KEYS}[suspension_drops_every_key_of_the_tenant]",
    ),
    adopted("a request for nothing is allowed at the edge", f"{QUOTA}[nothing_is_always_admitted]"),
    adopted("4 of 5 collections: one more; 5 of 5: none", f"{ROAD}::test_room_to_the_unit"),
    adopted(
        "a petabyte and a billion of billions are handled",
        "tests/quota/test_weaknesses.py::test_d12_used_and_required_overflowed",
    ),
    adopted(
        "names of quota types are lower case with underscores",
        "tests/test_plans.py::test_canonical_dimensions_have_the_kinds_of_the_architecture",
    ),
    adapted("what a quota stands at goes through JSON and back", "it is shown as JSON", f"{DEMO}::test_the_card"),
    adopted(
        "10 collections, 10,000 vectors and 1 MB with 1, 8,000 and 800,000 used: the rest fits exactly",
        f"{ROAD}::test_headroom_in_three_dimensions",
    ),
    adopted("limits of 1, 1 and 1: one is allowed, two are refused", f"{ROAD}::test_room_to_the_unit"),
    adopted("the text of a refusal says that a quota is exceeded", f"{ROAD}::test_a_block_says_why_it_has_no_room"),
    adopted("usage adds up", f"{USAGE}[records_add_up]"),
    adopted("deleting a collection gives its place back", f"{QUOTA}[a_credit_makes_room]"),
    adopted("the numbers of tenants are independent", f"{QUOTA}[tenants_are_apart]"),
    adapted(
        "a hundred concurrent checks agree",
        "they hold what they were promised, so together they never pass the limit",
        f"{QUOTA}[tasks_never_pass_the_limit_together]",
    ),
    # usage
    adapted(
        "each record bumps its own counter and that of requests",
        "a call counts where its function or handler says, and nowhere behind their back",
        f"{ROAD}::test_a_count_is_the_hosts_own_statement",
    ),
    adopted("totals that are merged add", "tests/authority/test_usage.py::test_sources_are_added"),
    adopted("a net may be negative", f"{QUOTA}[an_underflow_keeps_its_sign_and_makes_no_room]"),
    turned(
        "searches and requests alone are no change to report",
        4,
        "whatever was recorded is reported",
        "tests/usage/test_reporter.py::test_d17_searches_and_deletes_triggered_no_report",
    ),
    adopted("usage begins at zero", f"{ROAD}::test_a_fresh_tenant_has_used_nothing"),
    # isolation
    adopted("one name in two tenants is two objects", f"{ROAD}::test_the_same_name_in_two_tenants_is_two_objects"),
    adopted("neither tenant lists, reads or deletes what is the other's", f"{DEMO}::test_foreign_equals_missing"),
    adopted("an unknown key is nobody", f"{KEYS}[a_well_formed_key_is_nobody]"),
    adopted("a key belongs to one tenant", "tests/authority/test_service.py::test_a_secret_can_be_traced_to_its_key"),
    adopted("a name is free again after its delete", f"{ROAD}::test_the_same_name_in_two_tenants_is_two_objects"),
    adopted("a scoped name holds the tenant and the name", f"{PREFIX}::test_the_literals_of_the_default_profile"),
    adopted(
        "a tenant at its limit does not affect another",
        f"{ROAD}::test_a_full_tenant_disturbs_nobody_and_still_reads_and_deletes",
    ),
    adopted(
        "3 x 5 and 5 x 10 concurrent creations end with exact counts",
        f"{ROAD}::test_concurrent_creations_end_with_exact_counts",
    ),
    adapted(
        "deleting a tenant's data leaves the others' alone",
        "deleting a tenant: its data is the host's to remove",
        f"{ROAD}::test_a_deleted_tenant_takes_nobody_along",
    ),
    adapted(
        "a tenant has 10 collections, 100,000 vectors and 1 GB by default",
        "it has what its plan says, as the wire states the plans",
        "tests/authority/test_plans.py::test_a_default_plan",
    ),
    adopted("an unknown quota type is refused", f"{QUOTA}[an_undeclared_dimension_has_a_limit_of_zero]"),
    adapted(
        "an unknown user is an error",
        "an unknown tenant has a limit of zero",
        f"{QUOTA}[an_unknown_tenant_has_a_limit_of_zero]",
    ),
    # across protocols, live, and with the hub away
    adopted("every protocol makes the same name of a name", f"{PREFIX}::test_d8_three_naming_schemes_disagreed"),
    turned(
        "health needs no key",
        2,
        "only what stands, method and path, on the list of public routes",
        f"{ROAD}::test_d03_an_exemption_is_exact",
    ),
    adopted("a list shows the caller's own alone", f"{DEMO}::test_foreign_equals_missing"),
    adapted(
        "another tenant is denied",
        "it is told that there is no such thing",
        f"{DEMO}::test_foreign_equals_missing",
    ),
    turned(
        "with the hub down keys are refused",
        5,
        "it cannot be told: 503, and never 401",
        f"{ASGI}::test_an_unknown_key_during_an_outage_is_503_and_a_known_one_goes_on",
    ),
    adapted(
        "with the hub down cached entries go on",
        "within the allowance of the effect",
        f"{KEYS}[known_keys_survive_an_outage_within_their_allowance]",
    ),
    adopted("with the hub back everything works again", f"{KEYS}[an_outage_is_not_a_wrong_key]"),
)

SYNAP: Final = (
    # names
    adapted(
        "a scoped name is user_<32 hex>:<name>",
        "the default profile writes user:{id}:{name}",
        f"{PREFIX}::test_the_literals_of_the_default_profile",
    ),
    adopted("a name goes through format and parse and back", f"{NAMES}[a_name_round_trips]"),
    turned(
        "a missing colon, another prefix, a bad id and an empty name are four different errors",
        7,
        "what is not the tenant's own is as good as none, however it is written",
        f"{NAMES}[another_tenants_name_is_as_good_as_none]",
    ),
    turned(
        "a name with several colons is an error",
        7,
        "it was its owner's own name and became foreign to it; any text is a name",
        f"{PREFIX}::test_d39_a_colon_in_a_name_broke_the_round_trip",
    ),
    adopted("a tenant owns its names and no others", f"{NAMES}[no_tenants_names_lie_within_anothers]"),
    adopted("with a user a key is prefixed", f"{PREFIX}::test_the_literals_of_the_default_profile"),
    turned(
        "without a user a key is left untouched",
        1,
        "without a tenant there is no name; only standalone mode leaves names alone",
        f"{ROAD}::test_code_without_a_tenant_raises_in_cluster_mode",
    ),
    adopted("a filter keeps the caller's own", f"{NAMES}[a_pattern_matches_just_the_tenants_own]"),
    turned(
        "without a user a filter keeps everything",
        1,
        "without a tenant there is no filter",
        f"{ROAD}::test_code_without_a_tenant_raises_in_cluster_mode",
    ),
    adopted("a list is shown without its scope", f"{NAMES}[several_names_at_once_are_the_same_names]"),
    # plans and restrictions
    turned(
        "names of plans are compared without case",
        2,
        "a plan is named exactly",
        f"{ROAD}::test_a_plan_is_named_exactly",
    ),
    adapted("an unknown plan is none", "it is an error", f"{ROAD}::test_a_plan_is_named_exactly"),
    adapted(
        "a TTL is at least 300 s, and 1 day where none is given",
        "a plan bounds from above alone; what a short or missing one means is the host's business",
        f"{ROAD}::test_static_limits_bound_from_above",
    ),
    adopted("the longest TTL passes, one second more does not", f"{ROAD}::test_static_limits_bound_from_above"),
    adopted(
        "a payload and a batch at the limit pass, one more does not", f"{ROAD}::test_static_limits_bound_from_above"
    ),
    adopted("limits rise from free to pro to enterprise", f"{ROAD}::test_plans_are_ordered"),
    adapted(
        "what is for standalone mode alone refuses with a context and passes without",
        "a function has an effect, which a key must have; standalone mode asks for none",
        "tests/adapters/streams/test_connection.py::test_standalone_admits_everything",
    ),
    # keys and configuration
    turned(
        "X-Hub-Access-Key is preferred to the bearer",
        2,
        "two credentials are refused",
        f"{FORMAT}::test_find_credential",
    ),
    adopted("Basic carries no key", f"{FORMAT}::test_find_credential"),
    adapted("a copy of the context has its fields", "a context is a value", f"{ROAD}::test_a_context_is_a_value"),
    adapted(
        "a disabled configuration never fails",
        "standalone mode has nothing to check",
        f"{ROAD}::test_standalone_mode_gives_the_server_back_as_it_was",
    ),
    adapted(
        "intervals and TTLs out of range are refused",
        "when the object is built, with ranges of our own",
        f"{ROAD}::test_a_wrong_setting_is_found_when_the_tenancy_is_built",
    ),
    # quotas
    adopted("an exact fit is allowed", f"{QUOTA}[the_limit_can_be_reached_and_not_passed]"),
    adopted("operations at their limit are refused", f"{QUOTA}[a_counter_starts_anew_with_its_period]"),
    adapted(
        "a decrement stops at zero",
        "the sign is kept and makes no room; shown is never less than zero",
        f"{QUOTA}[an_underflow_keeps_its_sign_and_makes_no_room]",
    ),
    adopted("what is invalidated is asked for again", f"{LIMITS}::test_each_kind_of_change_drops_what_is_kept"),
    adapted(
        "after its TTL a quota is stale",
        "it is refreshed in the background and serves meanwhile, up to a stated age",
        f"{LIMITS}::test_what_is_no_longer_fresh_serves_on_and_is_refreshed",
    ),
    # usage
    adapted(
        "storage is an absolute number",
        "a running net of what went through this source, which the hub sums",
        f"{USAGE}[records_add_up]",
    ),
    turned(
        "after a report the counters are set to zero",
        4,
        "totals are cumulative and never reset; a reply that was lost changes nothing",
        f"{USAGE}[a_lost_reply_counts_once]",
    ),
    adopted("statistics add over all", "tests/authority/test_usage.py::test_sources_are_added"),
    # rates
    adopted("a burst of 20 on plan free, then a refusal", f"{RATE}::test_e_synap_burst_of_20_at_free_then_refuse"),
    adopted("users have buckets of their own", f"{RATE}::test_e_synap_separate_users_have_separate_buckets"),
    adopted("plans have their own limits", f"{RATE}::test_e_synap_plan_limits"),
    adapted(
        "a clean-up keeps who was seen lately",
        "whoever has units in use is kept",
        f"{RATE}::test_e_synap_cleanup_keeps_recent",
    ),
    # answers
    adopted("a key that is refused is 401, a quota 429", f"{ASGI}::test_a_full_quota_is_429_and_leaves_nothing_held"),
    adopted("caches can be cleared", f"{CACHED}::test_forget"),
)

NEXUS: Final = (
    # names and context
    adapted(
        "an id that is empty, too long, or holds a colon or a control character is refused",
        "each scheme of ids has its own grammar, and nothing is repaired",
        f"{CODEC}::test_what_is_no_token_is_refused",
    ),
    adopted("a UUID is an id", f"{CODEC}::test_a_uuid_is_its_own_token"),
    adopted("a prefix has its shape", f"{PREFIX}::test_the_literals_of_the_default_profile"),
    adopted("abc does not own the keys of abcd", f"{NAMES}[no_tenants_names_lie_within_anothers]"),
    adopted("a scope is taken off one's own names alone", f"{NAMES}[another_tenants_name_is_as_good_as_none]"),
    adapted(
        "a namespace goes through JSON and back",
        "names are text, and go anywhere as they are",
        f"{NAMES}[a_physical_name_goes_to_a_driver_as_it_is]",
    ),
    adapted(
        "without a list of functions all are allowed",
        "all that the permissions allow: a list only takes away",
        f"{RIGHTS}::test_masks_are_the_intersection",
    ),
    adopted("with a list only what it lists is allowed", f"{RIGHTS}::test_d29_allow_lists_were_never_asked"),
    adopted("an empty list denies all", f"{RIGHTS}::test_d29_allow_lists_were_never_asked"),
    adapted(
        "lists are compared with case",
        "names of functions are lower case, and another one is no pattern",
        f"{RIGHTS}::test_anything_else_is_no_pattern",
    ),
    adopted(
        "a refused function is named in the refusal, with a code",
        f"{ASGI}::test_a_missing_permission_is_403_and_pays_for_the_attempt",
    ),
    # configuration
    turned(
        "isolation is none by default, and where the setting is missing",
        1,
        "with tenants names are always scoped; there is no setting",
        f"{PREFIX}::test_d28_a_namespace_that_could_not_be_selected",
    ),
    adapted(
        "limits are above zero",
        "a rate is; a quota of zero is a limit",
        "tests/test_plans.py::test_a_wrong_value_is_refused_when_built_and_the_message_names_the_fix",
    ),
    # rates and quotas
    adopted(
        "3 a minute, then a refusal with a wait of 60 s at most",
        f"{RATE}::test_e_nexus_three_a_minute_then_refuse_with_a_wait_of_a_minute_at_most",
    ),
    adopted(
        "tenants have windows of their own",
        f"{RATE}::test_e_nexus_windows_are_per_tenant_and_nothing_is_there_before_the_first_call",
    ),
    adopted("storage exactly at the limit is allowed, one byte more is not", f"{ROAD}::test_room_to_the_unit"),
    adapted(
        "before its first activity a tenant has no snapshot",
        "it has one that stands at zero",
        f"{ROAD}::test_a_fresh_tenant_has_used_nothing",
    ),
    adopted("an override wins over the plan", "tests/authority/test_service.py::test_limits_follow_plan_and_tenant"),
    # middleware
    turned(
        "without a context an answer goes out untouched, without headers",
        1,
        "without a tenant no answer of the host goes out at all",
        f"{ASGI}::test_an_answer_of_a_middleware_is_withheld",
    ),
    adopted(
        "within the limit the answer says what remains", f"{ASGI}::test_every_answer_carries_rate_and_security_headers"
    ),
    adapted(
        "over the limit the answer is 429 with a code",
        "and with the exact wait",
        f"{ASGI}::test_a_rate_refusal_says_exactly_how_long_to_wait",
    ),
    # the whole server
    adopted("each tenant counts its own", f"{ROAD}::test_the_same_name_in_two_tenants_is_two_objects"),
    turned(
        "five writes are charged 1,280 bytes",
        4,
        "what is charged is what was stored",
        f"{ROAD}::test_what_is_charged_is_what_was_stored",
    ),
    adopted("over the limit is a quota error", f"{ASGI}::test_a_full_quota_is_429_and_leaves_nothing_held"),
    adopted("reads are allowed while over", f"{ROAD}::test_a_full_tenant_disturbs_nobody_and_still_reads_and_deletes"),
    adopted("an unknown namespace holds nothing", f"{ROAD}::test_a_fresh_tenant_has_used_nothing"),
    adopted(
        "standalone mode asks no provider of limits",
        f"{ROAD}::test_standalone_mode_gives_the_server_back_as_it_was",
    ),
    adopted("standalone mode passes requests through", f"{ROAD}::test_standalone_mode_gives_the_server_back_as_it_was"),
    adopted(
        "without a bearer the answer is 401", f"{ASGI}::test_no_key_is_401_with_a_challenge_and_without_rate_headers"
    ),
    turned(
        "a bearer with a header that names the user is that user, and without one 401",
        6,
        "the header says nothing: with a good key it changes nothing, and with another it is 401",
        f"{ROAD}::test_d31_gateway_headers_were_trusted_from_anyone",
    ),
    turned(
        "a user header that is no UUID is 401",
        6,
        "the header is not read",
        f"{ROAD}::test_d31_a_key_and_a_gateway_header_disagreed",
    ),
    adopted(
        "in cluster mode every path needs a key, that of health too",
        f"{ROAD}::test_every_path_needs_a_key_in_cluster_mode",
    ),
    adopted("a key without a user is 401", f"{ROAD}::test_a_key_that_nobody_owns_is_401"),
)

TABLE: Final = {"vectorizer": VECTORIZER, "synap": SYNAP, "nexus": NEXUS}
CASES: Final = [pytest.param(case, id=f"{where}: {case.says}") for where, cases in TABLE.items() for case in cases]

WEAKNESSES: Final = (
    *(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 28, 29, 30),
    *(31, 32, 33, 34, 36, 38, 39, 40, 41, 43, 45, 46),
)


@cache
def functions(path: Path) -> dict[str, str]:
    """The functions of a file, however deep, each with its docstring."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return {node.name: ast.get_docstring(node) or "" for node in nodes if isinstance(node, kinds)}


@pytest.fixture(scope="module")
def kits() -> dict[str, set[str]]:
    """The cases of each contract kit, by the room whose tests run it."""
    folder = Path(hivetenancy.__file__).parent / "testing/contracts"
    return {path.stem: set(functions(path)) for path in folder.glob("[a-z]*.py")}


def missing(test: str, kits: dict[str, set[str]]) -> str:
    """What is wrong with a reference; empty: nothing."""
    found = re.fullmatch(r"(?P<path>tests/[\w/]+\.py)::(?P<name>test_\w+)(?:\[(?P<case>\w+)\])?", test)
    if found is None:
        return "is written wrongly"
    path = ROOT / found["path"]
    if not path.is_file():
        return "has no such file"
    if found["name"] not in functions(path):
        return "has no such test"
    if found["case"] is not None and found["case"] not in kits.get(path.parent.name, set()):
        return "has no such case"
    return ""


@pytest.mark.parametrize("case", CASES)
def test_a_case_has_its_test(case: Case, kits: dict[str, set[str]]) -> None:
    """The test that a row names is there; what is turned around names a law, what is adapted what holds instead."""
    assert missing(case.test, kits) == "", case.test
    assert (case.law is not None) == (case.verdict == "reversed")
    assert case.law is None or 1 <= case.law <= 8
    assert bool(case.because) == (case.verdict != "adopted")


def test_no_case_stands_twice() -> None:
    """Within one server's rows each sentence stands once."""
    for cases in TABLE.values():
        assert [says for says, times in Counter(case.says for case in cases).items() if times > 1] == []


@pytest.mark.parametrize("number", WEAKNESSES)
def test_a_weakness_has_its_test(number: int) -> None:
    """At least one test is named after what went wrong there, and says what holds here."""
    pattern = re.compile(rf"test_d0*{number}_\w+")
    found = {
        name: text
        for path in (ROOT / "tests").rglob("test_*.py")
        for name, text in functions(path).items()
        if pattern.fullmatch(name)
    }
    assert found
    assert all(found.values()), f"without a docstring: {[name for name, text in found.items() if not text]}"


@pytest.mark.parametrize(
    ("test", "why"),
    [
        ("tests/test_upstream.py", "is written wrongly"),
        ("tests/test_nowhere.py::test_a_case_has_its_test", "has no such file"),
        ("tests/test_upstream.py::test_that_nobody_wrote", "has no such test"),
        (f"{QUOTA}[a_case_that_nobody_wrote]", "has no such case"),
        ("tests/test_upstream.py::test_a_case_has_its_test[tenants_are_apart]", "has no such case"),
        (f"{QUOTA}[tenants_are_apart]", ""),
    ],
)
def test_a_wrong_reference_is_noticed(test: str, why: str, kits: dict[str, set[str]]) -> None:
    """A row whose test was renamed or never written is found."""
    assert missing(test, kits) == why

"""Service keys: shown once, held as digests, good for their scopes and service alone; and what a hub announces."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from hivetenancy.authority import admin
from hivetenancy.authority.credentials import ALL_SCOPES, DATA_SERVER_SCOPES, SCOPES, ServiceIdentity, ServiceKey
from hivetenancy.authority.resources import CallRefused
from hivetenancy.authority.service import HubService
from hivetenancy.authority.view import ALL_EXTENSIONS
from hivetenancy.clock import DAY_US, SECOND_US
from hivetenancy.errors import ConfigurationError, HubRefusedError
from hivetenancy.sources import ChangeType
from hivetenancy.testing import ManualClock

OWN_SECRET = "svc_synap_" + "a" * 40


@pytest.fixture
def clock() -> ManualClock:
    """A clock that stands still, at the start of 2100."""
    return ManualClock()


@pytest.fixture
def hub(clock: ManualClock) -> HubService:
    """A control plane without tenants."""
    return HubService(clock=clock, authority="fake")


def test_a_service_key_says_who_calls(hub: HubService) -> None:
    """A key's secret gives its identity, service and scopes back; nothing else gives any."""
    key = hub.issue_service_key("synap", DATA_SERVER_SCOPES, identity="node")
    assert hub.authenticate(key.secret) == ServiceIdentity(
        key_id=key.key_id, identity="node", service="synap", scopes=DATA_SERVER_SCOPES, expires_at_us=None
    )
    wrong = ["", key.secret[:-1], key.secret + "x", key.secret.upper(), " " + key.secret, "\udc80", "x" * 100_000]
    assert [hub.authenticate(secret) for secret in wrong] == [None] * len(wrong)


def test_a_secret_is_shown_once(hub: HubService) -> None:
    """Secrets are marked, random, and in nothing that can be printed; the hub holds digests."""
    keys = [hub.issue_service_key(service) for service in ("nexus", None) for _ in range(5)]
    assert len({key.secret for key in keys}) == 10
    assert [key.secret.rsplit("_", 1)[0] for key in keys] == ["svc_nexus"] * 5 + ["svc_all"] * 5
    for key in keys:
        assert key.identity == key.key_id
        assert key.secret not in repr((key, hub, hub.service_keys(), hub.snapshot(), hub.authenticate(key.secret)))
        assert key.secret.encode() not in {held.digest for known in hub.service_keys() for held in known.secrets}


def test_an_operators_own_secret(hub: HubService) -> None:
    """A secret from a file is taken as it is, once, if it could be one; no error holds it."""
    key = hub.issue_service_key("synap", secret=OWN_SECRET)
    found = hub.authenticate(OWN_SECRET)
    assert found is not None
    assert found.key_id == key.key_id
    for secret in (OWN_SECRET, "svc_synap_short", "hh_test_" + "a" * 40, OWN_SECRET + "\n"):
        with pytest.raises(ConfigurationError) as refused:
            hub.issue_service_key(secret=secret)
        assert secret not in str(refused.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"service": "postgres"},
        {"scopes": ()},
        {"scopes": ["root"]},
        {"scopes": "keys usage"},
        {"expires_at_us": -1},
        {"identity": ""},
    ],
)
def test_a_wrong_service_key_is_refused(hub: HubService, wrong: dict[str, object]) -> None:
    """A key of an unknown service or scope is not made."""
    with pytest.raises(ConfigurationError):
        hub.issue_service_key(**wrong)  # type: ignore[arg-type]
    assert hub.service_keys() == ()


def test_a_service_key_expires(hub: HubService, clock: ManualClock) -> None:
    """A key counts until its expiry, to the microsecond."""
    key = hub.issue_service_key(expires_at_us=clock.now()[1] + DAY_US)
    clock.advance(us=DAY_US - 1)
    assert hub.authenticate(key.secret) is not None
    clock.advance(us=1)
    assert hub.authenticate(key.secret) is None


def test_a_rotation_overlaps_exactly_as_long_as_asked(hub: HubService, clock: ManualClock) -> None:
    """Both secrets count during the overlap, under one identity; pollers hear when the old one ends."""
    old = hub.issue_service_key("nexus")
    cursor = hub.try_changes(None).cursor
    new = hub.rotate_service_key(old.key_id, overlap_seconds=60)
    (event,) = hub.try_changes(cursor).events
    ends = clock.now()[1] + 60 * SECOND_US
    assert (event.type, event.expires_at_us, event.key_id) == (ChangeType.SERVICE_KEY_ROTATED, ends, None)
    assert hub.authenticate(old.secret) == hub.authenticate(new.secret)
    clock.advance(us=60 * SECOND_US - 1)
    assert hub.authenticate(old.secret) is not None
    clock.advance(us=1)
    assert hub.authenticate(old.secret) is None
    assert hub.authenticate(new.secret) is not None


def test_at_most_two_service_secrets_live(hub: HubService) -> None:
    """A second rotation ends the oldest secret at once."""
    first = hub.issue_service_key()
    second, third = (hub.rotate_service_key(first.key_id, overlap_seconds=60) for _ in range(2))
    assert [hub.authenticate(key.secret) is not None for key in (first, second, third)] == [False, True, True]


def test_a_revoked_service_key_is_over(hub: HubService) -> None:
    """Revoking ends a key with both its secrets, and cannot be done to what there is not."""
    key = hub.issue_service_key()
    other = hub.rotate_service_key(key.key_id, overlap_seconds=60)
    assert hub.revoke_service_key(key.key_id) == hub.revision
    assert [hub.authenticate(each.secret) for each in (key, other)] == [None, None]
    for gone in (hub.revoke_service_key, hub.rotate_service_key):
        with pytest.raises(ConfigurationError):
            gone(key.key_id)


@pytest.mark.parametrize("overlap", [-1, 2_592_001, 1.5, True])
def test_a_wrong_overlap_is_refused(hub: HubService, overlap: int) -> None:
    """An overlap is 0 to 30 days of whole seconds, and a refused rotation leaves the key as it was."""
    key = hub.issue_service_key()
    with pytest.raises(ConfigurationError):
        hub.rotate_service_key(key.key_id, overlap_seconds=overlap)
    assert hub.authenticate(key.secret) is not None


def test_scopes_and_service_confine_a_key(hub: HubService) -> None:
    """Each scope opens itself alone, and a key of one service nothing of another; the refusals are the same."""
    texts = set()
    for scope in SCOPES:
        found = hub.authenticate(hub.issue_service_key("synap", [scope]).secret)
        assert found is not None
        for asked in SCOPES:
            for service in (None, "synap", "nexus"):
                if asked == scope and service != "nexus":
                    found.require(asked, service)
                    continue
                with pytest.raises(CallRefused) as refused:
                    found.require(asked, service)
                texts.add((refused.value.status, refused.value.code, str(refused.value)))
    assert texts == {(403, "forbidden", "Access denied")}


def test_a_key_of_all_services_serves_each(hub: HubService) -> None:
    """A key without service speaks for every one."""
    found = hub.authenticate(hub.issue_service_key().secret)
    assert found is not None
    for service in ("vectorizer", "nexus", "synap", "lesstokens", None):
        found.require("keys", service)


def test_a_refusal_is_the_librarys_own() -> None:
    """A refusal of the model is caught as the one that comes over HTTP."""
    assert issubclass(CallRefused, HubRefusedError)


def looks_until_found(keys: Iterable[ServiceKey], secret: str, now_us: int) -> ServiceIdentity | None:
    """A broken look-up: any secret of the right service is good enough."""
    for key in keys:
        if secret.startswith(f"svc_{key.service}_"):
            return ServiceIdentity(
                key_id=key.key_id, identity="", service=key.service, scopes=key.scopes, expires_at_us=None
            )
    return None


def test_a_broken_look_up_is_caught(hub: HubService, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first test above fails where a secret's form is taken for the secret."""
    monkeypatch.setattr(admin, "find_identity", looks_until_found)
    with pytest.raises(AssertionError):
        test_a_service_key_says_who_calls(hub)


# --- announcement ----------------------------------------------------------------------------------------------------


def test_a_hub_announces_itself(hub: HubService, clock: ManualClock) -> None:
    """An announcement says which hub this is, what it speaks, and what the asking key may do."""
    hub.add_tenant("acme", plan="free")
    for service, scopes in (("synap", frozenset({"usage", "changes"})), (None, ALL_SCOPES)):
        found = hub.authenticate(hub.issue_service_key(service, scopes).secret)
        assert found is not None
        said = hub.announcement(found)
        assert (said.hub_id, said.authority, said.epoch, said.revision) == (hub.hub_id, "fake", 1, 1)
        assert (said.service, said.scopes, said.now_us) == (service, tuple(sorted(scopes)), clock.now()[1])
        assert said.extensions == ALL_EXTENSIONS
        assert (said.idempotency_window_seconds, said.usage_grace_seconds) == (30 * 86_400, 3_600)


def test_extensions_can_be_narrowed() -> None:
    """A hub speaks what it was told to, from the start or later, and nothing that does not exist."""
    hub = HubService(clock=ManualClock(), extensions=["limits", "announcement"])
    identity = hub.authenticate(hub.issue_service_key().secret)
    assert identity is not None
    assert hub.announcement(identity).extensions == ("announcement", "limits")
    hub.set_extensions(())
    assert (hub.announcement(identity).extensions, hub.extensions) == ((), frozenset())
    for wrong in (["limits", "webhooks"], "limits"):
        with pytest.raises(ConfigurationError):
            hub.set_extensions(wrong)
        with pytest.raises(ConfigurationError):
            HubService(clock=ManualClock(), extensions=wrong)

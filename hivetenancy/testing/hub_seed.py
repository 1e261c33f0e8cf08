"""Tenants and keys for a fake, as other programs say them: in a file, or in the body of a control request."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hivetenancy.errors import ConfigurationError

from .hub_core import FakeHubCore
from .hub_tenants import FakeTenant


class Stated(BaseModel):
    """What somebody wrote: every field known, every type its own."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class KeySeed(Stated):
    """A key to issue; see `FakeTenant.issue_key`."""

    permissions: list[str] = Field(min_length=1)
    name: str = "key"
    functions: list[str] | None = None
    expires_in: Annotated[float, Field(gt=0, le=3_153_600_000)] | None = None
    service: str | None = None


class TenantSeed(Stated):
    """A tenant to add."""

    name: str
    plan: str = "free"
    keys: list[KeySeed] = Field(default_factory=list)
    limits: dict[str, Annotated[int, Field(ge=0, lt=2**53)] | None] = Field(default_factory=dict)


class _Seeds(Stated):
    tenants: list[TenantSeed]


def read_seeds(path: Path) -> list[TenantSeed]:
    """Read a file of tenants: ``{"tenants": [{"name", "plan", "keys": [{"permissions"}]}]}``, in JSON, or TOML by name.

    *limits* of a tenant are of its own, by dimension, ``null`` for none; in TOML that cannot be said.

    Raises:
        ConfigurationError: It cannot be read, or is none; the message names file and field.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".toml":
            return _Seeds.model_validate(tomllib.loads(text)).tenants
        return _Seeds.model_validate_json(text).tenants
    except OSError as error:
        raise ConfigurationError(f"{str(path)!r} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise ConfigurationError(f"{str(path)!r}: {place}: {first['msg']}") from None
    except ValueError as error:
        raise ConfigurationError(f"{str(path)!r} is no JSON or TOML in UTF-8: {error}") from None


def card(tenant: FakeTenant, keys: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """Return what stands for a tenant in what is printed."""
    return {"id": tenant.id, "name": tenant.name, "plan": tenant.plan, "keys": list(keys)}


def issue(tenant: FakeTenant, seed: KeySeed) -> dict[str, Any]:
    """Issue a key and return it with its secret, this once.

    Raises:
        ConfigurationError: A value is out of range.
    """
    key = tenant.issue_key(
        permissions=seed.permissions,
        name=seed.name,
        functions=seed.functions,
        expires_in=seed.expires_in,
        service=seed.service,
    )
    return {"id": key.key_id, "name": seed.name, "permissions": seed.permissions, "secret": key.secret}


def sow(hub: FakeHubCore, seeds: Sequence[TenantSeed]) -> list[dict[str, Any]]:
    """Add tenants and issue their keys; one that is there already, from a state file, stays as it is, without new keys.

    Raises:
        ConfigurationError: A value is out of range. None of the tenants was added then: a state file that kept one
            would have its keys, whose secrets nobody was shown.
    """
    there = {tenant.name for tenant in hub.tenants}
    added: list[FakeTenant] = []
    cards = []
    try:
        for seed in seeds:
            if seed.name in there:
                cards.append(card(hub.tenant(seed.name)))
                continue
            added.append(hub.add_tenant(seed.name, plan=seed.plan))
            for dimension, limit in seed.limits.items():
                added[-1].set_limit(dimension, limit)
            cards.append(card(added[-1], [issue(added[-1], key) for key in seed.keys]))
    except ConfigurationError:
        for tenant in added:
            tenant.delete()
        raise
    return cards

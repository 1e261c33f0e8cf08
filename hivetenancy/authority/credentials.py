"""Service keys: what a data server, or whoever manages keys, shows to a control plane (HiveHub wire 4.1).

Kept as digests and shown once, like access keys. A service key speaks for one service, or for all, and for certain
*scopes*; nothing in a path or a body adds to that. Behind it stands an *identity*, which outlives rotations: usage
sources and idempotency keys belong to it.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from hashlib import sha256
from hmac import compare_digest
from typing import Final

from hivetenancy.errors import ConfigurationError

from .keys import ALPHABET, SECRET_LENGTH
from .resources import CallRefused

SCOPES: Final = ("introspect", "changes", "limits", "usage", "keys", "mcp", "logs")
"""What a service key may be good for (HiveHub wire 4.1)."""

ALL_SCOPES: Final = frozenset(SCOPES)
DATA_SERVER_SCOPES: Final = ALL_SCOPES - {"keys"}
"""What a data server needs at most: it never mints, rotates or revokes."""

_DIGEST_PREFIX: Final = b"hivehub-service-key-1\n"
_SECRET: Final = re.compile(r"svc_[a-z]+_[A-Za-z0-9_-]{22,256}", re.ASCII)
_LONGEST: Final = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSecret:
    """One secret of a service key: its digest, and when it stops to count (``None`` for the newest)."""

    digest: bytes = field(repr=False)
    ends_at_us: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceKey:
    """A service key as the control plane holds it.

    Attributes:
        key_id: Its id; stays the same over rotations.
        identity: Who holds it.
        service: The service it speaks for; ``None``: all.
        scopes: What it may do.
        created_at_us: When it was issued.
        expires_at_us: Not valid from then on; ``None``: no end.
        secrets: At most two, the newest last.
    """

    key_id: str
    identity: str
    service: str | None
    scopes: frozenset[str]
    created_at_us: int
    expires_at_us: int | None
    secrets: tuple[ServiceSecret, ...] = field(repr=False)

    def rotated(self, digest: bytes, *, ends_at_us: int) -> ServiceKey:
        """Return the key with a new secret; the newest of before ends then, older ones are gone."""
        previous = replace(self.secrets[-1], ends_at_us=ends_at_us)
        return replace(self, secrets=(previous, ServiceSecret(digest=digest)))


@dataclass(frozen=True, slots=True, kw_only=True)
class MintedServiceKey:
    """A service key's secret, shown this once; the other attributes as in `ServiceKey`."""

    key_id: str
    identity: str
    service: str | None
    scopes: frozenset[str]
    expires_at_us: int | None
    secret: str = field(repr=False)

    @classmethod
    def of(cls, key: ServiceKey, secret: str) -> MintedServiceKey:
        """Return *key* together with *secret*."""
        return cls(
            key_id=key.key_id,
            identity=key.identity,
            service=key.service,
            scopes=key.scopes,
            expires_at_us=key.expires_at_us,
            secret=secret,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceIdentity:
    """Who calls; attributes as in `ServiceKey`."""

    key_id: str
    identity: str
    service: str | None
    scopes: frozenset[str]
    expires_at_us: int | None

    def require(self, scope: str, service: str | None = None) -> None:
        """Refuse a call that this identity has no right to.

        Args:
            scope: The scope that the call needs.
            service: The service that its path or body names; ``None``: none.

        Raises:
            CallRefused: 403 ``forbidden``; the same for a scope that is missing and for another service.
        """
        if scope not in self.scopes or (service is not None and self.service not in (None, service)):
            raise CallRefused(403, "forbidden", "Access denied")


def service_digest(secret: str) -> bytes:
    """Return the 32 bytes that stand for a service key. A fast hash is right: there is nothing to guess."""
    return sha256(_DIGEST_PREFIX + secret.encode("utf-8", "surrogatepass")).digest()


def mint_service_secret(service: str | None) -> str:
    """Return a new secret from the system's randomness: ``svc_<service or all>_`` and 43 characters of base 62."""
    body = "".join(secrets.choice(ALPHABET) for _ in range(SECRET_LENGTH))
    return f"svc_{service or 'all'}_{body}"


def checked_secret(secret: str) -> str:
    """Return *secret* if it can be a service key's.

    Raises:
        ConfigurationError: It cannot; the message does not hold it.
    """
    if _SECRET.fullmatch(secret) is None:
        raise ConfigurationError("a service key is svc_<service>_ and 22 or more random characters of A-Z a-z 0-9 _ -")
    return secret


def checked_scopes(scopes: Iterable[str]) -> frozenset[str]:
    """Return *scopes* as a set.

    Raises:
        ConfigurationError: There is none, or one that the wire does not know.
    """
    found = frozenset([scopes] if isinstance(scopes, str) else scopes)
    if not found or not found <= ALL_SCOPES:
        raise ConfigurationError(f"scopes are one or more of {', '.join(SCOPES)}, got {sorted(found)}")
    return found


def find_identity(keys: Iterable[ServiceKey], secret: str, now_us: int) -> ServiceIdentity | None:
    """Return who presents *secret* at *now_us*; ``None``: no live key has it. Looks at every key, whatever matches."""
    presented = service_digest(secret[: _LONGEST + 1])
    found: ServiceKey | None = None
    for key in keys:
        for held in key.secrets:
            same = compare_digest(held.digest, presented)
            over = any(end is not None and end <= now_us for end in (held.ends_at_us, key.expires_at_us))
            if same and not over:
                found = key
    if found is None or len(secret) > _LONGEST:
        return None
    return ServiceIdentity(
        key_id=found.key_id,
        identity=found.identity,
        service=found.service,
        scopes=found.scopes,
        expires_at_us=found.expires_at_us,
    )

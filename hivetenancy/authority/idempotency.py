"""Idempotency keys: a call that is sent again has its effect once, and gets its first answer again (HiveHub wire 4.7).

Claim, effect and answer belong into one transaction of the hub (`HubAccounts.transaction`), so
that nothing can come between them. Only an answer of 2xx is kept; any other has had no effect, and the call may be
tried anew. An answer with a secret is never kept: a repeat is told which key it made, which the caller then rotates.

What is kept is kept for the whole window. So when the store is full it takes nothing new rather than forget something:
a forgotten claim would have its effect twice.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from hivetenancy.clock import DAY_US, SECOND_US

WINDOW_US: Final = 30 * DAY_US
"""How long an answer is kept (HiveHub wire 4.7)."""

WINDOW_SECONDS: Final = WINDOW_US // SECOND_US

MAX_ENTRIES: Final = 1_000_000
MAX_BODY_BYTES: Final = 256 * 1024 * 1024
"""Bodies of all kept answers together."""

_LEAST, _MOST = 8, 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What an idempotency key is unique within: who sends it, and to what.

    Attributes:
        identity: Of the service key (`hivetenancy.authority.credentials.ServiceIdentity.identity`).
        method: ``POST``, ``PUT``.
        target: The raw path with its query, as sent.
        key: The value of the header.
    """

    identity: str
    method: str
    target: bytes
    key: str


@dataclass(frozen=True, slots=True)
class Fresh:
    """Nobody has made this call yet: make it, then `IdempotencyStore.complete` or `IdempotencyStore.release`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """It was made: this was the answer."""

    status: int
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretMade:
    """It was made, and its answer held a secret: 409 ``secret_not_repeatable`` with the key's id and version."""

    key_id: str
    version: int


@dataclass(frozen=True, slots=True)
class InProgress:
    """It is being made at this moment: 409 ``in_progress`` with ``Retry-After``."""


@dataclass(frozen=True, slots=True)
class Mismatch:
    """The key was used for another body: 422 ``idempotency_mismatch``."""


@dataclass(frozen=True, slots=True)
class Full:
    """No room to remember another call: 503, for which nothing was done."""


Claimed: TypeAlias = Fresh | Replay | SecretMade | InProgress | Mismatch | Full


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    body_digest: bytes
    outcome: Replay | SecretMade
    until_us: int


def checked_key(key: str) -> str:
    """Return *key* if it is 8 to 128 visible ASCII characters.

    Raises:
        ValueError: It is not; the message does not hold it.
    """
    if not _LEAST <= len(key) <= _MOST or any(not "!" <= character <= "~" for character in key):
        raise ValueError(f"an Idempotency-Key is {_LEAST} to {_MOST} visible ASCII characters")
    return key


class IdempotencyStore:
    """Which calls were made, and what was answered.

    Args:
        max_entries: Answers kept.
        max_bytes: Bytes of their bodies together.

    Concurrency:
        None of its own: the control plane's lock covers it.
    """

    def __init__(self, *, max_entries: int = MAX_ENTRIES, max_bytes: int = MAX_BODY_BYTES) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._bytes = 0
        self._kept: OrderedDict[Claim, _Entry] = OrderedDict()  # oldest first, as all are kept equally long
        self._pending: dict[Claim, bytes] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def __repr__(self) -> str:
        return f"<IdempotencyStore {len(self._kept)} kept, {len(self._pending)} in progress>"

    def claim(self, claim: Claim, body_digest: bytes, now_us: int) -> Claimed:
        """Say whether to make a call, or what came of it.

        Args:
            claim: Which call.
            body_digest: Digest of the body's very bytes.
            now_us: The hub's wall time.
        """
        self._expire(now_us)
        pending = self._pending.get(claim)
        entry = self._kept.get(claim)
        known = pending if pending is not None else entry.body_digest if entry is not None else None
        if known is not None and known != body_digest:
            return Mismatch()
        if pending is not None:
            return InProgress()
        if entry is not None:
            return entry.outcome
        if len(self._kept) + len(self._pending) >= self._max_entries or self._bytes >= self._max_bytes:
            return Full()
        self._pending[claim] = body_digest
        return Fresh()

    def complete(self, claim: Claim, status: int, body: bytes, now_us: int) -> None:
        """Keep the answer to a claimed call if it is 2xx; otherwise let go of the claim."""
        if 200 <= status < 300:
            self._keep(claim, Replay(status=status, body=body), now_us)
        else:
            self.release(claim)

    def complete_secret(self, claim: Claim, key_id: str, version: int, now_us: int) -> None:
        """Remember that a claimed call made a secret, without the secret."""
        self._keep(claim, SecretMade(key_id=key_id, version=version), now_us)

    def release(self, claim: Claim) -> None:
        """Let go of a claim whose call had no effect; without a claim nothing happens."""
        self._pending.pop(claim, None)

    def copy(self) -> IdempotencyStore:
        """Return a store of its own that knows the same."""
        other = IdempotencyStore(max_entries=self._max_entries, max_bytes=self._max_bytes)
        other._kept, other._pending, other._bytes = self._kept.copy(), dict(self._pending), self._bytes
        return other

    def _keep(self, claim: Claim, outcome: Replay | SecretMade, now_us: int) -> None:
        body_digest = self._pending.pop(claim)
        self._kept[claim] = _Entry(body_digest=body_digest, outcome=outcome, until_us=now_us + WINDOW_US)
        self._bytes += _size(outcome)

    def _expire(self, now_us: int) -> None:
        while self._kept:
            claim, oldest = next(iter(self._kept.items()))
            if oldest.until_us > now_us:
                return
            del self._kept[claim]
            self._bytes -= _size(oldest.outcome)


def _size(outcome: Replay | SecretMade) -> int:
    return len(outcome.body) if isinstance(outcome, Replay) else 0

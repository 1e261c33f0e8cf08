"""Who is asking, and what may they do? The protocol and its answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from hivetenancy.clock import Instant
from hivetenancy.decision import Refusal
from hivetenancy.ids import Effect, Environment, KeyId, Permission, Surface, TenantId


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Principal:
    """A validated caller: tenant, key and rights. Built once a look-up at the hub, shared by the requests after it.

    Compared by identity. Holds no secret: *digest* is what the hub's batch call takes, and stays out of the repr.

    Attributes:
        tenant_id: The owner of the key.
        key_id: The key.
        version: Which version of the secret was presented.
        permissions: The wire permissions of the key.
        functions: Its function allow list as written; ``None``: no list.
        surfaces: The surfaces it is confined to; ``None``: all.
        environment: Live or test.
        plan: Name of the owner's plan when the key was looked up.
        mask: Bit of each function of the registry that the key may call.
        registry_version: `FunctionRegistry.version` that *mask* was compiled for.
        verified_at_us: Monotonic time at which the question to the hub was sent; ages count from here.
        ends_at_us: Monotonic time at which the key stops to count; ``None``: no end.
        generation: Revision of the hub's answer.
        digest: Digest of the presented secret.
        stale: Whether this acceptance rests on an answer past its fresh window, the hub being out of reach.
    """

    tenant_id: TenantId
    key_id: KeyId
    version: int
    permissions: frozenset[Permission]
    functions: tuple[str, ...] | None
    surfaces: frozenset[Surface] | None
    environment: Environment
    plan: str
    mask: int = field(repr=False)
    registry_version: int = field(repr=False)
    verified_at_us: int
    ends_at_us: int | None
    generation: int
    digest: bytes = field(repr=False)
    stale: bool = False


class AccessKeyValidator(Protocol):
    """Answers who presents a credential.

    An engine that can answer at once also has ``try_validate`` (same arguments; ``None`` only where waiting could bring
    an answer), and this method is a wrapper around it.
    """

    async def validate(self, credential: bytes, *, effect: Effect, now: Instant | None = None) -> Principal | Refusal:
        """Say who presents *credential*.

        Args:
            credential: The key as presented, bytes end to end.
            effect: The answer must be fresh enough for a function of this effect; ``read`` has the widest window.
            now: The present instant; ``None``: the engine reads its clock.

        Returns:
            The principal, or a refusal (400 or 401 reasons) that counts for every caller of that key alike.

        Raises:
            UnavailableError: It cannot be told; never a refusal in disguise.

        Concurrency:
            Callers of one unknown key share one look-up. Safe to cancel.
        """
        ...


class ImmediateValidator(AccessKeyValidator, Protocol):
    """A validator that can answer from memory."""

    def try_validate(
        self, credential: bytes, *, effect: Effect, now: Instant | None = None
    ) -> Principal | Refusal | None:
        """Answer as `validate`, or ``None`` where only a look-up can tell.

        Raises:
            UnavailableError: A look-up was tried a moment ago and could not tell.
        """
        ...


class Rechecks(Protocol):
    """Optional ability: ask again about a principal, for guards and for connections that outlive their request."""

    def try_recheck(
        self, principal: Principal, *, effect: Effect, now: Instant | None = None
    ) -> Principal | Refusal | None:
        """Say whether *principal* still counts for *effect*; ``None`` where only a look-up can tell."""
        ...

    async def recheck(self, principal: Principal, *, effect: Effect, now: Instant | None = None) -> Principal | Refusal:
        """Say whether *principal* still counts for *effect*, looking it up by digest if need be.

        Raises:
            UnavailableError: It cannot be told.
        """
        ...


class Forgets(Protocol):
    """Optional ability: drop what is known, so that it is looked up again before it counts."""

    def forget(self, *, key_id: KeyId | None = None, tenant_id: TenantId | None = None) -> None:
        """Drop the entries of a key, of a tenant, or with neither all."""
        ...


class StatesBound(Protocol):
    """Optional ability: say how late a revocation can be noticed at this moment."""

    def bound_us(self, effect: Effect, *, now: Instant | None = None) -> int:
        """Return how long a key that is revoked now may still be accepted for *effect*, in microseconds."""
        ...

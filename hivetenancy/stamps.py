"""A tenant's work goes on elsewhere: in a job, or on another node of the same cluster.

A context variable does not leave its process, and a tenant's id written into a job is only a claim. A `TenantStamp` is
neither: a short text that names the tenant, and which only those can make who hold the secret of the cluster. It counts
for one purpose, for a while, and for one life of the tenant. Anywhere else it is worth nothing: with another secret,
for another purpose, before or after its time, with a changed bit, when the tenant was deleted and made again, while it
is suspended.

The text is ``hvt1.<payload>.<mac>``. The payload is JSON in base64url: tenant, generation, key id, purpose, issue and
expiry in wall microseconds. The MAC is keyed BLAKE2b over the text in front of it, compared as text and in constant
time, so that no second spelling of one stamp counts. Nothing of the payload is looked at before the MAC is right.

A stamp is as good as an access key for its purpose and while it lasts: keep it out of logs. It is in no repr here.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from sys import _getframe
from types import TracebackType
from typing import TYPE_CHECKING, Final, NoReturn, Protocol

from hivetenancy.clock import DAY_US, SECOND_US, Instant
from hivetenancy.context import Binding, TenantContext, bound, refuse_generator
from hivetenancy.decision import Reason, Refusal
from hivetenancy.errors import ConfigurationError, MisuseError, UnauthenticatedError
from hivetenancy.home import Home
from hivetenancy.ids import KeyId, TenantId
from hivetenancy.sources import LimitsView, TenantLimits, TenantStatus
from hivetenancy.tenant import Tenant, bound_to

MIN_SECRET_BYTES: Final = 32
"""A secret must be as long as what is derived from it; a shorter one could be tried out."""

MAX_STAMP_CHARACTERS: Final = 1024
"""Longest text that is looked at; the longest that is ever made has some 900 characters."""

MAX_STAMP_US: Final = 30 * DAY_US
"""A stamp is for work under way, not for credentials; what waits longer shall be stamped anew."""

SKEW_US: Final = 5 * SECOND_US
"""How far the clock of the node that issued a stamp may be ahead of ours."""

_VERSION: Final = "hvt1"
_MAC_BYTES: Final = 32
_PURPOSE: Final = re.compile(r"[a-z0-9][a-z0-9._:-]{0,63}")
_OTHER_LOOP: Final = "this event loop is not the tenancy's; use `with` in a thread"


class ClusterSecret:
    """What all nodes of one cluster share and nobody else has. It is never used itself: each purpose has a subkey.

    Args:
        root: At least `MIN_SECRET_BYTES` random bytes, the same on every node; ``None``: random, for this process.

    Raises:
        ConfigurationError: It is no bytes, or too short. The message does not show it.
    """

    __slots__ = ("_root", "shared")

    shared: bool
    """Whether it was given, so that other processes may have it too."""

    def __init__(self, root: bytes | None = None) -> None:
        if root is not None and not _long_enough(root):
            raise ConfigurationError(
                f"secret must be at least {MIN_SECRET_BYTES} bytes; make one with secrets.token_bytes(32), and give "
                "every node of the cluster the same"
            )
        self.shared = root is not None
        # A key of BLAKE2b has 64 bytes at most; a longer secret is condensed, none is cut.
        self._root = hashlib.blake2b(root or secrets.token_bytes(64), person=b"hivetenancy").digest()

    def derive(self, purpose: str) -> bytes:
        """Return the 32 bytes for *purpose*: the same wherever the secret is, and telling nothing of any other."""
        return hashlib.blake2b(purpose.encode(), key=self._root, digest_size=32, person=b"hivetenancy").digest()

    def __repr__(self) -> str:
        return f"<ClusterSecret, {'shared' if self.shared else 'of this process'}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not pickled: build it in the process that needs it")


def _long_enough(root: object) -> bool:
    return isinstance(root, bytes) and len(root) >= MIN_SECRET_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantStamp:
    """Who a piece of work is for, on its way.

    Attributes:
        tenant_id: The tenant.
        key_id: The key that the work was started with, for the audit; ``None``: no key. The stamp does not end with it.
        generation: Which life of the tenant is meant.
        purpose: What it is good for.
        issued_us: When it was made, in wall microseconds.
        expires_us: From when on it is worth nothing.
        token: What travels: ASCII without blanks, fit for a header. As secret as an access key.
    """

    tenant_id: TenantId
    key_id: KeyId | None
    generation: int
    purpose: str
    issued_us: int
    expires_us: int
    token: str = field(repr=False)


class StampPress:
    """Makes stamps and reads them. Pure but for its key; any thread.

    Args:
        key: A subkey of the cluster's secret.
    """

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        self._key = key

    def __repr__(self) -> str:
        return "<StampPress>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not pickled: build it in the process that needs it")

    def issue(self, context: TenantContext, *, purpose: str, seconds: float, now: Instant) -> TenantStamp:
        """Return a stamp for the tenant of *context*.

        Args:
            context: For whom.
            purpose: What it is good for: 1 to 64 of ``a-z 0-9 . _ : -``, beginning with a letter or digit.
            seconds: How long from *now* on; above 0, at most 30 days.
            now: The present.

        Raises:
            ValueError: *purpose* or *seconds* is out of range, or the ids are too long to travel.
        """
        checked_purpose(purpose)
        lasts_us = round(seconds * SECOND_US) if 0 < seconds <= MAX_STAMP_US / SECOND_US else 0
        if lasts_us < 1:
            raise ValueError(f"a stamp lasts above 0 and at most {MAX_STAMP_US // SECOND_US} seconds, not {seconds!r}")
        issued, expires = now[1], now[1] + lasts_us
        values = [context.tenant_id, context.generation, context.key_id, purpose, issued, expires]
        body = f"{_VERSION}.{_text(json.dumps(values, separators=(',', ':')).encode('ascii'))}"
        token = f"{body}.{self._mac(body)}"
        if len(token) > MAX_STAMP_CHARACTERS:
            raise ValueError("the tenant's id and the key's are too long for a stamp")
        return TenantStamp(
            tenant_id=context.tenant_id,
            key_id=context.key_id,
            generation=context.generation,
            purpose=purpose,
            issued_us=issued,
            expires_us=expires,
            token=token,
        )

    def read(self, token: object, *, purpose: str, now: Instant) -> TenantStamp | Reason:
        """Return the stamp that *token* is, or why it is none here and now.

        Args:
            token: Whatever came: text or bytes; anything else is no stamp.
            purpose: What it has to be good for.
            now: The present.
        """
        text = _ascii(token)
        if text is None:
            return Reason.MALFORMED_CREDENTIAL
        body, _, mac = text.rpartition(".")
        if not hmac.compare_digest(self._mac(body), mac):
            return Reason.UNKNOWN_KEY
        stamp = _parsed(body, text)
        if stamp is None:
            return Reason.MALFORMED_CREDENTIAL
        if stamp.purpose != purpose:
            return Reason.UNKNOWN_KEY
        if now[1] < stamp.issued_us - SKEW_US:
            return Reason.KEY_NOT_YET_VALID
        return stamp if now[1] < stamp.expires_us else Reason.EXPIRED_KEY

    def _mac(self, body: str) -> str:
        return _text(hashlib.blake2b(body.encode("ascii"), key=self._key, digest_size=_MAC_BYTES).digest())


def checked_purpose(purpose: object) -> str:
    """Return *purpose*; raises `ValueError` unless it can be one."""
    if not isinstance(purpose, str) or not _PURPOSE.fullmatch(purpose):
        raise ValueError(f"a purpose is 1 to 64 of a-z, 0-9, '.', '_', ':' and '-', not {purpose!r}")
    return purpose


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _ascii(token: object) -> str | None:
    """Return *token* as text that may be a stamp."""
    if not isinstance(token, str | bytes) or not 0 < len(token) <= MAX_STAMP_CHARACTERS or not token.isascii():
        return None
    return token if isinstance(token, str) else token.decode("ascii")


def _parsed(body: str, token: str) -> TenantStamp | None:
    """Return what *body* states; ``None`` where it is not as this version writes it."""
    version, _, payload = body.partition(".")
    try:
        values = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        tenant, generation, key_id, purpose, issued, expires = values
    except (ValueError, TypeError):
        return None
    numbers = all(type(number) is int for number in (generation, issued, expires))
    texts = all(type(text) is str for text in (tenant, purpose)) and (key_id is None or type(key_id) is str)
    if version != _VERSION or not numbers or not texts:
        return None
    return TenantStamp(
        tenant_id=TenantId(tenant),
        key_id=None if key_id is None else KeyId(key_id),
        generation=generation,
        purpose=purpose,
        issued_us=issued,
        expires_us=expires,
        token=token,
    )


# --- acting for whom a stamp names -----------------------------------------------------------------------------------


class StampServices(Protocol):
    """What acting for a stamp needs of a tenancy."""

    @property
    def home(self) -> Home:
        """The thread that the engines belong to."""
        ...

    def now(self) -> Instant:
        """Return the present instant."""
        ...

    def begin(self, context: TenantContext) -> tuple[Tenant, Callable[[], None]] | Reason:
        """Return the handle of that life of the tenant and what ends the work; or why there is no working for it."""
        ...

    def refused(self, refusal: Refusal) -> None:
        """Let those who watch see that a stamp did not count."""
        ...


class ActFor(Protocol):
    """What ``act_for`` gives: use it with ``async with``, or ``with``; either gives the tenant, which is bound inside.

    Raises on entering:
        UnauthenticatedError: The stamp is worth nothing here; one message for all reasons, which the audit has seen.
        UnavailableError: Whether the tenant may be served cannot be told; try again.
        MisuseError: The block stands in a generator; the tenancy is not running.
    """

    async def __aenter__(self) -> Tenant: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...
    def __enter__(self) -> Tenant: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


class StampBlock:
    """A block of work for the tenant of a stamp; see `ActFor`.

    Args:
        token: What came.
        purpose: What it has to be good for.
        press: Reads it.
        limits: Whether the tenant may be served.
        services: The tenancy.
    """

    __slots__ = ("_binding", "_entering", "_leave", "_limits", "_press", "_purpose", "_services", "_token")

    def __init__(
        self,
        token: TenantStamp | str | bytes,
        purpose: str,
        press: StampPress,
        limits: LimitsView,
        services: StampServices,
    ) -> None:
        self._token: object = token.token if isinstance(token, TenantStamp) else token
        self._purpose = checked_purpose(purpose)
        self._press, self._limits, self._services = press, limits, services
        self._binding: Binding | None = None
        self._leave: Callable[[], None] | None = None
        self._entering = False

    async def __aenter__(self) -> Tenant:
        refuse_generator(_getframe(1))
        if not self._services.home.here:
            raise MisuseError(_OTHER_LOOP)
        now = self._services.now()
        stamp = self._read(now)
        limits = self._limits.try_limits(stamp.tenant_id, now=now)
        if limits is None:
            self._entering = True  # whoever enters it meanwhile would end the other's block, not its own
            try:
                limits = await self._limits.limits(stamp.tenant_id, now=now)
            finally:
                self._entering = False
        return self._bind(stamp, self._begin(stamp, limits))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._end()

    def __enter__(self) -> Tenant:
        refuse_generator(_getframe(1))
        home, now = self._services.home, self._services.now()
        stamp = self._read(now)
        limits = home.call(lambda: self._limits.try_limits(stamp.tenant_id, now=now))
        if limits is None:
            limits = home.wait_for(lambda: self._limits.limits(stamp.tenant_id, now=now))
        return self._bind(stamp, home.call(lambda: self._begin(stamp, limits), undo=_undo))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._end()

    def _read(self, now: Instant) -> TenantStamp:
        if self._binding is not None or self._entering:
            raise MisuseError("this block is open already; call act_for() for each piece of work")
        stamp = self._press.read(self._token, purpose=self._purpose, now=now)
        if isinstance(stamp, Reason):
            raise self._worthless(stamp, None)
        return stamp

    def _begin(self, stamp: TenantStamp, limits: TenantLimits | None) -> tuple[Tenant, Callable[[], None]] | Reason:
        """Let the work in. At home."""
        if limits is None or limits.status is not TenantStatus.ACTIVE:
            return Reason.SUSPENDED_TENANT
        context = TenantContext(tenant_id=stamp.tenant_id, key_id=stamp.key_id, generation=stamp.generation)
        return self._services.begin(context)

    def _bind(self, stamp: TenantStamp, begun: tuple[Tenant, Callable[[], None]] | Reason) -> Tenant:
        if isinstance(begun, Reason):
            raise self._worthless(begun, stamp)
        tenant, self._leave = begun
        self._binding = Binding(bound_to(tenant, within=bound.get()))  # a public route of another node's request
        self._binding.begin()
        return tenant

    def _end(self) -> None:
        binding, self._binding = self._binding, None
        leave, self._leave = self._leave, None
        if binding is not None and leave is not None:
            binding.end()
            leave()

    def _worthless(self, reason: Reason, stamp: TenantStamp | None) -> UnauthenticatedError:
        refusal = Refusal(reason=reason)
        if stamp is not None:
            refusal = refusal.about(tenant=stamp.tenant_id, key_id=stamp.key_id, function=None)
        self._services.refused(refusal)
        return UnauthenticatedError(refusal, "no valid stamp")


def _undo(begun: tuple[Tenant, Callable[[], None]] | Reason) -> None:
    """End work that nobody waits for any more."""
    if not isinstance(begun, Reason):
        begun[1]()


class StandaloneBlock:
    """The twin of `StampBlock` in standalone mode: the stamp must be one of standalone mode, and in time."""

    __slots__ = ("_binding", "_now", "_press", "_purpose", "_tenant", "_token")

    def __init__(
        self,
        token: TenantStamp | str | bytes,
        purpose: str,
        press: StampPress,
        tenant: Tenant,
        now: Callable[[], Instant],
    ) -> None:
        self._token: object = token.token if isinstance(token, TenantStamp) else token
        self._purpose = checked_purpose(purpose)
        self._press, self._tenant, self._now = press, tenant, now
        self._binding: Binding | None = None

    async def __aenter__(self) -> Tenant:
        refuse_generator(_getframe(1))
        return self._enter()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._end()

    def __enter__(self) -> Tenant:
        refuse_generator(_getframe(1))
        return self._enter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._end()

    def _enter(self) -> Tenant:
        if self._binding is not None:
            raise MisuseError("this block is open already; call act_for() for each piece of work")
        stamp = self._press.read(self._token, purpose=self._purpose, now=self._now())
        if isinstance(stamp, Reason):
            raise UnauthenticatedError(Refusal(reason=stamp), "no valid stamp")
        self._binding = Binding(bound_to(self._tenant))
        self._binding.begin()
        return self._tenant

    def _end(self) -> None:
        binding, self._binding = self._binding, None
        if binding is not None:
            binding.end()


STANDALONE_PRESS: Final = StampPress(b"standalone: everything belongs to one owner")
"""The press of every server without tenants. Its key is no secret: whoever can hand a job in may do anything there. No
cluster's secret is derived from it, so that a cluster takes no such stamp."""


if TYPE_CHECKING:
    _conforms: tuple[type[ActFor], type[ActFor]] = (StampBlock, StandaloneBlock)

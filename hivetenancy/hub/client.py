"""`HiveHub`: the control plane over HTTP.

Two things in one object. It is a typed client: each of the 23 calls that HiveHub's services make (``hub.vectorizer``,
``hub.nexus``, ``hub.synap``, ``hub.lesstokens``, ``hub.access_keys``) and the extensions (``hub.extensions``). And it
is a `ControlPlane`: the four questions that engines ask, each answered in the best way that this hub has.

Which way that is, is found out once, when it is opened: the hub is asked what it speaks (X0). Introspection answers
keys, or a key source of the host's own does, or nothing is started at all. Limits come from X3, or are put together
from the calls of the service. Usage goes by X4, or by the calls of the service with the care that each needs. What was
announced once and is missing later is an outage of that part, never a reason to do it differently (HiveHub wire 4.1).

The hub is asked again now and then, because what answers under an address may change: a hub with another ``hub_id``
does not know our tenants, and one with a smaller epoch has been put back to a past that we know more than. Neither is
believed in anything; the one that is known is, as soon as it answers again.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Mapping, Sequence
from contextvars import Context
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Literal

from hivetenancy.clock import DAY_US, SECOND_US, Clock, SystemClock
from hivetenancy.errors import ConfigurationError, HubContractError, HubRefusedError, HubUnavailableError
from hivetenancy.ids import Dimension, TenantId
from hivetenancy.plans import Plan
from hivetenancy.sources import (
    BatchAnswer,
    ChangeBatch,
    ChangeType,
    InactiveKey,
    InactiveReason,
    IntrospectionSource,
    KeyAnswer,
    LimitsAnswer,
    LimitsBatch,
    LimitsSource,
    SourceConflict,
    SourcePart,
    UsageReply,
    UsageReport,
    UsageSink,
)

from . import wire
from .caller import A_FAKE, Caller
from .calls import AccessKeysCalls, LessTokensCalls, NexusCalls, SynapCalls, VectorizerCalls
from .composed import PROFILES, ComposedLimits
from .extensions import Extension, Extensions
from .kept import KeptAnnouncement, Knowledge
from .origin import taken_key
from .sinks import CALLS, USAGE, CallSink
from .sinks_build import pin_cumulative, usage_sink
from .store import StateStore
from .transport import HttpClient, HubTransport

if TYPE_CHECKING:
    from hivetenancy.sources import ControlPlane, RemoteHub

_log: Final = logging.getLogger("hivetenancy.hub")

CHECK_SECONDS: Final = 60.0
"""How often a hub that is known is asked what it is."""

RETRY_SECONDS: Final = 2.0
"""How often one that has not answered yet is."""

SKEW_US: Final = 30 * SECOND_US
"""Difference of the clocks from which health is red: counters of a period would be booked in the wrong one."""

IDEMPOTENCY_WINDOW_US: Final = 30 * DAY_US
"""How long a hub that honours idempotency keys remembers them at least (HiveHub wire 4.7)."""

_SCOPES: Final = {
    Extension.INTROSPECTION: "introspect",
    Extension.CHANGES: "changes",
    Extension.LIMITS: "limits",
    Extension.USAGE: "usage",
}
_SEEDED: Final = b"hh_test_seeded_"
"""How a key begins that a test made from a seed, so that anybody can make it again (HiveHub wire 5)."""

_UNNAMED: Final = "url:"  # what the id of a hub begins with that has not said which it is
_NO_KEYS: Final = (
    "this HiveHub has no call that tells what an access key is (it announces no introspection), so no request could "
    "ever be let in. Either upgrade the hub to one that announces it, or give HiveHub(..., keys=...) an "
    "IntrospectionSource of your own. A header that names the caller is no proof and is never taken for one"
)


class HiveHub:
    """A HiveHub, reached over HTTP.

    Args:
        url: Where it is, ``https://...``; ``http:`` to this machine only. There is no default.
        service_key: The service's own key (``svc_...``), sent as ``X-Service-Key``; shown in no repr, log or error.
        service: ``vectorizer``, ``nexus``, ``synap`` or ``lesstokens``; ``None``: what the hub says the key is of.
        keys: Who tells what an access key is, for a hub that cannot; ``None``: the hub.
        plans: What the hub does not tell, by the name of the plan, or ``"default"``; only used where limits are put
            together from the calls of the service.
        synap_usage: Whether Synap's usage call takes ``absolute`` totals or an ``increment``; its wire does not say.
        http: A client of httpx or httpx2 to use instead of one of our own; it is not closed.
        timeout_s: How long one call may take with its repeats, in seconds.
        retries: How often a call is repeated that is safe to repeat.
        verify: ``True``, or an `ssl.SSLContext` that checks certificates.
        clock: What time it is; ``None``: the system's.
        allow_fake: Believe a hub that says it is a fake. For tests; no setting and no variable does this.

    Raises:
        ConfigurationError: An argument is wrong; the message names the fix and no secret.

    Concurrency:
        Built without a running loop; belongs to the loop that opens it.
    """

    _name = "?"  # for whoever looks at one that could not be built

    def __init__(
        self,
        url: str,
        service_key: str,
        *,
        service: wire.Service | str | None = None,
        keys: IntrospectionSource | None = None,
        plans: Mapping[str, Plan] | None = None,
        synap_usage: Literal["absolute", "increment"] | None = None,
        http: HttpClient | None = None,
        timeout_s: float = 30.0,
        retries: int = 3,
        verify: ssl.SSLContext | bool = True,
        clock: Clock | None = None,
        allow_fake: bool = False,
    ) -> None:
        key = taken_key(service_key)
        del service_key  # whatever is raised from here on brings this frame along
        if isinstance(key, ConfigurationError):
            raise key
        self._service = None if service is None else _service(service)
        if synap_usage not in (None, "absolute", "increment"):
            raise ConfigurationError(f"synap_usage must be 'absolute' or 'increment', got {synap_usage!r}")
        self._clock: Clock = clock or SystemClock()

        def transport() -> HubTransport:
            return HubTransport(
                url, key, http=http, timeout_s=timeout_s, retries=retries, verify=verify, clock=self._clock
            )

        self._new_transport = transport
        self._transport: HubTransport | None = transport()
        self._name = repr(self._transport).removeprefix("<HubTransport ").removesuffix(">")
        caller = self._caller = Caller(self._transport, allow_fake=allow_fake)
        self.own_keys = keys
        """Who tells what an access key is, if it is not the hub."""
        self.access_keys = AccessKeysCalls(caller)
        self.vectorizer = VectorizerCalls(caller)
        self.nexus = NexusCalls(caller)
        self.synap = SynapCalls(caller)
        self.lesstokens = LessTokensCalls(caller)
        self.extensions = Extensions(caller, None if self._service is None else self._service.value)
        self._plans = dict(plans or {})
        self._synap_usage = synap_usage
        self._allow_fake = allow_fake
        self._state: StateStore | None = None
        self._announced: frozenset[str] | None = None
        self._missing: frozenset[str] = frozenset()
        self._hub_id: str | None = None
        self._epoch = 0
        self._skew_us: int | None = None
        self._fault: str | None = None
        self._error: str | None = "not opened"
        self._limits: LimitsSource | None = None
        self._usage: UsageSink | None = None
        self._window_us = IDEMPOTENCY_WINDOW_US
        self._calls_sink: CallSink | None = None
        self._verified = False  # since it was opened
        self._verifying: asyncio.Task[None] | None = None
        self._opened_us: int | None = None  # the hub's time
        self._key_note = ""

    def __repr__(self) -> str:
        return f"<HiveHub {self._name}>"

    @property
    def clock(self) -> Clock:
        """What time it is for whoever uses this hub."""
        return self._clock

    # --- what it is --------------------------------------------------------------------------------------------------

    @property
    def hub_id(self) -> str:
        """Which hub this is; that of its address while it has not said so."""
        return self._hub_id or self._address

    @property
    def _address(self) -> str:
        return f"{_UNNAMED}{self._name}"

    @property
    def announced(self) -> frozenset[str]:
        """The extensions that it ever announced."""
        return self._announced or frozenset()

    @property
    def offers_changes(self) -> bool:
        """Whether it tells what changed. Without, a revoked key counts until its entry is asked about again."""
        return Extension.CHANGES in self.announced

    @property
    def has_order(self) -> bool:
        """Whether answers about limits have their place in the order of changes."""
        return self.offers_changes and self._limits is self.extensions

    def remember(self, state: StateStore, knowledge: Knowledge) -> None:
        """Keep in *state*, which is open, what has to outlast this process, and recall what it held.

        Raises:
            ConfigurationError: It is of a hub at another address.
        """
        self._state = state
        known = knowledge.announcement
        if known is not None:
            if known.hub_id.startswith(_UNNAMED) and known.hub_id != self._address:
                raise ConfigurationError(
                    f"the state file {str(state.path)!r} is of the hub at {known.hub_id.removeprefix(_UNNAMED)}, and "
                    f"this is {self._name}. Correct the URL, or name another state file: that hub never said its id"
                )
            self._hub_id, self._epoch, self._announced = known.hub_id, known.epoch, known.extensions
            self._choose()

    # --- RemoteHub ---------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Ask the hub what it is, prove the service key, and choose how each question is answered.

        Raises:
            ConfigurationError: The hub cannot or must not be used as configured; the message names the remedy.
            HubUnavailableError: It cannot be reached, or refuses the service key.
        """
        if self._transport is None:
            self._transport = self._new_transport()
            self._caller.use(self._transport)
        try:
            await self._verify()
        except (HubUnavailableError, HubContractError) as error:
            self._error = str(error)
            if isinstance(error, HubContractError):
                raise HubUnavailableError(f"what answers there is no HiveHub: {error}", transient=False) from error
            raise

    async def aclose(self) -> None:
        """Close the connections. It may be opened again."""
        transport, self._transport = self._transport, None
        self._verified, self._opened_us = False, None
        if transport is not None:
            await transport.aclose()

    async def run(self) -> None:
        """Ask now and then whether the hub is what it was, and see to usage that is not confirmed, until cancelled."""
        pause = RETRY_SECONDS
        while True:
            await asyncio.sleep(pause)
            try:
                await self._verify()
                if self._calls_sink is not None:
                    await self._calls_sink.upkeep()
                pause = CHECK_SECONDS
            except (HubUnavailableError, HubContractError, ConfigurationError) as error:
                if self._error is None:
                    _log.warning("HiveHub cannot be verified: %s", error)
                self._error, pause = str(error), RETRY_SECONDS

    def parts(self) -> tuple[SourcePart, ...]:
        """Return how each part is doing. Memory only."""
        wrong = self._fault or self._error
        missing = ", ".join(sorted(self._missing))
        skew = self._skew_us
        return (
            SourcePart(name="hub", ok=wrong is None, why=wrong or ""),
            SourcePart(
                name="hub extensions",
                ok=not self._missing,
                why=f"announced once and missing now: {missing}" if missing else _ways(self.announced),
            ),
            SourcePart(
                name="hub clock",
                ok=skew is None or abs(skew) <= SKEW_US,
                why="not known" if skew is None else f"{skew / SECOND_US:+.1f} s from ours",
            ),
            *((SourcePart(name="hub service key", ok=True, why=self._key_note),) if self._key_note else ()),
            *(() if self._calls_sink is None else self._calls_sink.parts()),
        )

    async def _verify(self) -> None:
        before = self._clock.now()
        said = await self.extensions.announcement()
        after = self._clock.now()
        if said is None:
            await self._verify_plain()
        else:
            self._take(said, (before[1] + after[1]) // 2)
        if self._limits is None or self._usage is None:
            self._choose()
        self._error, self._verified = None, True

    async def _verify_plain(self) -> None:
        """Prove the service key at a hub that announces nothing: with a call that every service may make."""
        if self.announced:
            self._missing = self.announced
            raise HubUnavailableError("HiveHub announced extensions once and does not any more", outcome_unknown=False)
        try:
            await self.access_keys.list(service=self._service)
        except HubRefusedError as error:
            raise HubContractError(f"HiveHub refuses the simplest of its calls: {error}") from error
        self._announced = frozenset()
        self._hub_id = self.hub_id
        self._keep()

    def _take(self, said: wire.Announcement, midpoint_us: int) -> None:
        """Compare what the hub says of itself with what is known of it.

        Raises:
            ConfigurationError: It is a fake, or cannot be used with this service key.
            HubContractError: It is another hub, or an earlier one.
        """
        if said.authority == "fake" and not self._allow_fake:
            raise ConfigurationError(A_FAKE)
        self._check_identity(said)
        self._check_rights(said)
        self._skew_us = said.now - midpoint_us
        self._opened_us = said.now if self._opened_us is None else self._opened_us
        self._hub_id, self._epoch = said.hub_id, said.epoch
        now = frozenset(said.extensions)
        self._missing = self.announced - now
        self._announced = self.announced | now
        self._caller.honours_keys = Extension.IDEMPOTENCY in now
        self._window_us = said.idempotency_window_seconds * SECOND_US or IDEMPOTENCY_WINDOW_US
        if self.extensions.service is None and said.service is not None:
            self.extensions.service = said.service.value
            self._service = said.service
        self._keep()
        if self._missing:
            raise HubUnavailableError("HiveHub announced extensions once that are missing now", outcome_unknown=False)

    def _check_identity(self, said: wire.Announcement) -> None:
        known = self._hub_id
        if known is not None and known.startswith(_UNNAMED):  # it announced nothing then, and was upgraded since
            known = None
        if known is not None and known != said.hub_id:
            self._fault = f"another hub answers: {said.hub_id}, where {known} did; point the url back, or start afresh"
            raise HubContractError(self._fault)
        if known is not None and said.epoch < self._epoch:
            self._fault = (
                f"the hub went back to epoch {said.epoch} from {self._epoch}: whoever restored it has to begin a "
                "larger epoch there"
            )
            raise HubContractError(self._fault)
        self._fault = None

    def _check_rights(self, said: wire.Announcement) -> None:
        if said.service is not None and self._service is not None and said.service != self._service:
            raise ConfigurationError(
                f"the service key is of {said.service.value}, and service= says {self._service.value}: use its own key"
            )
        lacking = [
            scope
            for extension, scope in _SCOPES.items()
            if extension in said.extensions and scope not in said.scopes and not self._does_without(extension)
        ]
        if lacking:
            raise ConfigurationError(
                f"the service key lacks the scopes {', '.join(lacking)}: have them granted at HiveHub"
            )
        if "keys" in said.scopes and said.authority not in ("fake", "local") and self._opened_us is None:
            _log.warning("the service key may manage access keys, which a data server does not need")

    def _does_without(self, extension: Extension) -> bool:
        return extension is Extension.INTROSPECTION and self.own_keys is not None

    def _keep(self) -> None:
        if self._state is not None:
            self._state.put_announcement(
                KeptAnnouncement(hub_id=self.hub_id, epoch=self._epoch, extensions=self.announced),
                formerly=self._address,
            )

    def _choose(self) -> None:
        """Choose how each question is answered.

        Raises:
            ConfigurationError: One could not be.
        """
        if self.own_keys is None and Extension.INTROSPECTION not in self.announced:
            raise ConfigurationError(_NO_KEYS)
        exact = {Extension.LIMITS, Extension.USAGE} <= self.announced and not self._pinned_to_calls()
        if self._service is None and not (exact and self.extensions.service):
            raise ConfigurationError(
                "which service this is has to be said: HiveHub(..., service=...), one of "
                + ", ".join(service.value for service in wire.Service)
            )
        if self._usage is None:  # once: it knows what became of every total of this process
            self._usage = self._choose_usage()
        self._limits = self.extensions if Extension.LIMITS in self.announced else self._composed()

    def _composed(self) -> LimitsSource:
        assert self._service is not None  # `_choose` saw to it
        return ComposedLimits(
            self, PROFILES[self._service], clock=self._clock, plans=self._plans, confirmed=self._confirmed
        )

    def _choose_usage(self) -> UsageSink:
        if Extension.USAGE in self.announced and not self._pinned_to_calls():
            if self._state is not None:
                pin_cumulative(self._state)
            return self.extensions
        assert self._service is not None  # `_choose` saw to it
        self._calls_sink = usage_sink(
            self._service,
            self,
            clock=self._clock,
            state=self._state,
            window_us=self._window_us if Extension.IDEMPOTENCY in self.announced else 0,
            synap_usage=self._synap_usage,
        )
        return self._calls_sink

    def _pinned_to_calls(self) -> bool:
        """Whether usage was reported by calls before: it goes on like that, whatever else the hub can do by now."""
        return self._state is not None and self._state.pinned().get(USAGE) == CALLS

    def _confirmed(self, tenant: TenantId, dimension: Dimension, resource: str | None) -> int:
        return 0 if self._calls_sink is None else self._calls_sink.confirmed(tenant, dimension, resource)

    # --- the four questions ------------------------------------------------------------------------------------------

    async def _trusted(self) -> None:
        """See to it that whoever answers is the hub that is known: what was recalled proves nothing of it."""
        if self._fault is not None:
            raise HubContractError(self._fault)
        if self._limits is None or self._usage is None:
            raise HubUnavailableError("HiveHub was not opened, or has not answered yet", outcome_unknown=False)
        if self._verified:
            return
        loop = asyncio.get_running_loop()
        if self._verifying is None or self._verifying.done() or self._verifying.get_loop() is not loop:
            self._verifying = loop.create_task(self._verify(), context=Context())
            self._verifying.add_done_callback(_seen)
        await asyncio.shield(self._verifying)  # one question, whoever waits for it and however long

    async def introspect(
        self, credential: bytes, *, min_revision: int | None = None, epoch: int | None = None
    ) -> KeyAnswer:
        """Say what one key is (`IntrospectionSource`)."""
        if self.own_keys is not None:
            return await self.own_keys.introspect(credential, min_revision=min_revision, epoch=epoch)
        await self._trusted()
        answer = await self.extensions.introspect(credential, min_revision=min_revision, epoch=epoch)
        if credential.startswith(_SEEDED) and not self._allow_fake:
            return replace(answer, key=InactiveKey(reason=InactiveReason.UNKNOWN))
        return answer

    async def introspect_batch(
        self, digests: Sequence[bytes], *, min_revision: int | None = None, epoch: int | None = None
    ) -> BatchAnswer:
        """Say what several keys are (`IntrospectionSource`)."""
        if self.own_keys is not None:
            return await self.own_keys.introspect_batch(digests, min_revision=min_revision, epoch=epoch)
        await self._trusted()
        return await self.extensions.introspect_batch(digests, min_revision=min_revision, epoch=epoch)

    async def changes(self, cursor: str | None, *, wait_seconds: int = 2) -> ChangeBatch:
        """Say what happened since *cursor* (`ChangeSource`)."""
        await self._trusted()
        batch = await self.extensions.changes(cursor, wait_seconds=wait_seconds)
        if cursor is not None and (batch.reset or batch.epoch != self._epoch):
            await self._verify()  # a reset may mean that another hub answers now
        self._heed(batch)
        return batch

    def _heed(self, batch: ChangeBatch) -> None:
        """Say that the service key has a successor, if this process began before that."""
        for event in batch.events:
            if event.type is ChangeType.SERVICE_KEY_ROTATED and event.at_us > (self._opened_us or event.at_us):
                ends = event.expires_at_us
                until = "not any more" if ends is None or ends <= batch.now_us else f"until {_text(ends)}"
                note = f"the service key was rotated; the one in use here counts {until}: start with the new one"
                if note != self._key_note:
                    _log.warning("%s", note)
                self._key_note = note

    async def limits(
        self,
        tenant: TenantId,
        *,
        sources: Sequence[str] = (),
        min_revision: int | None = None,
        epoch: int | None = None,
    ) -> LimitsAnswer:
        """Say what limits *tenant* (`LimitsSource`)."""
        await self._trusted()
        assert self._limits is not None
        return await self._limits.limits(tenant, sources=sources, min_revision=min_revision, epoch=epoch)

    async def limits_batch(
        self,
        tenants: Sequence[TenantId],
        *,
        sources: Sequence[str] = (),
        min_revision: int | None = None,
        epoch: int | None = None,
    ) -> LimitsBatch:
        """Say what limits several tenants (`LimitsSource`)."""
        await self._trusted()
        assert self._limits is not None
        return await self._limits.limits_batch(tenants, sources=sources, min_revision=min_revision, epoch=epoch)

    async def report(self, report: UsageReport) -> UsageReply | SourceConflict:
        """Hand in running totals (`UsageSink`)."""
        await self._trusted()
        assert self._usage is not None
        if Extension.IDEMPOTENCY in self._missing and self._calls_sink is not None and self._calls_sink.keyed:
            raise HubUnavailableError(  # it would count every repeat
                "HiveHub announced idempotency keys once and does not any more", outcome_unknown=False
            )
        return await self._usage.report(report)


def _service(name: wire.Service | str) -> wire.Service:
    try:
        return wire.Service(name)
    except ValueError:
        known = ", ".join(service.value for service in wire.Service)
        raise ConfigurationError(f"HiveHub has the services {known}, not {name!r}") from None


def _seen(task: asyncio.Task[None]) -> None:
    """Take note of how it ended, since everybody who waited for it may have gone."""
    if not task.cancelled():
        task.exception()


def _text(wall_us: int) -> str:
    return datetime.fromtimestamp(wall_us // SECOND_US, UTC).isoformat()


def _ways(announced: frozenset[str]) -> str:
    """Say in words how the four questions are answered."""
    absent = [extension.value for extension in Extension if extension not in announced]
    return f"not announced: {', '.join(absent)}" if absent else ""


if TYPE_CHECKING:
    _conforms: tuple[type[ControlPlane], type[RemoteHub]] = (HiveHub, HiveHub)

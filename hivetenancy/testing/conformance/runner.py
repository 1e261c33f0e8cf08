"""Runs a program in lock-step: on the shared server, and on one private server for each tenant.

After each call the two answers are compared, and the other oracles look at what came back:

- `equality`: a tenant observes what it would observe alone.
- `canary`: nothing that a tenant sees holds another's data, and nothing anywhere holds a secret.
- `handles`: another tenant's handle does what one does that was never issued, in the answer and in the store; and a
  handle can neither be guessed nor tells how many others there are.
- `guard`: the second lock around the store was not needed.

A finding belongs to a *place*: operation, surface, oracle. What is known already can be passed over, so that one leak
does not hide the next.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from hivetenancy.errors import ConfigurationError
from hivetenancy.namespaces import NamespaceManager
from hivetenancy.namespaces.prefix import IdentityNamespaces

from .arguments import HandleUse
from .canaries import access_key, describe, holds_any, service_key, strangers
from .cliques import context
from .handles import bits_apart, never_issued, replaced, same_start, uses, worded, words
from .observations import Renaming, content, handle_in, is_empty, plain
from .programs import Program, Step
from .subject import Observable, Operation, Running, ServerCrashedError, Setting, Subject, TenantSetting

ORACLES: Final = ("equality", "canary", "handles", "guard")
OUTSIDE: Final = "outside of answers"
"""The surface of what a server leaves in logs, metrics and files."""


class Place(NamedTuple):
    """Where something was found."""

    operation: str
    surface: str
    oracle: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """That an oracle objects.

    Attributes:
        place: Where.
        step: The number of the step whose answer it was found in; ``None``: in what was left when all was done.
        text: What is wrong, in a sentence.
        shared: What the tenant observed on the shared server.
        alone: What it observes on its own, or is to observe; ``None`` where nothing was compared.
    """

    place: Place
    step: int | None
    text: str
    shared: Any = None
    alone: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A call as it was made, and what came of it.

    Attributes:
        step: The step.
        arguments: Its arguments with handles by their words.
        shared: What the tenant observed on the shared server.
        alone: What it observed on its own.
    """

    step: Step
    arguments: Mapping[str, Any]
    shared: Any
    alone: Any


@dataclass(slots=True)
class Tally:
    """How often an operation was called on a surface, and what came of it.

    Attributes:
        calls: Calls on the shared server, without those that only try a handle that was never issued.
        succeeded: Those that were no refusal.
        telling: Those whose answer told something.
        refusal: The last refusal, for a report on an operation that never succeeds.
        seen: The first answer.
        varied: Whether another answer than the first was ever given.
        handles: Calls with another tenant's handle.
        strange: Calls with a handle that is not the tenant's own, which tell nothing if all is well.
    """

    calls: int = 0
    succeeded: int = 0
    telling: int = 0
    refusal: Any = None
    seen: Any = None
    varied: bool = False
    handles: int = 0
    strange: int = 0


@dataclass(slots=True)
class Counts:
    """What was counted over many runs.

    Attributes:
        calls: All calls on all servers.
        tallies: By operation and surface.
        traced: Whether the server keeps a trace of its store.
        guarded: Whether it has a guarded store.
        observed: The sources of observables.
    """

    calls: int = 0
    tallies: dict[tuple[str, str], Tally] = field(default_factory=dict)
    traced: bool = False
    guarded: bool = False
    observed: set[str] = field(default_factory=set)

    def tally(self, operation: str, surface: str) -> Tally:
        """Return the tally of a place, made if there is none."""
        return self.tallies.setdefault((operation, surface), Tally())


class CrashedError(Exception):
    """The server was gone.

    Attributes:
        step: The number of the step at which it was.
        operation: Its operation; ``None``: at the start or the end.
        surface: Its surface.
    """

    def __init__(self, step: int | None, operation: str, surface: str, cause: BaseException) -> None:
        super().__init__(f"the server was gone at {operation}: {cause!r}")
        self.step = step
        self.operation = operation
        self.surface = surface


PATIENCE: Final = 60.0
"""Seconds that a server has for one thing before it is taken for gone. What does not await is not interrupted."""


async def done(value: Any) -> Any:
    """Return *value*, awaited where it has to be; raises `ServerCrashedError` where that takes too long."""
    return await _patiently(value) if inspect.isawaitable(value) else value


async def _patiently(value: Awaitable[Any]) -> Any:
    patience = asyncio.timeout(PATIENCE)
    try:
        async with patience:
            return await value
    except TimeoutError:
        if patience.expired():
            raise ServerCrashedError(f"it did nothing for {PATIENCE:g} seconds") from None
        raise  # the server's own, which is an answer


class _Side:
    """One server, and the handles that it gave."""

    __slots__ = ("given", "raw", "renaming", "running", "shared", "stopped")

    def __init__(self, running: Running, *, shared: bool) -> None:
        self.running = running
        self.shared = shared
        self.given: dict[int, Hashable] = {}
        self.renaming = Renaming()
        self.stopped = False
        self.raw: Any = None
        """The last answer before it was normalised."""

    def gave(self, step: Step, handle: Hashable) -> None:
        self.given[step.number] = handle
        self.renaming.add(handle, word_for(step))


def word_for(step: Step) -> str:
    """Return what stands for a handle in observations."""
    return f"<{step.operation.gives} of step {step.number}>"


def setting_for(ids: Sequence[str], names: NamespaceManager, *, standalone: bool) -> Setting:
    """Return the setting of a server for the tenants *ids*."""
    tenants = tuple(
        TenantSetting(id=one, context=context(one), access_key=access_key(place)) for place, one in enumerate(ids)
    )
    manager = IdentityNamespaces() if standalone else names
    return Setting(tenants=tenants, names=manager, standalone=standalone, service_key=service_key())


class Run:
    """One run of one program.

    Args:
        subject: Whose server.
        program: What to run.
        names: The manager of the shared server.
        right: The manager of a private server that has tenants, which is never a faulty one.
        counts: Where to count; ``None``: this run counts for nothing, as when a program is minimised.
        known: Places to pass over.
        control: Give each tenant a private server in place of the shared one, too: what differs then differs by itself.
        every: Where to put every finding; the run goes on then to its end.
        record: Where to put what was called and answered.
    """

    def __init__(
        self,
        subject: Subject,
        program: Program,
        *,
        names: NamespaceManager,
        right: NamespaceManager,
        counts: Counts | None = None,
        known: Collection[Place] = (),
        control: bool = False,
        every: list[Finding] | None = None,
        record: list[Shown] | None = None,
    ) -> None:
        self._subject = subject
        self._program = program
        self._names = names
        self._right = right
        self._counts = counts or Counts()
        self._known = known
        self._control = control
        self._every = every
        self._record = record
        self._by_number = {step.number: step for step in program.steps}
        self._shared: dict[int, _Side] = {}
        self._alone: dict[int, _Side] = {}
        self._secrets: frozenset[bytes] = frozenset()

    async def finding(self) -> Finding | None:
        """Run the program to its end, or to the first finding that is not known.

        Raises:
            CrashedError: A server was gone.
            ConfigurationError: A server does not start, or the subject is wrong.
        """
        try:
            await self._start()
            for step in self._program.steps:
                found = await self._step(step)
                if found is not None:
                    return found
            return await self._outside()
        finally:
            await self._stop()

    # servers

    async def _start(self) -> None:
        """Start the servers for the tenants that do something."""
        busy = sorted({step.tenant for step in self._program.steps})
        if not self._control:
            ids = self._program.clique.ids
            side = await self._server(ids, shared=True)
            self._shared = dict.fromkeys(range(len(ids)), side)
        for tenant in busy:
            one = (self._program.clique.ids[tenant],)
            if self._control:
                self._shared[tenant] = await self._server(one, shared=False)
            self._alone[tenant] = await self._server(one, shared=False)
        sides = [*self._shared.values(), *self._alone.values()]
        self._secrets = frozenset(secret.encode() for side in sides for secret in side.running.secrets())

    async def _server(self, ids: Sequence[str], *, shared: bool) -> _Side:
        standalone = not shared and self._subject.alone == "standalone"
        names = self._names if shared else self._right
        setting = setting_for(ids, names, standalone=standalone)
        try:
            running = await done(self._subject.start(setting))
        except ServerCrashedError as error:
            raise CrashedError(None, "start", "", error) from error
        if not isinstance(running, Running):
            raise ConfigurationError(f"{type(self._subject).__name__}.start returned {running!r}, which is no Running")
        if type(running).call is Running.call:
            owner = type(running).__name__
            raise ConfigurationError(f"{owner} has no method call(tenant, operation, arguments, surface)")
        return _Side(running, shared=shared)

    async def _stop(self) -> None:
        """Stop every server, whatever happened."""
        for side in {id(side): side for side in (*self._shared.values(), *self._alone.values())}.values():
            if not side.stopped:
                side.stopped = True
                await done(side.running.stop())

    # steps

    async def _step(self, step: Step) -> Finding | None:
        shared, alone = self._shared[step.tenant], self._alone[step.tenant]
        foreign = self._foreign_giver(step)
        if foreign:
            shared.running.trace()  # forget what went before
        answer = await self._call(shared, step, self._arguments(step, shared))
        trace = shared.running.trace() if foreign else None
        other = await self._call(alone, step, self._arguments(step, alone))
        found = await self._judged(step, answer, other, shared, alone)
        if found is None and foreign:
            found = await self._compared_with_never_issued(step, answer, trace, shared, alone)
        return found

    async def _judged(self, step: Step, answer: Any, other: Any, shared: _Side, alone: _Side) -> Finding | None:
        if step.operation.gives:
            self._take_handles(step, answer, other, shared, alone)
        mine, own = shared.renaming.apply(answer), alone.renaming.apply(other)
        if step.operation.gives:
            mine, own = self._without_handle(step, mine, shared), self._without_handle(step, own, alone)
        self._count(step, answer, own)
        if self._record is not None:
            filled = self._arguments(step, shared)
            arguments = {name: self._spoken(value, filled[name]) for name, value in step.arguments.items()}
            self._record.append(Shown(step=step, arguments=arguments, shared=mine, alone=own))
        place = (step.operation.name, step.surface)
        tags = self._strangers(step, shared.raw)
        if tags and (found := self._say(Place(*place, "canary"), step, f"The answer holds {tags}.", mine, own)):
            return found
        if mine != own and (found := self._say(Place(*place, "equality"), step, "", mine, own)):
            return found
        if step.operation.gives and (text := self._guessable(step, shared, alone)):
            found = self._say(Place(*place, "handles"), step, text, shared.given[step.number], None)
            if found is not None:
                return found
        trips = shared.running.trips()
        if trips is not None:
            self._counts.guarded = True
            if trips:
                text = f"The guarded store refused {plain(trips)[0]!r}."
                return self._say(Place(*place, "guard"), step, text, plain(trips), [])
        return None

    def _say(self, place: Place, step: Step | None, text: str, shared: Any, alone: Any) -> Finding | None:
        """Return a finding, or ``None`` where it is known."""
        if place in self._known:
            return None
        number = None if step is None else step.number
        if not text:
            text = "The tenant observes something else than it would alone."
        finding = Finding(place=place, step=number, text=text, shared=shared, alone=alone)
        if self._every is None:
            return finding
        self._every.append(finding)
        return None

    async def _call(self, side: _Side, step: Step, arguments: Mapping[str, Any]) -> Any:
        """Make a call and return what was observed, in its plain form."""
        self._counts.calls += 1
        tenant = self._program.clique.ids[step.tenant]
        try:
            answer = side.running.call(tenant, step.operation.name, arguments, step.surface)
            if inspect.isawaitable(answer):
                answer = await _patiently(answer)
        except ServerCrashedError as error:
            raise CrashedError(step.number, step.operation.name, step.surface, error) from error
        except Exception as error:  # noqa: BLE001 - whatever a tenant observes is an observation
            answer = error
        side.raw = plain(answer)
        return plain(self._subject.normalise(side.raw))

    def _count(self, step: Step, answer: Any, own: Any) -> None:
        tally = self._counts.tally(step.operation.name, step.surface)
        tally.seen = own if not tally.calls else tally.seen
        tally.varied = tally.varied or own != tally.seen
        tally.calls += 1
        if self._subject.succeeded(answer):
            tally.succeeded += 1
            tally.telling += not is_empty(own)
        else:
            tally.refusal = own
        if step.operation.handles and not self._has_own_handles(step):
            tally.strange += 1

    def _strangers(self, step: Step, answer: Any) -> str:
        """Say what is in an answer that should not be."""
        raw = content(answer)
        tags = strangers(raw, f"{step.tenant:04x}")
        said = sorted(describe(tag, self._program.clique.ids) for tag in tags)
        if self._secrets and holds_any(raw, self._secrets):
            said.append("a secret")
        return " and ".join(said)

    # handles

    def _foreign_giver(self, step: Step) -> bool:
        """Return whether *step* uses a handle that another tenant was given."""
        used = [use for value in step.arguments.values() for use in uses(value)]
        givers = [self._by_number[use.giver] for use in used if use.giver in self._by_number]
        return any(giver.tenant != step.tenant for giver in givers)

    def _has_own_handles(self, step: Step) -> bool:
        """Return whether all handles of *step* were given to its tenant."""
        used = [use for value in step.arguments.values() for use in uses(value)]
        return all(use.giver in self._shared[step.tenant].given and self._owns(use, step) for use in used)

    def _owns(self, use: HandleUse, step: Step) -> bool:
        giver = self._by_number.get(use.giver) if use.giver is not None else None
        return giver is not None and giver.tenant == step.tenant

    def _arguments(self, step: Step, side: _Side, *, never: bool = False) -> Mapping[str, Any]:
        """Return a step's arguments with the handles in place.

        Args:
            step: The step.
            side: The server that they go to.
            never: Put handles that were never issued in the places of other tenants' handles.
        """
        if not step.operation.handles:
            return step.arguments
        return {name: self._filled(value, step, side, never) for name, value in step.arguments.items()}

    def _filled(self, value: Any, step: Step, side: _Side, never: bool) -> Any:
        if isinstance(value, HandleUse):
            return self._handle(value, step, side, never)
        if isinstance(value, list):
            return [self._filled(item, step, side, never) for item in value]
        if isinstance(value, dict):
            return {key: self._filled(item, step, side, never) for key, item in value.items()}
        return value

    def _handle(self, use: HandleUse, step: Step, side: _Side, never: bool) -> Any:
        """Return the handle for one place of a call.

        A tenant's own is the one that this server gave. Another's is the one that the shared server gave: to a server
        that has one tenant alone, that is a handle that was never issued.
        """
        giver = self._by_number.get(use.giver) if use.giver is not None else None
        if giver is None:
            return self._never_issued(use.kind, step.number)
        if giver.tenant == step.tenant:
            own = side.given.get(giver.number)
            return self._never_issued(use.kind, giver.number) if own is None else own
        foreign = self._shared[giver.tenant].given.get(giver.number)
        if foreign is None or never:
            return self._never_issued(use.kind, giver.number + 1_000_000)
        lonely = self._control or side is not self._shared[step.tenant]
        if lonely and foreign in side.given.values():
            return self._never_issued(use.kind, giver.number)  # small numbers: here it would be the tenant's own
        return foreign

    def _spoken(self, value: Any, filled: Any) -> Any:
        """Return an argument as a person reads it: a handle by the step that gave it."""
        if isinstance(value, HandleUse):
            giver = None if value.giver is None else self._by_number.get(value.giver)
            return filled if giver is None else word_for(giver)
        if isinstance(value, list):
            return [self._spoken(item, made) for item, made in zip(value, filled, strict=True)]
        if isinstance(value, dict):
            return {key: self._spoken(item, filled[key]) for key, item in value.items()}
        return value

    def _never_issued(self, kind: str, salt: int) -> Any:
        issued = [
            handle
            for side in {id(side): side for side in self._shared.values()}.values()
            for number, handle in side.given.items()
            if self._by_number[number].operation.gives == kind
        ]
        if not issued:
            return never_issued(f"{kind}-0000", salt, keep=len(kind))
        own = self._subject.never_issued(kind, issued[0])
        return never_issued(issued[0], salt, keep=same_start(issued)) if own is None else own

    def _take_handles(self, step: Step, answer: Any, other: Any, shared: _Side, alone: _Side) -> None:
        for side, observation in ((shared, answer), (alone, other)):
            handle = self._handle_of(step.operation, observation)
            if handle is not None:
                side.gave(step, handle)

    def _handle_of(self, operation: Operation, observation: Any) -> Hashable | None:
        if not self._subject.succeeded(observation):
            return None
        if operation.taken_from is not None:
            try:
                return operation.taken_from(observation)
            except (KeyError, IndexError, TypeError, AttributeError):
                return None  # an answer of another shape holds none
        return handle_in(observation, str(operation.gives))

    def _without_handle(self, step: Step, observation: Any, side: _Side) -> Any:
        """Return an answer that gives a handle too short to be replaced everywhere, with a word in its place."""
        handle = side.given.get(step.number)
        return observation if handle is None else replaced(observation, handle, word_for(step))

    def _guessable(self, step: Step, shared: _Side, alone: _Side) -> str:
        """Say what is wrong with a handle that differs from the one given alone and could be guessed."""
        handle, lonely = shared.given.get(step.number), alone.given.get(step.number)
        if handle is None or lonely is None or handle == lonely:
            return ""
        kind = step.operation.gives
        alike = [
            given
            for number, given in shared.given.items()
            if number != step.number and self._by_number[number].operation.gives == kind
        ]
        if not alike or max(bits_apart(handle, given) for given in alike) >= 40:
            return ""
        return f"Handles of kind {kind} follow from one another, and tell what other tenants do."

    async def _compared_with_never_issued(
        self, step: Step, answer: Any, trace: Sequence[Any] | None, shared: _Side, alone: _Side
    ) -> Finding | None:
        """Make the call again with a handle that was never issued: it has to answer, and to do, the same."""
        self._counts.tally(step.operation.name, step.surface).handles += 1
        never = self._arguments(step, shared, never=True)
        agreed = words(self._arguments(step, shared), never)
        other = await self._call(shared, step, never)
        other_trace = shared.running.trace()
        await self._call(alone, step, self._arguments(step, alone, never=True))  # so that both have done the same
        place = Place(step.operation.name, step.surface, "handles")
        mine, own = worded(answer, agreed), worded(other, agreed)
        if mine != own:
            text = "Another tenant's handle is answered otherwise than one that was never issued."
            return self._say(place, step, text, mine, own)
        if trace is None or other_trace is None:
            return None
        self._counts.traced = True
        did, does = worded(plain(trace), agreed), worded(plain(other_trace), agreed)
        if did != does:
            text = "Another tenant's handle makes the store do something else than one that was never issued."
            return self._say(place, step, text, did, does)
        return None

    # what is left

    async def _outside(self) -> Finding | None:
        """Look through logs, metrics and files."""
        if self._control or not self._shared:
            return None
        running = self._shared[0].running
        left = await done(running.observables())
        for one in left:
            self._counts.observed.add(one.source)
            if (text := self._stranger_outside(one)) and (
                found := self._say(Place(one.source, OUTSIDE, "canary"), None, text, _excerpt(one.content), None)
            ):
                return found
        return None

    def _stranger_outside(self, one: Observable) -> str:
        raw = one.content.encode() if isinstance(one.content, str) else one.content
        ids = self._program.clique.ids
        own = f"{ids.index(one.tenant):04x}" if one.tenant in ids else None
        tags = strangers(raw, own, secrets_only=one.kind == "file" and one.tenant is None)
        said = sorted(describe(tag, self._program.clique.ids) for tag in tags)
        if self._secrets and holds_any(raw, self._secrets):
            said.append("a secret")
        if one.tenant is not None:
            said += [f"the id of {other!r}" for other in ids if other != one.tenant and _names_id(raw, other)]
        return f"{one.source} holds {' and '.join(said)}." if said else ""


def _names_id(raw: bytes, other: str) -> bool:
    """Whether another tenant's id stands in *raw*; short ids would be found by chance."""
    return len(other) >= 8 and other.encode() in raw


def _excerpt(content: bytes | str) -> str:
    """The part of *content* around the first mark, for a person."""
    text = content if isinstance(content, str) else content.decode("utf-8", "replace")
    at = max(text.find("hvcanary"), 0)
    return text[max(at - 80, 0) : at + 120]

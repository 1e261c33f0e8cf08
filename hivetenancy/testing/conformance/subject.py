"""What a user writes so that the suite can run a server: a `Subject`.

The suite starts the server twice over: once shared, with all tenants of a case, and once for each tenant alone. It
makes the same calls on both, and each tenant must be answered the same. So a subject says how to start the server under
a `Setting`, which operations it has, and how to make a call; some sixty lines.

Every method may be a plain function or a coroutine, whichever suits the server.

    class MyServer(Subject):
        operations = (
            Operation("set", effect="write", key=Name(), value=Value()),
            Operation("get", key=Name()),
            Operation("keys", pattern=Pattern()),
        )

        def start(self, setting):
            return MyRunning(setting)

    class MyRunning(Running):
        def __init__(self, setting):
            self.server, self.setting = Server(), setting

        def call(self, tenant, operation, arguments, surface):
            return getattr(self.server, operation)(self.setting.names_of(tenant), **arguments)
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from hivetenancy.context import TenantContext
from hivetenancy.errors import ConfigurationError
from hivetenancy.ids import STANDALONE
from hivetenancy.namespaces import NamespaceManager, TenantNames
from hivetenancy.namespaces.codec import IdScheme
from hivetenancy.namespaces.prefix import PrefixNamespaces

from .arguments import Argument

EFFECTS: Final = ("read", "write", "purge")


_EVERYWHERE: Final = frozenset({"value", "count", "limit", "most"})
"""Names of arguments that say nothing of what an operation is about, where it has others."""


class ServerCrashedError(Exception):
    """Raise this from `Running.call` where the server is gone: the suite then says so, and takes it for no answer."""


class Operation:
    """Something that a tenant can ask of the server.

    Args:
        name: What `Running.call` gets.
        effect: ``read``; ``write``; or ``purge``, which removes all that the tenant has.
        gives: The kind of handle that its answer holds, as ``subscription``; ``None``: it holds none.
        taken_from: Returns the handle that an answer holds, or ``None`` where it holds none. Without it, an answer that
            is a text, a number or bytes is the handle, and of a mapping the entry called as *gives*, ``handle`` or
            ``id``.
        about: What it is about, as ``topics``. Operations about the same are tried together. Without it, those that
            share the name of an argument, or a handle, are taken to be about the same.
        surfaces: The surfaces that have it; ``None``: all of the subject.
        scoped: False for what is the same for everybody, as a ping: the power test does not ask that it shows a fault
            of names.
        **arguments: The arguments of a call, each with its kind.
    """

    __slots__ = ("about", "arguments", "effect", "gives", "handles", "name", "scoped", "surfaces", "taken_from")

    def __init__(
        self,
        name: str,
        /,
        *,
        effect: Literal["read", "write", "purge"] = "read",
        gives: str | None = None,
        taken_from: Callable[[Any], Hashable] | None = None,
        about: str | None = None,
        surfaces: Sequence[str] | None = None,
        scoped: bool = True,
        **arguments: Argument,
    ) -> None:
        if effect not in EFFECTS:
            raise ConfigurationError(f"operation {name!r}: effect is one of {', '.join(EFFECTS)}, got {effect!r}")
        for argument, kind in arguments.items():
            given: object = kind
            if not isinstance(given, Argument):
                hint = f"write {argument}={getattr(given, '__name__', 'Name')}()"
                raise ConfigurationError(f"operation {name!r}: {argument} is no kind of argument but {given!r}; {hint}")
        self.name = name
        self.effect = effect
        self.gives = gives
        self.taken_from = taken_from
        self.surfaces = None if surfaces is None else tuple(surfaces)
        self.scoped = scoped
        self.arguments: Mapping[str, Argument] = arguments
        self.handles = frozenset[str]().union(*(kind.handles() for kind in arguments.values()))
        """The kinds of handles that a call may hold."""
        named = {*arguments.keys() - _EVERYWHERE, *self.handles, *([gives] if gives else [])}
        self.about = frozenset({about} if about else named or arguments.keys())
        """What it is about; empty: all that there is."""

    def __repr__(self) -> str:
        return f"Operation({self.name!r}, {', '.join(self.arguments)})"


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantSetting:
    """One tenant of a case.

    Attributes:
        id: Its id, which is also what `Running.call` gets.
        context: The context that its requests run in.
        access_key: A secret that the subject may give it. No answer, log, metric or file may hold it.
    """

    id: str
    context: TenantContext
    access_key: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Under what the server is to start.

    Attributes:
        tenants: Who will call; one if the server is a tenant's own.
        names: The namespace manager for the server to use. The power test puts faulty ones here.
        standalone: Whether the server is a tenant's own and has no tenants; *names* is the identity then.
        service_key: A secret of the server's own. No answer, log, metric or file may hold it.
    """

    tenants: tuple[TenantSetting, ...]
    names: NamespaceManager
    standalone: bool
    service_key: str = field(repr=False)

    def context_of(self, tenant: str) -> TenantContext:
        """Return the context of the tenant whose id is *tenant*; in standalone mode the one that has no tenant."""
        if self.standalone:
            return _ALONE
        return next(one.context for one in self.tenants if one.id == tenant)

    def names_of(self, tenant: str) -> TenantNames:
        """Return the names of the tenant whose id is *tenant*; in standalone mode they are what they are."""
        return self.names.for_tenant(self.context_of(tenant))


_ALONE: Final = TenantContext(tenant_id=STANDALONE, key_id=None, generation=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Observable:
    """Something that a server leaves outside of its answers.

    Attributes:
        source: What it is, as ``server.log`` or ``/metrics``.
        content: What it holds by now.
        kind: What a tenant stores may not be in a ``log`` or in ``metrics``, whoever reads them; it may be in a
            ``file``. Secrets may be in none.
        tenant: Whose it is, if one tenant gets to see it or keeps its data in it: of the other tenants nothing may be
            in it then. ``None``: it is the operator's.
    """

    source: str
    content: bytes | str
    kind: Literal["log", "metrics", "file"] = "log"
    tenant: str | None = None


class Running:
    """A server that runs. Write `call`, and what else you have.

    All methods are called from one event loop, one after the other.
    """

    def call(self, tenant: str, operation: str, arguments: Mapping[str, Any], surface: str) -> Any:
        """Make one call and return what *tenant* observes.

        Args:
            tenant: The id of who calls.
            operation: The operation's name.
            arguments: One value for each argument of the operation.
            surface: Which of the subject's surfaces to use.

        Returns:
            All that the tenant gets: text, bytes, numbers, ``None``, and lists, mappings, dataclasses of these. What
            is raised is an observation too.

        Raises:
            ServerCrashedError: The server is gone.
        """
        raise TypeError(f"{type(self).__name__} has no method call(tenant, operation, arguments, surface)")

    def stop(self) -> Any:
        """Stop the server. May be called once."""
        return None

    def observables(self) -> Any:
        """Return logs, metrics and files: an iterable of `Observable`."""
        return ()

    def secrets(self) -> Iterable[str]:
        """Return secrets beside those of the setting, for instance access keys that a hub issued."""
        return ()

    def trace(self) -> Sequence[Any] | None:
        """Return the calls that reached the store since the last time, or ``None`` where none are kept.

        With it, what a foreign handle sets off in the store is held against what one sets off that never was: a
        difference in work is a difference in time.
        """
        return None

    def trips(self) -> Sequence[Any] | None:
        """Return what a guarded store refused since the last time as somebody else's; ``None``: there is no such store.

        A trip is no leak yet: the second lock held. It says that the first did not.
        """
        return None


class Subject:
    """A server under test, and how the suite is to see it.

    Attributes:
        operations: What tenants can ask of it.
        surfaces: The ways in: ``("http", "resp")``. Each operation is tried on each.
        scheme: Which tenant ids there are; the suite makes confusable ones of it. ``uuid``, ``slug`` or ``opaque``.
        alone: What a tenant's own server is: ``standalone``, a server without tenants; or ``single``, a server with
            that tenant alone, for servers that have no standalone mode.
    """

    operations: Sequence[Operation] = ()
    surfaces: Sequence[str] = ("direct",)
    scheme: IdScheme | str = IdScheme.OPAQUE
    alone: Literal["standalone", "single"] = "standalone"

    def start(self, setting: Setting) -> Any:
        """Start a server that holds nothing, and return it: a `Running`."""
        raise TypeError(f"{type(self).__name__} has no method start(setting)")

    def namespaces(self) -> NamespaceManager:
        """Return the manager that the shared server uses when nothing is wrong with it."""
        return PrefixNamespaces(scheme=self.scheme)

    def normalise(self, observation: Any) -> Any:
        """Return *observation* without what differs from one run to the next though nothing is wrong: times, ids.

        What no answer may hold, as other tenants' data, is looked for before.
        """
        return observation

    def succeeded(self, observation: Any) -> bool:
        """Return whether *observation*, as the suite keeps it, is no refusal and no error."""
        if isinstance(observation, dict):
            status = observation.get("status")
            return "raised" not in observation and not (isinstance(status, int) and status >= 400)
        return True

    def never_issued(self, kind: str, like: Any) -> Any:
        """Return a handle of *kind* that looks like *like*, and that the server never issued; ``None``: let the suite.

        For handles whose shape is checked before they are looked up.
        """
        return None

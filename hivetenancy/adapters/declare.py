"""Which function each route performs: markers, a table, verbs, and the list of public routes, resolved once, at start.

A *leaf* is what a router hands a request to. What it performs is said in exactly one place: a marker on its handler
(`hivetenancy.functions.function`), a FastAPI dependency (``require``), the table ``functions={"GET /x": ...}``, or,
where the host opted in to it, the verb. A leaf for which nothing is said, or two things, keeps the application from
starting; so does an entry of the table or of the public list that fits no leaf, because it is a typing error.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from hivetenancy.errors import ConfigurationError
from hivetenancy.functions import Function, FunctionRegistry, FunctionSpec, declared
from hivetenancy.ids import Effect

WEBSOCKET: Final = "WEBSOCKET"
"""Stands for the method of a WebSocket route in tables; on the public list it is GET, as on the wire."""

ANY: Final = "*"
"""Stands for every method."""


class Public:
    """Stands where a function would: whoever comes is admitted, without a tenant. One constant: `PUBLIC`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "PUBLIC"


PUBLIC: Final = Public()

Rule: TypeAlias = Function | Public
Rules: TypeAlias = dict[str, Rule]
"""By method; `ANY` for every method that has no entry of its own."""


class ByMethod:
    """Functions by verb, from `by_method`."""

    __slots__ = ("by_verb",)

    def __init__(self, by_verb: Mapping[str, FunctionSpec]) -> None:
        self.by_verb = dict(by_verb)


Functions: TypeAlias = Mapping[str, FunctionSpec | str] | ByMethod | None
"""What adapters take as ``functions=``: ``{"GET /path": spec or registered name}``, `by_method`, or ``None``."""


def by_method(prefix: str = "http") -> ByMethod:
    """Let the verb say what a route performs, where nothing else does.

    GET, HEAD and OPTIONS read (``http.read``); POST, PUT and PATCH write (``http.write``); DELETE deletes
    (``http.delete``). A route that takes other methods answers them with 405. WebSocket routes have no verb and need a
    declaration of their own. This is an explicit choice: it is right only for a server whose GETs change nothing.

    Args:
        prefix: First segment of the functions' names.

    Raises:
        ConfigurationError: *prefix* is no segment of a function's name.
    """
    read, write, delete = (
        FunctionSpec(name=f"{prefix}.{effect.value}", effect=effect)
        for effect in (Effect.READ, Effect.WRITE, Effect.DELETE)
    )
    verbs = {"GET": read, "HEAD": read, "OPTIONS": read, "POST": write, "PUT": write, "PATCH": write, "DELETE": delete}
    return ByMethod(verbs)


@dataclass(slots=True, kw_only=True)
class Leaf:
    """One place where a router hands a request over.

    Attributes:
        path: The path as a template, prefixes of mounts included.
        methods: The methods that reach it; ``None``: any.
        own: What the handler says about itself, by method or `ANY`.
        why: What to add to the message when nothing is said.
        wrap: Puts the guard in place, given the rules.
    """

    path: str
    methods: frozenset[str] | None
    own: dict[str, FunctionSpec | str] = field(default_factory=dict)
    why: str = ""
    wrap: Callable[[Rules], None]

    def __str__(self) -> str:
        return f"{'|'.join(sorted(self.methods)) if self.methods else ANY} {self.path}"


def marker_of(handler: object) -> FunctionSpec | None:
    """Return what *handler* declares, looking through partials, which Starlette looks through as well."""
    while True:
        found = declared(handler)
        if found is not None or not isinstance(handler, functools.partial):
            return found
        handler = handler.func


class Declarations:
    """What the host said, and what of it was used.

    Args:
        registry: Where functions are registered.
        public: Exact method and path of each public route, as ``"GET /livez"``.
        functions: See `Functions`.

    Raises:
        ConfigurationError: An entry cannot be read, or is said twice.
    """

    def __init__(self, registry: FunctionRegistry, *, public: Iterable[str] = (), functions: Functions = None) -> None:
        if isinstance(public, str):
            raise ConfigurationError(f"public must be a tuple of entries, as in public=({public!r},)")
        self._registry = registry
        self._public = {_entry(text, "public") for text in public}
        self._verbs: Mapping[str, FunctionSpec] = functions.by_verb if isinstance(functions, ByMethod) else {}
        table = {} if functions is None or isinstance(functions, ByMethod) else functions
        self._table = {_entry(text, "functions"): said for text, said in table.items()}
        self._used: set[tuple[str, str]] = set()

    @property
    def public(self) -> frozenset[tuple[str, str]]:
        """Method and path of each public route."""
        return frozenset(self._public)

    @property
    def table(self) -> Mapping[tuple[str, str], FunctionSpec | str]:
        """The table, by method and path."""
        return self._table

    def apply(self, leaves: Iterable[Leaf], problems: Iterable[str] = ()) -> None:
        """Resolve and wrap *leaves*: all of them, or none.

        Raises:
            ConfigurationError: A leaf has no function, or more than one; an entry fits no leaf; or one of *problems*
                was found before. The message lists everything at once.
        """
        faults = list(problems)
        found = list(leaves)
        self._register(found, faults)
        resolved: list[tuple[Leaf, Rules]] = []
        for leaf in found:
            rules: Rules = {}
            try:
                for method in self._methods(leaf):
                    rules[method] = self._rule(leaf, method)
            except ConfigurationError as error:  # the first fault of a leaf says enough about it
                faults.append(str(error))
            resolved.append((leaf, rules))
        faults += self._leftovers()
        if faults:
            listed = "\n  - ".join(dict.fromkeys(faults))
            raise ConfigurationError(f"the application cannot be started:\n  - {listed}")
        for leaf, rules in resolved:
            leaf.wrap(rules)

    def _register(self, leaves: Iterable[Leaf], faults: list[str]) -> None:
        """Register every spec first, so that a name alone may refer to one that stands later."""
        said = [entry for leaf in leaves for entry in leaf.own.values()]
        for entry in [*said, *self._table.values(), *self._verbs.values()]:
            if isinstance(entry, FunctionSpec):
                try:
                    self._registry.register(entry)
                except ConfigurationError as error:
                    faults.append(str(error))

    def _methods(self, leaf: Leaf) -> list[str]:
        if leaf.methods is not None:
            return sorted(leaf.methods)
        here = [method for method, path in (*self._public, *self._table) if path == leaf.path]
        if ANY in leaf.own or not (here or self._verbs or leaf.own):
            return sorted({ANY, *here, *leaf.own})
        return sorted({*here, *leaf.own, *self._verbs})

    def _rule(self, leaf: Leaf, method: str) -> Rule:
        own = leaf.own.get(method, leaf.own.get(ANY))
        listed = self._listed(self._table, leaf, method)
        said = own if listed is None else self._table[listed]
        wire = "GET" if method == WEBSOCKET else method
        public = self._listed(self._public, leaf, wire)
        if public is not None and public[0] == ANY:
            raise ConfigurationError(f"public entries name one method, not {ANY!r}: {' '.join(public)}")
        if sum(one is not None for one in (own, listed, public)) > 1:
            raise ConfigurationError(
                f"{method} {leaf.path} is declared twice; keep one of its marker, the entry of functions={{...}} and "
                f"the entry of public=(...)"
            )
        if public is not None:
            self._used.add(public)
            return PUBLIC
        if listed is not None:
            self._used.add(listed)
        if said is None:
            said = self._verbs.get(method)
        if said is None:
            raise ConfigurationError(self._missing(leaf, method))
        return self._function(said, f"{method} {leaf.path}")

    def _listed(self, entries: Iterable[tuple[str, str]], leaf: Leaf, method: str) -> tuple[str, str] | None:
        """The entry for *method*; HEAD counts as GET where the framework adds it to GET by itself."""
        tried = [(method, leaf.path), (ANY, leaf.path)]
        if method == "HEAD" and leaf.methods is not None and "GET" in leaf.methods:
            tried.insert(1, ("GET", leaf.path))
        return next((entry for entry in tried if entry in entries), None)

    def _function(self, said: FunctionSpec | str, where: str) -> Function:
        name = said if isinstance(said, str) else said.name
        function = self._registry.get(name)
        if function is None:
            raise ConfigurationError(
                f"{where}: no function {name!r} was declared; give its effect where it is named, or declare it on "
                f"tenancy.functions first"
            )
        return function

    def _missing(self, leaf: Leaf, method: str) -> str:
        entry = f"{method} {leaf.path}"
        return (
            f"{entry} has no function; mark its handler with @function(name, effect=...), outside any decorator that "
            f"hides attributes, name it in functions={{{entry!r}: ...}}, or list it in public=({entry!r},)"
            + (f" ({leaf.why})" if leaf.why else "")
        )

    def _leftovers(self) -> Iterator[str]:
        for method, path in sorted({*self._public, *self._table} - self._used):
            which = "public" if (method, path) in self._public else "functions"
            yield f"{which}: '{method} {path}' is no route of this application that takes an entry"


def _entry(text: Any, where: str) -> tuple[str, str]:
    parts = text.split(" ") if isinstance(text, str) else []
    if len(parts) != 2 or not parts[0] or not parts[1].startswith("/"):
        raise ConfigurationError(f"{where}: {text!r} must be a method, one space and a path, as in 'GET /livez'")
    return parts[0], parts[1]

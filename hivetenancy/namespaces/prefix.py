"""Names by prefix: the in-process implementation, and the identity for a server without tenants.

The default profile prints the literals of HiveHub's data servers:

| handle | physical name |
|---|---|
| ``kv``, ``streams`` | ``user:{t}:{name}`` |
| ``collections``, ``queues`` | ``user_{t}:{name}`` |
| ``topics`` | ``user_{t}.{name}``, or another separator |

``{t}`` is the token of the tenant's id (`hivetenancy.namespaces.codec`). No prefix begins another one, of this tenant
or of any other, so all kinds may live in one store. The two kinds of a row share one set of names: in one Redis
database the stream ``a`` and the key ``a`` are the same key, which is what Redis itself does; in stores of their own
they are apart.

What follows the prefix is the logical name, raw. No character of it is special, and no prefix holds a metacharacter, so
a pattern is scoped by concatenation.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from hivetenancy.context import TenantContext
from hivetenancy.errors import ConfigurationError, InvalidNameError, MisuseError
from hivetenancy.ids import STANDALONE

from .codec import LONGEST_TOKEN, IdScheme, check_templates, split_template, token_of
from .protocol import (
    CollectionKind,
    KeyKind,
    NameScope,
    NamespaceManager,
    QueueKind,
    Scoped,
    StreamKind,
    TenantNames,
    TopicKind,
)

K = TypeVar("K")

MAX_NAME_BYTES: Final = 1024
"""Longest physical name by default, in bytes of UTF-8: what object stores take as a key."""

_SEPARATORS: Final = frozenset("./:")


class _PrefixScope(Generic[K]):
    """One tenant's names of one kind."""

    __slots__ = ("_end", "_room", "prefix")

    def __init__(self, prefix: str, max_bytes: int) -> None:
        self.prefix = prefix
        self._room = max_bytes - len(prefix)  # a prefix is ASCII, so its characters are its bytes
        self._end = prefix[:-1] + chr(ord(prefix[-1]) + 1)  # the first text after all that begins with the prefix

    def key(self, name: str, /) -> Scoped[K]:
        """Return the physical name of *name*."""
        # `type(...) is`: a physical name is a str too, and scoping one again must not pass.
        # `isascii` reads a flag, so an ordinary name is neither encoded nor walked through.
        if type(name) is str and name.isascii() and 0 < len(name) <= self._room:
            return Scoped(self.prefix + name)
        _check(name, self._room)
        return Scoped(self.prefix + name)

    def keys(self, names: Iterable[str], /) -> list[Scoped[K]]:
        """Return the physical names of *names*, in order."""
        key = self.key
        return [key(name) for name in names]

    def pattern(self, pattern: str, /) -> str:
        """Return the Redis glob of *pattern* within the tenant's own names."""
        _check(pattern, self._room)
        return self.prefix + pattern

    def range(self, low: str = "", high: str | None = None, /) -> tuple[str, str | None]:
        """Return physical bounds; both lie within the tenant's names, or at their end, whatever is passed."""
        _check_bound(low)
        if high is None:
            return self.prefix + low, self._end
        _check_bound(high)
        return self.prefix + low, self.prefix + high

    def strip(self, physical: str, /) -> str:
        """Return the logical name of *physical*."""
        try:
            if physical.startswith(self.prefix):
                return physical[len(self.prefix) :]
        except (AttributeError, TypeError):
            raise _no_text(physical) from None
        raise InvalidNameError("not a name of this tenant")

    def owns(self, physical: str, /) -> bool:
        """Whether *physical* is this tenant's."""
        try:
            return physical.startswith(self.prefix)
        except (AttributeError, TypeError):  # bytes, or nothing at all
            raise _no_text(physical) from None


class _IdentityScope(Generic[K]):
    """The names of a server without tenants: each is what it is."""

    __slots__ = ()

    prefix = ""

    def key(self, name: str, /) -> Scoped[K]:
        """Return *name*, typed."""
        _check_type(name)  # code that scopes twice is found here, not on the day that tenants are switched on
        return Scoped(name)

    def keys(self, names: Iterable[str], /) -> list[Scoped[K]]:
        """Return *names*, typed."""
        return [self.key(name) for name in names]

    def pattern(self, pattern: str, /) -> str:
        """Return *pattern*."""
        _check_type(pattern)
        return pattern

    def range(self, low: str = "", high: str | None = None, /) -> tuple[str, str | None]:
        """Return the bounds as they are."""
        _check_type(low)
        if high is not None:
            _check_type(high)
        return low, high

    def strip(self, physical: str, /) -> str:
        """Return *physical* as a plain ``str``."""
        self.owns(physical)
        return str(physical)

    def owns(self, physical: str, /) -> bool:
        """True: there is nobody else."""
        if isinstance(physical, str):
            return True
        raise _no_text(physical)


class _Names:
    """All names of one tenant. Kinds with one template share one scope."""

    __slots__ = ("collections", "kv", "queues", "streams", "topics")

    kv: NameScope[KeyKind]
    collections: NameScope[CollectionKind]
    queues: NameScope[QueueKind]
    streams: NameScope[StreamKind]
    topics: NameScope[TopicKind]

    def __init__(self, keys: NameScope[Any], containers: NameScope[Any], topics: NameScope[Any]) -> None:
        self.kv = self.streams = keys
        self.collections = self.queues = containers
        self.topics = topics


class PrefixNamespaces:
    """Gives each tenant a prefix of its own: the `NamespaceManager` of cluster mode.

    Args:
        scheme: Which texts are tenant ids; ``uuid``, what HiveHub issues, by default.
        max_name_bytes: Longest physical name, in bytes of UTF-8. A longer one is refused, never cut. Set it to what the
            store takes (511 in LMDB, 249 in Kafka, 63 in PostgreSQL).
        topic_separator: What divides a topic from the tenant's part: ``.`` (AMQP, NATS), ``/`` (MQTT) or ``:`` (Redis).
            Where topics have segments it must be what divides them, so that wildcards cannot span it.

    Raises:
        ConfigurationError: A value is out of range.

    Concurrency:
        Without state; any number of threads. What `for_tenant` returns may be kept and shared.

    Example:
        >>> from hivetenancy.ids import TenantId
        >>> acme = TenantContext(tenant_id=TenantId("acme"), key_id=None, generation=1)
        >>> names = PrefixNamespaces(scheme="slug").for_tenant(acme)
        >>> str(names.kv.key("config:app")), str(names.queues.key("jobs")), names.kv.pattern("config:*")
        ('user:acme:config:app', 'user_acme:jobs', 'user:acme:config:*')
    """

    __slots__ = ("_containers", "_keys", "_max_bytes", "_scheme", "_topics")

    def __init__(
        self,
        *,
        scheme: IdScheme | str = IdScheme.UUID,
        max_name_bytes: int = MAX_NAME_BYTES,
        topic_separator: str = ".",
    ) -> None:
        self._scheme = _scheme(scheme)
        if topic_separator not in _SEPARATORS:
            raise ConfigurationError(f"topic_separator must be '.', '/' or ':', got {topic_separator!r}")
        templates = {"keys": "user:{t}:", "containers": "user_{t}:", "topics": "user_{t}" + topic_separator}
        check_templates(templates)
        self._keys, self._containers, self._topics = (split_template(kind, templates[kind]) for kind in templates)
        self._max_bytes = _max_bytes(max_name_bytes, self._scheme, templates.values())

    def for_tenant(self, context: TenantContext) -> TenantNames:
        """Return the names of the tenant in *context*; some 2 us, to be kept for the length of a request.

        Raises:
            InvalidNameError: The tenant's id is none of the manager's scheme.
        """
        token = token_of(context.tenant_id, self._scheme)
        keys, containers = self._scope(self._keys, token), self._scope(self._containers, token)
        return _Names(keys, containers, self._scope(self._topics, token))

    def _scope(self, template: tuple[str, str], token: str) -> NameScope[Any]:
        head, tail = template
        scope: _PrefixScope[Any] = _PrefixScope(head + token + tail, self._max_bytes)
        return scope


class IdentityNamespaces:
    """Names of a server without tenants: nothing changes, not even for names that a tenant could not have.

    Only the type is looked at, so that code that scopes a name twice fails here as it would with tenants. The high
    bound of a range is ``None`` where none was given: the names have no end.

    Concurrency:
        Without state; any number of threads.
    """

    __slots__ = ()

    def for_tenant(self, context: TenantContext) -> TenantNames:
        """Return the identity.

        Raises:
            MisuseError: *context* is of a tenant. Its names would be everybody's, so it is refused rather than served.
        """
        if context.tenant_id != STANDALONE:
            raise MisuseError("IdentityNamespaces keeps no tenants apart; with tenants, use PrefixNamespaces")
        return _IDENTITY


_IDENTITY: Final = _Names(_IdentityScope(), _IdentityScope(), _IdentityScope())


def _scheme(scheme: IdScheme | str) -> IdScheme:
    try:
        return IdScheme(scheme)
    except ValueError:
        known = ", ".join(IdScheme)
        raise ConfigurationError(f"there is no id scheme {scheme!r}; there are {known}") from None


def _max_bytes(given: int, scheme: IdScheme, templates: Iterable[str]) -> int:
    longest = max(len(template) - len("{t}") for template in templates) + LONGEST_TOKEN[scheme]
    if type(given) is not int or given <= longest:
        raise ConfigurationError(
            f"max_name_bytes must be a whole number above {longest}, the longest prefix of a tenant, got {given!r}"
        )
    return given


def _check(name: str, room: int) -> None:
    """Raise unless *name* is a plain, non-empty ``str`` of at most *room* bytes."""
    _check_bound(name)
    if not name:
        raise InvalidNameError("a name must not be empty")
    size = len(name) if name.isascii() else len(name.encode("utf-8"))
    if size > room:
        raise InvalidNameError(f"the name has {size} bytes; {room} is the most")


def _check_bound(name: str) -> None:
    _check_type(name)
    try:
        name.isascii() or name.encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidNameError("a name must not hold a lone surrogate: no store can keep it") from None


def _check_type(name: str) -> None:
    if type(name) is not str:
        hint = "this one is physical already" if isinstance(name, Scoped) else type(name).__name__
        raise InvalidNameError(f"a logical name is a plain str: {hint}")


def _no_text(physical: object) -> InvalidNameError:
    return InvalidNameError(f"a physical name is a str, not {type(physical).__name__}; decode what the store returned")


if TYPE_CHECKING:
    _conforms: tuple[type[NamespaceManager], type[NamespaceManager]] = (PrefixNamespaces, IdentityNamespaces)

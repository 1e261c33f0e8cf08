"""Profiles: how the physical names of each kind are written. Pure; no store, no tenant.

A profile gives each group of kinds a template, ``head{t}tail``, in which ``{t}`` stands for the token of the tenant's
id. A kind's physical names are that prefix and then the logical name, raw. Kinds of one group share one set of names,
and so do groups with the very same template; every other pair of templates is prefix-free, so that all kinds could
live in one store (`hivetenancy.namespaces.codec.check_templates`).

One profile for the life of a deployment: names that were written under one are nobody's under another. The manifest
(`hivetenancy.namespaces.manifest`) keeps two of them out of one store.

Source: isolation note, 4.2 R5; what the servers print: upstream note, B.3.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, Final

from hivetenancy.errors import ConfigurationError

from .codec import LONGEST_TOKEN, IdScheme, UuidForm, check_templates, split_template
from .paths import PrefixFiles
from .patterns import AMQP, COLONS, MQTT, NATS, SYNAP, TopicDialect

MAX_NAME_BYTES: Final = 1024
"""Longest physical name by default, in bytes of UTF-8: what object stores take as a key."""

SYSTEM: Final = "hvt!"
"""What the library's own records begin with. No name of a tenant does: such a profile is refused."""

TOPIC_DIALECTS: Final[Mapping[str, TopicDialect]] = MappingProxyType(
    {"amqp": AMQP, "synap": SYNAP, "nats": NATS, "mqtt": MQTT, "colons": COLONS}
)
"""How topics are divided and matched, by the name that a profile states."""

GROUPS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "keys": (
            *("kv", "hashes", "lists", "sets", "sorted_sets", "bitmaps", "hyperloglogs", "geo", "streams", "locks"),
        ),
        "containers": ("collections", "queues"),
        "channels": ("channels",),
        "topics": ("topics",),
        "graph": ("labels", "relationship_types", "property_keys", "indexes", "constraints"),
        "blobs": ("blobs",),
        "files": ("files",),
    }
)
"""The kinds of each group, as the handles are called."""

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """How the names of each kind are written; checked whole when it is made, however it is made.

    Attributes:
        name: What it is called in settings and messages: ``[a-z0-9][a-z0-9-]{0,31}``.
        keys: Template of everything in a shared key space: keys, hashes, lists, sets, sorted sets, bitmaps,
            HyperLogLogs, geospatial indexes, streams, locks.
        containers: Of collections and queues.
        channels: Of channels.
        topics: Of topics; ``{s}`` stands for the separator of their segments. Where the template does not end in it,
            the tenant's part and a topic's first segment are one segment, and a wildcard cannot stand for that one.
        graph: Of labels, relationship types, property keys, indexes and constraints.
        blobs: Of blobs.
        files: Of files: relative, ``/`` between the parts and at the end.
        uuid_form: How a UUID is printed.
        topic_dialect: How topics are divided and matched: ``amqp``, ``synap``, ``nats`` (all by ``.``), ``mqtt``
            (``/``) or ``colons`` (``:``).
        max_name_bytes: Longest physical name, in bytes of UTF-8. A longer one is refused, never cut.

    Raises:
        ConfigurationError: A template is not prefix-free, overlaps another's, could reach the library's own records,
            or holds what its kind of store reads as more than text; the message says which, and why.
    """

    name: str
    keys: str = "user:{t}:"
    containers: str = "user_{t}:"
    channels: str = "user_{t}:"
    topics: str = "user_{t}{s}"
    graph: str = "ns:{t}:"
    blobs: str = "tenants/{t}/"
    files: str = "tenants/{t}/"
    uuid_form: UuidForm = UuidForm.HYPHENATED
    topic_dialect: str = "amqp"
    max_name_bytes: int = MAX_NAME_BYTES

    def __post_init__(self) -> None:
        if type(self.name) is not str or not _NAME.fullmatch(self.name):
            raise ConfigurationError("a profile's name is 1 to 32 of a-z, 0-9 and '-', not beginning with '-'")
        _check_plain(self)
        templates = self.templates()
        check_templates(templates)
        for group, template in templates.items():
            _check_system(group, *split_template(group, template))
            for refused, why in _RULES.get(group, ()):
                if refused(template):
                    raise ConfigurationError(f"the template of {group} {why}, got {template!r}")

    def __reduce__(self) -> tuple[Callable[[dict[str, Any]], Profile], tuple[dict[str, Any]]]:
        # Without it a pickle would set the attributes one by one, past every check (upstream, D34).
        return _rebuilt, ({field.name: getattr(self, field.name) for field in fields(self)},)

    def templates(self) -> dict[str, str]:
        """Return the template of each group, with the separator of topics filled in."""
        found = {group: getattr(self, group) for group in GROUPS}
        return found | {"topics": self.topics.replace("{s}", self.dialect.separator)}

    @property
    def dialect(self) -> TopicDialect:
        """How topics are divided and matched."""
        return TOPIC_DIALECTS[self.topic_dialect]

    def longest_prefix(self, scheme: IdScheme) -> int:
        """Return the bytes of the longest prefix that a tenant can have under *scheme*; paths have their own bound."""
        templates = [template for group, template in self.templates().items() if group != "files"]
        return max(map(len, templates)) - len("{t}") + LONGEST_TOKEN[scheme]


def _rebuilt(values: dict[str, Any]) -> Profile:
    return Profile(**values)


def _check_plain(profile: Profile) -> None:
    for group in GROUPS:
        if type(getattr(profile, group)) is not str:
            raise ConfigurationError(f"the template of {group} is a str, got {getattr(profile, group)!r}")
    if type(profile.topic_dialect) is not str or profile.topic_dialect not in TOPIC_DIALECTS:
        known = ", ".join(TOPIC_DIALECTS)
        raise ConfigurationError(f"there is no topic_dialect {profile.topic_dialect!r}; there are {known}")
    if not isinstance(profile.uuid_form, UuidForm):
        raise ConfigurationError(f"uuid_form is a UuidForm, got {profile.uuid_form!r}")
    if type(profile.max_name_bytes) is not int or profile.max_name_bytes < 1:
        raise ConfigurationError(f"max_name_bytes is a whole number above 0, got {profile.max_name_bytes!r}")


def _check_system(group: str, head: str, tail: str) -> None:
    """Refuse a template of which some tenant's prefix could begin with `SYSTEM`, or `SYSTEM` with it."""
    # A token holds no "!": behind a head of "", "h" or "hv" it can supply the letters, and the tail the rest.
    if head.startswith(SYSTEM) or (tail[0] == "!" and head in ("", "h", "hv")):
        raise ConfigurationError(
            f"the template of {group} could make names that begin with {SYSTEM!r}, as the library's own records do"
        )


def _is_no_directory(template: str) -> bool:
    try:
        PrefixFiles(template.replace("{t}", "t"))
    except ConfigurationError:
        return True
    return False


#: What a template must not be, by group, for the sake of what reads the names.
_RULES: Final[Mapping[str, tuple[tuple[Callable[[str], bool], str], ...]]] = MappingProxyType(
    {
        "channels": (
            (lambda text: text.startswith("__"), "must not begin with '__': Redis tells of every key on such channels"),
        ),
        "topics": (
            (lambda text: text.startswith("$"), "must not begin with '$': such topics are the broker's own"),
            (lambda text: not set("#+>").isdisjoint(text), "must hold none of # + >: brokers read them as wildcards"),
        ),
        "graph": ((lambda text: "`" in text, "must hold no back-tick: names of a graph stand between two"),),
        "files": (
            (
                _is_no_directory,
                "must be a relative path that ends in '/', without empty, hidden or device parts",
            ),
        ),
    }
)

_SHIPPED: Final = (
    Profile(name="default"),
    # Synap glues `user_{hex}:` before whatever name there is, topics too, whose segments it divides by dots.
    Profile(
        name="synap",
        keys="user_{t}:",
        containers="user_{t}:",
        channels="user_{t}:",
        topics="user_{t}:",
        graph="user_{t}:",
        uuid_form=UuidForm.SIMPLE,
        topic_dialect="synap",
    ),
    # Vectorizer has collections and files, and one prefix for everything that it lists, counts and migrates.
    Profile(name="vectorizer", keys="user_{t}:"),
    # Nexus writes one prefix before labels, types and property keys; its other names follow suit.
    Profile(name="nexus", keys="ns:{t}:", containers="ns:{t}:", channels="ns:{t}:", topics="ns:{t}{s}"),
    # Redis Cluster picks the node by what stands in the first braces of a key: here always the tenant.
    Profile(
        name="tagged",
        keys="user:{{t}}:",
        containers="user_{{t}}:",
        channels="user_{{t}}:",
        topics="user_{{t}}{s}",
    ),
)

PROFILES: Final[Mapping[str, Profile]] = MappingProxyType({profile.name: profile for profile in _SHIPPED})
"""The profiles that ship, by name."""

DEFAULT: Final = PROFILES["default"]
"""The literals of HiveHub's data servers."""


def profile_named(name: str) -> Profile:
    """Return the profile that ships under *name*.

    Raises:
        ConfigurationError: There is none.
    """
    try:
        return PROFILES[name]
    except (KeyError, TypeError):
        raise ConfigurationError(f"there is no profile {name!r}; there are {', '.join(PROFILES)}") from None

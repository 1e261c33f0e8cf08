"""A subject for a plain Python object: operations are its methods."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .subject import Running, Setting, Subject


class ObjectSubject(Subject):
    """A subject whose server is an object in this process.

    Write `build`, which returns the server, and `session`, which returns what one tenant talks to. An operation is the
    method of that name of the session, called with the operation's arguments by name.

    Example:
        >>> from hivetenancy.testing.conformance import Name, Operation, Value, examine, Options
        >>> class Store(dict):
        ...     def of(self, names):
        ...         return Session(self, names)
        >>> class Session:
        ...     def __init__(self, rows, names):
        ...         self.rows, self.names = rows, names
        ...     def set(self, key, value):
        ...         self.rows[self.names.kv.key(key)] = value
        ...     def get(self, key):
        ...         return self.rows.get(self.names.kv.key(key))
        >>> class Mine(ObjectSubject):
        ...     operations = (
        ...         Operation("set", effect="write", key=Name(), value=Value()),
        ...         Operation("get", key=Name()),
        ...     )
        ...     def build(self, setting):
        ...         return Store()
        ...     def session(self, server, setting, tenant):
        ...         return server.of(setting.names_of(tenant))
        >>> print(examine(Mine(), Options(rounds=2)).verdict)
        PASS
    """

    def build(self, setting: Setting) -> Any:
        """Return a server that holds nothing; or a coroutine that does."""
        raise TypeError(f"{type(self).__name__} has no method build(setting)")

    def session(self, server: Any, setting: Setting, tenant: str) -> Any:
        """Return what the tenant whose id is *tenant* talks to; asked for once for each tenant of a server."""
        raise TypeError(f"{type(self).__name__} has no method session(server, setting, tenant)")

    def start(self, setting: Setting) -> Any:
        """Return the server, running."""
        return ObjectRunning(self, setting, self.build(setting))


class ObjectRunning(Running):
    """An object that runs.

    Attributes:
        server: The object.
        setting: What it was built under.
    """

    def __init__(self, subject: ObjectSubject, setting: Setting, server: Any) -> None:
        self.server = server
        self.setting = setting
        self._subject = subject
        self._sessions: dict[str, Any] = {}

    def call(self, tenant: str, operation: str, arguments: Mapping[str, Any], surface: str) -> Any:
        """Call the session's method."""
        session = self._sessions.get(tenant)
        if session is None:
            session = self._sessions[tenant] = self._subject.session(self.server, self.setting, tenant)
        return getattr(session, operation)(**arguments)

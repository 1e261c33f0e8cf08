"""What only the operators of a server may do: look at names of any tenant, and copy from one to another.

An operator is no tenant with more rights. `Operator` is a type of its own: it charges nothing, is bound to nothing, and
cannot be had from a tenant or a request. Inside its block no tenant is bound, so that code which asks for one raises
unless it binds one on purpose.

Somebody states a reason, and it is written down: on entry, and before each act. What cannot be written down is not
done: other than on the request path, an audit sink that raises stops the operator.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Container, Iterable
from dataclasses import dataclass
from sys import _getframe
from types import TracebackType
from typing import Final, Self, TypeVar

from hivetenancy.clock import Instant
from hivetenancy.context import Binding, TenantContext, refuse_generator
from hivetenancy.errors import ConfigurationError, MisuseError
from hivetenancy.hooks import AuditEvent, AuditSink
from hivetenancy.ids import TenantId
from hivetenancy.namespaces import KeyKind, NameScope, NamespaceManager, Scoped, TenantNames

K = TypeVar("K")

_REASON_CHARACTERS: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorEvent(AuditEvent):
    """One act of an operator. The fields of `AuditEvent` hold what every sink shows: *what* says act and reason.

    Attributes:
        act: ``enter``, ``tenant_names``, ``inspect`` or ``copy``.
        why: The reason that was stated.
        target: To which tenant something was copied; ``None`` for every other act.
        count: How many names the act is about.
    """

    act: str
    why: str
    target: TenantId | None = None
    count: int = 0


class Operator:
    """Acts for the server's operators, inside its ``with`` or ``async with`` block. Build one with ``as_operator``.

    Args:
        names: Whose name is what.
        generation: Which life of a tenant is the present one.
        audit: Keeps each act, before it is done.
        now: Tells the time.
        reason: Why, in words for whoever reads the audit: 1 to 500 characters, on one line.

    Raises:
        MisuseError: The reason is empty, blank, too long or holds control characters; or nobody keeps the audit.
        MisuseError: On entering, in a generator; and at each act outside of the block.
    """

    __slots__ = ("_audit", "_binding", "_ending", "_generation", "_names", "_now", "reason")

    def __init__(
        self,
        names: NamespaceManager,
        *,
        generation: Callable[[TenantId], int],
        audit: AuditSink | None,
        now: Callable[[], Instant],
        reason: str,
        ending: Callable[[TenantId], bool] = lambda tenant: False,
    ) -> None:
        if audit is None:
            raise MisuseError("an operator acts only where it is written down: build the tenancy with audit=")
        self.reason = _checked(reason)
        self._names, self._generation, self._ending = names, generation, ending
        self._audit, self._now = audit, now
        self._binding: Binding | None = None

    def __repr__(self) -> str:
        return f"<Operator, {'at work' if self._binding is not None else 'not at work'}: {self.reason}>"

    # --- the block ---

    def __enter__(self) -> Self:
        refuse_generator(_getframe(1))
        return self._enter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._leave()

    async def __aenter__(self) -> Self:
        refuse_generator(_getframe(1))
        return self._enter()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._leave()

    def _enter(self) -> Self:
        if self._binding is not None:
            raise MisuseError("this operator is at work already; call as_operator() again")
        self._write("enter", tenant=None)
        self._binding = Binding(None)
        self._binding.begin()
        return self

    def _leave(self) -> None:
        binding, self._binding = self._binding, None
        if binding is not None:
            binding.end()

    # --- acts ---

    def tenant_names(self, tenant: TenantId) -> TenantNames:
        """Return the names of *tenant*.

        Raises:
            InvalidNameError: It can be nobody's id.
            MisuseError: Outside the block.
        """
        names = self._of(tenant)
        self._write("tenant_names", tenant=tenant)
        return names

    def inspect(self, physical: str, *, known: Container[TenantId] | None = None) -> object:
        """Return whose name *physical* is, as far as it shows; see `hivetenancy.namespaces.inspection`.

        It is a finding about a text, and no right to anything: ownership of a tenant is ``owns`` alone.

        Args:
            physical: A name from the store.
            known: The tenants that there are, or were; ``None``: any id may be one.

        Raises:
            ConfigurationError: The namespace manager cannot tell.
            MisuseError: Outside the block.
        """
        self._at_work()
        look: Callable[..., object] | None = getattr(self._names, "inspect", None)
        if look is None:
            raise ConfigurationError(f"{type(self._names).__name__} has no inspect(physical)")
        self._write("inspect", tenant=None, count=1)
        return look(physical) if known is None else look(physical, known=known)

    def copy(
        self,
        source: TenantId,
        target: TenantId,
        names: Iterable[str],
        copy: Callable[[Scoped[K], Scoped[K]], object],
        *,
        kind: Callable[[TenantNames], NameScope[K]],
    ) -> int:
        """Copy what *source* calls *names* to the same names of *target*. There is no other way across.

        Args:
            source: From which tenant.
            target: To which other tenant.
            names: Logical names. All of them are scoped before the first is copied.
            copy: Copies one, from a physical name to a physical name. What it raises ends the copying.
            kind: Which names they are, as ``lambda tenant: tenant.kv``.

        Returns:
            How many were copied.

        Raises:
            InvalidNameError: An id or a name cannot be one; nothing was copied.
            MisuseError: Outside the block; *source* is *target*; *target* is being deleted, or that begins on the way;
                or *copy* is a coroutine function, which `copy_async` takes.
        """
        pairs = self._pairs(source, target, names, kind)
        for done, (old, new) in enumerate(pairs):
            self._may_go_to(target)
            result = copy(old, new)
            if isinstance(result, Awaitable):
                _close(result)
                raise MisuseError(f"copy returned an awaitable after {done} names; use copy_async")
        return len(pairs)

    async def copy_async(
        self,
        source: TenantId,
        target: TenantId,
        names: Iterable[str],
        copy: Callable[[Scoped[K], Scoped[K]], Awaitable[object]],
        *,
        kind: Callable[[TenantNames], NameScope[K]],
    ) -> int:
        """Copy as `copy` does, with a coroutine function, one name after the other."""
        pairs = self._pairs(source, target, names, kind)
        for old, new in pairs:
            self._may_go_to(target)
            await copy(old, new)
        return len(pairs)

    def _pairs(
        self, source: TenantId, target: TenantId, names: Iterable[str], kind: Callable[[TenantNames], NameScope[K]]
    ) -> list[tuple[Scoped[K], Scoped[K]]]:
        """Return the physical names, old and new; the act is written down by then."""
        ours, theirs = self._of(source), self._of(target)
        if source == target:
            raise MisuseError("source and target are one tenant, which copies within itself by its own handle")
        self._may_go_to(target)
        logical = list(names)
        old, new = kind(ours).keys(logical), kind(theirs).keys(logical)
        self._write("copy", tenant=source, target=target, count=len(logical))
        return list(zip(old, new, strict=True))

    def _may_go_to(self, target: TenantId) -> None:
        if self._ending(target):
            raise MisuseError("the target is deleted, or being deleted: what is copied there would outlive the purge")

    def _of(self, tenant: TenantId) -> TenantNames:
        self._at_work()
        return self._names.for_tenant(TenantContext(tenant_id=tenant, key_id=None, generation=self._generation(tenant)))

    def _at_work(self) -> None:
        if self._binding is None:
            raise MisuseError("an operator acts inside its block: with tenancy.as_operator(reason=...) as operator")

    def _write(self, act: str, *, tenant: TenantId | None, target: TenantId | None = None, count: int = 0) -> None:
        self._audit.audit(
            OperatorEvent(
                what=f"operator {act}: {self.reason}",
                reason=None,
                tenant=tenant,
                key_id=None,
                function=None,
                at_us=self._now()[1],
                act=act,
                why=self.reason,
                target=target,
                count=count,
            )
        )


def keys(tenant: TenantNames) -> NameScope[KeyKind]:
    """Return the keys of *tenant*: the usual *kind* of `Operator.copy`."""
    return tenant.kv


def _checked(reason: object) -> str:
    if not isinstance(reason, str) or not reason.strip():
        raise MisuseError("say why: as_operator(reason=...) is read by whoever reads the audit")
    text = reason.strip()
    if len(text) > _REASON_CHARACTERS or not text.isprintable():
        raise MisuseError(f"a reason is one line of at most {_REASON_CHARACTERS} printable characters")
    return text


def _close(result: Awaitable[object]) -> None:
    close = getattr(result, "close", None)
    if close is not None:
        close()

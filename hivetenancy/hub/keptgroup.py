"""Changes of a node's knowledge that wait for the disk together.

A later change replaces an earlier one of the same row, so a group is never larger than the tables it is for. Whoever
must know that a change is on disk waits for its group: a group is a ticket.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Generator, Mapping
from concurrent.futures import Future, InvalidStateError
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import TYPE_CHECKING

from hivetenancy.errors import StoreUnavailableError

from .keptfile import DELIVERIES, TABLES, Change

if TYPE_CHECKING:
    from hivetenancy.decision import Ticket


class Group:
    """Changes that are committed together, and what those who wait for them are told. It is their ticket, too."""

    def __init__(self) -> None:
        self.changes: dict[str, dict[bytes, Change]] = {table: {} for table in TABLES}
        self.wipe: set[str] = set()
        """Tables of which nothing that is on disk counts any more."""
        self.undated = False
        """Whether the ages of all limits on disk became unknown."""
        self.outcome: Future[None] = Future()

    def __bool__(self) -> bool:
        return self.undated or bool(self.wipe) or any(self.changes.values())

    @property
    def done(self) -> bool:
        """Whether it is on disk."""
        return self.outcome.done() and self.outcome.exception() is None

    def wait(self, timeout: float | None = None) -> bool:
        """Block until it is on disk.

        Raises:
            StoreUnavailableError: It could not be written.
        """
        try:
            self.outcome.result(timeout)
        except FutureTimeoutError:
            return False
        return True

    def __await__(self) -> Generator[object, None, None]:
        if self.outcome.done():
            self.outcome.result()
            return
        # Shielded: many share the outcome, and one who is cancelled must not take it from the others.
        yield from asyncio.shield(asyncio.wrap_future(self.outcome)).__await__()

    def set(self, table: str, key: bytes, change: Change, most: int | None = None) -> None:
        """Note a change, as the latest; with more than *most* the earliest go, and all of the disk with them."""
        rows = self.changes[table]
        rows.pop(key, None)
        rows[key] = change
        if most is not None and len(rows) > most:
            # As many newer rows as the table may hold are waiting, so whatever is on disk would go anyway; and what is
            # let go here may be a removal, which must not be lost.
            del rows[next(iter(rows))]
            self.wipe.add(table)

    def take_over(self, failed: Group, most: Mapping[str, int]) -> None:
        """Put the changes of *failed*, which was not committed, below these."""
        for table in TABLES:
            later, rows = self.changes[table], failed.changes[table]
            if table in self.wipe:
                continue
            if table == DELIVERIES:  # whoever waited was told that it is not kept: it must not turn up later
                rows = dict.fromkeys(rows)
            self.changes[table] = rows
            for key, change in later.items():
                self.set(table, key, change, most.get(table))
        self.wipe |= failed.wipe
        self.undated |= failed.undated

    def settle(self, error: StoreUnavailableError | None) -> None:
        """Tell those who wait, unless they were told before."""
        with contextlib.suppress(InvalidStateError):
            self.outcome.set_exception(error) if error is not None else self.outcome.set_result(None)


if TYPE_CHECKING:
    _conforms: type[Ticket] = Group

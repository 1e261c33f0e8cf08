"""Commands about the whole key space, put together from scans within one tenant's keys.

``DBSIZE`` counts everybody's keys, ``RANDOMKEY`` draws from them, ``FLUSHDB`` deletes them. For a tenant each is a walk
through the server with ``SCAN ... MATCH``, and so is ``SCAN`` itself: one step of the server's may find nothing of the
tenant's, and how many such steps there are tells how many keys the others have. So a step here goes on until it found
as many names as it was asked for, or reached the end.

A sweep is a generator without I/O: it yields the words to send, is sent the reply, and returns the tenant's. It is not
one step for the server: what is written meanwhile may be counted, or deleted, or not. It takes time in proportion to
everybody's keys, which whoever has a clock can measure.

The server's cursor is a place in everybody's table. A tenant gets a random number for it instead (`ScanCursors`); that
of another tenant is one that was never given.
"""

from __future__ import annotations

import random
import re
import secrets
from collections import OrderedDict
from collections.abc import Callable, Generator, Sequence
from typing import Final, cast

from hivetenancy.errors import MisuseError

from .command_keys import CommandRefusedError, Unsent
from .command_replies import unscope
from .command_table import Shape
from .commands import CommandScope, ScopedCommand
from .resp import Items, Line

Sweep = Generator[list[bytes], object, object]
"""Yields words to send, is sent each reply as `hivetenancy.scopes.resp.decode` gives it, returns the tenant's reply."""

STEP: Final = 1_000
"""Places that the server looks at in one step: it serves nobody else meanwhile."""

_STEP_LEAST: Final = 100
_WANTED: Final = 10
"""What Redis takes where there is no ``COUNT``."""
_START, _END = b"", b"0"
_NUMBER: Final = re.compile(rb"[0-9]{1,19}")
_COUNT: Final = re.compile(rb"[1-9][0-9]{0,8}")


class ScanCursors:
    """Numbers that stand for the places in a server's table, of one tenant.

    Args:
        limit: How many are kept; beyond, the one given longest ago is forgotten, and its listing has to start again.
        draw: Draws a number below its argument.

    Concurrency:
        Belongs to one thread; any number of connections in it.
    """

    __slots__ = ("__weakref__", "_draw", "_limit", "_places")

    def __init__(self, limit: int = 1_024, *, draw: Callable[[int], int] = secrets.randbelow) -> None:
        self._limit, self._draw = limit, draw
        self._places: OrderedDict[int, bytes] = OrderedDict()

    def give(self, place: bytes) -> bytes:
        """Return the number for the server's cursor *place*; ``0``, the end, stands for itself."""
        if place == b"0":
            return place
        number = 1 + self._draw(2**63 - 1)
        self._places[number] = place
        if len(self._places) > self._limit:
            self._places.popitem(last=False)
        return b"%d" % number

    def find(self, number: bytes) -> bytes | None:
        """Return the server's cursor for *number*; ``None``: it was not given to this tenant, or too long ago."""
        if not _NUMBER.fullmatch(number):
            return None
        return b"0" if int(number) == 0 else self._places.get(int(number))


def is_swept(command: ScopedCommand) -> bool:
    """Whether `sweep` has to run *command*."""
    return command.command.shape in (Shape.SWEEP, Shape.SCAN)


def sweep(scope: CommandScope, command: ScopedCommand, cursors: ScanCursors) -> Sweep:
    """Return the sweep of *command*.

    Raises while it runs:
        CommandRefusedError: The command has words that it does not know; nothing was sent.
        InvalidNameError: The server returned a name that is not the tenant's; reported, and never to be shown.
        UnexpectedReplyError: The server returned something else than a scan does.
    """
    try:
        match command.command.name:
            case "SCAN":
                return (yield from _scan(scope, command, cursors))
            case "DBSIZE":
                return (yield from _dbsize(scope))
            case "RANDOMKEY":
                return (yield from _randomkey(scope))
            case "FLUSHDB" | "FLUSHALL":
                return (yield from _flush(scope, command))
    except _FailedError as failed:
        return command.unscope(failed.reply)
    raise MisuseError(f"{command.command.name} is no sweep")


class _FailedError(Exception):
    """The server answered with an error."""

    def __init__(self, reply: Line) -> None:
        super().__init__("the server answered with an error")
        self.reply = reply


_Step = Generator[list[bytes], object, tuple[bytes, list[bytes]]]


def _step(scope: CommandScope, place: bytes, options: Sequence[bytes], count: int) -> _Step:
    """Scan once; return where to go on, and the tenant's names, checked."""
    reply = yield [b"SCAN", place, *options, b"COUNT", b"%d" % count]
    if type(reply) is Line:
        raise _FailedError(reply)
    place, names = cast(tuple[bytes, list[bytes]], unscope(scope, Shape.SCAN, reply))
    return place, names


def _scan(scope: CommandScope, command: ScopedCommand, cursors: ScanCursors) -> Sweep:
    place = cursors.find(command.words[1])
    if place is None:
        return Line(b"-ERR invalid cursor")
    options, wanted = _without_count(command.words[2:])
    found: list[object] = []
    while True:
        place, names = yield from _step(scope, place, options, max(_STEP_LEAST, min(wanted, STEP)))
        found += names
        if place == b"0" or len(found) >= wanted:
            return Items([cursors.give(place), Items(found)])


def _without_count(options: Sequence[bytes]) -> tuple[list[bytes], int]:
    kept: list[bytes] = []
    wanted = _WANTED
    for option, value in zip(options[::2], options[1::2], strict=True):
        if option.upper() != b"COUNT":
            kept += (option, value)
        elif _COUNT.fullmatch(value):
            wanted = int(value)
        else:
            raise CommandRefusedError(Unsent.SYNTAX, "SCAN")
    return kept, wanted


def _dbsize(scope: CommandScope) -> Sweep:
    seen: set[int] = set()  # a scan may give a name twice; of long names this keeps 64 bits
    place = _START
    while place != _END:
        place, names = yield from _step(scope, place or b"0", _own(scope), STEP)
        seen.update(map(hash, names))
    return len(seen)


def _randomkey(scope: CommandScope) -> Sweep:
    """Draw one key: the n-th that comes by takes the place of the one before with chance 1/n, so each is as likely."""
    chosen: object = None
    count = 0
    place = _START
    while place != _END:
        place, names = yield from _step(scope, place or b"0", _own(scope), STEP)
        for name in names:
            count += 1
            if not random.randrange(count):
                chosen = name
    return chosen


def _flush(scope: CommandScope, command: ScopedCommand) -> Sweep:
    if len(command.sent) > 2 or (command.sent[1:] and command.sent[1].upper() not in (b"ASYNC", b"SYNC")):
        raise CommandRefusedError(Unsent.SYNTAX, command.command.name)
    place = _START
    while place != _END:
        place, names = yield from _step(scope, place or b"0", _own(scope), STEP)
        if names:
            reply = yield [b"UNLINK", *map(bytes, scope.keys.keys(names))]
            if type(reply) is Line and reply.startswith(b"-"):
                raise _FailedError(reply)
    return Line(b"+OK")


def _own(scope: CommandScope) -> tuple[bytes, bytes]:
    return b"MATCH", scope.keys.pattern(b"*")

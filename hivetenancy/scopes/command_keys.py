"""Where the names stand in one command that was sent: `hivetenancy.scopes.command_table` applied to words.

The same words have to mean the same to the server. So nothing is searched for: options are read from the left with all
that belongs to each, as the server reads them, and a count is taken only in the one spelling that the server takes
(``+2``, `` 2``, ``02`` are none). Whatever does not fit is refused; a command that the server would have understood in
another way never gets there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Final

from hivetenancy.errors import TenancyError

from .command_table import (
    COMMANDS,
    FORBIDDEN,
    FRONT,
    REPEATED,
    Command,
    Counted,
    Found,
    Options,
    Part,
    Place,
    Range,
    by_word,
)

Spot = tuple[int, Part]
"""Which word, and what it is."""


class Unsent(StrEnum):
    """Why a command is not passed on."""

    UNKNOWN = "unknown command"
    FORBIDDEN = "not permitted to tenants: command"
    FRONT = "not passed on: command"
    ARITY = "wrong number of arguments for"
    SYNTAX = "syntax error in"
    NAME = "a name is empty, too long or no pattern in"
    TRANSACTION = "not within a transaction: command"
    ATTACHED = "not while keys are watched or channels subscribed: command"
    SUBSCRIPTIONS = "too many subscriptions on this connection for"
    HELD = "too many commands queued or keys watched for"


class CommandRefusedError(TenancyError):
    """A command that is not passed on. The message names the command, and nothing else that was sent.

    Attributes:
        why: Which rule it breaks.
        command: The command's name in capitals; of an unknown one, its printable beginning.
    """

    def __init__(self, why: Unsent, command: str) -> None:
        super().__init__(f"{why} '{command}'")
        self.why = why
        self.command = command


_TABLE: Final = by_word(COMMANDS)
_COUNT: Final = re.compile(rb"[1-9][0-9]{0,8}")
_UNPRINTABLE: Final = re.compile(rb"[^A-Za-z0-9_.-]")


def shown(word: bytes) -> str:
    """Return *word* as an error may show it: its first 32 bytes, harmless ones alone."""
    return _UNPRINTABLE.sub(b"?", word[:32]).decode("ascii").upper()


def look_up(args: Sequence[bytes], table: Mapping[bytes, Found] = _TABLE) -> Command:
    """Return the line of the table for the command *args*.

    Raises:
        CommandRefusedError: It is unknown, forbidden, for the front, or has the wrong number of words.
    """
    word = args[0].upper() if args else b""
    found = table.get(word)
    if type(found) is Command:
        if not found.takes(len(args)):
            raise CommandRefusedError(Unsent.ARITY, found.name)
        return found
    if found is None:
        why = Unsent.FORBIDDEN if word in FORBIDDEN else Unsent.FRONT if word in FRONT else Unsent.UNKNOWN
        raise CommandRefusedError(why, shown(word))
    return _look_below(word, found, args)


def _look_below(word: bytes, found: Found, args: Sequence[bytes]) -> Command:
    if len(args) < 2:
        raise CommandRefusedError(Unsent.ARITY, shown(word))
    command = found.get(args[1].upper()) if isinstance(found, Mapping) else None
    if command is None:  # a subcommand is unknown or forbidden: the same, since nobody is told which there are
        raise CommandRefusedError(Unsent.UNKNOWN, f"{shown(word)} {shown(args[1])}")
    if not command.takes(len(args)):
        raise CommandRefusedError(Unsent.ARITY, command.name)
    return command


def effect_of(args: Sequence[bytes]) -> str:
    """Return what the command *args* does, in a letter of the table; ``-`` for one that will be refused."""
    try:
        return look_up(args).effect
    except CommandRefusedError:
        return "-"


def spots(command: Command, args: Sequence[bytes]) -> list[Spot]:
    """Return where the names of *args* stand, in the order of the table's places.

    Raises:
        CommandRefusedError: They cannot be located beyond doubt.
    """
    return [spot for place in command.places for spot in _spots(command, place, args)]


def _spots(command: Command, place: Place, args: Sequence[bytes]) -> Iterator[Spot]:
    match place:
        case Range():
            return _range(command, place, args)
        case Counted():
            return _counted(command, place, args)
        case Options():
            return _options(command, place, args)


def _range(command: Command, place: Range, args: Sequence[bytes]) -> Iterator[Spot]:
    end = place.last + 1 if place.last > 0 else len(args) + min(place.last + 1, 0)
    if (end - place.first) % place.step:  # MSET k v k: a key without its value
        raise CommandRefusedError(Unsent.ARITY, command.name)
    return ((at, place.part) for at in range(place.first, end, place.step))


def _counted(command: Command, place: Counted, args: Sequence[bytes]) -> Iterator[Spot]:
    count = args[place.at]
    first = place.at + 1
    if not _COUNT.fullmatch(count) or first + int(count) * place.step > len(args):
        raise CommandRefusedError(Unsent.SYNTAX, command.name)
    return ((at, Part.KEY) for at in range(first, first + int(count) * place.step, place.step))


def _options(command: Command, place: Options, args: Sequence[bytes]) -> Iterator[Spot]:
    at, seen = place.at, set()
    while at < len(args):
        option = args[at].upper()
        follows = place.known.get(option)
        if follows is None or (option in seen and option not in REPEATED):
            raise CommandRefusedError(Unsent.SYNTAX, command.name)
        seen.add(option)
        at += 1
        if follows == ("streams",):
            yield from _streams(command, at, args)
            return
        if at + len(follows) > len(args) or _read_twice(place, args[at : at + len(follows)]):
            raise CommandRefusedError(Unsent.SYNTAX, command.name)
        yield from ((at + i, Part(kind)) for i, kind in enumerate(follows) if kind != "value")
        at += len(follows)
    if b"STREAMS" in place.known:  # and was not there: what would be read cannot be told
        raise CommandRefusedError(Unsent.SYNTAX, command.name)


def _read_twice(place: Options, values: Sequence[bytes]) -> bool:
    """Whether a value could pass for the word that keys stand behind: Redis reads it one way here, another there."""
    return b"STREAMS" in place.known and any(value.upper() == b"STREAMS" for value in values)


def _streams(command: Command, at: int, args: Sequence[bytes]) -> Iterator[Spot]:
    keys, odd = divmod(len(args) - at, 2)
    if odd or not keys:
        raise CommandRefusedError(Unsent.SYNTAX, command.name)
    return ((at + i, Part.KEY) for i in range(keys))


def complete(command: Command, args: Sequence[bytes]) -> list[bytes]:
    """Return *args* with the pattern that the command needs to look at one tenant's names only."""
    words = list(args)
    if command.added == "MATCH":
        if not any(word.upper() == b"MATCH" for word in words[2::2]):
            words += [b"MATCH", b"*"]
    elif command.added and len(words) <= int(command.added[1:]):
        words.append(b"*")
    return words

"""A small multi-tenant key-value server that speaks RESP, for redis-cli and redis-py.

Run it, and it prints two tenants' keys and ready lines for redis-cli::

    python examples/resp_server.py --port 6390

What to look at: `Session.execute` is where a command is admitted; nothing else knows of keys, rates or tenants. The
commands see one dict for everybody, and only the names keep the tenants apart. Sizes are charged per key with
``tenant.charge``, so an overwrite is charged once and a key that expires is credited.

A RESP client announces lengths before it sends anything, and hiredis makes room for an array as long as announced. So
`measure` looks at every length first, against caps that are small until a key was accepted, and hiredis gets whole
commands only.
"""

from __future__ import annotations

import argparse
import asyncio
import fnmatch
import logging
import math
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from hashlib import blake2b
from typing import Any, NamedTuple

import hiredis

from hivetenancy import Reason, Tenancy
from hivetenancy.adapters.streams import AnyConnection, State, error_line
from hivetenancy.errors import InvalidNameError, TenancyError
from hivetenancy.tenant import Tenant
from hivetenancy.testing import FakeHiveHub

_log = logging.getLogger("resp_server")

AUTH_SECONDS = 5.0
CHUNK = 64 * 1024
SWEEP_SECONDS = 1.0


# --- the protocol ----------------------------------------------------------------------------------------------------


class ProtocolError(Exception):
    """What was sent is no command; the connection cannot be read any further."""


class Caps(NamedTuple):
    """How much one command may have."""

    arguments: int
    argument_bytes: int
    command_bytes: int


BEFORE_KEY = Caps(arguments=16, argument_bytes=4 * 1024, command_bytes=16 * 1024)
WITH_KEY = Caps(arguments=1024, argument_bytes=1024 * 1024, command_bytes=4 * 1024 * 1024)


def measure(buffer: bytearray, caps: Caps) -> int:
    """Return how many bytes the first command in *buffer* has; 0 while it is not all there.

    Raises:
        ProtocolError: It is none, or larger than *caps*, which is known from the lengths alone.
    """
    head = _announced(buffer, 0, b"*", caps.arguments)
    if head is None:
        return 0
    count, at = head
    for _ in range(count):
        head = _announced(buffer, at, b"$", caps.argument_bytes)
        if head is None:
            return 0
        size, start = head
        at = start + size + 2
        if at > caps.command_bytes:
            raise ProtocolError("too big command")
        if len(buffer) < at:
            return 0
        if buffer[at - 2 : at] != b"\r\n":
            raise ProtocolError("expected CRLF after an argument")
    return at


def _announced(buffer: bytearray, at: int, mark: bytes, most: int) -> tuple[int, int] | None:
    """Read a length such as ``$12``; ``None`` while it is not all there."""
    if at >= len(buffer):
        return None
    if buffer[at : at + 1] != mark:
        raise ProtocolError(f"expected '{mark.decode()}', got {bytes(buffer[at : at + 1])!r}")
    end = buffer.find(b"\r\n", at, at + 16)
    if end < 0:
        if len(buffer) - at >= 16:
            raise ProtocolError("invalid length")
        return None
    digits = bytes(buffer[at + 1 : end])
    if not digits.isdigit() or len(digits) > 10:
        raise ProtocolError("invalid length")
    if int(digits) > most:
        raise ProtocolError("invalid multibulk length" if mark == b"*" else "invalid bulk length")
    return int(digits), end + 2


class Commands:
    """The commands that a peer sends, one by one."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._buffer = bytearray()
        self._parser = hiredis.Reader(protocolError=ProtocolError)

    async def next(self, caps: Caps) -> list[bytes] | None:
        """Return the next command, under the caps of this moment; ``None``: the peer has left.

        Raises:
            ProtocolError: See `measure`.
        """
        while not (size := measure(self._buffer, caps)):
            try:
                data = await self._reader.read(CHUNK)
            except OSError:
                return None
            if not data:
                return None
            self._buffer += data
        self._parser.feed(bytes(self._buffer[:size]))
        del self._buffer[:size]
        command = self._parser.gets()
        if not isinstance(command, list) or not all(isinstance(part, bytes) for part in command):
            raise ProtocolError("expected an array of bulk strings")
        return command


class Line(str):
    """A reply without a length, such as ``OK``."""

    __slots__ = ()


class Failure(NamedTuple):
    """An error reply: one line."""

    line: str


class ReplyError(Exception):
    """What a command of ours has to complain about; the text is the reply."""


OK = Line("OK")


def encode(value: object, protocol: int) -> bytes:
    """Return *value* as RESP2 or RESP3."""
    match value:
        case None:
            return b"_\r\n" if protocol == 3 else b"$-1\r\n"
        case Failure(line):
            return b"-%b\r\n" % _one_line(line)
        case Line():
            return b"+%b\r\n" % _one_line(value)
        case int():
            return b":%d\r\n" % value
        case bytes():
            return b"$%d\r\n%b\r\n" % (len(value), value)
        case str():
            return encode(value.encode(), protocol)
        case dict():
            flat = [part for pair in value.items() for part in pair]
            head = b"%%%d\r\n" % len(value) if protocol == 3 else b"*%d\r\n" % len(flat)
            return head + b"".join(encode(part, protocol) for part in flat)
        case list():
            return b"*%d\r\n" % len(value) + b"".join(encode(part, protocol) for part in value)
    raise TypeError(type(value))


def _one_line(text: str) -> bytes:
    return "".join(char if char.isprintable() else " " for char in text).encode()


# --- the store: one for everybody ------------------------------------------------------------------------------------


class Item:
    """One value, with the handle of whoever is charged for it."""

    __slots__ = ("expires_us", "tenant", "value")

    def __init__(self, value: bytes, tenant: Tenant, expires_us: int | None = None) -> None:
        self.value = value
        self.tenant = tenant
        self.expires_us = expires_us


class Store:
    """Byte strings by physical name. It never sees a tenant's own name, and never asks who a name belongs to."""

    def __init__(self, now_us: Callable[[], int]) -> None:
        self._items: dict[str, Item] = {}
        self.now_us = now_us

    async def get(self, name: str) -> Item | None:
        """Return what is stored under *name* and has not expired."""
        item = self._items.get(name)
        if item is not None and item.expires_us is not None and item.expires_us <= self.now_us():
            await self.remove(name)
            return None
        return item

    def put(self, name: str, item: Item) -> None:
        """Store *item*; the caller charges it."""
        self._items[name] = item

    async def remove(self, name: str) -> bool:
        """Delete *name*, and credit what it was charged."""
        item = self._items.get(name)
        if item is None:
            return False
        async with item.tenant.charge(name):
            self._items.pop(name, None)
        return True

    async def sweep(self) -> None:
        """Delete what has expired, whoever it belongs to."""
        now = self.now_us()
        for name, item in list(self._items.items()):
            if item.expires_us is not None and item.expires_us <= now:
                await self.remove(name)

    def names_of(self, tenant: Tenant) -> Iterator[str]:
        """Give the tenant's own names, as the tenant writes them."""
        scope = tenant.kv
        for name in self._items:
            if scope.owns(name):
                yield scope.strip(name)


def size_of(name: str, value: bytes) -> int:
    """What an item is charged: the bytes of its name and of its value."""
    return len(name.encode()) + len(value)


# --- commands --------------------------------------------------------------------------------------------------------

Arguments = Sequence[bytes]


class KeyValue:
    """The commands on data. Each runs inside its admission, for the tenant it is given."""

    def __init__(self, store: Store) -> None:
        self.store = store

    async def get(self, tenant: Tenant, args: Arguments) -> object:
        """GET key."""
        item = await self.store.get(_key(tenant, args[0]))
        return None if item is None else item.value

    async def mget(self, tenant: Tenant, args: Arguments) -> object:
        """MGET key [key ...]."""
        return [await self.get(tenant, [key]) for key in args]

    async def exists(self, tenant: Tenant, args: Arguments) -> object:
        """EXISTS key [key ...]."""
        return sum([await self.store.get(_key(tenant, key)) is not None for key in args])

    async def set(self, tenant: Tenant, args: Arguments) -> object:
        """SET key value [EX seconds | PX milliseconds]."""
        name, value = _key(tenant, args[0]), args[1]
        expires = self._expiry(tenant, args[2:])
        async with tenant.charge(name, storage_bytes=size_of(name, value), keys=1):
            self.store.put(name, Item(value, tenant, expires))
        return OK

    def _expiry(self, tenant: Tenant, options: Arguments) -> int | None:
        if not options:
            return None
        if len(options) != 2 or options[0].upper() not in (b"EX", b"PX"):
            raise ReplyError("ERR syntax error")
        amount = _number(options[1])
        return self._ends_in(tenant, amount * (1_000_000 if options[0].upper() == b"EX" else 1_000), "set")

    def _ends_in(self, tenant: Tenant, us: int, command: str) -> int:
        if us <= 0:
            raise ReplyError(f"ERR invalid expire time in '{command}' command")
        tenant.check(max_ttl_seconds=-(-us // 1_000_000))
        return self.store.now_us() + us

    async def delete(self, tenant: Tenant, args: Arguments) -> object:
        """DEL key [key ...]."""
        removed = 0
        for key in args:
            name = _key(tenant, key)
            if await self.store.get(name) is not None:
                removed += await self.store.remove(name)
        return removed

    async def expire(self, tenant: Tenant, args: Arguments) -> object:
        """EXPIRE key seconds."""
        seconds = _number(args[1])
        item = await self.store.get(name := _key(tenant, args[0]))
        if item is None:
            return 0
        if seconds <= 0:
            await self.store.remove(name)
        else:
            item.expires_us = self._ends_in(tenant, seconds * 1_000_000, "expire")
        return 1

    async def ttl(self, tenant: Tenant, args: Arguments) -> object:
        """TTL key."""
        item = await self.store.get(_key(tenant, args[0]))
        if item is None:
            return -2
        return -1 if item.expires_us is None else round((item.expires_us - self.store.now_us()) / 1_000_000)

    async def incr(self, tenant: Tenant, args: Arguments) -> object:
        """INCR key, INCRBY key amount (redis-py sends the latter for both)."""
        step = _number(args[1]) if len(args) == 2 else 1
        name = _key(tenant, args[0])
        await self.store.get(name)  # gone if it has expired
        # Room for the longest number, since two increments at once must not both write the same successor.
        async with tenant.charge(name, storage_bytes=size_of(name, b"-" + b"9" * 19), keys=1) as block:
            item = await self.store.get(name)
            number = step if item is None else _number(item.value) + step
            if not -(2**63) <= number < 2**63:
                raise ReplyError("ERR increment or decrement would overflow")
            value = b"%d" % number
            self.store.put(name, Item(value, tenant, None if item is None else item.expires_us))
            block.commit(storage_bytes=size_of(name, value))
        return number

    async def scan(self, tenant: Tenant, args: Arguments) -> object:
        """SCAN cursor [MATCH pattern] [COUNT count].

        Names are walked in the order of their keyed hash and the cursor is a hash, so that a name that is there all the
        time is given whatever comes and goes, and another tenant's cursor is of no use.
        """
        cursor, matches, count = _number(args[0]), None, 10
        if len(args) % 2 == 0:
            raise ReplyError("ERR syntax error")
        for option, value in zip(args[1::2], args[2::2], strict=True):
            if option.upper() == b"MATCH":
                matches = _glob(value)
            elif option.upper() == b"COUNT":
                count = _number(value)
            else:
                raise ReplyError("ERR syntax error")
        if count < 1 or cursor < 0:
            raise ReplyError("ERR syntax error")
        order = sorted((_place(tenant, name), name) for name in self.store.names_of(tenant))
        ahead = [row for row in order if row[0] >= cursor]
        here = [row for row in ahead if row[0] <= ahead[min(count, len(ahead)) - 1][0]]
        rest = len(ahead) > len(here)
        found = [
            name.encode()
            for _, name in here
            if (matches is None or matches(name)) and await self.store.get(str(tenant.kv.key(name))) is not None
        ]
        return [b"%d" % (here[-1][0] + 1 if rest else 0), found]


def _key(tenant: Tenant, raw: bytes) -> str:
    try:
        return str(tenant.kv.key(raw.decode("utf-8")))
    except UnicodeDecodeError:
        raise InvalidNameError("keys are UTF-8") from None


def _number(raw: bytes) -> int:
    if re.fullmatch(rb"-?[0-9]{1,19}", raw) is None or not -(2**63) <= int(raw) < 2**63:
        raise ReplyError("ERR value is not an integer or out of range")
    return int(raw)


def _place(tenant: Tenant, name: str) -> int:
    key = str(tenant.id).encode()[:64]
    return int.from_bytes(blake2b(name.encode(), digest_size=8, key=key).digest()) >> 2


def _glob(pattern: bytes) -> Callable[[str], bool]:
    """Return a test for a Redis glob. `fnmatch` writes ``[^a]`` as ``[!a]`` and has no escape; none is slow in it."""
    text = pattern.decode("utf-8", "replace").replace("[^", "[!")
    text = re.sub(r"\\(.)", lambda escaped: f"[{escaped[1]}]", text)
    return lambda name: fnmatch.fnmatchcase(name, text)


# --- one connection --------------------------------------------------------------------------------------------------


class Command(NamedTuple):
    """A command on data: what it performs, how many arguments it takes, what it costs."""

    function: str
    least: int
    most: float
    run: Callable[[Tenant, Arguments], Awaitable[object]]
    per_argument: bool = False


class Session:
    """One peer."""

    def __init__(self, server: RespServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._server = server
        self._writer = writer
        self._commands = Commands(reader)
        self._protocol = 2
        self._name = b""
        self._leaves = False
        self.connection: AnyConnection = server.tenancy.connection(
            close=self._close, peer=writer.get_extra_info("peername"), auth_timeout=AUTH_SECONDS
        )

    def _close(self, reason: Reason) -> None:
        """End it: the key was revoked, the time is over, the server stops."""
        self._writer.close()

    async def run(self) -> None:
        """Answer commands until somebody leaves."""
        try:
            while not self._leaves and (command := await self._commands.next(self._caps())) is not None:
                if command:
                    await self._say(await self.execute(command))
                if self.connection.state is State.CLOSING:
                    break
        except ProtocolError as error:
            await self._say(Failure(f"ERR Protocol error: {error}"))
        finally:
            await self.connection.aclose()
            self._writer.close()

    def _caps(self) -> Caps:
        return WITH_KEY if self.connection.state is State.AUTHENTICATED else BEFORE_KEY

    async def _say(self, reply: object) -> None:
        with suppress(OSError):
            self._writer.write(encode(reply, self._protocol))
            await self._writer.drain()

    async def execute(self, command: list[bytes]) -> object:
        """Return the reply to *command*, whatever it is."""
        try:
            return await self._execute(command[0].upper(), command[1:])
        except ReplyError as error:
            return Failure(str(error))
        except TenancyError as error:
            return Failure(error_line(error))
        except Exception as error:  # noqa: BLE001 - a fault of ours is answered too, and told to whoever runs this
            _log.exception("a command failed")
            return Failure(error_line(error))

    async def _execute(self, name: bytes, args: Arguments) -> object:
        plain = {b"AUTH": self._auth, b"HELLO": self._hello, b"QUIT": self._quit}.get(name)
        if plain is not None:
            return await plain(args)
        command = self._server.commands.get(name)
        if command is not None and command.least <= len(args) <= command.most:
            cost = len(args) if command.per_argument else None
            async with self.connection.admit(command.function, cost=cost) as tenant:
                return await command.run(tenant, args)
        await self.connection.attempt()  # no function, but no free ride either
        chat = CHAT.get(name)
        if chat is not None:
            return chat(self, args)
        if command is not None:
            raise ReplyError(f"ERR wrong number of arguments for '{name.decode().lower()}' command")
        raise ReplyError(f"ERR unknown command {name.decode('ascii', 'replace')[:64]!r}")

    # --- before a key, too ---

    async def _auth(self, args: Arguments) -> object:
        """AUTH [username] key."""
        if not 1 <= len(args) <= 2:
            raise ReplyError("ERR wrong number of arguments for 'auth' command")
        refusal = await self.connection.authenticate(args[-1])
        return OK if refusal is None else Failure(error_line(refusal))

    async def _hello(self, args: Arguments) -> object:
        """HELLO [2 | 3 [AUTH username key] [SETNAME name]]."""
        protocol, rest = self._protocol, list(args[1:])
        if args:
            if args[0] not in (b"2", b"3"):
                raise ReplyError("NOPROTO unsupported protocol version")
            protocol = int(args[0])
        while rest:
            option = rest.pop(0).upper()
            if option == b"AUTH" and len(rest) >= 2:
                refusal = await self.connection.authenticate(rest[1])
                if refusal is not None:
                    return Failure(error_line(refusal))
                del rest[:2]
            elif option == b"SETNAME" and rest:
                self._name = rest.pop(0)
            else:
                raise ReplyError("ERR syntax error in HELLO")
        if self.connection.state is not State.AUTHENTICATED:
            raise ReplyError("NOAUTH HELLO must be called with AUTH here")
        self._protocol = protocol
        return {
            "server": "resp_server",
            "version": "7.0.0",
            "proto": protocol,
            "id": 1,
            "mode": "standalone",
            "role": "master",
            "modules": [],
        }

    async def _quit(self, args: Arguments) -> object:
        self._leaves = True
        return OK

    # --- with a key: no data, one unit each ---

    def ping(self, args: Arguments) -> object:
        """PING [text]."""
        return args[0] if args else Line("PONG")

    def select(self, args: Arguments) -> object:
        """SELECT 0: there is one database."""
        if list(args) != [b"0"]:
            raise ReplyError("ERR DB index is out of range")
        return OK

    def client(self, args: Arguments) -> object:
        """CLIENT SETNAME, GETNAME, SETINFO, ID. What shows other connections is not offered."""
        what = args[0].upper() if args else b""
        if what == b"SETNAME" and len(args) == 2:
            self._name = args[1]
        elif what == b"GETNAME":
            return self._name or None
        elif what == b"ID":
            return 1
        elif what != b"SETINFO":
            raise ReplyError("ERR unknown subcommand of CLIENT")
        return OK

    def describe(self, args: Arguments) -> object:
        """COMMAND [COUNT | DOCS ...]: redis-cli asks for help texts."""
        what = args[0].upper() if args else b""
        return len(self._server.commands) if what == b"COUNT" else {} if what == b"DOCS" else []


CHAT: dict[bytes, Callable[[Session, Arguments], object]] = {
    b"PING": Session.ping,
    b"SELECT": Session.select,
    b"CLIENT": Session.client,
    b"COMMAND": Session.describe,
}


class RespServer:
    """The server. Use `serve`."""

    def __init__(self, tenancy: Tenancy, now_us: Callable[[], int]) -> None:
        self.tenancy = tenancy
        self.store = Store(now_us)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        kv = KeyValue(self.store)
        self.commands = {
            b"GET": Command("kv.get", 1, 1, kv.get),
            b"MGET": Command("kv.get", 1, math.inf, kv.mget, per_argument=True),
            b"EXISTS": Command("kv.get", 1, math.inf, kv.exists, per_argument=True),
            b"TTL": Command("kv.get", 1, 1, kv.ttl),
            b"SCAN": Command("kv.scan", 1, 5, kv.scan),
            b"SET": Command("kv.set", 2, 4, kv.set),
            b"INCR": Command("kv.set", 1, 1, kv.incr),
            b"INCRBY": Command("kv.set", 2, 2, kv.incr),
            b"EXPIRE": Command("kv.set", 2, 2, kv.expire),
            b"DEL": Command("kv.delete", 1, math.inf, kv.delete, per_argument=True),
        }
        for name, effect in (("get", "read"), ("scan", "read"), ("set", "write"), ("delete", "delete")):
            tenancy.functions.declare(f"kv.{name}", effect=effect)

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    async def start(self, host: str, port: int) -> None:
        """Listen, and sweep."""
        self._server = await asyncio.start_server(self._connected, host, port, limit=CHUNK)
        self.sweeper = asyncio.create_task(self._sweeps())
        self._track(self.sweeper)

    async def stop(self) -> None:
        """Stop listening, end every session, and wait for them: `Server.close` alone leaves their tasks running."""
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def _track(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.set_write_buffer_limits(high=CHUNK)
        self._track(asyncio.create_task(Session(self, reader, writer).run()))

    async def _sweeps(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            with suppress(TenancyError):  # what cannot be credited now stays, and is tried again
                await self.store.sweep()


@asynccontextmanager
async def serve(
    tenancy: Tenancy, *, now_us: Callable[[], int], host: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[RespServer]:
    """Serve *tenancy*'s tenants while the block is open; *port* 0 takes a free one."""
    server = RespServer(tenancy, now_us)
    async with tenancy:
        await server.start(host, port)
        try:
            yield server
        finally:
            await server.stop()


async def main(port: int) -> None:
    """Serve two tenants of a fake hub until interrupted."""
    hub = FakeHiveHub()
    tenancy = Tenancy.embedded(hub)
    async with serve(tenancy, now_us=lambda: hub.clock.now()[1], port=port) as server:
        for name in ("acme", "globex"):
            tenant = hub.add_tenant(name, plan="pro")
            key = tenant.issue_key(permissions=["read", "write", "delete"])
            print(f"{name}  {tenant.id}  {key.secret}")
            print(f"  redis-cli -p {server.port} --no-auth-warning -a {key.secret} SET hello {name}")
            print(f"  redis-cli -p {server.port} --no-auth-warning -a {key.secret} GET hello", flush=True)
        await asyncio.Event().wait()


def _arguments() -> Any:
    parser = argparse.ArgumentParser(description="A multi-tenant RESP server on a fake hub.")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    return parser.parse_args()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main(_arguments().port))

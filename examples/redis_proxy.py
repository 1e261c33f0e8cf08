"""A multi-tenant front to a real Redis, for redis-cli, redis-py and any other client, unchanged.

Run it beside a Redis that nobody else can reach, and it prints two tenants' keys and ready lines for redis-cli::

    redis-server --port 6379
    python examples/redis_proxy.py --upstream 127.0.0.1:6379 --port 6390

What to look at: `Peer.command` is where a command is admitted and scoped; the words that go to Redis, and the replies
that come back, pass `hivetenancy.scopes` and nothing else. Each client has a connection to Redis of its own, which is
thrown away with it: nobody ever gets the rest of a reply that another one waited for.

A client may send many commands at once. They are admitted, scoped and sent in order, and settled together when the last
reply is there. What the proxy answers itself waits for its turn.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any
from weakref import WeakValueDictionary

from hivetenancy import Reason, Tenancy
from hivetenancy.adapters.streams import AnyConnection, State, error_line
from hivetenancy.errors import StoreUnavailableError, TenancyError
from hivetenancy.scopes.command_front import Front, FrontAnswer
from hivetenancy.scopes.command_keys import CommandRefusedError, Unsent, effect_of, shown
from hivetenancy.scopes.command_session import CommandSession
from hivetenancy.scopes.command_sweeps import ScanCursors, is_swept, sweep
from hivetenancy.scopes.commands import CommandScope, ScopedCommand
from hivetenancy.scopes.resp import Caps, Line, ProtocolError, Replies, Requests, encode, encode_command, error
from hivetenancy.tenant import Tenant
from hivetenancy.testing import FakeHiveHub

_log = logging.getLogger("redis_proxy")

AUTH_SECONDS = 5.0
IDLE_SECONDS = 3600.0
LINGER_SECONDS = 5.0
CHUNK = 64 * 1024
DEPTH = 64
"""How many commands of one client are on their way at once.

Each is a request in flight until the batch is settled: with a plan that allows fewer at once, the rest of a long
pipeline is refused, and no client expects that. The smallest paid plan of HiveHub allows 100.
"""
REPLY_BYTES = 512 * 1024 * 1024
BEFORE_KEY = Caps(words=16, word_bytes=4 * 1024, command_bytes=16 * 1024)
WITH_KEY = Caps(words=1024 * 64, word_bytes=16 * 1024 * 1024, command_bytes=64 * 1024 * 1024)
FUNCTIONS = {"r": "redis.read", "-": "redis.read", "w": "redis.write", "d": "redis.delete"}
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Watched(asyncio.StreamReaderProtocol):
    """A client's end, which says at once when the client has left, whatever is waited for meanwhile."""

    left: Callable[[], object] = staticmethod(lambda: None)

    def eof_received(self) -> bool | None:
        """It sends no more."""
        self.left()
        return super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self.left()
        super().connection_lost(exc)


class Peer:
    """One client, and its own connection to Redis once there is a tenant."""

    def __init__(self, proxy: RedisProxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._proxy, self._reader, self._writer = proxy, reader, writer
        self._requests = Requests()
        self._front, self._leaves = Front(), False
        self._session: CommandSession | None = None
        self._upstream: Stream | None = None
        self._pump: asyncio.Task[None] | None = None
        self._out: list[bytes] = []
        self._idle = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        self.connection: AnyConnection = proxy.tenancy.connection(
            close=self._close, peer=writer.get_extra_info("peername"), auth_timeout=AUTH_SECONDS
        )

    def _close(self, reason: Reason) -> None:
        """End it: the key was revoked, the time is over, the server stops."""
        self._writer.close()
        self._stop()

    def _stop(self) -> None:
        if self.task is not None:
            self.task.cancel()

    async def run(self) -> None:
        """Answer commands until somebody leaves; then the connection to Redis goes, whatever it was doing."""
        try:
            while not self._leaves:
                async with asyncio.timeout(None if self._session and self._session.subscribed else IDLE_SECONDS):
                    data = await self._reader.read(CHUNK)
                if not data:
                    break
                self._requests.feed(data)
                while await self._batch():
                    pass
        except ProtocolError as fault:
            self._writer.write(error(f"ERR Protocol error: {fault}"))
        except (OSError, TimeoutError, TenancyError):
            pass
        finally:
            self._writer.close()  # sends what it holds, if the client takes it
            asyncio.get_running_loop().call_later(LINGER_SECONDS, self._writer.transport.abort)
            self._drop()
            await self.connection.aclose()

    async def _batch(self) -> bool:
        """Do what is there, at most `DEPTH` commands; say whether there may be more."""
        args: list[bytes] | None = None
        async with AsyncExitStack() as held:
            for _ in range(DEPTH):
                known = self.connection.state is State.AUTHENTICATED
                try:
                    args = self._requests.next(WITH_KEY if known else BEFORE_KEY)
                except ProtocolError:
                    await self._settled()  # what came before the nonsense is answered
                    raise
                if args is None or self._leaves:
                    break
                if args:
                    await self._answer_to(args, held)
            await self._settled()
        return args is not None and not self._leaves

    async def _answer_to(self, args: list[bytes], held: AsyncExitStack) -> None:
        try:
            answer = self._front.answer(args)
            if answer is None:
                await self.command(args, held)
            elif self._session is not None and self._session.queueing:
                raise CommandRefusedError(Unsent.TRANSACTION, shown(args[0]))
            elif await self._would_forget(answer):
                raise CommandRefusedError(Unsent.ATTACHED, shown(args[0]))
            else:
                await self.own(answer)
        except CommandRefusedError as refused:
            self._refuse(f"ERR {refused}")
        except TenancyError as fault:
            self._refuse(error_line(fault))

    async def command(self, args: list[bytes], held: AsyncExitStack) -> None:
        """Admit, scope and send one command; its reply comes by itself."""
        function = FUNCTIONS[effect_of(args)]  # what will be refused costs as much as a read
        tenant = await held.enter_async_context(self.connection.admit(function))
        session = self._session or await self._open(tenant)
        command = session.send(args)
        if is_swept(command):
            await self._sweep(session, command)
        else:
            self._out.append(encode_command(command.words))  # sent together: most of what a command costs is this

    async def _sweep(self, session: CommandSession, command: ScopedCommand) -> None:
        await self._settled()
        steps = sweep(session.scope, command, self._cursors)
        try:
            words = next(steps)
            while True:
                words = steps.send(await self._ask(words))
        except StopIteration as done:
            null = Line(b"_" if self._front.protocol == 3 else b"$-1")
            self._say(null if done.value is None else done.value)

    # --- Redis -------------------------------------------------------------------------------------------------------

    async def _open(self, tenant: Tenant) -> CommandSession:
        """Connect to Redis for *tenant*."""
        try:
            self._upstream = await self._proxy.take()
        except OSError as fault:
            raise StoreUnavailableError("Redis does not answer") from fault
        scope = CommandScope(tenant, tenant=tenant.id, sink=self._proxy.sink)
        self._session = CommandSession(scope, protocol=self._front.protocol)
        self._cursors = self._proxy.cursors.setdefault(tenant.id, ScanCursors())
        self._pump = asyncio.create_task(self._replies(self._upstream[0], self._session))
        self._pump.add_done_callback(self._pumped)
        if self._front.protocol == 3:
            await self._ask([b"HELLO", b"3"])
        return self._session

    async def _replies(self, reader: asyncio.StreamReader, session: CommandSession) -> None:
        replies = Replies(REPLY_BYTES)
        while data := await reader.read(CHUNK):
            replies.feed(data)
            shown = []
            while (frame := replies.next()) is not None:
                shown.append(session.receive(frame))
            self._writer.write(b"".join(shown))
            await self._writer.drain()
            if session.idle:
                self._idle.set()

    def _pumped(self, pump: asyncio.Task[None]) -> None:
        """Redis has left, or has sent what must not be seen: the client goes too."""
        if not pump.cancelled() and (fault := pump.exception()) is not None and not isinstance(fault, OSError):
            _log.error("a connection was closed: %s: %s", type(fault).__name__, fault)
        if pump is self._pump:
            self._writer.close()
            self._stop()

    async def _ask(self, words: Sequence[bytes]) -> object:
        """Send a command of the proxy's own, and return the reply."""
        assert self._session is not None
        assert self._upstream is not None
        reply: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._session.ask(lambda value: None if reply.done() else reply.set_result(value))
        self._upstream[1].write(encode_command(words))
        return await reply

    async def _settled(self) -> None:
        """Send what is to be sent, and wait until every command was answered."""
        if self._out and self._upstream is not None:
            self._upstream[1].write(b"".join(self._out))
            self._out.clear()
        while self._session is not None and not self._session.idle:
            self._idle.clear()
            await self._idle.wait()

    def _drop(self) -> None:
        """Throw the connection to Redis away: who knows what would come out of it next."""
        self._session = None
        self._out.clear()
        pump, self._pump = self._pump, None
        upstream, self._upstream = self._upstream, None
        if pump is not None:
            pump.cancel()
        if upstream is not None:
            self._proxy.put_back(upstream)

    # --- the proxy's own answers -------------------------------------------------------------------------------------

    def _say(self, value: object) -> None:
        frame = encode(value)
        self._writer.write(frame if self._session is None else self._session.answer(frame))

    def _refuse(self, text: str) -> None:
        if self._session is not None:
            self._session.spoil()
        self._say(Line(error(text)[:-2]))

    async def _would_forget(self, answer: FrontAnswer) -> bool:
        """Whether it changes the protocol alone, and so the connection to Redis, while that holds something.

        A key is another matter: who shows one begins anew, and knows it.
        """
        await self._settled()
        changes = answer.key is None and answer.protocol != self._front.protocol
        return changes and self._session is not None and self._session.attached

    async def own(self, answer: FrontAnswer) -> None:
        """Act on a command about the connection itself, once all before it are answered."""
        if answer.key is not None:
            refusal = await self.connection.authenticate(answer.key)
            if refusal is not None:
                return self._refuse(error_line(refusal))
            self._drop()  # another key may be another tenant's
        elif not answer.leaves:
            await self.connection.attempt()  # NOAUTH, unless there is a key
        if answer.protocol != self._front.protocol:
            self._front.protocol = answer.protocol
            self._drop()  # the next command connects anew
        self._leaves = answer.leaves
        self._say(answer.reply)


class RedisProxy:
    """The server. Use `serve`.

    *sink* hears of every command that cannot be scoped, and of every name in a reply that is not the tenant's.
    """

    def __init__(self, tenancy: Tenancy, upstream: tuple[str, int], *, sink: Any = None) -> None:
        self.tenancy, self.upstream, self.sink = tenancy, upstream, sink
        self.cursors: WeakValueDictionary[str, ScanCursors] = WeakValueDictionary()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        for effect in ("read", "write", "delete"):
            tenancy.functions.declare(f"redis.{effect}", effect=effect)

    async def take(self) -> Stream:
        """Return a connection to Redis that nobody has used."""
        return await asyncio.open_connection(*self.upstream, limit=CHUNK)

    def put_back(self, stream: Stream) -> None:
        """Close a connection to Redis: nobody uses it again."""
        stream[1].transport.abort()

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    async def start(self, host: str, port: int) -> None:
        """Listen."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Watched(asyncio.StreamReader(limit=CHUNK), self._connected), host, port
        )

    async def stop(self) -> None:
        """Stop listening, end every client, and wait for them."""
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.set_write_buffer_limits(high=CHUNK)
        peer = Peer(self, reader, writer)
        peer.task = asyncio.create_task(peer.run())
        client = writer.transport.get_protocol()
        assert isinstance(client, Watched)
        client.left = peer._stop
        self._tasks.add(peer.task)
        peer.task.add_done_callback(self._tasks.discard)


@asynccontextmanager
async def serve(
    tenancy: Tenancy, upstream: tuple[str, int], *, host: str = "127.0.0.1", port: int = 0, sink: Any = None
) -> AsyncIterator[RedisProxy]:
    """Serve *tenancy*'s tenants from the Redis at *upstream* while the block is open; *port* 0 takes a free one."""
    proxy = RedisProxy(tenancy, upstream, sink=sink)
    async with tenancy:
        await proxy.start(host, port)
        try:
            yield proxy
        finally:
            await proxy.stop()


async def main(upstream: str, port: int) -> None:
    """Serve two tenants of a fake hub until interrupted."""
    hub = FakeHiveHub()
    host, _, number = upstream.rpartition(":")
    async with serve(Tenancy.embedded(hub), (host, int(number)), port=port) as proxy:
        for name in ("acme", "globex"):
            key = hub.add_tenant(name, plan="enterprise").issue_key(permissions=["read", "write", "delete"])
            print(f"{name}  {key.secret}")
            print(f"  redis-cli -p {proxy.port} --no-auth-warning -a {key.secret} SET hello {name}")
            print(f"  redis-cli -p {proxy.port} --no-auth-warning -a {key.secret} KEYS '*'", flush=True)
        await asyncio.Event().wait()


def _arguments() -> Any:
    parser = argparse.ArgumentParser(description="A multi-tenant front to a Redis, on a fake hub.")
    parser.add_argument("--upstream", default="127.0.0.1:6379", help="the Redis, as host:port")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    return parser.parse_args()


if __name__ == "__main__":
    arguments = _arguments()
    with suppress(KeyboardInterrupt):
        asyncio.run(main(arguments.upstream, arguments.port))

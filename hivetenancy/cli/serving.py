"""Serving an ASGI application on loopback while a block is open, and until somebody ends it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import AsyncIterator
from typing import Any

try:
    import uvicorn
except ImportError as error:
    raise ImportError("serving needs its extra: pip install 'hivetenancy[demo]'") from error


class NotServingError(RuntimeError):
    """The server could not be started; the message says why."""


def told_to_stop() -> asyncio.Event:
    """Return what is set by SIGINT and SIGTERM from now on. To be asked for before anybody hears that one serves."""
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):  # loops that take no signal handlers end by KeyboardInterrupt
            loop.add_signal_handler(name, told.set)
    return told


@contextlib.asynccontextmanager
async def serving(app: Any, port: int = 0, *, host: str = "127.0.0.1") -> AsyncIterator[str]:
    """Serve *app* on a loopback port while the block is open, and give its URL once it accepts.

    *host* is a loopback address, of IPv4 or IPv6.

    Raises:
        NotServingError: The port is taken or not allowed, or the application does not start.
    """
    # The protocol is named because asyncio turns Nagle's algorithm off only where it reads TCP there; without that each
    # small answer waits 40 ms for the client's delayed acknowledgement.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise NotServingError(f"port {port} of {host} cannot be used ({error.strerror})") from error
    # No WebSocket is served here, and to import what would serve one takes an eighth of the time to start.
    config = uvicorn.Config(app, log_level="error", lifespan="on", access_log=False, ws="none")
    accepting = asyncio.Event()

    class Server(uvicorn.Server):
        """A server that says when it accepts, and leaves signals to whoever started it."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            accepting.set()

        @contextlib.contextmanager
        def capture_signals(self) -> Any:
            yield

    server = Server(config)

    async def serve() -> None:
        with contextlib.suppress(SystemExit):  # how uvicorn says that the start-up failed
            await server.serve(sockets=[listener])

    task = asyncio.create_task(serve())
    ready = asyncio.create_task(accepting.wait())
    try:
        await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED)
        if not server.started:
            raise NotServingError("the server did not start; its log says why")
        yield f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
    finally:
        ready.cancel()
        server.should_exit = True
        await task
        listener.close()

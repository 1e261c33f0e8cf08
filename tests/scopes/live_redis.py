"""A real Redis for the length of a test: on a free port, keeping nothing, with ways to plant and to look."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from hivetenancy.scopes.resp import Replies, decode, encode_command


class Raw:
    """A connection to a server, without any tenant: what an operator sees."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self._replies = Replies(1 << 30)

    def __call__(self, *words: str | bytes | int) -> object:
        """Ask one command."""
        return self.many([words])[0]

    def many(self, commands: list[tuple[str | bytes | int, ...]]) -> list[object]:
        """Ask many at once."""
        self._socket.sendall(b"".join(encode_command([_word(word) for word in words]) for words in commands))
        return [self.read() for _ in commands]

    def send(self, *words: str | bytes | int) -> None:
        """Ask, and do not wait."""
        self._socket.sendall(encode_command([_word(word) for word in words]))

    def read(self) -> object:
        """Return the next reply."""
        while (frame := self._replies.next()) is None:
            data = self._socket.recv(1 << 16)
            assert data, "the server closed the connection"
            self._replies.feed(data)
        return decode(frame)

    def close(self) -> None:
        """Leave."""
        self._socket.close()


def _word(word: str | bytes | int) -> bytes:
    return word if isinstance(word, bytes) else str(word).encode()


@contextmanager
def live_redis() -> Iterator[int]:
    """A server; gives its port."""
    with TemporaryDirectory() as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        options = ["--port", str(port), "--save", "", "--appendonly", "no", "--dir", folder, "--bind", "127.0.0.1"]
        log = Path(folder, "log")
        with log.open("wb") as out, subprocess.Popen(["redis-server", *options], stdout=out, stderr=out) as server:
            try:
                _wait(port, server, log)
                yield port
            finally:
                server.kill()


def _wait(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=20).close()
        except ConnectionRefusedError:
            assert server.poll() is None, log.read_text()
        else:
            return


@contextmanager
def raw(port: int) -> Iterator[Raw]:
    """A connection to the server on *port*."""
    made = Raw(port)
    try:
        yield made
    finally:
        made.close()

"""A request in a few lines, for tests that make thousands."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote


def http_scope(method: str, raw: bytes, headers: list[tuple[bytes, bytes]], root_path: str = "") -> dict[str, Any]:
    """The scope of a request, decoded as a lenient server does."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": root_path + unquote(raw.decode("utf-8", "replace")),
        "raw_path": root_path.encode() + raw,
        "query_string": b"",
        "root_path": root_path,
        "headers": [(b"host", b"testserver"), *headers],
        "client": ("127.0.0.1", 1),
        "server": ("testserver", 80),
    }


class Wire:
    """The server's side of one request: what was sent, and what is still to come."""

    def __init__(self, *body: bytes) -> None:
        self.body = list(body) or [b""]
        self.status = 0
        self.sent = b""
        self.complete = False

    async def receive(self) -> dict[str, Any]:
        """The next chunk of the body; then the client is gone."""
        if not self.body:
            return {"type": "http.disconnect"}
        chunk = self.body.pop(0)
        return {"type": "http.request", "body": chunk, "more_body": bool(self.body)}

    async def send(self, message: Any) -> None:
        """Note what is sent."""
        if message["type"] == "http.response.start":
            assert self.status == 0, "two answers"
            self.status = message["status"]
        else:
            assert self.status, "a body before its start"
            assert not self.complete, "a body after its end"
            self.sent += message.get("body", b"")
            self.complete = not message.get("more_body", False)

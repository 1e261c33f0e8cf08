"""Where the hub is and who asks: the checks on URL, service key and certificates, and the pool of connections.

Everything that could hold a secret is checked without being quoted: an error message ends up in logs.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Sequence
from http.cookiejar import CookieJar, DefaultCookiePolicy
from ipaddress import ip_address
from typing import Final, NoReturn
from urllib.parse import SplitResult, unquote, urlsplit

import httpx

from hivetenancy.errors import ConfigurationError, MisuseError

MAX_CONNECTIONS: Final = 32
"""One process's share of the hub: a node asks for what it does not know yet, 100 nodes make 3,200 sockets."""

KEEPALIVE_CONNECTIONS: Final = 8
KEEPALIVE_SECONDS: Final = 4.0
"""Shorter than the 5 s after which uvicorn, and many a proxy, closes an idle connection: a request that is sent while
the other side closes is a lost reply."""

_KEY: Final = re.compile(r"[!-~]{8,512}")
_PATH: Final = re.compile(r"(?:/(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})*)+")  # RFC 3986, path-abempty
_TOKEN: Final = re.compile(r"[A-Za-z0-9-]+")
_VALUE: Final = re.compile(r"[!-~](?:[ -~]*[!-~])?")
_OURS: Final = frozenset(
    {"x-service-key", "content-type", "accept", "accept-encoding", "user-agent", "host", "content-length"}
    | {"transfer-encoding", "connection", "cookie", "authorization", "expect", "upgrade", "te"}
)


class ServiceKey:
    """A secret that shows itself only to `reveal`."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return it; for the one expression that sends it."""
        return self._value

    def __repr__(self) -> str:
        return "<service key>"

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        raise TypeError("a service key is not copied or pickled")


def check_request(method: str, path: str, headers: Sequence[tuple[str, str]]) -> None:
    """Refuse what would be sent as something else, or would change what is sent beside it.

    Raises:
        MisuseError: No value is quoted.
    """
    if not (method.isascii() and method.isalpha() and method.isupper()):
        raise MisuseError("an HTTP method is written in capitals")
    if not _PATH.fullmatch(path) or any(unquote(part) in (".", "..") for part in path.split("/")):
        raise MisuseError("a path begins with '/', is percent-encoded, and has neither query nor dot segments")
    for name, value in headers:
        if not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value) or name.lower() in _OURS:
            raise MisuseError(f"header {name!r} cannot be sent: it is set by the transport, or not visible ASCII")


def checked_url(url: object) -> str:
    """Return *url* without trailing slashes: ``https:`` anywhere, ``http:`` to this machine.

    Raises:
        ConfigurationError: The parts that may hold a secret are not quoted.
    """
    if not isinstance(url, str) or not re.fullmatch(r"[!-~]{1,2048}", url):
        raise ConfigurationError("hub URL: give one in visible ASCII, such as https://hub.example.com")
    if any(mark in url for mark in "?#\\"):
        raise ConfigurationError("hub URL: leave out query, fragment and backslashes; it is followed by /api/internal")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ConfigurationError("hub URL: host or port cannot be read; write https://host:port") from None
    if "@" in parts.netloc:
        raise ConfigurationError("hub URL: leave out user name and password; the service key is an argument of its own")
    if parts.scheme not in ("http", "https") or not host or port == 0:
        raise ConfigurationError("hub URL: begin with https:// and a host (http:// only to this machine)")
    if parts.scheme == "http" and not _is_loopback(host):
        raise ConfigurationError(f"hub URL: http: to {host} would show the service key to the network; use https:")
    return _normal(parts)


def _normal(parts: SplitResult) -> str:
    path = parts.path.rstrip("/")
    if path and (not _PATH.fullmatch(path) or any(unquote(part) in (".", "..") for part in path.split("/"))):
        raise ConfigurationError("hub URL: its path must be percent-encoded and without dot segments")
    url = f"{parts.scheme}://{parts.netloc}{path}"
    try:
        httpx.URL(url)
    except httpx.InvalidURL:
        raise ConfigurationError("hub URL: the host cannot be read; write https://host:port") from None
    return url


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def checked_key(key: object) -> ServiceKey:
    """Return *key* so that it cannot show itself.

    Raises:
        ConfigurationError: It is no service key.
    """
    taken = taken_key(key)
    del key
    if isinstance(taken, ConfigurationError):
        raise taken
    return taken


def taken_key(key: object) -> ServiceKey | ConfigurationError:
    """Return *key* so that it cannot show itself, or what is wrong with it.

    Not raised, so that a caller can first let go of the text: what is no key for a line's end behind it is a secret all
    the same, and a traceback brings the variables of each frame along.
    """
    if isinstance(key, ServiceKey):
        return key
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        return ConfigurationError("service key: must be 8-512 visible ASCII characters without spaces or line ends")
    if key.startswith("hh_test_seeded_"):
        return ConfigurationError("service key: this one was made from a seed in a test; anybody can make it again")
    if key.startswith("hh_"):
        return ConfigurationError("service key: this is a tenant's access key; give the service's own (svc_...)")
    return ServiceKey(key)


def checked_context(verify: ssl.SSLContext | bool) -> ssl.SSLContext | bool:
    """Return *verify* if it checks certificates and host names.

    Raises:
        ConfigurationError: It does not.
    """
    if verify is True:
        return verify
    if not isinstance(verify, ssl.SSLContext) or verify.verify_mode != ssl.CERT_REQUIRED or not verify.check_hostname:
        raise ConfigurationError(
            "verify: certificates are always checked; for an authority of your own give "
            "ssl.create_default_context(cafile=...)"
        )
    return verify


def own_client(url: str, verify: ssl.SSLContext | bool) -> httpx.AsyncClient:
    """Make a client of httpx with a stated pool.

    The environment's proxies (and ``SSL_CERT_FILE``) are what an operator uses to reach the hub, and with ``https:`` a
    proxy sees a tunnel. With ``http:``, hence to this machine, it would be handed the service key in the clear.

    Raises:
        ConfigurationError: The environment names a proxy or certificates that cannot be used.
    """
    try:
        return httpx.AsyncClient(
            verify=verify,
            http1=True,
            http2=False,
            follow_redirects=False,
            trust_env=url.startswith("https:"),
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),  # keeps none, sends none
            limits=httpx.Limits(
                max_connections=MAX_CONNECTIONS,
                max_keepalive_connections=KEEPALIVE_CONNECTIONS,
                keepalive_expiry=KEEPALIVE_SECONDS,
            ),
        )
    except (ImportError, ValueError, OSError, httpx.InvalidURL) as error:
        fault = type(error).__name__  # its text may hold a proxy's password
    raise ConfigurationError(
        f"hub: the environment's proxy or certificates cannot be used ({fault}): correct HTTPS_PROXY, ALL_PROXY, "
        "SSL_CERT_FILE and SSL_CERT_DIR (a socks proxy needs `pip install httpx[socks]`)"
    )

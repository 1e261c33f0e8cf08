"""Answers over HTTP, the same bytes on every host: problem bodies, challenges, rate headers, security headers.

Sources: RFC 9457 (problem details), RFC 6750 section 3 (challenges), RFC 9110 (Retry-After, Allow), the IETF draft
``httpapi-ratelimit-headers`` (``RateLimit``, ``RateLimit-Policy``). ``X-RateLimit-*`` is what HiveHub's clients read:
``Reset`` in epoch seconds, of the tightest limit.

A 401 holds nothing of the request: every fault of a well-formed key gives identical bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, Literal, NamedTuple, TypeAlias
from urllib.parse import unquote_to_bytes

from hivetenancy.clock import SECOND_US, Instant
from hivetenancy.decision import Reason, Refusal
from hivetenancy.errors import ConfigurationError, UnavailableError
from hivetenancy.ids import Dimension
from hivetenancy.ratelimit import LimitState

from .catalogue import UNAVAILABLE, Entry, entry_for

Header: TypeAlias = tuple[bytes, bytes]
"""Name in lower case, and value."""

RateHeaders = Literal["both", "ietf", "x", "off"]

_QUOTA_STATUSES: Final = frozenset({403, 429, 507})

QUOTA_TYPE: Final = "https://iana.org/assignments/http-problem-types#quota-exceeded"
"""Problem type of the rate-limit draft, for everything that a limit refused."""

BASE_HEADERS: Final[tuple[Header, ...]] = (
    (b"x-content-type-options", b"nosniff"),
    # An answer to one key must not be served to another from a shared cache.
    (b"vary", b"authorization, x-api-key, x-hub-access-key"),
)
"""On every answer that an adapter sees."""

_encode: Final = json.JSONEncoder(separators=(",", ":")).encode  # `json.dumps` would build one for every answer

_RETRY_UNKNOWN_US: Final = SECOND_US
"""What a 503 advises where nothing better is known: look-ups are tried again after one second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpOptions:
    """How answers look.

    Attributes:
        realm: Realm of the challenges.
        rate_headers: ``both``, ``ietf`` (``RateLimit``, ``RateLimit-Policy``), ``x`` (``X-RateLimit-*``) or ``off``.
        quota_status: Status of a refused quota by dimension, 403, 429 or 507; 429 where a dimension is not named.
        max_body_bytes: Bound on a body whatever the plan says; ``None``: the plan's ``max_payload_bytes`` alone.

    Raises:
        ConfigurationError: A value is out of range.
    """

    realm: str = "hivehub"
    rate_headers: RateHeaders = "both"
    quota_status: Mapping[Dimension, int] = field(default_factory=dict)
    max_body_bytes: int | None = None

    def __post_init__(self) -> None:
        if self.rate_headers not in ("both", "ietf", "x", "off"):
            raise ConfigurationError(f"rate_headers must be both, ietf, x or off, got {self.rate_headers!r}")
        if not self.realm.isascii() or not self.realm.isprintable() or set(self.realm) & set('"\\'):
            raise ConfigurationError(f"realm must be printable ASCII without quotes, got {self.realm!r}")
        for dimension, status in self.quota_status.items():
            if status not in _QUOTA_STATUSES:
                raise ConfigurationError(f"quota_status of {dimension!r} must be 403, 429 or 507, got {status!r}")
        if self.max_body_bytes is not None and self.max_body_bytes < 0:
            raise ConfigurationError(f"max_body_bytes must be at least 0, got {self.max_body_bytes!r}")


class Answer(NamedTuple):
    """A whole answer.

    Attributes:
        status: HTTP status.
        headers: All of them, content type and length included, `BASE_HEADERS` not.
        body: The body.
    """

    status: int
    headers: list[Header]
    body: bytes


def render(
    refusal: Refusal, options: HttpOptions, *, states: Sequence[LimitState] = (), now: Instant | None = None
) -> Answer:
    """Return the answer for *refusal*.

    Args:
        refusal: What was refused and why.
        options: How answers look.
        states: Where the rate policies stand, for headers; never given for 401, where they would leak.
        now: For ``X-RateLimit-Reset``; ``None``: no rate headers.
    """
    entry = entry_for(refusal.reason)
    status = entry.status
    if refusal.reason is Reason.QUOTA_EXCEEDED and refusal.dimension is not None:
        status = options.quota_status.get(refusal.dimension, status)
    headers: list[Header] = []
    if entry.challenge is not None:
        headers.append((b"www-authenticate", _challenge(entry, refusal, options.realm)))
    if refusal.retry_after_us is not None:
        headers.append((b"retry-after", b"%d" % _whole_seconds(refusal.retry_after_us)))
    if states and now is not None and entry.status != 401:  # who is refused as nobody learns nothing of somebody
        headers += rate_headers(states, options.rate_headers, now, refusal)
    return answer(entry, headers=headers, status=status, details=_details(refusal))


def render_unavailable(error: UnavailableError) -> Answer:
    """Return the 503 that says "cannot tell", with a hint when to try again. Nothing of *error*'s text is shown."""
    wait = error.retry_after_us if error.retry_after_us is not None else _RETRY_UNKNOWN_US
    return answer(UNAVAILABLE, headers=[(b"retry-after", b"%d" % _whole_seconds(wait))])


def answer(
    entry: Entry,
    *,
    headers: Sequence[Header] = (),
    status: int | None = None,
    details: Mapping[str, object] | None = None,
) -> Answer:
    """Return the answer of one row of the catalogue, as a problem body that no cache keeps."""
    code = entry.status if status is None else status
    body = _body(entry, code, details) if details else _plain_body(entry, code)
    return Answer(
        code,
        [
            (b"content-type", b"application/problem+json"),
            (b"content-length", b"%d" % len(body)),
            (b"cache-control", b"no-store"),
            *headers,
        ],
        body,
    )


def _body(entry: Entry, status: int, details: Mapping[str, object]) -> bytes:
    limited = status == 429 and ("policy" in details or "dimension" in details)
    problem: dict[str, object] = {
        "type": QUOTA_TYPE if limited else f"urn:hivetenancy:problem:{entry.code}",
        "title": entry.title,
        "status": status,
        "code": entry.code,
        **details,
    }
    return _encode(problem).encode()


@lru_cache(maxsize=256)
def _plain_body(entry: Entry, status: int) -> bytes:
    """Return a body that says nothing of the request: the same bytes each time, made once."""
    return _body(entry, status, {})


def policy_header(states: Sequence[LimitState]) -> bytes:
    """Return ``RateLimit-Policy`` for *states*: it changes with the limits alone, so whoever keeps these keeps it."""
    timed = [state for state in states if state.window_us is not None]
    return ", ".join(f'"{s.name}";q={s.limit};w={_whole_seconds(s.window_us or 0)}' for s in timed).encode()


def rate_headers(
    states: Sequence[LimitState],
    which: RateHeaders,
    now: Instant,
    refusal: Refusal | None = None,
    policies: bytes | None = None,
) -> list[Header]:
    """Return the rate headers for *states*.

    Concurrency limits have no window and no time at which they are free, and are left out.

    Args:
        states: Where the policies stand.
        which: Which families of headers.
        now: Its wall part turns waits into ``X-RateLimit-Reset``.
        refusal: The refusal that the headers go with: its policy shows the exact wait instead of the full reset, so
            that ``Retry-After`` never points before it.
        policies: What `policy_header` says of *states*, if that is known already.
    """
    if which == "off":
        return []
    limits: list[str] = []
    tight: LimitState | None = None
    tightest, soonest = 2.0, 0
    for state in states:
        name, _, window_us, capacity, remaining, reset = state
        if window_us is None:
            continue
        wait = (reset or 0) if refusal is None else _wait(state, refusal)
        limits.append(f'"{name}";r={remaining};t={-(-wait // SECOND_US)}')
        freedom = remaining / capacity if capacity else 0.0  # not of the limit, which a burst may be far above
        if freedom < tightest:
            tight, tightest, soonest = state, freedom, wait
    if tight is None:
        return []
    headers: list[Header] = []
    if which != "x":
        headers.append((b"ratelimit-policy", policies or policy_header(states)))
        headers.append((b"ratelimit", ", ".join(limits).encode()))
    if which != "ietf":
        headers.append((b"x-ratelimit-limit", b"%d" % tight[1]))
        headers.append((b"x-ratelimit-remaining", b"%d" % tight[4]))
        headers.append((b"x-ratelimit-reset", b"%d" % -(-(now[1] + soonest) // SECOND_US)))
    return headers


def bad_path(raw_path: bytes) -> bool:
    """Whether *raw_path*, as it stood in the request line without its query, cannot be a path.

    It cannot if it is no strict UTF-8 once percent-decoded, holds a control character, or a broken escape.
    """
    if raw_path.isascii() and b"%" not in raw_path:
        return not raw_path.decode("ascii").isprintable()
    decoded = unquote_to_bytes(raw_path)
    if raw_path.count(b"%") != _escapes(raw_path):
        return True
    try:
        text = decoded.decode("utf-8")
    except UnicodeDecodeError:
        return True
    return any(ord(char) < 0x20 or 0x7F <= ord(char) < 0xA0 for char in text)


def _escapes(raw_path: bytes) -> int:
    hexadecimal = b"0123456789abcdefABCDEF"
    parts = raw_path.split(b"%")[1:]
    return sum(len(part) >= 2 and part[0] in hexadecimal and part[1] in hexadecimal for part in parts)


def _wait(state: LimitState, refusal: Refusal | None) -> int:
    if refusal is not None and refusal.retry_after_us is not None:
        reset = state.reset_after_us or 0
        return refusal.retry_after_us if state.name == refusal.policy else min(reset, refusal.retry_after_us)
    return state.reset_after_us or 0


def _whole_seconds(us: int) -> int:
    return -(-us // SECOND_US)


def _challenge(entry: Entry, refusal: Refusal, realm: str) -> bytes:
    parts = [f'Bearer realm="{realm}"']
    if entry.challenge:
        parts.append(f'error="{entry.challenge}"')
    if entry.status == 403 and refusal.function is not None:
        parts.append(f'scope="{refusal.function}"')
    return ", ".join(parts).encode()


def _details(refusal: Refusal) -> dict[str, object]:
    if entry_for(refusal.reason).status in (400, 401, 404):
        return {}
    shown: dict[str, object] = {}
    for name in (
        "function",
        "policy",
        "dimension",
        "resource",
        "limit",
        "used",
        "held",
        "requested",
        "resets_at_us",
        "retry_after_us",
    ):
        value = getattr(refusal, name)
        if value is not None:
            shown[name] = value
    if refusal.policy is not None:
        shown["violated-policies"] = [refusal.policy]
    return shown

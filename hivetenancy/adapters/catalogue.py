"""The catalogue of refusals: one row for each thing a caller can be told, in the words of every protocol.

Adapters read it and add nothing. Several internal reasons share a row on purpose: a caller with a revoked key, one with
a key of a suspended tenant and one with a made-up key get the same bytes (architecture, decision 13).

WebSocket close codes follow HTTP in the private range (4401 for 401). RESP prefixes are those that clients map to an
exception of their own: ``NOAUTH``, ``WRONGPASS``, ``NOPERM``, ``OOM``; prefixes with fail-over side effects
(``READONLY``, ``LOADING``, ``MASTERDOWN``) are never used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, assert_never

from hivetenancy.decision import Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One row of the catalogue.

    Attributes:
        code: Stable machine-readable name, the member ``code`` of a problem body.
        status: HTTP status.
        title: One sentence for people, the same for every occurrence.
        close_code: WebSocket close code.
        resp: RESP error prefix.
        challenge: RFC 6750 error code of the ``WWW-Authenticate`` challenge; ``""``: a challenge without one; ``None``:
            no challenge.
    """

    code: str
    status: int
    title: str
    close_code: int
    resp: str = "ERR"
    challenge: str | None = None


def _entry(code: str, status: int, title: str, resp: str, challenge: str | None = None) -> Entry:
    return Entry(code=code, status=status, title=title, close_code=4000 + status, resp=resp, challenge=challenge)


INVALID_CARRIER: Final = _entry(
    "INVALID_CREDENTIAL_CARRIER",
    400,
    "Send exactly one access key, of 16 to 512 visible ASCII characters; over HTTP in one of the headers "
    "'Authorization: Bearer', 'X-API-Key' or 'X-Hub-Access-Key', and never in the query.",
    "ERR",
    "invalid_request",
)
INVALID_PATH: Final = _entry(
    "INVALID_PATH", 400, "The path must be UTF-8 without control characters, percent-encoded where needed.", "ERR"
)
INVALID_NAME: Final = _entry("INVALID_NAME", 400, "The name is empty, too long, or not encodable.", "ERR")
INVALID_REQUEST: Final = _entry("INVALID_REQUEST", 400, "The request cannot be understood.", "ERR")
MISSING_CREDENTIAL: Final = _entry("MISSING_CREDENTIAL", 401, "An access key is needed.", "NOAUTH", "")
INVALID_CREDENTIAL: Final = _entry(
    "INVALID_CREDENTIAL", 401, "The access key is not valid.", "WRONGPASS", "invalid_token"
)
FORBIDDEN: Final = _entry(
    "FORBIDDEN", 403, "The access key does not permit this function.", "NOPERM", "insufficient_scope"
)
NOT_FOUND: Final = _entry("NOT_FOUND", 404, "There is no such thing.", "ERR")
METHOD_NOT_ALLOWED: Final = _entry("METHOD_NOT_ALLOWED", 405, "The method is not allowed here.", "ERR")
PAYLOAD_TOO_LARGE: Final = _entry("PAYLOAD_TOO_LARGE", 413, "The payload can never fit this plan.", "ERR")
BATCH_TOO_LARGE: Final = _entry("BATCH_TOO_LARGE", 413, "The batch can never fit this plan.", "ERR")
COST_TOO_LARGE: Final = _entry(
    "COST_TOO_LARGE", 413, "The request costs more than this plan ever admits at once.", "ERR"
)
STATIC_LIMIT: Final = _entry("STATIC_LIMIT_EXCEEDED", 422, "A value is over a limit of the plan.", "ERR")
RATE_LIMITED: Final = _entry("RATE_LIMITED", 429, "Too many requests.", "RATELIMITED")
TOO_MANY_IN_FLIGHT: Final = _entry("TOO_MANY_IN_FLIGHT", 429, "Too many requests at the same moment.", "RATELIMITED")
QUOTA_EXCEEDED: Final = _entry("QUOTA_EXCEEDED", 429, "The plan has no room for this.", "OOM")
INTERNAL_ERROR: Final = _entry("INTERNAL_ERROR", 500, "The server failed.", "ERR")
UNAVAILABLE: Final = Entry(
    code="UNAVAILABLE",
    status=503,
    title="This cannot be decided now; try again.",
    close_code=1013,  # "try again later", the registered code
    resp="TRYAGAIN",
)


GOING_AWAY: Final = Entry(
    code="GOING_AWAY",
    status=503,
    title="The server stops; connect again.",
    close_code=1012,  # "service restart", the registered code
    resp="TRYAGAIN",
)


def entry_for(reason: Reason) -> Entry:
    """Return the row of *reason*."""
    match reason:
        case Reason.AMBIGUOUS_CREDENTIAL | Reason.CREDENTIAL_IN_QUERY | Reason.MALFORMED_CREDENTIAL:
            return INVALID_CARRIER
        case Reason.INVALID_PATH:
            return INVALID_PATH
        case Reason.INVALID_NAME:
            return INVALID_NAME
        case Reason.NO_CREDENTIAL:
            return MISSING_CREDENTIAL
        case (
            Reason.UNKNOWN_KEY
            | Reason.REVOKED_KEY
            | Reason.EXPIRED_KEY
            | Reason.KEY_NOT_YET_VALID
            | Reason.WRONG_ENVIRONMENT
            | Reason.SUSPENDED_TENANT
            | Reason.UNOWNED_KEY
            | Reason.UNSUPPORTED_RESTRICTION
        ):
            return INVALID_CREDENTIAL
        case (
            Reason.MISSING_PERMISSION
            | Reason.FUNCTION_NOT_ALLOWED
            | Reason.SURFACE_NOT_ALLOWED
            | Reason.UNDECLARED_FUNCTION
        ):
            return FORBIDDEN
        case Reason.NOT_FOUND:
            return NOT_FOUND
        case Reason.RATE_LIMITED:
            return RATE_LIMITED
        case Reason.TOO_MANY_IN_FLIGHT:
            return TOO_MANY_IN_FLIGHT
        case Reason.QUOTA_EXCEEDED:
            return QUOTA_EXCEEDED
        case Reason.PAYLOAD_TOO_LARGE:
            return PAYLOAD_TOO_LARGE
        case Reason.BATCH_TOO_LARGE:
            return BATCH_TOO_LARGE
        case Reason.COST_TOO_LARGE:
            return COST_TOO_LARGE
        case Reason.STATIC_LIMIT:
            return STATIC_LIMIT
        case Reason.SERVER_STOPS:
            return GOING_AWAY
    assert_never(reason)

"""X5: a call under an idempotency key has its effect once (HiveHub wire 4.7).

Claim, effect and answer are one transaction of the hub: nothing comes between them, and whoever keeps the hub on disk
writes all three or none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import assert_never

from .api_http import Answer, RequestError, bad_field
from .backend import Question
from .idempotency import Claim, Fresh, Full, IdempotencyStore, InProgress, Mismatch, Replay, SecretMade, checked_key
from .service import HubService


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What a call did.

    Attributes:
        answer: What to answer.
        secret_of: Id and version of the key whose secret is in the answer; ``None``: there is none in it.
    """

    answer: Answer
    secret_of: tuple[str, int] | None = None


def read_key(values: list[bytes]) -> str | None:
    """Return the idempotency key of a request; ``None``: it has none.

    Raises:
        RequestError: 400: it is there twice, or no 8 to 128 visible ASCII characters.
    """
    if not values:
        return None
    try:
        if len(values) > 1:
            raise ValueError("may be there once")
        return checked_key(values[0].decode("latin-1"))
    except ValueError as error:
        raise bad_field("idempotency_key", str(error)) from None


def once(service: HubService, question: Question, effect: Callable[[], Effect]) -> Answer:
    """Have *effect*, or say what came of it the first time.

    Raises:
        RequestError: 409 ``in_progress`` or ``secret_not_repeatable``, 422 ``idempotency_mismatch``, 503 where no
            further call can be remembered; nothing was done then.
    """
    key = question.idempotency_key
    if key is None:
        return effect().answer
    claim = Claim(identity=question.identity.identity, method=question.route.method, target=question.target, key=key)
    with service.transaction() as state:
        now_us = service.clock.now()[1]
        claimed = state.idempotency.claim(claim, sha256(question.raw_body).digest(), now_us)
        match claimed:
            case Fresh():
                return _kept(state.idempotency, claim, effect, now_us)
            case Replay():
                return Answer(status=claimed.status, body=claimed.body)
            case SecretMade():
                raise RequestError(
                    409,
                    "The secret was shown once and is not kept: rotate the key",
                    code="secret_not_repeatable",
                    id=claimed.key_id,
                    version=claimed.version,
                )
            case InProgress():
                raise RequestError(
                    409, "The call is in progress", code="in_progress", headers=((b"retry-after", b"1"),)
                )
            case Mismatch():
                raise RequestError(
                    422, "The key was used for another body", code="idempotency_mismatch", field="idempotency_key"
                )
            case Full():
                raise RequestError(503, "Service temporarily unavailable", headers=((b"retry-after", b"60"),))
    assert_never(claimed)


def _kept(store: IdempotencyStore, claim: Claim, effect: Callable[[], Effect], now_us: int) -> Answer:
    try:
        had = effect()
    except BaseException:
        store.release(claim)
        raise
    if had.secret_of is None:
        store.complete(claim, had.answer.status, had.answer.body, now_us)
    else:
        store.complete_secret(claim, *had.secret_of, now_us)
    return had.answer

"""What a request to a control plane is made of, read strictly, and what comes back.

Two readers of one message must not see two messages (HiveHub wire 4.9): the raw path is split before anything in it is
decoded, each segment and query field is decoded once, a field that stands there twice is refused, and so is a JSON
object with a key that it has twice. Whatever is wrong is a `RequestError` that names the field at fault, or ``path``,
``query`` or ``body`` where it is none; no message repeats a value, which may be a secret.

Own code, because no framework serves: those we know decode a path before they split it, redirect a slash too many, and
read a JSON key that comes twice as its last; and a plain installation has none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from hivetenancy.hub import wire

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

MAX_BODY: Final = 1 << 20
"""Bytes that a body may have (HiveHub wire, part 5)."""

_Model = TypeVar("_Model", bound=BaseModel)

_ESCAPE: Final = re.compile(rb"%([0-9A-Fa-f]{2})?")
_FIELD: Final = re.compile(r"[a-z][a-z_]{0,39}", re.ASCII)  # no digit: an access key sent as a name is not repeated
_DIGITS: Final = re.compile(r"[0-9]{1,20}", re.ASCII)


class RequestError(Exception):
    """A request that gets no success: the status and everything else about its reply."""

    def __init__(
        self,
        status: int,
        error: str,
        *,
        code: str | None = None,
        field: str | None = None,
        headers: Sequence[tuple[bytes, bytes]] = (),
        **more: Any,
    ) -> None:
        super().__init__(error)
        self.status = status
        self.headers = tuple(headers)
        self.body = wire.ErrorBody(error=error, code=code, field=field, **more)


def bad_field(name: str, why: str) -> RequestError:
    """Return the 400 for a field, or for ``path``, ``query`` or ``body`` as a whole."""
    return RequestError(400, f"{name}: {why}", code="bad_field", field=name)


class ClientGoneError(Exception):
    """The caller hung up before the request was there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A success.

    Attributes:
        status: The status.
        body: JSON.
        headers: Headers beside those of every reply.
    """

    body: bytes
    status: int = 200
    headers: tuple[tuple[bytes, bytes], ...] = ()


def encoded(model: BaseModel | None) -> bytes:
    """Return *model* as JSON. An option that is not there is left out; what may be null and must be there stays."""
    return b"{}" if model is None else model.model_dump_json(exclude_defaults=True).encode("utf-8")


def merged(*models: BaseModel) -> bytes:
    """Return several models as one JSON object."""
    fields: dict[str, Any] = {}
    for model in models:
        fields |= model.model_dump(mode="json", exclude_defaults=True)
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode("utf-8")


# --- the query -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A field of a query, or a segment of a path.

    Attributes:
        name: Its name.
        about: What it is, for people.
        type: What its text is read as.
        number: Whether it is written in digits.
        any_case: Whether case does not matter.
        required: Whether it must be there.
        at_most: How often it may be there; more than once makes it a list.
        extension: The extension that it belongs to; without that it is an unknown field.
        empty_is_absent: Whether an empty value means that it is not there.
    """

    name: str
    about: str
    type: TypeAdapter[Any] = field(repr=False)
    number: bool = False
    any_case: bool = False
    required: bool = False
    at_most: int = 1
    extension: str | None = None
    empty_is_absent: bool = False

    def read(self, text: str) -> Any:
        """Return the value that *text* stands for.

        Raises:
            RequestError: 400 with the parameter's name.
        """
        value: object = text.lower() if self.any_case else text
        if self.number:
            if _DIGITS.fullmatch(text) is None:
                raise bad_field(self.name, "must be a whole number in decimal digits")
            value = int(text)
        try:
            return self.type.validate_python(value)
        except ValidationError as error:
            raise bad_field(self.name, _message(error)) from None


def read_query(raw: bytes, known: Iterable[Parameter], *, strict: bool) -> dict[str, Any]:
    """Return the fields of a query.

    Args:
        raw: The query as it was sent.
        known: The fields that are read.
        strict: Whether any other field is refused rather than ignored.

    Raises:
        RequestError: 400: a field is repeated, missing, unknown or wrong, or the query is no text.
    """
    parameters = {parameter.name: parameter for parameter in known}
    texts: dict[str, list[str]] = {name: [] for name in parameters}
    for part in raw.split(b"&") if raw else ():
        name_bytes, _, value = part.partition(b"=")
        name = _decoded(name_bytes)
        text = _decoded(value)
        if name in texts:
            texts[name].append(text)
        elif strict:
            raise bad_field(name if _FIELD.fullmatch(name) else "query", "is no field that this call knows")
    return {name: _one_or_all(parameters[name], found) for name, found in texts.items()}


def _one_or_all(parameter: Parameter, texts: list[str]) -> Any:
    if parameter.empty_is_absent:
        texts = [text for text in texts if text]
    if len(texts) > parameter.at_most:
        often = "once" if parameter.at_most == 1 else f"{parameter.at_most} times at most"
        raise bad_field(parameter.name, f"may be there {often}")
    if parameter.at_most > 1:
        return tuple(parameter.read(text) for text in texts)
    if not texts:
        if parameter.required:
            raise bad_field(parameter.name, "is missing")
        return None
    return parameter.read(texts[0])


def _decoded(part: bytes) -> str:
    def byte(match: re.Match[bytes]) -> bytes:
        if match[1] is None:
            raise bad_field("query", "holds a % that is no escape")
        return bytes([int(match[1], 16)])

    try:
        return _ESCAPE.sub(byte, part.replace(b"+", b" ")).decode("utf-8")
    except UnicodeDecodeError:
        raise bad_field("query", "is no UTF-8") from None


# --- the body --------------------------------------------------------------------------------------------------------


async def read_body(receive: Receive, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return the whole body.

    Raises:
        RequestError: 413: it has more than `MAX_BODY` bytes, as announced or as counted.
        ClientGoneError: The caller hung up.
    """
    if any(_too_long(value) for name, value in headers if name.lower() == b"content-length"):
        raise _oversized()
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > MAX_BODY:
            raise _oversized()
        chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks)


def _too_long(length: bytes) -> bool:
    text = length.strip()
    return text.isdigit() and (len(text) > 18 or int(text) > MAX_BODY)


def _oversized() -> RequestError:
    return RequestError(413, f"The body has more than {MAX_BODY} bytes", code="too_large", field="body")


def parse_body(raw: bytes, model: type[_Model]) -> _Model:
    """Return the body as *model*.

    Raises:
        RequestError: 400 with the field at fault, or ``body`` if it is no JSON object.
    """
    try:
        json.loads(raw.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_constant)
    except RecursionError:
        raise bad_field("body", "is nested too deeply") from None
    except ValueError as error:
        raise bad_field("body", "repeats a key" if isinstance(error, _RepeatedKeyError) else "is no JSON") from None
    try:
        return model.model_validate_json(raw)
    except ValidationError as error:
        raise bad_field(_place(error), _message(error)) from None


class _RepeatedKeyError(ValueError):
    pass


def _once(pairs: list[tuple[str, Any]]) -> None:
    if len({name for name, _ in pairs}) != len(pairs):
        raise _RepeatedKeyError


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _first(error: ValidationError) -> Mapping[str, Any]:
    return error.errors(include_url=False, include_context=False, include_input=False)[0]


def _message(error: ValidationError) -> str:
    first = _first(error)
    if first["type"] == "json_invalid":
        return "is no JSON"
    if first["type"] == "extra_forbidden":
        return "is no field that this call knows"
    text = str(first["msg"])
    return text[:1].lower() + text[1:]


def _place(error: ValidationError) -> str:
    """Name the field at fault, as ``lines[3].value``; ``body`` where none, or none that we named, is."""
    place = ""
    for part in _first(error)["loc"]:
        if isinstance(part, int):
            place += f"[{part}]"
        elif _FIELD.fullmatch(part):
            place += f".{part}" if place else part
        else:
            break
    return place or "body"

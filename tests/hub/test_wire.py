"""Every body of the wire: what is written is what is read, to the last digit, and nothing is converted in silence."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from enum import StrEnum
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
from pydantic import BaseModel, RootModel, ValidationError
from pydantic.fields import FieldInfo

from hivetenancy.hub import wire
from tests.tiers import examples

hypothesis = pytest.importorskip("hypothesis", reason="hypothesis is not installed")

from hypothesis import HealthCheck, given, settings  # noqa: E402 - after the check that it is there
from hypothesis import strategies as st  # noqa: E402

MODELS = sorted(
    (
        model
        for _, model in inspect.getmembers(wire, inspect.isclass)
        if issubclass(model, BaseModel) and model.__module__ == wire.__name__
        if model not in (wire.Reply, wire.Request, wire.StrictRequest)
    ),
    key=lambda model: model.__name__,
)

#: Wall microseconds from the first day to the end of the year 9999, which is as far as RFC 3339 goes.
TIMES = st.integers(0, 253_402_300_799_999_999)
NAMES = st.text("abz 09-_.é", min_size=1, max_size=20)
SPECIAL: Mapping[Any, st.SearchStrategy[Any]] = {
    wire.Time: TIMES,
    wire.Id: st.uuids().map(str),
    wire.Name: NAMES,
    wire.Text: st.text(max_size=20).filter(lambda text: text.isprintable()),
    wire.Cursor: st.from_regex(r"[A-Za-z0-9_-]{1,40}", fullmatch=True),
    wire.Digest: st.from_regex(r"[0-9a-f]{64}", fullmatch=True),
    wire.SourceId: st.from_regex(r"[0-9a-f]{32}", fullmatch=True),
    wire.U64: st.integers(0, 2**64 - 1),
    wire.U32: st.integers(0, 2**32 - 1),
    wire.I64: st.integers(-(2**63), 2**63 - 1),
    wire.Amount: st.integers(1 - 2**53, 2**53 - 1),
    wire.Count: st.integers(0, 2**53 - 1),
}
PLAIN: Mapping[Any, st.SearchStrategy[Any]] = {
    str: NAMES,
    int: st.integers(1, 999),
    float: st.floats(0.001, 1e6),
    bool: st.booleans(),
    NoneType: st.none(),
    Any: NAMES,
}


def values(annotation: Any) -> st.SearchStrategy[Any]:
    """Values that a field of this type may have."""
    if annotation in SPECIAL:
        return SPECIAL[annotation]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        patterns = [pattern for each in arguments[1:] if (pattern := _pattern(each)) is not None]
        return st.from_regex(patterns[0], fullmatch=True) if patterns else values(arguments[0])
    if origin in (Union, UnionType):
        return st.one_of(*map(values, arguments))
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin is tuple:
        return st.lists(values(arguments[0]), min_size=1, max_size=2).map(tuple)
    if origin is dict:
        return st.dictionaries(values(arguments[0]), values(arguments[1]), max_size=2)
    if inspect.isclass(annotation) and issubclass(annotation, StrEnum):
        return st.sampled_from(list(annotation))
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return bodies(annotation)
    return PLAIN[annotation]


def _pattern(metadata: Any) -> str | None:
    held = metadata.metadata if isinstance(metadata, FieldInfo) else [metadata]
    return next((each.pattern for each in held if getattr(each, "pattern", None)), None)


def bodies(model: type[BaseModel]) -> st.SearchStrategy[BaseModel]:
    """Bodies of a model; what only marks them, and is never sent, keeps its default."""
    if issubclass(model, RootModel):
        return st.one_of(bodies(wire.ActiveKey), bodies(wire.DeadKey)).map(model)
    hints = get_type_hints(model, include_extras=True)
    fields = {name: values(hints[name]) for name, field in model.model_fields.items() if not field.exclude}
    return st.fixed_dictionaries(fields).map(model.model_validate)


QUIET = settings(max_examples=examples(2, 20), deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
@QUIET
@given(data=st.data())
def test_what_is_written_is_what_is_read(model: type[BaseModel], data: st.DataObject) -> None:
    """A body goes over the wire and comes back the same; a request also as it is sent, without what is not there."""
    made = data.draw(bodies(model))
    assert model.model_validate_json(made.model_dump_json()) == made
    if issubclass(model, wire.Request):
        assert model.model_validate_json(made.model_dump_json(exclude_none=True)) == made


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
@QUIET
@given(data=st.data())
def test_nothing_is_converted_in_silence(model: type[BaseModel], data: st.DataObject) -> None:
    """A number that comes as a text, a truth that comes as a number, a text that comes as a list: each is an error."""
    sent = json.loads(data.draw(bodies(model)).model_dump_json())
    plain = [name for name, value in sent.items() if isinstance(value, (str, int, float)) and name != "active"]
    if not plain:
        return
    name = data.draw(st.sampled_from(sorted(plain)))
    value = sent[name]
    sent[name] = int(value) if isinstance(value, bool) else [value] if isinstance(value, str) else str(value)
    with pytest.raises(ValidationError) as caught:
        model.model_validate_json(json.dumps(sent))
    assert any(name in fault["loc"] for fault in caught.value.errors())


@pytest.mark.parametrize("text", ["1795274640", 1795274640, 1795274640.5, "2030-01-31", "2030-01-31T12:00:00", True])
def test_a_time_has_an_offset_and_is_no_number(text: object) -> None:
    """Neither seconds nor a time of nowhere is guessed at."""
    with pytest.raises(ValidationError, match="time"):
        wire.RevokedKey.model_validate_json(json.dumps({"success": True, "message": "", "now": text}))


@pytest.mark.parametrize(
    ("text", "wall_us"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2030-01-31T12:00:00.123456Z", 1_896_091_200_123_456),
        ("2030-01-31t14:00:00.123456789+02:00", 1_896_091_200_123_456),
        ("2030-01-31 12:00:00.1z", 1_896_091_200_100_000),
    ],
)
def test_a_time_in_each_spelling_of_the_rfc(text: str, wall_us: int) -> None:
    """Digits beyond the microsecond are dropped, never rounded up."""
    assert wire.read_time(text) == wall_us


def test_an_active_key_keeps_what_this_version_does_not_know() -> None:
    """It may confine the key. What is empty confines nothing, and a name that is unfit for a log is not kept."""
    key = {
        "active": True,
        "id": "6f1e8c1e-0000-4000-8000-000000000001",
        "version": 1,
        "user_id": "6f1e8c1e-0000-4000-8000-000000000002",
        **dict.fromkeys(("service", "functions", "resources", "not_before", "expires_at", "last_used_at", "rotation")),
        "name": "x",
        "permissions": ["read"],
        "networks": [],
        "environment": "live",
        "plan": "pro",
        "created_at": "2030-01-31T12:00:00Z",
        "epoch": 1,
        "revision": 1,
        "now": "2030-01-31T12:00:00Z",
        "hours": ["9-17"],
        "note": "",
        "unknown": ["x"],
        "a\nb": 1,
    }
    read = wire.IntrospectedKey.model_validate_json(json.dumps(key)).root
    assert isinstance(read, wire.ActiveKey)
    assert read.unknown == ("?", "hours", "unknown")

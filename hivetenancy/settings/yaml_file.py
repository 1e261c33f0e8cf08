"""Settings files in YAML; the only file that imports PyYAML."""

from __future__ import annotations

from hivetenancy.errors import ConfigurationError

try:
    import yaml  # type: ignore[import-untyped]  # PyYAML ships no types
except ImportError as error:
    raise ImportError("a settings file in YAML needs its extra: pip install 'hivetenancy[yaml]'") from error


def parse(text: str) -> object:
    """Return what the YAML document *text* says, in plain Python values.

    Only plain YAML is read: a tag that would build an object is an error.

    Raises:
        ConfigurationError: *text* is no YAML, or names a key twice, which PyYAML alone would settle in silence. The
            message holds a line at most, never a piece of the text: PyYAML's own quotes it, and it may be a secret.
    """
    try:
        _refuse_repeated_keys(yaml.compose(text, Loader=yaml.SafeLoader), set())
        return yaml.safe_load(text)
    except ConfigurationError:
        raise
    except yaml.MarkedYAMLError as error:
        fault = f"is no valid YAML{_line(error.problem_mark)}"
    except (yaml.YAMLError, ValueError, RecursionError):  # a date that is none is a ValueError
        fault = "is no valid YAML"
    raise ConfigurationError(fault)  # outside the block: the cause holds the text


def _line(mark: object) -> str:
    line = getattr(mark, "line", None)
    return "" if line is None else f" (line {line + 1})"


def _refuse_repeated_keys(node: object, seen: set[int]) -> None:
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        _refuse_repeats_in(node)
        for pair in node.value:
            for part in pair:
                _refuse_repeated_keys(part, seen)
    elif isinstance(node, yaml.SequenceNode):
        for part in node.value:
            _refuse_repeated_keys(part, seen)


def _refuse_repeats_in(node: yaml.MappingNode) -> None:
    keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode) and keys.count(key.value) > 1:
            raise ConfigurationError(f"names a key twice{_line(key.start_mark)}")

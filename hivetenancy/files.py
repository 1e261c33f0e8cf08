"""Paths of the files that this library keeps."""

from __future__ import annotations

import os
from pathlib import Path

from hivetenancy.errors import ConfigurationError


def checked_path(path: str | os.PathLike[str]) -> Path:
    """Return *path* as an absolute one, without a look at the disk.

    Raises:
        ConfigurationError: It is no path of a file.
    """
    try:
        text = os.fsdecode(path)
    except TypeError:
        text = ""
    if not text or "\0" in text or text.startswith((":memory:", "file:")):
        raise ConfigurationError(f"the state file must be the path of a file, got {path!r}")
    return Path(os.path.abspath(text))

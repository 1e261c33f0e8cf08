"""The README's own two commands, read from the README, so that what it promises and what is run cannot
differ.

``python3 tests/readme.py`` prints them, a line each. It needs nothing but the standard library, for it runs
before anything is installed.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
FIRST: Final = "python3 -m venv .venv"


def commands(text: str) -> list[str]:
    """The lines of the one fenced block that makes a virtual environment and runs the demo and the suite."""
    blocks = re.findall(r"^```[^\n]*\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    matching = [block.strip().splitlines() for block in blocks if block.startswith(FIRST)]
    if len(matching) != 1:
        raise ValueError(f"the README holds {len(matching)} blocks that start with `{FIRST}`, and needs one")
    if len(matching[0]) != 2:
        raise ValueError(f"the README's block of commands has {len(matching[0])} lines, and needs two")
    return matching[0]


if __name__ == "__main__":
    readme = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "README.md"
    print("\n".join(commands(readme.read_text(encoding="utf-8"))))

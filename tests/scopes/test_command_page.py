"""The reference page of commands says what the table says."""

from __future__ import annotations

from hivetenancy.scopes.command_session import SUBSCRIPTIONS
from hivetenancy.scopes.command_table import COMMANDS, COMMANDS_TEXT, FORBIDDEN_TEXT, FRONT, OPTIONS, Shape
from tests.readme import ROOT
from tests.scopes.test_command_table_newer import NEWER

PAGE = ROOT / "docs" / "reference" / "commands.md"
EFFECTS = {"r": "read", "w": "write", "d": "delete", "-": "-"}


def rendered() -> str:
    """The part of the page that lists the commands, from the table."""
    lines: list[str] = []
    for line in COMMANDS_TEXT.strip().splitlines():
        if line.startswith("# "):
            title = line[2:].partition(":")[0]
            lines += [
                f"### {title[:1].upper()}{title[1:]}",
                "",
                "| command | words | effect | names | reply |",
                "|---|---|---|---|---|",
            ]
        elif not line:
            lines.append("")
        else:
            name = next(name for name in sorted(COMMANDS, key=len, reverse=True) if line.startswith(name + " "))
            command = COMMANDS[name]
            places = line.removeprefix(name).partition("->")[0].split()[2:]
            names = " ".join(f"`{place}`" for place in places)
            shape = "" if command.shape is Shape.PLAIN else str(command.shape)
            lines.append(f"| `{name}` | {command.arity} | {EFFECTS[command.effect]} | {names} | {shape} |")
    lines += ["", "### Options", "", "| command | options |", "|---|---|"]
    lines += [f"| `{name}` | `{options}` |" for name, options in OPTIONS.items()]
    lines += ["", "### Refused", "", "| because | commands |", "|---|---|"]
    lines += [f"| {why} | {' '.join(f'`{name}`' for name in names.split())} |" for why, names in FORBIDDEN_TEXT.items()]
    front = " ".join(f"`{name.decode()}`" for name in sorted(FRONT))
    lines.append(f"| it is about the connection: a front answers it itself | {front} |")
    return "\n".join(lines) + "\n"


def test_the_page_says_what_was_checked() -> None:
    """The page counts the lines that rest on a copy of the sources as the tests do, and names each of them."""
    text = PAGE.read_text(encoding="utf-8")
    checked = text.partition("## What the table was checked against\n")[2].partition("## The table\n")[0]
    assert f"that covers every line but {len(NEWER)}." in checked
    assert f"\nThose {len(NEWER)} are compared" in checked
    assert {name for name in NEWER if f"`{name}`" not in checked and name[0] != "V"} == set()


def test_the_page_states_the_cap_of_subscriptions() -> None:
    """The number on the page is the one in the code."""
    assert f"subscribed to {SUBSCRIPTIONS:,} channels and patterns" in PAGE.read_text(encoding="utf-8")


def test_the_page_lists_the_table() -> None:
    """Each command, place, option and refusal stands on the page as in the code, and nothing else does."""
    assert PAGE.read_text(encoding="utf-8").partition("## The table\n\n")[2] == rendered()

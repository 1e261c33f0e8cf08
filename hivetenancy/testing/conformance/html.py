"""Reports as one HTML page that needs nothing but itself.

No script of elsewhere, no font, no picture: the page may be kept as an artefact of a build and opened from a disk. What
stands in it comes from the server under test, so every text is escaped, and the page forbids itself to load anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Final

from .page import SCRIPT, STYLE
from .power import Outcome, PowerReport
from .runner import OUTSIDE, Place, Shown
from .text import call, shown
from .verdicts import COLUMNS, TELLING_SHARE, Cell, Leak, Report, Verdict, also, difference, place, refused, rows

_SAID: Final = {
    Verdict.PASS: ("Isolated", "Each tenant observed just what it would observe alone."),
    Verdict.LEAK: ("Leaking", "A tenant observed something of another. Each leak below can be followed call by call."),
    Verdict.VACUOUS: ("Nothing proven", "No leak was found, but somewhere there was nothing to be seen."),
    Verdict.INCONCLUSIVE: ("Not known", "No leak was found, but some of it could not be told."),
}
_SIGNS: Final = {
    Verdict.PASS: "\u2713",
    Verdict.LEAK: "\u2717",
    Verdict.VACUOUS: "\u25cb",
    Verdict.INCONCLUSIVE: "?",
}
_ORACLES: Final = {
    "equality": "The tenant observes what it would observe alone",
    "canary": "No answer holds another tenant's data, nothing holds a secret",
    "handles": "Another tenant's handle does what one does that was never issued",
    "guard": "The guarded store had nothing to refuse",
    "control": "There was something to be seen",
}


def as_html(report: Report, power: PowerReport | None = None) -> str:
    """Return the page."""
    title = f"Isolation of {escape(report.subject)}: {report.verdict}"
    body = "\n".join(
        [
            '<a class="skip" href="#matrix">To the matrix</a>',
            _head(report),
            "<main>",
            _leaks(report),
            _matrix(report),
            _doubts(report),
            "" if power is None else _power(power),
            "</main>",
            _foot(report),
        ]
    )
    policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n{body}\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def _head(report: Report) -> str:
    word, sentence = _SAID[report.verdict]
    first, last = report.seeds[0], report.seeds[-1]
    figures = [
        (f"{len(report.groups)}", "leaks" if len(report.groups) != 1 else "leak"),
        (f"{report.calls:,}", "calls"),
        (f"{report.programs:,}", "programs"),
        (f"{report.calls_per_second:,}", "calls a second"),
        (f"{report.telling:.0%}", f"of reads told something (at least {TELLING_SHARE:.0%})"),
        (f"{len(report.seeds)}", f"seed ({first})" if first == last else f"seeds ({first}\u2013{last})"),
    ]
    items = "".join(f"<div><dt>{escape(label)}</dt><dd>{escape(value)}</dd></div>" for value, label in figures)
    return (
        f'<header class="top {report.verdict.lower()}"><div class="wrap">'
        '<button type="button" id="theme" aria-label="Switch between light and dark">\u25d0</button>'
        f'<p class="kicker">Isolation of {escape(report.subject)}</p>'
        f'<h1><span aria-hidden="true">{_SIGNS[report.verdict]}</span> {word}</h1><p class="lead">{sentence}</p>'
        f'<dl class="figures">{items}</dl>{_notes(report)}</div></header>'
    )


def _notes(report: Report) -> str:
    notes = [report.stopped] if report.stopped else []
    if report.refused_ids:
        notes.append(refused(report))
    return "".join(f'<p class="note">{escape(note)}</p>' for note in notes)


# --- leaks ------------------------------------------------------------------------------------------------------------


def _leaks(report: Report) -> str:
    if not report.leaks:
        return ""
    cards = "\n".join(_card(number, group) for number, group in enumerate(report.groups, start=1))
    return f'<section aria-labelledby="leaks"><h2 id="leaks">Leaks</h2>\n{cards}\n</section>'


def _card(number: int, group: Sequence[Leak]) -> str:
    """One leak: what is wrong, who the tenants are, and what to do to see it."""
    leak = group[0]
    steps = "\n".join(_step(one, leak, last=one is leak.calls[-1]) for one in leak.calls)
    tenants = " ".join(_tenant(tenant, leak.ids) for tenant in sorted({one.step.tenant for one in leak.calls}))
    about = "" if leak.clique == "nothing" else f" <em>What may confuse in their ids: {escape(leak.clique)}.</em>"
    return (
        f'<article class="leak" id="leak-{number}" aria-labelledby="leak-{number}-title">'
        f'<h3 id="leak-{number}-title"><a href="#leak-{number}">{number}</a> {escape(place(leak))}'
        f' <span class="oracle">{leak.finding.place.oracle}</span></h3>'
        f"<p>{escape(leak.finding.text)}</p>{_also(group)}"
        f'<p class="tenants">Tenants: {tenants}.{about}</p>\n<ol class="steps">\n{steps}\n</ol>\n{_verdict(leak)}'
        f'<p class="seed">Found with seed <code>{escape(leak.program_seed)}</code>, reduced to '
        f"{len(leak.calls)} {'call' if len(leak.calls) == 1 else 'calls'}, and run again.</p></article>"
    )


def _also(group: Sequence[Leak]) -> str:
    others = also(group)
    return f"<p>The same at {escape(others)}.</p>" if others else ""


def _tenant(tenant: int, ids: Sequence[str]) -> str:
    return f'<b class="tenant t{tenant % 4}">{escape(repr(ids[tenant])[1:-1]) or "&nbsp;"}</b>'


def _step(one: Shown, leak: Leak, *, last: bool) -> str:
    surface = f' <span class="surface">{escape(one.step.surface)}</span>'
    mark = ' class="last"' if last else ""
    return (
        f"<li{mark}>{_tenant(one.step.tenant, leak.ids)}{surface} <code>{escape(call(one, leak.ids))}</code>"
        f' <span class="answer"><span aria-label="answers">\u2192</span> '
        f"<code>{escape(shown(one.shared, leak.ids))}</code></span></li>"
    )


def _verdict(leak: Leak) -> str:
    """What came, beside what there should have been."""
    finding = leak.finding
    label = {"handles": "With a handle never issued", "guard": "Expected"}.get(finding.place.oracle, "Alone it is")
    got, want = escape(shown(finding.shared, leak.ids)), escape(shown(finding.alone, leak.ids))
    held = "It held" if finding.place.surface == OUTSIDE else "The tenant got"
    cells = [f'<div class="got"><h4>{held}</h4><code>{got}</code></div>']
    if len(difference(leak)) > 1:
        cells.append(f'<div class="want"><h4>{label}</h4><code>{want}</code></div>')
    return f'<div class="versus">{"".join(cells)}</div>'


# --- the matrix -------------------------------------------------------------------------------------------------------


def _matrix(report: Report) -> str:
    heads = "".join(
        f'<th scope="col"><abbr title="{escape(_ORACLES[column])}">{column}</abbr></th>' for column in COLUMNS
    )
    numbers = {leak.finding.place: number for number, group in enumerate(report.groups, start=1) for leak in group}
    lines = "\n".join(_row(operation, surface, cells, numbers) for (operation, surface), cells in rows(report).items())
    found = {verdict: sum(cell.verdict is verdict for cell in report.cells) for verdict in Verdict}
    buttons = "".join(
        f'<button type="button" class="{verdict.lower()}" data-verdict="{verdict}" aria-pressed="false">'
        f'<span aria-hidden="true">{_SIGNS[verdict]}</span> {verdict.capitalize()} <b>{count}</b></button>'
        for verdict, count in found.items()
    )
    legend = "".join(f"<div><dt>{name}</dt><dd>{text}</dd></div>" for name, text in _ORACLES.items())
    return (
        '<section aria-labelledby="matrix"><h2 id="matrix" tabindex="-1">Every operation, surface and oracle</h2>'
        f'<div class="tools" role="group" aria-label="Filter">{buttons}'
        '<label>Operation <input type="search" id="find" autocomplete="off" spellcheck="false"></label>'
        '<span id="count" role="status"></span></div>'
        '<div class="scroll" tabindex="0" role="region" aria-label="Matrix of verdicts"><table>'
        f'<thead><tr><th scope="col">Operation</th><th scope="col">Surface</th>{heads}</tr></thead>\n'
        f"<tbody>\n{lines}\n</tbody></table></div>\n"
        f'<details><summary>What the oracles ask</summary><dl class="legend">{legend}</dl></details></section>'
    )


def _row(operation: str, surface: str, cells: dict[str, Cell], numbers: Mapping[Place, int]) -> str:
    verdicts = " ".join(dict.fromkeys(cell.verdict.value for cell in cells.values() if cell.verdict))
    outside = ' class="outside"' if surface == OUTSIDE else ""
    inner = "".join(_cell(cells.get(column), numbers) for column in COLUMNS)
    return (
        f'<tr data-verdicts="{verdicts}" data-name="{escape(operation.lower())}"{outside}>'
        f'<th scope="row">{escape(operation)}</th><td class="surface">{escape(surface)}</td>{inner}</tr>'
    )


def _cell(cell: Cell | None, numbers: Mapping[Place, int]) -> str:
    if cell is None or cell.verdict is None:
        return '<td class="none"><span aria-label="does not apply">\u00b7</span></td>'
    sign = f'<span aria-hidden="true">{_SIGNS[cell.verdict]}</span>'
    text = f'{sign}<span class="word">{cell.verdict.lower()}</span>'
    if cell.place in numbers:
        text = f'<a href="#leak-{numbers[cell.place]}">{text}</a>'
    title = f' title="{escape(cell.reason)}"' if cell.reason else ""
    return f'<td class="{cell.verdict.lower()}"{title}>{text}</td>'


def _doubts(report: Report) -> str:
    found: dict[tuple[str, str], dict[str, None]] = {}
    for cell in report.cells:
        if cell.verdict in (Verdict.VACUOUS, Verdict.INCONCLUSIVE):
            found.setdefault((cell.verdict.value, cell.reason), {})[place(cell)] = None
    if not found:
        return ""
    items = "\n".join(
        f'<li><b class="tag {verdict.lower()}">{verdict.lower()}</b> {escape(reason)}'
        f'<span class="places">{escape(", ".join(places))}</span></li>'
        for (verdict, reason), places in found.items()
    )
    return f'<section aria-labelledby="doubts"><h2 id="doubts">Not known</h2><ul class="doubts">{items}</ul></section>'


# --- the power test ---------------------------------------------------------------------------------------------------


def _power(power: PowerReport) -> str:
    used = sum(one.outcome is not Outcome.UNUSED for one in power.faults)
    items = "\n".join(
        f'<li class="{one.outcome.lower()}"><b>{escape(one.fault.name)}</b> {escape(one.fault.about)}'
        f'<span class="tag {one.outcome.lower()}">{one.outcome.lower()}</span></li>'
        for one in power.faults
    )
    unscoped = "".join(
        f"<li><b>{escape(operation)}</b> on {escape(surface)} shows nothing even when names are left as they are.</li>"
        for operation, surface in power.unscoped
    )
    blind = f'<h3>Not scoped at all</h3><ul class="doubts">{unscoped}</ul>' if unscoped else ""
    return (
        '<section aria-labelledby="power"><h2 id="power">Would it have been seen?</h2>'
        f"<p>The same server, under namespace managers that are wrong in one way each: "
        f"<b>{power.found} of {used}</b> faults that it makes use of were found.</p>"
        f'<ul class="faults">{items}</ul>{blind}</section>'
    )


def _foot(report: Report) -> str:
    lines: Iterable[str] = (
        "Claim tested: each tenant observes exactly what it would observe alone on a private server.",
        "A test finds leaks; it cannot prove that there is none.",
        f"{report.calls:,} calls in {report.seconds:.1f} s.",
    )
    return f'<footer><div class="wrap">{"".join(f"<p>{escape(line)}</p>" for line in lines)}</div></footer>'

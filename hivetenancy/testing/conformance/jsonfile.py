"""Reports as JSON. The schema is stable: fields are added, none is changed or taken away within a version.

`SCHEMA` is its name. What a tenant observed is written as `hivetenancy.testing.conformance.text` writes it, in Python's
notation, since answers may hold what JSON cannot.
"""

from __future__ import annotations

import json
from typing import Any, Final

from .power import PowerReport
from .text import call, shown
from .verdicts import Leak, Report

SCHEMA: Final = "hivetenancy.conformance/1"


def as_dict(report: Report, power: PowerReport | None = None) -> dict[str, Any]:
    """Return a report as JSON can hold it."""
    return {
        "schema": SCHEMA,
        "subject": report.subject,
        "verdict": report.verdict.value,
        "seeds": list(report.seeds),
        "programs": report.programs,
        "calls": report.calls,
        "seconds": round(report.seconds, 3),
        "telling_share": round(report.telling, 4),
        "refused_ids": list(report.refused_ids),
        "stopped": report.stopped or None,
        "cells": [
            {**cell.place._asdict(), "verdict": cell.verdict and cell.verdict.value, "reason": cell.reason or None}
            for cell in report.cells
        ],
        "leaks": [_leak(leak) for leak in report.leaks],
        "power": None if power is None else _power(power),
    }


def _leak(leak: Leak) -> dict[str, Any]:
    finding, ids = leak.finding, leak.ids
    return {
        **finding.place._asdict(),
        "text": finding.text,
        "tenants": list(ids),
        "clique": leak.clique,
        "seed": leak.program_seed,
        "got": shown(finding.shared, ids),
        "expected": None if finding.alone is None else shown(finding.alone, ids),
        "steps": [
            {
                "tenant": ids[one.step.tenant],
                "surface": one.step.surface,
                "operation": one.step.operation.name,
                "call": call(one, ids),
                "shared": shown(one.shared, ids),
                "alone": shown(one.alone, ids),
            }
            for one in leak.calls
        ],
    }


def _power(power: PowerReport) -> dict[str, Any]:
    return {
        "verdict": power.verdict.value,
        "seconds": round(power.seconds, 3),
        "faults": [
            {
                "name": one.fault.name,
                "about": one.fault.about,
                "outcome": one.outcome.value,
                "place": None if one.place is None else one.place._asdict(),
                "calls": one.calls,
            }
            for one in power.faults
        ],
        "unscoped": [{"operation": operation, "surface": surface} for operation, surface in power.unscoped],
    }


def as_json(report: Report, power: PowerReport | None = None) -> str:
    """Return a report as the text of a JSON file, ASCII alone."""
    return json.dumps(as_dict(report, power), indent=2) + "\n"

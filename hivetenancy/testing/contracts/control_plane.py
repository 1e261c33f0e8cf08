"""What every control plane must do: HiveHub, a fake, an authority of one's own.

The cases ask in two ways. Those of the four sources need a `ControlPlane` and nothing else, so they run on one in the
same process as well. Those of the wire need a `HiveHub`, whose typed calls they make, and some send bytes that no
client of ours would. Most need an *operator*, who does to the control plane what its administrators do: without one, on
a real hub, only those run that leave nothing behind but a revoked key.

Each case says what it needs (`needs`), and `left_out` why it cannot run::

    CASE = pytest.mark.parametrize("case", runnable(Need.WIRE), ids=str)

    @pytest.mark.anyio
    @CASE
    async def test_our_hub(case):
        await case(OurSubject())

Source: HiveHub wire, parts 2 and 4; the MUST sentences of 4.2 for the order of answers.
"""

from __future__ import annotations

from . import _plane_sources, _plane_wire
from ._plane import CASES, NOBODY, Issued, Need, Operator, RawReply, Subject, left_out, needs, runnable

__all__ = [
    "CASES",
    "NOBODY",
    "Issued",
    "Need",
    "Operator",
    "RawReply",
    "Subject",
    "left_out",
    "needs",
    "runnable",
]

_COLLECTED = (_plane_sources, _plane_wire)  # whose cases stand in `CASES` from here on

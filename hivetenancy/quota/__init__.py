"""How much may they hold or use?"""

from .protocol import (
    CellSnapshot,
    ImmediateQuotaManager,
    ItemLedger,
    NotesFacts,
    QuotaManager,
    Reservation,
    TellsQuotas,
)

__all__ = [
    "CellSnapshot",
    "ImmediateQuotaManager",
    "ItemLedger",
    "NotesFacts",
    "QuotaManager",
    "Reservation",
    "TellsQuotas",
]

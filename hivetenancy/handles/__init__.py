"""What was handed out, and to whom?"""

from .protocol import HandleKind, Handles, HandleStore

__all__ = ["HandleKind", "HandleStore", "Handles"]

"""How fast may they go?"""

from .protocol import (
    PERMIT,
    ImmediateRateLimiter,
    LimitState,
    Permit,
    RateLimiter,
    Subject,
    TellsStates,
)

__all__ = ["PERMIT", "ImmediateRateLimiter", "LimitState", "Permit", "RateLimiter", "Subject", "TellsStates"]

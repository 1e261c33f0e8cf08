"""Who is asking, and what may they do?"""

from .protocol import AccessKeyValidator, Forgets, ImmediateValidator, Principal, Rechecks, StatesBound

__all__ = ["AccessKeyValidator", "Forgets", "ImmediateValidator", "Principal", "Rechecks", "StatesBound"]

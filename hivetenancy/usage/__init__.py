"""What did they really use?"""

from .protocol import Flushes, HasSource, UsageReporter

__all__ = ["Flushes", "HasSource", "UsageReporter"]

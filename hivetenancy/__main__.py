"""``python -m hivetenancy``."""

import sys

from hivetenancy.cli import main

sys.exit(main())

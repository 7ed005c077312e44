"""``python -m sepconv``: the same as the command ``sepconv``."""

from __future__ import annotations

import sys

from sepconv.cli import main

if __name__ == "__main__":
    sys.exit(main())

"""The command ``sepconv``, and ``python -m sepconv``, which is the same."""

from __future__ import annotations

import signal
import sys


def main() -> int:
    """Run the command line; the exit status."""
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:  # until there is something to clean up, Ctrl-C just ends the process
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from sepconv import cli

    signal.signal(signal.SIGINT, handler)
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())

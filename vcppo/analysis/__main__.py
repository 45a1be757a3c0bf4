"""`python -m vcppo.analysis`: every figure and table again, from a results folder."""

import os
import signal
import sys
from types import FrameType

from vcppo.system.processes import INTERRUPTED


def _end(number: int, frame: FrameType | None) -> None:
    print("stopped; files are replaced whole, and the same command draws all of them", file=sys.stderr, flush=True)
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)  # before the libraries load, which takes seconds
    from vcppo.analysis.redraw import main

    sys.exit(main())

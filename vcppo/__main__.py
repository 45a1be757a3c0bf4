"""`python -m vcppo` is `vcppo`; `torchrun -m vcppo` is one of many."""

import os
import signal
import sys
from types import FrameType

from vcppo.system.processes import INTERRUPTED, STOPPED, die_with, is_main, run_as_rank

STARTED_BY_TORCHRUN = "TORCHELASTIC_RUN_ID"


def run() -> None:
    """The command. Ctrl-C while it is being loaded ends it at once: nothing has begun, and half a library is none.

    Processes of torchrun end with it, however it ends: they would train on with nobody to end them, or wait half an
    hour for a store that went with it.
    """
    if STARTED_BY_TORCHRUN in os.environ:
        die_with(os.getppid())
    before = signal.getsignal(signal.SIGINT)
    if before == signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)
    from vcppo.cli.main import main

    signal.signal(signal.SIGINT, before)
    run_as_rank(lambda: main(prog_name="vcppo"))


def _end(number: int, frame: FrameType | None) -> None:
    if is_main():
        print(STOPPED, file=sys.stderr, flush=True)
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    run()

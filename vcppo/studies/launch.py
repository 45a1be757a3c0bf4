"""A cell of a study run by several processes: torchrun starts them, the first one replies for all.

`vcppo sweep --processes N` has its workers run cells with `run_cell` here, instead of by themselves.
"""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vcppo import errors
from vcppo.errors import StudyError, VcppoError
from vcppo.system.files import read_json, write_json
from vcppo.system.processes import PROCESSES, die_with, run_as_rank
from vcppo.system.redaction import redact_output, redacted

RUNNER = "vcppo.studies.launch:run_cell"
REPLY = ".answer.json"  # in the cell's folder, while its processes run


def run_cell(cell: Path, out: Path) -> Mapping[str, float]:
    """Run a cell's settings by as many processes as the environment gives; return what the last stage reported.

    Raises:
        VcppoError: as the first process raised it.
        StudyError: the processes ended without a reply.
    """
    file = cell / REPLY
    file.unlink(missing_ok=True)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", os.environ[PROCESSES]]
    done = subprocess.run([*command, "-m", "vcppo.studies.launch", str(cell), str(out)], stdout=sys.stderr)
    if not file.exists():
        raise StudyError(f"the processes of cell {cell.name} ended with exit code {done.returncode} and without a word")
    reply = read_json(file)
    file.unlink()
    if "error" in reply:
        raise getattr(errors, reply["error"], RuntimeError)(reply["words"])
    result: dict[str, float] = reply["result"]
    return result


def main(cell: Path, out: Path) -> None:
    """One of the processes; it ends with the one that started it."""
    die_with(os.getppid())
    redact_output()
    from vcppo.models.distributed import together
    from vcppo.settings.loading import load_settings
    from vcppo.stages.pipeline import run_cell as run_here
    from vcppo.stages.pipeline import run_stages

    with together() as world:
        if not world.is_main:
            run_stages(load_settings(cell / "settings.json"), out)
            return
        reply: dict[str, Any]
        try:
            reply = {"result": run_here(cell, out)}
        except VcppoError as error:
            write_json(cell / REPLY, {"error": type(error).__name__, "words": redacted(str(error))})
            raise
        write_json(cell / REPLY, reply)


if __name__ == "__main__":
    run_as_rank(lambda: main(Path(sys.argv[1]), Path(sys.argv[2])))

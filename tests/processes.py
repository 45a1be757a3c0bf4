"""Several processes on one machine, as torchrun starts them."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def torchrun(count: int, *arguments: str, cwd: Path | None = None, fails: bool = False) -> str:
    """Run `python -m MODULE ...` or a script as `count` processes; what they printed."""
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        str(count),
        *arguments,
    ]
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "passive",
    }
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd or ROOT, env=environment, timeout=600)
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    return done.stdout + done.stderr

"""`python -m bench.gpu PART ...`, and `nox -s gpu -- PART ...`: what a GPU is needed for, in parts that can be resumed.

    bench    rollout and update: tokens a second, utilisation, peak memory against the plan, a profile; TRL beside it
    study    the component study at responses of 2,000 tokens (ablations/components-long.toml)
    tests    the tests in tests/gpu
    all      all of them, in that order: tests, bench, study

Everything is written as it comes, and nothing is measured twice: a part that was stopped goes on when called again.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from vcppo.system.processes import INTERRUPTED, STOPPED

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("tests", "bench", "study")
TINY_STUDY = {  # the study's own code, over in seconds
    "steps": 2, "micro_batch_tokens": 512, "task.chain_length": 3, "task.digits": 2, "task.stop_hazard": 0.3,
    "task.held_out": 10, "model.hidden_size": 16, "model.intermediate_size": 32, "model.layers": 1, "model.heads": 2,
    "cold_start.steps": 160, "cold_start.batch_tokens": 300, "cold_start.learning_rate": 0.01,
    "cold_start.warmup_steps": 10, "reward_model.steps": 4, "reward_model.responses": 256, "reward_model.pairs": 4,
    "pretrain.pool": 48, "pretrain.held_out": 32, "pretrain.batch": 16, "pretrain.max_steps": 10,
    "evaluation.samples": 2,
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """0 if the parts asked for are complete, 3 if time ran out before, 1 if something failed, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("part", nargs="?", default="all", choices=(*PARTS, "all"))
    parser.add_argument("--tiny", action="store_true", help="the same code at a size for any machine, for a try")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin nothing new after so many")
    parser.add_argument("--to", type=Path, help="folder for results (results/gpu; runs/gpu-tiny with --tiny)")
    parser.add_argument("--out", type=Path, help="folder for the study's runs (runs/gpu; runs/gpu-tiny with --tiny)")
    parser.add_argument("--workers", type=int, default=4, help="cells of the study that run at once on the GPU (4)")
    parser.add_argument("--trl-python", help="Python of an environment with trl 1.12, to compare its update")
    parser.add_argument("--only", default="*", metavar="PATTERN", help="of the benches, for example 'update/*/16384'")
    parser.add_argument("--again", action="store_true", help="measure anew what is known already")
    asked = parser.parse_args(arguments)
    os.chdir(ROOT)
    asked.to = (asked.to or Path("runs/gpu-tiny" if asked.tiny else "results/gpu")).resolve()
    asked.out = (asked.out or Path("runs/gpu-tiny" if asked.tiny else "runs/gpu")).resolve()
    until = time.monotonic() + 60 * asked.minutes
    parts = PARTS if asked.part == "all" else (asked.part,)
    try:
        codes = [{"tests": tests, "bench": bench, "study": study}[part](asked, until) for part in parts]
    except KeyboardInterrupt:
        print(STOPPED, file=sys.stderr)
        return INTERRUPTED
    return 1 if 1 in codes else max(codes)


def tests(asked: argparse.Namespace, until: float) -> int:
    """Run tests/gpu; warnings of other versions of torch are not what is tested here."""
    asked.to.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "VCPPO_GPU_TESTS": "here"} if asked.tiny else dict(os.environ)
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-W", "default", "tests/gpu"]
    done = subprocess.run([*command, f"--junit-xml={asked.to / 'tests.xml'}"], env=environment)
    return int(done.returncode != 0)


def bench(asked: argparse.Namespace, until: float) -> int:
    """Measure what is not known yet, the update first."""
    from bench.gpu import peers, rollout, update
    from bench.gpu.record import Record
    from bench.gpu.sizes import REAL, TINY

    record = Record(asked.to / "bench.jsonl", until=until, again=asked.again, only=asked.only)
    record.describe()
    sizes = TINY if asked.tiny else REAL
    update.run(record, sizes)
    rollout.run(record, sizes)
    if asked.trl_python:
        peers.run(record, sizes, asked.trl_python)
    else:
        print("trl: not compared; --trl-python names the Python of an environment that has it")
    failed = [name for name, entry in record.seen.items() if "error" in entry]
    for name in record.left:
        print(f"{name}: no time left")
    for name in failed:
        print(f"{name}: FAILED, {record.seen[name]['error']}")
    return 1 if failed else 3 if record.left else 0


def study(asked: argparse.Namespace, until: float) -> int:
    """Run what is left of the study; with MLflow at hand and all done, export it."""
    import importlib.util

    from bench.gpu import study as cells
    from vcppo.errors import VcppoError
    from vcppo.settings.loading import Layer, nest
    from vcppo.studies.study import load_study

    chosen = load_study("components-long")
    if asked.tiny:
        chosen = chosen.with_base(Layer("--tiny", nest(TINY_STUDY, "--tiny"))).model_copy(update={"seeds": 1})
    try:
        done = cells.run(chosen, asked.out, workers=asked.workers, until=until, to=asked.to)
    except VcppoError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    if not done:
        return 3
    if importlib.util.find_spec("mlflow") is None:
        print(f"MLflow is not here: unpack {asked.to / chosen.name}.tar.gz where it is, and `vcppo export` the study")
        return 0
    destination = asked.to / chosen.name if asked.tiny else ROOT / "results" / chosen.name
    command = [sys.executable, "-m", "vcppo", "export", chosen.name, "--out", str(asked.out), "--to", str(destination)]
    return int(subprocess.run(command).returncode != 0)


if __name__ == "__main__":
    sys.exit(main())

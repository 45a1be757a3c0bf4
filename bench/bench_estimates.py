"""Minutes, memory and disk that `--dry-run` and `vcppo plan` estimate against what stages took, on a model folder.

    OMP_NUM_THREADS=1 python -m bench.bench_estimates models/smollm2-135m

Minutes after a calibration, in processor time of one thread, since other work on the machine slows wall time, and by no
constant factor. Memory is the process's largest resident size in a stage, disk what that leaves: each is to lie within
15 %.
Sums of three digits, responses of at most 40 tokens, few steps of every stage. Of each stage: tokens as counted, the
estimate from two products of numpy, the estimate with measured speeds, what it took, and the ratio of the last two,
which is to lie between 1/2 and 2. Estimates are of responses at their limit: a policy that stops early takes less.
The policy is taken as it is where `--cold-start` is 0; with `--set critic.init=policy` a model that is never right will
do.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import torch

from vcppo.planning.calibration import calibrate
from vcppo.planning.disk_estimate import estimate_disk
from vcppo.planning.plan import Gpus, make_plan
from vcppo.planning.speed_store import store_speed
from vcppo.planning.time_estimate import estimate_costs, networks_of
from vcppo.rl.costs import peak_memory_mb, reset_peak_memory
from vcppo.settings.loading import Layer, build_settings, nest, parse_assignment
from vcppo.settings.run import RunSettings
from vcppo.stages.pipeline import run_stages
from vcppo.store.cache import addresses
from vcppo.system.provenance import main_memory

AIM = 2.0
SPACE_AIM = 0.15  # of memory and disk
TOKENS = 40
SMALL = (
    "task.name=maths",
    "task.maths.solution_column=solution",
    "task.maths.boxed_only=false",  # a model that has not learnt to box is right now and then, which pairs need
    f"rollout.max_tokens={TOKENS}",
    "cold_start.batch_tokens=1024",
    "reward_model.steps=4",
    "reward_model.responses=128",
    "reward_model.pairs=8",
    "pretrain.steps=4",
    "pretrain.batch=16",
    "pretrain.pool=64",
    "pretrain.held_out=32",
    "rollout.prompts=8",
    "rollout.samples_per_prompt=4",
    "steps=2",
    "evaluation.samples=2",
    "evaluation.every=0",
    "micro_batch_tokens=1024",
)


def problems(path: Path, first: int, count: int) -> Path:
    """Sums of three digits with solutions, as a file."""
    lines = []
    for number in range(first, first + count):
        a, b, c = number // 81 % 9 + 1, number // 9 % 9 + 1, number % 9 + 1
        steps = f"{a} + {b} = {a + b}\\n{a + b} + {c} = {a + b + c}\\n\\\\boxed{{{a + b + c}}}"
        lines.append(f'{{"question": "What is {a} + {b} + {c}?", "answer": "{a + b + c}", "solution": "{steps}"}}\n')
    path.write_text("".join(lines), encoding="utf-8")
    return path


def settings_of(model: Path, folder: Path, cold_start_steps: int, more: list[str]) -> RunSettings:
    """A short run on sums."""
    sets = (problems(folder / "train.jsonl", 0, 600), problems(folder / "test.jsonl", 600, 32))
    named = [f"model.path={model}", f"task.maths.train={sets[0]}", f"task.maths.evaluate={sets[1]}"]
    small = dict(map(parse_assignment, [*SMALL, *named, f"cold_start.steps={cold_start_steps}"]))
    layers = [Layer("bench", nest(small, "bench"), shared=True)]
    return build_settings([*layers, Layer("--set", nest(dict(map(parse_assignment, more)), "--set"))])


def space(name: str, planned: float, took: float) -> str:
    """Say what was planned and taken, in bytes."""
    ratio = planned / took
    verdict = "met" if abs(ratio - 1) <= SPACE_AIM else "MISSED"
    return (
        f"{name}: planned {planned / 2**20:,.1f} MiB, took {took / 2**20:,.1f}, ratio {ratio:.2f}, aim within "
        f"{SPACE_AIM:.0%}: {verdict}"
    )


def main() -> None:
    """Print one line a stage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a folder in transformers' format; `vcppo import-model` makes one")
    parser.add_argument("--cold-start", type=int, default=4, help="updates of the cold start [default: 4]")
    parser.add_argument("--budget", type=float, default=60.0, help="seconds of the calibration [default: 60]")
    parser.add_argument("--set", dest="more", action="append", default=[], metavar="KEY=VALUE", help="one setting")
    chosen = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        settings = settings_of(chosen.model, folder, chosen.cold_start, chosen.more)
        print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors, {torch.get_num_threads()} thread")
        guessed = {cost.stage: cost for cost in estimate_costs(settings, folder / "runs")}
        store_speed(
            networks_of(settings)[0], settings, calibrate(settings, budget_s=chosen.budget, clock=time.process_time)
        )
        measured = {cost.stage: cost for cost in estimate_costs(settings, folder / "runs")}
        plan = make_plan(settings, Gpus(0, main_memory()))
        disks = {disk.stage: disk for disk in estimate_disk(settings)}
        for stage in addresses(settings):
            began = time.process_time()
            reset_peak_memory()
            use = run_stages(settings, folder / "runs", until=stage)[stage]
            took = time.process_time() - began
            if stage == "cold-start" and not chosen.cold_start:
                continue
            cost, estimate = measured[stage], 60 * measured[stage].minutes
            ratio = estimate / took
            print(
                f"{stage:18} {cost.generated_tokens:7,} written, {cost.trained_tokens:8,} trained: from products "
                f"{60 * guessed[stage].minutes:7.1f} s, calibrated {estimate:7.1f} s, took {took:7.1f} s, ratio "
                f"{ratio:.2f}, aim within {AIM:g}: {'met' if 1 / AIM <= ratio <= AIM else 'MISSED'}",
                flush=True,
            )
            planned = max(phase.needs for phase in plan.phases if phase.stage == stage)
            print(f"{'':18} {space('memory', planned, 2**20 * peak_memory_mb())}")
            left = sum(file.stat().st_size for file in use.folder.path.rglob("*") if file.is_file())
            print(f"{'':18} {space('disk', disks[stage].stays, left)}", flush=True)
        print(f"load average {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()

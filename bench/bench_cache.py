"""A study of value-pretraining steps, 6 cells, with the stage cache against without.

    OMP_NUM_THREADS=1 python -m bench.bench_cache

With: the cells share one output folder, so cold start, reward model, responses and value pretraining are paid once.
Without: every cell has a folder of its own and pays for all of it. The cells run one after another in one process,
one thread; with and without alternate cell by cell, so a busy machine slows both.

The default settings take an hour, so the tokens of a run are divided by SCALE, stage by stage alike: fewer updates
of cold start, reward model and RL, fewer responses, fewer held-out problems. Network and tokens an update are the real
ones. A cold start so short learns only a smaller task (chains of 7 lines of 2 digits), so responses are SHORTER times
shorter, and SHORTER times as many are sampled and trained on at once. The proportions of the stages decide the ratio:
they are printed.
"""

import os
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import torch

from vcppo.settings.loading import Layer, build_settings, nest
from vcppo.settings.run import RunSettings
from vcppo.settings.task import DigitsTaskSettings
from vcppo.stages.pipeline import run_stages
from vcppo.system.files import read_json

SCALE, SHORTER = 16, 4
STEPS = (0, 1, 2, 3, 4, 5)  # 5 = the 80 updates of the study divided by SCALE; each count has to differ
AIM = 0.35
REAL = RunSettings()
SCALED = {
    "task.digits": 2,
    "task.chain_length": 7,
    "task.held_out": DigitsTaskSettings().held_out * SHORTER // SCALE,
    "cold_start.steps": REAL.cold_start.steps // SCALE,
    "cold_start.warmup_steps": 2,
    "reward_model.steps": REAL.reward_model.steps // SCALE,
    "reward_model.pairs": REAL.reward_model.pairs * SHORTER,
    "reward_model.responses": REAL.reward_model.responses * SHORTER // SCALE,
    "pretrain.batch": REAL.pretrain.batch * SHORTER,
    "pretrain.pool": REAL.pretrain.pool * SHORTER // SCALE,
    "pretrain.held_out": REAL.pretrain.held_out * SHORTER // SCALE,
    "pretrain.evaluate_every": 1,
    "rollout.prompts": REAL.rollout.prompts * SHORTER,
    "steps": round(REAL.steps / SCALE),
    "evaluation.every": 1,
}
SHARED = ("cold-start", "reward-model", "answers", "value-pretraining")


def run_cell(steps: int, out: Path) -> tuple[float, dict[str, float]]:
    """Wall seconds of one cell, and those of the stages that it ran."""
    settings = build_settings([Layer("bench", nest({**SCALED, "pretrain.steps": steps}, "bench"), shared=True)])
    began = time.perf_counter()
    uses = run_stages(settings, out)
    spent = time.perf_counter() - began
    ran = {name: read_json(use.folder.path / "done.json")["wall_s"] for name, use in uses.items() if use.ran}
    return spent, ran


def main() -> None:
    """Print the proportions of the stages, and the ratio."""
    torch.set_num_threads(1)
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors; {len(STEPS)} cells, 1/{SCALE} scale")
    cached = alone = 0.0
    stages: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        run_cell(1, Path(folder) / "warm-up")
        for steps in STEPS:
            cached += run_cell(steps, Path(folder) / "shared")[0]
            spent, ran = run_cell(steps, Path(folder) / f"alone-{steps}")
            alone += spent
            for name, seconds in ran.items():
                stages[name].append(seconds)
    means = {name: sum(seconds) / len(seconds) for name, seconds in stages.items()}
    everything = sum(means.values())
    for name, seconds in means.items():
        what = "shared" if name in SHARED else "each cell's own"
        print(f"{name}: {seconds:.2f} s = {seconds / everything:.0%} of a cell without the cache, {what}")
    own = sum(seconds for name, seconds in means.items() if name not in SHARED)
    least = (everything + (len(STEPS) - 1) * own) / (len(STEPS) * everything)
    print(f"floor: the shared stages once and the others {len(STEPS)} times, by the means above: ratio {least:.2f}")
    ratio = cached / alone
    print(f"with the cache {cached:.1f} s, without {alone:.1f} s: ratio {ratio:.2f}, aim under {AIM}: ", end="")
    print("met" if ratio < AIM else "MISSED")
    print(f"load average {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()

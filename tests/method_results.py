"""Results folders of made-up studies of methods."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

PROVENANCE = {"run_id": "r", "commit": "0123456789abcdef", "settings_hash": "h", "n": 1, "origin": "measured"}
STEPS, K = 4, 4


def write_study(
    root: Path,
    name: str,
    arms: Sequence[str],
    *,
    seeds: int = 2,
    lost: Mapping[tuple[str, int], str] | None = None,
    costly: Mapping[str, float] | None = None,
) -> Path:
    """An export with costs, times and truth: accuracy rises with the step and an arm's place, less so for `ppo`."""
    rng = np.random.default_rng(5)
    rows: dict[str, list[dict[str, Any]]] = {kind: [] for kind in ("runs", "curves", "problems", "truth")}
    for place, (arm, seed) in enumerate(itertools.product(arms, range(seeds))):
        key = {"study": name, "arm": arm, "seed": seed} | PROVENANCE
        status = (lost or {}).get((arm, seed), "done")
        scale = (costly or {}).get(arm, 1.0) * (1 + 0.01 * seed)
        times = {"generate_s": 1.0, "score_s": 0.5, "update_s": 2.0, "iteration_s": 4.0}
        for step in range(STEPS):
            done = step + 1
            curves = {
                "cost/answers": 96 * done, "cost/generated_tokens": 1000 * done * scale,
                "cost/forward_tokens": 500 * done * scale, "cost/backward_tokens": 2000 * done * scale,
                "cost/compute_tokens": 7500 * done * scale, "cost/elapsed_s": 4.0 * done * scale,
                "cost/peak_memory_mb": 800 + step, "rollout/accuracy": 0.5, "rollout/length_tokens": 40,
                **{f"time/{part}": seconds * scale for part, seconds in times.items()},
            }  # fmt: skip
            rows["curves"] += [key | {"step": step, "metric": one, "value": value} for one, value in curves.items()]
        right = rng.binomial(K, 0.0 if arm == "ppo" else 0.9, 5)
        evaluated = {0: 0.1, 2: 0.85 - 0.01 * place, STEPS: right.mean() / K}
        for step, value in evaluated.items():
            metric = f"eval/digits/avg_at_{K if step == STEPS else 1}"
            rows["curves"].append(key | {"step": step, "metric": metric, "value": value})
        rows["problems"] += [key | {"problem": f"p{i}", "samples": K, "correct": c, "unreadable": 0,
                                    "length_tokens": 40} for i, c in enumerate(right)]  # fmt: skip
        scores: dict[str, Any] = {
            "avg_at_k": right.mean() / K, "pass_at_k": 1.0, "k": K, "problems": 5, "final_length_tokens": 40,
            "start_length_tokens": 40, "min_length_fraction": 1.0, "min_accuracy": 0.1, "final_accuracy": 0.5,
            "pretrain_steps_done": 0, "answers": 96 * STEPS, "peak_memory_mb": 803,
        }  # fmt: skip
        scores = scores if status == "done" else dict.fromkeys(scores, "")
        rows["runs"].append(key | {"cell": f"{arm}-s{seed}", "status": status, "error": "", "wall_s": 1} | scores)
        for step, response, part in itertools.product((0, 2), range(4), range(3)):
            worth = rng.uniform(-0.9, 0.9)
            rows["truth"].append(key | {"step": step, "answer": response, "position": 10 * part, "fraction": part / 3,
                                        "truth": worth, "estimate": worth + rng.normal(0, 0.3)})  # fmt: skip
    folder = root / name
    folder.mkdir(parents=True)
    for kind, table in rows.items():
        pd.DataFrame(table).to_csv(folder / f"{kind}.csv", index=False)
    return folder


METHODS = ["ppo", "vcppo", "dpo", "grpo", "rloo", "mine"]
CPPO = ["grpo", "cppo-0.5", "cppo-0.5-refill", "cppo-0.875"]
VINE = ["ppo", "vcppo", "dvpo", "vine-k1", "vine-k3", "vine-k9"]
VAPO = ["ppo", "vapo", "vapo-no-pretrain", "vapo-no-group"]

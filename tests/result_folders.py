"""Results folders of made-up studies, and frames written as they read."""

import io
import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vcppo.analysis.data import Study

PROVENANCE = {"run_id": "r", "commit": "0123456789abcdef", "settings_hash": "h", "n": 1, "origin": "measured"}


def write_study(
    root: Path,
    name: str,
    arms: Sequence[str],
    *,
    seeds: int = 3,
    steps: int = 12,
    tokens: int = 100,
    problems: int = 12,
    k: int = 4,
    lost: Mapping[tuple[str, int], str] | None = None,
    swept: Mapping[str, Mapping[str, float]] | None = None,
) -> Path:
    """A plausible export: `ppo` and arms without pretraining dip, the others rise. Returns the study's folder."""
    rng = np.random.default_rng(7)
    lost = lost or {}
    runs, curves, positions, calibration, problem_rows = [], [], [], [], []
    for arm in arms:
        dips = arm in ("ppo", "ppo-mc", "vcppo-no-pretrain") or arm == "pretrain.steps=0"
        for seed in range(seeds):
            status = lost.get((arm, seed), "done")
            key = {"study": name, "arm": arm, "seed": seed} | PROVENANCE
            t = np.arange(steps + 1)
            late = steps * rng.uniform(0.45, 0.7)
            rise = 1 / (1 + np.exp(-(t - late) / (steps / 12)))
            fall = np.exp(-((t - steps / 4) ** 2) / (2 * (steps / 7) ** 2))
            accuracy = 0.08 + 0.85 * rise if dips else 0.08 + 0.85 * (1 - np.exp(-t / (steps / 6)))
            accuracy = np.clip(accuracy * (1 - fall * 0.99 * dips) + rng.normal(0, 0.02, len(t)), 0, 1)
            length = tokens * (
                (1 + 1.5 * rise) * (1 - 0.93 * fall) if dips else 1 + 1.5 * (1 - np.exp(-t / (steps / 6)))
            )
            length = length * rng.normal(1, 0.03, len(t))
            lam = float(
                (swept or {}).get(arm, {}).get("gae.lambda_actor", 1.0 if arm.endswith(("mc", "1.0")) else 0.95)
            )
            share = [1.0 if lam == 1 else (1 - lam**x) / (1 - lam) / x for x in length]
            series = {"rollout/accuracy": accuracy, "rollout/length_tokens": length}
            series |= {"advantage/real_reward_share": share} if arm != "grpo" else {}
            for metric, values in series.items():
                curves += [key | {"step": int(s), "metric": metric, "value": v} for s, v in zip(t, values, strict=True)]
            pretrained = not dips and arm != "grpo"
            for step in range(0, 101 if pretrained else 1, 10):
                loss = 0.25 + 1.6 * np.exp(-step / 15) + rng.normal(0, 0.01)
                for metric, v in (("held_out_loss", loss), ("explained_variance", 1 - loss * 1.6)):
                    curves.append(key | {"step": step, "metric": f"pretrain/{metric}", "value": v})
            places = np.arange(0, int(2.5 * tokens), max(1, tokens // 20))
            tables = [("value-pretraining", s) for s in ((0, 100) if pretrained else (0,))]
            tables += [("rl", s) for s in range(0, steps + 1, max(1, steps // 12))] if arm != "grpo" else []
            for stage, step in tables:
                wrong = (
                    1.0 if stage == "value-pretraining" and step == 0 else 0.1 if pretrained else np.exp(-step / steps)
                )
                truth = 2 * accuracy[step if stage == "rl" else 0] - 1 + 0.2 * places / places.max()
                bias = wrong * (-1.2 * np.exp(-places / (0.3 * tokens)) + 1.1 * places / places.max())
                bias = bias + rng.normal(0, 0.03, len(places))
                count = np.maximum(0, (400 * np.exp(-places / (1.5 * tokens)))).astype(int)
                for i, place in enumerate(places):
                    positions.append(key | {
                        "stage": stage, "step": step, "position": place, "from_end": False, "n": count[i],
                        "value_mean": truth[i] + bias[i], "return_mean": truth[i], "value_bias": bias[i],
                        "explained_variance": 0.7 - 2 * wrong * abs(bias[i]), "advantage_mean": -bias[i],
                    })  # fmt: skip
                edges = np.linspace(-1.5 - wrong * rng.uniform(0.5, 1), 1 + wrong, 11)
                for low, high in itertools.pairwise(edges):
                    middle = (low + high) / 2
                    came = float(np.clip(middle * (1 - wrong) - 0.6 * wrong + rng.normal(0, 0.05), -1, 1))
                    calibration.append(key | {
                        "stage": stage, "step": step, "bin_low": low, "bin_high": high, "predicted_mean": middle,
                        "return_mean": came, "n": int(1000 * np.exp(-abs(middle + 0.5))),
                    })  # fmt: skip
            final = accuracy[-3:].mean()
            right = rng.binomial(k, final, problems)
            for problem in range(problems):
                problem_rows.append(key | {"problem": f"p{problem}", "samples": k, "correct": right[problem],
                                       "unreadable": 0, "length_tokens": length[-1]})  # fmt: skip
            scores: dict[str, Any] = {
                "avg_at_k": right.mean() / k, "pass_at_k": (right > 0).mean(), "k": k, "problems": problems,
                "final_length_tokens": length[-1], "start_length_tokens": length[0],
                "min_length_fraction": (length / length[0]).min(), "min_accuracy": accuracy.min(),
                "final_accuracy": final, "pretrain_steps_done": 100 if pretrained else 0,
            }  # fmt: skip
            if status != "done":
                scores = dict.fromkeys(scores, "")
            runs.append(key | {"cell": f"{arm}-s{seed}", "status": status, "error": "NaN loss" * (status != "done"),
                               "wall_s": 60, "steps": steps} | dict((swept or {}).get(arm, {})) | scores)  # fmt: skip
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    tables_of = {
        "runs": runs,
        "curves": curves,
        "positions": positions,
        "calibration": calibration,
        "problems": problem_rows,
    }
    for kind, rows in tables_of.items():
        pd.DataFrame(rows).to_csv(folder / f"{kind}.csv", index=False)
    return folder


def write_all_studies(root: Path, grid_values: Sequence[float] = (0.95, 1.0), **keywords: Any) -> Path:
    """All four studies that have a figure or table of their own."""
    arms = ["ppo", "ppo-mc", "vcppo", "vcppo-no-pretrain", "vcppo-no-decouple-0.95", "vcppo-no-decouple-1.0", "grpo"]
    write_study(root, "components", arms, lost={("ppo-mc", 1): "failed"}, **keywords)
    steps = {f"pretrain.steps={n}": {"pretrain.steps": n} for n in (0, 10, 50)}
    write_study(root, "pretrain-steps", list(steps), swept=steps, **keywords)
    actor = {f"gae.lambda_actor={x}": {"gae.lambda_actor": x} for x in (0.9, 0.95, 1.0)}
    write_study(root, "lambda-actor", list(actor), swept=actor, **keywords)
    grid = {
        f"gae.lambda_actor={a},gae.lambda_critic={c}": {"gae.lambda_actor": a, "gae.lambda_critic": c}
        for a in grid_values
        for c in grid_values
    }
    first = next(iter(grid))
    write_study(root, "lambda-grid", list(grid), swept=grid, lost={(first, 0): "failed"}, **keywords)
    return root


def frame(text: str) -> pd.DataFrame:
    """A frame written as it reads: a header line, then rows, blanks between cells."""
    return pd.read_csv(io.StringIO(text), sep=r"\s+")


def study_of(runs: str, problems: str = "arm seed problem samples correct", **frames: str) -> Study:
    """A study from its frames as text; `runs` needs arm, seed, status and avg_at_k."""
    made = frame(runs)
    for column in ("pass_at_k", "min_length_fraction", "min_accuracy"):
        made[column] = made.get(column, math.nan)
    made = made.assign(k=made.get("k", 4), problems=made.get("problems", 2), commit="abc")
    curves, positions, calibration = (
        frame(frames.get(kind, "arm seed")) for kind in ("curves", "positions", "calibration")
    )
    return Study("components", made, curves, positions, calibration, frame(problems))

"""verl's metrics by our names, as figures and tables need them; the rest keep theirs below `verl/`."""

import math
import re
from collections.abc import Mapping
from typing import Any

RENAMED = {  # measured alike; actor/ppo_kl is not, for verl's is the mean of -log ratio
    "response_length/mean": "rollout/length_tokens",
    "critic/score/mean": "rollout/reward_mean",
    "actor/pg_loss": "policy/loss",
    "actor/pg_clipfrac": "policy/clip_fraction",
    "actor/pg_clipfrac_lower": "policy/dual_clip_fraction",
    "actor/entropy": "policy/entropy",
    "actor/grad_norm": "policy/grad_norm",
    "actor/lr": "policy/learning_rate",
    "critic/vf_loss": "value/loss",
    "critic/vf_clipfrac": "value/clip_fraction",
    "critic/grad_norm": "value/grad_norm",
    "critic/lr": "value/learning_rate",
    "timing_s/gen": "time/generate_s",
    "timing_s/step": "time/iteration_s",
}
OURS = (  # logged by our trainer under our names
    "value/",
    "advantage/",
    "rollout/",
    "pretrain/",
    "alignment/",
    "early_warning/",
)
IN_PRETRAINING = {"value/loss": "pretrain/loss", "value/grad_norm": "pretrain/grad_norm"}
_MEAN_OF_SAMPLES = re.compile(r"val-(?:core|aux)/(?P<source>.+)/(?:acc|reward)/mean@(?P<n>\d+)")


def translated(step: int, data: Mapping[str, Any], *, pretraining: bool) -> list[tuple[int, dict[str, float]]]:
    """Translate what verl logged at its step to our records: (step, values by name), training before evaluation.

    verl counts steps from 1; what it logs at step k was sampled by the policy after k - 1 updates, which we call
    iteration k - 1. Its evaluation at step k is of the policy after k updates, and so is ours at k. Of an evaluation
    the accuracy counts where the reward function reports one, else the reward. `best@N` is not pass@N, for verl
    draws it with replacement: it stays below `verl/`.
    """
    training: dict[str, float] = {}
    evaluation: dict[str, float] = {}
    for name, value in data.items():
        if not isinstance(value, int | float) and value is not None:
            continue
        number = math.nan if value is None else float(value)
        mean = _MEAN_OF_SAMPLES.fullmatch(name)
        if mean is not None:
            key = f"eval/{_safe(mean['source'])}/avg_at_{mean['n']}"
            if "/acc/" in name or key not in evaluation:
                evaluation[key] = number
        elif name.startswith("val-"):
            evaluation[f"verl/{_safe(name)}"] = number
        else:
            ours = RENAMED.get(name, name if name.startswith(OURS) else f"verl/{_safe(name)}")
            training[IN_PRETRAINING.get(ours, ours) if pretraining else ours] = number
    records = [(step - 1, training)] if training and step > 0 else []
    return records + ([(step, evaluation)] if evaluation else [])


def step_in_verl(record: Mapping[str, Any]) -> int:
    """Return verl's step for a record of ours."""
    evaluation = record["kind"] == "metrics" and any(
        name.startswith(("eval/", "verl/val-")) for name in record["values"]
    )
    return int(record["step"]) + (0 if evaluation else 1)


def _safe(name: str) -> str:
    """Replace what MLflow does not take: it has letters, digits and _ - . space : / in a metric's name."""
    return re.sub(r"[^\w\-. :/]", "_", name.replace("@", "_at_"))

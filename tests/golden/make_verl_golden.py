"""Ask verl 0.9.1 for advantages and losses of small random batches, and write them down as verl_0.9.1.json.

    pip install -r tests/golden/requirements-verl.txt && pip install --no-deps verl==0.9.1
    python tests/golden/make_verl_golden.py

The same file comes out every time. Inputs are sixteenths, exact in float32; verl computes in float64; outputs keep ten
digits. Padding, which is 0 here, is not stored: a [B, T] tensor is the list of its True cells, row after row.
"""

import itertools
import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from torch import Tensor
from verl.trainer.ppo import core_algos

COMMAND = "python tests/golden/make_verl_golden.py"
LENGTHS = [[2], [1, 1, 1], [1, 5, 3], [17, 1, 9, 16], [40, 33, 32, 31, 2], [130, 65]]
AGGREGATIONS = ["token-mean", "seq-mean-token-mean", "seq-mean-token-sum-norm"]


def drawn(rng: np.random.Generator, lengths: list[int], spread: float) -> Tensor:
    """Normal noise in sixteenths, 0 in the padding."""
    cells = torch.zeros(len(lengths), max(lengths), dtype=torch.float64)
    for row, length in enumerate(lengths):
        cells[row, :length] = torch.from_numpy(np.round(rng.normal(0, spread, length) * 16) / 16)
    return cells


def mask_of(lengths: list[int]) -> Tensor:
    return (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()


def cells(x: Tensor, mask: Tensor) -> list[float]:
    return [short(value) for value in x[mask.bool()].tolist()]


def short(value: float) -> float:
    return float(f"{value:.10g}") + 0.0  # + 0.0 turns -0.0 into 0.0


def gae_cases(rng: np.random.Generator) -> list[dict[str, Any]]:
    cases = []
    for lengths in LENGTHS:
        mask, rewards, values = mask_of(lengths), drawn(rng, lengths, 0.25), drawn(rng, lengths, 0.5)
        each = [round(float(x), 3) for x in rng.uniform(0.5, 1.0, len(lengths))]
        outputs = []
        for gamma, lam in [*itertools.product([1.0, 0.9], [0.0, 0.5, 0.95, 1.0]), (1.0, each)]:
            lam_tensor = torch.tensor(lam, dtype=torch.float64)
            whitened, returns = core_algos.compute_gae_advantage_return(rewards, values, mask, gamma, lam_tensor)
            computed = {"advantages": cells(returns - values, mask), "whitened": cells(whitened, mask)}
            outputs.append({"gamma": gamma, "gae_lambda": lam, **computed})
        inputs = {"rewards": cells(rewards, mask), "values": cells(values, mask)}
        cases.append({"lengths": lengths, **inputs, "outputs": outputs})
    return cases


def group_cases(rng: np.random.Generator) -> list[dict[str, Any]]:
    """Groups of two and more; verl gives a group of one its raw score, which vcppo does not."""
    lengths, group = [3, 1, 4, 2, 5, 1, 2], [5, 9, 5, 9, 5, 0, 0]
    mask, scores = mask_of(lengths), torch.from_numpy(np.round(rng.normal(0, 1, 7) * 16) / 16)
    outputs = []
    for scale in (True, False):
        rewards = torch.zeros(mask.shape, dtype=torch.float64)
        rewards[:, 0] = scores
        found, _ = core_algos.compute_grpo_outcome_advantage(
            rewards, mask, np.array(group), epsilon=1e-6, norm_adv_by_std_in_grpo=scale
        )
        outputs.append({"scale": scale, "advantages": cells(found, mask)})
    return [{"lengths": lengths, "group": group, "scores": scores.tolist(), "outputs": outputs}]


def batch_info(mask: Tensor, fixed_length: int) -> dict[str, Any]:
    return {
        "dp_size": 1,
        "batch_num_tokens": int(mask.sum()),
        "global_batch_size": len(mask),
        "loss_scale_factor": fixed_length,
    }


def policy_cases(rng: np.random.Generator) -> list[dict[str, Any]]:
    """`no dual clip` is a bound that no loss reaches: verl cannot leave it out."""
    cases = []
    for lengths in ([7, 1, 12, 4], [3], [1, 1]):
        mask, advantages = mask_of(lengths), drawn(rng, lengths, 1.0)
        old, new = (drawn(rng, lengths, 0.7) for _ in range(2))
        outputs = []
        clips = [(0.2, 0.2, None), (0.2, 0.28, None), (0.2, 0.28, 3.0), (0.1, 0.4, 1.25)]
        for (low, high, dual), mode in itertools.product(clips, AGGREGATIONS):
            settings = {"clip_ratio": 0.2, "clip_ratio_low": low, "clip_ratio_high": high, "clip_ratio_c": dual or 1e9}
            config = OmegaConf.create({**settings, "global_batch_info": batch_info(mask, 16)})
            logprobs = new.clone().requires_grad_()
            loss, metrics = core_algos.compute_policy_loss_vanilla(old, logprobs, advantages, mask, mode, config)
            (gradient,) = torch.autograd.grad(loss, logprobs)
            computed = {"loss": short(loss.item()), "gradient": cells(gradient, mask)}
            fractions = {"clip_fraction": "actor/pg_clipfrac", "dual_clip_fraction": "actor/pg_clipfrac_lower"}
            told = {name: short(metrics[theirs]) for name, theirs in fractions.items()}
            clip = {"clip_low": low, "clip_high": high, "dual_clip": dual}
            outputs.append({"aggregation": mode, **clip, **computed, **told})
        inputs = {"logprobs": new, "old_logprobs": old, "advantages": advantages}
        stored = {name: cells(x, mask) for name, x in inputs.items()}
        cases.append({"lengths": lengths, "fixed_length": 16, **stored, "outputs": outputs})
    return cases


def value_cases(rng: np.random.Generator) -> list[dict[str, Any]]:
    """Clip ranges that are no sixteenths: on a tie either of two gradients is right."""
    cases = []
    for lengths in ([7, 1, 12, 4], [3], [1, 1]):
        mask = mask_of(lengths)
        new, old, returns = (drawn(rng, lengths, 0.7) for _ in range(3))
        outputs = []
        for clip_range, mode in itertools.product([0.3, 0.7, 1e9], AGGREGATIONS):
            new_values = new.clone().requires_grad_()
            loss, fraction = core_algos.compute_value_loss(
                new_values, returns, old, mask, clip_range, mode, **batch_info(mask, 16)
            )
            (gradient,) = torch.autograd.grad(loss, new_values)
            computed = {
                "loss": short(loss.item()),
                "gradient": cells(gradient, mask),
                "clip_fraction": short(fraction.item()),
            }
            outputs.append({"aggregation": mode, "clip_range": clip_range, **computed})
        inputs = {"new_values": new, "values": old, "returns": returns}
        stored = {name: cells(x, mask) for name, x in inputs.items()}
        cases.append({"lengths": lengths, "fixed_length": 16, **stored, "outputs": outputs})
    return cases


def kl_case(rng: np.random.Generator) -> dict[str, Any]:
    """Log-ratios up to 2.5 or so; from k3 = 10 on verl cuts, vcppo does not."""
    mask, logprobs, reference = mask_of([40]), drawn(rng, [40], 0.7), drawn(rng, [40], 0.7)
    inputs = {"logprobs": cells(logprobs, mask), "ref_logprobs": cells(reference, mask)}
    return inputs | {k: cells(core_algos.kl_penalty(logprobs, reference, k), mask) for k in ("k1", "k2", "k3")}


def method_cases(rng: np.random.Generator, function: Any, clips: list[tuple[float, float]]) -> list[dict[str, Any]]:
    """GSPO's token form and CISPO, each token with an advantage of its own; verl turns CISPO's low side off by 10."""
    cases = []
    for lengths in ([7, 1, 12, 4], [3], [1, 1]):
        mask, advantages = mask_of(lengths), drawn(rng, lengths, 1.0)
        old, new = (drawn(rng, lengths, 0.5) for _ in range(2))
        outputs = []
        for (low, high), mode in itertools.product(clips, AGGREGATIONS):
            config = core_algos.ActorConfig(
                strategy="fsdp",
                rollout_n=1,
                ppo_micro_batch_size_per_gpu=1,
                clip_ratio_low=10.0 if low == 1.0 else low,
                clip_ratio_high=high,
                global_batch_info=batch_info(mask, 16),
            )
            logprobs = new.clone().requires_grad_()
            loss, metrics = function(old, logprobs, advantages, mask, mode, config)
            (gradient,) = torch.autograd.grad(loss, logprobs)
            computed = {"loss": short(loss.item()), "gradient": cells(gradient, mask)}
            fraction = short(metrics["actor/pg_clipfrac"])
            outputs.append(
                {"aggregation": mode, "clip_low": low, "clip_high": high, **computed, "clip_fraction": fraction}
            )
        inputs = {"logprobs": new, "old_logprobs": old, "advantages": advantages}
        stored = {name: cells(x, mask) for name, x in inputs.items()}
        cases.append({"lengths": lengths, "fixed_length": 16, **stored, "outputs": outputs})
    return cases


def outcome_cases(rng: np.random.Generator) -> list[dict[str, Any]]:
    """RLOO and REINFORCE++-baseline of groups of two and more; a group of one keeps its raw score in verl."""
    cases = []
    for lengths, group in (
        ([3, 1, 4, 2, 5, 1, 2], [5, 9, 5, 9, 5, 0, 0]),
        ([1, 2], [3, 3]),
        ([6, 1, 1, 33], [1, 1, 1, 1]),
    ):
        mask = mask_of(lengths)
        scores = torch.from_numpy(np.round(rng.normal(0, 1, len(lengths)) * 16) / 16)
        rewards = torch.zeros(mask.shape, dtype=torch.float64)
        rewards[:, 0] = scores
        rloo, _ = core_algos.compute_rloo_outcome_advantage(rewards, mask, np.array(group))
        whitened, _ = core_algos.compute_reinforce_plus_plus_baseline_outcome_advantage(rewards, mask, np.array(group))
        computed = {"rloo": cells(rloo, mask), "reinforce++-baseline": cells(whitened, mask)}
        cases.append({"lengths": lengths, "group": group, "scores": scores.tolist(), **computed})
    return cases


def reinforce_plus_plus_cases(rng: np.random.Generator) -> list[dict[str, Any]]:
    cases = []
    for lengths in LENGTHS:
        mask, rewards = mask_of(lengths), drawn(rng, lengths, 0.25)
        outputs = []
        for gamma in (1.0, 0.9):
            found, returns = core_algos.compute_reinforce_plus_plus_outcome_advantage(
                rewards, mask, OmegaConf.create({"gamma": gamma})
            )
            outputs.append({"gamma": gamma, "returns": cells(returns, mask), "advantages": cells(found, mask)})
        cases.append({"lengths": lengths, "rewards": cells(rewards, mask), "outputs": outputs})
    return cases


def main() -> None:
    torch.set_num_threads(1)
    rng = np.random.default_rng(20250303)
    golden = {
        "command": COMMAND,
        "versions": {"python": platform.python_version()}
        | {name: version(name).partition("+")[0] for name in ("verl", "torch", "tensordict", "transformers", "numpy")},
        "gae": gae_cases(rng),
        "group": group_cases(rng),
        "policy": policy_cases(rng),
        "value": value_cases(rng),
        "kl": kl_case(rng),
        "gspo": method_cases(rng, core_algos.compute_policy_loss_gspo, [(0.2, 0.28), (3e-4, 4e-4), (1.0, 0.1)]),
        "cispo": method_cases(rng, core_algos.compute_policy_loss_cispo, [(0.2, 0.28), (0.3, 0.1), (1.0, 0.28)]),
        "outcome": outcome_cases(rng),
        "reinforce++": reinforce_plus_plus_cases(rng),
    }
    path = Path(__file__).with_name("verl_0.9.1.json")
    path.write_text(
        json.dumps(golden, separators=(",", ":")).replace('{"lengths"', '\n{"lengths"') + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    main()

"""Ask TRL 1.16.0 for DPO losses of small random batches of pairs, and write them down as trl_1.16.0.json.

    pip install -r tests/golden/requirements-trl.txt
    python tests/golden/make_trl_golden.py

TRL computes its loss inside a method of DPOTrainer. That method runs here on a trainer made without its constructor,
which holds only what the method reads, with two stand-ins for models that hand out given log-probabilities; their
entropies and logits, which TRL logs, are zeros. Inputs are sixteenths; TRL computes in float64; outputs keep ten
digits. Rows 2p and 2p + 1 are the chosen and the rejected response of pair p (TRL puts all chosen first); padding is 0
and not stored.
"""

import json
import platform
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from trl import DPOTrainer

COMMAND = "python tests/golden/make_trl_golden.py"
LENGTHS = [[3, 1], [1, 1, 1, 1], [7, 2, 4, 4, 1, 12], [40, 33, 2, 31]]
BETAS = [0.1, 0.5, 3.0]


class GivenLogprobs(torch.nn.Module):
    """A causal model in TRL's eyes: token t's log-probability, whatever the input."""

    is_gradient_checkpointing = False

    def __init__(self, logprobs: Tensor) -> None:
        super().__init__()
        self.logprobs = torch.nn.Parameter(logprobs)

    def forward(self, **inputs: Any) -> SimpleNamespace:
        nothing = torch.zeros_like(self.logprobs)
        return SimpleNamespace(log_probs=self.logprobs, entropy=nothing, mean_logits=nothing, is_top1=nothing.bool())


def trainer_with(model: GivenLogprobs, ref_model: GivenLogprobs, beta: float) -> DPOTrainer:
    trainer = object.__new__(DPOTrainer)
    vars(trainer).update(
        model=model,
        ref_model=ref_model,
        beta=beta,
        loss_types=["sigmoid"],
        loss_weights=[1.0],
        f_divergence_type="reverse_kl",
        ld_alpha=None,
        precompute_ref_logps=False,
        use_weighting=False,
        aux_loss_enabled=False,
        args=SimpleNamespace(gradient_checkpointing_kwargs=None),
        accelerator=SimpleNamespace(
            device=torch.device("cpu"), gather=lambda x: x, gather_for_metrics=lambda x: x, unwrap_model=lambda x: x
        ),
        _metrics={"train": defaultdict(list)},
        _total_train_tokens=0,
        _tp_size=1,
    )
    return trainer


def drawn(rng: np.random.Generator, mask: Tensor) -> Tensor:
    """Normal noise in sixteenths, 0 in the padding."""
    noise = np.round(rng.normal(0, 0.7, mask.shape) * 16) / 16
    return torch.where(mask, torch.from_numpy(noise), 0.0)


def short(value: float) -> float:
    return float(f"{value:.10g}") + 0.0  # + 0.0 turns -0.0 into 0.0


def cells(x: Tensor, mask: Tensor) -> list[float]:
    return [short(value) for value in x[mask].tolist()]


def ask(logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor, beta: float) -> dict[str, Any]:
    """One call of TRL's loss; the prompt is one token long, since a token is predicted by the one before."""
    chosen_first = torch.cat((torch.arange(0, len(mask), 2), torch.arange(1, len(mask), 2)))
    policy, reference = (GivenLogprobs(x[chosen_first]) for x in (logprobs, ref_logprobs))
    trainer = trainer_with(policy, reference, beta)
    completion_mask = torch.nn.functional.pad(mask[chosen_first].long(), (1, 0))
    inputs = {"input_ids": completion_mask, "attention_mask": completion_mask, "completion_mask": completion_mask}
    loss = trainer._compute_loss(policy, inputs, return_outputs=False)
    loss.backward()
    gradient = torch.empty_like(logprobs)
    assert policy.logprobs.grad is not None
    gradient[chosen_first] = policy.logprobs.grad
    logged = trainer._metrics["train"]
    return {
        "beta": beta,
        "loss": short(loss.item()),
        "gradient": cells(gradient, mask),
        "accuracy": short(logged["rewards/accuracies"][0]),
        "margin": short(logged["rewards/margins"][0]),
    }


def main() -> None:
    torch.set_num_threads(1)
    rng = np.random.default_rng(20230529)
    cases = []
    for lengths in LENGTHS:
        mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
        logprobs, ref_logprobs = drawn(rng, mask), drawn(rng, mask)
        outputs = [ask(logprobs, ref_logprobs, mask, beta) for beta in BETAS]
        stored = {"logprobs": cells(logprobs, mask), "ref_logprobs": cells(ref_logprobs, mask)}
        cases.append({"lengths": lengths, **stored, "outputs": outputs})
    names = ("trl", "torch", "transformers", "accelerate", "datasets", "numpy")
    golden = {
        "command": COMMAND,
        "versions": {"python": platform.python_version()} | {name: version(name).partition("+")[0] for name in names},
        "dpo": cases,
    }
    path = Path(__file__).with_name("trl_1.16.0.json")
    path.write_text(
        json.dumps(golden, separators=(",", ":")).replace('{"lengths"', '\n{"lengths"') + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    main()

"""One optimiser step as every stage takes it: AdamW, a schedule, gradient clipping, a check for NaN."""

import math
from typing import Any, assert_never

import torch
from transformers import PreTrainedModel

from vcppo.errors import TrainingError
from vcppo.models.configurations import model_label
from vcppo.models.sharding import like, whole
from vcppo.settings.optimiser import OptimiserSettings


class Optimiser:
    """AdamW over a model, with a schedule over `total_steps` updates."""

    def __init__(self, model: PreTrainedModel, settings: OptimiserSettings, total_steps: int) -> None:
        self.settings = settings
        self.total_steps = total_steps
        self.taken = 0
        self._label = model_label(model)
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._adam = torch.optim.AdamW(
            self._parameters,
            lr=settings.learning_rate,
            betas=(settings.adam_beta1, settings.adam_beta2),
            eps=settings.adam_epsilon,
            weight_decay=settings.weight_decay,
            fused=True,
        )

    @property
    def learning_rate(self) -> float:
        """The rate of the next step."""
        return self.settings.learning_rate * schedule_factor(self.settings, self.taken, self.total_steps)

    def step(self) -> float:
        """Clip, update, clear the gradients; returns the gradient's norm before clipping.

        Raises:
            TrainingError: the gradient is not finite; the weights are as they were.
        """
        norm = float(whole(torch.nn.utils.clip_grad_norm_(self._parameters, self.settings.max_grad_norm)))
        if not math.isfinite(norm):
            raise TrainingError(
                f"gradient norm is {norm} at update {self.taken}, expected a finite number ({self._label})"
            )
        for group in self._adam.param_groups:
            group["lr"] = self.learning_rate
        self._adam.step()
        self._adam.zero_grad(set_to_none=True)
        self.taken += 1
        return norm

    def skip(self) -> None:
        """Skip an update: the schedule goes on, the weights stay."""
        self.taken += 1

    def state_dict(self) -> dict[str, Any]:
        """Return all that resuming needs."""
        return {"adam": self._adam.state_dict(), "taken": self.taken}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore from what `state_dict` returned."""
        groups, saved = state["adam"]["param_groups"], state["adam"]["state"]
        parameters = dict(enumerate(self._parameters))
        placed = {
            number: {name: like(x, parameters[number]) if name != "step" else x for name, x in moments.items()}
            for number, moments in saved.items()
        }
        self._adam.load_state_dict({"param_groups": groups, "state": placed})
        self.taken = state["taken"]


def schedule_factor(settings: OptimiserSettings, step: int, total_steps: int) -> float:
    """Share of the peak rate at update `step` (from 0): linear warm-up, then constant, or down to 0 at the end."""
    if step < settings.warmup_steps:
        return (step + 1) / settings.warmup_steps
    progress = min((step - settings.warmup_steps) / max(total_steps - settings.warmup_steps, 1), 1.0)
    match settings.schedule:
        case "constant":
            return 1.0
        case "linear":
            return 1.0 - progress
        case "cosine":
            return 0.5 * (1.0 + math.cos(math.pi * progress))
        case _:
            assert_never(settings.schedule)

"""Settings and device of each model's passes, as given to `prepare`; an unprepared model is refused."""

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from transformers import PreTrainedModel

from vcppo.errors import NotPreparedError
from vcppo.models.configurations import model_label
from vcppo.settings.model import ComputeSettings


@dataclass(frozen=True)
class Preparation:
    """Settings and device of one model's passes."""

    compute: ComputeSettings
    device: torch.device  # where passes run; weights may wait elsewhere


_preparations: WeakKeyDictionary[PreTrainedModel, Preparation] = WeakKeyDictionary()


def declare(model: PreTrainedModel, compute: ComputeSettings, device: torch.device) -> None:
    """Register how passes of a model are computed; the model itself stays as it is. `prepare` does the rest too."""
    _preparations[model] = Preparation(compute, device)


def preparation_of(model: PreTrainedModel) -> Preparation:
    """Return how passes of this model are computed.

    Raises:
        NotPreparedError: it was never prepared.
    """
    try:
        return _preparations[model]
    except KeyError:
        raise NotPreparedError(
            f"{model_label(model)}: it was never prepared, so nothing says in which precision, where, or packed or "
            "padded it computes; expected vcppo.models.sharding.prepare(model, compute, lora, seed=...) before its "
            "first pass"
        ) from None


def compute_of(model: PreTrainedModel) -> ComputeSettings:
    """Return the settings alone. Raises as `preparation_of` does."""
    return preparation_of(model).compute

"""How passes of each model are computed, as `prepare` was told; nothing is computed of a model that never was."""

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from transformers import PreTrainedModel

from vcppo.errors import NotPreparedError
from vcppo.models.configurations import called
from vcppo.settings.model import ComputeSettings


@dataclass(frozen=True)
class Preparation:
    """What passes of one model go by."""

    compute: ComputeSettings
    device: torch.device  # where passes run; weights may wait elsewhere


_preparations: WeakKeyDictionary[PreTrainedModel, Preparation] = WeakKeyDictionary()


def declare(model: PreTrainedModel, compute: ComputeSettings, device: torch.device) -> None:
    """Have passes of a model computed so; the model itself stays as it is. `prepare` is what does all of it."""
    _preparations[model] = Preparation(compute, device)


def preparation_of(model: PreTrainedModel) -> Preparation:
    """How passes of this model are computed.

    Raises:
        NotPreparedError: nobody has said so.
    """
    try:
        return _preparations[model]
    except KeyError:
        raise NotPreparedError(
            f"{called(model)}: it was never prepared, so nothing says in which precision, where, or packed or padded "
            "it computes; expected vcppo.models.sharding.prepare(model, compute, lora, seed=...) before its first pass"
        ) from None


def compute_of(model: PreTrainedModel) -> ComputeSettings:
    """The settings among it. Raises as `preparation_of` does."""
    return preparation_of(model).compute

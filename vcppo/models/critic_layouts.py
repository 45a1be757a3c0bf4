"""Layouts in which others save critics: the name of the value head, the prefix of other names, what is done to values.

In every layout here the head is one linear layer on the last hidden states, and the value of the state before token t
is read at the token before t, as `models.forward` reads it. Verified in the sources:

- verl v0.7.0, verl/workers/critic/dp_critic.py: values[:, -response_length - 1 : -1] of a token classifier, whose head
  `score` has a bias; of TRL's class where an architecture has none. Its merger (verl/model_merger) writes
  transformers folders, also under the name of a causal language model.
- OpenRLHF v0.2 to v0.11.0, openrlhf/models/model.py, CriticModel: a base model and a linear layer without bias named
  `value_head` (from v0.6 `score`), or config.json's `value_head_prefix`; values[:, :-1], then the last ones. With
  `normalize_reward`, values are (head - mean) / std; mean and std are in config.json, the buffers are not saved.
- Open-Reasoner-Zero (June 2025), orz/ppo/models.py: the same from OpenRLHF, `value_head`.
- TRL v0.2 to v1.9.0, models/modeling_value_head.py, AutoModelForCausalLMWithValueHead: `v_head.summary` with a bias,
  beside a language model's weights; its trainer reads values[:, :-1] from the query's last token on. DeepSpeed's and
  FSDP's gathered weights have `pretrained_model.` before the other names. Its PPOTrainer since v0.12 has sequence
  classifiers (`score`, no bias): value[:, context_length - 1 : -1].
- LLaMA-Factory v0.9.5, train/callbacks.py: TRL's head in a file of its own, `value_head.safetensors`.
- NeMo-RL v0.7.0, nemo_rl/models/value: a token classifier, its values shifted right by one token.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import PreTrainedModel

from vcppo.errors import CheckpointError
from vcppo.models.critic_folders import CriticFolder, saved_file, weight_files, weight_names
from vcppo.models.distributed import world
from vcppo.models.forward import value_head
from vcppo.system.files import read_json

CLASSIFIERS = {"ForTokenClassification": "token classifier", "ForSequenceClassification": "sequence classifier"}
HEADS = {
    "v_head.summary": "value head of TRL",
    "value_head": "value head of OpenRLHF or Open-Reasoner-Zero",
    "score": "value head of OpenRLHF",
    "classifier": "value head `classifier`",
}  # names of the linear layer, and of the layout
HEAD_FILE = "value_head.safetensors"
WRAPPED = "pretrained_model."
OURS = ("score", "classifier")
BODY = re.compile(r"(^|\.)(layers|h|blocks?)\.\d+\.|embed|norm|ln_f|wte|wpe|rotary")  # names that are no head's
NORMALISATION = ("normalize_reward", "mean", "std", "value_head_prefix")  # of a configuration, once it is applied
SHOWN = 6


@dataclass(frozen=True)
class Head:
    """A linear layer with one output, to be put in the place of a classifier's: value = weight @ hidden + bias."""

    file_of: dict[str, Path]
    name: str
    mean: float = 0.0
    std: float = 1.0

    @property
    def has_bias(self) -> bool:
        """True if a constant is added to weight @ hidden."""
        return f"{self.name}.bias" in self.file_of or self.mean != 0.0

    def read(self) -> tuple[Tensor, Tensor]:
        """([1, H] weight, [1] bias), float32, normalisation included."""
        weight = self._tensor("weight")
        bias = self._tensor("bias") if f"{self.name}.bias" in self.file_of else torch.zeros(1)
        return weight / self.std, (bias - self.mean) / self.std

    def _tensor(self, kind: str) -> Tensor:
        name = f"{self.name}.{kind}"
        with safe_open(self.file_of[name], framework="pt") as opened:
            tensor: Tensor = opened.get_tensor(name)
        if tensor.shape[0] != 1:
            raise CheckpointError(
                f"{self.file_of[name]}: {name} has shape {tuple(tensor.shape)}, expected a head with one output"
            )
        if not tensor.isfinite().all():
            raise CheckpointError(f"{self.file_of[name]}: {name} holds NaN or infinity, expected finite weights")
        return tensor.float()


@dataclass(frozen=True)
class CriticLayout:
    """A saved critic, located and understood but not loaded."""

    name: str  # for a report
    head: Head | None = None  # None: a classifier, which transformers loads whole
    renamed: dict[str, str] | None = None  # pattern in the other weights' names, and what a classifier has there
    notes: tuple[str, ...] = ()


def find_layout(folder: CriticFolder, path: Path | str) -> CriticLayout:
    """Find out how a critic is saved, by its configuration and the names of its weights.

    Args:
        path: as the user named it, for messages.
    Raises:
        CheckpointError: none of its weights is a value head that is known.
    """
    source = folder.weights
    config = _configuration(source)
    files = weight_files(source)
    if not files:
        return CriticLayout("unknown")  # loading says what is missing
    (architecture, *_) = config.get("architectures") or ("",)
    kind = next((name for end, name in CLASSIFIERS.items() if str(architecture).endswith(end)), None)
    if kind is not None:
        if not any(f"{name}.weight" in files for name in OURS):
            raise _no_head(path, files, config)
        return CriticLayout(kind)
    if (beside := saved_file(source, HEAD_FILE)) is not None:
        files = {**files, **dict.fromkeys(weight_names(beside), beside)}
    own = config.get("value_head_prefix")
    for name in dict.fromkeys(([own] if isinstance(own, str) else []) + list(HEADS)):
        if f"{name}.weight" in files:
            break
    else:
        raise _no_head(path, files, config)
    if name in OURS and f"{name}.bias" in files:
        return CriticLayout(CLASSIFIERS["ForTokenClassification"])
    mean, std, notes = _normalisation(config, path)
    return CriticLayout(
        name=HEADS.get(name, f"value head `{name}`"),
        head=Head(files, name, mean, std),
        renamed={f"^{re.escape(WRAPPED)}": ""} if any(weight.startswith(WRAPPED) for weight in files) else None,
        notes=notes,
    )


@torch.no_grad()
def put_head(critic: PreTrainedModel, head: Head, path: Path | str) -> None:
    """Give a critic the head of another layout, normalisation included, which its configuration then forgets.

    Only the main process reads weights; `sharding.prepare` brings them to the others.
    """
    if world().is_main:
        weight, bias = head.read()
        own = value_head(critic)
        if own.weight.shape != weight.shape:
            wanted = tuple(own.weight.shape)
            raise CheckpointError(f"{path}: {head.name}.weight has shape {tuple(weight.shape)}, expected {wanted}")
        own.weight.copy_(weight)
        if own.bias is not None:
            own.bias.copy_(bias)
    for name in NORMALISATION:
        if hasattr(critic.config, name):
            delattr(critic.config, name)


def _configuration(source: Path | str) -> dict[str, Any]:
    file = saved_file(source, "config.json")
    config = {} if file is None else read_json(file)
    return config if isinstance(config, dict) else {}


def _normalisation(config: dict[str, Any], path: Path | str) -> tuple[float, float, tuple[str, ...]]:
    """(mean, std, notes): the critic's values are (head - mean) / std, as OpenRLHF computes them."""
    mean, std = config.get("mean"), config.get("std")
    if mean is None or std is None:
        return 0.0, 1.0, ()
    if not config.get("normalize_reward"):
        note = f"config.json has a mean of {mean:g} and a std of {std:g}, which normalize_reward = false leaves unused"
        return 0.0, 1.0, (note,)
    if not std > 0:
        raise CheckpointError(f"{path}: config.json normalises values by std = {std}, expected a number above 0")
    return float(mean), float(std), (f"values are (head - {mean:g}) / {std:g}, by config.json's normalize_reward",)


def _no_head(path: Path | str, files: dict[str, Path], config: dict[str, Any]) -> CheckpointError:
    like = [name for name in files if not BODY.search(name)]
    shown = ", ".join(like[:SHOWN]) + (f" and {len(like) - SHOWN} more" if len(like) > SHOWN else "")
    wanted = ", ".join(f"{name}.weight" for name in ("score", "classifier", "value_head", "v_head.summary"))
    (architecture, *_) = config.get("architectures") or ("model",)
    return CheckpointError(
        f"{path}: no value head in this {architecture}; of its {len(files)} weights these could be one: "
        f"{shown or 'none'}; expected one of {wanted} with one output, or config.json's value_head_prefix"
    )

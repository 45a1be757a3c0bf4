"""Randomly initialised models of real shapes, batches for them, and the arithmetic that a pass cannot do without."""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForTokenClassification,
    PretrainedConfig,
    PreTrainedModel,
)

from vcppo.models.distributed import world
from vcppo.models.sharding import prepare
from vcppo.planning.memory_estimate import Network
from vcppo.planning.shapes import KNOWN, Shapes
from vcppo.settings.run import RunSettings
from vcppo.types import RolloutBatch

PROMPT = 256
SEED = 0
# Operations a second of bfloat16 matrix products by data sheet, dense, for the share that an update reaches.
PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12}


@dataclass(frozen=True)
class Sizes:
    """Sizes of a session: the real thing, or the same code at a size for any machine."""

    models: dict[str, Shapes]
    lengths: tuple[int, ...]  # tokens of a response with its prompt
    rows: int  # responses of an update, each a pass of its own
    writing: tuple[int, int, int]  # responses written together, tokens of each prompt, new tokens of each
    prompt: int

    @property
    def largest(self) -> str:
        """The model that is looked at most closely."""
        return list(self.models)[-1]


REAL = Sizes(
    {name: KNOWN[name] for name in ("qwen2.5-0.5b", "qwen2.5-1.5b")}, (8192, 16384), 4, (128, 256, 1024), PROMPT
)
TINY = Sizes({"tiny": Shapes("qwen2", 64, 128, 2, 4, 2, 16, 512, True)}, (64, 128), 3, (4, 8, 16), 8)


def config_of(shapes: Shapes, *, critic: bool, longest: int) -> PretrainedConfig:
    """As transformers wants it; responses never end."""
    return AutoConfig.for_model(
        shapes.architecture,
        vocab_size=shapes.vocabulary,
        hidden_size=shapes.hidden_size,
        intermediate_size=shapes.intermediate_size,
        num_hidden_layers=shapes.layers,
        num_attention_heads=shapes.heads,
        num_key_value_heads=shapes.kv_heads,
        head_dim=shapes.head_dim,
        max_position_embeddings=longest,
        tie_word_embeddings=shapes.tied and not critic,
        num_labels=1,
        classifier_dropout=0.0,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )


def model_of(shapes: Shapes, *, critic: bool, longest: int) -> PreTrainedModel:
    """Random weights, made on the device."""
    config = config_of(shapes, critic=critic, longest=longest)
    kind: Any = AutoModelForTokenClassification if critic else AutoModelForCausalLM
    torch.manual_seed(SEED)
    with world().device:
        model: PreTrainedModel = kind.from_config(config)
    return model.eval()


def prepared(settings: RunSettings, shapes: Shapes, *, critic: bool, longest: int) -> PreTrainedModel:
    """The model as training has it."""
    return prepare(model_of(shapes, critic=critic, longest=longest), settings.compute, settings.lora, seed=SEED)


def network(settings: RunSettings, shapes: Shapes, *, critic: bool) -> Network:
    """The same for the plan."""
    return Network(shapes, critic, settings.compute, settings.lora, world().size // settings.compute.replicas)


def batch_of(shapes: Shapes, rows: int, length: int, prompt: int) -> RolloutBatch:
    """Responses of one length made of random tokens, to prompts of one length."""
    rng = torch.Generator().manual_seed(SEED)
    response = length - prompt
    mask = torch.ones((rows, response), dtype=torch.bool)
    return RolloutBatch(
        input_ids=torch.randint(1, shapes.vocabulary, (rows, length), generator=rng),
        prompt_lengths=torch.full((rows,), prompt),
        response_mask=mask,
        old_logprobs=torch.full(mask.shape, -float(torch.tensor(float(shapes.vocabulary)).log())),
        scores=torch.ones(rows),
        correct=torch.ones(rows, dtype=torch.bool),
        truncated=torch.zeros(rows, dtype=torch.bool),
        group=torch.arange(rows),
    )


def training_flops(shapes: Shapes, *, critic: bool, tokens: int, length: int) -> float:
    """Operations of a forward and a backward pass over so many tokens in responses of one length, nothing recomputed.

    Two for each weight that a token is multiplied with, and causal attention's two products with half of the response
    on average; a backward pass takes twice a forward one.
    """
    head = 0 if critic else shapes.embedding
    matrices = 2.0 * (shapes.layers * shapes.layer_matrices + head)
    attention = 2.0 * shapes.layers * shapes.heads * shapes.head_dim * length
    return 3.0 * tokens * (matrices + attention)


def peak_flops(device: str) -> float | None:
    """Of a GPU by name; None for one that nobody has entered."""
    return next((flops for name, flops in PEAK_FLOPS.items() if name in device), None)

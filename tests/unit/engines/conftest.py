"""A small policy of every family with a decoder."""

from typing import Any

import pytest
from torch_engines import model
from transformers import PreTrainedModel

KINDS: dict[str, dict[str, Any]] = {
    "llama": {},
    "llama, grouped heads": {"num_key_value_heads": 2},
    "llama, one key head": {"num_key_value_heads": 1},
    "llama, tied embeddings": {"tie_word_embeddings": True},
    "llama, biases": {"attention_bias": True},
    "qwen2": {},
    "qwen2, grouped heads": {"num_key_value_heads": 2},
    "qwen3": {},
    "qwen3, grouped heads": {"num_key_value_heads": 2, "attention_bias": True, "head_dim": 8},
}


@pytest.fixture(params=KINDS)
def policy(request: pytest.FixtureRequest) -> PreTrainedModel:
    return model(request.param.split(",")[0], **KINDS[request.param])

"""The lean passes of small decoders: transformers' numbers and gradients, and who is served by them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import new_policy, plainly, random_batch, tiny
from torch import Tensor
from transformers import PreTrainedModel

from vcppo.models import forward, lean, loading
from vcppo.models.checkpoints import save_model
from vcppo.models.sharding import prepare
from vcppo.settings.model import ComputeSettings, LoraSettings
from vcppo.tasks import make_task
from vcppo.types import TokenBatch

ARCHITECTURES = ["llama", "qwen2", "qwen3"]
SHAPES = ["model.hidden_size=24", "model.heads=6", "model.kv_heads=2", "model.layers=2", "task.chain_length=10"]
LENGTHS = [40, 1, 75, 33, 64]  # of one block of queries, several, and one that ends where a block does


def random_weights(model: PreTrainedModel) -> PreTrainedModel:
    """Norms and biases too, which a fresh model has at 1 and 0."""
    rng = torch.Generator().manual_seed(5)
    for name, parameter in model.named_parameters():
        if "norm" in name or name.endswith("bias"):
            with torch.no_grad():
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=rng))
    return model


def policy_loss(policy: PreTrainedModel, batch: TokenBatch) -> tuple[Tensor, Tensor]:
    logprobs, entropy = forward.response_logprobs(policy, batch, 0.9)
    return logprobs, logprobs.sin().sum() + 0.1 * entropy.sum()


def critic_loss(critic: PreTrainedModel, batch: TokenBatch) -> tuple[Tensor, Tensor]:
    values = forward.response_values(critic, batch)
    return values, (values - 0.5).square().sum()


def outputs_and_gradients(
    model: PreTrainedModel, loss_of: Callable[[PreTrainedModel, TokenBatch], tuple[Tensor, Tensor]]
) -> tuple[Tensor, dict[str, Tensor]]:
    model.zero_grad(set_to_none=True)
    outputs, loss = loss_of(model, random_batch(LENGTHS))
    (loss / sum(LENGTHS)).backward()
    return outputs.detach(), {name: parameter.grad for name, parameter in model.named_parameters()}


def compare(
    model: PreTrainedModel,
    loss_of: Callable[[PreTrainedModel, TokenBatch], tuple[Tensor, Tensor]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    served: list[bool] = []
    really = lean.serves
    monkeypatch.setattr(lean, "serves", lambda *inputs: served.append(really(*inputs)) or served[-1])
    outputs, gradients = outputs_and_gradients(model, loss_of)
    assert served == [True]
    monkeypatch.setattr(lean, "serves", lambda *_: False)
    want, slopes = outputs_and_gradients(model, loss_of)
    torch.testing.assert_close(outputs, want, rtol=1e-5, atol=1e-5)
    assert gradients.keys() == slopes.keys()
    for name, slope in slopes.items():
        torch.testing.assert_close(gradients[name], slope, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_policy_has_transformers_numbers_and_gradients(
    architecture: str, tied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = new_policy(f"model.architecture={architecture}", f"model.tied={str(tied).lower()}", *SHAPES)
    compare(random_weights(policy), policy_loss, monkeypatch)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_critic_has_transformers_numbers_and_gradients(
    architecture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = random_weights(new_policy(f"model.architecture={architecture}", *SHAPES))
    save_model(policy, make_task(tiny().task).tokenizer(), tmp_path / "policy")
    compare(plainly(loading.load_critic(tmp_path / "policy", head_seed=1)), critic_loss, monkeypatch)


def test_the_embedding_of_padding_learns_nothing() -> None:
    """As in transformers."""
    policy = new_policy()
    padding = policy.config.pad_token_id
    ids = torch.tensor([[padding, 3, 4]])
    lean.hidden_states(policy.base_model, ids).sum().backward()
    assert not policy.base_model.embed_tokens.weight.grad[padding].any()
    assert policy.base_model.embed_tokens.weight.grad[3].any()


@pytest.mark.parametrize(
    "compute",
    [{"packing": True}, {"gradient_checkpointing": True}, {"attention": "eager"}, {"dtype": "bfloat16"}, {}],
)
def test_whatever_is_not_plain_is_left_to_transformers(
    compute: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    really = lean.hidden_states
    monkeypatch.setattr(lean, "hidden_states", lambda *inputs: calls.append(1) or really(*inputs))
    policy = prepare(new_policy(), ComputeSettings(**compute), LoraSettings(), seed=0)
    forward.response_logprobs(policy, random_batch([5, 2]), 1.0)
    assert bool(calls) is (not compute)


def test_adapters_are_left_to_transformers() -> None:
    ids = torch.tensor([[3, 4]])
    policy = new_policy()
    assert lean.serves(policy.base_model, ids, None)
    prepare(policy, ComputeSettings(), LoraSettings(rank=2), seed=0)
    assert not lean.serves(policy.base_model, ids, None)


def test_sliding_windows_other_activations_precisions_and_long_rows_are_left_to_transformers() -> None:
    ids = torch.tensor([[3, 4]])
    policy = new_policy("model.architecture=qwen3")
    assert lean.serves(policy.base_model, ids, None)
    assert not lean.serves(policy.base_model, torch.zeros((1, 9000), dtype=torch.int64), None)
    assert not lean.serves(policy.double().base_model, ids, None)
    sliding = new_policy("model.architecture=qwen2")
    sliding.config.layer_types = ["sliding_attention"]
    assert not lean.serves(sliding.base_model, ids, None)
    other = new_policy()
    other.config.hidden_act = "gelu"
    assert not lean.serves(other.base_model, ids, None)

"""A critic that is a network of its own: another size, the policy's architecture and tokens, random weights."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import new_policy, plainly, random_batch, tiny
from transformers import Qwen3Config

from vcppo.errors import CheckpointError, ConfigError
from vcppo.models import forward, loading
from vcppo.models.checkpoints import save_model
from vcppo.settings.critic import NewCriticSettings
from vcppo.settings.critic_size import Size, size_of
from vcppo.tasks import make_task


@pytest.fixture(scope="module", params=["llama", "qwen2", "qwen3"])
def policy(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    folder = tmp_path_factory.mktemp("policy")
    save_model(new_policy(f"model.architecture={request.param}"), make_task(tiny().task).tokenizer(), folder)
    return folder


def shape(model: Any) -> tuple[int, ...]:
    c = model.config
    return (
        c.num_hidden_layers,
        c.hidden_size,
        c.intermediate_size,
        c.num_attention_heads,
        c.num_key_value_heads,
        c.head_dim,
    )


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, (1, 16, 32, 2, 2, 8)),
        ({"layers": 3}, (3, 16, 32, 2, 2, 8)),
        ({"hidden_size": 24}, (1, 24, 32, 2, 2, 12)),
        ({"hidden_size": 48, "heads": 3, "intermediate_size": 20}, (1, 48, 20, 3, 3, 16)),
        ({"heads": 4}, (1, 16, 32, 4, 2, 4)),
        ({"heads": 1}, (1, 16, 32, 1, 1, 16)),
    ],
)
def test_it_has_the_size_that_was_asked_for_and_the_policys_else(
    policy: Path, given: dict[str, int], wanted: tuple[int, ...], tmp_path: Path
) -> None:
    critic = plainly(loading.new_critic(policy, NewCriticSettings(**given), seed=1))
    assert shape(critic) == wanted
    assert len(critic.base_model.layers) == wanted[0]
    known = loading.load_config(policy)
    assert critic.config.model_type == known.model_type
    assert critic.get_input_embeddings().weight.shape == (known.vocab_size, wanted[1])
    batch = random_batch([9, 5])
    values = forward.response_values(critic, batch)
    save_model(critic, make_task(tiny().task).tokenizer(), tmp_path)
    again = plainly(loading.load_critic(tmp_path))
    torch.testing.assert_close(forward.response_values(again, batch), values)


def test_its_weights_are_of_its_seed_alone(policy: Path) -> None:
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(int(torch.randint(1000, ())))
        critic = loading.new_critic(policy, NewCriticSettings(layers=2), seed=seed)
        return torch.cat([p.flatten() for p in critic.parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))
    inner = (
        loading.new_critic(policy, NewCriticSettings(hidden_size=64), seed=3).base_model.layers[0].mlp.up_proj.weight
    )
    assert float(inner.detach().std()) == pytest.approx(0.1, rel=0.1)  # model.initializer_range
    theirs = loading.load_policy(policy).base_model.embed_tokens.weight
    assert not torch.equal(
        theirs, loading.new_critic(policy, NewCriticSettings(), seed=0).get_input_embeddings().weight
    )


@pytest.mark.parametrize("bounds", [None, (-1.0, 1.0)])
def test_its_first_values_lie_near_what_was_asked(policy: Path, bounds: tuple[float, float] | None) -> None:
    wide = NewCriticSettings(hidden_size=128)
    critic = plainly(loading.new_critic(policy, wide, seed=3, initial_value=-0.6, bounds=bounds))
    batch = random_batch([9, 5])
    assert (forward.response_values(critic, batch)[batch.response_mask] + 0.6).abs().max() < 0.35
    assert forward.value_range(critic) == bounds


def test_what_does_not_fit_is_one_line(policy: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"critic.hidden_size 16, critic.heads 3: expected a hidden_size that is"):
        loading.new_critic(policy, NewCriticSettings(heads=3), seed=0)
    with pytest.raises(CheckpointError, match=r"no config.json there"):
        loading.new_critic(tmp_path, NewCriticSettings(), seed=0)


def test_heads_of_a_width_of_their_own_stay_so_until_a_size_is_given(tmp_path: Path) -> None:
    """As Qwen3's, of 128 whatever the width."""
    Qwen3Config(
        vocab_size=20, hidden_size=32, intermediate_size=16, num_hidden_layers=4, num_attention_heads=2,
        num_key_value_heads=1, head_dim=32, use_sliding_window=True, max_window_layers=2,
    ).save_pretrained(tmp_path)  # fmt: skip
    critic = loading.new_critic(tmp_path, NewCriticSettings(layers=2, intermediate_size=24), seed=0)
    assert shape(critic) == (2, 32, 24, 2, 1, 32)
    assert len(critic.config.layer_types) == 2
    wide = loading.new_critic(tmp_path, NewCriticSettings(hidden_size=64), seed=0)
    assert shape(wide) == (4, 64, 16, 2, 1, 32)


def test_sizes_by_pencil() -> None:
    policy = Size(hidden_size=64, intermediate_size=128, layers=2, heads=4, kv_heads=2, head_dim=16)
    assert size_of(NewCriticSettings(), policy) == policy
    assert size_of(NewCriticSettings(heads=8), policy) == Size(64, 128, 2, 8, 2, 8)
    assert size_of(NewCriticSettings(heads=1), policy).kv_heads == 1
    assert size_of(NewCriticSettings(hidden_size=30), policy).misfit is not None
    assert size_of(NewCriticSettings(hidden_size=12), policy).misfit is not None  # heads of width 3

"""Adapters, shards over one process, and weights that come out whole."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import new_policy, plainly, random_batch, tiny
from torch import Tensor
from transformers import AutoModelForCausalLM, GPT2Config, PreTrainedModel

from vcppo.engines.base import Sampling
from vcppo.engines.torch.engine import TorchEngine
from vcppo.errors import CheckpointError, ConfigError
from vcppo.models import forward, loading
from vcppo.models.checkpoints import load_state, save_model, save_state
from vcppo.models.distributed import together
from vcppo.models.optimiser import Optimiser
from vcppo.models.sharding import copy_weights, is_sharded, load_weights, mix_weights, named_weights, plain, prepare
from vcppo.settings.model import ComputeSettings, LoraSettings
from vcppo.settings.optimiser import OptimiserSettings
from vcppo.tasks import make_task

LORA = LoraSettings(rank=4)
BATCH = random_batch([9, 3, 5])
SAMPLING = Sampling(1.0, 1.0, 6)


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    """Whatever mesh a test makes is gone after it."""
    with together():
        yield


def train(policy: PreTrainedModel, updates: int = 3, rate: float = 0.05) -> list[float]:
    """Losses of some updates towards the batch's tokens."""
    optimiser = Optimiser(policy, OptimiserSettings(learning_rate=rate), 10)
    losses = []
    for _ in range(updates):
        loss = -forward.response_logprobs(policy, BATCH, 1.0)[0].sum()
        loss.backward()
        losses.append(float(loss.detach()))
        optimiser.step()
    return losses


def logprobs(policy: PreTrainedModel) -> Tensor:
    with torch.no_grad():
        return forward.response_logprobs(policy, BATCH, 1.0)[0]


@pytest.mark.parametrize("compute", [{}, {"dtype": "bfloat16"}])
def test_fresh_adapters_change_nothing_and_trained_ones_come_out_merged(
    tmp_path: Path, compute: dict[str, str]
) -> None:
    before = logprobs(new_policy())
    policy = prepare(new_policy(), ComputeSettings(**compute), LORA, seed=0)
    loose: dict[str, Any] = (
        {"rtol": 0.05, "atol": 0.05} if compute else {"rtol": 1e-5, "atol": 1e-5}
    )  # 8 bits of mantissa, or 24
    torch.testing.assert_close(logprobs(policy), before, **loose)
    losses = train(policy)
    assert losses[-1] < losses[0] - 1.0
    save_model(policy, make_task(tiny().task).tokenizer(), tmp_path / "merged")
    saved = plainly(loading.load_policy(tmp_path / "merged"))
    assert {name for name, _ in saved.named_parameters()} == {name for name, _ in new_policy().named_parameters()}
    torch.testing.assert_close(logprobs(saved), logprobs(policy), **loose)
    whole = plain(policy)
    assert whole is not policy
    assert all(map(torch.equal, whole.parameters(), saved.parameters()))


def test_only_adapters_and_a_critics_head_learn(tmp_path: Path) -> None:
    save_model(new_policy(), make_task(tiny().task).tokenizer(), tmp_path)
    critic = prepare(loading.load_critic(tmp_path, head_seed=1), ComputeSettings(), LORA, seed=0)
    learning = [name for name, parameter in critic.named_parameters() if parameter.requires_grad]
    assert {name.rsplit("lora_", 1)[-1][0] for name in learning if "lora_" in name} == {"A", "B"}
    assert [name for name in learning if "lora_" not in name] == ["score.weight", "score.bias"]


def test_adapters_are_the_same_for_the_same_seed() -> None:
    one, two, other = (prepare(new_policy(), ComputeSettings(), LORA, seed=seed) for seed in (1, 1, 2))
    downs = [[p for n, p in x.named_parameters() if "lora_A" in n] for x in (one, two, other)]
    assert all(map(torch.equal, downs[0], downs[1]))
    assert not any(map(torch.equal, downs[0], downs[2]))


def test_adapters_go_where_they_are_told() -> None:
    policy = prepare(new_policy(), ComputeSettings(), LoraSettings(rank=2, targets="q_proj, v_proj"), seed=0)
    with_adapter = {name.split(".")[-4] for name, _ in policy.named_parameters() if "lora_A" in name}
    assert with_adapter == {"q_proj", "v_proj"}


def test_a_target_that_no_layer_has_is_told_with_those_there_are() -> None:
    with pytest.raises(
        ConfigError,
        match=r"lora.targets = .*no such layer in LlamaForCausalLM; this model has down_proj, gate_proj, k_proj",
    ):
        prepare(new_policy(), ComputeSettings(), LoraSettings(rank=2, targets="query"), seed=0)


def test_the_engine_samples_from_merged_weights(tmp_path: Path) -> None:
    policy = prepare(new_policy(), ComputeSettings(), LORA, seed=0)
    train(policy)
    save_model(policy, make_task(tiny().task).tokenizer(), tmp_path)
    told = [TorchEngine(x).generate([[3, 4]] * 5, SAMPLING, seed=0) for x in (policy, loading.load_policy(tmp_path))]
    assert [response.tokens for response in told[0]] == [response.tokens for response in told[1]]


@pytest.mark.parametrize("tied", ["true", "false"])
def test_every_weight_comes_out_once_under_its_name_in_a_checkpoint(tied: str) -> None:
    policy = new_policy(f"model.tied={tied}")
    named = dict(named_weights(prepare(policy, ComputeSettings(dtype="bfloat16"), LORA, seed=0)))
    wanted = dict(new_policy(f"model.tied={tied}").named_parameters())
    assert named.keys() == wanted.keys()
    assert ("lm_head.weight" in named) == (tied == "false")
    assert all(torch.equal(named[name], wanted[name]) for name in wanted)


def test_one_plain_process_leaves_a_model_as_it_is() -> None:
    policy = new_policy()
    assert prepare(policy, ComputeSettings(), LoraSettings(), seed=0) is policy
    assert not is_sharded(policy)
    assert plain(policy) is policy


def test_bfloat16_passes_keep_float32_weights_and_learn_as_float32_ones() -> None:
    narrow = prepare(new_policy(), ComputeSettings(dtype="bfloat16"), LoraSettings(), seed=0)
    assert is_sharded(narrow)
    assert {p.dtype for p in narrow.parameters()} == {torch.float32}
    layers = []
    narrow.base_model.layers[0].mlp.register_forward_hook(lambda _, inputs, made: layers.append(made.dtype))
    losses = train(narrow, rate=0.003), train(new_policy(), rate=0.003)
    assert set(layers) == {torch.bfloat16}
    torch.testing.assert_close(torch.tensor(losses[0]), torch.tensor(losses[1]), rtol=0.01, atol=0.0)


def test_a_bfloat16_critic_has_a_float32_head(tmp_path: Path) -> None:
    """Of bfloat16 a value near 1 could only be a multiple of 1/128."""
    save_model(new_policy(), make_task(tiny().task).tokenizer(), tmp_path)
    critic = loading.load_critic(tmp_path, head_seed=1, initial_value=1.0)
    prepare(critic, ComputeSettings(dtype="bfloat16"), LoraSettings(), seed=0)
    values = forward.response_values(critic, BATCH).detach()[BATCH.response_mask]
    assert values.dtype == torch.float32
    assert (values != values.bfloat16().float()).float().mean() > 0.8


@pytest.mark.parametrize("compute", [{"offload": True}, {"dtype": "bfloat16", "gradient_checkpointing": True}])
def test_ways_of_computing_go_together(compute: dict[str, object]) -> None:
    losses = train(prepare(new_policy(), ComputeSettings(**compute), LoraSettings(), seed=0), rate=0.003)
    torch.testing.assert_close(torch.tensor(losses), torch.tensor(train(new_policy(), rate=0.003)), rtol=0.01, atol=0.0)


def test_copying_reaches_a_model_prepared_alike() -> None:
    source, into = (prepare(new_policy(seed=s), ComputeSettings(dtype="bfloat16"), LORA, seed=s) for s in (1, 2))
    copy_weights(into, source)
    torch.testing.assert_close(logprobs(into), logprobs(source))


@pytest.mark.parametrize("then", [{}, {"dtype": "bfloat16"}])
@pytest.mark.parametrize("first", [{}, {"dtype": "bfloat16"}])
def test_a_state_is_loaded_into_shards_or_none_whatever_it_was_saved_from(
    tmp_path: Path, first: dict[str, str], then: dict[str, str]
) -> None:
    one = prepare(new_policy(seed=1), ComputeSettings(**first), LoraSettings(), seed=0)
    train(one)
    save_state(tmp_path / "state.pt", {"step": 3, "policy": one.state_dict()})
    two = prepare(new_policy(seed=2), ComputeSettings(**then), LoraSettings(), seed=0)
    state = load_state(tmp_path / "state.pt")
    assert state is not None
    assert state["step"] == 3
    load_weights(two, state["policy"])
    for (name, wanted), (_, got) in zip(named_weights(one), named_weights(two), strict=True):
        assert torch.equal(wanted, got), name


def test_a_new_state_takes_the_place_of_the_old_ones_shards(tmp_path: Path) -> None:
    policy = prepare(new_policy(), ComputeSettings(dtype="bfloat16"), LoraSettings(), seed=0)
    for step in range(3):
        save_state(tmp_path / "state.pt", {"step": step, "policy": policy.state_dict()})
    assert [path.name for path in tmp_path.glob("*.shards")] == ["state-3.shards"]
    state = load_state(tmp_path / "state.pt")
    assert state is not None
    assert state["step"] == 2


@pytest.mark.parametrize("share", [1.0, 0.25])
def test_weights_mixed_after_a_pass_are_the_float32_ones(share: float) -> None:
    """A pass without gradient leaves gathered bfloat16 copies behind; a reference moved then would not move at all."""
    into, source = (
        prepare(new_policy(seed=s), ComputeSettings(dtype="bfloat16"), LoraSettings(), seed=0) for s in (1, 2)
    )
    logprobs(into), logprobs(source)
    mix_weights(into, source, share)
    wanted = new_policy(seed=1)
    for own, new in zip(wanted.parameters(), new_policy(seed=2).parameters(), strict=True):
        own.data.lerp_(new.data, share)
    for (name, got), own in zip(named_weights(into), wanted.parameters(), strict=True):
        torch.testing.assert_close(got, own.detach(), msg=name)


def test_attention_that_cannot_be_computed_here_is_told_in_one_line() -> None:
    with pytest.raises(ConfigError, match=r"compute.attention = flash_attention_2: .*to be installed") as caught:
        prepare(new_policy(), ComputeSettings(attention="flash_attention_2"), LoraSettings(), seed=0)
    assert "\n" not in str(caught.value)


def test_buffers_that_are_saved_come_out_too_and_others_do_not(tmp_path: Path) -> None:
    policy = new_policy()
    policy.model.layers[0].register_buffer("correction", torch.tensor([3.0]))
    prepare(policy, ComputeSettings(dtype="bfloat16"), LoraSettings(), seed=0)
    named = dict(named_weights(policy))
    assert named["model.layers.0.correction"].tolist() == [3.0]
    assert not [name for name in named if "rotary" in name]
    assert policy.state_dict()["model.layers.0.correction"].tolist() == [3.0]


def test_a_model_without_a_list_of_layers_cannot_be_sharded_and_says_so() -> None:
    policy = AutoModelForCausalLM.from_config(GPT2Config(vocab_size=9, n_positions=8, n_embd=8, n_layer=1, n_head=1))
    with pytest.raises(CheckpointError, match="gpt2: its base model has no list `layers` to be sharded"):
        prepare(policy, ComputeSettings(dtype="bfloat16"), LoraSettings(), seed=0)


def test_replicas_that_one_process_does_not_make_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"compute\.replicas = 4: expected a divisor of the 1 processes"):
        prepare(new_policy(), ComputeSettings(replicas=4), LoraSettings(), seed=0)

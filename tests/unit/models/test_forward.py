"""Forward passes over responses: padded or packed, by one process or shared out, with or without recomputation."""

import copy
import dataclasses
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import new_policy, plainly, random_batch, tiny
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from vcppo.errors import ConfigError, NotPreparedError
from vcppo.models import forward, loading
from vcppo.models.checkpoints import save_model
from vcppo.models.distributed import World
from vcppo.models.prepared import compute_of
from vcppo.models.sharding import prepare
from vcppo.rl.critic_update import read_final_values, read_values
from vcppo.rl.policy_update import read_logprobs
from vcppo.settings.model import ComputeSettings, LoraSettings
from vcppo.tasks import make_task

PLAIN = LoraSettings()
CPU = torch.device("cpu")
ARCHITECTURES = ["llama", "qwen2", "qwen3"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_model(new_policy(), make_task(tiny().task).tokenizer(), tmp_path / "policy")
    return tmp_path / "policy"


def random_critic(folder: Path, **options: Any) -> PreTrainedModel:
    critic = plainly(loading.load_critic(folder, head_seed=3, **options))
    torch.nn.init.normal_(forward.value_head(critic).weight, std=0.5, generator=torch.Generator().manual_seed(1))
    return critic


def test_a_model_that_was_never_prepared_is_not_computed(folder: Path) -> None:
    """Neither by a pass nor by who shares passes out; which model, and what is missing, is said."""
    policy, critic, batch = loading.load_policy(folder), loading.load_critic(folder, head_seed=0), random_batch([2, 3])
    with pytest.raises(NotPreparedError) as caught:
        forward.response_logprobs(policy, batch, 1.0)
    assert str(caught.value).startswith(f"LlamaForCausalLM from {folder}: it was never prepared, ")
    assert "expected vcppo.models.sharding.prepare(model, compute, lora, seed=...)" in str(caught.value)
    for read in (forward.response_values, forward.last_token_values):
        with pytest.raises(NotPreparedError):
            read(critic, batch)
    with pytest.raises(NotPreparedError):
        next(forward.micro_batches_of_rank(critic, batch.total_lengths, 10))
    prepare(policy, ComputeSettings(), PLAIN, seed=0)
    forward.response_logprobs(policy, batch, 1.0)


def test_a_copy_of_a_prepared_model_is_another_model() -> None:
    policy = new_policy()
    assert compute_of(policy) == ComputeSettings()
    with pytest.raises(NotPreparedError):
        compute_of(copy.deepcopy(policy))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_packed_responses_read_as_padded_ones(architecture: str) -> None:
    policy = new_policy(f"model.architecture={architecture}")
    batch = random_batch([5, 1, 9, 3])
    padded = forward.response_logprobs(policy, batch, 0.7)
    prepare(policy, ComputeSettings(packing=True), PLAIN, seed=0)
    for one, other in zip(forward.response_logprobs(policy, batch, 0.7), padded, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_a_packed_response_does_not_see_the_one_before_it() -> None:
    policy = prepare(new_policy(), ComputeSettings(packing=True), PLAIN, seed=0)
    batch = random_batch([6, 4])
    other = batch.input_ids.clone()
    other[0] = (other[0] + 1) % 20
    read = [
        forward.response_logprobs(policy, dataclasses.replace(batch, input_ids=x), 1.0)[0]
        for x in (batch.input_ids, other)
    ]
    assert not torch.equal(read[0][0], read[1][0])
    torch.testing.assert_close(read[0][1], read[1][1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "apart", "dtype"),
    [
        ("opt", False, "float32"),
        ("bloom", False, "float32"),
        ("mistral", True, "float32"),
        ("mistral", True, "bfloat16"),
        ("qwen2", True, "bfloat16"),
    ],
)
def test_a_model_whose_mask_ignores_positions_is_not_packed(kind: str, apart: bool, dtype: Any) -> None:
    """Its log-probabilities would be wrong by nats, without an error."""
    small = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
    small |= {"opt": {"ffn_dim": 24, "word_embed_proj_dim": 16}, "bloom": {"n_layer": 2, "n_head": 4}}.get(
        kind, {"num_key_value_heads": 2}
    )
    config = AutoConfig.for_model(kind, vocab_size=20, initializer_range=0.4, max_position_embeddings=64, **small)
    model = AutoModelForCausalLM.from_config(config)
    expected = (
        nullcontext() if apart else pytest.raises(ConfigError, match=rf"packing = true: .*(?i:{kind}).* see each other")
    )
    with expected:
        prepare(model, ComputeSettings(packing=True, dtype=dtype), PLAIN, seed=0)


def test_packed_values_and_last_values_read_as_padded_ones(folder: Path) -> None:
    batch = random_batch([5, 1, 9, 3])
    critic = random_critic(folder)
    values, last = forward.response_values(critic, batch), forward.last_token_values(critic, batch)
    prepare(critic, ComputeSettings(packing=True), PLAIN, seed=0)
    torch.testing.assert_close(forward.response_values(critic, batch), values, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(forward.last_token_values(critic, batch), last, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("packing", [False, True])
def test_any_token_at_any_place_has_the_log_probability_that_transformers_gives_it(packing: bool) -> None:
    """By one pass, and by passes of a row each; several tokens at one place, and places in any order."""
    policy, batch = new_policy(), random_batch([5, 1, 9, 3])
    rows, columns, tokens = torch.tensor([[2, 0, 1, 2, 3, 2], [8, 0, 0, 3, 2, 3], [4, 5, 6, 7, 8, 9]])
    places = batch.prompt_lengths[rows] + columns - 1
    with torch.no_grad():
        logprobs = (policy(input_ids=batch.input_ids).logits / 0.7).log_softmax(dim=-1)
    prepare(policy, ComputeSettings(packing=packing), PLAIN, seed=0)
    want = logprobs[rows, places, tokens]
    asked = (rows, columns, tokens, 0.7)
    torch.testing.assert_close(forward.token_logprobs(policy, batch, *asked).detach(), want, rtol=1e-5, atol=1e-5)
    for cells in (1, 1000):
        read = forward.gather_token_logprobs(policy, batch, cells, *asked)
        torch.testing.assert_close(read, want, rtol=1e-5, atol=1e-5)


def test_packed_there_are_as_many_cells_as_tokens() -> None:
    batch = random_batch([5, 1, 9, 3])
    assert forward.layout(batch, packing=True).input_ids.shape == (1, int(batch.total_lengths.sum()))
    assert forward.layout(batch, packing=False).input_ids.shape == batch.input_ids.shape


@pytest.mark.parametrize("change", [{"gradient_checkpointing": True}, {"logit_cells": 7}, {"packing": True}])
def test_how_it_is_computed_changes_no_gradient(change: dict[str, object]) -> None:
    batch = random_batch([5, 1, 9, 3])
    gradients = []
    for settings in (ComputeSettings(), ComputeSettings(**change)):
        policy = prepare(new_policy(), settings, PLAIN, seed=0)
        logprobs, entropy = forward.response_logprobs(policy, batch, 0.9)
        (logprobs.sum() + 0.1 * entropy.sum()).backward()
        gradients.append([p.grad for p in policy.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_checkpointing_really_recomputes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer's attention runs twice: forward, and once more on the way back."""
    calls = []
    for settings in (ComputeSettings(), ComputeSettings(gradient_checkpointing=True)):
        policy = prepare(new_policy(), settings, PLAIN, seed=0)
        count: list[int] = []
        policy.base_model.layers[0].self_attn.register_forward_hook(lambda *_, count=count: count.append(1))
        forward.response_logprobs(policy, random_batch([4]), 1.0)[0].sum().backward()
        calls.append(len(count))
    assert calls == [1, 2]


# ---- bounded critics, first values ----


@pytest.mark.parametrize("value", [-0.6, 0.0, 0.9])
def test_a_fresh_critics_first_values_lie_near_what_was_asked(tmp_path: Path, value: float) -> None:
    """Hidden states have about unit size, so values spread by root(128) / 129 = 0.09."""
    save_model(new_policy("model.hidden_size=128"), make_task(tiny().task).tokenizer(), tmp_path)
    for bounds in (None, (-1.0, 1.0)):
        critic = plainly(loading.load_critic(tmp_path, head_seed=3, initial_value=value, bounds=bounds))
        batch = random_batch([9, 5])
        assert (forward.response_values(critic, batch)[batch.response_mask] - value).abs().max() < 0.35


def test_a_bounded_critic_stays_in_its_range_and_is_loaded_with_it(folder: Path, tmp_path: Path) -> None:
    critic = random_critic(folder, bounds=(-1.0, 3.0))
    torch.nn.init.normal_(forward.value_head(critic).weight, std=100.0, generator=torch.Generator().manual_seed(1))
    batch = random_batch([40, 40])
    values = forward.response_values(critic, batch).detach()
    assert float(values.min()) >= -1.0
    assert float(values.max()) <= 3.0
    assert float(values.max() - values.min()) > 3.5
    save_model(critic, make_task(tiny().task).tokenizer(), tmp_path / "critic")
    torch.testing.assert_close(
        forward.response_values(plainly(loading.load_critic(tmp_path / "critic")), batch).detach(), values
    )


def test_a_value_at_the_edge_of_the_range_is_approached_within_a_percent(folder: Path) -> None:
    critic = loading.load_critic(folder, head_seed=3, initial_value=1.0, bounds=(-1.0, 1.0))
    assert torch.sigmoid(forward.value_head(critic).bias).item() == pytest.approx(0.99)


# ---- shared out ----


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("rows", [None, [4], [0, 3, 5, 6]])
def test_processes_share_every_row_once_in_equally_many_passes(
    size: int, rows: list[int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths, policy = torch.tensor([7, 3, 12, 5, 5, 9, 2]), new_policy()
    wanted = None if rows is None else torch.tensor(rows)
    shares = []
    for rank in range(size):
        monkeypatch.setattr(forward, "world", lambda rank=rank: World(rank, size, CPU))
        shares.append(list(forward.micro_batches_of_rank(policy, lengths, 15, wanted)))
    counted = sorted(row for share in shares for one in share if one.counts for row in one.rows.tolist())
    assert counted == (rows or list(range(7)))
    assert len({len(share) for share in shares}) == 1
    assert all(one.weight == (size if one.counts else 0.0) for share in shares for one in share)


@dataclasses.dataclass(frozen=True)
class Unsummed(World):
    """A process whose sums are its own part."""

    def sum(self, x: torch.Tensor) -> torch.Tensor:
        return x


def test_what_processes_read_of_tokens_adds_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three rows in passes of a row each, by two processes: one of them has an idle pass, which counts for nothing."""
    policy, batch = new_policy(), random_batch([5, 1, 9])
    asked = (*torch.tensor([[2, 0, 1, 2], [8, 0, 0, 3], [4, 5, 6, 7]]), 1.0)
    whole = forward.gather_token_logprobs(policy, batch, 1, *asked)
    parts = []
    for rank in range(2):
        monkeypatch.setattr(forward, "world", lambda rank=rank: Unsummed(rank, 2, CPU))
        parts.append(forward.gather_token_logprobs(policy, batch, 1, *asked))
    assert all(0 < int((part != 0).sum()) < 4 for part in parts)
    torch.testing.assert_close(parts[0] + parts[1], whole)


def test_nothing_to_read_takes_no_pass() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    assert list(forward.micro_batches_of_rank(new_policy(), torch.tensor([3, 4]), 10, none)) == []


def test_packed_passes_are_filled_with_tokens_and_padded_ones_with_cells() -> None:
    """Of 15: padded 12 | 9 | 7 7 | 5 5 5; packed 12 | 9 | 7 5 | 5 3 2."""
    lengths, policy = torch.tensor([7, 3, 12, 5, 5, 9, 2]), new_policy()
    padded = [own.rows.tolist() for own in forward.micro_batches_of_rank(policy, lengths, 15)]
    assert padded == [[2], [5], [0, 3], [4, 1, 6]]
    prepare(policy, ComputeSettings(packing=True), PLAIN, seed=0)
    packed = [own.rows.tolist() for own in forward.micro_batches_of_rank(policy, lengths, 15)]
    assert packed == [[2], [5], [0, 3], [4, 1, 6]]
    packed = [own.rows.tolist() for own in forward.micro_batches_of_rank(policy, lengths, 24)]
    assert packed == [[2, 5], [0, 3, 4, 1, 6]]  # 21, 22 tokens; padded the second would have 35 cells
    alone = [own.rows.tolist() for own in forward.micro_batches_of_rank(policy, lengths, 1)]
    assert alone == [[2], [5], [0], [3], [4], [1], [6]]


def test_reading_nothing_gives_zeros_of_the_right_shape(folder: Path) -> None:
    batch, none, critic = random_batch([3, 2]), torch.zeros(0, dtype=torch.int64), random_critic(folder)
    assert read_values(critic, batch, 10, none).tolist() == [[0.0] * 3] * 2
    assert read_final_values(critic, batch, 10, none).tolist() == [0.0, 0.0]
    assert read_logprobs(new_policy(), batch, temperature=1.0, max_tokens=10, rows=none).tolist() == [[0.0] * 3] * 2

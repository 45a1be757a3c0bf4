"""Families that the torch engine has no decoder for: written by their own passes, and all that is owed holds."""

from typing import Any

import pytest
import torch
from tiny import decoder_of, plainly
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from vcppo.engines import engine_note
from vcppo.engines.base import BranchPoint, Sampling
from vcppo.engines.torch.engine import TorchEngine, note_on
from vcppo.errors import CheckpointError
from vcppo.models.forward import response_logprobs
from vcppo.models.sharding import prepare
from vcppo.settings.engine import TorchEngineSettings, VllmEngineSettings
from vcppo.settings.model import ComputeSettings, LoraSettings
from vcppo.types import Generation, TokenBatch

VOCABULARY, END, NEVER = 17, 1, 16
RAGGED = [[5, 6], [3, 4, 5, 6, 7], [2], [9, 8, 7], [3, 3, 3, 3, 3, 3, 3]]
FREE = Sampling(temperature=1.0, top_p=1.0, max_tokens=12)
SMALL = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
KINDS: dict[str, dict[str, Any]] = {
    "gemma": {**SMALL, "num_key_value_heads": 2, "head_dim": 4},
    "phi": SMALL,
    "mistral": {**SMALL, "num_key_value_heads": 2, "head_dim": 4, "sliding_window": 4},
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 4},
    "olmo": SMALL,
    "smollm3": {**SMALL, "num_key_value_heads": 2, "no_rope_layer_interval": 2},
}


def model(kind: str, *, seed: int = 0) -> PreTrainedModel:
    config = AutoConfig.for_model(
        kind, vocab_size=VOCABULARY, initializer_range=0.4, max_position_embeddings=64, **KINDS.get(kind, SMALL)
    )
    config.eos_token_id, config.bos_token_id, config.pad_token_id = END, None, None
    return plainly(decoder_of(config, seed=seed))


@pytest.fixture(params=KINDS)
def policy(request: pytest.FixtureRequest) -> PreTrainedModel:
    return model(request.param)


def batch_of(prompts: list[list[int]], responses: list[Generation]) -> TokenBatch:
    rows = [torch.tensor([*prompt, *response.tokens]) for prompt, response in zip(prompts, responses, strict=True)]
    lengths = torch.tensor([len(response.tokens) for response in responses])
    return TokenBatch(
        input_ids=torch.nn.utils.rnn.pad_sequence(rows, batch_first=True),
        prompt_lengths=torch.tensor([len(prompt) for prompt in prompts]),
        response_mask=torch.arange(int(lengths.max()))[None] < lengths[:, None],
    )


def logits_of_one_row(policy: PreTrainedModel, tokens: list[int]) -> Tensor:
    with torch.inference_mode():
        logits: Tensor = policy(input_ids=torch.tensor([tokens]), use_cache=False).logits[0]
    return logits


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_logprobs_are_those_that_training_reads(policy: PreTrainedModel, temperature: float) -> None:
    """And those of a plain pass: a bias of the output head, which Phi has, is in both."""
    prompts = RAGGED * 3
    responses = TorchEngine(policy).generate(prompts, Sampling(temperature, 1.0, 12), seed=0)
    read, _ = response_logprobs(policy, batch_of(prompts, responses), temperature)
    for prompt, response, row in zip(prompts, responses, read.detach(), strict=True):
        written = torch.tensor(response.logprobs)
        torch.testing.assert_close(row[: len(written)], written, rtol=1e-4, atol=1e-4)
        logits = logits_of_one_row(policy, [*prompt, *response.tokens])[len(prompt) - 1 : -1]
        plain = torch.log_softmax(logits / temperature, dim=-1).gather(1, torch.tensor(response.tokens)[:, None])[:, 0]
        torch.testing.assert_close(written, plain, rtol=1e-4, atol=1e-4)


def test_greedy_sequences_are_those_of_generate(policy: PreTrainedModel) -> None:
    responses = TorchEngine(policy).generate(RAGGED, Sampling(0.0, 1.0, 10), seed=0)
    for prompt, response in zip(RAGGED, responses, strict=True):
        ids = torch.tensor([prompt])
        written = policy.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=10,
            eos_token_id=END,
            pad_token_id=0,
        )[0, len(prompt) :]
        assert list(response.tokens) == written.tolist()


def test_a_response_does_not_depend_on_its_company(policy: PreTrainedModel) -> None:
    together = TorchEngine(policy).generate(RAGGED, FREE, seed=3)
    apart = [TorchEngine(policy).generate([prompt], FREE, seed=3, first=i)[0] for i, prompt in enumerate(RAGGED)]
    assert [response.tokens for response in together] == [response.tokens for response in apart]
    assert together == TorchEngine(policy).generate(RAGGED, FREE, seed=3)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_long_prompt_that_comes_several_times_is_read_once(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As often as it is asked, in any order, among others; short ones are read as they come."""
    policy, rng = model(kind), torch.Generator().manual_seed(0)
    long, other = (torch.randint(2, VOCABULARY, (count,), generator=rng).tolist() for count in (33, 20))
    prompts = [long, other, long, [3], long, other]
    engine, read = TorchEngine(policy), []
    start = engine._decoder.start
    monkeypatch.setattr(engine._decoder, "start", lambda given, **room: read.append(len(given)) or start(given, **room))
    responses = engine.generate(prompts, FREE, seed=2)
    apart = [TorchEngine(policy).generate([prompt], FREE, seed=2, first=i)[0] for i, prompt in enumerate(prompts)]
    assert [response.tokens for response in responses] == [response.tokens for response in apart]
    for one, alone in zip(responses, apart, strict=True):
        torch.testing.assert_close(torch.tensor(one.logprobs), torch.tensor(alone.logprobs), rtol=1e-4, atol=1e-4)
    engine.generate([other, other, [3]], FREE, seed=2)
    assert read == [3, 3]


def test_a_continuation_is_a_response_to_its_prefix(policy: PreTrainedModel) -> None:
    """Rows leave the batch at limits of their own, so the cache is compacted too."""
    stems = [[5, 6, 7, 8], [3, 4, 5, 6, 7]]
    points = [BranchPoint(stem, length, limit) for stem in (0, 1) for length, limit in ((2, 9), (4, 3), (4, 1))]
    engine = TorchEngine(policy)
    continued = engine.branch(stems, points, FREE, seed=5)
    for i, (point, response) in enumerate(zip(points, continued, strict=True)):
        sampling = Sampling(1.0, 1.0, FREE.max_tokens)
        alone = engine.generate([stems[point.stem][: point.length]], sampling, seed=5, first=i)[0]
        assert response.tokens == alone.tokens[: point.limit]


def test_a_model_that_recomputes_its_layers_writes_what_it_would_without(policy: PreTrainedModel) -> None:
    """It is in training mode, in which transformers drops the cache, and every token would follow the last alone."""
    engine = TorchEngine(policy)
    before = engine.generate(RAGGED, FREE, seed=3)
    prepared = prepare(policy, ComputeSettings(gradient_checkpointing=True), LoraSettings(), seed=0)
    assert prepared.training
    assert engine.generate(RAGGED, FREE, seed=3) == before
    assert prepared.training
    assert all(module.training for module in prepared.modules())


@pytest.mark.parametrize("kind", ["gpt2", "opt"])
def test_rows_that_ended_and_wait_run_into_no_end_of_positions(kind: str) -> None:
    """Positions that are learnt end at 64: the first row ends there with 4 tokens, nine others may have 40."""
    engine = TorchEngine(model(kind))
    engine._ends = ()
    long, short = list(range(2, 12)) * 6, [2, 3]
    points = [BranchPoint(0, 60, 4), *[BranchPoint(1, 2, 40)] * 9]
    branched = engine.branch([long, short], points, Sampling(1.0, 1.0, 40), seed=5)
    assert [len(response.tokens) for response in branched] == [4, *[40] * 9]
    alone = engine.generate([long], Sampling(1.0, 1.0, 4), seed=5)[0]
    assert branched[0].tokens == alone.tokens


def test_weights_given_later_are_the_ones_used() -> None:
    engine = TorchEngine(model("gpt2"))
    before = engine.generate(RAGGED, FREE, seed=0)
    engine.update_weights(model("gpt2", seed=1))
    assert engine.generate(RAGGED, FREE, seed=0) != before


@pytest.mark.parametrize("kind", KINDS)
def test_one_note_says_that_it_is_the_slow_way(kind: str) -> None:
    note = note_on(model(kind).config)
    assert note is not None
    assert note.startswith(f"{kind}: its responses are written by transformers' forward passes")


def test_a_family_with_a_decoder_of_its_own_has_no_note_but_with_sliding_windows() -> None:
    plain = AutoConfig.for_model("qwen2", **SMALL)
    assert note_on(plain) is None
    windowed = AutoConfig.for_model("qwen2", **SMALL, use_sliding_window=True, max_window_layers=1, sliding_window=4)
    assert str(note_on(windowed)).startswith("qwen2 with sliding windows: ")


def test_another_engine_has_a_decoder_for_every_family() -> None:
    config = model("gpt2").config
    assert engine_note(VllmEngineSettings(), config) is None
    assert engine_note(TorchEngineSettings(), config) == note_on(config)


def test_a_model_without_a_cache_of_keys_and_values_is_told_in_one_line() -> None:
    config = AutoConfig.for_model("mamba", hidden_size=8, num_hidden_layers=1, vocab_size=VOCABULARY, state_size=4)
    with pytest.raises(CheckpointError, match=r"^mamba: its forward passes take no past_key_values, so the torch"):
        TorchEngine(AutoModelForCausalLM.from_config(config))

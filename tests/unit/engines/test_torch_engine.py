"""The torch engine says what transformers would say, and its responses do not know each other."""

import pytest
import torch
from torch import Tensor
from torch_engines import END, FREE, RAGGED, VOCABULARY, assert_agrees, model
from transformers import PreTrainedModel

from vcppo.engines.base import BranchPoint, Sampling
from vcppo.engines.torch.decoder import Decoder
from vcppo.engines.torch.engine import TorchEngine, outside_nucleus, sample
from vcppo.errors import ConfigError, TrainingError


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_logprobs_are_those_of_transformers(policy: PreTrainedModel, temperature: float) -> None:
    responses = TorchEngine(policy).generate(RAGGED * 4, Sampling(temperature, 1.0, 12), seed=0)
    assert_agrees(policy, RAGGED * 4, responses, temperature)
    assert len({len(response.tokens) for response in responses}) > 1  # some ended, rows were dropped


def test_prompts_of_one_length_agree_too(policy: PreTrainedModel) -> None:
    prompts = [[3, 4, 5], [6, 7, 8], [2, 2, 2]]
    assert_agrees(policy, prompts, TorchEngine(policy).generate(prompts, FREE, seed=1), 1.0)


@pytest.mark.parametrize("prompts", [RAGGED, [[2, 3]] * 3])
def test_the_cache_may_grow_many_times(prompts: list[list[int]]) -> None:
    policy = model("qwen3", num_key_value_heads=2, end=-1)
    responses = TorchEngine(policy).generate(prompts, Sampling(1.0, 1.0, 300), seed=0)
    assert [len(response.tokens) for response in responses] == [300] * len(prompts)
    assert_agrees(policy, prompts, responses, 1.0)


@pytest.mark.parametrize("room", [1, 2, 63, 64, 65, 66, 129])
def test_any_room_is_enough_room(room: int) -> None:
    policy = model(end=-1)
    responses = TorchEngine(policy).generate([[2, 3], [4]], Sampling(1.0, 1.0, room), seed=0)
    assert [len(response.tokens) for response in responses] == [room, room]
    assert_agrees(policy, [[2, 3], [4]], responses, 1.0)


def test_a_decoder_step_by_step_with_rows_dropped_is_a_plain_forward_pass(policy: PreTrainedModel) -> None:
    rows = torch.randint(2, VOCABULARY, (4, 20), generator=torch.Generator().manual_seed(0))
    starts = [6, 2, 4, 3]
    decoder = Decoder(policy)
    alive = torch.arange(4)
    with torch.inference_mode():
        logits = decoder.start([row[:start].tolist() for row, start in zip(rows, starts, strict=True)], room=10)
        for t in range(9):
            for place, row in enumerate(alive.tolist()):
                want = policy(input_ids=rows[row : row + 1, : starts[row] + t]).logits[0, -1]
                torch.testing.assert_close(logits[place], want, rtol=1e-4, atol=1e-4)
            if t in (3, 6):
                live = torch.arange(len(alive)) != t % len(alive)
                decoder.keep(live)
                alive = alive[live]
            logits = decoder.step(torch.stack([rows[row, starts[row] + t] for row in alive.tolist()]))


def test_a_response_does_not_depend_on_its_company() -> None:
    engine = TorchEngine(model())
    together = engine.generate(RAGGED, FREE, seed=7)
    others = engine.generate([[7] * 9 if i != 2 else prompt for i, prompt in enumerate(RAGGED)], FREE, seed=7)
    assert others[2].tokens == together[2].tokens
    assert others[2].stop_reason == together[2].stop_reason
    torch.testing.assert_close(
        torch.tensor(others[2].logprobs), torch.tensor(together[2].logprobs), rtol=1e-5, atol=1e-5
    )
    fewer = engine.generate(RAGGED[:3], FREE, seed=7)
    assert [response.tokens for response in fewer] == [response.tokens for response in together[:3]]


def test_the_same_seed_repeats_to_the_bit_and_another_does_not() -> None:
    engine = TorchEngine(model())
    first = engine.generate(RAGGED, FREE, seed=3)
    assert engine.generate(RAGGED, FREE, seed=3) == first
    assert engine.generate(RAGGED, FREE, seed=4) != first
    assert len({response.tokens for response in engine.generate([[5, 6]] * 6, FREE, seed=3)}) > 1  # a stream a row


def test_what_ended_ends_with_the_end_token_and_what_was_cut_does_not() -> None:
    responses = TorchEngine(model()).generate([[5, 6], [2], [9, 9, 9]] * 20, Sampling(1.0, 1.0, 8), seed=0)
    assert {response.stop_reason for response in responses} == {"stop", "length"}
    for response in responses:
        assert len(response.tokens) == len(response.logprobs)
        assert END not in response.tokens[:-1]
        assert (response.tokens[-1] == END) == (response.stop_reason == "stop")
        assert response.stop_reason == "stop" or len(response.tokens) == 8


def test_tokens_come_as_often_as_their_probability_says() -> None:
    policy = model(end=-1)
    responses = TorchEngine(policy).generate([[5, 6, 7]] * 20000, Sampling(1.3, 1.0, 1), seed=0)
    counts = torch.bincount(torch.tensor([response.tokens[0] for response in responses]), minlength=VOCABULARY)
    with torch.inference_mode():
        want = torch.softmax(policy(input_ids=torch.tensor([[5, 6, 7]])).logits[0, -1] / 1.3, dim=-1)
    error = (counts / 20000 - want).abs() / (want * (1 - want) / 20000).sqrt()
    assert float(error.max()) < 4.5  # standard errors, 17 tokens


@pytest.mark.parametrize("temperature", [0.0, 1e-4])
def test_the_coldest_temperature_and_greedy_decoding_take_the_likeliest_token(temperature: float) -> None:
    policy = model("qwen2", end=-1)
    responses = TorchEngine(policy).generate(RAGGED, Sampling(temperature, 1.0, 10), seed=0)
    for prompt, response in zip(RAGGED, responses, strict=True):
        ids = list(prompt)
        for _ in range(10):
            with torch.inference_mode():
                ids.append(int(policy(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        assert tuple(ids[len(prompt) :]) == response.tokens


def test_greedy_decoding_has_no_seed_and_the_log_probabilities_of_temperature_one(policy: PreTrainedModel) -> None:
    engine = TorchEngine(policy)
    responses = engine.generate(RAGGED, Sampling(0.0, 0.3, 12), seed=0)
    assert engine.generate(RAGGED, Sampling(0.0, 1.0, 12), seed=1) == responses
    assert_agrees(policy, RAGGED, responses, 1.0)
    points = [BranchPoint(i, len(prompt), 12) for i, prompt in enumerate(RAGGED)]
    again = engine.branch(RAGGED, points, Sampling(0.0, 1.0, 12), seed=2)
    assert [response.tokens for response in again] == [response.tokens for response in responses]


@pytest.mark.parametrize("temperature", [-1.0, -1e-9, 1e-300, 1e-39, 1e-10, 9e-5, float("nan")])
def test_a_temperature_that_logits_could_overflow_at_is_refused(temperature: float) -> None:
    with pytest.raises(ConfigError, match=r"expected 0, which is greedy decoding, or 0\.0001 or more"):
        Sampling(temperature, 1.0, 4)


@pytest.mark.parametrize("sampling", [FREE, Sampling(1.0, 0.5, 12), Sampling(0.0, 1.0, 12)])
@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("lm_head", float("nan")),
        ("lm_head", float("inf")),
        ("lm_head", 3e38),  # finite, but the logits are not
        ("model.embed_tokens", float("nan")),
        ("model.norm", float("inf")),
        ("model.layers.0.mlp.down_proj", -float("inf")),
        ("model.layers.1.self_attn.q_proj", float("nan")),
    ],
)
def test_logits_that_are_not_finite_are_one_line_with_the_policy(part: str, value: float, sampling: Sampling) -> None:
    policy = model()
    policy.name_or_path = "somebody/broken"
    with torch.no_grad():
        policy.get_submodule(part).weight.fill_(value)
    said = (
        r"LlamaForCausalLM from somebody/broken: its logits for token \d+ of response 0 are not finite, nothing can be"
    )
    engine = TorchEngine(policy)
    with pytest.raises(TrainingError, match=said):
        engine.generate(RAGGED, sampling, seed=0)
    with pytest.raises(TrainingError, match=said):
        engine.branch(RAGGED, [BranchPoint(0, 2, 5)], sampling, seed=0)


def test_one_response_whose_logits_are_not_finite_is_told_by_its_number() -> None:
    policy = model()
    with torch.no_grad():
        policy.model.embed_tokens.weight[9] = float("nan")
    engine = TorchEngine(policy)
    engine.generate([[5, 6]], Sampling(0.0, 1.0, 1), seed=0)
    with pytest.raises(TrainingError, match="for token 0 of response 3 are not finite"):
        engine.generate(RAGGED, Sampling(1.0, 1.0, 1), seed=0)


def test_the_nucleus_holds_the_likeliest_tokens_that_reach_top_p_and_no_other() -> None:
    logits = torch.log(torch.tensor([[0.1, 0.5, 0.3, 0.1]])).expand(1000, 4)
    uniforms = torch.linspace(0, 0.999, 1000)
    for top_p, allowed in [(0.4, {1}), (0.6, {1, 2}), (0.79, {1, 2}), (1.0, {0, 1, 2, 3})]:
        tokens, _ = sample(logits, uniforms, Sampling(1.0, top_p, 1))
        assert set(tokens.tolist()) == allowed
    tokens, _ = sample(logits, uniforms, Sampling(1.0, 0.6, 1))
    assert abs(float((tokens == 1).float().mean()) - 5 / 8) < 0.01


@pytest.mark.parametrize("spread", [8.0, 0.1])
@pytest.mark.parametrize("vocabulary", [300, 3000, 9000])
def test_a_nucleus_is_the_same_however_much_is_sorted(vocabulary: int, spread: float) -> None:
    """Spread out, the nucleus is within the likeliest tokens; nearly even, it is most of the vocabulary."""
    rng = torch.Generator().manual_seed(0)
    weights = (spread * torch.randn((4, vocabulary), generator=rng)).softmax(dim=-1)
    for top_p in (0.1, 0.7, 0.99):
        outside = outside_nucleus(weights, top_p)
        for row, left_out in zip(weights, outside, strict=True):
            ordered, order = row.double().sort(descending=True)
            likelier = torch.empty_like(ordered).scatter(0, order, ordered.cumsum(dim=0) - ordered)  # mass of those
            clear = (likelier - top_p).abs() > 1e-5
            assert torch.equal(left_out[clear], (likelier >= top_p)[clear])


def test_a_large_vocabulary_is_not_sorted_for_a_nucleus(monkeypatch: pytest.MonkeyPatch) -> None:
    sorts = []
    plain = Tensor.sort
    monkeypatch.setattr(Tensor, "sort", lambda *given, **named: sorts.append(1) or plain(*given, **named))
    logits = torch.randn((3, 5000), generator=torch.Generator().manual_seed(0)) * 8
    sample(logits, torch.tensor([0.1, 0.5, 0.9]), Sampling(1.0, 0.7, 1))
    assert sorts == []
    sample(logits * 0, torch.tensor([0.1, 0.5, 0.9]), Sampling(1.0, 0.9, 1))  # no 4,096 of 5,000 equal ones have it
    assert sorts == [1]


def test_weights_given_later_are_the_ones_used() -> None:
    first, second = model(seed=0), model(seed=1)
    engine = TorchEngine(first)
    before = engine.generate(RAGGED, FREE, seed=0)
    engine.update_weights(second)
    after = engine.generate(RAGGED, FREE, seed=0)
    assert after != before
    assert_agrees(second, RAGGED, after, 1.0)
    with torch.no_grad():
        for parameter in second.parameters():
            parameter.mul_(1.1)
    engine.update_weights(second)
    assert_agrees(second, RAGGED, engine.generate(RAGGED, FREE, seed=0), 1.0)


def test_sampling_leaves_the_global_random_state_alone() -> None:
    before = torch.get_rng_state()
    TorchEngine(model()).generate(RAGGED, FREE, seed=0)
    assert torch.equal(torch.get_rng_state(), before)

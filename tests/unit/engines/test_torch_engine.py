"""The torch engine says what transformers would say, and its responses do not know each other."""

import dataclasses
from typing import Any

import pytest
import torch
from tiny import decoder_of
from torch import Tensor
from transformers import AutoConfig, PreTrainedModel

from vcppo.engines.base import BranchPoint, Sampling
from vcppo.engines.distributed import SharedEngine
from vcppo.engines.torch.decoder import Decoder
from vcppo.engines.torch.engine import TorchEngine, outside_nucleus, sample
from vcppo.errors import ConfigError, TrainingError
from vcppo.models.distributed import World
from vcppo.types import Generation

VOCABULARY, END = 17, 1
RAGGED = [[5, 6], [3, 4, 5, 6, 7], [2], [9, 8, 7], [3, 3, 3, 3, 3, 3, 3]]
FREE = Sampling(temperature=1.0, top_p=1.0, max_tokens=12)


def model(kind: str = "llama", *, seed: int = 0, end: int = END, **options: object) -> PreTrainedModel:
    shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "head_dim": 4}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": VOCABULARY}
    config = AutoConfig.for_model(
        kind, **{**shape, **heads, "initializer_range": 0.4, "max_position_embeddings": 512, **options}
    )
    config.eos_token_id, config.bos_token_id, config.pad_token_id = end, None, 0
    return decoder_of(config, seed=seed)


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


def reference_logprobs(
    policy: PreTrainedModel, prompt: list[int], tokens: tuple[int, ...], temperature: float
) -> Tensor:
    """Of each generated token, from one plain forward pass over one row."""
    with torch.inference_mode():
        logits = policy(input_ids=torch.tensor([[*prompt, *tokens]]), use_cache=False).logits[0]
    rows = torch.log_softmax(logits[len(prompt) - 1 : -1] / temperature, dim=-1)
    return rows.gather(1, torch.tensor(tokens)[:, None])[:, 0]


def assert_agrees(
    policy: PreTrainedModel, prompts: list[list[int]], responses: list[Generation], temperature: float
) -> None:
    for prompt, response in zip(prompts, responses, strict=True):
        want = reference_logprobs(policy, prompt, response.tokens, temperature)
        torch.testing.assert_close(torch.tensor(response.logprobs), want, rtol=1e-4, atol=1e-4)


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


def stems_of(policy: PreTrainedModel, *, tokens: int = 14) -> list[list[int]]:
    """Ragged prompts with responses, as they were sampled."""
    responses = TorchEngine(policy).generate(RAGGED, Sampling(1.0, 1.0, tokens), seed=5)
    return [[*prompt, *response.tokens] for prompt, response in zip(RAGGED, responses, strict=True)]


def everywhere(stems: list[list[int]], *, limit: int, times: int = 1) -> list[BranchPoint]:
    """Every place of every stem, the stems in turn, so that neighbours share nothing."""
    places = [(n, s) for s, stem in enumerate(stems) for n in range(1, len(stem)) if stem[n - 1] != END]
    return [BranchPoint(s, n, limit) for n, s in sorted(places) for _ in range(times)]


def prefixes(stems: list[list[int]], points: list[BranchPoint]) -> list[list[int]]:
    return [stems[point.stem][: point.length] for point in points]


def test_continuations_have_the_logprobs_of_transformers(policy: PreTrainedModel) -> None:
    stems = stems_of(policy)
    points = everywhere(stems, limit=12, times=2)[::3]
    responses = TorchEngine(policy).branch(stems, points, Sampling(0.8, 1.0, 12), seed=0)
    assert_agrees(policy, prefixes(stems, points), responses, 0.8)
    assert len({len(response.tokens) for response in responses}) > 1  # some ended, rows were dropped


def test_a_cold_continuation_takes_the_likeliest_tokens(policy: PreTrainedModel) -> None:
    stems = stems_of(policy)
    points = everywhere(stems, limit=6)[::3]
    responses = TorchEngine(policy).branch(stems, points, Sampling(0.0, 1.0, 6), seed=0)
    for prefix, response in zip(prefixes(stems, points), responses, strict=True):
        with torch.inference_mode():  # each token is the likeliest after all before it: what greedy decoding writes
            likeliest = policy(input_ids=torch.tensor([[*prefix, *response.tokens]])).logits[0, len(prefix) - 1 : -1]
        assert response.tokens == tuple(likeliest.argmax(dim=-1).tolist())
        assert len(response.tokens) == 6 or response.tokens[-1] == END


def test_to_continue_a_prompt_is_to_respond_to_it(policy: PreTrainedModel) -> None:
    engine, stems = TorchEngine(policy), stems_of(policy)
    ends = [BranchPoint(i, len(prompt), 12) for i, prompt in enumerate(RAGGED)]
    responses = engine.generate(RAGGED, FREE, seed=3)
    for found in (engine.branch(RAGGED, ends, FREE, seed=3), engine.branch(stems, ends, FREE, seed=3)):
        assert [response.tokens for response in found] == [response.tokens for response in responses]
        assert [response.stop_reason for response in found] == [response.stop_reason for response in responses]


@pytest.mark.parametrize("rows", [3, 20])
def test_a_continuation_does_not_depend_on_its_company(rows: int) -> None:
    policy = model()
    stems = stems_of(policy)
    points = everywhere(stems, limit=12, times=2)
    together = TorchEngine(policy).branch(stems, points, FREE, seed=7)
    in_blocks = TorchEngine(policy, rows=rows).branch(stems, points, FREE, seed=7)
    fewer = TorchEngine(policy).branch(stems, points[:9], FREE, seed=7)
    for found in (in_blocks, fewer):
        for one, other in zip(found, together, strict=False):
            assert (one.tokens, one.stop_reason) == (other.tokens, other.stop_reason)
            torch.testing.assert_close(torch.tensor(one.logprobs), torch.tensor(other.logprobs), rtol=1e-4, atol=1e-5)
    assert (len(in_blocks), len(fewer)) == (len(points), 9)
    others = [point if i == 4 else BranchPoint(0, 2, 5) for i, point in enumerate(points)]
    assert TorchEngine(policy).branch(stems, others, FREE, seed=7)[4].tokens == together[4].tokens


@pytest.mark.parametrize("rows", [4, 512])
def test_a_stem_is_read_once(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[tuple[int, ...]] = []
    plain = Decoder.read
    monkeypatch.setattr(
        Decoder, "read", lambda self, stems: read.extend(tuple(stem) for stem in stems) or plain(self, stems)
    )
    policy = model()
    stems = stems_of(policy)
    TorchEngine(policy, rows=rows).branch(stems, everywhere(stems, limit=3, times=3), FREE, seed=0)
    assert sorted(read) == sorted(tuple(stem) for stem in stems)


def test_no_more_than_the_rows_allowed_are_held_together(monkeypatch: pytest.MonkeyPatch) -> None:
    stems_read: list[int] = []
    rows_forked: list[int] = []
    read, fork = Decoder.read, Decoder.fork
    monkeypatch.setattr(Decoder, "read", lambda self, stems: stems_read.append(len(stems)) or read(self, stems))
    monkeypatch.setattr(
        Decoder,
        "fork",
        lambda self, read, owners, lengths, *, room: (
            rows_forked.append(len(owners)) or fork(self, read, owners, lengths, room=room)
        ),
    )
    points = [BranchPoint(i, 1, 3) for i in range(5)] + [BranchPoint(0, 1, 3)] * 9 + [BranchPoint(3, 2, 3)] * 2
    TorchEngine(model(), rows=4).branch(RAGGED, points, FREE, seed=0)
    assert stems_read == [1, 2, 2]  # 10 rows on the first stem, then 1, 1, 3 and 1
    assert rows_forked == [4, 4, 2, 2, 4]


def test_rows_at_their_limit_leave_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    step = Decoder.step
    monkeypatch.setattr(Decoder, "step", lambda self, tokens: sizes.append(len(tokens)) or step(self, tokens))
    points = [BranchPoint(i % 5, 1, 2 if i < 8 else 6) for i in range(10)]
    TorchEngine(model(end=-1)).branch(RAGGED, points, FREE, seed=0)
    assert sizes == [10, 2, 2, 2, 2]


def test_each_continuation_stops_at_its_own_limit() -> None:
    policy = model(end=-1)
    points = [BranchPoint(i % len(RAGGED), 1, 1 + 3 * i % 11) for i in range(20)]
    responses = TorchEngine(policy).branch(RAGGED, points, Sampling(1.0, 1.0, 9), seed=0)
    assert [len(response.tokens) for response in responses] == [min(point.limit, 9) for point in points]
    assert {response.stop_reason for response in responses} == {"length"}
    assert_agrees(policy, prefixes(RAGGED, points), responses, 1.0)


def test_a_longer_limit_only_adds_tokens() -> None:
    policy = model()
    points = [BranchPoint(i % len(RAGGED), 1, 3) for i in range(40)]
    short = TorchEngine(policy).branch(RAGGED, points, FREE, seed=0)
    longer = [dataclasses.replace(point, limit=12) for point in points]
    for one, other in zip(short, TorchEngine(policy).branch(RAGGED, longer, FREE, seed=0), strict=True):
        assert one.tokens == other.tokens[:3]
        assert one.stop_reason == ("stop" if END in one.tokens else "length")


def test_continuations_of_one_place_come_as_often_as_their_probability_says() -> None:
    policy = model(end=-1)
    stem, times = [5, 6, 7, 4, 3], 20000
    responses = TorchEngine(policy).branch([stem], [BranchPoint(0, 3, 1)] * times, FREE, seed=0)
    counts = torch.bincount(torch.tensor([response.tokens[0] for response in responses]), minlength=VOCABULARY)
    with torch.inference_mode():
        want = torch.softmax(policy(input_ids=torch.tensor([stem[:3]])).logits[0, -1], dim=-1)
    assert float(((counts / times - want).abs() / (want * (1 - want) / times).sqrt()).max()) < 4.5  # standard errors


def test_long_continuations_may_grow_the_cache_many_times() -> None:
    policy = model("qwen3", num_key_value_heads=2, end=-1)
    points = [BranchPoint(1, 2, 300), BranchPoint(4, 7, 200), BranchPoint(1, 5, 130)]
    responses = TorchEngine(policy).branch(RAGGED, points, Sampling(1.0, 1.0, 300), seed=0)
    assert [len(response.tokens) for response in responses] == [300, 200, 130]
    assert_agrees(policy, prefixes(RAGGED, points), responses, 1.0)


def test_nothing_to_continue_gives_nothing() -> None:
    assert TorchEngine(model()).branch(RAGGED, [], FREE, seed=0) == []


@pytest.mark.parametrize(
    ("point", "said"),
    [
        (BranchPoint(1, 1, 5), "there are 1 stems"),
        (BranchPoint(0, 0, 5), "its stem has 3 tokens"),
        (BranchPoint(0, 4, 5), "its stem has 3 tokens"),
        (BranchPoint(0, 1, 0), "nothing to write"),
        (BranchPoint(0, 3, 5), "the response has ended there"),
    ],
)
def test_a_place_that_cannot_be_continued_is_told(point: BranchPoint, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        TorchEngine(model()).branch([[5, 6, END]], [point], FREE, seed=0)


# ---- shares of a batch, several ends ----


@pytest.mark.parametrize("rows", [3, 512])
def test_responses_numbered_from_anywhere_are_those_of_the_whole_batch(rows: int) -> None:
    engine = TorchEngine(model(), rows=rows)
    prompts = RAGGED * 4
    together = engine.generate(prompts, FREE, seed=5)
    cut = len(prompts) // 3
    parts = engine.generate(prompts[:cut], FREE, seed=5) + engine.generate(prompts[cut:], FREE, seed=5, first=cut)
    assert [response.tokens for response in parts] == [response.tokens for response in together]
    points = [BranchPoint(i % len(RAGGED), len(RAGGED[i % len(RAGGED)]), 6) for i in range(9)]
    whole = engine.branch(RAGGED, points, FREE, seed=5)
    parts = engine.branch(RAGGED, points[:4], FREE, seed=5) + engine.branch(RAGGED, points[4:], FREE, seed=5, first=4)
    assert [response.tokens for response in parts] == [response.tokens for response in whole]


@pytest.mark.parametrize("size", [2, 3, 40])
def test_processes_that_share_a_batch_write_what_one_would(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each process writes its share alone; then every one of them is told all of it."""
    policy, prompts = model(), RAGGED * 3
    wanted = TorchEngine(policy).generate(prompts, FREE, seed=5)
    written: dict[int, list[object]] = {}

    def hear(self: World, own: list[object]) -> list[object]:
        written[self.rank] = own
        return own

    monkeypatch.setattr(World, "gather", hear)
    for rank in range(size):
        engine = SharedEngine(TorchEngine(policy), World(rank, size, torch.device("cpu")))
        engine.generate(prompts, FREE, seed=5)
    everything = [packed for rank in range(size) for packed in written[rank]]
    monkeypatch.setattr(World, "gather", lambda self, own: everything)
    heard = SharedEngine(TorchEngine(policy), World(0, size, torch.device("cpu"))).generate(prompts, FREE, seed=5)
    assert [response.tokens for response in heard] == [response.tokens for response in wanted]
    assert [response.stop_reason for response in heard] == [response.stop_reason for response in wanted]


def test_any_of_several_ends_ends_a_response() -> None:
    """A chat model may name its ends in its generation config, beside the one in its config."""
    policy = model(end=-1)
    policy.generation_config.eos_token_id = [3, 7]
    responses = TorchEngine(policy).generate(RAGGED * 20, Sampling(1.0, 1.0, 40), seed=0)
    last = {response.tokens[-1] for response in responses if response.stop_reason == "stop"}
    assert last == {3, 7}
    assert not any({3, 7} & set(response.tokens[:-1]) for response in responses)

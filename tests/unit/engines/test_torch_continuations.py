"""Continuations by the torch engine; shares of a batch, and several tokens that end a response."""

import dataclasses

import pytest
import torch
from torch_engines import END, FREE, RAGGED, VOCABULARY, assert_agrees, model
from transformers import PreTrainedModel

from vcppo.engines.base import BranchPoint, Sampling
from vcppo.engines.distributed import SharedEngine
from vcppo.engines.torch.decoder import Decoder
from vcppo.engines.torch.engine import TorchEngine
from vcppo.models.distributed import World


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

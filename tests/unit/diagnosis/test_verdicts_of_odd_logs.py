"""Exact critics whose logs are not plain get no alarm, and critics that are ill get theirs on such logs too."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from judging import codes, data_of, judged, verdicts
from planted_critics import PLANTED, ahead, reading_of
from torch.nn.utils.rnn import pad_sequence

from vcppo.diagnosis.faults import allowed_bias, knows_only
from vcppo.diagnosis.mismatches import misread
from vcppo.diagnosis.responses import Reading
from vcppo.diagnosis.schema import Alignment, Estimate
from vcppo.diagnosis.verdicts import judge


def last_turns(reading: Reading) -> Reading:
    """Responses of two turns: 2 to 6 tokens of each have moved into its context, so that V begins anywhere."""
    drawn = np.random.default_rng(0)
    assert reading.tokens is not None
    rows, states = [], []
    for row, length in enumerate(reading.response_mask.sum(dim=1).tolist()):
        cut = min(int(drawn.integers(2, 7)), length - 1)
        rows.append(torch.arange(reading.values.shape[1]).roll(-cut))
        states.append((int(reading.problem[row]), tuple(reading.tokens[row, :cut].tolist())))
    at = torch.stack(rows)
    columns = {name: getattr(reading, name).gather(1, at) for name in ("values", "returns", "tokens")}
    lengths = reading.response_mask.sum(dim=1) - torch.tensor([len(tokens) for _, tokens in states])
    mask = torch.arange(at.shape[1]) < lengths[:, None]
    numbers = {state: number for number, state in enumerate(dict.fromkeys(states))}
    return replace(
        reading, **columns, response_mask=mask, first_state=torch.tensor([numbers[state] for state in states])
    )


def test_last_turns_differ_before_their_tokens_do_and_are_read_in_place() -> None:
    reading = last_turns(reading_of(150, 8, seed=3))
    assert codes(reading) == ["healthy"]
    assert "misaligned" in codes(replace(reading, first_state=None)), "as if V knew the prompt alone"


def test_last_turns_that_are_read_one_ahead_are_found() -> None:
    reading = last_turns(ahead(reading_of(150, 16, seed=3)))
    assert codes(reading) == ["off-by-one"]


def test_a_critic_that_changes_between_steps_is_read_in_place() -> None:
    """Every second response to a prompt is of the next step, where values are a little higher."""
    reading = reading_of(150, 8, seed=3)
    step = torch.arange(len(reading.scores)) % 2
    drifting = replace(reading, values=reading.values + 0.3 * step[:, None] - 0.15)
    assert codes(replace(drifting, first_state=2 * reading.problem + step)) == ["healthy"]
    assert "misaligned" in codes(drifting)


def neutral_word(reading: Reading) -> Reading:
    """Two responses to one prompt, that go up and down, after one word or the other, which leave V as it was."""
    assert reading.tokens is not None
    up, down = ((reading.tokens[:8, :2] == way).all(dim=1).nonzero()[0] for way in (1, 0))
    single = reading.take(torch.cat([up, down, torch.arange(8, len(reading.scores), 8)]))
    assert single.tokens is not None
    words = torch.zeros(len(single.scores), 1, dtype=torch.int64)
    words[1] = 1
    values, returns, mask = (
        torch.cat([x[:, :1], x], dim=1) for x in (single.values, single.returns, single.response_mask)
    )
    tokens = torch.cat([words, single.tokens], dim=1)
    return replace(single, values=values, returns=returns, response_mask=mask, tokens=tokens)


def test_one_pair_of_responses_says_nothing_of_where_values_are_read() -> None:
    critic, result = judged(neutral_word(reading_of(150, 8, seed=3)))
    assert critic.timing is not None
    assert (critic.timing.pairs, critic.timing.pair_prompts, critic.timing.first_prompts) == (1, 1, 1)
    assert critic.timing.after_split.value == 0
    assert "not defined in more than a tenth" in (critic.timing.after_split.why or "")
    assert "off-by-one" not in {one.code for one in result}


@pytest.mark.parametrize("prompts", [4, 40])
def test_pairs_of_fewer_prompts_than_intervals_need_say_nothing(prompts: int) -> None:
    """Several responses to some prompts only, all of them one ahead."""
    reading = ahead(reading_of(150, 8, seed=3))
    first = torch.arange(len(reading.scores)) % 8 == 0
    some = reading.take(((reading.problem < prompts) | first).nonzero()[:, 0])
    assert ("off-by-one" in codes(some)) == (prompts == 40)
    assert verdicts(some)


def lagging(reading: Reading, tokens: int) -> Reading:
    """Values that are so many tokens late; the first stays."""
    first = reading.values[:, :1].expand(-1, tokens)
    values = torch.cat([first, reading.values], dim=1)[:, : reading.values.shape[1]]
    return replace(reading, values=torch.where(reading.response_mask, values, torch.nan))


@pytest.mark.parametrize("tokens", [2, 3, 5])
def test_values_that_lag_by_several_tokens(tokens: int) -> None:
    (result,) = verdicts(lagging(reading_of(150, 8, seed=3), tokens))
    assert (result.code, result.title) == ("off-by-one", f"Values are read {tokens} tokens late")


def test_first_differences_at_several_distances_are_no_lag() -> None:
    """Two tokens after every split values are the same, and begin to differ at one distance in half of the pairs."""
    critic, _ = judged(lagging(reading_of(150, 8, seed=3), 3))
    assert critic.timing is not None
    assert (critic.timing.first_gap, critic.timing.first_gap_share) == (4, 1.0)
    assert [one.title for one in misread(critic, signal=True)] == ["Values are read 3 tokens late"]
    scattered = critic.timing.model_copy(update={"first_gap_share": 0.5})
    assert misread(critic.model_copy(update={"timing": scattered}), signal=True) == []


def test_tokens_that_change_no_value_are_no_lag() -> None:
    """Before each step a random number of fillers, of two kinds: what begins to differ does so at any distance."""
    reading, drawn = reading_of(150, 8, seed=3), np.random.default_rng(0)
    assert reading.tokens is not None
    lengths = reading.response_mask.sum(dim=1).tolist()
    at, fillers = [], []
    for length in lengths:
        count = drawn.integers(0, 6, size=length)
        at.append(torch.from_numpy(np.repeat(np.arange(length), count + 1)))
        ends = np.cumsum(count + 1) - 1
        words = drawn.integers(5, 7, size=len(at[-1]))
        words[ends] = -1
        fillers.append(torch.from_numpy(words))
    index, kind = pad_sequence(at, batch_first=True), pad_sequence(fillers, batch_first=True)
    mask = torch.arange(index.shape[1]) < torch.tensor([len(row) for row in at])[:, None]
    columns = {name: getattr(reading, name).gather(1, index) for name in ("values", "returns", "tokens")}
    columns["tokens"] = torch.where(kind < 0, columns["tokens"], kind)
    assert "off-by-one" not in codes(replace(reading, **columns, response_mask=mask))


def test_without_a_difference_it_says_what_cannot_be_seen() -> None:
    """Pairs there are, and where they part no value is known."""
    reading = reading_of(150, 8, seed=3)
    critic, _ = judged(reading)
    assert critic.timing is not None
    unseen = critic.timing.model_copy(
        update={"after_split": critic.timing.after_split.model_copy(update={"value": None})}
    )
    data = data_of(reading)
    (result,) = judge(data, critic.model_copy(update={"timing": unseen}))
    assert result.code == "healthy"
    assert "one token late cannot be seen" in result.sentence


@pytest.mark.parametrize("outlier", [-20.0, -100.0])
def test_one_outlying_score_does_not_make_a_bias_healthy(outlier: float) -> None:
    """Right but 0.3 too low, where scores are 0 and 1 and one of 800 is far off."""
    reading = reading_of(100, 8, low=0.0, high=1.0)
    low = replace(reading, values=reading.values - 0.3)
    assert codes(low) == ["offset"]
    scores = low.scores.clone()
    scores[5] = outlier
    odd = replace(low, scores=scores, returns=torch.where(low.response_mask, scores[:, None], torch.nan))
    critic, result = judged(odd)
    assert critic.regressor is not None
    assert {one.code for one in result} <= {"offset", "cannot-tell"}
    data = data_of(odd)
    assert allowed_bias(data, critic.regressor) == pytest.approx(0.05), "a tenth of half the range that others have"


def test_a_bias_between_a_tenth_of_the_deviation_and_of_the_range_is_open() -> None:
    """One response in 200 is right: a deviation of 0.07, a bias of 0.015, and a fiftieth of the range is 0.02."""
    reading = reading_of(4000, 1, seed=1, low=0.0, high=1.0)
    data = data_of(reading)
    critic, _ = judged(reading)
    assert critic.regressor is not None
    near = critic.regressor.bias.model_copy(update={"value": 0.015, "low": 0.014, "high": 0.016})
    regressor = critic.regressor.model_copy(update={"bias": near, "return_std": 0.07})
    (result,) = judge(data, critic.model_copy(update={"regressor": regressor}))
    assert (result.code, result.title) == ("cannot-tell", "Whether this bias is a fault is open")


def test_scores_that_are_alike_are_not_where_rewards_differ() -> None:
    """The score column is 0 for all, and rewards on the last token are what was optimised, by a critic of -V."""
    reading = reading_of(100, 8)
    blank = replace(reading, values=-reading.values, scores=torch.zeros_like(reading.scores))
    assert codes(blank)[0] == "other-rewards"
    alike = replace(reading, returns=torch.where(reading.response_mask, 0.25, torch.nan))
    assert "All responses have the return 0.25" in {one.title for one in verdicts(alike)}


def test_of_rare_successes_neither_scale_nor_signal_is_told() -> None:
    """Exact values of 320 responses of which one to four are right."""
    told = 0
    for seed in range(12):
        reading = reading_of(80, 4, seed=seed, low=0.0, high=1.0, starts=(1,))
        right = (reading.scores == 1).nonzero()[:, 0]
        few = torch.ones(len(reading.scores), dtype=torch.bool)
        few[right[1 + seed % 4 :]] = False
        rare = reading.take(few.nonzero()[:, 0])
        rare = replace(rare, values=0.1 * rare.values)
        result = verdicts(rare)
        told += any(one.code in ("scale", "no-signal", "other-rewards", "noise", "healthy") for one in result)
        assert any("prompts have the rarer outcome" in one.title for one in result)
    assert told == 0


def test_a_few_responses_that_run_on_change_no_verdict() -> None:
    """Eight of 1,200 loop up to 4,096 tokens, where V stays what it is."""
    reading, longest = reading_of(150, 8, seed=3), 4096
    assert reading.tokens is not None
    lengths = reading.response_mask.sum(dim=1)
    running = torch.arange(len(lengths)) % 150 == 0
    width = torch.where(running, longest, lengths)
    index = torch.minimum(torch.arange(longest).expand(len(lengths), -1), lengths[:, None] - 1)
    columns = {name: getattr(reading, name).gather(1, index) for name in ("values", "returns", "tokens")}
    mask = torch.arange(longest) < width[:, None]
    critic, result = judged(replace(reading, **columns, response_mask=mask), resamples=100)
    assert {one.code for one in result} <= {"healthy", "cannot-tell"}
    assert critic.reacts is not None
    assert 0 < (critic.reacts.neither.value or 0.0) < 1


def test_no_verdict_rests_on_shares_that_are_none() -> None:
    critic, _ = judged(PLANTED["position only"](reading_of(100, 8)))
    data = data_of(reading_of(100, 8))
    assert [one.code for one in knows_only(data, critic)] == ["position-only"]
    odd = Estimate(value=-0.4, low=-0.5, high=-0.3)
    assert critic.reacts is not None
    reacts = critic.reacts.model_copy(update={"prompt": odd})
    assert knows_only(data, critic.model_copy(update={"reacts": reacts})) == []


def test_values_that_are_the_returns_are_called_that() -> None:
    reading = reading_of(100, 8)
    (result,) = verdicts(replace(reading, values=reading.returns.clone()))
    assert (result.code, result.severity) == ("returns-as-values", "alarm")
    near = Estimate(value=0.9, low=0.89, high=0.91)
    whole = dict.fromkeys(("with_reward", "with_length", "reward_ceiling", "accuracy_change", "length_change"), near)
    sound = Alignment.model_validate({"gae_lambda": 0.95, "method": "preconditioned", **whole})
    critic, _ = judged(replace(reading, values=reading.returns.clone()))
    verdict, *_ = judge(data_of(reading), critic.model_copy(update={"alignment": (sound,)}))
    assert verdict.severity == "alarm", "where the gradient is sound too: it is of no critic"
    known = reading.scores[reading.problem * 8]  # what a prompt's outcome is, if it is certain
    sure = replace(reading, scores=known, returns=torch.where(reading.response_mask, known[:, None], torch.nan))
    assert "returns-as-values" not in codes(replace(sure, values=sure.returns.clone()))


def test_an_undiscounted_return_is_said_beside_values_that_look_low_or_narrow() -> None:
    reading = reading_of(100, 8)
    for faulty in (PLANTED["too low"](reading), replace(reading, values=0.4 * reading.values)):
        (result,) = verdicts(faulty)
        assert "values of a run with gamma < 1" in result.sentence

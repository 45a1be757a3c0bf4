"""Exact critics whose logs are not plain get no alarm, and critics that are ill get theirs on such logs too."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from planted_critics import ahead, reading_of
from test_verdicts import codes, judged, verdicts

from vcppo.diagnosis.responses import Reading


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
    return replace(
        single,
        **{
            name: torch.cat([x[:, :1], x], dim=1)
            for name, x in (
                ("values", single.values),
                ("returns", single.returns),
                ("response_mask", single.response_mask),
            )
        },
        tokens=torch.cat([words, single.tokens], dim=1),
    )


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

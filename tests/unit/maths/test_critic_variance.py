"""Shares of a critic's variance: by pencil, against a loop over pairs, and of planted effects."""

import itertools

import numpy as np
import pytest

from vcppo.maths.critic_variance import COMPOSITION, between_prompts, composition, looked_at, roughness
from vcppo.maths.prompt_bootstrap import Array, PromptBootstrap, prompt_bootstrap

rng = np.random.default_rng(3)
ROWS, PLACES = 9, 4
PROMPT_OF = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2])
LENGTH = np.array([4, 2, 3, 4, 4, 1, 4, 2, 3])
ROW, POSITION = np.nonzero(np.arange(PLACES) < LENGTH[:, None])
VALUE, TARGET = rng.standard_normal((2, len(ROW)))


def numbers(bootstrap: PromptBootstrap, value: Array = VALUE, target: Array = TARGET) -> dict[str, float]:
    result = composition(value, target, POSITION, PROMPT_OF[ROW], PROMPT_OF[ROW], bootstrap)
    return dict(zip(COMPOSITION, result.measured.value.tolist(), strict=True))


def plain(resamples: int = 20) -> PromptBootstrap:
    return prompt_bootstrap(PROMPT_OF, resamples=resamples, rng=np.random.default_rng(0))


def half_square(pairs: list[tuple[int, int]]) -> float:
    return float(sum((VALUE[i] - VALUE[j]) ** 2 for i, j in pairs)) / len(pairs) / 2


def test_shares_are_those_of_a_loop_over_pairs() -> None:
    every = itertools.combinations(range(len(ROW)), 2)
    prompt = PROMPT_OF[ROW]
    others = [(i, j) for i, j in every if prompt[i] != prompt[j]]
    total, n, within, neither = half_square(others), len(ROW), 0.0, 0.0
    for place in range(PLACES):
        here = np.equal(POSITION, place)
        share = float(here.sum()) / n
        within += share * half_square([(i, j) for i, j in others if here[i] and here[j]])
        freedom = squares = 0.0
        for one in range(3):
            group = VALUE[here & np.equal(prompt, one)]
            freedom += max(len(group) - 1, 0)
            squares += float(((group - group.mean()) ** 2).sum()) if len(group) else 0.0
        neither += share * squares / freedom
    result = numbers(plain())
    assert result["position"] == pytest.approx((total - within) / total)
    assert result["prompt"] == pytest.approx((within - neither) / total)
    assert result["neither"] == pytest.approx(neither / total)
    assert result["position"] + result["prompt"] + result["neither"] == pytest.approx(1)


def test_signal_is_that_of_deviations_from_the_position() -> None:
    v, g = (x - np.array([x[place == POSITION].mean() for place in range(PLACES)])[POSITION] for x in (VALUE, TARGET))
    result = numbers(plain())
    assert result["correlation"] == pytest.approx(float(v @ g / np.sqrt((v @ v) * (g @ g))))
    assert result["slope"] == pytest.approx(float(v @ g / (v @ v)))


def test_a_resample_is_its_prompts_copied_without_pairs_of_one_prompt() -> None:
    """Prompt 2 twice and prompt 0 once, against the formula on weights."""
    bootstrap = PromptBootstrap(PROMPT_OF, np.arange(3), np.array([[1.0, 1, 1], [1, 0, 2]]))
    result = composition(VALUE, TARGET, POSITION, PROMPT_OF[ROW], PROMPT_OF[ROW], bootstrap).measured
    other = result.low + result.high - result.value
    selected = [i for i in range(len(ROW)) if PROMPT_OF[ROW[i]] != 1]
    weight = {0: 1, 2: 2}
    square = pairs = 0.0
    for i, j in itertools.combinations(selected, 2):
        p, q = int(PROMPT_OF[ROW[i]]), int(PROMPT_OF[ROW[j]])
        if p != q:
            square += weight[p] * weight[q] * (VALUE[i] - VALUE[j]) ** 2
            pairs += weight[p] * weight[q]
    total = square / pairs / 2
    within = size = 0.0
    for place in range(PLACES):
        here = [(i, j) for i, j in itertools.combinations(selected, 2) if POSITION[i] == POSITION[j] == place]
        here = [(i, j) for i, j in here if PROMPT_OF[ROW[i]] != PROMPT_OF[ROW[j]]]
        n = sum(weight[int(PROMPT_OF[ROW[i]])] for i in selected if POSITION[i] == place)
        within += n * sum((VALUE[i] - VALUE[j]) ** 2 for i, j in here) / len(here) / 2
        size += n
    assert other[0] == pytest.approx((total - within / size) / total)


@pytest.mark.parametrize(("name", "share"), [("position", 0), ("prompt", 1), ("neither", 2)])
def test_one_planted_effect_has_all_the_variance(name: str, share: int) -> None:
    prompts, samples, places = 60, 3, 20
    draw = np.random.default_rng(5)
    effects = (
        draw.standard_normal((1, 1, places)),
        draw.standard_normal((prompts, 1, 1)),
        draw.standard_normal((prompts, samples, 1)),
    )
    value = (effects[share] + np.zeros((prompts, samples, places))).reshape(-1)
    prompt = np.repeat(np.arange(prompts), samples)
    row, position = np.divmod(np.arange(len(value)), places)
    bootstrap = prompt_bootstrap(prompt, resamples=20, rng=draw)
    result = composition(
        value, draw.standard_normal(len(value)), position, prompt[row], prompt[row], bootstrap
    ).measured.value
    assert result[share] == pytest.approx(1, abs=0.15), name  # 60 prompts may look a little apart by chance
    assert result[:3].sum() == pytest.approx(1)


def test_many_small_groups_have_no_bias() -> None:
    """Two responses to each of 40 prompts, half of the variance the prompt's: 0.5 on average, not the 0.75 of R^2."""
    draw, result = np.random.default_rng(6), []
    prompt = np.repeat(np.arange(40), 2)
    for _ in range(60):
        value = np.repeat(draw.standard_normal(40), 2) + draw.standard_normal(80)
        bootstrap = prompt_bootstrap(prompt, resamples=2, rng=draw)
        place = np.zeros(80, dtype=np.int64)
        result.append(composition(value, value, place, prompt, prompt, bootstrap).measured.value[1])
    assert np.mean(result) == pytest.approx(0.5, abs=0.05)


def test_one_response_to_each_prompt_cannot_tell_prompt_from_response() -> None:
    prompt = np.arange(ROWS)
    bootstrap = prompt_bootstrap(prompt, resamples=20, rng=np.random.default_rng(0))
    result = composition(VALUE, TARGET, POSITION, prompt[ROW], prompt[ROW], bootstrap)
    assert np.isfinite(result.measured.value[0])
    assert np.isnan(result.measured.value[1:4]).all()
    assert result.pairs == 0


def test_a_constant_is_made_of_nothing() -> None:
    result = numbers(plain(), np.full(len(ROW), 0.1), TARGET)
    assert all(np.isnan(number) for number in result.values())


def test_position_alone_leaves_no_signal() -> None:
    result = numbers(plain(), np.array([0.1, 0.7, -0.3, 1.1])[POSITION], TARGET)
    assert result["position"] == pytest.approx(1)
    assert np.isnan(result["correlation"])
    assert np.isnan(result["slope"])


def test_the_first_token_of_one_prompt() -> None:
    """Values that agree at position 0 of each prompt have 0 there; white noise has about 1."""
    value = np.where(POSITION == 0, PROMPT_OF[ROW] * 1.0, VALUE)
    assert numbers(plain(), value)["first_token"] == pytest.approx(0, abs=1e-12)
    assert numbers(plain())["first_token"] > 0.1


def test_responses_of_one_prompt_from_other_states_are_no_pairs() -> None:
    """Half of each prompt's values 1 higher, as after another tool's output: that counts as prompt, not as response."""
    state = 2 * PROMPT_OF + np.array([0, 1, 0, 1, 0, 1, 0, 1, 0])
    value = state[ROW] * 1.0
    apart = composition(value, TARGET, POSITION, PROMPT_OF[ROW], state[ROW], plain()).measured.value
    assert apart[2:4] == pytest.approx([0, np.nan], nan_ok=True)
    alike = composition(value, TARGET, POSITION, PROMPT_OF[ROW], PROMPT_OF[ROW], plain()).measured.value
    assert alike[2] > 0
    alone = composition(value, TARGET, POSITION, PROMPT_OF[ROW], np.arange(ROWS)[ROW], plain())
    assert np.isnan(alone.measured.value[1:4]).all()
    assert alone.pairs == 0


def test_scores_between_prompts() -> None:
    bootstrap = prompt_bootstrap([0, 0, 1, 1], resamples=20, rng=np.random.default_rng(0))
    assert between_prompts(np.array([0.0, 0, 1, 1]), bootstrap).value == pytest.approx([1.0])
    apart = between_prompts(np.array([0.0, 1, 0, 1]), bootstrap).value[0]
    assert apart == pytest.approx(0, abs=1.01), "within: 1/2; between pairs of different prompts: 1/4"
    assert apart == pytest.approx((0.25 - 0.5) / 0.25)


def test_roughness_by_pencil() -> None:
    """Steps 2, -2, 2: mean square 4 over twice a variance of 1; a slope of 1 has steps of 1, and 1 / (2 * 1.25)."""
    live = np.ones((2, 4), dtype=bool)
    bootstrap = prompt_bootstrap([0, 1], resamples=5, rng=np.random.default_rng(0))
    jumps = np.array([[0.0, 2, 0, 2], [0, 2, 0, 2]])
    assert roughness(jumps, live, bootstrap).value == pytest.approx([2.0])
    assert roughness(np.array([[0.0, 1, 2, 3]] * 2), live, bootstrap).value == pytest.approx([0.4])
    assert np.isnan(roughness(np.ones((2, 4)), live, bootstrap).value).all()
    holes = np.array([[True, False, True, True], [True, False, True, True]])
    assert roughness(np.array([[0.0, np.nan, 1, 2]] * 2), holes, bootstrap).value == pytest.approx([1 / (2 * 2 / 3)])


def test_positions_looked_at() -> None:
    assert looked_at(np.array([4, 0, 1, 0, 3, 2]), 10).tolist() == [0, 1, 2, 3, 4]
    many = looked_at(np.arange(16_000), 100)
    assert (len(many), many[0], many[-1]) == (256, 0, 15_999)
    assert looked_at(np.array([0]), 1).tolist() == [0]


def test_positions_are_looked_at_where_tokens_are() -> None:
    """800 responses of 60 tokens and two that run on to 16,384: evenly spread, one position in 64 was looked at."""
    short, long = np.tile(np.arange(60), 800), np.tile(np.arange(16_384), 2)
    places = looked_at(np.concatenate([short, long]), 100)
    assert (places < 60).sum() == 60
    assert places.max() == 16_383


def test_pairs_at_the_first_token_alone_do_not_tell_prompt_from_response() -> None:
    """There responses cannot differ yet."""
    place = np.array([0, 0, 1, 0, 0, 2])
    prompt = np.array([0, 0, 0, 1, 1, 1])
    value = np.array([1.0, 1.0, 3.0, 2.0, 2.0, 5.0])
    bootstrap = prompt_bootstrap([0, 1], resamples=5, rng=np.random.default_rng(0))
    parts = composition(value, value, place, prompt, prompt, bootstrap).measured
    assert np.isnan(parts.value[1:3]).all()


def test_without_variance_of_returns_there_is_no_slope() -> None:
    assert np.isnan(numbers(plain(), VALUE, np.ones(len(VALUE)))["slope"])

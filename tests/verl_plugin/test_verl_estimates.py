"""Advantages, targets and held-out responses of the plugin, from what can be said with a pencil; verl is not needed."""

import dataclasses
import math
from typing import Any

import pytest
import torch

from vcppo.errors import ConfigError
from vcppo.maths.advantages import gae, whiten
from vcppo.maths.settling import Settled, settled
from vcppo.verl_plugin.estimates import (
    HeldOut,
    ResponseBatch,
    advice,
    alignment,
    estimate,
    held_out_rows,
    observed,
    on_unmasked_tokens,
    position_metrics,
    response_metrics,
    score_metrics,
    score_warnings,
)
from vcppo.verl_plugin.settings import PluginSettings, plugin_settings

RAW = {"whiten": "none"}


def responses(mask: list[list[int]], *, seed: int = 0) -> ResponseBatch:
    """Random values; a reward of 1 on each row's last own token."""
    response_mask = torch.tensor(mask, dtype=torch.bool)
    values = torch.randn(response_mask.shape, generator=torch.Generator().manual_seed(seed))
    last = response_mask.shape[1] - 1 - response_mask.flip(1).to(torch.int8).argmax(dim=1)
    rewards = torch.zeros_like(values).scatter(1, last[:, None], 1.0)
    return ResponseBatch(rewards, values, response_mask)


def config(plugin: Any = None, **changes: Any) -> dict[str, Any]:
    tree: dict[str, Any] = {
        "algorithm": {"adv_estimator": "gae", "vcppo": plugin},
        "critic": {"ppo_epochs": 1, "ppo_mini_batch_size": 8},
        "data": {"train_batch_size": 8},
        "trainer": {"total_training_steps": 10},
    }
    for name, value in changes.items():
        section, leaf = name.split("__")
        tree[section][leaf] = value
    return tree


def test_each_lambda_has_its_own_use() -> None:
    batch = responses([[1, 1, 1, 1], [1, 1, 0, 0]])
    parts = (batch.rewards, batch.values, batch.response_mask)
    found = estimate(batch, PluginSettings(lambda_actor=0.5, lambda_critic=1.0, **RAW), gamma=1.0)
    torch.testing.assert_close(found.advantages, gae(*parts, gamma=1.0, gae_lambda=0.5))
    torch.testing.assert_close(found.returns, batch.response_mask.float())  # lambda 1: the reward of 1, whatever V is
    whitened = estimate(batch, PluginSettings(lambda_actor=0.5, clip=0.3), gamma=1.0).advantages
    expected = whiten(gae(*parts, gamma=1.0, gae_lambda=0.5), batch.response_mask).clamp(-0.3, 0.3)
    torch.testing.assert_close(whitened, expected)


def test_a_hole_is_passed_over() -> None:
    holed, closed = responses([[1, 0, 0, 1, 1, 0]]), responses([[1, 1, 1]])
    own = [0, 3, 4]
    values = torch.zeros(1, 6)
    values[0, own] = closed.values[0]
    values[0, [1, 2, 5]] = math.nan
    settings = PluginSettings(lambda_actor=0.5, lambda_critic=0.25, length_adaptive_alpha=None, **RAW)
    found = estimate(ResponseBatch(holed.rewards, values, holed.response_mask), settings, gamma=0.9)
    expected = estimate(closed, settings, gamma=0.9)
    for name in ("advantages", "returns", "monte_carlo"):
        torch.testing.assert_close(getattr(found, name)[0, own], getattr(expected, name)[0])
        assert getattr(found, name)[0, [1, 2, 5]].tolist() == [0.0, 0.0, 0.0]
    assert found.metrics == pytest.approx(expected.metrics)


# mask, where the score stands, where it belongs
STRAY_SCORES = {
    "a tool spoke last": ([1, 1, 1, 0, 0, 1, 1, 0, 0], 8, 6),
    "one token of a tool's at the end": ([1, 1, 1, 1, 0], 4, 3),
    "one own token": ([1, 0, 0, 0], 3, 0),
    "a user spoke first and last": ([0, 0, 1, 1, 0], 4, 3),
    "a turn in the middle": ([1, 1, 0, 0, 1, 1], 3, 1),
    "before the first own token": ([0, 0, 1, 1], 0, 2),
    "padding after the tool's turn": ([1, 1, 0, 0, 0, 0], 3, 1),
}


@pytest.mark.parametrize("pretrain", [None, {}], ids=["rl", "pretraining"])
@pytest.mark.parametrize(("mask", "at", "wanted"), STRAY_SCORES.values(), ids=STRAY_SCORES)
def test_a_score_on_a_masked_token_counts_at_the_last_unmasked_one_before(
    mask: list[int], at: int, wanted: int, pretrain: dict[str, Any] | None
) -> None:
    on = torch.tensor([mask], dtype=torch.bool)
    values = torch.randn(on.shape, generator=torch.Generator().manual_seed(1))
    stray, placed = (torch.zeros(on.shape).index_fill(1, torch.tensor([place]), 1.0) for place in (at, wanted))
    settings = PluginSettings.model_validate(
        {"lambda_actor": 0.5, "lambda_critic": 0.25, "pretrain": pretrain, "length_adaptive_alpha": None, **RAW}
    )
    found = estimate(ResponseBatch(stray, values, on), settings, gamma=0.9)
    expected = estimate(ResponseBatch(placed, values, on), settings, gamma=0.9)
    for name in ("advantages", "returns", "monte_carlo", "closed_monte_carlo"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=0, atol=0)
    assert float(found.monte_carlo.max()) == 1.0  # by pencil: the token that carries the score returns it whole
    assert found.metrics == pytest.approx(expected.metrics, nan_ok=True)
    assert (found.moved.tolist(), expected.moved.tolist()) == ([True], [False])


def test_what_is_well_placed_stays_to_the_bit() -> None:
    batch = responses([[1, 1, 1, 1], [1, 0, 1, 0], [0, 1, 0, 0]])
    dense = batch.rewards + torch.where(batch.response_mask, batch.values, 0.0)
    found = on_unmasked_tokens(dense, batch.response_mask)
    assert torch.equal(found.rewards, dense)
    assert not bool((found.moved | found.lost).any())


def test_a_moved_score_adds_to_what_the_token_had() -> None:
    found = on_unmasked_tokens(torch.tensor([[0.5, 0.25, -0.5, 2.0]]), torch.tensor([[True, True, False, False]]))
    assert found.rewards.tolist() == [[0.5, 1.75, 0.0, 0.0]]


def test_scores_on_masked_tokens_are_counted_and_those_with_no_place_apart() -> None:
    mask = torch.tensor([[1, 1, 0], [1, 1, 1], [0, 0, 0], [0, 0, 0], [1, 0, 0]], dtype=torch.bool)
    rewards = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 1.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    found = on_unmasked_tokens(rewards, mask)
    assert found.moved.tolist() == [True, False, False, False, False]
    assert found.lost.tolist() == [False, False, True, False, False]
    assert torch.equal(found.rewards[2], rewards[2])  # so that it goes on counting in the accuracy
    told = score_metrics(found.moved, found.lost)
    assert told == {"rollout/moved_scores": 1.0, "rollout/lost_scores": 1.0}
    said = score_warnings(told, step=3, responses=5)
    assert said["moved"].startswith("step 3: the scores of 1 of 5 responses stood on masked tokens")
    assert said["lost"].startswith("step 3: 1 of 5 responses have a score and no unmasked token")
    assert score_warnings(score_metrics(found.lost[:2], found.lost[:2]), step=3, responses=2) == {}


def test_of_a_token_that_rollout_correction_rejected_the_score_counts_and_the_penalty_does_not() -> None:
    """What the trainer hands over then: verl's penalised rewards where the mask is True, the bare score elsewhere."""
    mask, scores = torch.tensor([[True, True, False]]), torch.tensor([[0.0, 0.0, 1.0]])
    rewards = torch.where(mask, scores - 0.1, scores)
    found = estimate(ResponseBatch(rewards, torch.zeros(1, 3), mask), PluginSettings(), gamma=1.0)
    torch.testing.assert_close(found.returns, torch.tensor([[0.8, 0.9, 0.0]]))


def test_responses_without_an_unmasked_token_leave_the_others_alone() -> None:
    batch = responses([[1, 1, 1, 1], [1, 1, 0, 0]])
    settings = PluginSettings(lambda_actor=0.5, lambda_critic=0.5)
    alone = estimate(batch, settings, gamma=0.9)
    nobodys = torch.tensor([[0.0, 0.0, 0.0, 1.0]])
    parts = ((batch.rewards, nobodys), (batch.values, nobodys), (batch.response_mask, torch.zeros(1, 4).bool()))
    found = estimate(ResponseBatch(*(torch.cat(pair) for pair in parts)), settings, gamma=0.9)
    for name in ("advantages", "returns", "monte_carlo"):
        torch.testing.assert_close(getattr(found, name)[:2], getattr(alone, name))
        assert getattr(found, name)[2].tolist() == [0.0] * 4
    assert found.metrics == pytest.approx(alone.metrics)


def test_a_length_adaptive_lambda_counts_a_row_s_own_tokens() -> None:
    batch = responses([[1, 1, 1, 1, 0, 0], [1, 0, 1, 0, 0, 0]])
    found = estimate(batch, PluginSettings(length_adaptive_alpha=1.0, **RAW), gamma=1.0).advantages
    for row, gae_lambda in ((0, 0.75), (1, 0.5)):  # 1 - 1 / length
        alone = ResponseBatch(*(x[row : row + 1] for x in (batch.rewards, batch.values, batch.response_mask)))
        expected = estimate(alone, PluginSettings(lambda_actor=gae_lambda, **RAW), gamma=1.0).advantages
        torch.testing.assert_close(found[row : row + 1], expected)


def test_pretraining_s_targets_are_monte_carlo_returns_whatever_the_lambdas_are() -> None:
    batch = responses([[1, 1, 1]])
    settings = PluginSettings.model_validate({"lambda_actor": 0.5, "lambda_critic": 0.5, "pretrain": {}})
    torch.testing.assert_close(estimate(batch, settings, gamma=0.5).returns, torch.tensor([[0.25, 0.5, 1.0]]))


def test_explained_variance_is_of_monte_carlo_returns() -> None:
    values = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    rewards = torch.tensor([[0.0, 0.0], [0.0, 1.0]])
    batch = ResponseBatch(rewards, values, torch.ones(2, 2, dtype=torch.bool))
    found = estimate(batch, PluginSettings(lambda_actor=0.0, lambda_critic=0.0, **RAW), gamma=1.0)
    assert found.metrics["value/explained_variance"] == 1.0
    constant = estimate(ResponseBatch(rewards, 0 * values + 2, batch.response_mask), PluginSettings(**RAW), gamma=1.0)
    assert constant.metrics["value/explained_variance"] == pytest.approx(0.0)
    assert constant.metrics["value/value_bias"] == 1.5


def test_bins_cover_the_longest_response_allowed() -> None:
    batch = responses([[1] * 8])
    found = position_metrics(batch, torch.ones(1, 8), bins=4, limit=16)
    assert [name for name in found if "bias" in name] == ["value/bias_from_00000", "value/bias_from_00004"]
    assert found["value/bias_from_00004"] == pytest.approx(float(batch.values[0, 4:].mean()) - 1.0)


def test_responses_that_failed_to_be_sampled_do_not_count() -> None:
    scores, lengths = torch.tensor([1.0, -1.0, -1.0, 0.0]), torch.tensor([4, 8, 2, 0])
    found = response_metrics(scores, lengths, correct_above=0.0, limit=8)
    assert found["rollout/accuracy"] == pytest.approx(1 / 3)
    assert found["rollout/truncated_rate"] == pytest.approx(1 / 3)
    assert response_metrics(scores[3:], lengths[3:], correct_above=0.0, limit=8) == {}


def test_a_prompt_is_held_out_for_good() -> None:
    prompts = [[i, i + 1] for i in range(2000)]
    rows = held_out_rows(prompts, share=0.1, seed=0)
    assert rows.sum() == pytest.approx(200, abs=60)  # four standard deviations are 54
    assert torch.equal(held_out_rows(prompts[::-1], share=0.1, seed=0).flip(0), rows)
    assert not torch.equal(held_out_rows(prompts, share=0.1, seed=1), rows)
    assert bool((held_out_rows(prompts, share=0.2, seed=0) | ~rows).all())  # a larger share holds the same and more


def measured(values: list[float], returns: list[float], step: int) -> tuple[Any, dict[str, float]]:
    held_out = HeldOut()
    mask = torch.ones(2, len(values), dtype=torch.bool)
    row = torch.tensor([values, [9.0] * len(values)])
    held_out.add(
        ResponseBatch(torch.zeros_like(row), row, mask), torch.tensor([returns] * 2), torch.tensor([True, False])
    )
    assert held_out.tokens == len(values)
    return held_out.measure(step)


def test_a_measurement_is_of_the_held_out_rows_only_and_is_then_forgotten() -> None:
    measurement, told = measured([0.0, 1.0], [1.0, 2.0], 7)
    assert (measurement.step, measurement.loss, measurement.explained_variance) == (7, 0.5, 1.0)
    assert told["pretrain/value_bias"] == -1.0
    equal, told = measured([0.0, 1.0], [1.0, 1.0], 7)
    assert equal.explained_variance == -math.inf
    assert math.isnan(told["pretrain/explained_variance"])


def test_measurements_settle_by_the_rule_of_our_own_pretraining() -> None:
    told = [measured([x, 1.0], [1.0, 2.0], step)[0] for step, x in enumerate((0.0, 0.5, 0.5, 0.5), start=1)]
    assert settled(told, patience=2, min_delta=0.01) == Settled(4, 2)
    assert settled(told[:3], patience=2, min_delta=0.01) is None


@pytest.mark.parametrize(
    ("plugin", "changes", "said"),
    [
        ({"lambda_actor": 1.3}, {}, r"algorithm\.vcppo\.lambda_actor = 1\.3: input should be less than or equal to 1"),
        (True, {}, r"algorithm\.vcppo = True: expected settings below it"),
        ({"lamda_actor": 1}, {}, r"algorithm\.vcppo\.lamda_actor: no such setting; there are lambda_actor, "),
        ({"pretrain": {"steps": "never"}}, {}, r"algorithm\.vcppo\.pretrain\.steps = 'never': "),
        ({"pretrain": {"steps": 0}}, {}, r"algorithm\.vcppo\.pretrain\.steps = 0: expected 1 or more"),
        ({"lambda_actor": 0.9, "length_adaptive_alpha": 0.05}, {}, r"lambda_actor = 0\.9: it would be ignored"),
        (
            {"lambda_critic": 1},
            {"algorithm__adv_estimator": "grpo"},
            r"lambda_critic: it would be ignored, .* expected",
        ),
        (
            {"pretrain": {}},
            {"critic__ppo_epochs": 2},
            r"a step is one update, expected 1 and 8, which is data\.train_b",
        ),
        ({"pretrain": {"steps": 5, "patience": 20}}, {}, r"pretrain\.patience: it would be ignored, for .*steps = 5"),
        ({"pretrain": {"steps": 5, "min_delta": 0.1}}, {}, r"pretrain\.min_delta: it would be ignored"),
        (
            {"pretrain": {}},
            {"critic__ppo_mini_batch_size": 4},
            r"critic\.ppo_mini_batch_size = 4: in value pretraining",
        ),
        ({"pretrain": {}}, {"trainer__total_training_steps": None}, r"trainer\.total_training_steps is not given"),
    ],
)
def test_a_wrong_setting_is_told_in_verl_s_words(plugin: Any, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        plugin_settings(config(plugin, **changes))


def test_without_a_word_the_defaults_are_ours() -> None:
    found = plugin_settings(config())
    assert (found.lambda_actor, found.lambda_critic, found.pretrain) == (0.95, 1.0, None)
    plan = plugin_settings(config({"pretrain": {}})).pretrain
    assert plan is not None
    assert (plan.steps, plan.evaluate_every, plan.patience) == ("converge", 10, 100)


def test_what_stands_under_the_mask_is_never_read() -> None:
    clean = responses([[1, 1, 0, 0]])
    dirty = [torch.where(clean.response_mask, x, math.nan) for x in (clean.rewards, clean.values)]
    for name in ("advantages", "returns"):
        found = [
            getattr(estimate(ResponseBatch(rewards, values, clean.response_mask), PluginSettings(), gamma=1.0), name)
            for rewards, values in (dirty, (clean.rewards, clean.values))
        ]
        torch.testing.assert_close(found[0], found[1])


def responses_that_pay_for_length(count: int, *, hole: bool) -> ResponseBatch:
    """A response of n tokens earns n: whoever writes longer is right. `hole`: a masked token before the last."""
    rng = torch.Generator().manual_seed(0)
    lengths = torch.randint(2, 9, (count,), generator=rng)
    mask = torch.arange(10)[None] < lengths[:, None]
    if hole:
        rows = torch.arange(count)
        mask[rows, lengths], mask[rows, lengths - 1] = True, False
    last = mask.shape[1] - 1 - mask.flip(1).to(torch.int8).argmax(dim=1)
    rewards = torch.zeros(mask.shape).scatter(1, last[:, None], lengths.float()[:, None])
    return ResponseBatch(rewards, torch.zeros(mask.shape), mask)


@pytest.mark.parametrize("hole", [False, True])
def test_a_critic_far_too_low_pushes_against_reward_and_one_that_is_right_does_not(hole: bool) -> None:
    batch, problem = responses_that_pay_for_length(400, hole=hole), torch.arange(400)
    fair = estimate(batch, PluginSettings(lambda_actor=1.0, **RAW), gamma=1.0)
    low = ResponseBatch(batch.rewards, batch.values - 50.0, batch.response_mask)
    unfair = estimate(low, PluginSettings(lambda_actor=0.5, **RAW), gamma=1.0)
    rows = torch.ones(400, dtype=torch.bool)
    up, down = (alignment(made, problem, rows=rows, step=1) for made in (fair, unfair))
    assert up.keys() == {"alignment/surrogate_score_z", "alignment/surrogate_length_z"}
    assert min(up.values()) > 3
    assert max(down.values()) < -3
    assert alignment(fair, problem, rows=rows & False, step=1) == {}


def test_what_early_warnings_see_of_a_step_of_verl() -> None:
    scores, lengths = torch.tensor([1.0, -1.0, 1.0, 9.0]), torch.tensor([2, 8, 2, 0])
    made = observed(scores, lengths, correct_above=0.0, limit=8, score_z=-1.0)
    assert made is not None
    assert dataclasses.astuple(made) == pytest.approx((3, 4.0, math.sqrt(8.0), 1 / 3, 2 / 3, -1.0))
    assert observed(scores[3:], lengths[3:], correct_above=0.0, limit=8, score_z=0.0) is None


def test_the_advice_names_verl_s_own_settings() -> None:
    words = advice("length_falls", PluginSettings())
    assert "+algorithm.vcppo.pretrain.steps=converge" in words
    assert "+algorithm.vcppo.lambda_actor=1" in words
    assert "lambda_actor" not in advice("length_falls", PluginSettings(lambda_actor=1.0))
    assert "rollouts" in advice("truncation", PluginSettings())
    assert "on_warning=stop" in words
    assert "on_warning" not in advice("length_falls", PluginSettings(on_warning="stop"))

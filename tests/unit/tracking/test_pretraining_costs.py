"""What value pretraining cost, by pencil: 10 held-out responses and a pool of 100, 40 tokens each."""

import dataclasses
from typing import Any

import pytest

from vcppo.settings.loading import override
from vcppo.settings.run import RunSettings
from vcppo.tracking.measured import MeasuredCell, Pretraining
from vcppo.tracking.pretraining_costs import pretrain_compute_tokens, pretrain_responses

LOSSES = {0: 1.0, 10: 0.5, 20: 0.6, 30: 0.6}  # best at 10; 20 updates later it has settled
BATCHES = {"pretrain.held_out": 10, "pretrain.batch": 5}
SETTLED = {**BATCHES, "pretrain.pool": 100, "pretrain.patience": 20, "pretrain.max_steps": 50}


def cell_of(settings: dict[str, Any]) -> MeasuredCell:
    chosen = override(RunSettings(), settings)
    curves = {"rollout/accuracy": {0: 0.5}, "rollout/length_tokens": {0: 40.0}}
    pretraining = Pretraining({"pretrain/held_out_loss": LOSSES}) if chosen.pretrains else None
    return MeasuredCell("r", "vcppo-s0", "vcppo", 0, "done", chosen, "h", curves, pretraining=pretraining)


def test_what_was_sampled_and_every_update_until_it_had_settled_is_counted() -> None:
    cell = cell_of(SETTLED)
    assert (cell.pretrain_steps, cell.pretrain_updates) == (10, 30)
    assert pretrain_responses(cell) == 110
    prompt = cell.settings.task.prompt_tokens  # type: ignore[union-attr]
    assert pretrain_compute_tokens(cell) == 110 * 40 + 30 * 5 * (prompt + 40) * 3
    assert pretrain_compute_tokens(dataclasses.replace(cell, curves={})) is None


def test_mixed_targets_need_the_critics_present_values() -> None:
    plain, mixed = (pretrain_compute_tokens(cell_of({**SETTLED, "pretrain.gae_lambda": x})) for x in (1.0, 0.95))
    assert plain is not None
    assert mixed is not None
    assert (mixed - 4400) * 3 == pytest.approx((plain - 4400) * 4)


def test_fresh_responses_are_sampled_for_every_update() -> None:
    cell = cell_of({**BATCHES, "pretrain.fresh_rollouts": True, "pretrain.steps": 20})
    assert pretrain_responses(cell) == 10 + 20 * 5


@pytest.mark.parametrize("settings", [{"method": "grpo"}, {"pretrain.steps": 0}])
def test_without_pretraining_there_is_no_cost(settings: dict[str, Any]) -> None:
    cell = cell_of(settings)
    assert (pretrain_responses(cell), pretrain_compute_tokens(cell), cell.pretrain_updates) == (0, 0, 0)


def test_a_critic_that_starts_at_the_mean_score_has_it_from_the_held_out_responses() -> None:
    cell = cell_of({"pretrain.steps": 0, "critic.init": "policy", "critic.initial_value": "mean-score"})
    held_out = cell.settings.pretrain.held_out
    assert (pretrain_responses(cell), pretrain_compute_tokens(cell)) == (held_out, 40 * held_out)

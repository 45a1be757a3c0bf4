"""How well an iteration hears of a decision: advantages by pencil, and responses right as often as they should."""

import numpy as np
import pytest
from scipy.stats import binomtest

from bench.decision_noise import (
    ADVANTAGES,
    CASES,
    Decisions,
    advantages,
    by_lines,
    endings,
    exact,
    gradients,
    labels,
    routes,
)
from vcppo.settings.loading import load_settings
from vcppo.tasks import make_task
from vcppo.tasks.endings import EndingsTask
from vcppo.tasks.labels import LabelsTask
from vcppo.tasks.routes import RoutesTask


def two_decisions() -> Decisions:
    """At tokens 0 and 4 of 6, worth 0 and 0.5, right in the end; and one that had the first alone, wrong after 3."""
    return Decisions(
        there=np.array([[True, True], [True, False]]),
        rule=np.array([[0, 1], [0, 1]]),
        score=np.array([[0.5, 0.25], [-0.5, 9.0]]),
        values=np.array([[0.0, 0.5], [0.0, 9.0]]),
        token=np.array([[0, 4], [0, 4]]),
        length=np.array([6, 3]),
        reward=np.array([1.0, -1.0]),
    )


@pytest.mark.parametrize("gae_lambda", [0.0, 0.5, 1.0])
def test_an_exact_critics_advantages_by_pencil(gae_lambda: float) -> None:
    """Of the first response the steps of V are 0.5 and 0.5, four tokens apart; of the second it is -1."""
    found = exact(two_decisions(), gae_lambda)
    np.testing.assert_allclose(found[0], [0.5 + gae_lambda**4 * 0.5, 0.5])
    assert found[1, 0] == -1.0
    if gae_lambda:
        shifted = exact(two_decisions(), gae_lambda, offset=2.0)
        np.testing.assert_allclose((found - shifted)[0], [2 * gae_lambda**5, 2 * gae_lambda])
        np.testing.assert_allclose((found - shifted)[1, 0], 2 * gae_lambda**2)


def test_a_blind_critic_hears_of_the_end_alone() -> None:
    found = advantages(two_decisions(), "blind, 0.5")
    np.testing.assert_allclose(found[0], [0.5**5, 0.5])
    assert found[1, 0] == -0.25


def test_a_gradient_is_score_times_advantage_over_the_decisions_that_were_come_to() -> None:
    batch = two_decisions()
    np.testing.assert_allclose(gradients(batch, exact(batch, 1.0), 2), [0.5 * 1 + -0.5 * -1, 0.25 * 0.5])


@pytest.mark.parametrize("name", ["labels", "labels that kill", "endings", "routes"])
def test_responses_are_right_as_often_as_demonstrations_and_values_tell_the_truth(name: str) -> None:
    task = make_task(load_settings(assignments=[*CASES[name], "task.lines=12"]).task)
    rng, rewards, first = np.random.default_rng(1), [], []
    assert isinstance(task, LabelsTask | EndingsTask | RoutesTask)
    batches = (
        labels(task, rng)
        if isinstance(task, LabelsTask)
        else endings(task, rng)
        if isinstance(task, EndingsTask)
        else routes(task, rng)
    )
    for _, batch in zip(range(60), batches, strict=False):
        rewards.append(batch.reward)
        any_there = batch.there.any(axis=1)
        first.append(np.where(any_there, batch.values[np.arange(96), batch.there.argmax(axis=1)], batch.reward))
        assert np.all(batch.token[batch.there] < np.broadcast_to(batch.length[:, None], batch.there.shape)[batch.there])
    reward, value = np.concatenate(rewards), np.concatenate(first)
    assert value.mean() == pytest.approx(reward.mean(), abs=0.08)  # four standard errors of groups of 8
    if isinstance(task, LabelsTask):
        right = task.demonstrations_right(task.slip)[task.errors_allowed]
    elif isinstance(task, RoutesTask):
        right = task.demonstrations_right
    else:
        return  # responses end at the limit there, demonstrations beyond it
    low, high = binomtest(int((reward > 0).sum()), len(reward)).proportion_ci(0.99999)
    assert low < right < high


def test_the_table_by_lines_counts_the_decisions_that_were_come_to() -> None:
    table = by_lines(20, swept=(12, 24))
    assert table["advantages"].tolist() == [*ADVANTAGES] * 2
    few, many = (table[table["lines"] == lines].set_index("advantages") for lines in (12, 24))
    assert 0.2 * 12 < few["decisions"].iloc[0] < 0.4 * 12  # three rules of ten
    assert many["decisions"].iloc[0] == pytest.approx(2 * few["decisions"].iloc[0], rel=0.15)
    task = make_task(load_settings(assignments=["task.name=labels", "task.lines=12"]).task)
    assert isinstance(task, LabelsTask)
    batches = labels(task, np.random.default_rng(2))
    there = np.mean([batch.there.sum(axis=1).mean() for _, batch in zip(range(60), batches, strict=False)])
    assert few["decisions"].iloc[0] == pytest.approx(there, rel=0.05)
    assert few["signal_to_noise"]["exact, 0.95"] > few["signal_to_noise"]["blind, 0.95"] > 0

"""Accuracy against the rate, of the policy and of the critic, on runs that are made up."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from committed_results import committed_results

from vcppo.analysis import credit_rates, style
from vcppo.analysis.data import NoDataError, Results, Study

RATES = (1e-4, 4e-4)
ENDS = {"grpo": (0.5, 0.6), "vcppo": (0.8, 0.1), "exact": (0.7, 0.9)}  # at each rate; the second base 10 points above


def study(name: str = "credit-rates") -> Study:
    setting = credit_rates.STUDIES[name].setting
    runs: list[dict[str, Any]] = []
    curves: list[dict[str, Any]] = []
    for base in (0.0, 1.0):
        for arm, ends in ENDS.items():
            for rate, end in zip(RATES, ends, strict=True):
                named = f"{arm},{setting}={rate}"
                key = {"study": name, "arm": named, "base_seed": base, "seed": 0.0}
                score = end + 0.1 * base
                runs.append({**key, "status": "done", "commit": "abc", "avg_at_k": score, setting: rate})
                curves += [
                    {**key, "step": step, "metric": "rollout/accuracy", "value": value}
                    for step, value in ((0, 0.1 + 0.1 * base), (1, score - 0.1))
                ]
    empty = pd.DataFrame({"arm": [], "seed": []})
    return Study(name, pd.DataFrame(runs), pd.DataFrame(curves), empty, empty, empty)


def results_of(one: Study) -> Results:
    return Results(Path("results"), {one.name: one}, committed_results().paper)


def test_each_arm_stands_at_each_rate_with_the_mean_along_and_the_end() -> None:
    runs, means = credit_rates.compute(study())
    assert len(runs) == 12
    at: Any = means.set_index(["arm", "rate"])
    assert at.loc[("vcppo", 1e-4), "runs"] == 2
    assert at.loc[("vcppo", 1e-4), "end"] == pytest.approx(85)
    assert at.loc[("vcppo", 4e-4), "mean"] == pytest.approx(100 * (0.1 + 0.2 + 0.0 + 0.1) / 4)
    assert tuple(at.loc[("grpo", 4e-4), ["end_low", "end_high"]]) == pytest.approx((60, 70))


def test_an_arm_is_judged_at_its_best_rate() -> None:
    _, means = credit_rates.compute(study())
    best = credit_rates.best(means, "end")
    assert best["arm"].tolist() == ["exact", "vcppo", "grpo"]
    assert best["rate"].tolist() == [4e-4, 1e-4, 4e-4]


def test_the_figure_names_each_arms_best_rate() -> None:
    with style.paper_style():
        picture = credit_rates.make(results_of(study()), "credit-rates")
    assert "at the end: exact critic 95.0 at 4e−4, VC-PPO 85.0 at 1e−4, GRPO 65.0 at 4e−4" in picture.caption
    assert [panel.get_title(loc="left") for panel in picture.figure.axes] == [
        "(a) mean along training",
        "(b) at the end",
    ]


def test_the_critics_rate_has_a_figure_too() -> None:
    with style.paper_style():
        picture = credit_rates.make(results_of(study("credit-critic-rates")), "credit-critic-rates")
    assert "VC-PPO 85.0 at 1e−4" in picture.caption
    assert [panel.get_xlabel() for panel in picture.figure.axes] == ["rate of the critic in RL"] * 2


def test_sight_is_drawn_as_it_is_and_no_arm_is_best_somewhere() -> None:
    with style.paper_style():
        picture = credit_rates.make(results_of(study("credit-sight")), "credit-sight")
    assert "best" not in picture.caption
    assert {panel.get_xscale() for panel in picture.figure.axes} == {"linear"}
    assert [panel.get_xlabel() for panel in picture.figure.axes] == ["sight of the critic"] * 2


def test_a_study_that_sweeps_no_rate_is_no_figure() -> None:
    one = study()
    without = replace(one, runs=one.runs.drop(columns="policy.learning_rate"))
    with pytest.raises(NoDataError, match=r"no column policy\.learning_rate; make it with: vcppo sweep credit-rates"):
        credit_rates.load(results_of(without), "credit-rates")

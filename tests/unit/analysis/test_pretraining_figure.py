"""What value pretraining is to be: its figure, on runs that are made up."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from committed_results import committed_results

from vcppo.analysis import costs, pretraining, style
from vcppo.analysis.data import NoDataError, Results, Study

UPDATES = {"first-phase": 60, "vcppo": 220, "converge": 300, "beyond": 880, "fresh": 220, "mixed-returns": 220}
ITERATIONS = {"grpo-long": 60}  # the others have 30
ANSWERS = 8  # of an iteration


def study() -> Study:
    runs: list[dict[str, Any]] = []
    curves: list[dict[str, Any]] = []
    for base in (0.0, 1.0):
        for place, arm in enumerate(("grpo", "grpo-long", *UPDATES)):
            key = {"study": pretraining.NAME, "arm": arm, "base_seed": base, "seed": 0.0}
            pretrained = 5000.0 if arm in UPDATES else float("nan")
            runs.append({**key, "status": "done", "commit": "abc", "avg_at_k": 0.5, "pretrain_answers": pretrained})
            metrics = [("rollout/accuracy", step, 0.1 * place + 0.01 * base) for step in range(ITERATIONS.get(arm, 30))]
            for cost in ("answers", "generated_tokens", "forward_tokens", "backward_tokens", "compute_tokens"):
                metrics += [(f"cost/{cost}", step, float(ANSWERS * (step + 1))) for _, step, _ in metrics[:30]]
            metrics += [("cost/elapsed_s", step, float(step)) for step in range(30)]
            if arm == "grpo-long":  # its costs go on as its iterations do
                metrics = [row for row in metrics if not row[0].startswith("cost/")]
                metrics += [(f"cost/{cost}", step, float(ANSWERS * (step + 1))) for cost in costs.COSTS
                            for step in range(60)]  # fmt: skip
            if arm in UPDATES:
                metrics += [
                    ("pretrain/explained_variance", step, step / 2000) for step in range(0, UPDATES[arm] + 1, 20)
                ]
                metrics += [
                    ("pretrain/explained_variance_ceiling", 0, 0.4),
                    ("value/explained_variance_ceiling", 0, 0.4),
                ]
            curves += [{**key, "metric": name, "step": step, "value": value} for name, step, value in metrics]
    empty = pd.DataFrame({"arm": [], "seed": []})
    return Study(pretraining.NAME, pd.DataFrame(runs), pd.DataFrame(curves), empty, empty, empty)


def results_of(one: Study) -> Results:
    return Results(Path("results"), {one.name: one}, committed_results().paper)


def test_gains_are_over_grpo_of_the_same_base() -> None:
    means = pretraining.compute(study()).means.set_index("arm")["gain_mean"]
    assert means["first-phase"] == pytest.approx(20)  # the third arm, a tenth apart
    assert set(means.index) == set(UPDATES)


def test_the_stop_rule_ends_where_its_last_critic_was_measured() -> None:
    settled = pretraining.compute(study()).settled
    assert settled["step"].tolist() == [300, 300]
    assert settled["value"].tolist() == pytest.approx([0.15, 0.15])


def test_responses_of_value_pretraining_are_counted() -> None:
    paid = pretraining.compute(study()).paid
    first = paid.groupby("arm")["step"].min()
    smoothed = ANSWERS * pretraining.SMOOTHED / 1000
    assert first["grpo-long"] == pytest.approx(smoothed)
    assert first["vcppo"] == pytest.approx(5 + smoothed)
    assert paid.groupby("arm")["step"].max()["grpo-long"] == pytest.approx(60 * ANSWERS / 1000)
    at_end = paid[paid["base_seed"] == 1.0].groupby("arm")["value"].last()
    assert at_end["vcppo"] == pytest.approx(31)


def test_the_figure_has_three_panels_and_says_the_ceiling() -> None:
    with style.paper_style():
        picture = pretraining.make(results_of(study()))
    assert [panel.get_title(loc="left") for panel in picture.figure.axes] == [
        "(a) what the critic explains",
        "(b) what it is worth in RL",
        "(c) pretraining counted",
    ]
    assert "exact values', 0.40." in picture.caption


def test_a_study_without_grpo_is_refused() -> None:
    whole = study()
    without = Study(
        whole.name, whole.runs[~whole.runs["arm"].str.startswith("grpo")], whole.curves, *[whole.problems] * 3
    )
    with pytest.raises(NoDataError, match="no finished run of grpo beside value/explained_variance_ceiling"):
        pretraining.make(results_of(without))

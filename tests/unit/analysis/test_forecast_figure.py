"""What is made of runs that were forecast: which failed, what told it, in how many rows; on runs that are made up."""

import dataclasses
import math
from pathlib import Path

import pandas as pd
import pytest

from vcppo.analysis import forecast
from vcppo.analysis.data import NoDataError, Results, Study
from vcppo.analysis.forecast_runs import FAMILIES, PREDICTORS, WARNED, available, runs_of, scored
from vcppo.analysis.style import paper_style
from vcppo.analysis.table_text import markdown
from vcppo.studies.study import load_study

DIGITS, LABELS = FAMILIES
ENDS = {"bad": 0.01, "good": 0.8, "mild": 0.06, "monte-carlo": 0.5, "grpo": 0.5}
COSINES = {"bad": -0.9, "good": 0.9, "mild": math.nan, "monte-carlo": 1.0, "grpo": 1.0}


def study_of(name: str, *, bases: int = 4, warns: bool = False, iterations: int = 20) -> Study:
    """Five arms over four bases: 10 iterations as the base, 0.1 right, the others as at the end."""
    runs, curves = [], []
    for arm, end in ENDS.items():
        for base in range(bases):
            key = {"study": name, "arm": arm, "base_seed": float(base), "seed": 0.0}
            warned = {WARNED: 8.0 if arm == "bad" else math.nan} if warns else {}
            runs.append({**key, "status": "done", "gae.lambda_actor": 0.95, "commit": "abc", **warned})
            cosine = COSINES[arm] + 0.01 * base
            said = {"accuracy": 0.1, "reward_cosine": cosine, "reward_cosine_low": cosine - 0.05,
                    "reward_cosine_high": cosine + 0.05, "length_cosine": cosine, "plain_reward_cosine": cosine,
                    "surrogate_reward_cosine": cosine, "gain_share": end / 0.5, "gain_share_low": end,
                    "gain_share_high": 2 * end + 0.3}  # fmt: skip
            if arm != "grpo":
                said |= {"value_bias": -0.1 * base, "explained_variance": 0.1, "end_error": 0.2}
            logged = {(f"forecast/{what}", 0): value for what, value in said.items()}
            logged |= {("rollout/accuracy", step): 0.1 if step < 10 else end for step in range(iterations)}
            curves += [{**key, "metric": m, "step": float(s), "value": v} for (m, s), v in logged.items()]
    empty = pd.DataFrame({"arm": []})
    return Study(name, pd.DataFrame(runs), pd.DataFrame(curves), empty, empty, empty)


def results_of(*studies: Study) -> Results:
    return Results(Path("results"), {study.name: study for study in studies}, {})


def test_collapsed_is_below_half_of_the_base_and_is_dated_by_the_mean_of_five_iterations() -> None:
    runs = runs_of(study_of(DIGITS.study), DIGITS).set_index(["arm", "base_seed"])
    assert runs["failed"].groupby("arm").first().to_dict() == {
        "bad": True, "good": False, "mild": False, "monte-carlo": False, "grpo": False,
    }  # fmt: skip
    # iterations 7 to 11 have a mean of 0.064, 8 to 12 one of 0.046, which is below half of 0.1
    assert runs.loc[("bad", 0.0), "failed_at"] == 12
    assert math.isnan(runs["failed_at"].astype(float).loc[("good", 0.0)])
    assert runs["half"].groupby("base_seed").first().tolist() == ["first", "first", "second", "second"]


def test_learnt_too_little_is_less_than_half_of_what_the_reference_gained_and_it_is_not_judged() -> None:
    runs = runs_of(study_of(LABELS.study), LABELS).set_index(["arm", "base_seed"])
    assert "monte-carlo" not in runs.index.get_level_values("arm")
    assert runs.loc[("mild", 1.0), "gain"] == pytest.approx((0.06 - 0.1) / 0.4)
    assert runs["failed"].groupby("arm").first().to_dict() == {"bad": True, "good": False, "mild": True, "grpo": False}


def test_a_run_that_a_warning_ended_is_judged_by_its_own_last_iterations() -> None:
    study = study_of(DIGITS.study, iterations=40)  # the others have all of their last ten after this one's end
    curves = study.curves
    gone = (curves["arm"] == "bad") & (curves["base_seed"] == 0) & (curves["step"] > 18)
    runs = runs_of(dataclasses.replace(study, curves=curves[~gone]), DIGITS).set_index(["arm", "base_seed"])
    assert bool(runs.loc[("bad", 0.0), "failed"])
    assert runs.loc[("bad", 0.0), "failed_at"] == 12


def test_two_seeds_of_the_reference_are_one_measure_and_one_that_gained_nothing_is_none() -> None:
    study = study_of(LABELS.study)
    again = {name: getattr(study, name) for name in ("runs", "curves")}
    again = {
        name: pd.concat([rows, rows[rows["arm"] == "monte-carlo"].assign(seed=1.0)]) for name, rows in again.items()
    }
    runs = runs_of(dataclasses.replace(study, **again), LABELS).set_index(["arm", "base_seed"])
    assert runs.loc[("mild", 1.0), "gain"] == pytest.approx((0.06 - 0.1) / 0.4)
    flat = study.curves.assign(
        value=study.curves["value"].mask((study.curves["arm"] == "monte-carlo") & (study.curves["value"] == 0.5), 0.1)
    )
    with pytest.raises(NoDataError):
        forecast.make(results_of(dataclasses.replace(study, curves=flat)))


def test_verdicts_and_what_cannot_be_told() -> None:
    runs = runs_of(study_of(DIGITS.study), DIGITS).set_index(["arm", "base_seed"])
    verdicts = runs["verdict"].groupby("arm").first().to_dict()
    assert verdicts == {
        "bad": "collapse-forecast", "good": "uphill", "mild": "signal-lost", "monte-carlo": "uphill", "grpo": "uphill",
    }  # fmt: skip
    judged = scored(runs.reset_index())
    assert "grpo" not in set(judged["arm"])
    assert set(judged.loc[judged["arm"] == "mild", "score:reward_cosine"]) == {0.0}
    counts = forecast.verdict_counts(runs.reset_index())
    assert counts.to_dict("list") == {
        "verdict": ["collapse-forecast", "signal-lost", "uphill"], "runs": [4, 4, 12], "failed": [4, 0, 0],
    }  # fmt: skip


def test_what_tells_has_an_area_of_one_and_what_is_alike_one_half_and_halves_are_judged_by_the_first() -> None:
    runs = scored(runs_of(study_of(DIGITS.study), DIGITS))
    rows = forecast.skill(runs, "reward_cosine").set_index("predictor")
    assert list(rows.index) == [*PREDICTORS, "base_rate"]
    assert rows.loc["reward_cosine", "auc"] == 1.0
    assert rows.loc["explained_variance", "auc"] == 0.5
    assert rows.loc["explained_variance", "below_lead"] == 0.5
    assert rows.loc["reward_cosine", "below_lead"] == 0.0
    assert rows.loc["reward_cosine", "right"] == 1.0
    threshold, brier = rows["threshold"].astype(float), rows["brier"].astype(float)
    assert 0.0 < threshold.loc["reward_cosine"] < 0.9  # scores are turned: -0 of mild and 0.9 of bad
    assert rows.loc["base_rate", "brier"] == pytest.approx(0.25 * 0.75)  # a fourth in both halves
    assert brier.loc["reward_cosine"] < 0.1 < brier.loc["explained_variance"]
    low, auc, high = (rows[name].astype(float).loc["value_bias"] for name in ("auc_low", "auc", "auc_high"))
    assert low <= auc <= high


def test_figure_and_table_say_what_was_measured() -> None:
    results = results_of(study_of(DIGITS.study, warns=True), study_of(LABELS.study))
    with paper_style():
        picture = forecast.make(results)
    assert "4 of 20 runs over 4 bases of `forecast` collapsed; 8 of 16 runs over 4 bases of `forecast-labels`" in (
        picture.caption
    )
    assert len(picture.figure.axes) == 3
    text = markdown(forecast.table(results))
    assert "`forecast`: 4 of 20 runs over 4 bases collapsed; by verdict: `collapse-forecast` 4 of 4" in text
    assert "in 4 of 4 runs that failed, at the median 4 iterations before the failure, and in 0 of 16" in text
    assert "forecast-labels`: the live warning" not in text


def test_a_run_whose_responses_scored_alike_has_no_gradient_and_cannot_be_told() -> None:
    study = study_of(DIGITS.study)
    measured = study.curves["metric"].isin(["forecast/accuracy", "rollout/accuracy"])
    runs = runs_of(dataclasses.replace(study, curves=study.curves[measured]), DIGITS)
    assert set(runs["verdict"]) == {"cannot-tell"}
    assert scored(runs).empty


def test_one_study_alone_is_drawn_and_none_says_how_it_is_made() -> None:
    assert [family.study for family, _ in available(results_of(study_of(LABELS.study)))] == ["forecast-labels"]
    with pytest.raises(NoDataError, match="vcppo sweep forecast"):
        forecast.make(results_of())


def test_the_studies_files_are_what_is_judged() -> None:
    for family in FAMILIES:
        cells = load_study(family.study).cells()
        assert all(cell.settings.record.forecast_responses for cell in cells)
        arms, bases = {cell.arm for cell in cells}, {cell.base_seed for cell in cells}
        assert family.reference is None or family.reference in arms
        assert len(bases) >= 6
        assert "gae.lambda_actor" in load_study(family.study).swept_names()
    assert sum(len(load_study(family.study).cells()) for family in FAMILIES) >= 150

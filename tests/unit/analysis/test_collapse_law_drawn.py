"""The figures and the table of the law of the collapse, on runs that are made up."""

import math
from pathlib import Path

import pandas as pd
import pytest

from vcppo.analysis import collapse_law, push, tables
from vcppo.analysis.collapse_law import SWEEPS, Sweep
from vcppo.analysis.data import NoDataError, Results, Study
from vcppo.analysis.starts import starts
from vcppo.analysis.table_text import markdown
from vcppo.maths.collapse_law import Chain
from vcppo.settings.task import DigitsTaskSettings
from vcppo.studies.study import load_study

VALUES = (-3.5, -1.25, -0.25)  # below v* = -1.09, near it, above it


def study_of(name: str = "collapse-law", *, lost: str = "", pushes: bool = True) -> Study:
    """Two bases, λ 0.95 and 1: lengths fall below v* and rise elsewhere, but for one run; all end with 90 % right."""
    setting, empty = SWEEPS[name].setting, pd.DataFrame({"arm": [], "seed": []})
    runs, curves = [], []
    for gae_lambda in (0.95, 1.0):
        for at in VALUES:
            for base in (0, 1):
                arm = f"{setting}={at},gae.lambda_actor={gae_lambda}"
                key = {"study": name, "arm": arm, "base_seed": float(base), "seed": 0.0}
                stops = at < -1.09 and gae_lambda < 1
                after = 20.0 if stops and not (at == -3.5 and base == 1) else 80.0
                runs.append(
                    {**key, "status": "failed" if arm == lost else "done", setting: at, "gae.lambda_actor": gae_lambda,
                     "avg_at_k": 0.9, "pass_at_k": 1.0, "k": 2, "problems": 20, "commit": "abc",
                     "min_length_fraction": 0.2, "min_accuracy": 0.0}
                )  # fmt: skip
                logged = {("rollout/length_tokens", 0): 40.0, ("rollout/length_tokens", 3): after}
                logged |= {("value/value_bias", 0): at + 0.65 + base}
                logged |= {("policy/push", 0): 1.0 if stops else -1.0, ("policy/push_error", 0): 0.1} if pushes else {}
                for (metric, step), value in {**logged, ("value/value_bias", 1): 9.0}.items():
                    curves.append({**key, "metric": metric, "step": float(step), "value": value})
    problems = pd.DataFrame({"arm": [], "base_seed": [], "seed": [], "problem": [], "samples": [], "correct": []})
    return Study(name, pd.DataFrame(runs), pd.DataFrame(curves), empty, empty, problems)


def results_of(*studies: Study) -> Results:
    return Results(Path("results"), {study.name: study for study in studies}, {})


def test_the_studies_files_have_the_chains_that_their_figures_are_drawn_with() -> None:
    for name, sweep in SWEEPS.items():
        (task,) = {cell.settings.task for cell in load_study(name).cells()}
        swept = {cell.settings.gae.lambda_actor for cell in load_study(name).cells()}
        assert isinstance(task, DigitsTaskSettings)
        line, answer = task.digits + 1, task.digits + 1
        assert sweep.chain == Chain(task.chain_length, task.stop_hazard, line, answer)
        assert sweep.setting in load_study(name).swept_names()
        assert sweep.race.keys() <= swept == {0.9, 0.95, 0.99, 1.0}


def test_starts_are_of_iteration_0_and_first_moves_of_three_iterations_later() -> None:
    began = starts(study_of(lost=f"critic.initial_value={VALUES[1]},gae.lambda_actor=1.0"))
    assert len(began) == 10  # finished runs alone
    row = began[(began["critic.initial_value"] == -1.25) & (began["base_seed"] == 1)].iloc[0]
    assert (row["bias"], row["push"], row["push_error"], row["length"]) == pytest.approx((0.4, 1.0, 0.1, 0.5))
    assert starts(study_of(pushes=False))["push"].isna().all()


def test_each_run_is_judged_by_which_side_of_the_threshold_it_began_on() -> None:
    computed = collapse_law.compute(study_of())
    sides = {(row["at"], row["predicted"]) for _, row in computed.iterrows() if row["gae_lambda"] == 0.95}
    assert sides == {(-3.5, "stops"), (-1.25, "near"), (-0.25, "goes on")}
    assert set(computed.loc[computed["gae_lambda"] == 1.0, "predicted"]) == {"goes on"}
    assert set(computed["ended"]) == {"goes on"}
    cells = collapse_law.judged(computed).set_index(["gae_lambda", "at"])
    assert cells.index.tolist() == [(0.95, -3.5), (0.95, -0.25), (1.0, -3.5), (1.0, -1.25), (1.0, -0.25)]
    counts = [tuple(row) for row in cells[["runs", "moved_runs", "ended_runs"]].to_numpy()]
    assert counts == [(2, 1, 0), *[(2, 2, 2)] * 4]  # one of two is no majority
    assert [tuple(row) for row in cells[["moved", "ended"]].to_numpy()] == [(False, False), *[(True, True)] * 4]


def test_the_table_counts_cells_and_runs_and_names_the_exceptions() -> None:
    text = markdown(collapse_law.table(results_of(study_of())))
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if "| collapse-law" in line]
    assert rows == [
        ["collapse-law", "0.95", "-1.09", "1 of 2 (3 of 4)", "1 of 2 (2 of 4)"],
        ["collapse-law", "1", "none", "3 of 3 (6 of 6)", "3 of 3 (6 of 6)"],
    ]
    assert "first moves otherwise than predicted: -3.5 at λ 0.95 (1 of 2 runs as predicted)." in text
    assert "collapse-law, end otherwise than predicted: -3.5 at λ 0.95 (0 of 2 runs as predicted)." in text
    with pytest.raises(NoDataError, match="vcppo sweep collapse-law"):
        collapse_law.table(results_of())


def test_the_figure_draws_every_run_and_its_caption_says_how_many_cells_agree() -> None:
    picture = collapse_law.make(results_of(study_of()), "collapse-law")
    for panel in picture.figure.axes[:2]:
        points = [line for line in panel.get_lines() if line.get_linestyle() == "None"]
        assert sum(len(line.get_xdata()) for line in points) == 6
    assert "the first moves are as predicted in 4 of 5 cells, the end in 4 of 5." in picture.caption
    assert picture.figure.axes[0].get_title() == "(a) λ actor 0.95, v* = -1.09"
    assert picture.figure.axes[1].get_title() == "(b) λ actor 1, no v*"


def test_a_study_without_its_columns_names_the_command() -> None:
    study = study_of()
    with pytest.raises(NoDataError, match=r"no column critic\.initial_value"):
        collapse_law.load(
            results_of(Study(**{**vars(study), "runs": study.runs.drop(columns="critic.initial_value")})), study.name
        )


def test_the_push_is_counted_against_the_first_moves() -> None:
    computed = push.compute(results_of(study_of(), study_of("collapse-law-frozen", pushes=False)))
    assert set(computed["study"]) == {"collapse-law"}
    assert push.as_said(computed) == (11, 12)
    faint = computed.assign(push_error=0.6)
    assert push.as_said(faint) == (0, 0)
    assert (
        "Of 12 runs whose push is more than 2 standard errors from 0, 11 moved as it says."
        in push.make(results_of(study_of())).caption
    )
    with pytest.raises(NoDataError, match="no study has logged policy/push"):
        push.make(results_of(study_of(pushes=False)))


def test_the_outcome_of_each_arm_names_the_bias_and_the_push_it_began_with() -> None:
    table = tables.components(study_of())
    row = table.numbers[table.numbers["arm"] == "critic.initial_value=-3.5,gae.lambda_actor=0.95"].iloc[0]
    assert (row["bias"], row["push"]) == pytest.approx((-2.35, 1.0))  # means over bases
    assert "push on stopping at the start" in table.shown
    assert "push on stopping at the start" not in tables.components(study_of(pushes=False)).shown
    assert not math.isnan(row["bias"])


def test_sweeps_put_their_race_where_the_law_has_the_policy_shrink_first() -> None:
    for sweep in SWEEPS.values():
        assert isinstance(sweep, Sweep)
        for gae_lambda, lost_below in sweep.race.items():
            assert lost_below < sweep.turning(sweep.chain, gae_lambda)

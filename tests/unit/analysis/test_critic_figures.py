"""Critics beside GRPO: gains, qualities, crossings, budgets and the paper's tables, on runs that are made up."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from committed_results import committed_results

from vcppo.analysis import critic_pays, critics_table, crossover, style, tables_beside, task_tables
from vcppo.analysis.critic_worth import compares, seen, task_of, worth
from vcppo.analysis.crossover import crossing
from vcppo.analysis.data import NoDataError, Results, Study, read_results
from vcppo.analysis.redraw import figures_of, tables_of
from vcppo.analysis.table_text import markdown

STEPS = 20
ARMS: dict[str, dict[str, Any]] = {  # accuracy, explained variance (of a ceiling of 0.5), λ of the actor, pretraining
    "grpo": {"accuracy": 0.5, "explained": None, "lambda": 0.95, "pretrain": "converge"},
    "ppo-constant": {"accuracy": 0.3, "explained": 0.0, "lambda": 0.95, "pretrain": "0"},
    "vcppo": {"accuracy": 0.4, "explained": 0.2, "lambda": 0.95, "pretrain": "converge"},
    "vcppo-0.8": {"accuracy": 0.2, "explained": 0.1, "lambda": 0.8, "pretrain": "converge"},
    "vcppo-no-decouple-1.0": {"accuracy": 0.5, "explained": 0.1, "lambda": 1.0, "pretrain": "converge"},
    "exact": {"accuracy": 0.7, "explained": 0.5, "lambda": 0.95, "pretrain": "converge"},
}
NOISE = pd.DataFrame(
    {
        "task": "labels",
        "lines": [10.0] * 4 + [40.0] * 4,
        "decisions": [3.0] * 4 + [12.0] * 4,
        "right": 0.1,
        "advantages": ["GRPO", "exact, 1", "exact, 0.95", "blind, 0.95"] * 2,
        "signal_to_noise": [2.0, 2.2, 3.0, 1.0, 1.0, 1.5, 2.0, 0.25],
        "commit": "abc",
        "origin": "computed",
    }
)


def study_of(name: str = "credit", *, lines: tuple[int, ...] = (), arms: tuple[str, ...] = tuple(ARMS)) -> Study:
    """Two bases with a seed each, the second 10 points above the first; twice the lines, 20 points more for exact."""
    runs: list[dict[str, Any]] = []
    curves: list[dict[str, Any]] = []
    problems: list[dict[str, Any]] = []
    for base in (0, 1):
        for size in lines or (20,):
            for arm in arms:
                of = ARMS[arm]
                more = 0.2 * (size == 40) * (arm == "exact")
                score = round(of["accuracy"] + 0.1 * base + more, 6)
                named = f"{arm},task.lines={size}" if lines else arm
                key = {"study": name, "arm": named, "base_seed": float(base), "seed": 7.0}
                pretrained = of["pretrain"] == "converge" and arm.startswith("vcppo")
                row = {**key, "status": "done", "method": "grpo" if arm == "grpo" else "vcppo", "commit": "abc",
                       "gae.lambda_actor": of["lambda"], "pretrain.steps": of["pretrain"], "k": 2, "problems": 4,
                       "critic.init": "exact" if arm == "exact" else "policy",
                       "avg_at_k": score, "pass_at_k": score, "min_length_fraction": 1.0, "min_accuracy": 0.1,
                       "pretrain_steps_done": 30.0 * pretrained, "pretrain_answers": 100.0 * pretrained,
                       "pretrain_compute_tokens": 1050.0 * pretrained}  # fmt: skip
                runs.append(row | ({"task.lines": float(size)} if lines else {}))
                points: list[tuple[int, str, float]] = [(STEPS, "eval/labels/avg_at_2", score)]
                for step in range(STEPS):  # rises by 1 point an iteration about its mean
                    points.append((step, "rollout/accuracy", score + 0.01 * (step - (STEPS - 1) / 2)))
                    spent = (step + 1) * (50.0 if arm == "grpo" else 100.0)
                    points += [(step, f"cost/{kind}", spent) for kind in ("compute_tokens", "elapsed_s")]
                    points += [(step, f"cost/{kind}_tokens", 1.0) for kind in ("generated", "forward", "backward")]
                    points.append((step, "cost/answers", 24.0 * (step + 1)))
                    if of["explained"] is not None:
                        points.append((step, "value/explained_variance", of["explained"] + 0.1 * (step == 0)))
                if of["explained"] is not None:
                    for step in (0, 10):
                        points.append((step, "value/explained_variance_ceiling", 0.5))
                        points.append((step, "value/true_error", 0.0 if arm == "exact" else 0.6))
                if pretrained:
                    for step, value in ((0, -0.1), (30, 0.12)):
                        points.append((step, "pretrain/explained_variance", value))
                        points.append((step, "pretrain/explained_variance_ceiling", 0.4))
                curves += [{**key, "step": step, "metric": metric, "value": value} for step, metric, value in points]
                right = round(8 * score)
                problems += [
                    {**key, "problem": f"{size}/{i}", "samples": 2, "correct": min(2, max(0, right - 2 * i)),
                     "unreadable": 0} for i in range(4)
                ]  # fmt: skip
    empty = pd.DataFrame({"arm": [], "seed": []})
    return Study(name, pd.DataFrame(runs), pd.DataFrame(curves), empty, empty, pd.DataFrame(problems))


def results_of(*studies: Study) -> Results:
    paper = committed_results().paper
    return Results(Path("results"), {study.name: study for study in studies}, paper, noise=NOISE)


def test_a_gain_is_over_grpo_of_the_same_base_and_a_quality_over_the_ceiling() -> None:
    study = study_of()
    rows: Any = worth(study).set_index(["arm", "base_seed"])
    assert compares(study)
    assert task_of(study) == "labels"
    assert rows.loc[("vcppo", 1), "gain_mean"] == pytest.approx(-10)
    assert rows.loc[("exact", 0), "gain_end"] == pytest.approx(20)
    assert rows.loc[("grpo", 0), "gain_mean"] == 0
    assert rows.loc[("vcppo", 0), "start"] == pytest.approx(0.12 / 0.4)  # where pretraining ended, held out
    assert rows.loc[("ppo-constant", 0), "start"] == pytest.approx(0.1 / 0.5)  # the first batch of RL
    assert rows.loc[("vcppo", 0), "along"] == pytest.approx((0.2 + 0.1 / STEPS) / 0.5)
    assert rows.loc["grpo", "along"].isna().all()
    explained: Any = seen(study).xs("exact", level="arm")
    assert explained[["start", "along"]].eq(1.0).all(axis=None)
    assert explained["along_ceiling"].tolist() == explained["along_variance"].tolist()


def test_an_exact_critic_is_of_quality_1_where_its_first_batch_has_no_variance_to_explain() -> None:
    study = study_of()
    curves = study.curves
    alike = (curves["arm"] == "exact") & (curves["metric"] == "value/explained_variance") & (curves["step"] == 0)
    explained: Any = seen(replace(study, curves=curves[~alike])).xs("exact", level="arm")
    assert explained["start"].eq(1.0).all()


def test_without_grpo_or_a_ceiling_nothing_is_compared() -> None:
    assert not compares(study_of(arms=("vcppo", "exact")))
    assert not compares(study_of(arms=("grpo",)))
    with pytest.raises(NoDataError, match="no finished run of grpo beside value/explained_variance_ceiling"):
        crossover.load(results_of(study_of(arms=("vcppo",))), "credit", "crossover")


def test_the_crossing_lies_between_the_last_loss_and_the_first_gain() -> None:
    assert tuple(crossing([0.0, 1.0, 0.5], [-3.0, 1.0, -1.0])) == (0.5, 0.75, 1.0)
    assert tuple(crossing([0.0, 0.2, 1.0], [-1.0, -3.0, 2.0])) == pytest.approx((0.2, 0.6, 1.0))  # both fitted at -2
    assert tuple(crossing([0.0, 0.5, 1.0], [-3.0, -1.0, 1.0], [1.0, 0.0, 3.0])) == (0.0, 0.75, 1.0)
    assert crossing([0.0, 1.0], [1.0, 2.0]).at == -math.inf
    assert crossing([0.0, 1.0], [-2.0, -1.0]).at == math.inf


def test_the_crossover_is_told_for_each_lambda_with_its_interval() -> None:
    runs, crossings = crossover.compute(study_of())
    assert "grpo" not in set(runs["arm"])
    at: Any = crossings.set_index(["gae_lambda", "quality"])
    assert tuple(at.loc[(0.95, "start"), ["loses", "at", "gains"]]) == pytest.approx((0.3, 0.3 + 0.7 / 3, 1.0))
    assert tuple(at.loc[(0.95, "start"), ["low", "high"]]) == pytest.approx((0.3, 1.0))  # bases gain alike
    assert at.loc[(0.8, "along"), "at"] == math.inf
    assert at.loc[(1.0, "along"), "at"] == -math.inf
    with style.paper_style():
        picture = crossover.make(results_of(study_of()), "credit", "crossover")
    assert "λ 0.95 at 0.53 [0.30, 1.00]" in picture.caption
    assert "λ 0.8 nowhere, every fit is a loss" in picture.caption
    assert "n = 2 runs an arm over 2 bases" in picture.caption
    assert [panel.get_title(loc="left") for panel in picture.figure.axes[:3]] == [
        f"({letter}) λ = {value}" for letter, value in zip("abc", ("0.8", "0.95", "1"), strict=True)
    ]


def test_a_critic_pays_against_the_decisions_that_count() -> None:
    study = study_of("credit-lines", lines=(20, 40), arms=("grpo", "vcppo", "exact"))
    runs, means, ratios = critic_pays.compute([study_of(), study], NOISE)
    assert sorted(runs["decisions"].unique()) == [6.0, 12.0]  # 20 lines lie between the two that were computed
    assert set(runs.loc[runs["study"] == "credit", "arm"]) == {"exact", "vcppo", "vcppo-mc"}
    at: Any = means.set_index(["study", "arm", "decisions"])
    assert at.loc[("credit-lines", "exact", 12.0), "gain_mean"] == pytest.approx(40)
    assert at.loc[("credit-lines", "exact", 6.0), "gain_mean"] == pytest.approx(20)
    assert at.loc[("credit", "vcppo-mc", 6.0), "runs"] == 2
    computed: Any = ratios.set_index(["advantages", "decisions"])["ratio"]
    assert computed[("exact, 0.95", 3.0)] == 1.5
    assert computed[("blind, 0.95", 12.0)] == 0.25
    with style.paper_style():
        caption = critic_pays.make(results_of(study_of(), study)).caption
    assert "studies `credit`, commit abc, `credit-lines`, commit abc, 14 runs" in caption
    assert "bases and the seeds within them" in caption
    assert "bench/decision_noise.py --batches 2000" in caption


def test_one_number_of_decisions_is_no_figure_and_neither_is_one_without_the_computed_signal() -> None:
    with pytest.raises(NoDataError, match="one number of decisions in credit, expected two or more"):
        critic_pays.make(results_of(study_of()))
    bare = Results(Path("results"), {"credit": study_of()}, {})
    with pytest.raises(NoDataError, match=r"no results/decision-noise\.csv; make it with: python bench"):
        critic_pays.make(bare)
    with pytest.raises(NoDataError, match="vcppo sweep credit-lines"):
        critic_pays.make(results_of())


def test_the_table_of_critics_counts_pretraining_and_cuts_all_arms_at_the_cheapest() -> None:
    study = study_of()
    rows: Any = critics_table.compute(study).set_index("arm")
    assert (rows["least"] == 50 * STEPS).all()
    assert rows.loc["vcppo", ["answers", "pretrain_answers", "compute", "pretrain_compute"]].tolist() == [
        24.0 * STEPS,
        100.0,
        100.0 * STEPS + 1050,
        1050.0,
    ]
    exact = 100 * (0.75 + 0.01 * (np.arange(10).mean() - (STEPS - 1) / 2))  # 10 of its 20 iterations
    assert rows.loc["exact", "budget"] == pytest.approx(exact)
    grpo = 100 * (0.55 + 0.01 * (np.arange(10, 20).mean() - (STEPS - 1) / 2))
    assert rows.loc["grpo", "budget"] == pytest.approx(grpo)
    assert rows.loc["vcppo", "budget"] == pytest.approx(100 * (0.45 - 0.01 * (STEPS - 1) / 2))  # its first batch
    assert dict(rows["begun"].items()) == {arm: 0 if str(arm).startswith("vcppo") else 2 for arm in rows.index}
    text = markdown(critics_table.table(results_of(study), "credit"))
    (line,) = [line for line in text.splitlines() if line.startswith("| VC-PPO  ")]
    cells = [cell.strip() for cell in line.split("|")]
    assert "0.12 of 0.40" in cells
    assert sum(cell.endswith("†") for cell in cells) == 1
    assert "pretraining alone costs more" in text


def test_an_export_that_does_not_tell_what_pretraining_cost_is_compared_by_no_compute() -> None:
    study = study_of()
    older = study.runs.drop(columns=["pretrain_answers", "pretrain_compute_tokens"])
    bare = Study(study.name, older, study.curves, study.positions, study.calibration, study.problems)
    text = markdown(critics_table.table(results_of(bare), "credit"))
    assert "an export of the study writes it, vcppo export credit." in text
    assert "†" not in text


def test_the_papers_tables_take_the_arms_that_differ_in_their_setting_alone() -> None:
    study = study_of()
    assert list(task_tables.rows_of(study, "table2")) == ["ppo-constant", "vcppo-no-decouple-1.0", "vcppo", "grpo"]
    assert task_tables.rows_of(study, "table3") == {"ppo-constant": "0", "vcppo": "converge"}
    assert task_tables.rows_of(study, "table4") == {"vcppo-0.8": "0.8", "vcppo-no-decouple-1.0": "1", "vcppo": "0.95"}
    sized = study_of("credit-lines", lines=(20, 40))
    assert not any(task_tables.rows_of(sized, table) for table in task_tables.TABLES)
    third = markdown(task_tables.table(results_of(study), "credit", "table3"))
    rows = [line.split("|")[1].strip() for line in third.splitlines() if line.startswith("| ")][1:]
    assert rows == ["0", "50", "100", "150", "until settled (30)"]
    assert "Table 3 on the task labels" in third
    fourth = markdown(task_tables.table(results_of(study), "credit", "table4"))
    assert [line.split("|")[1].strip() for line in fourth.splitlines() if line.startswith("| ")][1:] == [
        "0.8", "0.9", "0.95", "0.99", "1",
    ]  # fmt: skip


def test_tasks_stand_beside_the_published_numbers() -> None:
    committed = committed_results()
    studies = {name: committed.studies[name] for name in tables_beside.DIGITS} | {"credit": study_of()}
    results = Results(Path("results"), studies, committed.paper)
    asked = tables_beside.load(results)
    assert {task: {table: study.name for table, study in tables.items()} for task, tables in asked.items()} == {
        "digits": {"table2": "components", "table3": "pretrain-steps", "table4": "lambda-actor"},
        "labels": dict.fromkeys(task_tables.TABLES, "credit"),
    }
    computed = tables_beside.compute({"labels": asked["labels"]}, results)
    at: Any = computed.set_index(["task", "table", "row"])
    assert at.loc[("published", "table4", "0.99"), "end"] == 41.9
    assert at.loc[("published", "table2", "VC-PPO"), "end"] == 41.9
    assert at.loc[("labels", "table4", "0.8"), "end"] == pytest.approx(25)
    assert at.loc[("labels", "table3", "until settled (30)"), "along"] == pytest.approx(45)
    with style.paper_style():
        figure = tables_beside.draw(computed)
    assert [panel.get_title(loc="left") for panel in figure.axes[:2]] == ["(a) task labels", "(b) published"]
    with pytest.raises(NoDataError, match="vcppo sweep credit"):
        tables_beside.make(results_of())


def test_studies_of_critics_have_their_figures_and_tables() -> None:
    results = results_of(study_of(), study_of("routes"), study_of("credit-lines", lines=(20, 40)))
    assert {"crossover", "crossover-routes", "crossover-credit-lines"} <= figures_of(results).keys()
    assert "crossover-credit" not in figures_of(results)
    named = tables_of(results).keys()
    assert {"critics-credit", "critics-credit-lines", "table2-credit", "table3-routes", "table4-routes"} <= named
    assert "table2-credit-lines" not in named


def test_the_committed_signal_is_read_and_checked(tmp_path: Path) -> None:
    noise = committed_results().noise
    assert set(NOISE["advantages"]) <= set(noise["advantages"])
    assert noise["decisions"].is_monotonic_increasing
    assert read_results(tmp_path).noise.empty

"""What the comparison of methods computes: costs, value errors, pruning, leave-one-out; worked out by hand."""

import io
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from method_results import CPPO, METHODS, STEPS, VAPO, VINE, write_study

from vcppo.analysis import costs, cppo, methods, methods_compute, methods_tables, style, values, vapo, vine
from vcppo.analysis.data import FAMILIES, Study, read_results
from vcppo.analysis.table_text import render


def frame(text: str) -> pd.DataFrame:
    """A frame written as it reads."""
    return pd.read_csv(io.StringIO(text), sep=r"\s+")


def study_of(name: str, runs: str, problems: str = "arm seed problem samples correct", **frames: str) -> Study:
    """A study from its frames as text."""
    made = frame(runs)
    for column in ("pass_at_k", "min_length_fraction", "min_accuracy"):
        made[column] = math.nan
    made = made.assign(k=4, problems=2, commit="abc")
    empty = "arm seed step metric value"
    return Study(name, made, frame(frames.get("curves", empty)), frame("arm seed"), frame("arm seed"), frame(problems))


CURVES = """
    arm seed step metric value
    a 0 0 cost/answers 10
    a 0 1 cost/answers 20
    a 0 2 cost/answers 30
    a 0 0 cost/compute_tokens 100
    a 0 1 cost/compute_tokens 300
    a 0 2 cost/compute_tokens 400
    a 0 0 eval/digits/avg_at_1 0.1
    a 0 2 eval/digits/avg_at_1 0.5
    a 0 3 eval/digits/avg_at_1 0.7
    a 0 3 eval/digits/avg_at_8 0.9
    a 0 3 eval/digits/pass_at_8 1.0
"""
OTHERS = "".join(f"\n    a 0 {step} cost/{name} {7 * (step + 1)}" for step in range(3)
                 for name in ("generated_tokens", "forward_tokens", "backward_tokens", "elapsed_s"))  # fmt: skip


def test_an_evaluation_has_cost_what_was_spent_before_its_iteration() -> None:
    found = costs.evaluations(study_of("s", "arm seed status avg_at_k\n a 0 done 0.9", curves=CURVES + OTHERS), "f")
    assert found["step"].tolist() == [0, 2, 3]
    assert found["answers"].tolist() == [0, 20, 30]
    assert found["compute_tokens"].tolist() == [0, 300, 400]
    assert found["accuracy"].tolist() == pytest.approx([10, 50, 90])  # of two at the end the one of more samples


def test_totals_are_those_of_the_last_iteration() -> None:
    study = study_of("s", "arm seed status avg_at_k\n a 0 done 0.9", curves=CURVES + OTHERS)
    (row,) = costs.totals(study, "f").to_dict("records")
    assert (row["answers"], row["compute_tokens"], row["elapsed_s"], row["iterations"]) == (30, 400, 21, 3)
    assert math.isnan(row["peak_memory_mb"])


def test_area_budget_and_first_reach_of_a_curve_worked_by_hand() -> None:
    cost, accuracy = [0, 10, 40], [0, 80, 100]
    assert costs.mean_along(cost, accuracy) == pytest.approx((10 * 40 + 30 * 90) / 40)
    assert math.isnan(costs.mean_along([5], [50]))
    assert costs.accuracy_at(cost, accuracy, 25) == pytest.approx(90)
    assert costs.accuracy_at(cost, accuracy, 1000) == 100
    part = costs.cut(cost, accuracy, 25)
    assert [points.tolist() for points in part] == [[0, 10, 25], [0, 80, 90]]
    assert costs.cut(cost, accuracy, 10)[0].tolist() == [0, 10]
    assert costs.cut(cost, accuracy, 1000)[0].tolist() == cost
    assert costs.first_cost(cost, accuracy) == 10
    assert costs.first_cost(cost, [0, 79.9, 70]) == math.inf


def test_a_run_that_never_arrives_is_later_than_all_others() -> None:
    assert costs.median_reached(np.array([1.0, 5.0, math.inf])) == 5
    assert math.isnan(costs.median_reached(np.array([1.0, math.inf])))
    assert math.isnan(costs.median_reached(np.array([])))


def test_methods_stand_by_family_and_within_it_by_accuracy(tmp_path: Path) -> None:
    write_study(tmp_path, "methods", METHODS, lost={("mine", 0): "failed", ("mine", 1): "failed"})
    study, points = methods.load(read_results(tmp_path))
    found = methods.compute(study, points)
    assert found["family"].tolist() == [*FAMILIES, "Other"]
    assert found["arm"].tolist() == METHODS
    assert math.isnan(found["end"].iloc[-1])
    ends = 100 * study.runs.query("arm == 'vcppo'")["avg_at_k"]
    assert found["end"][1] == pytest.approx(ends.mean())
    assert found["end_seeds"][1] == pytest.approx(tuple(ends))
    arms, heads = methods.heights(found)
    assert sorted([*arms.values(), *heads.values()]) == list(range(len(arms) + len(heads)))


def test_the_budget_is_the_median_total_of_vc_ppo_else_the_least() -> None:
    points = frame("""
        arm seed compute_tokens
        vcppo 0 100
        vcppo 1 300
        vcppo 2 200
        dpo 0 50
        grpo 0 70
    """)
    assert methods_tables.compute_budget(points) == 200
    assert methods_tables.compute_budget(points[points["arm"] != "vcppo"]) == 50


def test_at_an_equal_budget_a_dear_arm_is_cut_and_a_cheap_one_marked(tmp_path: Path) -> None:
    write_study(tmp_path, "methods", ["vcppo", "vineppo", "grpo"], costly={"vineppo": 4.0, "grpo": 0.5})
    table = methods_tables.equal_compute(read_results(tmp_path))
    rows = table.numbers.set_index("arm")
    budget = 7500 * STEPS * 1.005
    assert f"Budget: {budget / 1e6:.3g} million" in table.notes[0]
    assert rows.loc["vineppo", "share"] == 1
    assert rows.loc["vineppo", "of_answers"] == pytest.approx(0.25, abs=0.01)
    assert rows.loc["vineppo", "accuracy"] == pytest.approx(10 + (82.5 - 10) / 2, abs=0.5)  # half-way to the second
    assert rows.loc["vineppo", "reached"] == 0
    assert rows.loc["grpo", "share"] == pytest.approx(0.5)
    marked = table.shown.set_index("family")["arm"].to_dict()
    assert marked["Group baseline"] == "GRPO †"
    assert table.shown["arm"].str.contains("†").sum() == 1
    assert r"GRPO $\dagger$" in render(table)["tex"].decode()
    assert any("annealed" in note for note in table.notes)


def test_the_table_of_methods_counts_who_reached_the_target_and_what_it_took(tmp_path: Path) -> None:
    write_study(tmp_path, "methods", ["ppo", "vcppo"], costly={"vcppo": 2.0})
    table = methods_tables.equal_samples(read_results(tmp_path))
    vcppo = table.numbers.set_index("arm").loc["vcppo"]
    assert vcppo["reached"] == 2
    assert vcppo["tokens_to_target"] == pytest.approx(1000 * 2 * 2 * 1.005)  # evaluated before iteration 2
    assert vcppo["seconds_to_target"] == pytest.approx(4 * 2 * 2 * 1.005)
    assert vcppo["iteration_s"] == pytest.approx(4 * 2 * 1.005)
    assert vcppo["peak_memory_mb"] == 803
    assert vcppo["compute_tokens"] == pytest.approx(7500 * STEPS * 2 * 1.005)
    runs = read_results(tmp_path).studies["methods"].runs
    assert vcppo["worst"] == 100 * runs.loc[runs["arm"] == "vcppo", "avg_at_k"].min()
    assert table.shown["reached 80 %"].tolist() == ["2 of 2 [16, 100]", "2 of 2 [16, 100]"]


def test_a_curve_over_compute_ends_with_its_shortest_run() -> None:
    points = frame("""
        arm seed step accuracy answers compute_tokens
        a 0 0 0 0 0
        a 0 1 50 9 1e6
        a 0 2 100 10 2e6
        a 1 0 0 0 0
        a 1 2 100 10 4e6
    """)
    curves, ends = methods_compute.compute(points, shared_draws=False)
    assert curves["compute"].iloc[[0, -1]].tolist() == pytest.approx([0.1, 2])
    assert curves["centre"].iloc[-1] == pytest.approx((100 + 50) / 2)
    assert curves["seeds"].eq(2).all()
    assert ends["compute"].tolist() == [3]
    assert ends["along"].tolist() == pytest.approx([((9 * 25 + 75) / 10 + 50) / 2])


def test_the_pruning_rate_is_read_from_the_arm_and_the_bound_is_amdahl_s() -> None:
    assert [cppo.pruning(arm) for arm in ("grpo", "cppo-0.75", "cppo-0.5-refill", "cppo")] == [
        (0, False), (0.75, False), (0.5, True), None]  # fmt: skip
    assert cppo.bound(0.8, [0.0, 0.5, 0.875]) == pytest.approx([1, 1 / 0.6, 1 / 0.3])
    assert cppo.bound(1.0, [0.75]) == pytest.approx([4])


def test_speed_up_is_paired_by_seed_and_counted_by_responses(tmp_path: Path) -> None:
    folder = write_study(tmp_path, "cppo", CPPO, costly={"cppo-0.5": 0.5, "cppo-0.5-refill": 1.5}, seeds=3)
    curves = pd.read_csv(folder / "curves.csv")
    more = (curves["arm"] == "cppo-0.5-refill") & (curves["metric"] == "cost/answers")
    curves.loc[more, "value"] *= 2  # a refilled iteration samples twice the responses
    slow = (curves["arm"] == "grpo") & (curves["seed"] == 2) & curves["metric"].str.startswith("time/")
    curves.loc[slow, "value"] *= 10
    curves.to_csv(folder / "curves.csv", index=False)
    computed, share = cppo.compute(*cppo.load(read_results(tmp_path)))
    rows = computed.set_index("arm")
    assert rows.loc["cppo-0.5", "speed_up_seeds"] == pytest.approx((2, 2, 20))
    assert rows.loc["cppo-0.5-refill", "speed_up_seeds"] == pytest.approx((4 / 3, 4 / 3, 40 / 3))
    assert rows.loc["grpo", "speed_up_seeds"] == pytest.approx((1, 1, 1))
    assert share == pytest.approx((2.5 / 4, np.nan, np.nan), nan_ok=True), "the same in all seeds"
    assert rows.loc["cppo-0.5", "other_s"] == pytest.approx(0.5 * 0.5 * 1.01)
    assert rows.index.tolist() == ["grpo", "cppo-0.5", "cppo-0.5-refill", "cppo-0.875"]


def states(worths: np.ndarray, estimates: np.ndarray, arm: str = "a") -> pd.DataFrame:
    """States with a response each, two seeds by turns."""
    count = np.arange(len(worths))
    return pd.DataFrame({"arm": arm, "seed": count % 2, "step": 0, "answer": count, "position": 0, "fraction": 0.0,
                         "truth": worths, "estimate": estimates})  # fmt: skip


def test_the_noise_of_the_truth_is_taken_off_and_k_rollouts_err_as_the_closed_form_says() -> None:
    rng, count = np.random.default_rng(2), 40_000
    worth = rng.uniform(-0.95, 0.95, count)
    sampled = 2 * rng.binomial(values.TRUTH_SAMPLES, (1 + worth) / 2) / values.TRUTH_SAMPLES - 1
    perfect = values.with_errors(states(sampled, worth))[list(values.SUMS)].sum().to_numpy()
    raw = np.mean((sampled - worth) ** 2)
    assert abs(perfect[1] / count) < 0.05 * raw  # a perfect critic errs by nothing once the truth's noise is off
    for rollouts in (1, 3, 9):
        estimate = 2 * rng.binomial(rollouts, (1 + worth) / 2) / rollouts - 1
        sums = values.with_errors(states(sampled, estimate))[list(values.SUMS)].sum().to_numpy()
        exact = np.sqrt(np.mean(1 - worth**2) / rollouts)
        assert values.root_mean_square(sums) == pytest.approx(exact, rel=0.02)  # 40,000 draws: standard error 0.5 %
        assert values.one_rollout(sums) / np.sqrt(rollouts) == pytest.approx(exact, rel=0.01)
        assert values.worth(sums) == pytest.approx(rollouts, rel=0.04)


def test_a_truth_that_was_computed_has_no_noise_to_take_off() -> None:
    """Off by a tenth at each of two states, worth 0 and 0.6: single rollouts vary by 1 and 0.64."""
    off = states(np.array([0.0, 0.6]), np.array([0.1, 0.5])).assign(n=0)
    sums = values.with_errors(off)[list(values.SUMS)].sum().to_numpy()
    assert sums == pytest.approx([2, 0.02, 0.2, 1.64])


def test_the_rollouts_behind_a_truth_are_those_of_its_row() -> None:
    """Of 16 rollouts, a truth of 0 has a variance of 1 / 15: so much is taken off."""
    some = values.with_errors(states(np.array([0.0]), np.array([0.5])).assign(n=16.0))
    assert some["squared"].tolist() == pytest.approx([0.25 - 1 / 15])
    assert some["spread"].tolist() == pytest.approx([16 / 15])


def test_worth_is_bounded_by_the_truth_and_unknown_where_nothing_is_uncertain() -> None:
    sums = np.array([[2.0, -1.0, 0.0, 1.0], [2.0, 0.5, 1.0, 1.0], [2.0, 0.5, 1.0, 0.0]])
    assert values.worth(sums)[:2].tolist() == [values.TRUTH_SAMPLES, 2]
    assert math.isnan(values.worth(sums)[2])
    assert values.root_mean_square(sums).tolist() == [0, 0.5, 0.5]
    assert values.mean_absolute(sums).tolist() == [0, 0.5, 0.5]


def test_the_interval_of_an_error_draws_seeds_and_responses_within_them() -> None:
    worth = np.zeros(40)
    apart = values.with_errors(states(worth, np.where(np.arange(40) % 2, 0.5, 0.1)))  # seeds differ, responses do not
    centre, low, high = values.interval(apart, values.mean_absolute, "t", shared_draws=False)
    assert (centre, low, high) == pytest.approx((0.3, 0.1, 0.5))
    within = values.with_errors(states(worth, np.where(np.arange(40) // 2 % 2, 0.5, 0.1)))  # responses differ
    centre, low, high = values.interval(within, values.mean_absolute, "t", shared_draws=False)
    assert centre == pytest.approx(0.3)
    assert 0.1 < low < 0.27 < 0.33 < high < 0.5
    one = values.interval(apart[apart["seed"] == 0], values.mean_absolute, "t", shared_draws=False)
    assert one[0] == pytest.approx(0.1)
    assert np.isnan(one[1:]).all()


def test_states_of_one_response_are_drawn_together() -> None:
    pair = states(np.zeros(8), np.tile([0.1, 0.2, 0.5, 0.6], 2)).assign(answer=[0, 0, 1, 1] * 2, seed=[0] * 4 + [1] * 4)
    sums = values.sums_by_response(values.with_errors(pair))
    assert {run: rows.shape for run, rows in sums.items()} == {(0,): (2, 4), (1,): (2, 4)}


def test_the_figure_of_values_bins_the_response_and_the_truth(tmp_path: Path) -> None:
    write_study(tmp_path, "vine", VINE)
    found = vine.compute(*vine.load(read_results(tmp_path)))
    assert sorted(found.fraction["middle"].unique()) == pytest.approx([0.1, 0.3, 0.7])  # of 0, 1/3 and 2/3
    assert sorted(found.training["step"].unique()) == [0, 2]
    assert set(found.errors["arm"]) == set(VINE)
    assert (found.errors["low"] <= found.errors["centre"]).all()
    assert [vine.rollouts_of(arm) for arm in VINE] == [None, None, None, 1, 3, 9]
    binned = vine.against_truth(states(np.array([-0.9, -0.8, 0.9]), np.array([0.0, 1.0, -1.0])))
    assert binned["truth"].tolist() == pytest.approx([-0.85, 0.9])
    assert binned["estimate"].tolist() == [0.5, -1]
    assert binned["low"].tolist() == pytest.approx([0.1, -1])


RUNS = """
    arm seed status avg_at_k
    vapo 0 done 0.75
    vapo 1 done 1.0
    vapo-no-group 0 done 0.5
    vapo-no-group 1 failed nan
"""
PROBLEMS = """
    arm seed problem samples correct
    vapo 0 p 4 4
    vapo 0 q 4 2
    vapo 1 p 4 4
    vapo 1 q 4 4
    vapo-no-group 0 p 4 4
    vapo-no-group 0 q 4 0
"""
POINTS = """
    arm seed step accuracy answers
    vapo 0 0 0 0
    vapo 0 1 100 10
    vapo 1 0 0 0
    vapo 1 1 0 10
    vapo-no-group 0 0 0 0
    vapo-no-group 0 1 40 10
"""


def test_a_component_is_missed_by_the_seeds_that_both_have() -> None:
    study = study_of("vapo", RUNS, PROBLEMS)
    found = vapo.differences(study, frame(POINTS), "vapo-no-group")
    assert (found["end"], found["along"], found["pairs"]) == (-25, -30, 1)  # seed 1 of VAPO stands alone
    assert math.isnan(found["end_low"])
    assert math.isnan(vapo.differences(study, frame(POINTS), "vapo")["end"])


def test_the_table_of_vapo_sets_the_published_numbers_beside(tmp_path: Path) -> None:
    write_study(tmp_path, "vapo", VAPO)
    table = vapo.table(read_results(tmp_path))
    quoted = dict(zip(table.numbers["arm"], table.numbers["published"], strict=True))
    assert quoted == {"ppo": 5, "vapo-no-pretrain": 11, "vapo-no-group": 55, "vapo": 60}
    assert table.shown["pairs"].tolist() == ["2", "2", "2", "–"]


def test_published_and_measured_of_vapo_are_not_drawn_in_one_style(tmp_path: Path) -> None:
    write_study(tmp_path, "vapo", VAPO)
    study, points, paper = vapo.load(read_results(tmp_path))
    figure = vapo.draw(vapo.compute(study, points, paper), study)
    ending, change, along, quoted = figure.axes
    faces = {line.get_markerfacecolor() for line in quoted.get_lines() if line.get_marker() == "o"}
    assert faces == {style.PUBLISHED["markerfacecolor"]}
    published = {line.get_color() for line in quoted.get_lines() if line.get_marker() != "None"}
    measured = {line.get_color() for panel in (ending, change, along) for line in panel.get_lines()
                if line.get_marker() not in ("None", "|")}  # fmt: skip
    assert not published & measured

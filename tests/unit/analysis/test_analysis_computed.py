"""What figures and tables compute of a study, on numbers that can be worked out by hand."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from result_folders import frame, study_of, write_study

from vcppo.analysis import (
    calibration,
    critic_error,
    figure1,
    figure2,
    figure3,
    figure6,
    improvement,
    lambda_grid,
    outcomes,
    summary,
    tables,
    training,
)
from vcppo.analysis.data import read_study
from vcppo.analysis.table_text import markdown, render
from vcppo.maths.statistics import bootstrap_interval


def test_unfinished_runs_enter_no_frame_but_runs(tmp_path: Path) -> None:
    study = read_study(write_study(tmp_path, "s", ["ppo"], seeds=2, steps=2, lost={("ppo", 0): "failed"}))
    assert len(study.runs) == 2
    for kind in ("finished", "curves", "positions", "calibration", "problems"):
        assert set(getattr(study, kind)["seed"]) == {1}


def test_a_centre_is_the_mean_of_the_seeds_that_have_the_point() -> None:
    values = frame("""
        arm seed step value
        a 0 0 0
        a 1 0 90
        a 2 0 95
        a 3 0 95
        a 4 0 95
        a 0 1 7
        a 1 1 9
        b 0 0 5
    """)
    found = summary.over_seeds(values, ["arm", "step"], shared_draws=False)
    assert found["centre"].tolist() == [75, 8, 5], "one collapse in five is seen in the line"
    assert found["seeds"].tolist() == [5, 2, 1]
    assert list(found.loc[1, ["low", "high"]]) == [7, 9]
    assert found.loc[2, ["low", "high"]].isna().all()


def test_a_curve_s_interval_is_the_95_percent_bootstrap_of_its_mean() -> None:
    numbers = np.random.default_rng(0).normal(size=20)
    found = summary.over_seeds(
        pd.DataFrame({"arm": "a", "seed": range(20), "step": 0, "value": numbers}), ["arm", "step"], shared_draws=False
    )
    wanted = bootstrap_interval(numbers, np.mean, rng=np.random.default_rng(1))
    assert list(found.loc[0, ["low", "high"]]) == pytest.approx([wanted.low, wanted.high], abs=0.05)  # 2000 resamples


def test_an_interval_does_not_depend_on_what_else_is_drawn() -> None:
    values = pd.DataFrame({"arm": "a", "seed": range(5), "step": 0, "value": [1.0, 4, 2, 8, 5]})
    more = pd.concat([values, values.assign(arm="b", value=0.0)])
    alone, beside = (summary.over_seeds(v, ["arm", "step"], shared_draws=False) for v in (values, more))
    pd.testing.assert_frame_equal(alone, beside[beside["arm"] == "a"])


def test_a_metric_that_was_not_finite_is_left_out_and_accuracy_becomes_per_cent() -> None:
    curves = frame("arm seed step metric value\n a 0 0 rollout/accuracy 0.25\n a 0 1 rollout/accuracy nan")
    seeds, centres = training.compute(curves, training.ACCURACY, shared_draws=False)
    assert seeds["value"].tolist() == centres["centre"].tolist() == [25]


POSITIONS = """
    arm seed stage step position from_end n value_mean return_mean advantage_mean value_bias explained_variance
    ppo 0 value-pretraining 0 0 False 100 -9 -1 8 -8 0
    vcppo 0 value-pretraining 0 0 False 100 -2 -1 1 -1 0
    vcppo 0 value-pretraining 20 0 False 100 -7 -1 6 -6 0
    vcppo 0 value-pretraining 40 0 False 100 -1.5 -1 0.5 -0.5 0
    vcppo 0 value-pretraining 40 10 False 5 -0.5 -1 -0.5 0.5 0
    vcppo 0 value-pretraining 40 20 False 4 9 9 9 9 0
    vcppo 0 value-pretraining 40 0 True 100 9 9 9 9 0
    vcppo 0 rl 40 0 False 100 9 9 9 9 0
"""


def test_figure_2_shows_the_first_and_last_critic_of_the_longest_pretraining_without_rare_bins() -> None:
    found = figure2.compute(frame(POSITIONS), shared_draws=False).set_index(["quantity", "when", "position"])["centre"]
    assert found.to_dict() == {
        ("advantage_mean", "after", 0): 0.5,
        ("advantage_mean", "after", 10): -0.5,
        ("advantage_mean", "before", 0): 1,
        ("return_mean", "before", 0): -1,
        ("value_mean", "after", 0): -1.5,
        ("value_mean", "after", 10): -0.5,
        ("value_mean", "before", 0): -2,
    }


def test_figure_1_is_ppo_alone_length_in_tokens_and_accuracy_in_per_cent() -> None:
    curves = frame("""
        arm seed step metric value
        ppo 0 0 rollout/length_tokens 110
        ppo 0 0 rollout/accuracy 0.25
        vcppo 0 0 rollout/accuracy 0.75
    """)
    (lengths, _), (accuracies, _) = figure1.compute(curves, shared_draws=False)
    assert lengths["value"].tolist() == [110]
    assert accuracies["value"].tolist() == [25]


def test_figure_3_compares_the_start_with_the_mean_of_the_last_five_iterations() -> None:
    shares = [0.9, 0.5, 0.1, 0.2, 0.3, 0.4, 0.5]
    curves = pd.DataFrame({"arm": "ppo", "seed": 0, "step": range(7), "metric": figure3.METRIC, "value": shares})
    found = figure3.compute(curves, shared_draws=False).set_index("when")["centre"]
    assert found["start"] == 90
    assert found["end"] == pytest.approx(30)


def test_figure_6_takes_the_longest_pretraining_of_each_seed() -> None:
    curves = frame("""
        arm seed step metric value
        pretrain.steps=10 0 0 pretrain/held_out_loss 1
        pretrain.steps=10 0 10 pretrain/held_out_loss 99
        pretrain.steps=20 0 0 pretrain/held_out_loss 1
        pretrain.steps=20 0 10 pretrain/held_out_loss 0.5
        pretrain.steps=20 0 20 pretrain/held_out_loss 0.25
        pretrain.steps=20 0 20 pretrain/explained_variance 0.75
        pretrain.steps=20 0 20 policy/loss 7
    """)
    (loss, _), (variance, _) = figure6.compute(curves, shared_draws=False)
    assert loss["value"].tolist() == [1, 0.5, 0.25]
    assert variance["value"].tolist() == [0.75]


def test_the_critic_is_looked_at_four_times_spread_over_training() -> None:
    rows = pd.DataFrame({"arm": "ppo", "seed": 0, "step": range(0, 61, 5), "position": 0, "n": 10, "value_bias": 0.5,
                         "explained_variance": math.nan})  # fmt: skip
    found = critic_error.compute(rows, shared_draws=False)
    assert found["step"].tolist() == [0, 10, 30, 60]
    assert set(found["quantity"]) == {"value_bias"}


def test_calibration_leaves_out_bins_that_hold_next_to_nothing() -> None:
    found = calibration.compute(frame("""
        arm seed stage step bin_low bin_high predicted_mean return_mean n
        vcppo 0 value-pretraining 0 -1 0 -0.5 -1 750
        vcppo 0 value-pretraining 0 0 1 0.5 -1 249
        vcppo 0 value-pretraining 0 1 2 1.5 1 1
    """))  # fmt: skip
    assert found["predicted_mean"].tolist() == [-0.5, 0.5]
    assert found["share"].tolist() == [0.75, 0.249]


GRID = """
    arm seed status avg_at_k gae.lambda_actor gae.lambda_critic
    x 0 done 0.8 0.95 1.0
    x 1 failed nan 0.95 1.0
    y 0 failed nan 1.0 1.0
"""


def test_a_failed_cell_of_the_grid_has_no_number_instead_of_0() -> None:
    found = lambda_grid.compute(study_of(GRID))
    assert found["centre"].tolist()[0] == 80
    assert found.loc[1, ["centre", "low", "high"]].isna().all()
    assert found[["done", "tried"]].to_numpy().tolist() == [[1, 2], [0, 1]]


def test_outcomes_hold_each_finished_run_and_lost_ones_are_counted() -> None:
    study = study_of(GRID)
    assert outcomes.compute(study)[["arm", "accuracy"]].to_numpy().tolist() == [["x", 80]]
    assert training.lost_runs(study) == {"x": "1 of 2 failed", "y": "1 of 1 failed"}


TWO_ARMS = """
    arm seed status avg_at_k pass_at_k min_length_fraction min_accuracy
    ppo 0 done 0.25 0.5 0.20 0.01
    ppo 1 done 0.75 1.0 0.20 0.05
    vcppo 0 done 0.50 1.0 0.90 0.20
    vcppo 1 done 1.00 1.0 0.80 0.30
    vcppo 2 pruned nan nan nan nan
    grpo 0 failed nan nan nan nan
"""
PROBLEMS = """
    arm seed problem samples correct
    ppo 0 p 4 2
    ppo 0 q 4 0
    ppo 1 p 4 4
    ppo 1 q 4 2
    vcppo 0 p 4 2
    vcppo 0 q 4 2
    vcppo 1 p 4 4
    vcppo 1 q 4 4
"""


def test_probability_of_improvement_counts_pairs_and_leaves_out_arms_without_runs() -> None:
    found = improvement.compute(study_of(TWO_ARMS))
    assert found[["arm", "centre", "won", "pairs"]].to_numpy().tolist() == [["vcppo", 0.75, 3, 4]]
    assert found["low"][0] < 0.75 <= found["high"][0]


def test_the_table_of_components_reads_as_its_runs_do() -> None:
    table = tables.components(study_of(TWO_ARMS, PROBLEMS))
    ppo, vcppo, grpo = table.shown.to_dict("records")
    assert ppo["avg@4 (%)"].startswith("50.0 [")
    assert ppo["pass@4 (%)"].startswith("75 [")
    assert (ppo["shortest / start"], ppo["lowest accuracy (%)"], ppo["collapsed"]) == ("0.20", "3.0", "1 of 2 [1, 99]")
    assert ppo["P(better than PPO)"] == ppo["pairs won"] == "–"
    assert (ppo["ended below 2 %"], vcppo["pairs won"]) == ("0 of 2 [0, 84]", "3 of 4")
    assert (vcppo["collapsed"], vcppo["seeds"]) == ("0 of 2 [0, 84]", "2 (1 of 3 pruned)")
    assert vcppo["P(better than PPO)"].startswith("0.75 [")
    assert vcppo["p"] == "0.667"  # first sums 0.75, 1, 1.25, 1.25, 1.5, 1.75 of 2.5; 1.5 is 0.25 from 1.25, as is 1
    assert set(grpo.values()) == {"GRPO", "–", "0 (1 of 1 failed)"}
    assert "Failed and pruned runs enter no mean and are not counted as 0." in table.notes


COLLAPSED_ONCE = """
    arm seed status avg_at_k pass_at_k min_length_fraction min_accuracy
    ppo 0 done 0.0 0.0 0.29 0.0
    ppo 1 done 0.0 0.0 0.10 0.0
    vcppo 0 done 0.641 1.0 0.90 0.20
    vcppo 1 done 0.001 0.0 0.80 0.30
    vcppo 2 done 0.0 0.0 0.80 0.30
"""


def test_runs_far_apart_are_listed_for_their_mean_describes_none() -> None:
    table = tables.components(study_of(COLLAPSED_ONCE))
    ppo, vcppo = table.shown.to_dict("records")
    assert vcppo["avg@4 (%)"] == "0.0, 0.1, 64.1"
    assert vcppo["pass@4 (%)"] == "0, 0, 100"
    assert ppo["avg@4 (%)"] == "0.0"
    assert "0.1 64.1" in render(table)["csv"].decode()


def test_a_run_that_ends_at_nothing_is_counted_though_it_never_got_short_enough_to_have_collapsed() -> None:
    ppo, vcppo = tables.components(study_of(COLLAPSED_ONCE)).shown.to_dict("records")
    assert (ppo["collapsed"], ppo["ended below 2 %"]) == ("1 of 2 [1, 99]", "2 of 2 [16, 100]")
    assert vcppo["ended below 2 %"] == "2 of 3 [9, 99]"


def test_a_measured_interval_holds_its_mean_and_crosses_seeds_with_problems() -> None:
    numbers = tables.measured(study_of(TWO_ARMS, PROBLEMS), ["ppo"]).iloc[0]
    assert (numbers["avg"], numbers["avg_low"], numbers["avg_high"]) == (50, 0, 100)


def test_markdown_latex_and_terminal_say_the_same(tmp_path: Path) -> None:
    write_study(tmp_path, "components", ["ppo", "vcppo"], seeds=2, steps=3, problems=4)
    table = tables.components(read_study(tmp_path / "components"))
    plain = tables.components_table(tmp_path / "components")
    latex = render(table)["tex"].decode()
    for cell in table.shown.to_numpy().ravel():
        assert cell in plain
        assert cell in markdown(table)
        assert cell.replace("–", "--").replace("%", r"\%") in latex
    assert len({len(line) for line in markdown(table).splitlines() if line.startswith("|")}) == 1

"""The critic of a real model by position, on tables that are made up: which lines, their intervals by pencil."""

import math
from pathlib import Path

import pandas as pd
import pytest

from vcppo.analysis import real_critic
from vcppo.analysis.data import NoDataError, Results, Study
from vcppo.analysis.redraw import figures_of, tables_of
from vcppo.analysis.style import paper_style

BIASES = {("reward-model", 0): 1.0, ("reward-model", 12): 0.2, ("fitted", 0): -0.2, ("fitted", 12): 0.1}


def study_of(*, bases: int = 2, stage: str = "value-pretraining") -> Study:
    """Bins of two tokens; base 1 lies 0.2 above base 0. Of 100 responses four reach the last bin."""
    runs, rows = [], []
    for base in range(bases):
        for arm in real_critic.LOOKS:
            key = {"study": real_critic.NAME, "arm": arm, "base_seed": float(base), "seed": 0.0}
            runs.append({**key, "status": "done", "avg_at_k": 0.3, "commit": "abc"})
            for step in (0, 12):
                for position, n in ((0, 200), (2, 150), (4, 8)):
                    bias = BIASES[arm, step] + 0.2 * base
                    rows.append({**key, "stage": stage, "step": float(step), "position": float(position),
                                 "from_end": False, "n": n, "value_mean": bias - 0.6, "return_mean": -0.6,
                                 "value_bias": bias, "explained_variance": 0.75 if position == 0 else math.nan,
                                 "advantage_mean": -bias})  # fmt: skip
    empty = pd.DataFrame({"arm": []})
    return Study(real_critic.NAME, pd.DataFrame(runs), empty, pd.DataFrame(rows), empty, empty)


def results_of(study: Study, paper: pd.DataFrame | None = None) -> Results:
    return Results(Path("results"), {study.name: study}, {} if paper is None else {"figure2": paper})


def test_a_line_is_the_mean_over_runs_and_its_band_what_the_held_out_responses_leave_open() -> None:
    computed = real_critic.compute(study_of().positions)
    first = computed[computed["position"] == 0].set_index(["arm", "when"])
    assert first["centre"].to_dict() == pytest.approx(
        {("reward-model", "before"): 1.1, ("reward-model", "after"): 0.3,
         ("fitted", "before"): -0.1, ("fitted", "after"): 0.2})  # fmt: skip
    # returns of mean -0.6 vary by 0.64, a quarter of it is left: 0.16 over 100 responses, two runs: 0.04 / sqrt(2)
    half = 1.959964 * 0.04 / math.sqrt(2)
    assert (first["high"] - first["centre"]).tolist() == pytest.approx([half] * 4)
    assert (first["centre"] - first["low"]).tolist() == pytest.approx([half] * 4)
    assert first["runs"].tolist() == [2] * 4
    assert computed.loc[computed["position"] == 2, "low"].isna().all(), "all returns alike, or not known"
    assert {*computed["position"]} == {0, 2}, "4 of 100 responses are few"


def test_it_is_drawn_beside_the_published_error_of_the_other_sign() -> None:
    paper = pd.DataFrame({"metric": ["advantage_mean", "value_mean"], "position": [0.0, 0.0], "value": [0.7, -1.5]})
    with paper_style():
        picture = real_critic.make(results_of(study_of(), paper))
    panels = picture.figure.axes
    assert [panel.get_title(loc="left")[:3] for panel in panels] == ["(a)", "(b)", "(c)", "(d)"]
    drawn = [list(line.get_ydata()) for line in panels[3].lines]
    assert [-0.7] in drawn
    labels = [text.get_text() for text in panels[2].get_legend().get_texts()]
    assert labels == [look.label for look in real_critic.LOOKS.values()]
    for words in ("n = 2 critics a line", "95 % interval", "not over bases", "vcppo sweep real-critic --bases 2"):
        assert words in picture.caption


def test_a_single_run_without_published_numbers_is_drawn_too() -> None:
    with paper_style():
        assert "n = 1 critics a line" in real_critic.make(results_of(study_of(bases=1))).caption


def test_without_tables_of_value_pretraining_the_command_is_named() -> None:
    with pytest.raises(
        NoDataError, match=r"^real-critic: no value-pretraining rows .*make it with: vcppo sweep real-cr"
    ):
        real_critic.make(results_of(study_of(stage="rl")))
    with pytest.raises(NoDataError, match=r"^real-critic: no results/real-critic; make it with: vcppo sweep real-cri"):
        real_critic.make(Results(Path("results"), {}, {}))


def test_a_study_of_one_iteration_has_no_curves_of_training_and_has_its_table() -> None:
    results = results_of(study_of())
    assert [name for name in figures_of(results) if "real-critic" in name] == ["real-critic"]
    assert "real-critic" in tables_of(results)

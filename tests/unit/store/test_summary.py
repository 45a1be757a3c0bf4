import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from vcppo.store.journal import Journal, read_journal
from vcppo.store.summary import LAST_ITERATIONS, NAMES, curves_of, mean_of_last, summary, warned_since

LENGTHS = {0: 100.0, 1: 50.0, 2: 20.0, 3: 30.0, 4: 40.0, 5: 50.0}
ACCURACIES = {0: 0.1, 1: 0.2, 2: 0.3, 3: 0.4, 4: 0.5, 5: 0.6}


def test_the_summary_has_start_extremes_and_the_mean_of_the_last_five() -> None:
    assert LAST_ITERATIONS == 5
    assert summary({"rollout/accuracy": ACCURACIES, "rollout/length_tokens": LENGTHS}) == {
        "start_length_tokens": 100.0,
        "final_length_tokens": 38.0,
        "min_length_fraction": 0.2,
        "min_accuracy": 0.1,
        "final_accuracy": pytest.approx(0.4),
    }


def test_what_was_foreseen_is_in_the_summary_where_it_was_measured() -> None:
    curves = {
        "rollout/accuracy": ACCURACIES,
        "rollout/length_tokens": LENGTHS,
        "alignment/reward_cosine": {0: math.nan, 50: 0.5},
        "alignment/score_z": {0: -3.5, 50: 2.0},
        "early_warning/length_falls": {0: 0.0, 1: 0.0, 2: 1.0, 3: 0.0},
        "early_warning/alignment": {0: 0.0, 1: 0.0, 2: 0.0, 3: 1.0},
        "early_warning/truncation": {0: 0.0, 1: 0.0, 2: 0.0, 3: 0.0},
    }
    made = summary(curves)
    assert (made["start_score_z"], made["early_warning_at"]) == (-3.5, 2.0)
    assert not {"start_reward_cosine", "start_length_z"} & made.keys()
    assert warned_since(curves) == {"length_falls": 2, "alignment": 3}
    assert made.keys() <= set(NAMES), "a study may score its runs by each"


def test_iterations_count_by_their_number_not_by_when_they_were_read() -> None:
    shuffled = {step: LENGTHS[step] for step in (3, 5, 0, 4, 1, 2)}
    assert summary({"rollout/accuracy": ACCURACIES, "rollout/length_tokens": shuffled})["start_length_tokens"] == 100.0


@pytest.mark.parametrize("curves", [{}, {"rollout/accuracy": ACCURACIES}, {"policy/loss": {0: 1.0}}])
def test_a_run_without_iterations_has_none(curves: dict[str, dict[int, float]]) -> None:
    assert summary(curves) == {}


def test_of_fewer_values_the_mean_is_over_all() -> None:
    assert mean_of_last([1.0, 2.0]) == 1.5


def test_curves_of_a_journal_are_its_metrics_and_null_is_nan(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.metrics(1, {"a/b": 0.5, "c": math.nan})
    journal.table("t", 1, {"x": [1]})
    curves = curves_of(read_journal(tmp_path / "journal.jsonl"))
    assert curves["a/b"] == {1: 0.5}
    assert math.isnan(curves["c"][1])
    assert curves.keys() == {"a/b", "c"}


def test_of_several_values_at_a_step_the_latest_counts_whatever_their_order() -> None:
    records = [{"kind": "metrics", "step": 6, "time": time, "values": {"eval/k": time}} for time in (2.0, 1.0)]
    assert curves_of(records) == curves_of(records[::-1]) == {"eval/k": {6: 2.0}}


def test_importing_it_loads_nothing_but_the_standard_library() -> None:
    code = "import sys, json; before = set(sys.modules); import vcppo.store.summary; "
    code += "print(json.dumps(sorted({name.partition('.')[0] for name in set(sys.modules) - before})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(json.loads(done.stdout)) - set(sys.stdlib_module_names) == {"vcppo"}

"""The tables of an exported study: runs, curves, positions, problems; refused where cells are missing."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from exports import ACCURACIES, LENGTHS, Rows, four_cells
from fake_study import PROVENANCE, FakeStudy, iterate, positions

from vcppo.cli.main import main
from vcppo.errors import StudyError
from vcppo.settings.loading import override
from vcppo.store.cell_folders import State
from vcppo.tracking.export import LEFT_OUT
from vcppo.tracking.table_files import write_files


def test_runs_csv_has_a_row_a_run_in_order_with_its_scores(
    study: FakeStudy, exported: Callable[..., dict[str, Rows]]
) -> None:
    four_cells(study)
    rows = exported()["runs.csv"]
    assert [(row["arm"], row["seed"], row["cell"]) for row in rows] == [
        ("ppo", "0", "ppo-s0"),
        ("ppo", "1", "ppo-s1"),
        ("vcppo", "0", "vcppo-s0"),
        ("vcppo", "1", "vcppo-s1"),
    ]
    row = rows[0]
    expected = {
        "study": "components",
        "status": "done",
        "error": "",
        "wall_s": "60.0",
        "steps": "6",
        "avg_at_k": "0.375",
        "pass_at_k": "0.5",
        "k": "4",
        "problems": "2",
        "start_length_tokens": "100.0",
        "min_length_fraction": "0.2",
        "min_accuracy": "0.1",
        "final_accuracy": "0.4",  # mean of 0.2 to 0.6
        "final_length_tokens": "38.0",  # mean of the last five
        "pretrain_steps_done": "20",
        "commit": PROVENANCE["commit"],
        "origin": "measured",
        "n": "8",
    }
    assert expected.items() <= row.items()
    assert len(row["settings_hash"]) == 12
    assert row["run_id"] == "ppo-s0"  # no tracking server has named it


def test_the_curves_are_of_rl_evaluation_and_the_pretraining_that_the_critic_has_seen(
    study: FakeStudy, exported: Callable[..., dict[str, Rows]]
) -> None:
    study.finished_cell("ppo-s0", arm="ppo", seed=0, accuracies=ACCURACIES, lengths=LENGTHS)
    rows = exported()["curves.parquet"]
    of = {
        name: [(row["step"], row["value"]) for row in rows if row["metric"] == name]
        for name in {r["metric"] for r in rows}
    }
    assert of["rollout/accuracy"] == [(str(step), str(value)) for step, value in enumerate(ACCURACIES)]
    assert of["pretrain/loss"] == [("10", "0.1"), ("20", "0.05")]  # its journal goes on to 30, for others
    assert of["eval/digits/pass_at_4"] == [("6", "0.5")]
    assert of.keys() == {name for name in written_metrics(study) if not name.startswith("system/")}
    assert "time/other_s" in of
    assert rows == sorted(rows, key=lambda row: (row["metric"], int(row["step"])))


def test_metrics_that_the_docs_say_to_watch_are_there_and_so_is_what_nobody_thought_of(
    study: FakeStudy, exported: Callable[..., dict[str, Rows]]
) -> None:
    cell = study.finished_cell("ppo-s0", arm="ppo", seed=0, accuracies=ACCURACIES, lengths=LENGTHS)
    journal = study.enter(cell, "rl", "rl-ppo-s0").journal
    watched = {"mismatch/kl": 0.1, "verify/no_answer_rate": 0.2, "later/thought_of": 0.3}
    journal.metrics(6, watched)
    assert watched.keys() <= {row["metric"] for row in exported()["curves.parquet"]}


def test_patterns_choose_metrics_and_what_is_left_out_can_be_asked_for(
    study: FakeStudy, exported: Callable[..., dict[str, Rows]]
) -> None:
    study.finished_cell("ppo-s0", arm="ppo", seed=0, accuracies=ACCURACIES, lengths=LENGTHS)
    every = {row["metric"] for row in exported(metrics=("*",))["curves.parquet"]}
    assert every == written_metrics(study)
    assert "system/rss_mb" in every
    few = {row["metric"] for row in exported(metrics=("eval/*", "rollout/accuracy"))["curves.parquet"]}
    assert few == {name for name in every if name.startswith("eval/") or name == "rollout/accuracy"}


def test_the_help_says_what_is_left_out() -> None:
    told = " ".join(CliRunner().invoke(main, ["export", "--help"]).output.split())
    assert LEFT_OUT
    assert all(f"all but '{pattern}'" in told for pattern in LEFT_OUT)


def test_positions_and_calibration_come_from_both_stages(
    study: FakeStudy, exported: Callable[..., dict[str, Rows]]
) -> None:
    study.finished_cell("ppo-s0", arm="ppo", seed=0, accuracies=ACCURACIES, lengths=LENGTHS)
    files = exported()
    rows = files["positions.parquet"]
    assert [(row["stage"], row["step"]) for row in rows[::3]] == [
        ("value-pretraining", "10"),
        ("value-pretraining", "20"),
        ("rl", "0"),
    ]
    first, second, third = rows[6:9]
    assert (first["position"], first["from_end"], first["n"]) == ("0", "False", "96")
    assert [row["value_mean"] for row in (first, second, third)] == [str(x) for x in positions()["value_mean"]]
    assert second["explained_variance"] == ""
    assert [row["return_mean"] for row in files["calibration.csv"]] == ["-0.6", "0.1"]


def test_problems_are_those_of_the_final_evaluation(study: FakeStudy, exported: Callable[..., dict[str, Rows]]) -> None:
    study.finished_cell("ppo-s0", arm="ppo", seed=0, accuracies=ACCURACIES, lengths=LENGTHS)
    rows = exported()["problems.parquet"]
    keys = ("arm", "seed", "problem", "samples", "correct", "unreadable", "length_tokens", "n")
    assert [tuple(row[key] for key in keys) for row in rows] == [
        ("ppo", "0", "p0", "4", "3", "0", "80.0", "4"),
        ("ppo", "0", "p1", "4", "0", "1", "100.0", "4"),
    ]


def test_every_row_says_where_it_comes_from(study: FakeStudy, exported: Callable[..., dict[str, Rows]]) -> None:
    four_cells(study)
    for rows in exported().values():
        assert rows
        for row in rows:
            assert row["origin"] == "measured"
            assert row["run_id"]
            assert row["commit"]
            assert row["settings_hash"]
            assert (row["base_seed"], row["seed"]) in {("0", "0"), ("0", "1")}
            assert int(row["n"]) > 0


def test_an_export_again_is_the_same_to_the_byte_and_leaves_nothing_behind(
    study: FakeStudy, exported: Callable[..., dict[str, Rows]], tmp_path: Path
) -> None:
    four_cells(study)
    exported()
    before = {path.name: path.read_bytes() for path in (tmp_path / "results").iterdir()}
    exported()
    assert {path.name: path.read_bytes() for path in (tmp_path / "results").iterdir()} == before
    assert sorted(before) == ["calibration.csv", "curves.parquet", "positions.parquet", "problems.parquet", "runs.csv"]


def test_runs_of_several_bases_are_told_apart(study: FakeStudy, exported: Callable[..., dict[str, Rows]]) -> None:
    for name, base, seed in (("ppo-b2-s0", 2, 0), ("ppo-s1", 0, 1), ("ppo-s0", 0, 0)):
        cell = study.finished_cell(name, arm="ppo", seed=seed, accuracies=ACCURACIES, lengths=LENGTHS)
        settings = override(cell.settings(), {"base_seed": base})
        (cell.path / "settings.json").write_text(json.dumps(settings.model_dump(mode="json")))
    files = exported()
    assert [(row["cell"], row["base_seed"]) for row in files["runs.csv"]] == [
        ("ppo-s0", "0"),
        ("ppo-s1", "0"),
        ("ppo-b2-s0", "2"),
    ]
    for rows in files.values():
        assert {(row["base_seed"], row["seed"]) for row in rows} == {("0", "0"), ("0", "1"), ("2", "0")}
        assert list(rows[0])[list(rows[0]).index("base_seed") + 1] == "seed"


def test_a_base_that_is_swept_has_one_column(study: FakeStudy, exported: Callable[..., dict[str, Rows]]) -> None:
    study.cell("x", state="failed", error="x", swept={"base_seed": 3})
    (row,) = exported()["runs.csv"]
    assert (row["base_seed"], list(row).count("base_seed")) == ("3", 1)


def test_a_study_of_200_runs_has_curves_of_a_few_megabytes(tmp_path: Path) -> None:
    """A tenth of it here: 20 runs, 50 iterations, 60 metrics."""
    draw = random.Random(0)
    names = ("study", "arm", "base_seed", "seed", "step", "metric", "value", "run_id", "n", "origin")
    rows = (
        dict(
            zip(
                names,
                ("x", "vcppo", 0, run, step, f"value/{name}", draw.gauss(0, 1), "5" * 32, 96, "measured"),
                strict=True,
            )
        )
        for run in range(20)
        for name in range(60)
        for step in range(50)
    )
    write_files(tmp_path, {"curves.parquet": (names, rows)})
    assert (tmp_path / "curves.parquet").stat().st_size < 600_000
    assert pq.read_metadata(tmp_path / "curves.parquet").num_rows == 60_000


def test_a_failed_cell_has_its_error_and_no_scores(study: FakeStudy, exported: Callable[..., dict[str, Rows]]) -> None:
    cell = study.cell("ppo-s0", state="failed", error="TrainingError: ratio, 1e5")
    stage = study.enter(cell, "rl", "a")
    iterate(stage.journal, 0)
    study.cell("ppo-s1", seed=1, state="pruned")
    files = exported()
    failed, pruned = files["runs.csv"]
    assert (failed["status"], failed["error"], failed["steps"]) == ("failed", "TrainingError: ratio, 1e5", "1")
    assert failed["final_accuracy"] == failed["avg_at_k"] == failed["n"] == ""
    assert pruned["status"] == "pruned"
    assert files["curves.parquet"] == files["positions.parquet"] == []


def test_swept_settings_are_columns_by_their_dotted_names(
    study: FakeStudy, exported: Callable[..., dict[str, Rows]]
) -> None:
    for seed, value in ((0, 0.9), (1, None)):
        swept = {"gae.lambda_critic": 0.9, "gae.length_adaptive_alpha": value}
        study.cell(f"x-s{seed}", state="failed", error="x", seed=seed, swept=swept)
    rows = exported()["runs.csv"]
    assert [(row["gae.lambda_critic"], row["gae.length_adaptive_alpha"]) for row in rows] == [
        ("0.9", "0.9"),
        ("0.9", ""),
    ]
    assert list(rows[0])[8:11] == ["steps", "gae.lambda_critic", "gae.length_adaptive_alpha"]


def test_cells_that_share_a_pretraining_each_have_its_rows(
    study: FakeStudy, exported: Callable[..., dict[str, Rows]]
) -> None:
    for name, ran in (("a", True), ("b", False)):
        cell = study.finished_cell(name, arm=name, seed=0, accuracies=ACCURACIES, lengths=LENGTHS)
        stages = [stage.model_dump() for stage in cell.read().stages]
        stages[0] |= {"address": "pre-a", "ran": ran}
        cell.update(stages=stages)
    files = exported()
    for arm in ("a", "b"):
        steps = [
            row["step"] for row in files["curves.parquet"] if row["arm"] == arm and row["metric"] == "pretrain/loss"
        ]
        assert steps == ["10", "20"]
        tables = [
            row for row in files["positions.parquet"] if row["arm"] == arm and row["stage"] == "value-pretraining"
        ]
        assert len(tables) == 6


@pytest.mark.parametrize("state", ["queued", "running"])
def test_a_study_with_holes_is_refused_with_their_names_unless_allowed(
    study: FakeStudy, exported: Callable[..., dict[str, Rows]], tmp_path: Path, state: State
) -> None:
    study.finished_cell("ppo-s0", arm="ppo", seed=0, accuracies=ACCURACIES, lengths=LENGTHS)
    study.cell("ppo-s1", state=state, seed=1)
    named = {"queued": "not begun", "running": "interrupted"}[state]  # nobody works on it any more
    with pytest.raises(StudyError, match=rf"components is incomplete, 1 of 2 cells missing: ppo-s1 \({named}\)"):
        exported()
    assert not (tmp_path / "results").exists()
    assert [row["cell"] for row in exported(allow_incomplete=True)["runs.csv"]] == ["ppo-s0"]


def written_metrics(study: FakeStudy) -> set[str]:
    """Of all journals."""
    lines = [line for path in study.out.rglob("journal.jsonl") for line in path.read_text().splitlines()]
    return {name for line in lines for name in json.loads(line).get("values", {})}

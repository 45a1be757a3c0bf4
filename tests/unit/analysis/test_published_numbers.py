"""The numbers of the paper, and what is measured beside them."""

from pathlib import Path

import pytest
from committed_results import committed_results
from result_folders import frame, study_of

from vcppo.analysis import figure3, tables
from vcppo.analysis.data import BadResultsError, Results, read_results


def test_the_decay_of_the_reward_meets_the_published_points() -> None:
    analytic = figure3.decay().set_index(["lambda", "distance"])["weight"]
    points = committed_results().paper["figure3"]
    for point in points.to_dict("records"):
        exact = analytic[point["lambda"], point["distance_tokens"]]
        assert point["value"] == pytest.approx(exact, abs=0.006 if point["reading"] != "analytic" else 1e-6)


def test_table_2_puts_the_published_row_beside_both_readings() -> None:
    runs = frame("arm seed status avg_at_k\n vcppo-no-decouple-0.95 0 done 0.5\n vcppo-no-decouple-1.0 0 done 0.7")
    study = study_of(runs.to_string(index=False))
    table = tables.table2(Results(Path(), {"components": study}, committed_results().paper))
    assert table.shown["published AIME pass@1"].tolist() == ["29.4", "29.4"]
    assert table.shown["measured avg@4 (%)"].tolist() == ["50.0", "70.0"]
    assert any("λ = 1 is the likelier reading" in note for note in table.notes)


def test_table_4_joins_measured_and_published_by_the_value_of_lambda() -> None:
    runs = "arm seed status avg_at_k gae.lambda_actor\n x 0 done 0.5 0.90\n y 0 done 0.7 1\n z 0 done 0.6 0.5"
    table = tables.table4(Results(Path(), {"lambda-actor": study_of(runs)}, committed_results().paper))
    assert table.shown["λ actor"].tolist() == ["0.5", "0.9", "0.95", "0.99", "1"]
    assert table.shown["measured avg@4 (%)"].tolist() == ["60.0", "50.0", "–", "–", "70.0"]
    assert table.shown["published AIME pass@1"].tolist() == ["–", "34.3", "41.3", "41.9", "29.4"]


def test_published_files_hold_the_published_numbers() -> None:
    paper = committed_results().paper
    assert sorted(paper) == ["figure1a", "figure1b", "figure2", "figure3", "figure4", "figure6", "table1", "table2",
                             "table3", "table4", "vapo_table1"]  # fmt: skip
    for name, rows in paper.items():
        assert set(rows["confidence"]) <= {"P", "N", "M", "D"}, name
        assert rows["source"].str.contains(r"arXiv:250\d\.\d+").all(), name
    sums = {name: paper[name]["value"].sum() for name in ("table1", "table2", "table3", "table4", "vapo_table1")}
    assert sums == pytest.approx(
        {"table1": 354.6, "table2": 518.5, "table3": 425.4, "table4": 669.9, "vapo_table1": 519.4}
    )


def test_the_two_figure_2_panels_add_up_to_a_mean_return_near_minus_0_84() -> None:
    panels = committed_results().paper["figure2"].pivot(index="position", columns="metric", values="value").sum(axis=1)
    assert panels.loc[:130].between(-0.86, -0.83).all()
    assert panels.between(-0.99, -0.83).all()


def test_a_folder_of_one_s_own_may_replace_the_published_numbers(tmp_path: Path) -> None:
    (tmp_path / "paper").mkdir()
    header = "system,arm,step,metric,value,unit,n,origin,confidence,source"
    (tmp_path / "paper" / "figure4.csv").write_text(f"{header}\nX,x,0,accuracy,1,%,,measured,P,arXiv:1\n")
    with pytest.raises(BadResultsError, match=r"figure4\.csv line 2: origin = 'measured', expected 'paper'"):
        read_results(tmp_path)

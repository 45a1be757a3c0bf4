"""analysis/: CSV files in, figures and tables out, mistakes told. The results folders here are made up and small."""

import doctest
import io
import math
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from committed_results import folder_of
from result_folders import write_all_studies, write_study

from vcppo.analysis import data as results_data
from vcppo.analysis import figure3, figure6, lambda_grid, style
from vcppo.analysis.collapse_law import SWEEPS
from vcppo.analysis.credit_rates import STUDIES as RATES
from vcppo.analysis.data import BadResultsError, NoDataError, read_results, read_study
from vcppo.analysis.redraw import main, tables_of
from vcppo.analysis.table_text import render

OTHER_STUDIES = ("methods", "cppo", "vine", "vapo", "long")  # tested in test_analysis_methods.py, test_analysis_long.py
OF_THE_LAW = (*SWEEPS, "push")  # tested in test_collapse_law_drawn.py
OF_SHIFTED = ("endings", "collapse-law-reward-model", "profile")  # tested in test_shifted_critics.py
OF_CRITICS = ("critic-pays", *RATES, "credit-pretraining", "crossover", "forecast")  # tested in modules of their own
OF_A_REAL_MODEL = ("real-critic",)  # tested in test_real_critic.py


def coarse(figure: Any) -> dict[str, bytes]:
    """A figure as a small PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=40)
    return {"png": buffer.getvalue()}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A small results folder with everything drawn once, and what was printed; any warning is an error.

    Figures are coarse and PNG alone, to be quick; the one that is redrawn below is written as users have it.
    """
    root = write_all_studies(tmp_path_factory.mktemp("small"), seeds=3, steps=8, problems=6)
    with pytest.MonkeyPatch.context() as patch:
        lines: list[str] = []
        patch.setattr(style, "render", coarse)
        patch.setattr("builtins.print", lambda *words, **_: lines.append(" ".join(map(str, words))))
        assert main(["--results", str(root)]) == 0
    return root, "\n".join(lines)


def not_drawn(figures: Path) -> list[str]:
    """Lines of captions.md on what there is no data for."""
    return (figures / "captions.md").read_text().split("\n## Not drawn\n\n")[1].splitlines()


def test_every_figure_and_table_is_drawn_and_said(drawn: tuple[Path, str]) -> None:
    root, said = drawn
    assert {line.split()[1].rstrip(":") for line in not_drawn(root / "figures")} == {
        *OTHER_STUDIES,
        *OF_THE_LAW,
        *OF_CRITICS,
        *OF_SHIFTED,
        *OF_A_REAL_MODEL,
        "methods-compute",
        "vine-values",
        "lambda-critic",
        "table",
    }
    *skipped, absent = [line for line in said.splitlines() if line.startswith("skipped")]
    assert [line.split(":")[0] for line in skipped] == [
        "skipped push",
        "skipped critic-pays",
        "skipped table collapse-law",
    ]
    assert absent.startswith(f"skipped 27 figures and tables of studies that are not in {root}: methods, cppo, vine, ")
    assert absent.endswith(f"; {root / 'figures' / 'captions.md'} has the commands that make them")
    figures = ["headline", "figure1", "figure2", "figure3", "figure4", "figure6", "lengths", "critic-error",
               "calibration", "lambda-grid", "outcomes", "improvement", "tables-beside"]  # fmt: skip
    figures += [f"{kind}-{study}" for kind in ("accuracy", "lengths", "outcomes")
                for study in ("lambda-actor", "lambda-grid", "pretrain-steps")]  # fmt: skip
    for name in figures:
        assert (root / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert f"wrote {root / 'figures' / name}.pdf, .png" in said
    for name in ("table1", "table2", "table3", "table4", "components", "lambda-actor", "lambda-grid", "pretrain-steps"):
        assert {path.suffix for path in (root / "figures").glob(f"{name}.*")} >= {".md", ".csv", ".tex"}
    assert not list((root / "figures").glob(".*"))


def test_every_caption_says_n_interval_origin_and_command(drawn: tuple[Path, str]) -> None:
    captions = (drawn[0] / "figures" / "captions.md").read_text().split("\n## Not drawn")[0].split("\n## ")[1:]
    assert len(captions) == 22
    for caption in captions:
        assert "n = 3 seeds an arm" in caption or "n = 2 to 3 seeds an arm" in caption
        assert "interval" in caption or "bootstrap" in caption
        assert "Origin: measured" in caption
        assert "vcppo sweep " in caption
        assert "commit 0123456789." in caption
    assert sum("arXiv 2503.01491, figure" in caption for caption in captions) == 6
    assert "1 of 3 failed (PPO, λ = 1)" in next(caption for caption in captions if caption.startswith("figure4"))


def test_redrawn_tables_are_the_same_to_the_byte(drawn: tuple[Path, str]) -> None:
    results = read_results(drawn[0])
    for make in tables_of(results).values():
        try:
            table = make(results)
        except NoDataError:  # of a study that is not in this folder
            continue
        for ending, content in render(table).items():
            assert (drawn[0] / "figures" / f"{table.name}.{ending}").read_bytes() == content


def test_a_redrawn_figure_is_the_same_to_the_byte(drawn: tuple[Path, str]) -> None:
    results = read_results(drawn[0])
    with style.paper_style():
        first, second = (style.render(figure6.make(results).figure) for _ in range(2))
    assert first["pdf"].startswith(b"%PDF")
    assert first["png"].startswith(b"\x89PNG")
    assert first == second


def test_one_seed_is_drawn_without_interval_and_what_lacks_data_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(style, "render", coarse)
    write_study(tmp_path, "components", ["ppo", "vcppo", "grpo"], seeds=1, steps=4, problems=3)
    assert main(["--results", str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.count("of studies that are not in") == 1
    reasons = not_drawn(tmp_path / "out")
    command = "vcppo sweep lambda-grid --seeds 3 && vcppo export lambda-grid"
    assert f"- lambda-grid: no {tmp_path / 'lambda-grid'}; make it with: {command}" in reasons
    assert (
        len(reasons) == 3 + 1 + 5 + 4 + sum(map(len, (OF_THE_LAW, OF_CRITICS, OF_SHIFTED, OF_A_REAL_MODEL))) + 3
    )  # from 5 on: figures and tables of other studies
    rows = [line.split("|") for line in (tmp_path / "out" / "components.md").read_text().splitlines() if "|" in line]
    cells = [cell.strip() for row in rows for cell in row if "[" in cell]
    assert cells.count("1.00 [0.03, 1.00]") == 2
    others = {cell for cell in cells if cell != "1.00 [0.03, 1.00]"}
    assert others <= {"0 of 1 [0, 98]", "1 of 1 [3, 100]"}, "P and counts alone, which are exact"


def test_figures_without_value_pretraining_name_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(style, "render", lambda figure: {})
    folder = write_study(tmp_path, "components", ["ppo"], seeds=1, steps=4, problems=3)
    for name in ("curves", "positions", "calibration"):
        table = pd.read_csv(folder / f"{name}.csv")
        column = "metric" if name == "curves" else "stage"
        table[~table[column].str.contains("pretrain")].to_csv(folder / f"{name}.csv", index=False)
    (folder / "problems.csv").unlink()
    assert main(["--results", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    command = "vcppo sweep pretrain-steps --seeds 3 && vcppo export pretrain-steps"
    assert (
        f"skipped figure6: no pretrain/held_out_loss in {tmp_path / 'pretrain-steps'}; make it with: {command}" in said
    )
    for name in ("figure2", "calibration", "headline", "improvement"):
        assert f"skipped {name}: " in said


def test_a_folder_of_one_study_or_of_none_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_study(tmp_path / "results", "mine", ["ppo"], seeds=1, steps=2, problems=2)
    assert main(["--results", str(folder)]) == 2
    assert capsys.readouterr().err == (
        f"BadResultsError: {folder}: the folder of one study; expected the one that it lies in: "
        f"--results {tmp_path / 'results'}\n"
    )
    (tmp_path / "empty").mkdir()
    assert main(["--results", str(tmp_path / "empty")]) == 2
    assert capsys.readouterr().err == (
        f"BadResultsError: {tmp_path / 'empty'}: nothing to draw in it; expected <study>/runs.csv, as every sweep and "
        "`vcppo export` write\n"
    )
    assert not list((tmp_path / "empty").iterdir())


BAD: Mapping[str, tuple[str, Any, str]] = {
    "a missing column": (
        "runs",
        lambda t: t.drop(columns="avg_at_k"),
        "runs.csv: column avg_at_k missing; it has study, ",
    ),
    "text for a number": (
        "curves",
        lambda t: t.assign(value=["high", *t["value"][1:]]),
        "curves.csv line 2: value = 'high', expected a number",
    ),
    "an infinite number": (
        "problems",
        lambda t: t.assign(length_tokens=[*t["length_tokens"][:-1], math.inf]),
        "problems.csv line 4: length_tokens = 'inf', expected a number",
    ),
    "no seed": ("runs", lambda t: t.assign(seed=""), "runs.csv line 2: seed = '', expected a number"),
    "an unknown status": (
        "runs",
        lambda t: t.assign(status="running"),
        "runs.csv line 2: status = 'running', expected done, failed, pruned",
    ),
    "published among measured": (
        "curves",
        lambda t: t.assign(origin="paper"),
        "curves.csv line 2: origin = 'paper', expected 'measured' in this folder",
    ),
    "a run twice": ("runs", lambda t: pd.concat([t, t]), "runs.csv line 3: a second row for arm ppo, seed 0"),
    "a problem left out": (
        "problems",
        lambda t: pd.concat([t, t[:2].assign(arm="vcppo")]),
        "problems.csv: arm vcppo, seed 0 has 2 rows, expected one for each of 3 problems",
    ),
}


def test_a_study_of_several_tasks_has_other_problems_for_each(tmp_path: Path) -> None:
    arms = ["ppo,task.lines=15", "ppo,task.lines=30"]
    folder = write_study(tmp_path, "components", arms, seeds=2, steps=2, problems=3)
    problems = pd.read_csv(folder / "problems.csv")
    of_task = problems["arm"].str.rpartition("=")[2]
    problems["problem"] = of_task + "/" + problems["problem"].astype(str)
    problems.to_csv(folder / "problems.csv", index=False)
    assert read_study(folder).problems["problem"].nunique() == 6
    problems[1:].to_csv(folder / "problems.csv", index=False)
    with pytest.raises(BadResultsError, match="seed 0 has 2 rows, expected one for each of 3 problems"):
        read_study(folder)


@pytest.mark.parametrize("what", BAD)
def test_a_bad_file_is_one_line_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    kind, spoil, message = BAD[what]
    folder = write_study(tmp_path, "components", ["ppo"], seeds=1, steps=2, problems=3)
    if what == "a problem left out":
        runs = pd.read_csv(folder / "runs.csv")
        pd.concat([runs, runs.assign(arm="vcppo")]).to_csv(folder / "runs.csv", index=False)
    spoil(pd.read_csv(folder / f"{kind}.csv")).to_csv(folder / f"{kind}.csv", index=False)
    assert main(["--results", str(tmp_path)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"BadResultsError: {folder}/{message}")
    assert printed.err.count("\n") == 1
    assert not (tmp_path / "figures").exists()


def test_a_folder_or_table_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadResultsError, match="nowhere: no such folder"):
        read_results(tmp_path / "nowhere")
    with pytest.raises(BadResultsError, match=r"no runs\.csv in it; make it with: vcppo export components"):
        read_study(tmp_path / "components")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "runs.csv").write_text('a,b\n1,2,3\n"')
    with pytest.raises(BadResultsError, match=r"runs\.csv: not a CSV table"):
        read_results(tmp_path)


def test_quiet_draws_as_much_and_says_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(style, "render", lambda figure: {})
    write_study(tmp_path, "mine", ["a"], seeds=1, steps=1, problems=2)
    assert main(["--results", str(tmp_path), "--quiet"]) == 0
    assert capsys.readouterr().out == ""
    assert (tmp_path / "figures" / "mine.md").exists()


def test_arms_keep_their_looks_and_no_two_of_twenty_share_them() -> None:
    arms = ["vcppo", "ppo", *(f"x={i}" for i in range(18))]
    looks = style.arm_styles(arms)
    assert list(looks)[:4] == ["ppo", "vcppo", "x=0", "x=1"]
    assert looks["ppo"] == style.arm_styles(["ppo"])["ppo"]
    assert len({(look.colour, look.line, look.marker) for look in looks.values()}) == 20
    published = (style.PUBLISHED["color"], style.PUBLISHED["linestyle"])
    assert published not in {(look.colour, look.line) for look in looks.values()}


def test_more_arms_than_a_page_holds_are_not_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_study(tmp_path, "search", [f"trial-{i}" for i in range(21)], seeds=1, steps=1, problems=2)
    assert main(["--results", str(tmp_path)]) == 0
    assert "skipped accuracy-search: search has 21 arms, more than the 20 a page can hold" in capsys.readouterr().out
    assert (tmp_path / "figures" / "search.md").exists()


@pytest.mark.parametrize("module", [results_data, style, figure3, lambda_grid])
def test_examples_in_docstrings_hold(module: Any) -> None:
    assert doctest.testmod(module).failed == 0
    assert doctest.testmod(module).attempted > 0


def test_analysis_opens_no_door_but_to_what_loads_nothing() -> None:
    code = "import sys, vcppo.analysis.redraw; print(*sorted(m for m in sys.modules if m.split('.')[0] in WATCHED))"
    watched = "WATCHED = ['torch', 'transformers', 'mlflow', 'optuna', 'pydantic', 'vcppo']; "
    found = subprocess.run([sys.executable, "-c", watched + code], capture_output=True, text=True, check=True)
    others = [name for name in found.stdout.split() if not name.startswith("vcppo.analysis")]
    assert others == [
        "vcppo",
        "vcppo.errors",
        "vcppo.maths",
        "vcppo.maths.collapse_law",
        "vcppo.maths.forecast_skill",
        "vcppo.maths.run_statistics",
        "vcppo.maths.statistics",
        "vcppo.settings",
        "vcppo.settings.fixed",
        "vcppo.store",
        "vcppo.store.summary",
        "vcppo.system",
        "vcppo.system.shipped",
    ]


def test_ctrl_c_while_figures_are_drawn_is_one_line(tmp_path: Path) -> None:
    def hear() -> None:  # what a shell starts in the background ignores it
        signal.signal(signal.SIGINT, signal.default_int_handler)

    results = folder_of(tmp_path / "results", "components")
    command = [sys.executable, "-m", "vcppo.analysis", "--results", str(results), "--out", str(tmp_path / "out")]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, preexec_fn=hear, **pipes) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("wrote")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors == "stopped; files are replaced whole, and the same command draws all of them\n"

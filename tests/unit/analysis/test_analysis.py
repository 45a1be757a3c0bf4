"""analysis/: CSV files in, figures and tables out. The results folders here are made up, small, and readable."""

import doctest
import io
import itertools
import math
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from committed_results import committed_results, folder_of

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
    style,
    summary,
    tables,
    training,
)
from vcppo.analysis import data as results_data
from vcppo.analysis.collapse_law import SWEEPS
from vcppo.analysis.data import BadResultsError, NoDataError, Results, Study, read_results, read_study
from vcppo.analysis.redraw import main, tables_of
from vcppo.analysis.table_text import markdown, render
from vcppo.maths.statistics import bootstrap_interval

OTHER_STUDIES = ("methods", "cppo", "vine", "vapo", "long")  # tested in test_analysis_methods.py, test_analysis_long.py
OF_THE_LAW = (*SWEEPS, "push")  # tested in test_collapse_law_drawn.py
OF_CRITICS = ("critic-pays", "crossover", "forecast")  # tested in test_critic_figures.py, test_forecast_figure.py
PROVENANCE = {"run_id": "r", "commit": "0123456789abcdef", "settings_hash": "h", "n": 1, "origin": "measured"}


def write_study(
    root: Path,
    name: str,
    arms: Sequence[str],
    *,
    seeds: int = 3,
    steps: int = 12,
    tokens: int = 100,
    problems: int = 12,
    k: int = 4,
    lost: Mapping[tuple[str, int], str] | None = None,
    swept: Mapping[str, Mapping[str, float]] | None = None,
) -> Path:
    """A plausible export: `ppo` and arms without pretraining dip, the others rise. Returns the study's folder."""
    rng = np.random.default_rng(7)
    lost = lost or {}
    runs, curves, positions, calibration, problem_rows = [], [], [], [], []
    for arm in arms:
        dips = arm in ("ppo", "ppo-mc", "vcppo-no-pretrain") or arm == "pretrain.steps=0"
        for seed in range(seeds):
            status = lost.get((arm, seed), "done")
            key = {"study": name, "arm": arm, "seed": seed} | PROVENANCE
            t = np.arange(steps + 1)
            late = steps * rng.uniform(0.45, 0.7)
            rise = 1 / (1 + np.exp(-(t - late) / (steps / 12)))
            fall = np.exp(-((t - steps / 4) ** 2) / (2 * (steps / 7) ** 2))
            accuracy = 0.08 + 0.85 * rise if dips else 0.08 + 0.85 * (1 - np.exp(-t / (steps / 6)))
            accuracy = np.clip(accuracy * (1 - fall * 0.99 * dips) + rng.normal(0, 0.02, len(t)), 0, 1)
            length = tokens * (
                (1 + 1.5 * rise) * (1 - 0.93 * fall) if dips else 1 + 1.5 * (1 - np.exp(-t / (steps / 6)))
            )
            length = length * rng.normal(1, 0.03, len(t))
            lam = float(
                (swept or {}).get(arm, {}).get("gae.lambda_actor", 1.0 if arm.endswith(("mc", "1.0")) else 0.95)
            )
            share = [1.0 if lam == 1 else (1 - lam**x) / (1 - lam) / x for x in length]
            series = {"rollout/accuracy": accuracy, "rollout/length_tokens": length}
            series |= {"advantage/real_reward_share": share} if arm != "grpo" else {}
            for metric, values in series.items():
                curves += [key | {"step": int(s), "metric": metric, "value": v} for s, v in zip(t, values, strict=True)]
            pretrained = not dips and arm != "grpo"
            for step in range(0, 101 if pretrained else 1, 10):
                loss = 0.25 + 1.6 * np.exp(-step / 15) + rng.normal(0, 0.01)
                for metric, v in (("held_out_loss", loss), ("explained_variance", 1 - loss * 1.6)):
                    curves.append(key | {"step": step, "metric": f"pretrain/{metric}", "value": v})
            places = np.arange(0, int(2.5 * tokens), max(1, tokens // 20))
            tables = [("value-pretraining", s) for s in ((0, 100) if pretrained else (0,))]
            tables += [("rl", s) for s in range(0, steps + 1, max(1, steps // 12))] if arm != "grpo" else []
            for stage, step in tables:
                wrong = (
                    1.0 if stage == "value-pretraining" and step == 0 else 0.1 if pretrained else np.exp(-step / steps)
                )
                truth = 2 * accuracy[step if stage == "rl" else 0] - 1 + 0.2 * places / places.max()
                bias = wrong * (-1.2 * np.exp(-places / (0.3 * tokens)) + 1.1 * places / places.max())
                bias = bias + rng.normal(0, 0.03, len(places))
                count = np.maximum(0, (400 * np.exp(-places / (1.5 * tokens)))).astype(int)
                for i, place in enumerate(places):
                    positions.append(key | {
                        "stage": stage, "step": step, "position": place, "from_end": False, "n": count[i],
                        "value_mean": truth[i] + bias[i], "return_mean": truth[i], "value_bias": bias[i],
                        "explained_variance": 0.7 - 2 * wrong * abs(bias[i]), "advantage_mean": -bias[i],
                    })  # fmt: skip
                edges = np.linspace(-1.5 - wrong * rng.uniform(0.5, 1), 1 + wrong, 11)
                for low, high in itertools.pairwise(edges):
                    middle = (low + high) / 2
                    came = float(np.clip(middle * (1 - wrong) - 0.6 * wrong + rng.normal(0, 0.05), -1, 1))
                    calibration.append(key | {
                        "stage": stage, "step": step, "bin_low": low, "bin_high": high, "predicted_mean": middle,
                        "return_mean": came, "n": int(1000 * np.exp(-abs(middle + 0.5))),
                    })  # fmt: skip
            final = accuracy[-3:].mean()
            right = rng.binomial(k, final, problems)
            for problem in range(problems):
                problem_rows.append(key | {"problem": f"p{problem}", "samples": k, "correct": right[problem],
                                       "unreadable": 0, "length_tokens": length[-1]})  # fmt: skip
            scores: dict[str, Any] = {
                "avg_at_k": right.mean() / k, "pass_at_k": (right > 0).mean(), "k": k, "problems": problems,
                "final_length_tokens": length[-1], "start_length_tokens": length[0],
                "min_length_fraction": (length / length[0]).min(), "min_accuracy": accuracy.min(),
                "final_accuracy": final, "pretrain_steps_done": 100 if pretrained else 0,
            }  # fmt: skip
            if status != "done":
                scores = dict.fromkeys(scores, "")
            runs.append(key | {"cell": f"{arm}-s{seed}", "status": status, "error": "NaN loss" * (status != "done"),
                               "wall_s": 60, "steps": steps} | dict((swept or {}).get(arm, {})) | scores)  # fmt: skip
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    tables_of = {
        "runs": runs,
        "curves": curves,
        "positions": positions,
        "calibration": calibration,
        "problems": problem_rows,
    }
    for kind, rows in tables_of.items():
        pd.DataFrame(rows).to_csv(folder / f"{kind}.csv", index=False)
    return folder


def write_all_studies(root: Path, grid_values: Sequence[float] = (0.95, 1.0), **keywords: Any) -> Path:
    """All four studies that have a figure or table of their own."""
    arms = ["ppo", "ppo-mc", "vcppo", "vcppo-no-pretrain", "vcppo-no-decouple-0.95", "vcppo-no-decouple-1.0", "grpo"]
    write_study(root, "components", arms, lost={("ppo-mc", 1): "failed"}, **keywords)
    steps = {f"pretrain.steps={n}": {"pretrain.steps": n} for n in (0, 10, 50)}
    write_study(root, "pretrain-steps", list(steps), swept=steps, **keywords)
    actor = {f"gae.lambda_actor={x}": {"gae.lambda_actor": x} for x in (0.9, 0.95, 1.0)}
    write_study(root, "lambda-actor", list(actor), swept=actor, **keywords)
    grid = {
        f"gae.lambda_actor={a},gae.lambda_critic={c}": {"gae.lambda_actor": a, "gae.lambda_critic": c}
        for a in grid_values
        for c in grid_values
    }
    first = next(iter(grid))
    write_study(root, "lambda-grid", list(grid), swept=grid, lost={(first, 0): "failed"}, **keywords)
    return root


def frame(text: str) -> pd.DataFrame:
    """A frame written as it reads: a header line, then rows, blanks between cells."""
    return pd.read_csv(io.StringIO(text), sep=r"\s+")


def study_of(runs: str, problems: str = "arm seed problem samples correct", **frames: str) -> Study:
    """A study from its frames as text; `runs` needs arm, seed, status and avg_at_k."""
    made = frame(runs)
    for column in ("pass_at_k", "min_length_fraction", "min_accuracy"):
        made[column] = made.get(column, math.nan)
    made = made.assign(k=made.get("k", 4), problems=made.get("problems", 2), commit="abc")
    others = {kind: frame(frames.get(kind, "arm seed")) for kind in ("curves", "positions", "calibration")}
    return Study("components", made, problems=frame(problems), **others)


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


def test_every_figure_and_table_is_drawn_and_said(drawn: tuple[Path, str]) -> None:
    root, said = drawn
    skipped = {line.split()[1].rstrip(":") for line in said.splitlines() if line.startswith("skipped")}
    assert skipped == {
        *OTHER_STUDIES,
        *OF_THE_LAW,
        *OF_CRITICS,
        "methods-compute",
        "vine-values",
        "lambda-critic",
        "table",
    }
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
    said = capsys.readouterr().out
    command = "vcppo sweep lambda-grid --seeds 3 && vcppo export lambda-grid"
    assert f"skipped lambda-grid: no {tmp_path / 'lambda-grid'}; make it with: {command}" in said
    assert (
        said.count("skipped") == 3 + 1 + 5 + 4 + len(OF_THE_LAW) + len(OF_CRITICS) + 3
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
    found = summary.over_seeds(values, ["arm", "step"])
    assert found["centre"].tolist() == [75, 8, 5], "one collapse in five is seen in the line"
    assert found["seeds"].tolist() == [5, 2, 1]
    assert list(found.loc[1, ["low", "high"]]) == [7, 9]
    assert found.loc[2, ["low", "high"]].isna().all()


def test_a_curve_s_interval_is_the_95_percent_bootstrap_of_its_mean() -> None:
    numbers = np.random.default_rng(0).normal(size=20)
    found = summary.over_seeds(
        pd.DataFrame({"arm": "a", "seed": range(20), "step": 0, "value": numbers}), ["arm", "step"]
    )
    wanted = bootstrap_interval(numbers, np.mean, rng=np.random.default_rng(1))
    assert list(found.loc[0, ["low", "high"]]) == pytest.approx([wanted.low, wanted.high], abs=0.05)  # 2000 resamples


def test_an_interval_does_not_depend_on_what_else_is_drawn() -> None:
    values = pd.DataFrame({"arm": "a", "seed": range(5), "step": 0, "value": [1.0, 4, 2, 8, 5]})
    more = pd.concat([values, values.assign(arm="b", value=0.0)])
    alone, beside = (summary.over_seeds(v, ["arm", "step"]) for v in (values, more))
    pd.testing.assert_frame_equal(alone, beside[beside["arm"] == "a"])


def test_a_metric_that_was_not_finite_is_left_out_and_accuracy_becomes_per_cent() -> None:
    curves = frame("arm seed step metric value\n a 0 0 rollout/accuracy 0.25\n a 0 1 rollout/accuracy nan")
    seeds, centres = training.compute(curves, training.ACCURACY)
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
    found = figure2.compute(frame(POSITIONS)).set_index(["quantity", "when", "position"])["centre"]
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
    (lengths, _), (accuracies, _) = figure1.compute(curves)
    assert lengths["value"].tolist() == [110]
    assert accuracies["value"].tolist() == [25]


def test_figure_3_compares_the_start_with_the_mean_of_the_last_five_iterations() -> None:
    shares = [0.9, 0.5, 0.1, 0.2, 0.3, 0.4, 0.5]
    curves = pd.DataFrame({"arm": "ppo", "seed": 0, "step": range(7), "metric": figure3.METRIC, "value": shares})
    found = figure3.compute(curves).set_index("when")["centre"]
    assert found["start"] == 90
    assert found["end"] == pytest.approx(30)


def test_the_decay_of_the_reward_meets_the_published_points() -> None:
    analytic = figure3.decay().set_index(["lambda", "distance"])["weight"]
    points = committed_results().paper["figure3"]
    for point in points.to_dict("records"):
        exact = analytic[point["lambda"], point["distance_tokens"]]
        assert point["value"] == pytest.approx(exact, abs=0.006 if point["reading"] != "analytic" else 1e-6)


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
    (loss, _), (variance, _) = figure6.compute(curves)
    assert loss["value"].tolist() == [1, 0.5, 0.25]
    assert variance["value"].tolist() == [0.75]


def test_the_critic_is_looked_at_four_times_spread_over_training() -> None:
    rows = pd.DataFrame({"arm": "ppo", "seed": 0, "step": range(0, 61, 5), "position": 0, "n": 10, "value_bias": 0.5,
                         "explained_variance": math.nan})  # fmt: skip
    found = critic_error.compute(rows)
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

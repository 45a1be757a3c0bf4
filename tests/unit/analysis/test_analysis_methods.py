"""analysis/ of the studies that compare methods: costs, value errors, pruning, leave-one-out; made-up numbers."""

import doctest
import io
import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from vcppo.analysis import (
    costs,
    cppo,
    methods,
    methods_compute,
    methods_tables,
    outcomes,
    style,
    training,
    values,
    vapo,
    vine,
)
from vcppo.analysis import data as results_data
from vcppo.analysis.data import (
    ARM_ORDER,
    FAMILIES,
    BadResultsError,
    NoDataError,
    Results,
    Study,
    read_results,
    read_study,
)
from vcppo.analysis.redraw import figures_of, main
from vcppo.analysis.table_text import render

PROVENANCE = {"run_id": "r", "commit": "0123456789abcdef", "settings_hash": "h", "n": 1, "origin": "measured"}
STEPS, K = 4, 4


def write_study(
    root: Path,
    name: str,
    arms: Sequence[str],
    *,
    seeds: int = 2,
    lost: Mapping[tuple[str, int], str] | None = None,
    costly: Mapping[str, float] | None = None,
) -> Path:
    """An export with costs, times and truth: accuracy rises with the step and an arm's place, less so for `ppo`."""
    rng = np.random.default_rng(5)
    rows: dict[str, list[dict[str, Any]]] = {kind: [] for kind in ("runs", "curves", "problems", "truth")}
    for place, (arm, seed) in enumerate(itertools.product(arms, range(seeds))):
        key = {"study": name, "arm": arm, "seed": seed} | PROVENANCE
        status = (lost or {}).get((arm, seed), "done")
        scale = (costly or {}).get(arm, 1.0) * (1 + 0.01 * seed)
        times = {"generate_s": 1.0, "score_s": 0.5, "update_s": 2.0, "iteration_s": 4.0}
        for step in range(STEPS):
            done = step + 1
            curves = {
                "cost/answers": 96 * done, "cost/generated_tokens": 1000 * done * scale,
                "cost/forward_tokens": 500 * done * scale, "cost/backward_tokens": 2000 * done * scale,
                "cost/compute_tokens": 7500 * done * scale, "cost/elapsed_s": 4.0 * done * scale,
                "cost/peak_memory_mb": 800 + step, "rollout/accuracy": 0.5, "rollout/length_tokens": 40,
                **{f"time/{part}": seconds * scale for part, seconds in times.items()},
            }  # fmt: skip
            rows["curves"] += [key | {"step": step, "metric": one, "value": value} for one, value in curves.items()]
        right = rng.binomial(K, 0.0 if arm == "ppo" else 0.9, 5)
        evaluated = {0: 0.1, 2: 0.85 - 0.01 * place, STEPS: right.mean() / K}
        for step, value in evaluated.items():
            metric = f"eval/digits/avg_at_{K if step == STEPS else 1}"
            rows["curves"].append(key | {"step": step, "metric": metric, "value": value})
        rows["problems"] += [key | {"problem": f"p{i}", "samples": K, "correct": c, "unreadable": 0,
                                    "length_tokens": 40} for i, c in enumerate(right)]  # fmt: skip
        scores: dict[str, Any] = {
            "avg_at_k": right.mean() / K, "pass_at_k": 1.0, "k": K, "problems": 5, "final_length_tokens": 40,
            "start_length_tokens": 40, "min_length_fraction": 1.0, "min_accuracy": 0.1, "final_accuracy": 0.5,
            "pretrain_steps_done": 0, "answers": 96 * STEPS, "peak_memory_mb": 803,
        }  # fmt: skip
        scores = scores if status == "done" else dict.fromkeys(scores, "")
        rows["runs"].append(key | {"cell": f"{arm}-s{seed}", "status": status, "error": "", "wall_s": 1} | scores)
        for step, response, part in itertools.product((0, 2), range(4), range(3)):
            worth = rng.uniform(-0.9, 0.9)
            rows["truth"].append(key | {"step": step, "answer": response, "position": 10 * part, "fraction": part / 3,
                                        "truth": worth, "estimate": worth + rng.normal(0, 0.3)})  # fmt: skip
    folder = root / name
    folder.mkdir(parents=True)
    for kind, table in rows.items():
        pd.DataFrame(table).to_csv(folder / f"{kind}.csv", index=False)
    return folder


METHODS = ["ppo", "vcppo", "dpo", "grpo", "rloo", "mine"]
CPPO = ["grpo", "cppo-0.5", "cppo-0.5-refill", "cppo-0.875"]
VINE = ["ppo", "vcppo", "dvpo", "vine-k1", "vine-k3", "vine-k9"]
VAPO = ["ppo", "vapo", "vapo-no-pretrain", "vapo-no-group"]


def write_all(root: Path, **keywords: Any) -> Path:
    """The four studies, with as little in them as they can have."""
    for name, arms in {"methods": METHODS, "cppo": CPPO, "vine": VINE, "vapo": VAPO}.items():
        write_study(root, name, arms, **keywords)
    return root


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


def leave_out_what_every_study_has(patch: pytest.MonkeyPatch) -> None:
    """Accuracy, lengths and outcomes by arm are tested elsewhere, and slow to draw."""

    def none(*_: Any, **__: Any) -> Any:
        raise NoDataError("left out")

    patch.setattr(training, "make", none)
    patch.setattr(outcomes, "make", none)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The four studies drawn once, coarsely, and what was printed; any warning is an error."""
    root = write_all(tmp_path_factory.mktemp("methods"), lost={("dpo", 0): "failed", ("mine", 0): "failed",
                                                               ("mine", 1): "pruned"})  # fmt: skip
    lines: list[str] = []

    def coarse(figure: Any) -> dict[str, bytes]:
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=40)
        return {"png": buffer.getvalue()}

    with pytest.MonkeyPatch.context() as patch:
        leave_out_what_every_study_has(patch)
        patch.setattr(style, "render", coarse)
        patch.setattr("builtins.print", lambda *words, **_: lines.append(" ".join(map(str, words))))
        assert main(["--results", str(root)]) == 0
    return root, "\n".join(lines)


def test_the_four_studies_are_drawn_and_their_tables_written(drawn: tuple[Path, str]) -> None:
    root, _ = drawn
    for name in ("methods", "methods-compute", "cppo", "vine", "vapo"):
        assert (root / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    for name in ("methods", "methods-compute", "vapo", "vine-values", "cppo", "vine"):
        assert {path.suffix for path in (root / "figures").glob(f"{name}.*")} >= {".md", ".csv", ".tex"}
    assert (root / "figures" / "vapo.md").read_text().startswith("**VAPO, one component less**")


def test_every_caption_of_them_says_n_interval_origin_and_command(drawn: tuple[Path, str]) -> None:
    captions = (drawn[0] / "figures" / "captions.md").read_text().split("\n## ")[1:]
    mine = [text for text in captions if text.split("\n")[0] in ("methods", "methods-compute", "cppo", "vine", "vapo")]
    assert len(mine) == 5
    for text in mine:
        for words in ("seeds an arm", "95 % percentile bootstrap", "Origin: measured", "vcppo sweep ", "commit 012345"):
            assert words in text
    assert "arXiv 2504.05118, table 1" in mine[-1]
    assert "1 of 2 failed (DPO)" in mine[0]


def test_one_seed_is_drawn_without_an_interval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave_out_what_every_study_has(monkeypatch)
    monkeypatch.setattr(style, "render", lambda figure: {"png": b""})
    root = write_all(tmp_path, seeds=1)
    assert main(["--results", str(root), "--quiet"]) == 0
    for name in ("methods", "methods-compute", "vapo", "vine-values"):
        table = (root / "figures" / f"{name}.md").read_text().split("\n\n")[1]
        assert "[" not in re.sub(r"\d of \d \[\d+, \d+\]", "", table), "counts alone have one, which is exact"


def test_redrawn_tables_of_methods_are_the_same_to_the_byte(drawn: tuple[Path, str]) -> None:
    results = read_results(drawn[0])
    for make in (methods_tables.equal_samples, methods_tables.equal_compute, vine.table, vapo.table):
        table = make(results)
        for ending, content in render(table).items():
            assert (drawn[0] / "figures" / f"{table.name}.{ending}").read_bytes() == content


MAKERS: Mapping[str, tuple[Callable[[Results], Any], str, str, str]] = {
    "no study": (methods.make, "", "", "methods: no {root}/methods; make it with: vcppo sweep methods --seeds 5"),
    "no costs": (methods.make, "methods", "cost/", "methods: no cost/answers in the curves of methods; make it with: "),
    "no evaluation": (
        methods_compute.make,
        "methods",
        "eval/",
        "methods-compute: no eval/*/avg_at_* in the curves of methods",
    ),
    "no times": (cppo.make, "cppo", "time/update", "cppo: no time/update_s in the curves of cppo; make it with: "),
    "no truth": (vine.make, "vine", "truth.csv", "vine: no finished runs in vine/truth.csv; make it with: vcppo sweep"),
    "no whole": (vapo.make, "vapo", "vapo", "vapo: no finished run of vapo in vapo/runs.csv; make it with: "),
}


@pytest.mark.parametrize("what", MAKERS)
def test_what_lacks_data_names_the_command_that_makes_it(tmp_path: Path, what: str) -> None:
    make, study, without, message = MAKERS[what]
    if study:
        folder = write_study(tmp_path, study, {"methods": METHODS, "cppo": CPPO, "vine": VINE, "vapo": VAPO}[study])
        if without == "truth.csv":
            (folder / without).unlink()
        else:
            kind, column = ("runs", "arm") if without == "vapo" else ("curves", "metric")
            rows = pd.read_csv(folder / f"{kind}.csv")
            gone = rows[column] == without if kind == "runs" else rows[column].str.startswith(without)
            rows[~gone].to_csv(folder / f"{kind}.csv", index=False)
    with pytest.raises(NoDataError) as raised:
        make(read_results(tmp_path))
    assert str(raised.value).startswith(message.format(root=tmp_path))
    assert "make it with: vcppo sweep " in str(raised.value)


BAD_TRUTH: Mapping[str, tuple[Any, str]] = {
    "no estimate": (lambda t: t.drop(columns="estimate"), "truth.csv: column estimate missing; it has study, "),
    "an empty estimate": (lambda t: t.assign(estimate=""), "truth.csv line 2: estimate = '', expected a number"),
    "a reward above 1": (lambda t: t.assign(truth=1.5), "truth.csv line 2: truth = 1.5, expected -1 to 1"),
    "a place behind the end": (lambda t: t.assign(fraction=2), "truth.csv line 2: fraction = 2, expected 0 to 1"),
}


@pytest.mark.parametrize("what", BAD_TRUTH)
def test_a_bad_truth_file_is_one_line(tmp_path: Path, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    spoil, message = BAD_TRUTH[what]
    folder = write_study(tmp_path, "vine", VINE[:2], seeds=1)
    spoil(pd.read_csv(folder / "truth.csv")).to_csv(folder / "truth.csv", index=False)
    assert main(["--results", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(f"BadResultsError: {folder}/{message}")
    with pytest.raises(BadResultsError):
        read_study(folder)


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
    curves, ends = methods_compute.compute(points)
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


def test_worth_is_bounded_by_the_truth_and_unknown_where_nothing_is_uncertain() -> None:
    sums = np.array([[2.0, -1.0, 0.0, 1.0], [2.0, 0.5, 1.0, 1.0], [2.0, 0.5, 1.0, 0.0]])
    assert values.worth(sums)[:2].tolist() == [values.TRUTH_SAMPLES, 2]
    assert math.isnan(values.worth(sums)[2])
    assert values.root_mean_square(sums).tolist() == [0, 0.5, 0.5]
    assert values.mean_absolute(sums).tolist() == [0, 0.5, 0.5]


def test_the_interval_of_an_error_draws_seeds_and_responses_within_them() -> None:
    worth = np.zeros(40)
    apart = values.with_errors(states(worth, np.where(np.arange(40) % 2, 0.5, 0.1)))  # seeds differ, responses do not
    centre, low, high = values.interval(apart, values.mean_absolute, "t")
    assert (centre, low, high) == pytest.approx((0.3, 0.1, 0.5))
    within = values.with_errors(states(worth, np.where(np.arange(40) // 2 % 2, 0.5, 0.1)))  # responses differ
    centre, low, high = values.interval(within, values.mean_absolute, "t")
    assert centre == pytest.approx(0.3)
    assert 0.1 < low < 0.27 < 0.33 < high < 0.5
    one = values.interval(apart[apart["seed"] == 0], values.mean_absolute, "t")
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


def test_every_method_has_a_name_a_place_and_looks_of_its_own() -> None:
    assert set(style.KNOWN) == set(ARM_ORDER)
    assert set(itertools.chain(*FAMILIES.values())) <= set(ARM_ORDER)
    every = [(look.colour, str(look.line), look.marker) for look in style.KNOWN.values()]
    assert len(set(every)) == len(every)
    assert len({look.label for look in style.KNOWN.values()}) == len(every)
    for arms in (*FAMILIES.values(), VINE):
        looks = [style.KNOWN[arm] for arm in arms]
        assert len({look.colour for look in looks}) == len(arms)
        assert len({look.marker for look in looks}) == len(arms)


def test_a_study_of_too_many_arms_has_no_panel_an_arm_and_one_table_of_its_name(drawn: tuple[Path, str]) -> None:
    root, said = drawn
    for name in ("methods", "vapo", "cppo", "vine"):
        assert said.count(f"{root / 'figures' / name}.md") == 1
    results = read_results(root)
    generic = len(figures_of(results)) - len(figures_of(Results(root, {}, {})))
    assert generic == 3 * 3  # accuracy, lengths, outcomes of cppo, vine, vapo


@pytest.mark.parametrize("module", [results_data, costs, cppo, methods_compute, vine])
def test_examples_in_docstrings_of_methods_hold(module: Any) -> None:
    assert doctest.testmod(module).failed == 0
    assert doctest.testmod(module).attempted > 0

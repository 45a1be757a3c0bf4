"""analysis/ of the studies that compare methods: drawn, captioned, refused where data are missing; made-up numbers."""

import doctest
import io
import itertools
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from method_results import CPPO, METHODS, VAPO, VINE, write_study

from vcppo.analysis import costs, cppo, methods, methods_compute, methods_tables, outcomes, style, training, vapo, vine
from vcppo.analysis import data as results_data
from vcppo.analysis.data import ARM_ORDER, FAMILIES, BadResultsError, NoDataError, Results, read_results, read_study
from vcppo.analysis.redraw import figures_of, main
from vcppo.analysis.table_text import render


def write_all(root: Path, **keywords: Any) -> Path:
    """The four studies, with as little in them as they can have."""
    for name, arms in {"methods": METHODS, "cppo": CPPO, "vine": VINE, "vapo": VAPO}.items():
        write_study(root, name, arms, **keywords)
    return root


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

"""`vcppo figures --only NAME`, and the list of names in analysis/README.md."""

import re
from pathlib import Path

import pytest
from committed_results import folder_of

from vcppo.analysis.redraw import FIGURES, TABLES, main

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "analysis" / "README.md").read_text(encoding="utf-8")


def first_cells(heading: str) -> list[str]:
    """The names in the first column of the table that begins with this column."""
    (table,) = re.findall(rf"^\| {heading} \|.*\n\|[-|]+\n((?:\|.*\n)+)", PAGE, flags=re.MULTILINE)
    cells = " ".join(line.split("|")[1] for line in table.splitlines())
    return [name for name in re.findall(r"`([^`]+)`", cells) if not name.endswith("STUDY")]


def test_the_page_lists_every_figure_and_table_with_the_module_that_draws_it() -> None:
    assert sorted(first_cells("figure")) == sorted(FIGURES)
    assert sorted(first_cells("table")) == sorted(TABLES)
    for target in re.findall(r"\]\((\.\./[^)]+)\)", PAGE):
        assert (ROOT / "analysis" / target).exists()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of one study that is committed, from which figure3 and table1 are drawn."""
    return str(folder_of(tmp_path_factory.mktemp("part") / "results", "components"))


def test_one_figure_is_drawn_alone(results: str, tmp_path: Path) -> None:
    assert main(["--results", results, "--out", str(tmp_path), "--only", "figure3", "--quiet"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["figure3.pdf", "figure3.png"]


def test_a_name_may_be_that_of_a_table(results: str, tmp_path: Path) -> None:
    assert main(["--results", results, "--out", str(tmp_path), "--only", "table1", "--quiet"]) == 0
    for ending in ("md", "csv", "tex"):
        name = f"table1.{ending}"
        assert (tmp_path / name).read_bytes() == (ROOT / "results" / "figures" / name).read_bytes()


@pytest.mark.parametrize(
    ("name", "words"),
    [("figure5", "no such figure or table; figures: headline, figure1, "), ("long", "make it with: vcppo sweep")],
)
def test_what_cannot_be_drawn_is_refused_with_what_can(
    name: str, words: str, results: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--results", results, "--out", str(tmp_path / "out"), "--only", name]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()

"""Every figure and table that a results folder has data for.

Everything is read and checked before the first file is written, and each file is replaced whole.
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from vcppo.analysis import (
    calibration,
    cppo,
    critic_error,
    figure1,
    figure2,
    figure3,
    figure6,
    headline,
    improvement,
    lambda_grid,
    long,
    methods,
    methods_compute,
    methods_tables,
    outcomes,
    style,
    tables,
    training,
    vapo,
    vine,
)
from vcppo.analysis.data import BadResultsError, NoDataError, Results, read_results
from vcppo.analysis.picture import Picture

FIGURES: tuple[Callable[[Results], Picture], ...] = (
    headline.make,
    figure1.make,
    figure2.make,
    figure3.make,
    lambda results: training.make(results, "components", training.ACCURACY, "figure4"),
    lambda results: training.make(results, "components", training.LENGTH, "lengths"),
    figure6.make,
    critic_error.make,
    calibration.make,
    lambda_grid.make,
    lambda results: outcomes.make(results, "components", "outcomes"),
    lambda results: improvement.make(results, "components", "improvement"),
    methods.make,
    methods_compute.make,
    cppo.make,
    vine.make,
    vapo.make,
    long.make,
)
TABLES = (
    tables.table1,
    tables.table2,
    tables.table3,
    tables.table4,
    methods_tables.equal_samples,
    methods_tables.equal_compute,
    vine.table,
    vapo.table,
)
TOO_MANY_ARMS = ("methods",)  # for a panel or a colour each; this study has figures of its own
OWN_TABLE = ("methods", "vapo")  # studies whose table of that name replaces the outcome of each arm


def figures_of(results: Results) -> Iterator[Callable[[Results], Picture]]:
    """The figures by name, then accuracy, lengths and outcomes of every other study that a page can hold."""
    yield from FIGURES
    for study in sorted(results.studies.keys() - {"components", *TOO_MANY_ARMS}):
        for name, kind in (("accuracy", training.ACCURACY), ("lengths", training.LENGTH)):
            yield lambda results, s=study, n=f"{name}-{study}", k=kind: training.make(results, s, k, n)  # type: ignore[misc]
        yield lambda results, s=study: outcomes.make(results, s, f"outcomes-{s}")  # type: ignore[misc]


def tables_of(results: Results) -> Iterator[Callable[[Results], tables.Table]]:
    """The tables by name, then the outcome of each arm of every study that has none of its own."""
    yield from TABLES
    for name in ["components", *sorted(results.studies.keys() - {"components", *OWN_TABLE})]:
        yield lambda results, n=name: tables.components(results.study(n, f"table of {n}"))  # type: ignore[misc]


def redraw(results: Results, out: Path, say: Callable[[str], None]) -> None:
    """Write every figure (PDF, PNG), every table (Markdown, CSV, LaTeX) and captions.md into `out`.

    Args:
        say: hears one line for each figure and table: the files written, or why there is none.
    """
    out.mkdir(parents=True, exist_ok=True)
    captions, skipped = [], []
    for make_figure in figures_of(results):
        try:
            with style.paper_style():
                picture = make_figure(results)
                files = style.render(picture.figure)
        except NoDataError as reason:
            say(f"skipped {reason}")
            skipped.append(str(reason))
            continue
        write_all(out, picture.name, files)
        say(f"wrote {out / picture.name}.pdf, .png")
        captions.append(f"## {picture.name}\n\n![{picture.name}]({picture.name}.png)\n\n{picture.caption}\n")
    for make_table in tables_of(results):
        try:
            table = make_table(results)
        except NoDataError as reason:
            say(f"skipped {reason}")
            skipped.append(str(reason))
            continue
        write_all(out, table.name, tables.render(table))
        say(f"wrote {out / table.name}.md, .csv, .tex")
    head = "# Captions\n\nEvery figure and table here is redrawn from the CSV files alone by `make figures`.\n"
    tail = ["## Not drawn\n\n" + "".join(f"- {reason}\n" for reason in skipped)] if skipped else []
    write_all(out, "captions", {"md": "\n".join([head, *captions, *tail]).encode()})
    say(f"wrote {out / 'captions.md'}")


def write_all(out: Path, name: str, files: dict[str, bytes]) -> None:
    """Replace out/<name>.<ending> by each content, never seen half-written."""
    for ending, content in files.items():
        partial = out / f".{name}.{ending}.partial"
        partial.write_bytes(content)
        os.replace(partial, out / f"{name}.{ending}")


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when all that has data was drawn; 2 with one line on standard error when a file under results is bad."""
    parser = argparse.ArgumentParser(prog="python -m vcppo.analysis", description="Redraw every figure and table.")
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder with <study>/*.csv (results)")
    parser.add_argument("--out", type=Path, help="where figures go (RESULTS/figures)")
    parser.add_argument("--quiet", action="store_true", help="say nothing but what is wrong with a file")
    asked = parser.parse_args(arguments)
    try:
        redraw(read_results(asked.results), asked.out or asked.results / "figures", _hush if asked.quiet else _say)
    except BadResultsError as error:
        print(f"BadResultsError: {error}", file=sys.stderr)
        return 2
    return 0


def _say(line: str) -> None:
    print(line, flush=True)


def _hush(line: str) -> None:
    pass

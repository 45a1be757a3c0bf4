"""Every figure and table that a results folder has data for.

Everything is read and checked before the first file is written, and each file is replaced whole.
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from vcppo.analysis import (
    calibration,
    collapse_law,
    cppo,
    credit_rates,
    critic_error,
    critic_pays,
    critics_table,
    crossover,
    figure1,
    figure2,
    figure3,
    figure6,
    forecast,
    headline,
    improvement,
    lambda_critic,
    lambda_grid,
    long,
    methods,
    methods_compute,
    methods_tables,
    offsets,
    outcomes,
    pretraining,
    profile,
    push,
    real_critic,
    style,
    tables,
    tables_beside,
    task_tables,
    training,
    vapo,
    vine,
)
from vcppo.analysis.critic_worth import compares
from vcppo.analysis.data import BadResultsError, NoDataError, NoStudyError, Results, read_results
from vcppo.analysis.picture import Picture
from vcppo.analysis.table_text import Table, render

MakeFigure = Callable[[Results], Picture]
MakeTable = Callable[[Results], Table]
CRITICS = "credit"  # the study of which critic, and whether one at all
FIGURES: dict[str, MakeFigure] = {
    "headline": headline.make,
    "figure1": figure1.make,
    "figure2": figure2.make,
    "figure3": figure3.make,
    "figure4": lambda results: training.make(results, "components", training.ACCURACY, "figure4"),
    "lengths": lambda results: training.make(results, "components", training.LENGTH, "lengths"),
    "figure6": figure6.make,
    "critic-error": critic_error.make,
    "calibration": calibration.make,
    "lambda-grid": lambda_grid.make,
    "outcomes": lambda results: outcomes.make(results, "components", "outcomes"),
    "improvement": lambda results: improvement.make(results, "components", "improvement"),
    "methods": methods.make,
    "methods-compute": methods_compute.make,
    "cppo": cppo.make,
    "vine": vine.make,
    "vapo": vapo.make,
    "long": long.make,
    **{name: partial(collapse_law.make, name=name) for name in collapse_law.SWEEPS},
    **{name: partial(offsets.make, name=name) for name in offsets.STUDIES},
    "push": push.make,
    "tables-beside": tables_beside.make,
    "critic-pays": critic_pays.make,
    **{name: partial(credit_rates.make, name=name) for name in credit_rates.STUDIES},
    pretraining.NAME: pretraining.make,
    real_critic.NAME: real_critic.make,
    "forecast": forecast.make,
    "crossover": lambda results: crossover.make(results, CRITICS, "crossover"),
}
TABLES: dict[str, MakeTable] = {
    "table1": tables.table1,
    "table2": tables.table2,
    "table3": tables.table3,
    "table4": tables.table4,
    "methods": methods_tables.equal_samples,
    "methods-compute": methods_tables.equal_compute,
    "vine-values": vine.table,
    "vapo": vapo.table,
    "collapse-law": collapse_law.table,
    "forecast": forecast.table,
    "lambda-critic": lambda_critic.table,
    "profile": profile.table,
}
# For a panel or a colour each; these have separate figures.
TOO_MANY_ARMS = ("methods", "forecast", "forecast-labels", *credit_rates.STUDIES)
WITH_TABLE = (
    "methods",
    "vapo",
    "collapse-law",
    "forecast",
    "lambda-critic",
    "profile",
)  # of studies: it replaces the outcome of each arm


def figures_of(results: Results) -> dict[str, MakeFigure]:
    """Return the figures by name, then accuracy, lengths and outcomes of every other study that a page can hold.

    Of one iteration there is no curve of training, so real-critic has its figure alone.

    Of further studies that compare critics with GRPO, also where a critic is worse than none.
    """
    made = dict(FIGURES)
    for study in sorted(results.studies.keys() - {"components", real_critic.NAME, *TOO_MANY_ARMS}):
        for kind, series in (("accuracy", training.ACCURACY), ("lengths", training.LENGTH)):
            name = f"{kind}-{study}"
            made[name] = partial(training.make, study_name=study, kind=series, name=name)
        made[f"outcomes-{study}"] = partial(outcomes.make, study_name=study, name=f"outcomes-{study}")
        if study != CRITICS and compares(results.studies[study]):
            made[f"crossover-{study}"] = partial(crossover.make, study_name=study, name=f"crossover-{study}")
    return made


def tables_of(results: Results) -> dict[str, MakeTable]:
    """Return the tables by name, then the outcome of each arm of every study without a table of that name.

    Of studies that compare critics with GRPO, also the critics, and those of the paper's tables that they ask for.
    """
    made = dict(TABLES)
    for name in ["components", *sorted(results.studies.keys() - {"components", *WITH_TABLE})]:
        made[name] = partial(_outcome_table, name=name)
    for name, study in sorted(results.studies.items()):
        if compares(study):
            made[f"critics-{name}"] = partial(critics_table.table, study_name=name)
            for which in task_tables.TABLES:
                if task_tables.rows_of(study, which):
                    made[f"{which}-{name}"] = partial(task_tables.table, study_name=name, which=which)
    return made


def _outcome_table(results: Results, name: str) -> Table:
    return tables.components(results.study(name, f"table of {name}"))


def redraw(results: Results, out: Path, report: Callable[[str], None]) -> None:
    """Write every figure (PDF, PNG), every table (Markdown, CSV, LaTeX) and captions.md into `out`.

    Args:
        report: receives one line for each figure and table, the files written or why there is none; for those of
            studies that are not there one line together.
    Raises:
        BadResultsError: there is nothing to draw.
    """
    captions: list[str] = []
    tables, skipped = 0, list[NoDataError]()
    for make_figure in figures_of(results).values():
        try:
            picture = _write_figure(make_figure, results, out, report)
        except NoDataError as reason:
            skipped.append(reason)
            continue
        captions.append(f"## {picture.name}\n\n![{picture.name}]({picture.name}.png)\n\n{picture.caption}\n")
    for make_table in tables_of(results).values():
        try:
            _write_table(make_table, results, out, report)
        except NoDataError as reason:
            skipped.append(reason)
            continue
        tables += 1
    if not captions and not tables:
        raise BadResultsError(
            f"{results.root}: nothing to draw in it; expected <study>/runs.csv, as every sweep and `vcppo export` write"
        )
    for line in _not_drawn(skipped, results.root, out):
        report(line)
    head = "# Captions\n\nEvery figure and table here is redrawn from the exported files alone by `make figures`.\n"
    tail = ["## Not drawn\n\n" + "".join(f"- {reason}\n" for reason in skipped)] if skipped else []
    write_all(out, "captions", {"md": "\n".join([head, *captions, *tail]).encode()})
    report(f"wrote {out / 'captions.md'}")


def _not_drawn(skipped: Sequence[NoDataError], root: Path, out: Path) -> Iterator[str]:
    absent = [reason.study for reason in skipped if isinstance(reason, NoStudyError)]
    yield from (f"skipped {reason}" for reason in skipped if not isinstance(reason, NoStudyError))
    if absent:
        yield (
            f"skipped {len(absent)} figures and tables of studies that are not in {root}: "
            f"{', '.join(dict.fromkeys(absent))}; {out / 'captions.md'} has the commands that make them"
        )


def redraw_one(results: Results, name: str, out: Path, report: Callable[[str], None]) -> None:
    """Write the figure and the table of one name; captions.md, which covers all, stays as it is.

    Raises:
        BadResultsError: no figure or table has that name, or the results folder has no data for it.
    """
    drawings, texts = figures_of(results), tables_of(results)
    if name not in drawings and name not in texts:
        raise BadResultsError(
            f"--only {name}: no such figure or table; figures: {', '.join(drawings)}; tables: {', '.join(texts)}"
        )
    try:
        if name in drawings:
            _write_figure(drawings[name], results, out, report)
        if name in texts:
            _write_table(texts[name], results, out, report)
    except NoDataError as reason:
        raise BadResultsError(str(reason)) from None


def _write_figure(make: MakeFigure, results: Results, out: Path, report: Callable[[str], None]) -> Picture:
    with style.paper_style():
        picture = make(results)
        files = style.render(picture.figure)
    write_all(out, picture.name, files)
    report(f"wrote {out / picture.name}.pdf, .png")
    return picture


def _write_table(make: MakeTable, results: Results, out: Path, report: Callable[[str], None]) -> None:
    table = make(results)
    write_all(out, table.name, render(table))
    report(f"wrote {out / table.name}.md, .csv, .tex")


def write_all(out: Path, name: str, files: Mapping[str, bytes]) -> None:
    """Replace out/<name>.<ending> by each content, never seen half-written."""
    out.mkdir(parents=True, exist_ok=True)
    for ending, content in files.items():
        unfinished = out / f".{name}.{ending}.partial"
        unfinished.write_bytes(content)
        os.replace(unfinished, out / f"{name}.{ending}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0 when all that has data was drawn.

    2 with one line on standard error when nothing has, or a file under results is bad.
    """
    parser = argparse.ArgumentParser(prog="python -m vcppo.analysis", description="Redraw every figure and table.")
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder with <study>/*.csv (results)")
    parser.add_argument("--out", type=Path, help="where figures go (RESULTS/figures)")
    parser.add_argument("--only", metavar="NAME", help="one figure or table, for example figure2 or table1")
    parser.add_argument("--quiet", action="store_true", help="say nothing but what is wrong with a file")
    options = parser.parse_args(arguments)
    out, report = options.out or options.results / "figures", _ignore if options.quiet else _print
    try:
        results = read_results(options.results)
        if options.only is None:
            redraw(results, out, report)
        else:
            redraw_one(results, options.only, out, report)
    except BadResultsError as error:
        print(f"BadResultsError: {error}", file=sys.stderr)
        return 2
    return 0


def _print(line: str) -> None:
    print(line, flush=True)


def _ignore(line: str) -> None:
    pass

"""A table as numbers and as text, and how it is written: for a terminal, in Markdown, CSV and LaTeX."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

NOTHING = "–"
SHORT = "†"  # behind what no budget in common suits; a note says why


@dataclass(frozen=True)
class Table:
    """A table as numbers and as text, both with a row for each line."""

    name: str
    title: str
    numbers: pd.DataFrame
    shown: pd.DataFrame
    notes: Sequence[str]


def terminal(table: Table) -> str:
    """Format the table as plain text, its header wrapped so that columns are as wide as their content."""
    body = table.shown.astype(str).to_numpy().tolist()
    heads = [name.split() for name in table.shown.columns]
    widths = [max(map(len, [*cells, *words])) for cells, words in zip(zip(*body, strict=True), heads, strict=True)]
    wrapped = [textwrap.wrap(name, width) for name, width in zip(table.shown.columns, widths, strict=True)]
    tall = max(map(len, wrapped))
    header = zip(*([""] * (tall - len(lines)) + lines for lines in wrapped), strict=True)
    lines = ["  ".join(_pad(row, widths)).rstrip() for row in [*header, ["-" * width for width in widths], *body]]
    notes = [textwrap.fill(note, 100, initial_indent="  ", subsequent_indent="  ") for note in table.notes]
    return "\n".join([table.title, "", *lines, "", *notes]) + "\n"


def markdown(table: Table) -> str:
    """Format title, the table with its columns padded to equal width, and notes; ends with a newline."""
    cells = [list(table.shown.columns), *table.shown.astype(str).to_numpy().tolist()]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["| " + " | ".join(_pad(row, widths)) + " |" for row in cells]
    rule = "|" + "|".join("-" * (width + 1) + (":" if i else "-") for i, width in enumerate(widths)) + "|"
    notes = [f"- {note}" for note in table.notes]
    return "\n".join([f"**{table.title}**", "", lines[0], rule, *lines[1:], "", *notes]) + "\n"


def render(table: Table) -> dict[str, bytes]:
    """Render the table as Markdown, CSV (numbers, six digits) and LaTeX (booktabs)."""
    latex = table.shown.to_latex(index=False, escape=True, column_format="l" + "r" * (table.shown.shape[1] - 1))
    for plain, command in (("λ", r"$\lambda$"), (NOTHING, "--"), ("†", r"$\dagger$")):
        latex = latex.replace(plain, command)
    notes = "".join(f"% {note}\n" for note in (table.title, *table.notes))
    return {
        "md": markdown(table).encode(),
        "csv": table.numbers.map(_joined).to_csv(index=False, float_format="%.6g", lineterminator="\n").encode(),
        "tex": (notes + latex).encode(),
    }


def _joined(cell: object) -> object:
    """Return a cell of CSV: the numbers of all runs with spaces between, anything else as it is."""
    return " ".join(f"{value:.6g}" for value in cell) if isinstance(cell, tuple) else cell


def _pad(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [
        cell.rjust(width) if i else cell.ljust(width) for i, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]

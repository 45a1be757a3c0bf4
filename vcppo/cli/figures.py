"""`vcppo figures`: every figure and table from the CSV files."""

import sys
from pathlib import Path

import click

from vcppo.system.processes import call


@click.command("figures")
@click.option(
    "--results",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("results"),
    show_default=True,
    help="CSV files.",
)
@click.option(
    "--to", "destination", type=click.Path(path_type=Path, file_okay=False), help="Folder. [default: RESULTS/figures]"
)
def figures(results: Path, destination: Path | None) -> None:
    """Draw every figure and table from the CSV files in RESULTS; the same as `make figures`."""
    command = [
        sys.executable,
        "-m",
        "vcppo.analysis",
        "--results",
        str(results),
        "--out",
        str(destination or results / "figures"),
    ]
    sys.exit(call(command))

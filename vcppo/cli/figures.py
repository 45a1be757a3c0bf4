"""`vcppo figures`: every figure and table from the CSV files."""

import sys
from pathlib import Path

import click

from vcppo.system.processes import call


@click.command("figures")
@click.option(
    "--results",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder with STUDY/runs.csv in it. [default: results, or runs/results where there is no such folder]",
)
@click.option(
    "--to", "destination", type=click.Path(path_type=Path, file_okay=False), help="Folder. [default: RESULTS/figures]"
)
@click.option("--only", metavar="NAME", help="One figure or table, for example figure2 or table1.")
def figures(results: Path | None, destination: Path | None, only: str | None) -> None:
    """Draw every figure and table from the CSV files in RESULTS; the same as `make figures`."""
    if results is None:
        results = Path("runs/results") if not Path("results").is_dir() else Path("results")
    command = [sys.executable, "-m", "vcppo.analysis", "--results", str(results)]
    command += ["--out", str(destination or results / "figures")]
    command += [] if only is None else ["--only", only]
    sys.exit(call(command))

"""`vcppo status`: how a study stands, by what lies on disk."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vcppo.cli.exit_codes import FAILED, NOT_DELIVERED, NOT_EXPORTED, UNFINISHED
from vcppo.cli.options import out_option
from vcppo.system.terminal import duration

if TYPE_CHECKING:
    from vcppo.studies.status import StudyStatus

LISTED = 20  # cells that are not done


@click.command("status")
@click.argument("study")
@click.option(
    "--json", "as_json", is_flag=True, help="All of it as JSON, with every cell; times in seconds since 1970."
)
@out_option
def status(study: str, out: Path, as_json: bool) -> None:
    """Say how a study stands: cells, attempts, last sign of life, disk, and what MLflow and Optuna have not received.

    \b
    vcppo status components
    vcppo status train                       single runs, by the command that ran them
    vcppo status components --json

    It reads OUT/studies/STUDY and OUT/cache, changes nothing and asks no server; the study may be running.

    The exit code is 0 if all cells are done, exported to OUT/results and delivered; 1 if some failed; 3 if they are
    not exported, 4 if they are and something is undelivered; 5 if cells are left, whether a process runs them or not.
    """
    from vcppo.studies.status import study_status

    standing = study_status(out, study)
    if as_json:
        click.echo(json.dumps(standing.as_json(), indent=2, sort_keys=True))
    else:
        for line in lines(standing):
            click.echo(line)
    sys.exit(exit_code(standing))


def exit_code(standing: "StudyStatus") -> int:
    """Return the exit code of `vcppo status`; the first thing that is left to do decides."""
    if standing.left:
        return UNFINISHED
    if standing.counts.get("failed"):
        return FAILED
    if standing.exported is False:
        return NOT_EXPORTED
    return NOT_DELIVERED if standing.undelivered_records or standing.undelivered_trials else 0


def lines(standing: "StudyStatus") -> list[str]:
    """Return it for people."""
    from vcppo.studies.status import ago

    counts = ", ".join(f"{number} {state}" for state, number in sorted(standing.counts.items()))
    proposals = f", {standing.unproposed} not proposed yet" if standing.unproposed else ""
    holder = "no process runs it" if standing.holder is None else f"process {standing.holder} runs it"
    last = standing.last_sign_s
    exported = {None: "", True: "exported", False: "not exported, or cells have ended since"}[standing.exported]
    where = f"{standing.undelivered_records} records undelivered ({standing.tracking_store or 'never reached'})"
    text = [
        f"{standing.study}: {len(standing.cells)} cells, {counts}{proposals}; {holder}",
        f"last sign of life: {'none' if last is None else f'{duration(ago(last))} ago'}",
        f"disk: {_size(standing.folder_bytes)} in {standing.folder}, {_size(standing.cache_bytes)} of stages in cache",
        f"MLflow: {'off' if standing.tracking_off else where}",
    ]
    text += [f"Optuna: {standing.undelivered_trials} trials undelivered"] if standing.undelivered_trials else []
    text += [f"results: {exported}"] if exported else []
    shown = [cell for cell in standing.cells if cell.state not in ("done", "pruned") and cell.attempts]
    for cell in shown[:LISTED]:
        words = [cell.state, f"attempt {cell.attempts}", cell.stage or "no stage yet"]
        words += [f"{duration(ago(cell.last_sign_s))} ago", *(word for word in (cell.error, cell.waits) if word)]
        text.append(f"  {cell.cell:40} {', '.join(words)}")
        text += [f"    {cell.silence}"] if cell.silence else []
    return text + ([f"  and {len(shown) - LISTED} more; --json lists all"] if len(shown) > LISTED else [])


def _size(count: int) -> str:
    """Return bytes for people.

    >>> _size(512), _size(3_400_000)
    ('512 B', '3.4 MB')
    """
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} B"

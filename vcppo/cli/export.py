"""`vcppo export` and `vcppo track replay`: what MLflow has as CSV files, and what it has yet to hear."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from vcppo.cli.options import out_option, tracking_option
from vcppo.cli.output import print_notices
from vcppo.errors import StudyError


@click.command("export")
@click.argument("study")
@click.option(
    "--to", "destination", type=click.Path(path_type=Path, file_okay=False), help="Folder. [default: results/STUDY]"
)
@click.option("--allow-incomplete", is_flag=True, help="Export what is there of a study that has not ended.")
@click.option(
    "--instance",
    metavar="ID",
    help="Which study of this name, by the first digits that are listed. [default: that of OUT/studies/STUDY]",
)
@click.option(
    "--metrics",
    multiple=True,
    metavar="PATTERN",
    help="Names that curves.csv holds, for example 'eval/*'; repeat. [default: all but the machine's and most times]",
)
@out_option
@tracking_option
def export(
    study: str,
    destination: Path | None,
    allow_incomplete: bool,
    instance: str | None,
    metrics: tuple[str, ...],
    out: Path,
    tracking_uri: str | None,
) -> None:
    """Turn a study's MLflow experiment into tidy CSV files that `make figures` draws from.

    The study is that of the folder OUT/studies/STUDY, and no other of its name that a shared server may hold. Without
    such a folder, several are listed, and --instance chooses. The files are replaced all together, or not at all.
    """
    for path in export_study(
        study,
        destination or Path("results") / study,
        out=out,
        tracking_uri=tracking_uri,
        allow_incomplete=allow_incomplete,
        instance=instance,
        metrics=metrics,
    ):
        click.echo(f"written: {path}")


@click.group("track")
def track() -> None:
    """What MLflow was told, and what it has yet to hear."""


@track.command("replay")
@click.argument("studies", nargs=-1)
@out_option
@tracking_option
def replay(studies: tuple[str, ...], out: Path, tracking_uri: str | None) -> None:
    """Deliver to MLflow what it has not heard yet, for example after its server was away.

    Without STUDIES, everything under OUT/studies. Nothing is delivered twice.
    """
    for study, records in replay_studies(studies, out, tracking_uri):
        click.echo(f"{study}: {records} records delivered")


def export_study(
    study: str,
    destination: Path,
    *,
    out: Path,
    tracking_uri: str | None,
    allow_incomplete: bool,
    instance: str | None = None,
    metrics: Sequence[str] = (),
) -> list[Path]:
    """Write a study's CSV files from its MLflow experiment.

    The study of the folder OUT/studies/STUDY, after delivering what lies on disk only; where there is no such folder,
    or `instance` names another, what the store has.

    Raises:
        StudyError: it is not clear which study is meant, or there is nothing to export.
    """
    from vcppo.tracking.courier import Courier
    from vcppo.tracking.export import METRICS, export_experiment
    from vcppo.tracking.study_files import StudyFiles

    courier, files = Courier(out, study, tracking_uri), StudyFiles(out, study)
    if files.path.is_dir() and (instance is None or files.instance().startswith(instance)):
        if not files.cells():
            raise StudyError(f"{files.path}: no cell of study {study} has begun, so there is nothing to export")
        instance = files.instance()
        try:
            courier.deliver()
        finally:
            courier.close()
            print_notices(courier)
    return export_experiment(
        courier.tracking_uri,
        courier.experiment,
        destination,
        study=study,
        instance=instance,
        allow_incomplete=allow_incomplete,
        metrics=metrics or METRICS,
    )


def replay_studies(studies: Sequence[str], out: Path, tracking_uri: str | None) -> Iterator[tuple[str, int]]:
    """Deliver what is left of each study: (name, records delivered)."""
    from vcppo.tracking.courier import Courier

    folders = [path for path in (out / "studies").glob("*") if (path / "cells").is_dir()]
    known = sorted(path.name for path in folders if ".old-" not in path.name)  # what --fresh moved aside is left alone
    for study in studies or known:
        if study not in known:
            raise StudyError(
                f"study {study}: no such folder in {out / 'studies'}; there are {', '.join(known) or 'none'}"
            )
        courier = Courier(out, study, tracking_uri)
        try:
            yield study, courier.deliver()
        finally:
            courier.close()
            print_notices(courier)

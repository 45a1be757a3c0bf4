"""`vcppo export` and `vcppo track replay`: a study as files, and records that MLflow has not received."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from vcppo.cli.options import out_option, tracking_option
from vcppo.cli.output import print_notices
from vcppo.errors import ConfigError, StudyError


@click.command("export")
@click.argument("study")
@click.option(
    "--to", "destination", type=click.Path(path_type=Path, file_okay=False), help="Folder. [default: results/STUDY]"
)
@click.option("--allow-incomplete", is_flag=True, help="Export what is there of a study that has not ended.")
@click.option(
    "--metrics",
    multiple=True,
    metavar="PATTERN",
    help="Names that curves.parquet holds, for example 'eval/*'; repeat. [default: all but 'system/*', the machine's]",
)
@click.option("--from-mlflow", is_flag=True, help="Read a tracking server instead of OUT, for a study run elsewhere.")
@click.option(
    "--instance",
    metavar="ID",
    help="With --from-mlflow: which study of this name, by the first digits that are listed. "
    "[default: that of OUT/studies/STUDY]",
)
@out_option
@tracking_option
def export(
    study: str,
    destination: Path | None,
    allow_incomplete: bool,
    metrics: tuple[str, ...],
    from_mlflow: bool,
    instance: str | None,
    out: Path,
    tracking_uri: str | None,
) -> None:
    """Turn what a study measured into tidy files, CSV and Parquet, that `make figures` draws from.

    It is read from OUT/studies/STUDY and OUT/cache; MLflow need not be there. --from-mlflow reads a tracking server
    instead, and where that holds several studies of the name they are listed, and --instance chooses. The files are
    replaced all together, or not at all. curves.parquet holds every metric of RL, evaluation and value pretraining
    but system/*.
    """
    to = destination or Path("results") / study
    if from_mlflow:
        written = export_from_mlflow(
            study,
            to,
            out=out,
            tracking_uri=tracking_uri,
            allow_incomplete=allow_incomplete,
            instance=instance,
            metrics=metrics,
        )
    else:
        for flag, value in (("--tracking-uri", tracking_uri), ("--instance", instance)):
            if value is not None:
                raise ConfigError(f"{flag} {value}: it would be ignored, expected --from-mlflow beside it")
        written = export_study(study, to, out=out, allow_incomplete=allow_incomplete, metrics=metrics)
    for path in written:
        click.echo(f"written: {path}")


@click.group("track")
def track() -> None:
    """Records that MLflow has, and those still to be sent."""


@track.command("replay")
@click.argument("studies", nargs=-1)
@out_option
@tracking_option
def replay(studies: tuple[str, ...], out: Path, tracking_uri: str | None) -> None:
    """Send to MLflow the records that it has not received, for example after its server was away.

    Without STUDIES, everything under OUT/studies. Each point is there once, however often this is called.
    """
    for study, records in replay_studies(studies, out, tracking_uri):
        click.echo(f"{study}: {records} records sent")


def export_study(
    study: str,
    destination: Path,
    *,
    out: Path,
    allow_incomplete: bool,
    metrics: Sequence[str] = (),
) -> list[Path]:
    """Write a study's files from its folder OUT/studies/STUDY and the cache; no tracking server is needed.

    Raises:
        StudyError: there is nothing to export.
    """
    from vcppo.tracking.export import export
    from vcppo.tracking.from_disk import read_study

    return export(read_study(out, study, allow_incomplete=allow_incomplete), destination, metrics=metrics)


def export_from_mlflow(
    study: str,
    destination: Path,
    *,
    out: Path,
    tracking_uri: str | None,
    allow_incomplete: bool,
    instance: str | None = None,
    metrics: Sequence[str] = (),
) -> list[Path]:
    """Write the same files from a study's runs on a tracking server; its folder may be on another machine.

    Of several studies of that name, the one of `instance`, else that of the folder OUT/studies/STUDY.

    Raises:
        StudyError: it is not clear which study is meant, or there is nothing to export.
        TrackingError: the server is away or refuses.
    """
    from vcppo.store.study_folders import StudyFolder, read_object
    from vcppo.tracking.export import export
    from vcppo.tracking.from_mlflow import read_study
    from vcppo.tracking.uploader import Uploader

    uploader = Uploader(out, study, tracking_uri)
    instance = instance or read_object(StudyFolder(out, study).path / "mlflow.json").get("instance")
    measured = read_study(
        uploader.tracking_uri,
        uploader.experiment,
        study=study,
        instance=instance,
        allow_incomplete=allow_incomplete,
    )
    return export(measured, destination, metrics=metrics)


def replay_studies(studies: Sequence[str], out: Path, tracking_uri: str | None) -> Iterator[tuple[str, int]]:
    """Send what is left of each study; yield (name, records sent)."""
    from vcppo.tracking.uploader import Uploader

    folders = [path for path in (out / "studies").glob("*") if (path / "cells").is_dir()]
    names = sorted(path.name for path in folders if ".old-" not in path.name)  # .old-: moved aside by --fresh
    for study in studies or names:
        if study not in names:
            raise StudyError(
                f"study {study}: no such folder in {out / 'studies'}; there are {', '.join(names) or 'none'}"
            )
        uploader = Uploader(out, study, tracking_uri)
        try:
            yield study, uploader.send()
        finally:
            uploader.close()
            print_notices(uploader)

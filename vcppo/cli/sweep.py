"""`vcppo sweep`: a study from its file to its tables."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from vcppo.cli.exit_codes import NOT_DELIVERED, NOT_EXPORTED
from vcppo.cli.options import address, run_options
from vcppo.cli.output import print_notes, print_notices, tracking_line
from vcppo.errors import ConfigError, VcppoError
from vcppo.settings.loading import Layer, build_settings, file_layer, nest, parse_assignment
from vcppo.studies.executors import EXECUTORS
from vcppo.studies.runners import RUNNERS
from vcppo.system.processes import call

if TYPE_CHECKING:
    from vcppo.studies.study import Study

ENGINE_FLAG = "vcppo.sweep.engine"  # key of --engine's value in a click context


@dataclass(frozen=True)
class SweepOptions:
    """Options of `vcppo sweep`, named as on the command line; None leaves it to the study or the machine."""

    study: str
    out: Path
    workers: int | None = None
    seeds: int | None = None
    first_seed: int | None = None
    bases: int | None = None
    first_base: int | None = None
    storage: str | None = None
    retry_failed: bool = False
    recompute: bool = False
    fresh: bool = False
    runner: str = "vcppo"
    executor: str = "local"
    address: str | None = None
    processes: int | None = None
    gpus_per_worker: int | None = None
    verl_settings: tuple[str, ...] = ()  # KEY=VALUE
    config: Path | None = None
    assignments: tuple[str, ...] = ()
    tracking_uri: str | None = None
    dry_run: bool = False


def _engine_flag(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    """--engine, as --runner was called before."""
    if value is not None:
        print_notes(
            [f"--engine {value}: the flag is --runner now, since an engine is what generates; the old name works"]
        )
        context.meta[ENGINE_FLAG] = value


def _runner_flag(context: click.Context, parameter: click.Parameter, value: str) -> str:
    old: str | None = context.meta.get(ENGINE_FLAG)
    if old is None:
        return value
    if context.get_parameter_source("runner") != ParameterSource.DEFAULT and old != value:
        raise ConfigError(f"--engine {old} beside --runner {value}: both say who runs the cells; expected --runner")
    return old


@click.command("sweep")
@click.argument("study")
@click.option(
    "--workers",
    type=click.IntRange(1),
    help="Processes, one thread each. [default: as many as there are cores, here or on the cluster]",
)
@click.option("--seeds", type=click.IntRange(1), help="How many. [default: the study's]")
@click.option("--first-seed", type=click.IntRange(0), help="Seeds count up from here. [default: the study's]")
@click.option(
    "--bases",
    type=click.IntRange(1),
    help="How many base seeds, of cold start and reward model, each with all seeds. [default: the study's]",
)
@click.option("--first-base", type=click.IntRange(0), help="Base seeds count up from here. [default: the study's]")
@click.option(
    "--storage",
    metavar="URL",
    envvar="VCPPO_STORAGE",
    callback=address,
    help="Optuna storage. [default: $VCPPO_STORAGE, else a journal file in the study's folder]",
)
@click.option("--retry-failed", is_flag=True, help="Run cells again that failed before.")
@click.option(
    "--recompute",
    is_flag=True,
    help="Run ended cells again whose results would be others now: weights behind a path, or a stage's code, changed.",
)
@click.option("--fresh", is_flag=True, help="Move the old study of this name aside; the cache of stages stays.")
@click.option(
    "--runner",
    type=click.Choice(list(RUNNERS)),
    default=SweepOptions.runner,
    show_default=True,
    callback=_runner_flag,
    help="Who runs the cells: verl is for clusters, see docs/verl.md.",
)
@click.option(
    "--engine", type=click.Choice(list(RUNNERS)), hidden=True, is_eager=True, expose_value=False, callback=_engine_flag
)
@click.option(
    "--executor",
    type=click.Choice(list(EXECUTORS)),
    default=SweepOptions.executor,
    show_default=True,
    help="Where workers run: on this machine, or, experimental, on the nodes of a Ray cluster that share --out.",
)
@click.option(
    "--address",
    metavar="HOST:PORT",
    help="The Ray cluster's head, from one of its nodes. [default: auto, the one here]",
)
@click.option(
    "--processes", type=click.IntRange(1), help="Processes that run each cell together, as torchrun would. [default: 1]"
)
@click.option(
    "--gpus-per-worker",
    type=click.IntRange(0),
    help="GPUs that a worker asks a Ray cluster for. [default: one for each process of a cell, where a node has as "
    "many when the command starts, else none]",
)
@click.option("--verl", "verl_settings", multiple=True, metavar="KEY=VALUE", help="A setting of verl; repeat.")
@run_options
def sweep(**given: Any) -> None:
    """Run a study: ablations/STUDY.toml, or any TOML file of that form.

    \b
    vcppo sweep components --workers 2 --seeds 2
    vcppo sweep methods --bases 5 --seeds 3
    vcppo sweep lambda-grid --seeds 3 --dry-run
    vcppo sweep my-study.toml --set steps=30
    vcppo sweep components --executor ray --out /shared/runs

    Stop it with Ctrl-C or kill it at any moment: the same command goes on. Every cell ends once; one that failed is
    shown with its error and never scored. Stages that cells share are computed once.

    On a Ray cluster a worker asks for a CPU for each process of a cell, and a GPU where nodes have them. What a lost
    node was running goes on elsewhere. All nodes share --out, by the same path: "Many machines" in docs/studies.md.

    The exit code is 0 if every cell is done, exported and delivered; 1 if a cell failed; 2 after a mistake; 3 if
    results are not exported or drawn, 4 if they are and MLflow or Optuna lack something, which waits on disk; 130
    after Ctrl-C. `vcppo status STUDY` says how it stands; docs/tracking.md what MLflow receives.

    What holds a password is better given by the environment, which other users of the machine cannot list:
    VCPPO_STORAGE, MLFLOW_TRACKING_URI, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD.
    """
    sys.exit(run_sweep(SweepOptions(**given)))


def run_sweep(options: SweepOptions) -> int:
    """Run a study to its end, export it to OUT/results, draw its figures, print its table; returns the exit code."""
    from vcppo.studies.progress import ProgressView
    from vcppo.studies.study import load_study

    study = load_study(options.study).with_bases(options.bases, options.first_base)
    study = with_settings(study, options.config, options.assignments)
    seeds = study.seed_list(options.seeds, options.first_seed)
    study.validate_all()
    runner = RUNNERS[options.runner](processes=options.processes, verl_settings=options.verl_settings)
    runner.check(study, seeds)
    executor = EXECUTORS[options.executor](
        workers=options.workers,
        processes=options.processes,
        address=options.address,
        gpus_per_worker=options.gpus_per_worker,
    )
    executor.check(options.runner)
    print_notes(study.notes(seeds))
    if options.dry_run:
        for line in runner.plan(study, seeds, options.workers or runner.default_workers(), options.out):
            print(line)
        return 0
    with executor.machines(runner, options.out) as machines:
        print_notes(runner.notes(study, seeds, machines.workers, options.out))
        from vcppo.studies.execution import Execution
        from vcppo.studies.sweep import run_study
        from vcppo.tracking.uploaders import uploader_to

        out = options.out
        uploader = uploader_to(options.tracking_uri, out, study.name)
        execution = Execution(
            tuple(seeds),
            out,
            workers=machines.workers,
            storage=options.storage,
            retry_failed=options.retry_failed,
            recompute=options.recompute,
            fresh=options.fresh,
            runner=runner.entry_point(study, seeds, out, fresh=options.fresh),
            processes=options.processes or 1,
            addresses_of=runner.addresses,
            make_pool=machines.make_pool,
        )
        with ProgressView(planned=runner.planned(study, seeds, out)) as view:
            outcome = run_study(study, execution, on_event=view, uploader=uploader)
    print_notices(uploader)
    for cell, error in outcome.failures:
        print(f"FAILED {cell}: {error}")
    concluded = outcome.interrupted or conclude(study.name, out)
    if study.search is not None:
        for line in best_trials(study, out, len(study.base_list()) * len(seeds)):
            print(line)
    print(tracking_line(uploader, 0 if outcome.interrupted else outcome.undelivered_records))
    if outcome.exit_code or not concluded:
        return outcome.exit_code or NOT_EXPORTED
    return NOT_DELIVERED if outcome.undelivered else 0


def with_settings(study: "Study", config: Path | None, assignments: Sequence[str]) -> "Study":
    """Return the study with settings from a file and from --set beneath the study's."""
    flags = nest(dict(parse_assignment(text) for text in assignments), "--set")
    layers = [Layer("--set", flags, shared=True)]
    if config is not None:
        layer = file_layer(config)
        if config.suffix == ".json":  # a run's record has settings that the study sets for each run
            layer = replace(layer, tree={name: v for name, v in layer.tree.items() if name not in study.sets})
        layers.insert(0, layer)
    build_settings(layers)  # reports a wrong name or value as such
    return study.with_base(*layers)


def conclude(study: str, out: Path) -> bool:
    """Export a study's results to OUT/results/STUDY, draw them and print their table; return whether all worked."""
    from vcppo.cli.export import export_study

    results = out / "results"
    try:
        export_study(study, results / study, out=out, allow_incomplete=True)
    except VcppoError as error:
        print(f"not exported: {error}")
        retry = ["vcppo", "export", study, "--to", str(results / study), "--out", str(out), "--allow-incomplete"]
        print(f"everything measured is safe in {out}; once that is mended: {shlex.join(retry)}")
        return False
    figures = results / "figures"
    command = [sys.executable, "-m", "vcppo.analysis", "--results", str(results), "--out", str(figures), "--quiet"]
    exit_code = call(command)
    from vcppo.analysis.tables import components_table

    print(components_table(results / study))
    print(f"figures and tables: {figures}" if exit_code == 0 else "figures: not drawn, see above")
    return exit_code == 0


def best_trials(study: "Study", out: Path, runs: int, count: int = 3) -> list[str]:
    """Return the best configurations of a search, by the mean of its objective over runs, with their settings.

    Args:
        runs: runs of a trial, one for each base and seed; a trial of which fewer are done has no score.
    """
    from vcppo.store.cell_folders import CellFolder

    assert study.search is not None
    scores: dict[str, list[float]] = {}
    settings: dict[str, str] = {}
    for path in sorted((out / "studies" / study.name / "cells").glob("*")):
        record = CellFolder(path).read()
        score = record.result.get(study.objective)
        if record.state == "done" and score is not None:
            scores.setdefault(record.arm, []).append(score)
            settings[record.arm] = "  ".join(f"{name}={value}" for name, value in record.swept.items())
    means = {trial: sum(values) / len(values) for trial, values in scores.items() if len(values) >= runs}
    best = sorted(means, key=means.__getitem__, reverse=study.search.direction == "maximize")[:count]
    return [f"{trial}: {study.objective} {means[trial]:.3f}  {settings[trial]}" for trial in best]

"""`vcppo sweep`: a study from its file to its tables."""

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vcppo.cli.options import address, run_options
from vcppo.cli.output import print_notes, print_notices, tracking_line
from vcppo.errors import ConfigError, VcppoError
from vcppo.settings.loading import Layer, build_settings, file_layer, nest, parse_assignment
from vcppo.system.processes import call

if TYPE_CHECKING:
    from vcppo.studies.study import Study

MINUTES_A_WORKER_STARTS = 0.2  # importing torch and transformers
NOT_CONCLUDED = 2  # exit code: all cells are done, and their results not exported or not drawn


@dataclass(frozen=True)
class SweepOptions:
    """What `vcppo sweep` is asked, as the command line names it; None leaves it to the study or the machine."""

    study: str
    out: Path
    workers: int | None = None
    seeds: int | None = None
    first_seed: int | None = None
    storage: str | None = None
    retry_failed: bool = False
    fresh: bool = False
    engine: str = "vcppo"
    processes: int | None = None
    words: tuple[str, ...] = ()  # verl's own, KEY=VALUE
    config: Path | None = None
    assignments: tuple[str, ...] = ()
    tracking_uri: str | None = None
    dry_run: bool = False


@click.command("sweep")
@click.argument("study")
@click.option("--workers", type=click.IntRange(1), help="Processes, one thread each. [default: the number of cores]")
@click.option("--seeds", type=click.IntRange(1), help="How many. [default: the study's]")
@click.option("--first-seed", type=click.IntRange(0), help="Seeds count up from here. [default: the study's]")
@click.option(
    "--storage",
    metavar="URL",
    envvar="VCPPO_STORAGE",
    callback=address,
    help="Optuna storage. [default: $VCPPO_STORAGE, else a journal file in the study's folder]",
)
@click.option("--retry-failed", is_flag=True, help="Run cells again that failed before.")
@click.option("--fresh", is_flag=True, help="Move the old study of this name aside; the cache of stages stays.")
@click.option(
    "--engine",
    type=click.Choice(["vcppo", "verl"]),
    default="vcppo",
    show_default=True,
    help="Who runs the cells: verl is for clusters, see docs/verl.md.",
)
@click.option(
    "--processes", type=click.IntRange(1), help="Processes that run each cell together, as torchrun would. [default: 1]"
)
@click.option("--verl", "words", multiple=True, metavar="KEY=VALUE", help="A setting of verl's own; repeat.")
@run_options
def sweep(**given: Any) -> None:
    """Run a study: ablations/STUDY.toml, or any TOML file of that form.

    \b
    vcppo sweep components --workers 2 --seeds 2
    vcppo sweep methods --seeds 5
    vcppo sweep lambda-grid --seeds 3 --dry-run
    vcppo sweep my-study.toml --set steps=30

    Stop it with Ctrl-C or kill it at any moment: the same command goes on. Every cell ends once; one that failed is
    shown with its error and never scored. Stages that cells share are computed once.

    The exit code is 0 if every cell is done and the results are exported, 1 if a cell failed, 2 if the results could
    not be exported, 130 after Ctrl-C. docs/tracking.md says how MLflow is told.

    What holds a password is better given by the environment, which other users of the machine cannot list:
    VCPPO_STORAGE, MLFLOW_TRACKING_URI, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD.
    """
    sys.exit(run_sweep(SweepOptions(**given)))


def run_sweep(options: SweepOptions) -> int:
    """Run a study to its end, export it to OUT/results, draw its figures, print its table; returns the exit code."""
    from vcppo.studies.progress import ProgressView
    from vcppo.studies.study import load_study

    study = with_settings(load_study(options.study), options.config, options.assignments)
    seeds = study.seed_list(options.seeds, options.first_seed)
    study.validate_all()
    on_verl = options.engine == "verl"
    workers = options.workers or (1 if on_verl else max(_cores() // (options.processes or 1), 1))
    if on_verl:
        from vcppo.studies.verl.launching import check_study

        check_study(study, seeds, options.words)
        if options.processes is not None:
            raise ConfigError("--processes with --engine verl: verl starts its own, see docs/verl.md")
    elif options.words:
        raise ConfigError(f"--verl {options.words[0]}: it would be ignored, expected --engine verl beside it")
    print_notes(study.notes(seeds))
    if options.dry_run:
        if on_verl:
            print_verl_plan(study, seeds, options.words)
        else:
            print_study_plan(study, seeds, workers, options.out)
        return 0
    from vcppo.studies.sweep import run_study
    from vcppo.studies.worker import PIPELINE
    from vcppo.tracking.courier import Courier

    out = options.out
    courier = Courier(out, study.name, options.tracking_uri)
    runner = PIPELINE
    if on_verl:
        from vcppo.studies.verl.launching import prepare_study

        runner = prepare_study(study, seeds, options.words, out, fresh=options.fresh)
    elif options.processes is not None:
        from vcppo.studies.launch import RUNNER

        runner = RUNNER
    with ProgressView() as view:
        outcome = run_study(
            study,
            seeds=seeds,
            workers=workers,
            out=out,
            storage=options.storage,
            retry_failed=options.retry_failed,
            fresh=options.fresh,
            on_event=view,
            courier=courier,
            runner=runner,
            processes=options.processes or 1,
        )
    print_notices(courier)
    for cell, error in outcome.failures:
        print(f"FAILED {cell}: {error}")
    concluded = outcome.interrupted or conclude(study.name, out)
    if study.search is not None:
        for line in best_trials(study, out):
            print(line)
    print(tracking_line(courier.tracking_uri, 0))
    return outcome.exit_code or (0 if concluded else NOT_CONCLUDED)


def with_settings(study: "Study", config: Path | None, assignments: Sequence[str]) -> "Study":
    """The study with settings from a file and from --set beneath its own."""
    from vcppo.studies.study import OWNED_BY_THE_STUDY

    flags = nest(dict(parse_assignment(text) for text in assignments), "--set")
    layers = [Layer("--set", flags, shared=True)]
    if config is not None:
        layer = file_layer(config)
        if config.suffix == ".json":  # a run's record says of itself what a study says of each of its runs
            layer = replace(layer, tree={name: v for name, v in layer.tree.items() if name not in OWNED_BY_THE_STUDY})
        layers.insert(0, layer)
    build_settings(layers)  # a wrong name or value is told as such
    return study.with_base(*layers)


def print_study_plan(study: "Study", seeds: Sequence[int], workers: int, out: Path) -> None:
    """The cells of a study and what they will cost together, each shared stage counted once."""
    cells = study.cells(seeds) if study.search is None else []
    print(f"{study.name}: {study.title}\n{study.why.strip()}\n")
    if not cells:
        assert study.search is not None
        print(f"a search of {study.search.trials} trials, {len(seeds)} seeds each, over {', '.join(study.space())}")
        return
    from vcppo.planning.estimate import StageCost, estimate_costs, matrix_product_rate

    by_address: dict[str, StageCost] = {}
    rate = matrix_product_rate()
    for cell in cells:
        swept = "  ".join(f"{name}={value}" for name, value in cell.swept.items())
        print(f"{cell.name:32} {swept}")
        for cost in estimate_costs(cell.settings, out, flops_per_s=rate):
            by_address[f"{cost.stage}/{cost.address}"] = cost
    total = sum(cost.minutes for cost in by_address.values())
    tokens = sum(cost.generated_tokens for cost in by_address.values())
    print(
        f"\n{len(cells)} cells, {len(by_address)} stages, {sum(c.cached for c in by_address.values())} of them cached; "
        f"at most {tokens / 1e6:.1f} M generated tokens, about {total / workers + MINUTES_A_WORKER_STARTS:.1f} minutes "
        f"with {workers} workers"
    )


def print_verl_plan(study: "Study", seeds: Sequence[int], words: Sequence[str]) -> None:
    """The cells of a study on verl, and what each run of verl is told."""
    from vcppo.studies.verl.cells import runs_of
    from vcppo.studies.verl.launching import command_line, silent_settings

    print(f"{study.name}: {study.title}\n{study.why.strip()}\n")
    cells = study.representative_cells(seeds)
    for cell in cells:
        print(f"{cell.name:32} {'  '.join(f'{name}={value}' for name, value in cell.swept.items())}")
        for run in runs_of(cell.settings, list(words)):
            print(f"  {run.stage} ({run.address.key}): {' '.join([*command_line(run.overrides), *run.words])}")
    silent = silent_settings(cells)
    if silent:
        print(f"\nverl does not hear of {', '.join(silent)}; docs/verl.md says what to give instead")


def conclude(study: str, out: Path) -> bool:
    """Export what a study measured to OUT/results/STUDY, draw it, and print its table; whether all of it worked."""
    from vcppo.cli.export import export_study

    results = out / "results"
    try:
        export_study(study, results / study, out=out, allow_incomplete=True)
    except VcppoError as error:
        print(f"not exported: {error}")
        words = ["vcppo", "export", study, "--to", str(results / study), "--out", str(out), "--allow-incomplete"]
        print(f"everything measured is safe in {out}; once that is mended: {shlex.join(words)}")
        return False
    figures = results / "figures"
    command = [sys.executable, "-m", "vcppo.analysis", "--results", str(results), "--out", str(figures), "--quiet"]
    drawn = call(command)
    from vcppo.analysis.tables import components_table

    print(components_table(results / study))
    print(f"figures and tables: {figures}" if drawn == 0 else "figures: not drawn, see above")
    return drawn == 0


def best_trials(study: "Study", out: Path, count: int = 3) -> list[str]:
    """The best configurations of a search, by the mean of its objective over seeds, with what they set."""
    from vcppo.store.run_folders import CellFolder

    assert study.search is not None
    scores: dict[str, list[float]] = {}
    settings: dict[str, str] = {}
    for path in sorted((out / "studies" / study.name / "cells").glob("*")):
        record = CellFolder(path).read()
        score = record.result.get(study.objective)
        if record.state == "done" and score is not None:
            scores.setdefault(record.arm, []).append(score)
            settings[record.arm] = "  ".join(f"{name}={value}" for name, value in record.swept.items())
    means = {trial: sum(values) / len(values) for trial, values in scores.items()}
    best = sorted(means, key=means.__getitem__, reverse=study.search.direction == "maximize")[:count]
    return [f"{trial}: {study.objective} {means[trial]:.3f}  {settings[trial]}" for trial in best]


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

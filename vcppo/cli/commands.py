"""What the commands do, once their text has become settings."""

import os
import shlex
import sys
import typing
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from pydantic import BaseModel
from rich.console import Console
from rich.table import Table

from vcppo.errors import ConfigError, StudyError, VcppoError
from vcppo.planning.estimate import StageCost, estimate_costs
from vcppo.settings.loading import Layer, build_settings, fields, file_layer, method_tree, nest, parse_assignment
from vcppo.settings.methods import METHODS
from vcppo.settings.sections import RunSettings
from vcppo.studies.progress import ProgressView
from vcppo.studies.study import OWNED_BY_THE_STUDY, Study, load_study
from vcppo.system.processes import INTERRUPTED, call

if typing.TYPE_CHECKING:
    from vcppo.tracking.courier import Courier

MINUTES_A_WORKER_STARTS = 0.2  # importing torch and transformers
LAST_WORDS_S, LAST_WORDS_AFTER_CTRL_C_S = 30.0, 5.0  # for the courier of a single run to finish
NOT_CONCLUDED = 2  # exit code: all cells are done, and their results not exported or not drawn


def run_one(command: str, settings: RunSettings, out: Path, *, until: str, tracking_uri: str | None) -> int:
    """Run a single configuration in this process, recorded as a cell of the study named after the command.

    Returns:
        The exit code: 0 if it ended well, 2 if it failed, 130 after Ctrl-C.
    """
    from vcppo.models.distributed import together
    from vcppo.store.run_folders import CellFolder, CellRecord, perform
    from vcppo.studies.progress import following
    from vcppo.system.processes import is_main, locked
    from vcppo.tracking.courier import Courier

    if not is_main():
        from vcppo.stages.pipeline import run_stages

        try:
            with together():
                run_stages(settings, out, until=until)
        except KeyboardInterrupt:  # the main process says what there is to say
            return INTERRUPTED
        return 0
    courier = Courier(out, command, tracking_uri)
    name = f"{settings.arm}-s{settings.seed}-{settings.digest()[:6]}"
    path = out / "studies" / command / "cells" / name
    folder = CellFolder(path)
    if not folder.exists():
        CellFolder.create(path, CellRecord(study=command, cell=name, arm=settings.arm, seed=settings.seed), settings)
    with ProgressView() as view, locked(path):
        courier.start()
        patience = LAST_WORDS_S
        try:
            with following(folder, out, view), together():
                from vcppo.stages.pipeline import run_cell

                record = perform(folder, out, partial(run_cell, until=until))
        except KeyboardInterrupt:
            patience = LAST_WORDS_AFTER_CTRL_C_S
            print(f"stopped; the same command goes on from the last checkpoint (cell {name})")
            return INTERRUPTED
        finally:
            kept = courier.close(patience)
            _tell(courier)
    if record.state == "failed":
        print(f"{name} failed: {record.error}\ntraceback: {path / 'traceback.txt'}")
        return 2
    for key, value in sorted(record.result.items()):
        print(f"{key:36} {'nan' if value is None else format(value, '.4g')}")
    for stage in record.stages:
        print(f"{stage.stage:18} {'ran' if stage.ran else 'cached':7} {out / 'cache' / stage.stage / stage.address}")
    print(_tracking_words(courier.tracking_uri, kept))
    return 0


def tell(lines: Iterable[str]) -> None:
    """Say what was decided that nobody said, beside the output; of several processes one speaks."""
    from vcppo.system.processes import is_main

    for line in lines if is_main() else ():
        print(f"note: {line}", file=sys.stderr)


def evaluate_checkpoints(
    names: Sequence[str], settings: RunSettings, *, out: Path, report: Path | None, dry_run: bool
) -> int:
    """Evaluate checkpoints one after the other, print their tables, and compare each with the first.

    Returns:
        The exit code: 0 if all is done, 130 after Ctrl-C.
    Raises:
        ConfigError: the report cannot be written where it shall be; told before anything is run.
    """
    from vcppo.evaluation.evaluate import Comparison, Evaluation
    from vcppo.evaluation.progress import EvaluationView
    from vcppo.models.distributed import together
    from vcppo.store.samples import write_whole
    from vcppo.system.fingerprints import find_checkpoint
    from vcppo.system.processes import is_main

    evaluations = [Evaluation(find_checkpoint(name), settings, out) for name in names]
    if not is_main():  # of several processes one speaks
        if not dry_run:
            with together():
                for evaluation in evaluations:
                    evaluation.run(EvaluationView(evaluation.checkpoint.name, 0, Console(quiet=True)))
        return 0
    notes = [evaluation.limit.note for evaluation in evaluations]  # what is missing or does not fit is told now
    tell(dict.fromkeys(note for note in notes if note is not None))
    if dry_run:
        print("\n".join(line for evaluation in evaluations for line in evaluation.plan()))
        return 0
    if report is not None:
        _try_to_write(report)
    evaluated = []
    with together():
        for evaluation in evaluations:
            with EvaluationView(evaluation.checkpoint.name, len(evaluation.prompts)) as view:
                try:
                    evaluated.append(evaluation.run(view))
                except KeyboardInterrupt:
                    done = f"{view.done} of {view.total} problems are answered"
                    print(f"stopped, {done}; the same command goes on from there")
                    return INTERRUPTED
            print("\n".join(evaluated[-1].lines()))
    comparison = Comparison(evaluated)
    for line in comparison.lines():
        print(line)
    if report is not None:
        write_whole(report, evaluated[0].report if len(evaluated) == 1 else comparison.as_json())
        print(f"written to {report}")
    return 0


def sweep_study(
    name: str,
    *,
    workers: int | None,
    seeds: int | None,
    first_seed: int | None,
    storage: str | None,
    retry_failed: bool,
    fresh: bool,
    engine: str,
    processes: int | None,
    words: Sequence[str],
    config: Path | None,
    assignments: Sequence[str],
    out: Path,
    tracking_uri: str | None,
    dry_run: bool,
) -> int:
    """Run a study to its end, export it to OUT/results, draw its figures, print its table; returns the exit code."""
    study = with_settings(load_study(name), config, assignments)
    chosen = study.seed_list(seeds, first_seed)
    study.validate_all()
    count = workers or (1 if engine == "verl" else max(_cores() // (processes or 1), 1))
    if engine == "verl":
        from vcppo.studies.verl.launching import check_study

        check_study(study, chosen, words)
        if processes is not None:
            raise ConfigError("--processes with --engine verl: verl starts its own, see docs/verl.md")
    elif words:
        raise ConfigError(f"--verl {words[0]}: it would be ignored, expected --engine verl beside it")
    tell(study.notes(chosen))
    if dry_run:
        if engine == "verl":
            print_verl_plan(study, chosen, words)
        else:
            print_study_plan(study, chosen, count, out)
        return 0
    from vcppo.studies.sweep import run_study
    from vcppo.studies.worker import PIPELINE
    from vcppo.tracking.courier import Courier

    courier = Courier(out, study.name, tracking_uri)
    runner = PIPELINE
    if engine == "verl":
        from vcppo.studies.verl.launching import prepare_study

        runner = prepare_study(study, chosen, words, out, fresh=fresh)
    elif processes is not None:
        from vcppo.studies.launch import RUNNER

        runner = RUNNER
    with ProgressView() as view:
        outcome = run_study(
            study,
            seeds=chosen,
            workers=count,
            out=out,
            storage=storage,
            retry_failed=retry_failed,
            fresh=fresh,
            on_event=view,
            courier=courier,
            runner=runner,
            processes=processes or 1,
        )
    _tell(courier)
    for cell, error in outcome.failures:
        print(f"FAILED {cell}: {error}")
    concluded = outcome.interrupted or conclude(study.name, out)
    if study.search is not None:
        for line in best_trials(study, out):
            print(line)
    print(_tracking_words(courier.tracking_uri, 0))
    return outcome.exit_code or (0 if concluded else NOT_CONCLUDED)


def conclude(study: str, out: Path) -> bool:
    """Export what a study measured to OUT/results/STUDY, draw it, and print its table; whether all of it worked."""
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


def best_trials(study: Study, out: Path, count: int = 3) -> list[str]:
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


def with_settings(study: Study, config: Path | None, assignments: Sequence[str]) -> Study:
    """The study with settings from a file and from --set beneath its own."""
    flags = nest(dict(parse_assignment(text) for text in assignments), "--set")
    layers = [Layer("--set", flags, shared=True)]
    if config is not None:
        layer = file_layer(config)
        if config.suffix == ".json":  # a run's record says of itself what a study says of each of its runs
            layer = replace(layer, tree={name: v for name, v in layer.tree.items() if name not in OWNED_BY_THE_STUDY})
        layers.insert(0, layer)
    build_settings(layers)  # a wrong name or value is told as such
    return study.with_base(*layers)


def export_study(
    study: str,
    destination: Path,
    *,
    out: Path,
    allow_incomplete: bool,
    metrics: Sequence[str] = (),
) -> list[Path]:
    """Write a study's CSV files from its folder OUT/studies/STUDY and the cache; no tracking server is asked.

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
    """Write the same files from what a tracking server has of a study, whose folder may lie elsewhere.

    Of several studies of that name, the one of `instance`, else that of the folder OUT/studies/STUDY.

    Raises:
        StudyError: it is not clear which study is meant, or there is nothing to export.
        TrackingError: the server is away or refuses.
    """
    from vcppo.store.study_folders import StudyFolder, read_object
    from vcppo.tracking.courier import Courier
    from vcppo.tracking.export import export
    from vcppo.tracking.from_mlflow import read_study

    courier = Courier(out, study, tracking_uri)
    instance = instance or read_object(StudyFolder(out, study).path / "mlflow.json").get("instance")
    measured = read_study(
        courier.tracking_uri,
        courier.experiment,
        study=study,
        instance=instance,
        allow_incomplete=allow_incomplete,
    )
    return export(measured, destination, metrics=metrics)


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
            _tell(courier)


def print_plan(settings: RunSettings, out: Path, *, until: str = "evaluation") -> None:
    """The resolved settings as TOML-like lines, and what each stage will cost."""
    print(describe_settings(settings))
    costs = estimate_costs(settings, out)
    last = [cost.stage for cost in costs].index(until)
    _cost_table(costs[: last + 1])


def print_study_plan(study: Study, seeds: Sequence[int], workers: int, out: Path) -> None:
    """The cells of a study and what they will cost together, each shared stage counted once."""
    cells = study.cells(seeds) if study.search is None else []
    print(f"{study.name}: {study.title}\n{study.why.strip()}\n")
    if not cells:
        assert study.search is not None
        print(f"a search of {study.search.trials} trials, {len(seeds)} seeds each, over {', '.join(study.space())}")
        return
    by_address: dict[str, StageCost] = {}
    from vcppo.planning.estimate import matrix_product_rate

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


def print_verl_plan(study: Study, seeds: Sequence[int], words: Sequence[str]) -> None:
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


def list_methods() -> str:
    """A line for each method."""
    return "\n".join(f"{name:22} {method.title:50} {method.source}" for name, method in METHODS.items())


def describe_method(name: str) -> str:
    """What a method sets over the defaults, with what each setting is.

    Raises:
        ConfigError: there is no such method.
    """
    method_tree(name, "vcppo methods")
    method = METHODS[name]
    words = {known: field.description for known, field in fields()}
    lines = [f"{setting + ' = ' + str(value):48} # {words[setting]}" for setting, value in method.settings.items()]
    return "\n".join([f"# {method.title} ({method.source})", *lines])


def describe_settings(settings: RunSettings) -> str:
    """Every setting by its dotted name, with its value and its description."""
    lines = []

    def walk(model: BaseModel, prefix: str) -> None:
        for name, field in type(model).model_fields.items():
            value = getattr(model, name)
            if isinstance(value, BaseModel):
                lines.append(f"\n# {(type(value).__doc__ or '').splitlines()[0]}")
                walk(value, f"{prefix}{name}.")
            else:
                shown = "none" if value is None else value
                allowed = [str(choice) for choice in typing.get_args(field.annotation) if isinstance(choice, str)]
                words = f"{field.description or ''}" + (f" ({' | '.join(allowed)})" if allowed else "")
                lines.append(f"{prefix + name + ' = ' + str(shown):48} # {words}")

    walk(settings, "")
    return "\n".join(lines)


def _try_to_write(path: Path) -> None:
    trial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        trial.parent.mkdir(parents=True, exist_ok=True)
        trial.touch()
        trial.unlink()
    except OSError as error:
        raise ConfigError(f"--json {path}: cannot be written ({error.strerror})") from None


def _cost_table(costs: Sequence[StageCost]) -> None:
    table = Table("stage", "address", "generated", "scored", "trained", "minutes", title="at most, in tokens")
    for cost in costs:
        counts = (cost.generated_tokens, cost.forward_tokens, cost.trained_tokens)
        numbers = ["", "", "", "cached"] if cost.cached else [*(f"{n:,}" for n in counts), f"{cost.minutes:.1f}"]
        table.add_row(cost.stage, cost.address, *numbers)
    Console().print(table)
    print(f"about {sum(cost.minutes for cost in costs):.1f} minutes here")


def _tell(courier: "Courier") -> None:
    """What the courier found that the user should know."""
    for notice in courier.notices:
        print(notice)


def _tracking_words(tracking_uri: str, kept: int) -> str:
    if kept:
        return f"{kept} records did not reach {tracking_uri}; they are kept on disk: vcppo track replay delivers them"
    if tracking_uri.startswith("sqlite"):
        return f"MLflow: mlflow ui --backend-store-uri {shlex.quote(tracking_uri)}"
    return f"MLflow: {tracking_uri}"


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

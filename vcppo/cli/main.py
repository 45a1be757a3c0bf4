"""The command `vcppo`. Each command builds settings and calls one function; what is heavy is imported inside."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from vcppo import __version__
from vcppo.errors import ConfigError, VcppoError
from vcppo.settings.loading import load
from vcppo.settings.notes import lines
from vcppo.settings.sections import RunSettings
from vcppo.system.processes import INTERRUPTED, STOPPED, call, is_main
from vcppo.system.redaction import redact_output, remember

# Spinning threads of two workers on two cores are 10 to 30 times slower than sleeping ones; read when torch loads.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OMP_NUM_THREADS", "1")

Command = Callable[..., Any]


def _address(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """An address that may hold a password, which is shown nowhere from here on."""
    remember(value)
    return value


config_option = click.option(
    "--config", type=click.Path(path_type=Path), help="TOML file of settings, or the settings.json of an earlier run."
)
set_option = click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="KEY=VALUE",
    help="One setting, for example gae.lambda_actor=0.99; repeat.",
)
out_option = click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("runs"),
    show_default=True,
    help="Where results go.",
)
tracking_option = click.option(
    "--tracking-uri",
    metavar="URI",
    callback=_address,
    help="MLflow server or database. [default: $MLFLOW_TRACKING_URI, else OUT/mlflow.db]",
)
dry_run_option = click.option("--dry-run", is_flag=True, help="Print the settings and the estimated cost, run nothing.")


class OneLineErrors(click.Group):
    """The user's mistake is one line and exit code 2; ours is a traceback and exit code 1; Ctrl-C is a line and 130.

    Neither shows a secret.
    """

    def main(self, *arguments: Any, **named: Any) -> Any:
        """Begin."""
        redact_output()
        return super().main(*arguments, **named)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except VcppoError as error:
            if is_main() or not isinstance(error, ConfigError):  # every process meets a wrong setting
                click.echo(f"{type(error).__name__}: {' '.join(str(error).split())}", err=True)
            sys.exit(2)
        except KeyboardInterrupt:
            if is_main():
                click.echo(STOPPED, err=True)
            sys.exit(INTERRUPTED)


@click.group(cls=OneLineErrors, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="vcppo")
def main() -> None:
    """Value-Calibrated PPO (arXiv 2503.01491), every part switchable and compared with its alternatives.

    \b
    A first look, on a laptop:
      vcppo sweep components --workers 2        run the component study, ten minutes on two cores
      mlflow ui --backend-store-uri sqlite:///runs/mlflow.db
      make figures RESULTS=runs/results         draw its figures and tables

    \b
    One run, step by step (each step takes what the last one left in the cache):
      vcppo cold-start, vcppo reward-model, vcppo pretrain-value, vcppo train, vcppo evaluate CHECKPOINT

    \b
    Real models, on GPUs:
      vcppo plan recipes/qwen2.5-7b-8gpu.toml --gpus 8          does it fit?
      torchrun --nproc-per-node 8 -m vcppo train --config recipes/qwen2.5-7b-8gpu.toml
      vcppo evaluate owner/model --set task.name=maths          AIME, resumable, with intervals

    `vcppo settings` lists every setting with its default, `vcppo methods` every method. A run with the same settings is
    never computed twice.
    """


def run_options(command: Command) -> Command:
    """The options of every command that runs stages."""
    for option in (dry_run_option, tracking_option, out_option, set_option, config_option):
        command = option(command)
    return command


@main.command("train")
@run_options
def train(
    config: Path | None, assignments: tuple[str, ...], out: Path, tracking_uri: str | None, dry_run: bool
) -> None:
    """Run every stage: cold start, reward model, value pretraining, RL, evaluation.

    \b
    vcppo train                                                       VC-PPO with its defaults
    vcppo train --set method=ppo                                      the PPO that collapses
    vcppo train --set method=vineppo --set vine.samples=3             any of `vcppo methods`, and what you change
    vcppo train --config runs/studies/train/cells/NAME/settings.json  an earlier run once more, to the bit

    Ctrl-C or a crash loses at most the steps since the last checkpoint: the same command goes on from there.
    """
    _run_one("train", "evaluation", _load(config, assignments), out, tracking_uri, dry_run)


@main.command("cold-start")
@run_options
def cold_start(
    config: Path | None, assignments: tuple[str, ...], out: Path, tracking_uri: str | None, dry_run: bool
) -> None:
    """Make the policy that everything starts from, by supervised fine-tuning on the task's demonstrations."""
    _run_one("cold-start", "cold-start", _load(config, assignments), out, tracking_uri, dry_run)


@main.command("reward-model")
@run_options
def reward_model(
    config: Path | None, assignments: tuple[str, ...], out: Path, tracking_uri: str | None, dry_run: bool
) -> None:
    """Make the reward model: Bradley-Terry on right and wrong answers, scored at the last token only."""
    _run_one("reward-model", "reward-model", _load(config, assignments), out, tracking_uri, dry_run)


@main.command("pretrain-value")
@run_options
def pretrain_value(
    config: Path | None, assignments: tuple[str, ...], out: Path, tracking_uri: str | None, dry_run: bool
) -> None:
    """Pretrain the critic on Monte-Carlo returns of the fixed policy.

    \b
    vcppo pretrain-value                           until held-out loss and explained variance have settled
    vcppo pretrain-value --set pretrain.steps=50   exactly 50 updates
    """
    settings = _load(config, assignments)
    if settings.pretrain.steps == 0:
        raise ConfigError(
            "pretrain.steps = 0 (from --set): nothing to pretrain; give a number of updates or `converge`"
        )
    _run_one("pretrain-value", "value-pretraining", settings, out, tracking_uri, dry_run)


@main.command("evaluate")
@click.argument("checkpoints", metavar="CHECKPOINT...", nargs=-1, required=True)
@click.option("--samples", type=click.IntRange(1), help="Answers a problem; the same as --set evaluation.samples=N.")
@click.option("--json", "report", type=click.Path(path_type=Path, dir_okay=False), help="Write the report here too.")
@click.option("--dry-run", is_flag=True, help="Say what there is to do, and do nothing.")
@out_option
@config_option
@set_option
def evaluate(
    checkpoints: tuple[str, ...],
    samples: int | None,
    report: Path | None,
    dry_run: bool,
    out: Path,
    config: Path | None,
    assignments: tuple[str, ...],
) -> None:
    """Answer the held-out problems with any policy in transformers format; avg@n and pass@k with intervals.

    CHECKPOINT is a folder with config.json, model.safetensors and a tokenizer, for example the policy/ folder of an
    RL stage under runs/cache/rl, or the name of a model on the hub. Of several, each is compared with the first.

    \b
    vcppo evaluate runs/cache/rl/ADDRESS/policy
    vcppo evaluate runs/cache/cold-start/ADDRESS/policy runs/cache/rl/ADDRESS/policy --samples 32
    vcppo evaluate runs/cache/rl/ADDRESS/policy --set evaluation.temperature=0      greedy decoding

    Every answer is kept under OUT/evaluations. Stop it with Ctrl-C or kill it at any moment: the same command goes on.
    docs/evaluate.md says what the numbers are and what the report holds.
    """
    said = assignments if samples is None else (*assignments, f"evaluation.samples={samples}")
    from vcppo.cli.commands import evaluate_checkpoints, tell

    resolved = load(config, said, checkpoint=checkpoints[0])
    tell(lines(resolved.notes))

    sys.exit(evaluate_checkpoints(checkpoints, resolved.settings, out=out, report=report, dry_run=dry_run))


@main.command("sweep")
@click.argument("study")
@click.option("--workers", type=click.IntRange(1), help="Processes, one thread each. [default: the number of cores]")
@click.option("--seeds", type=click.IntRange(1), help="How many. [default: the study's]")
@click.option("--first-seed", type=click.IntRange(0), help="Seeds count up from here. [default: the study's]")
@click.option(
    "--storage",
    metavar="URL",
    envvar="VCPPO_STORAGE",
    callback=_address,
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
def sweep(
    study: str,
    workers: int | None,
    seeds: int | None,
    first_seed: int | None,
    storage: str | None,
    retry_failed: bool,
    fresh: bool,
    engine: str,
    processes: int | None,
    words: tuple[str, ...],
    config: Path | None,
    assignments: tuple[str, ...],
    out: Path,
    tracking_uri: str | None,
    dry_run: bool,
) -> None:
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
    from vcppo.cli.commands import sweep_study

    sys.exit(
        sweep_study(
            study,
            workers=workers,
            seeds=seeds,
            first_seed=first_seed,
            storage=storage,
            retry_failed=retry_failed,
            fresh=fresh,
            engine=engine,
            processes=processes,
            words=words,
            config=config,
            assignments=assignments,
            out=out,
            tracking_uri=tracking_uri,
            dry_run=dry_run,
        )
    )


@main.command("export")
@click.argument("study")
@click.option(
    "--to", "destination", type=click.Path(path_type=Path, file_okay=False), help="Folder. [default: results/STUDY]"
)
@click.option("--allow-incomplete", is_flag=True, help="Export what is there of a study that has not ended.")
@click.option(
    "--metrics",
    multiple=True,
    metavar="PATTERN",
    help="Names that curves.csv holds, for example 'eval/*'; repeat. [default: all but 'system/*', the machine's own]",
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
    """Turn what a study measured into tidy CSV files that `make figures` draws from.

    It is read from OUT/studies/STUDY and OUT/cache; MLflow need not be there. --from-mlflow reads a tracking server
    instead, and where that holds several studies of the name they are listed, and --instance chooses. The files are
    replaced all together, or not at all. curves.csv holds every metric of RL, evaluation and value pretraining but
    system/*.
    """
    from vcppo.cli.commands import export_from_mlflow, export_study

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


@main.group("track")
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
    from vcppo.cli.commands import replay_studies

    for study, records in replay_studies(studies, out, tracking_uri):
        click.echo(f"{study}: {records} records delivered")


@main.command("figures")
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


@main.command("methods")
@click.argument("name", required=False)
def methods_command(name: str | None) -> None:
    """List the methods, or what NAME sets over the defaults.

    \b
    vcppo methods
    vcppo methods vineppo
    vcppo train --set method=vineppo

    docs/methods.md has a page on each: its equation, its settings with their sources, when to use it.
    """
    from vcppo.cli.commands import describe_method, list_methods

    click.echo(list_methods() if name is None else describe_method(name))


@main.command("settings")
@config_option
@set_option
def settings_command(config: Path | None, assignments: tuple[str, ...]) -> None:
    """List every setting with its value and what it does."""
    from vcppo.cli.commands import describe_settings

    click.echo(describe_settings(_load(config, assignments)))


@main.command("plan")
@click.argument("config", required=False, type=click.Path(path_type=Path))
@click.option("--gpus", type=click.IntRange(1), default=1, show_default=True, help="Processes, a GPU each.")
@click.option("--memory", type=click.FloatRange(0, min_open=True), default=80.0, show_default=True, help="GiB of each.")
@set_option
def plan(config: Path | None, gpus: int, memory: float, assignments: tuple[str, ...]) -> None:
    """Say what each stage takes of each GPU, whether it fits, what to change if not, and how long it may take.

    \b
    vcppo plan recipes/qwen2.5-7b-8gpu.toml --gpus 8 --memory 80
    vcppo plan --set model.path=Qwen/Qwen2.5-1.5B --set compute.dtype=bfloat16

    CONFIG is a TOML file of settings, or the settings.json of a run. Nothing is loaded or downloaded. The exit code is
    0 if everything fits, 1 if not.
    """
    from vcppo.cli.commands import tell
    from vcppo.planning.describing import plan_lines
    from vcppo.planning.plan import Machine, make_plan

    resolved = load(config, assignments)
    tell(lines(resolved.notes))
    found = make_plan(resolved.settings, Machine.of(gpus, memory))
    for line in plan_lines(resolved.settings, found):
        click.echo(line)
    sys.exit(0 if found.fits else 1)


@main.command("doctor")
@out_option
def doctor(out: Path) -> None:
    """Say what is installed, what is missing, and what would be slow."""
    from vcppo.cli.doctor import examine

    findings = examine(out)
    for finding in findings:
        colour = {"good": "green", "slow": "yellow"}.get(finding.state, "red")
        click.echo(f"{click.style(f'{finding.state:8}', fg=colour)} {finding.subject:14} {finding.words}")
    bad = [f.subject for f in findings if f.state in ("missing", "wrong")]
    click.echo(f"to mend: {', '.join(bad)}" if bad else "vcppo can run here")
    sys.exit(2 if bad else 0)


def _load(config: Path | None, assignments: tuple[str, ...]) -> RunSettings:
    from vcppo.cli.commands import tell

    resolved = load(config, assignments)
    tell(lines([*resolved.notes, *resolved.of_model]))
    return resolved.settings


def _run_one(
    command: str, until: str, settings: RunSettings, out: Path, tracking_uri: str | None, dry_run: bool
) -> None:
    from vcppo.cli.commands import print_plan, run_one

    if dry_run:
        print_plan(settings, out, until=until)
        return
    sys.exit(run_one(command, settings, out, until=until, tracking_uri=tracking_uri))

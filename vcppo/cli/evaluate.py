"""`vcppo evaluate`: checkpoints on the held-out problems."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from vcppo.cli.options import config_option, out_option, set_option
from vcppo.cli.output import print_notes
from vcppo.errors import ConfigError
from vcppo.settings.loading import load
from vcppo.settings.notes import lines
from vcppo.settings.run import RunSettings
from vcppo.system.processes import INTERRUPTED, is_main


@click.command("evaluate")
@click.argument("checkpoints", metavar="CHECKPOINT...", nargs=-1, required=True)
@click.option(
    "--samples", type=click.IntRange(1), help="Responses per problem; the same as --set evaluation.samples=N."
)
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
    """Evaluate any policy in transformers format on the held-out problems: avg@n and pass@k with intervals.

    CHECKPOINT is a folder with config.json, model.safetensors and a tokenizer, for example the policy/ folder of an
    RL stage under runs/cache/rl, or the name of a model on the hub. Of several, each is compared with the first.

    \b
    vcppo evaluate runs/cache/rl/ADDRESS/policy
    vcppo evaluate runs/cache/cold-start/ADDRESS/policy runs/cache/rl/ADDRESS/policy --samples 32
    vcppo evaluate runs/cache/rl/ADDRESS/policy --set evaluation.temperature=0      greedy decoding

    Every response is stored under OUT/evaluations. Stop it with Ctrl-C or kill it at any moment: the same command goes
    on. docs/evaluate.md says what the numbers are and what the report holds.
    """
    texts = assignments if samples is None else (*assignments, f"evaluation.samples={samples}")
    resolved = load(config, texts, checkpoint=checkpoints[0])
    print_notes(lines(resolved.notes))
    sys.exit(evaluate_checkpoints(checkpoints, resolved.settings, out=out, report=report, dry_run=dry_run))


def evaluate_checkpoints(
    names: Sequence[str], settings: RunSettings, *, out: Path, report: Path | None, dry_run: bool
) -> int:
    """Evaluate checkpoints one after the other, print their tables, and compare each with the first.

    Returns:
        The exit code: 0 if all is done, 130 after Ctrl-C.
    Raises:
        ConfigError: the report cannot be written to its path; raised before anything runs.
    """
    from rich.console import Console

    from vcppo.evaluation.evaluate import Comparison, Evaluation
    from vcppo.evaluation.progress import EvaluationView
    from vcppo.models.distributed import together
    from vcppo.store.samples import write_whole
    from vcppo.system.fingerprints import find_checkpoint

    evaluations = [Evaluation(find_checkpoint(name), settings, out) for name in names]
    if not is_main():  # of several processes one reports
        if not dry_run:
            with together():
                for evaluation in evaluations:
                    evaluation.run(EvaluationView(evaluation.checkpoint.name, 0, Console(quiet=True)))
        return 0
    notes = [note for evaluation in evaluations for note in evaluation.notes]  # what does not fit is reported now
    print_notes(dict.fromkeys(notes))
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
                    done = f"{view.done} of {view.total} problems are done"
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


def _try_to_write(path: Path) -> None:
    trial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        trial.parent.mkdir(parents=True, exist_ok=True)
        trial.touch()
        trial.unlink()
    except OSError as error:
        raise ConfigError(f"--json {path}: cannot be written ({error.strerror})") from None

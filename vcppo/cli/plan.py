"""`vcppo plan`: memory of a run, or of a diagnosis, on each GPU, estimated before anything is loaded."""

import sys
from pathlib import Path

import click

from vcppo.cli.options import file_or_recipe, set_option
from vcppo.cli.output import print_notes
from vcppo.settings.loading import load
from vcppo.settings.notes import lines

GPU_MEMORY = 80.0  # GiB


@click.command("plan")
@click.argument("config", required=False, callback=file_or_recipe)
@click.option(
    "--gpus",
    type=click.IntRange(0),
    default=1,
    show_default=True,
    help="Processes, a GPU each; 0: one process without a GPU, and what it takes of main memory.",
)
@click.option(
    "--memory",
    type=click.FloatRange(0, min_open=True),
    help="GiB of each.  [default: 80; with --gpus 0 this machine's main memory]",
)
@click.option(
    "--calibrate",
    is_flag=True,
    help="Measure this machine's speed with such a model, about a minute, for --dry-run; plan nothing.",
)
@click.option(
    "--diagnose", "responses", type=click.IntRange(1), metavar="N", help="Plan `vcppo diagnose` of N responses instead."
)
@click.option("--critics", type=click.IntRange(1), default=1, show_default=True, help="That are diagnosed.")
@click.option("--lambdas", type=click.IntRange(1), default=4, show_default=True, help="Of each of them.")
@set_option
def plan(
    config: Path | None,
    gpus: int,
    memory: float | None,
    responses: int | None,
    critics: int,
    lambdas: int,
    calibrate: bool,
    assignments: tuple[str, ...],
) -> None:
    """Say what each stage takes of each GPU, whether it fits, what to change if not, and how long it may take.

    \b
    vcppo plan qwen2.5-7b-8gpu --gpus 8 --memory 80
    vcppo plan --set model.path=Qwen/Qwen2.5-1.5B --set task.name=maths --set compute.dtype=bfloat16
    vcppo plan --gpus 0 --set model.path=models/smollm2-135m --set task.name=vcppo.tasks.sums:SumsTask
    vcppo plan --calibrate --set model.path=models/smollm2-135m --set task.name=maths
    vcppo plan --diagnose 500 --set model.path=Qwen/Qwen2.5-1.5B --set task.name=maths --set rollout.max_tokens=2000

    CONFIG is a TOML file of settings, the settings.json of a run, or the name of a recipe that comes with vcppo.
    Nothing is loaded or downloaded. The exit code is 0 if everything fits, 1 if not.

    `vcppo train --dry-run` estimates minutes on this machine; --calibrate measures what they rest on, with random
    weights in the model's shapes, and stores it in your cache folder.
    """
    if calibrate:
        _calibrate(config, assignments)
        return
    from vcppo.planning.describing import plan_lines
    from vcppo.planning.memory_estimate import GIB
    from vcppo.planning.plan import Gpus, make_plan
    from vcppo.system.provenance import main_memory

    resolved = load(config, assignments)
    print_notes(lines(resolved.notes))
    machine = Gpus.of(gpus, memory or (GPU_MEMORY if gpus else main_memory() / GIB))
    if responses is not None:
        from vcppo.planning.diagnosis_plan import Workload, diagnosis_lines, plan_diagnosis
        from vcppo.planning.shapes import critic_shapes_of, shapes_of

        settings = resolved.settings
        workload = Workload.of(settings, responses, critics=critics, lambdas=lambdas)
        policy, critic = shapes_of(settings), critic_shapes_of(settings)
        diagnosis = plan_diagnosis(settings, workload, policy=policy, critic=critic, machine=machine)
        for line in diagnosis_lines(settings, diagnosis, machine):
            click.echo(line)
        sys.exit(0 if diagnosis.fits(machine) else 1)
    result = make_plan(resolved.settings, machine)
    for line in plan_lines(resolved.settings, result):
        click.echo(line)
    sys.exit(0 if result.fits else 1)


def _calibrate(config: Path | None, assignments: tuple[str, ...]) -> None:
    resolved = load(config, assignments)
    print_notes(lines(resolved.notes))
    from vcppo.planning.speed_store import speeds_file, store_speed
    from vcppo.planning.time_estimate import networks_of
    from vcppo.planning.writing import training_writing

    policy, _ = networks_of(resolved.settings)  # what is not known here is told before torch is loaded
    click.echo("measuring for about a minute", err=True)
    from vcppo.planning.calibration import calibrate

    speed = calibrate(resolved.settings)
    store_speed(policy, resolved.settings, speed)
    for name, seconds in (
        ("written", speed.writing_s(training_writing("rl", resolved.settings))),
        ("read", speed.read_s),
        ("trained", speed.train_s),
    ):
        click.echo(f"{1 / seconds:12,.0f} tokens/s {name}")
    click.echo(f"{speed.update_s:12.3f} s an update of the weights")
    click.echo(f"stored in {speeds_file()}; `vcppo train --dry-run` with the same settings counts with it")

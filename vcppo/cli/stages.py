"""`vcppo train`, `cold-start`, `reward-model` and `pretrain-value`: one run in this process, or part of one."""

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vcppo.cli.exit_codes import NOT_DELIVERED
from vcppo.cli.options import load_with_notes, run_options
from vcppo.cli.output import print_notes, print_notices, tracking_line
from vcppo.errors import ConfigError
from vcppo.settings.run import RunSettings
from vcppo.system.processes import INTERRUPTED, is_main, locked, terminable

if TYPE_CHECKING:
    from vcppo.planning.time_estimate import StageCost

TABLE_WIDTH = 100  # columns that the costs take; where a terminal has fewer they are not cut
CLOSE_TIMEOUT_S, CLOSE_TIMEOUT_AFTER_CTRL_C_S = 30.0, 5.0  # for the uploader of a single run to finish


@click.command("train")
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
    _run_one("train", "evaluation", load_with_notes(config, assignments), out, tracking_uri, dry_run)


@click.command("cold-start")
@run_options
def cold_start(
    config: Path | None, assignments: tuple[str, ...], out: Path, tracking_uri: str | None, dry_run: bool
) -> None:
    """Make the policy that everything starts from, by supervised fine-tuning on the task's demonstrations."""
    _run_one("cold-start", "cold-start", load_with_notes(config, assignments), out, tracking_uri, dry_run)


@click.command("reward-model")
@run_options
def reward_model(
    config: Path | None, assignments: tuple[str, ...], out: Path, tracking_uri: str | None, dry_run: bool
) -> None:
    """Make the reward model: Bradley-Terry on right and wrong responses, scored at the last token only."""
    _run_one("reward-model", "reward-model", load_with_notes(config, assignments), out, tracking_uri, dry_run)


@click.command("pretrain-value")
@run_options
def pretrain_value(
    config: Path | None, assignments: tuple[str, ...], out: Path, tracking_uri: str | None, dry_run: bool
) -> None:
    """Pretrain the critic on Monte-Carlo returns of the fixed policy.

    \b
    vcppo pretrain-value                           until the held-out loss has settled, then the best
    vcppo pretrain-value --set pretrain.steps=50   exactly 50 updates
    """
    settings = load_with_notes(config, assignments)
    if settings.pretrain.steps == 0:
        raise ConfigError(
            "pretrain.steps = 0 (from --set): nothing to pretrain; give a number of updates or `converge`"
        )
    _run_one("pretrain-value", "value-pretraining", settings, out, tracking_uri, dry_run)


def _run_one(
    command: str, until: str, settings: RunSettings, out: Path, tracking_uri: str | None, dry_run: bool
) -> None:
    from vcppo.planning.disk_estimate import together
    from vcppo.store.cache import addresses
    from vcppo.studies.room import notes_on_room, stages_on_disk

    if until not in (stages := addresses(settings)):
        raise ConfigError(f"vcppo {command}: a run of these settings has no stage {until}; it has {', '.join(stages)}")
    if dry_run:
        print_plan(settings, out, until=until)
        return
    if is_main():
        disks = stages_on_disk(settings, out, until)
        print_notes(notes_on_room(None if disks is None else together([disks], workers=1), out))
    sys.exit(run_one(command, settings, out, until=until, tracking_uri=tracking_uri))


def run_one(command: str, settings: RunSettings, out: Path, *, until: str, tracking_uri: str | None) -> int:
    """Run a single configuration in this process, recorded as a cell of the study named after the command.

    Returns:
        The exit code: 0 if it ended well, 4 if MLflow lacks some of it, 2 if it failed, 130 after Ctrl-C or SIGTERM.
    Raises:
        ConfigError: its arm cannot be part of a folder's name.
    """
    from vcppo.models.distributed import together
    from vcppo.stages.context import print_notice
    from vcppo.store.cell_folders import CellFolder, CellRecord
    from vcppo.studies.cell_run import run_and_record
    from vcppo.studies.cells import run_name
    from vcppo.studies.progress import ProgressView, following
    from vcppo.system.temporaries import sweep
    from vcppo.tracking.uploaders import uploader_to

    name = run_name(settings)
    if not is_main():
        from vcppo.stages.pipeline import run_stages

        try:
            with together():
                run_stages(settings, out, until=until)
        except KeyboardInterrupt:  # the main process reports it
            return INTERRUPTED
        return 0
    uploader = uploader_to(tracking_uri, out, command)
    path = out / "studies" / command / "cells" / name
    folder = CellFolder(path)
    with terminable(), ProgressView() as view, locked(path):
        sweep(path, below=True)
        folder.move_unreadable_aside(print_notice)
        if not folder.exists():
            record = CellRecord(study=command, cell=name, arm=settings.arm, seed=settings.seed)
            CellFolder.create(path, record, settings)
        uploader.start()
        timeout_s = CLOSE_TIMEOUT_S
        try:
            with following(folder, out, view, news=uploader.news), together():
                from vcppo.stages.pipeline import run_cell

                record = run_and_record(folder, out, partial(run_cell, until=until))
        except KeyboardInterrupt:
            timeout_s = CLOSE_TIMEOUT_AFTER_CTRL_C_S
            print(f"stopped; the same command goes on from the last checkpoint (cell {name})")
            return INTERRUPTED
        finally:
            undelivered = uploader.close(timeout_s)
            print_notices(uploader)
    if record.state == "failed":
        print(f"{name} failed: {record.error}\ntraceback: {path / 'traceback.txt'}")
        return 2
    for key, value in sorted(record.result.items()):
        print(f"{key:36} {'nan' if value is None else format(value, '.4g')}")
    for stage in record.stages:
        print(f"{stage.stage:18} {'ran' if stage.ran else 'cached':7} {out / 'cache' / stage.stage / stage.address}")
    print(tracking_line(uploader, undelivered))
    return NOT_DELIVERED if undelivered else 0


def print_plan(settings: RunSettings, out: Path, *, until: str = "evaluation") -> None:
    """Print the resolved settings as TOML-like lines, and the estimated cost of each stage."""
    from vcppo.planning.disk_estimate import together
    from vcppo.planning.time_estimate import basis, estimate_costs, time_words
    from vcppo.settings.describing import describe_settings
    from vcppo.studies.room import disk_words, memory_words, stages_on_disk
    from vcppo.system.disk import describe_bytes

    print(describe_settings(settings))
    if settings.model.path is not None and Path(settings.model.path).is_dir():
        from vcppo.stages.shared.critic_start import check_critic

        check_critic(settings)
    disks, costs = stages_on_disk(settings, out, until), estimate_costs(settings, out)
    stages = [cost.stage for cost in costs]
    costs = costs[: stages.index(until) + 1] if until in stages else costs
    _cost_table(costs, {disk.stage: describe_bytes(disk.stays) for disk in disks or ()})
    print(
        f"{time_words(sum(cost.minutes for cost in costs))} here; "
        f"{memory_words([settings])}; {disk_words(None if disks is None else together([disks], workers=1), out)}"
    )
    print(basis(settings))


def _cost_table(costs: "Sequence[StageCost]", disk: Mapping[str, str]) -> None:
    from rich.console import Console
    from rich.table import Table

    from vcppo.planning.time_estimate import minutes_text

    table = Table("stage", "address", "generated", "read", "trained", "minutes", "disk", title="at most, in tokens")
    for cost in costs:
        counts = (cost.generated_tokens, cost.prompt_tokens + cost.forward_tokens, cost.trained_tokens)
        missing = [*(f"{n:,}" for n in counts), minutes_text(cost.minutes), disk.get(cost.stage, "?")]
        numbers = ["", "", "", "cached", ""] if cost.cached else missing
        table.add_row(cost.stage, cost.address, *numbers)
    console = Console()
    console.width = max(console.width, TABLE_WIDTH)
    console.print(table)

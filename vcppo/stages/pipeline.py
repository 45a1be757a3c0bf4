"""The stages in their order, each run at most once for its address."""

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from vcppo.errors import TrainingError
from vcppo.models.distributed import world
from vcppo.seeding import rng_for
from vcppo.settings.loading import load_settings
from vcppo.settings.preference import preference_settings
from vcppo.settings.run import RunSettings
from vcppo.stages.answers import sample_responses
from vcppo.stages.cold_start import cold_start
from vcppo.stages.context import StageContext, print_notice
from vcppo.stages.evaluation import evaluation
from vcppo.stages.forecast import forecast, forecast_responses
from vcppo.stages.reward_model import reward_model
from vcppo.stages.rl import rl
from vcppo.stages.shared.critic_start import check_critic
from vcppo.stages.shared.token_progress import shown
from vcppo.stages.value_pretraining import value_pretraining
from vcppo.store.cache import Address, StageFolder, addresses, is_complete, is_intact, move_damaged_aside
from vcppo.store.cell_folders import CellFolder
from vcppo.store.journal import read_journal
from vcppo.store.pretrained_critics import add_request, chosen_step
from vcppo.store.summary import curves_of, summary
from vcppo.system import disk
from vcppo.tasks import make_task

STAGES: dict[str, Callable[[StageContext], dict[str, float]]] = {
    "cold-start": cold_start,
    "reward-model": reward_model,
    "preference": rl,  # of the settings that `preference_settings` makes
    "answers": sample_responses,
    "value-pretraining": value_pretraining,
    "forecast-answers": forecast_responses,
    "forecast": forecast,
    "rl": rl,
    "evaluation": evaluation,
}


@dataclass(frozen=True)
class StageUse:
    """A stage of one run: its folder, and whether it ran."""

    folder: StageFolder
    ran: bool  # computed now, rather than taken from the cache


@disk.writing()
def run_stages(
    settings: RunSettings,
    out: Path,
    *,
    until: str = "evaluation",
    on_stage: Callable[[str, str, bool], None] = lambda stage, address, ran: None,
    notice: Callable[[str], None] = print_notice,
    cell: str = "",
    on_wait: Callable[[str, str, str], None] = lambda stage, address, holder: None,
) -> dict[str, StageUse]:
    """Run every stage up to `until` whose result is not in the cache.

    A result that is read is compared with its manifest first, byte by byte; if no stage is left to run, none is read,
    and sizes are compared alone. One that is complete is used without a lock: others may own it, or it may be read
    only.

    Args:
        on_stage: called with (stage, address, will run) when a stage is about to run or is already complete.
        notice: receives a line for each result that was damaged, and is computed again.
        cell: the run's name, as STUDY/CELL, for other processes that have to wait for a stage of it.
        on_wait: called with (stage, address, who) when another process works on a stage that this run needs.
    Raises:
        ConfigError: a prompt, or a response as long as requested, does not fit the model, or RL is to imitate
            demonstrations that the task has not; before anything is run.
        CheckpointError: of the model that is given no critic can be made; before anything is run.
        TrainingError: a number is not finite, or another failure of training, with the stage in which it came up.
        DiskError: the disk is full, or refuses; the same call goes on from the last checkpoint.
    """
    stage_addresses, here = addresses(settings), world()
    uses: dict[str, StageUse] = {}
    _check_response_limits(StageContext(settings, StageFolder(out, stage_addresses["cold-start"]), {}), until)
    needed = _up_to(until, stage_addresses)
    if any(stage in needed for stage in ("reward-model", "value-pretraining", "rl")):
        check_critic(settings)
    if settings.policy.demonstration_nll and "rl" in needed:  # a task without any says so now, not after hours
        make_task(settings.task).demonstrations(1, rng_for(settings.base_seed, "check"))
    folders = [StageFolder(out, stage_addresses[stage]) for stage in needed]
    any_runs = here.is_main and not all(is_complete(folder, settings) for folder in folders)
    is_usable = is_intact if any_runs else is_complete
    for stage, folder in zip(needed, folders, strict=True):
        earlier = {name: use.folder for name, use in uses.items()}
        stage_settings = preference_settings(settings) if stage == "preference" else settings
        context = StageContext(stage_settings, folder, earlier, notice)
        if here.is_main and stage == "value-pretraining":
            add_request(folder.path, settings.pretrain)  # first: no run that thins the folder may take this critic away
        complete = here.from_main(here.is_main and is_usable(folder, settings) and not folder.was_left)
        if complete and here.is_main:
            on_stage(stage, folder.address.key, False)
        if not complete:
            with folder.lock(cell, partial(on_wait, stage, folder.address.key)):
                complete = _run_stage(context, on_stage)
        uses[stage] = StageUse(folder, not complete)
    return uses


def _run_stage(context: StageContext, on_stage: Callable[[str, str, bool], None]) -> bool:
    """Run a stage, unless another process has completed it by the time that the caller holds its lock; whether so."""
    folder, settings, here = context.folder, context.settings, world()
    stage, key = folder.address.stage, folder.address.key
    if here.is_main:
        move_damaged_aside(folder, settings, context.notice)
    complete = here.from_main(here.is_main and is_complete(folder, settings) and folder.result is not None)
    if here.is_main:
        on_stage(stage, key, not complete)
    if complete:
        return True
    if here.is_main:
        folder.describe(context.notice)
    here.wait()
    began = time.perf_counter()
    try:
        with shown(context):
            result = STAGES[stage](context)
    except TrainingError as error:
        raise TrainingError(f"{stage}: {error}") from None
    if here.is_main:
        folder.finish(result, time.perf_counter() - began)
    here.wait()
    return False


def _up_to(until: str, stages: Mapping[str, Address]) -> list[str]:
    """Names of the stages that come before `until`, and its own; all of them if it is not among them."""
    names = list(stages)
    return names[: names.index(until) + 1] if until in names else names


def _check_response_limits(context: StageContext, until: str) -> None:
    """Check them before hours of training; print where the task's limit gives way, and where generation is slow."""
    limits = [] if until == "cold-start" else [context.rollout_limit]
    if until == "evaluation" or (until == "rl" and context.settings.evaluation.every):
        limits.append(context.evaluation_limit)
    notes = [limit.note for limit in limits] + ([context.engine_note] if limits else [])
    for note in notes:
        if note is not None and world().is_main:
            print(f"note: {note}", file=sys.stderr, flush=True)


def run_cell(cell: Path, out: Path, *, until: str = "evaluation") -> dict[str, float]:
    """Run the settings in a cell's folder up to a stage; its `cell.json` lists the stages as they come.

    Returns:
        Result of the last stage; of a whole run also that of its RL stage, with the summary of its curves.
    """
    folder = CellFolder(cell)

    def on_stage(stage: str, address: str, ran: bool) -> None:
        folder.add_stage(stage, address, ran=ran)

    def notice(line: str) -> None:
        print_notice(line)
        folder.add_notice(line)

    def on_wait(stage: str, address: str, holder: str) -> None:
        folder.add_wait(stage, address, holder)

    settings, record = load_settings(cell / "settings.json"), folder.read()
    name = f"{record.study}/{record.cell}"
    uses = run_stages(settings, out, until=until, on_stage=on_stage, notice=notice, cell=name, on_wait=on_wait)
    last = uses[until].folder.result or {}
    if (
        until == "value-pretraining"
    ):  # its folder serves many step counts, and its result is of the last that was requested
        last = {"steps": float(chosen_step(uses[until].folder.path, settings.pretrain) or 0)}
    return {**rl_result(uses["rl"].folder), **last} if "rl" in uses else last


def rl_result(folder: StageFolder) -> dict[str, float]:
    """Result of an RL stage, and the summary of its curves."""
    return {**(folder.result or {}), **summary(curves_of(read_journal(folder.path / "journal.jsonl")))}

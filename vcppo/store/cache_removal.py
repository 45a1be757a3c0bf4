"""Removal of stages from the cache: never what a study still needs, nor what a process works on.

Each removal is whole or begins again: a folder is renamed before it is emptied, under the lock of its address.
"""

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from vcppo.errors import DiskError, StudyError
from vcppo.settings.critic import PretrainSettings
from vcppo.store.cache_contents import LEFT, CachedStage, cached_stages, size_of
from vcppo.store.cache_needs import StudyNeeds, needs_of_studies
from vcppo.store.manifest import DONE, NAME
from vcppo.store.pretrained_critics import (
    HALF_GONE,
    critic_folder,
    last_moments,
    remove_last_moments,
    replace_requests,
    superfluous,
    thin,
)
from vcppo.system.files import file_lock, remove_folder
from vcppo.system.temporaries import sweep

Kind = Literal["folder", "all but journals", "critics"]


StudiesSeen = tuple[tuple[str, int, int], ...]  # their names, with when their files and lists of cells last changed


@dataclass(frozen=True)
class Choice:
    """Selection of what may be removed, of what no study needs."""

    studies: tuple[str, ...] = ()  # given up: what they alone need goes too, but for journals
    stages: tuple[str, ...] = ()  # only of these stages; none: of all
    older_than_s: float = 0.0  # only what was last written so long ago
    larger_than: int = 0  # only what frees so many bytes
    moments: bool = False  # of pretrained critics, the last ones' too


@dataclass(frozen=True)
class Removal:
    """One thing that can go."""

    of: CachedStage
    kind: Kind
    why: str
    frees: int  # bytes
    critics: tuple[PretrainSettings, ...] = field(default=(), repr=False)  # that stay
    moments: bool = False  # the last critic's go too

    @property
    def again_s(self) -> float | None:
        """Seconds that computing it took, and would take again; None if it was never finished."""
        return self.of.wall_s


@dataclass(frozen=True)
class Plan:
    """Removals, the bytes that each study needs, and the stages that are running."""

    removals: tuple[Removal, ...]
    total: int  # bytes of the cache
    needed: dict[str, int]  # bytes by study, shared ones counted for each
    running: tuple[CachedStage, ...]
    out: Path
    choice: Choice
    studies: StudiesSeen  # when the plan was made

    @property
    def frees(self) -> int:
        """Bytes of all that goes."""
        return sum(removal.frees for removal in self.removals)


def plan_removals(out: Path, choice: Choice) -> Plan:
    """Return what can go.

    Raises:
        StudyError: a study that is to be given up is unknown, runs, or has cells to go; or a cell cannot be read.
    """
    studies = _studies(out)
    stages, needs = cached_stages(out), needs_of_studies(out)
    given_up = _given_up(needs, choice.studies, out)
    others = [study for study in needs if study.study not in given_up]
    removals = [
        removal
        for stage in stages
        if stage.state != "running" and (removal := _removal(stage, others, given_up, needs, choice)) is not None
    ]
    now = time.time()
    chosen = [
        removal
        for removal in removals
        if (not choice.stages or removal.of.stage in choice.stages)
        and now - removal.of.written >= choice.older_than_s
        and removal.frees >= choice.larger_than
    ]
    needed = {study.study: sum(stage.size for stage in stages if stage.key in study.stages) for study in needs}
    running = tuple(stage for stage in stages if stage.state == "running")
    return Plan(tuple(chosen), sum(stage.size for stage in stages), needed, running, out, choice, studies)


def remove(plan: Plan) -> Iterator[tuple[Removal, str | None]]:
    """Remove one after the other; yield each, and why it stays: another process has taken it up, or owns it.

    A study that begins meanwhile, or gets cells, finds stages without a lock: what it needs stays.
    """
    studies, stays = plan.studies, dict[str, str]()
    for removal in plan.removals:
        if (now := _studies(plan.out)) != studies:
            studies, stays = now, _needed_since(plan)
        if (reason := stays.get(removal.of.key)) is not None:
            yield removal, reason
            continue
        path = removal.of.path
        try:
            if removal.of.state == "aside":
                remove_folder(path)
            else:
                with file_lock(path / "lock", wait=False) as lock:
                    lock.truncate(0)  # its last holder's signature: who waits now does not wait for that
                    sweep(path, below=True)
                    _remove(removal)
        except BlockingIOError:
            yield removal, "a process works on it"
        except FileNotFoundError:
            yield removal, None  # another has removed it
        except (OSError, DiskError) as error:
            yield removal, str(error)
        else:
            yield removal, None


def _studies(out: Path) -> StudiesSeen:
    """Return what changes when a study begins, or gets cells."""
    folders = [path for path in sorted((out / "studies").glob("*/")) if path.is_dir()]
    return tuple((path.name, _changed(path / "study.json"), _changed(path / "cells")) for path in folders)


def _changed(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0


def _needed_since(plan: Plan) -> dict[str, str]:
    """Return which of the plan's removals must not be any more, by stage, and why."""
    try:
        free = {now.of.key: (now.kind, now.critics) for now in plan_removals(plan.out, plan.choice).removals}
    except StudyError as error:
        return {removal.of.key: str(error) for removal in plan.removals}
    planned = {removal.of.key: (removal.kind, removal.critics) for removal in plan.removals}
    return {key: "a study has begun that needs it" for key, what in planned.items() if free.get(key) != what}


def _given_up(needs: Sequence[StudyNeeds], names: Collection[str], out: Path) -> set[str]:
    by_name = {study.study: study for study in needs}
    for name in names:
        study = by_name.get(name)
        if study is None:
            raise StudyError(f"study {name}: not in {out / 'studies'}, expected one of {', '.join(by_name) or 'none'}")
        if study.running or study.to_go:
            state = "it is running" if study.running else f"{study.to_go} of its cells have not ended well"
            raise StudyError(f"study {name}: {state}, so that it needs its cache; expected a study that has ended")
    return set(names)


def _removal(
    stage: CachedStage,
    others: Sequence[StudyNeeds],
    given_up: Collection[str],
    needs: Sequence[StudyNeeds],
    choice: Choice,
) -> Removal | None:
    if stage.state == "aside":
        return Removal(stage, "folder", "moved aside, or half removed", stage.size)
    users = [study for study in others if stage.key in study.stages]
    if users:
        return _critics(stage, users, moments=choice.moments)
    if not any(stage.key in study.stages for study in needs):
        return Removal(stage, "folder", "no study needs it", stage.size)
    frees = stage.size - sum(size_of(stage.path / name) for name in LEFT)
    if frees <= 0 or stage.state == "journal":
        return None
    names = sorted(study.study for study in needs if stage.key in study.stages and study.study in given_up)
    return Removal(stage, "all but journals", f"given up: {', '.join(names)}", frees)


def _critics(stage: CachedStage, users: Sequence[StudyNeeds], *, moments: bool) -> Removal | None:
    """The critics of a pretraining that its studies do not need, and moments; None where there are none."""
    if stage.stage != "value-pretraining" or any(stage.key in study.unknown for study in users):
        return None
    critics = tuple(settings for study in users for settings in study.critics.get(stage.key, ()))
    if not critics:  # it is named as a model to start from, by a path that leads to no critic of it
        return None
    unwanted, states = superfluous(stage.path, critics)
    last = last_moments(stage.path) if moments and stage.state == "done" else None
    states += [] if last is None else [last]
    half_gone = list(stage.path.glob(HALF_GONE))
    if not unwanted and not states and not half_gone:
        return None
    frees = sum(map(size_of, [*half_gone, *(critic_folder(stage.path, step) for step in unwanted)]))
    frees += sum(size_of(path) for step in states for path in critic_folder(stage.path, step).glob("state*"))
    what = f"{len(unwanted)} that no study needs, and the moments of {len(states)} that stay"
    return Removal(stage, "critics", what, frees, critics, last is not None)


def _remove(removal: Removal) -> None:
    path = removal.of.path
    if removal.kind == "critics":
        replace_requests(path, removal.critics)
        thin(path)
        if removal.moments:
            remove_last_moments(path)
    elif removal.kind == "folder":
        remove_folder(path)
    else:
        (path / DONE).unlink(missing_ok=True)  # the first to go: what is half removed is not complete
        (path / NAME).unlink(missing_ok=True)
        for entry in sorted(path.iterdir()):
            if entry.is_dir():
                remove_folder(entry)
            elif entry.name not in LEFT | {"lock"}:
                entry.unlink()

"""Checkpoints of value pretraining: which of them settings ask for, from its journal, and whether it is there.

One folder serves many step counts, so that it may be complete for some settings and not for others. Every run that
wants a critic of it writes so into `requests/`; `thin` leaves the critics that were requested, and of the last one also
the optimiser's moments, so that a later run can go on from there.
"""

import math
import os
import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vcppo.maths.settling import Measurement, Settled, best_of, settled
from vcppo.settings.critic import PretrainSettings
from vcppo.settings.digests import digest
from vcppo.store.journal import read_journal
from vcppo.store.manifest import ManifestError, forget_files, read_manifest
from vcppo.system.files import read_json, remove_folder, write_json

REQUESTED = ("steps", "max_steps", "patience", "min_delta", "checkpoints")  # settings that say which critic is wanted
REQUESTS = "requests"  # a folder that runs write to without the lock
HALF_GONE = ".critic-*.removed"  # critics whose removal was killed
STATE, MARK = "state.pt", "saved"  # with the optimiser's moments; in its place once those have gone


def measurements_in(journal: Path) -> list[Measurement]:
    """Return a journal's measurements on held-out responses, by step; a null is as bad as can be."""
    records = [r for r in read_journal(journal) if r["kind"] == "metrics" and "pretrain/held_out_loss" in r["values"]]
    return [
        Measurement(
            record["step"],
            _or(record["values"]["pretrain/held_out_loss"], math.inf),
            _or(record["values"]["pretrain/explained_variance"], -math.inf),  # null: the returns were all equal
            _or(record["values"].get("pretrain/constant_loss"), math.nan),
        )
        for record in records
    ]


def end_of(measurements: list[Measurement], settings: PretrainSettings) -> Settled | None:
    """Return the end of a pretraining and the critic that settings take of it; None while `converge` is undecided.

    A number of steps takes the critic after so many, `converge` the best one until the run had settled, or until
    `max_steps`.
    """
    if settings.steps != "converge":
        return Settled(settings.steps, settings.steps)
    within = [m for m in measurements if m.step <= settings.max_steps]
    found = settled(within, patience=settings.patience, min_delta=settings.min_delta)
    if found is None and within and within[-1].step == settings.max_steps:
        return Settled(settings.max_steps, best_of(within))
    return found


def chosen_step(folder: Path, settings: PretrainSettings) -> int | None:
    """Updates of the critic that RL starts from, None while `converge` is undecided; it may have trained further."""
    end = end_of(measurements_in(folder / "journal.jsonl"), settings)
    return None if end is None else end.best


def critic_folder(folder: Path, step: int) -> Path:
    """Folder of the critic after `step` updates."""
    return folder / f"critic-{step:06d}"


def pretraining_is_done(folder: Path, settings: PretrainSettings) -> bool:
    """True if the checkpoint that these settings request is in the folder."""
    step = chosen_step(folder, settings)
    return step is not None and critic_is_saved(folder, step)


def critic_is_saved(folder: Path, step: int) -> bool:
    """True if the critic after `step` updates is in the folder, whole."""
    critic = critic_folder(folder, step)
    return (critic / STATE).exists() or (critic / MARK).exists()  # the last file to be written


def saved_steps(folder: Path) -> list[int]:
    """Updates of the critics that lie there, rising."""
    steps = (step_of(critic) for critic in folder.glob("critic-*"))
    return sorted(step for step in steps if critic_is_saved(folder, step))


def saved_states(folder: Path) -> list[Path]:
    """The states that training can go on from, by rising number of updates."""
    return sorted(folder.glob(f"critic-*/{STATE}"))


def step_of(critic: Path) -> int:
    """Updates of the critic in a folder of `critic_folder`."""
    return int(critic.name.removeprefix("critic-"))


def add_request(folder: Path, settings: PretrainSettings) -> None:
    """Note that a run wants the critic that these settings take, before it is computed or after.

    Critics of an earlier version, which noted no requests, all count as requested. In a folder that cannot be written
    to nothing is noted, for nothing is removed there either.
    """
    requests = folder / REQUESTS
    if any(path.exists() and not os.access(path, os.W_OK) for path in (folder, requests)):
        return
    earlier = [] if requests.exists() else saved_steps(folder)
    for step in earlier:
        _write_request(requests, settings.model_copy(update={"steps": step}))
    _write_request(requests, settings)


def requests_in(folder: Path) -> list[PretrainSettings]:
    """Settings of the runs that want a critic of this folder, as far as they say which one.

    A request that cannot be read is none: what it wanted is trained again if it is wanted still.
    """
    requests = []
    for path in sorted((folder / REQUESTS).glob("*.json")):
        try:
            requests.append(PretrainSettings.model_validate_json(path.read_bytes()))
        except (OSError, ValueError):
            continue
    return requests


def requested_steps(folder: Path, requests: Sequence[PretrainSettings]) -> set[int]:
    """Updates of the critics that these settings take; while `converge` is undecided, of the best one so far."""
    measurements = measurements_in(folder / "journal.jsonl")
    steps: set[int] = set()
    for settings in requests:
        end = end_of(measurements, settings)
        within = [m for m in measurements if m.step <= settings.max_steps]
        if end is not None:
            steps.add(end.best)
        elif within:
            steps.add(best_of(within))
        if settings.checkpoints == "measured":
            steps |= set(saved_steps(folder))
    return steps


def superfluous(
    folder: Path, requests: Sequence[PretrainSettings], *, training: Collection[int] = ()
) -> tuple[list[int], list[int]]:
    """Return updates of the critics that none of these requests takes, and of further ones whose moments can go.

    Args:
        training: updates of critics that stay whole, for training goes on from them; so does the last one.
    """
    steps, with_moments = saved_steps(folder), {step_of(state.parent) for state in saved_states(folder)}
    end = end_without_moments(folder)
    last = max([*with_moments, *([] if end is None else [end.updates])], default=0)
    whole = {*training, last}
    wanted = whole | requested_steps(folder, requests)
    return [s for s in steps if s not in wanted], [s for s in steps if s in wanted & with_moments - whole]


def thin(folder: Path, *, training: Collection[int] = ()) -> None:
    """Remove the critics that no run has requested, and all moments but those of the last critic, or of `training`."""
    for rest in folder.glob(HALF_GONE):
        shutil.rmtree(rest, ignore_errors=True)
    unwanted, moments = superfluous(folder, requests_in(folder), training=training)
    _take_off_manifest(folder, unwanted, moments)
    for step in unwanted:
        remove_folder(critic_folder(folder, step))
    for step in moments:
        _remove_moments(critic_folder(folder, step))
    for step in saved_steps(folder):
        if not (critic_folder(folder, step) / STATE).exists():
            _remove_shards(critic_folder(folder, step))


@dataclass(frozen=True)
class TrainingEnd:
    """The end of a pretraining whose moments were removed."""

    updates: int
    records: int  # of the journal


def end_without_moments(folder: Path) -> TrainingEnd | None:
    """Return the end of a pretraining whose last moments were removed; None for any other folder."""
    ends = []
    for mark in folder.glob(f"critic-*/{MARK}"):
        content = read_json(mark)
        if "records" in content:
            ends.append(TrainingEnd(content["updates"], content["records"]))
    return max(ends, key=lambda end: end.updates, default=None)


def last_moments(folder: Path) -> int | None:
    """Updates of the last critic, if its moments lie there and nothing was logged since; None otherwise."""
    states, records = saved_states(folder), read_journal(folder / "journal.jsonl")
    if not states or not records or records[-1]["step"] != step_of(states[-1].parent):
        return None
    return step_of(states[-1].parent)


def remove_last_moments(folder: Path) -> None:
    """Remove the moments of the last critic too: a larger number of updates is then trained from the start.

    The journal stays, and what it has logged is not logged again.
    """
    last = last_moments(folder)
    if last is not None:
        _take_off_manifest(folder, [], [last])
        _remove_moments(critic_folder(folder, last), records=len(read_journal(folder / "journal.jsonl")))


def replace_requests(folder: Path, requests: Sequence[PretrainSettings]) -> None:
    """Let these be the only requests of a folder."""
    for settings in requests:
        _write_request(folder / REQUESTS, settings)
    names = {_request_name(settings) for settings in requests}
    for path in (folder / REQUESTS).glob("*.json"):
        if path.name not in names:
            path.unlink()


def _take_off_manifest(folder: Path, critics: Collection[int], moments: Collection[int]) -> None:
    """Take files off the manifest that are about to be removed; one that cannot be read is renewed by who notices."""
    try:
        recorded = read_manifest(folder)
    except ManifestError:
        return
    gone = {critic_folder(folder, step).name for step in critics}
    thinned = {critic_folder(folder, step).name for step in moments}

    def goes(path: str) -> bool:
        critic, _, rest = path.partition("/")
        return critic in gone or (critic in thinned and rest.startswith(("state.", "state-")))

    if names := [path for path in recorded if goes(path)]:
        forget_files(folder, names)


def _remove_moments(critic: Path, records: int | None = None) -> None:
    """Mark the critic before its state goes, for it has one or the other; `records`: of the journal, of the last."""
    if records is not None or not (critic / MARK).exists():
        end = {} if records is None else {"records": records}
        write_json(critic / MARK, {"updates": step_of(critic), **end})
    (critic / STATE).unlink(missing_ok=True)
    _remove_shards(critic)


def _remove_shards(critic: Path) -> None:
    for shards in critic.glob("state-*.shards"):
        shutil.rmtree(shards)


def _write_request(requests: Path, settings: PretrainSettings) -> None:
    """One file a request, named after it: runs write beside each other without waiting."""
    path = requests / _request_name(settings)
    if not path.exists():
        write_json(path, _request(settings))


def _request_name(settings: PretrainSettings) -> str:
    return f"{digest(_request(settings))}.json"


def _request(settings: PretrainSettings) -> dict[str, Any]:
    return settings.model_dump(mode="json", include=set(REQUESTED))


def _or(number: float | None, otherwise: float) -> float:
    return otherwise if number is None else number

"""Room on disk for a study or a run, looked at before it starts: a full disk is foreseen, not met. And in memory."""

from collections.abc import Iterable
from pathlib import Path

from vcppo.errors import CheckpointError, ConfigError, StudyError
from vcppo.planning.disk_estimate import Known, StageDisk, StudyDisk, estimate_disk, together
from vcppo.planning.memory_estimate import GIB
from vcppo.planning.plan import memory_without_gpu
from vcppo.settings.run import RunSettings
from vcppo.studies.cells import Cell
from vcppo.system.disk import describe_bytes, free_bytes

SURE = 0.85  # share of the estimate that a study takes at least


def disk_of(cells: Iterable[Cell], out: Path, workers: int) -> StudyDisk | None:
    """Return what is still to be written by the cells of a study, None where a model's shapes are not known before."""
    known: Known = {}
    try:
        return together([estimate_disk(cell.settings, out, known, cell.keys) for cell in cells], workers)
    except (ConfigError, CheckpointError):
        return None


def stages_on_disk(settings: RunSettings, out: Path, until: str | None = None) -> list[StageDisk] | None:
    """Return what each stage of a run takes, up to one of them if it is among them.

    None where a model's shapes are not known before it is loaded.
    """
    try:
        disks = estimate_disk(settings, out)
    except (ConfigError, CheckpointError):
        return None
    names = [disk.stage for disk in disks]
    return disks[: names.index(until) + 1] if until in names else disks


def memory_words(runs: Iterable[RunSettings]) -> str:
    """Say what a process without a GPU takes of main memory in the largest of these runs."""
    try:
        most = max(map(memory_without_gpu, runs))
    except (ConfigError, CheckpointError) as error:
        return f"memory without a GPU unknown ({error})"
    return f"without a GPU up to {most / GIB:.1f} GiB of memory a worker"


def notes_on_room(disk: StudyDisk | None, out: Path) -> list[str]:
    """Return a note where the disk may run full, none where there is room or nothing is known.

    Raises:
        StudyError: what stays in the end will not fit.
    """
    if disk is None:
        return []
    free = free_bytes(out)
    remedy = "`vcppo cache gc` shows what can go; or give another --out"
    if SURE * disk.stays > free:
        raise StudyError(
            f"{out}: {describe_bytes(free)} are free, and this leaves about {describe_bytes(disk.stays)} there; "
            f"expected room for it. {remedy}"
        )
    if disk.fullest > free:
        return [
            f"{out}: {describe_bytes(free)} are free, and this may take {describe_bytes(disk.fullest)} while it "
            f"runs, {describe_bytes(disk.stays)} in the end. {remedy}"
        ]
    return []


def disk_words(disk: StudyDisk | None, out: Path) -> str:
    """Say what it takes of the disk, and what is free."""
    if disk is None:
        return "disk unknown, as the shapes of its model are"
    return (
        f"on disk {describe_bytes(disk.stays)} in the end, {describe_bytes(disk.fullest)} at most, of "
        f"{describe_bytes(free_bytes(out))} free"
    )

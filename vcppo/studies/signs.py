"""Signs of life of a running cell: the files that it writes as it goes on, and what to say when it writes none."""

from collections.abc import Iterable
from pathlib import Path

from vcppo.settings.fixed import SILENT_CELL_S
from vcppo.store.cell_folders import CellFolder, CellRecord, StageRecord
from vcppo.store.stage_lock import holder_of_stage
from vcppo.system.terminal import duration


def stages_in_view(record: CellRecord) -> tuple[StageRecord, ...]:
    """Return the stages that a cell has reached, last the one that it waits for while another process computes it."""
    if record.waits is None:
        return record.stages
    others = [known for known in record.stages if known.stage != record.waits.stage]
    return (*others, StageRecord(stage=record.waits.stage, address=record.waits.address, ran=False))


def signs_of(cell: CellFolder, out: Path, record: CellRecord) -> dict[Path, tuple[int, int]]:
    """Return the files and folders that change while a cell goes on, each with its time in ns and its size."""
    places = [cell.path / "cell.json"]
    for stage in stages_in_view(record):
        folder = out / "cache" / stage.stage / stage.address
        # a folder changes with each file that is renamed into it; verl writes below one of its own
        places += [folder, folder / "journal.jsonl", folder / "progress.json", *folder.glob("verl/*.log")]
    return dict(_statuses(places))


def _statuses(places: Iterable[Path]) -> Iterable[tuple[Path, tuple[int, int]]]:
    for place in places:
        try:
            status = place.stat()
        except OSError:  # it is not there yet, or not any more
            continue
        yield place, (status.st_mtime_ns, status.st_size)


def silence_words(record: CellRecord, out: Path, silent_s: float, log: Path | None = None) -> str:
    """Say that a running cell, or what it waits for, has written nothing for so long, and what can be done.

    Args:
        log: of the worker that runs it.
    """
    stages = stages_in_view(record)
    stage = stages[-1] if stages else None
    holder = None if stage is None else holder_of_stage(out / "cache" / stage.stage / stage.address)
    where = "before its first stage" if stage is None else f"in {stage.stage}"
    see = "" if log is None else f"; see {log}"
    kill = "" if holder is None else f"kill -9 {holder.process} on {holder.host}, after which it is run again, or "
    return (
        f"no sign of life for {duration(silent_s)}, {where}{see}. A large model that is loaded, compiled or saved, or "
        f"long responses that are generated at once, may take that long. If it hangs: {kill}stop the command and give "
        "it again; both go on from the last checkpoint"
    )


class Silence:
    """How long a cell has given no sign of life, by changes that are seen and not by the times of another clock."""

    def __init__(self, now: float) -> None:
        self._since, self._signs = now, dict[Path, tuple[int, int]]()
        self._told, self._worth_telling = False, SILENT_CELL_S

    def seconds(self, signs: dict[Path, tuple[int, int]], now: float) -> float:
        """Return for how long it has been silent, given its signs as they are now."""
        if signs != self._signs:
            self._signs, self._since, self._told = signs, now, False
        return now - self._since

    def is_news(self, seconds: float) -> bool:
        """Return whether the user should be told, which is once in each silence; the next has to be twice as long."""
        if self._told or seconds < self._worth_telling:
            return False
        self._told, self._worth_telling = True, 2 * self._worth_telling
        return True

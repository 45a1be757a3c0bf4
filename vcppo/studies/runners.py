"""Runners of a study's cells: our own pipeline, or verl. What differs between the two is all here.

`vcppo --help` lists them, so what they need is imported when they are used.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from vcppo.errors import ConfigError
from vcppo.studies.verl.runner import VerlRunner

if TYPE_CHECKING:
    from vcppo.settings.run import RunSettings
    from vcppo.studies.cells import Cell
    from vcppo.studies.study import Study
    from vcppo.studies.work_left import PlannedStage

MOST_PLANNED = 200  # cells of whose stages the time left is made: planning one takes 20 ms, before anything starts
MINUTES_A_WORKER_STARTS = 0.2  # importing torch and transformers


class CellRunner(Protocol):
    """Runs the cells of a study, each in a worker process."""

    def check(self, study: "Study", seeds: Sequence[int]) -> None:
        """Refuse what it cannot run, before anything is written.

        Raises:
            ConfigError: a cell needs what it cannot do, or an option does not apply to it.
        """
        ...

    def default_workers(self) -> int:
        """Return the number of workers where none is given."""
        ...

    def plan(self, study: "Study", seeds: Sequence[int], workers: int, out: Path) -> Iterator[str]:
        """Yield the lines of a dry run: the cells, and what they take."""
        ...

    def planned(self, study: "Study", seeds: Sequence[int], out: Path) -> Mapping[str, Sequence["PlannedStage"]]:
        """Return by cell the stages that it runs, with the minutes that they take; empty where that is not known."""
        ...

    def notes(self, study: "Study", seeds: Sequence[int], workers: int, out: Path) -> list[str]:
        """Return notes before a study starts: on a disk that may run full, on settings that it does not pass on.

        Raises:
            StudyError: the results will not fit.
        """
        ...

    def entry_point(self, study: "Study", seeds: Sequence[int], out: Path, *, fresh: bool) -> str:
        """Return the `module:function` that workers call with (cell folder, out); write what it reads beside the cell.

        Raises:
            ConfigError: it is not installed here.
            StudyError: cells of the study were run otherwise before.
        """
        ...

    def addresses(self, settings: "RunSettings") -> Mapping[str, str]:
        """Return the addresses of the stages that it runs for these settings, in their order, by their names."""
        ...


class PipelineRunner:
    """This library's stages, in the worker itself or in `processes` that it starts for each cell."""

    def __init__(self, *, processes: int | None, verl_settings: Sequence[str]) -> None:
        self.processes, self.verl_settings = processes, verl_settings

    def check(self, study: "Study", seeds: Sequence[int]) -> None:
        """See CellRunner."""
        if self.verl_settings:
            raise ConfigError(f"--verl {self.verl_settings[0]}: it would be ignored, expected --runner verl beside it")
        if study.search is not None:
            for cell in study.representative_cells(seeds):
                _check_objective(study.name, study.objective, cell.settings.evaluation.samples)

    def default_workers(self) -> int:
        """Return one worker per group of cores that its processes take."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return max(cores // (self.processes or 1), 1)

    def plan(self, study: "Study", seeds: Sequence[int], workers: int, out: Path) -> Iterator[str]:
        """Yield the cells of a study and what they will cost together, each shared stage counted once."""
        from vcppo.planning.speeds import Machine
        from vcppo.planning.time_estimate import StageCost, basis, estimate_costs, time_words
        from vcppo.studies.room import disk_of, disk_words, memory_words

        yield f"{study.name}: {study.title}\n{study.why.strip()}\n"
        if study.search is not None:
            each = f"{len(seeds)} seeds each"
            if study.bases is not None:
                each = f"{len(study.base_list())} bases with {each}"
            yield f"a search of {study.search.trials} trials, {each}, over {', '.join(study.space())}"
            return
        by_address: dict[str, StageCost] = {}
        machine = Machine.here()
        cells = study.cells(seeds)
        for cell in cells:
            swept = "  ".join(f"{name}={value}" for name, value in cell.swept.items())
            yield f"{cell.name:32} {swept}"
            for cost in estimate_costs(cell.settings, out, machine=machine):
                by_address[f"{cost.stage}/{cost.address}"] = cost
        total = sum(cost.minutes for cost in by_address.values())
        tokens = sum(cost.generated_tokens for cost in by_address.values())
        yield (
            f"\n{len(cells)} cells, {len(by_address)} stages, {sum(c.cached for c in by_address.values())} of them "
            f"cached; at most {tokens / 1e6:.1f} M generated tokens, "
            f"{time_words(total / workers + MINUTES_A_WORKER_STARTS)} with {workers} workers; "
            f"{memory_words(_one_of_each(cells))}; {disk_words(disk_of(cells, out, workers), out)}"
        )
        yield from sorted({basis(cell.settings) for cell in cells})

    def planned(self, study: "Study", seeds: Sequence[int], out: Path) -> Mapping[str, Sequence["PlannedStage"]]:
        """See CellRunner; the proportions of one machine are near enough those of another."""
        from vcppo.planning.speeds import Machine
        from vcppo.planning.time_estimate import estimate_costs
        from vcppo.studies.work_left import PlannedStage

        if study.search is not None or len(cells := study.cells(seeds)) > MOST_PLANNED:
            return {}
        machine = Machine(1e11, 1e10)
        return {
            cell.name: [
                PlannedStage(cost.stage, cost.address, cost.minutes)
                for cost in estimate_costs(cell.settings, out, machine=machine)
            ]
            for cell in cells
        }

    def notes(self, study: "Study", seeds: Sequence[int], workers: int, out: Path) -> list[str]:
        """See CellRunner; a search's cells are not known before."""
        from vcppo.studies.room import disk_of, notes_on_room

        return [] if study.search is not None else notes_on_room(disk_of(study.cells(seeds), out, workers), out)

    def entry_point(self, study: "Study", seeds: Sequence[int], out: Path, *, fresh: bool) -> str:
        """See CellRunner."""
        from vcppo.store.requested_critics import request_critics
        from vcppo.studies.launch import RUNNER
        from vcppo.studies.worker import PIPELINE

        if study.search is None:
            request_critics(out, ((cell.settings, cell.keys) for cell in study.cells(seeds)))
        return PIPELINE if self.processes is None else RUNNER

    def addresses(self, settings: "RunSettings") -> Mapping[str, str]:
        """See CellRunner."""
        from vcppo.store.cache import keys_of

        return keys_of(settings)


def _one_of_each(cells: "Iterable[Cell]") -> list["RunSettings"]:
    """Settings of one cell of each arm: others take as much memory."""
    return list({cell.arm: cell.settings for cell in cells}.values())


def _check_objective(study: str, objective: str, k: int) -> None:
    """Raise ConfigError where a whole run has no result of that name: each would be computed and scored by nothing."""
    from vcppo.store.summary import NAMES

    of_evaluation = rf"eval/.+/(avg_at_{k}|pass_at_{k}|length_tokens|credit)"
    if objective not in NAMES and not re.fullmatch(of_evaluation, objective):
        raise ConfigError(
            f"study {study}, [search] objective = {objective}: no run has such a result; expected one of "
            f"{', '.join(NAMES)}, or of the evaluation: eval/TASK/avg_at_{k}, pass_at_{k}, length_tokens, credit"
        )


class MakeRunner(Protocol):
    """Makes a runner from the command line's options for all of them."""

    def __call__(self, *, processes: int | None, verl_settings: Sequence[str]) -> CellRunner:
        """Return the runner."""
        ...


RUNNERS: dict[str, MakeRunner] = {"vcppo": PipelineRunner, "verl": VerlRunner}

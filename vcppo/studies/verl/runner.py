"""verl as a runner of a study's cells, as `vcppo sweep --runner verl` has it; see `studies.runners.CellRunner`."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vcppo.errors import ConfigError

if TYPE_CHECKING:
    from vcppo.settings.run import RunSettings
    from vcppo.studies.study import Study
    from vcppo.studies.work_left import PlannedStage


class VerlRunner:
    """Runs of verl, which starts its processes on the GPUs of the machine or of a cluster."""

    def __init__(self, *, processes: int | None, verl_settings: Sequence[str]) -> None:
        self.processes, self.verl_settings = processes, verl_settings

    def check(self, study: "Study", seeds: Sequence[int]) -> None:
        """See CellRunner."""
        from vcppo.studies.verl.launching import check_study

        check_study(study, seeds, self.verl_settings)
        if self.processes is not None:
            raise ConfigError("--processes with --runner verl: verl starts its own, see docs/verl.md")

    def default_workers(self) -> int:
        """Return one: verl has the machine to itself."""
        return 1

    def plan(self, study: "Study", seeds: Sequence[int], workers: int, out: Path) -> Iterator[str]:
        """Yield the cells of a study on verl, and the overrides of each run of verl."""
        from vcppo.studies.verl.cells import runs_of
        from vcppo.studies.verl.launching import command_line

        yield f"{study.name}: {study.title}\n{study.why.strip()}\n"
        for cell in study.representative_cells(seeds):
            yield f"{cell.name:32} {'  '.join(f'{name}={value}' for name, value in cell.swept.items())}"
            for run in runs_of(cell.settings, list(self.verl_settings)):
                words = " ".join([*command_line(run.overrides), *run.words])
                yield f"  {run.stage} ({run.address.key}): {words}"
        for note in self.notes(study, seeds, workers, out):
            yield f"\n{note}"

    def planned(self, study: "Study", seeds: Sequence[int], out: Path) -> Mapping[str, Sequence["PlannedStage"]]:
        """See CellRunner: how fast verl is here is not known."""
        return {}

    def notes(self, study: "Study", seeds: Sequence[int], workers: int, out: Path) -> list[str]:
        """See CellRunner: verl's settings say where and how much it writes."""
        from vcppo.studies.verl.launching import silent_settings

        silent = silent_settings(study.representative_cells(seeds))
        return [f"verl does not hear of {', '.join(silent)}; docs/verl.md says what to give instead"] if silent else []

    def entry_point(self, study: "Study", seeds: Sequence[int], out: Path, *, fresh: bool) -> str:
        """See CellRunner."""
        from vcppo.studies.verl.launching import prepare_study

        return prepare_study(study, seeds, self.verl_settings, out, fresh=fresh)

    def addresses(self, settings: "RunSettings") -> Mapping[str, str]:
        """See CellRunner."""
        from vcppo.studies.verl.cells import runs_of

        return {run.stage: run.address.key for run in runs_of(settings, list(self.verl_settings))}

"""A cell of a study run by verl: value pretraining, the critic merged, then PPO, each once for its address.

verl runs in a separate process. Its metrics enter the stage's journal under our names while it runs, so MLflow, the
progress display, pruning and export see a run like any other.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from vcppo.errors import TrainingError
from vcppo.settings.run import RunSettings
from vcppo.store.cache import Address, StageFolder
from vcppo.store.cell_folders import CellFolder
from vcppo.store.journal import Journal, JournalTail, read_journal
from vcppo.studies.verl import PLUGIN, VERL
from vcppo.studies.verl.launching import DEFAULTS, command_line, parse_words, read_words
from vcppo.studies.verl.metrics import step_in_verl, translated
from vcppo.studies.verl.overrides import Overrides, pretraining_overrides, rl_overrides
from vcppo.studies.verl.records import cut_after
from vcppo.system.files import read_json, write_json
from vcppo.system.redaction import redacted

POLL_S = 1.0
LAST_LINES, LONGEST_ERROR = 3, 400


@dataclass(frozen=True)
class VerlRun:
    """One run of verl for a stage: overrides from our settings, and the study's further KEY=VALUE words."""

    stage: str
    overrides: Overrides
    words: tuple[str, ...]
    parents: Mapping[str, str]

    @property
    def address(self) -> Address:
        """Address of the run, by all of verl's configuration but where it writes."""
        content = {"engine": "verl", "version": VERL, "overrides": self.overrides, "words": list(self.words)}
        return Address(self.stage, content, dict(self.parents))


def runs_of(settings: RunSettings, words: list[str]) -> list[VerlRun]:
    """Return the runs of verl that a cell takes, in their order."""
    given = parse_words(words)
    house = {name: value for name, value in DEFAULTS.items() if name not in given}
    runs: list[VerlRun] = []
    if settings.pretrains:
        runs.append(VerlRun("value-pretraining", house | pretraining_overrides(settings), tuple(words), {}))
    parents = {run.stage: run.address.key for run in runs}
    if runs:  # the critic is the pretrained one, not the one that pretraining starts from
        words = [word for word in words if word.partition("=")[0].lstrip("+") != "critic.model.path"]
    overrides = house | rl_overrides(settings)
    if runs:
        overrides.pop("critic.model.path", None)
    runs.append(VerlRun("rl", overrides, tuple(words), parents))
    return runs


def run_cell(cell: Path, out: Path) -> dict[str, float]:
    """Run the settings in a cell's folder on verl.

    Returns:
        The results of an RL stage, and the last evaluation under its metrics' names.
    Raises:
        TrainingError: verl ended badly; the message has its exit code, the end of its log, and where the rest is.
    """
    from vcppo.stages.pipeline import rl_result

    folder = CellFolder(cell)
    settings, record = folder.settings(), folder.read()
    critic: Path | None = None
    result: dict[str, float] = {}
    runs = runs_of(settings, read_words(cell.parent.parent))
    write_json(cell / "verl.json", {run.stage: [*command_line(run.overrides), *run.words] for run in runs})
    for run in runs:
        stage = StageFolder(out, run.address)
        with stage.lock(f"{record.study}/{record.cell}", partial(folder.add_wait, run.stage, run.address.key)):
            before = stage.result
            folder.add_stage(run.stage, run.address.key, ran=before is None)
            if before is None:
                stage.describe()
                began = time.perf_counter()
                before = _perform(run, stage, cell.name, critic, result)
                stage.finish(before, time.perf_counter() - began)
        if run.stage == "value-pretraining":
            critic = stage.path / "critic"
        result = before
    return {**rl_result(StageFolder(out, runs[-1].address)), **last_evaluation(stage.path / "journal.jsonl")}


def last_evaluation(journal: Path) -> dict[str, float]:
    """Return the latest finite value of each evaluation metric."""
    latest: dict[str, float] = {}
    for record in read_journal(journal):
        if record["kind"] == "metrics":
            latest |= {k: v for k, v in record["values"].items() if k.startswith("eval/") and v is not None}
    return latest


def _perform(
    run: VerlRun, stage: StageFolder, cell: str, critic: Path | None, earlier: Mapping[str, float]
) -> dict[str, float]:
    place = stage.path / "verl"
    checkpoints = place / "checkpoints"
    private: Overrides = {
        "trainer.project_name": "vcppo",
        "trainer.experiment_name": cell,
        "trainer.default_local_dir": str(checkpoints),
        "trainer.resume_mode": "auto",
        "+algorithm.vcppo.journal": str(place / "vcppo.jsonl"),
    }
    if run.stage == "value-pretraining":
        private["trainer.max_actor_ckpt_to_keep"] = 1  # they are all the same
    if critic is not None:
        private["critic.model.path"] = str(critic)
    VerlProcess(place, stage.path / "journal.jsonl", pretraining=run.stage == "value-pretraining").run(
        [*command_line(run.overrides | private), *run.words]
    )
    if run.stage == "rl":
        return {"pretrain_steps_done": earlier.get("steps", 0.0)}
    outcome = read_json(checkpoints / "pretrained.json")
    _merge(checkpoints / outcome["checkpoint"] / "critic", stage.path / "critic", place / "merge.log")
    return {"steps": float(outcome["updates"]), "settled": float(outcome["settled"])}


def merge_command(shards: Path, target: Path) -> list[str]:
    """Return the command of verl's merger: FSDP shards of a critic to one transformers folder (bfloat16)."""
    where = ["--local_dir", str(shards), "--target_dir", str(target)]
    return [sys.executable, "-m", "verl.model_merger", "merge", "--backend", "fsdp", *where]


def _merge(shards: Path, target: Path, log: Path) -> None:
    with open(log, "wb") as file:
        code = subprocess.call(merge_command(shards, target), stdout=file, stderr=subprocess.STDOUT)
    if code or not (target / "config.json").exists():
        raise TrainingError(f"verl.model_merger of {shards} ended with exit code {code}: {log_tail(log)}; see {log}")


class VerlProcess:
    """verl running in `place`: verl.log, metrics-N.jsonl of the N-th start, vcppo.jsonl of our trainer, checkpoints/.

    verl goes on from its latest checkpoint; records of later steps are cut from the journal first.
    """

    def __init__(self, place: Path, journal: Path, *, pretraining: bool) -> None:
        place.mkdir(parents=True, exist_ok=True)
        self.place, self.pretraining = place, pretraining
        self.log, tables = place / "verl.log", place / "vcppo.jsonl"
        starts = sorted(place.glob("metrics-*.jsonl"))
        self.metrics = place / f"metrics-{len(starts):03d}.jsonl"
        self.metrics.touch()
        done = checkpointed_step(place / "checkpoints")
        cut_after(tables, done)
        journalled = max((step_in_verl(r) for r in read_journal(journal) if r["kind"] == "metrics"), default=-1)
        cut_after(journal, min(done, journalled), step_of=step_in_verl)
        self.journal = Journal(journal)
        self._tables, self._scalars = JournalTail(tables), JournalTail(self.metrics)
        # What verl had logged, and was not yet in the journal when all was killed.
        earlier = JournalTail(starts[-1]).read() if starts else []
        self._record(
            [table for table in self._tables.read() if table["step"] > journalled],
            [line for line in earlier if journalled < line["step"] <= done],
        )

    def run(self, words: list[str]) -> None:
        """Run verl to its end.

        Raises:
            TrainingError: it ended badly, or without having logged a step.
        """
        command = [sys.executable, "-m", "vcppo.studies.verl.launch", "--parent", str(os.getpid()), *words]
        passed = {"VERL_FILE_LOGGER_PATH": str(self.metrics), "VERL_USE_EXTERNAL_MODULES": PLUGIN}
        # A cluster that runs already does not inherit our environment: Ray passes it on.
        command += [f"++ray_kwargs.ray_init.runtime_env.env_vars.{k}='{v}'" for k, v in passed.items()]
        with open(self.log, "ab") as log:
            log.write(f"--- {redacted(' '.join(command))}\n".encode())
            log.flush()
            process = subprocess.Popen(
                command,
                cwd=self.place,
                env={**_environment(), **passed, "HYDRA_FULL_ERROR": "1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )  # in our process group: killing a worker with its group kills verl too
        try:
            while process.poll() is None:
                self.listen()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(POLL_S)
            self.listen()
        finally:
            process.kill()
            process.wait()
        if process.returncode:
            raise TrainingError(f"verl ended with {_ending(process.returncode)}: {log_tail(self.log)}; see {self.log}")
        if not self.journal.count:
            raise TrainingError(f"verl ended well and had logged nothing: {log_tail(self.log)}; see {self.log}")

    def listen(self) -> None:
        """Carry what verl and our trainer have logged since the last call into the journal, step by step.

        The trainer writes its tables of a step before verl logs it. Read in this order, none comes after a later step.
        """
        tables = self._tables.read()
        self._record(tables, self._scalars.read())

    def _record(self, tables: list[dict[str, Any]], lines: list[dict[str, Any]]) -> None:
        entries = [(table["step"], 0, table) for table in tables if table["kind"] == "table"]
        entries += [(int(line["step"]), 1, line) for line in lines]
        for step, kind, entry in sorted(entries, key=lambda item: item[:2]):
            if kind == 0:
                self.journal.table(entry["name"], step - 1, entry["columns"])
                continue
            for at, values in translated(step, entry["data"], pretraining=self.pretraining):
                self.journal.metrics(at, values)


def _environment() -> dict[str, str]:
    """Return ours, less the limits that keep workers out of each other's way: verl has the machine to itself."""
    return {name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY")}


def checkpointed_step(checkpoints: Path) -> int:
    """Return the step of verl's latest checkpoint, 0 if there is none."""
    try:
        return int((checkpoints / "latest_checkpointed_iteration.txt").read_text())
    except (OSError, ValueError):
        return 0


def log_tail(log: Path) -> str:
    """Return the end of a log in one line."""
    lines = [" ".join(line.split()) for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    output = [line for line in lines if line and not line.startswith("---")]
    return " | ".join(output[-LAST_LINES:])[-LONGEST_ERROR:] or "it said nothing"


def _ending(code: int) -> str:
    return f"exit code {code}" if code > 0 else f"signal {-code} ({signal.Signals(-code).name})"

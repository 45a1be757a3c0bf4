"""Two users, one folder: what is another's is refused in one line and left as it is, or shared where they share it."""

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext, redirect_stderr, redirect_stdout
from functools import partial
from itertools import islice
from pathlib import Path

import pytest
from torture import oracle
from torture.faults import Writes, killed
from torture.kinds import Case, Extent, Result
from torture.stage_faults import REFUSED, StageRuns, end_of, in_child, settings

from vcppo.cli.main import main
from vcppo.stages.pipeline import run_stages
from vcppo.store.cell_folders import CellFolder
from vcppo.system.files import write_json
from vcppo.system.fingerprints import sha256_of
from vcppo.system.processes import locked

ANOTHER = 65534  # nobody, and its group
SHARED = 0o002  # a umask
TRAIN = ["train", "--config", "../settings.json"]
COMMANDS = {
    "train": TRAIN,
    "train further": [*TRAIN, "--set", "steps=3"],
    "pretrain-value": ["pretrain-value", *TRAIN[1:]],
    "cache gc": ["cache", "gc", "--yes"],
    "cache ls": ["cache", "ls"],
    "cache verify": ["cache", "verify"],
    "track replay": ["track", "replay"],
    "export": ["export", "train", "--allow-incomplete"],
    "status": ["status", "train"],
}
ENDS = {0, REFUSED, 3, 4, 5}  # exit codes; 1 is a mistake of the program


def two_users(place: Path, extent: Extent) -> Iterator[Case]:
    """Root's folder, complete or killed in the middle, and what the user nobody does there; one case in `every`."""
    if os.geteuid():
        pytest.skip("only root can be two users")
    users = Users(place)
    yield from islice(_cases(users), extent.first - 1, None, extent.every)


def _cases(users: "Users") -> Iterator[Case]:
    for folder in ("complete", "killed"):
        for name, words in COMMANDS.items():
            yield f"{name}, {folder}", partial(users.of_another, folder, words)
        yield f"a cache that is {folder}", partial(users.cache_of_another, folder)
    yield "train while its owner trains", partial(users.of_another, "killed", TRAIN, held=True)
    yield "a folder of their group", users.shared


class Users:
    """Folders of root's, and commands of another user's in them."""

    def __init__(self, place: Path) -> None:
        for folder in (place, place / "home"):
            folder.mkdir(exist_ok=True)
            folder.chmod(0o755)
        os.chown(place / "home", ANOTHER, ANOTHER)
        write_json(place / "settings.json", settings().model_dump(mode="json"))
        self.place, self.runs = place, StageRuns(place)
        self.out, self.log = place / "loading", self.runs.log  # MLflow keeps what it has opened, by its path
        self._do_everything()
        self.out = self.runs.out
        for name, work, code in (("complete", self._train, 0), ("killed", self._begin, -signal.SIGKILL)):
            self.runs.clean()
            if in_child(work, self.log) != code:
                raise RuntimeError(f"the owner's own run failed: {end_of(self.log)}")
            self.out.rename(place / name)

    def _do_everything(self) -> None:
        """Give each command in this process, which then has loaded all of Python that the other user may not read."""
        with open(self.log, "w") as log, redirect_stdout(log), redirect_stderr(log):
            for words in (COMMANDS["train"], *COMMANDS.values()):
                try:
                    self._command(words)
                except SystemExit as end:
                    if end.code not in (None, *ENDS):
                        raise RuntimeError(f"{words[0]} failed: {end_of(self.log)}") from None
            run_stages(settings(), self.out)

    def of_another(self, folder: str, words: list[str], *, held: bool = False) -> Result:
        """Give a command in a folder of root's: it changes nothing, and says why in one line if it is refused."""
        self._copy(folder)
        with self._held() if held else nullcontext():
            before = _listed(self.out)
            code = in_child(lambda: self._as_another(words), self.log)
        if code not in ENDS or self._refused_badly(code) or (held and code != REFUSED):
            return Result(f"ended with {code}: {end_of(self.log)}")
        if (changed := oracle.differing(_listed(self.out), before)) is not None:
            return Result(changed)
        return Result(self.runs.goes_on())

    def cache_of_another(self, folder: str) -> Result:
        """Use a cache of root's: one that is complete is read, one that is not is refused in one line."""
        self._copy(folder)
        before, codes = _listed(self.out), {"complete": 0, "killed": REFUSED}

        def use() -> None:
            self._become_another()
            assert not any(use.ran for use in run_stages(settings(), self.out).values())

        code = in_child(use, self.log)
        if code != codes[folder] or self._refused_badly(code):
            return Result(f"ended with {code}: {end_of(self.log)}")
        return Result(oracle.differing(_listed(self.out), before))

    def shared(self) -> Result:
        """Go on in a folder where both may write, by its group, with what root was killed at."""
        self.runs.clean()
        self.out.mkdir()
        os.chown(self.out, -1, ANOTHER)
        self.out.chmod(0o2775)

        def begin() -> None:
            os.umask(SHARED)
            Writes(self.out, killed, self.runs.count // 2)
            run_stages(settings(), self.out)

        def go_on() -> None:
            os.umask(SHARED)
            self._become_another()
            run_stages(settings(), self.out)

        if (code := in_child(begin, self.log)) != -signal.SIGKILL or (code := in_child(go_on, self.log)):
            return Result(f"ended with {code}: {end_of(self.log)}")
        return Result(self.runs.goes_on())

    def _copy(self, folder: str) -> None:
        self.runs.clean()
        shutil.copytree(self.place / folder, self.out)

    def _held(self) -> AbstractContextManager[object]:
        """Hold the cell, as its owner who is running it."""
        (cell,) = (self.out / "studies" / "train" / "cells").glob("*/cell.json")
        return locked(CellFolder(cell.parent).path)

    def _begin(self) -> None:
        """Train as the owner, and be killed half-way."""
        Writes(self.out / "cache", killed, self.runs.count // 2)
        self._train()

    def _train(self) -> None:
        self._command(TRAIN)

    def _as_another(self, words: list[str]) -> None:
        self._become_another()
        self._command(words)

    def _command(self, words: list[str]) -> None:
        os.chdir(self.place / "home")
        to = ["--to", str(self.out / "results")] if words[0] == "export" else []
        main([*words, *to, "--out", str(self.out)], prog_name="vcppo")

    def _become_another(self) -> None:
        os.environ["HOME"] = os.environ["MPLCONFIGDIR"] = str(self.place / "home")
        os.setgroups([])
        os.setgid(ANOTHER)
        os.setuid(ANOTHER)

    def _refused_badly(self, code: int) -> bool:
        """True if a refusal is not one line, or there is a traceback."""
        said = self.log.read_text()
        refusals = [line for line in said.splitlines() if "Error: " in line]
        return "Traceback" in said or (code == REFUSED and len(refusals) != 1)


def _listed(folder: Path) -> oracle.Image:
    """Return what a folder holds: who may do what with it, and its bytes."""
    found: oracle.Image = {}
    for path in sorted(folder.rglob("*")):
        status = path.stat()
        content = sha256_of(path) if path.is_file() else ""
        found[str(path.relative_to(folder))] = (status.st_mode, status.st_uid, status.st_mtime_ns, content)
    return found

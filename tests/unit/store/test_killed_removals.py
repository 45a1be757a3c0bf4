"""Removals that are killed at any of their steps: what is needed is there, and the next one comes to the same end."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from fake_cache import make_cell, make_stage, run

from vcppo.store.cache import StageFolder, addresses, is_intact
from vcppo.store.cache_contents import LEFT
from vcppo.store.cache_removal import Choice, plan_removals, remove
from vcppo.store.manifest import faults
from vcppo.store.pretrained_critics import add_request, saved_states, thin
from vcppo.system.temporaries import is_temporary

STEPS = ("unlink", "rename", "replace", "rmdir", "link", "mkdir")  # of os, by which files and folders go and come
ONE, TWO, GONE = run(("pretrain.steps", 20)), run(("gae.lambda_actor", 1.0)), run(("base_seed", 7))
GIVING_UP_ONE = Choice(studies=("one",), moments=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two studies that share all before RL, with the critics of an earlier version; and a cold start of none."""
    out = tmp_path_factory.mktemp("whole")
    make_cell(out, "one", ONE)
    make_cell(out, "two", TWO)
    make_stage(out, addresses(GONE)["cold-start"])
    StageFolder(out, addresses(ONE)["value-pretraining"]).journal.metrics(40, {"loss": 0.5})
    return out


class Killed(BaseException):
    """The process ends here."""


@contextmanager
def killed_at(step: int) -> Iterator[list[str]]:
    """Let the calls of `STEPS` up to this one happen, and no further one; yields those that have."""
    done: list[str] = []

    def counted(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def instead(*arguments: Any, **named: Any) -> Any:
            if len(done) >= step:
                raise Killed
            done.append(name)
            return call(*arguments, **named)

        return instead

    with pytest.MonkeyPatch.context() as patch:
        for name in STEPS:
            patch.setattr(os, name, counted(name, getattr(os, name)))
        yield done


def every_kill(whole: Path, tmp_path: Path, work: Callable[[Path], None], check: Callable[[Path], None]) -> int:
    """Kill `work` after each of its steps on a copy, `check` that, finish it, and compare with what was not killed."""
    straight = shutil.copytree(whole, tmp_path / "straight")
    work(straight)
    for step in range(10_000):
        out = shutil.copytree(whole, tmp_path / "killed")
        with killed_at(step) as done, suppress(Killed):
            work(out)
        check(out)
        if len(done) < step:
            return step
        work(out)
        assert listing(out) == listing(straight), f"killed after {done}"
        shutil.rmtree(out)
    raise AssertionError("it does not end")


def listing(out: Path) -> dict[str, bytes]:
    """Every file with its bytes, but for temporaries of this process, which lives; manifests and locks hold times."""
    files = [path for path in (out / "cache").rglob("*") if path.is_file() and not is_temporary(path)]
    return {
        path.relative_to(out).as_posix(): b"" if path.name in ("manifest.json", "lock") else path.read_bytes()
        for path in files
    }


def collect(out: Path) -> None:
    for _, reason in remove(plan_removals(out, GIVING_UP_ONE)):
        assert reason is None


def study_two_is_whole(out: Path) -> None:
    """Study two has all that it had, as it was written; of study one every journal is there."""
    for address in addresses(TWO).values():
        assert is_intact(StageFolder(out, address), TWO), address.stage
        assert faults(StageFolder(out, address).path, digests=True) == []
    for address in addresses(ONE).values():
        assert {path.name for path in StageFolder(out, address).path.iterdir()} >= LEFT


def test_gc_may_be_killed_after_any_of_its_steps(whole: Path, tmp_path: Path) -> None:
    assert every_kill(whole, tmp_path, collect, study_two_is_whole) > 30


def test_thinning_may_be_killed_after_any_of_its_steps(whole: Path, tmp_path: Path) -> None:
    """As it happens while a critic is trained: only 20 and 40 are wanted, and 40 goes on."""
    address = addresses(ONE)["value-pretraining"]

    def thinned(out: Path) -> None:
        thin(StageFolder(out, address).path)

    def can_go_on(out: Path) -> None:
        folder = StageFolder(out, address)
        assert is_intact(folder, ONE)
        assert is_intact(folder, TWO)
        assert saved_states(folder.path)[-1].parent.name == "critic-000040"

    before = shutil.copytree(whole, tmp_path / "before")
    requests = StageFolder(before, address).path / "requests"
    requests.mkdir()
    for settings in (ONE, TWO):
        add_request(requests.parent, settings.pretrain)
    assert every_kill(before, tmp_path, thinned, can_go_on) > 10

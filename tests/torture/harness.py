"""Every stage of a small run, disturbed at each of its writes: the same command must end it as if nothing had been.

    PYTHONPATH=tests python -m torture.harness --every 1        # each write, with each kind of fault
    nox -s torture

The oracle is an undisturbed run: the same journals (times aside), the same results and weights to the bit, no temporary
left, and no traceback. Children are forked, so that torch is imported once.
"""

import argparse
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tiny import tiny
from torture.faults import KINDS, Writes

from vcppo.errors import DiskError
from vcppo.settings.run import RunSettings
from vcppo.stages.pipeline import run_stages
from vcppo.store.journal import read_journal
from vcppo.system.files import read_json
from vcppo.system.fingerprints import sha256_of
from vcppo.system.temporaries import is_temporary

OF_THE_MACHINE = ("time/", "system/", "cost/peak", "cost/elapsed")  # metrics that differ between two runs
REFUSED = 2  # exit code of a child whose disk refused
SETTINGS = (
    "cold_start.steps=2",
    "critic.init=policy",
    "pretrain.steps=2",
    "pretrain.batch=2",
    "pretrain.pool=4",
    "pretrain.held_out=2",
    "pretrain.evaluate_every=1",
    "rollout.prompts=2",
    "rollout.max_tokens=8",
    "policy.minibatches=1",
    "steps=2",
    "record.checkpoint_every=1",
    "evaluation.samples=1",
    "evaluation.every=0",
    "task.held_out=2",
)


@dataclass
class Tally:
    """Of one kind of fault: how many were injected, which were not survived, and what going on took."""

    kind: str
    injected: int = 0
    lost: list[str] = field(default_factory=list)
    seconds: float = 0.0


def settings() -> RunSettings:
    """A run of every stage but the reward model's, in a second."""
    return tiny(*SETTINGS)


def in_child(work: Callable[[], None], log: Path) -> int:
    """Run work in a forked process; return its exit code, negative for a signal. What it says is added to the log."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        with open(log, "ab") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        work()
        code = 0
    except DiskError as error:
        print(f"DiskError: {error}", file=sys.stderr)
        code = REFUSED
    except BaseException:  # noqa: BLE001 -- shown, as the command line would
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def measured(out: Path) -> dict[str, Any]:
    """What a run left, but for what two runs differ in: journals, results, weights."""
    left: dict[str, Any] = {}
    for folder in sorted(out.glob("cache/*/*")):
        name = f"{folder.parent.name}/{folder.name}"
        left[f"{name}/result"] = read_json(folder / "done.json")["result"]
        left[f"{name}/journal"] = [_lasting(record) for record in read_journal(folder / "journal.jsonl")]
        weights = sorted(folder.rglob("*.safetensors"))
        left |= {f"{name}/{file.relative_to(folder)}": sha256_of(file) for file in weights}
    return left


def _lasting(record: dict[str, Any]) -> dict[str, Any]:
    lasting = {key: value for key, value in record.items() if key != "time"}
    if "values" in lasting:
        lasting["values"] = {n: v for n, v in record["values"].items() if not n.startswith(OF_THE_MACHINE)}
    return lasting


def torture(place: Path, kinds: tuple[str, ...], every: int, first: int = 1) -> Iterator[Tally]:
    """Disturb a run at every `every`-th write, once with each kind; yield each kind's tally."""
    chosen, log, whole, counted = settings(), place / "log.txt", place / "whole", place / "count.txt"

    def undisturbed() -> None:
        writes = Writes(whole)
        run_stages(chosen, whole)
        counted.write_text(str(writes.count))

    if in_child(undisturbed, log):
        raise RuntimeError(f"the undisturbed run failed: {log.read_text()}")
    expected, count = measured(whole), int(counted.read_text())
    print(f"{count} writes in an undisturbed run", flush=True)
    for kind in kinds:
        tally = Tally(kind)
        for at in range(first, count + 1, every):
            tally.injected += 1
            fault = _disturbed(chosen, place, kind, at, expected, tally)
            if fault is not None:
                tally.lost.append(f"{kind} at write {at}: {fault}")
                print(tally.lost[-1], flush=True)
        yield tally


def _disturbed(
    chosen: RunSettings, place: Path, kind: str, at: int, expected: dict[str, Any], tally: Tally
) -> str | None:
    """Return what is wrong after a run that was disturbed once and gone on with; None if nothing is."""
    out, log = place / "out", place / "disturbed.txt"
    shutil.rmtree(out, ignore_errors=True)
    log.unlink(missing_ok=True)

    def disturbed() -> None:
        Writes(out, kind, at)
        run_stages(chosen, out)

    def goes_on() -> None:
        run_stages(chosen, out)

    code = in_child(disturbed, log)
    if code not in ((-signal.SIGKILL,) if kind == "kill" else (REFUSED, 0)):
        return f"ended with {code}: {_end_of(log)}"
    began = time.monotonic()
    code = in_child(goes_on, log)
    tally.seconds += time.monotonic() - began
    if code:
        return f"could not be gone on with, {code}: {_end_of(log)}"
    if "Traceback" in log.read_text():
        return f"a traceback: {_end_of(log)}"
    if left := [path.name for path in out.rglob("*") if is_temporary(path)]:
        return f"left {left[0]}"
    differing = [name for name, value in measured(out).items() if expected.get(name) != value]
    return f"{differing[0]} differs" if differing or len(measured(out)) != len(expected) else None


def _end_of(log: Path) -> str:
    return re.sub(r"\s+", " ", log.read_text(errors="replace"))[-400:]


def main() -> int:
    """Torture, and print a table; the exit code is 1 if anything was lost."""
    parser = argparse.ArgumentParser(description="faults at every write of a small run")
    parser.add_argument("--every", type=int, default=1, help="of how many writes one is disturbed [default: each]")
    parser.add_argument("--first", type=int, default=1, help="the first write that is disturbed")
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    arguments = parser.parse_args()
    lost: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for tally in torture(Path(folder), tuple(arguments.kinds), arguments.every, arguments.first):
            lost += tally.lost
            print(
                f"{tally.kind}: {tally.injected} faults, {tally.injected - len(tally.lost)} survived, "
                f"going on took {tally.seconds / max(tally.injected, 1):.1f} s each",
                flush=True,
            )
    return int(bool(lost))


if __name__ == "__main__":
    sys.exit(main())

"""Faults of every kind, and that the same command then ends as if nothing had been.

    PYTHONPATH=tests python -m torture.harness --kinds kill power --every 40
    nox -s torture                                                       # everything
    nox -s torture -- --outcomes torture.jsonl --report torture.md       # goes on where it was stopped

A line is printed for each kind, and one for whatever was not survived, as soon as it is known.
"""

import argparse
import errno
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from torture import call_faults, parent_faults, stage_faults, study_faults, torchrun_faults, user_faults
from torture.faults import BAD_DISK, CLOCK_BACK, CLOCK_ON, NO_SPACE, killed
from torture.kinds import Extent, Kind
from torture.tally import Outcome, Outcomes, counts, line, table

from vcppo.system.processes import terminable

KILLED = (-signal.SIGKILL,)  # exit codes
OF_A_RUN, OF_A_STUDY = (2, 0), (2, 4, 0)  # refused, undelivered, done: a write that nobody needs may fail
KINDS = {
    "kill": Kind("SIGKILL at a write of a run", stage_faults.at_writes(killed, *KILLED)),
    "ENOSPC": Kind("a full disk at a write of a run", stage_faults.at_writes(NO_SPACE, *OF_A_RUN)),
    "EIO": Kind("a disk that refuses a write of a run", stage_faults.at_writes(BAD_DISK, *OF_A_RUN)),
    "call-ENOSPC": Kind("a full disk at a system call of a run", call_faults.at_calls(errno.ENOSPC, *OF_A_RUN)),
    "call-EIO": Kind("a disk that refuses a system call of a run", call_faults.at_calls(errno.EIO, *OF_A_RUN)),
    "EINTR": Kind("a run with a signal every millisecond", stage_faults.signals),
    "power": Kind("a power cut at a write of a run", stage_faults.power_cuts),
    "parent-kill": Kind("SIGKILL at a write of a study's process", parent_faults.at_writes(killed, *KILLED)),
    "parent-ENOSPC": Kind("a full disk at such a write", parent_faults.at_writes(NO_SPACE, *OF_A_STUDY)),
    "parent-EIO": Kind("a disk that refuses such a write", parent_faults.at_writes(BAD_DISK, *OF_A_STUDY)),
    "clock-back": Kind("a clock set back by two hours at a write of a run", stage_faults.at_writes(CLOCK_BACK, 0)),
    "clock-on": Kind("a clock set on by two hours at a write of a run", stage_faults.at_writes(CLOCK_ON, 0)),
    "parent-clock-back": Kind("the same of a study's process", parent_faults.at_writes(CLOCK_BACK, 0)),
    "parent-clock-on": Kind("the same of a study's process", parent_faults.at_writes(CLOCK_ON, 0)),
    "users": Kind("a command in another user's folder", user_faults.two_users),
    **{name: Kind(words, study_faults.rounds(name, one)) for name, (words, one) in study_faults.KINDS.items()},
    "torchrun": Kind("SIGKILL of torchrun, or of one of its two processes", torchrun_faults.kills),
}


def torture(kinds: Sequence[str], extent: Extent, outcomes: Outcomes, place: Path) -> None:
    """Try the cases of these kinds that have no outcome yet."""
    known = outcomes.known()
    for name in kinds:
        try:
            with tempfile.TemporaryDirectory(dir=place, prefix=f"{name}-") as folder:
                for case, run in KINDS[name].cases(Path(folder), extent):
                    if (name, case) in known:
                        continue
                    result = run()
                    outcomes.add(Outcome(name, case, result.faults, result.wrong, result.seconds_lost))
                    if result.wrong is not None:
                        print(f"{name}, {case}: {result.wrong}", flush=True)
            print(line(name, outcomes.of(name)), flush=True)
        except pytest.skip.Exception as reason:
            print(f"{name}: not tried, {reason}", flush=True)


def main() -> int:
    """Torture, and print a table; the exit code is 1 if anything was lost."""
    parser = argparse.ArgumentParser(prog="python -m torture.harness", description="faults of every kind")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS, help="[default: all]")
    parser.add_argument("--every", type=int, default=1, help="of how many writes one is disturbed [default: each]")
    parser.add_argument("--first", type=int, default=1, help="the first write that is disturbed")
    parser.add_argument("--rounds", type=int, default=10, help="of kinds that are drawn at random [default: 10]")
    parser.add_argument("--seed", type=int, default=0, help="of these draws [default: 0]")
    parser.add_argument("--outcomes", type=Path, metavar="FILE", help="keep outcomes here, and go on from them")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write the table here, as Markdown")
    given = parser.parse_args()
    if any(name.startswith("call-") for name in given.kinds):
        call_faults.start_again_with_library("torture.harness", sys.argv[1:])
    outcomes = Outcomes(given.outcomes)
    with terminable(), tempfile.TemporaryDirectory(prefix="torture-") as folder:
        place = Path(folder)
        place.chmod(0o755)  # another user has to come by
        torture(given.kinds, Extent(given.every, given.first, given.rounds, given.seed), outcomes, place)
    report = table({name: kind.words for name, kind in KINDS.items()}, outcomes)
    print(report)
    if given.report is not None:
        given.report.write_text(report, encoding="utf-8")
    faults, survived = counts(outcomes.all)
    return int(survived < faults)


if __name__ == "__main__":
    sys.exit(main())

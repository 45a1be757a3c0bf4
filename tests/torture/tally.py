"""What became of faults: outcomes, a file that holds them, and the table of them."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Outcome:
    """Of one case: what was injected, what is wrong after the same command went on, and the time that it cost."""

    kind: str
    case: str  # write 43; round 2 of seed 0
    faults: int
    wrong: str | None  # None: survived
    seconds_lost: float  # beside a run that nobody disturbed


class Outcomes:
    """Outcomes, each in the file as soon as it is known; those that the file has need not be tried again."""

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        lines = file.read_text().splitlines() if file is not None and file.exists() else []
        self.all = [Outcome(**json.loads(line)) for line in lines]

    def known(self) -> set[tuple[str, str]]:
        return {(outcome.kind, outcome.case) for outcome in self.all}

    def add(self, outcome: Outcome) -> None:
        self.all.append(outcome)
        if self._file is not None:
            with open(self._file, "a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(outcome)) + "\n")

    def of(self, kind: str) -> list[Outcome]:
        return [outcome for outcome in self.all if outcome.kind == kind]


def line(name: str, outcomes: Sequence[Outcome]) -> str:
    """Return one kind's outcomes in words."""
    faults, survived = counts(outcomes)
    return f"{name}: {faults} faults, {survived} survived, {_seconds(outcomes)} s lost each"


def counts(outcomes: Iterable[Outcome]) -> tuple[int, int]:
    """Return how many faults were injected, and how many of them were survived.

    Of a case with several faults that ended wrongly none counts as survived: which of them it was is not known.
    """
    known = list(outcomes)
    return sum(o.faults for o in known), sum(o.faults for o in known if o.wrong is None)


def table(words: Mapping[str, str], outcomes: Outcomes) -> str:
    """Return the Markdown table of docs/reliability.md; `words` says of each kind what is done."""
    rows = ["| fault | tried | survived | seconds lost, each |", "|---|---|---|---|"]
    for kind, what in words.items():
        if found := outcomes.of(kind):
            faults, survived = counts(found)
            rows.append(f"| `{kind}`: {what} | {faults} | {survived} | {_seconds(found)} |")
    faults, survived = counts(outcomes.all)
    return "\n".join([*rows, f"| all | {faults} | {survived} | |", ""])


def _seconds(outcomes: Sequence[Outcome]) -> str:
    """Seconds lost by a fault, in the mean."""
    faults, _ = counts(outcomes)
    return f"{sum(outcome.seconds_lost for outcome in outcomes) / faults:.1f}" if faults else "-"

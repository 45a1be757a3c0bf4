"""Responses made by hand, a letter each."""

from vcppo.store.samples import Sample, SampledProblem
from vcppo.types import Verdict

VERDICTS = {"r": Verdict.CORRECT, "w": Verdict.WRONG, "u": Verdict.UNREADABLE}


def sampled(*problems: str, lengths: dict[str, int] | None = None, notes: str = "") -> list[SampledProblem]:
    """Problems with a letter a response: r right, w wrong, u unreadable; in capitals cut at the limit."""
    tokens = lengths or {"r": 10, "w": 20, "u": 30}

    def sample(letter: str) -> Sample:
        kind = letter.lower()
        note = notes if kind == "u" else ""
        return Sample("text", tokens[kind], -1.0, "length" if letter.isupper() else "stop", VERDICTS[kind], note)

    return [
        SampledProblem(i, f"p{i}", "?", "7", seed=1, first=0, samples=tuple(map(sample, letters)))
        for i, letters in enumerate(problems)
    ]

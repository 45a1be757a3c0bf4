"""Stored responses: a file for each problem of an evaluation, written whole once all are sampled."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from vcppo.errors import CheckpointError, DiskError
from vcppo.system.files import write_json
from vcppo.types import Prompt, Rollout, StopReason, Verdict, credit_of


@dataclass(frozen=True)
class Sample:
    """One response. The k-th of a problem was drawn from stream `first` + k of the problem's seed."""

    text: str  # without special tokens
    tokens: int
    logprob: float  # nats, of the whole response at the sampling temperature, before any nucleus cut
    stop_reason: StopReason
    verdict: Verdict
    note: str  # why it is unreadable
    credit: float | None = None  # see Judgement


@dataclass(frozen=True)
class SampledProblem:
    """A problem with all its responses, and their seed."""

    number: int  # its place among the held-out problems
    problem: str
    prompt: str
    answer: str  # the reference
    seed: int
    first: int  # of the engine's streams under this seed: that of the first response
    samples: tuple[Sample, ...]

    @classmethod
    def of(cls, number: int, seed: int, first: int, rollouts: Sequence[Rollout]) -> "SampledProblem":
        """Build it from the rollouts of one prompt."""
        prompt = rollouts[0].prompt
        return cls(number, prompt.name, prompt.text, prompt.answer, seed, first, tuple(map(_sample, rollouts)))

    def count(self, verdict: Verdict) -> int:
        """Number of responses with this verdict."""
        return sum(sample.verdict is verdict for sample in self.samples)

    @property
    def has_credit(self) -> bool:
        """True if any response has credit of its task."""
        return any(sample.credit is not None for sample in self.samples)

    @property
    def credits(self) -> list[float]:
        """Credit of each response, in [0, 1]."""
        return [credit_of(sample.verdict, sample.credit) for sample in self.samples]

    def as_json(self) -> dict[str, Any]:
        """Return JSON values; credit is named where there is some."""
        tree = dataclasses.asdict(self)
        for sample in tree["samples"]:
            if sample["credit"] is None:
                del sample["credit"]
        return tree


def any_credit(problems: Sequence[SampledProblem]) -> bool:
    """True if any response to any of the problems has credit of its task."""
    return any(problem.has_credit for problem in problems)


_FORMAT = TypeAdapter(SampledProblem)


class SampleFolder:
    """A folder with a JSON file for each problem whose responses are sampled."""

    def __init__(self, path: Path, notice: Callable[[str], None]) -> None:
        """`notice` receives a line for each file that cannot be used."""
        self.path, self.notice = path, notice

    def file(self, number: int) -> Path:
        """Path of a problem's responses."""
        return self.path / f"{number:05d}.json"

    def write(self, problem: SampledProblem) -> None:
        """Store a problem's responses, whole or not at all.

        Raises:
            CheckpointError: the file cannot be written.
        """
        write_whole(self.file(problem.number), problem.as_json())

    def read(self, number: int, prompt: Prompt, samples: int) -> SampledProblem | None:
        """Read a problem's responses; None if it has none yet, or none that are `samples` responses to this prompt."""
        path = self.file(number)
        try:
            stored = _FORMAT.validate_json(path.read_bytes(), strict=True)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be read ({error})") from None
        except ValidationError as error:
            reason = f"not the responses to a problem ({_reason(error)})"
        else:
            if (stored.number, stored.problem, stored.prompt, stored.answer) != (number, *_identity(prompt)):
                reason = f"responses to another problem, {stored.problem!r}"
            elif len(stored.samples) != samples:
                reason = f"{len(stored.samples)} responses, expected {samples}"
            else:
                return stored
        self.notice(f"{path}: {reason}; its responses are sampled again")
        return None


def write_whole(path: Path, value: Any) -> None:
    """Write JSON, whole or not at all.

    Raises:
        DiskError: the disk is full, or refuses.
        CheckpointError: it cannot be written for another reason.
    """
    try:
        write_json(path, value, synced=False)  # one that a power cut spoils is asked again; stages sync theirs at last
    except DiskError:
        raise
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be written ({error})") from None


def _sample(rollout: Rollout) -> Sample:
    generation = rollout.generation
    return Sample(
        text=rollout.text,
        tokens=len(generation.tokens),
        logprob=sum(generation.logprobs),
        stop_reason=generation.stop_reason,
        verdict=rollout.verdict,
        note=rollout.note,
        credit=rollout.credit,
    )


def _identity(prompt: Prompt) -> tuple[str, str, str]:
    return prompt.name, prompt.text, prompt.answer


def _reason(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    return f"{where}: {first['msg']}" if where else str(first["msg"])

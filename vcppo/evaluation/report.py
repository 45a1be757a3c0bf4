"""Report of an evaluation: numbers with intervals from its responses, as JSON and as lines for people."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vcppo.maths.prompt_bootstrap import CONFIDENCE
from vcppo.maths.statistics import Interval, count_intervals, pass_at_k, sample_intervals
from vcppo.store.samples import SampledProblem, any_credit
from vcppo.types import Verdict

SCHEMA = "vcppo-evaluation/1"  # raised when a name in the report changes its meaning, or goes
COMPARISON_SCHEMA = "vcppo-comparison/1"
SEED = 0  # of the resampling
LENGTHS = (
    ("length_tokens", "length (tokens)"),
    ("length_median_tokens", "  median"),
    ("length_p90_tokens", "  90th percentile"),
    ("length_right_tokens", "  of right responses"),
    ("length_wrong_tokens", "  of all others"),
)
CREDIT = (("credit", "mean credit"),)  # in [0, 1], where the task gives partial credit

Table = NDArray[np.float64]


@dataclass(frozen=True)
class Measure:
    """A number with two intervals: for problems like these, and for these problems alone."""

    name: str  # in JSON
    label: str  # for people
    value: float
    over_problems: Interval  # problems and samples drawn anew
    over_samples: Interval  # the same problems, samples drawn anew
    decimals: int = 3

    def as_json(self) -> dict[str, Any]:
        """As JSON, unknown ends null."""
        ends = {"problems_and_samples": self.over_problems, "samples": self.over_samples}
        return {
            "value": _known(self.value),
            **{name: [_known(interval.low), _known(interval.high)] for name, interval in ends.items()},
        }

    def line(self) -> str:
        """Row of the table under `HEADER`."""
        value = "none" if np.isnan(self.value) else f"{self.value:.{self.decimals}f}"
        cells = [self._format(interval) for interval in (self.over_problems, self.over_samples)]
        return f"{self.label:20}{value:>10}   {cells[0]:22}{cells[1]}".rstrip()

    def _format(self, interval: Interval) -> str:
        if np.isnan(interval.low):
            return "unknown"
        return f"[{interval.low:.{self.decimals}f}, {interval.high:.{self.decimals}f}]"


HEADER = f"{'':20}{'value':>10}   {'problems and samples':22}these problems"


def steps_of_k(samples: int) -> list[int]:
    """1, 2, 4, ... and the number of samples itself.

    >>> steps_of_k(12)
    [1, 2, 4, 8, 12]
    """
    return sorted({samples, *(2**i for i in range(samples.bit_length()))})


def measures(problems: Sequence[SampledProblem]) -> list[Measure]:
    """Compute all measures of one checkpoint."""
    samples = len(problems[0].samples)
    share = np.arange(samples + 1) / samples
    scores = {(f"avg_at_{samples}", f"avg@{samples}"): share}
    scores |= {(f"pass_at_{k}", f"pass@{k}"): pass_scores(samples, k) for k in steps_of_k(samples)}
    lengths, right = lengths_of(problems), _flags(problems, Verdict.CORRECT)
    cut = [sum(sample.stop_reason == "length" for sample in problem.samples) for problem in problems]
    credit = [credits_of(problems)] if any_credit(problems) else []
    return [
        *_of_counts(scores, _counts(problems, Verdict.CORRECT)),
        *(_of_samples(CREDIT, credit, _mean, decimals=3) if credit else []),
        *_of_samples(LENGTHS, [lengths, right], _length_statistics),
        *_of_counts({("truncated_rate", "cut at the limit"): share}, cut),
        *_of_counts({("unreadable_rate", "unreadable"): share}, _counts(problems, Verdict.UNREADABLE)),
    ]


def differences(problems: Sequence[SampledProblem], baseline: Sequence[SampledProblem]) -> list[Measure]:
    """Compute the first less the second, paired: both are of the same problems."""
    samples = len(problems[0].samples)
    scores = {(f"avg_at_{samples}", f"avg@{samples}"): np.arange(samples + 1) / samples}
    scores |= {(f"pass_at_{k}", f"pass@{k}"): pass_scores(samples, k) for k in steps_of_k(samples) if k > 1}
    first, second = (_counts(each, Verdict.CORRECT) for each in (problems, baseline))
    lengths = [lengths_of(each) for each in (problems, baseline)]
    credits = [credits_of(each) for each in (problems, baseline)]
    return [
        *_of_counts(scores, first, second),
        *(_of_samples(CREDIT, credits, _mean_difference, decimals=3) if any_credit([*problems, *baseline]) else []),
        *_of_samples(LENGTHS[:1], lengths, _mean_difference),
    ]


def unreadable_reasons(problems: Sequence[SampledProblem]) -> dict[str, int]:
    """Unreadable responses by the verifier's note, most frequent first; `no reason given` stands for an empty one."""
    samples = (sample for problem in problems for sample in problem.samples)
    notes = Counter(sample.note or "no reason given" for sample in samples if sample.verdict is Verdict.UNREADABLE)
    return dict(notes.most_common())


def results(problems: Sequence[SampledProblem], measured: Sequence[Measure]) -> dict[str, Any]:
    """The part of a report that follows from the responses."""
    credit = any_credit(problems)
    return {
        "metrics": {measure.name: measure.as_json() for measure in measured},
        "unreadable_reasons": unreadable_reasons(problems),
        "bootstrap": {"confidence": CONFIDENCE, "seed": SEED},
        "problems": [
            {
                "number": problem.number,
                "problem": problem.problem,
                "answer": problem.answer,
                "samples": len(problem.samples),
                "correct": problem.count(Verdict.CORRECT),
                "unreadable": problem.count(Verdict.UNREADABLE),
                "truncated": sum(sample.stop_reason == "length" for sample in problem.samples),
                "length_tokens": sum(sample.tokens for sample in problem.samples) / len(problem.samples),
                **({"credit": sum(problem.credits) / len(problem.samples)} if credit else {}),
            }
            for problem in problems
        ],
    }


def lines(problems: Sequence[SampledProblem], measured: Sequence[Measure]) -> list[str]:
    """The table for people. pass@1 is avg@n and left out; so are reasons where no response was unreadable."""
    total = len(problems) * len(problems[0].samples)
    rows = [measure.line() for measure in measured if measure.name != "pass_at_1"]
    reasons = [
        f"{'  of these':20}{count / total:10.3f}   {note}" for note, count in unreadable_reasons(problems).items()
    ]
    return [HEADER, *rows, *reasons]


def pass_scores(samples: int, k: int) -> Table:
    """[samples + 1] pass@k of a problem by how many of its samples are right."""
    return pass_at_k(np.arange(samples + 1), samples, k)


def lengths_of(problems: Sequence[SampledProblem]) -> Table:
    """[problems, samples] tokens."""
    return np.array([[sample.tokens for sample in problem.samples] for problem in problems], dtype=np.float64)


def credits_of(problems: Sequence[SampledProblem]) -> Table:
    """[problems, samples] credit, in [0, 1]."""
    return np.array([problem.credits for problem in problems], dtype=np.float64)


def _mean(x: Table) -> Table:
    """[1, resamples]."""
    mean: Table = x.mean(axis=-1)[None]
    return mean


def _mean_difference(x: Table, y: Table) -> Table:
    """[1, resamples]."""
    return _mean(x - y)


def _counts(problems: Sequence[SampledProblem], verdict: Verdict) -> list[int]:
    return [problem.count(verdict) for problem in problems]


def _flags(problems: Sequence[SampledProblem], verdict: Verdict) -> Table:
    rows = [[sample.verdict is verdict for sample in problem.samples] for problem in problems]
    return np.array(rows, dtype=np.float64)


def _length_statistics(lengths: Table, right: Table) -> Table:
    """[5, resamples], in the order of LENGTHS."""
    median, p90 = np.quantile(lengths, [0.5, 0.9], axis=-1)
    return np.stack(
        [lengths.mean(axis=-1), median, p90, _mean_where(lengths, right), _mean_where(lengths, 1.0 - right)]
    )


def _mean_where(x: Table, counts: Table) -> Table:
    """Along the last axis, NaN where nothing counts."""
    total = counts.sum(axis=-1)
    return np.where(total > 0, (x * counts).sum(axis=-1) / np.maximum(total, 1), np.nan)


def _of_counts(
    scores: Mapping[tuple[str, str], Table], counts: Sequence[int], baseline: Sequence[int] | None = None
) -> list[Measure]:
    """A measure for each name and label, of scores by count."""
    table = np.stack(list(scores.values()))
    values = table[:, list(counts)].mean(axis=1)
    if baseline is not None:
        values = values - table[:, list(baseline)].mean(axis=1)
    wide, narrow = (
        count_intervals(
            counts,
            table,
            fixed_problems=fixed,
            rng=np.random.default_rng(SEED),
            baseline=baseline,
            confidence=CONFIDENCE,
        )
        for fixed in (False, True)
    )
    rows = zip(scores, map(float, values), wide, narrow, strict=True)
    return [Measure(*name, value, over_both, over_samples) for name, value, over_both, over_samples in rows]


def _of_samples(
    names: Sequence[tuple[str, str]],
    tables: Sequence[Table],
    statistics: Callable[..., Table],
    *,
    decimals: int = 1,
) -> list[Measure]:
    """A measure for each name and label, of lengths or of credit."""
    values = statistics(*(table.ravel()[None] for table in tables))[:, 0]
    wide, narrow = (
        sample_intervals(
            tables, statistics, fixed_problems=fixed, rng=np.random.default_rng(SEED), confidence=CONFIDENCE
        )
        for fixed in (False, True)
    )
    rows = zip(names, map(float, values), wide, narrow, strict=True)
    return [Measure(*name, value, over_both, over_samples, decimals) for name, value, over_both, over_samples in rows]


def _known(value: float) -> float | None:
    return None if np.isnan(value) else value

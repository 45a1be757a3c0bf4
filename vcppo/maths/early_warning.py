"""Rules by which a run warns that it is going wrong, from what its iterations so far have measured.

Each compares the latest iteration with the run's beginning, the mean of its first `FIRST` iterations:

- `length_falls`, `length_grows`: mean response length has left its band, which is `BAND` of the beginning's length to
  either side, or `ERRORS` standard errors of the difference where that is wider;
- `truncation`: the share of responses cut at the limit is `CUT` above the beginning's, and `ERRORS` standard errors;
- `alignment`: the gradient of these advantages points away from reward. What one batch says is mostly noise, so the
  z of the latest `MEASUREMENTS` are summed over the root of their number: one z again, warned of below -`ALIGNED`.

The last word of a short outburst is not believed: responses must have been too long, or cut, for `LASTING` iterations.
A fall is warned of at once, for a collapse takes ten iterations from its first sign to its end.

The first three count only while no more responses are right than in the beginning (within `GAIN` standard errors): a
policy that learns to think longer, or to be brief, and is right more often, is well. Standard errors of shares are
binomial, those of lengths from their spread over the responses of an iteration.

The numbers were chosen by replaying runs: results and the command in docs/diagnose.md.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

FIRST: Final = 3  # iterations that are the beginning; of a run with fewer, all before the latest
BAND: Final = 0.3  # of the beginning's mean length
CUT: Final = 0.1  # share of all responses
ERRORS: Final = 4.0  # standard errors: a run looks a hundred times
GAIN: Final = 2.0
LASTING: Final = 3  # iterations
MEASUREMENTS: Final = 4
ALIGNED: Final = 2.5  # standard errors: a run is measured a few times


@dataclass(frozen=True)
class Observed:
    """Measurements of one iteration on all responses that it sampled.

    Attributes:
        responses: their number. length: mean tokens of a response. length_spread: standard deviation over responses.
        truncated: share that was cut at the limit. right: share that was right, or mean credit where the task gives it.
        score_z: first-order gain in score of these advantages in standard errors; NaN where it was not measured.
    """

    responses: int
    length: float
    length_spread: float
    truncated: float
    right: float
    score_z: float = math.nan


def length_falls(run: Sequence[Observed]) -> bool:
    """True if responses are shorter than the band allows, and no more of them are right."""
    return len(run) > 1 and _length_change(run) < -1.0 and not _more_are_right(run)


def length_grows(run: Sequence[Observed]) -> bool:
    """True if responses were longer than the band allows for LASTING iterations, and no more of them were right."""
    return _lasts(lambda now: _length_change(now) > 1.0 and not _more_are_right(now), run)


def truncation_rises(run: Sequence[Observed]) -> bool:
    """True if more responses than at first were cut for LASTING iterations, and no more of them were right."""
    return _lasts(lambda now: _more_are_cut(now) and not _more_are_right(now), run)


def alignment_evidence(run: Sequence[Observed]) -> float:
    """z of the latest measurements together, NaN before the first; far below 0 the gradient points away from reward."""
    measured = [one.score_z for one in run if math.isfinite(one.score_z)][-MEASUREMENTS:]
    return math.fsum(measured) / math.sqrt(len(measured)) if measured else math.nan


def points_away(run: Sequence[Observed]) -> bool:
    """True if the gradient points away from reward, by more than ALIGNED standard errors."""
    return alignment_evidence(run) < -ALIGNED


RULES: Final[Mapping[str, Callable[[Sequence[Observed]], bool]]] = {
    "alignment": points_away,
    "length_falls": length_falls,
    "length_grows": length_grows,
    "truncation": truncation_rises,
}


def warnings_of(run: Sequence[Observed]) -> tuple[str, ...]:
    """Names of the rules that the latest iteration breaks.

    >>> healthy = [Observed(96, 50.0, 20.0, 0.0, 0.2)] * 4
    >>> warnings_of(healthy), warnings_of([*healthy, Observed(96, 30.0, 20.0, 0.0, 0.1)])
    ((), ('length_falls',))
    """
    return tuple(name for name, broken in RULES.items() if broken(run))


def first_warning(run: Sequence[Observed]) -> int | None:
    """The first iteration, counted from 0, that broke a rule."""
    return next((step for step in range(len(run)) if warnings_of(run[: step + 1])), None)


def beginning(run: Sequence[Observed]) -> Observed:
    """The first iterations as one, the latest of the run left out; of a run of two or more."""
    first = run[: min(FIRST, len(run) - 1)]
    return Observed(
        responses=sum(one.responses for one in first),
        length=_mean([one.length for one in first]),
        length_spread=_mean([one.length_spread for one in first]),
        truncated=_mean([one.truncated for one in first]),
        right=_mean([one.right for one in first]),
    )


def _length_change(run: Sequence[Observed]) -> float:
    """Change of mean length since the beginning, in half-widths of the band."""
    begin, now = beginning(run), run[-1]
    error = math.hypot(
        begin.length_spread / math.sqrt(begin.responses),
        max(begin.length_spread, now.length_spread) / math.sqrt(now.responses),
    )
    width = max(BAND * begin.length, ERRORS * error)
    return (now.length - begin.length) / width if width > 0 else 0.0


def _lasts(broken: Callable[[Sequence[Observed]], bool], run: Sequence[Observed]) -> bool:
    """True if each of the latest LASTING iterations, with those before it, breaks a rule."""
    return len(run) > LASTING and all(broken(run[: len(run) - ago]) for ago in range(LASTING))


def _more_are_cut(run: Sequence[Observed]) -> bool:
    begin, now = beginning(run), run[-1]
    error = _error_of_shares(begin.truncated, now.truncated, begin.responses, now.responses)
    return now.truncated - begin.truncated > max(CUT, ERRORS * error)


def _more_are_right(run: Sequence[Observed]) -> bool:
    begin, now = beginning(run), run[-1]
    return now.right - begin.right > GAIN * _error_of_shares(begin.right, now.right, begin.responses, now.responses)


def _error_of_shares(a: float, b: float, responses_a: int, responses_b: int) -> float:
    """Standard error of the difference of two shares, as if they were one."""
    share = (a * responses_a + b * responses_b) / (responses_a + responses_b)
    return math.sqrt(max(share * (1.0 - share), 0.0) * (1 / responses_a + 1 / responses_b))


def _mean(numbers: Sequence[float]) -> float:
    return math.fsum(numbers) / len(numbers)

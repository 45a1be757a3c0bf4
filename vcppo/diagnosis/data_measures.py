"""The responses themselves as numbers of the report: scores, lengths, and what goes with what."""

import math

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vcppo.diagnosis.estimates import estimate
from vcppo.diagnosis.responses import Dump, Reading
from vcppo.diagnosis.schema import DataPart, Estimate
from vcppo.errors import DataError
from vcppo.maths.critic_variance import between_prompts
from vcppo.maths.prompt_bootstrap import Array, Index, PromptBootstrap, prompt_bootstrap
from vcppo.maths.statistics import exact_interval

RESAMPLES = 1000
RARE, MANY_LEVELS = 0.02, 10  # a highest score that fewer reach, of more levels than this, is no mark of being right
OUTER = (0.01, 0.99)  # levels of the range of returns: beyond are outliers
ROUNDING = 1e-6  # of returns, as a share of their size: float32 sums that differ by less are equal
SAME = 1e-3  # of the range: rewards whose sum differs from the score by more are of something else
UNDISCOUNTED = "returns are undiscounted (gamma 1): beside them values of a run with gamma < 1 look low and narrow"
ONE_RESPONSE = "one response to each prompt: at least two are needed to tell the prompt from the response"


def measure_data(dump: Dump, reading: Reading, *, seed: int, resamples: int = RESAMPLES) -> DataPart:
    """The responses themselves; lengths are in tokens of the reading's critic.

    Raises:
        DataError: no response.
    """
    bootstrap = drawn_prompts(reading.problem, seed=seed, resamples=resamples)
    scores = reading.scores.numpy().astype(np.float64)
    known = np.isfinite(scores)
    if not known.any():
        raise DataError(f"{dump.source}: no response has a finite score: expected at least one")
    lengths = reading.response_mask.sum(dim=1).numpy().astype(np.float64)
    described = [(row.problem, row.truncated) for row in dump.responses if row.truncated is not None]
    names = {name: at for at, name in enumerate(dict.fromkeys(name for name, _ in described))}
    truncated = Estimate(value=None, why="the dump does not say which responses were cut")
    if described:
        those = prompt_bootstrap([names[n] for n, _ in described], resamples=resamples, rng=np.random.default_rng(seed))
        truncated = _mean(np.array([float(cut) for _, cut in described]), those.prompt, those)
    prompt = bootstrap.prompt[known]
    highest, lowest = float(scores[known].max()), float(scores[known].min())
    notes = list(dump.notes)
    if not known.all():
        notes.append(
            f"{int((~known).sum())} responses have a score that is not a finite number, and are left out of scores"
        )
    if (threshold := right_from(scores)) < highest:
        notes.append(
            f"scores have many levels: for ranking, a response counts as right from {threshold:.4g} on, the median"
        )
    returns, rows = first_returns(reading)
    low, high = robust_range(returns)
    unit = max(high - low, highest - lowest) or max(abs(highest), 1.0)
    if differ := int((np.abs(returns - scores[rows]) > SAME * unit).sum()):
        notes.append(
            f"rewards of {differ:,} of {len(scores):,} responses sum to another number than their score: returns are "
            "those of rewards, right and wrong are by the score"
        )
    notes.append(UNDISCOUNTED)
    between = between_prompts(scores, bootstrap) if known.all() else None
    return DataPart(
        source=dump.source,
        form=dump.form,
        responses=len(scores),
        problems=bootstrap.prompts,
        tokens=int(lengths.sum()),
        length_mean=float(lengths.mean()),
        length_median=float(np.median(lengths)),
        length_min=int(lengths.min()),
        length_max=int(lengths.max()),
        truncated=truncated,
        score_mean=_mean(scores[known], prompt, bootstrap),
        score_low=lowest,
        score_high=highest,
        correct=_mean((scores[known] == highest).astype(np.float64), prompt, bootstrap),
        score_length_correlation=_correlation(scores[known], lengths[known], prompt, bootstrap),
        score_between_prompts=None if between is None else estimate(between, bootstrap, ONE_RESPONSE),
        return_low=low,
        return_high=high,
        rarer_prompts=_rarer(bootstrap.prompt[rows], returns > (low + high) / 2),
        notes=tuple(notes),
    )


def first_returns(reading: Reading) -> tuple[Array, Index]:
    """Finite returns at the first token, [K], and whose they are; of a response without a token its score."""
    begun = reading.response_mask[:, :1].any(dim=1)
    first = reading.scores.clone()
    if begun.any():
        first[begun] = reading.returns[begun, 0]
    known = (first.isfinite() & reading.scores.isfinite()).numpy()
    return first.numpy()[known].astype(np.float64), np.flatnonzero(known).astype(np.int64)


def robust_range(x: Array) -> tuple[float, float]:
    """Lowest and highest number where there are two, of more the 1 and 99 % quantiles, which no outlier moves.

    Where these agree it is the lowest and the highest again; sums that differ by rounding alone are one number.
    """
    if not len(x):
        return math.nan, math.nan
    low, high = (float(end) for end in np.quantile(x, OUTER))
    if low == high or len(np.unique(x)) == 2:
        low, high = float(x.min()), float(x.max())
    return (low, high) if high - low > ROUNDING * max(abs(low), abs(high)) else (low, low)


def _rarer(prompt: Index, high: NDArray[np.bool_]) -> int:
    """Prompts with a response on the one side, or on the other where those are fewer."""
    return min(len(np.unique(prompt[high])), len(np.unique(prompt[~high])))


def right_from(scores: Array) -> float:
    """The score from which on a response counts as right: the highest there is.

    If scores have many levels and hardly any response has the highest, as of a reward model, then the median score
    that is above the lowest half: right is the better half.
    """
    known = scores[np.isfinite(scores)]
    if not len(known):
        return math.inf
    highest = float(known.max())
    if len(np.unique(known)) > MANY_LEVELS and (known == highest).mean() < RARE:
        return float(np.quantile(known, 0.5, method="higher"))
    return highest


def drawn_prompts(problem: Tensor, *, seed: int, resamples: int = RESAMPLES) -> PromptBootstrap:
    """The draws of prompts that intervals come from: the same for every critic of the same responses."""
    return prompt_bootstrap(problem.numpy(), resamples=resamples, rng=np.random.default_rng(seed))


def _mean(x: Array, prompt: Index, bootstrap: PromptBootstrap) -> Estimate:
    """A mean over responses; of shares that are all 0 or all 1, the end that is free is exact over prompts."""
    sums = bootstrap.sums(bootstrap.unit[prompt], [np.ones_like(x), x])[:, 0]

    def mean(total: Array) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            result: Array = total[..., 1:] / total[..., :1]
        return result

    result = estimate(bootstrap.measured(mean, sums), bootstrap, "")
    if result.low is None and bootstrap.prompts > 1 and result.value in (0.0, 1.0):
        exact = exact_interval(result.value * bootstrap.prompts, bootstrap.prompts)
        return Estimate(value=result.value, low=exact.low, high=exact.high)
    return result


def _correlation(x: Array, y: Array, prompt: Index, bootstrap: PromptBootstrap) -> Estimate:
    a, b = x - np.median(x), y - np.median(y)
    sums = bootstrap.sums(bootstrap.unit[prompt], [np.ones_like(a), a, b, a * a, b * b, a * b])[:, 0]

    def correlation(total: Array) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            _, u, v, uu, vv, uv = np.moveaxis(total / total[..., :1], -1, 0)
            spread = np.sqrt((uu - u * u) * (vv - v * v))
            result: Array = np.where(spread > 1e-12 * np.sqrt(uu * vv), (uv - u * v) / spread, np.nan)
        return result[..., None]

    return estimate(
        bootstrap.measured(correlation, sums), bootstrap, "needs scores that differ and lengths that differ"
    )

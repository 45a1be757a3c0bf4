"""The numbers that verdicts turn on, each with its reason.

A verdict needs more than a threshold: its interval must lie on the far side, and the interval is the report's 95 % one
made wider for the number of looks (`widened`), so that a healthy critic is called ill in at most 5 % of reports, by
whichever rule.
"""

from dataclasses import dataclass

import scipy  # scipy.stats takes half a second to load, and is at its first use

from vcppo.diagnosis.estimates import ALIKE
from vcppo.diagnosis.schema import Estimate
from vcppo.maths.prompt_bootstrap import CONFIDENCE

LOOKS = 9  # intervals that can call a healthy critic ill: offset, scale (2), knows only (2), no signal (2), read (2)


@dataclass(frozen=True)
class Threshold:
    """A number and why it is that."""

    value: float
    reason: str


THRESHOLDS = {
    "bias": Threshold(
        0.1,
        "of the returns' standard deviation: less than a reward model or a stale critic is off, and far below the 0.7 "
        "at which PPO at λ = 0.95 collapses on the embedded task, where returns vary by 0.5 to 1",
    ),
    "bias_of_range": Threshold(
        0.02, "of the returns' range, where that is more: rare successes make the deviation small, not the range"
    ),
    "slope_low": Threshold(0.8, "values a quarter too wide; a learned critic of held-out responses stays above"),
    "slope_high": Threshold(1.25, "values a fifth too narrow; the same distance as slope_low, as a ratio"),
    "no_signal": Threshold(
        0.5, "slope beyond the position: 1 if what the critic says there is true, 0 if it says nothing"
    ),
    "opposite": Threshold(
        0.1, "correlation below 0 that is more than a critic's error on unfinished responses, as a reward model's is"
    ),
    "constant": Threshold(
        0.01, "standard deviation of values over that of returns: below, they are a constant and noise"
    ),
    "one_thing": Threshold(0.9, "share of the values' variance: above, the critic knows that thing and nothing else"),
    "other_thing": Threshold(0.1, "share of the variance that the prompt must have for `prompt-only`"),
    "no_share": Threshold(
        0.1, "a share as far below 0 or above 1: its parts are of other tokens, and no verdict rests on them"
    ),
    "read_ahead": Threshold(
        0.05, "difference where none can be, in units of an ordinary one, above what rounding makes"
    ),
    "read_late": Threshold(0.01, "difference where one must be: two other tokens that leave a value alone to a tenth"),
    "at_one_distance": Threshold(
        0.9, "share of pairs whose values part at one distance: above, reading late makes it and not what tokens say"
    ),
    "rough": Threshold(0.5, "step from token to token: 1 of noise, below 0.2 of any critic that follows a response"),
    "end_correlation": Threshold(
        0.5, "correlation with the return at the last token: above, the critic knows the outcome there"
    ),
    "end_better": Threshold(
        0.5, "error at the last token over that of the first half, in size: below, only the end is right"
    ),
    "silent": Threshold(
        0.02, "spread of the first half over that at the last token: below, nothing is said before the end"
    ),
    "prompts": Threshold(8, "prompts: of fewer, a resampling interval covers too little to rest a verdict on"),
}


def limit(name: str) -> float:
    """The threshold's value."""
    return THRESHOLDS[name].value


def widened(estimate: Estimate | None, looks: int = LOOKS) -> tuple[float, float] | None:
    """Both ends of the interval at which `looks` of them err together as rarely as one at 95 %; None without one.

    Bonferroni, by the normal distribution: a half-width of 1.96 standard errors becomes 2.77 for nine looks.
    """
    if estimate is None or estimate.value is None:
        return None
    if estimate.low is None or estimate.high is None:
        return None
    factor = stretch(looks)
    value = estimate.value
    return value - factor * (value - estimate.low), value + factor * (estimate.high - value)


def stretch(looks: int) -> float:
    """By how much an interval grows.

    >>> round(stretch(1), 2), round(stretch(9), 2)
    (1.0, 1.41)
    """
    alpha = 1 - CONFIDENCE
    return float(scipy.stats.norm.ppf(1 - alpha / 2 / looks) / scipy.stats.norm.ppf(1 - alpha / 2))


def beyond(estimate: Estimate, low: float, high: float, looks: int = LOOKS) -> int:
    """-1 or 1 if the widened interval lies below low or above high, else 0."""
    wide = widened(estimate, looks)
    if wide is None:
        return 0
    return -1 if wide[1] < low else 1 if wide[0] > high else 0


def ends(estimate: Estimate) -> tuple[float, float] | None:
    """The widened interval; of a number that no draw of prompts changes, that number twice; None without either."""
    if estimate.value is not None and estimate.why == ALIKE:
        return estimate.value, estimate.value
    return widened(estimate)

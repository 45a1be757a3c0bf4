"""The report as data, `report.json`: every number that its page shows, under a schema with a version.

A number that could not be measured is null, and `why` beside it says why. Raise VERSION when a field changes its
meaning or goes; new fields do not need it.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

VERSION = 1


class Part(BaseModel):
    """A part of the report: frozen and closed."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")


class Estimate(Part):
    """A number with its 95 % bootstrap interval over prompts."""

    value: float | None
    low: float | None = None
    high: float | None = None
    why: str | None = None  # if value is null: what would be needed


class Curve(Part):
    """Estimates along an axis; all lists have one length."""

    x: tuple[float, ...]
    n: tuple[int, ...]  # tokens behind each point
    responses: tuple[int, ...]  # responses behind each point
    value_mean: tuple[float | None, ...]
    return_mean: tuple[float | None, ...]
    bias: tuple[Estimate, ...]
    explained_variance: tuple[Estimate, ...]


class Regressor(Part):
    """The critic's error against Monte-Carlo returns, value = offset + slope-error * return + rest."""

    bias: Estimate  # mean(value - return), units of reward
    slope: Estimate  # of return on value: 1 for a calibrated critic
    intercept: Estimate
    rmse: Estimate
    share_offset: Estimate  # of the mean square error; the three shares sum to 1
    share_slope: Estimate
    share_rest: Estimate
    explained_variance: Estimate
    explained_variance_ceiling: Estimate | None = None  # where the task knows it
    value_std: float | None
    return_std: float | None
    from_start: Curve  # the other three go by what only a response's end tells: a perfect critic may be off in a bin
    from_end: Curve
    by_fraction: Curve
    by_length: Curve  # x: response length in tokens
    calibration: "Calibration"
    value_low: float | None = None  # the lowest value, and the highest
    value_high: float | None = None
    sections: tuple["Section", ...] = ()


class Section(Part):
    """A part of every response. It is known at the end only, so a perfect critic may be off in it, by a little."""

    name: Literal["first half", "middle", "last tenth", "last token"]  # "middle": from a half to nine tenths
    n: int  # tokens
    bias: Estimate
    slope: Estimate
    explained_variance: Estimate
    correlation: Estimate  # of value with return
    spread: float | None  # standard deviation of the values


class Calibration(Part):
    """Tokens in bins of predicted value."""

    predicted_mean: tuple[float, ...]
    return_mean: tuple[Estimate, ...]
    n: tuple[int, ...]


class RankAt(Part):
    """AUC of V at a fraction of the response, between responses that will be right and those that will not.

    Right is the highest score. A fraction is known at the end only, so this describes, and no verdict rests on it.
    """

    fraction: float
    within_prompts: Estimate  # AUC over pairs of responses to one prompt; 0.5 is chance
    across_prompts: Estimate


class Reacts(Part):
    """Shares of the critic's variance; the three sum to 1.

    Nested: position from the start first, then the prompt, alone and with position, then what differs between responses
    to one prompt at one position. How many tokens are still to come no critic can know, so it is no part of position.
    Unbiased, so that a share of nothing may come out slightly below 0.
    """

    position: Estimate
    prompt: Estimate
    neither: Estimate


class Signal(Part):
    """Relation of values and returns beyond the position: both less their mean at it."""

    correlation: Estimate
    slope: Estimate  # of return on value: 1 if what the critic says there is calibrated, 0 if it says nothing


class Timing(Part):
    """Signs of values read at the wrong token, which need no returns: mean squares of differences of values.

    The first three compare two responses to one prompt before, at and after the token where they part, in units of
    two tokens after it, or of the first gap where that is later: 0, 0 and about 1 of a critic that is read in the right
    place.
    """

    before_split: Estimate  # V before the tokens that both share: differs if values are of other responses, or noise
    at_split: Estimate  # V before the token where they part: differs also if read one token ahead
    after_split: Estimate  # V before the next: does not differ if read one token late
    first_token: Estimate  # variance between responses from one first state at their first token, over that at all
    roughness: Estimate  # mean squared step from token to token over twice the variance: 1 of noise
    pairs: int  # of responses to one prompt that part
    first_gap: int | None = None  # tokens from where most pairs part to where their values do; in place 1
    first_gap_share: float | None = None  # of the pairs whose values part at all
    pair_prompts: int = 0  # prompts that these pairs are of
    first_prompts: int = 0  # prompts with two responses from one first state, whose first values are known
    rounding: float | None = None  # what arithmetic in bfloat16 could make of the first two, in their units


class LambdaShare(Part):
    """Shares of reward and values in an advantage at one λ, at these lengths."""

    gae_lambda: float
    real_reward: Estimate  # mean weight of the real reward over tokens, lambda^(tokens to come)
    opinion: Estimate  # share of the advantages' variance that comes from values alone; of a calibrated critic 0 at 1


class Alignment(Part):
    """Direction of the policy gradient made with this critic at one λ.

    Method: `gradient`, plain dot products; `preconditioned`, gradients divided by the root of their second moments (the
    diagonal of the Fisher information), in which quiet decisions count as well as loud ones; `surrogate`, no policy.
    The four changes and what follows them are first-order, per step of length 1 in the method's metric.
    """

    gae_lambda: float
    method: Literal["gradient", "preconditioned", "scores", "surrogate"]
    with_reward: (
        Estimate  # cosine with the Monte-Carlo gradient of the score, without its noise; surrogate: a correlation
    )
    with_length: Estimate  # the same with the gradient of the response's length
    reward_ceiling: Estimate  # Monte-Carlo against Monte-Carlo on other responses, half each, noise left in
    accuracy_change: Estimate  # along the expected gradient; in shares of the score's range, where it has two values
    length_change: Estimate  # tokens, likewise
    noise: Estimate | None = None  # signal-to-noise at the batch size in use
    batch_size: int | None = None  # responses of an update
    batch_accuracy_change: Estimate | None = None  # along the gradient of one batch, its noise included; has a sign
    batch_length_change: Estimate | None = None  # where a cosine cannot be told; the best λ has the largest
    against_monte_carlo: Estimate | None = None  # batch_accuracy_change in units of what returns with a baseline reach
    baseline: Literal["position", "prompt"] | None = None  # of the Monte-Carlo gradient
    backward_passes: int = 0  # over micro-batches, those shared by all λ and critics included


class Knob(Part):
    """A setting of one trainer; `setting` null: it lacks the knob."""

    trainer: str  # vcppo, verl, NeMo-RL, OpenRLHF, TRL, slime
    setting: str | None
    note: str = ""


class Verdict(Part):
    """One finding, in words."""

    code: str  # stable, for programs: "offset", "position-only", "collapse-forecast", "healthy", "cannot-tell", ...
    severity: Literal["good", "note", "warning", "alarm", "unknown"]
    critic: str | None
    title: str
    sentence: str  # what was measured, with its interval
    advice: str = ""
    knobs: tuple[Knob, ...] = ()
    more_responses: int | None = None  # "cannot-tell": how many more would be needed


class CriticPart(Part):
    """All that was measured of one critic."""

    name: str
    source: str
    layout: str | None
    notes: tuple[str, ...] = ()
    not_finite: int = 0  # tokens whose value is NaN or infinite, left out of every number
    regressor: Regressor | None
    ranker: tuple[RankAt, ...]
    reacts: Reacts | None
    lambdas: tuple[LambdaShare, ...]
    alignment: tuple[Alignment, ...] = ()
    best_lambda: float | None = None  # the largest batch_accuracy_change, preconditioned
    lambdas_as_good: tuple[float, ...] = ()  # those that cannot be told from it, itself included
    why: str | None = None  # if it could not be measured at all
    signal: Signal | None = None
    timing: Timing | None = None
    values_are_returns: bool = False  # on all tokens, where returns differ between responses from one first state


class DataPart(Part):
    """The responses."""

    source: str
    form: str
    responses: int
    problems: int
    tokens: int
    length_mean: float
    length_median: float
    length_min: int
    length_max: int
    truncated: Estimate
    score_mean: Estimate
    score_low: float
    score_high: float
    correct: Estimate  # share of responses with the highest score
    score_length_correlation: Estimate
    score_between_prompts: Estimate | None = None  # share of the scores' variance: what can be known before any token
    return_low: float  # of returns at the first token the lower of two, or of more the 1 % quantile
    return_high: float  # likewise; of all returns where these two would be the same
    rarer_prompts: int  # prompts with a return on the rarer side of the middle between these two
    notes: tuple[str, ...] = ()


class Provenance(Part):
    """Origin of the report: command, versions, time and seed."""

    vcppo: str
    commit: str | None
    command: str
    made_at: str  # ISO 8601, UTC
    seconds: float
    seed: int
    versions: dict[str, str] = Field(default_factory=dict)


class Report(Part):
    """The whole report."""

    schema_version: int = VERSION
    verdicts: tuple[Verdict, ...]
    data: DataPart
    critics: tuple[CriticPart, ...]
    provenance: Provenance

"""Rules on how far values are from returns, one function a fault: an empty list, or the verdict.

Each fires if its widened interval lies beyond its threshold (`thresholds`), never on the number alone.
"""

from vcppo.diagnosis.schema import CriticPart, DataPart, Reacts, Regressor, Verdict
from vcppo.diagnosis.thresholds import beyond, ends, limit, widened
from vcppo.diagnosis.wording import percent, short, shown, verdict

PRETRAIN = (
    "Pretrain the value model on Monte-Carlo returns before the policy learns, or use λ = 1 for the policy until then."
)

GAMMA = "Returns are undiscounted: values of a run with gamma < 1 lie nearer to 0, which is no fault of the critic."


def constant(data: DataPart, critic: CriticPart) -> list[Verdict]:
    """Values that hardly vary. Needs no interval."""
    numbers = numbers_of(critic)
    spread, returns = numbers.value_std, numbers.return_std
    against = returns or data.return_high - data.return_low or max(abs(data.return_high), 1.0)
    if spread is None or spread > limit("constant") * against:
        return []
    beside = f", where returns vary by {short(returns)}" if returns else ""
    return [
        verdict(
            "constant",
            "warning",
            "Values are a constant",
            f"Values vary by {short(spread)} about their mean{beside}: the critic says one thing of every state. At "
            "λ = 1 an advantage is then a return less a constant; below, tokens near the end alone hear of the reward.",
            PRETRAIN,
            "value-pretraining",
            "lambda-actor",
        )
    ]


def offset(data: DataPart, critic: CriticPart) -> list[Verdict]:
    """Values too low or too high on average."""
    numbers = numbers_of(critic)
    allowed = allowed_bias(data, numbers)
    side = beyond(numbers.bias, -allowed, allowed)
    if not side:
        return []
    which, where = ("low", "high")[side > 0], _everywhere(numbers, side)
    share = f"{percent(numbers.share_offset)} of the mean square error"
    measured = f"Values are {shown(numbers.bias, size=True)} too {which} {where}, in units of reward; that is {share}."
    consequence = _profile(numbers)
    if where == "everywhere":
        consequence = (
            "Below λ = 1 every advantage gains what is missing times λ^(tokens to come): what stands near an end is "
            "praised, which shortens responses."
            if side < 0
            else "Below λ = 1 whatever stands near an end is blamed for it, which lengthens responses."
        )
    return [
        verdict(
            "offset",
            "alarm",
            f"Values are {short(abs(numbers.bias.value or 0.0))} too {which} {where}",
            " ".join(part for part in (measured, consequence, GAMMA) if part),
            PRETRAIN,
            "value-pretraining",
            "lambda-actor",
        )
    ]


def probability(data: DataPart, critic: CriticPart) -> list[Verdict]:
    """Values are chances of being right where scores are in other units."""
    numbers, low, across = numbers_of(critic), data.return_low, data.return_high - data.return_low
    same_units = abs(across - 1) < 0.1 and abs(low) < 0.1
    if same_units or numbers.value_low is None or numbers.value_high is None or not _beyond_scale(data, numbers):
        return []
    slope, intercept = widened(numbers.slope), widened(numbers.intercept)
    within = numbers.value_low >= -0.02 and numbers.value_high <= 1.02
    if not within or slope is None or intercept is None:
        return []
    if not (slope[0] <= across <= slope[1] and intercept[0] <= low <= intercept[1]):
        return []
    return [
        verdict(
            "probability",
            "alarm",
            "Values are probabilities, not rewards",
            f"All values lie between 0 and 1, and the return is {shown(numbers.intercept)} plus {shown(numbers.slope)} "
            "times "
            f"the value, which fits a chance of being right, {low:g} + {across:g} V: returns are from "
            f"{low:g} to {data.return_high:g}. In these units values are off by {shown(numbers.bias)} on "
            "average.",
            f"Take {low:g} + {across:g} V for the values, give scores of 0 and 1, or let the critic learn returns.",
            "reward-units",
            "value-pretraining",
        )
    ]


def scale(data: DataPart, critic: CriticPart) -> list[Verdict]:
    """Values spread too wide or too narrow."""
    numbers = numbers_of(critic)
    side = _beyond_scale(data, numbers)
    if not side:
        return []
    slope = numbers.slope.value or 0.0
    wide = side < 0
    how = "wide" if wide else "narrow"
    factor = 1 / slope if wide and slope > 0.05 else slope
    times = f"{short(factor)} times too {how}" if slope > 0.05 else "too wide by far"
    return [
        verdict(
            "scale",
            "warning",
            f"Values spread {times}",
            f"Returns grow by {shown(numbers.slope)} for each unit of value, where 1 is calibrated: values spread "
            f"{times}. "
            + (
                f"Explained variance {shown(numbers.explained_variance)}; below 0 a constant would do better."
                if wide
                else "The critic knows more than it says: its head is in other units, or has not learnt long enough. "
                + GAMMA
            ),
            "Train the critic on, on Monte-Carlo returns of other responses"
            + (
                ", with a lower learning rate or an earlier end: it may have learnt its responses by heart."
                if wide
                else "."
            ),
            "value-pretraining",
            "reward-units",
        )
    ]


def knows_only(data: DataPart, critic: CriticPart) -> list[Verdict]:
    """Values that vary with the position alone, or with position and prompt alone."""
    if critic.reacts is None or not _are_shares(critic.reacts):
        return []
    reacts, between = critic.reacts, data.score_between_prompts
    position = ends(reacts.position)
    if position and position[0] > limit("one_thing"):
        lies = (
            f" Of the scores' variance {percent(between)} lies between prompts and could be known before the first "
            "token."
            if between is not None and between.value is not None
            else ""
        )
        return [
            verdict(
                "position-only",
                "warning",
                "Values know the position only",
                f"{percent(reacts.position)} of the values' variance is the position in the response: the critic has "
                "learnt "
                f"nothing of what stands there, as in the first phase of value pretraining.{lies}",
                "Pretrain the value model for longer: until explained variance has settled, and not the loss alone. If "
                "the task tells nothing but the position, this is all there is.",
                "value-pretraining",
                "lambda-actor",
            )
        ]
    neither, prompt = ends(reacts.neither), ends(reacts.prompt)
    if neither and prompt and neither[1] < 1 - limit("one_thing") and prompt[0] > limit("other_thing"):
        return [
            verdict(
                "prompt-only",
                "warning",
                "Values know the prompt, not the response",
                f"{percent(reacts.prompt)} of the values' variance is the prompt, {percent(reacts.position)} the "
                "position, "
                f"{percent(reacts.neither)} what one response says: the critic does not follow the response.",
                "Pretrain the value model for longer, on several responses to each prompt.",
                "value-pretraining",
            )
        ]
    return []


def allowed_bias(data: DataPart, numbers: Regressor) -> float:
    """The size up to which a mean error is none, in units of reward."""
    across = data.return_high - data.return_low
    if not across:
        return limit("bias") * max(abs(data.return_high), 1.0)
    return max(small_bias(data, numbers), limit("bias_of_range") * across)


def small_bias(data: DataPart, numbers: Regressor) -> float:
    """A tenth of the returns' standard deviation, which is at most half a range; outliers make it more."""
    return limit("bias") * min(numbers.return_std or 0.0, (data.return_high - data.return_low) / 2)


def rare(data: DataPart) -> bool:
    """True where returns of one side are so rare that no slope on them can be trusted."""
    return data.rarer_prompts < limit("prompts")


def numbers_of(critic: CriticPart) -> Regressor:
    """Return the numbers of a critic's values against returns; only for a critic that could be measured."""
    assert critic.regressor is not None
    return critic.regressor


def _beyond_scale(data: DataPart, numbers: Regressor) -> int:
    return 0 if rare(data) else beyond(numbers.slope, limit("slope_low"), limit("slope_high"))


def _are_shares(reacts: Reacts) -> bool:
    """False of numbers that no shares are, by more than chance makes of an estimate that is right on average."""
    known = [one.value for one in (reacts.position, reacts.prompt, reacts.neither) if one.value is not None]
    return all(-limit("no_share") <= value <= 1 + limit("no_share") for value in known)


def _everywhere(numbers: Regressor, sign: int) -> str:
    """Say "everywhere" where the bias is much the same in all position bins whose interval tells its sign."""
    along = [bias for bias in numbers.from_start.bias if bias.low is not None and bias.high is not None]
    same = [bias for bias in along if (bias.low or 0.0) * sign > 0 and (bias.high or 0.0) * sign > 0]
    sizes = [abs(bias.value or 0.0) for bias in same]
    if along and len(same) == len(along) and max(sizes) < 2 * min(sizes):
        return "everywhere"
    return "on average"


def _profile(numbers: Regressor) -> str:
    """Name the token positions at which values are off most to either side; "" where fewer than two are known."""
    along = [(bias.value, x) for bias, x in zip(numbers.from_start.bias, numbers.from_start.x, strict=True)]
    known = [(value, x) for value, x in along if value is not None]
    if len(known) < 2:
        return ""
    (low, at_low), (high, at_high) = min(known), max(known)
    return (
        f"By position they are off by {short(low)} about token {at_low:.0f} and by {short(high)} at {at_high:.0f}: "
        "which way that pushes responses depends on where they end."
    )

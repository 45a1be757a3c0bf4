"""Verdicts on a critic, by written rules: which rule goes before which, and when there is nothing to be said.

`thresholds` has the numbers, `faults` and `mismatches` the rules on values against returns, `uphill` those on the
policy gradient.
"""

import math

from vcppo.diagnosis.faults import allowed_bias, constant, knows_only, offset, probability, rare, scale, small_bias
from vcppo.diagnosis.mismatches import end_only, misread, no_signal
from vcppo.diagnosis.schema import CriticPart, DataPart, Verdict
from vcppo.diagnosis.thresholds import beyond, limit, widened
from vcppo.diagnosis.uphill import uphill
from vcppo.diagnosis.wording import shown, verdict

ORDER = ("alarm", "warning", "unknown", "note", "good")
ILL = ("alarm", "warning")


def judge(data: DataPart, critic: CriticPart) -> tuple[Verdict, ...]:
    """All verdicts on one critic, the gravest first, of alarms the forecast; at least one."""
    direction = uphill(critic)
    verdicts = [*_tempered(_values(data, critic), direction, critic), *direction]
    named = (one.model_copy(update={"critic": critic.name}) for one in verdicts)
    return tuple(sorted(named, key=lambda one: (ORDER.index(one.severity), one.code != "collapse-forecast")))


def _tempered(values: list[Verdict], direction: list[Verdict], critic: CriticPart) -> list[Verdict]:
    """Verdicts on values, where the policy's gradient is known to be sound: then no fault of them is an alarm.

    Unless they are no critic's at all.
    """
    saw_policy = any(one.method != "surrogate" for one in critic.alignment)
    codes = {one.code for one in direction}
    if not saw_policy or "uphill" not in codes or "signal-lost" in codes or critic.values_are_returns:
        return values
    return [one.model_copy(update={"severity": "warning"}) if one.severity == "alarm" else one for one in values]


def _values(data: DataPart, critic: CriticPart) -> list[Verdict]:
    """Verdicts on values against returns; a single one where they can say nothing."""
    broken = _not_finite(data, critic)
    if critic.regressor is None:
        return broken or [verdict("cannot-tell", "unknown", "Nothing could be measured", f"{critic.why}.")]
    if critic.values_are_returns:
        return [*broken, _returns_as_values()]
    if data.problems == 1:
        return [*broken, *_certain(data, critic), _one_prompt(data)]
    if data.problems < limit("prompts"):
        return [*broken, *_certain(data, critic), _few_prompts(data)]
    alike = _all_alike(data)
    faults = [*alike, *_faults(data, critic)]
    if alike or any(one.severity in ILL for one in (*broken, *faults)):
        return [*broken, *faults]
    return [*broken, *faults, _healthy_or_not(data, critic)]


def _faults(data: DataPart, critic: CriticPart) -> list[Verdict]:
    """Rules in order: one that explains others takes their place."""
    if dead := constant(data, critic):
        return [*dead, *offset(data, critic)]
    if late := end_only(data, critic):
        return late
    if data.return_high == data.return_low:
        return [*offset(data, critic), *misread(critic, signal=False)]
    if nothing := no_signal(data, critic):
        return [*nothing, *offset(data, critic)]
    only = knows_only(data, critic)
    units = probability(data, critic) or [*offset(data, critic), *scale(data, critic)]
    return [*only, *misread(critic, signal=not rare(data)), *units]


def _certain(data: DataPart, critic: CriticPart) -> list[Verdict]:
    """Verdicts that need no interval."""
    return [*_all_alike(data), *constant(data, critic)]


def _not_finite(data: DataPart, critic: CriticPart) -> list[Verdict]:
    if not critic.not_finite:
        return []
    share = critic.not_finite / max(data.tokens, 1)
    return [
        verdict(
            "not-finite",
            "alarm",
            "Values are not finite numbers",
            f"{critic.not_finite} of {data.tokens} values ({100 * share:.2g} %) are NaN or infinite; everything else "
            "here "
            "is measured without them. One such value makes every advantage before it in its response NaN too.",
            "Look for overflow in half precision, a value loss without a clip on its gradient, or a head that was not "
            "initialised; go back to the last checkpoint whose values are finite.",
            "critic-start",
        )
    ]


def _returns_as_values() -> Verdict:
    return verdict(
        "returns-as-values",
        "alarm",
        "Values are the returns themselves",
        "On every token the value is the return that followed, at the first one too, where responses to one prompt "
        "have different returns: no critic can know that. The column holds returns, or targets of the critic.",
        "Log what the critic gave before the update, V before each token, or name its column (--column values=NAME).",
    )


def _all_alike(data: DataPart) -> list[Verdict]:
    if data.return_high != data.return_low:
        return []
    same = data.return_high
    what = "score" if data.score_low == data.score_high == same else "return"
    right, known = same == 1, same in (-1, 0, 1)  # 0.1 may be a wrong response in good form
    return [
        verdict(
            ("all-right" if right else "all-wrong") if known else "all-alike",
            "unknown",
            f"All responses have the {what} {same:g}",
            f"All {data.responses} responses have the {what} {same:g}: what the critic knows of right and "
            "wrong "
            "cannot be seen, and the policy gradient of a group baseline is 0 on them.",
            f"Take {('harder' if right else 'easier') if known else 'other'} problems, or more responses to each.",
        )
    ]


def _one_prompt(data: DataPart) -> Verdict:
    return verdict(
        "one-prompt",
        "unknown",
        "All responses are to one prompt",
        f"All {data.responses} responses are to one prompt: how far the numbers would be off on other prompts cannot "
        "be "
        "known, so none has an interval and no verdict rests on them.",
        f"Give responses to at least {limit('prompts'):.0f} prompts.",
        more=_more_for_prompts(data),
    )


def _few_prompts(data: DataPart) -> Verdict:
    return verdict(
        "cannot-tell",
        "unknown",
        f"Only {data.problems} prompts",
        f"The responses are to {data.problems} prompts: intervals over so few are too narrow to rest a verdict on.",
        f"Give responses to at least {limit('prompts'):.0f} prompts.",
        more=_more_for_prompts(data),
    )


def _more_for_prompts(data: DataPart) -> int:
    missing = limit("prompts") - data.problems
    return math.ceil(missing * data.responses / data.problems)


def _healthy_or_not(data: DataPart, critic: CriticPart) -> Verdict:
    """Healthy if the intervals shut out what would be ill, else how many responses would make them."""
    if rare(data):
        return _rare(data)
    assert critic.regressor is not None
    numbers, signal = critic.regressor, critic.signal
    allowed = 2 * allowed_bias(data, numbers)
    bias, slope = widened(numbers.bias), widened(signal.slope if signal else None)
    known = bias is not None and -allowed <= bias[0] and bias[1] <= allowed
    small = small_bias(data, numbers)
    biased = bool(beyond(numbers.bias, -small, small, looks=1))
    says = slope is not None and slope[0] > 0 and slope[1] > limit("no_signal")
    if known and says and signal is not None and not biased:
        unseen = (
            ""
            if critic.timing and critic.timing.after_split.value is not None
            else (
                " Whether values are read one token late cannot be seen without several responses to a prompt and "
                "their token ids."
            )
        )
        return verdict(
            "healthy",
            "good",
            "No fault found",
            f"Values are off by {shown(numbers.bias)} on average, returns grow by {shown(numbers.slope)} for each unit "
            "of "
            f"value, and beyond the position values and returns have a correlation of {shown(signal.correlation)}. "
            f"Explained variance {shown(numbers.explained_variance)}.{unseen}",
        )
    more = max(_more(data, bias, allowed / 2), _more(data, slope, limit("no_signal")))
    return verdict(
        "cannot-tell",
        "unknown",
        "Too few responses to tell" if more else "Whether this bias is a fault is open",
        f"No fault is certain and none is ruled out: the bias is {shown(numbers.bias)}, the slope beyond the position "
        f"{shown(signal.slope) if signal else 'unknown'} where 1 is calibrated and 0 says nothing.",
        f"About {more} more responses, to other prompts, would tell." if more else "",
        more=more or None,
    )


def _rare(data: DataPart) -> Verdict:
    """Of how few prompts the rarer outcome is, and how many responses would show it to enough of them."""
    more = math.ceil((limit("prompts") / max(data.rarer_prompts, 1) - 1) * data.responses)
    return verdict(
        "cannot-tell",
        "unknown",
        f"Only {data.rarer_prompts} prompts have the rarer outcome",
        f"Returns are from {data.return_low:g} to {data.return_high:g}, and responses to {data.rarer_prompts} of "
        f"{data.problems} prompts are on the rarer side: what the critic knows of right and wrong rests on these.",
        f"About {more} more responses, to other prompts, would tell, or easier or harder problems.",
        more=more,
    )


def _more(data: DataPart, interval: tuple[float, float] | None, half_width: float) -> int:
    """Responses more until the interval's half-width, which falls as 1 / sqrt(n), is this; two figures, rounded up."""
    if interval is None:
        return 0
    now = (interval[1] - interval[0]) / 2
    missing = data.responses * ((now / half_width) ** 2 - 1)
    if missing <= 0:
        return 0
    unit = 10 ** max(0, math.floor(math.log10(missing)) - 1)
    return int(math.ceil(missing / unit) * unit)

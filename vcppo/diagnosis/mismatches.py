"""Rules on what values belong to: other tokens, other responses, other rewards, whole responses alone.

As in `faults`, each is an empty list or the verdict, and fires on widened intervals only.
"""

from vcppo.diagnosis.faults import PRETRAIN, allowed_bias, numbers_of, rare
from vcppo.diagnosis.schema import CriticPart, DataPart, Section, Timing, Verdict
from vcppo.diagnosis.thresholds import beyond, ends, limit, widened
from vcppo.diagnosis.wording import short, shown, verdict


def misread(critic: CriticPart, *, signal: bool) -> list[Verdict]:
    """Values that stand at other tokens than those they were read at; `signal`: they are of these responses."""
    timing = critic.timing
    if timing is None:
        return []
    before, at, after, first = _at_splits(timing)
    small = limit("read_ahead") + (timing.rounding or 0.0)
    advice = "Read V for a token from the hidden state of the token before it: the prompt's last one for the first."
    if signal and before and before[0] > small:
        return [
            verdict(
                "misaligned",
                "alarm",
                "Values differ before the responses do",
                f"Two responses to a prompt have other values while their tokens are still the same: by "
                f"{shown(timing.before_split)} of what they differ by two tokens after they part, in mean square. "
                "Values are "
                "shifted by a number of tokens that varies, or have noise in them (dropout).",
                "Compare how prompt and response are padded and cut where values are read, and switch dropout off.",
            )
        ]
    seen = at and at[0] > small
    if seen or (signal and at is None and first and first[0] > limit("read_ahead")):
        how = (
            f"by {shown(timing.at_split)} of what they differ by two tokens later, in mean square"
            if seen
            else f"by {shown(timing.first_token)} of what they differ by on all tokens, in mean square, at their first "
            "token"
        )
        return [
            verdict(
                "off-by-one",
                "alarm",
                "Values are read one token ahead",
                f"Two responses to a prompt have other values at the token where they part: {how}. There the state is "
                "the "
                "same, so values are read after the token that they should be a baseline for, and advantages miss it.",
                advice,
            )
        ]
    if (late := _late(timing)) and at and after and at[1] < limit("read_late") and after[1] < limit("read_late"):
        tokens = "one token" if late == 1 else f"{late} tokens"
        return [
            verdict(
                "off-by-one",
                "alarm",
                f"Values are read {tokens} late",
                f"Two responses to a prompt have the same value after the token where they part ({timing.pairs} pairs, "
                f"{shown(timing.after_split)} of what they differ by {tokens} later, in mean square): values have not "
                f"seen the last {'token' if late == 1 else tokens}.",
                advice,
            )
        ]
    return []


def _late(timing: Timing) -> int:
    """By how many tokens values would be late: 1, or more where nearly all pairs begin to differ at one distance.

    A task may have tokens that change no value, at any distance from those that do; reading late shifts all alike.
    """
    late = max((timing.first_gap or 0) - 1, 1)
    return late if late == 1 or (timing.first_gap_share or 0.0) > limit("at_one_distance") else 0


def _at_splits(timing: Timing) -> tuple[tuple[float, float] | None, ...]:
    """Intervals before, at and after the split, and at the first token; none of pairs of too few prompts."""
    fewest = limit("prompts")
    splits = (timing.before_split, timing.at_split, timing.after_split)
    first = ends(timing.first_token) if timing.first_prompts >= fewest else None
    return (*(ends(one) if timing.pair_prompts >= fewest else None for one in splits), first)


def no_signal(data: DataPart, critic: CriticPart) -> list[Verdict]:
    """Values that vary and say nothing of the scores, or the opposite."""
    if critic.signal is None or rare(data):
        return []
    slope, correlation = widened(critic.signal.slope), widened(critic.signal.correlation)
    if slope is None or correlation is None or correlation[0] > 0 or slope[1] >= limit("no_signal"):
        return []
    measured = (
        f"beyond the position, values and returns have a correlation of {shown(critic.signal.correlation)}, and "
        "returns grow "
        f"by {shown(critic.signal.slope)} for each unit of value, where 1 is calibrated and 0 says nothing"
    )
    if correlation[1] < -limit("opposite"):
        return [
            verdict(
                "other-rewards",
                "alarm",
                "Values say the opposite of these scores",
                f"Values are high where scores will be low: {measured}. The critic has learnt other rewards than "
                "these, or "
                "of the opposite sign.",
                "Check which rewards the critic was trained on, and the sign of the score.",
                "critic-start",
                "value-pretraining",
            )
        ]
    code, title, cause, advice = _cause(critic.timing)
    return [
        verdict(
            code,
            "alarm",
            title,
            f"Values say nothing of these scores: {measured}. {cause}",
            advice,
            "critic-start",
            "value-pretraining",
        )
    ]


def _cause(timing: Timing | None) -> tuple[str, str, str, str]:
    """Code, title, cause and advice of values without a signal."""
    rough = ends(timing.roughness) if timing else None
    if timing and rough and rough[0] > limit("rough"):
        return (
            "noise",
            "Values are noise",
            f"From one token to the next they jump as if drawn anew (roughness {shown(timing.roughness)}, 1 of noise).",
            "The head is not trained, or the checkpoint was not loaded into it (compare the keys of its file), or it "
            "has only ever scored whole responses, as a reward model has.",
        )
    small = limit("read_ahead") + (timing.rounding or 0.0 if timing else 0.0)
    before, _, _, first = _at_splits(timing) if timing else (None,) * 4
    if (before and before[0] > small) or (first and first[0] > limit("read_ahead")):
        return (
            "shuffled",
            "Values are those of other responses",
            "They are smooth along a response, but two responses to a prompt differ in them before their tokens do: "
            "rows "
            "of values and rows of responses do not belong together.",
            "Compare how values and responses are ordered, after any sorting by length or balancing across ranks.",
        )
    if (before and before[1] < small) or (first and first[1] < small):
        return (
            "other-rewards",
            "Values are of other rewards",
            "They follow the response, and agree between responses to a prompt until their tokens differ: the critic "
            "knows "
            "something, but not these scores.",
            "Check which rewards the critic was trained on.",
        )
    return (
        "no-signal",
        "Values say nothing of these scores",
        "Whether they are of other responses or of other rewards cannot be seen with one response to each prompt.",
        "Check which rewards the critic was trained on, and that rows of values and responses belong together.",
    )


def end_only(data: DataPart, critic: CriticPart) -> list[Verdict]:
    """Values that know the outcome at the last token, and before that say nothing, or nothing that is so.

    A perfect critic is less sure early on, too. So values must be useless on the whole (worse than a constant, without
    a signal, or off by more than at the end) and uncorrelated with returns in the first half; or say one thing there.
    """
    numbers = numbers_of(critic)
    sections: dict[str, Section] = {section.name: section for section in numbers.sections}
    if not {"first half", "last token"} <= set(sections):
        return []
    start, end = sections["first half"], sections["last token"]
    sure, early, whole = (ends(x) for x in (end.correlation, start.correlation, numbers.explained_variance))
    if sure is None or sure[0] <= limit("end_correlation"):
        return []
    silent = start.spread is not None and end.spread and start.spread < limit("silent") * end.spread
    blind = early is None or early[0] <= 0
    allowed = allowed_bias(data, numbers)
    off = bool(beyond(numbers.bias, -allowed, allowed))
    better = abs(end.bias.value or 0.0) < limit("end_better") * abs(start.bias.value or 0.0)
    useless = (whole is not None and whole[1] < 0) or (off and better) or bool(no_signal(data, critic))
    if not (silent or (blind and useless)):
        return []
    what = (
        f"vary by {short(start.spread or 0.0)} in the first half of a response and by {short(end.spread or 0.0)} at "
        "its last token"
        if silent
        else f"are off by {shown(start.bias)} in the first half of a response and by {shown(end.bias)} at its "
        "last token"
    )
    return [
        verdict(
            "end-only",
            "warning" if silent and not off else "alarm",
            "Values are right at the end only",
            f"Values {what}; their correlation with returns is {shown(start.correlation)} in the one and "
            f"{shown(end.correlation)} at the other. On the whole they are off by {shown(numbers.bias)}. A model of "
            "whole responses, such as a reward model, does so before it has learnt what unfinished ones are worth.",
            PRETRAIN,
            "value-pretraining",
            "lambda-actor",
        )
    ]

"""Rules on where the policy gradient points: a forecast of collapse, and the best λ."""

from collections.abc import Sequence

from vcppo.diagnosis.schema import Alignment, CriticPart, Verdict
from vcppo.diagnosis.thresholds import widened
from vcppo.diagnosis.wording import Severity, short, shown, verdict

TRUSTED = ("preconditioned", "scores", "gradient", "surrogate")  # the first that was used is judged by
WHOLE = ("gradient", "preconditioned", "scores")  # methods that saw the policy; a surrogate did not


def uphill(critic: CriticPart) -> list[Verdict]:
    """Say where the gradient points, at which λ its signal is lost, and which λ is best; nothing without an alignment.

    Of the methods that were used the preconditioned one is judged by: it is how an optimiser of Adam's kind steps, and
    decisions that a plain product drowns in others' noise count in it.
    """
    methods = {one.method for one in critic.alignment}
    method = next((name for name in TRUSTED if name in methods), None)
    along = [one for one in critic.alignment if one.method == method]
    return [_direction(along), *_lost(along, critic.best_lambda), *_best(critic, along)] if along else []


def _direction(along: Sequence[Alignment]) -> Verdict:
    """Of one method at several λ: away from reward at one of them, towards it at all, or not known."""
    looks, method = len(along), along[0].method
    away = [one for one in along if _is_away(one, looks)]
    towards = [one for one in along if (ends := widened(one.with_reward, looks)) and ends[0] > 0]
    ceiling = next(
        (one.reward_ceiling for one in along if one.reward_ceiling.value is not None), along[0].reward_ceiling
    )
    known = widened(ceiling, 1)
    by = " by a surrogate that has not seen the policy" if method == "surrogate" else ""
    if away:
        return _collapse(away, towards, by)
    if known is None or known[0] <= 0:
        return verdict(
            "cannot-tell",
            "unknown",
            "Where the gradient points cannot be told",
            f"The Monte-Carlo gradients of two halves of the responses have a cosine of {shown(ceiling)} with each "
            f"other{by}: no critic can be seen to agree with a truth that does not agree with itself.",
            "More responses, or another method of comparison, would tell.",
        )
    if len(towards) == len(along):
        listed = ", ".join(f"{shown(one.with_reward)} at λ = {one.gae_lambda:g}" for one in along)
        return verdict(
            "uphill",
            "good",
            "The gradient points towards reward",
            f"The cosine of the policy gradient with that of the score is {listed}{by}; of the truth with itself "
            f"{shown(ceiling)}.",
        )
    unsure = ", ".join(f"{shown(one.with_reward)} at λ = {one.gae_lambda:g}" for one in along if one not in towards)
    return verdict(
        "cannot-tell",
        "unknown",
        "Where the gradient points is open at some λ",
        f"The cosine of the policy gradient with that of the score is {unsure}{by}, which may be either side of 0.",
        "More responses would tell." + (f" At λ = {_lambdas(towards)} it points towards reward." if towards else ""),
        *(("lambda-actor",) if towards else ()),
        lambda_actor=max((one.gae_lambda for one in towards), default=1.0),
    )


def _is_away(one: Alignment, looks: int) -> bool:
    ends = widened(one.with_reward, looks)
    return ends is not None and ends[1] < 0


def _collapse(away: Sequence[Alignment], towards: Sequence[Alignment], by: str) -> Verdict:
    worst = min(away, key=lambda one: one.with_reward.value or 0.0)
    length = widened(worst.with_length, 1)
    then = ""
    if length and length[1] < 0:
        then = f" and shortens responses (cosine with length {shown(worst.with_length)})"
    elif length and length[0] > 0:
        then = f" and lengthens responses (cosine with length {shown(worst.with_length)})"
    others = [one for one in away if one is not worst]
    also = f" So it does at λ = {_lambdas(others)}." if others else ""
    instead = f", or use λ = {_lambdas(towards)} for the policy until then" if towards else ""
    severity: Severity = "alarm" if worst.method in WHOLE else "warning"
    return verdict(
        "collapse-forecast",
        severity,
        f"At λ = {worst.gae_lambda:g} PPO goes away from reward",
        f"At λ = {worst.gae_lambda:g} the gradient points away from reward (cosine "
        f"{shown(worst.with_reward)}){then}{by}."
        + also
        + (f" At λ = {_lambdas(towards)} it points towards reward." if towards else ""),
        f"Pretrain the value model{instead}.",
        "value-pretraining",
        *(("lambda-actor",) if towards else ()),
        "lambda-critic",
        lambda_actor=max((one.gae_lambda for one in towards), default=1.0),
    )


def _lost(along: Sequence[Alignment], best: float | None) -> list[Verdict]:
    """The λ at which an update learns less than one without a critic would; a surrogate does not know how much."""
    if along[0].method not in WHOLE:
        return []
    looks = len(along)
    lost = [
        (one, gain)
        for one in along
        if (gain := one.against_monte_carlo)
        and (ends := widened(gain, looks))
        and ends[1] < 1
        and not _is_away(one, looks)
    ]
    if not lost:
        return []
    listed = ", ".join(f"{shown(gain)} at λ = {one.gae_lambda:g}" for one, gain in lost)
    cut = ", and λ cuts off the return that would tell" if any(one.gae_lambda < 1 for one, _ in lost) else ""
    away = [one for one, gain in lost if (ends := widened(gain, looks)) and ends[1] < 0]
    goes = f" At λ = {_lambdas(away)} that is below 0: it goes away from reward." if away else ""
    how = "goes away from reward" if len(away) == len(lost) else "learns less than it would without this critic"
    selected = best is not None and best not in {one.gae_lambda for one, _ in lost}
    return [
        verdict(
            "signal-lost",
            "warning",
            f"At λ = {_lambdas([one for one, _ in lost])} an update {how}",
            f"The expected gain in score of an update of {lost[0][0].batch_size:,} responses is {listed} of that of "
            f"Monte-Carlo returns with a baseline.{goes} A critic that does not see what a decision changed passes on "
            f"noise{cut}.",
            "Pretrain the value model further" + (f", or use λ = {best:g} for the policy." if selected else "."),
            "value-pretraining",
            *(("lambda-actor",) if selected else ()),
            lambda_actor=1.0 if best is None else best,
        )
    ]


def _best(critic: CriticPart, along: Sequence[Alignment]) -> list[Verdict]:
    best = critic.best_lambda
    if best is None:
        return []
    gains = [one.against_monte_carlo for one in along if one.gae_lambda == best and one.against_monte_carlo]
    gain = f" An update gains {shown(gains[0])} of what Monte-Carlo returns with a baseline gain." if gains else ""
    others = [number for number in critic.lambdas_as_good if number != best]
    alike = f" λ = {', '.join(f'{number:g}' for number in others)} cannot be told from it." if others else ""
    return [
        verdict(
            "best-lambda",
            "note",
            f"λ = {short(best)} suits this critic best",
            f"Of the λ that were tried, an update is expected to gain most at λ = {best:g}.{gain}{alike}",
            "Set it for the policy's advantages, and keep λ = 1 for the critic's targets.",
            "lambda-actor",
            "lambda-critic",
            lambda_actor=best,
        )
    ]


def _lambdas(along: Sequence[Alignment]) -> str:
    return ", ".join(f"{one.gae_lambda:g}" for one in along)

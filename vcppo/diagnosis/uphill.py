"""Rules on where the policy gradient points: a forecast of collapse, and the best λ."""

from collections.abc import Sequence

from vcppo.diagnosis.schema import Alignment, CriticPart, Verdict
from vcppo.diagnosis.thresholds import widened
from vcppo.diagnosis.wording import Severity, short, told, verdict

WHOLE = ("gradient", "preconditioned", "scores")  # methods that saw the policy; a surrogate did not


def uphill(critic: CriticPart) -> list[Verdict]:
    """One verdict for each method that was used, and one on λ. None without an alignment."""
    methods = dict.fromkeys(one.method for one in critic.alignment)
    found = [_direction([one for one in critic.alignment if one.method == method]) for method in methods]
    return [*found, *_best(critic)]


def _direction(along: Sequence[Alignment]) -> Verdict:
    """Of one method at several λ: away from reward at one of them, towards it at all, or not known."""
    looks, method = len(along), along[0].method
    away = [one for one in along if (ends := widened(one.with_reward, looks)) and ends[1] < 0]
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
            f"The Monte-Carlo gradients of two halves of the responses have a cosine of {told(ceiling)} with each other"
            f"{by}: no critic can be seen to agree with a truth that does not agree with itself.",
            "More responses, or another method of comparison, would tell.",
        )
    if len(towards) == len(along):
        listed = ", ".join(f"{told(one.with_reward)} at λ = {one.gae_lambda:g}" for one in along)
        return verdict(
            "uphill",
            "good",
            "The gradient points towards reward",
            f"The cosine of the policy gradient with that of the score is {listed}{by}; of the truth with itself "
            f"{told(ceiling)}.",
        )
    unsure = ", ".join(f"{told(one.with_reward)} at λ = {one.gae_lambda:g}" for one in along if one not in towards)
    return verdict(
        "cannot-tell",
        "unknown",
        "Where the gradient points is open at some λ",
        f"The cosine of the policy gradient with that of the score is {unsure}{by}, which may be either side of 0.",
        "More responses would tell." + (f" At λ = {_lambdas(towards)} it points towards reward." if towards else ""),
        *(("lambda-actor",) if towards else ()),
    )


def _collapse(away: Sequence[Alignment], towards: Sequence[Alignment], by: str) -> Verdict:
    worst = min(away, key=lambda one: one.with_reward.value or 0.0)
    length = widened(worst.with_length, 1)
    then = ""
    if length and length[1] < 0:
        then = f" and shortens responses (cosine with length {told(worst.with_length)})"
    elif length and length[0] > 0:
        then = f" and lengthens responses (cosine with length {told(worst.with_length)})"
    others = [one for one in away if one is not worst]
    also = f" So it does at λ = {_lambdas(others)}." if others else ""
    instead = f", or use λ = {_lambdas(towards)} for the policy until then" if towards else ""
    severity: Severity = "alarm" if worst.method in WHOLE else "warning"
    return verdict(
        "collapse-forecast",
        severity,
        f"At λ = {worst.gae_lambda:g} PPO goes away from reward",
        f"At λ = {worst.gae_lambda:g} the gradient points away from reward (cosine "
        f"{told(worst.with_reward)}){then}{by}."
        + also
        + (f" At λ = {_lambdas(towards)} it points towards reward." if towards else ""),
        f"Pretrain the value model{instead}.",
        "value-pretraining",
        "lambda-actor",
        "lambda-critic",
    )


def _best(critic: CriticPart) -> list[Verdict]:
    if critic.best_lambda is None or not critic.alignment:
        return []
    there = [one for one in critic.alignment if one.gae_lambda == critic.best_lambda]
    agrees = f", where it is {told(there[0].with_reward)}" if there else ""
    return [
        verdict(
            "best-lambda",
            "note",
            f"λ = {short(critic.best_lambda)} suits this critic best",
            f"Of the λ that were tried, the policy gradient agrees best with that of the score at λ = "
            f"{critic.best_lambda:g}{agrees}.",
            "Set it for the policy's advantages, and keep λ = 1 for the critic's targets.",
            "lambda-actor",
            "lambda-critic",
        )
    ]


def _lambdas(along: Sequence[Alignment]) -> str:
    return ", ".join(f"{one.gae_lambda:g}" for one in along)

"""Numbers and verdicts in plain words."""

import math
from collections.abc import Sequence

from vcppo.diagnosis.knobs import Topic, knobs_for
from vcppo.diagnosis.schema import Estimate, Verdict

Severity = str


def shown(estimate: Estimate, size: bool = False) -> str:
    """A number with its interval, to a tenth of the interval's width; `size` leaves out the sign of a negative number.

    >>> shown(Estimate(value=-2.3, low=-2.4, high=-2.2), size=True)
    '2.30 [2.20, 2.40]'
    >>> shown(Estimate(value=0.04, low=-0.0085, high=0.08)), shown(Estimate(value=1.0))
    ('0.040 [-0.009, 0.080]', '1')
    """
    if estimate.value is None:
        return f"unknown ({estimate.why})"
    value, low, high = estimate.value, estimate.low, estimate.high
    if size and value < 0:
        value = -value
        low, high = (None, None) if low is None or high is None else (-high, -low)
    if low is None or high is None:
        return short(value)
    decimals = min(max(math.ceil(-math.log10((high - low) / 10)), 0), 6) if high > low else 2
    return f"{_fixed(value, decimals)} [{_fixed(low, decimals)}, {_fixed(high, decimals)}]"


def short(x: float) -> str:
    """Two decimals, or two figures where that would be nothing; without zeros at the end.

    >>> short(2.3), short(-0.911), short(0.0042), short(0.0), short(1234.5)
    ('2.3', '-0.91', '0.0042', '0', '1234')
    """
    if x == 0 or not math.isfinite(x):
        return f"{x:g}"
    if abs(x) >= 100:
        return f"{x:.0f}"
    text = f"{x:.2f}" if abs(x) >= 0.01 else f"{x:.2g}"
    return text.rstrip("0").rstrip(".") if "." in text and "e" not in text else text


def _fixed(x: float, decimals: int) -> str:
    text = f"{x:.{decimals}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def percent(estimate: Estimate) -> str:
    """A share with its interval in per cent, kept within 0 and 100."""
    if estimate.value is None:
        return f"unknown ({estimate.why})"
    numbers = [estimate.value, estimate.low, estimate.high]
    value, low, high = (None if x is None else f"{100 * min(max(x, 0.0), 1.0):.0f}" for x in numbers)
    return f"{value} %" if low is None else f"{value} % [{low}, {high}]"


def headline(verdicts: Sequence[Verdict]) -> str:
    """Say what is wrong with one critic in a line: titles of its alarms and warnings, those on values as one sentence.

    >>> ill = dict(severity="alarm", critic=None, sentence="")
    >>> titles = ("Values are 2.3 too low everywhere", "Values know the position only", "At λ = 0.95 PPO goes away")
    >>> headline([Verdict(code="offset", title=title, **ill) for title in titles])
    'Values are 2.3 too low everywhere and know the position only: at λ = 0.95 PPO goes away'
    """
    ill = [one.title for one in verdicts if one.severity in ("alarm", "warning")] or [one.title for one in verdicts[:1]]
    subject = "Values "
    said = [title.removeprefix(subject) for title in ill if title.startswith(subject)]
    others = [title for title in ill if not title.startswith(subject)]
    values = [subject + " and ".join(said)] if said else []
    rest = ["; ".join(title[0].lower() + title[1:] if values else title for title in others)] if others else []
    return ": ".join([*values, *rest])


def verdict(
    code: str,
    severity: Severity,
    title: str,
    sentence: str,
    advice: str = "",
    *topics: Topic,
    more: int | None = None,
    lambda_actor: float = 1.0,
) -> Verdict:
    """A verdict on a critic whose name is put in later; `lambda_actor` is what its settings set."""
    return Verdict.model_validate(
        {
            "code": code,
            "severity": severity,
            "critic": None,
            "title": title,
            "sentence": sentence,
            "advice": advice,
            "knobs": knobs_for(*topics, lambda_actor=lambda_actor),
            "more_responses": more,
        }
    )

"""Verdicts on a reading by itself, as a report of it alone would have them."""

from vcppo.diagnosis.data_measures import measure_data
from vcppo.diagnosis.measures import measure_critic
from vcppo.diagnosis.responses import Dump, Reading
from vcppo.diagnosis.schema import CriticPart, DataPart, Verdict
from vcppo.diagnosis.verdicts import judge


def data_of(reading: Reading, resamples: int = 50) -> DataPart:
    """The responses themselves."""
    return measure_data(Dump("here", "verl", ()), reading, seed=0, resamples=resamples)


def judged(reading: Reading, resamples: int = 400) -> tuple[CriticPart, tuple[Verdict, ...]]:
    """The critic's numbers, and what they come to."""
    critic = measure_critic(reading, source="here", layout=None, lambdas=(), seed=0, resamples=resamples)
    return critic, judge(data_of(reading, resamples), critic)


def verdicts(reading: Reading) -> tuple[Verdict, ...]:
    """Verdicts alone."""
    return judged(reading)[1]


def codes(reading: Reading) -> list[str]:
    """Their codes."""
    return [verdict.code for verdict in verdicts(reading)]

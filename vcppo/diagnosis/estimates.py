"""Measured numbers as estimates of the report: NaN becomes null, with the reason."""

import math

import numpy as np

from vcppo.diagnosis.schema import Estimate
from vcppo.maths.prompt_bootstrap import Array, Measured, PromptBootstrap

ONE_PROMPT = "no interval: all responses are to one prompt"
ALIKE = "no interval: it comes out the same whichever prompts are drawn"
UNDEFINED = "no interval: it is not defined in more than a tenth of the draws of prompts"


def estimates(measured: Measured, bootstrap: PromptBootstrap, why: str) -> tuple[Estimate, ...]:
    """One for each number; `why` is said of those that could not be measured."""
    none = ONE_PROMPT if bootstrap.units == 1 else UNDEFINED
    return tuple(
        _one(float(value), float(low), float(high), ALIKE if agree else none, why)
        for value, low, high, agree in zip(measured.value, measured.low, measured.high, measured.agree, strict=True)
    )


def estimate(measured: Measured, bootstrap: PromptBootstrap, why: str) -> Estimate:
    """The only number of its kind."""
    (result,) = estimates(measured, bootstrap, why)
    return result


def number(x: Array | float) -> float | None:
    """None for NaN."""
    return float(x) if np.isfinite(x) else None


def _one(value: float, low: float, high: float, without: str, why: str) -> Estimate:
    if not math.isfinite(value):
        return Estimate(value=None, why=why)
    if not math.isfinite(low):
        return Estimate(value=value, why=without)
    return Estimate(value=value, low=low, high=high)

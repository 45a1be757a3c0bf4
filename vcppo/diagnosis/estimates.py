"""Measured numbers as estimates of the report: NaN becomes null, with the reason."""

import math

import numpy as np

from vcppo.diagnosis.schema import Estimate
from vcppo.maths.prompt_bootstrap import Array, Measured, PromptBootstrap

ONE_PROMPT = "no interval: all responses are to one prompt"
ALIKE = "no interval: it comes out the same, or is not defined, whichever prompts are drawn"


def estimates(measured: Measured, bootstrap: PromptBootstrap, why: str) -> tuple[Estimate, ...]:
    """One for each number; `why` is said of those that could not be measured."""
    return tuple(
        _one(float(value), float(low), float(high), bootstrap.units, why)
        for value, low, high in zip(measured.value, measured.low, measured.high, strict=True)
    )


def estimate(measured: Measured, bootstrap: PromptBootstrap, why: str) -> Estimate:
    """The only number of its kind."""
    (result,) = estimates(measured, bootstrap, why)
    return result


def number(x: Array | float) -> float | None:
    """None for NaN."""
    return float(x) if np.isfinite(x) else None


def _one(value: float, low: float, high: float, units: int, why: str) -> Estimate:
    if not math.isfinite(value):
        return Estimate(value=None, why=why)
    if not math.isfinite(low):
        return Estimate(value=value, why=ONE_PROMPT if units == 1 else ALIKE)
    return Estimate(value=value, low=low, high=high)

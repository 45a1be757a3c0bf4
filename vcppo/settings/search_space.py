"""One dimension of a search: a setting's range or choices, checked against the setting's types."""

import sys
import types
import typing
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from vcppo.settings.base import Settings

Scalar = bool | int | float | str | None


class Dimension(Settings):
    """A range, or choices."""

    low: float | int | None = None
    high: float | int | None = None
    log: bool = Field(False, description="search the range by its logarithm")
    step: float | int | None = Field(None, gt=0, description="distance between the values of a range")
    choices: tuple[Scalar, ...] | None = None

    @field_validator("low", "high", "step", mode="before")
    @classmethod
    def _a_number(cls, value: Any) -> Any:
        if value is not None and not _is_finite(value):
            raise PydanticCustomError("number", "expected a finite number")
        return value

    @field_validator("choices", mode="before")
    @classmethod
    def _a_list(cls, value: Any) -> Any:
        listed = value if isinstance(value, list | tuple) else []
        if not listed or not all(x is None or isinstance(x, bool | str) or _is_finite(x) for x in listed):
            raise PydanticCustomError("choices", "expected a list of finite numbers, texts, true or false")
        return value

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        ranged = self.low is not None and self.high is not None
        if ranged == (self.choices is not None) or (self.choices is not None and (self.log or self.step)):
            raise ValueError("expected either low and high (with log or step), or choices")
        if ranged and (self.low > self.high or (self.log and (self.low <= 0 or self.step))):  # type: ignore[operator]
            raise ValueError(f"range {self.low} to {self.high}: expected low <= high; with log, low > 0 and no step")
        return self

    def extremes(self) -> tuple[Scalar, ...]:
        """The ends of the range, or every choice: if a setting takes these, it takes all between."""
        return self.choices if self.choices is not None else (self.low, self.high)


def misfits(dimension: Dimension, kinds: tuple[Any, ...]) -> Iterator[str]:
    """Yield reasons why a search could not try all that a dimension has, each with what was wanted.

    A whole number may be written as 10.0, as everywhere in the settings.

    Args:
        kinds: the types that the setting may have, as `setting_type` tells them.
    """
    if dimension.choices is not None:
        yield from _misfit_choices(dimension.choices, kinds)
        return
    numbers = {name: x for name in ("low", "high", "step") if (x := getattr(dimension, name)) is not None}
    if not {int, float} & set(kinds):
        given = ", ".join(f"{name} = {x}" for name, x in numbers.items())
        yield f"{given}: the setting has no range, expected choices, each {_words(kinds)}"
        return
    broken = [f"{name} = {x}" for name, x in numbers.items() if float not in kinds and x != int(x)]
    if broken:
        yield f"{', '.join(broken)}: expected {'whole numbers' if len(broken) > 1 else 'a whole number'}"
    elif dimension.step is not None:
        low, high, step = (Fraction(str(numbers[name])) for name in ("low", "high", "step"))  # as it was written
        width = high - low
        if step > width:
            yield f"step = {dimension.step}: expected no more than high - low, or low = {dimension.low} alone is tried"
        elif width % step:
            yield (
                f"high = {dimension.high}: steps of {dimension.step} from {dimension.low} end at "
                f"{float(high - width % step):g}; expected that, or another step"
            )


def _misfit_choices(choices: tuple[Scalar, ...], kinds: tuple[Any, ...]) -> Iterator[str]:
    for number, choice in enumerate(choices):
        if not any(_is_a(choice, kind) for kind in kinds):
            yield f"choices has {choice!r}: expected {_words(kinds)}"
        elif choice in choices[:number]:
            yield f"choices has {choice!r} twice: expected each once"


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _is_a(value: Scalar, kind: Any) -> bool:
    if typing.get_origin(kind) is Literal:
        return value in typing.get_args(kind)
    if kind in (int, float):
        return isinstance(value, int | float) and not isinstance(value, bool) and (kind is float or value == int(value))
    return isinstance(value, kind)


def _words(kinds: tuple[Any, ...]) -> str:
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", types.NoneType: "`none`"}
    listed: list[str] = []
    for kind in kinds:
        listed += [f"`{name}`" for name in typing.get_args(kind)] or [names[kind]]
    return f"one of {', '.join(listed)}" if len(listed) > 2 else " or ".join(listed)

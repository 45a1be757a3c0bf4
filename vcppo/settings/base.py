"""The base class of every section of the settings, and types that several of them share."""

import os
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict
from pydantic_core import PydanticCustomError

Aggregation = Literal["token-mean", "sequence-mean", "fixed-length"]
Never = Literal["never"]


class Settings(BaseModel):
    """Frozen and closed: an unknown name is an error, never ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    in_every_record: ClassVar[bool] = True  # of a kind of a section: its settings are in records of other kinds too


def positive_interval(interval: int | str) -> int | str:
    """Refuse an interval below 1, for pydantic to report; a word such as `never` passes."""
    if isinstance(interval, int) and interval < 1:
        raise PydanticCustomError("interval", "expected 1 or more, or `never`")
    return interval


def in_home(path: str | None) -> str | None:
    """Return a path with the home folder in place of a leading `~`; a hub name as it is."""
    return None if path is None else os.path.expanduser(path)

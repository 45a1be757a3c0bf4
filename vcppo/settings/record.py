"""Monitoring of a run: mismatch, limits that warn or stop it, and what it records."""

from typing import Literal

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from vcppo.settings.base import Settings

ALIGNMENT_EVERY = 50  # one measurement costs as much as an iteration on the embedded task: docs/diagnose.md


class MismatchSettings(Settings):
    """The generator's probabilities of its tokens beside the trainer's."""

    check: Literal["auto", "always", "never"] = Field(
        "auto", description="read log-probabilities again before training; auto: if generator or passes differ"
    )
    cap: float | None = Field(
        2.0, gt=0, description="truncated importance weight of a token, trainer over generator; none: no correction"
    )
    alarm: float = Field(0.05, gt=0, description="mean |difference| (nats) above which an iteration warns")


class GuardSettings(Settings):
    """Limits beyond which training warns or stops."""

    max_ratio: float = Field(1e4, gt=1, description="a probability ratio above this ends the run")
    kl_alarm: float = Field(
        0.05, gt=0, description="approx_kl (nats a token) between an iteration's updates above which it warns"
    )
    on_warning: Literal["continue", "stop"] = Field(
        "continue", description="at the first early warning: go on, or end RL after that iteration and evaluate"
    )


class RecordSettings(Settings):
    """Checkpoints, tables and measurements of a run: how often, and how large."""

    checkpoint_every: int = Field(10, ge=1, description="iterations between checkpoints to resume from")
    checkpoint_every_s: float = Field(
        120.0,
        gt=0,
        description="seconds after which every stage saves its state, whatever its steps; changes no result",
    )
    positions_every: int = Field(5, ge=1, description="iterations between tables of the critic by token position")
    samples_every: int = Field(10, ge=1, description="iterations between tables of sampled responses")
    samples: int = Field(4, ge=1, description="responses in such a table")
    alignment_every: int | Literal["auto"] = Field(
        "auto",
        description="iterations between measurements of whether the policy gradient points uphill, from the first one "
        f"on; 0 for none; auto: {ALIGNMENT_EVERY} with a critic on an embedded task without model.path, else 0",
    )
    truth_every: int = Field(0, ge=0, description="iterations between tables of true values; 0 for none")
    truth_responses: int = Field(8, ge=1, description="responses whose states are measured")
    truth_samples: int = Field(256, ge=2, description="continuations of each state, where its value cannot be computed")
    forecast_responses: int = Field(
        0,
        ge=0,
        description="responses of the first policy that a forecast of the run is made from before its first iteration, "
        "1024 tell most; 0 for none",
    )

    @field_validator("alignment_every")
    @classmethod
    def _not_negative(cls, interval: int | str) -> int | str:
        if isinstance(interval, int) and interval < 0:
            raise PydanticCustomError("interval", "expected 0 or more, or `auto`")
        return interval

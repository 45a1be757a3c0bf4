"""Logged responses: what any trainer's dump has in common, and what a critic says of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vcppo.errors import ShapeError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


Encoder = Callable[[Sequence[str], "PreTrainedTokenizerFast"], Sequence[tuple[int, ...]]]


@dataclass(frozen=True)
class LoggedResponse:
    """One response as it was logged; what the dump does not tell is None. T response tokens.

    Prompt and response are text or token ids, at least one of the two each. `messages` is a conversation that a chat
    template has still to render; then `prompt` is "".
    """

    problem: str  # equal for responses to the same prompt
    score: float  # the outcome, in units of reward
    prompt: str = ""
    messages: tuple[Mapping[str, Any], ...] | None = None
    prompt_tokens: tuple[int, ...] | None = None
    text: str | None = None
    tokens: tuple[int, ...] | None = None  # [T] generated ids, end-of-sequence included where it was logged
    values: tuple[float, ...] | None = None  # [T] V before each token is chosen
    rewards: tuple[float, ...] | None = None  # [T] they sum to what was optimised, penalties included
    logprobs: tuple[float, ...] | None = None  # [T] nats, when sampled
    truncated: bool | None = None  # cut at the length limit
    step: int | None = None  # of training
    line: int = 0  # where in its file, from 1


@dataclass(frozen=True)
class Dump:
    """The responses of one or several files, and what has to be said of how they were read."""

    source: str  # as the user named it
    form: str  # of FORMS in dumps: "verl", "trl", ...
    responses: tuple[LoggedResponse, ...]
    notes: tuple[str, ...] = ()  # one line each: what was skipped, assumed or derived
    encode: Encoder | None = None  # prompts that are text as the policy had them, in their template; None: as they are


_BY_RESPONSE = ("scores", "problem", "rows", "first_state")  # columns of a reading that are [B]


@dataclass(frozen=True)
class Reading:
    """One critic's values of every state of a dump's responses. B responses, T tokens of the longest."""

    critic: str  # its name in the report
    values: Tensor  # [B, T] float32  V(s_t), before token t is chosen
    returns: Tensor  # [B, T] float32  Monte-Carlo, gamma 1: the rewards to come
    response_mask: Tensor  # [B, T] bool     True on a prefix of each row
    scores: Tensor  # [B] float32     the outcome
    problem: Tensor  # [B] int64       equal for responses to the same prompt
    notes: tuple[str, ...] = ()
    rows: Tensor | None = None  # [B] int64       which of the dump's responses; None: all, in their order
    columns: Tensor | None = None  # [B, T] int64   which token of its response a column stands before; None: the t-th
    tokens: Tensor | None = None  # [B, T] int64    ids that the values stand before; None: not known of all
    first_state: Tensor | None = None  # [B] int64   equal where V before the first token must be; None: `problem`

    def __post_init__(self) -> None:
        rows, width = self.response_mask.shape
        for column in fields(self):
            if column.name in ("critic", "notes") or getattr(self, column.name) is None:
                continue
            got = tuple(getattr(self, column.name).shape)
            want: tuple[int, ...] = (rows,) if column.name in _BY_RESPONSE else (rows, width)
            if got != want:
                raise ShapeError(f"Reading.{column.name}: shape {got}, expected {want} beside response_mask")

    def take(self, members: Tensor, *notes: str) -> "Reading":
        """These of its responses, by their places among the B, cut to the width that they need; with more notes."""
        width = int(self.response_mask[members].sum(dim=1).max())
        tensors = {name: x for name, x in vars(self).items() if isinstance(x, Tensor)}
        tensors.setdefault("rows", torch.arange(len(self.values)))
        taken: dict[str, Any] = {
            name: x[members] if x.dim() == 1 else x[members, :width] for name, x in tensors.items()
        }
        return replace(self, **taken, notes=(*self.notes, *notes))

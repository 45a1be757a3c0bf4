"""The types that pass from room to room: prompt, rollout, verdict, and batches of responses as tensors.

Legend of shapes: B responses in a batch, T tokens of the longest response, S tokens of the longest prompt with its
response.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar, Literal, NamedTuple, Self

import torch
from torch import Tensor

from vcppo.errors import ShapeError

StopReason = Literal["stop", "length"]


class Verdict(StrEnum):
    """The verifier's outcome for a response; an unreadable one is distinct from a wrong one."""

    CORRECT = "correct"
    WRONG = "wrong"
    UNREADABLE = "unreadable"


@dataclass(frozen=True)
class Prompt:
    """One problem. `text` is the question, before any template; `answer` is the reference answer."""

    name: str
    text: str
    answer: str


class Judgement(NamedTuple):
    """The verdict on one response, of an unreadable one the reason, in a word or two, and partial credit if any."""

    verdict: Verdict
    note: str = ""
    credit: float | None = None  # in [0, 1]: the score's share of the way from wrong to correct; None: the verdict says


def credit_of(verdict: Verdict, credit: float | None) -> float:
    """Credit of a response in [0, 1]: what its task gave, else 1 where it is correct and 0 where it is not."""
    return float(verdict is Verdict.CORRECT) if credit is None else credit


@dataclass(frozen=True)
class Demonstration:
    """A prompt with a response to imitate."""

    prompt: Prompt
    response: str


@dataclass(frozen=True)
class Generation:
    """An engine's response to one prompt."""

    tokens: tuple[int, ...]  # generated ids, end-of-sequence included where it was generated
    logprobs: tuple[float, ...]  # nats, of each token under the policy at the sampling temperature
    stop_reason: StopReason  # "stop": the policy ended the response; "length": it was cut at the limit


@dataclass(frozen=True)
class Rollout:
    """One response to one prompt, verified; vcppo/rl/rewards.py turns its verdict into a score."""

    prompt: Prompt
    prompt_tokens: tuple[int, ...]
    generation: Generation
    text: str
    verdict: Verdict
    note: str = ""  # why it is unreadable
    credit: float | None = None  # see Judgement


@dataclass(frozen=True)
class DecisionPath:
    """A response's way to its end, and where the ways lead that it did not take: what exact values are computed from.

    A token that is neither `tokens[place]` nor listed for its place fails the response for good.
    """

    tokens: tuple[str, ...]  # as the tokenizer names them: what the response wrote while on its way, then a right end
    written: int  # how many of them the response wrote; one that wrote more has left its way there (`left_for`)
    errors: Mapping[int, Mapping[str, int]] = field(
        default_factory=dict
    )  # by place: every token after which the way goes on unchanged, and the errors it adds; elsewhere tokens[place], 0
    exits: Mapping[int, Mapping[str, "float | DecisionPath"]] = field(
        default_factory=dict
    )  # by place: the chance that a response that writes this token is judged correct, or its way from there on
    errors_allowed: int = 0  # a response is right with no more of them
    correct_if_right: float = 1.0  # chance that a right response is judged correct
    correct_if_failed: float = 0.0  # the same of one that has failed
    lasting: bool = False  # what is tolerated changes what the policy does later: another token than tokens[place] is
    # none of the response's `written`, it begins a `detour`, and what detours cost is read (vcppo/rl/ways.py)

    def left_for(self, pieces: Sequence[str]) -> "float | DecisionPath | None":
        """What a response has left its way for: an exit's worth, or a way; None where it has not, or for good.

        Args:
            pieces: its tokens by name, or those that it wrote since this way began.
        """
        if len(pieces) <= self.written:
            return None
        token = pieces[self.written]
        if self.lasting and token in self.errors.get(self.written, {}):
            return self.detour(self.written, pieces[self.written + 1 :])
        return self.exits.get(self.written, {}).get(token)

    def detour(self, place: int, pieces: Sequence[str]) -> Self:
        """The rest of the way, behind another token than `tokens[place]`; errors made before are not counted on it.

        Args:
            pieces: what a response wrote behind that token.
        """
        tokens = self.tokens[place + 1 :]
        agree = itertools.takewhile(lambda both: both[0] == both[1], zip(tokens, pieces, strict=False))
        errors = {later - place - 1: listed for later, listed in self.errors.items() if later > place}
        exits = {later - place - 1: listed for later, listed in self.exits.items() if later > place}
        return dataclasses.replace(self, tokens=tokens, written=len(list(agree)), errors=errors, exits=exits)


@dataclass(frozen=True)
class TokenBatch:
    """Prompts with responses as token ids, right-padded; column t of [B, T] is the t-th token of the response."""

    input_ids: Tensor  # [B, S] int64    prompt, response, padding
    prompt_lengths: Tensor  # [B] int64       tokens before the response, at least 1
    response_mask: Tensor  # [B, T] bool     True on a response's tokens, end-of-sequence included; a prefix of each row

    PER_TOKEN: ClassVar[tuple[str, ...]] = ("response_mask",)  # the fields of shape [B, T]

    def __post_init__(self) -> None:
        rows, width = self.response_mask.shape
        for column in dataclasses.fields(self):
            want: tuple[int, ...] = (rows, width) if column.name in self.PER_TOKEN else (rows,)
            if column.name == "input_ids":
                want = (rows, self.input_ids.shape[-1])
            got = tuple(getattr(self, column.name).shape)
            if got != want:
                raise ShapeError(
                    f"{type(self).__name__}.{column.name}: shape {got}, expected {want} beside response_mask "
                    f"{rows, width}"
                )
        if not bool((self.response_mask[:, 1:] <= self.response_mask[:, :-1]).all()):
            raise ShapeError(
                f"{type(self).__name__}.response_mask: a row has a hole, expected True on a prefix of each row"
            )
        if rows and int(self.prompt_lengths.min()) < 1:
            raise ShapeError(
                f"{type(self).__name__}.prompt_lengths: an empty prompt, expected a token or more before the response"
            )

    @property
    def lengths(self) -> Tensor:
        """[B] int64: tokens of each response."""
        return self.response_mask.sum(dim=1)

    @property
    def total_lengths(self) -> Tensor:
        """[B] int64: tokens of each prompt with its response."""
        return self.prompt_lengths + self.lengths

    @property
    def response_tokens(self) -> Tensor:
        """[B, T] int64: the response's ids, 0 where the mask is False."""
        columns = self.prompt_lengths[:, None] + torch.arange(self.response_mask.shape[1])
        tokens = self.input_ids.gather(1, columns.clamp(max=self.input_ids.shape[1] - 1))
        return torch.where(self.response_mask, tokens, 0)

    def take(self, rows: Tensor) -> Self:
        """Take these rows, cut to the width that they need."""
        mask = self.response_mask[rows]
        width = max(int(mask.sum(dim=1).max()), 1)
        total = int((self.prompt_lengths[rows] + mask.sum(dim=1)).max())
        cut = {"input_ids": total, **dict.fromkeys(self.PER_TOKEN, width)}
        picked = {field.name: getattr(self, field.name)[rows] for field in dataclasses.fields(self)}
        return type(self)(**{name: x[:, : cut[name]] if name in cut else x for name, x in picked.items()})


@dataclass(frozen=True)
class RolloutBatch(TokenBatch):
    """Sampled responses as tensors, with log-probabilities and verdicts from when they were sampled."""

    old_logprobs: Tensor  # [B, T] float32  nats, under the policy that sampled, at its temperature
    scores: Tensor  # [B] float32     the verifier's outcome in units of reward
    correct: Tensor  # [B] bool        whether the verdict is correct, whatever its score
    truncated: Tensor  # [B] bool        cut at the length limit
    group: Tensor  # [B] int64       equal for responses to the same prompt

    PER_TOKEN: ClassVar[tuple[str, ...]] = ("response_mask", "old_logprobs")


def cut_to(x: Tensor, rows: Tensor, batch: TokenBatch) -> Tensor:
    """Rows of a [B, T] tensor that belongs to the batch which `batch` was taken from, at `batch`'s width."""
    return x[rows, : batch.response_mask.shape[1]]

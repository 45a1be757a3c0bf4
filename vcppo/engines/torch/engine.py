"""The engine that needs nothing but torch: one batch, one key/value cache, few kernels per token.

The transformers module is read once after each weight update into fused matrices; a step of decoding then costs
about twenty small kernels per layer. Rows that have ended are dropped from the batch. Every response has a stream of
uniform numbers to itself, so it does not depend on the rest of the batch or on when others are dropped.

A family that those matrices are not made for is decoded by its own forward passes (`ForwardDecoder`).
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from vcppo.engines.base import BranchPoint, Sampling, check_room, checked
from vcppo.engines.torch.decoder import FAMILIES, Decoder, reads
from vcppo.engines.torch.forward_decoder import ForwardDecoder
from vcppo.models.configurations import end_tokens, model_label, positions
from vcppo.models.sharding import plain
from vcppo.models.token_count import count_tokens
from vcppo.settings.fixed import COMPACT_BELOW, GENERATOR_ROWS
from vcppo.types import Generation

UNWRITTEN = -1
READ_ONCE = 32  # tokens of a prompt from which on a copy of what was read costs less than reading it again
NUCLEUS_FIRST = 512  # likeliest tokens among which a nucleus is looked for first


class StepDecoder(Protocol):
    """One batch, written step by step; `Decoder` says what each of these does."""

    device: torch.device

    def start(self, prompts: Sequence[Sequence[int]], *, room: int) -> Tensor: ...

    def read(self, stems: Sequence[Sequence[int]]) -> Any: ...

    def fork(self, stems: Any, owners: Tensor, lengths: Tensor, *, room: int) -> Tensor: ...

    def step(self, tokens: Tensor) -> Tensor: ...

    def keep(self, rows: Tensor) -> None: ...

    def take(self, indices: Tensor) -> None: ...

    def forget(self) -> None: ...


def note_on(config: PretrainedConfig) -> str | None:
    """A line for people where a model is decoded the slow way."""
    if reads(config):
        return None
    why = " with sliding windows" if config.model_type in FAMILIES else ""
    return (
        f"{config.model_type}{why}: its responses are written by transformers' forward passes; the torch engine's own "
        f"decoder, which is faster, knows {', '.join(FAMILIES)}"
    )


class TorchEngine:
    """Samples with a `StepDecoder` in this process, `rows` responses at a time."""

    def __init__(self, policy: PreTrainedModel, *, rows: int = GENERATOR_ROWS) -> None:
        self.rows = rows
        self.update_weights(policy)

    def update_weights(self, policy: PreTrainedModel) -> None:
        """See Engine."""
        vars(self).pop("_decoder", None)  # before the new one is made: two copies of the weights may not fit
        whole = plain(policy)
        self._decoder: StepDecoder = Decoder(whole) if reads(policy.config) else ForwardDecoder(whole)
        self._ends, self._positions, self._label = end_tokens(policy), positions(policy.config), model_label(policy)

    @torch.inference_mode()
    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, *, seed: int, first: int = 0
    ) -> list[Generation]:
        """See Engine."""
        if not prompts:
            return []
        check_room([(len(prompt), sampling.max_tokens) for prompt in prompts], self._positions)
        uniforms = self._uniforms(len(prompts), sampling, seed, first)
        generations: list[Generation] = []
        for start in range(0, len(prompts), self.rows):
            batch = prompts[start : start + self.rows]
            limits = torch.full((len(batch),), sampling.max_tokens, device=self._decoder.device)
            logits = self._start(batch, room=sampling.max_tokens)
            generations += self._generate(logits, uniforms[:, start : start + self.rows], limits, sampling)
        return generations

    def _start(self, prompts: Sequence[Sequence[int]], *, room: int) -> Tensor:
        """Begin a batch; of prompts that come several times, if any is long, each is read once."""
        places = {prompt: place for place, prompt in enumerate(dict.fromkeys(map(tuple, prompts)))}
        if len(places) == len(prompts) or max(map(len, places)) < READ_ONCE:
            count_tokens(sum(map(len, prompts)))
            return self._decoder.start(prompts, room=room)
        count_tokens(sum(map(len, places)))
        owners = torch.tensor([places[tuple(prompt)] for prompt in prompts], device=self._decoder.device)
        logits = self._decoder.start(list(places), room=room)
        self._decoder.take(owners)
        return logits[owners]

    @torch.inference_mode()
    def branch(
        self,
        stems: Sequence[Sequence[int]],
        points: Sequence[BranchPoint],
        sampling: Sampling,
        *,
        seed: int,
        first: int = 0,
    ) -> list[Generation]:
        """See Engine. Points are taken stem by stem, some stems at a time, `rows` points at a time."""
        decoder = self._decoder
        for point in points:
            self._check(point, stems)
        check_room([(point.length, min(point.limit, sampling.max_tokens)) for point in points], self._positions)
        uniforms = self._uniforms(len(points), sampling, seed, first)
        generations: dict[int, Generation] = {}
        for members in _by_stem(points, self.rows):
            stem_numbers = sorted({points[i].stem for i in members})
            place = {stem: owner for owner, stem in enumerate(stem_numbers)}
            stems_read = decoder.read([stems[stem] for stem in stem_numbers])
            for block in _evenly(members, self.rows):
                owners, lengths, limits = torch.tensor(
                    [
                        (place[points[i].stem], points[i].length, min(points[i].limit, sampling.max_tokens))
                        for i in block
                    ],
                    device=decoder.device,
                ).unbind(dim=1)
                logits = decoder.fork(stems_read, owners, lengths, room=int(limits.max()))
                generations.update(
                    zip(block, self._generate(logits, uniforms[:, block], limits, sampling), strict=True)
                )
        return [generations[i] for i in range(len(points))]

    def _check(self, point: BranchPoint, stems: Sequence[Sequence[int]]) -> None:
        assert 0 <= point.stem < len(stems), f"{point}: there are {len(stems)} stems"
        stem = stems[point.stem]
        assert 1 <= point.length <= len(stem), f"{point}: its stem has {len(stem)} tokens"
        assert point.limit >= 1, f"{point}: nothing to write"
        assert stem[point.length - 1] not in self._ends, f"{point}: the response has ended there"

    def _uniforms(self, rows: int, sampling: Sampling, seed: int, first: int) -> Tensor:
        """[max_tokens, rows] in [0, 1): a stream per row, those of rows `first` and after."""
        rng = torch.Generator().manual_seed(seed)
        drawn = torch.rand((first + rows, sampling.max_tokens), generator=rng)[first:]
        return drawn.T.contiguous().to(self._decoder.device)

    def _generate(self, logits: Tensor, uniforms: Tensor, limits: Tensor, sampling: Sampling) -> list[Generation]:
        """Draw tokens for the decoder's batch until every row has ended or reached its limit.

        Args:
            logits: [B, V] of the first token. uniforms: [T, B]. limits: [B], 1 to T tokens.
        Raises:
            TrainingError: the logits are not finite.
        """
        decoder, device, count = self._decoder, self._decoder.device, len(limits)
        longest = int(limits.max())
        tokens = torch.full((longest, count), UNWRITTEN, device=device)
        logprobs = torch.zeros((longest, count), device=device)

        ends = torch.tensor(self._ends, dtype=torch.int64, device=device)
        rows = torch.arange(count, device=device)  # which responses the batch still holds
        ended = torch.zeros_like(rows, dtype=torch.bool)  # which of them have ended; tokens after that are cut off
        for t in range(longest):
            chosen, chosen_logprobs = sample(logits, uniforms[t, rows], sampling)
            tokens[t, rows], logprobs[t, rows] = chosen, chosen_logprobs
            ended |= torch.isin(chosen, ends) | (limits[rows] == t + 1) | chosen_logprobs.isnan()
            count_tokens(len(rows))
            live = len(rows) - int(ended.sum())
            if live == 0:
                break
            if live < COMPACT_BELOW * len(rows):
                going_on = ~ended
                rows, chosen, ended = rows[going_on], chosen[going_on], ended[going_on]
                decoder.keep(going_on)
            logits = decoder.step(chosen)
        decoder.forget()
        written = zip(tokens.T.tolist(), logprobs.T.tolist(), limits.tolist(), strict=True)
        generations = [
            _cut_at_end(row[:limit], row_logprobs[:limit], self._ends) for row, row_logprobs, limit in written
        ]
        return checked(generations, self._label)


def _by_stem(points: Sequence[BranchPoint], rows: int) -> Iterator[list[int]]:
    """Group numbers of points by stem: as many stems at a time as have `rows` points together, or else one."""
    order = sorted(range(len(points)), key=lambda i: points[i].stem)
    members: list[int] = []
    for _, group in itertools.groupby(order, key=lambda i: points[i].stem):
        more = list(group)
        if members and len(members) + len(more) > rows:
            yield members
            members = []
        members = members + more
    if members:
        yield members


def _evenly(members: list[int], rows: int) -> Iterator[list[int]]:
    """Split in order, into as few blocks of at most `rows` as will do, of nearly one size."""
    size = -(-len(members) // -(-len(members) // rows))
    return (members[start : start + size] for start in range(0, len(members), size))


def sample(logits: Tensor, uniforms: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """Draw by inverting the cumulative distribution at `uniforms`; at temperature 0 take the likeliest token.

    Args:
        logits: [B, V]. uniforms: [B] in [0, 1).
    Returns:
        ([B] tokens, [B] log-probabilities before any nucleus cut, at the temperature, or greedily at 1). Where logits
        are not finite the token is meaningless, and its log-probability is NaN.
    """
    if sampling.temperature == 0.0:
        likeliest = logits.argmax(dim=-1, keepdim=True)
        return likeliest[:, 0], torch.log_softmax(logits, dim=-1).gather(1, likeliest)[:, 0]
    all_logprobs = torch.log_softmax(logits / sampling.temperature, dim=-1)
    weights = all_logprobs.exp()
    if sampling.top_p < 1.0:
        weights = weights.masked_fill(outside_nucleus(weights, sampling.top_p), 0.0)
    cumulative = weights.cumsum(dim=-1)
    total = cumulative[:, -1]
    point = torch.minimum(uniforms * total, total.nextafter(torch.zeros_like(total)))  # rounding must not reach total
    chosen = torch.searchsorted(cumulative, point[:, None], right=True)
    chosen.clamp_(max=logits.shape[-1] - 1)  # among NaNs it finds no place
    return chosen[:, 0], all_logprobs.gather(1, chosen)[:, 0]


def outside_nucleus(weights: Tensor, top_p: float) -> Tensor:
    """[B, V] bool: tokens that are not among the likeliest ones that together reach `top_p`.

    Of a large vocabulary the likeliest `NUCLEUS_FIRST` are nearly always enough; where they are not, eight times as
    many are looked at, and so on, and at last all of it is sorted.

    Args:
        weights: [B, V] probabilities.
    """
    count, enough = NUCLEUS_FIRST, False
    while not enough:
        enough = count >= weights.shape[-1]
        ordered, order = weights.sort(dim=-1, descending=True) if enough else weights.topk(count, dim=-1)
        reached = ordered.cumsum(dim=-1)
        enough = enough or bool((reached[:, -1] >= top_p).all())
        count *= 8
    return torch.ones_like(weights, dtype=torch.bool).scatter_(1, order, reached - ordered >= top_p)


def _cut_at_end(tokens: list[int], logprobs: list[float], ends: Sequence[int]) -> Generation:
    """Cut a response after its first end of sequence."""
    length = next((i for i, token in enumerate(tokens, 1) if token in ends), None)
    return Generation(tuple(tokens[:length]), tuple(logprobs[:length]), "length" if length is None else "stop")

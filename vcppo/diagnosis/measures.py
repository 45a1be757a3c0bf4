"""One critic's reading as numbers of the report, each with its 95 % interval over prompts.

Everything is against Monte-Carlo returns. Means are over tokens: a long response counts more, and a perfect critic's
error has mean 0 for all that, since a token is there or not before its value is read. That does not hold of what only
the end tells: of fractions of a response, of positions from the end and of lengths. A perfect critic may be off in such
a bin, for what comes later decides who is in it; so no verdict rests on a bin of that kind alone.
Values that are NaN or infinite are left out, and counted.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from vcppo.diagnosis import curves
from vcppo.diagnosis.data_measures import ONE_RESPONSE, RESAMPLES, drawn_prompts, right_from
from vcppo.diagnosis.estimates import estimate, estimates, number
from vcppo.diagnosis.responses import Reading
from vcppo.diagnosis.schema import (
    CriticPart,
    Estimate,
    LambdaShare,
    RankAt,
    Reacts,
    Regressor,
    Section,
    Signal,
    Timing,
)
from vcppo.errors import DataError
from vcppo.maths.critic_error import ErrorParts, error_columns, error_parts, stacked
from vcppo.maths.critic_opinion import opinion
from vcppo.maths.critic_ranking import auc_across, auc_within
from vcppo.maths.critic_timing import first_gaps, splits, timing
from vcppo.maths.critic_variance import Composition, composition, looked_at, roughness
from vcppo.maths.prompt_bootstrap import Array, Index, PromptBootstrap

FRACTIONS = (0.1, 0.25, 0.5, 0.75)
SAME = 1e-6  # of values and returns: a critic's own are never as near on all tokens
SECTIONS = (("first half", 0.0, 0.5), ("middle", 0.5, 0.9), ("last tenth", 0.9, 1.0))


@dataclass(frozen=True)
class Tokens:
    """The tokens of a reading whose value is known, flat. N tokens of B responses."""

    value: Array  # [N]
    target: Array  # [N] the return
    row: Index  # [N] of its response
    position: Index  # [N] from the start, from 0
    lengths: Index  # [B]
    state: Index  # [B] of its first state
    bootstrap: PromptBootstrap

    @cached_property
    def unit(self) -> Index:
        """[N], what the bootstrap draws it with."""
        return self.bootstrap.unit[self.bootstrap.prompt[self.row]]

    @cached_property
    def fraction(self) -> Array:
        """[N], where in its response, above 0 and below 1."""
        result: Array = (self.position + 0.5) / self.lengths[self.row]
        return result

    @cached_property
    def shift(self) -> float:
        """Median value, subtracted from values and returns against cancellation."""
        return float(np.median(self.value))

    @cached_property
    def columns(self) -> list[Array]:
        """Columns [N] that errors are summed from."""
        return error_columns(self.value, self.target, self.shift)


def measure_critic(
    reading: Reading,
    *,
    source: str,
    layout: str | None,
    lambdas: Sequence[float],
    seed: int,
    resamples: int = RESAMPLES,
) -> CriticPart:
    """All that values, returns and scores say of a critic; `alignment` is left to those who have the policy."""
    live, finite = reading.response_mask.numpy(), finite_cells(reading)
    missing = int((live & ~finite).sum())
    result = CriticPart(
        name=reading.critic,
        source=source,
        layout=layout,
        notes=reading.notes,
        not_finite=missing,
        regressor=None,
        ranker=(),
        reacts=None,
        lambdas=(),
    )
    if not finite.any():
        why = "no token's value is finite" if live.any() else "no response has a token"
        return result.model_copy(update={"why": why})
    tokens = tokens_of(reading, seed=seed, resamples=resamples)
    parts = _composition(tokens)
    return result.model_copy(
        update={
            "regressor": regressor(tokens),
            "ranker": ranker(reading, tokens.bootstrap),
            "reacts": _reacts(parts, tokens.bootstrap),
            "signal": _signal(parts, tokens.bootstrap),
            "timing": _timing(reading, parts, tokens.bootstrap),
            "lambdas": lambda_shares(reading, lambdas, seed=seed, resamples=resamples),
            "values_are_returns": _are_returns(tokens),
        }
    )


def finite_cells(reading: Reading) -> NDArray[np.bool_]:
    """[B, T], tokens whose value and return are finite numbers."""
    known = reading.response_mask & reading.values.isfinite() & reading.returns.isfinite()
    result: NDArray[np.bool_] = known.numpy()
    return result


def first_states(reading: Reading) -> Index:
    """[B] numbers from 0, equal for responses to one prompt that begin in one state of one critic."""
    state = reading.problem if reading.first_state is None else reading.first_state
    pairs = torch.stack([reading.problem, state], dim=1)
    result: Index = torch.unique(pairs, dim=0, return_inverse=True)[1].numpy()
    return result


def tokens_of(reading: Reading, *, seed: int, resamples: int = RESAMPLES) -> Tokens:
    """The tokens whose value is known, and the draws of prompts that every interval comes from.

    Raises:
        DataError: none.
    """
    finite = finite_cells(reading)
    if not finite.any():
        raise DataError(f"{reading.critic}: no token has a finite value: expected at least one")
    row, position = np.nonzero(finite)
    return Tokens(
        value=reading.values.numpy()[finite].astype(np.float64),
        target=reading.returns.numpy()[finite].astype(np.float64),
        row=row.astype(np.int64),
        position=position.astype(np.int64),
        lengths=reading.response_mask.sum(dim=1).numpy(),
        state=first_states(reading),
        bootstrap=drawn_prompts(reading.problem, seed=seed, resamples=resamples),
    )


def regressor(tokens: Tokens) -> Regressor:
    """The critic's error, split and along four axes."""
    sums = tokens.bootstrap.sums(tokens.unit, tokens.columns)[:, 0]
    whole = error_parts(sums.sum(axis=0), tokens.shift)
    result = _by_name(tokens, sums)
    constant, alike = "all values are equal", "all returns are equal"
    nothing, sloping = "no error to be split", alike if whole.value_std > 0 else constant
    return Regressor(
        bias=result("bias"),
        slope=result("slope", sloping),
        intercept=result("intercept", sloping),
        rmse=result("rmse"),
        share_offset=result("share_offset", nothing),
        share_slope=result("share_slope", nothing),
        share_rest=result("share_rest", nothing),
        explained_variance=result("explained_variance", alike),
        value_std=number(whole.value_std),
        return_std=number(whole.return_std),
        value_low=float(tokens.value.min()),
        value_high=float(tokens.value.max()),
        sections=_sections(tokens),
        from_start=curves.from_start(tokens),
        from_end=curves.from_end(tokens),
        by_fraction=curves.by_fraction(tokens),
        by_length=curves.by_length(tokens),
        calibration=curves.calibration(tokens),
    )


def ranker(reading: Reading, bootstrap: PromptBootstrap) -> tuple[RankAt, ...]:
    """AUC of V before the token at each fraction of a response, floor(fraction * length); see `right_from`."""
    finite, lengths = finite_cells(reading), reading.response_mask.sum(dim=1).numpy()
    scores = reading.scores.numpy().astype(np.float64)
    right = scores >= right_from(scores)
    result = []
    for fraction in FRACTIONS:
        at = np.minimum((fraction * lengths).astype(np.int64), np.maximum(lengths - 1, 0))
        known = finite[np.arange(len(at)), at] & np.isfinite(scores)
        if right[known].all() or not right[known].any():
            nothing = Estimate(value=None, why="needs responses that are right and responses that are not")
            result.append(RankAt(fraction=fraction, within_prompts=nothing, across_prompts=nothing))
            continue
        value = reading.values.numpy()[np.arange(len(at)), at][known].astype(np.float64)
        given = (value, right[known], bootstrap, bootstrap.prompt[known])
        result.append(
            RankAt(
                fraction=fraction,
                within_prompts=estimate(auc_within(*given), bootstrap, "no prompt has a right response and another"),
                across_prompts=estimate(auc_across(*given), bootstrap, "needs two prompts"),
            )
        )
    return tuple(result)


def lambda_shares(
    reading: Reading, lambdas: Iterable[float], *, seed: int, resamples: int = RESAMPLES
) -> tuple[LambdaShare, ...]:
    """Compute the shares of reward and values in advantages at each lambda, over responses whose values are all finite.

    A value that is not finite would stand in every advantage before it.
    """
    live = reading.response_mask
    whole = ((torch.from_numpy(finite_cells(reading)) | ~live).all(dim=1)) & live.any(dim=1)
    if not bool(whole.any()):
        nothing = Estimate(value=None, why="needs a response all of whose values are finite")
        return tuple(LambdaShare(gae_lambda=x, real_reward=nothing, opinion=nothing) for x in lambdas)
    returns = torch.where(live, reading.returns, 0.0)[whole].to(torch.float64)
    rewards = returns - torch.nn.functional.pad(returns[:, 1:], (0, 1))
    bootstrap = drawn_prompts(reading.problem[whole], seed=seed, resamples=resamples)
    result = []
    for gae_lambda in lambdas:
        both = opinion(reading.values[whole], rewards, live[whole], bootstrap, gae_lambda=gae_lambda)
        weight, said = estimates(both, bootstrap, "all advantages are equal")
        result.append(LambdaShare(gae_lambda=gae_lambda, real_reward=weight, opinion=said))
    return tuple(result)


def _by_name(tokens: Tokens, sums: Array) -> Callable[..., Estimate]:
    """The numbers of `ErrorParts` by name, as estimates, from sums by unit."""
    measured = tokens.bootstrap.measured(lambda total: stacked(total, tokens.shift), sums)

    def result(name: str, why: str = "") -> Estimate:
        return estimates(measured, tokens.bootstrap, why)[ErrorParts._fields.index(name)]

    return result


def _are_returns(tokens: Tokens) -> bool:
    """True where values are the returns, and know at the first token already which of several responses it will be."""
    if np.abs(tokens.value - tokens.target).max() >= SAME:
        return False
    first = tokens.position == 0
    state, target = tokens.state[tokens.row[first]], tokens.target[first]
    low, high = np.full(len(tokens.lengths), np.inf), np.full(len(tokens.lengths), -np.inf)
    np.minimum.at(low, state, target)
    np.maximum.at(high, state, target)
    return bool((high - low > SAME).any())


def _sections(tokens: Tokens) -> tuple[Section, ...]:
    result = []
    parts = [(name, (tokens.fraction >= start) & (tokens.fraction < end)) for name, start, end in SECTIONS]
    for name, here in [*parts, ("last token", tokens.position == tokens.lengths[tokens.row] - 1)]:
        if not here.any():
            continue
        sums = tokens.bootstrap.sums(tokens.unit[here], [column[here] for column in tokens.columns])[:, 0]
        of = _by_name(tokens, sums)
        result.append(
            Section.model_validate(
                {
                    "name": name,
                    "n": int(here.sum()),
                    "bias": of("bias"),
                    "slope": of("slope", "all values are equal, or all returns"),
                    "explained_variance": of("explained_variance", "all returns are equal"),
                    "correlation": of("correlation", "all values are equal, or all returns"),
                    "spread": number(error_parts(sums.sum(axis=0), tokens.shift).value_std),
                }
            )
        )
    return tuple(result)


def _composition(tokens: Tokens) -> Composition:
    places = looked_at(tokens.position, tokens.bootstrap.prompts)
    at = np.searchsorted(places, tokens.position)
    here = places[np.minimum(at, len(places) - 1)] == tokens.position
    prompt = tokens.bootstrap.prompt[tokens.row[here]]
    state = tokens.state[tokens.row[here]]
    return composition(tokens.value[here], tokens.target[here], at[here], prompt, state, tokens.bootstrap)


def _reacts(parts: Composition, bootstrap: PromptBootstrap) -> Reacts:
    position, prompt, neither = estimates(parts.measured, bootstrap, "all values are equal")[:3]
    if position.value is not None:
        prompt, neither = (
            x if x.value is not None else Estimate(value=None, why=ONE_RESPONSE) for x in (prompt, neither)
        )
    return Reacts(position=position, prompt=prompt, neither=neither)


def _signal(parts: Composition, bootstrap: PromptBootstrap) -> Signal:
    correlation, slope = estimates(parts.measured, bootstrap, "values do not vary at any position")[4:]
    return Signal(correlation=correlation, slope=slope)


def _timing(reading: Reading, parts: Composition, bootstrap: PromptBootstrap) -> Timing:
    finite, values = finite_cells(reading), reading.values.numpy().astype(np.float64)
    first = estimates(parts.measured, bootstrap, ONE_RESPONSE)[3]
    rough = estimate(roughness(values, finite, bootstrap), bootstrap, "all values are equal")
    nothing, pairs = Estimate(value=None, why="the token ids are not known"), np.zeros((0, 3), dtype=np.int64)
    split, rounding, gap, share = (nothing, nothing, nothing), None, None, None
    if reading.tokens is not None:
        pairs = splits(reading.tokens.numpy(), reading.response_mask.numpy(), first_states(reading))
        why = "no two responses to a prompt part at known values, or all values are equal there"
        gaps = first_gaps(values, finite, pairs)
        if len(gaps):
            gap = int(np.bincount(gaps + 1).argmax()) - 1
            share = float((gaps == gap).mean())
        unit = max(2, gap or 0)
        before, at, after, rounded = estimates(timing(values, finite, pairs, bootstrap, unit=unit), bootstrap, why)
        split, rounding = (before, at, after), rounded.value
    beside = bootstrap.prompt[_with_another(first_states(reading), finite[:, 0])]
    return Timing(
        before_split=split[0],
        at_split=split[1],
        after_split=split[2],
        first_token=first,
        roughness=rough,
        pairs=len(pairs),
        first_gap=gap,
        first_gap_share=share,
        pair_prompts=len(np.unique(bootstrap.prompt[pairs[:, 0]])),
        first_prompts=len(np.unique(beside)),
        rounding=rounding,
    )


def _with_another(state: Index, known: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """[B] responses that are known, and another one from their first state."""
    result: NDArray[np.bool_] = known & (np.bincount(state, weights=known)[state] > 1)
    return result

"""The collapse of PPO on a chain of thought: the push of a critic with an error on the decision to stop.

A response walks a chain of `lines` lines. After each line but the last it stops with chance `hazard`, a single logit
that all lines share, and it is worth 1 if it came to the last line (and was right, with chance `right`), else -1. With
gamma 1 the exact value before the decision after line i is V*_i = -1 + 2 q (1 - h)^(n - i).

A_t = sum_l lambda^l (r_{t+l} + V_{t+l+1} - V_{t+l}) is linear in the values, so the expected gradient of the stop logit
splits into the truth's part and the error's (arXiv:1506.02438, eq. 16, with V = V* + e and V = 0 after the end):

    push = E sum_i A_i d log pi_i / d logit,   d log pi / d logit = 1 - h where it stopped, -h where it went on
    true part       E[A*_i . | at i] = -2 q h (1 - h)^(n - i), reached with chance (1 - h)^(i - 1), n - 1 of them:
                    -2 p (n - 1) h with p = q (1 - h)^(n - 1), at every lambda
    constant error  e = c: every difference is 0 but the last, -c, so A gains -c lambda^(tokens to come): -c K(lambda),
                    K = sum_i (1 - h)^i h (lambda^s - E[lambda^(tokens to come) | went on at i]), s = tokens to come
                    after a stop

Above 0 the policy learns to stop. K is 0 at lambda = 1, where the error is a baseline, and positive below: whatever
stands near the end gains more. So a pessimist (c < 0) praises stopping, and the push turns at c* = -2 p (n - 1) h / K.

A fresh head is no V* + c but one value v everywhere: only the last difference R - v is left, and its push,
-(1 + v) K - 2 p h sum_i lambda^(tokens to come of a whole response at i), turns at a v* a little below -1.
"""

import math
from dataclasses import dataclass
from numbers import Integral

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vcppo.errors import DataError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Chain:
    """The task and its policy as the law sees them; defaults are the embedded task's but for lines and hazard.

    Raises:
        DataError: a number is out of its range; chances are shares of 1, not percentages.
    """

    lines: int  # that a right response needs, n
    hazard: float  # chance to stop after each line but the last, h
    line_tokens: int = 4  # the line's number and three digits
    tokens_after_stop: int = 4  # of an answer, after the token that begins it: three digits and the end
    right: float = 1.0  # chance that a response with all lines is right, q

    def __post_init__(self) -> None:
        for name, least in {"lines": 2, "line_tokens": 1, "tokens_after_stop": 0}.items():
            count = getattr(self, name)
            if not isinstance(count, Integral) or count < least:
                raise DataError(f"Chain.{name} = {count}: expected a whole number, {least} or more")
        if not 0.0 <= self.hazard < 1.0:
            raise DataError(f"Chain.hazard = {self.hazard}: expected a chance, 0 or more and below 1")
        if not 0.0 < self.right <= 1.0:
            raise DataError(f"Chain.right = {self.right}: expected a chance, above 0 and at most 1")

    @property
    def accuracy(self) -> float:
        """Chance that a response is right, p."""
        return float(self.right * (1.0 - self.hazard) ** (self.lines - 1))

    @property
    def mean_tokens(self) -> float:
        """Expected length of a response."""
        lines = sum((1.0 - self.hazard) ** i for i in range(self.lines))
        return self.line_tokens * lines + self.tokens_after_stop + 1

    @property
    def mean_value(self) -> float:
        """Mean of V* over the tokens of responses: where a constant has no bias."""
        weights = [(chance, self._exact_values(stop)) for stop, chance in enumerate(self.stop_chances(), 1)]
        tokens = sum(chance * len(values) for chance, values in weights)
        return float(sum(chance * values.sum() for chance, values in weights) / tokens)

    def stop_chances(self) -> Floats:
        """[lines]: chance that a response ends after line 1, 2, ..."""
        chances = (1.0 - self.hazard) ** np.arange(self.lines) * self.hazard
        chances[-1] = (1.0 - self.hazard) ** (self.lines - 1)
        return np.asarray(chances, dtype=np.float64)

    def tokens(self, stop: int) -> int:
        """Length of a response that ends after line `stop`."""
        return self.line_tokens * stop + self.tokens_after_stop + 1

    def _exact_values(self, stop: int) -> Floats:
        """V* before each token of a response that ends after line `stop`."""
        decided = self.line_tokens * stop  # tokens before the decision
        decisions_past = np.maximum(np.arange(self.tokens(stop)) - 1, 0) // self.line_tokens
        on_the_way = -1.0 + 2.0 * self.right * (1.0 - self.hazard) ** (self.lines - 1.0 - decisions_past)
        end = -1.0 if stop < self.lines else -1.0 + 2.0 * self.right
        return np.where(np.arange(self.tokens(stop)) <= decided, on_the_way, end)


def true_push(chain: Chain) -> float:
    """Push of the exact critic, at every lambda: -2 p (n - 1) h; below 0, the policy learns to go on.

    >>> round(true_push(Chain(30, 0.09)), 3)
    -0.339
    """
    return -2.0 * chain.accuracy * (chain.lines - 1) * chain.hazard


def constant_gain(chain: Chain, gae_lambda: float) -> float:
    """K(lambda): the push of V* + c gains -c K.

    Raises:
        DataError: lambda is not in [0, 1].

    >>> [round(constant_gain(Chain(30, 0.09), gae_lambda), 3) for gae_lambda in (0.9, 0.95, 0.99, 1.0)]
    [0.471, 0.483, 0.229, 0.0]
    """
    _check_lambda(gae_lambda)
    h, total = chain.hazard, 0.0
    at_stop = ahead = gae_lambda**chain.tokens_after_stop  # ahead: E lambda^(tokens after the decision's) at line i + 1
    line = gae_lambda**chain.line_tokens
    for i in range(chain.lines - 1, 0, -1):
        going_on = line * ahead
        total += (1.0 - h) ** i * h * (at_stop - going_on)
        ahead = h * at_stop + (1.0 - h) * going_on
    return total


def turning_offset(chain: Chain, gae_lambda: float) -> float:
    """c*: with V* + c below it the policy learns to stop, -inf where no offset does.

    Raises:
        DataError: lambda is not in [0, 1].

    >>> [round(turning_offset(Chain(30, 0.09), gae_lambda), 2) for gae_lambda in (0.9, 0.95, 0.99, 1.0)]
    [-0.72, -0.7, -1.48, -inf]
    """
    gain = constant_gain(chain, gae_lambda)
    return true_push(chain) / gain if gain > 1e-12 else -math.inf


def push_of_constant(chain: Chain, value: float, gae_lambda: float) -> float:
    """Push of a critic that says `value` everywhere.

    Raises:
        DataError: lambda is not in [0, 1].
    """
    return -(1.0 + value) * constant_gain(chain, gae_lambda) + _push_of_whole(chain, gae_lambda)


def turning_value(chain: Chain, gae_lambda: float) -> float:
    """v*: with one value below it everywhere the policy learns to stop, -inf where none does.

    Raises:
        DataError: lambda is not in [0, 1].

    >>> [round(turning_value(Chain(30, 0.09), gae_lambda), 2) for gae_lambda in (0.9, 0.95, 0.99, 1.0)]
    [-1.03, -1.09, -1.82, -inf]
    """
    gain = constant_gain(chain, gae_lambda)
    return -1.0 + _push_of_whole(chain, gae_lambda) / gain if gain > 1e-12 else -math.inf


def push_of_error(chain: Chain, error: ArrayLike, gae_lambda: float) -> float:
    """Push of a critic that says V* + error[t] before token t, for any error by position.

    Args:
        error: one number, or [T] with T at least the tokens of a whole response.
    Raises:
        DataError: lambda is not in [0, 1].
    """
    _check_lambda(gae_lambda)
    longest = chain.tokens(chain.lines)
    offsets = np.broadcast_to(np.asarray(error, dtype=np.float64), (longest,)) if np.ndim(error) == 0 else error
    by_token = np.asarray(offsets, dtype=np.float64)
    total = true_push(chain)
    for stop, chance in enumerate(chain.stop_chances(), 1):
        e = by_token[: chain.tokens(stop)]
        deltas = np.append(e[1:], 0.0) - e
        gained = 0.0
        advantages = np.empty_like(e)
        for t in range(len(e) - 1, -1, -1):
            gained = deltas[t] + gae_lambda * gained
            advantages[t] = gained
        decisions = np.arange(1, min(stop, chain.lines - 1) + 1)
        scores = np.where(decisions == stop, 1.0 - chain.hazard, -chain.hazard)
        total += float(chance * (advantages[chain.line_tokens * decisions] * scores).sum())
    return total


def _check_lambda(gae_lambda: float) -> None:
    if not 0.0 <= gae_lambda <= 1.0:
        raise DataError(f"gae_lambda = {gae_lambda}: expected a number in [0, 1]")


def _push_of_whole(chain: Chain, gae_lambda: float) -> float:
    """Push of the responses with all lines, whose reward is 2 q above the others': they went on everywhere."""
    after_last = np.arange(1, chain.lines) * chain.line_tokens + chain.tokens_after_stop
    return -2.0 * chain.accuracy * chain.hazard * float((gae_lambda**after_last).sum())

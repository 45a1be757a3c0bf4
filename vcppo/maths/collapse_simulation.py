"""The law in motion: stop logit and critic of a chain as two numbers, each moved by Adam, on responses that are drawn.

The law says which way the first update pushes. How a run ends is decided by a race: the critic unlearns its error while
the policy learns to stop, and a policy that is never right any more has nothing left to learn from. Here the policy is
one logit and the critic one value for all states, so that a threshold for the end can be computed in seconds.
"""

from dataclasses import dataclass, replace

import numpy as np

from vcppo.maths.collapse_law import Chain, Floats


@dataclass(frozen=True)
class Race:
    """Training's speed, in units of outputs: what a network's output moves by if every gradient agrees in sign."""

    iterations: int
    gae_lambda: float  # of the actor; the critic learns Monte-Carlo returns
    responses: int = 96
    minibatches: int = 4
    logit_speed: float = 0.5  # that the stop logit moves by in an iteration at full rate
    value_speed: float = 0.8  # that the value moves by, in units of reward
    beta1: float = 0.9
    beta2: float = 0.95


@dataclass(frozen=True)
class Ending:
    """The end of a simulated run, and its curves."""

    accuracy: float  # p of the chain with the last hazard
    lengths: Floats  # [iterations] mean tokens of the responses
    values: Floats  # [iterations] the critic's value at the iteration's start


class _Adam:
    def __init__(self, race: Race) -> None:
        self.race, self.first, self.second, self.taken = race, 0.0, 0.0, 0

    def step(self, gradient: float) -> float:
        """Step of a unit rate down this gradient."""
        self.taken += 1
        self.first += (1.0 - self.race.beta1) * (gradient - self.first)
        self.second += (1.0 - self.race.beta2) * (gradient**2 - self.second)
        mean = self.first / (1.0 - self.race.beta1**self.taken)
        square = self.second / (1.0 - self.race.beta2**self.taken)
        return -mean / (float(np.sqrt(square)) + 1e-8)


def simulate(chain: Chain, value: float, race: Race, rng: np.random.Generator) -> Ending:
    """Run the race from a critic that says `value` everywhere; both rates fall linearly to 0."""
    logit = float(np.log(chain.hazard / (1.0 - chain.hazard)))
    policy, critic = _Adam(race), _Adam(race)
    lengths, values = [], []
    updates = race.iterations * race.minibatches
    for _ in range(race.iterations):
        hazard = 1.0 / (1.0 + np.exp(-logit))
        stops = np.minimum(rng.geometric(hazard, race.responses), chain.lines)
        whole = stops == chain.lines
        rewards = np.where(whole & (rng.random(race.responses) < chain.right), 1.0, -1.0)
        tokens = chain.line_tokens * stops + chain.tokens_after_stop + 1
        lengths.append(float(tokens.mean()))
        values.append(value)
        for minibatch in np.array_split(np.arange(race.responses), race.minibatches):
            rate = 1.0 - policy.taken / updates
            gradients = [
                _score_sum(int(stop), chain, hazard, race.gae_lambda) * (reward - values[-1])
                for stop, reward in zip(stops[minibatch], rewards[minibatch], strict=True)
            ]
            size = tokens[minibatch]
            logit += rate * race.logit_speed / race.minibatches * policy.step(-sum(gradients) / float(size.sum()))
            error = value - float((rewards[minibatch] * size).sum() / size.sum())
            value += rate * race.value_speed / race.minibatches * critic.step(error)
    last = replace(chain, hazard=float(1.0 / (1.0 + np.exp(-logit))))
    return Ending(last.accuracy, np.array(lengths), np.array(values))


def _score_sum(stop: int, chain: Chain, hazard: float, gae_lambda: float) -> float:
    """Sum over a response's decisions of lambda^(tokens to come) d log pi / d logit, the last difference's weights."""
    decisions = np.arange(1, min(stop, chain.lines - 1) + 1)
    to_come = chain.line_tokens * (stop - decisions) + chain.tokens_after_stop
    scores = np.where(decisions == stop, 1.0 - hazard, -hazard)
    return float((gae_lambda**to_come * scores).sum())

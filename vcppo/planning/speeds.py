"""Speed of a network here: as measured by `vcppo plan --calibrate`, or as two short products say."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

import numpy as np

from vcppo.planning.memory_estimate import NUCLEUS, WIDE, Network
from vcppo.planning.writing import Writing
from vcppo.settings.fixed import GENERATOR_ROWS

NARROW, NARROW_SHARE, WIDE_SHARE = 256, 0.25, 0.4  # of a matrix product's rate, at a hidden size below 256 and above
SHORTEST_OF_S = 0.2  # seconds in which a product is repeated; a single one wavers threefold
UPDATE_PASSES = 8  # readings and writings of all weights that learn in an optimiser step: gradient, moments, weights


@dataclass(frozen=True)
class Machine:
    """Rates that two products of numpy reach here."""

    flops_per_s: float  # floating-point operations of a float32 matrix product
    bytes_per_s: float  # read by a matrix-vector product that no cache holds

    @classmethod
    def here(cls) -> "Machine":
        """Measure it, in a fraction of a second."""
        return cls(matrix_product_rate(), memory_rate())


@dataclass(frozen=True)
class Speed:
    """Seconds that a network takes here."""

    generate_s: float  # a token of a response, prompts apart, beside what the rows of a step share
    step_s: float  # a step of generation, however many rows it has: the weights are read
    nucleus_s: float  # a token that is drawn from a nucleus, on top
    read_s: float  # a token in a pass without gradient
    train_s: float  # a token in a forward and backward pass
    update_s: float  # a step of the optimiser
    measured: str | None = None  # the day of the measurement; None: from the machine's products

    def writing_s(self, writing: Writing) -> float:
        """Seconds a token of responses that are written so; the generator's part of more rows is as fast as all."""
        return self.generate_s + self.step_s / min(writing.rows, GENERATOR_ROWS) + self.nucleus_s * writing.nucleus

    def for_network(self, measured_on: Network, other: Network) -> "Speed":
        """The same machine's speed of another network, by the work of a token and of an update."""
        work, updates = token_flops(other) / token_flops(measured_on), other.learning / measured_on.learning
        return Speed(
            self.generate_s * work,
            self.step_s * work,
            self.nucleus_s,
            self.read_s * work,
            self.train_s * work,
            self.update_s * updates,
            self.measured,
        )

    def as_json(self) -> dict[str, float | str | None]:
        """All of it."""
        return asdict(self)

    @classmethod
    def of_json(cls, content: Mapping[str, float | str | None]) -> "Speed":
        """Read what `as_json` made."""
        return cls(**content)  # type: ignore[arg-type]  # checked by who stored it


def token_flops(net: Network) -> float:
    """Floating-point operations of one token's forward pass: its products with weights, two operations each."""
    head = 0 if net.critic else net.shapes.embedding
    return 2.0 * (net.shapes.layers * net.shapes.layer_matrices + head)


def estimated_speed(net: Network, machine: Machine) -> Speed:
    """A network's speed from the machine's products; each step of generation reads all weights.

    A nucleus writes and reads each of the arrays that it takes (memory_estimate.py).
    """
    read_s = token_flops(net) / (machine.flops_per_s * reached_share(net.shapes.hidden_size))
    step_s = WIDE * net.weights / machine.bytes_per_s
    update_s = UPDATE_PASSES * WIDE * net.learning / machine.bytes_per_s
    again = 1 if net.compute.gradient_checkpointing else 0
    nucleus_s = 2 * NUCLEUS * WIDE * net.shapes.vocabulary / machine.bytes_per_s
    return Speed(read_s, step_s, nucleus_s, read_s, (3 + again) * read_s, update_s)


def reached_share(hidden_size: int) -> float:
    """Return the share of the matrix product's rate that passes of a model were measured to reach."""
    return NARROW_SHARE if hidden_size < NARROW else WIDE_SHARE


def matrix_product_rate() -> float:
    """Return floating-point operations per second of a float32 matrix product here, the best of a few short tries."""
    size = 512
    x = np.ones((size, size), dtype=np.float32)
    return 2 * size**3 / _shortest(lambda: x @ x)


def memory_rate() -> float:
    """Return bytes per second that a float32 matrix-vector product reads here, of a matrix of 64 MiB."""
    size = 4096
    x, vector = np.ones((size, size), dtype=np.float32), np.ones(size, dtype=np.float32)
    return WIDE * size**2 / _shortest(lambda: x @ vector)


def _shortest(work: Callable[[], object]) -> float:
    best, end = math.inf, time.perf_counter() + SHORTEST_OF_S
    while (began := time.perf_counter()) < end:
        work()
        best = min(best, time.perf_counter() - began)
    return best

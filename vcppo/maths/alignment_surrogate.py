"""Which way a critic's advantages push length, and whether the score lies that way: from a dump alone, with no policy.

The policy that stands in for the real one knows a token's position, and chooses how many tokens are still to come. Its
gradient for a chunk of responses is, for each cell of position and later length, the sum of advantages in that cell,
each less the mean advantage of the other chunks' responses at the same position:

    G_c[cell] = sum over tokens of c in the cell of (A_t - mean of A at t over other chunks)

Products of different chunks (vcppo/maths/alignment.py) leave out what a response's advantages share with its own score
and length. That is what a plain correlation gets wrong: at lambda near 1 an advantage contains the score itself.

How well it agrees, 512 responses of one base: on `digits`, nine critics (constants, exact ones with offsets) at four
lambdas, the sign of the gain towards reward is that of the real gradient in 97 % of 36 cases (preconditioned; 92 % of
the plain one), also of those whose sign can be told, and its size correlates by 0.85 with the preconditioned one's and
0.90 with the plain one's; the sign of the push on length agrees in 97 %. The plain correlation of advantage and score
agrees in 67 %. On `labels`, where responses hardly differ in length (2,048 responses, nine critics), it can tell no
sign at all, and says so: what does not go through length needs the policy. Tried there without success: cells of
position and token, and of the one to four tokens before; their means depend on states that they do not tell apart.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
POSITIONS, LENGTHS = 16, 8  # cells are quantiles: about as many tokens in each; 8 x 4 to 32 x 16 say the same


def later_length_gradients(advantages: Floats, response_mask: NDArray[np.bool_], chunk: NDArray[np.int64]) -> Floats:
    """[V, C, cells] gradients of the module's policy.

    Args:
        advantages: [V, B, T]. response_mask: [B, T], True on a prefix of each row. chunk: [B], 0 to C - 1.
    """
    width, chunks = response_mask.shape[1], int(chunk.max()) + 1
    row, position = np.nonzero(response_mask)
    to_come = response_mask.sum(axis=1)[row] - position
    cell, of = _cells(position, to_come), chunk[row]
    place = of * width + position
    counts = np.bincount(place, minlength=chunks * width).reshape(chunks, width)
    elsewhere = counts.sum(axis=0) - counts
    gradients = np.zeros((len(advantages), chunks, POSITIONS * LENGTHS))
    for kind, of_kind in enumerate(advantages):
        live = of_kind[row, position]
        sums = np.bincount(place, live, minlength=chunks * width).reshape(chunks, width)
        others = sums.sum(axis=0) - sums
        mean = np.where(elsewhere > 0, others / np.maximum(elsewhere, 1), live.mean())
        left = live - mean[of, position]
        summed = np.bincount(of * POSITIONS * LENGTHS + cell, left, minlength=chunks * POSITIONS * LENGTHS)
        gradients[kind] = summed.reshape(chunks, -1)
    return gradients


def products_of(gradients: Floats) -> Floats:
    """[V, V, C, C] dot products of gradients [V, C, P]."""
    kinds, chunks, size = gradients.shape
    flat = gradients.reshape(-1, size)
    return (flat @ flat.T).reshape(kinds, chunks, kinds, chunks).transpose(0, 2, 1, 3)


def _cells(position: NDArray[np.int64], to_come: NDArray[np.int64]) -> NDArray[np.int64]:
    """[N] number of each token's cell: a quantile of position, and within it one of the tokens to come."""
    band = _quantile(position, POSITIONS)
    cell = np.zeros_like(band)
    for number in np.unique(band):
        here = band == number
        cell[here] = number * LENGTHS + _quantile(to_come[here], LENGTHS)
    return cell


def _quantile(x: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """[N] which of `count` equal shares of the numbers each is in; equal numbers are in one."""
    edges = np.unique(np.quantile(x, np.linspace(0, 1, count + 1)[1:-1]))
    return np.searchsorted(edges, x, side="right").astype(np.int64)

"""Coverage of the truth by intervals over bases and seeds: python bench/interval_coverage.py, five minutes.

Scores are normal: base b shifts all of its runs by N(0, share), each run by N(0, 1 - share); the truth is 0.
"""

import argparse

import numpy as np

from vcppo.maths.run_statistics import nested_bootstrap

DESIGNS = ((1, 3), (1, 5), (5, 1), (5, 3), (5, 5), (10, 3))  # bases, seeds each
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the variance, that between bases


def covered(bases: int, seeds: int, share: float, *, trials: int, rng: np.random.Generator) -> float:
    """Return the share of trials whose 95 % interval holds the truth."""
    held = 0
    for _ in range(trials):
        shift = rng.normal(0, np.sqrt(share), size=(bases, 1))
        scores = shift + rng.normal(0, np.sqrt(1 - share) + 1e-12, size=(bases, seeds))
        interval = nested_bootstrap(dict(enumerate(scores.tolist())), rng=rng, resamples=1000)
        held += interval.low <= 0 <= interval.high
    return held / trials


def main() -> None:
    """Print a row a design, a column a share of the variance that is between bases."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=2000, help="studies simulated for each number (2000)")
    trials = parser.parse_args().trials
    rng = np.random.default_rng(0)
    print("bases x seeds   " + "  ".join(f"{100 * share:3.0f} % between bases" for share in SHARES))
    for bases, seeds in DESIGNS:
        found = [covered(bases, seeds, share, trials=trials, rng=rng) for share in SHARES]
        print(f"{bases:2} x {seeds}          " + "  ".join(f"{100 * one:19.1f}" for one in found), flush=True)


if __name__ == "__main__":
    main()

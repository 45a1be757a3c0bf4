"""Speed of `gae` against a loop over token columns, and against what the processor allows.

    python -m bench.bench_gae

Compares with verl's `compute_gae_advantage_return` where verl 0.9.1 can be imported
(tests/golden/requirements-verl.txt), otherwise with `column_loop` below; the first line printed says which. One
process, one thread, float32, [512, 8192], responses of 1 to 8192 tokens, medians.
"""

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from vcppo.maths import advantages
from vcppo.maths.advantages import gae

ROWS, WIDTH = 512, 8192
GAMMA, LAMBDA = 1.0, 0.95
AIM = 20.0  # times faster than the loop


def column_loop(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """The published recurrence (arXiv:1506.02438, eq. 16), one column of the batch at a time, from the last."""
    next_values = next_advantages = torch.zeros(len(values))
    columns = []
    for t in reversed(range(values.shape[1])):
        deltas = rewards[:, t] + gamma * next_values - values[:, t]
        found = deltas + gamma * lam * next_advantages
        next_values = values[:, t] * mask[:, t] + (1 - mask[:, t]) * next_values
        next_advantages = found * mask[:, t] + (1 - mask[:, t]) * next_advantages
        columns.append(next_advantages)
    found = torch.stack(columns[::-1], dim=1)
    return found, found + values


def the_other() -> tuple[str, Callable[..., tuple[Tensor, Tensor]]]:
    """verl's function if it is here, else our transcription; its second result is advantages plus values."""
    try:
        from verl.trainer.ppo.core_algos import compute_gae_advantage_return
    except ImportError:
        return "column_loop, a transcription of the published recurrence (verl is not installed)", column_loop
    from importlib.metadata import version

    return f"verl {version('verl')} compute_gae_advantage_return (it whitens too)", compute_gae_advantage_return


def seconds(call: Callable[[], object], repeats: int) -> float:
    """Median wall time after one call to warm up."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    torch.set_num_threads(1)
    name, other = the_other()
    print(f"compared with: {name}")
    rng = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, WIDTH + 1, (ROWS, 1), generator=rng)
    on = torch.arange(WIDTH) < lengths
    values = torch.where(on, torch.randn(ROWS, WIDTH, generator=rng), 0.0)
    rewards = torch.zeros(ROWS, WIDTH).scatter(1, lengths - 1, 1.0)
    mask = on.float()

    def ours() -> Tensor:
        return gae(rewards, values, on, gamma=GAMMA, gae_lambda=LAMBDA)

    def theirs() -> Tensor:
        return other(rewards, values, mask, GAMMA, LAMBDA)[1]

    difference = float((theirs() - values - ours())[on].abs().max())
    our_time, their_time = seconds(ours, 15), seconds(theirs, 3)
    each = torch.full((ROWS,), LAMBDA)
    row_time = seconds(lambda: gae(rewards, values, on, gamma=GAMMA, gae_lambda=each), 15)
    ratio = their_time / our_time
    print(
        f"[{ROWS}, {WIDTH}] the loop {1e3 * their_time:.1f} ms, gae {1e3 * our_time:.1f} ms: {ratio:.1f} times faster"
    )
    print(
        f"    aim {AIM:g} times: {'met' if ratio >= AIM else 'MISSED'}; a lambda for each row {1e3 * row_time:.1f} ms"
    )
    print(f"    largest difference of an advantage {difference:.1e}")

    cells = ROWS * WIDTH
    target, square = torch.empty_like(values), torch.randn(1024, 1024, generator=rng)
    bandwidth = 8 * cells / seconds(lambda: target.copy_(values), 15)  # 4 bytes read and 4 written a cell
    rate = 2 * 1024**3 / seconds(lambda: square @ square, 15)
    moved = cells * (4 + 4 + 1 + 4)  # rewards, values, mask in; advantages out
    work = cells * 2 * (advantages.CHUNK + 1)  # a row of the triangular product, and a chunk's own sum
    print(f"floor: {moved / 1e6:.0f} MB at {bandwidth / 1e9:.1f} GB/s = {1e3 * moved / bandwidth:.1f} ms,", end=" ")
    print(f"{work / 1e6:.0f} MFLOP at {rate / 1e9:.0f} GFLOP/s = {1e3 * work / rate:.1f} ms;", end=" ")
    print(f"gae takes {our_time / (moved / bandwidth + work / rate):.1f} times their sum")


if __name__ == "__main__":
    main()

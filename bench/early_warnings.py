"""Rate at which early warnings of length and truncation are right, and their lead: the rules on stored curves.

    python -m bench.early_warnings [RESULTS]

Reads the curves of every study in results/ (or another folder of exports). A run ends ill if its responses came to less
than half of their first length, or fewer of them were right in the end than in the beginning. Spreads of lengths are
taken from their percentiles; alignment is not among those curves. Takes some seconds.
"""

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from vcppo.maths.early_warning import FIRST, Observed, first_warning, warnings_of

NORMAL = 2.563  # standard deviations between the 10th and the 90th percentile
LENGTH, RIGHT = "rollout/length_tokens", "rollout/accuracy"
LOW, HIGH, CUT = "rollout/length_p10_tokens", "rollout/length_p90_tokens", "rollout/truncated_rate"


def runs(results: Path) -> Iterator[tuple[str, str, list[Observed]]]:
    """(study, arm, iterations) of every run."""
    for folder in sorted(path.parent for path in results.glob("*/runs.csv")):
        parquet, table = folder / "curves.parquet", folder / "curves.csv"
        if not parquet.exists() and not table.exists():
            continue
        curves = pd.read_parquet(parquet) if parquet.exists() else pd.read_csv(table)
        curves = curves[curves["metric"].isin([LENGTH, RIGHT, LOW, HIGH, CUT])]
        for key, run in curves.groupby([name for name in ("arm", "base_seed", "seed") if name in curves]):
            wide = run.pivot_table(index="step", columns="metric", values="value")
            spread = (wide[HIGH] - wide[LOW]) / NORMAL if {LOW, HIGH} <= set(wide) else 0.4 * wide[LENGTH]
            cut = wide[CUT] if CUT in wide else 0.0 * wide[LENGTH]
            count = int(run.loc[run["metric"] == LENGTH, "n"].iloc[0])
            columns = zip(wide[LENGTH], spread, cut, wide[RIGHT], strict=True)
            yield folder.name, str(key[0]), [Observed(count, *numbers) for numbers in columns]


def main() -> None:
    """Print a line for ill runs, one for the others, and what false alarms were about."""
    results = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "results"
    ill, early, before = [], [], []
    healthy, false = 0, Counter[str]()
    for study, arm, run in runs(results):
        lengths, right = ([getattr(one, name) for one in run] for name in ("length", "right"))
        half = np.mean(lengths[:FIRST]) / 2
        warned = first_warning(run)
        if min(lengths) < half or np.mean(right[-5:]) < np.mean(right[:FIRST]):
            ill.append(warned is not None)
            if warned is not None:
                early.append(warned)
                halved = next((step for step, length in enumerate(lengths) if length < half), len(lengths))
                before.append(halved - warned)
        else:
            healthy += 1
            if warned is not None:
                false[f"{study} {arm}: {', '.join(warnings_of(run[: warned + 1]))}"] += 1
    print(
        f"ended ill: {len(ill)}, warned {sum(ill)}; first at iteration {_tenths(early)} (tenth, median, ninth decile)"
    )
    print(f"iterations from the warning until length has halved: {_tenths(before)}")
    print(f"others: {healthy}, warned {sum(false.values())}")
    for what, times in false.most_common():
        print(f"  {times} x {what}")


def _tenths(numbers: list[int]) -> str:
    return " ".join(f"{x:.0f}" for x in np.percentile(numbers, [10, 50, 90])) if numbers else "none"


if __name__ == "__main__":
    main()

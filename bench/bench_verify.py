"""Rates at which the verifier rewards a wrong answer or refuses a right one, beside math-verify on the same pairs.

    python -m bench.bench_verify --pairs 2000

The truth of a pair is how it was made (bench/verify_pairs.py); half are equal. "false reward": CORRECT though another
value. "called wrong", "unreadable": the two ways of refusing a right answer, together the false refusals. Ours is what
training asks, `MathsTask.judge` with default settings; theirs is `math_verify.parse` and `verify` as they come. Both
get the response whole; references stand between dollar signs for theirs, as its README asks. Rates are over the
pairs that could go that way, their intervals exact (Clopper and Pearson). Exit code 1 if ours misses the bar.
"""

import logging
import multiprocessing
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

import click
from math_verify import parse, verify
from scipy.stats import binomtest

from bench.verify_pairs import KINDS, Pair, pairs
from vcppo.settings.task import MathsSettings
from vcppo.tasks.maths import MathsTask
from vcppo.types import Prompt, Verdict

REFUSALS = 0.01  # false refusals are fewer than this share; false rewards are none
OURS, THEIRS = "vcppo", "math-verify"


def judge_plainly(pair: Pair) -> tuple[Verdict, float]:
    """(verdict, seconds) of math-verify with its defaults, its own time limits among them."""
    logging.disable()
    began = time.perf_counter()
    wanted, found = parse(f"${pair.reference}$"), parse(pair.answer)
    verdict = Verdict.UNREADABLE
    if wanted and found:
        verdict = Verdict.CORRECT if verify(wanted, found) else Verdict.WRONG
    return verdict, time.perf_counter() - began


def plain_verdicts(asked: Sequence[Pair], workers: int) -> tuple[list[Verdict], float]:
    """(verdicts, seconds of processes a pair); in processes of their own, whose time limits need a main thread."""
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        found = list(pool.map(judge_plainly, asked, chunksize=20))
    return [verdict for verdict, _ in found], sum(seconds for _, seconds in found) / len(found)


def our_verdicts(asked: Sequence[Pair], workers: int) -> tuple[list[Verdict], float]:
    """(verdicts, seconds of processes a pair)."""
    task = MathsTask(MathsSettings(workers=workers))
    prompts = [Prompt(pair.kind, "", pair.reference) for pair in asked]
    task.judge([""] + ["\\boxed{x+1}"] * workers, [Prompt("", "", "1+x")] * (workers + 1))  # its processes start
    began = time.perf_counter()
    found = task.judge([pair.answer for pair in asked], prompts)
    return [judgement.verdict for judgement in found], (time.perf_counter() - began) * workers / len(asked)


def fault(pair: Pair, verdict: Verdict) -> str:
    """Say what is wrong with a verdict, "" if nothing."""
    if pair.equal:
        return {Verdict.WRONG: "called wrong", Verdict.UNREADABLE: "unreadable"}.get(verdict, "")
    return "false reward" if verdict is Verdict.CORRECT else ""


def rate(name: str, count: int, of: int) -> str:
    """A count, its share and the interval of that."""
    low, high = binomtest(count, of).proportion_ci(method="exact")
    return f"{name} {count} of {of}: {count / of:.2%} [{low:.2%}, {high:.2%}]"


def table(asked: Sequence[Pair], faults: dict[str, list[str]]) -> str:
    """Faults of each kind, ours and theirs."""
    columns = ("false reward", "called wrong", "unreadable")
    lines = [f"{'':20}{'':>7}" + "".join(f"{name:^42}" for name in faults)]
    lines.append(f"{'kind':20}{'pairs':>7}" + "".join(f"{column:>14}" for _ in faults for column in columns))
    counts = {name: Counter(zip((p.kind for p in asked), found, strict=True)) for name, found in faults.items()}
    of_kind = Counter(pair.kind for pair in asked)
    for kind in [kind for kind in KINDS if of_kind[kind]]:
        cells = (counts[name][kind, column] for name in faults for column in columns)
        lines.append(f"{kind:20}{of_kind[kind]:>7}" + "".join(f"{cell or '':>14}" for cell in cells))
    return "\n".join(lines)


@click.command()
@click.option("--pairs", "count", type=click.IntRange(min=2), default=2000, show_default=True, help="How many to make.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the pairs.")
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True, help="Processes that compare.")
@click.option("--failures", is_flag=True, help="List the pairs that ours gets wrong.")
@click.option("--ours-only", is_flag=True, help="Leave plain math-verify out.")
def main(count: int, seed: int, workers: int, failures: bool, ours_only: bool) -> None:
    """Count false rewards and false refusals over generated pairs."""
    try:
        asked = pairs(seed, count)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    ways = {OURS: our_verdicts} | ({} if ours_only else {THEIRS: plain_verdicts})
    found = {name: way(asked, workers) for name, way in ways.items()}
    faults = {name: [fault(*p) for p in zip(asked, verdicts, strict=True)] for name, (verdicts, _) in found.items()}
    click.echo(table(asked, faults))
    equal = sum(pair.equal for pair in asked)
    for name, (_, seconds) in found.items():
        counts = Counter(faults[name])
        click.echo(f"\n{name}, {1e3 * seconds:.1f} ms of a process a pair")
        click.echo("    " + rate("false rewards", counts["false reward"], count - equal))
        click.echo("    " + rate("false refusals", counts["called wrong"] + counts["unreadable"], equal))
    if failures:
        for pair, what in zip(asked, faults[OURS], strict=True):
            if what:
                click.echo(f"{what:13} {pair.kind:18} reference {pair.reference!r}, answer {pair.answer!r}")
    counts = Counter(faults[OURS])
    refused = counts["called wrong"] + counts["unreadable"]
    met = not counts["false reward"] and refused < REFUSALS * equal
    click.echo(f"\nbar: no false reward, false refusals under {REFUSALS:.0%}: {'met' if met else 'MISSED'}")
    if not met:
        raise SystemExit(1)


if __name__ == "__main__":
    main()

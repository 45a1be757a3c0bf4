"""The commands that make the results of a study again."""

import pandas as pd


def make_command(
    study: str, *, seeds: int, first_seed: int = 0, bases: int = 1, first_base: int = 0, given: str = ""
) -> str:
    """Return the commands that make results/<study>.

    >>> make_command("components", seeds=1, first_seed=10, bases=5)
    'vcppo sweep components --bases 5 --seeds 1 --first-seed 10 && vcppo export components'
    """
    counts = (("bases", bases, 1), ("first-base", first_base, 0), ("seeds", seeds, None), ("first-seed", first_seed, 0))
    options = [f"--{name} {count}" for name, count, default in counts if count != default]
    return f"vcppo sweep {' '.join([study, *filter(None, [given]), *options])} && vcppo export {study}"


def command_of(study: str, runs: pd.DataFrame) -> str:
    """Return the commands that make these runs of a study: as many bases and seeds, from the first of each on.

    With the settings that it was given on the command line; of a local path these have the last part alone.
    """
    given = sorted({text for text in runs["given"].dropna() if text}) if "given" in runs else []
    bases = runs.groupby("base_seed")["seed"].nunique() if "base_seed" in runs else pd.Series([runs["seed"].nunique()])
    return make_command(
        study,
        seeds=int(bases.max()),
        first_seed=int(runs["seed"].min()),
        bases=len(bases),
        first_base=int(bases.index.min()),
        given=" ".join(given[:1]),  # of a study that was run in two ways it is not known which made what
    )

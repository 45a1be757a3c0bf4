"""Run every stage on a tiny model and write down its numbers, with its version, as stages.json.

    python tests/golden/make_stages_golden.py

`vcppo.store.cache.VERSIONS` is raised when a change of a stage's code changes its numbers, so that no result of before
is taken for one of after; test_stages.py holds the two together. A stage whose numbers have changed and whose version
has not is refused here, unless `--rounding` says that the change comes from elsewhere, for example another torch, or
`--more` that more is measured: every number that was there before must be as it was, so results of before stay.
"""

import json
import os
import sys
import tempfile
from pathlib import Path


def main() -> None:
    """Write the file."""
    os.environ["OMP_NUM_THREADS"] = "1"  # sums are the same to more digits
    sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]
    from stage_numbers import COMMAND, FILE, differences, less, measure

    with tempfile.TemporaryDirectory() as folder:
        stages = measure(Path(folder))
    before = json.loads(FILE.read_text())["stages"] if FILE.exists() else {}
    for name, now in stages.items():
        known = before.get(name)
        if known is not None and "--more" in sys.argv[1:] and not differences(less(now, known), known):
            continue
        if known is not None and known["version"] == now["version"] and differences(now, known):
            if "--rounding" not in sys.argv[1:]:
                first = differences(now, known)[0]
                sys.exit(f"stage {name}: {first}; raise VERSIONS[{name!r}] in vcppo/store/cache.py, or give --rounding")
            break
        if known is not None and known["version"] != now["version"]:
            break  # the stages after it differ because this one does
    FILE.write_text(json.dumps({"command": COMMAND, "stages": stages}, indent=1) + "\n")


if __name__ == "__main__":
    main()

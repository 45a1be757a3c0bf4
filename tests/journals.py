"""What runs have written down."""

import json
from pathlib import Path
from typing import Any

Metrics = dict[tuple[str, int, str], Any]  # by stage, step and name: a number, or None, as JSON has no NaN
OF_THE_MACHINE = ("cost/elapsed_s", "cost/peak_memory_mb")


def metrics(out: Path) -> Metrics:
    """Every number in the journals of a cache by stage, step and name, but for seconds and megabytes."""
    by_address = metrics_by_address(out).items()
    return {(where.partition("/")[0], step, name): value for (where, step, name), value in by_address}


def metrics_by_address(out: Path) -> Metrics:
    """The same where a stage has been run with several settings: by `stage/address`."""
    found: Metrics = {}
    for journal in out.glob("cache/*/*/journal.jsonl"):
        stage = "/".join(journal.parts[-3:-1])
        for line in journal.read_text().splitlines():
            record = json.loads(line)
            for name, value in record.get("values", {}).items():
                if not name.startswith(("time/", "system/")) and name not in OF_THE_MACHINE:
                    found[stage, record["step"], name] = value
    return found

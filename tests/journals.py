"""What runs have written down."""

import json
from pathlib import Path

OF_THE_MACHINE = ("cost/elapsed_s", "cost/peak_memory_mb")


def metrics(out: Path) -> dict[tuple[str, int, str], float | None]:
    """Every number in the journals of a cache by stage, step and name, but for seconds and megabytes."""
    return {(where.partition("/")[0], *rest): value for (where, *rest), value in metrics_by_address(out).items()}


def metrics_by_address(out: Path) -> dict[tuple[str, int, str], float | None]:
    """The same where a stage has been run with several settings: by `stage/address`."""
    found = {}
    for journal in out.glob("cache/*/*/journal.jsonl"):
        stage = "/".join(journal.parts[-3:-1])
        for line in journal.read_text().splitlines():
            record = json.loads(line)
            for name, value in record.get("values", {}).items():
                if not name.startswith(("time/", "system/")) and name not in OF_THE_MACHINE:
                    found[stage, record["step"], name] = value
    return found

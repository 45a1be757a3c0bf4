"""Cost of durable writing, on the disk of a folder: a checkpoint with its journal, synced and not; digests.

python -m bench.bench_durability FOLDER
"""

import hashlib
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from vcppo.store.journal import Journal
from vcppo.system.files import write_bytes

STATE = bytes(900_000)  # the size of a state of the embedded task's PPO
TIMES = 50


def checkpoint_ms(journal: Journal, path: Path) -> float:
    """Milliseconds of a journal's sync and a state's write, the median of `TIMES`."""
    taken = []
    for step in range(TIMES):
        journal.metrics(step, {"policy/loss": 1.0})
        began = time.perf_counter()
        journal.sync()
        write_bytes(path, STATE)
        taken.append(time.perf_counter() - began)
    return 1000 * statistics.median(taken)


def main() -> None:
    """Print each number with its unit."""
    fsync = os.fsync
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as folder:
        journal, path = Journal(Path(folder, "journal.jsonl")), Path(folder, "state.pt")
        for name, sync in (("synced", fsync), ("not synced", lambda descriptor: None)) * 2:
            os.fsync = sync
            print(f"a checkpoint of {len(STATE) / 1e6:.1f} MB, {name}: {checkpoint_ms(journal, path):.2f} ms")
    os.fsync = fsync
    content = bytes(200_000_000)
    began = time.process_time()
    hashlib.sha256(content)
    print(f"SHA-256: {len(content) / 1e9 / (time.process_time() - began):.2f} GB/s")


if __name__ == "__main__":
    main()

"""What is committed in results/ stays small enough to clone."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIMIT_MB = 100


def committed() -> list[Path]:
    """Files of results/ that git tracks and that are there."""
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("no git, or no repository: what is tracked cannot be told")
    listed = subprocess.run([git, "ls-files", "-z", "results"], cwd=ROOT, capture_output=True, check=True)
    return [path for name in listed.stdout.decode().split("\0") if name and (path := ROOT / name).is_file()]


def test_the_committed_results_stay_under_100_mb() -> None:
    sizes = {path: path.stat().st_size / 1e6 for path in committed()}
    total, first = sum(sizes.values()), sorted(sizes, key=lambda path: -sizes[path])[:5]
    largest = ", ".join(f"{path.relative_to(ROOT)} {sizes[path]:.1f}" for path in first)
    assert total < LIMIT_MB, (
        f"results/ has {total:.1f} MB of {LIMIT_MB}; largest: {largest}. Export a large study again with the metrics "
        "alone that a figure or a document reads, vcppo export STUDY --metrics 'eval/*' --metrics 'rollout/*', leave "
        "out tables that no figure reads, and say in results/README.md what was left out"
    )

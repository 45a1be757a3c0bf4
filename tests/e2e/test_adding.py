"""docs/adding.md shows what following the recipes of CONTRIBUTING changes: it applies, stays small, and trains."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "adding.md").read_text(encoding="utf-8")
DIFFS = dict(re.findall(r"^## (.+?)$.*?^```diff\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL))
FILES_AT_MOST = 3
TRAIN = """
import sys
from pathlib import Path
from tiny import tiny
from vcppo.models.distributed import together
from vcppo.stages.pipeline import run_stages
with together():
    uses = run_stages(tiny(*sys.argv[2:]), Path(sys.argv[1]))
print(uses["evaluation"].folder.result)
"""


def test_four_recipes_are_shown_and_none_changes_more_than_three_files() -> None:
    assert len(DIFFS) == 4
    assert all(len(re.findall(r"^diff --git", diff, flags=re.MULTILINE)) <= FILES_AT_MOST for diff in DIFFS.values())


@pytest.mark.e2e
def test_what_they_add_is_trained_with(tmp_path: Path) -> None:
    for folder in ("vcppo", "tests"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__", "before"))
    for diff in DIFFS.values():
        subprocess.run(["git", "apply"], input=diff, text=True, cwd=tmp_path, check=True)
    of_digits = ("task.chain_length", "task.digits", "task.stop_hazard", "task.held_out")
    tiny = tmp_path / "tests" / "tiny.py"
    lines = tiny.read_text(encoding="utf-8").splitlines(keepends=True)
    tiny.write_text("".join(line for line in lines if not line.strip().strip('"').startswith(of_digits)))
    added = ("task.name=reversal", "engine.kind=patient", "advantage.estimator=batch-mean", "policy.loss=spo")
    done = subprocess.run(
        [sys.executable, "-c", TRAIN, str(tmp_path / "out"), *added],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{tmp_path}:{tmp_path / 'tests'}", "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "eval/reversal/avg_at_2" in done.stdout

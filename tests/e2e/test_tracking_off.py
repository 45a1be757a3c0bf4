"""`--tracking-uri none`: a run imports no MLflow and leaves no trace of it; what it wrote can be delivered later."""

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from tiny import ASSIGNMENTS

from vcppo.cli.main import main

pytestmark = pytest.mark.e2e
CODE = """
import atexit, sys
from vcppo.cli.main import main
atexit.register(lambda: print("imported:", [name for name in ("mlflow", "sqlalchemy") if name in sys.modules]))
main(sys.argv[1:])
"""


def test_nothing_of_mlflow_is_imported_or_written_and_replay_delivers_all(tmp_path: Path) -> None:
    out = tmp_path / "runs"
    words = ["cold-start", "--out", str(out), "--tracking-uri", "none"]
    words += [flag for text in ASSIGNMENTS if text.startswith(("task.", "model.", "cold")) for flag in ("--set", text)]
    done = subprocess.run([sys.executable, "-c", CODE, *words], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "imported: []" in done.stdout
    assert f"MLflow: off; vcppo track replay cold-start --out {out} would deliver this" in done.stdout
    assert sorted(path.name for path in out.iterdir()) == ["cache", "studies"]

    assert main_says(["status", "cold-start", "--out", str(out)]) == "MLflow: off"
    for command in (["track", "replay", "cold-start"], ["export", "cold-start", "--from-mlflow"]):
        refused = CliRunner().invoke(main, [*command, "--out", str(out), "--tracking-uri", "none"])
        assert (refused.exit_code, "--tracking-uri none: expected MLflow's address" in refused.output) == (2, True)

    replayed = CliRunner().invoke(main, ["track", "replay", "cold-start", "--out", str(out)])
    assert replayed.exit_code == 0, replayed.output
    assert "records sent" in replayed.output
    assert (out / "mlflow.db").exists()
    assert main_says(["status", "cold-start", "--out", str(out)]).startswith("MLflow: 0 records undelivered (sqlite")


def main_says(words: list[str]) -> str:
    """The line on MLflow."""
    done = CliRunner().invoke(main, words)
    (line,) = [line for line in done.output.splitlines() if line.startswith("MLflow")]
    return line

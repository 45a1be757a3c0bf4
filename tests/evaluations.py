"""The command `vcppo evaluate` on a tiny policy, and the folder that it writes."""

from pathlib import Path

from click.testing import CliRunner, Result
from tiny import ASSIGNMENTS, new_policy, tiny

from vcppo.cli.main import main
from vcppo.models.checkpoints import save_model
from vcppo.tasks import make_task

TINY = [part for text in ASSIGNMENTS for part in ("--set", text)]


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["evaluate", *map(str, arguments)], catch_exceptions=False)


def a_policy(path: Path, seed: int = 0) -> Path:
    save_model(new_policy(seed=seed), make_task(tiny().task).tokenizer(), path)
    return path


def folder(out: Path) -> Path:
    (found,) = [path for path in (out / "evaluations").iterdir() if path.is_dir()]
    return found


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(*arguments: object) -> str:
    done = invoke(*arguments)
    assert done.exit_code == 2, done.output
    assert done.stderr.count("\n") == 1, done.stderr
    assert "Traceback" not in done.output
    return done.stderr

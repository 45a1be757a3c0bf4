"""The wheel alone, in an environment and a folder where there is nothing else of vcppo: as whoever has no checkout."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pandas as pd
import pytest
from tiny import ASSIGNMENTS

pytestmark = [pytest.mark.e2e, pytest.mark.long]
ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("vcppo", "ablations", "recipes", "results/paper", "setup.py", "pyproject.toml", "README.md", "LICENSE")
SDIST = "import sys; from setuptools import build_meta; print(build_meta.build_sdist(sys.argv[1]))"
PIP = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
BUILD = ("wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir")


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command that sees nothing of the checkout, and return what it printed."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel, built from the source distribution, which is built from the checkout."""
    folder = tmp_path_factory.mktemp("build")
    copy = folder / "vcppo"  # what setuptools leaves behind in a source folder ends up in the next wheel
    for name in SOURCES:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, copy / name)
    sdist = run(sys.executable, "-c", SDIST, folder, cwd=copy).splitlines()[-1]
    run(*PIP, *BUILD, folder / "wheel", folder / sdist, cwd=folder)
    (built,) = (folder / "wheel").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def binaries(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin/ of an environment that has vcppo from its wheel, and all else from the one that runs the tests."""
    environment = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", environment, cwd=environment)
    python = environment / "bin" / "python"
    run(*PIP, "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=environment)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(environment)}))
    assert {path.name.split("-")[0] for path in site.iterdir()} == {"vcppo"}
    (site / "others.pth").write_text(sysconfig.get_path("purelib"))  # not read as one, so an editable vcppo is not seen
    return environment / "bin"


def test_a_wheel_holds_every_module_study_recipe_and_published_number_and_nothing_else(wheel: Path) -> None:
    shipped = {"ablations": "ablations/*.toml", "recipes": "recipes/*.toml", "paper": "results/paper/*.csv"}
    wanted = {str(file.relative_to(ROOT)) for file in (ROOT / "vcppo").rglob("*.py")}
    page = ROOT / "vcppo" / "diagnosis" / "report"
    wanted |= {str(file.relative_to(ROOT)) for file in page.iterdir() if file.suffix in (".html", ".css", ".js")}
    for name, pattern in shipped.items():
        wanted |= {f"vcppo/shipped/{name}/{file.name}" for file in ROOT.glob(pattern)}
    held = [name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name]
    assert sorted(held) == sorted(wanted)


def test_a_study_its_figures_and_the_methods_work_in_an_empty_folder(binaries: Path, tmp_path: Path) -> None:
    vcppo = binaries / "vcppo"
    assert run(binaries / "python", "-c", "import vcppo; print(vcppo.__file__)", cwd=tmp_path).startswith(
        str(binaries.parent.resolve())
    )
    small = [
        word for text in ASSIGNMENTS for word in ("--set", text) if not text.startswith(("pretrain.steps", "steps"))
    ]
    said = run(vcppo, "sweep", "components", "--workers", "2", "--seeds", "1", *small, "--set", "steps=2", cwd=tmp_path)
    results = tmp_path / "runs" / "results"
    runs = pd.read_csv(results / "components" / "runs.csv")
    assert runs["status"].tolist() == ["done"] * 11
    assert set(runs["commit"]) == {"unknown"}
    assert f"figures and tables: {Path('runs/results/figures')}" in said
    table = (results / "figures" / "table2.md").read_text(encoding="utf-8")
    assert "41.9" in table, "the published number stands beside the measured one"
    shutil.rmtree(results / "figures")
    run(vcppo, "figures", "--only", "table2", cwd=tmp_path)
    assert (results / "figures" / "table2.md").read_text(encoding="utf-8") == table
    assert "wrote runs/results/figures/figure4.pdf, .png" in run(vcppo, "figures", "--only", "figure4", cwd=tmp_path)
    assert "vineppo" in run(vcppo, "methods", cwd=tmp_path)
    assert "Qwen/Qwen2.5-7B" in run(vcppo, "plan", "qwen2.5-7b-8gpu", "--gpus", "8", cwd=tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"runs"}

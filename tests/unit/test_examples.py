"""examples/: the Slurm scripts do what they say with the commands of Slurm in their way; the manifests are whole."""

import os
import re
import stat
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from sqlalchemy.engine import make_url

from vcppo.cli.main import main
from vcppo.planning.plan import Gpus, make_plan
from vcppo.settings.loading import load_settings
from vcppo.studies.study import load_study
from vcppo.system.redaction import ADDRESSES

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
SLURM, KUBERNETES, COMPOSE = (
    EXAMPLES / name for name in ("slurm.sbatch", "kubernetes.yaml", "postgresql.compose.yaml")
)
RAY_SLURM, RAY_KUBERNETES = EXAMPLES / "ray-slurm.sbatch", EXAMPLES / "ray-kubernetes.yaml"
SBATCH = {"job-name", "nodes", "ntasks-per-node", "gpus-per-node", "cpus-per-task", "mem", "time", "requeue", "output"}
TORCHRUN = {
    "--nnodes", "--nproc-per-node", "--node-rank", "--rdzv-id", "--rdzv-backend", "--rdzv-endpoint", "--master-addr",
    "--master-port", "--max-restarts",
}  # fmt: skip


def program(folder: Path, name: str, does: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/bash\n{does}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def submit(
    tmp_path: Path, *arguments: str, script: Path = SLURM, fits: bool = True, **environment: str
) -> subprocess.CompletedProcess[str]:
    """The script as Slurm runs it on the first node, with programs that say what they are asked."""
    program(tmp_path / "bin", "srun", 'echo "srun $*"')
    program(tmp_path / "bin", "scontrol", 'printf "node7\\nnode8\\n"')
    program(tmp_path, ".venv/bin/vcppo", f'printf "%s\\n" "vcppo $*" >&2; exit {0 if fits else 1}')
    program(tmp_path, ".venv/bin/ray", "sleep 1")
    told = {"SLURM_NNODES": "2", "SLURM_GPUS_ON_NODE": "8", "SLURM_JOB_ID": "17", "SLURM_JOB_NODELIST": "node[7-8]"}
    told |= {"SLURM_CPUS_PER_TASK": "32"}
    return subprocess.run(
        ["bash", str(script), *arguments], cwd=tmp_path, capture_output=True, text=True,
        env={"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", **told, **environment},
    )  # fmt: skip


def test_the_slurm_script_is_bash_and_asks_slurm_for_what_there_is() -> None:
    assert subprocess.run(["bash", "-n", str(SLURM)]).returncode == 0
    asked = dict(re.findall(r"^#SBATCH --([a-z-]+)(?:=(\S+))?$", SLURM.read_text(), flags=re.MULTILINE))
    assert set(asked) == SBATCH
    assert (asked["ntasks-per-node"], asked["gpus-per-node"]) == ("1", "8"), "torchrun starts a process a GPU"


def test_the_slurm_script_starts_the_same_group_on_every_node(tmp_path: Path) -> None:
    done = submit(tmp_path)
    assert done.returncode == 0, done.stderr
    words = done.stdout.split()
    assert words[:2] == ["srun", "--kill-on-bad-exit=1"]
    assert words[2] == ".venv/bin/torchrun"
    options = dict(zip(words[3:13:2], words[4:13:2], strict=True))
    assert options == {
        "--nnodes": "2", "--nproc-per-node": "8", "--rdzv-id": "17", "--rdzv-backend": "c10d",
        "--rdzv-endpoint": "node7:29500",
    }  # fmt: skip
    assert set(options) <= TORCHRUN
    check_command(words[13:])
    assert "vcppo plan recipes/qwen2.5-7b-8gpu.toml --gpus 16 --memory 80" in done.stderr


def test_the_slurm_script_passes_on_what_it_is_given(tmp_path: Path) -> None:
    done = submit(tmp_path, "recipes/qwen2.5-1.5b-1gpu.toml", "--set", "steps=3", OUT="elsewhere", GPU_MEMORY="141")
    assert done.stdout.split()[13:] == [
        "-m", "vcppo", "train", "--config", "recipes/qwen2.5-1.5b-1gpu.toml", "--out", "elsewhere", "--set", "steps=3",
    ]  # fmt: skip
    assert "--gpus 16 --memory 141 --set steps=3" in done.stderr


def test_the_slurm_script_starts_nothing_that_does_not_fit(tmp_path: Path) -> None:
    done = submit(tmp_path, fits=False)
    assert done.returncode == 1
    assert done.stdout == ""


def check_command(words: list[str]) -> None:
    """`-m vcppo COMMAND ...` names a command, options it has, and a file that is there and loads."""
    assert words[:2] == ["-m", "vcppo"]
    command = main.commands[words[2]]
    assert isinstance(command, click.Command)
    options = {option for parameter in command.params for option in parameter.opts}
    given = [word.partition("=")[0] for word in words[3:] if word.startswith("--")]
    assert set(given) <= options
    joined = " ".join(words[3:]).replace("=", " ").split()
    config = ROOT / joined[joined.index("--config") + 1]
    load_settings(config)


@pytest.fixture
def manifests() -> dict[str, Any]:
    return {document["kind"]: document for document in yaml.safe_load_all(KUBERNETES.read_text())}


def test_the_manifests_have_what_kubernetes_asks_of_them(manifests: dict[str, Any]) -> None:
    assert {kind: one["apiVersion"] for kind, one in manifests.items()} == {"Service": "v1", "Job": "batch/v1"}
    pod = manifests["Job"]["spec"]["template"]["spec"]
    assert pod["restartPolicy"] in ("OnFailure", "Never"), "a Job takes no other"
    (container,) = pod["containers"]
    assert {"name", "image", "command", "resources"} <= set(container)
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    assert all(isinstance(entry["value"], str) for entry in container["env"])
    assert isinstance(container["resources"]["limits"]["nvidia.com/gpu"], int)
    for one in manifests.values():
        assert re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", one["metadata"]["name"])


def test_the_pods_find_each_other(manifests: dict[str, Any]) -> None:
    service, job = manifests["Service"], manifests["Job"]
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    command = dict(word.split("=", 1) for word in pod["containers"][0]["command"] if "=" in word)
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}, "the label that a Job gives its pods"
    assert pod["subdomain"] == service["metadata"]["name"]
    assert command["--master-addr"] == f"{job['metadata']['name']}-0.{service['metadata']['name']}"
    assert int(command["--master-port"]) == service["spec"]["ports"][0]["port"]
    assert spec["completionMode"] == "Indexed"
    assert spec["completions"] == spec["parallelism"] == int(command["--nnodes"])
    assert command["--node-rank"] == "$(JOB_COMPLETION_INDEX)"
    assert int(command["--nproc-per-node"]) == pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"]


def test_the_jobs_command_is_one_that_there_is_and_fits(manifests: dict[str, Any]) -> None:
    words = manifests["Job"]["spec"]["template"]["spec"]["containers"][0]["command"]
    start = words.index("-m")
    assert words[0] == "torchrun"
    assert {word.partition("=")[0] for word in words[1:start]} <= TORCHRUN
    check_command(words[start:])
    settings = load_settings(ROOT / "recipes" / "qwen2.5-7b-8gpu.toml")
    assert make_plan(settings, Gpus.of(16, 80.0)).fits
    mounted = {
        mount["mountPath"] for mount in manifests["Job"]["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    }
    assert next(word.partition("=")[2] for word in words if word.startswith("--out=")) in mounted


# A Ray cluster


def test_the_ray_script_is_bash_and_asks_slurm_for_what_there_is() -> None:
    assert subprocess.run(["bash", "-n", str(RAY_SLURM)]).returncode == 0
    asked = dict(re.findall(r"^#SBATCH --([a-z-]+)(?:=(\S+))?$", RAY_SLURM.read_text(), flags=re.MULTILINE))
    assert set(asked) == SBATCH - {"gpus-per-node"}
    assert asked["ntasks-per-node"] == "1", "a node of Ray is a task of Slurm"


def test_the_ray_script_starts_a_head_the_other_nodes_and_one_sweep(tmp_path: Path) -> None:
    done = submit(tmp_path, script=RAY_SLURM)
    assert done.returncode == 0, done.stderr
    steps = [line.split() for line in done.stdout.splitlines()]
    starts = [step[step.index(".venv/bin/ray") :] for step in steps]
    heads = [start for start in starts if "--head" in start]
    assert len(starts) == 2
    assert [start[1:5] for start in heads] == [["start", "--head", "--port", "6379"]]
    assert [start[1:4] for start in starts if start not in heads] == [["start", "--address", "node7:6379"]]
    assert all(start[start.index("--num-cpus") + 1] == "32" for start in starts)
    dry, swept = (line.split() for line in done.stderr.splitlines())
    assert dry == ["vcppo", "sweep", "components", "--dry-run", "--out", "runs"]
    assert swept[1:] == [
        "sweep", "components", "--executor", "ray", "--address", "node7:6379", "--workers", "16", "--out", "runs",
    ]  # fmt: skip
    for words in (dry, swept):
        check_sweep(words[1:])


def test_the_ray_script_passes_on_what_it_is_given_and_has_a_worker_a_core_without_gpus(tmp_path: Path) -> None:
    done = submit(tmp_path, "methods", "--seeds", "5", script=RAY_SLURM, OUT="elsewhere", SLURM_GPUS_ON_NODE="")
    assert done.stderr.splitlines()[-1].endswith("--workers 64 --out elsewhere --seeds 5")


def test_the_ray_script_starts_nothing_for_a_study_that_is_wrong(tmp_path: Path) -> None:
    done = submit(tmp_path, script=RAY_SLURM, fits=False)
    assert (done.returncode, done.stdout) == (1, "")


def test_the_ray_job_has_what_kuberay_asks_of_it_and_a_command_that_there_is() -> None:
    (job,) = yaml.safe_load_all(RAY_KUBERNETES.read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    words = job["spec"]["entrypoint"].split()
    assert words[0] == "vcppo"
    check_sweep(words[1:])
    cluster = job["spec"]["rayClusterSpec"]
    assert f"ray=={cluster['rayVersion']}" in (ROOT / "constraints.txt").read_text().split()
    (workers,) = cluster["workerGroupSpecs"]
    assert workers["minReplicas"] <= workers["replicas"] <= workers["maxReplicas"]
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    count = int(words[words.index("--workers") + 1])
    assert count == workers["maxReplicas"] * int(workers["rayStartParams"]["num-cpus"])
    for group in (cluster["headGroupSpec"], workers):
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
        mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
        assert words[words.index("--out") + 1] in mounted, "all nodes share it"
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())


def check_sweep(words: list[str]) -> None:
    """`sweep STUDY ...` names a study that there is, and options that it has."""
    command = main.commands["sweep"]
    assert words[0] == command.name
    assert {word for word in words if word.startswith("--")} <= {o for p in command.params for o in p.opts}
    load_study(words[1])


def test_the_page_on_tasks_shows_the_example_as_it_is() -> None:
    page = (ROOT / "docs" / "adding.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    assert code == (ROOT / "examples" / "plugin_task" / "reversing.py").read_text(encoding="utf-8")


@pytest.fixture
def services() -> dict[str, Any]:
    return dict(yaml.safe_load(COMPOSE.read_text()))


def test_the_servers_of_a_study_are_those_that_vcppo_is_told(services: dict[str, Any]) -> None:
    told = dict(re.findall(r"export (\w+)=(\S+)", COMPOSE.read_text()))
    assert set(told) <= set(ADDRESSES)
    storage, tracking = make_url(told["VCPPO_STORAGE"]), make_url(told["MLFLOW_TRACKING_URI"])
    database = services["services"]["database"]
    assert (storage.username, storage.database) == (
        database["environment"]["POSTGRES_USER"],
        database["environment"]["POSTGRES_DB"],
    )
    assert database["ports"] == [f"{storage.port}:5432"]
    server = services["services"]["tracking"]
    assert server["ports"] == [f"{tracking.port}:{tracking.port}"]
    assert f"--port={tracking.port}" in server["command"]
    second = make_url(server["environment"]["MLFLOW_BACKEND_STORE_URI"].replace("${POSTGRES_PASSWORD}", "x"))
    assert (second.drivername, second.username, second.host) == (storage.drivername, storage.username, "database")
    (config,) = database["configs"]
    assert services["configs"][config["source"]]["content"] == f"CREATE DATABASE {second.database};"
    assert f"--dbname={second.database}" in database["healthcheck"]["test"]
    assert {name.split(":")[0] for one in services["services"].values() for name in one["volumes"]} == set(
        services["volumes"]
    )


@pytest.mark.filterwarnings("default")  # of SQLAlchemy, when MLflow is imported
def test_the_tracking_server_is_of_the_version_that_is_tested_and_has_its_options(services: dict[str, Any]) -> None:
    from mlflow.cli import cli

    server = services["services"]["tracking"]
    assert f"mlflow=={version('mlflow')} " in server["build"]["dockerfile_inline"]
    options = {option for parameter in cli.commands["server"].params for option in parameter.opts}
    variables = {parameter.envvar for parameter in cli.commands["server"].params}
    assert server["command"][:2] == ["mlflow", "server"]
    assert {word.partition("=")[0] for word in server["command"][2:]} <= options
    assert set(server["environment"]) <= variables
    assert "PASSWORD" not in " ".join(server["command"])

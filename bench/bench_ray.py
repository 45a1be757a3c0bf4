"""What a Ray cluster costs beside the local pool, on this machine alone: nodes here share its cores.

    python -m bench.bench_ray [--cells 1000] [--nodes 4] [--rounds 3] [--iterations 40]

- `--cells` cells that do nothing, on as many workers as there are nodes, once by each: what handing out a cell takes.
- a study of six runs of the embedded task at two workers, all of its stages computed anew, by each in turn, `--rounds`
  times: seconds by the clock from the command to its end, the cluster standing. The bar is a ratio below 1.05.

Other work on the machine makes the ratio worthless.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from vcppo.studies.execution import Execution
from vcppo.studies.local_pool import WorkerPool
from vcppo.studies.ray.cluster import connected
from vcppo.studies.study import parse_study
from vcppo.studies.sweep import run_study

MEMORY = 80 * 2**20  # of each node's object store, the least that Ray takes
STUDY = """
name = "ray"
title = "what Ray costs"
seeds = 3
arms = [{ name = "ppo", set = { method = "ppo" } }, { name = "grpo", set = { method = "grpo" } }]
[base]
"cold_start.steps" = 100
"evaluation.samples" = 2
"evaluation.every" = 0
"""


def run_cell(cell: Path, out: Path) -> dict[str, float]:
    """Run a cell that does nothing."""
    return {"final_accuracy": 0.5}


@contextmanager
def cluster_of(nodes: int) -> Iterator[str]:
    """Start a head that runs nothing and so many nodes of one CPU each; yield their address."""
    common = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": MEMORY}
    cluster = Cluster(initialize_head=True, head_node_args=common)
    try:
        for _ in range(nodes):
            cluster.add_node(num_cpus=1, object_store_memory=MEMORY)
        yield str(cluster.address)
    finally:
        cluster.shutdown()


def trivial(cells: int, workers: int, address: str | None) -> float:
    """Seconds of a study whose cells do nothing, by the local pool or on a cluster."""
    arms = [{"name": f"arm-{n:05d}", "set": {"policy.learning_rate": 1e-4 * (1 + n / cells)}} for n in range(cells)]
    study = parse_study(
        {"name": "trivial", "title": "nothing", "arms": arms, "seeds": 1, "base": {"steps": 1}}, "bench"
    )
    with tempfile.TemporaryDirectory(prefix="vcppo-ray-") as folder:
        out, began = Path(folder), time.perf_counter()
        with nullcontext() if address is None else connected(address, 1, out) as machines:
            make_pool = WorkerPool if machines is None else machines.make_pool
            execution = Execution((0,), out, workers, runner="bench.bench_ray:run_cell", make_pool=make_pool)
            outcome = run_study(study, execution)
        if outcome.exit_code:
            raise SystemExit(f"a study of {cells} cells that do nothing ended with {outcome.exit_code}")
        return time.perf_counter() - began


def swept(iterations: int, address: str | None) -> float:
    """Seconds of `vcppo sweep` on a small study, by the local pool or on a cluster."""
    executor = () if address is None else ("--executor", "ray", "--address", address)
    with tempfile.TemporaryDirectory(prefix="vcppo-ray-") as folder:
        Path(folder, "ray.toml").write_text(STUDY)
        command = [sys.executable, "-m", "vcppo", "sweep", "ray.toml", "--workers", "2", "--out", "runs", *executor]
        began = time.perf_counter()
        subprocess.run(
            [*command, "--tracking-uri", "none", "--set", f"steps={iterations}"],
            cwd=folder,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        return time.perf_counter() - began


def main() -> None:
    """Print a line for each comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=1000)
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=40)
    options = parser.parse_args()
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path.cwd()), *filter(None, [os.environ.get("PYTHONPATH")])])
    with cluster_of(options.nodes) as address:
        if options.cells:
            local, on_ray = (trivial(options.cells, options.nodes, where) for where in (None, address))
            print(
                f"{options.cells} cells that do nothing, {options.nodes} workers: local pool {local:.1f} s, "
                f"{options.nodes} nodes of Ray {on_ray:.1f} s ({1000 * on_ray / options.cells:.1f} ms a cell)",
                flush=True,
            )
        ratios = []
        for number in range(options.rounds):
            local, on_ray = (swept(options.iterations, where) for where in (None, address))
            ratios.append(on_ray / local)
            print(f"round {number}: local pool {local:.1f} s, Ray {on_ray:.1f} s, ratio {ratios[-1]:.3f}", flush=True)
    if ratios:
        print(f"ratio: median {statistics.median(ratios):.3f} of {len(ratios)}, {min(ratios):.3f} to {max(ratios):.3f}")
    ray.shutdown()


if __name__ == "__main__":
    main()

"""Threads that sleep while they wait; asserts of shared modules that say what differs; the longest files first."""

import os
from collections.abc import Iterator

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read when torch loads
os.environ.setdefault("OMP_NUM_THREADS", "1")

pytest.register_assert_rewrite("deliveries", "dump_lines", "evaluations", "refusals", "trainers", "vllm_echo")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run files that hold a test marked e2e first: one that is begun last has the other workers wait for it."""
    long = {item.path for item in items if item.get_closest_marker("e2e")}
    items.sort(key=lambda item: item.path not in long)


@pytest.fixture(autouse=True)
def no_address_is_left_behind() -> Iterator[None]:
    """Fail a test that leaves an address of MLflow in the environment, where the next test reads it.

    `mlflow.set_tracking_uri` does: give `MlflowClient` the address.
    """
    before = os.environ.get("MLFLOW_TRACKING_URI")
    yield
    after = os.environ.pop("MLFLOW_TRACKING_URI", None)
    if before is not None:
        os.environ["MLFLOW_TRACKING_URI"] = before
    if after != before:
        pytest.fail(f"MLFLOW_TRACKING_URI is left behind as {after}; it was {before}")

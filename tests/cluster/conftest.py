"""Tests on a Ray cluster, several nodes on this machine: `nox -s ray` has Ray, and lets none skip."""

import os
from collections.abc import Iterator

import pytest
from ray_nodes import MISSING, Nodes

MUST_RUN = "VCPPO_REQUIRE_RAY"


def pytest_runtest_setup(item: pytest.Item) -> None:
    if not MISSING:
        return
    if os.environ.get(MUST_RUN):
        pytest.fail(f"Ray is not installed, and {MUST_RUN} says that it is")
    pytest.skip("Ray is not installed; `nox -s ray` runs this in an environment that has it")


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    nodes = Nodes(3)
    yield nodes
    nodes.close()

"""Threads that sleep while they wait, whatever else the machine does; the longest files first."""

import os

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read when torch loads
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run files that hold a test marked e2e first: one that is begun last has the other workers wait for it."""
    long = {item.path for item in items if item.get_closest_marker("e2e")}
    items.sort(key=lambda item: item.path not in long)

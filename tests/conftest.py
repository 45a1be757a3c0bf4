"""Threads that sleep while they wait; asserts of shared modules that say what differs; the longest files first."""

import os

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read when torch loads
os.environ.setdefault("OMP_NUM_THREADS", "1")

pytest.register_assert_rewrite("deliveries", "dump_lines", "evaluations", "refusals", "trainers", "vllm_echo")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run files that hold a test marked e2e first: one that is begun last has the other workers wait for it."""
    long = {item.path for item in items if item.get_closest_marker("e2e")}
    items.sort(key=lambda item: item.path not in long)

"""Tests of verl as an engine. Those marked `verl` need the real one: `nox -s verl` has it and lets none skip."""

import os

import pytest

from vcppo.studies.verl.launching import is_installed


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("verl") is None or is_installed():
        return
    if os.environ.get("VCPPO_REQUIRE_VERL"):
        pytest.fail("verl is not installed, and VCPPO_REQUIRE_VERL says that it is")
    pytest.skip("verl is not installed; `nox -s verl` runs this in an environment that has it")

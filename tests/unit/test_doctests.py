"""The examples in docstrings do what they say."""

import doctest
import importlib
import pkgutil
from importlib.util import find_spec

import pytest

import vcppo
import vcppo.analysis

NEED_RAY = ("vcppo.studies.ray.cluster", "vcppo.studies.ray.pool")
MODULES = sorted(
    module.name
    for package in (vcppo,)
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    if not module.name.endswith(("__main__", "verl_plugin.trainer"))  # the latter needs verl to be imported
    and not (module.name in NEED_RAY and find_spec("ray") is None)
)


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_there_are_examples() -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    examples = [test for name in MODULES for test in finder.find(importlib.import_module(name)) if test.examples]
    assert len(examples) >= 10

"""The examples in docstrings and on pages do what they say."""

import doctest
import importlib
import pkgutil
from importlib.util import find_spec
from pathlib import Path

import pytest

import vcppo
import vcppo.analysis

DOCS = Path(__file__).resolve().parents[2] / "docs"
NEED_RAY = ("vcppo.studies.ray.cluster", "vcppo.studies.ray.pool")
MODULES = sorted(
    module.name
    for package in (vcppo,)
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    if not module.name.endswith(("__main__", "verl_plugin.trainer"))  # the latter needs verl to be imported
    and not (module.name in NEED_RAY and find_spec("ray") is None)
)
PAGES = sorted(page for page in DOCS.glob("*.md") if "```pycon" in page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_examples_of_a_page(page: Path) -> None:
    text = page.read_text(encoding="utf-8").replace("```", "\n")  # a fence ends what is expected
    test = doctest.DocTestParser().get_doctest(text, {}, page.name, str(page), 0)
    assert doctest.DocTestRunner().run(test).failed == 0


def test_there_are_examples() -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    examples = [test for name in MODULES for test in finder.find(importlib.import_module(name)) if test.examples]
    assert len(examples) >= 10
    assert [page.name for page in PAGES] == ["critics.md"]

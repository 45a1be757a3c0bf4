"""The form of a study file as docs/studies.md tells it: its examples are studies, its table has every key."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel

from vcppo.settings.search_space import Dimension
from vcppo.studies.study import ArmSettings, PrunerSettings, SearchSettings, Study, parse_study
from vcppo.studies.verl.names import as_text

PAGE = Path(__file__).resolve().parents[3] / "docs" / "studies.md"
TEXT = PAGE.read_text(encoding="utf-8").split("## The form of a study file")[1].split("\n## ")[0]
MODELS: dict[str, type[BaseModel]] = {
    "": Study,
    "arms.": ArmSettings,
    "search.": SearchSettings,
    "search.space.": Dimension,
    "search.pruner.": PrunerSettings,
}


def keys() -> Iterator[tuple[str, str]]:
    """(key, default in words) of every model."""
    for prefix, model in MODELS.items():
        for name, field in model.model_fields.items():
            empty = field.default in ({}, (), "")
            yield prefix + name, "needed" if field.is_required() else "empty" if empty else as_text(field.default)


def test_the_table_has_every_key_with_its_default() -> None:
    rows = re.findall(r"^\| (`.*?`) \| (.*?) \|", TEXT, re.MULTILINE)
    told = [(key.strip("`"), default) for listed, default in rows for key in listed.split(", ")]
    assert sorted(told) == sorted(keys())


def test_its_examples_are_studies() -> None:
    arms, search = (parse_study(tomllib.loads(block), "docs") for block in re.findall(r"```toml\n(.*?)```", TEXT, re.S))
    assert len(arms.cells()) == 36
    assert [cell.name for cell in arms.cells()[:2]] == [
        "calibrated,policy.learning_rate=0.0001,pretrain.steps=0-s0",
        "calibrated,policy.learning_rate=0.0001,pretrain.steps=50-s0",
    ]
    assert search.search is not None
    assert list(search.space()) == ["policy.learning_rate", "pretrain.steps", "gae.lambda_actor"]

"""The description of report.json: it is that of schema.py as it is, and a report obeys it."""

import json
from pathlib import Path
from typing import Any

from diagnosis_report_example import report

from vcppo.diagnosis.report.describing import PAGE, SCHEMA, described_page, described_schema, field_comments

DOCS = Path(__file__).parents[3] / "docs"
HOW = "write it anew with `python -m vcppo.diagnosis.report.describing docs`"


def test_the_committed_description_is_that_of_the_schema() -> None:
    assert json.loads((DOCS / SCHEMA).read_text()) == described_schema(), HOW
    assert (DOCS / PAGE).read_text() == described_page(), HOW


def test_comments_behind_fields_are_descriptions() -> None:
    assert field_comments()["Regressor", "bias"] == "mean(value - return), units of reward"
    about = described_schema()["$defs"]["Regressor"]["properties"]["bias"]
    assert about == {"$ref": "#/$defs/Estimate", "description": "mean(value - return), units of reward"}


def test_a_report_has_the_fields_that_are_described_and_no_others() -> None:
    schema = described_schema()

    def check(value: Any, about: dict[str, Any]) -> None:
        if "$ref" in about:
            about = schema["$defs"][about["$ref"].rsplit("/", 1)[-1]]
        if "anyOf" in about:
            options = [one for one in about["anyOf"] if (one.get("type") == "null") == (value is None)]
            check(value, options[0])
        elif about.get("properties"):
            assert set(value) == set(about["properties"])
            for name, item in value.items():
                check(item, about["properties"][name])
        elif about.get("type") == "array":
            for item in value:
                check(item, about["items"])
        elif "enum" in about:
            assert value in about["enum"]

    check(json.loads(report().model_dump_json()), schema)

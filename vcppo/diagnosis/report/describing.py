"""report.json described: its JSON Schema, and a page of documentation, both from schema.py and its comments.

`python -m vcppo.diagnosis.report.describing docs` writes docs/report.schema.json and docs/report-json.md.
"""

import ast
import inspect
import json
import sys
import tokenize
from io import StringIO
from pathlib import Path
from typing import Any

from vcppo.diagnosis import schema
from vcppo.diagnosis.schema import VERSION, Report
from vcppo.system.files import write_bytes

SCHEMA, PAGE = "report.schema.json", "report-json.md"
INTRODUCTION = f"""# report.json

`vcppo diagnose` writes `report.json` beside its page: every number of the page, for programs. This is version {VERSION} of its schema, `schema_version` in the file. The version rises when a field changes its meaning or goes; new fields may come without. The same as JSON Schema is in [{SCHEMA}]({SCHEMA}).

An interval is a 95 % bootstrap interval over prompts. A number that could not be measured is `null`, and `why` beside it says what would be needed. NaN and infinities are never written.

Both files are made from [schema.py](../vcppo/diagnosis/schema.py) by `python -m vcppo.diagnosis.report.describing docs`.
"""  # noqa: E501


def described_schema() -> dict[str, Any]:
    """The JSON Schema of a report; comments behind fields are their descriptions."""
    whole = Report.model_json_schema()
    comments = field_comments()
    for name, part in {"Report": whole, **whole["$defs"]}.items():
        for field, about in part["properties"].items():
            about.pop("title", None)
            if (name, field) in comments:
                about["description"] = comments[name, field]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **whole}


def described_page() -> str:
    """The schema as a page: a table for each part, the whole first."""
    whole = described_schema()
    parts = {"Report": whole, **whole["$defs"]}
    sections = [_section(name, part) for name, part in parts.items()]
    return "\n".join([INTRODUCTION, *sections])


def field_comments() -> dict[tuple[str, str], str]:
    """Return the comments on a field's lines, by class and field."""
    source = inspect.getsource(schema)
    lines = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    return {
        (part.name, field.target.id): " ".join(lines[i] for i in _lines_of(field) if i in lines)
        for part in ast.parse(source).body
        if isinstance(part, ast.ClassDef)
        for field in part.body
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if any(i in lines for i in _lines_of(field))
    }


def _lines_of(field: ast.AnnAssign) -> range:
    return range(field.lineno, (field.end_lineno or field.lineno) + 1)


def _section(name: str, part: dict[str, Any]) -> str:
    rows = [
        f"| `{field}` | {_kind(about)} | {about.get('description', '')} |"
        for field, about in part["properties"].items()
    ]
    return "\n".join(
        [f"## {name}\n", f"{part['description']}\n", "| field | type | meaning |", "|---|---|---|", *rows, ""]
    )


def _kind(about: dict[str, Any]) -> str:
    if "anyOf" in about:
        return " or ".join(_kind(one) for one in about["anyOf"])
    if "$ref" in about:
        name = about["$ref"].rsplit("/", 1)[-1]
        return f"[{name}](#{name.lower()})"
    if "enum" in about:
        return ", ".join(f"`{value}`" for value in about["enum"])
    if about["type"] == "array":
        return f"list of {_kind(about['items'])}"
    if about["type"] == "object":
        return f"object of {_kind(about['additionalProperties'])}"
    return str(about["type"])


if __name__ == "__main__":
    (folder,) = map(Path, sys.argv[1:])
    write_bytes(folder / SCHEMA, (json.dumps(described_schema(), indent=2, ensure_ascii=False) + "\n").encode())
    write_bytes(folder / PAGE, described_page().encode())

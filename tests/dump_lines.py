"""Dumps line by line, and the line that refuses one."""

import json
from pathlib import Path
from typing import Any

import pytest

from vcppo.diagnosis.dumps.reading import read_dump
from vcppo.errors import DataError


def line(**changes: Any) -> dict[str, Any]:
    return {"prompt": "p", "response": "r", "score": 1.0} | changes


def lines(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def refusal(path: Path, content: str | bytes) -> str:
    """Return what is said of a file with this content."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    with pytest.raises(DataError) as refused:
        read_dump([path])
    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith(str(path))
    return str(refused.value).removeprefix(str(path))

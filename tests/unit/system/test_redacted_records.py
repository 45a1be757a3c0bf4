"""Records and JSON files are redacted string by string: their shape stays, whatever a response holds."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vcppo.system import redaction
from vcppo.system.redaction import redacted, redacted_json, redacted_values, remember


def test_strings_within_a_record_are_redacted_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_known", set())
    monkeypatch.setattr(redaction, "_addresses", {})
    remember("postgresql://ada:hunter22@host/db")
    record = {"a": ["http://x:hunter22@h/1", "hunter22", "y@z"], "n": 22, "api_key": "hunter2", "t": {"token": 3}}
    clean = {"a": ["http://h/1", "***", "y@z"], "n": 22, "api_key": "***", "t": {"token": 3}}
    assert redacted_values(record) == clean
    assert json.loads(redacted_json(json.dumps(record))) == clean
    assert redacted_json('{"a":  1.50}') == '{"a":  1.50}', "to the byte where there is no secret"


LOOK_LIKE_SECRETS = (
    'password="abc"', "password='abc", 'API_TOKEN = "x"', '/?token="y"', '&key="a"', 'Authorization: "Basic x"',
    '"password": "', "http://ada:x@host/", "\\", '"', "'", "\n",
)  # fmt: skip


@given(st.lists(st.lists(st.sampled_from(LOOK_LIKE_SECRETS)).map("".join), min_size=1))
def test_text_that_looks_like_a_secret_breaks_no_record(texts: list[str]) -> None:
    """A quote in a sampled response took the rest of the line with it, and no journal could be read after that."""
    record = {"columns": {"text": texts, "n": list(range(len(texts)))}}
    clean = redacted_values(json.loads(json.dumps(record)))
    assert clean == json.loads(json.dumps(clean))
    assert clean["columns"]["n"] == record["columns"]["n"]
    assert len(clean["columns"]["text"]) == len(texts)
    assert clean["columns"]["text"] == [redacted(text) for text in texts]

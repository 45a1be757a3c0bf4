"""The viewer's data: what the page unpacks is what was packed, and it is small."""

import base64
import json
import zlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from diagnosis_report_example import HOSTILE, hostile, viewer
from hypothesis import given
from hypothesis import strategies as st

from vcppo.diagnosis.report.packing import LIMIT, MAX_DECIMALS, grid_decimals, on_grid, packed
from vcppo.diagnosis.report.viewer import ViewedResponse, ViewerData
from vcppo.errors import ShapeError

CODES = {LIMIT + 1: np.nan, LIMIT + 2: np.inf, LIMIT + 3: -np.inf}


def unpacked(text: str) -> tuple[dict[str, Any], np.ndarray, list[np.ndarray]]:
    """Header, token numbers and columns, read as packing.py says they lie."""
    data = zlib.decompress(base64.b64decode(text))
    length = int.from_bytes(data[:4], "little")
    header = json.loads(data[4 : 4 + length])
    total = sum(one["length"] for one in header["responses"])
    planes = np.frombuffer(data[4 + length :], dtype=np.uint8).reshape(-1, 4, total).astype(np.int64)
    tokens, *columns = (planes * (256 ** np.arange(4))[None, :, None]).sum(axis=1)
    result = []
    for about, steps in zip(header["series"], columns, strict=True):
        integers = np.cumsum(np.where(steps % 2, -(steps + 1) // 2, steps // 2))
        numbers = integers / 10.0 ** about["decimals"]
        for code, value in CODES.items():
            numbers[integers == code] = value
        result.append(numbers)
    return header, tokens, result


def test_what_is_unpacked_is_what_was_packed() -> None:
    data = viewer(12, steps=(0, 5))
    header, tokens, columns = unpacked(packed(data))
    texts = [text for one in data.responses for text in one.tokens]
    assert [header["vocabulary"][i] for i in tokens] == texts
    assert [(s["kind"], s.get("critic")) for s in header["series"]] == [
        ("values", 0), ("values", 1), ("returns", None), ("logprobs", None), ("entropy", None)]  # fmt: skip
    assert header["responses"][3]["step"] == 5
    assert header["prompts"][header["responses"][3]["prompt"]] == data.responses[3].prompt
    wanted = [
        np.concatenate([np.asarray(one.values[0]) for one in data.responses]),
        np.concatenate([np.asarray(one.values[1]) for one in data.responses]),
        np.concatenate([np.asarray(one.returns) for one in data.responses]),
    ]
    for about, got, want in zip(header["series"], columns, wanted, strict=False):
        np.testing.assert_allclose(got, want, rtol=0, atol=0.500001 * 10.0 ** -about["decimals"])
    assert np.isnan(columns[0]).sum() == 1
    assert header["series"][2]["decimals"] == 0  # scores of -1 and 1 need none


def test_responses_to_one_prompt_carry_it_once() -> None:
    header, _, _ = unpacked(packed(viewer(8)))
    assert len(header["prompts"]) == 2
    assert len(set(header["vocabulary"])) == len(header["vocabulary"])


def test_200_responses_of_2000_tokens_stay_under_5_mb() -> None:
    size = len(packed(viewer(200, 2000)))
    print(f"{size / 1e6:.2f} MB")
    assert size < 4_500_000  # half a megabyte is left for the rest of the page


def test_hostile_texts_are_packed_as_they_are() -> None:
    header, tokens, _ = unpacked(packed(hostile()))
    assert tuple(header["vocabulary"][i] for i in tokens) == HOSTILE


def test_what_is_not_finite_or_not_known_stays_so() -> None:
    one = ViewedResponse(
        "p", "", ("a",) * 5, 1.0, ((0.5, np.nan, np.inf, -np.inf, 1e30),), (1.0,) * 5, logprobs=(-1.0,) * 5
    )
    other = replace(one, logprobs=None, score=float("nan"))
    header, _, (values, _, logprobs) = unpacked(packed(ViewerData(("c",), (one, other))))
    np.testing.assert_array_equal(values[1:4], [np.nan, np.inf, -np.inf])
    assert values[4] == LIMIT  # beyond the grid: its edge
    np.testing.assert_array_equal(logprobs, [-1.0] * 5 + [np.nan] * 5)
    assert [one["has"] for one in header["responses"]] == [["logprobs"], []]
    assert header["responses"][1]["score"] is None


@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=50))
def test_the_grid_is_fine_beside_the_numbers_deviation(numbers: list[float]) -> None:
    decimals = grid_decimals([numbers])
    assert 0 <= decimals <= MAX_DECIMALS
    back = on_grid(np.asarray(numbers), decimals) / 10.0**decimals
    low, high = np.quantile(numbers, [0.16, 0.84])
    fine = max((high - low) / 2 / 200, 10.0**-MAX_DECIMALS, 1e-7 * np.abs(numbers).max())
    if high > low:
        assert np.abs(back - numbers).max() <= 0.5001 * fine


@pytest.mark.parametrize(
    ("numbers", "decimals"), [([], 0), ([0.0], 0), ([-1.0, 1.0], 0), ([0.5, 0.25], 2), ([np.nan], 0)]
)
def test_no_more_decimals_than_the_numbers_have(numbers: list[float], decimals: int) -> None:
    assert grid_decimals([numbers]) == decimals


def test_a_column_of_another_length_is_refused() -> None:
    wrong = ViewedResponse("p", "", ("a", "b"), 1.0, ((0.5,),), (1.0, 1.0))
    with pytest.raises(ShapeError, match=r"ViewerData.responses\[0\].values\[0\]: 1 numbers, expected 2, one a token"):
        ViewerData(("c",), (wrong,))
    with pytest.raises(ShapeError, match=r"values: 1 critics, expected 2"):
        ViewerData(("c", "d"), (wrong,))

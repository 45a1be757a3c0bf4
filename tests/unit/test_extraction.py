"""The last box of a text, and what counts as an integer."""

import time

import pytest

from vcppo.tasks.extraction import after_thought, as_integer, last_box


@pytest.mark.parametrize(
    ("text", "box"),
    [
        (r"so \boxed{204}", "204"),
        (r"so \boxed{ 204 }", "204"),
        (r"\boxed {204}", "204"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{1} no, \boxed{2}", "2"),
        (r"\boxed{1} and then \boxed{2", "1"),  # the last one never closes
        (r"\boxed{1 \boxed{2}", "2"),
        (r"\boxed{\boxed{7}}", "7"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\text{a } b}}}", r"\text{a } b"),
        (r"{{{ \boxed{5}", "5"),
        (r"}}} \boxed{5}", "5"),
        (r"\boxed{}", ""),
        (r"\\boxed{3}", "3"),  # written as in a JSON string
        (r"\boxed 5", None),
        ("boxed{5}", None),
        ("", None),
        (r"\boxed{", None),
    ],
)
def test_the_last_box(text: str, box: str | None):
    assert last_box(text) == box


@pytest.mark.parametrize(
    "hostile", ["\\" * 200_000, r"\boxed{" * 30_000, "{" * 200_000, "}" * 200_000, "\\boxed " * 30_000]
)
def test_a_box_after_200_kb_of_rubbish_is_found_in_linear_time(hostile: str):
    began = time.perf_counter()
    assert last_box(hostile + r" \boxed{7}") == "7"
    assert last_box(hostile) is None
    assert time.perf_counter() - began < 2.0  # some 0.1 s; quadratic would take minutes


def test_a_box_at_the_end_of_a_megabyte_is_read():
    assert last_box("Let me think about { this } again. " * 30_000 + r"\boxed{204}") == "204"


def test_what_follows_the_first_end_of_a_thought():
    assert after_thought("a</think>b</think>c", "</think>") == "b</think>c"
    assert after_thought("a", "</think>") is None
    assert after_thought("a</think>", "</think>") == ""


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("204", "204"), (" 204 ", "204"), ("204.", "204"), ("$204$", "204"), (r"\text{204}", "204"), ("033", "33"),
        ("000", "0"), ("-0", "0"), ("-7", "-7"), ("+7", "7"), ("1,204", "1204"), ("1{,}204", "1204"),
        (r"1\,204", "1204"), (r"\mathbf{ 12 }.", "12"), (r"\ 12 \,", "12"), ("1,204,000", "1204000"),
        ("1,20", None), ("12,04", None), ("2.0", None), ("2/1", None), ("x", None), ("", None), ("-", None),
        ("٢٠٤", None), ("２０４", None), ("2²", None), (r"\frac{4}{2}", None), ("2 0 4", None), ("..", None),
    ],
)  # fmt: skip
def test_what_is_an_integer(text: str, number: str | None):
    assert as_integer(text) == number


def test_digits_without_end_are_an_integer_too():
    assert as_integer("0" * 10_000 + "1" * 10_000) == "1" * 10_000  # int() refuses more than 4300

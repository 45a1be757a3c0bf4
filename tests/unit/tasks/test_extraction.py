"""The last box of a text, and what counts as an integer."""

import time

import pytest

from vcppo.tasks.extraction import after_thought, as_integer, last_box, last_number


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
        (r"\fbox{7}", "7"),
        (r"so \fbox{ \frac{1}{2} }.", r"\frac{1}{2}"),
        (r"\fbox{1} no, \fbox{2}", "2"),
        (r"\boxed{7}, \fbox{see above}", "7"),
        (r"\boxed{\fbox{7}}", r"\fbox{7}"),
        (r"\fbox{\boxed{7}}", "7"),
        (r"\boxed{1 \fbox{2}", "2"),
        (r"\boxed 5", None),
        ("boxed{5}", None),
        ("", None),
        (r"\boxed{", None),
    ],
)
def test_the_last_box(text: str, box: str | None) -> None:
    assert last_box(text) == box


@pytest.mark.parametrize(
    "hostile", ["\\" * 200_000, r"\boxed{" * 30_000, "{" * 200_000, "}" * 200_000, "\\boxed " * 30_000]
)
def test_a_box_after_200_kb_of_rubbish_is_found_in_linear_time(hostile: str) -> None:
    began = time.perf_counter()
    assert last_box(hostile + r" \boxed{7}") == "7"
    assert last_box(hostile) is None
    assert time.perf_counter() - began < 2.0  # some 0.1 s; quadratic would take minutes


def test_a_box_at_the_end_of_a_megabyte_is_read() -> None:
    assert last_box("Let me think about { this } again. " * 30_000 + r"\boxed{204}") == "204"


def test_what_follows_the_first_end_of_a_thought() -> None:
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
def test_what_is_an_integer(text: str, number: str | None) -> None:
    assert as_integer(text) == number


def test_digits_without_end_are_an_integer_too() -> None:
    assert as_integer("0" * 10_000 + "1" * 10_000) == "1" * 10_000  # int() refuses more than 4300


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("so 9 + 8 = 17.", "17"),
        ("the answer to 9 + 8.", None),
        (r"The answer is $\frac{1}{2}$.", r"\frac{1}{2}"),
        ("The answer is **17**.", "17"),
        ("2**10", None),
        (r"is 3\sqrt{2}", None),
        (r"is \sqrt 2", None),
        (r"$\sqrt{2}$", None),
        ("5 cm^2", "5"),
        ("10^5", None),
        ("x^2 + 5x", None),
        ("is 5x", None),
        ("17 apples", "17"),
        ("a = 17", "17"),
        ("is -5.", "-5"),
        ("x -5", None),
        ("9-5", None),
        ("9 - 5", None),
        ("9 -5", None),
        ("$1,204", "1,204"),
        (r"12\%", r"12\%"),
        ("12%", "12%"),
        (r"6.02 \times 10^{23}", r"6.02 \times 10^{23}"),
        ("5 1/2", "5 1/2"),
        (r"1\frac12", r"1\frac12"),
        ("(1, 2)", None),
        ("f(2)", None),
        (r"\(17\)", "17"),
        (r"\[ 17 \]", "17"),
        ("In total, 17 left", "17"),
        ("1, 2", None),
        ("3:1", None),
        ("answer:17", "17"),
        ("17 = 9 + 8", None),
        ("17 = x", None),
        (r"\frac{x}{2}", None),
        (r"2 \pi", None),
        (r"2\pi", None),
        ("2 pi", None),
        (r"90^\circ", "90"),
        ("17 - that is it", "17"),
        ("17 - x", None),
        ("17!", None),
        ("0.5", "0.5"),
        (".5", ".5"),
        ("about 3.14 m", None),
        ("x_1", None),
        ("x_1 = 7", "7"),
        ("so 17", "17"),
        ("17", "17"),
        ("", None),
        ("none", None),
        ("3 x", None),
        (r"5\text{ cm}", "5"),
        ("$17$ dollars", "17"),
        ("#### 17", "17"),
        ("2 \xd7 8", None),
        ("2\xb78", None),
        ("12345", "12345"),
        (r"\frac{9+8}{1}", None),
        ("34/2", "34/2"),
        ("9 plus 8", "8"),
        ("17\ufffd", None),
        (r"\approx 17", "17"),
        (r"\rightarrow 17", "17"),
        ("17th", None),
        ("1.5.2", None),
        ("The numbers are 3 and 5", "5"),
        (r"3 \cdot 8", None),
        ("|-17|", None),
        ("= -17", "-17"),
        ("=-17", "-17"),
        ("$-17$", "-17"),
        ("17,", "17"),
        ("17, so it is.", "17"),
        ("9 \n+ 8", None),
        ("20-3", None),
        ("9+8", None),
        ("about 3.14 km", "3.14"),
        ("The answer is 10 000.", None),
        ("It is 1'000", None),
        ("1\u202f234", None),
        ("in 2024 there were 300", "300"),
    ],
)
def test_the_last_number_if_it_stands_alone(text: str, number: str | None) -> None:
    assert last_number(text) == number


def test_a_number_that_begins_before_the_part_that_is_searched_is_none() -> None:
    assert last_number("12345", start=2) is None
    assert last_number("12 345", start=2) == "345"


@pytest.mark.parametrize("hostile", ["9", "1,234", r"\frac{", "1 ", "^{", " ", "-", "**", "1/", r"\times 10^"])
def test_the_last_number_of_a_long_text_is_found_at_once(hostile: str) -> None:
    began = time.perf_counter()
    last_number(hostile * (2000 // len(hostile)) + " 7")
    assert time.perf_counter() - began < 1.0


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \fbox{7}.", "7"),
        (r"$\fbox{\frac{1}{2}}$", r"\frac{1}{2}"),
        (r"\boxed{3}, see \fbox{4}", "3"),
        (r"\fbox{3}, no: \boxed{4}", "4"),
        (r"\boxed{\fbox{5}}", r"\fbox{5}"),
        (r"\fbox{\{1, 2\}}", r"\{1, 2\}"),
        (r"\fbox {x}", "x"),
        (r"\fbox{3", None),
    ],
)
def test_a_plain_box_is_a_box(text: str, answer: str | None) -> None:
    assert last_box(text) == answer


@pytest.mark.parametrize("wrapped", ["fbox", "boldsymbol", "bm", "text", "mathbf", "textbf"])
def test_an_integer_in_a_frame_or_another_font_is_an_integer(wrapped: str) -> None:
    assert as_integer(f"\\{wrapped}{{1,204}}") == "1204"

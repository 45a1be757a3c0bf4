"""What form an answer has: values are read, whatever they are written as; copied questions are not."""

import pytest

from vcppo.settings.known_sets import KNOWN, Form, form_of
from vcppo.tasks.grader import grade

NOT_EVALUATED = ("unreadable", "not evaluated")

# ---- by reference, answers that are values ----

VALUES: dict[str, list[str]] = {
    "17": [
        "17",
        "+17",
        r"17\text{ cm}",
        "x=17",
        "9 + 8 = 17",
        "x=9+8=17",
        "9+8=20-3=17",
        "17.0",
        r"17^\circ",
        r"\$17",
        "17=x",
        "34/2 = 17",
        r"x = \frac{34}{2} = 17",
        r"\binom{17}{1} = 17",
        r"1.7 \times 10^{1}",
        r"1700\%",
        "f(2)=17",
    ],
    r"\frac{1}{2}": ["1/2", "0.5", r"\frac{2}{4}", r"50\%", r"\dfrac12", "x=1/2", ".5"],
    r"\frac{3}{2}": [r"1\frac12", "1.5", "3/2", r"1\frac{1}{2}"],
    "-3/4": [r"-\frac{3}{4}", r"\frac{-3}{4}", "-0.75"],
    r"6.02\times10^{23}": ["602000000000000000000000"],
    "602000000000000000000000": [r"6.02\times10^{23}", r"6.02 \cdot 10^{23}"],
    "0.0025": [r"2.5\times10^{-3}", r"2.5 \cdot 10^{-3}", r"10^{-3}\cdot 2.5"],
    "1204": ["1,204", "1{,}204"],
    "100000": ["10^5", "10^{5}"],
    "2^{10}": ["1024", "4^5", "2^{10}"],
    "10!": ["10!", "3628800"],
    r"\binom{10}{3}": ["120", r"\binom{10}{7}"],
    r"2\sqrt{3}": [r"\sqrt{12}", r"\frac{6}{\sqrt3}", r"2\sqrt3", r"\frac{6\sqrt3}{9}"],
    r"\frac{\sqrt2}{2}": [r"\frac{1}{\sqrt2}", r"\sqrt{1/2}", r"\sqrt{\frac12}", r"0.5\sqrt2"],
    r"\frac{1+\sqrt5}{2}": [r"\frac12+\frac{\sqrt5}{2}", r"\frac{\sqrt5+1}{2}", r"0.5+0.5\sqrt5"],
    "e^2": ["e^2", "e^{2}"],
    r"\frac{\pi^2}{6}": [r"\pi^2/6"],
    r"\ln 2": [r"\ln 2", r"\frac{1}{2}\ln 4"],
    "3+4i": ["3+4i", "4i+3"],
    "x^2+2x+1": ["(x+1)^2", "x(x+2)+1", "x^2+2x+1"],
    r"\frac{n^2+n+2}{2}": [r"\frac{n(n+1)}{2}+1", r"\frac{n^2+n}{2}+1"],
    "(1,2)": ["(1,2)", "(1.0,2)", "(x,y)=(1,2)"],
    r"\{1,2\}": ["1,2", r"\{2,1\}"],
    "[1,2)": ["[1,2)"],
    r"(-\infty,3)": ["x<3", r"(-\infty,3)", "3>x", r"\theta < 3", r"x \in (-\infty, 3)"],
    "(-2,2)": ["-2<x<2", r"x>-2 \text{ and } x<2"],
    "x+y=5": ["x+y=5", "y=5-x", "2x+2y=10", "5-x=y"],
    "3x<9": ["3x<9"],
    "11": [
        r"x^2 + \frac{1}{x^2} = 11",
        "|z| = 11",
        "x_1 + x_2 = 11",
        "f(f(2)) = 11",
        r"m = 11 \text{ m}",
        "x_1 = x_2 = 11",
    ],
    r"\frac{3}{5}": [r"\sin A = \frac{3}{5}"],
    r"(3, \frac{\pi}{4})": [r"(r,\theta) = (3, \frac{\pi}{4})"],
    "x = 1, y = 2": ["(x, y) = (1, 2)", "x = 1, y = 2"],
    r"(-\infty,2)\cup(2,\infty)": [r"\mathbb{R} \setminus \{2\}", r"x \in \mathbb{R} \setminus \{2\}", r"x \ne 2"],
    r"(-\infty,1)\cup(3,\infty)": ["x < 1 or x > 3", r"x < 1 \lor x > 3", r"x<1 \text{ or } x>3"],
    r"t \ge 3": [r"t \ge 3 \text{ minutes}"],
    r"\theta = 2": [r"\theta = 2", "2"],
    r"\frac{x^2}{2}": ["x^2/2"],
    r"\frac{\pi^2}{2}": [r"\pi^2/2"],
    "30": [r"\angle A = 30^\circ", r"\text{Area} = 30", "x = 30", "x_1 = 30", r"m\angle ABC = 30"],
    "x<3": ["x<3"],
    r"3\pm\sqrt2": [r"3+\sqrt2,3-\sqrt2"],
    r"\begin{pmatrix}1\\3\end{pmatrix}": [r"\begin{pmatrix}1\\3\end{pmatrix}"],
    r"\text{Monday}": ["Monday"],
    "A": [r"\text{A}"],
    "y=2x+1": ["y=2x+1", "2x+1"],
    r"\sqrt{2}+\sqrt{3}": [r"\sqrt3+\sqrt2"],
    r"12\pi": [r"12\pi"],
    r"\frac{2\pi}{3}": [r"\frac{2}{3}\pi", r"2\pi/3"],
    r"\sqrt[3]{2}": ["2^{1/3}"],
    r"\arccos\frac23": [r"\arccos(2/3)"],
    "1:2": ["1:2"],
    "x^{3/2}": [r"x\sqrt{x}"],
    "x^2+1": ["(x+i)(x-i)"],
    r"\text{no solution}": ["no solution", "none"],
    "7": ["undefined", "infinite", "All real numbers"],
    "0.9836": [r"9.836\times10^{-1}"],
    "1.09": [r"1.09\times10^{0}"],
    "|x|": [r"\sqrt{x^2}"],
    r"\ln x+C": [r"\ln|x|+C"],
    "-5/3": [r"-\frac{5}{3}"],
    "x^3y^2": ["x^3 y^2"],
    r"\frac{x}{10}": ["0.1x"],
    "8": ["8"],
}

# ---- by reference, answers that leave its computation to whoever compares ----

COPIES: dict[str, list[str]] = {
    "17": [
        "9+8",
        "9 + 8",
        "x=9+8",
        "17=9+8",
        "x = 34/2",
        "34/2 = x",
        "17 = 34/2",
        r"\frac{170}{10^1}",
        r"\sqrt{289}",
        r"\frac{34}{2}",
        "34/2",
        "17!/16!",
        r"3\cdot4+5",
        "20-3",
        "25-8",
        r"\frac{9+8}{1}",
        "9--8",
        "2(8)+1",
        r"17\cdot1",
        r"8.5\times2",
        r"0.5\cdot34",
        "|-17|",
        r"\lfloor17.3\rfloor",
        r"\sum_{i=1}^{17}1",
        r"\gcd(34,51)",
        r"\binom{17}{1}",
        "-(-17)",
        "289^{1/2}",
        "17^1",
        "(-1)(-17)",
        "17+0x",
        r"\log_{2} 2^{17}",
        r"\max(3,17)",
        r"50\%\cdot34",
        "3^2+8",
        "17x^0",
        "17+0",
        r"\frac{\sqrt{578}}{\sqrt2}",
        r"\sqrt{17}\sqrt{17}",
        r"(\sqrt{17})^2",
        r"\frac{17\pi}{\pi}",
        "x-x+17",
        "(x+1)^2-x^2-2x+16",
        r"\frac{17x}{x}",
        r"\cos 0+16",
        r"9+8 \text{ dollars}",
        r"34 \div 2",
        r"17!/(16!\cdot 1!)",
        "2^4+1",
        r"\int_0^{17} 1 dx",
        "{34}/{2}",
        "{34}/2",
        "34/{2}",
        "(34)/(2)",
        r"\left(34\right) \div \left(2\right)",
        r"\frac{(34)}{{2}}",
        "-{-17}",
        "-[-17]",
        r"-\{-17\}",
        r"\det\begin{pmatrix}17&0\\0&1\end{pmatrix}",
        r"\begin{vmatrix}17&0\\0&1\end{vmatrix}",
        r"e^{\ln 17}",
    ],
    "120": [r"\binom{10}{3}", "5!"],
    "1/2": [r"\frac14+\frac14", r"\frac{\frac12}{1}", r"1-\frac12", r"\frac{1}{1+1}", r"\frac{0.5}{1}", "2^{-1}"],
    "(17,3)": ["(9+8,3)", "(17,6/2)"],
    r"\{1,5\}": [r"\{1,2+3\}", "1, 2+3"],
    "[1,9)": ["[1,4+5)"],
    "x<9": ["x<4+5", "3x<27", "x-9<0", "2x<x+9"],
    "(-2,2)": ["x^2<4", "|x|<2", "2x<4, x>-2"],
    "(2,3)": [r"(1,3) \cap (2,5)"],
    r"\theta < 4": [r"3\theta < 12"],
    r"\theta = 2": [r"2\theta + 3 = 7"],
    r"\{1,2\}": [r"\{1,2,3\} \setminus \{3\}"],
    r"2\sqrt3": [
        r"2\cdot1\sqrt3",
        r"\sqrt{3}+\sqrt3",
        r"\frac{4\sqrt3}{2}",
        r"\sqrt{4}\sqrt3",
        r"\sqrt2\sqrt6",
        r"\sqrt{9+3}",
    ],
    "7+i": ["(3+4i)(1-i)", "(3-2i)+(4+3i)", "(1+i)^2+7-i"],
    "4+7x": ["4+2x+5x", "2(2+x)+5x"],
    "10-4n": ["-10-4(n-5)"],
    r"\begin{pmatrix}3\\3\end{pmatrix}": [
        r"\begin{pmatrix}1+2\\3\end{pmatrix}",
        r"\begin{pmatrix}1\\1\end{pmatrix}+\begin{pmatrix}2\\2\end{pmatrix}",
        r"\begin{pmatrix}3&3\end{pmatrix}^T",
    ],
    "2^7": [r"2^3\cdot2^4", r"\frac{2^{10}}{2^3}"],
    "x^3": [r"x\cdot x^2", r"\frac{x^4}{x}"],
    r"\frac{\sqrt2}{2}": [r"\sin 45", r"\cos\frac{\pi}{4}"],
    "x+1": [r"\frac{(x+1)(x-1)}{x-1}"],
    r"\frac12": [r"\sin 30^\circ"],
    "-1": [r"e^{i\pi}", "i^2", r"i\cdot i"],
    "y=17x": ["y=9x+8x"],
    "24": ["4!"],
    r"\pi^2": [r"\pi\cdot\pi"],
    "x^2": [r"x\cdot x"],
    "2": [r"\frac{20\sqrt3}{10\sqrt3}"],
    "6": [r"\sqrt{4}\cdot 3", r"\frac{12.0}{2}"],
    "x=17": ["x=9+8", "2x=34", "x+1=18"],
}

FORMS: list[Form] = ["number", "closed-form"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("reference", VALUES)
def test_a_value_is_compared_however_it_is_written(reference: str, form: Form) -> None:
    told = {answer: grade(answer, reference, boxed=True, form=form) for answer in [*VALUES[reference], reference]}
    assert [answer for answer, verdict in told.items() if verdict == NOT_EVALUATED] == []


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("reference", COPIES)
def test_what_is_left_to_work_out_is_not_read(reference: str, form: Form) -> None:
    told = {answer: grade(answer, reference, boxed=True, form=form) for answer in COPIES[reference]}
    assert [answer for answer, verdict in told.items() if verdict != NOT_EVALUATED] == []


WRAPPED = [
    r"\text{%s}", r"\mathbf{%s}", "$%s$", "{%s}", r"\left(%s\right)", "(%s)", "%s.", "%s =", "= %s", "%s = ?", "x = %s",
    "%s = x", "17 = %s", r"\boxed{%s}", "+%s", "%s + 0", "1(%s)", "-(-(%s))", "(%s)^1", r"\frac{%s}{1}", "|%s|",
    "%s, 17", r"%s \text{ cm}", r"\$%s", r"\{%s\}", "[%s]", r"\displaystyle %s", r"%s \text{ or } 17", r"%s \pm 0",
    "**%s**",
]  # fmt: skip


@pytest.mark.parametrize("wrapped", WRAPPED)
def test_nothing_around_it_makes_a_value_of_a_computation(wrapped: str) -> None:
    copies = ["9+8", "20-3", r"\sqrt{289}", r"\frac{34}{2}", "34/2", "17!/16!", r"8.5\times 2", r"\binom{17}{1}"]
    told = {copy: grade(wrapped.replace("%s", copy), "17", boxed=True, form="number") for copy in copies}
    assert [copy for copy, (verdict, _) in told.items() if verdict == "correct"] == []


@pytest.mark.parametrize(
    ("answer", "reference", "number", "closed"),
    [
        (r"1 + \sqrt{2}", r"\frac{1}{\sqrt{2} - 1}", ("correct", ""), ("correct", "")),
        (r"\sqrt{2}", r"2^{\frac{1}{2}}", ("correct", ""), ("correct", "")),
        (r"\pi^2", r"\pi \cdot \pi", NOT_EVALUATED, ("correct", "")),
        (r"\frac{\sqrt{2}\pi}{2}", r"\pi \sin\frac{\pi}{4}", NOT_EVALUATED, ("correct", "")),
        (r"e^2", r"\exp(2)", ("correct", ""), ("correct", "")),
        (r"\frac{1 + \sqrt{5}}{2}", r"2\cos 36^\circ", NOT_EVALUATED, ("correct", "")),
        (r"\frac{\sqrt{8}}{\sqrt{2}}", "2", NOT_EVALUATED, NOT_EVALUATED),
    ],
)
def test_beside_what_is_not_rational_a_closed_form_is_a_value(
    answer: str, reference: str, number: tuple[str, str], closed: tuple[str, str]
) -> None:
    assert grade(answer, reference, boxed=True, form="number") == number
    assert grade(answer, reference, boxed=True, form="closed-form") == closed


@pytest.mark.parametrize("answer", ["9 + 8", r"\sqrt{289}", r"\frac{34}{2}", "17!/16!", r"8.5 \times 2", "x = 9 + 8"])
def test_where_expressions_are_answers_they_are_worked_out(answer: str) -> None:
    assert grade(answer, "17", boxed=True, form="expression") == ("correct", "")
    assert grade(answer, "17", boxed=True) == ("correct", "")


@pytest.mark.parametrize("answer", ["9^{9^{9^9}}", "1000000000!", r"\sum_{i=1}^{10^9} i^i", r"2^{10^9}", "((10^3)!)!"])
def test_what_takes_too_long_to_work_out_is_refused_without_an_attempt(answer: str) -> None:
    assert grade(answer, "17", boxed=True, form="closed-form") == NOT_EVALUATED


def test_the_form_follows_the_sets() -> None:
    assert {name for name, known in KNOWN.items() if known.form == "number"} == {
        "aime24",
        "aime25",
        "dapo-math-17k",
        "gsm8k",
    }
    assert form_of("dapo-math-17k", "aime24") == "number"
    assert form_of("dapo-math-17k", "math-500") == form_of("gsm8k", "sums.csv") == form_of("a/b") == "closed-form"

r"""What an answer may be beside its reference: pairs that are one value, and pairs that are not."""

import pytest

from vcppo.tasks.grader import grade

EQUAL = {  # a reference, and answers that are it
    "a third": (r"1/3", [r"0.333333", r"\frac13", r"0.\overline{3}", r"\frac{2}{6}", r"0.3333333333", r".333333"]),
    "a root": (r"\sqrt2", [r"√2", r"\sqrt{2}", r"1.414214", r"sqrt(2)", r"2^{1/2}", r"\frac{2}{\sqrt 2}"]),
    "a mixed number": (r"5.5", [r"5 1/2", r"5\frac12", r"5\frac{1}{2}", r"\frac{11}{2}", r"5.50", r"11/2"]),
    "eight thirds": (r"\frac83", [r"2 2/3", r"2\frac{2}{3}", r"\tfrac{8}{3}", r"8/3", r"2.666667", r"2.\overline{6}"]),
    "a percentage": (r"12.5", [r"12.5\%", r"12.5%", r"12.50\%", r"$12.5\%$", r"\frac{25}{2}\%", r"12.5 \%"]),
    "a share": (r"12\%", [r"0.12", r"12", r"12%", r"\frac{3}{25}", r"0.120"]),
    "a small number": (r"1e-7", [r"10^{-7}", r"0.0000001", r"1\cdot 10^{-7}", r"\frac{1}{10^7}", r"1e-07", r"1.0e-7"]),
    "a thousand": (r"1000", [r"1e3", r"1.0e3", r"10^3", r"1,000", r"1{,}000", r"1E3", r"1\times10^3"]),
    "a float": (r"0.00005", [r"5e-05", r"5\times10^{-5}", r"5.0e-5", r"\frac{1}{20000}", r".00005"]),
    "a large number": (r"6.02\times10^{23}", [r"6.02e23", r"6.02E+23", r"60.2\cdot10^{22}", r"6.02 × 10^{23}"]),
    "a reciprocal": (r"\frac{1}{2004!}", [r"1/2004!", r"(2004!)^{-1}", r"\dfrac{1}{2004!}"]),
    "a complex number": (r"14-i", [r"14.0-1.0i", r"-i+14", r"14 - 1i", r"14–i", r"14-\mathrm{i}"]),
    "any unit": (r"5", [r"5\text{ square feet}", r"5\text{ cm squared}", r"5 apples", r"5\text{ cm}^2"]),
    "millions": (r"5 million", [r"5 million", r"5\text{ million}"]),
    "an angle": (r"120", [r"120°", r"120^\circ", r"120^{\circ}", r"120\text{ degrees}", r"120 degrees", r"120º"]),
    "in bold": (r"10", [r"\boldsymbol{10}", r"\mathbf{10}", r"**10**", r"10。", r"\fbox{10}", r"\bm{10}", r"１０"]),
    "thousands": (r"1234", [r"1，234", r"1,234", r"1{,}234", r"1\,234", r"\$1,234", r"1,\!234"]),
    "minus": (r"-3", [r"–3", r"−3", r"-3.0", r"－3", r"— 3", r"\text{-3}"]),
    "a letter": (r"A", [r"A.", r"\text{A}", r"(A)", r"\textbf{(A)}", r"\mathrm{A}", r"\text{(A)}"]),
    "a date": (r"\text{June 20}", [r"June 20", r"\text{June } 20", r"june 20", r"June 20.", r"\textbf{June 20}"]),
    "nothing": (r"\varnothing", [r"\emptyset", r"∅", r"\{\}", r"\{ \}", r"$\emptyset$"]),
    "an inverse": (
        r"\arccos\frac{2}{3}",
        [r"arccos(2/3)", r"\arccos(2/3)", r"\cos^{-1}(2/3)", r"\arccos\left(\frac23\right)"],
    ),
    "a variable": (r"x=5", [r"5", r"x=5", r"5=x", r"x = 5.0", r"$x=5$"]),
    "a value": (r"5", [r"x=5", r"5=x", r"y = 5", r"n=2+3=5", r"\text{Area}=5"]),
    "a line": (r"x+y=5", [r"y+x=5", r"5=x+y", r"2x+2y=10", r"y=5-x", r"x+y-5=0", r"x = 5 - y"]),
    "in polar form": (
        r"r\cos\theta=3",
        [r"3=r\cos\theta", r"r \cos \theta = 3", r"2r\cos\theta=6", r"r\cos\theta-3=0"],
    ),
    "a sum": (r"a+b=c", [r"c=a+b", r"b+a=c", r"a=c-b", r"2a+2b=2c", r"a+b-c=0"]),
    "a function": (r"y=2x+1", [r"2x+1", r"y=1+2x", r"2x-y+1=0", r"1+2x", r"y-2x=1"]),
    "a set": (r"\{1,2\}", [r"\{2,1\}", r"2,1", r"1, 2", r"1 and 2", r"\left\{1,2\right\}", r"2 \text{ or } 1"]),
    "two values": (r"1, 2", [r"2, 1", r"\{2,1\}", r"1 and 2", r"2 or 1", r"(1,2)", r"x=1, x=2", r"1;2"]),
    "one or the other": (
        r"301 \text{ or } 373",
        [r"301, 373", r"301 or 373", r"\{301,373\}", r"373,301", r"373 and 301"],
    ),
    "plus or minus": (r"\pm 2", [r"2, -2", r"\{-2,2\}", r"\pm2", r"2 or -2", r"x=\pm 2"]),
    "a pair": (r"(1,2)", [r"(1, 2)", r"1, 2", r"\left(1,2\right)", r"（1，2）", r"x=1, y=2", r"(1;2)"]),
    "coordinates": (
        r"x=1, y=2",
        [r"(1,2)", r"1, 2", r"(x,y)=(1,2)", r"y=2, x=1", r"(y,x)=(2,1)", r"x=1 \text{ and } y=2"],
    ),
    "a small fraction": (
        r"\frac{1}{3000}",
        [r"0.000333333", r"0.00033333333", r"3.33333e-4", r"1/3000", r"0.000\overline{3}"],
    ),
    "a list of thousands": (
        r"1000, 2000",
        [r"1,000, 2,000", r"2,000 and 1,000", r"\{1000,2000\}", r"2000;1000", r"1e3, 2e3"],
    ),
    "a list without blanks": (
        r"27,54,108",
        [r"27, 54, 108", r"108, 54, 27", r"\{27,54,108\}", r"27;54;108", r"27, 54, \text{ and } 108"],
    ),
    "an ellipse": (
        r"x^2+4y^2=4",
        [r"4y^2+x^2=4", r"\frac{x^2}{4}+y^2=1", r"x^2=4-4y^2", r"x^2+4y^2-4=0", r"4=x^2+4y^2"],
    ),
    "a ratio": (r"3:4", [r"3 : 4", r"6:8", r"\text{3:4}", r"3\!:\!4", r"\frac{3}{4}"]),
    "two holes": (
        r"(-\infty,1)\cup(1,2)\cup(2,\infty)",
        [r"x\ne1,2", r"x\ne 1, x\ne 2", r"x\neq1 \text{ and } x\neq2", r"\mathbb{R}\setminus\{1,2\}", r"x \neq 2, 1"],
    ),
    "solutions": (r"\{-1,1\}", [r"x\in\{-1,1\}", r"x=\pm1", r"x=1 or x=-1", r"-1, 1", r"\pm 1"]),
    "all alike": (r"m=n=1", [r"(1,1)", r"m=1, n=1", r"n=m=1", r"(1, 1)", r"m = 1 and n = 1"]),
    "below": (r"(-\infty,3)", [r"x<3", r"3>x", r"x \lt 3", r"x\in(-\infty,3)", r"(-\infty; 3)", r"y < 3"]),
    "at most": (r"x \le 3", [r"(-\infty,3]", r"3\ge x", r"x\leq3", r"x≤3", r"x \leqslant 3", r"x <= 3"]),
    "between": (r"[1,2]", [r"1\le x\le 2", r"x\in[1,2]", r"2\ge x\ge1", r"[1;2]", r"1≤x≤2"]),
    "strictly between": (
        r"\frac12 < a < 2",
        [r"(1/2, 2)", r"(0.5,2)", r"\left(\frac{1}{2},2\right)", r"a\in(1/2,2)", r"2>a>0.5"],
    ),
    "half open": (r"(1,3]", [r"(1;3]", r"1<x\leq3", r"x \in (1,3]", r"\left(1,3\right]", r"3\ge x>1"]),
    "outside": (
        r"(-\infty,1)\cup(3,\infty)",
        [r"x<1 \text{ or } x>3", r"x<1 or x>3",
         r"(3,\infty)\cup(-\infty,1)", r"x>3 \lor x<1", r"x\in(-\infty,1)\cup(3,\infty)"],
    ),
    "all but one": (
        r"(-\infty,2)\cup(2,\infty)",
        [r"x\ne 2", r"x \neq 2", r"\mathbb{R}\setminus\{2\}", r"x≠2", r"x \not= 2"],
    ),
    "a unit": (
        r"5\text{ cm}",
        [r"5", r"5 \text{cm}", r"5\text{ centimeters}", r"5 cm", r"5\,\mathrm{cm}", r"5~\text{cm}"],
    ),
    "a speed": (
        r"6.5 \text{ mi/hr}",
        [r"6.5 \mathrm{mi} / \mathrm{hr}", r"6.5", r"6.5\text{mi}/\text{hr}", r"\frac{13}{2} \text{ mi/hr}", r"13/2"],
    ),
    "money": (r"\$20", [r"20 \text{ dollars}", r"20 \text{ USD}", "20", r"\$20.00", r"20 \text{ dollars per hour}"]),
    "a volume": (r"20 \text{ mL}", [r"20 \text{ ml}", "20"]),
    "a power": (r"5 \text{ MW}", [r"5 \text{ MW}", "5"]),
    "a short unit": (
        r"826 \text{ mg}",
        [r"826 mg", r"826\,\mathrm{mg}", r"826", r"826~\text{mg}", r"826mg", r"$826$ mg", r"826.0 \text{ mg}"],
    ),
    "a polynomial": (r"x^2 + 2x + 1", [r"(x+1)^2", r"1+2x+x^2", r"x² + 2x + 1", r"x(x+2)+1", r"y=x^2+2x+1"]),
    "a base": (r"2516_8", [r"2516_{8}", r"2516_8", r"2516_{ 8 }", r"$2516_8$"]),
}  # fmt: skip
DIFFERENT = {
    "a third": (r"1/3", [r"0.33", r"0.333", r"0.333334", r"0.33333", r"-0.333333", r"0.3333333334"]),
    "tiny": (r"1e-7", [r"2e-7", r"2\times10^{-7}", r"1e-8", r"0", r"1.0000001e-7"]),
    "factorials": (
        r"\frac{1}{2004!}",
        [r"\frac{1}{2006!}", r"\frac{2}{2004!}", r"1/2003!", r"2004!", r"\frac{-1}{2004!}"],
    ),
    "large": (r"10^{50}", [r"10^{50}+1", r"10^{51}", r"10^{50}-1", r"9^{50}", r"1.000001\times10^{50}"]),
    "nearly": (r"\sqrt2", [r"\sqrt2+10^{-45}", r"\sqrt2-2^{-200}", r"\sqrt{2+10^{-50}}", r"1+\sqrt2"]),
    "nearly, with a letter": (r"2x", [r"2x+10^{-30}", r"(2+10^{-40})x", r"2.000001x", r"2x^{1.000001}", r"2|x|"]),
    "powers": (r"2^{-99}", [r"2^{-98}", r"2^{99}", r"3^{-99}", r"-2^{-99}", r"2^{-100}"]),
    "a float": (r"0.00005", [r"8.591409", r"0.0005", r"5e-06", r"5e5", r"-5e-05"]),
    "a share": (r"12\%", [r"0.0012", r"1.2", r"120", r"12.1\%", r"-12\%"]),
    "a root": (r"\sqrt2", [r"1.41", r"1.414", r"1.41421", r"1.414213", r"1.41422", r"-\sqrt2", r"\sqrt3"]),
    "a small fraction": (r"\frac{1}{3000}", [r"0.000333", r"0.00033", r"0.000333334", r"0.00033333", r"1/3001", r"0"]),
    "nearly a sine": (
        r"\sin x",
        [r"\sin x + 10^{-30}", r"\sin(x + 10^{-40})", r"\cos x", r"-\sin x", r"1.000001\sin x"],
    ),
    "a circle": (r"x^2+y^2=1", [r"1", r"x^2+y^2=2", r"x^2-y^2=1", r"x+y=1", r"x^2+y^2", r"y=\sqrt{1-x^2}"]),
    "two names": (r"x=1, y=2", [r"2, 1", r"(2,1)", r"\{1,2\}", r"x=2, y=1", r"(x,y)=(2,1)", r"1, 3"]),
    "a short word": (r"red", [r"blue", r"\text{green}", r"Sue", r"\text{Dan}", r"pink", r"reds"]),
    "a line": (r"x+y=5", [r"5", r"x+y=6", r"x-y=5", r"x=5", r"x+y", r"xy=5"]),
    "a product": (r"xy=6", [r"6", r"xy=7", r"x+y=6", r"x=6", r"xyz=6"]),
    "in polar form": (r"r\cos\theta=3", [r"3", r"r\sin\theta=3", r"r=3", r"\cos\theta=3", r"r\cos\theta=4"]),
    "a sum": (r"a+b=c", [r"c", r"a+b=2c", r"a-b=c", r"a+b", r"a+b=d"]),
    "a variable": (r"x=5", [r"y=5", r"6", r"x=6", r"x>5", r"-5"]),
    "a pair": (r"(1,2)", [r"\{1,2\}", r"\{2,1\}", r"(2,1)", r"(1,2,3)", r"2, 1", r"(1,3)", r"[1,2]"]),
    "a set": (r"\{1,2\}", [r"(1,2)", r"\{1,3\}", r"\{1\}", r"\{1,2,3\}", r"[1,2]", r"1"]),
    "below": (r"(-\infty,3)", [r"x\le 3", r"x>3", r"x<4", r"(-\infty,3]", r"3", r"(3,\infty)"]),
    "named": (r"x<3", [r"y<3", r"(-\infty,3]", r"x<4", r"x=3", r"x\ne3"]),
    "an interval": (r"(0,1)", [r"[0,1]", r"(0,1]", r"[0,1)", r"(0,2)", r"0<x\le1"]),
    "all but one": (r"x \ne 2", [r"x=2", r"x>2", r"x\ne3", r"(-\infty,2)", r"(-\infty,2]\cup(2,\infty)"]),
    "a speed": (
        r"6.5 \mathrm{mi} / \mathrm{hr}",
        [r"6.4 \mathrm{mi} / \mathrm{hr}", r"5.6 \text{ mi/hr}", r"65", r"6.6", r"-6.5\text{ mi/hr}", r"6.5^2"],
    ),
    "money": (r"5 \text{ cents}", [r"\$5", r"5 \text{ dollars}"]),
    "a unit": (r"5\text{ cm}", [r"5\text{ m}", r"6\text{ cm}", r"5\text{ mm}", r"5\text{ kg}", r"6"]),
    "letters": (r"R+r", [r"2r", r"R+R", r"R-r", r"Rr", r"r"]),
    "a polynomial": (r"x^2 + 2x + 1", [r"(x+2)^2", r"x^2+2x", r"y^2+2y+1", r"x^2-2x+1", r"4"]),
    "words": (r"\text{Monday}", [r"\text{Tuesday}", r"Tuesday", r"Sunday", r"\text{Mon}", r"5"]),
    "a matrix": (
        r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}",
        [r"\begin{pmatrix} 2 \\ 1 \end{pmatrix}",
         r"\begin{pmatrix} 1 & 2 \end{pmatrix}", r"\begin{pmatrix} 1 \\ 3 \end{pmatrix}"],
    ),
    "nothing": (r"\emptyset", [r"(5,2)", r"(0,0)", r"(2,2)", r"[5,2]"]),
    "no solution": (r"\text{no solution}", [r"(5,2)", r"(0,0)"]),
    "a complex number": (r"3+4i", [r"3-4i", r"4+3i", r"3+4", r"-3-4i", r"3+5i"]),
}  # fmt: skip
UNREADABLE = {
    "1,234": [r"234, 1", r"\{234,1\}", r"1 and 234", r"234 or 1", r"(1, 234)"],
    "12,500": [r"500, 12", r"\{12, 500\}", r"12; 500", r"12 and 500", r"500 \text{ or } 12"],
    "17": [
        r"9^9^9",
        r"9 ### 3",
        r"\frac{",
        r"@@ ## !!",
        r"",
        r"2 @ 3",
        r"(17",
        r"17)",
        r"\text{no idea}",
        r"b > a > c",
    ],
    r"\frac{1}{2}": [r"\frac{1}{", r"1 2 ? 3", r"$$", r"half of it", r"\sqrt{}", r"1/0"],
    r"red": [r"der", r"erd", r"\text{der}", r"\mathrm{dre}", r"edr"],  # words, or products of the same letters
    r"[1,2]": [r"something between", r"[1,2", r"1..2 ?!", r"[1,2)(3,4]", r"[1,\frac{2}{]"],
    r"5": [  # words that change a number, or add another, are no unit
        r"5\text{ or 6}",
        r"5\text{ (or 6)}",
        r"5\text{ and 7}",
        r"5\text{ to 10}",
        r"5\text{ or more}",
        r"5\text{ plus 3}",
        r"5 million",
        r"5\text{ hundred}",
        r"5 dozen",
        r"5\text{k}",
        r"5\text{ squared}",
        r"5\text{ is wrong}",
    ],
    r"12 ways": [r"12! ways", r"1(2) ways"],
    r"34 units": [r"(3,4) units"],
    r"5\text{ m}": [r"5\text{ ms}"],
    r"5\text{ MW}": [r"5\text{ mW}"],
    r"(5,2]": [r"(7,1)"],
    r"5\text{ cm}": [r"5\text{ furlongs}", r"5\text{ apples}", r"5 apples", r"5\text{ cubits}", r"5\text{ parsecs}"],
}


def cases(table: dict[str, tuple[str, list[str]]]) -> list[tuple[str, str]]:
    return [(reference, answer) for reference, answers in table.values() for answer in answers]


@pytest.mark.parametrize(("reference", "answer"), cases(EQUAL))
def test_one_value_in_other_words_is_right(reference: str, answer: str) -> None:
    assert grade(answer, reference, boxed=True) == ("correct", "")


@pytest.mark.parametrize(("reference", "answer"), cases(DIFFERENT))
def test_another_value_is_wrong(reference: str, answer: str) -> None:
    assert grade(answer, reference, boxed=True) == ("wrong", "")


@pytest.mark.parametrize(("reference", "answer"), [(r, a) for r, answers in UNREADABLE.items() for a in answers])
def test_what_cannot_be_read_is_not_called_wrong(reference: str, answer: str) -> None:
    verdict, note = grade(answer, reference, boxed=True)
    assert (verdict, bool(note)) == ("unreadable", True)

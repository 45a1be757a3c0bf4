"""The verifier beside plain math-verify, on answers that are right by construction and on near misses.

    python bench/bench_verify.py [--pairs 2000] [--seed 0] [--failures]

A false reward is a near miss that is called correct, a false refusal a right answer that is not. The bar of this
project: no false reward, and fewer than 1 % false refusals; exit code 1 where it is missed. What is right and what is
a near miss follows from how a pair was made, never from a verifier or from sympy. Pairs of which people could disagree
are left out: missing units, decimals of few digits, orders where none was asked for.
"""

import argparse
import multiprocessing
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction

from scipy import stats

from vcppo.tasks.verifier import Comparison, Verifier
from vcppo.types import Verdict

LIMIT_S = 10.0
FALSE_REFUSALS = 0.01
Writer = Callable[[random.Random], tuple[str, list[str], list[str]]]  # reference, right answers, near misses


@dataclass(frozen=True)
class Pair:
    """An answer beside its reference, and whether it is right."""

    kind: str
    reference: str
    answer: str
    right: bool


def _integer(r: random.Random) -> tuple[str, list[str], list[str]]:
    n = r.choice((1, -1)) * r.randint(1000, 9_999_999)
    grouped = f"{n:,}"
    right = [str(n), grouped, grouped.replace(",", "{,}"), grouped.replace(",", ",\\!"), f"{n}.0", f"${n}$", f"x = {n}",
             f"\\boldsymbol{{{n}}}", f"**{n}**", f"{n}.", str(n).translate(FULL_WIDTH) if n < 0 else grouped,
             str(n).replace("-", "\N{EN DASH}"), f"{n} = y"]  # fmt: skip
    miss = [str(-n), str(n + 1), f"{n}.01", f"{n}0", f"\\frac{{{n}}}{{10}}", f"{n}^2"]
    return str(n), right, miss


def _fraction(r: random.Random) -> tuple[str, list[str], list[str]]:
    q = r.choice((3, 7, 9, 11, 13, 17))
    p = r.choice([p for p in range(1, 60) if p % q])
    k = r.randint(2, 9)
    value = Fraction(p, q)
    right = [f"{p}/{q}", f"\\dfrac{{{p}}}{{{q}}}", f"\\frac{{{k * p}}}{{{k * q}}}", f"{_rounded(value, 7)}",
             f"\\left(\\frac{{{p}}}{{{q}}}\\right)", f"\\frac{{{p}}}{q}" if q < 10 else f"{p} / {q}"]  # fmt: skip
    if p > q:
        right += [f"{p // q} {p % q}/{q}", f"{p // q}\\frac{{{p % q}}}{{{q}}}"]
    miss = [f"-\\frac{{{p}}}{{{q}}}", f"\\frac{{{q}}}{{{p}}}", f"\\frac{{{p + 1}}}{{{q}}}",
            f"{_rounded(value, 7)[:-1]}{(int(_rounded(value, 7)[-1]) + 3) % 10}", _rounded(value, 2)]  # fmt: skip
    return f"\\frac{{{p}}}{{{q}}}", right, miss


def _decimal(r: random.Random) -> tuple[str, list[str], list[str]]:
    n, places = r.randint(101, 99_999), r.randint(1, 3)
    n += n % 10 == 0
    value = Fraction(n, 10**places)
    text = f"{n // 10**places}.{n % 10**places:0{places}d}"
    right = [f"{text}0", f"\\frac{{{value.numerator}}}{{{value.denominator}}}", f"{n}e-{places}",
             f"{n} \\times 10^{{-{places}}}", f"{text}", f"\\mathbf{{{text}}}"]  # fmt: skip
    miss = [f"{text}1", f"-{text}", str(n), f"{n + 1}e-{places}", f"{n}e-{places + 1}"]
    return text, right, miss


def _tiny(r: random.Random) -> tuple[str, list[str], list[str]]:
    n, e = r.randint(2, 9), r.randint(6, 40)
    reference = r.choice((f"{n} \\times 10^{{-{e}}}", f"{n}e-{e}", f"\\frac{{{n}}}{{10^{{{e}}}}}"))
    right = [f"{n}e-{e}", f"{n}\\cdot 10^{{-{e}}}", f"\\frac{{{n}}}{{10^{{{e}}}}}", f"0.{'0' * (e - 1)}{n}"]
    miss = [f"{n - 1}e-{e}", f"{n}e-{e + 1}", f"0.{'0' * e}{n}", "0", f"{n}.1 \\times 10^{{-{e}}}"]
    return reference, right, miss


def _factorial(r: random.Random) -> tuple[str, list[str], list[str]]:
    n = r.randint(20, 2000)
    p = r.randint(50, 120)
    if r.random() < 0.5:
        return f"\\frac{{1}}{{{n}!}}", [f"1/{n}!", f"\\dfrac{{1}}{{{n}!}}", f"({n}!)^{{-1}}"], [
            f"\\frac{{1}}{{{n + 1}!}}", f"\\frac{{2}}{{{n}!}}", f"{n}!"]  # fmt: skip
    return f"2^{{-{p}}}", [f"\\frac{{1}}{{2^{{{p}}}}}", f"1/2^{{{p}}}", f"4^{{-{p}/2}}"], [
        f"2^{{-{p + 1}}}", f"3^{{-{p}}}", f"2^{{{p}}}"]  # fmt: skip


def _percent(r: random.Random) -> tuple[str, list[str], list[str]]:
    n = r.randint(11, 989)
    n += n % 10 == 0
    text = f"{n // 10}.{n % 10}"
    return text, [f"{text}\\%", f"{text}%", f"{text} \\%", f"${text}\\%$"], [
        f"{text}1\\%", f"-{text}\\%", f"{n}\\%", f"{n + 1}0\\%"]  # fmt: skip


def _root(r: random.Random) -> tuple[str, list[str], list[str]]:
    a, b = r.randint(2, 9), r.choice((2, 3, 5, 6, 7))
    right = [f"\\sqrt{{{a * a * b}}}", f"{a}√{b}", f"{a} \\cdot \\sqrt{{{b}}}", f"\\frac{{{a * b}}}{{\\sqrt{{{b}}}}}",
             f"{a}\\sqrt{b}", f"{a}*sqrt({b})"]  # fmt: skip
    miss = [f"{b}\\sqrt{{{a}}}", f"-{a}\\sqrt{{{b}}}", f"\\sqrt{{{a * b}}}", f"{a + 1}\\sqrt{{{b}}}",
            f"{a}\\sqrt[3]{{{b}}}"]  # fmt: skip
    return f"{a}\\sqrt{{{b}}}", right, [m for m in miss if a != b or not m.startswith(f"{b}\\")]


def _constant(r: random.Random) -> tuple[str, list[str], list[str]]:
    p, q = r.choice(((1, 2), (1, 3), (2, 3), (3, 4), (5, 6), (7, 4)))
    name, text = r.choice((("\\pi", "π"), ("e", "\\mathrm{e}"), ("\\ln 2", "\\ln(2)")))
    head = "" if p == 1 else str(p)
    right = [f"\\frac{{{p}}}{{{q}}}{name}", f"\\frac{{{head}{text}}}{{{q}}}" if head != "" or name else text,
             f"{p}/{q} \\cdot {text}"]  # fmt: skip
    miss = [f"\\frac{{{p}}}{{{q}}}", f"-\\frac{{{p}}}{{{q}}}{name}", f"\\frac{{{p + 1}}}{{{q}}}{name}",
            f"\\frac{{{q}}}{{{p}}}{name}"]  # fmt: skip
    return f"\\frac{{{p} {name}}}{{{q}}}", right, miss


def _interval(r: random.Random) -> tuple[str, list[str], list[str]]:
    a = r.randint(-9, 8)
    b = a + r.randint(1, 9)
    left, right_ = r.choice((("(", "]"), ("[", ")"), ("[", "]"), ("(", ")")))
    low, high = ("<" if left == "(" else "\\le"), ("<" if right_ == ")" else "\\leq")
    text = f"{left}{a}, {b}{right_}"
    v = r.choice("xyt")
    reference = r.choice((text, f"{a} {low} {v} {high} {b}"))
    right = [text, f"{left}{a};{b}{right_}", f"{a} {low} {v} {high} {b}", f"\\left{left}{a},{b}\\right{right_}",
             f"{v} \\in {text}"]  # fmt: skip
    other = {"(": "[", "[": "(", ")": "]", "]": ")"}
    miss = [f"{other[left]}{a}, {b}{right_}", f"{left}{a}, {b}{other[right_]}", f"{left}{a - 1}, {b}{right_}",
            f"{left}{a}, {b + 1}{right_}", f"{v} {low} {b}"]  # fmt: skip
    return reference, right, miss


def _ray(r: random.Random) -> tuple[str, list[str], list[str]]:
    a = r.randint(-9, 9)
    v = r.choice("xym")
    sign, interval, other = r.choice((
        ("<", f"(-\\infty, {a})", f"(-\\infty, {a}]"),
        ("\\le", f"(-\\infty, {a}]", f"(-\\infty, {a})"),
        (">", f"({a}, \\infty)", f"[{a}, \\infty)"),
        ("\\ge", f"[{a}, \\infty)", f"({a}, \\infty)"),
    ))  # fmt: skip
    turned = {"<": ">", ">": "<", "\\le": "\\ge", "\\ge": "\\le"}[sign]
    reference = r.choice((f"{v} {sign} {a}", interval))
    right = [interval, f"{v} {sign} {a}", f"{a} {turned} {v}", f"{v} \\in {interval}"]
    miss = [other, f"{v} {turned} {a}", f"{v} {sign} {a + 1}", str(a)]
    return reference, right, miss


def _union(r: random.Random) -> tuple[str, list[str], list[str]]:
    a = r.randint(-9, 0)
    b = a + r.randint(1, 9)
    v = r.choice("xa")
    if r.random() < 0.4:
        text = f"(-\\infty, {a}) \\cup ({a}, \\infty)"
        right = [text, f"{v} \\ne {a}", f"{v} \\neq {a}", f"({a}, \\infty) \\cup (-\\infty, {a})",
                 f"\\mathbb{{R}} \\setminus \\{{{a}\\}}"]  # fmt: skip
        return r.choice((text, f"{v} \\ne {a}")), right, [f"(-\\infty, {a}] \\cup ({a}, \\infty)", f"{v} \\ne {a + 1}",
                                                        f"(-\\infty, {a})", f"{v} = {a}"]  # fmt: skip
    text = f"(-\\infty, {a}) \\cup [{b}, \\infty)"
    right = [text, f"{v} < {a} \\text{{ or }} {v} \\ge {b}", f"[{b}, \\infty) \\cup (-\\infty, {a})",
             f"{v} \\ge {b} or {v} < {a}"]  # fmt: skip
    miss = [f"(-\\infty, {a}] \\cup [{b}, \\infty)", f"(-\\infty, {a}) \\cup [{b + 1}, \\infty)", f"[{a}, {b})",
            f"{v} < {a}"]  # fmt: skip
    return r.choice((text, right[1])), right, miss


def _set(r: random.Random) -> tuple[str, list[str], list[str]]:
    items = r.sample(range(-20, 99), r.randint(2, 4))
    mixed = r.sample(items, len(items))
    said = [", ".join(map(str, some)) for some in (items, mixed, items[:-1], [*items[:-1], items[-1] + 1])]
    right = [f"\\{{{said[1]}\\}}", said[1], said[0], f"\\left\\{{{said[1]}\\right\\}}"]
    bare = r.random() < 0.5
    if bare:
        right += [said[0].replace(", ", " and ") if len(items) == 2 else said[1], " or ".join(map(str, mixed))]
    miss = [f"\\{{{said[2]}\\}}", f"\\{{{said[3]}\\}}", said[2], f"{said[0]}, 100"]
    if not bare:
        miss.append(f"({said[0]})")
    return said[0] if bare else f"\\{{{said[0]}\\}}", right, miss


def _tuple(r: random.Random) -> tuple[str, list[str], list[str]]:
    items = [r.randint(-20, 99) for _ in range(r.randint(2, 4))]
    if items == sorted(items) == sorted(items, reverse=True):
        items[0] += 1
    text = ", ".join(map(str, items))
    turned = ", ".join(map(str, items[1:] + items[:1]))
    right = [f"({text})", f"\\left({text}\\right)", f"({text.replace(' ', '')})", f"（{text.replace(', ', '，')}）"]
    if len(items) == 2:
        right.append(f"x = {items[0]}, y = {items[1]}")
    miss = [f"({turned})", f"({text}, 1)", f"\\{{{text}\\}}", f"({', '.join(map(str, [items[0] + 1, *items[1:]]))})"]
    return f"({text})", right, miss


def _equation(r: random.Random) -> tuple[str, list[str], list[str]]:
    a, b, c = r.randint(2, 9), r.randint(2, 9), r.randint(1, 40)
    x, y = r.choice((("x", "y"), ("a", "b"), ("p", "q")))
    if r.random() < 0.3:
        return f"{x}{y} = {c}", [f"{y}{x} = {c}", f"{c} = {x}{y}", f"2{x}{y} = {2 * c}"], [
            str(c), f"{x}{y} = {c + 1}", f"{x} + {y} = {c}", f"{x} = {c}"]  # fmt: skip
    right = [f"{b}{y} + {a}{x} = {c}", f"{c} = {a}{x} + {b}{y}", f"{2 * a}{x} + {2 * b}{y} = {2 * c}",
             f"{a}{x} + {b}{y} - {c} = 0", f"{a}{x} = {c} - {b}{y}"]  # fmt: skip
    miss = [str(c), f"{a}{x} + {b}{y} = {c + 1}", f"{a}{x} - {b}{y} = {c}", f"{a}{x} + {b}{y}", f"{x} = {c}"]
    return f"{a}{x} + {b}{y} = {c}", right, miss


def _assignment(r: random.Random) -> tuple[str, list[str], list[str]]:
    n = r.randint(-50, 50)
    v = r.choice(("x", "n", "\\theta", "a_1"))
    return f"{v} = {n}", [str(n), f"{v}={n}", f"{n} = {v}", f"${v} = {n}$"], [
        f"{v} = {n + 1}", str(-n - 1), f"z = {n}", f"{v} > {n}"]  # fmt: skip


def _polynomial(r: random.Random) -> tuple[str, list[str], list[str]]:
    a, b = r.randint(1, 9), r.randint(1, 9)
    s = {"x": "x", "t": "t"}[r.choice("xt")]
    right = [f"(x+{a})(x+{b})", f"{a * b} + {a + b}x + x^2", f"x(x + {a + b}) + {a * b}", f"x² + {a + b}x + {a * b}"]
    miss = [
        f"x^2 + {a + b}x - {a * b}",
        f"x^2 + {a + b + 1}x + {a * b}",
        f"(x+{a})(x-{b})",
        f"y^2 + {a + b}y + {a * b}",
    ]
    reference, right, miss = (
        f"x^2 + {a + b}x + {a * b}",
        right,
        miss,
    )
    return reference.replace("x", s), [x.replace("x", s) for x in right], [x.replace("x", s) for x in miss]


def _unit(r: random.Random) -> tuple[str, list[str], list[str]]:
    n = r.randint(2, 999)
    unit, other, long = r.choice((("cm", "m", "centimeters"), ("km", "mi", "kilometers"), ("kg", "g", "kilograms"),
                                  ("min", "h", "minutes"), ("ft", "in", "feet")))  # fmt: skip
    right = [str(n), f"{n} \\text{{ {unit}}}", f"{n}\\,\\mathrm{{{unit}}}", f"{n} {unit}", f"{n} \\text{{ {long}}}"]
    miss = [f"{n + 1}\\text{{ {unit}}}", f"{n}\\text{{ {other}}}", str(n + 1), f"{n}.5 \\text{{ {unit}}}"]
    return f"{n}\\text{{ {unit}}}", right, miss


def _degree(r: random.Random) -> tuple[str, list[str], list[str]]:
    n = r.randint(2, 359)
    reference = r.choice((str(n), f"{n}^\\circ"))
    return reference, [f"{n}°", f"{n}^\\circ", f"{n}^{{\\circ}}", f"{n}", f"{n}\\text{{ degrees}}"], [
        f"{n + 1}°", f"{n}0^\\circ", f"-{n}°"]  # fmt: skip


DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = ("January", "March", "June", "July", "October", "December")


def _text(r: random.Random) -> tuple[str, list[str], list[str]]:
    kind = r.randrange(3)
    if kind == 0:
        day, other = r.sample(DAYS, 2)
        return f"\\text{{{day}}}", [day, f"\\text{{{day}}}", f"\\textbf{{{day}}}", f"{day}.", day.lower()], [other]
    if kind == 1:
        month, d = r.choice(MONTHS), r.randint(1, 30)
        text = f"{month} {d}"
        return f"\\text{{{text}}}", [text, f"\\text{{{text}}}", f"\\text{{{month}}} {d}"], [f"{month} {d + 1}", month]
    letter, other = r.sample("ABCDE", 2)
    return r.choice((letter, f"\\text{{{letter}}}", f"\\text{{({letter})}}")), [
        letter, f"{letter}.", f"\\text{{{letter}}}", f"({letter})", f"\\textbf{{({letter})}}"], [
        other, f"\\text{{{other}}}", f"({other})"]  # fmt: skip


def _complex(r: random.Random) -> tuple[str, list[str], list[str]]:
    a, b = r.randint(1, 20), r.randint(2, 20)
    return f"{a} - {b}i", [f"{a}-{b}i", f"-{b}i + {a}", f"{a}.0-{b}.0i"], [f"{a} + {b}i", f"{b} - {a}i"
            if a != b else f"{a} - {b + 1}i", f"{a} - {b}"]  # fmt: skip


def _matrix(r: random.Random) -> tuple[str, list[str], list[str]]:
    items = [r.randint(-9, 9) for _ in range(3)] + [r.randint(10, 19)]

    def matrix(kind: str, n: list[int]) -> str:
        return f"\\begin{{{kind}}} {n[0]} & {n[1]} \\\\ {n[2]} & {n[3]} \\end{{{kind}}}"

    right = [matrix("bmatrix", items), matrix("pmatrix", items)]
    return (
        matrix("pmatrix", items),
        right,
        [matrix("pmatrix", items[::-1]), matrix("pmatrix", [items[0] + 1, *items[1:]])],
    )


FULL_WIDTH = str.maketrans("-,0123456789", "\N{MINUS SIGN},0123456789")
KINDS: dict[str, Writer] = {
    "integer": _integer, "fraction": _fraction, "decimal": _decimal, "tiny": _tiny, "factorial": _factorial,
    "percent": _percent, "root": _root, "constant": _constant, "interval": _interval, "ray": _ray, "union": _union,
    "set": _set, "tuple": _tuple, "equation": _equation, "assignment": _assignment, "polynomial": _polynomial,
    "unit": _unit, "degree": _degree, "text": _text, "complex": _complex, "matrix": _matrix,
}  # fmt: skip


def _rounded(value: Fraction, places: int) -> str:
    scaled = (2 * value * 10**places + 1) // 2
    return f"{scaled // 10**places}.{scaled % 10**places:0{places}d}"


def pairs(seed: int, count: int) -> Iterator[Pair]:
    """As many of every kind, as many right as near misses."""
    for number in range(count):
        r = random.Random(f"{seed} {number}")
        kind = list(KINDS)[number // 2 % len(KINDS)]
        reference, right, misses = KINDS[kind](r)
        is_right = number % 2 == 0
        yield Pair(kind, reference, r.choice(right if is_right else misses), is_right)


def ours(given: list[Pair]) -> list[str]:
    """This project's verdicts."""
    verifier = Verifier(workers=2, time_limit_s=LIMIT_S, memory_limit_mb=1024)
    try:
        judged = verifier.judge([Comparison(pair.answer, pair.reference, boxed=True) for pair in given])
    finally:
        verifier.close()
    names = {Verdict.CORRECT: "correct", Verdict.WRONG: "wrong", Verdict.UNREADABLE: "unreadable"}
    return [names[judgement.verdict] for judgement in judged]


def plain(given: list[Pair]) -> list[str]:
    """math-verify's own, by its defaults; it has no third verdict."""
    with multiprocessing.Pool(2) as pool:
        return pool.map(_plain, given, chunksize=16)


def _plain(pair: Pair) -> str:
    from math_verify import parse, verify

    signal.alarm(int(LIMIT_S))
    reference, answer = parse(f"\\boxed{{{pair.reference}}}"), parse(f"\\boxed{{{pair.answer}}}")
    equal = verify(reference, answer)
    signal.alarm(0)
    return "correct" if equal else "wrong"


def _share(count: int, of: int) -> str:
    """A percentage with its exact 95 % interval (Clopper-Pearson)."""
    interval = stats.binomtest(count, of).proportion_ci(0.95, method="exact")
    return f"{100 * count / of:5.2f} % [{100 * interval.low:.2f}, {100 * interval.high:.2f}]"


def main() -> int:
    """0 where the bar is met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=2000, help="how many, half of them right")
    parser.add_argument("--seed", type=int, default=0, help="of the pairs")
    parser.add_argument("--failures", action="store_true", help="list every pair that this project gets wrong")
    asked = parser.parse_args()
    given = list(pairs(asked.seed, asked.pairs))
    right = sum(pair.right for pair in given)
    met = True
    for name, judge in (("vcppo", ours), ("math-verify", plain)):
        began = time.perf_counter()
        verdicts = judge(given)
        took = time.perf_counter() - began
        rewards = Counter(p.kind for p, v in zip(given, verdicts, strict=True) if not p.right and v == "correct")
        refusals = Counter(p.kind for p, v in zip(given, verdicts, strict=True) if p.right and v != "correct")
        called = Counter(v for p, v in zip(given, verdicts, strict=True) if p.right and v != "correct")
        print(
            f"{name:12} false rewards {_share(rewards.total(), len(given) - right)}, false refusals "
            f"{_share(refusals.total(), right)} ({called['wrong']} wrong, {called['unreadable']} unreadable), "
            f"{1000 * took / len(given):.1f} ms a pair"
        )
        for kind in KINDS:
            if rewards[kind] or refusals[kind]:
                print(f"  {kind:12} {rewards[kind]:4} false rewards {refusals[kind]:4} false refusals")
        if name == "vcppo":
            met = not rewards and refusals.total() < FALSE_REFUSALS * right
            if asked.failures:
                for pair, verdict in zip(given, verdicts, strict=True):
                    if pair.right != (verdict == "correct"):
                        print(f"    {pair.kind}: {pair.answer!r} for {pair.reference!r} is called {verdict}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())

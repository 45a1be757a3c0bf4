"""Pairs of a reference and an answer whose truth is known because they were made equal, or made different.

Nothing here parses or evaluates what was written: a value is drawn, and then written in two ways, or a near miss of it
is written: a neighbouring value, another sign, an open end for a closed one, an element too few. What graders would
quarrel over is left out: a unit that is missing, a last digit that depends on how one rounds, a sum not worked out.
"""

import itertools
import math
import random
from collections.abc import Callable, Iterator, Sequence
from decimal import ROUND_HALF_UP, Decimal, localcontext
from fractions import Fraction
from typing import NamedTuple

TRIES = 1000  # draws for a pair that was not there before


class Pair(NamedTuple):
    """`answer` is the end of a response, box and all; `equal` is the truth."""

    kind: str
    reference: str
    answer: str
    equal: bool


class Case(NamedTuple):
    """A reference, and what may stand in a box beside it."""

    reference: str
    same: Sequence[str]
    other: Sequence[str]


def pairs(seed: int, count: int) -> list[Pair]:
    """`count` different ones, kinds in turn, as many equal as different; fewer of the same seed are a prefix of more.

    Raises:
        ValueError: a kind does not have so many.
    """
    made = [_pairs_of_kind(kind, random.Random(f"{seed} {kind}")) for kind in KINDS]
    return [next(made[i % len(made)]) for i in range(count)]


def _pairs_of_kind(kind: str, rng: random.Random) -> Iterator[Pair]:
    seen: set[tuple[str, str]] = set()
    for equal in itertools.cycle((True, False)):
        for _ in range(TRIES):
            reference, same, other = KINDS[kind](rng)
            answer = rng.choice([form for form in same if form != reference] if equal else other)
            if (reference, answer) not in seen:
                break
        else:
            raise ValueError(f"verify_pairs: no more pairs of {kind} after {len(seen)}; ask for fewer")
        seen.add((reference, answer))
        yield Pair(kind, reference, boxed(answer, rng), equal)


def boxed(answer: str, rng: random.Random) -> str:
    """As models end a response."""
    if answer.startswith("\\fbox"):
        return f"The answer is ${answer}$."
    endings = [
        "The answer is \\boxed{%s}.",
        "$\\boxed{%s}$",
        "Therefore the answer is $\\boxed{%s}$.",
        "\\[\n\\boxed{%s}\n\\]",
        "**Answer:** \\(\\boxed{%s}\\)",
        "**Final answer**\n\n$$\\boxed{ %s }$$",
        "**\\boxed{%s}**",
    ]
    if "$" not in answer and "*" not in answer:
        endings.append("The answer is \\boxed{$%s$}.")
    return rng.choice(endings).replace("%s", answer)


# --- numbers


def _fixed(value: Fraction, places: int) -> str:
    """Decimal digits, rounded half up."""
    with localcontext(prec=60):
        exact = Decimal(value.numerator) / Decimal(value.denominator)
        return f"{exact.quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP):f}"


def _places(value: Fraction) -> int | None:
    """Decimal places that it takes to write it, None where no number of them does."""
    return next((k for k in range(10) if (value * 10**k).denominator == 1), None)


def _tex_fraction(value: Fraction, command: str = "\\frac") -> str:
    sign = "-" if value < 0 else ""
    return f"{sign}{command}{{{abs(value.numerator)}}}{{{value.denominator}}}"


def _plain(value: Fraction | int) -> str:
    """12 or 3/4."""
    return str(Fraction(value))


def _tex(value: Fraction | int) -> str:
    """12 or \\frac{3}{4}."""
    value = Fraction(value)
    return str(value) if value.denominator == 1 else _tex_fraction(value)


def _nonzero(rng: random.Random, most: int) -> int:
    return rng.choice((-1, 1)) * rng.randint(1, most)


def _coprime(rng: random.Random, most: int) -> Fraction:
    """Between 0 and `most`, no integer."""
    while True:
        value = Fraction(rng.randint(1, 4 * most), rng.randint(2, most))
        if value.denominator > 1:
            return value


def _integer_forms(n: int) -> list[str]:
    forms = [str(n), f"{n}.0"]
    if abs(n) >= 1000:
        grouped = f"{n:,}"
        forms += [grouped, grouped.replace(",", "{,}"), grouped.replace(",", "\\,"), grouped.replace(",", ",\\!")]
    return forms


def integers(rng: random.Random) -> Case:
    n = _nonzero(rng, 10 ** rng.randint(1, 7)) or 1
    near = {n + 1, n - 1, -n, 10 * n, n + 10 ** (len(str(abs(n))) - 1), int(str(abs(n))[::-1]), 2 * n} - {n}
    dress = rng.choice(("%s", "x = %s", "%s = x", "n=%s", "%s", "%s"))
    same = [dress.replace("%s", form) for form in _integer_forms(n)]
    other = [dress.replace("%s", form) for m in sorted(near) for form in _integer_forms(m)]
    return Case(rng.choice(_integer_forms(n)), same, [*other, f"{n}.5", f"0.{abs(n)}"])


def typography(rng: random.Random) -> Case:
    """Numbers as chats, word processors and Chinese print them."""
    n, a = _nonzero(rng, 9999), rng.randint(2, 99)
    if rng.random() < 0.25:
        b = rng.choice([k for k in (2, 3, 5, 6, 7, 10, 11) if k != a])
        return Case(
            f"{a}\\sqrt{{{b}}}", [f"{a}√{b}", f"{a} √{b}", f"{a}√({b})"], [f"{a}√{b + 1}", f"{a + 1}√{b}", f"√{b}"]
        )
    forms = [
        "\\boldsymbol{%s}", "\\mathbf{%s}", "\\textbf{%s}", "\\text{%s}", "\\mathrm{%s}", "**%s**", "%s。", "%s.", "\\fbox{%s}",
        "{%s}", "\\displaystyle %s", "\\bf{%s}", "\\,%s", "\\bm{%s}", "`%s`", "(%s)",
    ]  # fmt: skip
    written = [str(n)]
    if abs(n) >= 1000:
        written += [f"{n:,}".replace(",", "，")] * 4
    if n < 0:
        written += [str(n).replace("-", dash) for dash in "−–"]
    wrong = [n + 1, n - 1, -n, n + 1000 if n > 0 else n - 1000]
    return Case(
        str(n),
        [form.replace("%s", text) for form in forms for text in written],
        [form.replace("%s", str(m)) for form in forms for m in wrong],
    )


def decimals(rng: random.Random) -> Case:
    places = rng.randint(1, 5)
    k = _nonzero(rng, 10 ** rng.randint(places, 6))
    if k % 10 == 0:
        k += 3
    value = Fraction(k, 10**places)
    text = _fixed(value, places)
    same = [text, text + "0", text + "00", _tex_fraction(value), f"\\frac{{{k}}}{{{10**places}}}", _plain(value)]
    if text.startswith("0"):
        same.append(text[1:])
    ulp = Fraction(1, 10**places)
    near = [value + ulp, value - ulp, -value, 10 * value, value / 10, value + 1]
    other = [_fixed(v, places + 1) for v in near] + [_tex_fraction(v) for v in near if v.denominator > 1]
    return Case(rng.choice((text, text + "0")), same, other)


def fractions(rng: random.Random) -> Case:
    value = _coprime(rng, rng.choice((9, 20, 200))) * rng.choice((1, 1, -1))
    p, q, k = value.numerator, value.denominator, rng.randint(2, 9)
    same = [_tex_fraction(value), _tex_fraction(value, "\\dfrac"), _tex_fraction(value, "\\tfrac"), f"{p}/{q}"]
    same += [f"\\frac{{{p}}}{{{q}}}", f"\\frac{{{k * p}}}{{{k * q}}}", f"{k * p}/{k * q}", f"\\frac{{{-p}}}{{{-q}}}"]
    if 0 < p < 10 > q:
        same += [f"\\frac{p}{q}", f"\\dfrac{p}{q}", f"\\frac {p} {q}"]
    if (places := _places(value)) is not None:
        same.append(_fixed(value, places))
    near = {1 / value, -value, Fraction(p + 1, q), Fraction(p, q + 1), Fraction(p - 1, q), 1 - value, value + 1} - {
        value
    }
    other = [_tex(v) for v in sorted(near)] + [_plain(v) for v in sorted(near)]
    return Case(rng.choice((_tex_fraction(value), f"{p}/{q}")), same, other)


def mixed_numbers(rng: random.Random) -> Case:
    whole, part = rng.randint(1, 30), Fraction(1, 1)
    while part.denominator == 1:
        part = Fraction(rng.randint(1, 8), rng.randint(2, 12)) % 1
    value = whole + part
    p, q = part.numerator, part.denominator

    def forms(w: int, p: int, q: int) -> list[str]:
        found = [f"{w}\\frac{{{p}}}{{{q}}}", f"{w} \\frac{{{p}}}{{{q}}}", f"{w}\\dfrac{{{p}}}{{{q}}}", f"{w} {p}/{q}"]
        return [*found, f"{w}\\,\\frac{{{p}}}{{{q}}}", f"{w}\\tfrac{{{p}}}{{{q}}}"]

    plain = [_tex_fraction(value), _plain(value)]
    if (places := _places(value)) is not None:
        plain.append(_fixed(value, places))
    product = whole * part
    other = [*forms(whole + 1, p, q), *forms(whole, p, q + 1), *forms(whole, p, q + q), _tex(product), _plain(product)]
    other += [_tex_fraction(part), _tex_fraction(value + 1), _plain(value + part)]
    reference = rng.choice((*plain, *forms(whole, p, q)[:2]))
    return Case(
        reference, [*forms(whole, p, q), *plain[:1]] if reference in plain else forms(whole, p, q) + plain, other
    )


def roundings(rng: random.Random) -> Case:
    """Six places or more, rounded, are the number; three or fewer, or a digit that is wrong, are not."""
    if rng.random() < 0.4:
        root, scale = rng.choice([k for k in range(2, 60) if math.isqrt(k) ** 2 != k]), 10**40
        exact, reference = Fraction(math.isqrt(root * scale**2), scale), f"\\sqrt{{{root}}}"
    else:
        exact = Fraction(1)
        while _places(exact) is not None:
            exact = Fraction(rng.randint(20, 400), rng.randint(3, 40))
        reference = rng.choice((_tex_fraction(exact), _plain(exact)))
    same = [_fixed(exact, places) for places in range(6, 13)] + [_fixed(exact, 6), _fixed(exact, 8)]
    other = [_fixed(exact, places) for places in (1, 2, 3)]
    other += [_fixed(exact + Fraction(_nonzero(rng, 4), 10**at), places) for at in (2, 3, 4) for places in (6, 8, 10)]
    return Case(reference, same, [*other, _fixed(-exact, 8)])


def repeating_decimals(rng: random.Random) -> Case:
    length, lead = rng.randint(1, 3), rng.choice(("", "", str(rng.randint(0, 9)), str(rng.randint(10, 99))))
    period = str(rng.randint(1, 10**length - 2)).zfill(length)
    whole = rng.randint(0, 12)

    def value(whole: int, lead: str, period: str) -> Fraction:
        return whole + (int(lead or "0") + Fraction(int(period), 10 ** len(period) - 1)) / 10 ** len(lead)

    exact = value(whole, lead, period)
    bar = f"{whole}.{lead}\\overline{{{period}}}"
    near = str((int(period) + 1) % (10**length - 1)).zfill(length)
    other = [
        f"{whole}.{lead}\\overline{{{near}}}",
        f"{whole}.{lead}{period}",
        f"{whole + 1}.{lead}\\overline{{{period}}}",
    ]
    if value(whole, lead + "0", period) != exact:
        other.append(f"{whole}.{lead}0\\overline{{{period}}}")
    fraction = [_tex_fraction(exact), _plain(exact)]
    if rng.random() < 0.5:
        return Case(rng.choice(fraction), [bar, bar.replace("\\overline", "\\bar")], other)
    return Case(
        bar, fraction, [*other, _tex(exact + 1), _tex(value(whole, lead, near)), _plain(value(whole, lead, near))]
    )


def scientific(rng: random.Random) -> Case:
    digits, exponent = rng.randint(11, 999), rng.choice((-1, 1)) * rng.randint(2, 30)
    if digits % 10 == 0:
        digits += 1
    mantissa = f"{digits / 10 ** (len(str(digits)) - 1):g}"
    wrong = f"{(digits + 1) / 10 ** (len(str(digits)) - 1):g}"

    def forms(m: str, e: int) -> list[str]:
        found = [f"{m} \\times 10^{{{e}}}", f"{m}\\times10^{{{e}}}", f"{m} \\cdot 10^{{{e}}}", f"{m}e{e}", f"{m}E{e}"]
        found += [f"{m} × 10^{{{e}}}", f"{m}e{e:+03d}"]
        exact = Fraction(m) * Fraction(10) ** e
        if -9 <= e < 0:
            found.append(_fixed(exact, len(m.partition(".")[2]) - e))
        elif 0 < e <= 9 and exact.denominator == 1:
            found += [str(exact), f"{int(exact):,}"]
        return found

    other = [*forms(mantissa, exponent + 1), *forms(mantissa, exponent - 1), *forms(wrong, exponent)]
    other += [*forms(mantissa, -exponent), "-" + forms(mantissa, exponent)[0]]
    same = forms(mantissa, exponent)
    return Case(rng.choice(same), same, other)


def tiny(rng: random.Random) -> Case:
    """Differences far below any fixed tolerance."""
    match rng.randrange(4):
        case 0:
            n = rng.randint(20, 400)
            base = rng.choice((2, 3, 5, 10))

            def powers(n: int) -> list[str]:
                return [
                    f"{base}^{{-{n}}}",
                    f"\\frac{{1}}{{{base}^{{{n}}}}}",
                    f"1/{base}^{{{n}}}",
                    f"\\left(\\frac{{1}}{{{base}}}\\right)^{{{n}}}",
                ]

            return Case(rng.choice(powers(n)), powers(n), powers(n + 1) + powers(n - 1) + ["0", f"-{base}^{{-{n}}}"])
        case 1:
            n = rng.randint(18, 2100)

            def factorials(n: int) -> list[str]:
                return [f"\\frac{{1}}{{{n}!}}", f"1/{n}!", f"\\dfrac{{1}}{{{n}!}}", f"\\frac1{{{n}!}}"]

            return Case(
                rng.choice(factorials(n)),
                factorials(n),
                [*factorials(n + 1), *factorials(n + 2), *factorials(n - 1), "0"],
            )
        case 2:
            k, places = rng.randint(1, 98), rng.randint(7, 16)
            if k % 10 == 0:
                k += 1
            text = _fixed(Fraction(k, 10**places), places)
            ways = [text, f"{k} \\times 10^{{-{places}}}", f"\\frac{{{k}}}{{10^{{{places}}}}}", f"{k}e-{places}"]
            wrong = [_fixed(Fraction(k + 1, 10**places), places), f"{k + 1} \\times 10^{{-{places}}}", "0", "-" + text]
            return Case(
                rng.choice(ways), ways, [*wrong, f"{k + 1}e-{places}", f"{2 * k} \\times 10^{{-{places}}}", "0.0"]
            )
        case _:
            n, k = rng.randint(10**8, 10**14), rng.randint(1, 9)
            value = Fraction(k, n)
            ways = [
                f"\\frac{{{value.numerator}}}{{{value.denominator}}}",
                _plain(value),
                f"\\frac{{{2 * k}}}{{{2 * n}}}",
            ]
            wrong = [_tex(Fraction(k, n + 1)), _tex(Fraction(k + 1, n)), _plain(Fraction(k, n - 1)), "-" + ways[0], "0"]
            return Case(rng.choice(ways), ways, wrong)


def large(rng: random.Random) -> Case:
    """Factorials, powers, binomial coefficients and what they are."""
    match rng.randrange(3):
        case 0:
            n = rng.randint(5, 25)
            ways, value = [f"{n}!"], math.factorial(n)
            wrong = [f"{n + 1}!", f"{n - 1}!", f"{n}!!"]
        case 1:
            base, n = rng.randint(2, 9), rng.randint(5, 30)
            ways, value = [f"{base}^{{{n}}}", f"{base} ^ {{{n}}}"], base**n
            wrong = [f"{base}^{{{n + 1}}}", f"{base + 1}^{{{n}}}", f"{base}^{{{n - 1}}}"]
        case _:
            n, k = rng.randint(9, 40), rng.randint(2, 4)
            ways, value = [f"\\binom{{{n}}}{{{k}}}", f"\\dbinom{{{n}}}{{{k}}}"], math.comb(n, k)
            wrong = [f"\\binom{{{n + 1}}}{{{k}}}", f"\\binom{{{n}}}{{{k - 1}}}"]
    wrong += [str(value + 1), str(value - 1), f"{value + 10:,}", f"-{value}"]
    return Case(ways[0], [*ways, str(value), f"{value:,}", f"{value:,}".replace(",", "{,}")], wrong)


def percentages(rng: random.Random) -> Case:
    places = rng.choice((0, 1, 1, 2))
    k = rng.randint(1, 10 ** (places + 2) - 2)
    value = Fraction(k, 10**places)

    def forms(v: Fraction) -> list[str]:
        text = _fixed(v, places)
        return [f"{text}\\%", f"{text} \\%", f"{text}%", f"{text}\\,\\%", f"{text}\\text{{\\%}}"]

    near = [value + Fraction(1, 10**places), value + 1, 10 * value, -value]
    wrong = [form for v in near for form in forms(v)]
    if value > 1 and rng.random() < 0.4:
        return Case(_fixed(value, places), forms(value), wrong)
    share = [_fixed(value / 100, places + 2), _tex(value / 100)]
    return Case(rng.choice(forms(value)[:2]), forms(value) + share, [*wrong, _fixed(value / 10, places + 1)])


def roots(rng: random.Random) -> Case:
    a, b = rng.randint(2, 15), rng.choice((2, 3, 5, 6, 7, 10, 11, 13, 15, 17, 19, 21, 22, 23, 26, 29, 30))
    if a == b:
        a += 1
    if rng.random() < 0.5:
        same = [f"{a}\\sqrt{{{b}}}", f"{a} \\sqrt{{{b}}}", f"{a} \\cdot \\sqrt{{{b}}}", f"\\sqrt{{{b}}} \\cdot {a}"]
        same += [f"\\sqrt{{{a * a * b}}}", f"{a}*sqrt({b})", f"{a} * \\sqrt{{{b}}}"]
        if b < 10:
            same += [f"{a}\\sqrt{b}", f"{a}\\sqrt {b}"]
        other = [
            f"{b}\\sqrt{{{a}}}",
            f"\\sqrt{{{a * b}}}",
            f"{a}\\sqrt{{{b + 1}}}",
            f"{a} + \\sqrt{{{b}}}",
            f"{a + 1}\\sqrt{{{b}}}",
        ]
        other += [
            f"-{a}\\sqrt{{{b}}}",
            f"{a}\\sqrt[3]{{{b}}}",
            f"{a * b}",
            f"\\frac{{\\sqrt{{{b}}}}}{{{a}}}",
            f"{a}sqrt({b + 1})",
        ]
        return Case(rng.choice(same[:2]), same, other)
    c, d = _nonzero(rng, 20), rng.choice((2, 3, 5, 7))
    sign, flip = rng.choice(("+-", "-+"))
    reference = f"\\frac{{{c}{sign}\\sqrt{{{b}}}}}{{{d}}}"
    same = [
        reference,
        f"\\frac{{{c}}}{{{d}}} {sign} \\frac{{\\sqrt{{{b}}}}}{{{d}}}",
        f"\\frac{{1}}{{{d}}}({c} {sign} \\sqrt{{{b}}})",
    ]
    same += [
        f"({c} {sign} \\sqrt{{{b}}})/{d}",
        f"\\dfrac{{{c} {sign} \\sqrt{{{b}}}}}{{{d}}}",
        f"({c} {sign} sqrt({b}))/{d}",
    ]
    other = [
        f"\\frac{{{c}{flip}\\sqrt{{{b}}}}}{{{d}}}",
        f"\\frac{{{c}{sign}\\sqrt{{{b}}}}}{{{d + 1}}}",
        f"{c} {sign} \\frac{{\\sqrt{{{b}}}}}{{{d}}}",
    ]
    other += [
        f"\\frac{{{-c}{sign}\\sqrt{{{b}}}}}{{{d}}}",
        f"\\frac{{{c}{sign}\\sqrt{{{b + 1}}}}}{{{d}}}",
        f"({c + 1} {sign} \\sqrt{{{b}}})/{d}",
    ]
    return Case(reference, same, other)


def constants(rng: random.Random) -> Case:
    """Pi, e, logarithms, arcs."""
    value = _coprime(rng, 12)
    p, q, a, b = value.numerator, value.denominator, *rng.sample((2, 3, 5, 6, 7, 10, 11, 12, 13), 2)
    cases = [
        Case(
            f"\\frac{{{p}\\pi}}{{{q}}}",
            [
                f"\\frac{{{p} \\pi}}{{{q}}}",
                f"\\frac{{{p}}}{{{q}}}\\pi",
                f"{p}\\pi/{q}",
                f"{p}π/{q}",
                f"\\dfrac{{{p}\\pi}}{{{q}}}",
            ],
            [
                f"\\frac{{{p + 1}\\pi}}{{{q}}}",
                f"\\frac{{{q}\\pi}}{{{p}}}",
                f"\\frac{{{p}}}{{{q}}}",
                f"\\frac{{{p}}}{{{q}\\pi}}",
                f"\\frac{{{p}\\pi^2}}{{{q}}}",
                f"-\\frac{{{p}\\pi}}{{{q}}}",
            ],
        ),
        Case(
            f"{a}\\ln {b}",
            [f"{a} \\ln {b}", f"{a}\\ln({b})", f"{a}\\ln{{{b}}}", f"\\ln {b**a}", f"{a} \\cdot \\ln\\left({b}\\right)"],
            [f"{b}\\ln {a}", f"\\ln {a * b}", f"{a + 1}\\ln {b}", f"\\ln {b}", f"{a} + \\ln {b}", f"-{a}\\ln {b}"],
        ),
        Case(
            f"\\log_{{{a}}} {b}",
            [f"\\log_{{{a}}}{{{b}}}", f"\\log_{{{a}}}({b})", f"\\frac{{\\ln {b}}}{{\\ln {a}}}", f"\\log_{{{a}}} {b}"],
            [f"\\log_{{{b}}} {a}", f"\\log_{{{a}}} {b + 1}", f"\\ln {b}", f"\\frac{{\\ln {a}}}{{\\ln {b}}}"],
        ),
        Case(
            f"{b}e^{{{a}}}",
            [f"{b} e^{{{a}}}", f"{b} \\cdot e^{{{a}}}", f"e^{{{a}}} \\cdot {b}"],
            [f"{b}e^{{-{a}}}", f"{a}e^{{{b}}}", f"{b}e^{{{a + 1}}}", f"e^{{{a * b}}}", f"{b} + e^{{{a}}}"],
        ),
    ]
    low = Fraction(min(a, b), max(a, b))
    name, twin = rng.sample(("cos", "sin", "tan"), 2)
    cases.append(
        Case(
            f"\\arc{name}\\frac{{{low.numerator}}}{{{low.denominator}}}",
            [f"arc{name}({_plain(low)})", f"\\arc{name}({_plain(low)})", f"\\arc{name}\\left({_tex_fraction(low)}\\right)", f"\\{name}^{{-1}}\\left({_tex_fraction(low)}\\right)"],
            [f"arc{name}(-{_plain(low)})", f"\\{name}({_plain(low)})", f"\\arc{name}\\left({_tex(low / 2)}\\right)", f"\\arc{twin}\\left({_tex_fraction(low)}\\right)"],
        )
    )  # fmt: skip
    return rng.choice(cases)


def complex_numbers(rng: random.Random) -> Case:
    a, b = _nonzero(rng, 30), rng.choice((-1, 1)) * rng.randint(2, 30)
    if abs(a) == abs(b):
        b += 31 if b > 0 else -31

    def forms(a: int, b: int) -> list[str]:
        return [
            f"{a}{b:+d}i",
            f"{a} {'+' if b > 0 else '-'} {abs(b)}i",
            f"{b}i{a:+d}",
            f"{a}.0{b:+d}.0i",
            f"{a} {b:+d}\\cdot i",
        ]

    other = [
        *forms(a, -b),
        *forms(b, a),
        *forms(-a, b),
        *forms(a + 1, b),
        *forms(a, b + (1 if b > 0 else -1)),
        str(a),
        f"{b}i",
    ]
    return Case(forms(a, b)[rng.choice((0, 0, 1, 3))], forms(a, b), other)


def degrees_and_units(rng: random.Random) -> Case:
    n = rng.choice((rng.randint(2, 999), rng.randint(2, 99)))
    half = rng.random() < 0.3
    text, near = (f"{n}.5", f"{n}.6") if half else (f"{n}", f"{n + 1}")
    match rng.randrange(3):
        case 0:
            ways = ["%s^\\circ", "%s^{\\circ}", "%s°", "%s\\degree", "%s \\text{ degrees}", "%s degrees"]
            return Case(
                rng.choice(ways[:2]).replace("%s", text),
                [way.replace("%s", text) for way in ways],
                [way.replace("%s", wrong) for way in ways for wrong in (near, "-" + text, text + "0", "1" + text)],
            )
        case 1:
            ways = ["\\$%s", "\\$ %s", "%s \\text{ dollars}", "%s dollars", "\\text{\\$}%s"]
            money, wrong = (text + "0", near + "0") if half else (text + ".00", near + ".00")
            return Case(
                f"\\${money}",
                [way.replace("%s", form) for way in ways for form in (text, money)],
                [way.replace("%s", form) for way in ways for form in (near, wrong, "1" + text, text[1:] or "0")],
            )
        case _:
            units = rng.choice(
                (("cm", "mm", "km"), ("kg", "mg", "tons"), ("hours", "minutes", "days"), ("meters", "feet", "miles"))
            )
            unit, another = rng.sample(units, 2)
            ways = [
                "%s \\text{ %u}",
                "%s\\text{ %u}",
                "%s \\mathrm{~%u}",
                "%s \\,\\text{%u}",
                "%s %u",
                "%s\\ \\text{%u}",
                "%s\\;\\mathrm{%u}",
            ]
            return Case(
                rng.choice(ways[:3]).replace("%s", text).replace("%u", unit),
                [way.replace("%s", text).replace("%u", unit) for way in ways],
                [
                    way.replace("%s", number).replace("%u", measure)
                    for way in ways
                    for number, measure in ((near, unit), ("1" + text, unit), (text, another), (text, another))
                ],
            )


# --- intervals, sets, tuples


class Interval(NamedTuple):
    """None is an infinite end."""

    low: Fraction | None
    high: Fraction | None
    with_low: bool
    with_high: bool

    def brackets(self, end: Callable[[Fraction], str] = _tex, separator: str = ", ") -> str:
        low = "-\\infty" if self.low is None else end(self.low)
        high = "\\infty" if self.high is None else end(self.high)
        return f"{'[' if self.with_low else '('}{low}{separator}{high}{']' if self.with_high else ')'}"

    def inequality(self, variable: str = "x", *, turned: bool = False, end: Callable[[Fraction], str] = _tex, signs: Sequence[str] = ("<", "\\le", ">", "\\ge")) -> str:  # fmt: skip
        less = [signs[self.with_low], signs[self.with_high]]
        more = [signs[2 + self.with_low], signs[2 + self.with_high]]
        if self.low is None:
            assert self.high is not None
            return f"{end(self.high)} {more[1]} {variable}" if turned else f"{variable} {less[1]} {end(self.high)}"
        if self.high is None:
            return f"{end(self.low)} {less[0]} {variable}" if turned else f"{variable} {more[0]} {end(self.low)}"
        low, high = end(self.low), end(self.high)
        if turned:
            return f"{high} {more[1]} {variable} {more[0]} {low}"
        return f"{low} {less[0]} {variable} {less[1]} {high}"

    def forms(self, variable: str) -> list[str]:
        plain, tex = _plain, _tex
        big = (
            self.brackets()
            .replace("(", "\\left(")
            .replace("[", "\\left[")
            .replace(")", "\\right)")
            .replace("]", "\\right]")
        )
        long, plain_signs = ("<", "\\leq", ">", "\\geq"), ("<", "≤", ">", "≥")
        return [
            self.brackets(),
            big,
            self.brackets(plain),
            self.brackets(separator=","),
            self.brackets(separator="; "),
            f"{variable} \\in {self.brackets(tex)}",
            self.inequality(variable),
            self.inequality(variable, turned=True),
            self.inequality(variable, signs=long),
            self.inequality(variable, end=plain, signs=plain_signs),
            self.inequality(variable, signs=("<", "\\leqslant", ">", "\\geqslant")),
        ]

    def near_misses(self) -> list["Interval"]:
        found = []
        if self.low is not None:
            found += [self._replace(with_low=not self.with_low), self._replace(low=self.low - 1)]
        if self.high is not None:
            found += [self._replace(with_high=not self.with_high), self._replace(high=self.high + 1)]
        if self.low is None or self.high is None:
            found.append(Interval(self.high, self.low, self.with_high, self.with_low))
            found.append(self._replace(low=self.low and -self.low, high=self.high and -self.high))
        return [interval for interval in found if interval != self]


def _ends(rng: random.Random, count: int) -> list[Fraction]:
    """Ascending, a few of them halves."""
    grid = [Fraction(k) for k in range(-15, 16)] * 4 + [Fraction(k, 2) for k in range(-15, 16, 2)]
    chosen: set[Fraction] = set()
    while len(chosen) < count:
        chosen.add(rng.choice(grid))
    return sorted(chosen)


def _closed(rng: random.Random) -> bool:
    return rng.random() < 0.5


def intervals(rng: random.Random) -> Case:
    low, high = _ends(rng, 2)
    interval = rng.choice(
        (
            Interval(low, high, _closed(rng), _closed(rng)),
            Interval(low, high, _closed(rng), _closed(rng)),
            Interval(None, high, False, _closed(rng)),
            Interval(low, None, _closed(rng), False),
        )
    )
    variable = rng.choice("xxyat")
    other = [form for miss in interval.near_misses() for form in miss.forms(variable)]
    if interval.low is not None and interval.high is not None:
        swapped = interval._replace(low=interval.high, high=interval.low)
        other += [swapped.brackets(), swapped.brackets(_plain), _tex(high - low)]
    else:
        other += [_tex(low if interval.low is not None else high)]
    forms = interval.forms(variable)
    return Case(rng.choice((forms[0], forms[0], forms[6], forms[8])), forms, other)


def _join(parts: Sequence[Interval], rng: random.Random, variable: str) -> list[str]:
    shuffled = list(parts)
    rng.shuffle(shuffled)
    chains = (
        [p.inequality(variable) for p in shuffled],
        [p.inequality(variable, signs=("<", "\\leq", ">", "\\geq")) for p in parts],
    )
    return [
        " \\cup ".join(p.brackets() for p in parts),
        "\\cup".join(p.brackets(separator=",") for p in shuffled),
        " ∪ ".join(p.brackets(_plain) for p in shuffled),
        f"{variable} \\in " + " \\cup ".join(p.brackets() for p in shuffled),
        " \\text{ or } ".join(chains[0]),
        " or ".join(chains[1]),
        "\\text{ or }".join(chains[1]),
    ]


def unions(rng: random.Random) -> Case:
    a, b, c, d = _ends(rng, 4)
    variable = rng.choice("xxyt")
    if rng.random() < 0.25:
        hole = f"(-\\infty, {_tex(a)}) \\cup ({_tex(a)}, \\infty)"
        same = [
            hole,
            f"{variable} \\ne {_tex(a)}",
            f"{variable} \\neq {_tex(a)}",
            f"\\mathbb{{R}} \\setminus \\{{{_tex(a)}\\}}",
            f"{variable} ≠ {_plain(a)}",
        ]
        same += [
            f"{variable} < {_tex(a)} \\text{{ or }} {variable} > {_tex(a)}",
            f"(-\\infty,{_tex(a)})\\cup({_tex(a)},\\infty)",
        ]
        other = [
            f"{variable} \\ne {_tex(b)}",
            f"{variable} = {_tex(a)}",
            f"(-\\infty, {_tex(b)}) \\cup ({_tex(b)}, \\infty)",
            _tex(a),
        ]
        other += [
            f"(-\\infty, {_tex(a)}] \\cup ({_tex(a)}, \\infty)",
            f"{variable} > {_tex(a)}",
            f"\\mathbb{{R}} \\setminus \\{{{_tex(b)}\\}}",
            f"{variable} < {_tex(a)}",
        ]
        return Case(rng.choice(same[:2]), same, other)
    parts = rng.choice(
        (
            (Interval(None, a, False, _closed(rng)), Interval(b, None, _closed(rng), False)),
            (Interval(None, a, False, _closed(rng)), Interval(b, None, _closed(rng), False)),
            (Interval(a, b, _closed(rng), _closed(rng)), Interval(c, d, _closed(rng), _closed(rng))),
            (Interval(a, b, _closed(rng), _closed(rng)), Interval(c, None, _closed(rng), False)),
            (Interval(None, a, False, _closed(rng)), Interval(b, c, _closed(rng), _closed(rng))),
        )
    )
    first, second = parts
    misses = [(m, second) for m in _ends_flipped(first)] + [(first, m) for m in _ends_flipped(second)]
    moved = second.low + Fraction(1, 3) if second.high is None else second.low
    misses.append((first, second._replace(low=moved, high=None if second.high is None else second.high + 1)))
    other = [form for miss in misses for form in _join(miss, rng, variable)]
    other += [
        first.brackets(),
        second.brackets(),
        first.inequality(variable),
        f"{first.brackets()} \\cap {second.brackets()}",
    ]
    forms = _join(parts, rng, variable)
    return Case(rng.choice((forms[0], forms[0], forms[4])), forms, other)


def _ends_flipped(interval: Interval) -> list[Interval]:
    found = []
    if interval.low is not None:
        found.append(interval._replace(with_low=not interval.with_low))
    if interval.high is not None:
        found.append(interval._replace(with_high=not interval.with_high))
    return found


def _elements(rng: random.Random, count: int, most: int = 30) -> list[Fraction]:
    grid = [Fraction(k) for k in range(-most, most + 1)] * 4 + [Fraction(k, 3) for k in range(-10, 11) if k % 3]
    chosen: list[Fraction] = []
    while len(chosen) < count:
        if (value := rng.choice(grid)) not in chosen:
            chosen.append(value)
    return chosen


def _changed(elements: Sequence[Fraction], rng: random.Random) -> list[Fraction]:
    """One of them made another that is not among them."""
    found = list(elements)
    i = rng.randrange(len(found))
    changes = [found[i] + 1, found[i] - 1, -found[i], 2 * found[i], max(found) + 3]
    found[i] = rng.choice([value for value in changes if value not in elements])
    return found


def sets(rng: random.Random) -> Case:
    if rng.random() < 0.08:
        return Case(
            rng.choice(("\\emptyset", "\\varnothing")),
            ["\\emptyset", "\\varnothing", "\\{\\}", "∅", "\\{ \\}", "$\\emptyset$"],
            ["\\{0\\}", "0", "\\{\\emptyset\\}", "\\{1\\}", "\\mathbb{R}", f"\\{{{rng.randint(2, 99)}\\}}"],
        )
    elements = _elements(rng, rng.randint(2, 5))

    def forms(elements: Sequence[Fraction]) -> list[str]:
        shuffled = rng.sample(list(elements), len(elements))
        found = [
            (_tex, "\\{%s\\}", ", "),
            (_plain, "\\{%s\\}", ","),
            (_tex, "\\left\\{%s\\right\\}", ", "),
            (_tex, "\\{ %s \\}", ", "),
        ]
        return [frame.replace("%s", separator.join(write(e) for e in shuffled)) for write, frame, separator in found]

    other = forms(elements[1:]) + forms(_changed(elements, rng)) + forms(_changed(elements, rng))
    other += forms([*elements, max(elements) + 1])
    other.append(f"({', '.join(_tex(e) for e in elements)})")
    return Case(f"\\{{{', '.join(_tex(e) for e in elements)}\\}}", forms(elements), other)


def lists(rng: random.Random) -> Case:
    """Several solutions."""
    if rng.random() < 0.2:
        n = rng.randint(1, 60)
        ways = [
            f"\\pm {n}",
            f"\\pm{n}",
            f"{n}, -{n}",
            f"-{n}, {n}",
            f"x = \\pm {n}",
            f"{n} \\text{{ and }} -{n}",
            f"±{n}",
        ]
        wrong = [str(n), f"-{n}", f"\\pm {n + 1}", f"{n}, -{n + 1}", f"0, {n}", f"x = {n}"]
        return Case(rng.choice(ways[:4]), ways, wrong)
    elements = _elements(rng, rng.choice((2, 2, 3)), most=rng.choice((30, 30, 999)))

    def forms(elements: Sequence[Fraction]) -> list[str]:
        shuffled = rng.sample(list(elements), len(elements))
        written, plain, ordered = (
            [_tex(e) for e in shuffled],
            [_plain(e) for e in shuffled],
            [_tex(e) for e in elements],
        )
        found = [
            ", ".join(written),
            ", ".join(plain),
            ", ".join(ordered),
            "x = " + ", ".join(written),
            ", ".join(f"x = {e}" for e in written),
        ]
        if len(elements) == 2:
            found += [
                f"{plain[0]} and {plain[1]}",
                f"{plain[0]} or {plain[1]}",
                f"x = {written[0]} \\text{{ or }} x = {written[1]}",
            ]
            found += [
                f"{written[0]} \\text{{ and }} {written[1]}",
                f"{written[0]} \\text{{ or }} {written[1]}",
                f"x={plain[0]} or x={plain[1]}",
            ]
        else:
            found += [
                f"{plain[0]}, {plain[1]}, and {plain[2]}",
                f"{written[0]}, {written[1]} \\text{{ and }} {written[2]}",
            ]
        return found

    other = forms(_changed(elements, rng)) + forms(_changed(elements, rng)) + forms([*elements, max(elements) + 2])[:5]
    other += [_tex(elements[0]), _tex(elements[-1])]
    if len(elements) == 3:
        other += forms(elements[:2])
    ordered = [_tex(e) for e in elements]
    references = [", ".join(ordered)] * 2 + (
        [f"{ordered[0]} \\text{{ or }} {ordered[1]}", f"{ordered[0]} \\text{{ and }} {ordered[1]}"]
        if len(ordered) == 2
        else []
    )
    return Case(rng.choice(references), forms(elements), other)


def tuples(rng: random.Random) -> Case:
    if rng.random() < 0.08:
        k, m, n = _nonzero(rng, 99), *rng.choice(("mn", "xy", "ab"))
        same = [f"({k}, {k})", f"{m} = {k}, {n} = {k}", f"{m} = {n} = {k}", f"({m}, {n}) = ({k}, {k})", f"({k},{k})"]
        other = [
            f"({k}, {k + 1})",
            f"{m} = {k}, {n} = {k - 1}",
            f"{m} = {n} = {k + 1}",
            f"{m} = {n} = {-k}",
            f"({-k}, {k})",
        ]
        return Case(f"{m}={n}={k}", same, other)
    elements = _elements(rng, rng.choice((2, 2, 3, 3, 4)), most=20)
    names = "(" + ", ".join("xyzw"[: len(elements)]) + ")"

    def forms(elements: Sequence[Fraction]) -> list[str]:
        tex, plain = [_tex(e) for e in elements], [_plain(e) for e in elements]
        found = [
            f"({', '.join(tex)})",
            f"({','.join(plain)})",
            f"\\left({', '.join(tex)}\\right)",
            f"（{'，'.join(plain)}）",
            f"( {' , '.join(plain)} )",
        ]
        if len(elements) == names.count(",") + 1:
            found.append(f"{names} = ({', '.join(tex)})")
        return found

    turned = [*elements[1:], elements[0]]
    other = (
        forms(turned)
        + forms(_changed(elements, rng))
        + forms(_changed(elements, rng))
        + forms([*elements, Fraction(0)])[:3]
    )
    if len(elements) > 2:
        other += forms(elements[:-1])
    other += [f"\\{{{', '.join(_tex(e) for e in elements)}\\}}", ", ".join(_tex(e) for e in elements[:-1])]
    return Case(forms(elements)[0], forms(elements), other)


def matrices(rng: random.Random) -> Case:
    height, width = rng.choice(((2, 2), (2, 2), (2, 1), (3, 1), (2, 3), (3, 3)))
    rows = [[rng.randint(-9, 9) for _ in range(width)] for _ in range(height)]
    rows[0][0] = 10  # in one place only

    def forms(rows: Sequence[Sequence[int]]) -> list[str]:
        inside = " \\\\ ".join(" & ".join(map(str, row)) for row in rows)
        tight = "\\\\".join("&".join(map(str, row)) for row in rows)
        found = [f"\\begin{{pmatrix}} {inside} \\end{{pmatrix}}", f"\\begin{{bmatrix}} {inside} \\end{{bmatrix}}"]
        return [*found, f"\\begin{{pmatrix}}{tight}\\end{{pmatrix}}", f"\\begin{{pmatrix}}\n{inside}\n\\end{{pmatrix}}"]

    i, j = rng.randrange(height), rng.randrange(width)
    bumped = [[x + (1 if (r, c) == (i, j) else 0) for c, x in enumerate(row)] for r, row in enumerate(rows)]
    other = forms(bumped) + forms([[-x for x in row] for row in rows]) + forms(rows[::-1])
    if width > 1:
        other += forms([row[::-1] for row in rows])
    return Case(forms(rows)[0], forms(rows), other)


# --- expressions and equations

Term = tuple[int, str]  # 3, "x^2"


def _sum(terms: Sequence[Term], rng: random.Random | None = None) -> str:
    """3x^2 - x + 2, shuffled if a generator is given."""
    left = [term for term in terms if term[0]]
    if not left:
        return "0"
    if rng is not None:
        rng.shuffle(left)
    text = ""
    for factor, name in left:
        size = str(abs(factor)) if abs(factor) != 1 or not name else ""
        text += f" {'-' if factor < 0 else '+'} {size}{name}"
    return text[1:].replace("- ", "-", 1) if text.startswith(" -") else text[3:]


def _negated(terms: Sequence[Term]) -> list[Term]:
    return [(-factor, name) for factor, name in terms]


def _one_wrong(terms: Sequence[Term], rng: random.Random) -> list[Term]:
    """One factor of another sign, or one greater in size."""
    found = list(terms)
    i = rng.randrange(len(found))
    factor, name = found[i]
    found[i] = (rng.choice((-factor, factor + (1 if factor > 0 else -1))), name)
    return found


def polynomials(rng: random.Random) -> Case:
    x = rng.choice("xxntk")
    if rng.random() < 0.5:
        a, b = _nonzero(rng, 9), _nonzero(rng, 9)
        while a in (b, -b):
            b = _nonzero(rng, 12)
        terms = [(1, f"{x}^2"), (a + b, x), (a * b, "")]
        factored = [
            f"({x}{a:+d})({x}{b:+d})",
            f"({x}{b:+d})({x}{a:+d})",
            f"({x} {'+' if a > 0 else '-'} {abs(a)})({x}{b:+d})",
        ]
        wrong = [f"({x}{a:+d})({x}{-b:+d})", f"({x}{a:+d})({x}{a:+d})", f"({x}{-a:+d})({x}{-b:+d})", f"({x}{a:+d})^2"]
        reference = rng.choice((factored[0], _sum(terms)))
    else:
        terms = [
            (_nonzero(rng, 9), f"{x}^{degree}" if degree > 1 else x)
            for degree in rng.sample(range(1, 6), rng.randint(1, 3))
        ]
        terms.append((_nonzero(rng, 30), ""))
        factored, wrong, reference = [], [], _sum(terms)
    terms = [term for term in terms if term[0]]
    same = [_sum(terms), _sum(terms, rng), _sum(terms, rng).replace(" ", ""), *factored]
    other = [_sum(_one_wrong(terms, rng), rng) for _ in range(4)] + [_sum(terms[:-1]), *wrong]
    if len(terms) > 1:
        other.append(_sum(terms[1:], rng))
    return Case(reference, same, other)


def equations(rng: random.Random) -> Case:
    """The same terms on whichever side; the right side of an equation is no answer where the left is no lone name."""
    match rng.randrange(4):
        case 0:
            a, b, c = (rng.choice((-1, 1)) * rng.randint(2, 9) for _ in range(3))
            left, right = [(1, "y")], [(a, "x"), (b, "")]
            alone: list[str] = []
            if rng.random() < 0.5:
                left, right = [(abs(a), "x"), (b, "y")], [(c, "")]
                alone = [str(c)]
        case 1:
            h, k = rng.randint(1, 9), rng.choice((-1, 1)) * rng.randint(1, 9)
            square = rng.randint(2, 12) ** 2
            if square == h * h + k * k:
                square += 1
            reference = f"(x{-h:+d})^2 + (y{-k:+d})^2 = {square}"
            expanded = [(1, "x^2"), (1, "y^2"), (-2 * h, "x"), (-2 * k, "y"), (h * h + k * k - square, "")]
            same = [
                f"(y{-k:+d})^2+(x{-h:+d})^2={square}",
                f"{_sum(expanded)} = 0",
                f"{square} = {reference.partition(' =')[0]}",
                reference,
            ]
            other = [
                f"(x{h:+d})^2 + (y{-k:+d})^2 = {square}",
                f"(x{-h:+d})^2 + (y{-k:+d})^2 = {square + 1}",
                str(square),
                f"(x{h:+d})^2 + (y{k:+d})^2 = {square}",
            ]
            return Case(reference, same, [*other, f"{_sum(_one_wrong(expanded, rng))} = 0"])
        case 2:
            n = rng.randint(2, 60)
            name, twin = rng.choice((("x+y", "x-y"), ("xy", "x+y"), ("r\\cos\\theta", "r\\sin\\theta"), ("a+b", "ab"), ("x^2", "x"), ("2x", "x"), ("\\sin x", "\\cos x"), ("|x|", "x")))  # fmt: skip
            right = str(n) if name != "a+b" or rng.random() < 0.5 else "c"
            if name == "\\sin x":
                right = f"\\frac{{1}}{{{n}}}"
            near = f"-{right}" if right in ("c",) else (f"\\frac{{1}}{{{n + 1}}}" if "frac" in right else str(n + 1))
            same = [f"{name} = {right}", f"{name}={right}", f"{right} = {name}", f"{name} - {right} = 0"]
            return Case(
                f"{name} = {right}",
                same,
                [right, right, f"{twin} = {right}", f"{name} = {near}", name, f"{near} = {name}"],
            )
        case _:
            a, b, c, d = rng.sample([k for k in range(-9, 10) if abs(k) > 1], 4)
            left, right, alone = [(a, "x"), (b, "y"), (c, "z")], [(d, "")], [str(d)]
            if left[0][0] < 0:
                left, right, alone = _negated(left), _negated(right), [str(-d)]
    every = left + _negated(right)
    cut = rng.randint(1, len(every) - 1)
    mixed = rng.sample(every, len(every))
    reference = f"{_sum(left)} = {_sum(right)}"
    same = [
        reference,
        reference.replace(" ", ""),
        f"{_sum(right, rng)} = {_sum(left, rng)}",
        f"{_sum(left, rng)} = {_sum(right, rng)}",
    ]
    same += [f"{_sum(mixed[:cut])} = {_sum(_negated(mixed[cut:]))}", f"{_sum(every, rng)} = 0"]
    misses = [_one_wrong(every, rng) for _ in range(3)]
    other = [f"{_sum(miss, rng)} = 0" for miss in misses] + [
        f"{_sum(miss[:cut])} = {_sum(_negated(miss[cut:]))}" for miss in misses
    ]
    return Case(reference, same, other + alone * 4)


# --- words

WORDS = (
    ("Monday", "Sunday"), ("Tuesday", "Thursday"), ("Evelyn", "Evan"), ("even", "odd"), ("true", "false"), ("Yes", "No"),
    ("ellipse", "circle"), ("parabola", "hyperbola"), ("east", "seat"), ("north", "thorn"), ("stop", "post"), ("red", "blue"),
    ("Brian", "Brain"), ("Ronald", "Roland"), ("increasing", "decreasing"), ("rhombus", "square"), ("Alice", "Carol"),
    ("convergent", "divergent"), ("Mia", "Aim"), ("Friday", "Saturday"), ("spring", "summer"), ("one", "neo"), ("Dean", "Dane"),
    ("right triangle", "equilateral triangle"), ("no solution", "one solution"), ("two lines", "two planes"),
)  # fmt: skip
MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November")


def texts(rng: random.Random) -> Case:
    """Words and dates, among them pairs of words that are equal as products of letters."""
    frames = ["\\text{%s}", "%s", "\\text{ %s}", "\\textbf{%s}", "\\mathrm{%s}", "\\text{%s.}"]
    if rng.random() < 0.4:
        day = rng.randint(1, 27)
        month, another = rng.sample(MONTHS, 2)
        word, wrong = f"{month} {day}", [f"{month} {day + 1}", f"{another} {day}", month, str(day)]
    else:
        word, near = rng.sample(rng.choice(WORDS), 2)
        wrong = [near, rng.choice([w for pair in WORDS for w in pair if w not in (word, near)])]
    if " " in word:
        frames.remove("\\mathrm{%s}")  # sets no spaces
    return Case(
        rng.choice(frames[:2]).replace("%s", word),
        [frame.replace("%s", word) for frame in frames],
        [frame.replace("%s", w) for frame in frames for w in wrong],
    )


def choices(rng: random.Random) -> Case:
    letter, wrong = rng.sample("ABCDEF", 2)
    frames = [
        "%s",
        "(%s)",
        "\\text{(%s)}",
        "\\text{%s}",
        "\\textbf{(%s)}",
        "\\mathrm{%s}",
        "%s.",
        "\\mathbf{%s}",
        "**%s**",
        "\\textbf{%s}",
        "\\mathrm{(%s)}",
    ]
    return Case(
        rng.choice(frames[:6]).replace("%s", letter),
        [frame.replace("%s", letter) for frame in frames],
        [frame.replace("%s", wrong) for frame in frames],
    )


def ratios_and_bases(rng: random.Random) -> Case:
    if rng.random() < 0.5:
        a, b = rng.sample(range(1, 60), 2)
        value = Fraction(a, b)
        a, b = value.numerator, value.denominator
        other = [f"{b}:{a}", f"{a + 1}:{b}", f"{a}:{b + 1}", f"{a}:{a + b}", f"{b} : {a}"]
        return Case(f"{a}:{b}", [f"{a}:{b}", f"{a} : {b}", f"{a}\\!:\\!{b}", f"\\text{{{a}:{b}}}"], other)
    base = rng.randint(2, 8)
    digits = "".join(str(rng.randrange(base)) for _ in range(rng.randint(2, 6)))
    digits = "1" + digits
    last = str((int(digits[-1]) + 1) % base)
    wrong = [
        f"{digits[:-1]}{last}_{{{base}}}",
        f"{digits[:-1]}{last}_{base}",
        f"{digits}_{base + 1}",
        f"{digits}0_{base}",
        digits[:-1] + f"_{{{base}}}",
    ]
    return Case(
        rng.choice((f"{digits}_{base}", f"{digits}_{{{base}}}")), [f"{digits}_{base}", f"{digits}_{{{base}}}"], wrong
    )


KINDS: dict[str, Callable[[random.Random], Case]] = {
    made.__name__.replace("_", " "): made
    for made in (
        integers, typography, decimals, fractions, mixed_numbers, roundings, repeating_decimals, scientific, tiny, large,
        percentages, roots, constants, complex_numbers, degrees_and_units, intervals, unions, sets, lists, tuples, matrices,
        polynomials, equations, texts, choices, ratios_and_bases,
    )
}  # fmt: skip

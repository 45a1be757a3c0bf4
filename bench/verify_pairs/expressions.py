"""Roots, constants, polynomials, equations."""

import random
from collections.abc import Sequence
from fractions import Fraction

from .numbers import SQUAREFREE
from .writing import Case, broken, forms, nonzero, tex

Term = tuple[int, str]  # 3, "x^2"
# an equation's left side, another, and what may stand on its right
LEFT_SIDES = (
    ("x+y", "x-y", "@n"),
    ("xy", "x+y", "@n"),
    ("r\\cos\\theta", "r\\sin\\theta", "@n"),
    ("a+b", "ab", "c"),
    ("a^2+b^2", "a^2-b^2", "c^2"),
    ("x^2", "x", "@n"),
    ("2x", "x", "@n"),
    ("\\sin x", "\\cos x", "\\frac{1}{@n}"),
    ("|x|", "x", "@n"),
)


def roots(rng: random.Random) -> Case:
    """A product with a root, or a solution of a quadratic equation."""
    a, b = rng.randint(2, 15), rng.choice(SQUAREFREE)
    a += 1 if a == b else 0
    if rng.random() < 0.5:
        ways = "@a\\sqrt{@b} | @a \\sqrt{@b} | @a \\cdot \\sqrt{@b} | \\sqrt{@b} \\cdot @a | \\sqrt{@c} | @a*sqrt(@b)"
        same = forms(ways, a=a, b=b, c=a * a * b)
        if b < 10:
            same += forms("@a\\sqrt@b | @a\\sqrt @b", a=a, b=b)
        wrong = (
            "@b\\sqrt{@a} | \\sqrt{@p} | @a\\sqrt{@n} | @m\\sqrt{@b} | @a + \\sqrt{@b} | -@a\\sqrt{@b} | @p | "
            "@a\\sqrt[3]{@b} | \\frac{\\sqrt{@b}}{@a} | @a*sqrt(@n)"
        )
        return Case(rng.choice(same[:2]), same, forms(wrong, a=a, b=b, p=a * b, m=a + 1, n=b + 1))
    (s, t), c, d = rng.choice(("+-", "-+")), nonzero(rng, 20), rng.choice((2, 3, 5, 7))
    ways = (
        "\\frac{@c@s\\sqrt{@b}}{@d} | \\dfrac{@c @s \\sqrt{@b}}{@d} | @q @s \\frac{\\sqrt{@b}}{@d} | "
        "\\frac{1}{@d}(@c @s \\sqrt{@b}) | (@c @s \\sqrt{@b})/@d | (@c @s sqrt(@b))/@d"
    )

    def written(b: int, c: int, d: int, s: str) -> list[str]:
        return forms(ways, b=b, c=c, d=d, s=s, q=tex(Fraction(c, d)))

    same = written(b, c, d, s)
    other = [*written(b, c, d, t), *written(b, -c, d, s), *written(b + 1, c, d, s), *written(b, c, d + 1, s)]
    return Case(same[0], same, [*other, *forms("@c @s \\frac{\\sqrt{@b}}{@d}", b=b, c=c, d=d, s=s)])


def constants(rng: random.Random) -> Case:
    """Pi, e, logarithms, arcs."""
    a, b = rng.sample((2, 3, 5, 6, 7, 10, 11, 12, 13), 2)
    values: dict[str, object]
    match rng.randrange(5):
        case 0:
            value = broken(rng, 12)
            ways = "\\frac{@p\\pi}{@q} | \\dfrac{@p \\pi}{@q} | \\frac{@p}{@q}\\pi | @p\\pi/@q | @pπ/@q"
            wrong = (
                "\\frac{@r\\pi}{@q} | \\frac{@q\\pi}{@p} | \\frac{@p}{@q} | \\frac{@p}{@q\\pi} | \\frac{@p\\pi^2}{@q} "
                "| -\\frac{@p\\pi}{@q} | @rπ/@q"
            )
            values = {"p": value.numerator, "q": value.denominator, "r": value.numerator + 1}
        case 1:
            ways = "@a\\ln @b | @a \\ln @b | @a\\ln(@b) | @a\\ln{@b} | \\ln @c | @a \\cdot \\ln\\left(@b\\right)"
            wrong = "@b\\ln @a | \\ln @p | @m\\ln @b | \\ln @b | @a + \\ln @b | -@a\\ln @b"
            values = {"a": a, "b": b, "c": b**a, "p": a * b, "m": a + 1}
        case 2:
            ways = "\\log_{@a} @b | \\log_{@a}{@b} | \\log_{@a}(@b) | \\frac{\\ln @b}{\\ln @a}"
            wrong = "\\log_{@b} @a | \\log_{@a} @c | \\ln @b | \\frac{\\ln @a}{\\ln @b} | \\log_{@b}(@a)"
            values = {"a": a, "b": b, "c": b + 1}
        case 3:
            ways = "@be^{@a} | @b e^{@a} | @b \\cdot e^{@a} | e^{@a} \\cdot @b"
            wrong = "@be^{-@a} | @ae^{@b} | @be^{@c} | e^{@p} | @b + e^{@a}"
            values = {"a": a, "b": b, "c": a + 1, "p": a * b}
        case _:
            p, q = sorted((a, b))
            name, twin = rng.sample(("cos", "sin", "tan"), 2)
            ways = (
                "\\arc@f\\frac{@p}{@q} | arc@f(@p/@q) | \\arc@f(@p/@q) | \\arc@f\\left(\\frac{@p}{@q}\\right) | "
                "\\@f^{-1}\\left(\\frac{@p}{@q}\\right)"
            )
            wrong = "arc@f(-@p/@q) | \\@f(@p/@q) | \\arc@f\\left(\\frac{@p}{@r}\\right) | \\arc@g(@p/@q) | arc@g(@p/@q)"
            values = {"f": name, "g": twin, "p": p, "q": q, "r": q + 1}
    same = forms(ways, **values)
    return Case(same[0], same, forms(wrong, **values))


def _sum(terms: Sequence[Term], rng: random.Random | None = None) -> str:
    """3x^2 - x + 2, shuffled if a generator is given."""
    left = [term for term in terms if term[0]]
    if rng is not None:
        rng.shuffle(left)
    text = ""
    for factor, name in left:
        size = str(abs(factor)) if abs(factor) != 1 or not name else ""
        text += f" {'-' if factor < 0 else '+'} {size}{name}"
    return "-" + text[3:] if text.startswith(" -") else text[3:] or "0"


def _negated(terms: Sequence[Term]) -> list[Term]:
    return [(-factor, name) for factor, name in terms]


def _one_changed(terms: Sequence[Term], rng: random.Random) -> list[Term]:
    """One factor of another sign, or greater in size by one."""
    i = rng.randrange(len(terms))
    factor, name = terms[i]
    changed = rng.choice((-factor, factor + (1 if factor > 0 else -1)))
    return [*terms[:i], (changed, name), *terms[i + 1 :]]


def polynomials(rng: random.Random) -> Case:
    """In any order of terms, or as a product."""
    x = rng.choice("xxntk")
    same, other = [], []
    if rng.random() < 0.5:
        a, b = nonzero(rng, 9), nonzero(rng, 9)
        b += 10 if a in (b, -b) and b > 0 else -10 if a in (b, -b) else 0
        terms = [(1, f"{x}^2"), (a + b, x), (a * b, "")]
        values = {"x": x, "a": f"{a:+d}", "b": f"{b:+d}", "c": f"{-a:+d}", "d": f"{-b:+d}"}
        same = forms("(@x@a)(@x@b) | (@x@b)(@x@a) | (@x @a)(@x @b)", **values)
        other = forms("(@x@a)(@x@d) | (@x@a)(@x@a) | (@x@c)(@x@d) | (@x@b)^2", **values)
    else:
        powers = rng.sample(range(1, 6), rng.randint(1, 3))
        terms = [(nonzero(rng, 9), f"{x}^{power}" if power > 1 else x) for power in sorted(powers, reverse=True)]
        terms.append((nonzero(rng, 30), ""))
    reference = rng.choice((_sum(terms), *same[:1]))
    same += [_sum(terms), _sum(terms, rng), _sum(terms, rng), _sum(terms, rng).replace(" ", ""), _sum(terms[::-1])]
    other += [_sum(_one_changed(terms, rng), rng) for _ in range(4)] + [_sum(terms[:-1]), _sum(terms[1:], rng)]
    return Case(reference, same, other)


def equations(rng: random.Random) -> Case:
    """The same terms on whichever side; the right side alone is no answer where the left is no lone name."""
    match rng.randrange(4):
        case 0:
            left, right, alone = [(1, "y")], [(nonzero(rng, 9, 2), "x"), (nonzero(rng, 9), "")], []
        case 1:
            return _circle(rng)
        case 2:
            n = rng.randint(2, 60)
            name, twin, right_side = rng.choice(LEFT_SIDES)
            (here,), (near,) = forms(right_side, n=n), forms(right_side, n=n + 1)
            near = near if near != here else f"2{here}"
            same = forms("@f = @r | @f=@r | @r = @f | @f - @r = 0", f=name, r=here)
            return Case(same[0], same, forms("@r | @r | @t = @r | @f = @m | @m = @f", f=name, r=here, t=twin, m=near))
        case _:
            names = rng.choice((("x", "y"), ("x", "y", "z"), ("a", "b")))
            factors = [nonzero(rng, 9, 2) for _ in names]
            left, right = (
                [(abs(factors[0]), names[0]), *zip(factors[1:], names[1:], strict=True)],
                [(nonzero(rng, 30), "")],
            )
            alone = [str(right[0][0])] * 4
    terms = left + _negated(right)
    cut, mixed = rng.randint(1, len(terms) - 1), rng.sample(terms, len(terms))

    def split(terms: Sequence[Term]) -> str:
        return f"{_sum(terms[:cut])} = {_sum(_negated(terms[cut:]))}"

    reference = f"{_sum(left)} = {_sum(right)}"
    same = [reference, reference.replace(" ", ""), f"{_sum(right, rng)} = {_sum(left, rng)}"]
    misses = [_one_changed(mixed, rng) for _ in range(3)]
    other = [f"{_sum(miss, rng)} = 0" for miss in misses] + [split(miss) for miss in misses] + alone
    return Case(reference, [*same, split(mixed), split(mixed), f"{_sum(mixed)} = 0"], other)


def _circle(rng: random.Random) -> Case:
    h, k, square = nonzero(rng, 9), nonzero(rng, 9), rng.randint(2, 12) ** 2
    square += 1 if square == h * h + k * k else 0
    terms = [(1, "x^2"), (1, "y^2"), (-2 * h, "x"), (-2 * k, "y"), (h * h + k * k - square, "")]
    values = {"h": f"{-h:+d}", "k": f"{-k:+d}", "u": f"{h:+d}", "v": f"{k:+d}", "r": square, "s": square + 1}
    circle = "(x@h)^2 + (y@k)^2 = @r"
    same = forms(f"{circle} | (y@k)^2+(x@h)^2=@r | @r = (x@h)^2 + (y@k)^2", **values)
    wrong = "(x@u)^2 + (y@k)^2 = @r | (x@h)^2 + (y@k)^2 = @s | (x@u)^2 + (y@v)^2 = @r | @r"
    other = [*forms(wrong, **values), f"{_sum(_one_changed(terms, rng))} = 0"]
    return Case(same[0], [*same, f"{_sum(terms)} = 0"], other)

"""Numbers, and numbers with something beside them: a percent sign, a unit, an i."""

import math
import random
from fractions import Fraction
from itertools import chain

from .writing import Case, broken, decimal_places, exact_decimals, fixed, forms, framed, nonzero, plain, tex

SQUAREFREE = (2, 3, 5, 6, 7, 10, 11, 13, 14, 15, 17, 19, 21, 22, 23, 26, 29, 30)
TYPEFACES = (
    "\\boldsymbol{@} | \\mathbf{@} | \\textbf{@} | \\text{@} | \\mathrm{@} | **@** | @。 | @. | \\fbox{@} | {@} | "
    "\\displaystyle @ | \\bf{@} | \\,@ | \\bm{@} | (@)"
)
MEASURES = (
    ("cm", "mm", "km"),
    ("kg", "mg", "tons"),
    ("hours", "minutes", "days"),
    ("meters", "feet", "miles"),
)


def _grouped(n: int) -> list[str]:
    if abs(n) < 1000:
        return [str(n)]
    return [str(n), *framed("@", [f"{n:,}".replace(",", comma) for comma in (",", "{,}", "\\,", ",\\!")])]


def integers(rng: random.Random) -> Case:
    """Grouped or not, named or not."""
    n = nonzero(rng, 10 ** rng.randint(1, 7))
    near = {n + 1, n - 1, -n, 10 * n, 2 * n, int(str(abs(n))[::-1]), n + 10 ** (len(str(abs(n))) - 1)} - {n}
    frame = rng.choice(("@", "@", "@", "x = @", "@ = x", "n=@"))
    other = [text for m in sorted(near) for text in _grouped(m)] + [f"{n}.5", f"0.{abs(n)}"]
    return Case(rng.choice(_grouped(n)), framed(frame, [*_grouped(n), f"{n}.0"]), framed(frame, other))


def typography(rng: random.Random) -> Case:
    """Numbers as chats, word processors and Chinese print them."""
    if rng.random() < 0.2:
        a, b = rng.randint(2, 99), rng.choice(SQUAREFREE)
        other = forms("@a√@c | @d√@b | √@b | -@a√@b", a=a, b=b, c=b + 1, d=a + 1)
        return Case(f"{a}\\sqrt{{{b}}}", forms("@a√@b | @a √@b | @a√(@b)", a=a, b=b), other)
    n = nonzero(rng, 99_999)
    written = [str(n)]
    if abs(n) >= 1000:
        written.append(f"{n:,}".replace(",", "，"))
    if n < 0:
        written += [str(n).replace("-", dash) for dash in "−–"]
    near = [n + 1, n - 1, -n, n + 1000 if n > 0 else n - 1000]
    return Case(str(n), framed(TYPEFACES, written), framed(TYPEFACES, [str(m) for m in near]))


def decimals(rng: random.Random) -> Case:
    """With an end."""
    places = rng.randint(1, 5)
    k = nonzero(rng, 10 ** rng.randint(places, 6))
    k += 3 if k % 10 == 0 else 0
    value, step = Fraction(k, 10**places), Fraction(1, 10**places)
    text = fixed(value, places)
    same = [text, text + "0", text + "00", tex(value), plain(value), f"\\frac{{{k}}}{{{10**places}}}"]
    if text.startswith("0"):
        same.append(text[1:])
    near = [value + step, value - step, -value, 10 * value, value / 10, value + 1]
    return Case(rng.choice(same[:2]), same, [fixed(v, places + 1) for v in near] + [tex(v) for v in near])


def roundings(rng: random.Random) -> Case:
    """Six places or more, rounded, are the number; three or fewer, or a digit that is wrong, are not."""
    if rng.random() < 0.4:
        root, scale = rng.choice([k for k in range(2, 60) if math.isqrt(k) ** 2 != k]), 10**40
        exact, reference = Fraction(math.isqrt(root * scale**2), scale), f"\\sqrt{{{root}}}"
    else:
        exact = Fraction(1)
        while decimal_places(exact) is not None:
            exact = Fraction(rng.randint(40, 400), rng.randint(3, 40))
        reference = rng.choice((tex(exact), plain(exact)))
    off = [exact + Fraction(nonzero(rng, 4), 10**at) for at in (2, 3, 4)] + [-exact]
    other = [fixed(exact, places) for places in (1, 2, 3)] + [fixed(v, places) for v in off for places in (6, 8, 10)]
    return Case(reference, [fixed(exact, places) for places in (6, 6, 7, 8, 8, 9, 10, 11, 12)], other)


def repeating_decimals(rng: random.Random) -> Case:
    """With a bar over what is repeated."""
    length, lead = rng.randint(1, 3), rng.choice(("", "", str(rng.randint(0, 9)), str(rng.randint(10, 99))))
    whole, nines = rng.randint(0, 12), 10**length - 1
    repeated = rng.randint(1, nines - 1)

    def value(whole: int, lead: str, repeated: int) -> Fraction:
        shift: int = 10 ** len(lead)
        return whole + (int(lead or "0") + Fraction(repeated, nines)) / shift

    def barred(whole: int, lead: str, repeated: int) -> str:
        return f"{whole}.{lead}\\overline{{{repeated:0{length}}}}"

    exact, bar = value(whole, lead, repeated), barred(whole, lead, repeated)
    near = value(whole, lead, (repeated + 1) % nines)
    misses = [barred(whole, lead, (repeated + 1) % nines), barred(whole + 1, lead, repeated)]
    misses.append(f"-{bar}")
    if length + len(lead) < 4:
        misses.append(f"{whole}.{lead}{repeated:0{length}}")
    if value(whole, lead + "0", repeated) != exact:
        misses.append(barred(whole, lead + "0", repeated))
    if rng.random() < 0.5:
        return Case(rng.choice((tex(exact), plain(exact))), [bar, bar.replace("\\overline", "\\bar")], misses)
    return Case(bar, [tex(exact), plain(exact)], [*misses, tex(exact + 1), tex(near), plain(near)])


def scientific(rng: random.Random) -> Case:
    """The notations of physics and of programs."""
    digits, exponent = rng.randint(11, 999), nonzero(rng, 30, least=2)
    digits += 1 if digits % 10 == 0 else 0
    scale = 10 ** (len(str(digits)) - 1)

    def written(mantissa: str, e: int) -> list[str]:
        exact = Fraction(mantissa) * Fraction(10) ** e
        found = forms(
            "@m \\times 10^{@e} | @m\\times10^{@e} | @m \\cdot 10^{@e} | @m × 10^{@e} | @me@e | @mE@e | @me@f",
            m=mantissa,
            e=e,
            f=f"{e:+03d}",
        )
        if -9 <= e < 0:
            found.append(fixed(exact, len(mantissa.partition(".")[2]) - e))
        elif 0 < e <= 9 and exact.denominator == 1:
            found += [str(exact), f"{int(exact):,}"]
        return found

    mantissa, wrong = f"{digits / scale:g}", f"{(digits + 1) / scale:g}"
    same = written(mantissa, exponent)
    other = [*written(mantissa, exponent + 1), *written(mantissa, exponent - 1), *written(wrong, exponent)]
    return Case(rng.choice(same), same, [*other, *written(mantissa, -exponent), f"-{same[0]}"])


def tiny(rng: random.Random) -> Case:
    """Differences far below any fixed tolerance."""
    match rng.randrange(4):
        case 0:
            base, n = rng.choice((2, 3, 5, 10)), rng.randint(20, 400)
            ways = "@b^{-@n} | \\frac{1}{@b^{@n}} | 1/@b^{@n} | \\left(\\frac{1}{@b}\\right)^{@n}"
            same, *wrong = (forms(ways, b=base, n=m) for m in (n, n + 1, n - 1))
        case 1:
            n = rng.randint(18, 2100)
            ways = "\\frac{1}{@n!} | 1/@n! | \\dfrac{1}{@n!} | \\frac1{@n!}"
            same, *wrong = (forms(ways, n=m) for m in (n, n + 1, n + 2, n - 1))
        case 2:
            k, places = rng.choice([k for k in range(1, 99) if k % 10]), rng.randint(7, 16)
            ways = "@d | @k \\times 10^{-@p} | \\frac{@k}{10^{@p}} | @ke-@p"
            same, *wrong = (
                forms(ways, k=m, p=places, d=fixed(Fraction(m, 10**places), places)) for m in (k, k + 1, 2 * k)
            )
        case _:
            n, k = rng.randint(10**8, 10**14), rng.randint(1, 9)
            value = Fraction(k, n)
            same = [tex(value), plain(value), f"\\frac{{{2 * k}}}{{{2 * n}}}"]
            wrong = [[tex(v), plain(v)] for v in (Fraction(k, n + 1), Fraction(k + 1, n), Fraction(k, n - 1))]
    return Case(rng.choice(same), same, [*chain(*wrong), "0", "0.0", f"-{same[0]}"])


def large(rng: random.Random) -> Case:
    """Factorials, powers, binomial coefficients, and the integers that they are."""
    match rng.randrange(3):
        case 0:
            n = rng.randint(5, 25)
            value, same, wrong = math.factorial(n), [f"{n}!"], forms("@m! | @l! | @n!!", n=n, m=n + 1, l=n - 1)
        case 1:
            base, n = rng.randint(2, 9), rng.randint(5, 30)
            value, same = base**n, forms("@b^{@n} | @b ^ {@n}", b=base, n=n)
            wrong = forms("@b^{@m} | @b^{@l} | @c^{@n}", b=base, c=base + 1, n=n, m=n + 1, l=n - 1)
        case _:
            n, k = rng.randint(9, 40), rng.randint(2, 4)
            value, same = math.comb(n, k), forms("\\binom{@n}{@k} | \\dbinom{@n}{@k}", n=n, k=k)
            wrong = forms("\\binom{@m}{@k} | \\binom{@n}{@l}", n=n, k=k, m=n + 1, l=k - 1)
    near = [str(value + 1), str(value - 1), f"{value + 10:,}", f"-{value}"]
    return Case(same[0], [*same, str(value), f"{value:,}", f"{value:,}".replace(",", "{,}")], wrong + near)


def fractions(rng: random.Random) -> Case:
    """Reduced or not, in TeX or with a slash."""
    value = broken(rng, rng.choice((9, 20, 200))) * rng.choice((1, 1, -1))
    p, q, k = value.numerator, value.denominator, rng.randint(2, 9)
    same = [tex(value), plain(value), tex(value, "\\dfrac"), tex(value, "\\tfrac"), *exact_decimals(value)]
    same += forms("\\frac{@p}{@q} | \\frac{@n}{@d} | @n/@d", p=p, q=q, n=k * p, d=k * q)
    same += forms("\\frac{@p}{@q}", p=-p, q=-q)
    if 0 < p < 10 > q:
        same += forms("\\frac@p@q | \\dfrac@p@q | \\frac @p @q", p=p, q=q)
    near = {1 / value, -value, Fraction(p + 1, q), Fraction(p, q + 1), Fraction(p - 1, q), 1 - value, value + 1}
    misses = sorted(near - {value})
    return Case(rng.choice(same[:2]), same, [tex(v) for v in misses] + [plain(v) for v in misses])


def mixed_numbers(rng: random.Random) -> Case:
    """2 2/3 is 8/3, and neither 4/3 nor 2/3."""
    whole, part = rng.randint(1, 30), broken(rng, 12) % 1
    value, p, q = whole + part, part.numerator, part.denominator
    ways = "@w\\frac{@p}{@q} | @w \\frac{@p}{@q} | @w\\dfrac{@p}{@q} | @w\\,\\tfrac{@p}{@q} | @w @p/@q"
    mixed, *wrong = (
        forms(ways, w=w, p=p, q=d) for w, d in ((whole, q), (whole + 1, q), (whole, q + 1), (whole, 2 * q))
    )
    simple = [tex(value), plain(value), *exact_decimals(value)]
    misses = [whole * part, part, value + 1, value + part]
    other = [*chain(*wrong), *map(tex, misses), *map(plain, misses)]
    if rng.random() < 0.6:
        return Case(rng.choice(simple), mixed, other)
    return Case(rng.choice(mixed[:2]), mixed + simple, other)


def percentages(rng: random.Random) -> Case:
    """With the sign for a number with it, for its hundredth, and for a number without it that is above 1."""
    places = rng.choice((0, 1, 1, 2))
    value = Fraction(rng.randint(1, 10 ** (places + 2) - 2), 10**places)
    signs = "@\\% | @ \\% | @% | @\\,\\% | @\\text{\\%}"
    same = framed(signs, [fixed(value, places)])
    near = [value + Fraction(1, 10**places), value + 1, 10 * value, -value]
    wrong = framed(signs, [fixed(v, places) for v in near])
    if value > 1 and rng.random() < 0.4:
        return Case(fixed(value, places), same, wrong)
    share = [fixed(value / 100, places + 2), tex(value / 100)]
    return Case(rng.choice(same[:2]), same + share, [*wrong, fixed(value / 10, places + 1)])


def units(rng: random.Random) -> Case:
    """Degrees, dollars, lengths, weights and times; another unit is another answer."""
    n = rng.choice((rng.randint(2, 99), rng.randint(2, 999)))
    text, near = rng.choice(((f"{n}", f"{n + 1}"), (f"{n}", f"{n + 1}"), (f"{n}.5", f"{n}.6")))
    match rng.randrange(3):
        case 0:
            frames = "@^\\circ | @^{\\circ} | @° | @\\degree | @ \\text{ degrees} | @ degrees"
            same, wrong = framed(frames, [text]), framed(frames, [near, f"-{text}", f"1{text}"])
            return Case(rng.choice(same[:2]), same, wrong)
        case 1:
            frames = "\\$@ | \\$ @ | @ \\text{ dollars} | @ dollars | \\text{\\$}@"
            cents = fixed(Fraction(text), 2)
            misses = [near, fixed(Fraction(near), 2), f"1{text}", fixed(Fraction(text) * 10, 2)]
            return Case(f"\\${cents}", framed(frames, [text, cents]), framed(frames, misses))
        case _:
            unit, another = rng.sample(rng.choice(MEASURES), 2)
            ways = (
                "@n \\text{ @u} | @n\\text{ @u} | @n \\mathrm{~@u} | @n \\,\\text{@u} | @n @u | @n\\ \\text{@u} | "
                "@n\\;\\mathrm{@u}"
            )
            same = forms(ways, n=text, u=unit)
            other = forms(ways, n=text, u=another) + forms(ways, n=near, u=unit) + forms(ways, n=f"1{text}", u=unit)
            return Case(rng.choice(same[:3]), same, other)


def complex_numbers(rng: random.Random) -> Case:
    """Sums of a real and an imaginary part, in either order."""
    a, b = rng.sample(range(1, 40), 2)
    a, b = rng.choice((-1, 1)) * a, rng.choice((-1, 1)) * (b + 1 if b + 1 != a else b + 2)

    def written(a: int, b: int) -> list[str]:
        sign, size = "+" if b > 0 else "-", abs(b)
        ways = "@a@s@bi | @a @s @bi | @a.0@s@b.0i | @ci@d | @a @s @b \\cdot i"
        return forms(ways, a=a, s=sign, b=size, c=b, d=f"{a:+d}")

    same = written(a, b)
    wrong = [(a, -b), (b, a), (-a, b), (a + 1 if a != -1 else -2, b), (a, b + 1 if b > 0 else b - 1)]
    return Case(rng.choice(same[:3]), same, [*chain.from_iterable(written(*w) for w in wrong), str(a), f"{b}i"])

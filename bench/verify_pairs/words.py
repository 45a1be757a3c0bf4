"""Words, dates, letters of choice, ratios, numerals of other bases."""

import random
from fractions import Fraction

from .writing import Case, forms, framed

# some are the same product of letters
WORDS = (
    *(("Monday", "Sunday"), ("Tuesday", "Thursday"), ("Evelyn", "Evan"), ("even", "odd"), ("true", "false")),
    *(("ellipse", "circle"), ("parabola", "hyperbola"), ("east", "seat"), ("north", "thorn"), ("stop", "post")),
    *(("Brian", "Brain"), ("Ronald", "Roland"), ("Alice", "Carol"), ("Dean", "Dane"), ("rhombus", "square")),
    *(("increasing", "decreasing"), ("convergent", "divergent"), ("Friday", "Saturday"), ("Yes", "No")),
    *(("right triangle", "equilateral triangle"), ("no solution", "one solution"), ("two lines", "two planes")),
)
MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November")


def texts(rng: random.Random) -> Case:
    """Words and dates, with or without a command that says so."""
    if rng.random() < 0.4:
        day, (month, another) = rng.randint(1, 27), rng.sample(MONTHS, 2)
        word, wrong = f"{month} {day}", [f"{month} {day + 1}", f"{another} {day}", month, str(day)]
    else:
        word, near = rng.sample(rng.choice(WORDS), 2)
        wrong = [near, near, rng.choice([w for pair in WORDS for w in pair if w not in (word, near)])]
    frames = "\\text{@} | @ | \\text{ @} | \\textbf{@} | \\text{@.}"
    if " " not in word:  # of which \mathrm sets none
        frames += " | \\mathrm{@}"
    return Case(rng.choice(framed(frames, [word])[:2]), framed(frames, [word]), framed(frames, wrong))


def choices(rng: random.Random) -> Case:
    """One letter, in brackets or not."""
    letter, wrong = rng.sample("ABCDEF", 2)
    frames = (
        "@ | (@) | \\text{(@)} | \\text{@} | \\textbf{(@)} | \\mathrm{@} | @. | \\mathbf{@} | **@** | \\textbf{@} | "
        "\\mathrm{(@)}"
    )
    return Case(rng.choice(framed(frames, [letter])[:6]), framed(frames, [letter]), framed(frames, [wrong]))


def ratios_and_bases(rng: random.Random) -> Case:
    """3:4, and 1010 in base 2."""
    if rng.random() < 0.5:
        a, b = Fraction(*rng.sample(range(1, 60), 2)).as_integer_ratio()
        wrong = forms("@b:@a | @c:@b | @a:@d | @a:@e | @b : @a", a=a, b=b, c=a + 1, d=b + 1, e=a + b)
        return Case(f"{a}:{b}", forms("@a : @b | @a\\!:\\!@b | \\text{@a:@b}", a=a, b=b), wrong)
    base = rng.randint(2, 8)
    head = "1" + "".join(str(rng.randrange(base)) for _ in range(rng.randint(2, 8)))
    digit = rng.randrange(base)
    ways, values = "@h@d_@b | @h@d_{@b}", {"h": head, "d": digit, "b": base, "n": (digit + 1) % base, "c": base + 1}
    wrong = forms("@h@n_@b | @h@n_{@b} | @h@d_@c | @h@d0_@b | @h_{@b}", **values)
    return Case(rng.choice(forms(ways, **values)), forms(ways, **values), wrong)

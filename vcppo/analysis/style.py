"""Style of figures: one palette, one order, one label for each arm; published curves in another style.

Arms differ by colour, line and marker at once, so that a figure reads the same in grey. Fonts come with
matplotlib, so that every machine draws alike.
"""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from vcppo.analysis.data import run_key, sort_arms

COLUMN, PAGE = 3.35, 6.9  # inches, one and both columns of a two-column page
MAX_PANELS = 20  # more arms than this in one figure are unreadable

RC: Mapping[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 7.5,
    "axes.titlesize": 7.5,
    "axes.labelsize": 7.5,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "legend.fontsize": 6.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.titlelocation": "left",
    "axes.titlepad": 4.0,
    "axes.labelpad": 2.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "lines.linewidth": 1.4,
    "lines.markersize": 3.5,
    "legend.frameon": False,
    "legend.handlelength": 2.6,
    "legend.borderaxespad": 0.3,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.h_pad": 0.03,
    "figure.constrained_layout.w_pad": 0.03,
    "pdf.fonttype": 42,
    "svg.hashsalt": "vcppo",
}


@dataclass(frozen=True)
class ArmStyle:
    """One arm's name in print and its looks.

    Where arms share axes all three differ; where each has a panel with its name on it, lines are solid.
    """

    label: str
    colour: str
    line: Any
    marker: str

    def curve(self) -> dict[str, Any]:
        """Return the keywords of a measured curve, markers left out."""
        return {"color": self.colour, "linestyle": self.line, "label": self.label}


DASH, DOT, LONG = (0, (4, 1.5)), (0, (1, 1)), (0, (8, 2))
DASH_DOT, DASH_DOT_DOT = (0, (5, 1, 1, 1)), (0, (3, 1, 1, 1, 1, 1))
KNOWN: Mapping[str, ArmStyle] = {  # colours differ within a family and a study, looks as a whole everywhere
    "ppo": ArmStyle("PPO", "#c44601", "-", "o"),
    "ppo-mc": ArmStyle("PPO, λ = 1", "#d98b2b", DASH, "s"),
    "ppo-bounded": ArmStyle("PPO, bounded values", "#8c6d31", DASH_DOT, "P"),
    "ppo-recentred": ArmStyle("PPO, fitted reward model", "#b07aa1", DASH_DOT_DOT, "X"),
    "ppo-constant": ArmStyle("PPO, starts at the mean score", "#5a7d2a", LONG, "<"),
    "ppo-pessimist": ArmStyle("PPO, starts at -3", "#7f1d1d", DOT, ">"),
    "ppo-fresh-critic": ArmStyle("PPO, fresh critic", "#a33b5a", (0, (6, 2)), "P"),
    "ppo-max": ArmStyle("PPO-max", "#1f6cb0", DASH, "s"),
    "ppo-xu": ArmStyle("PPO (Xu et al.)", "#2e7d4f", DASH_DOT, "^"),
    "espo": ArmStyle("ESPO", "#8a6bb1", DASH_DOT_DOT, "D"),
    "apa": ArmStyle("APA", "#b8860b", LONG, "v"),
    "awr": ArmStyle("AWR", "#3fa7a6", DOT, "X"),
    "vcppo-no-pretrain": ArmStyle("VC-PPO, no pretraining", "#8a6bb1", DOT, "^"),
    "vcppo-no-decouple-0.95": ArmStyle("VC-PPO, one λ = 0.95", "#4aa3a2", DASH_DOT, "v"),
    "vcppo-no-decouple-1.0": ArmStyle("VC-PPO, one λ = 1", "#2e7d4f", DASH_DOT_DOT, "D"),
    "vcppo": ArmStyle("VC-PPO", "#0b4f8a", "-", "P"),
    "vcppo-first-phase": ArmStyle("VC-PPO, 60 pretraining updates", "#d1605e", DOT, "^"),
    "vcppo-half-way": ArmStyle("VC-PPO, half of the second phase", "#d98b2b", DASH_DOT, "<"),
    "vcppo-converge": ArmStyle("VC-PPO, pretrained until settled", "#3fa7a6", DASH, "X"),
    "vcppo-0": ArmStyle("VC-PPO, λ actor = 0", "#7a7a1e", DASH_DOT_DOT, "p"),
    "vcppo-0.8": ArmStyle("VC-PPO, λ actor = 0.8", "#a33b5a", DASH, ">"),
    "vcppo-0.99": ArmStyle("VC-PPO, λ actor = 0.99", "#5b9bd5", LONG, "s"),
    "vcppo-mc": ArmStyle("VC-PPO, λ actor = 1", "#2e7d4f", LONG, "D"),
    "vcppo-fast": ArmStyle("VC-PPO, policy at 8e−4", "#c44601", DASH, "s"),
    "exact": ArmStyle("exact critic", "#111111", "-", "*"),
    "exact-mc": ArmStyle("exact critic, λ actor = 1", "0.45", DASH, "h"),
    "exact-blind": ArmStyle("exact, mean by position", "#b8860b", DASH_DOT, "d"),
    "exact-eighth": ArmStyle("exact critic, an eighth of it", "#7a7a1e", DASH, "o"),
    "dvpo": ArmStyle("DVPO", "#8a6bb1", DASH, "X"),
    "vapo-no-pretrain": ArmStyle("VAPO, no pretraining", "#8a6bb1", DOT, "p"),
    "vapo-no-decouple": ArmStyle("VAPO, one λ", "#4aa3a2", DASH_DOT, "s"),
    "vapo-no-length-adaptive": ArmStyle("VAPO, λ blind to length", "#d98b2b", LONG, "^"),
    "vapo-no-clip-higher": ArmStyle("VAPO, no clip-higher", "#a33b5a", DASH_DOT_DOT, "X"),
    "vapo-no-token-loss": ArmStyle("VAPO, no token-level loss", "#1f6cb0", (0, (6, 2)), "<"),
    "vapo-no-positive-nll": ArmStyle("VAPO, no positive-example loss", "#7a7a1e", (0, (2, 1)), ">"),
    "vapo-no-group": ArmStyle("VAPO, no group sampling", "#2e7d4f", DASH, "v"),
    "vapo": ArmStyle("VAPO", "#b8860b", DASH_DOT, "D"),
    "vineppo": ArmStyle("VinePPO", "#00582a", DASH_DOT_DOT, "s"),
    "vine-k1": ArmStyle("VinePPO, K = 1", "#74c08a", DOT, "^"),
    "vine-k3": ArmStyle("VinePPO, K = 3", "#3a9a5b", DASH_DOT, "v"),
    "vine-k9": ArmStyle("VinePPO, K = 9", "#00582a", LONG, "s"),
    "dpo": ArmStyle("DPO", "#c44601", DASH, "<"),
    "dpo-iter": ArmStyle("Iterative DPO", "#1f6cb0", "-", ">"),
    "rto": ArmStyle("RTO", "#2e7d4f", LONG, "p"),
    "rto-calibrated": ArmStyle("RTO, calibrated critic", "#a33b5a", (0, (6, 2)), "X"),
    "semi-rto": ArmStyle("Semi-RTO", "#8a6bb1", DASH_DOT, "d"),
    "ddpo": ArmStyle("DDPO", "#b8860b", DASH_DOT_DOT, "h"),
    "rs-ppo": ArmStyle("RS-PPO", "#3fa7a6", DOT, "o"),
    "grpo": ArmStyle("GRPO", "#7a7a1e", (0, (6, 2)), "X"),
    "dr-grpo": ArmStyle("Dr. GRPO", "#1f6cb0", DASH_DOT_DOT, "h"),
    "dapo": ArmStyle("DAPO", "#c44601", "-", "v"),
    "gspo": ArmStyle("GSPO", "#8a6bb1", DOT, "d"),
    "cispo": ArmStyle("CISPO", "#2e7d4f", DASH_DOT, "<"),
    "cppo": ArmStyle("CPPO", "#3fa7a6", DASH, "p"),
    "cppo-0.5": ArmStyle("CPPO, P = 0.5", "#a78cc9", DASH, "s"),
    "cppo-0.5-refill": ArmStyle("CPPO, P = 0.5, refill", "#d9a05b", DASH, "<"),
    "cppo-0.75": ArmStyle("CPPO, P = 0.75", "#7b59a8", DASH_DOT, "D"),
    "cppo-0.75-refill": ArmStyle("CPPO, P = 0.75, refill", "#b8732b", DASH_DOT, ">"),
    "cppo-0.875": ArmStyle("CPPO, P = 0.875", "#4a2a78", "-", "v"),
    "cppo-0.875-refill": ArmStyle("CPPO, P = 0.875, refill", "#7d4510", "-", "h"),
    "rloo": ArmStyle("RLOO", "#c44601", "-", "s"),
    "reinforce++": ArmStyle("REINFORCE++", "#1f6cb0", DASH, "^"),
    "reinforce++-baseline": ArmStyle("REINFORCE++ baseline", "#2e7d4f", DOT, "D"),
}
OTHER_COLOURS = ("#0b4f8a", "#c44601", "#2e7d4f", "#8a6bb1", "#b8860b", "#4aa3a2", "#a33b5a")
OTHER_LINES = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)))
OTHER_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")

PUBLISHED: Mapping[str, Any] = {
    "color": "0.45",
    "linestyle": (0, (3, 2)),
    "linewidth": 0.9,
    "marker": "o",
    "markersize": 2.8,
    "markerfacecolor": "white",
    "markeredgewidth": 0.7,
    "clip_on": False,
    "zorder": 3,
}
PUBLISHED_TITLE = "published (arXiv 2503.01491)"
REFERENCE_LINE: Mapping[str, Any] = {"color": "0.5", "linestyle": (0, (1, 1.2)), "linewidth": 0.8, "zorder": 0}
SYMBOLS: Mapping[str, str] = {
    "gae.lambda_actor": "λ actor",
    "gae.lambda_critic": "λ critic",
    "pretrain.steps": "pretraining steps",
    "policy.learning_rate": "actor lr",
    "critic.learning_rate": "critic lr",
}


def arm_styles(arms: Sequence[str]) -> dict[str, ArmStyle]:
    """Return a style for each arm, in drawing order; the paper's arms look the same in every figure."""
    others = [arm for arm in sort_arms(arms) if arm not in KNOWN]
    made = {
        arm: ArmStyle(
            arm_label(arm),
            OTHER_COLOURS[i % len(OTHER_COLOURS)],
            OTHER_LINES[i % len(OTHER_LINES)],
            OTHER_MARKERS[i % len(OTHER_MARKERS)],
        )
        for i, arm in enumerate(others)
    }
    return {arm: KNOWN[arm] if arm in KNOWN else made[arm] for arm in sort_arms(arms)}


def arm_label(arm: str) -> str:
    """Return an arm's name in print.

    >>> arm_label("gae.lambda_actor=0.9,gae.lambda_critic=1.0")
    'λ actor 0.9, λ critic 1.0'
    >>> arm_label("pretrain.steps=50"), arm_label("vcppo"), arm_label("mine"), arm_label("lambda-0.8")
    ('pretraining steps 50', 'VC-PPO', 'mine', 'λ actor 0.8')
    """
    if arm in KNOWN:
        return KNOWN[arm].label
    arm = re.sub("^lambda-", "gae.lambda_actor=", arm)
    for name, symbol in SYMBOLS.items():
        arm = arm.replace(name, symbol)
    return re.sub(r",\s*", ", ", arm.replace("=", " "))


@contextmanager
def paper_style() -> Iterator[None]:
    """Draw inside with these settings and no others."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(RC)
        yield


def new_figure(width: float, height: float, rows: int = 1, columns: int = 1, **keywords: Any) -> tuple[Any, Any]:
    """Return a figure outside of global state, and its [rows, columns] axes."""
    figure = Figure(figsize=(width, height))
    return figure, figure.subplots(rows, columns, squeeze=False, **keywords)


def render(figure: Any) -> dict[str, bytes]:
    """Render the figure as PDF and as PNG (200 dpi), the same bytes for the same figure; laid out once for both."""
    files = {}
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for kind, metadata in (("pdf", {"CreationDate": None, "ModDate": None}), ("png", {"Software": None})):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, dpi=200, metadata=metadata)
        files[kind] = buffer.getvalue()
    return files


def title(axes: Any, letter: str, text: str) -> None:
    """Set the panel's letter and title."""
    axes.set_title(f"({letter}) {text}" if letter else text)


def band(axes: Any, summary: pd.DataFrame, x: str, style: ArmStyle, **line: Any) -> None:
    """Draw the centre of a curve and its interval; rows without an interval have only the centre.

    Args:
        line: keywords that replace those of the style.
    """
    axes.plot(summary[x], summary["centre"], **({"zorder": 3} | style.curve() | line))
    known = summary.dropna(subset=["low", "high"])
    axes.fill_between(known[x], known["low"], known["high"], color=style.colour, alpha=0.18, linewidth=0, zorder=1)


def seed_lines(axes: Any, values: pd.DataFrame, x: str, style: ArmStyle, *, alone: bool = False) -> None:
    """Draw every run as a thin line, where there is more than one.

    Args:
        alone: no band tells of them, since they end in two ways: they are drawn darker.
    """
    runs = values.groupby(run_key(values), sort=True)
    width, alpha = (0.8, 0.85) if alone else (0.45, 0.55)
    if len(runs) > 1:
        for _, one in runs:
            axes.plot(one[x], one["value"], color=style.colour, linewidth=width, alpha=alpha, zorder=2)


def interval(axes: Any, low: float, high: float, at: float, style: ArmStyle) -> None:
    """Draw an interval as a horizontal line with ends, at a height; nothing where it is unknown."""
    axes.plot([low, high], [at, at], color=style.colour, linewidth=1.4, solid_capstyle="butt", zorder=2)
    axes.plot([low, high], [at, at], color=style.colour, marker="|", markersize=5, linestyle="none", zorder=2)


def seed_dots(axes: Any, values: Sequence[float], at: float, style: ArmStyle, spread: float = 0.24) -> None:
    """Draw every seed as a small open dot about a height, in the order given."""
    heights = [at + spread * (2 * i / max(1, len(values) - 1) - 1) * (len(values) > 1) for i in range(len(values))]
    axes.plot(values, heights, marker="o", markersize=1.8, linestyle="none", markerfacecolor="white",
              markeredgecolor=style.colour, markeredgewidth=0.5, alpha=0.8, zorder=1)  # fmt: skip


def published(axes: Any, rows: pd.DataFrame, x: str, scale: float = 1.0) -> None:
    """Draw published points, joined, or a note where there are none."""
    if rows.empty:
        nothing(axes, "no published numbers\nin this folder")
        return
    axes.plot(rows[x], rows["value"] * scale, label="published", **PUBLISHED)


def nothing(axes: Any, text: str) -> None:
    """Write in an empty panel why it is empty."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color="0.45")


def percent(axes: Any) -> None:
    """Set an accuracy axis: 0 to 100 %, with room for a line at either end."""
    axes.set_ylim(-4, 104)
    axes.set_yticks([0, 25, 50, 75, 100])

"""The description of a study's run, which MLflow shows as Markdown: why it is run, its arms so far, and a figure."""

import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from vcppo.store.cell_folders import ENDED, CellRecord
from vcppo.store.summary import Curves

FIGURE = "figures/arms.png"
MOST_ARMS = 40  # in the table: a description has 8,000 characters
PANELS = {"rollout/accuracy": "accuracy", "rollout/length_tokens": "length (tokens)"}


def study_note(study: str, settings: Mapping[str, Any], cells: Iterable[CellRecord], *, figure_of: str = "") -> str:
    """Return the text.

    Args:
        settings: those of study.json.
        figure_of: id of the run that has the figure; empty while there is none.
    """
    cells = sorted(cells, key=lambda cell: cell.cell)
    definition = settings.get("definition", {})
    done = [cell for cell in cells if cell.state == "done"]
    others = {state: sum(cell.state == state for cell in cells) for state in ("running", "failed", "pruned", "queued")}
    counts = [f"{len(done)} of {len(cells)} cells done", *(f"{n} {state}" for state, n in others.items() if n)]
    parts = [f"# {definition.get('title') or study}", str(definition.get("why") or "").strip(), ", ".join(counts)]
    parts += [_table(done), f"![arms]({_address(figure_of)})" if figure_of else ""]
    return "\n\n".join(part for part in parts if part)


def arms_figure(curves: Mapping[str, Sequence[Curves]]) -> bytes:
    """Draw a PNG of accuracy and length over iterations: the mean of each arm's runs, where all of them have it.

    Args:
        curves: of RL, by arm, for each of its runs.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 3.5), dpi=90, layout="constrained")
    for axis, (metric, label) in zip(figure.subplots(1, len(PANELS)), PANELS.items(), strict=True):
        for arm, of_runs in sorted(curves.items()):
            measured = [run.get(metric, {}) for run in of_runs]
            steps = sorted(set.intersection(*(set(run) for run in measured)))
            axis.plot(steps, [sum(run[step] for run in measured) / len(measured) for step in steps], label=arm)
        axis.set_xlabel("iteration")
        axis.set_ylabel(label)
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=8)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()


def ended(cells: Iterable[CellRecord]) -> bool:
    """True if all cells have ended, and some have results."""
    states = [cell.state for cell in cells]
    return "done" in states and all(state in ENDED for state in states)


def _table(cells: Sequence[CellRecord]) -> str:
    """Means over the cells of an arm that are done."""
    columns = {"avg@k": r"eval/.+/avg_at_\d+", "accuracy at the end": "final_accuracy"}
    columns |= {"length at the end (tokens)": "final_length_tokens"}
    arms: dict[str, list[CellRecord]] = {}
    for cell in cells:
        arms.setdefault(cell.arm, []).append(cell)
    if not arms:
        return ""
    rows = [["arm", "runs", *columns], ["---"] + ["---:"] * (1 + len(columns))]
    rows += [[arm, str(len(of)), *(_mean(of, pattern) for pattern in columns.values())] for arm, of in arms.items()]
    lines = [f"| {' | '.join(row)} |" for row in rows[: MOST_ARMS + 2]]
    return "\n".join(lines) + (f"\n\nand {len(arms) - MOST_ARMS} more arms" if len(arms) > MOST_ARMS else "")


def _mean(cells: Sequence[CellRecord], pattern: str) -> str:
    numbers = [
        next((value for name, value in cell.result.items() if re.fullmatch(pattern, name)), None) for cell in cells
    ]
    known = [number for number in numbers if number is not None]
    return f"{sum(known) / len(known):.4g}" if known else ""


def _address(run: str) -> str:
    """Address of the figure on the server that shows the description."""
    return f"get-artifact?path={quote(FIGURE, safe='')}&run_uuid={run}"

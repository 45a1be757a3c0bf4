"""A figure for the tracking UI: values and returns by token position, at the first and the last step."""

import io
from typing import Any

Columns = dict[str, list[Any]]


def position_figure(tables: dict[int, Columns]) -> bytes | None:
    """Draw a PNG of value and Monte-Carlo return by position, positions counted from the response's first token.

    Args:
        tables: step -> columns of `critic_by_position`.
    Returns:
        None if there is no table. Touches no global state of matplotlib.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not tables:
        return None
    steps = sorted({min(tables), max(tables)})
    figure = Figure(figsize=(4.0 * len(steps), 3.0), dpi=90)
    axes = figure.subplots(1, len(steps), sharey=True, squeeze=False)[0]
    figure.subplots_adjust(left=0.19 / len(steps), right=0.98, bottom=0.17, top=0.9, wspace=0.06)
    for axis, step in zip(axes, steps, strict=True):
        columns = tables[step]
        rows = [i for i, from_end in enumerate(columns["from_end"]) if not from_end]
        position = [columns["position"][i] for i in rows]
        for label, style in (("value", "-"), ("return", "--")):
            mean = [columns[f"{label}_mean"][i] for i in rows]
            axis.plot(position, mean, style, color="black", label=label)
        axis.set_title(f"step {step}", fontsize=10)
        axis.set_xlabel("position (token)")
    axes[0].set_ylabel("reward")
    axes[0].legend(frameon=False)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()

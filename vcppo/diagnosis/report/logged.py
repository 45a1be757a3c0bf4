"""A report as MLflow takes it: every single number by a name, and a tag for each verdict."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vcppo.diagnosis.report.writing import NUMBERS, PAGE
from vcppo.diagnosis.schema import Estimate, Report
from vcppo.tracking.reports import LoggedReport

ESTIMATE = frozenset(Estimate.model_fields)


def as_logged(report: Report, folder: Path, *, began: float) -> LoggedReport:
    """The report that `write_report` has written to `folder`.

    Metrics are called by their place in report.json, items of a list by what tells them apart: critic, method, lambda,
    fraction, section. An estimate is three metrics, the ends of its interval behind `/low` and `/high`. Numbers of
    curves stay in the file. A verdict is a tag `verdict/CRITIC/CODE` with its severity and title.
    """
    made = report.provenance
    verdicts = {
        f"verdict/{verdict.critic or 'data'}/{verdict.code}": f"{verdict.severity}: {verdict.title}"
        for verdict in report.verdicts
    }
    return LoggedReport(
        name=folder.resolve().name,
        began=began,
        metrics={
            **dict(_numbers("data", report.data.model_dump())),
            **dict(_numbers("", {"critics": [critic.model_dump() for critic in report.critics]})),
        },
        params={"command": made.command, "answers": report.data.source, "seed": str(made.seed), "vcppo": made.vcppo},
        tags=verdicts,
        files=(folder / NUMBERS, folder / PAGE),
    )


def _numbers(name: str, value: Any) -> Iterator[tuple[str, float]]:
    if isinstance(value, Mapping):
        if value.keys() == ESTIMATE:
            yield from _numbers(name, value["value"])
            yield from _numbers(f"{name}/low", value["low"])
            yield from _numbers(f"{name}/high", value["high"])
            return
        for key, item in value.items():
            yield from _numbers(f"{name}/{key}" if name else key, item)
    elif isinstance(value, list | tuple):
        for item in value:
            if isinstance(item, Mapping) and (label := _label(item)):
                yield from _numbers(label if name == "critics" else f"{name}/{label}", item)
    elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        yield name, float(value)


def _label(item: Mapping[str, Any]) -> str:
    """Return the label that tells an item from others of its list; "" where nothing does."""
    parts = [str(item[key]) for key in ("name", "method") if key in item]
    parts += [f"{key.removeprefix('gae_')}_{item[key]:g}" for key in ("gae_lambda", "fraction") if key in item]
    return "/".join(parts)

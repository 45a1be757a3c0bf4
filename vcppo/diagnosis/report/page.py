"""The page as text: template, style, script, and the policy that lets these run and nothing else."""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from vcppo.diagnosis.report.figure_parts import letter, look, marker
from vcppo.diagnosis.report.figures import figures
from vcppo.diagnosis.report.packing import packed
from vcppo.diagnosis.report.svg import swatch, written
from vcppo.diagnosis.report.tables import glance, tables
from vcppo.diagnosis.report.text import number, visible
from vcppo.diagnosis.report.viewer import ViewerData
from vcppo.diagnosis.schema import Knob, Report, Verdict

FOLDER = Path(__file__).resolve().parent
SCRIPTS = (
    "texts.js",
    "decoding.js",
    "measures.js",
    "colours.js",
    "course.js",
    "numbers.js",
    "panes.js",
    "viewer.js",
    "page.js",
)  # joined to one module
SEVERITIES = {  # gravest first
    "alarm": "Alarm",
    "warning": "Warning",
    "unknown": "Cannot tell",
    "note": "Note",
    "good": "Good",
}


def page(report: Report, viewer: ViewerData) -> str:
    """The whole page, an HTML file in itself."""
    style = (FOLDER / "page.css").read_text(encoding="utf-8")
    script = "\n".join((FOLDER / name).read_text(encoding="utf-8") for name in SCRIPTS)
    verdicts = sorted(report.verdicts, key=lambda verdict: list(SEVERITIES).index(verdict.severity))
    names = {critic.name: f"{letter(i)} ({critic.name})" for i, critic in enumerate(report.critics)}
    data = report.data
    facts = (
        f"{data.responses:,} responses to {data.problems:,} prompts, {data.tokens:,} tokens, from {data.source} "
        f"({data.form}); made {_moment(report.provenance.made_at)}"
    )
    return (
        _environment()
        .get_template("page.html")
        .render(
            report=report,
            policy=policy(script, style),
            style=Markup(style),
            script=Markup(script),
            embedded=Markup(embedded(json.loads(report.model_dump_json()))),
            packed=Markup(packed(viewer)) if viewer.responses else "",
            headline=verdicts[0].title if verdicts else "No verdict",
            subject=_subject(report),
            facts=facts,
            verdicts=verdicts,
            severities=SEVERITIES,
            names=names,
            glance=glance(report),
            settings=_settings(verdicts),
            figures=_drawn(report),
            legend=[
                {"letter": letter(i), "name": critic.name, "swatch": Markup(written(swatch(look(i), marker(i))))}
                for i, critic in enumerate(report.critics)
            ],
            offered=len(viewer.responses),
            viewer_note=_sentence(viewer.note) or f"{len(viewer.responses):,} responses.",
            tables=tables(report),
            provenance=_provenance(report),
            notes=[
                *(("", note) for note in data.notes),
                *(
                    (names[critic.name], note)
                    for critic in report.critics
                    for note in _critic_notes(critic.why, critic.notes)
                ),
            ],
        )
    )


def policy(script: str, style: str) -> str:
    """The content-security policy: this script and this style by their hash, no request, no text as HTML."""
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src '{sha256(script)}'",
            f"style-src '{sha256(style)}'",
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )


def sha256(text: str) -> str:
    """The hash of an inline script or style as a policy names it."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}"


def embedded(value: Any) -> str:
    """JSON that can stand within a <script>: ASCII, and no character that means something to HTML."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: visible(value) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _subject(report: Report) -> str:
    names = [critic.name for critic in report.critics]
    if not names:
        return "A diagnosis without a critic"
    return f"Diagnosis of {', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else f"Diagnosis of {names[0]}"


def _settings(verdicts: list[Verdict]) -> dict[str, list[tuple[Verdict, Knob]]]:
    """Knobs by trainer, gravest verdict first; a setting that two verdicts share stands once."""
    trainers: dict[str, list[tuple[Verdict, Knob]]] = {}
    for verdict in verdicts:
        for knob in verdict.knobs:
            already = trainers.setdefault(knob.trainer, [])
            if all(knob != other for _, other in already):
                already.append((verdict, knob))
    return trainers


def _drawn(report: Report) -> list[dict[str, Any]]:
    return [
        {
            "name": figure.name,
            "title": figure.title,
            "sentence": figure.sentence.replace(" %", "\u00a0%"),
            "legend": figure.legend,
            "panels": [Markup(written(panel)) for panel in figure.panels],
        }
        for figure in figures(report)
    ]


def _provenance(report: Report) -> list[tuple[str, str]]:
    made = report.provenance
    return [
        ("vcppo", f"{made.vcppo}, commit {made.commit}" if made.commit else made.vcppo),
        ("made", f"{_moment(made.made_at)}, in {number(made.seconds)} s"),
        ("seed", str(made.seed)),
        ("responses", f"{report.data.source} ({report.data.form})"),
        *((f"critic {letter(i)}", _source(critic.source, critic.layout)) for i, critic in enumerate(report.critics)),
        *made.versions.items(),
        ("schema", f"version {report.schema_version}"),
    ]


def _moment(iso: str) -> str:
    return iso.replace("T", " ").removesuffix("Z").removesuffix("+00:00") + " UTC" if iso[10:11] == "T" else iso


def _source(source: str, layout: str | None) -> str:
    return f"{source} (layout {layout})" if layout else source


def _critic_notes(why: str | None, notes: tuple[str, ...]) -> tuple[str, ...]:
    return (*((f"not measured: {why}",) if why else ()), *notes)


def _sentence(text: str) -> str:
    return text if not text or text.endswith((".", "!", "?")) else f"{text}."

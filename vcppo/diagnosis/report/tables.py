"""The tables of the page. A cell knows where in report.json its number is, and takes it from there."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vcppo.diagnosis.report.figure_parts import METHODS, letter
from vcppo.diagnosis.report.text import NOT_MEASURED, decimals_of, interval, number
from vcppo.diagnosis.report.value_figures import PLACES
from vcppo.diagnosis.schema import CriticPart, Estimate, Part, Report


@dataclass(frozen=True)
class Cell:
    """A number in print."""

    path: str  # in report.json, steps joined by dots
    shown: str
    interval: str = ""
    why: str = ""  # if it was not measured


@dataclass(frozen=True)
class Row:
    """A line of a table: its name, what that means, and its cells."""

    name: str
    meaning: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    """A table with its caption; `name` is its anchor. `open`: it is unfolded at first."""

    name: str
    title: str
    columns: tuple[str, ...]  # of the cells; the rows' names stand before them
    rows: tuple[Row, ...]
    corner: str = ""
    group: str = ""  # a heading that tables after one another share
    open: bool = False


REGRESSOR = (
    ("bias", "mean of value − return, units of reward", "regressor.bias"),
    ("slope", "of return on value; 1 is calibrated", "regressor.slope"),
    ("intercept", "of return on value; 0 is calibrated", "regressor.intercept"),
    ("RMSE", "root of the mean square error, units of reward", "regressor.rmse"),
    ("error: offset", "share of the mean square error", "regressor.share_offset"),
    ("error: slope", "share of the mean square error", "regressor.share_slope"),
    ("error: rest", "share of the mean square error", "regressor.share_rest"),
    ("explained variance", "1 is perfect, 0 is a constant", "regressor.explained_variance"),
    ("its ceiling", "what any function of the state could reach", "regressor.explained_variance_ceiling"),
    ("spread of values", "standard deviation over tokens", "regressor.value_std"),
    ("spread of returns", "standard deviation over tokens", "regressor.return_std"),
    ("variance: position", "share that the position alone explains", "reacts.position"),
    ("variance: prompt", "share that the prompt alone explains", "reacts.prompt"),
    ("variance: neither", "what is left: the response itself", "reacts.neither"),
    ("values not finite", "tokens left out of every number", "not_finite"),
    ("best λ", "whose gradient agrees best with the truth at this batch size", "best_lambda"),
)
PARTS_IN_PRINT = {
    "signal.": "of values and returns, both less their mean at a position",
    "timing.": "of values where responses to one prompt part",
}
SECTION = (
    ("tokens", "n"),
    ("bias", "bias"),
    ("slope", "slope"),
    ("explained variance", "explained_variance"),
    ("correlation", "correlation"),
    ("spread of values", "spread"),
)
ALIGNMENT = (
    ("cosine with reward", "with_reward"),
    ("its ceiling", "reward_ceiling"),
    ("cosine with length", "with_length"),
    ("change of accuracy", "accuracy_change"),
    ("change of length, tokens", "length_change"),
    ("signal to noise", "noise"),
    ("responses of a batch", "batch_size"),
    ("a batch’s change of accuracy", "batch_accuracy_change"),
    ("a batch’s change of length, tokens", "batch_length_change"),
    ("accuracy against Monte-Carlo", "against_monte_carlo"),
    ("backward passes", "backward_passes"),
)
LAMBDAS = (("weight of the real reward", "real_reward"), ("the critic’s own opinion", "opinion"))
DATA = (
    ("responses", "", "responses"),
    ("problems", "different prompts", "problems"),
    ("tokens", "of responses", "tokens"),
    ("mean length", "tokens", "length_mean"),
    ("median length", "tokens", "length_median"),
    ("shortest", "tokens", "length_min"),
    ("longest", "tokens", "length_max"),
    ("truncated", "share cut at the length limit", "truncated"),
    ("mean score", "units of reward", "score_mean"),
    ("lowest score", "", "score_low"),
    ("highest score", "", "score_high"),
    ("correct", "share with the highest score", "correct"),
    ("score and length", "their correlation over responses", "score_length_correlation"),
)


def others(parts: Iterable[Part | None], named: Iterable[str]) -> list[tuple[str, str]]:
    """(name in print, field) of the numbers in these parts of one kind that no table names: fields that are newer."""
    known = set(named)
    result = {
        field: field.replace("_", " ")
        for part in parts
        if part is not None
        for field, value in part
        if field not in known
        and (isinstance(value, Estimate) or (isinstance(value, int | float) and not isinstance(value, bool)))
    }
    return [(name, field) for field, name in result.items()]


def cell(report: Report, path: str) -> Cell:
    """The cell of what lies at a path of the report; a part that is missing on the way is "not measured"."""
    result: object = report
    for name in path.split("."):
        result = _step(result, name)
    if isinstance(result, Estimate):
        return Cell(path, number(result.value, decimals_of(result)), interval(result), _why(result))
    if result is None or isinstance(result, int | float):
        return Cell(path, number(result))
    raise TypeError(f"report.{path}: {type(result).__name__}, expected a number or an Estimate")


def glance(report: Report) -> Table:
    """A line a critic: the few numbers that verdicts lean on most."""
    lambdas = sorted({row.gae_lambda for critic in report.critics for row in critic.alignment})
    below = max((x for x in lambdas if x < 1), default=None)
    usual = 0.95 if 0.95 in lambdas else below
    columns = ["bias", "explained variance", "AUC at half, within prompts", "variance: position"]
    rows = []
    for place, critic in enumerate(report.critics):
        base = f"critics.{place}"
        half = min(range(len(critic.ranker)), key=lambda i: abs(critic.ranker[i].fraction - 0.5), default=None)
        cells = [
            cell(report, f"{base}.regressor.bias"),
            cell(report, f"{base}.regressor.explained_variance"),
            cell(report, f"{base}.ranker.{half if half is not None else 'none'}.within_prompts"),
            cell(report, f"{base}.reacts.position"),
        ]
        if usual is not None:
            cells.append(cell(report, f"{base}.alignment.{_alignment_at(critic, usual)}.with_reward"))
        cells.append(cell(report, f"{base}.best_lambda"))
        rows.append(Row(f"{letter(place)}  {critic.name}", "", tuple(cells)))
    columns += [f"cosine with reward, λ = {usual:g}"] if usual is not None else []
    return Table("glance", "At a glance", (*columns, "best λ"), tuple(rows), corner="critic", open=True)


def tables(report: Report) -> list[Table]:
    """Every number of the report that is not on its own in a sentence."""
    made = [critics_table(report)] if report.critics else []
    for place, critic in enumerate(report.critics):
        made += _of_critic(report, place, critic)
    newer = [(name, "", field) for name, field in others([report.data], [field for _, _, field in DATA])]
    rows = tuple(Row(name, meaning, (cell(report, f"data.{field}"),)) for name, meaning, field in (*DATA, *newer))
    return [*made, Table("data", "The responses", ("",), rows, corner="measure", open=True)]


def critics_table(report: Report) -> Table:
    """Measures by critics."""
    places = range(len(report.critics))
    parts: dict[str, list[Part | None]] = {
        "regressor.": [critic.regressor for critic in report.critics],
        "reacts.": [critic.reacts for critic in report.critics],
        "signal.": [critic.signal for critic in report.critics],
        "timing.": [critic.timing for critic in report.critics],
        "": [*report.critics],
    }
    newer = [
        (name, PARTS_IN_PRINT.get(base, ""), f"{base}{field}")
        for base, here in parts.items()
        for name, field in others(here, [field.removeprefix(base) for _, _, field in REGRESSOR])
    ]
    rows = [
        Row(name, meaning, tuple(cell(report, f"critics.{i}.{field}") for i in places))
        for name, meaning, field in (*REGRESSOR, *newer)
    ]
    fractions = sorted({rank.fraction for critic in report.critics for rank in critic.ranker})
    for within, words in (("within_prompts", "within prompts"), ("across_prompts", "across prompts")):
        for fraction in fractions:
            cells = [
                cell(report, f"critics.{i}.ranker.{_index((r.fraction for r in critic.ranker), fraction)}.{within}")
                for i, critic in enumerate(report.critics)
            ]
            rows.append(Row(f"AUC at {100 * fraction:g} %", f"{words}; 0.5 is chance", tuple(cells)))
    columns = tuple(f"{letter(i)}  {critic.name}" for i, critic in enumerate(report.critics))
    return Table("critics", "Critics", columns, tuple(rows), corner="measure", open=True)


def _of_critic(report: Report, place: int, critic: CriticPart) -> Iterable[Table]:
    name, base = f"{letter(place)}  {critic.name}", f"critics.{place}"
    if critic.lambdas:
        shares = [*LAMBDAS, *others(critic.lambdas, ["gae_lambda", *(field for _, field in LAMBDAS)])]
        rows = [
            Row(
                f"λ = {row.gae_lambda:g}",
                "",
                tuple(cell(report, f"{base}.lambdas.{i}.{field}") for _, field in LAMBDAS),
            )
            for i, row in enumerate(critic.lambdas)
        ]
        columns = tuple(words for words, _ in shares)
        yield Table(f"lambdas-{place}", "What an advantage is made of", columns, tuple(rows), "λ", name)
    if critic.alignment:
        measures = [*ALIGNMENT, *others(critic.alignment, ["gae_lambda", *(field for _, field in ALIGNMENT)])]
        rows = [
            Row(
                f"λ = {row.gae_lambda:g}",
                METHODS[row.method],
                tuple(cell(report, f"{base}.alignment.{i}.{field}") for _, field in measures),
            )
            for i, row in enumerate(critic.alignment)
        ]
        columns = tuple(words for words, _ in measures)
        yield Table(f"alignment-{place}", "Where the gradient points", columns, tuple(rows), "λ", name)
    if critic.regressor is None:
        return
    if critic.regressor.sections:
        rows = [
            Row(section.name, "", tuple(cell(report, f"{base}.regressor.sections.{i}.{field}") for _, field in SECTION))
            for i, section in enumerate(critic.regressor.sections)
        ]
        columns = tuple(words for words, _ in SECTION)
        yield Table(f"sections-{place}", "Parts of the response", columns, tuple(rows), "part", name)
    for field, words, axis in PLACES:
        curve = getattr(critic.regressor, field)
        fields = ("n", "responses", "value_mean", "return_mean", "bias", "explained_variance")
        rows = [
            Row(number(x), "", tuple(cell(report, f"{base}.regressor.{field}.{one}.{i}") for one in fields))
            for i, x in enumerate(curve.x)
        ]
        columns = ("tokens", "responses", "mean value", "mean return", "bias", "explained variance")
        yield Table(f"{field}-{place}", f"Along the response: {words}", columns, tuple(rows), axis, name)
    at = f"{base}.regressor.calibration"
    rows = [
        Row(number(x, 3), "", (cell(report, f"{at}.return_mean.{i}"), cell(report, f"{at}.n.{i}")))
        for i, x in enumerate(critic.regressor.calibration.predicted_mean)
    ]
    yield Table(f"calibration-{place}", "Calibration", ("mean return", "tokens"), tuple(rows), "predicted value", name)


def _step(part: object, name: str) -> object:
    if part is None:
        return None
    if isinstance(part, Sequence):
        return part[int(name)] if name.isdigit() and int(name) < len(part) else None
    return getattr(part, name)


def _why(estimate: Estimate) -> str:
    return (estimate.why or NOT_MEASURED) if estimate.value is None else ""


def _index(values: Iterable[float], wanted: float) -> int | str:
    """The place of a value, or "none", which is nowhere."""
    return next((i for i, value in enumerate(values) if value == wanted), "none")


def _alignment_at(critic: CriticPart, gae_lambda: float) -> int | str:
    """The place of the row at a lambda, of the method named first in METHODS."""
    rows = [
        (list(METHODS).index(row.method), i) for i, row in enumerate(critic.alignment) if row.gae_lambda == gae_lambda
    ]
    return min(rows)[1] if rows else "none"

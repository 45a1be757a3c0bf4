"""The page as text: self-contained, closed by its policy, every number that of the report, no text that could run."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from diagnosis_report_example import critic, hostile, report, viewer

from vcppo.analysis.style import OTHER_COLOURS
from vcppo.diagnosis.report.page import FOLDER, SCRIPTS, embedded, page
from vcppo.diagnosis.report.tables import cell
from vcppo.diagnosis.report.text import interval, number, visible, with_interval
from vcppo.diagnosis.report.viewer import ViewerData
from vcppo.diagnosis.report.writing import write_report
from vcppo.diagnosis.schema import Curve, DataPart, Estimate, Knob, Reacts, Report, Verdict

NOTHING = ViewerData((), ())


class Read(HTMLParser):
    """Parser of a page: tags with attributes, the text of scripts and styles, all other text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.raw: list[tuple[str, str]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.cdata_elem:
            self.raw.append((self.cdata_elem, data))
        else:
            self.text += data

    def joined(self, tag: str) -> list[str]:
        """Bodies of <script> or <style>."""
        return [data for name, data in self.raw if name == tag]


@pytest.fixture(scope="module")
def whole() -> str:
    return page(report(), viewer(8))


def test_hashes_of_the_policy_are_those_of_script_and_style(whole: str) -> None:
    read = Read(whole)
    (policy,) = [
        a["content"] for tag, a in read.tags if tag == "meta" and a.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy is not None
    (style,) = read.joined("style")
    script = re.findall(r'<script type="module">(.*?)</script>', whole, re.DOTALL)
    for name, text in (("style-src", style), ("script-src", *script)):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{name} 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert "require-trusted-types-for 'script'" in policy


def test_the_page_is_one_file_that_asks_for_nothing(whole: str) -> None:
    read = Read(whole)
    assert {tag for tag, _ in read.tags} & {
        "link",
        "img",
        "iframe",
        "object",
        "embed",
        "base",
        "form",
        "audio",
    } == set()
    for tag, attributes in read.tags:
        assert not {"src", "srcset", "style", "xlink:href"} & set(attributes), tag
        assert not [name for name in attributes if name.startswith("on")], tag
        assert (attributes.get("href") or "#").startswith("#"), tag
    code = "".join((FOLDER / name).read_text() for name in (*SCRIPTS, "page.css"))
    assert re.findall(r"https?://[^\"\s]*", code) == ["http://www.w3.org/2000/svg"]
    assert (
        re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function|@import|url\(", code)
        is None
    )
    assert "</script" not in code
    assert "<!--" not in code


def test_anchors_and_labels_have_what_they_name(whole: str) -> None:
    read = Read(whole)
    names = [attributes["id"] for _, attributes in read.tags if "id" in attributes]
    assert len(names) == len(set(names))
    for _, attributes in read.tags:
        for attribute in ("aria-labelledby", "href", "list"):
            if attribute in attributes:
                assert (attributes[attribute] or "").removeprefix("#") in names
    used = set(
        re.findall(
            r'byId\("([a-z-]+)"\)|getElementById\("([a-z-]+)"\)',
            "".join((FOLDER / script).read_text() for script in SCRIPTS),
        )
    )
    assert {name for pair in used for name in pair if name} <= set(names)


def test_the_worst_verdict_stands_first_and_says_so_in_words_and_shape(whole: str) -> None:
    item = r'<li class="verdict (\w+)">.*?<(path|rect|circle) class="shape"( d="[^"]*")?.*?<strong>(.*?)</strong>'
    shown = re.findall(item, whole, re.DOTALL)
    assert [words for *_, words in shown] == ["Alarm", "Warning", "Cannot tell", "Note", "Good"]
    assert [severity for severity, *_ in shown] == ["alarm", "warning", "unknown", "note", "good"]
    assert len({(tag, drawn) for _, tag, drawn, _ in shown}) == 5


def test_the_json_in_the_page_is_the_report(tmp_path: Path) -> None:
    write_report(report(), viewer(4), tmp_path)
    text = (tmp_path / "report.json").read_text()
    assert Report.model_validate_json(text) == report()
    inside = re.search(
        r'<script type="application/json" id="report">(.*?)</script>', (tmp_path / "index.html").read_text()
    )
    assert inside is not None
    assert json.loads(inside.group(1)) == json.loads(text)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index.html", "report.json"]


def test_a_failure_leaves_the_page_of_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_report(report(), NOTHING, tmp_path)
    before = (tmp_path / "index.html").read_bytes()

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="no space"):
        write_report(report(), viewer(2), tmp_path)
    assert (tmp_path / "index.html").read_bytes() == before


def test_numbers_stand_where_their_path_says() -> None:
    one = report()
    assert cell(one, "critics.0.regressor.bias").shown == "−2.30"
    assert cell(one, "critics.0.regressor.bias").interval == "[−2.36, −2.23]"
    assert cell(one, "data.tokens").shown == "191,233"
    gone = cell(one.model_copy(update={"critics": (one.critics[0].model_copy(update={"regressor": None}),)}), "critics.0.regressor.bias")  # noqa: E501  # fmt: skip
    assert gone.shown == "not measured"
    with pytest.raises(AttributeError):
        cell(one, "critics.0.regressor.biass")


NAMES_OF_ROWS = ("x", "predicted_mean", "gae_lambda", "fraction")


def test_every_number_of_the_report_stands_in_a_table(whole: str) -> None:
    def numbers(value: object, path: str) -> Iterator[str]:
        if isinstance(value, dict) and {"value", "low", "high"} <= set(value):
            yield path
        elif isinstance(value, dict):
            for name, item in value.items():
                yield from numbers(item, f"{path}.{name}") if name not in NAMES_OF_ROWS else ()
        elif isinstance(value, list):
            for i, item in enumerate(value):
                yield from numbers(item, f"{path}.{i}")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield path

    shown = {attributes["data-path"] for _, attributes in Read(whole).tags if "data-path" in attributes}
    whole_report = json.loads(report().model_dump_json())
    wanted = {path for part in ("critics", "data") for path in numbers(whole_report[part], part)}
    assert wanted - shown == set()


def test_numbers_that_no_table_names_yet_get_a_row() -> None:
    class Newer(Reacts):
        luck: Estimate
        words: str = "no number"

    one = critic("x", bad=True)
    assert one.reacts is not None
    newer = Newer(**dict(one.reacts), luck=Estimate(value=0.25))
    whole = page(report().model_copy(update={"critics": (one.model_copy(update={"reacts": newer}),)}), NOTHING)
    assert '<td data-path="critics.0.reacts.luck"><span class="value">0.25</span></td>' in whole


def test_what_was_not_measured_says_why(whole: str) -> None:
    assert "all returns are equal here" in Read(page(report(), NOTHING)).text


HOSTILE_TEXT = "</script><script>x()</script><!--\u202e\u2066\x00\x1b'\"&amp;{{ 7*7 }}{% raw %}"


def test_hostile_texts_of_the_report_are_text() -> None:
    base = report()
    everywhere = dict.fromkeys(("title", "sentence", "advice", "critic", "code"), HOSTILE_TEXT)
    knob = Knob(trainer=HOSTILE_TEXT, setting=HOSTILE_TEXT, note=HOSTILE_TEXT)
    data = base.data.model_copy(update={"source": HOSTILE_TEXT, "form": HOSTILE_TEXT, "notes": (HOSTILE_TEXT,)})
    one = base.model_copy(
        update={
            "verdicts": tuple(v.model_copy(update=everywhere | {"knobs": (knob,)}) for v in base.verdicts),
            "critics": tuple(c.model_copy(update={"name": HOSTILE_TEXT, "source": HOSTILE_TEXT}) for c in base.critics),
            "data": data,
        }
    )
    whole = page(one, hostile())
    read = Read(whole)
    assert len([tag for tag, _ in read.tags if tag == "script"]) == 3
    assert re.search(r"[\x00-\x08\x0b-\x1f\u202a-\u202e\u2066-\u2069\u2028\u2029\ud800-\udfff]", whole) is None
    assert "</script><script>x()</script><!--[U+202E][U+2066][U+0000][U+001B]'\"&amp;{{ 7*7 }}{% raw %}" in read.text


def test_embedded_json_has_nothing_that_html_reads() -> None:
    value = {"a": "</script><!-- & \u2028 \ud800 é"}
    text = embedded(value)
    assert re.search(r"[<>&\u2028]|[^\x00-\x7f]", text) is None
    assert json.loads(text) == value


def test_half_characters_are_written_out(tmp_path: Path) -> None:
    described = Verdict(code="x", severity="note", critic=None, title="a\udcff", sentence="")
    write_report(report().model_copy(update={"verdicts": (described,)}), NOTHING, tmp_path)
    assert json.loads((tmp_path / "report.json").read_text())["verdicts"][0]["title"] == "a[U+DCFF]"
    assert "<h3>a[U+DCFF]</h3>" in (tmp_path / "index.html").read_text()


EMPTY = Estimate(value=None, why="one prompt only")
NO_CURVE = Curve(x=(), n=(), responses=(), value_mean=(), return_mean=(), bias=(), explained_variance=())


def unmeasured(data: DataPart) -> DataPart:
    return data.model_copy(update={"truncated": EMPTY, "correct": EMPTY, "score_length_correlation": EMPTY})


def test_a_report_with_nothing_measured_is_a_page() -> None:
    base = report()
    bare = critic("x", bad=True).model_copy(
        update={"regressor": None, "ranker": (), "reacts": None, "lambdas": (), "alignment": (), "best_lambda": None, "why": "no values"}  # noqa: E501
    )  # fmt: skip
    text = Read(page(base.model_copy(update={"critics": (bare,), "data": unmeasured(base.data)}), NOTHING)).text
    assert "not measured: no values" in text
    assert "one prompt only" in text
    assert "Figure 1" not in text
    assert "No verdict" in Read(page(base.model_copy(update={"verdicts": (), "critics": ()}), NOTHING)).text


def test_estimates_that_are_all_unknown_are_drawn_as_nothing() -> None:
    good = critic("x", bad=False)
    assert good.regressor is not None
    empty = {name: EMPTY for name, value in good.regressor if isinstance(value, Estimate)}
    curves = dict.fromkeys(("from_start", "from_end", "by_fraction", "by_length"), NO_CURVE)
    one_point = Curve(x=(3.0,), n=(1,), responses=(1,), value_mean=(None,), return_mean=(0.5,), bias=(EMPTY,),
                      explained_variance=(EMPTY,))  # fmt: skip
    nothing = good.model_copy(
        update={
            "regressor": good.regressor.model_copy(update=empty | curves | {"from_start": one_point}),
            "alignment": tuple(
                row.model_copy(update=dict.fromkeys(
                    ("with_reward", "with_length", "reward_ceiling", "accuracy_change", "length_change"), EMPTY))
                for row in good.alignment
            ),
        }
    )  # fmt: skip
    assert "not measured" in Read(page(report().model_copy(update={"critics": (nothing,)}), NOTHING)).text


@pytest.mark.parametrize("count", [1, 3, 9, 30])
def test_any_number_of_critics_is_drawn(count: int) -> None:
    many = tuple(critic(f"critic {i}", bad=i % 2 == 0) for i in range(count))
    text = Read(page(report().model_copy(update={"critics": many}), NOTHING)).text
    assert f"critic {count - 1}" in text


def test_colours_are_those_of_the_figures_elsewhere() -> None:
    """All but one, which is darker here so that words in it can be read."""
    css = (FOLDER / "page.css").read_text()
    light = re.search(r":root \{(.*?)\}", css, re.DOTALL)
    assert light is not None
    colours = re.findall(r"--c\d: (#\w+)", light.group(1))
    assert len(colours) == len(OTHER_COLOURS)
    assert [mine for mine, other in zip(colours, OTHER_COLOURS, strict=True) if mine != other] == ["#2f8786"]


@pytest.mark.parametrize(
    ("estimate", "shown"),
    [
        (Estimate(value=-0.914, low=-0.93, high=-0.88), "−0.91 [−0.93, −0.88]"),
        (Estimate(value=0.9951, low=0.9912, high=0.9998), "0.995 [0.991, 1.000]"),
        (Estimate(value=1234.5, low=1200.0, high=1300.0), "1,234 [1,200, 1,300]"),
        (Estimate(value=0.0001, low=-0.2, high=0.2), "0.0 [−0.2, 0.2]"),
        (Estimate(value=1.0, low=1.0, high=1.0), "1.00 [1.00, 1.00]"),
        (Estimate(value=3.0), "3"),
        (EMPTY, "not measured"),
    ],
)
def test_estimates_in_print(estimate: Estimate, shown: str) -> None:
    assert with_interval(estimate) == shown


def test_numbers_in_print() -> None:
    assert [number(x) for x in (0.0, -0.0, 0.00012345, 12.345, -7.0, float("nan"))] == [
        "0", "0", "0.000123", "12.3", "−7", "not measured"]  # fmt: skip
    assert interval(Estimate(value=1.0, low=None, high=2.0)) == ""
    assert visible("plain é\n\t\u05e9\u05dc\u05d5\u05dd") == "plain é\n\t\u05e9\u05dc\u05d5\u05dd"
    assert visible("\u2028\ud800\u200b\x7f") == "[U+2028][U+D800][U+200B][U+007F]"

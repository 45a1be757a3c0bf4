"""The page of a diagnosis in Chromium: opened from disk, keyboard and all; long because one browser serves all tests.

`nox -s browser` runs it where Debian's chromium and chromium-driver are installed, and there a skip is a failure.
"""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diagnosis_report_example import HOSTILE, critic, hostile, report, viewer

from vcppo.diagnosis.report.viewer import ViewedResponse, ViewerData
from vcppo.diagnosis.report.writing import write_report
from vcppo.maths.advantages import gae_by_recursion

webdriver = pytest.importorskip("selenium.webdriver", reason="missing: selenium, of the dev extra")
Service = pytest.importorskip("selenium.webdriver.chrome.service").Service
By = pytest.importorskip("selenium.webdriver.common.by").By
Keys = pytest.importorskip("selenium.webdriver.common.keys").Keys
ui = pytest.importorskip("selenium.webdriver.support.ui")

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,1000",
)
DRAWN_IN = 1.0  # seconds


class Page:
    """A page that is open, and what the browser logged of it."""

    def __init__(self, driver: Any, address: str) -> None:
        self.driver = driver
        driver.get("about:blank")
        driver.get_log("performance")
        driver.get_log("browser")
        driver.get(address)
        if driver.find_elements(By.ID, "viewer"):
            ui.WebDriverWait(driver, 20).until(lambda _: self.root("data-ready-at"))

    def root(self, attribute: str) -> str | None:
        """An attribute of the document."""
        result = self.driver.execute_script("return document.documentElement.getAttribute(arguments[0])", attribute)
        return None if result is None else str(result)

    def one(self, selector: str) -> Any:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        """All text in an element, hidden or not."""
        return str(self.driver.execute_script("return document.querySelector(arguments[0]).textContent", selector))

    def number(self, name: str) -> float:
        """A number of the readout."""
        return as_number(self.text(f'#readout [data-number="{name}"]'))

    def choose(self, control: str, value: object) -> None:
        ui.Select(self.one(f"#{control}")).select_by_value(str(value))

    def slide(self, control: str, value: int) -> None:
        script = """const slider = document.getElementById(arguments[0]); slider.value = arguments[1];
                    for (const event of ["input", "change"]) slider.dispatchEvent(new Event(event));"""
        self.driver.execute_script(script, control, value)

    def press(self, *keys: str) -> None:
        self.driver.switch_to.active_element.send_keys(*keys)

    def complaints(self) -> list[str]:
        """Collect what the console says: errors, warnings, breaches of the policy."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """Addresses that were asked for, but the page's own and what never leaves it."""
        sent = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        urls = [one["params"]["request"]["url"] for one in sent if one["method"] == "Network.requestWillBeSent"]
        own = self.driver.current_url.split("#")[0]
        return [url for url in urls if url != own and not url.startswith("chrome://")]  # the browser's own first tab

    def busy(self) -> float:
        """Seconds that the page's main thread has worked."""
        metrics = self.driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
        return next(float(one["value"]) for one in metrics if one["name"] == "TaskDuration")

    def background(self) -> str:
        return str(self.driver.execute_script("return getComputedStyle(document.body).backgroundColor"))


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    yield driver
    driver.quit()


@pytest.fixture
def opened(driver: Any, tmp_path: Path) -> Page:
    write_report(report(), viewer(steps=(0, 10, 20)), tmp_path)
    return Page(driver, (tmp_path / "index.html").as_uri())


def as_number(shown: str) -> float:
    return float(shown.replace("−", "-").replace(",", ""))


def test_it_opens_from_disk_in_silence_and_asks_for_nothing(opened: Page) -> None:
    assert opened.driver.title.startswith("At λ = 0.95 PPO will shorten responses to nothing")
    assert opened.one(".verdict").text.startswith("Alarm")
    assert opened.complaints() == []
    assert opened.requests() == []


def test_every_number_shown_is_that_of_the_json(opened: Page, tmp_path: Path) -> None:
    numbers = json.loads((tmp_path / "report.json").read_text())
    assert json.loads(opened.text("#report")) == numbers
    script = "return [...document.querySelectorAll('[data-path]')].map((one) => [one.dataset.path, one.textContent])"
    cells = opened.driver.execute_script(script)
    assert len(cells) > 700
    for path, shown in cells:
        value = numbers
        for step in path.split("."):
            value = None if value is None else value[int(step)] if step.isdigit() else value[step]
        parts = [value] if not isinstance(value, dict) else [value["value"], value["low"], value["high"]]
        wanted = [part for part in parts if part is not None]
        if not wanted:
            assert "not measured" in shown, path
            continue
        result = re.findall(r"−?\d[\d,]*(?:\.\d+)?", shown)
        assert len(result) == len(wanted), (path, shown)
        for text, number in zip(result, wanted, strict=True):
            digits = len(text.partition(".")[2])
            three_figures = 0.0051 * abs(number)  # what stands without an interval is shown with three figures
            assert as_number(text) == pytest.approx(number, abs=max(0.51 * 10**-digits, three_figures)), (path, shown)


@pytest.mark.parametrize("gae_lambda", [0.0, 0.5, 0.95, 1.0])
def test_numbers_of_a_token_are_those_of_the_data(opened: Page, gae_lambda: float) -> None:
    data = viewer(steps=(0, 10, 20))
    opened.choose("sort", "file")
    place = int(opened.one('#list [aria-selected="true"]').get_attribute("data-place"))
    response = data.responses[place]
    opened.slide("lambda", round(1000 * gae_lambda))
    opened.one(".tokens").send_keys(Keys.END, Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    t = len(response.tokens) - 3
    assert opened.number("token") == t
    rewards = -np.diff(np.asarray(response.returns), append=0.0)[None]
    for critic_place in (0, 1):
        values = torch.tensor(np.asarray(response.values[critic_place], dtype=np.float64))[None]
        advantages = gae_by_recursion(
            torch.tensor(rewards), values, torch.ones_like(values, dtype=torch.bool), gamma=1.0, gae_lambda=gae_lambda
        )
        assert opened.number(f"value-{critic_place}") == pytest.approx(float(values[0, t]), abs=0.0006)
        assert opened.number(f"error-{critic_place}") == pytest.approx(float(values[0, t]) - response.score, abs=0.0011)
        assert opened.number(f"advantage-{critic_place}") == pytest.approx(float(advantages[0, t]), abs=0.0021)
    assert opened.number("return") == response.score
    assert response.logprobs is not None
    assert response.entropy is not None
    assert opened.number("logprob") == pytest.approx(float(response.logprobs[t]), abs=0.0006)
    assert opened.number("entropy") == pytest.approx(float(response.entropy[t]), abs=0.0006)
    assert opened.text("#readout pre") == response.tokens[t].replace("\n", "↵\n")
    assert opened.complaints() == []


def test_the_list_is_sorted_by_what_is_asked_for(opened: Page) -> None:
    data = viewer(steps=(0, 10, 20))
    here = [i for i, one in enumerate(data.responses) if one.step == 20]

    def listed() -> list[int]:
        script = "return [...document.querySelectorAll('#list [data-place]')].map((one) => Number(one.dataset.place))"
        result: list[int] = opened.driver.execute_script(script)
        return result

    opened.choose("sort", "longest")
    assert listed() == sorted(here, key=lambda i: -len(data.responses[i].tokens))
    opened.choose("sort", "shortest")
    assert listed() == sorted(here, key=lambda i: len(data.responses[i].tokens))
    opened.choose("sort", "drop")
    drops = {i: float(np.nanmax(-np.diff(np.asarray(data.responses[i].values[0])))) for i in here}
    assert drops[listed()[0]] == pytest.approx(max(drops.values()), abs=0.002)
    opened.choose("left", 1)
    opened.choose("sort", "error")
    errors = {i: float(np.abs(np.asarray(one.values[1]) - np.asarray(one.returns)).mean())
              for i, one in enumerate(data.responses) if i in here}  # fmt: skip
    assert errors[listed()[0]] == pytest.approx(max(errors.values()), abs=0.002)
    opened.choose("sort", "nan")
    opened.choose("left", 0)
    assert listed()[0] == len(data.responses) - 1


def test_the_slider_goes_over_iterations_and_keeps_the_prompt(opened: Page) -> None:
    opened.choose("sort", "file")
    problem = re.search(r"problem-\d+", opened.text("#about"))
    assert "iteration 20" in opened.text("#about")
    opened.slide("step", 0)
    assert opened.text("#step-shown") == "0"
    assert "iteration 0" in opened.text("#about")
    assert problem is not None
    assert problem.group() in opened.text("#about")


def test_all_of_it_can_be_done_with_keys(opened: Page) -> None:
    opened.press(Keys.TAB)
    assert opened.driver.switch_to.active_element.text == "Skip to the verdict"
    order = []
    for _ in range(60):
        opened.press(Keys.TAB)
        active = opened.driver.switch_to.active_element
        order.append(active.get_attribute("id") or active.get_attribute("class"))
    wanted = ["theme", "copy", "sort", "step", "colour", "lambda", "left", "right", "list", "text tokens"]
    places = [order.index(name) for name in wanted]
    assert places == sorted(places), order

    first = opened.text("#about")
    opened.one("#list").send_keys(Keys.ARROW_DOWN)
    second = opened.text("#about")
    opened.one("#list").send_keys(Keys.ARROW_UP)
    assert first == opened.text("#about") != second

    tokens = opened.one(".tokens")
    tokens.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert opened.number("token") == 2
    tokens.send_keys(Keys.ARROW_DOWN)
    assert opened.number("token") > 4
    tokens.send_keys(Keys.ARROW_UP)
    assert opened.number("token") == 2
    tokens.send_keys(Keys.HOME, Keys.ARROW_LEFT)
    assert opened.number("token") == 0
    now = opened.one(f"#{tokens.get_attribute('aria-activedescendant')}")
    assert "now" in now.get_attribute("class").split()
    assert opened.text("#spoken").startswith("token 0, ")


def test_light_and_dark_follow_the_system_and_the_button(opened: Page) -> None:
    def system(scheme: str) -> None:
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        opened.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    system("light")
    light = opened.background()
    system("dark")
    dark = opened.background()
    assert light == "rgb(255, 255, 255)"
    assert dark != light
    button = opened.one("#theme")
    button.click()
    assert (button.text, opened.background()) == ("Theme: light", light)
    button.click()
    system("light")
    assert (button.text, opened.background()) == ("Theme: dark", dark)
    assert opened.complaints() == []


CONTRAST = """
const channel = (c) => { c /= 255; return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
const pixel = (...layers) => {
  canvas.clearRect(0, 0, 1, 1);
  for (const layer of layers) { canvas.fillStyle = layer; canvas.fillRect(0, 0, 1, 1); }
  return canvas.getImageData(0, 0, 1, 1).data;
};
const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
const poor = [];
for (const element of document.querySelectorAll("body *")) {
  const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
  if (!own || !element.checkVisibility() || element.closest("svg, script, noscript, select, .escape")) continue;
  const behind = [];
  for (let up = element; up; up = up.parentElement) behind.unshift(getComputedStyle(up).backgroundColor);
  const back = light(pixel("white", ...behind)), ink = light(pixel("white", ...behind, getComputedStyle(element).color));
  const ratio = (Math.max(back, ink) + 0.05) / (Math.min(back, ink) + 0.05);
  if (ratio < 4.5) poor.push(`${ratio.toFixed(2)} ${element.tagName} ${element.className} ${element.textContent.slice(0, 30)}`);
}
return poor;
"""  # noqa: E501


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(opened: Page, scheme: str) -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    opened.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    for colour in ("value", "advantage", "logprob"):
        opened.choose("colour", colour)
        assert opened.driver.execute_script(CONTRAST) == []


def test_hostile_text_is_shown_and_runs_nothing(driver: Any, tmp_path: Path) -> None:
    nasty = "".join(text for text in HOSTILE[:7] if "\ud800" not in text)
    base = report()
    described = base.verdicts[0].model_copy(
        update={"title": nasty, "sentence": nasty, "advice": nasty, "critic": nasty}
    )
    hurt = base.model_copy(
        update={
            "verdicts": (described,),
            "critics": (critic("reward-model", bad=True).model_copy(update={"name": nasty, "notes": (nasty,)}),),
            "data": base.data.model_copy(update={"source": nasty, "notes": (nasty,)}),
            "provenance": base.provenance.model_copy(update={"command": nasty}),
        }
    )
    write_report(hurt, hostile(), tmp_path)
    opened = Page(driver, (tmp_path / "index.html").as_uri())
    for key in (Keys.ARROW_RIGHT,) * len(HOSTILE):
        opened.one(".tokens").send_keys(key)
    assert driver.execute_script("return window.hacked === undefined")
    assert driver.execute_script("return document.querySelectorAll('img, iframe, script').length") == 3
    assert (opened.complaints(), opened.requests()) == ([], [])
    shown = opened.text(".tokens")
    for text in ("</script><script>window.hacked = 1</script>", "<!--<script>", "{{ 7 * 7 }}", "[U+0000]", "[U+001B]",
                 "[U+202E]desrever[U+2066]", "[U+2028]", "[U+D800] lone [U+DFFF]", "[U+FEFF]", "[empty]"):  # fmt: skip
        assert text in shown
    assert opened.text("#readout pre") == "W" * 200_000
    assert len(shown) < 5_000  # in the text itself a long token is cut
    for selector in ("#verdict", "#responses", "#provenance", "header", "#prompt", "#about"):
        assert re.search(r"[\u202a-\u202e\u2066-\u2069\u2028\u2029\x00-\x08]", opened.text(selector)) is None, selector


def test_settings_are_copied_or_selected_and_the_json_saved(opened: Page) -> None:
    opened.driver.execute_script("document.querySelector('.copy').click()")
    ui.WebDriverWait(opened.driver, 10).until(lambda _: opened.text(".copy") in ("Copied", "Selected"))
    saved = opened.driver.execute_async_script("""
      const done = arguments[0];
      HTMLAnchorElement.prototype.click = function () {
        window.saved = [this.download, this.href.slice(0, 5)];
      };
      document.getElementById("save").click();
      done(window.saved);
    """)
    assert saved == ["report.json", "blob:"]
    assert (opened.complaints(), opened.requests()) == ([], [])


def test_even_a_script_that_got_in_would_not_run(opened: Page) -> None:
    blocked = """
      const script = document.createElement("script");
      try { script.textContent = "window.hacked = 1"; document.body.append(script); } catch { }
      try { document.body.insertAdjacentHTML("beforeend", "<img src=x onerror='window.hacked = 1'>"); } catch { }
      return window.hacked === undefined;
    """
    assert opened.driver.execute_script(blocked)
    opened.complaints()  # it does complain of these


def test_two_hundred_long_responses_are_small_and_drawn_at_once(driver: Any, tmp_path: Path) -> None:
    write_report(report(), viewer(200, 2000), tmp_path)
    size = (tmp_path / "index.html").stat().st_size
    driver.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})  # of the processor, whatever else runs
    opened = Page(driver, (tmp_path / "index.html").as_uri())
    ready, began = opened.root("data-ready-at"), opened.busy()
    opened.one("#list").send_keys(Keys.ARROW_DOWN)
    driver.execute_script("document.body.getBoundingClientRect()")
    drawn = opened.busy() - began
    driver.execute_cdp_cmd("Performance.disable", {})
    print(
        f"\n200 responses of 2,000 tokens: {size / 1e6:.2f} MB; to the first response {1000 * began:.0f} ms of "
        f"processor ({ready} ms passed), to the next {1000 * drawn:.0f} ms"
    )
    assert size < 5_000_000
    assert began < DRAWN_IN
    assert drawn < DRAWN_IN
    assert driver.execute_script("return document.querySelector('.tokens').querySelectorAll('.t').length") == 2000


def test_a_response_of_twenty_thousand_tokens_is_paged(driver: Any, tmp_path: Path) -> None:
    long = viewer(1, 20_000)
    write_report(report(), long, tmp_path)
    opened = Page(driver, (tmp_path / "index.html").as_uri())
    assert opened.text("#page-shown") == "tokens 0 to 3,999 of 20,000"
    opened.one("#later").click()
    assert opened.text("#page-shown") == "tokens 4,000 to 7,999 of 20,000"
    opened.one(".tokens").send_keys(Keys.END)
    assert opened.number("token") == 19_999
    assert opened.complaints() == []


@pytest.mark.parametrize("critics", [0, 1, 3])
def test_any_number_of_critics(driver: Any, tmp_path: Path, critics: int) -> None:
    numbers = np.linspace(-1, 1, 6)
    one = ViewedResponse("p", "prompt", ("a", "b", "c", "d", "e", "f"), 1.0, (numbers,) * critics, numbers * 0 + 1)
    empty = ViewedResponse("p", "prompt", (), float("nan"), (numbers[:0],) * critics, numbers[:0])
    write_report(report(), ViewerData(tuple("xyz"[:critics]), (one, empty)), tmp_path)
    opened = Page(driver, (tmp_path / "index.html").as_uri())
    opened.choose("sort", "shortest")
    opened.choose("sort", "longest")
    assert len(opened.driver.find_elements(By.CSS_SELECTOR, ".tokens")) == (1 if critics < 2 else 2)
    assert opened.number("return") == 1.0
    assert opened.complaints() == []


def test_a_page_without_responses_says_so(driver: Any, tmp_path: Path) -> None:
    bare = report().model_copy(update={"critics": (), "verdicts": ()})
    write_report(bare, ViewerData((), ()), tmp_path)
    opened = Page(driver, (tmp_path / "index.html").as_uri())
    assert "No responses were put into this page." in opened.text("#responses")
    assert (opened.complaints(), opened.requests()) == ([], [])

"""What the README and other pages name must exist: files, commands, settings, studies, code, defaults."""

import itertools
import re
import shlex
from pathlib import Path
from typing import Any

import click
import pytest

from vcppo.cli.main import main
from vcppo.errors import ConfigError
from vcppo.settings.loading import flatten, known_names, load_settings, nest, parse_assignment
from vcppo.settings.methods import METHODS
from vcppo.settings.renamed import CURRENT
from vcppo.settings.run import RunSettings
from vcppo.studies.study import load_study
from vcppo.studies.verl.names import MAPPED

ROOT = Path(__file__).resolve().parents[2]
BESIDE = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "analysis/README.md", "results/README.md")
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in (*(ROOT / name for name in BESIDE), *sorted((ROOT / "docs").glob("*.md")))
}
README, METHODS_PAGE = PAGES["README.md"], PAGES["docs/methods.md"]


def blocks(text: str, kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)


def prose(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


def commands_of(text: str) -> set[str]:
    console = [line.split("#")[0].strip() for block in blocks(text, "console") for line in block.splitlines()]
    return {*filter(None, console), *re.findall(r"`((?:vcppo|make) [^`]+)`", prose(text))}


COMMANDS = sorted(set().union(*map(commands_of, PAGES.values())))
SETTING_NAMES = [command for command in COMMANDS if command.startswith("vcppo ") and "--set" in command]
NAMES = known_names()


@pytest.mark.parametrize("page", PAGES)
def test_every_linked_file_and_heading_exists(page: str) -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", PAGES[page]) if not link.startswith("http")]
    assert not [link for link in links if not leads_somewhere(page, link)]


def leads_somewhere(page: str, link: str) -> bool:
    name, _, heading = link.partition("#")
    file = (ROOT / page).parent.joinpath(name) if name else ROOT / page
    return file.exists() and (not heading or heading in anchors(file.read_text(encoding="utf-8")))


def anchors(text: str) -> set[str]:
    """As GitHub makes them of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_there_are_pages_commands_and_links_to_check() -> None:
    assert {"README.md", "docs/methods.md", "docs/speed.md"} <= PAGES.keys()
    assert len(SETTING_NAMES) > len(METHODS)
    assert all("](" in text for text in (README, METHODS_PAGE))


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("vcppo ")])
def test_every_vcppo_command_and_option_exists(command: str) -> None:
    words = shlex.split(command)[1:]
    found: click.Command = main
    while isinstance(found, click.Group) and words and not words[0].startswith("-"):
        name = words.pop(0)
        assert name in found.commands, f"no command {name}"
        found = found.commands[name]
    options = {option for parameter in found.params for option in parameter.opts}
    assert {word for word in words if word.startswith("-")} <= options


@pytest.mark.parametrize("command", SETTING_NAMES)
def test_what_every_command_sets_is_accepted(command: str) -> None:
    load_settings(None, assignments_of(command))


def assignments_of(command: str) -> list[str]:
    words = shlex.split(command)
    return [after for word, after in itertools.pairwise(words) if word == "--set"]


@pytest.mark.parametrize(
    "study", sorted({s for text in PAGES.values() for s in re.findall(r"vcppo sweep ([a-z][a-z-]*)`", text)})
)
def test_every_study_exists(study: str) -> None:
    assert load_study(study).name == study


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\bmake ([a-z]+)", "\n".join(COMMANDS)))))
def test_every_make_target_exists(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)


@pytest.mark.parametrize("code", blocks(README, "python"))
def test_the_code_it_shows_runs(code: str) -> None:
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["returns"].tolist() == [[1.0, 1.0, 1.0]]


@pytest.mark.parametrize("page", PAGES)
def test_no_number_is_left_to_be_filled_in(page: str) -> None:
    assert not re.findall(r"\b(?:HEADLINE|MEASURED|REPRODUCED|FORCED|\w+_MINUTES|COST_[\w-]+)\b", PAGES[page])


@pytest.mark.parametrize("page", PAGES)
def test_every_setting_named_in_passing_exists(page: str) -> None:
    sections = {name.split(".")[0] for name in NAMES if "." in name}
    named = {word.partition("=")[0] for word in re.findall(r"`([a-z_]+\.[a-z_]+(?:=[^`]*)?)`", PAGES[page])}
    # Former names are what the changelog tells of.
    verls = {word.lstrip("+") for row in MAPPED.values() for word in (*row.rl, *row.pretraining)}  # critic.enable
    assert not {name for name in named if name.split(".")[0] in sections} - set(NAMES) - verls - set(CURRENT)


# docs/methods.md: what it says of a method is what the method's settings are.

REFUSALS = [
    pair
    for page in ("docs/methods.md", "docs/quickstart.md")
    for block in blocks(PAGES[page], "text")
    for pair in re.findall(r"^\$ (.+)\n(.+)$", block, re.MULTILINE)
]
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", METHODS_PAGE, re.DOTALL | re.MULTILINE))
METHOD_PAGES = {title: re.findall(r"`([^`]+)`", title) for title in SECTIONS if "`" in title}


def tables(text: str) -> list[list[list[str]]]:
    """Each table as its rows of cells, the header first, without the rule under it."""
    found = []
    for lines in re.findall(r"(?:^\|.*\|$\n?)+", text, flags=re.MULTILINE):
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines.splitlines()]
        found.append([rows[0], *rows[2:]])
    return found


SLOTS, OVERVIEW = tables(METHODS_PAGE)[:2]


def slots_of(method: str) -> list[str]:
    """The slots of the settings that a method names: of the most exact name in the table of slots."""
    owner = {name: slot for slot, names, _ in SLOTS[1:] for name in re.findall(r"`([^`]+)`", names)}
    filled = {owner.get(name) or owner[name.split(".")[0]] for name in METHODS[method].settings}
    return [slot for slot, _, _ in SLOTS[1:] if slot in filled]


def resolved(method: str) -> RunSettings:
    return load_settings(None, [f"method={method}"])


@pytest.mark.parametrize(("command", "message"), REFUSALS)
def test_what_is_shown_as_refused_is_refused_in_these_words(command: str, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load_settings(None, assignments_of(command))
    assert f"ConfigError: {refused.value}" == message


def test_every_method_has_its_page_once_and_every_refusal_is_seen() -> None:
    assert sorted(name for names in METHOD_PAGES.values() for name in names) == sorted(METHODS)
    assert len(REFUSALS) >= 4


@pytest.mark.parametrize("title", METHOD_PAGES)
def test_a_page_has_equation_slots_command_and_what_is_different(title: str) -> None:
    body, methods = SECTIONS[title], METHOD_PAGES[title]
    assert blocks(body, "text")
    assert {"**Different here.**", "**Traps.**", "**Use it**"} <= set(re.findall(r"\*\*[^*]+\*\*", body))
    assert re.search(r"arXiv \d{4}\.\d{5}", body)
    commands = commands_of(body)
    assert {f"vcppo train --set method={name}" for name in methods} & commands or "vcppo train" in commands
    filled = {slot for name in methods for slot in slots_of(name)}
    said = re.search(r"^Slots: (.+?)[.;]", body, flags=re.MULTILINE)
    assert said is not None
    assert said[1].split(", ") == ([slot for slot, _, _ in SLOTS[1:] if slot in filled] or ["none"])


@pytest.mark.parametrize("title", METHOD_PAGES)
def test_every_default_in_a_page_is_what_its_methods_resolve_to(title: str) -> None:
    (table,) = tables(SECTIONS[title])
    assert table[0] == ["setting", "default here", "published", "source"]
    for name, default, published, source in table[1:]:
        assert published
        assert source
        name = name.strip("`")
        apart = dict(re.findall(r"`([^`]+)` ([^,]+)", default))
        for method in METHOD_PAGES[title]:
            said = nest(dict([parse_assignment(f"{name}={apart.get(method, default)}")]), title)
            assert flatten(said)[name] == flatten(resolved(method).model_dump())[name], (method, name)


@pytest.mark.parametrize("title", METHOD_PAGES)
def test_a_page_lists_every_setting_that_its_methods_name(title: str) -> None:
    (table,) = tables(SECTIONS[title])
    listed = [row[0].strip("`") for row in table[1:]]
    assert not {name for method in METHOD_PAGES[title] for name in METHODS[method].settings} - set(listed)
    assert len(listed) == len(set(listed))


def test_the_overview_is_of_all_methods_in_their_order() -> None:
    assert [row[0].strip("`") for row in OVERVIEW[1:]] == list(METHODS)


@pytest.mark.parametrize("row", OVERVIEW[1:], ids=lambda row: row[0].strip("`"))
def test_a_row_of_the_overview_is_what_the_method_resolves_to(row: list[str]) -> None:
    name, slots, critic, responses, models = row
    method = name.strip("`")
    settings = resolved(method)
    assert slots == (", ".join(slots_of(method)) or "none")
    kinds = {
        "no": not settings.has_critic,
        "pretrained, frozen": settings.critic.update_every == "never",
        "pretrained": settings.pretrain.steps != 0,
        "trained": True,
    }
    assert critic == next(kind for kind, is_so in kinds.items() if is_so)
    assert responses == f"{settings.rollout.samples_per_prompt}{', needed' if needs_a_group(method) else ''}"
    needed = {
        "reward model": settings.has_critic and settings.critic.init == "reward-model",
        "reference": settings.needs_reference,
        "DPO policy": settings.token_reward.kind != "none",
    }
    assert models == (", ".join(model for model, is_so in needed.items() if is_so) or "–")


def needs_a_group(method: str) -> bool:
    try:
        load_settings(None, [f"method={method}", "rollout.samples_per_prompt=1", "rollout.prompts=96"])
    except ConfigError as error:
        return "compares responses to one question" in str(error)
    return False


# How long things take: told in several places, and one number in each.

PLACES = {
    **{page: PAGES[page] for page in ("README.md", "CONTRIBUTING.md", "docs/quickstart.md")},
    "Makefile": (ROOT / "Makefile").read_text(encoding="utf-8"),
    "vcppo --help": main.help or "",
}
FOR_USERS, FOR_DEVELOPERS = {*PLACES} - {"CONTRIBUTING.md"}, {"README.md", "CONTRIBUTING.md", "Makefile"}


@pytest.mark.parametrize(
    ("commands", "minutes", "places"),
    [
        ("make try|sweep try", "2", FOR_USERS),
        ("make sweep|sweep components", "13", FOR_USERS),
        ("make test", "14", FOR_DEVELOPERS),
    ],
)
def test_every_place_says_the_same_minutes(commands: str, minutes: str, places: set[str]) -> None:
    said = {place: re.findall(rf"(?:{commands})\b.*?(\w+) minutes", text) for place, text in PLACES.items()}
    assert said == {place: [minutes] if place in places else [] for place in PLACES}


# docs/architecture.md: what it says stands in a file stands there.

ARCHITECTURE = PAGES["docs/architecture.md"]
PLACES_OF = [row for row in tables(ARCHITECTURE)[1][1:] if "`" in row[1]]


@pytest.mark.parametrize("row", PLACES_OF, ids=lambda row: row[0])
def test_what_is_named_stands_in_a_file_that_is_linked_beside_it(row: list[str]) -> None:
    links = [ROOT / "docs" / link for link in re.findall(r"\]\(([^)]+)\)", row[1])]
    files = [file for link in links for file in (sorted(link.rglob("*.py")) if link.is_dir() else [link])]
    code = "\n".join(file.read_text(encoding="utf-8") for file in files)
    for name in re.findall(r"`(\w+)`", row[1]):
        assert re.search(rf"^\s*(?:def|class) {name}\b", code, flags=re.MULTILINE), name


def test_the_glossary_has_one_row_for_a_term() -> None:
    terms = [term for row in tables(ARCHITECTURE)[-1][1:] for term in re.split(", ", row[0])]
    assert len(terms) == len(set(terms)) >= 40

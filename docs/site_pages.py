"""Parts of the documentation site beside the pages in docs/: generated pages, and the files that pages link to.

Pages link to each other and to the repository's files as GitHub shows them. Here a link that leads out of docs/ leads
to a copy of that file, so that the site is whole by itself and `mkdocs build --strict` knows a link that leads nowhere.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from mkdocs.structure.files import File, Files

from vcppo.cli.main import main

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(?<=\]\()([^)#\s]+)(?=[)#])")
PAGES = {  # of the repository, under a name of their own
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "results/README.md": "results-files.md",
    "results/figures/captions.md": "captions.md",
    "analysis/README.md": "figures.md",
}
SOURCES = {target: source for source, target in PAGES.items() if source != "README.md"}  # home is docs/index.md
ROOMS = {  # the reference: modules of these packages, by what a page of them is called
    "maths": "Maths: pure functions, values in, values out",
    "settings": "Settings as objects",
    "rl": "One iteration of RL",
    "tasks": "Tasks: what is asked, and how a response is scored",
    "engines": "Engines: who generates",
    "analysis": "Figures and tables",
}
BASE_ALONE = ("tasks", "engines")  # the interface that others fill; the rest of these rooms is no interface
LANGUAGES = {".py": "python", ".toml": "toml", ".yaml": "yaml", ".yml": "yaml", ".sbatch": "bash", ".csv": "text"}


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages, and everything that a page links to outside docs/."""
    made = {
        target: (ROOT / source).read_text(encoding="utf-8") for source, target in PAGES.items() if target != "index.md"
    }
    made["settings.md"] = settings_page()
    made |= {f"api/{room}.md": reference_page(room) for room in ROOMS}
    sources = {f"docs/{file.src_uri}": file.content_string for file in files.documentation_pages()}
    sources |= {source: made[target] for target, source in SOURCES.items()}
    linked = {path for page, text in sources.items() for path in links_of(page, text)}
    for path in sorted(linked):
        add_copy(files, config, path)
    for target, text in made.items():
        files.append(File.generated(config, target, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Turn links as GitHub understands them into links within the site."""
    target = page.file.src_uri
    return LINK.sub(lambda match: within_site(match[1], SOURCES.get(target, f"docs/{target}"), target), markdown)


def links_of(page: str, text: str) -> set[str]:
    """The files of the repository outside docs/ that a page of it links to."""
    found = {resolved(link, page) for link in LINK.findall(without_code(text)) if is_local(link)}
    return {path for path in found if not path.startswith("docs/") and path not in PAGES}


def is_local(link: str) -> bool:
    """True where a link leads to a file."""
    return not re.match(r"[a-z]+:", link)


def without_code(text: str) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


def resolved(link: str, page: str) -> str:
    """The path in the repository of what a page of it links to."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), link))


def within_site(link: str, source: str, target: str) -> str:
    """A link of a page whose file is `source`, as a link of `target` in the site."""
    if not is_local(link):
        return link
    path = resolved(link, source)
    place = PAGES.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else place_of(path))
    return posixpath.relpath(place, posixpath.dirname(target) or ".")


def place_of(path: str) -> str:
    """Return the place in the site of a copy of a file of the repository."""
    return f"files/{path}" if Path(path).suffix in (".png", ".pdf") else f"files/{path}.md"


def add_copy(files: Files, config: Any, path: str) -> None:
    """A picture as it is, a text as a page, a folder as a list of what is in it."""
    file, place = ROOT / path, place_of(path)
    if not file.exists():
        return  # the link is left to lead nowhere, which is a warning and so an error
    if file.is_dir():
        text = "\n".join(["", *(f"- `{child.name}`" for child in sorted(file.iterdir()) if child.name[0] not in "._")])
    elif place.endswith(".md"):
        content = file.read_text(encoding="utf-8")
        text = content if path.endswith(".md") else f"```{LANGUAGES.get(file.suffix, 'text')}\n{content}\n```"
    else:
        files.append(File.generated(config, place, abs_src_path=str(file)))
        return
    hidden = "---\nsearch:\n  exclude: true\n---\n"
    files.append(File.generated(config, place, content=f"{hidden}# {path}\n\n{text}\n"))


def settings_page() -> str:
    """Every setting with its default, from what `vcppo settings` prints."""
    printed = CliRunner().invoke(main, ["settings"], catch_exceptions=False).stdout
    head = (
        "# Settings\n\nEvery setting with its default, as `vcppo settings` prints them: `--set NAME=VALUE` changes one,"
    )
    lines = [f"{head} a TOML file many. Methods set some of them ([methods](methods.md)).", ""]
    table = False
    for line in printed.splitlines():
        if line.startswith("# "):
            lines += ["", f"## {line[2:].rstrip('.')}", ""]
            table = False
        elif match := re.fullmatch(r"(\S+) = (.*?)\s+# (.*)", line):
            lines += [] if table else ["| setting | default | |", "|---|---|---|"]
            table = True
            name, value, words = (text.replace("|", "\\|") for text in match.groups())
            lines.append(f"| `{name}` | `{value}` | {words} |" if value else f"| `{name}` | | {words} |")
    return "\n".join(lines)


def reference_page(room: str) -> str:
    """The docstrings of a room's modules."""
    names = sorted(file.stem for file in (ROOT / "vcppo" / room).glob("*.py") if not file.stem.startswith("_"))
    chosen = ["base"] if room in BASE_ALONE else names
    return "\n\n".join([f"# {ROOMS[room]}", *(f"::: vcppo.{room}.{name}" for name in chosen)]) + "\n"

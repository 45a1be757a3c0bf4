"""A recipe is named as a study is: bare, wherever vcppo is installed."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from vcppo.cli.main import main
from vcppo.cli.recipes import recipe_names, settings_file
from vcppo.errors import ConfigError

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_every_recipe_has_a_name() -> None:
    assert recipe_names() == sorted(path.stem for path in (ROOT / "recipes").glob("*.toml"))
    assert [settings_file(name).read_text() for name in recipe_names()] == [
        (ROOT / "recipes" / f"{name}.toml").read_text() for name in recipe_names()
    ]


def test_a_file_of_that_name_comes_first(tmp_path: Path) -> None:
    (tmp_path / recipe_names()[0]).write_text("")
    assert settings_file(recipe_names()[0]) == Path(recipe_names()[0])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("qwen2.5-7b", "no such file and no recipe of that name; did you mean qwen2.5-7b-8gpu?"),
        ("mine", "no such file and no recipe of that name; there are qwen2.5-1.5b-1gpu, "),
        ("mine.toml", "no such file"),
        ("recipes/qwen2.5-7b-8gpu.toml", "no such file; did you mean the recipe qwen2.5-7b-8gpu?"),
    ],
)
def test_what_is_neither_is_refused_with_what_was_likely_meant(text: str, words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        settings_file(text)
    assert str(refused.value).startswith(f"{text}: {words}")


@pytest.mark.parametrize("command", [["plan"], ["settings", "--config"], ["train", "--dry-run", "--config"]])
def test_commands_take_the_name(command: list[str]) -> None:
    done = CliRunner().invoke(main, [*command, "qwen2.5-1.5b-1gpu"])
    assert done.exit_code == 0, done.output
    assert "Qwen/Qwen2.5-1.5B" in done.output

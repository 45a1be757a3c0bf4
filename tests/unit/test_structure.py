"""Modules are short or say why not; a fact, a function and a name stand in one module each."""

import ast
import symtable
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODULES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for folder in ("vcppo", "bench", "tests")
    for path in sorted((ROOT / folder).rglob("*.py"))
}
PACKAGE = {name: text for name, text in MODULES.items() if name.startswith("vcppo/")}
LONGEST = 400  # lines of a module that does not say why it has more

# What stands in several modules of vcppo, by name, and why.
CONSTANTS = {
    "T": "a type variable is of the module whose functions it is in",
    "VERSION": "of formats and of an address, each raised by itself",
}
FUNCTIONS = {"__enter__": "two progress bars with other columns, one of an evaluation and one of a diagnosis"}

Pair = tuple[str, str]


def is_too_long(text: str) -> bool:
    """True for more lines than a module may have that does not say why in the first line of its docstring."""
    summary = (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]
    return len(text.splitlines()) > LONGEST and "long because" not in summary


def constants(text: str) -> Iterator[Pair]:
    """(name without its underscore, value) of names in capitals."""
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                names, values = [target], [node.value]
                if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                    names, values = target.elts, node.value.elts
                for name, value in zip(names, values, strict=True):
                    if isinstance(name, ast.Name) and name.id.isupper():
                        yield name.id.lstrip("_"), ast.unparse(value)


def functions(text: str) -> Iterator[Pair]:
    """(name, body without its docstring) of functions and methods of more than a line."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body if ast.get_docstring(node) is None else node.body[1:]
            if body and body[-1].end_lineno != body[0].lineno:
                yield node.name, "\n".join(map(ast.unparse, body))


def repeated_constants(modules: Mapping[str, str]) -> dict[str, list[str]]:
    """Name -> modules that give it the same value."""
    places = defaultdict(list)
    for module, text in modules.items():
        for constant in dict.fromkeys(constants(text)):
            places[constant].append(module)
    return {name: found for (name, _), found in places.items() if len(found) > 1}


def repeated_functions(modules: Mapping[str, str]) -> dict[str, list[str]]:
    """Name of the first -> all functions of one body, as module:name."""
    places = defaultdict(list)
    for module, text in modules.items():
        for name, body in functions(text):
            places[body].append((module, name))
    return {found[0][1]: [f"{module}:{name}" for module, name in found] for found in places.values() if len(found) > 1}


@cache
def imported(text: str) -> set[str]:
    """Names that a module has at its top level by importing them."""
    return {name.get_name() for name in symtable.symtable(text, "", "exec").get_symbols() if name.is_imported()}


def imported_from_elsewhere(text: str, package: Mapping[str, str]) -> Iterator[str]:
    """What a module imports of the package from modules that have imported it themselves."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            path = node.module.replace(".", "/")
            source = package.get(f"{path}.py", package.get(f"{path}/__init__.py", ""))
            yield from (f"{node.module}.{name.name}" for name in node.names if name.name in imported(source))


def test_a_module_is_short_or_says_why_it_is_not() -> None:
    assert [name for name, text in MODULES.items() if is_too_long(text)] == []


def test_a_constant_stands_in_one_module() -> None:
    assert repeated_constants(PACKAGE).keys() == CONSTANTS.keys()


def test_a_function_stands_in_one_module() -> None:
    assert repeated_functions(PACKAGE).keys() == FUNCTIONS.keys()


def test_a_name_is_imported_from_where_it_is_defined() -> None:
    found = {module: list(imported_from_elsewhere(text, PACKAGE)) for module, text in MODULES.items()}
    assert {module: names for module, names in found.items() if names} == {}


def test_what_is_wrong_is_found() -> None:
    assert is_too_long('"""A module."""\n' + "x = 1\n" * LONGEST)
    assert not is_too_long('"""A module; long because it is a table."""\n' + "x = 1\n" * LONGEST)
    package = {
        "vcppo/a.py": "SIZE = 3\ndef f(x):\n    y = x\n    return y\n",
        "vcppo/b.py": 'from vcppo.a import f\n_SIZE: int = 3\ndef g(x):\n    """Copy."""\n    y = x\n    return y\n',
        "vcppo/c.py": "OTHER, SIZE = 1, 3\ndef h(x): return x\n",
    }
    assert repeated_constants(package) == {"SIZE": ["vcppo/a.py", "vcppo/b.py", "vcppo/c.py"]}
    assert repeated_functions(package) == {"f": ["vcppo/a.py:f", "vcppo/b.py:g"]}
    assert list(imported_from_elsewhere("from vcppo.b import f, g", package)) == ["vcppo.b.f"]

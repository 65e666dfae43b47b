"""The pages for contributors name only files, names and tests that exist."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from configparser import ConfigParser
from functools import cache
from pathlib import Path

import pytest

from flask_m9m.settings.paths import LEAVES, SECTIONS

ROOT = Path(__file__).parents[2]
ARCHITECTURE, CONTRIBUTING = ROOT / "docs" / "architecture.md", ROOT / "CONTRIBUTING.md"
PAGES = pytest.mark.parametrize("page", [ARCHITECTURE, CONTRIBUTING], ids=lambda page: page.name)

_FOLDERS = "flask_m9m|tests|docs|scripts|benchmarks|examples"
_PATH = re.compile(rf"(?<![\w/.])(?:{_FOLDERS}|\.ci)/[\w./-]*[\w/]")
_TEST = re.compile(r"(tests/[\w./]+\.py)::(\w+)")
_DOTTED = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+")
_DOCUMENT = re.compile(r"[\w.]+\.(?:md|cfg|toml|yaml|py)")
_NAMES_OF_OTHERS = {"app.config", "op.add_column", "op.create_index"}


class Package:
    """The names that the package's source defines.

    Attributes:
        modules: the names at the top of each module, by its dotted path.
        classes: the attributes of each class, by its name.
        bases: the names of each class's bases.
    """

    def __init__(self) -> None:
        self.modules: dict[str, set[str]] = {}
        self.classes: defaultdict[str, set[str]] = defaultdict(set)
        self.bases: defaultdict[str, set[str]] = defaultdict(set)
        for file in (ROOT / "flask_m9m").rglob("*.py"):
            parts = file.relative_to(ROOT).with_suffix("").parts
            dotted = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            tree = ast.parse(file.read_text())
            self.modules[dotted] = {name for node in tree.body for name in _names_in(node)}
            for node in ast.walk(tree):
                if isinstance(node, ast.ClassDef):
                    self._add(node)

    def _add(self, found: ast.ClassDef) -> None:
        for node in ast.walk(found):
            match node:
                case ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store()):
                    self.classes[found.name].add(name)
        self.classes[found.name] |= {name for node in found.body for name in _names_in(node)}
        self.bases[found.name] |= {base.id for base in found.bases if isinstance(base, ast.Name)}

    def has_attribute(self, class_name: str, attribute: str) -> bool:
        """Tell whether a class or one of its bases in the package has an attribute."""
        if attribute in self.classes.get(class_name, ()):
            return True
        return any(self.has_attribute(base, attribute) for base in self.bases[class_name])

    def has(self, dotted: str) -> bool:
        """Tell whether a name such as `Guard.begin`, `csrf.check` or `flask_m9m.errors` exists."""
        owner, _, name = dotted.rpartition(".")
        if dotted in self.modules or name in self.modules.get(owner, ()):
            return True
        if owner == "m9m":
            return self.has_attribute("M9M", name)
        if self.has_attribute(owner, name):
            return True
        return any(
            name in names
            for module, names in self.modules.items()
            if module.rpartition(".")[2] == owner
        )


def _names_in(node: ast.stmt) -> Iterator[str]:
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            yield node.name
        case ast.Assign():
            for target in node.targets:
                yield from (name.id for name in ast.walk(target) if isinstance(name, ast.Name))
        case ast.AnnAssign(target=ast.Name(id=name)):
            yield name
        case ast.ImportFrom() | ast.Import():
            yield from (alias.asname or alias.name for alias in node.names)


package = cache(Package)


def _spans(page: Path) -> list[str]:
    """Return the code spans of a page, without its blocks of code."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL))


@PAGES
def test_every_path_exists(page: Path) -> None:
    paths = set(_PATH.findall(page.read_text()))
    assert len(paths) > 30
    assert {path for path in paths if not (ROOT / path).exists()} == set()


@PAGES
def test_every_test_exists(page: Path) -> None:
    tests = set(_TEST.findall(page.read_text()))
    assert tests
    missing = [
        f"{path}::{name}"
        for path, name in tests
        if not re.search(rf"^def {name}\(", (ROOT / path).read_text(), re.MULTILINE)
    ]
    assert missing == []


@PAGES
def test_every_dotted_name_exists(page: Path) -> None:
    names = {span for span in _spans(page) if _DOTTED.fullmatch(span)} - _NAMES_OF_OTHERS
    unknown = {
        name
        for name in names
        if not (name in LEAVES or name in SECTIONS or package().has(name))
        and not (_DOCUMENT.fullmatch(name) and _is_file(name))
    }
    assert unknown == set()


@PAGES
def test_every_class_exists(page: Path) -> None:
    names = {span for span in _spans(page) if re.fullmatch(r"[A-Z][a-z]\w*[A-Z]?\w*", span)}
    elsewhere = {"Double", "MultiFernet"}  # of SQLAlchemy, of the package cryptography
    assert names - elsewhere - package().classes.keys() == set()


def test_the_picture_has_the_floors_of_the_import_contract() -> None:
    contract = ConfigParser()
    contract.read(ROOT / "setup.cfg")
    layers = contract["importlinter:contract:layers"]["layers"].strip().splitlines()
    diagram = re.search(r"```mermaid\n(.*?)```", ARCHITECTURE.read_text(), re.DOTALL)
    assert diagram
    floors = re.findall(r"subgraph (\w+)\[\"(\d) .*?\n(.*?)\n +end\n", diagram[1], re.DOTALL)
    drawn = [set(re.findall(r"^ +(\w+)\[", rooms, re.MULTILINE)) for _, _, rooms in floors]
    assert drawn == [set(re.findall(r"\w+", layer)) for layer in layers]
    assert [number for _, number, _ in floors] == list("987654321")
    assert " --> ".join(name for name, _, _ in floors) in diagram[1]


def test_the_page_for_contributors_stays_short() -> None:
    assert len(CONTRIBUTING.read_text().splitlines()) <= 150


def _is_file(name: str) -> bool:
    return any((folder / name).exists() for folder in (ROOT, ROOT / "docs"))

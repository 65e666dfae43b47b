"""The layout of the package: what keeps it livable (docs/architecture.md)."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import grimp
import pytest

import flask_m9m

PACKAGE = Path(flask_m9m.__file__).parent
MODULES = [
    path
    for path in sorted(PACKAGE.rglob("*.py"))
    if "migrations" not in path.relative_to(PACKAGE).parts
]
PROMISED = (
    "from flask_m9m.testing import Clock, make_settings",
    "from flask_m9m.columns import EncryptedJSON, EncryptedString, rotate",
    "import flask_m9m.serve",
    "from flask_m9m.errors import InvalidCredentials, M9MError, NotFound, SettingsError",
    "from flask_m9m.openapi import merge",
    "from flask_m9m.signals import authenticated, token_revoked",
    "from flask_m9m.storage import include_name",
    "from flask_m9m.credentials import SYSTEM",
    "from flask_m9m.cli import m9m",
)


def test_no_imports_form_a_cycle_counting_those_for_type_checking() -> None:
    graph = grimp.build_graph("flask_m9m", exclude_type_checking_imports=False)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    list(TopologicalSorter(imports).static_order())


def test_the_package_has_at_most_eighteen_rooms() -> None:
    rooms = [
        path
        for path in PACKAGE.iterdir()
        if (path / "__init__.py").exists() or (path.suffix == ".py" and path.stem != "__init__")
    ]
    assert len(rooms) <= 18, sorted(room.name for room in rooms)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_says_what_it_is_and_stays_short(path: Path) -> None:
    text = path.read_text("utf-8")
    tree = ast.parse(text)
    assert ast.get_docstring(tree)
    assert len(text.splitlines()) <= 400
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    long = [
        node.name
        for node in ast.walk(tree)
        if isinstance(node, functions) and (node.end_lineno or 0) - node.lineno >= 50
    ]
    assert long == []


@pytest.mark.parametrize("statement", PROMISED)
def test_a_promised_path_can_be_imported_first(statement: str) -> None:
    subprocess.run([sys.executable, "-c", statement], check=True)

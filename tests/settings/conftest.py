from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flask_m9m.errors import Problem, SettingsError
from flask_m9m.settings import Loaded, files, load

Load = Callable[..., Loaded]
Problems = Callable[..., list[Problem]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory, with an empty home and no system-wide file."""
    monkeypatch.setattr(files, "SYSTEM_FILE", tmp_path / "etc" / "config.yaml")
    work = tmp_path / "work"
    work.mkdir()
    (tmp_path / "home").mkdir()
    return work


@pytest.fixture
def loading(folder: Path) -> Load:
    """Return `load`, reading nothing but what the test provides."""

    def load_here(settings: Any = None, **sources: Any) -> Loaded:
        environ = sources.pop("environ", {})
        return load(settings, environ=environ, cwd=folder, home=folder.parent / "home", **sources)

    return load_here


@pytest.fixture
def problems(loading: Load) -> Problems:
    """Return a function that loads and hands back the problems it meets."""

    def problems_of(settings: Any = None, **sources: Any) -> list[Problem]:
        with pytest.raises(SettingsError) as caught:
            loading(settings, **sources)
        return list(caught.value.problems)

    return problems_of

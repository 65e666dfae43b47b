from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from werkzeug.test import Client

from flask_m9m import M9MMiddleware
from flask_m9m.settings import Settings, load
from flask_m9m.settings.paths import LEAVES, get

ROOT = Path(__file__).parents[2]
LANGUAGES = ("python", "yaml")


def test_the_documented_settings_are_all_of_them_with_their_defaults(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "settings.md").read_text()
    found = re.search(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert found
    documented = yaml.safe_load(found[1])
    loaded = load(documented, environ={}, cwd=tmp_path, home=tmp_path)
    assert loaded.settings == Settings()
    assert {path for path, source in loaded.sources.items() if source == "default"} == set()
    assert all(get(loaded.settings, path) == leaf.default for path, leaf in LEAVES.items())


def test_every_link_of_the_documents_leads_somewhere() -> None:
    for document in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
            if "://" not in target:
                assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_the_middlewares_example_runs_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (ROOT / "docs" / "wsgi.md").read_text()
    example, policies = (
        re.findall(rf"```{one}\n(.*?)```", text, re.DOTALL)[0] for one in LANGUAGES
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("M9M_JWT_SECRET", os.urandom(32).hex())
    namespace: dict[str, object] = {}
    exec(compile(example, "app.py", "exec"), namespace)
    application = namespace["application"]
    assert isinstance(application, M9MMiddleware)
    client = Client(application)
    assert client.get("/public/x").text == "hello stranger"
    assert [client.get(path).status_code for path in ("/admin", "/items")] == [401, 401]
    client = Client(M9MMiddleware(namespace["app"], policies=yaml.safe_load(policies)))  # type: ignore[arg-type]
    assert [client.get("/items").status_code, client.post("/items").status_code] == [200, 401]


def test_the_example_of_openapi_runs_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (ROOT / "docs" / "openapi.md").read_text()
    example = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("M9M_JWT_SECRET", os.urandom(32).hex())
    namespace: dict[str, Any] = {"__name__": "app"}
    exec(compile(example, "app.py", "exec"), namespace)
    document = namespace["app"].test_client().get("/openapi.json").json
    assert list(document["paths"]) == ["/items/{number}"]
    operation = document["paths"]["/items/{number}"]["get"]
    assert operation["security"] == [{"bearer": ["items:read"]}, {"api_key": ["items:read"]}]
    assert list(operation["responses"]) == ["200", "401", "403", "429"]

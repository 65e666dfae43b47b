from __future__ import annotations

import re
from pathlib import Path

import yaml

from flask_m9m.settings import Settings, load
from flask_m9m.settings.paths import LEAVES, get

ROOT = Path(__file__).parents[2]


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

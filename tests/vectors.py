"""Official test vectors, which lie beside the project and are not part of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "shared" / "vectors"


def load_vectors(name: str) -> Any:
    path = FOLDER / name
    if not path.exists():
        pytest.skip(f"the vectors {name} are not beside the project")
    return json.loads(path.read_text())

"""All harnesses by name."""

from __future__ import annotations

from . import credentials, envelopes, fields, framing, links, settings_files
from .harness import Harness

_MODULES = (credentials, fields, links, framing, settings_files, envelopes)

BY_NAME: dict[str, type[Harness]] = {
    harness.name: harness for module in _MODULES for harness in module.HARNESSES
}

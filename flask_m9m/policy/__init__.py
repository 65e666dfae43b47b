"""Policies: what one endpoint demands, compiled once from settings and decorator marks."""

from __future__ import annotations

from .compiler import PolicyCompiler
from .route import ERROR_VARY, FLASK, SETTINGS, Access, Level, RouteLimit, RoutePolicy

__all__ = [
    "ERROR_VARY",
    "FLASK",
    "SETTINGS",
    "Access",
    "Level",
    "PolicyCompiler",
    "RouteLimit",
    "RoutePolicy",
]

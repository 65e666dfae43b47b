"""`audit`: what the trail needs, and what can be left out of it."""

from __future__ import annotations

import base64
import os
from typing import get_args

import pytest

from flask_m9m.audit import EventName
from flask_m9m.errors import SettingsError
from flask_m9m.settings.types import AuditEvent
from flask_m9m.testing import make_settings

KEY = base64.b64encode(os.urandom(32)).decode()


def test_the_database_sink_needs_an_encryption_key() -> None:
    with pytest.raises(SettingsError) as raised:
        make_settings({"audit": {"sinks": ["database"]}})
    (problem,) = raised.value.problems
    assert problem.path == "audit.sinks"
    assert "flask m9m init" in problem.accepted
    settings = {"audit": {"sinks": ["database"]}, "credentials": {"encryption_key": KEY}}
    assert make_settings(settings).audit.sinks == ("database",)


def test_a_trail_that_is_switched_off_needs_none() -> None:
    assert not make_settings({"audit": {"enabled": False, "sinks": ["database"]}}).audit.enabled


def test_every_event_can_be_left_out_but_the_count_of_dropped_ones() -> None:
    assert set(get_args(AuditEvent)) == set(EventName) - {EventName.EVENTS_DROPPED}


def test_no_other_event_can_be_left_out() -> None:
    with pytest.raises(SettingsError, match=r"audit\.omit"):
        make_settings({"audit": {"omit": ["authentification"]}})

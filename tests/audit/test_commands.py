"""What commands do is in the trail, with the command that did it."""

from __future__ import annotations

from flask_m9m.cli import m9m as m9m_cli

from .conftest import Audited


def test_a_command_stands_in_the_trail(audited: Audited) -> None:
    app, m9m = audited()
    result = app.test_cli_runner().invoke(m9m_cli, ["apikey", "create", "ci", "--owner", "alice"])
    assert result.exit_code == 0, result.output
    with app.app_context():
        (row,) = m9m.audit.query()
        assert row.event == "api_key_created"
        assert row.scheme == "command line"
        assert (row.route or "").endswith("apikey create")
        assert row.details == {"owner": "alice"}
        assert row.target == m9m.api_keys.list()[0].id

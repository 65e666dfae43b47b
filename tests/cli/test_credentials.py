"""`flask m9m credential`: one credential, and the rotation of all."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from .credentials import (
    DATA,
    VALUE,
    Kept,
    create,
    data_of,
    database,
    done,
    everything,
    failed,
    listed,
    new_key,
    use_keys,
)


def test_a_credential_is_made_listed_shown_changed_and_deleted(kept: Kept) -> None:
    made = create(kept, "Slack", "--owner", "ann")
    (row,) = listed(kept)
    assert row.pop("created_at") == row.pop("updated_at")
    assert row == {
        "id": made,
        "name": "Slack",
        "type": "apiKey",
        "owner": "ann",
        "resolve": False,
    }
    for command in (["list"], ["list", "-o", "yaml"], ["get", made], ["get", made, "-o", "json"]):
        printed = done(kept, *command)
        assert made in printed
        assert VALUE not in printed
    assert data_of(kept, made) == {"apiKey": VALUE}

    assert done(kept, "update", made, "--name", "Other") == f"changed {made}"
    assert data_of(kept, made) == {"apiKey": VALUE}
    kept.write("new.json", '{"apiKey": "new", "more": [1]}')
    done(kept, "update", made, "--data", "@new.json")
    assert data_of(kept, made) == {"apiKey": "new", "more": [1]}
    done(kept, "update", made, stdin='{"apiKey": "newer"}')
    assert data_of(kept, made) == {"apiKey": "newer"}
    assert listed(kept)[0]["name"] == "Other"
    assert done(kept, "list", "--type", "oauth2", "-o", "json") == "[]"

    assert done(kept, "delete", made) == f"deleted {made}"
    assert listed(kept) == []
    unknown = "Error: no credential has that id: see flask m9m credential list\n"
    for command in (["get", made], ["update", made, "--name", "x"], ["delete", made]):
        assert failed(kept, *command) == unknown


def test_variables_are_resolved_only_where_that_was_asked_for(kept: Kept, key: str) -> None:
    use_keys(kept, key, environment=["ACME_TOKEN"])
    data = '{"apiKey": "${ACME_TOKEN}"}'
    made = [
        done(kept, "create", "x", "--type=apiKey", *option, stdin=data).removeprefix("created ")
        for option in ([], ["--resolve"])
    ]
    shown = [
        json.loads(done(kept, "get", one, "--show", "-o", "json", ACME_TOKEN="t"))["data"]
        for one in made
    ]
    assert shown == [{"apiKey": "${ACME_TOKEN}"}, {"apiKey": "t"}]
    assert (
        failed(kept, "get", made[1], "--show")
        == "Error: ${ACME_TOKEN} is not set in the environment\n"
    )


def test_our_own_keys_are_never_read_into_a_credential(kept: Kept) -> None:
    data = '{"apiKey": "${M9M_ENCRYPTION_KEY}"}'
    made = done(kept, "create", "x", "--type=apiKey", stdin=data).removeprefix("created ")
    assert data_of(kept, made) == {"apiKey": "${M9M_ENCRYPTION_KEY}"}
    made = done(kept, "create", "x", "--type=apiKey", "--resolve", stdin=data)[8:]
    assert "not allowed by credentials.environment" in failed(kept, "get", made, "--show")


@pytest.mark.parametrize(
    ("arguments", "stdin", "problem"),
    [
        (["x", "--type", "apiKey"], "", "standard input is not JSON"),
        (["x", "--type", "apiKey"], f'{{"apiKey": {VALUE}}}', "not JSON (line 1, column 12)"),
        (["x", "--type", "apiKey"], f'["{VALUE}"]', "standard input must be a JSON object"),
        (["x", "--type", "apiKey"], "{}", "a credential of type apiKey needs apiKey"),
        (["x", "--type", "nope"], DATA, "unknown credential type 'nope' (known: apiKey, "),
        (["", "--type", "apiKey"], DATA, "a credential's name must be"),
        (["x", "--type", "apiKey", "--owner", ""], DATA, "an owner must be"),
        (["x", "--type", "apiKey", "--data", "@none.json"], DATA, "'none.json': No such file"),
        (["x", "--type", "apiKey", "--data", "@."], DATA, "'.': Is a directory"),
        (["x", "--type", "apiKey", "--data", "@"], DATA, "'': No such file"),
    ],
)
def test_what_is_no_credential_is_refused_and_not_repeated(
    kept: Kept, arguments: list[str], stdin: str, problem: str
) -> None:
    assert problem in failed(kept, "create", *arguments, stdin=stdin)
    assert not (kept.path / "instance").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["create", "x"],
        ["create", "x", "--type", "apiKey", "--data", DATA],
        ["create", "x", DATA, "--type", "apiKey"],
        ["create", "x", "--type", "apiKey", "--data", ""],
        ["get"],
        ["list", "-o", "xml"],
        ["rotate", "--cipher", "rot13"],
        ["import", "export.json"],
        ["import", "export.json", "--from", "zapier"],
        ["import", "export.json", "--from", "m9m", "--key-file", "key"],
        ["import", "export.json", "--from", "n8n", "--key", "k"],
        ["export"],
        ["export", "--to", "m9m"],
    ],
)
def test_wrong_usage_exits_2_and_repeats_no_value(kept: Kept, arguments: list[str]) -> None:
    result = kept.m9m("credential", *arguments, stdin=DATA)
    assert result.returncode == 2
    if "--data" in arguments:
        assert "--data must be @FILE or @-" in result.stderr
        assert VALUE not in result.stderr
    assert not (kept.path / "instance").exists()


def test_a_store_in_memory_is_told_to_be_out_of_reach(kept: Kept, key: str) -> None:
    use_keys(kept, key, storage="memory")
    for command in (["list"], ["create", "x", "--type=apiKey"], ["rotate"], ["export", "--to=n8n"]):
        assert "commands do not share" in failed(kept, *command, stdin=DATA)


def test_without_a_key_the_error_says_what_to_do(kept: Kept) -> None:
    kept.credentials = {}
    result = kept.m9m("credential", "create", "x", "--type=apiKey", stdin=DATA)
    assert result.returncode == 1
    assert "set M9M_ENCRYPTION_KEY" in result.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="Windows closes streams otherwise")
def test_a_closed_standard_input_is_told(kept: Kept) -> None:
    for arguments in ("create x --type apiKey", "import - --from n8n"):
        result = subprocess.run(
            ["bash", "-c", f"{sys.executable} -m flask m9m credential {arguments} <&-"],
            cwd=kept.path,
            env=kept.environ(),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (result.returncode, result.stderr) == (1, "Error: standard input is closed\n")


# Rotation


def test_rotation_says_which_keys_are_needed(kept: Kept, key: str) -> None:
    made = [create(kept) for _ in range(2)]
    following = new_key()
    use_keys(kept, following, key)
    before = everything(kept)
    dry = done(kept, "rotate", "--dry-run").splitlines()
    assert everything(kept) == before
    assert dry[0] == "to be re-encrypted: 2"
    assert dry[1].endswith("(credentials.previous_keys) is needed by 2 records")
    assert len(dry) == 2
    old = dry[1].split()[2]

    lines = done(kept, "rotate").splitlines()
    assert lines[0] == "re-encrypted: 2"
    assert lines[1].endswith("(credentials.encryption_key) is needed by 2 records")
    assert lines[2].startswith(
        f"the key {old} (credentials.previous_keys) is not needed: remove it"
    )
    assert done(kept, "rotate").splitlines()[0] == "re-encrypted: 0"
    use_keys(kept, following)
    assert all(data_of(kept, one) == {"apiKey": VALUE} for one in made)


def test_rotation_changes_the_cipher(kept: Kept) -> None:
    made = create(kept)
    result = kept.m9m("credential", "rotate", "--cipher", "fernet")
    assert (result.returncode, result.stdout.splitlines()[0]) == (0, "re-encrypted: 1")
    assert "\ncredentials.cipher is still aes-256-gcm" in result.stderr
    assert result.stderr.rstrip().endswith("set it to fernet")
    with database(kept) as connection:
        (envelope,) = connection.execute("SELECT envelope FROM m9m_credentials").fetchone()
    assert envelope.startswith("m9m:f1:")
    assert data_of(kept, made) == {"apiKey": VALUE}


def test_one_that_does_not_open_is_named_and_exits_1(kept: Kept, key: str) -> None:
    bad, good = create(kept), create(kept)
    with database(kept) as connection:
        connection.execute("UPDATE m9m_credentials SET owner = 'mallory' WHERE id = ?", [bad])
    connection.close()
    use_keys(kept, new_key(), key)
    result = kept.m9m("credential", "rotate")
    assert result.returncode == 1
    assert result.stdout.splitlines()[0] == "re-encrypted: 1"
    assert f"credential {bad} cannot be decrypted: " in result.stderr
    assert result.stderr.endswith("Error: 1 credentials cannot be decrypted and stay as they are\n")
    assert "cipher: message authentication failed" in failed(kept, "get", bad, "--show")
    assert f"Error: credential {bad}: cipher: " in failed(
        kept, "export", "--to=n8n", N8N_ENCRYPTION_KEY="k"
    )
    assert data_of(kept, good) == {"apiKey": VALUE}


def test_an_older_set_of_keys_names_the_missing_one_before_a_row_is_touched(
    kept: Kept, key: str
) -> None:
    made = create(kept)
    needed = done(kept, "rotate", "--dry-run").splitlines()[1].split()[2]
    before = everything(kept)
    use_keys(kept, new_key())
    for command in (
        ["rotate"],
        ["get", made, "--show"],
        ["update", made, "--name", "x"],
        ["create", "x", "--type", "apiKey"],
        ["import", "-", "--from", "m9m"],
        ["export", "--to", "n8n"],
    ):
        result = kept.m9m("credential", *command, stdin=DATA, N8N_ENCRYPTION_KEY="k")
        assert (result.returncode, result.stdout) == (1, "")
        assert f"1 credentials need the key {needed}, which is not there" in result.stderr
    assert everything(kept) == before
    assert made in done(kept, "list")

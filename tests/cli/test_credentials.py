"""`flask m9m credential`: most in this process, streams and terminals as a user has them."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import select
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest
from flask import Flask

from flask_m9m import M9M
from flask_m9m.cli import m9m
from flask_m9m.testing import make_settings
from tests.cli.conftest import APP, SECRET, Folder
from tests.databases import settle

CASES = json.loads((Path(__file__).parents[1] / "crypto" / "n8n-samples.json").read_text())["cases"]
SAMPLES = [one for one in CASES if one["keyName"] == "simple" and one["plaintextName"] == "json"]
INSTANCE_KEY = "test_key"
VALUE = "sk-hunter2secret"
DATA = json.dumps({"apiKey": VALUE})
TERMINAL = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such terminals")


def new_key() -> str:
    return base64.b64encode(os.urandom(32)).decode()


class Kept(Folder):
    """A folder with an app that keeps credentials; its commands run in this process."""

    credentials: ClassVar[dict[str, Any]] = {}

    def m9m(
        self, *arguments: str, stdin: str = "", **environ: str
    ) -> subprocess.CompletedProcess[str]:
        app = Flask("app", instance_path=str(self.path / "instance"))
        M9M(app, settings=make_settings({"credentials": self.credentials}))
        with chdir(self.path):
            result = app.test_cli_runner().invoke(m9m, arguments, input=stdin, env=environ)
        settle()
        app.extensions["m9m"].database.close()
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return subprocess.CompletedProcess([], result.exit_code, result.stdout, result.stderr)


def use_keys(kept: Kept, key: str, previous: str = "", **credentials: Any) -> None:
    """Give the app other keys, in this process and in others."""
    previous_keys = [previous] if previous else []
    kept.credentials = {"encryption_key": key, "previous_keys": previous_keys, **credentials}
    kept.write(".env", f"M9M_JWT_SECRET={SECRET}\n")
    kept.write("config.yaml", json.dumps({"credentials": kept.credentials}))


@pytest.fixture
def key() -> str:
    return new_key()


@pytest.fixture
def kept(tmp_path: Path, key: str) -> Kept:
    folder = Kept(tmp_path)
    folder.write("app.py", APP)
    use_keys(folder, key)
    return folder


def done(folder: Kept, *arguments: str, stdin: str = "", **environ: str) -> str:
    result = folder.m9m("credential", *arguments, stdin=stdin, **environ)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def failed(folder: Kept, *arguments: str, stdin: str = "", **environ: str) -> str:
    result = folder.m9m("credential", *arguments, stdin=stdin, **environ)
    assert (result.returncode, result.stdout) == (1, ""), result.stderr
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert VALUE not in result.stderr
    return result.stderr


def create(folder: Kept, name: str = "Slack", *arguments: str) -> str:
    said = done(folder, "create", name, "--type", "apiKey", *arguments, stdin=DATA)
    return said.removeprefix("created ")


def listed(folder: Kept) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(done(folder, "list", "-o", "json"))
    return found


def data_of(folder: Kept, credential_id: str) -> Any:
    return json.loads(done(folder, "get", credential_id, "--show", "-o", "json"))["data"]


def database(folder: Kept) -> sqlite3.Connection:
    return sqlite3.connect(folder.path / "instance" / "m9m" / "m9m.db")


def everything(folder: Kept) -> str:
    """Return a hash of all rows of all tables."""
    with database(folder) as connection:
        return hashlib.sha256("\n".join(connection.iterdump()).encode()).hexdigest()


def write_export(folder: Kept, *more: dict[str, Any]) -> list[str]:
    """Write the samples as n8n exports them; return the arguments that import them."""
    records = [
        {"id": f"id{n}", "name": one["format"], "type": "githubApi", "data": one["ciphertext"]}
        for n, one in enumerate(SAMPLES)
    ]
    folder.write("export.json", json.dumps([*records, *more]))
    rows = [
        {"id": one["dekId"], "value": one["wrappedDek"], "algorithm": "aes-256-gcm"}
        for one in SAMPLES
        if "dekId" in one
    ]
    folder.write("rows.json", json.dumps(rows))
    write_key(folder)
    return ["export.json", "--from=n8n", "--key-file=key", "--deployment-keys=rows.json"]


def write_key(folder: Kept, key: str = INSTANCE_KEY, mode: int = 0o600) -> None:
    folder.write("key", f"{key}\n")
    (folder.path / "key").chmod(mode)


# One credential


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
    for command in (["get", made], ["update", made, "--name", "x"], ["delete", made]):
        assert failed(kept, *command) == "Error: no credential of that id is there\n"


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
    assert failed(kept, "get", made[1], "--show") == "Error: ${ACME_TOKEN} is not set\n"


def test_our_own_keys_are_never_read_into_a_credential(kept: Kept) -> None:
    data = '{"apiKey": "${M9M_ENCRYPTION_KEY}"}'
    made = done(kept, "create", "x", "--type=apiKey", stdin=data).removeprefix("created ")
    assert data_of(kept, made) == {"apiKey": "${M9M_ENCRYPTION_KEY}"}
    made = done(kept, "create", "x", "--type=apiKey", "--resolve", stdin=data)[8:]
    assert "not in credentials.environment" in failed(kept, "get", made, "--show")


@pytest.mark.parametrize(
    ("arguments", "stdin", "problem"),
    [
        (["x", "--type", "apiKey"], "", "standard input is not JSON"),
        (["x", "--type", "apiKey"], f'{{"apiKey": {VALUE}}}', "not JSON (line 1, column 12)"),
        (["x", "--type", "apiKey"], f'["{VALUE}"]', "standard input is no JSON object"),
        (["x", "--type", "apiKey"], "{}", "a credential of the type apiKey needs apiKey"),
        (["x", "--type", "nope"], DATA, "no credential type 'nope' (known: apiKey, "),
        (["", "--type", "apiKey"], DATA, "a credential's name is"),
        (["x", "--type", "apiKey", "--owner", ""], DATA, "an owner is"),
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
        assert "values are no argument" in result.stderr
        assert VALUE not in result.stderr
    assert not (kept.path / "instance").exists()


def test_a_store_in_memory_is_told_to_be_out_of_reach(kept: Kept, key: str) -> None:
    use_keys(kept, key, storage="memory")
    for command in (["list"], ["create", "x", "--type=apiKey"], ["rotate"], ["export", "--to=n8n"]):
        assert "no command shares" in failed(kept, *command, stdin=DATA)


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
    assert dry[0] == "to be sealed anew: 2"
    assert dry[1].endswith("(credentials.previous_keys) is needed: 2")
    assert len(dry) == 2
    old = dry[1].split()[2]

    lines = done(kept, "rotate").splitlines()
    assert lines[0] == "sealed anew: 2"
    assert lines[1].endswith("(credentials.encryption_key) is needed: 2")
    assert lines[2].startswith(f"the key {old} (credentials.previous_keys) is not needed: drop it")
    assert done(kept, "rotate").splitlines()[0] == "sealed anew: 0"
    use_keys(kept, following)
    assert all(data_of(kept, one) == {"apiKey": VALUE} for one in made)


def test_rotation_changes_the_cipher(kept: Kept) -> None:
    made = create(kept)
    result = kept.m9m("credential", "rotate", "--cipher", "fernet")
    assert (result.returncode, result.stdout.splitlines()[0]) == (0, "sealed anew: 1")
    assert result.stderr.startswith("credentials.cipher is aes-256-gcm")
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
    assert result.stdout.splitlines()[0] == "sealed anew: 1"
    assert f"credential {bad} does not open: " in result.stderr
    assert result.stderr.endswith("Error: 1 do not open, and stay as they are\n")
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


# Imports


def test_both_of_n8ns_forms_are_imported_once(kept: Kept) -> None:
    arguments = write_export(kept)
    result = kept.m9m("credential", "import", *arguments, "--owner", "ann")
    assert result.returncode == 0, result.stderr
    assert result.stderr == "imported: 3, skipped: 0, unreadable: 0\n"
    for n, one in enumerate(SAMPLES):
        assert data_of(kept, f"id{n}") == json.loads(one["plaintext"])
    assert {(one["type"], one["owner"]) for one in listed(kept)} == {("githubApi", "ann")}
    again = json.loads(done(kept, "import", *arguments, "-o", "json"))
    assert [(one["result"], one["reason"]) for one in again] == [
        ("skipped", "a credential of that id is there already")
    ] * 3


def test_a_dry_run_says_of_each_what_would_be_and_changes_nothing(kept: Kept) -> None:
    more = [
        {"id": "bad", "name": "bad\x1b[2J", "type": "githubApi", "data": {"token": VALUE}},
        {"id": "worse", "name": "worse", "type": "githubApi", "data": "AAAA"},
    ]
    arguments = write_export(kept, *more)
    dry = kept.m9m("credential", "import", *arguments, "--dry-run")
    assert not (kept.path / "instance").exists()
    done(kept, "import", "-", "--from=m9m", stdin=json.dumps({**more[0], "id": "id0", "name": "x"}))
    before = everything(kept)
    again = kept.m9m("credential", "import", *arguments, "--dry-run")
    assert everything(kept) == before
    assert (dry.returncode, again.returncode) == (1, 1)
    assert dry.stderr == "to be imported: 3, skipped: 0, unreadable: 2\n"
    assert again.stderr == "to be imported: 2, skipped: 1, unreadable: 2\n"
    assert "\x1b" not in dry.stdout
    assert VALUE not in dry.stdout
    for line in (
        r"^to be imported +id1 .*githubApi$",
        r"^skipped +id0 .*is there already$",
        r"^unreadable +bad .*a credential's name is",
        r"^unreadable +worse .*n8n: neither the old form",
    ):
        assert re.search(line, again.stdout, re.MULTILINE), again.stdout


def test_the_unreadable_are_listed_and_the_others_imported(kept: Kept) -> None:
    arguments = write_export(kept, {"id": "bad", "name": "bad", "type": "x", "data": "AAAA"})
    result = kept.m9m("credential", "import", *arguments)
    assert result.returncode == 1
    assert "n8n: neither the old form" in result.stdout
    assert len(listed(kept)) == 3
    kept.write("key", "wrong\n")
    assert kept.m9m("credential", "import", *arguments).stderr == (
        "imported: 0, skipped: 3, unreadable: 1\n"
    )


def test_a_wrong_key_imports_nothing(kept: Kept) -> None:
    arguments = write_export(kept)
    kept.write("key", "wrong\n")
    result = kept.m9m("credential", "import", *arguments)
    assert result.returncode == 1
    assert result.stderr == "imported: 0, skipped: 0, unreadable: 3\n"
    assert result.stdout.count("the instance key does not") == 3
    assert "data key '40e6070c-bc1e-4531-bd35-be50b1caefb3'" in result.stdout


def test_the_instance_key_comes_from_a_file_or_the_environment(kept: Kept) -> None:
    write_export(kept)
    plain = ["import", "export.json", "--from=n8n", "--deployment-keys=rows.json"]
    assert "N8N_ENCRYPTION_KEY" in failed(kept, *plain)
    write_key(kept, "wrong")
    assert kept.m9m(
        "credential", *plain, "--key-file=key", N8N_ENCRYPTION_KEY=INSTANCE_KEY
    ).stderr.startswith("imported: 0")
    assert len(json.loads(done(kept, *plain, "-o", "json", N8N_ENCRYPTION_KEY=INSTANCE_KEY))) == 3


def test_the_key_is_read_from_n8ns_own_config_too(kept: Kept) -> None:
    arguments = write_export(kept)
    kept.write("key", json.dumps({"encryptionKey": INSTANCE_KEY, "tunnelSubdomain": "x"}))
    assert "imported" in done(kept, "import", *arguments)
    for content in ("{}", '{"encryptionKey": 7}', '{"encryptionKey": ""}'):
        kept.write("key", content)
        assert "no instance key" in failed(kept, "import", *arguments)
    kept.write("key", "{a key that only looks so")
    done(kept, "export", "--to=n8n", "--key-file=key", "--output=out.json")
    again = done(kept, "import", "out.json", "--from=n8n", "--key-file=key", "-o", "json")
    assert {one["result"] for one in json.loads(again)} == {"skipped"}


@pytest.mark.parametrize(
    ("content", "mode", "problem"),
    [
        (b"test_key", 0o640, "open to others"),
        (b"test_key", 0o604, "open to others"),
        (b"\n", 0o600, "no instance key"),
        (b"\xff", 0o600, "no instance key"),
        (b"x" * 4_097, 0o600, "no instance key"),
        (None, 0o600, "No such file"),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
def test_a_key_file_that_is_none_or_open_to_others_is_refused(
    kept: Kept, content: bytes | None, mode: int, problem: str
) -> None:
    arguments = write_export(kept)
    (kept.path / "key").unlink()
    if content is not None:
        (kept.path / "key").write_bytes(content)
        (kept.path / "key").chmod(mode)
    assert problem in failed(kept, "import", *arguments)
    assert not (kept.path / "instance").exists()


def test_decrypted_exports_and_m9ms_come_by_standard_input_too(kept: Kept) -> None:
    record = {"id": "1", "name": "Slack", "type": "slackApi", "data": {"accessToken": "${HOME}"}}
    for source in ("n8n", "m9m"):
        record["id"] = source
        done(kept, "import", "-", "--from", source, stdin=json.dumps([record]))
        assert data_of(kept, source) == {"accessToken": "${HOME}"}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "'export.json' is not JSON (line 1, column 1)"),
        (f'[{{"x": {VALUE}}}]', "'export.json' is not JSON (line 1, column 8)"),
        ('"app.py"', "an array of records, or one record"),
        ("[" * 100_000, "out of bounds"),
        (None, "'export.json': No such file or directory"),
    ],
)
def test_a_file_that_is_no_export_is_refused(kept: Kept, content: str | None, problem: str) -> None:
    if content is not None:
        kept.write("export.json", content)
    assert problem in failed(kept, "import", "export.json", "--from", "n8n")
    assert not (kept.path / "instance").exists()


def test_rows_that_are_no_data_keys_are_refused(kept: Kept) -> None:
    arguments = write_export(kept)
    kept.write("rows.json", '[{"id": "x"}]')
    assert "a row of deployment_key has" in failed(kept, "import", *arguments)
    kept.write("rows.json", "{")
    assert "'rows.json' is not JSON" in failed(kept, "import", *arguments)


# Exports


def test_what_is_exported_is_read_again(kept: Kept) -> None:
    done(kept, "import", *write_export(kept))
    mine = create(kept, "mine")
    printed = done(kept, "export", "--to=n8n", "--key-file=key")
    result = kept.m9m("credential", "export", "--to=n8n", "--key-file=key", "--output=out.json")
    assert (result.returncode, result.stdout) == (0, "")
    assert result.stderr == "wrote 4 credentials to 'out.json'\n"
    assert stat.S_IMODE((kept.path / "out.json").stat().st_mode) == 0o600
    text = (kept.path / "out.json").read_text()
    assert VALUE not in text + printed
    assert [one["id"] for one in json.loads(text)] == [one["id"] for one in json.loads(printed)]
    for one in listed(kept):
        done(kept, "delete", one["id"])
    done(kept, "import", "out.json", "--from=n8n", "--key-file=key", "--dry-run")
    assert listed(kept) == []
    done(kept, "import", "out.json", "--from=n8n", "--key-file=key")
    assert data_of(kept, mine) == {"apiKey": VALUE}
    assert data_of(kept, "id0") == json.loads(SAMPLES[0]["plaintext"])


def test_an_export_overwrites_nothing_and_follows_no_link(kept: Kept) -> None:
    create(kept)
    kept.write("there.json", "mine")
    (kept.path / "link.json").symlink_to("elsewhere.json")
    (kept.path / "other.json").symlink_to("there.json")
    for name, why in (
        ("there.json", "File exists"),
        ("link.json", "File exists"),
        ("other.json", "File exists"),
        ("none/out.json", "No such file or directory"),
        (".", "File exists"),
    ):
        error = failed(kept, "export", "--to=n8n", f"--output={name}", N8N_ENCRYPTION_KEY="k")
        assert error == f"Error: {name!r}: {why}\n"
    assert (kept.path / "there.json").read_text() == "mine"
    assert not (kept.path / "elsewhere.json").exists()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_full_disk_is_told(kept: Kept) -> None:
    create(kept)
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "flask", "m9m", "credential", "export", "--to=n8n"],
            cwd=kept.path,
            env=kept.environ(N8N_ENCRYPTION_KEY="k"),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    assert (result.returncode, result.stderr) == (1, "Error: No space left on device\n")


@pytest.mark.skipif(sys.platform != "linux", reason="bash counts otherwise elsewhere")
def test_a_file_that_could_not_be_written_whole_is_removed(kept: Kept) -> None:
    records = [
        {"id": str(n), "name": "x", "type": "githubApi", "data": {"x": "y" * 2_000}}
        for n in range(100)
    ]
    done(kept, "import", "-", "--from=m9m", stdin=json.dumps(records))
    export = f"{sys.executable} -m flask m9m credential export --to=n8n --output=out.json"
    result = subprocess.run(
        ["bash", "-c", f"trap '' XFSZ; ulimit -f 150; {export}"],
        cwd=kept.path,
        env=kept.environ(N8N_ENCRYPTION_KEY="k"),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (result.returncode, result.stderr) == (1, "Error: 'out.json': File too large\n")
    assert not (kept.path / "out.json").exists()


# Processes, pipes and terminals


def test_a_process_reads_what_another_wrote(kept: Kept) -> None:
    made = kept.run("m9m", "credential", "create", "x", "--type=apiKey", stdin=DATA)
    assert made.returncode == 0, made.stderr
    shown = kept.run("m9m", "credential", "get", made.stdout.split()[1], "--show", "-o", "json")
    assert json.loads(shown.stdout)["data"] == {"apiKey": VALUE}
    refused = kept.run("m9m", "credential", "get", "none")
    assert (refused.returncode, refused.stderr) == (
        1,
        "Error: no credential of that id is there\n",
    )


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no kill -9")
def test_an_import_that_is_killed_leaves_whole_records_and_goes_on(kept: Kept) -> None:
    records = [
        {"id": str(n), "name": "x", "type": "githubApi", "data": {"n": n}} for n in range(5_000)
    ]
    kept.write("big.json", json.dumps(records))
    importing = ["import", "big.json", "--from=m9m"]
    process = subprocess.Popen(
        [sys.executable, "-m", "flask", "m9m", "credential", *importing],
        cwd=kept.path,
        env=kept.environ(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not count(kept) and process.poll() is None:
        time.sleep(0.005)
    process.kill()
    process.wait()
    there = count(kept)
    assert there
    assert kept.m9m("credential", *importing).stderr == (
        f"imported: {5_000 - there}, skipped: {there}, unreadable: 0\n"
    )
    assert data_of(kept, "4999") == {"n": 4_999}
    assert json.loads(done(kept, "rotate", "--dry-run").splitlines()[0].split()[-1]) == 0


def count(kept: Kept) -> int:
    """Return how many credentials are there, none where there is no table yet."""
    if not (kept.path / "instance" / "m9m" / "m9m.db").exists():
        return 0
    connection = database(kept)
    try:
        return int(connection.execute("SELECT count(*) FROM m9m_credentials").fetchone()[0])
    except sqlite3.OperationalError:
        return 0
    finally:
        connection.close()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows closes pipes otherwise")
def test_a_closed_pipe_gives_no_traceback(kept: Kept) -> None:
    records = [
        {"id": str(n), "name": "n" * 200, "type": "githubApi", "data": {}} for n in range(500)
    ]
    kept.write("big.json", json.dumps(records))
    read, write = os.pipe()
    os.close(read)
    for command in (
        ["import", "big.json", "--from=n8n"],
        ["list"],
        ["list", "-o", "yaml"],
        ["get", "1", "--show"],
        ["rotate"],
        ["export", "--to=n8n"],
    ):
        result = subprocess.run(
            [sys.executable, "-m", "flask", "m9m", "credential", *command],
            cwd=kept.path,
            env=kept.environ(N8N_ENCRYPTION_KEY="k"),
            stdout=write,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
        assert "Traceback" not in result.stderr
        assert "Exception" not in result.stderr
    os.close(write)
    assert len(listed(kept)) == 500


@contextmanager
def terminal(folder: Kept, arguments: list[str]) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run a command at a terminal; give its process and the terminal's other side."""
    master, slave = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "flask", "m9m", "credential", *arguments],
        cwd=folder.path,
        env=folder.environ(TERM="xterm"),
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    )
    os.close(slave)
    try:
        yield process, master
    finally:
        process.kill()
        process.wait()
        os.close(master)


def at_a_terminal(folder: Kept, arguments: list[str], answers: dict[str, str]) -> tuple[int, str]:
    """Run a command, answer what it asks, and return how it ends and what is to be read."""
    printed = ""
    with terminal(folder, arguments) as (process, master):
        for question, answer in answers.items():
            printed += read_until(master, question)
            os.write(master, answer.encode() + b"\n")
        printed += read_until(master, None)
        return process.wait(30), printed


def read_until(descriptor: int, end: str | None) -> str:
    """Read until something was printed, or everything where `end` is `None`."""
    printed, deadline = "", time.monotonic() + 30
    while end is None or end not in printed:
        assert select.select([descriptor], [], [], max(0, deadline - time.monotonic()))[0], printed
        try:
            more = os.read(descriptor, 4_096)
        except OSError:  # how Linux tells that the other side is gone
            break
        if not more:
            break
        printed += more.decode()
    return printed


@TERMINAL
def test_a_terminal_is_asked_for_each_field_and_shows_none(kept: Kept) -> None:
    answers = {"username: ": "ann", "password: ": VALUE}
    code, printed = at_a_terminal(kept, ["create", "x", "--type", "basicAuth"], answers)
    assert code == 0, printed
    made = printed.split("created ")[1].strip()
    assert VALUE not in printed
    assert data_of(kept, made) == {"username": "ann", "password": VALUE}
    code, printed = at_a_terminal(kept, ["update", made], {"username: ": "b", "password: ": "c"})
    assert code == 0, printed
    assert data_of(kept, made) == {"username": "b", "password": "c"}


@TERMINAL
def test_a_terminal_is_asked_for_the_instance_key_and_shows_none(kept: Kept) -> None:
    write_export(kept)
    arguments = ["import", "export.json", "--from=n8n", "--deployment-keys=rows.json"]
    code, printed = at_a_terminal(kept, arguments, {"Instance key of n8n: ": INSTANCE_KEY})
    assert code == 0, printed
    assert "imported: 3, skipped: 0, unreadable: 0" in printed
    assert INSTANCE_KEY not in printed
    code, printed = at_a_terminal(
        kept,
        ["export", "--to=n8n", "--output=out.json"],
        {"Instance key of n8n: ": INSTANCE_KEY, "Repeat for confirmation: ": INSTANCE_KEY},
    )
    assert code == 0, printed
    assert INSTANCE_KEY not in printed
    assert len(json.loads((kept.path / "out.json").read_text())) == 3
    code, printed = at_a_terminal(kept, ["update", "id0"], {})
    assert (code, "the type githubApi asks for no fields" in printed) == (1, True)


@TERMINAL
def test_an_interrupt_at_a_prompt_ends_quietly(kept: Kept) -> None:
    with terminal(kept, ["create", "x", "--type", "basicAuth"]) as (process, master):
        read_until(master, "username: ")
        process.send_signal(signal.SIGINT)
        printed = read_until(master, None)
        assert process.wait(30) == 1
    assert "Aborted!" in printed
    assert "Traceback" not in printed
    assert not (kept.path / "instance").exists()


@TERMINAL
def test_a_terminal_sees_how_far_a_rotation_is(kept: Kept, key: str) -> None:
    create(kept)
    use_keys(kept, new_key(), key)
    code, printed = at_a_terminal(kept, ["rotate"], {})
    assert code == 0, printed
    assert "sealing anew" in printed
    assert "100%" in printed
    assert "sealing anew" not in kept.m9m("credential", "rotate").stderr

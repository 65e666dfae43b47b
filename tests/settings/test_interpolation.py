from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_m9m.settings.interpolation import InterpolationError, Interpolator


def interpolate(
    text: str,
    environ: dict[str, str] | None = None,
    dotenv: dict[str, str] | None = None,
    directory: Path | None = None,
) -> str:
    return Interpolator(environ or {}, dotenv or {}, directory or Path()).expand(text)


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("plain", "plain"),
        ("$5 {a} $NAME", "$5 {a} $NAME"),
        ("${NAME}", "value"),
        ("a${NAME}b${NAME}", "avaluebvalue"),
        ("${NAME:-other}", "value"),
        ("${MISSING:-other}", "other"),
        ("${MISSING:-}", ""),
        ("${MISSING:-a:-b $x}", "a:-b $x"),
        ("${EMPTY}", ""),
        ("${EMPTY:-other}", "other"),
        ("$${NAME}", "${NAME}"),
        ("$${", "${"),
        ("a$${NAME:-x}${NAME}", "a${NAME:-x}value"),
        ("$$5", "$$5"),
    ],
)
def test_references_are_replaced(text: str, expanded: str) -> None:
    assert interpolate(text, {"NAME": "value", "EMPTY": ""}) == expanded


@pytest.mark.parametrize(
    "text", ["${", "${}", "${NAME", "${1A}", "${A-b}", "${A B}", "${file:}", "${${NAME}}", "x${é}"]
)
def test_a_reference_written_in_another_way_is_refused(text: str) -> None:
    with pytest.raises(InterpolationError, match=r"write \$\{NAME\}"):
        interpolate(text, {"NAME": "value"})


def test_a_missing_name_is_named() -> None:
    with pytest.raises(InterpolationError, match=r"\$\{MISSING\} is not set"):
        interpolate("${MISSING}")


def test_values_of_the_environment_are_literal() -> None:
    assert interpolate("${A}", {"A": "${B} $${C}", "B": "no"}) == "${B} $${C}"


def test_values_of_dotenv_are_completed_in_turn() -> None:
    assert interpolate("${A}", {"C": "c"}, {"A": "a${B}", "B": "b${C}"}) == "abc"


def test_the_environment_wins_over_dotenv() -> None:
    assert interpolate("${A}", {"A": "environment"}, {"A": "dotenv"}) == "environment"


def test_a_name_in_dotenv_may_default_to_itself() -> None:
    assert interpolate("${A}", {}, {"A": "${A:-x}"}) == "x"
    assert interpolate("${A}", {"A": "y"}, {"A": "${A:-x}"}) == "y"


def test_circles_and_endless_chains_end() -> None:
    with pytest.raises(InterpolationError):
        interpolate("${A}", {}, {"A": "${B}", "B": "${A}"})
    chain = {f"A{i}": f"${{A{i + 1}}}" for i in range(10_000)}
    with pytest.raises(InterpolationError, match="deep"):
        interpolate("${A0}", {}, chain)


def test_doubling_ends() -> None:
    doubling = {f"A{i}": f"${{A{i + 1}}}${{A{i + 1}}}" for i in range(19)}
    with pytest.raises(InterpolationError, match="64 KiB"):
        interpolate("${A0}", {}, {**doubling, "A19": "long text"})
    assert interpolate("${A0}", {}, {**doubling, "A19": ""}) == ""


def test_a_file_is_read_literally_without_its_last_line_end(tmp_path: Path) -> None:
    (tmp_path / "unix").write_bytes(b"${A} word\n")
    (tmp_path / "windows").write_bytes(b"word\r\n")
    (tmp_path / "two").write_bytes(b"word\n\n")
    assert interpolate(f"${{file:{tmp_path}/unix}}") == "${A} word"
    assert interpolate("${file:windows}", directory=tmp_path) == "word"
    assert interpolate("${file:two}", directory=tmp_path) == "word\n"


def test_a_file_that_cannot_be_read_is_named_and_never_quoted(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"secret\xff")
    (tmp_path / "large").write_bytes(b"secret" * 20_000)
    for name, message in {
        "missing": "No such file",
        ".": "Is a directory",
        "binary": "not UTF-8",
        "large": "64 KiB",
        "a\x00b": "not a path",
        "a" * 5_000: "too long",
    }.items():
        with pytest.raises(InterpolationError, match=message) as caught:
            interpolate(f"${{file:{name}}}", directory=tmp_path)
        assert "secret" not in str(caught.value)


@given(
    st.one_of(st.text(), st.text("${}:-AB_file/")),
    st.dictionaries(st.sampled_from("AB"), st.text("${}:-ABx", max_size=20)),
    st.dictionaries(st.sampled_from("AB"), st.text("${}:-ABx", max_size=20)),
)
def test_no_text_raises_anything_but_interpolation_errors(
    text: str, environ: dict[str, str], dotenv: dict[str, str]
) -> None:
    with suppress(InterpolationError):
        assert isinstance(interpolate(text, environ, dotenv), str)


@given(st.text())
def test_every_text_can_be_written_with_the_escape(text: str) -> None:
    assert interpolate(text.replace("${", "$${")) == text


@pytest.mark.parametrize("text", ["${A:-${B}}", "${A:-x${B:-y}z}", "${A:-$${B}}"])
def test_a_default_holds_no_reference(text: str) -> None:
    for environ in ({}, {"A": "a"}, {"A": "a", "B": "b"}):
        with pytest.raises(InterpolationError, match="a malformed reference"):
            interpolate(text, environ)


def test_a_secret_given_as_the_name_of_its_file_is_not_shown(tmp_path: Path) -> None:
    for secret in ("abcdefghabcdefghabcdefghabcdefgh", "abcd/efgh+abcdefghabcdefghabcdefgh="):
        with pytest.raises(InterpolationError) as caught:
            interpolate(f"${{file:{secret}}}", directory=tmp_path)
        assert "efgh" not in str(caught.value)
    with pytest.raises(InterpolationError, match="missing"):
        interpolate(f"${{file:{tmp_path}/missing}}")


@pytest.mark.skipif(os.name != "posix", reason="POSIX files")
def test_a_pipe_in_a_files_place_is_refused_and_a_linked_file_is_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InterpolationError, match="it is not a regular file"):
        interpolate("${file:pipe}", directory=tmp_path)
    (tmp_path / "..2026").mkdir()  # as Kubernetes mounts secrets
    (tmp_path / "..2026" / "key").write_text("value\n")
    (tmp_path / "..data").symlink_to("..2026")
    (tmp_path / "key").symlink_to("..data/key")
    assert interpolate("${file:key}", directory=tmp_path) == "value"

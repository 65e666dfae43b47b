"""Printing tables: as wide as the terminal and in colour there, plain and whole elsewhere."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TextIO

import click

from ..settings.wording import printable

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

Row = Mapping[str, object]

_GAP = 2  # blanks between columns
_NARROWEST = 16  # a column is folded only below its longest word, or below this
_WIDEST = 1_000_000  # without a limit
_WIDE = f"{__name__}.wide"
_COLOURS = {
    "severity": {"critical": "bold red", "high": "red", "medium": "yellow", "low": "cyan"},
    "access": {
        "public": "yellow",
        "optional": "yellow",
        "authenticated": "green",
        "signed": "green",
    },
    "outcome": {"success": "green", "": "red"},
    "result": {"imported": "green", "skipped": "yellow", "unreadable": "red"},
}


def _remember_wide(context: click.Context, _: click.Parameter, wide: bool) -> None:
    context.meta[_WIDE] = wide


wide_option = click.option(
    "--wide",
    is_flag=True,
    expose_value=False,
    callback=_remember_wide,
    help="On a terminal: print every column on one line.",
)


def is_terminal(stream: TextIO | None) -> bool:
    """Tell whether a stream is a terminal; a closed standard stream is `None`."""
    return stream is not None and stream.isatty()


def print_table(rows: Sequence[Row], least_wanted: Sequence[str] = ()) -> None:
    """Print rows with the same columns.

    On a terminal the table has its width: columns that are not wanted are left out, long cells are
    folded, and where even that does not fit, each row becomes a block of lines. `--wide` and
    other outputs have every column, on one line.

    Args:
        rows: the rows.
        least_wanted: columns to leave out on a narrow terminal, the least wanted first.
    """
    if not rows:
        return
    cells = [{name: _cell(value) for name, value in row.items()} for row in rows]
    if not is_terminal(sys.stdout):
        click.echo(_plain(cells))
        return
    width = None if _is_wide() else shutil.get_terminal_size().columns
    left_out = _too_many(cells, least_wanted, width)
    shown = [{name: row[name] for name in row if name not in left_out} for row in cells]
    click.echo(_painted(shown, width), color=True)
    if left_out:
        names = ", ".join(left_out)
        click.echo(f"left out for the width of the terminal: {names} (--wide shows all)", err=True)


def paint(text: str, column: str, value: str) -> str:
    """Colour a text for standard output as tables colour a value of a column."""
    if not is_terminal(sys.stdout):
        return text
    from rich.text import Text

    return _rendered(Text(text, _style(column, value)), None).ljust(len(text))


def indented(text: str, first: str) -> str:
    """Wrap a text on a terminal, each further line below the first one's text.

    Args:
        text: the text.
        first: what stands before it on the first line.
    """
    if _is_wide() or not is_terminal(sys.stdout):
        return first + text
    width = shutil.get_terminal_size().columns
    return textwrap.fill(
        text,
        width,
        initial_indent=first,
        subsequent_indent=" " * len(first),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _is_wide() -> bool:
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.meta.get(_WIDE))


def _plain(cells: Sequence[Mapping[str, str]]) -> str:
    lines = [[name.upper() for name in cells[0]], *(list(row.values()) for row in cells)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    gap = " " * _GAP
    return "\n".join(
        gap.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _too_many(
    cells: Sequence[Mapping[str, str]], least_wanted: Sequence[str], width: int | None
) -> Sequence[str]:
    """Choose the columns to leave out, so that the others fit without being folded to nothing."""
    for count in range(len(least_wanted) + 1):
        left_out = least_wanted[:count]
        if _fits([{k: v for k, v in row.items() if k not in left_out} for row in cells], width):
            return left_out
    return least_wanted


def _fits(cells: Sequence[Mapping[str, str]], width: int | None) -> bool:
    return width is None or sum(_least_width(cells, name) + _GAP for name in cells[0]) <= width


def _least_width(cells: Sequence[Mapping[str, str]], name: str) -> int:
    """Return the width at which a column shows its words whole, or enough of them."""
    longest = _width(word for row in cells for word in row[name].split())
    return max(min(longest, _NARROWEST), len(name))


def _width(texts: Iterable[str]) -> int:
    from rich.cells import cell_len

    return max(map(cell_len, texts), default=0)


def _widths(cells: Sequence[Mapping[str, str]], width: int | None) -> list[int]:
    """Share a terminal's width: each column gets what it needs, or its share of what is left."""
    whole = [max(_width(row[name] for row in cells), len(name)) for name in cells[0]]
    if width is None:
        return whole
    least = [_least_width(cells, name) for name in cells[0]]
    left, needed = width - sum(least) - _GAP * len(least), sum(whole) - sum(least)
    share = min(1.0, left / needed) if needed else 1.0
    return [few + int((all_ - few) * share) for few, all_ in zip(least, whole, strict=True)]


def _painted(cells: Sequence[Mapping[str, str]], width: int | None) -> str:
    from rich.table import Table
    from rich.text import Text

    def add(table: Table, *row: tuple[str, str]) -> None:
        table.add_row(*(Text(value, _style(column, value)) for column, value in row))

    whole = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, header_style="bold")
    if _fits(cells, width):
        for column, given in zip(cells[0], _widths(cells, width), strict=True):
            whole.add_column(column.upper(), overflow="fold", width=given)
        for row in cells:
            add(whole, *row.items())
        return _rendered(whole, width)
    blocks = []
    for row in cells:
        block = Table.grid("", "", padding=(0, _GAP, 0, 0))
        block.columns[1].overflow = "fold"
        for item in row.items():
            add(block, ("", item[0]), item)
        blocks.append(_rendered(block, width))
    return "\n\n".join(blocks) + "\n"


def _rendered(what: RenderableType, width: int | None) -> str:
    """Render for standard output, with its colours (NO_COLOR switches them off)."""
    console = _console(width)
    with console.capture() as capture:
        console.print(what)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def _console(width: int | None) -> Console:
    from rich.console import Console

    return Console(file=sys.stdout, width=width or _WIDEST, highlight=False)


def _style(column: str, value: str) -> str:
    colours = _COLOURS.get(column, {})
    return colours.get(value, colours.get("", ""))


def _cell(value: object) -> str:
    if value is None or value == []:
        return "-"
    return printable(", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value))

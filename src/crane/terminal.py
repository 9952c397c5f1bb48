"""Everything written to the terminal, and the only module that knows rich.

Data goes to standard output, errors and warnings to standard error. On
something other than a terminal all of it is plain text.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, TextIO

_PREFIX = "crane:"


def _styled(stream: TextIO) -> bool:
    return stream.isatty() and "NO_COLOR" not in os.environ


def _line(stream: TextIO, text: str, style: str) -> None:
    if style and _styled(stream):
        from rich.console import Console
        from rich.text import Text

        Console(file=stream, soft_wrap=True).print(Text(text, style=style))
    else:
        print(text, file=stream, flush=True)


def out(text: str) -> None:
    """Write data as it is."""
    print(text, flush=True)


def say(text: str, warning: bool = False) -> None:  # noqa: FBT001, FBT002 - one line, two kinds
    """Write a progress line; a warning goes to standard error."""
    if warning:
        _line(sys.stderr, f"{_PREFIX} {text}", "yellow")
    else:
        _line(sys.stdout, f"{_PREFIX} {text}", "")


def error(text: str) -> None:
    """Write the one line a command fails with."""
    _line(sys.stderr, f"{_PREFIX} error: {text}", "red")


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write a table: drawn on a terminal, aligned columns elsewhere."""
    if _styled(sys.stdout):
        from rich import box
        from rich.console import Console
        from rich.table import Table

        drawn = Table(*heads, box=box.SIMPLE_HEAD, pad_edge=False)
        for row in rows:
            drawn.add_row(*row)
        Console().print(drawn)
        return
    widths = [max(len(line[column]) for line in (heads, *rows)) for column in range(len(heads))]
    for line in (heads, *rows):
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print("  ".join(cells).rstrip(), flush=True)


class Bar(Protocol):
    """Shows how far something is."""

    def __call__(self, done: float, text: str) -> None:
        """Show that the fraction ``done`` is done and that ``text`` is under way."""


@contextmanager
def bar() -> Iterator[Bar]:
    """A progress bar while the block runs; plain lines elsewhere than on a terminal."""
    if not _styled(sys.stdout):
        shown = ""

        def plain(done: float, text: str) -> None:  # noqa: ARG001
            nonlocal shown
            if text != shown:
                shown = text
                say(text)

        yield plain
        return
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (
        BarColumn(bar_width=30),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, transient=True) as progress:
        task = progress.add_task("", total=1.0)

        def drawn(done: float, text: str) -> None:
            progress.update(task, completed=done, description=text)

        yield drawn

"""What the interposer's source says it does: its table and its refusals.

The table is the ``interposed!`` macro in the files of ``exports/``; a function that needs
assembly is exported elsewhere and found by its ``no_mangle``. What is not
supported is the ``Unsupported`` enum in ``refuse.rs``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "crates" / "interposer" / "src"
TABLE = SOURCE / "exports"

_FAMILY = re.compile(r"    (\w+) \{")
_DOC = re.compile(r"\s*/// ?(.*)")
_FUNCTION = re.compile(r"        fn (\w+)\(")
_VARIANT = re.compile(r"    (\w+)(?: = (\d+))?,")
# Rows of the `jumps!` macro.
_JUMP = re.compile(r"^    (\w+) => REAL_\w+,", re.MULTILINE)
_EXPORT = re.compile(
    r'^#\[unsafe\(no_mangle\)\]\n(?:^#\[[^\n]*\n)*^pub (?:unsafe )?extern "C" fn (\w+)',
    re.MULTILINE,
)


class Row(NamedTuple):
    """One interposed function."""

    family: str
    symbol: str
    doc: str
    status: str = "answered"
    """``answered`` in the schedule, or ``refused`` and counted."""


class Refusal(NamedTuple):
    """One kind of call that is counted because it is not supported."""

    number: int
    name: str
    doc: str


def rows(text: str | None = None) -> list[Row]:
    """The table's rows in their order.

    Raises:
        ValueError: when the table cannot be found or a row has no documentation.
    """
    if text is not None:
        return _checked(list(_table(text, "the table")))
    files = [path for path in sorted(TABLE.glob("*.rs")) if path.name != "mod.rs"]
    return _checked([row for path in files for row in _table(path.read_text(), path.name)])


def _checked(found: list[Row]) -> list[Row]:
    if len({row.symbol for row in found}) != len(found):
        raise ValueError("exports: a symbol is there twice")
    return found


def _table(text: str, name: str) -> Iterator[Row]:
    _, found, table = text.partition("\ninterposed! {\n")
    if not found:
        raise ValueError(f"{name}: there is no `interposed!` table")
    return _rows(table.partition("\n}\n")[0])


def _rows(table: str) -> Iterator[Row]:
    family, doc = "", ""
    row: Row | None = None
    for line in table.splitlines():
        # The body may go on for some lines.
        if row is not None and "refuse::" in line:
            row = row._replace(status="refused")
        if row is not None and (line.startswith("        ///") or not line.startswith("        ")):
            yield row
            row = None
        if match := _FAMILY.fullmatch(line):
            family, doc = match[1], ""
        elif line.startswith("        ///"):
            doc = f"{doc} {line.strip().removeprefix('///').strip()}".strip()
        elif match := _FUNCTION.match(line):
            if not doc:
                raise ValueError(f"exports: `{match[1]}` has no documentation")
            refused = "refuse::" in line
            row = Row(family, match[1], doc, "refused" if refused else "answered")
            doc = ""
    if row is not None:
        yield row


def exported_elsewhere() -> set[str]:
    """The functions that are exported outside the table."""
    texts = [path.read_text() for path in SOURCE.glob("*.rs")]
    return {name for text in texts for form in (_EXPORT, _JUMP) for name in form.findall(text)}


def interposed() -> set[str]:
    """Every symbol that the library answers."""
    return {row.symbol for row in rows()} | exported_elsewhere()


def refusals(text: str | None = None) -> list[Refusal]:
    """What is counted as unsupported, by number.

    Raises:
        ValueError: when the list cannot be found or an entry has no documentation.
    """
    if text is None:
        text = (SOURCE / "refuse.rs").read_text()
    _, found, rest = text.partition("enum Unsupported {\n")
    if not found:
        raise ValueError("refuse.rs: there is no `Unsupported` list")
    result, doc, number = [], "", -1
    for line in rest.partition("\n}\n")[0].splitlines():
        if match := _VARIANT.fullmatch(line):
            if not doc:
                raise ValueError(f"refuse.rs: `{match[1]}` has no documentation")
            number = int(match[2]) if match[2] else number + 1
            result.append(Refusal(number, match[1], doc))
            doc = ""
        elif match := _DOC.fullmatch(line):
            doc = f"{doc} {match[1]}".strip()
    return result

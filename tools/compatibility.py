"""Write docs/compatibility.md and crane doctor's table from the interposer's source.

``python tools/compatibility.py`` writes them; with ``--check`` it only says
whether they are up to date.
"""

from __future__ import annotations

import json
import re
import sys
from itertools import groupby

from interposer_table import ROOT, Row, exported_elsewhere, refusals, rows
from symbol_record import tested_by, versions
from symbols import reasons

# Functions in assembly, which are not in the table.
_ELSEWHERE = {
    "dlsym": Row(
        "linking",
        "dlsym",
        "Names above that are looked up through RTLD_NEXT or RTLD_DEFAULT are the interposer's.",
    ),
    "dlopen": Row(
        "linking",
        "dlopen",
        "RTLD_DEEPBIND is taken out; others that need the linker wait in logical order.",
    ),
    "dlmopen": Row("linking", "dlmopen", "As dlopen."),
    "dlclose": Row("linking", "dlclose", "Others that need the linker wait in logical order."),
    "dladdr": Row("linking", "dladdr", "Waits for the linker in logical order."),
    "dladdr1": Row("linking", "dladdr1", "As dladdr."),
    "dlinfo": Row("linking", "dlinfo", "As dladdr."),
    "dl_iterate_phdr": Row("linking", "dl_iterate_phdr", "As dlclose."),
    "dprintf": Row("files", "dprintf", "As vdprintf."),
    "__dprintf_chk": Row("files", "__dprintf_chk", "As vdprintf."),
    "siglongjmp": Row("signals", "siglongjmp", "The mask goes back to what was saved."),
    "longjmp": Row("signals", "longjmp", "As siglongjmp."),
    "_longjmp": Row("signals", "_longjmp", "As siglongjmp."),
    "__longjmp_chk": Row("signals", "__longjmp_chk", "As siglongjmp."),
    "execl": Row("processes", "execl", "As execve."),
    "execle": Row("processes", "execle", "As execve."),
    "execlp": Row("processes", "execlp", "As execvp."),
}

PAGE = ROOT / "docs" / "compatibility.md"
DATA = ROOT / "src" / "crane" / "interposed.json"

_HEAD = """\
# What a replicated program may call

<!-- Written by `python tools/compatibility.py`; edit the sources it names, not this file. -->

A replicated program runs with a preloaded library, the interposer, which answers
the functions below. The table is the `interposed!` macro in
`crates/interposer/src/exports/`; the same macro makes the library's exports, so
this page cannot list a function that the library does not have. x86-64 Linux and
glibc 2.34 or newer.

A program must reach these functions through the dynamic linker. One that makes
system calls by itself (static programs, Go) is refused at the start if it is
static, and is otherwise outside the schedule where it does so; `syscall(2)` is
interposed and dispatches by number.

`crane doctor -- PROGRAM` compares a program's imports with this page.

*Versions* are those of the C library's symbol (`GLIBC_`...); the interposer's own has
none and answers callers of each. *Tried by* names the test programs that call it, whose
results are compared with Linux, or else servers that import it and are verified
whole (`make verify-programs`). *Refused* ones are counted, see below.
"""

_REFUSALS = """\
## Counted as unsupported

Calls that have no virtual counterpart. Each use is counted in the shared segment
and reported by the node under `engine.unsupported` of its admin answer
(`/v1/status`), by number. Some fail with an error that the program sees, some are
passed to the kernel of the replica's own, empty network namespace; the table above
says which where the function is interposed.
"""

_GAPS = """\
## Functions with gaps

Functions of the C library in the same families that are not interposed and can
let replicas differ or stop a program, from `tools/not_interposed.toml`. The test
`tests/unit/test_symbols.py` fails when the C library exports a function of these
families that is neither interposed nor listed in that file.
"""


def cell(text: str) -> str:
    """Text for a table cell."""
    return text.replace("|", "\\|")


def _table() -> list[Row]:
    return rows() + [_ELSEWHERE[symbol] for symbol in sorted(exported_elsewhere())]


def _versions(symbol: str) -> str:
    """Without what all have in common."""
    return ", ".join(one.removeprefix("GLIBC_") for one in versions().get(symbol, [])) or "-"


def page() -> str:
    """The whole page."""
    table = _table()
    parts = [_HEAD, f"## Interposed functions ({len(table)})\n"]
    for family, members in groupby(table, key=lambda row: row.family):
        parts.append(f"### {family.replace('_', ' ').capitalize()}\n")
        lines = [
            "| function | what it does | status | versions | tried by |",
            "|---|---|---|---|---|",
        ]
        lines += [
            f"| `{row.symbol}` | {cell(row.doc)} | {row.status} | {_versions(row.symbol)}"
            f" | {tested_by(row.symbol)} |"
            for row in members
        ]
        parts.append("\n".join(lines) + "\n")
    parts.append(_REFUSALS)
    lines = ["| number | what |", "|---|---|"]
    lines += [f"| {one.number} | {cell(one.doc)} |" for one in refusals()]
    parts.append("\n".join(lines) + "\n")
    parts.append(_GAPS)
    lines = ["| functions | what happens |", "|---|---|"]
    for reason in reasons():
        if reason.gap:
            names = ", ".join(f"`{name}`" for name in reason.names)
            lines.append(f"| {names} | {cell(reason.text)} |")
    parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def data() -> str:
    """What `crane doctor` reads: the same in a form for programs."""
    known = reasons()
    content = {
        "interposed": {row.symbol: row.family for row in sorted(_table(), key=lambda r: r.symbol)},
        "gaps": [{"names": one.names, "reason": one.text} for one in known if one.gap],
        "passed": sorted({name for one in known if not one.gap for name in one.names}),
    }
    return json.dumps(content, indent=1) + "\n"


def _essential(text: str) -> str:
    """A page without what tries each function."""
    return re.sub(r"^(\| `.*\|)[^|]*\|$", r"\1", text, flags=re.MULTILINE)


def main(arguments: list[str]) -> int:
    """Write the page, or check it; 1 when it is not up to date."""
    if arguments == ["--check"]:
        for path, text in ((PAGE, page()), (DATA, data())):
            # A new test alone does not make the page wrong.
            if not path.exists() or _essential(path.read_text()) != _essential(text):
                sys.stderr.write(f"{path} is not up to date; run `python tools/compatibility.py`\n")
                return 1
        return 0
    if arguments:
        sys.stderr.write("usage: compatibility.py [--check]\n")
        return 2
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page())
    DATA.write_text(data())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

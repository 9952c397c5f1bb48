"""The interposer's table against the C library, real servers and the public page."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import compatibility  # noqa: E402
import interposer_table  # noqa: E402
import symbol_record  # noqa: E402
import symbols  # noqa: E402

SERVERS = sorted(symbol_record.SERVERS)
# Another name of pthread_mutex_consistent, which is tried.
UNTRIED = {"pthread_mutex_consistent_np"}
LIBRARY = ROOT / "src" / "crane" / "_native" / "libcrane_interposer.so"

interposed = interposer_table.interposed()
known = symbols.reasons()
# That of the interpreter: every program here is loaded with the same one.
libc = symbols.exports(symbols.c_library(sys.executable))


def test_the_public_page_is_up_to_date() -> None:
    assert compatibility.main(["--check"]) == 0


def test_the_table_names_functions_of_the_c_library() -> None:
    # The guards of C++ statics are libstdc++'s.
    assert {one for one in interposed - libc if not one.startswith("__cxa_guard_")} == set()


def test_every_watched_function_is_interposed_or_on_record() -> None:
    lacking = symbols.missing(libc, interposed)
    assert [name for name in lacking if symbols.reason_for(name, known) is None] == []


def test_every_twin_is_interposed_or_on_record() -> None:
    twins = {
        twin
        for symbol in interposed
        for twin in symbols.twins(symbol)
        if twin in libc and twin not in interposed
    }
    assert [name for name in sorted(twins) if symbols.reason_for(name, known) is None] == []


def test_nothing_on_record_is_interposed() -> None:
    exact = {name for reason in known for name in reason.names if "*" not in name}
    assert exact & interposed == set()


@pytest.mark.parametrize("server", SERVERS)
def test_what_servers_import_is_interposed_or_on_record(server: str) -> None:
    """Their lists are stored, and those of the installed ones looked at, too."""
    stored = symbol_record.server_imports()[server]
    assert len(stored) > 20
    names = {*stored, *(symbol_record.imports_of(server) or ())}
    unknown = [
        name
        for name in symbols.missing(names, interposed)
        if symbols.reason_for(name, known) is None
    ]
    assert unknown == []


def test_every_version_of_an_interposed_symbol_is_on_record() -> None:
    exported = symbol_record.exported_versions(symbols.c_library(sys.executable))
    recorded = symbol_record.versions()
    lacking = {
        name: versions
        for name, versions in exported.items()
        # Another C library may have newer versions, not other ones.
        if name in interposed and not {*versions} & {*recorded.get(name, [])}
    }
    assert lacking == {}


def test_the_library_answers_every_version() -> None:
    """Its symbols have no version, so that callers of each find them."""
    if not LIBRARY.exists():
        pytest.skip("the interposer is not built; `make build` builds it")
    with LIBRARY.open("rb") as file:
        assert ELFFile(file).get_section_by_name(".gnu.version_d") is None


def test_every_interposed_symbol_is_tried_by_something() -> None:
    """But for other names of functions that are."""
    untried = {name for name in interposed if not symbol_record.tested_by(name)}
    same = {twin for name in interposed - untried for twin in symbols.twins(name)}
    plain = {symbols.base_name(name) for name in interposed - untried}
    assert {one for one in untried if one not in same and symbols.base_name(one) not in plain} == (
        UNTRIED
    )


def test_the_library_exports_the_table_and_nothing_else() -> None:
    if not LIBRARY.exists():
        pytest.skip("the interposer is not built; `make build` builds it")
    assert symbols.exports(str(LIBRARY)) == interposed


def test_the_servers_imports_are_read() -> None:
    assert {"fork", "epoll_wait"} <= symbols.imports(symbols.loaded_with("/usr/bin/python3")[0])


@pytest.mark.parametrize(
    ("symbol", "family"),
    [
        ("__recv_chk", "sockets"),
        ("open64", "descriptors"),
        ("__open64_2", "descriptors"),
        ("__xstat64", "files"),
        ("signal", "processes"),
        ("__signbit", None),
        ("strlen", None),
    ],
)
def test_families(symbol: str, family: str | None) -> None:
    assert symbols.family(symbol) == family


def test_exact_names_go_before_patterns() -> None:
    both = [symbols.Reason(True, ["a*"], "pattern"), symbols.Reason(False, ["ab"], "name")]
    found = symbols.reason_for("ab", both)
    assert found is not None
    assert found.text == "name"
    assert symbols.reason_for("b", both) is None


def test_a_row_without_documentation_is_an_error() -> None:
    table = "\ninterposed! {\n    time {\n        fn time(at: *mut u8) -> u8 { 0 }\n    }\n}\n"
    with pytest.raises(ValueError, match="`time` has no documentation"):
        interposer_table.rows(table)
    assert interposer_table.rows(
        table.replace("        fn", "        /// The time.\n        fn")
    ) == [interposer_table.Row("time", "time", "The time.")]


def test_refusals_are_numbered() -> None:
    text = "enum Unsupported {\n    /// One\n    /// thing.\n    A = 3,\n    /// Two.\n    B,\n}\n"
    assert interposer_table.refusals(text) == [
        interposer_table.Refusal(3, "A", "One thing."),
        interposer_table.Refusal(4, "B", "Two."),
    ]

"""What is known of each interposed symbol besides its row in the table.

``versions.json`` holds the versions in which the C library exports it, so that
the public page does not depend on the machine that writes it; the test says
when one is missing. ``server_imports.json`` holds what real servers, with their
libraries and modules, take from the C library of the watched families: the
symbol test compares it with the table on machines where they are not installed.

``python tools/symbol_record.py`` adds what this machine knows to both.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from functools import cache
from pathlib import Path

from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerDefSection, GNUVerSymSection
from elftools.elf.sections import SymbolTableSection
from interposer_table import ROOT, interposed
from symbols import c_library, family, imports, loaded_with

VERSIONS = Path(__file__).with_name("versions.json")
IMPORTS = ROOT / "tests" / "unit" / "server_imports.json"

# A server's file, and what it loads by itself while it runs.
SERVERS = {
    "apache2": ("/usr/sbin/apache2", ["/usr/lib/apache2/modules/*.so"]),
    "civetweb": ("/usr/bin/civetweb", []),
    "clamd": ("/usr/sbin/clamd", []),
    "gerbera": ("/usr/bin/gerbera", []),
    "haproxy": ("/usr/sbin/haproxy", []),
    "lighttpd": ("/usr/sbin/lighttpd", ["/usr/lib/lighttpd/*.so"]),
    "mariadbd": ("/usr/sbin/mariadbd", ["/usr/lib/mysql/plugin/*.so"]),
    "memcached": ("/usr/bin/memcached", []),
    "mosquitto": ("/usr/sbin/mosquitto", []),
    "nginx": ("/usr/sbin/nginx", ["/usr/lib/nginx/modules/*.so"]),
    "php": ("/usr/bin/php", ["/usr/lib/php/2*/*.so"]),
    "python3": ("/usr/bin/python3", ["/usr/lib/python3*/lib-dynload/*.so"]),
    "redis-server": ("/usr/bin/redis-server", []),
}
_CONFORMANCE = ROOT / "tests"
_CALL = re.compile(r"\b([A-Za-z_]\w*)\s*\(")


def versions() -> dict[str, list[str]]:
    """The versions of each symbol that are on record."""
    found: dict[str, list[str]] = json.loads(VERSIONS.read_text()) if VERSIONS.exists() else {}
    return found


def server_imports() -> dict[str, list[str]]:
    """The watched functions that each server takes from the C library."""
    found: dict[str, list[str]] = json.loads(IMPORTS.read_text()) if IMPORTS.exists() else {}
    return found


def exported_versions(library: str) -> dict[str, list[str]]:
    """The versions in which a library exports each of its symbols, oldest first."""
    with Path(library).open("rb") as file:
        elf = ELFFile(file)
        table = elf.get_section_by_name(".dynsym")
        indexes = elf.get_section_by_name(".gnu.version")
        definitions = elf.get_section_by_name(".gnu.version_d")
        assert isinstance(table, SymbolTableSection)
        assert isinstance(indexes, GNUVerSymSection)
        assert isinstance(definitions, GNUVerDefSection)
        names = {
            version["vd_ndx"]: next(iter(auxiliaries)).name
            for version, auxiliaries in definitions.iter_versions()
        }
        found: dict[str, set[str]] = {}
        for number, symbol in enumerate(table.iter_symbols()):
            index = indexes.get_symbol(number)["ndx"]
            if symbol["st_shndx"] != "SHN_UNDEF" and isinstance(index, int):
                found.setdefault(symbol.name, set()).add(names.get(index & 0x7FFF, ""))
    return {name: sorted(all_of, key=_order) for name, all_of in found.items()}


def _order(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)]


def imports_of(server: str) -> list[str] | None:
    """What an installed server takes, ``None`` when it is not installed."""
    path, modules = SERVERS[server]
    if not Path(path).exists():
        return None
    files = {path, *loaded_with(path)}
    for pattern in modules:
        files |= {str(module) for module in Path("/").glob(pattern.lstrip("/"))}
    return sorted({name for file in files for name in _watched(file)})


@cache
def _watched(file: str) -> frozenset[str]:
    """Imports of the watched families; many servers load the same libraries."""
    return frozenset(name for name in imports(file) if family(name) is not None)


@cache
def _calls() -> dict[str, list[str]]:
    """The test programs in C that call each function."""
    found: dict[str, list[str]] = {}
    sources = [*_CONFORMANCE.rglob("*.c"), *_CONFORMANCE.rglob("*.cc")]
    for path in sorted(sources):
        for name in sorted(set(_CALL.findall(path.read_text()))):
            found.setdefault(name, []).append(path.relative_to(_CONFORMANCE).as_posix())
    return found


def tested_by(symbol: str) -> str:
    """Where a symbol is tried: test programs that call it, else servers that import it."""
    direct = _calls().get(symbol, [])
    if direct:
        return ", ".join(f"`{one}`" for one in direct[:2])
    servers = [name for name, names in server_imports().items() if symbol in names]
    if servers:
        more = f" and {len(servers) - 3} more" if len(servers) > 3 else ""
        return ", ".join(servers[:3]) + more
    return ""


def main() -> int:
    """Add what this machine has; says what is not installed."""
    library = shutil.which("sh") or "/bin/sh"
    known = versions()
    exported = exported_versions(c_library(library))
    for name in interposed():
        if name in exported:
            known[name] = exported[name]
    VERSIONS.write_text(json.dumps(dict(sorted(known.items())), indent=1) + "\n")
    recorded = server_imports()
    for server in SERVERS:
        found = imports_of(server)
        if found is None:
            sys.stderr.write(f"{server} is not installed; its record stays as it is\n")
        else:
            recorded[server] = found
    text = json.dumps(dict(sorted(recorded.items())), indent=1)
    IMPORTS.write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""From an address in a program to the object and function it lies in."""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field
from pathlib import Path

from crane import procfs


@dataclass(frozen=True)
class Mapping:
    """One executable mapping of a process."""

    start: int
    end: int
    offset: int
    path: str


@dataclass
class Images:
    """The executable mappings of a replica's processes, and their symbols."""

    mappings: list[Mapping] = field(default_factory=list)
    _symbols: dict[str, _Symbols | None] = field(default_factory=dict)

    def describe(self, address: int) -> str:
        """``object+offset (function)`` for the call before ``address``."""
        if not address:
            return "?"
        for one in self.mappings:
            if one.start <= address < one.end:
                offset = address - one.start + one.offset
                name = Path(one.path).name
                symbols = self._of(one.path)
                function = symbols.at(offset - 1) if symbols else None
                return f"{name}+{offset:#x}" + (f" ({function})" if function else "")
        return f"{address:#x}"

    def _of(self, path: str) -> _Symbols | None:
        if path not in self._symbols:
            self._symbols[path] = _Symbols.read(Path(path))
        return self._symbols[path]


def parse_maps(text: str) -> list[Mapping]:
    """The executable mappings of a ``/proc/PID/maps``."""
    found = []
    for line in text.splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) < 6 or "x" not in fields[1] or not fields[5].startswith("/"):
            continue
        start, _, end = fields[0].partition("-")
        found.append(Mapping(int(start, 16), int(end, 16), int(fields[2], 16), fields[5]))
    return found


def snapshot(init: int) -> Images:
    """The mappings of every process below a replica's init."""
    mappings: dict[Mapping, None] = {}
    for process in procfs.descendants(init, procfs.all_processes()) if init else ():
        try:
            text = Path(f"/proc/{process.pid}/maps").read_text(errors="surrogateescape")
        except OSError:
            continue  # it has ended
        mappings.update(dict.fromkeys(parse_maps(text)))
    return Images(list(mappings))


def running_threads(init: int) -> str:
    """The threads below a replica's init that execute now, in words; empty when all wait."""
    names = []
    for process in procfs.descendants(init, procfs.all_processes()) if init else ():
        for task in sorted(Path(f"/proc/{process.pid}/task").glob("*")):
            try:
                running = (
                    procfs.parse_stat((task / "stat").read_text(errors="replace")).state == "R"
                )
                name = (task / "comm").read_text(errors="replace").strip()
            except OSError:
                continue  # it has ended
            if running:
                names.append(f"`{name}`")
    return " and ".join(names)


class _Symbols:
    """The functions of one ELF file, by their place in the file."""

    def __init__(self, functions: list[tuple[int, int, str]]) -> None:
        self._functions = sorted(functions)
        self._starts = [start for start, _, _ in self._functions]

    def at(self, offset: int) -> str | None:
        number = bisect.bisect_right(self._starts, offset) - 1
        if number < 0:
            return None
        start, size, name = self._functions[number]
        return f"{name}+{offset + 1 - start:#x}" if offset < start + max(size, 1) else None

    @classmethod
    def read(cls, path: Path) -> _Symbols | None:
        """The symbols of ``path``, ``None`` when it cannot be read or has none."""
        from elftools.common.exceptions import ELFError
        from elftools.elf.elffile import ELFFile
        from elftools.elf.sections import SymbolTableSection

        try:
            with path.open("rb") as file:
                elf = ELFFile(file)
                loads = [one for one in elf.iter_segments() if one["p_type"] == "PT_LOAD"]
                functions = []
                for section in elf.iter_sections():
                    if not isinstance(section, SymbolTableSection):
                        continue
                    for symbol in section.iter_symbols():
                        place = symbol["st_value"]
                        if symbol["st_info"]["type"] != "STT_FUNC" or not place:
                            continue
                        for load in loads:
                            if 0 <= place - load["p_vaddr"] < load["p_filesz"]:
                                start = place - load["p_vaddr"] + load["p_offset"]
                                functions.append((start, symbol["st_size"], symbol.name))
                                break
        except (OSError, ELFError):
            return None
        return cls(functions) if functions else None

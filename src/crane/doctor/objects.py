"""What a program file or library asks for, from its ELF headers and its code."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

_SYMBOL_KINDS = ("STT_FUNC", "STT_NOTYPE", "STT_GNU_IFUNC")

# Sequences that compilers and assemblers emit around the instructions; the
# instructions alone are so short that data looks like them.
_CODE = {
    # The carry flag says whether there was a number.
    "rdrand": re.compile(
        rb"\x0f\xc7[\xf0-\xf7](?:\x89.{1,3})?(?:\x0f[\x42\x43\x92\x93\x82\x83]|[\x72\x73])",
        re.DOTALL,
    ),
    "rdseed": re.compile(
        rb"\x0f\xc7[\xf8-\xff](?:\x89.{1,3})?(?:\x0f[\x42\x43\x92\x93\x82\x83]|[\x72\x73])",
        re.DOTALL,
    ),
    "xbegin": re.compile(rb"\xc7\xf8.{2}\x00\x00", re.DOTALL),
    # The number is put into eax before, or the result compared after.
    "syscall": re.compile(
        rb"(?:\xb8..\x00\x00.{0,12}?\x0f\x05)|(?:\x0f\x05\x48\x3d[\x00\x01]\xf0\xff\xff)", re.DOTALL
    ),
}


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """One file that is loaded."""

    path: str
    imports: set[str]
    """Functions that it takes from others."""
    defines: set[str]
    """Functions that it gives to others."""
    code: dict[str, int]
    """Instructions that bring the machine in, and how many places look like them."""


def read(path: str) -> Facts:
    """Read a file's headers and code; nothing is loaded or run."""
    from elftools.elf.elffile import ELFFile
    from elftools.elf.sections import SymbolTableSection

    with Path(path).open("rb") as file:
        elf = ELFFile(file)
        imports: set[str] = set()
        defines: set[str] = set()
        table = elf.get_section_by_name(".dynsym")
        if isinstance(table, SymbolTableSection):
            for symbol in table.iter_symbols():
                if symbol["st_info"]["type"] in _SYMBOL_KINDS and symbol.name:
                    undefined = symbol["st_shndx"] == "SHN_UNDEF"
                    (imports if undefined else defines).add(symbol.name)
        code: dict[str, int] = {}
        for section in elf.iter_sections():
            if section["sh_flags"] & 0x4 and section["sh_type"] == "SHT_PROGBITS":
                data = section.data()
                for name, pattern in _CODE.items():
                    code[name] = code.get(name, 0) + sum(1 for _ in pattern.finditer(data))
        return Facts(
            path=path,
            imports=imports,
            defines=defines,
            code={name: count for name, count in code.items() if count},
        )

"""Compare the interposer's table with what the C library exports and servers import.

``python tools/symbols.py [PROGRAM]...`` prints, for each program and the
libraries that the loader would load with it, the watched functions that it
imports and that are not interposed, with the reason on record.

Every function of the C library that belongs to a watched family (time,
randomness, sockets, threads, processes, polling, descriptors, files) is
either in the interposer's table or in ``not_interposed.toml`` with a reason;
``tests/unit/test_symbols.py`` fails for one that is in neither.
"""

from __future__ import annotations

import fnmatch
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerDefSection, GNUVerNeedSection, GNUVerSymSection
from elftools.elf.sections import Symbol, SymbolTableSection

NOT_INTERPOSED = Path(__file__).with_name("not_interposed.toml")

# Patterns of names without leading underscores and without the endings of twins.
FAMILIES = {
    "time": r"clock|clock_.*|time|times|timespec_get(res)?|[gs]ettimeofday|stime|ftime|adjtimex?"
    r"|ntp_.*|nanosleep|u?sleep|u?alarm|[gs]etitimer|timer_.*|timerfd_.*|getrusage|getloadavg"
    r"|get_nprocs.*|get_av?phys_pages|sysconf|sysinfo",
    "randomness": r"getrandom|getentropy|arc4random.*|mkd?s?temps?|mkos?temps?|mktemp"
    r"|tmpnam.*|tmpfile|tempnam",
    "sockets": r"socket|socketpair|bind|listen|accept4?|connect|[gs]etsockopt|getsockname"
    r"|getpeername|send(?!file).*|recv.*|shutdown|isfdtype|sockatmark|getaddrinfo.*|gai_.*"
    r"|freeaddrinfo|getnameinfo|gethostby.*|gethostname|getdomainname|[gf].*ifaddrs|if_.*"
    r"|bindresvport|res_.*|rcmd.*|rexec.*",
    "threads": r"pthread_.*|thrd_.*|mtx_.*|cnd_.*|tss_.*|call_once|sem_.*|sched_.*|getcpu"
    r"|register_atfork|cxa_guard_.*",
    "processes": r"v?fork|Fork|exec.*|fexecve|posix_spawn.*|popen|pclose|system|wait[0-9]?|waitid"
    r"|waitpid|kill(pg)?|tgkill|raise|abort|sig(?!nbit|nificand|ngam).*|[bg]sd_signal|sysv_signal"
    r"|gsignal|ssignal|clone2?|_?[eE]xit|quick_exit|on_exit|daemon|pause|pidfd_.*|ptrace|forkpty"
    r"|process_.*|wordexp|unshare|setns|get[p]?pid|gettid|vhangup|psignal",
    "polling": r"p?poll|p?select|epoll_.*|aio_.*|lio_.*|inotify_.*|fanotify_.*|eventfd.*|signalfd",
    "descriptors": r"p?readv?2?|p?readv64v2|p?writev?2?|pwritev64v2|close|close_range|closefrom"
    r"|dup[23]?|fcntl|ioctl|pipe2?|(vm)?splice|tee|copy_file_range|sendfile"
    r"|open|openat2?|creat|fopen|freopen|fdopen|fclose|fcloseall|open_by_handle_at|ftruncate"
    r"|truncate|fallocate|posix_fallocate|f(data)?sync|syncfs|msync|sync_file_range|sync",
    "files": r"[lf]?x?stat|fx?statat|statx|f?statv?fs|opendir|fdopendir|readdir.*"
    r"|scandir.*|getdents|f?utimes?.*|lutimes|getdirentries|dlopen|dlsym|dlvsym|syscall|uname",
}
_TWIN_ENDINGS = re.compile(r"(64)?(_chk|_nocancel|_2)?$")
_WATCHED = {family: re.compile(pattern) for family, pattern in FAMILIES.items()}


class Reason(NamedTuple):
    """Why functions are not interposed."""

    gap: bool
    """Whether that can let replicas differ or stop the program."""
    names: list[str]
    """Names, or patterns with ``*``."""
    text: str


def base_name(symbol: str) -> str:
    """The function that a symbol is a twin of: without underscores, ``64``, ``_chk``..."""
    plain = symbol.lstrip("_").removeprefix("libc_").removeprefix("nss_")
    shorter = _TWIN_ENDINGS.sub("", plain)
    return shorter or plain


def family(symbol: str) -> str | None:
    """The watched family of a function, ``None`` for one that is not watched."""
    names = {symbol.lstrip("_"), base_name(symbol)}
    for found, pattern in _WATCHED.items():
        if any(pattern.fullmatch(name) for name in names):
            return found
    return None


def twins(symbol: str) -> list[str]:
    """The names under which a C library may export the same function again."""
    plain = symbol.lstrip("_").removesuffix("64")
    bodies = [plain, f"{plain}64"]
    return [
        twin
        for body in bodies
        for twin in (
            body,
            f"_{body}",
            f"__{body}",
            f"__libc_{body}",
            f"__{body}_chk",
            f"__{body}_2",
            f"__{body}_nocancel",
        )
        if twin != symbol
    ]


def reasons(path: Path = NOT_INTERPOSED) -> list[Reason]:
    """The record of what is not interposed."""
    data = tomllib.loads(path.read_text())
    return [
        Reason(kind == "gap", entry["names"], " ".join(entry["reason"].split()))
        for kind in ("passed", "gap")
        for entry in data[kind]
    ]


def reason_for(symbol: str, known: Iterable[Reason]) -> Reason | None:
    """The recorded reason for a symbol; an exact name goes before a pattern."""
    known = list(known)
    for one in known:
        if symbol in one.names:
            return one
    for one in known:
        if any("*" in name and fnmatch.fnmatchcase(symbol, name) for name in one.names):
            return one
    return None


def exports(path: str) -> set[str]:
    """The functions that a library exports to programs, of all versions but its private one."""
    with Path(path).open("rb") as file:
        elf = ELFFile(file)
        versions = _defined_versions(elf)
        found = set()
        for number, symbol in enumerate(_dynamic_symbols(elf)):
            defined = symbol["st_shndx"] != "SHN_UNDEF"
            kind = symbol["st_info"]["type"] in ("STT_FUNC", "STT_GNU_IFUNC", "STT_LOOS")
            if defined and kind and versions.get(number) != "GLIBC_PRIVATE":
                found.add(symbol.name)
        return found


def imports(path: str) -> set[str]:
    """The functions that a program or library takes from the C library."""
    with Path(path).open("rb") as file:
        elf = ELFFile(file)
        needed = elf.get_section_by_name(".gnu.version_r")
        indexes = elf.get_section_by_name(".gnu.version")
        if not isinstance(needed, GNUVerNeedSection) or not isinstance(indexes, GNUVerSymSection):
            return set()
        from_libc = {
            version["vna_other"]
            for file_, entries in needed.iter_versions()
            for version in entries
            if str(file_.name).startswith(("libc.so", "libpthread.so", "librt.so", "libdl.so"))
        }
        return {
            symbol.name
            for number, symbol in enumerate(_dynamic_symbols(elf))
            if symbol["st_shndx"] == "SHN_UNDEF"
            and indexes.get_symbol(number)["ndx"] in from_libc
            and symbol["st_info"]["type"] in ("STT_FUNC", "STT_NOTYPE", "STT_GNU_IFUNC")
        }


def _dynamic_symbols(elf: ELFFile) -> list[Symbol]:
    section = elf.get_section_by_name(".dynsym")
    return list(section.iter_symbols()) if isinstance(section, SymbolTableSection) else []


def _defined_versions(elf: ELFFile) -> dict[int, str]:
    """Version names by the index of the symbol."""
    indexes = elf.get_section_by_name(".gnu.version")
    definitions = elf.get_section_by_name(".gnu.version_d")
    if not isinstance(indexes, GNUVerSymSection) or not isinstance(definitions, GNUVerDefSection):
        return {}
    names = {
        version["vd_ndx"]: next(iter(auxiliaries)).name
        for version, auxiliaries in definitions.iter_versions()
    }
    found = {}
    for number in range(indexes.num_symbols()):
        index = indexes.get_symbol(number)["ndx"]
        if isinstance(index, int):
            found[number] = names.get(index & 0x7FFF, "")
    return found


def _ldd(program: str) -> str:
    command = ["/usr/bin/ldd", program]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def loaded_with(program: str) -> list[str]:
    """The program and the libraries that the loader loads with it, the C library left out."""
    listing = _ldd(program)
    libraries = re.findall(r"(?:=> )?(/\S+) \(0x", listing)
    own = {
        *("libc.so.6", "libpthread.so.0", "librt.so.1", "libdl.so.2", "libm.so.6"),
        *("libresolv.so.2", "libutil.so.1"),
    }
    kept = [
        path
        for path in libraries
        if Path(path).name not in own and not Path(path).name.startswith("ld-linux")
    ]
    return [program, *kept]


def c_library(program: str) -> str:
    """The C library that a program is loaded with.

    Raises:
        ValueError: when it has none.
    """
    listing = _ldd(program)
    found = re.search(r"libc\.so\.6 => (/\S+)", listing)
    if found is None:
        raise ValueError(f"{program} is not loaded with the GNU C library")
    return found[1]


def missing(names: Iterable[str], interposed: set[str]) -> dict[str, str]:
    """The watched functions among ``names`` that are not interposed, with their family."""
    found = ((name, family(name)) for name in sorted(names) if name not in interposed)
    return {name: group for name, group in found if group is not None}


def main(programs: list[str]) -> int:
    """Print what ``programs`` import and is not interposed; 1 when a reason is missing."""
    from interposer_table import interposed

    table, known = interposed(), reasons()
    status = 0
    for program in programs:
        for path in loaded_with(program):
            lacking = missing(imports(path), table)
            lines = []
            for name, group in lacking.items():
                reason = reason_for(name, known)
                if reason is None:
                    status = 1
                    lines.append(f"  {name} ({group}): NOT ON RECORD")
                elif reason.gap:
                    lines.append(f"  {name} ({group}): {reason.text}")
            sys.stdout.write("\n".join([f"{path}: {len(lines)} gaps", *lines]) + "\n")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["/usr/bin/redis-server", "/usr/bin/python3"]))

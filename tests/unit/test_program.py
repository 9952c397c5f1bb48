from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from crane import program
from crane.errors import CraneError
from crane.program import ElfFacts, Kind, NotReplicableError

ENV = {"PATH": "/usr/bin:/bin"}


def refusal(path: Path) -> str:
    with pytest.raises(NotReplicableError) as error:
        program.check(str(path), ENV)
    assert error.value.exit_code == 126
    return str(error.value)


def script(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_a_dynamic_program_is_accepted() -> None:
    assert program.check("/bin/sh", ENV).binary == "/bin/sh"


def test_a_script_is_followed_to_its_interpreter(tmp_path: Path) -> None:
    direct = script(tmp_path / "a", "#!/bin/sh -e\n")
    assert program.check(str(direct), ENV).binary == "/bin/sh"
    by_env = script(tmp_path / "b", "#!/usr/bin/env -S sh -e\n")
    assert Path(program.check(str(by_env), ENV).binary).name == "sh"
    nested = script(tmp_path / "c", f"#!{direct}\n")
    assert program.check(str(nested), ENV).binary == "/bin/sh"


def test_what_cannot_be_started_is_refused(tmp_path: Path) -> None:
    assert "does not exist" in refusal(script(tmp_path / "a", "#!/none/sh\n"))
    assert "names no interpreter" in refusal(script(tmp_path / "b", "#!\n"))
    assert "neither an ELF program nor a script" in refusal(script(tmp_path / "c", "hello"))
    plain = tmp_path / "d"
    plain.write_text("#!/bin/sh\n")
    plain.chmod(0o644)
    if os.geteuid() != 0 or not os.access(plain, os.X_OK):
        assert "chmod +x" in refusal(plain)
    assert "is not a file" in refusal(tmp_path)
    loop = tmp_path / "e"
    script(loop, f"#!{loop}\n")
    assert "nested interpreters" in refusal(loop)


def test_a_setuid_program_is_refused(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copy("/bin/sh", copy)
    copy.chmod(0o4755)
    assert "setuid" in refusal(copy)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to set capabilities")
def test_file_capabilities_are_refused(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copy("/bin/sh", copy)
    # VFS_CAP_REVISION_2 with CAP_NET_BIND_SERVICE permitted and effective.
    os.setxattr(copy, "security.capability", bytes.fromhex("01000002" + "00040000" + "00" * 12))
    assert "file capabilities" in refusal(copy)


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_a_static_program_is_refused(tmp_path: Path) -> None:
    source, binary = tmp_path / "a.c", tmp_path / "a"
    source.write_text("void _start(void) { for (;;) {} }\n")
    subprocess.run(["cc", "-nostdlib", "-static", "-o", binary, source], check=True)
    assert "statically linked" in refusal(binary)


def test_foreign_and_other_libraries_programs_are_refused() -> None:
    with pytest.raises(NotReplicableError, match=r"another machine \(AArch64, 64 bit\)"):
        program.explain_elf("/x", "/x", ElfFacts(Kind.FOREIGN, "AArch64, 64 bit"))
    with pytest.raises(NotReplicableError, match="only programs for the GNU C library"):
        program.explain_elf("/x", "/x", ElfFacts(Kind.DYNAMIC, "/lib/ld-musl-x86_64.so.1"))
    assert program.elf_facts(sys.executable, "sparc64").kind is Kind.FOREIGN


def test_finding_a_program(tmp_path: Path) -> None:
    here = script(tmp_path / "server", "#!/bin/sh\n")
    assert program.find("./server", str(tmp_path), ENV) == str(here)
    assert program.find("server", "/", {"PATH": str(tmp_path)}) == str(here)
    for name, says in (("nosuchserver", "was not found in PATH"), ("./no", "does not exist")):
        with pytest.raises(CraneError, match=says) as error:
            program.find(name, str(tmp_path), ENV)
        assert error.value.exit_code == 127

"""What is said of a program before it starts, from its files alone."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from conftest import Cranes

from crane.doctor import advice, examine, objects

ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}


@pytest.fixture
def compiled(tmp_path: Path) -> Path:
    """A program that takes the processor's clock and randomness."""
    source = tmp_path / "program.c"
    source.write_text(
        """
        #include <dirent.h>
        #include <immintrin.h>
        #include <pthread.h>
        #include <x86intrin.h>
        int main(int argc, char **argv) {
            unsigned int chance;
            pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
            pthread_mutex_lock(&lock);
            while (!_rdrand32_step(&chance)) { }
            return opendir(argv[0]) == 0 && chance + __rdtsc() == 7;
        }
        """
    )
    program = tmp_path / "program"
    subprocess.run(["cc", "-O1", "-mrdrnd", "-o", program, source], check=True)
    return program


def test_calls_and_instructions_are_found(compiled: Path) -> None:
    report = examine.examine([str(compiled)], "/", ENVIRONMENT)
    assert report.verdict == "supported"
    assert report.files[0] == str(compiled)
    assert any(Path(one).name == "libc.so.6" for one in report.files)
    assert report.interposed >= 1
    found = {one.what.split(" ")[0] for one in report.findings}
    # The time-stamp counter is virtual.
    assert "rdrand" in found
    assert "rdtsc" not in found
    assert "pthread_mutex_lock" not in found


def test_code_without_such_instructions_has_none() -> None:
    found = objects.read(str(Path("/bin/cat").resolve()))
    assert found.code == {}
    assert "malloc" in found.imports


def test_what_cannot_be_replicated_says_why(tmp_path: Path, compiled: Path) -> None:
    source = compiled.with_suffix(".c")
    static = tmp_path / "static"
    subprocess.run(["cc", "-static", "-mrdrnd", "-o", static, source], check=True)
    report = examine.examine([str(static)], "/", ENVIRONMENT)
    assert report.verdict == "not supported"
    assert "statically linked" in report.because
    compiled.chmod(0o4755)
    assert "setuid" in examine.examine([str(compiled)], "/", ENVIRONMENT).because


def test_a_go_program_is_known_by_its_sections(tmp_path: Path, compiled: Path) -> None:
    go = tmp_path / "go"
    (tmp_path / "info").write_bytes(b"go1.22")
    subprocess.run(
        ["objcopy", "--add-section", f".go.buildinfo={tmp_path / 'info'}", compiled, go],
        check=True,
    )
    report = examine.examine([str(go)], "/", ENVIRONMENT)
    assert report.verdict == "not supported"
    assert "Go program" in report.because


def test_every_line_of_the_advice_makes_sense() -> None:
    for one in advice.everything():
        assert one.programs
        assert one.do[0].islower()
        assert not one.do.endswith(".")
        assert not one.why.endswith(".")
        re.compile(one.when)
        re.compile(one.unless)


def made(**changes: object) -> advice.Advice:
    plain = {"programs": ["shop*"], "level": "needed", "do": "x", "why": "y"}
    return advice.Advice(**{**plain, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("one", "argv", "applies"),
    [
        (made(), ["shopd"], True),
        (made(), ["other"], False),
        (made(when="--threads +[2-9]"), ["shopd", "--threads", "4"], True),
        (made(when="--threads +[2-9]"), ["shopd", "--threads", "1"], False),
        (made(unless="--safe"), ["shopd", "--safe"], False),
    ],
)
def test_advice_is_for_names_and_arguments(
    one: advice.Advice, argv: list[str], applies: bool
) -> None:
    assert one.applies(argv[:1], argv) == applies


def test_crane_run_shows_what_is_needed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "advice.toml"
    file.write_text(
        '[[advice]]\nprograms = ["shopd"]\nlevel = "needed"\ndo = "give `--safe`"\nwhy = "it is"\n'
        '[[advice]]\nprograms = ["shopd"]\nlevel = "useful"\ndo = "rest"\nwhy = "it is"\n'
    )
    everything = advice.everything(file)
    monkeypatch.setattr(advice, "everything", lambda: everything)
    assert advice.hint(["/usr/bin/shopd"], ["shopd"]) == "hint: give `--safe`: it is"
    assert advice.hint(["/usr/bin/other"], ["other"]) is None


def test_the_command(cranes: Cranes, compiled: Path) -> None:
    good = cranes.crane("doctor", "--", str(compiled))
    assert good.returncode == 0
    assert good.stdout.startswith(f"supported: {compiled}\n")
    assert "rdrand" in good.stdout
    assert cranes.crane("doctor", "--", "no-such-program").returncode == 127
    assert cranes.crane("doctor").returncode == 2
    compiled.chmod(0o4755)
    assert cranes.crane("doctor", "--", str(compiled)).returncode == 126

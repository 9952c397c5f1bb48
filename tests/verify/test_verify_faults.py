"""A program that is not determined by its log is caught, and the place is named."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from verification import HERE, Result, identical, verify

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    assert compiler is not None, "a C compiler is needed"
    place = tmp_path_factory.mktemp("program") / "undetermined"
    source = HERE / "programs" / "undetermined.c"
    subprocess.run(
        [compiler, "-O1", "-Wall", "-o", str(place), str(source), "-lpthread"], check=True
    )
    return place


def check(program: Path, fault: str, work: Path, *options: str) -> Result:
    base = ["--requests", "400", "--connections", "5"]
    return verify(work, [*base, *options], [str(program), "7000", fault], program.parent)


def different(result: Result) -> None:
    assert result.code == 1, result.explain()
    assert result.verdict, result.explain()


def test_without_the_fault_it_is_determined(program: Path, tmp_path: Path) -> None:
    identical(check(program, "none", tmp_path, "--runs", "3"), 3)


def test_another_order_of_operations_is_found(program: Path, tmp_path: Path) -> None:
    result = check(program, "order", tmp_path, "--runs", "2")
    different(result)
    verdict = result.verdict
    assert not verdict["identical"]
    assert "schedule" in verdict["difference"]["what"]
    assert verdict["difference"]["epoch"] > 0
    found = verdict["operation"]
    assert "MutexLock" in found["what"]
    assert "MutexTryLock" in found["what"]
    places = {found[side][found["at"]]["place"].partition(" (")[2] for side in ("first", "second")}
    functions = {place.partition("+")[0] for place in places}
    assert functions == {"the_usual_way", "the_other_way"}
    # What came before is the same in both.
    assert found["first"][: found["at"]] == found["second"][: found["at"]]
    assert found["at"] > 0
    assert "DIFFERENT: run 1 and run 2 differ in schedule" in result.output.splitlines()[-1]
    assert "the_other_way" in result.output


def test_another_lock_is_found(program: Path, tmp_path: Path) -> None:
    result = check(program, "lock", tmp_path, "--runs", "2")
    different(result)
    assert result.verdict["difference"]["what"] == ["schedule"]
    found = result.verdict["operation"]
    assert "comes to MutexLock with another object" in found["what"]
    one, other = (found[side][found["at"]] for side in ("first", "second"))
    assert "with_some_lock" in one["place"]
    assert one["object"] != other["object"]


def test_another_answer_is_found(program: Path, tmp_path: Path) -> None:
    result = check(program, "answer", tmp_path, "--runs", "2")
    different(result)
    assert result.verdict["difference"]["what"] == ["output"]
    found = result.verdict["operation"]
    # The bytes are computed behind the lock and sent by the write.
    assert re.search(
        "sent other bytes in or after its (MutexLock|Write) at undetermined", found["what"]
    )
    assert found["first"][found["at"]]["operation"] in ("MutexLock", "Write")


def test_another_file_is_named(program: Path, tmp_path: Path) -> None:
    result = check(program, "file", tmp_path, "--runs", "2")
    different(result)
    assert result.verdict["difference"]["what"] == ["files"]
    assert str(program.parent / "undetermined.out") in result.verdict["difference"]["files"][0]


def test_a_kept_recording_is_executed_again(program: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    first = check(program, "none", work, "--runs", "2", "--keep")
    assert first.code == 0, first.explain()
    kept = next(work.glob("crane-verify-*"))
    again = verify(work, ["--runs", "2", "--log", str(kept / "recording")], [], program.parent)
    assert again.code == 0, again.explain()
    # The file of epochs alone does not say what it is of.
    bare = ["--runs", "2", "--log", str(kept / "recording" / "epochs")]
    other = verify(work, bare, [str(program), "7000", "none"], program.parent)
    hashes = [one.verdict["runs"][0]["output_hash"] for one in (first, again, other)]
    assert len(set(hashes)) == 1
    unnamed = verify(work, bare, [], program.parent)
    assert (unnamed.code, unnamed.verdict) == (2, {})
    assert "give it after `--`" in unnamed.errors


def test_nothing_is_left_behind(program: Path, tmp_path: Path) -> None:
    before = set(Path("/dev/shm").iterdir())
    assert check(program, "none", tmp_path, "--runs", "2").code == 0
    left = {one for one in set(Path("/dev/shm").iterdir()) - before if "crane-" in one.name}
    # Other clusters of this machine may have started meanwhile; ours has ended.
    assert not [one for one in left if _is_ours(one)]
    assert [one.name for one in tmp_path.iterdir()] == ["verdict.json"]


def _is_ours(shared: Path) -> bool:
    """Whether a segment belongs to nobody who runs."""
    try:
        segment = str(shared / "inside" / "seg")
        used = any(segment in maps.read_text() for maps in Path("/proc").glob("[0-9]*/maps"))
    except OSError:
        return False
    return not used


def test_what_cannot_be_recorded_is_told_in_one_line(tmp_path: Path) -> None:
    for program, says in {
        ("true",): "before it served clients",
        ("no-such-program",): "was not found in PATH",
    }.items():
        result = verify(tmp_path, ["--runs", "2"], program, tmp_path)
        assert result.code != 0
        assert len(result.errors.splitlines()) == 1
        assert says in result.errors
    failed = verify(
        tmp_path,
        ["--runs", "2", "--load", "echo it broke; exit 3"],
        ["redis-server", "--port", "6379"],
        tmp_path,
    )
    assert failed.code == 1
    assert "exit status 3: it broke" in failed.errors

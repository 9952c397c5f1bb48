"""``crane chaos`` as a user types it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from scenario import CRANE, EXAMPLES, PYTHON

_REGISTER = [PYTHON, str(EXAMPLES / "register/register.py"), "--port", "7100"]


def chaos(tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(CRANE), "chaos", *words],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=110,
        check=False,
    )


def test_faults_of_processes_need_no_privileges(tmp_path: Path) -> None:
    words = ("--seed", "11", "--minutes", "0.05", "--loopback", "--fault", "pause")
    done = chaos(tmp_path, *words, "--", *_REGISTER)
    assert done.returncode == 0, done.stderr
    assert "seed 11, 1 kinds of faults, load: lines of text" in done.stdout
    assert "compared with the log, executed once more" in done.stdout
    assert "GOOD: nothing acknowledged was lost" in done.stdout
    assert (
        f"to repeat: crane chaos --seed 11 --minutes 0.05 --fault pause --loopback -- {PYTHON}"
        in (done.stdout)
    )
    assert (tmp_path / "crane-chaos-11.svg").read_text().startswith("<svg")


@pytest.mark.skipif(os.geteuid() != 0, reason="hosts of their own need root")
def test_a_load_of_ones_own_on_hosts(tmp_path: Path) -> None:
    ask = f"exec {PYTHON} {tmp_path}/ask.py"
    (tmp_path / "ask.py").write_text(
        "import os, socket, time\n"
        "places = [one.rsplit(':', 1) for one in os.environ['CRANE_ADDRESSES'].split(',')]\n"
        "for number in range(10**9):\n"
        "    host, port = places[number % len(places)]\n"
        "    try:\n"
        "        with socket.create_connection((host, int(port)), timeout=1.0) as link:\n"
        "            link.sendall(b'read x\\n')\n"
        "            print(link.recv(100), flush=True)\n"
        "    except OSError:\n"
        "        time.sleep(0.01)\n"
    )
    words = ("--seed", "12", "--minutes", "0.05", "--fault", "partition", "--load", ask)
    done = chaos(tmp_path, *words, "--", *_REGISTER)
    assert done.returncode == 0, done.stderr
    assert "by your own load's exit code" in done.stdout
    assert "partition" in done.stdout


def test_a_load_that_saw_something_wrong(tmp_path: Path) -> None:
    ask = "for n in 1 2 3; do echo asked; sleep 1; done; echo x was lost >&2; exit 3"
    words = ("--minutes", "0.05", "--loopback", "--fault", "pause", "--load", ask)
    done = chaos(tmp_path, *words, "--", *_REGISTER)
    assert done.returncode == 1
    assert "the load ended with exit status 3: x was lost" in done.stdout
    assert "NOT GOOD" in done.stdout


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--", "no-such-program"), "program `no-such-program` was not found"),
        (("--fault", "flood", "--", *_REGISTER), "there is no fault `flood`"),
        (("--loopback", "--fault", "mute", "--", *_REGISTER), "`mute` needs hosts of its own"),
        ((), "no program was given"),
    ],
)
def test_what_cannot_be_is_said(tmp_path: Path, words: tuple[str, ...], says: str) -> None:
    done = chaos(tmp_path, *words)
    assert done.returncode != 0
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1

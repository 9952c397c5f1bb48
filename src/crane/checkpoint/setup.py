"""Building a CRIU that current kernels need, from Debian's source package.

Debian 12's own CRIU does not start on Linux 6.13 and newer. What Debian's
development distribution has cannot be installed there (it needs a newer C
library), but its source builds with what Debian 12 has, in less than a minute.
apt checks the source against Debian's signature, so nothing is downloaded that
Debian has not signed. Everything goes to :data:`crane.checkpoint.criu.PREFIX`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from crane.checkpoint import criu
from crane.errors import CraneError

_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_PACKAGES = [
    *("gcc", "make", "libc6-dev", "xz-utils", "dpkg-dev", "pkg-config", "python3-protobuf"),
    *("libprotobuf-dev", "libprotobuf-c-dev", "protobuf-c-compiler", "protobuf-compiler"),
    *("libnl-3-dev", "libcap-dev", "libnet1-dev", "libnftables-dev", "libgnutls28-dev"),
    *("libbsd-dev", "uuid-dev"),
]
_PRELOAD_SOURCE = Path(__file__).with_name("preload.c")


def setup(say: Callable[[str], None]) -> criu.Criu:
    """Make what checkpoints need, unless it is there; the CRIU that will be used.

    Raises:
        CraneError: when it cannot be made, in one line.
    """
    if os.geteuid() != 0:
        raise CraneError("checkpoints need root, and so does this; run it as root")
    criu.PREFIX.mkdir(mode=0o755, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="crane-criu-") as work:
        if not _is_there():
            _build(Path(work), say)
        _compile_preload()
    criu.find.cache_clear()
    found = criu.find()
    wrong = criu.check()
    if wrong is not None:
        raise CraneError(wrong)
    return found


def _is_there() -> bool:
    """Whether there is a CRIU that is new enough."""
    return criu.newest() is not None


def _build(work: Path, say: Callable[[str], None]) -> None:
    if shutil.which("apt-get") is None:
        raise CraneError(
            "this is not a Debian: install CRIU 4.2 or newer with your own package manager,"
            " then repeat `crane checkpoint setup`"
        )
    say("installing what CRIU is built with")
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "--yes", "--no-install-recommends", *_PACKAGES]
    if _try(install, environ) is not None:
        _run(["apt-get", "update"], "update the list of packages", environ)
        _run(install, "install what CRIU is built with", environ)
    say("fetching its source from Debian")
    lists, cache = work / "lists", work / "cache"
    (lists / "partial").mkdir(parents=True)
    (cache / "archives/partial").mkdir(parents=True)
    source_line = f"deb-src [signed-by={_KEYRING}] {_archive()} sid main\n"
    (work / "sources.list").write_text(source_line)
    apt = ["apt-get"]
    for option in (
        f"Dir::Etc::sourcelist={work}/sources.list",
        "Dir::Etc::sourceparts=-",
        f"Dir::State::lists={lists}",
        f"Dir::Cache={cache}",
        "Dir::State::status=/dev/null",
        "APT::Sandbox::User=root",
    ):
        apt += ["-o", option]
    _run([*apt, "update"], "get Debian's list of sources", environ)
    # Debian's own changes are not needed, and are not always there.
    _run([*apt, "source", "--tar-only", "--download-only", "criu"], "get the source", cwd=work)
    (archive,) = work.glob("criu_*.orig.tar.*")
    _run(["tar", "--extract", "--file", str(archive)], "unpack the source", cwd=work)
    (source,) = (path for path in work.glob("criu-*") if path.is_dir())
    say(f"building {source.name}")
    jobs = str(os.cpu_count() or 1)
    _run(["make", "-j", jobs, "criu", "NO_AMDGPU=1"], "build CRIU", cwd=source)
    made = criu.PREFIX / ".criu.new"
    shutil.copyfile(source / "criu/criu", made)
    made.chmod(0o755)
    _try(["strip", str(made)])
    made.rename(criu.PREFIX / "criu")


def _archive() -> str:
    """Where this machine gets Debian's packages from."""
    done = subprocess.run(
        [
            shutil.which("apt-get") or "",
            "indextargets",
            "--format",
            "$(ORIGIN)|$(LABEL)|$(REPO_URI)",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    for line in done.stdout.splitlines():
        place = line.removeprefix("Debian|Debian|")
        if place != line:
            return place
    raise CraneError(
        "apt has no list of Debian's packages; run `apt-get update` on a Debian, or install CRIU"
        " 4.2 or newer yourself, then repeat `crane checkpoint setup`"
    )


def _compile_preload() -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise CraneError("there is no C compiler; install gcc, then repeat this")
    made = criu.PRELOAD.with_name(".preload.new")
    words = ["-O2", "-shared", "-fPIC", "-D_LARGEFILE64_SOURCE", "-o", str(made)]
    _run([compiler, *words, str(_PRELOAD_SOURCE)], f"compile {_PRELOAD_SOURCE.name}")
    made.rename(criu.PRELOAD)


def _try(
    words: list[str], environ: dict[str, str] | None = None, cwd: Path | None = None
) -> str | None:
    """Run a command; what it said last when it failed."""
    done = subprocess.run(
        words,
        cwd=cwd,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode == 0:
        return None
    said = [line for line in done.stdout.splitlines() if line.strip()]
    return said[-1] if said else f"exit status {done.returncode}"


def _run(
    words: list[str], what: str, environ: dict[str, str] | None = None, cwd: Path | None = None
) -> None:
    failed = _try(words, environ, cwd)
    if failed is not None:
        raise CraneError(f"cannot {what}: {failed}")

"""Looks for input that one of the targets of crates/fuzz cannot bear.

Each target runs for its part of the time with libFuzzer, which is led by what code the
input reaches (the compiler's own instrumentation; no other toolchain is needed). It starts
from the corpus that is kept with the source, and from what earlier runs found in `target`.
Input with which a target fails is put into the corpus that is kept, so that every run of the
tests tries it again from then on.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "crates" / "fuzz" / "corpus"
TRIPLE = "x86_64-unknown-linux-gnu"
FLAGS = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
]
#: Longest that one input may take, seconds.
HANGS_AFTER = 10


def say(line: str) -> None:
    """Tells whoever waits."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def build() -> Path:
    """Builds the program; returns where it is."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    command = ["cargo", "build", "--locked", "--profile", "fuzz", "--target", TRIPLE]
    command += ["-p", "crane-fuzz", "--features", "libfuzzer"]
    # With a target named, what runs while building is built without the flags.
    environment = {**os.environ, "RUSTFLAGS": " ".join(FLAGS)}
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    return target / TRIPLE / "fuzz" / "crane-fuzz"


def targets() -> list[str]:
    """The targets: each has a folder in the corpus."""
    return sorted(folder.name for folder in KEPT.iterdir() if folder.is_dir())


def fuzz(program: Path, target: str, seconds: int, *, seed: int, merge: bool) -> list[Path]:
    """Runs one target; returns the inputs that it could not bear."""
    work = program.parent / "corpus" / target
    failures = program.parent / "failures" / target
    for folder in (work, failures):
        folder.mkdir(parents=True, exist_ok=True)
    arguments = [str(program), "-max_len=65536", f"-timeout={HANGS_AFTER}", "-rss_limit_mb=1024"]
    arguments += [f"-seed={seed}", "-print_final_stats=1", "-verbosity=0"]
    arguments += [f"-artifact_prefix={failures}/"]
    environment = {**os.environ, "CRANE_FUZZ_TARGET": target}
    before = set(failures.iterdir())
    run = [*arguments, f"-max_total_time={seconds}", str(work), str(KEPT / target)]
    done = subprocess.run(run, env=environment, capture_output=True, text=True, check=False)
    figures = [line for line in done.stderr.splitlines() if "executed" in line]
    say(f"{target}: {seconds} s, {figures[0].split()[-1] if figures else '?'} inputs")
    found = sorted(set(failures.iterdir()) - before)
    if done.returncode != 0:
        say(done.stderr[-3000:])
        if not found:
            raise SystemExit(f"{target} ended with status {done.returncode}")
    if merge and not found:
        smallest = work.with_name(f"{target}.merged")
        shutil.rmtree(smallest, ignore_errors=True)
        smallest.mkdir()
        merging = [*arguments, "-merge=1", str(smallest), str(KEPT / target), str(work)]
        subprocess.run(merging, env=environment, capture_output=True, check=True)
        shutil.rmtree(work)
        smallest.rename(work)
    return found


def keep(target: str, failure: Path) -> Path:
    """Puts an input into the corpus that is kept."""
    name = hashlib.sha256(failure.read_bytes()).hexdigest()[:16]
    place = KEPT / target / f"failed-{name}"
    shutil.copyfile(failure, place)
    return place


def main() -> int:
    """Fuzzes as the arguments say; 1 when something was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=60, help="in all, 60 by default")
    parser.add_argument("--target", choices=targets(), help="this one alone")
    parser.add_argument("--seed", type=int, default=0, help="of the inputs; 0: another each time")
    parser.add_argument("--merge", action="store_true", help="then keep the smallest corpus")
    arguments = parser.parse_args()
    chosen = [arguments.target] if arguments.target else targets()
    program = build()
    each = max(1, arguments.seconds // len(chosen))
    found = [
        (target, keep(target, failure))
        for target in chosen
        for failure in fuzz(program, target, each, seed=arguments.seed, merge=arguments.merge)
    ]
    for target, place in found:
        say(f"{target} fails with {place}: repeat it with cargo test -p crane-fuzz {target}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

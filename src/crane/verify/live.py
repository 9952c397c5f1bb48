"""Recording a log: a cluster of the program under load, by ``crane run`` itself."""

from __future__ import annotations

import asyncio
import random
import secrets
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from crane import config as configuration
from crane import linux, ownership, procfs
from crane.admin import UnreachableError, request
from crane.cluster import StateDir
from crane.config import NodeConfig
from crane.errors import CraneError
from crane.node import last_line
from crane.registry import ClusterRunDir
from crane.verify import load
from crane.verify.recording import Recording, Sample, sample_of, write

_START_SECONDS = 60.0
_STOP_SECONDS = 20.0
_SAMPLE_SECONDS = 0.1
# Timers that the load has set fire while nothing else happens.
_SETTLE_SECONDS = 1.5


class Load:
    """What is asked of the program while its log is recorded."""

    def __init__(self, command: str | None, requests: int, connections: int) -> None:
        """``command`` is a shell's, with ``{host}`` and ``{port}``; ``None``: the built-in load."""
        self.command = command
        self.requests = requests
        self.connections = connections

    async def run(self, addresses: Sequence[load.Address], output: Path) -> int | None:
        """Run it; returns the number of requests where that is known.

        Raises:
            CraneError: when it fails.
        """
        if self.command is None:
            return await load.drive(addresses, self.requests, self.connections)
        host, port = addresses[0]
        text = self.command.replace("{host}", host).replace("{port}", str(port))
        with output.open("wb") as out:
            process = await asyncio.create_subprocess_shell(
                text, stdin=asyncio.subprocess.DEVNULL, stdout=out, stderr=out
            )
            try:
                code = await process.wait()
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
        if code:
            raise CraneError(f"the load ended with exit status {code}: {last_line(output) or text}")
        return None


async def record(
    argv: list[str],
    *,
    replicas: int,
    work: Path,
    directory: Path,
    what: Load,
    options: Sequence[str] = (),
) -> tuple[Recording, int | None]:
    """Run the program on ``replicas`` replicas under load and keep the log in ``directory``.

    ``options`` are further ones of ``crane run``.

    Returns the recording and the number of requests where it is known.

    Raises:
        CraneError: when the program cannot be run or the load fails.
    """
    name = f"verify-{secrets.token_hex(4)}"
    state = work / "cluster"
    log = work / "crane-run.log"
    pick = random.SystemRandom()
    # Away from the addresses that servers of this machine have.
    net = f"127.{pick.randrange(64, 255)}.{pick.randrange(1, 255)}"
    listen = [f"{net}.{number}" for number in range(1, replicas + 1)]
    command = [sys.executable, "-m", "crane", "run", "--replicas", str(replicas)]
    # A difference in addresses is found before it reaches an answer.
    settings = work / "crane.toml"
    settings.write_text("[engine]\nobjects = true\n")
    command += [
        "-f",
        str(settings),
        "--name",
        name,
        "--state",
        str(state),
        "--listen",
        ",".join(listen),
        *options,
    ]
    command += ["--", *argv]
    with log.open("wb") as out:
        cluster = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            # Ctrl-C reaches the foreground group; the cluster is ended below.
            start_new_session=True,
            preexec_fn=lambda: linux.set_parent_death_signal(signal.SIGTERM),
        )
        run_dir = ClusterRunDir(name)
        samples: list[Sample] = []
        try:
            addresses = await _ready(cluster, run_dir, replicas, log)
            sampling = asyncio.create_task(_sample(run_dir, replicas, samples))
            try:
                requests = await what.run(addresses, work / "load.log")
                await asyncio.sleep(_SETTLE_SECONDS)
            finally:
                sampling.cancel()
                with suppress(asyncio.CancelledError):
                    await sampling
            if cluster.returncode is not None:
                raise CraneError(f"the cluster ended under load: {_reason(log)}")
        finally:
            await _stop(cluster)
    node = StateDir(state).replica_dir(1)
    config = configuration.load(node / "node.toml", NodeConfig)
    made = write(directory, config, node, samples)
    if config.private:
        (node / ownership.DIRECTORY).rename(directory / ownership.DIRECTORY)
        made = replace(made, private=directory / ownership.DIRECTORY)
    shutil.rmtree(state, ignore_errors=True)
    return made, requests


def _reason(log: Path) -> str:
    """The last line of `crane run`, without the files that do not outlive us."""
    text = last_line(log).removeprefix("crane: ").removeprefix("error: ")
    return text.partition(" (`crane logs`")[0]


async def _ready(
    cluster: asyncio.subprocess.Process, run_dir: ClusterRunDir, replicas: int, log: Path
) -> list[load.Address]:
    """Wait until every replica serves clients; their addresses."""
    deadline = time.monotonic() + _START_SECONDS
    while True:
        if cluster.returncode is not None:
            raise CraneError(_reason(log), exit_code=cluster.returncode)
        engines = await asyncio.to_thread(_engines, run_dir, replicas)
        places = [_address(engine) for engine in engines.values()]
        known = [place for place in places if place is not None]
        if len(known) == replicas and any(one.get("role") == "leader" for one in engines.values()):
            return known
        if time.monotonic() > deadline:
            raise CraneError(
                f"the program does not listen on a TCP port after {_START_SECONDS:g} s, so no"
                " load can reach it"
            )
        await asyncio.sleep(0.05)


def _engines(run_dir: ClusterRunDir, replicas: int) -> dict[int, dict[str, Any]]:
    """What the engines of the nodes that answer say."""
    found = {}
    for number in range(1, replicas + 1):
        with suppress(UnreachableError):
            answer = request(run_dir.socket(str(number)), "GET", "/v1/status")
            found[number] = answer.get("engine") or {}
    return found


def _address(engine: dict[str, Any]) -> load.Address | None:
    for one in engine.get("listening") or ():
        host, port = configuration.split_address(one["address"])
        return host, port
    return None


async def _sample(run_dir: ClusterRunDir, replicas: int, samples: list[Sample]) -> None:
    """Ask the replicas for their hashes now and then, for as long as they run."""
    while True:
        for number, engine in (await asyncio.to_thread(_engines, run_dir, replicas)).items():
            sample = sample_of(number, engine)
            if sample is not None:
                samples.append(sample)
        await asyncio.sleep(_SAMPLE_SECONDS)


async def _stop(cluster: asyncio.subprocess.Process) -> None:
    if cluster.returncode is not None:
        return
    identity = procfs.ProcessIdentity.of(cluster.pid)
    with suppress(ProcessLookupError):
        cluster.terminate()
    try:
        async with asyncio.timeout(_STOP_SECONDS):
            await cluster.wait()
    except TimeoutError:
        if identity is not None:
            identity.signal(signal.SIGKILL)
        await cluster.wait()

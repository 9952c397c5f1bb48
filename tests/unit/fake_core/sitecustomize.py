"""Puts a stand-in for the engine in place, for tests of what is around it.

It elects replica 1, says at once that the program attached and listens, and
fails the way ``CRANE_TEST_ENGINE`` asks. Loaded by Python because this
directory is on ``PYTHONPATH`` of the tests' processes.
"""

import contextlib
import json
import os
import sys
import types
from pathlib import Path


class EngineError(Exception):
    pass


class Engine:
    def __init__(self, config_json: str) -> None:
        self._config = json.loads(config_json)
        self._wish = os.environ.get("CRANE_TEST_ENGINE", "")
        if self._wish == "refuse":
            raise EngineError("the log belongs to another cluster; give another state_dir")
        with Path(self._config["segment"]).open("wb") as segment:
            segment.truncate(4096)
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._events: list[dict] = []

    def _post(self, **event: object) -> None:
        self._events.append(event)
        os.eventfd_write(self._fd, 1)

    def start(self) -> None:
        role = "leader" if self._config["id"] == 1 else "follower"
        self._post(kind="role", role=role, term=1, leader=1)
        if self._wish != "detached":
            self._post(kind="attached")
            self._post(kind="listening", address=f"{self._config['listen_host']}:6379")

    def status(self) -> str:
        role = "leader" if self._config["id"] == 1 else "follower"
        return json.dumps(
            {
                "id": self._config["id"],
                "role": role,
                "term": 1,
                "leader": 1,
                "commit": 7,
                "applied": 7,
                "epoch": 5,
                "clock": 900,
                "connections": 0,
                "output_hash": "00ff",
                "agrees": True,
                "listening": [{"address": f"{self._config['listen_host']}:6379", "port": 6379}],
                "fatal": None,
            }
        )

    def event_fd(self) -> int:
        return self._fd

    def next_event(self) -> str | None:
        if self._events:
            return json.dumps(self._events.pop(0))
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._fd)
        return None

    def server_exited(self, status: str) -> None:
        assert status

    def stop(self) -> None:
        os.close(self._fd)


core = types.ModuleType("crane._core")
core.Engine = Engine
core.EngineError = EngineError
sys.modules["crane._core"] = core

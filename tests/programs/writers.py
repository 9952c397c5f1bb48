"""Clients in threads that have values acknowledged and remember which were."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from itertools import pairwise

from program import Address, Client, Program, WrongAnswerError

_RECONNECT_SECONDS = 0.02


class Writers:
    """Each with one connection; when it breaks, it goes on through the next replica."""

    def __init__(self, program: Program, addresses: dict[int, Address], connections: int) -> None:
        self.program = program
        self.addresses = addresses
        self.acknowledged: list[tuple[float, str]] = []
        """When (``time.monotonic``), and which value."""
        self.uncertain: list[str] = []
        """Values whose connection broke before the answer."""
        self.faults: list[str] = []
        self.breaks: list[tuple[float, int, str]] = []
        """When a connection broke, to which replica, and why."""
        self._stop = threading.Event()
        self._limit: int | None = None
        self._lock = threading.Lock()
        self._begun = 0
        self._threads = [
            threading.Thread(target=self._main, args=(number,), name=f"writer {number}")
            for number in range(connections)
        ]

    def start(self, limit: int | None = None) -> None:
        """Let them write, ``limit`` values in all or until :meth:`stop`."""
        self._limit = limit
        for thread in self._threads:
            thread.start()

    def join(self, seconds: float) -> None:
        """Wait until the limit is reached.

        Raises:
            TimeoutError: when it is not.
        """
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        if any(thread.is_alive() for thread in self._threads):
            self._stop.set()
            raise TimeoutError(f"only {len(self.acknowledged)} answers in {seconds:g} s")

    def stop(self) -> None:
        """End each after its answer."""
        self._stop.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def longest_gap(self, begin: float, end: float) -> float:
        """The longest time without any answer between two moments, in seconds."""
        inside = sorted(when for when, _ in list(self.acknowledged) if begin < when < end)
        return max(later - earlier for earlier, later in pairwise([begin, *inside, end]))

    def _take(self) -> bool:
        """Whether there is one more value to write."""
        with self._lock:
            if self._limit is not None and self._begun >= self._limit:
                return False
            self._begun += 1
            return True

    def _main(self, who: int) -> None:
        replicas = sorted(self.addresses)
        at, count = who % len(replicas), 0
        client: Client | None = None
        while not self._stop.is_set() and self._take():
            count += 1
            value = f"w{who}-{count}"
            while not self._stop.is_set():
                number = replicas[at]
                try:
                    if client is None:
                        client = self.program.client(self.addresses[number])
                    break
                except OSError:
                    at = (at + 1) % len(replicas)
                    time.sleep(_RECONNECT_SECONDS)
            if client is None:
                break
            try:
                client.write(value)
                self.acknowledged.append((time.monotonic(), value))
            except OSError as error:
                self.uncertain.append(value)
                self.breaks.append((time.monotonic(), number, str(error)))
                with suppress(OSError):
                    client.close()
                client = None
                at = (at + 1) % len(replicas)
            except WrongAnswerError as error:
                self.faults.append(str(error))
            except Exception as error:  # noqa: BLE001 - a fault of the definition is told, too
                self.faults.append(f"{value}: {error!r}")
                break
            # Now and then a new connection.
            if client is not None and count % 40 == 0:
                with suppress(OSError):
                    client.close()
                client = None
        if client is not None:
            with suppress(OSError):
                client.close()

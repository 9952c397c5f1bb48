"""The engine: consensus, gateway and the shared segment, in native threads."""

class EngineError(Exception):
    """The engine cannot go on; the message is one line for the user."""

class Engine:
    """One replica's engine. Every method may be called from any thread.

    No method waits for the network or for the program.
    """

    def __init__(self, config_json: str) -> None:
        """Open the log and create the segment.

        Raises:
            EngineError: for a wrong configuration, somebody else's log, a disk error.
        """

    def start(self) -> None:
        """Start the engine's threads; afterwards the program may be started.

        Raises:
            EngineError: when an address cannot be listened on.
        """

    def status(self) -> str:
        """The engine's state as JSON."""

    def event_fd(self) -> int:
        """A descriptor that is readable while :meth:`next_event` has something."""

    def next_event(self) -> str | None:
        """The next event as JSON, ``None`` when there is none.

        ``None`` also makes the descriptor unreadable until the next event.
        """

    def server_exited(self, status: str) -> None:
        """Tell the engine that the program has ended, with a text that says how."""

    def stop(self) -> None:
        """Stop the threads and close the log."""

"""The engine: consensus, gateway and the shared segment, in native threads."""

from os import PathLike

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

    def threads(self) -> str:
        """The program's threads as JSON, as they are at about this moment.

        An array of objects: ``slot``, ``process`` (numbers of the schedule), ``pid``,
        ``tid`` (within the replica), ``operation`` (code of the last), ``state``
        (``running``, ``ready``, ``waiting``), ``key`` (what it waits for, in
        hexadecimal) and ``deadline_ns`` (virtual time).
        """

    def program_started(self, init: int) -> None:
        """Tell the pid of the first process of the program's pid namespace."""

    def event_fd(self) -> int:
        """A descriptor that is readable while :meth:`next_event` has something."""

    def next_event(self) -> str | None:
        """The next event as JSON, ``None`` when there is none.

        ``None`` also makes the descriptor unreadable until the next event.
        """

    def signal(self, number: int) -> None:
        """Send a signal to the program's main process on every replica, by way of the log.

        Raises:
            EngineError: when there is no such signal, or this replica takes no inputs yet.
        """

    def address_held(self) -> None:
        """Tell it that this machine has the virtual address, and the network knows."""

    def restart(self) -> None:
        """Let the program, which ended by its own fault, begin anew on every replica.

        The leader puts it into the log once a majority of the programs have ended; the
        event ``restart`` follows.
        """

    def send_mail(self, to: int, data: bytes) -> None:
        """Send bytes to the owner of replica ``to``'s engine. They may be lost on the way.

        Raises:
            EngineError: when they are more than a mebibyte.
        """

    def next_mail(self) -> tuple[int, bytes] | None:
        """The oldest mail that was not fetched, with the sender; the event ``mail`` tells of it."""

    def ask(self, number: int, question: str) -> None:
        """Ask the leader, through whichever replica this is, about the members.

        ``question`` is a JSON object, see ``roster.rs`` of the engine. The event ``answer``
        has the same ``number`` and the leader's ``answer``, also JSON: ``error`` is one line
        when it refuses, ``again`` is true when it may do it a moment later.
        """

    def park(self) -> None:
        """Have the program stand still at the end of an epoch, while the log goes on.

        The event ``parked`` says that it does, with ``share``, the node's share of a
        checkpoint; ``unparked`` says with ``message`` why it cannot, or does not any more.
        """

    def save_segment(self, path: str | PathLike[str]) -> None:
        """Save the segment of the program, which stands still.

        Raises:
            EngineError: when it does not, or the file cannot be written.
        """

    def seen_files(self) -> list[tuple[int, int, int, int, int, int, bytes]]:
        """The files that the program has seen, see :data:`crane.checkpoint.identities.Seen`.

        Raises:
            EngineError: when the segment cannot be read.
        """

    def unpark(self) -> bool:
        """Let the program go on; whether it stood still until now."""

    def checkpointed(self, index: int) -> None:
        """Tell that there is a checkpoint of everything up to this entry of the log."""

    def cut(self, index: int) -> None:
        """Give up the log up to an entry, in whole files, as far as the checkpoint goes."""

    def server_exited(self, status: str) -> None:
        """Tell the engine that the program has ended, with a text that says how."""

    def stop(self) -> None:
        """Stop the threads and close the log."""

class Replayer:
    """Feeds recorded epochs to a fresh program. Every method may be called from any thread."""

    def __init__(
        self,
        segment_path: str | PathLike[str],
        source: str | PathLike[str],
        quantum: int = 100,
        trace: bool = False,
        objects: bool = False,
        hashes: str | PathLike[str] | None = None,
        preempt: bool = True,
        park_after: int | None = None,
        witness: str | PathLike[str] | None = None,
    ) -> None:
        """Create the segment and begin to feed it; then start the program.

        ``witness`` is a file for what every connection carried.

        Raises:
            EngineError: when the record cannot be read or the segment not made.
        """

    def program_started(self, init: int) -> None:
        """Tell the pid of the first process of the program's pid namespace."""

    def save(self, path: str | PathLike[str]) -> None:
        """Save the segment of the program, which stands still after ``park_after`` epochs.

        Raises:
            EngineError: when it does not, or the file cannot be written.
        """

    def seen_files(self) -> list[tuple[int, int, int, int, int, int, bytes]]:
        """As :meth:`Engine.seen_files`."""

    def resume(self, saved: str | PathLike[str], park_after: int | None = None) -> None:
        """Make the segment anew from a saved one; then restore the program.

        Raises:
            EngineError: when the program did not stand still, or the file cannot be used.
        """

    def wait(self, timeout: float) -> str | None:
        """The outcome as JSON when the program has done all epochs, stands still or has ended.

        ``None`` when that takes longer than ``timeout`` seconds.

        Raises:
            EngineError: when the program did something else than its record says.
        """

    def stop(self) -> None:
        """Stop feeding."""

def hold_back(address: str, interface: str) -> int:
    """Let connections through a virtual address go on at another replica.

    From now on what this machine says of them is kept back unless it is agreed. The
    descriptor returned keeps that so: whoever outlives the node should have it, too.

    Raises:
        EngineError: why that cannot be; connections then end with their leader.
    """

def begin_log(config_json: str) -> None:
    """Make the log of a replica of a new cluster that begins with a checkpoint.

    Raises:
        EngineError: for a wrong configuration, a directory that has a log, a disk error.
    """

def dump_log(log_dir: str | PathLike[str], out_path: str | PathLike[str]) -> int:
    """Write the committed epochs of a log that no engine is using to a file.

    Returns their number.

    Raises:
        EngineError: when the log cannot be read or the file not written.
    """

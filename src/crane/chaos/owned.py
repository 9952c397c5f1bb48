"""Names of what a trial makes on the machine, so that a dead one's can be found and removed.

Namespaces, mounts and directories outlive the process that made them. Each has
a name that says whose it is, by pid and start time.
"""

from __future__ import annotations

import itertools
import re

from crane.procfs import ProcessIdentity

_NAME = re.compile(r"crane-chaos-(\d+)-(\d+)-\d+")
_serial = itertools.count(1)


def new_name() -> str:
    """A name that nothing else on this machine has, and that tells its owner: this process."""
    own = ProcessIdentity.own()
    return f"crane-chaos-{own.pid}-{own.start_time}-{next(_serial)}"


def is_left_behind(text: str) -> bool:
    """Whether a name is, or contains, one whose owner has died."""
    found = _NAME.search(text)
    if found is None:
        return False
    return not ProcessIdentity(pid=int(found[1]), start_time=int(found[2])).alive()

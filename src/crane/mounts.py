"""The file system that a replica's program sees.

It is the machine's own, with everything the program writes going to a private
layer in the replica's state directory. The layer is emptied at every start,
because a replica repeats its log from the beginning; for the same reason it is
mounted ``volatile``: what the program syncs need not reach the disk twice, the
log already has.

=====================  ====================================================
``/``                  overlay over the machine's root file system
other file systems     an overlay each (``/home``, a network mount...);
                       read-only where the kernel cannot lay one over it
``/tmp``, ``/var/tmp`` empty but for what is named; see :mod:`crane.temporary`
``/proc``, ``/sys``    new, of the replica's own namespaces; ``/sys`` read-only
``/dev``               new: null, zero, full, random, urandom, tty, pts, shm
``/.crane``            the segment, the interposer and the output file
shared paths           the machine's own, read-only or, if asked, to be written
private paths          an overlay over the copy in the replica's state directory
state, run directory   empty: they differ between replicas
=====================  ====================================================

Without root the kernel refuses an overlay over ``/`` (it would uncover what is
mounted below it), so each directory of ``/`` gets its own. Option texts hold
only relative paths, because a program can read them in ``/proc/self/mounts``
and they must not differ between replicas.

``places.json`` beside the layers says over which directory each lies, for those
who look at them from outside.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from crane import linux, temporary

CONTROL_DIR = "/.crane"
"""Where the replica's program finds what it shares with the node."""

PLACES = "places.json"
"""The file beside the layers: the layer's name to the directory that it lies over."""

_SHM = Path("/dev/shm")  # noqa: S108 - the replica's own
_OWN = ("/proc", "/sys", "/dev")
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
# Kernel interfaces mounted here and there; a replica gets none of them.
_PSEUDO = frozenset(
    {
        "autofs",
        "binfmt_misc",
        "bpf",
        "cgroup",
        "cgroup2",
        "configfs",
        "debugfs",
        "devpts",
        "devtmpfs",
        "efivarfs",
        "fusectl",
        "hugetlbfs",
        "mqueue",
        "nsfs",
        "proc",
        "pstore",
        "rpc_pipefs",
        "securityfs",
        "sysfs",
        "tracefs",
    }
)
# statvfs flags that a remount must repeat, because a user namespace may not
# drop them from a mount it inherited.
_KEPT_FLAGS = {
    os.ST_NOSUID: linux.MS_NOSUID,
    os.ST_NODEV: linux.MS_NODEV,
    os.ST_NOEXEC: linux.MS_NOEXEC,
    os.ST_NOATIME: 0x400,
    os.ST_NODIRATIME: 0x800,
    os.ST_RELATIME: 0x20_0000,
}


@dataclass(frozen=True, slots=True)
class MountPoint:
    """One line of ``/proc/self/mountinfo``."""

    path: str
    fstype: str


def parse_mountinfo(text: str) -> list[MountPoint]:
    """The mounts of a ``mountinfo`` file, in its order."""
    found = []
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        found.append(MountPoint(_unescape(left.split()[4]), right.split()[0]))
    return found


def _unescape(path: str) -> str:
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        path = path.replace(code, char)
    return path


def is_below(path: str, directory: str) -> bool:
    """Whether ``path`` is ``directory`` or lies in it."""
    return directory in ("/", path) or path.startswith(directory + "/")


def submounts(mounts: Iterable[MountPoint], hidden: Iterable[str]) -> list[str]:
    """The mount points below ``/`` that a replica gets a layer over, parents first."""
    excluded = [*_OWN, *hidden]
    paths = {
        one.path
        for one in mounts
        if one.path != "/"
        and one.fstype not in _PSEUDO
        and not any(is_below(one.path, other) for other in excluded)
    }
    return sorted(paths)


@dataclass(frozen=True, slots=True)
class Layout:
    """What :func:`enter` needs to know."""

    layers: str
    """Where the private layers are kept; emptied before the start."""
    control: str
    """The directory that appears as ``CONTROL_DIR``."""
    output: str
    """The file that appears as ``CONTROL_DIR/server.log``."""
    hidden: tuple[str, ...]
    privileged: bool
    """Whether this is root's own namespace, not a user namespace of ours."""
    shared: tuple[tuple[str, bool], ...] = ()
    """Paths of the machine itself, and whether the program may write there."""
    private: tuple[tuple[str, str], ...] = ()
    """Directories that are the replica's own, and the copy of each, relative to ``layers``."""
    temporary: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Temporary directories that are the replica's own, and the names kept in each."""

    @property
    def apart(self) -> list[str]:
        """Paths that do not come from the layers over the machine's file systems."""
        owned = (path for path, _ in self.private)
        return [*self.hidden, *owned, *(path for path, _ in self.shared)]


def wipe(path: Path) -> None:
    """Remove a directory tree, whatever permissions its directories have.

    Overlay work directories have none, and a program may take them away.
    """
    if os.geteuid() != 0:
        for directory, _, _ in os.walk(path):
            for entry in os.scandir(directory):
                if entry.is_dir(follow_symlinks=False):
                    Path(entry.path).chmod(0o700)
    with suppress(FileNotFoundError):
        shutil.rmtree(path)


def enter(layout: Layout, warn: Callable[[str], None]) -> bool:
    """Build the replica's file system and make it this process's root.

    The calling process has a mount namespace of its own. ``warn`` is told what
    had to be done in a weaker way. Returns whether what is written there lies in
    ``layout.layers`` and outlives the namespace.
    """
    durable = True
    linux.mount("none", "/", None, linux.MS_REC | linux.MS_PRIVATE)
    mounts = parse_mountinfo(Path("/proc/self/mountinfo").read_text(errors="surrogateescape"))
    os.chdir(layout.layers)
    try:
        _build(layout, mounts, warn)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        # A file system that cannot hold a layer, as a container's own root.
        with suppress(OSError):
            linux.umount("merged", linux.MNT_DETACH)
        durable = False
        linux.mount("crane", layout.layers, "tmpfs", 0, "mode=0700")
        os.chdir(layout.layers)
        warn(
            f"{layout.layers} cannot hold an overlay, so the program's files are kept in memory;"
            " give a --state on ext4, xfs or btrfs"
        )
        _build(layout, mounts, warn)
    os.chdir("merged")
    linux.pivot_root(".", ".")
    # The old root now lies over the new one at the same place.
    linux.umount(".", linux.MNT_DETACH)
    os.chdir("/")
    return durable


def kept_in_memory(*, durable: bool) -> str:
    """What ends with the replica that this process is in, in words; empty for nothing.

    ``durable`` is what :func:`enter` said.
    """
    if not durable:
        return "all its files, because the state directory cannot hold an overlay"
    found = sorted(one.name for one in _SHM.iterdir())
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    return f"{_SHM / found[0]}{more}" if found else ""


def _build(layout: Layout, mounts: list[MountPoint], warn: Callable[[str], None]) -> None:
    """Mount everything on ``merged`` in the layers' directory, which is the cwd."""
    Path("merged").mkdir(exist_ok=True)
    places: dict[str, str] = {}
    if layout.privileged:
        overlay("/", "merged", "root", privileged=True)
        places["root"] = "/"
    else:
        places |= _root_of_directories(warn)
    places |= _temporary(layout, warn)
    if layout.privileged:
        gone = _not_seen(layout, mounts)
        for number, path in enumerate(submounts(mounts, [*layout.apart, *gone])):
            places[f"mount{number}"] = path
            _cover(path, f"merged{path}", f"mount{number}", warn, privileged=True)
    for number, (path, copy) in enumerate(layout.private):
        places[f"private{number}"] = path
        Path(f"merged{path}").mkdir(parents=True, exist_ok=True)
        overlay(copy, f"merged{path}", f"private{number}", privileged=layout.privileged)
    for path, writable in layout.shared:
        _share(path, f"merged{path}", writable=writable)
    Path(PLACES).write_text(json.dumps(places))
    _system("merged", warn)
    _control(layout)
    for path in layout.hidden:
        target = Path(f"merged{path}")
        if target.is_dir():
            linux.mount("none", str(target), "tmpfs", linux.MS_RDONLY, "mode=0555,size=4k")


def _temporary(layout: Layout, warn: Callable[[str], None]) -> dict[str, str]:
    """Lay the replica's own temporary directories over the machine's.

    Returns which layer lies over which.
    """
    places = {}
    for directory, names in layout.temporary:
        layer = directory.strip("/").replace("/", "-")
        below = temporary.prepare(directory, names, Path("temporary", layer))
        overlay(f"temporary/{layer}", f"merged{directory}", layer, privileged=layout.privileged)
        places[layer] = directory
        for number, path in enumerate(below):
            places[f"{layer}{number}"] = path
            target = f"merged{path}"
            _cover(path, target, f"{layer}{number}", warn, privileged=layout.privileged)
    return places


def _not_seen(layout: Layout, mounts: list[MountPoint]) -> list[str]:
    """Mount points within temporary directories of which the program sees nothing."""
    gone = []
    for directory, names in layout.temporary:
        kept = [f"{directory}/{name}" for name in names]
        gone += [
            one.path
            for one in mounts
            if is_below(one.path, directory)
            and one.path not in kept
            and not any(is_below(one.path, path) for path in kept)
        ]
        # Covered already, as what is kept.
        gone += [one.path for one in mounts if one.path in kept and Path(one.path).is_dir()]
    return gone


def overlay(lower: str, target: str, layer: str, *, privileged: bool) -> None:
    """Lay the directory ``layer`` over ``lower`` and show the result at ``target``."""
    upper, work = Path(layer) / "upper", Path(layer) / "work"
    for directory in (upper, work):
        directory.mkdir(parents=True, exist_ok=True)
    # The upper directory's own mode and owner are those of the merged root.
    found = Path(lower).stat()
    if privileged:
        os.chown(upper, found.st_uid, found.st_gid)
    upper.chmod(found.st_mode & 0o7777)
    options = f"lowerdir={_escape(lower)},upperdir={upper},workdir={work}"
    if not privileged:
        options += ",userxattr"
    try:
        linux.mount("overlay", target, "overlay", 0, options + ",volatile")
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        linux.mount("overlay", target, "overlay", 0, options)  # a kernel before 5.10


def _escape(path: str) -> str:
    for char in "\\,:":
        path = path.replace(char, "\\" + char)
    return path


def _cover(
    path: str, target: str, layer: str, warn: Callable[[str], None], *, privileged: bool
) -> None:
    """Show ``path`` at ``target``: a private overlay if possible, else read-only."""
    if not Path(target).exists():
        return
    if Path(path).is_dir():
        try:
            overlay(path, target, layer, privileged=privileged)
        except OSError:
            warn(f"{path} is read-only for the program: no private layer is possible over it")
        else:
            return
    bind_readonly(path, target)


def bind_readonly(path: str, target: str) -> None:
    """Show ``path`` at ``target`` without write access."""
    linux.mount(path, target, None, linux.MS_BIND | linux.MS_REC)
    present = os.statvfs(target).f_flag
    kept = sum(flag for mark, flag in _KEPT_FLAGS.items() if present & mark)
    linux.mount("none", target, None, linux.MS_BIND | linux.MS_REMOUNT | linux.MS_RDONLY | kept)


def _share(path: str, target: str, *, writable: bool) -> None:
    """Show the machine's own ``path``, without a layer of the replica's."""
    if not Path(target).exists():
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        if Path(path).is_dir():
            Path(target).mkdir()
        else:
            Path(target).touch()
    if writable:
        linux.mount(path, target, None, linux.MS_BIND | linux.MS_REC)
    else:
        bind_readonly(path, target)


def _root_of_directories(warn: Callable[[str], None]) -> dict[str, str]:
    """Without root: an empty root, and in it each entry of ``/`` for itself.

    Returns which layer lies over which.
    """
    linux.mount("none", "merged", "tmpfs", 0, "mode=0755,size=1m")
    places = {}
    for number, name in enumerate(sorted(entry.name for entry in Path("/").iterdir())):
        source, target = Path("/") / name, Path("merged") / name
        if str(source) in (*_OWN, CONTROL_DIR):
            continue
        if source.is_symlink():
            target.symlink_to(source.readlink())
        elif source.is_dir():
            target.mkdir()
            places[f"top{number}"] = str(source)
            _cover(str(source), str(target), f"top{number}", warn, privileged=False)
        else:
            target.touch()
            bind_readonly(str(source), str(target))
    return places


def _system(root: str, warn: Callable[[str], None]) -> None:
    """Mount ``/proc``, ``/sys`` and ``/dev`` of the replica's own."""
    for name in ("proc", "sys", "dev"):
        Path(root, name).mkdir(exist_ok=True)
    safe = linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC
    linux.mount("proc", f"{root}/proc", "proc", safe)
    try:
        linux.mount("sysfs", f"{root}/sys", "sysfs", safe | linux.MS_RDONLY)
    except OSError:
        warn("the program gets an empty /sys: this kernel does not let us mount one")
    dev = f"{root}/dev"
    linux.mount("dev", dev, "tmpfs", linux.MS_NOSUID, "mode=0755,size=64k")
    for name in _DEVICES:
        Path(dev, name).touch()
        linux.mount(f"/dev/{name}", f"{dev}/{name}", None, linux.MS_BIND)
    Path(dev, "pts").mkdir()
    linux.mount(
        "devpts",
        f"{dev}/pts",
        "devpts",
        linux.MS_NOSUID | linux.MS_NOEXEC,
        "newinstance,ptmxmode=0666,mode=0620",
    )
    Path(dev, "shm").mkdir()
    linux.mount("shm", f"{dev}/shm", "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "mode=1777")
    for link, target in {
        "ptmx": "pts/ptmx",
        "fd": "/proc/self/fd",
        "stdin": "/proc/self/fd/0",
        "stdout": "/proc/self/fd/1",
        "stderr": "/proc/self/fd/2",
    }.items():
        Path(dev, link).symlink_to(target)


def _control(layout: Layout) -> None:
    """Show the shared directory, and in it the file for the program's output.

    The output file is opened through here, inside, so that a checkpoint of the
    program finds it under the same path in another replica.
    """
    target = f"merged{CONTROL_DIR}"
    Path(target).mkdir(exist_ok=True)
    linux.mount(layout.control, target, None, linux.MS_BIND)
    Path(target, "server.log").touch()
    linux.mount(layout.output, f"{target}/server.log", None, linux.MS_BIND)

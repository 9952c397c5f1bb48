from __future__ import annotations

from pathlib import Path

from crane import mounts
from crane.mounts import MountPoint

MOUNTINFO = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
23 22 0:21 / /proc rw - proc proc rw
24 22 0:22 / /sys rw - sysfs sysfs rw
25 24 0:23 / /sys/fs/cgroup rw - tmpfs cgroup rw
26 22 0:24 / /dev rw - devtmpfs udev rw
27 22 8:2 / /home rw - ext4 /dev/sda2 rw
28 22 0:30 / /mnt/two\\040words rw - nfs4 server:/x rw
29 22 0:31 / /run/docker/netns/x rw - nsfs nsfs rw
30 22 0:32 / /tmp rw - tmpfs tmpfs rw
31 22 8:3 / /var/lib/crane/shop/replicas rw - ext4 /dev/sda3 rw
32 27 8:4 / /home/data rw - xfs /dev/sda4 rw
33 22 0:33 / /tmp rw - tmpfs tmpfs rw
"""


def test_other_file_systems_get_a_layer_and_kernel_interfaces_do_not() -> None:
    found = mounts.parse_mountinfo(MOUNTINFO)
    assert MountPoint("/mnt/two words", "nfs4") in found
    assert mounts.submounts(found, ["/var/lib/crane/shop/replicas"]) == [
        "/home",
        "/home/data",
        "/mnt/two words",
        "/tmp",
    ]


def test_below() -> None:
    assert mounts.is_below("/a/b", "/a")
    assert mounts.is_below("/a", "/a")
    assert mounts.is_below("/a", "/")
    assert not mounts.is_below("/ab", "/a")


def test_a_tree_is_removed_whatever_its_modes(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "work" / "work").mkdir(parents=True)
    (tree / "work" / "file").write_text("x")
    (tree / "link").symlink_to("/")
    (tree / "work" / "work").chmod(0)
    (tree / "work").chmod(0)
    mounts.wipe(tree)
    assert not tree.exists()
    mounts.wipe(tree)

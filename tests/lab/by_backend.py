#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""by_backend.py BACKEND TEST.py [ARGUMENT…]: runs a test of the lab on one of the backends (docs/backends.md), and fails if postern's
programs got a device in another way, or none.

By the kernel's own account: probes where it has given a device to an owner, so that a variable that got lost on its way through systemd,
podman or a hook is not taken for a test of that backend."""

import contextlib
import errno
import os
import re
import subprocess
import sys

TRACING = "/sys/kernel/tracing"
OURS = f"by_backend_{os.getpid()}"
# drivers/vfio: what the first opening of a device goes through in a type 1 container, in any iommufd, and by VFIO_DEVICE_BIND_IOMMUFD.
GIVEN = {"container": "vfio_device_group_use_iommu", "iommufd": "vfio_df_iommufd_bind", "cdev": "vfio_df_ioctl_bind_iommufd"}
MUST = {"type1": {"container"}, "iommufd": {"iommufd"}, "cdev": {"iommufd", "cdev"}}
# The tests' own programs may try what they like; these are whoever takes devices.
OWNERS = re.compile(r"postern.*|nvme-server")


def write(path, text, flags=0):
    fd = os.open(f"{TRACING}/{path}", os.O_WRONLY | flags)
    os.write(fd, text.encode())
    os.close(fd)


@contextlib.contextmanager
def watched():
    """Yields a function that says in which ways owners have got devices."""
    os.mkdir(f"{TRACING}/instances/{OURS}")
    for kind, function in GIVEN.items():
        # As it returns, and if it gave: whoever asks for a device that another has is refused by any backend.
        try:
            write("kprobe_events", f"r:{OURS}/{kind} {function} status=$retval:s32 comm=$comm\n", os.O_APPEND)
        except OSError as error:  # no such function: Debian's kernels have no iommufd
            if error.errno not in (errno.ENOENT, errno.EINVAL):
                raise
            continue
        write(f"instances/{OURS}/events/{OURS}/{kind}/filter", "status == 0")
        write(f"instances/{OURS}/events/{OURS}/{kind}/enable", "1")

    def given():
        """Owner → kinds. Of each for itself: by the cdev, an iommufd is given as well."""
        with open(f"{TRACING}/instances/{OURS}/trace") as file:
            # postern-402 [001] ..... 12.345678: cdev: (vfio_device_fops_unl_ioctl+0x…/0x… <- vfio_df_ioctl_bind_iommufd) status=0 comm="postern"
            found = re.findall(r'-(\d+)\s+\[\d+\].*?: (\w+): \(.*?\) status=0 comm="(.*)"', file.read())
        ways = {}
        for pid, kind, comm in found:
            if OWNERS.fullmatch(comm):
                ways.setdefault(f"{comm} {pid}", set()).add(kind)
        return ways
    yield given


def main(backend, *test):
    if backend not in MUST or not test:
        sys.exit(__doc__)
    environment = {**os.environ, "POSTERN_BACKEND": backend}
    if os.path.exists("/run/systemd/system"):
        subprocess.run(["systemctl", "set-environment", f"POSTERN_BACKEND={backend}"], check=True)
    with watched() as given:
        status = subprocess.run([sys.executable, *test], env=environment, check=False).returncode
        ways = given()
    others = {owner: sorted(kinds) for owner, kinds in ways.items() if kinds != MUST[backend]}
    if others or not ways:
        print(f"{test[0]} is not a test of {backend}: of {len(ways)} owners these got devices by other ways: {others}", file=sys.stderr)
        return status or 1
    print(f"{os.path.basename(test[0])}: by {backend}, as the kernel saw it of {len(ways)} owners")
    return status


if __name__ == "__main__":
    here = os.path.dirname(os.path.abspath(__file__))
    sys.exit(main(*sys.argv[1:2], *(f"{here}/{word}" if word.endswith("_test.py") else word for word in sys.argv[2:])))

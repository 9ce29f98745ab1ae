# SPDX-License-Identifier: Apache-2.0
"""A world of its own for a test of the whole command, and all that a launch could leave in it.

enter() starts the test again in new pid, mount, ipc, net and uts namespaces with a new /tmp, /run, /var/tmp and /dev/shm, and in a cgroup
of its own: what is found there is the test's and the launcher's, whatever else runs on the machine, and nothing of it outlives the test.
State is a complete list of it."""

import ctypes
import errno
import glob
import os
import re
import subprocess
import sys
import time

INSIDE = "POSTERN_TEST_WORLD"
FRESH = {"/tmp": "1777", "/run": "0755", "/var/tmp": "1777", "/dev/shm": "1777"}
LIBC = ctypes.CDLL(None, use_errno=True)
MS_NOSUID, MS_NODEV, MS_BIND, MNT_DETACH = 2, 4, 4096, 2
#: The mount of cgroup v2, the only hierarchy that postern uses; None: this machine has none.
CGROUPS = next((path for path in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified") if os.path.exists(f"{path}/cgroup.procs") and
                subprocess.run(["stat", "-fc", "%T", path], capture_output=True, text=True).stdout == "cgroup2fs\n"), None)


def check(result, what):
    if result != 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


# Not by mount(8), which leaves files in /run.
def mount(source, target, kind, flags=0, options=""):
    check(LIBC.mount(source.encode(), target.encode(), kind.encode(), flags, options.encode()), f"mount of {kind or source} on {target}")


def bind(source, target):
    mount(source, target, "", MS_BIND)


def unmount(target):
    check(LIBC.umount2(target.encode(), MNT_DETACH), f"umount of {target}")


def enter():
    """Returns in the world, as a child of its pid 1, which reaps. Outside it does not return."""
    if os.environ.get(INSIDE) is None:
        if os.geteuid() != 0:
            sys.exit(f"{sys.argv[0]} makes namespaces and mounts: run it as root, or with sudo")
        home = f"{own_cgroup()}/world-{os.getpid()}" if CGROUPS else ""
        if home:
            for old in glob.glob(f"{own_cgroup()}/world-*"):
                if not os.path.exists(f"/proc/{old.rsplit('-', 1)[1]}"):
                    remove_cgroup(old)  # of a test that was killed
            os.mkdir(home)
        status = subprocess.run(["unshare", "--pid", "--mount", "--ipc", "--net", "--uts", "--fork", "--kill-child", "--mount-proc",
                                 "--propagation", "private", sys.executable, *sys.argv],
                                env={**os.environ, INSIDE: home, "PYTHONDONTWRITEBYTECODE": "1"}).returncode
        if home:
            remove_cgroup(home)
        sys.exit(status)
    child = os.fork()
    if child != 0:
        while True:
            pid, status = os.wait()
            if pid == child:
                os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    home = os.environ[INSIDE]
    if home:
        with open(f"{home}/cgroup.procs", "w") as file:
            file.write("0")
    fresh_folders(FRESH, sys.argv[1:2])
    os.makedirs("/dev/mqueue", exist_ok=True)
    mount("none", "/dev/mqueue", "mqueue")
    os.environ.pop("XDG_RUNTIME_DIR", None)


def fresh_folders(folders, kept):
    """Hides what is in `folders`, but for `kept`: of programs below /tmp or the like, such as a build tree, the paths stay what
    they are."""
    fds = [os.open(path, os.O_PATH) for path in kept]
    for path in folders:
        mount("none", path, "tmpfs", MS_NOSUID | MS_NODEV, f"mode={FRESH[path]}")
    for fd, path in zip(fds, kept):
        if any(os.path.abspath(path).startswith(fresh + "/") for fresh in folders):
            os.makedirs(path)
            bind(f"/proc/self/fd/{fd}", path)
        os.close(fd)


def remove_cgroup(home):
    for folder, _, _ in os.walk(home, topdown=False):
        if not wait_until(lambda folder=folder: removed(folder)):
            os.rmdir(folder)


def removed(folder):
    """Whether a cgroup is gone. Dead processes leave theirs a moment after they are gone from everywhere else, its list included."""
    try:
        os.rmdir(folder)
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return False
    return True


def own_cgroup():
    with open("/proc/self/cgroup") as file:
        path = next(line[3:].strip() for line in file if line.startswith("0::"))
    return CGROUPS + path.rstrip("/")


def controllers():
    """Of cgroup v2, that the launcher could use from here."""
    if not CGROUPS:
        return set()
    with open(f"{own_cgroup()}/cgroup.controllers") as file:
        return set(file.read().split())


def pids():
    """But for kernel threads, which come and go."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and not is_kernel_thread(name)]


def is_kernel_thread(pid):
    PF_KTHREAD = 0x00200000
    fields = text(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return bool(fields) and bool(int(fields[6]) & PF_KTHREAD)


def text(path):
    try:
        with open(path, errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def link(path):
    try:
        return os.readlink(path)
    except OSError:
        return ""


def tree(folder):
    """But for what is mounted in it, such as a build tree, into which ctest writes meanwhile."""
    found = set()
    for path, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not os.path.ismount(os.path.join(path, name))]
        found.update(os.path.join(path, name) for name in folders + files)
    return found


def processes():
    """Zombies too: nobody but the launcher or its init would reap them."""
    return {(pid, text(f"/proc/{pid}/comm").strip()) for pid in pids()}


def namespaces():
    """Every one that a process is in, has open or has mounted."""
    links = [link(path) for pid in pids() for path in glob.glob(f"/proc/{pid}/ns/*") + glob.glob(f"/proc/{pid}/fd/*")]
    links += [line.split(" ")[3] for pid in pids() for line in text(f"/proc/{pid}/mountinfo").splitlines()]
    return {each for each in links if re.fullmatch(r"(user|pid|mnt|net|ipc|uts|cgroup|time):\[\d+\]", each)}


def listed(folder):
    """What is in a folder of /proc; nothing of a process that has gone, even between the looking and the listing."""
    try:
        return os.listdir(folder)
    except OSError:
        return []


def descriptors():
    return {(pid, int(fd), link(f"/proc/{pid}/fd/{fd}")) for pid in pids() for fd in listed(f"/proc/{pid}/fd")}


class State:
    """All that is there now; but for launches that are kept, of which cached() tells."""
    CACHE = "/run/postern-cache"

    def __init__(self):
        self.kinds = {
            "process": processes(),
            "mount": {" ".join(line.split(" ")[2:5]) + f" ({pid})" for pid in pids()
                      for line in text(f"/proc/{pid}/mountinfo").splitlines()},
            "namespace": namespaces(),
            "cgroup": {path for path in tree(os.environ[INSIDE]) if os.path.isdir(path)} if os.environ[INSIDE] else set(),
            "file": {path for folder in FRESH for path in tree(folder) if not path.startswith(self.CACHE)},
            # An fd by which this very listing is made is gone again when it is looked at.
            "fd": {each for each in descriptors() if each[2]},
            "system v ipc": {(name, line.split()[1]) for name in ("shm", "sem", "msg")
                             for line in text(f"/proc/sysvipc/{name}").splitlines()[1:]},
            "message queue": tree("/dev/mqueue"),
            "socket": {line.split()[-1] for line in text("/proc/net/unix").splitlines()[1:]},
        }

    def left(self, before):
        """What is here and was not, by kind; kinds of which there is nothing are not named."""
        new = {kind: found - before.kinds[kind] for kind, found in self.kinds.items()}
        return {kind: sorted(found) for kind, found in new.items() if found}

    def gone(self, before):
        return before.left(self)


def wait_until(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def left_since(before, seconds=60.0):
    """What is left of a launch after the time that dying takes; {} is what is wanted. What should not have gone counts as well."""
    found = {}

    def nothing():
        now = State()
        found["left"] = now.left(before)
        found["gone"] = now.gone(before)
        return not found["left"] and not found["gone"]
    wait_until(nothing, seconds)
    return {key: value for key, value in found.items() if value}


def cached():
    """Compiled launches that are kept."""
    return [name for name in (os.listdir(State.CACHE) if os.path.isdir(State.CACHE) else []) if not name.startswith(".")]

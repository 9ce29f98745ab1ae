#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""endurance_test.py BUILD: many launches in a row and many at once leave nothing behind.

POSTERN_LAUNCHES=N is how many in a row (2000), POSTERN_AT_ONCE=N how many at once (64)."""

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import small_world
from small_world import LIBC, State, cached, left_since, wait_until

LAUNCHES = int(os.environ.get("POSTERN_LAUNCHES", "2000"))
AT_ONCE = int(os.environ.get("POSTERN_AT_ONCE", "64"))
POSTERN = ""
#: Behind it, no launch is kept any more until the folder has been cleared.
MOST_KEPT = 256
DAEMON = "setsid sh -c 'trap \"\" TERM HUP; exec sleep 1000' >/dev/null 2>&1 & exec sleep 0"

#: What a launch in a row is, and the status that it ends with: every way out of a launcher.
KINDS = [
    (["--", "/bin/true"], 0),
    (["/bin/true"], 0),
    (["--", "/bin/sh", "-c", "exit 7"], 7),
    (["--", "/bin/sh", "-c", "kill -KILL $$"], 137),
    (["--", "/bin/sh", "-c", DAEMON], 0),
    (["--root", "empty", "--ro-bind", "/usr", "/usr", "--ro-bind", "/lib", "/lib", "--ro-bind", "/lib64", "/lib64", "--", "/usr/bin/true"], 0),
    (["--share-pid", "--share-net", "--", "/bin/true"], 0),
    (["--uid", "0", "--gid", "0", "--quiet", "--", "/bin/true"], 0),
    (["--tmpfs", "/opt", "--ro-bind", "/usr", "/mnt", "--hostname", "many", "--", "/bin/true"], 0),
    (["--", "/no/such/command"], 127),
    (["--", "/etc/passwd"], 126),
    (["--bind", "/no/such/source", "/mnt", "--", "/bin/true"], 125),
    (["--seccomp-profile", "/no/such/profile", "--", "/bin/true"], 125),
]


def start(arguments, **kwargs):
    return subprocess.Popen([POSTERN, "run", *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                            stderr=subprocess.DEVNULL, **kwargs)


def free_memory():
    """MiB that the machine could give."""
    with open("/proc/meminfo") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("MemAvailable")) // 1024


class Endurance(unittest.TestCase):
    def setUp(self):
        # The cache's folder, and what a first launch may load.
        for arguments, _ in KINDS:
            start(arguments).wait()
        self.before = State()

    def assertNothingLeft(self):
        self.assertEqual(left_since(self.before), {})
        self.assertLessEqual(len(cached()), MOST_KEPT)

    def test_many_in_a_row(self):
        memory, begin = free_memory(), time.monotonic()
        for i in range(LAUNCHES):
            arguments, wanted = KINDS[i % len(KINDS)]
            status = start(arguments).wait()
            self.assertEqual(status, wanted, f"launch {i}: {arguments}")
        spent = time.monotonic() - begin
        print(f"    {LAUNCHES} launches in {spent:.1f} s, {LAUNCHES / spent:.0f} a second; "
              f"{free_memory() - memory:+} MiB of free memory", file=sys.stderr)
        self.assertNothingLeft()

    def test_ever_other_launches_do_not_fill_the_cache(self):
        for i in range(MOST_KEPT + 50):
            self.assertEqual(start(["--hostname", f"host{i}", "--", "/bin/true"]).wait(), 0)
            self.assertLessEqual(len(cached()), MOST_KEPT)
        self.assertGreater(len(cached()), 10, "the control: launches are kept")
        self.assertNothingLeft()

    def test_many_at_once(self):
        reader, writer = os.pipe()
        begin = time.monotonic()
        clients = [subprocess.Popen([POSTERN, "run", "--", "/bin/sh", "-c", f"echo up; read line; exit {i % 100}"],
                                    stdin=subprocess.PIPE, stdout=writer) for i in range(AT_ONCE)]
        os.close(writer)
        said = b""
        while said.count(b"up\n") < AT_ONCE:
            more = os.read(reader, 4096)
            self.assertTrue(more, "a launcher ended before its client was up")
            said += more
        spent = time.monotonic() - begin
        # All of them live at this moment: the control of what is looked for afterwards.
        running = State().left(self.before)
        self.assertGreaterEqual(len(running["process"]), 3 * AT_ONCE, "launcher, init and client of each")
        self.assertGreaterEqual(len([each for each in running["namespace"] if each.startswith("net:")]), AT_ONCE)
        for client in clients:
            client.stdin.close()
        self.assertEqual([client.wait() for client in clients], [i % 100 for i in range(AT_ONCE)])
        print(f"    {AT_ONCE} at once, all up after {spent:.2f} s", file=sys.stderr)
        os.close(reader)
        self.assertNothingLeft()

    def test_many_at_once_that_are_all_killed(self):
        clients = [subprocess.Popen([POSTERN, "run", "--", "/bin/sh", "-c", f"echo up; {DAEMON}; sleep 1000"],
                                    stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) for _ in range(AT_ONCE)]
        for client in clients[::2]:
            self.assertEqual(client.stdout.readline(), b"up\n")
        for client in clients:
            client.kill()
        for client in clients:
            client.wait()
            client.stdout.close()
        self.assertNothingLeft()

    def test_a_benchmark_that_is_ended(self):
        for how in (signal.SIGINT, signal.SIGTERM):
            bench = subprocess.Popen([POSTERN, "bench", "launch", "--rounds", "1000", "--launches", "1"], stdin=subprocess.DEVNULL,
                                     stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                                     # A shell's background job is started to ignore SIGINT, and so then are we.
                                     preexec_fn=lambda number=how: signal.signal(number, signal.SIG_DFL))
            self.assertIn("round 1 of 1000", bench.stderr.readline())
            self.assertNotEqual(State().left(self.before).get("file", []), [], "it has files while it runs")
            bench.send_signal(how)
            self.assertIn("asked it to end", bench.stderr.read())
            self.assertEqual(bench.wait(30), 1)
            bench.stderr.close()
        self.assertNothingLeft()


class TheControls(unittest.TestCase):
    """Each kind of thing that could be left is left, and seen."""

    def setUp(self):
        self.before = State()

    def assertSeen(self, kind, leave, remove):
        left = leave()
        try:
            self.assertIn(kind, State().left(self.before))
        finally:
            remove(left)
        self.assertEqual(left_since(self.before), {}, "and it is gone again")

    @staticmethod
    def end(process):
        process.kill()
        process.wait()

    def sleeper(self, *wrapper):
        process = subprocess.Popen([*wrapper, "sleep", "1000"], stdout=subprocess.DEVNULL)
        # A wrapper makes its namespaces before it is the sleeper.
        self.assertTrue(wait_until(lambda: small_world.text(f"/proc/{process.pid}/comm") == "sleep\n"))
        return process

    def test_a_process(self):
        self.assertSeen("process", self.sleeper, self.end)

    def test_a_zombie(self):
        def leave():
            process = subprocess.Popen(["true"])
            wait_until(lambda: "State:\tZ" in small_world.text(f"/proc/{process.pid}/status"))
            return process
        self.assertSeen("process", leave, lambda process: process.wait())

    def test_a_mount(self):
        os.mkdir("/tmp/mounted")
        self.before = State()
        self.assertSeen("mount", lambda: small_world.mount("none", "/tmp/mounted", "tmpfs"),
                        lambda _: small_world.unmount("/tmp/mounted"))
        os.rmdir("/tmp/mounted")

    def test_a_mount_in_a_namespace_of_its_own(self):
        self.assertSeen("mount", lambda: self.sleeper("unshare", "--mount"), self.end)

    def test_a_namespace_with_a_process(self):
        for kind in ("net", "ipc", "uts", "user", "cgroup", "mount"):
            with self.subTest(kind):
                self.assertSeen("namespace", lambda: self.sleeper("unshare", f"--{kind}"), self.end)

    def hold(self):
        process = self.sleeper("unshare", "--net")
        fd = os.open(f"/proc/{process.pid}/ns/net", os.O_RDONLY)
        self.end(process)
        return fd

    def test_a_namespace_that_only_a_descriptor_holds(self):
        self.assertSeen("namespace", self.hold, os.close)

    def test_a_namespace_that_only_a_mount_holds(self):
        open("/tmp/place", "w").close()
        self.before = State()

        def leave():
            fd = self.hold()
            small_world.bind(f"/proc/self/fd/{fd}", "/tmp/place")
            os.close(fd)
        self.assertSeen("namespace", leave, lambda _: small_world.unmount("/tmp/place"))
        os.unlink("/tmp/place")

    def test_a_cgroup(self):
        self.assertTrue(os.environ[small_world.INSIDE], "this machine has no cgroup v2: mount -t cgroup2 none /sys/fs/cgroup/unified")
        folder = os.environ[small_world.INSIDE] + "/postern-1"
        self.assertSeen("cgroup", lambda: os.mkdir(folder), lambda _: os.rmdir(folder))

    def test_a_file(self):
        for folder in small_world.FRESH:
            with self.subTest(folder):
                self.assertSeen("file", lambda: os.mkdir(f"{folder}/left"), lambda _: os.rmdir(f"{folder}/left"))

    def test_a_descriptor(self):
        self.assertSeen("fd", lambda: os.open("/dev/null", os.O_RDONLY), os.close)

    def test_shared_memory(self):
        def leave():
            number = LIBC.shmget(0, 4096, 0o1600)
            self.assertGreaterEqual(number, 0, os.strerror(ctypes.get_errno()))
            return number
        self.assertSeen("system v ipc", leave, lambda number: LIBC.shmctl(number, 0, None))

    def test_a_message_queue(self):
        self.assertSeen("message queue", lambda: open("/dev/mqueue/left", "w").close(), lambda _: os.unlink("/dev/mqueue/left"))

    def test_a_socket(self):
        def leave():
            listener = socket.socket(socket.AF_UNIX)
            listener.bind("\0left")
            return listener
        self.assertSeen("socket", leave, lambda listener: listener.close())


if __name__ == "__main__":
    POSTERN = os.path.abspath(sys.argv[1]) + "/bin/postern"
    small_world.enter()
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]], verbosity=2)

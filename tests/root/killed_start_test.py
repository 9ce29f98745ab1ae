#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""killed_start_test.py BUILD: the launcher of a plain sandbox is killed after every single system call of its start.

kill-after (tests/support) kills `postern run` the moment its N-th system call has returned. After each: no process of the launch lives,
nothing that it has made is left, and the next launch works. tests/lab/kill_test.py does the same for launches on a device."""

import json
import os
import signal
import subprocess
import sys
import time
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import small_world
from small_world import State, cached, left_since

BUILD = ""


def launch(*arguments):
    return subprocess.run([f"{BUILD}/bin/postern", "run", *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)


class KilledStart(unittest.TestCase):
    #: What makes most steps: binds and other mounts, a profile that is read, a host name, limits, a status that is told.
    FLAGS = ["--ro-bind", "/usr", "/mnt", "--tmpfs", "/opt", "--hostname", "killed", "--rlimit", "nofile=64", "--time-limit", "60s"]
    CLIENT = "echo ready; exec sleep 60"

    def setUp(self):
        self.assertEqual(launch("--", "/bin/true").returncode, 0)
        self.before = State()

    def kill_after(self, calls, flags, client):
        result = subprocess.run([f"{BUILD}/tests/kill-after", str(calls), f"{BUILD}/bin/postern", "run", *flags, "--", "/bin/sh", "-c", client],
                                stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
        self.assertEqual(result.returncode, 0, result.stderr)
        return json.loads(result.stdout)

    def check_after(self, calls, flags):
        outcome = self.kill_after(calls, flags, self.CLIENT)
        where = f"killed after system call {outcome['calls']} ({calls}), {outcome['last']} = {outcome['result']}"
        self.assertTrue(outcome["killed"], where)
        self.assertTrue(outcome["closed"], f"{where}: somebody still has the client's stdout")
        self.assertEqual(left_since(self.before), {}, where)
        following = launch(*flags, "--", "/bin/sh", "-c", "echo $((6 * 7))")
        self.assertEqual((following.returncode, following.stdout), (0, "42\n"), f"{where}: the next launch: {following.stderr}")
        return outcome

    def sweep(self, flags, prepare=lambda: None):
        prepare()
        counted = self.kill_after(0, flags, "echo ready; sleep 6")
        start = counted["start"]
        self.assertIsNotNone(start, counted)
        self.assertEqual((counted["status"], counted["killed"], counted["said"]), (0, False, "ready\n"))
        begin, reached = time.monotonic(), 0
        for calls in range(1, start):
            prepare()
            outcome = self.check_after(calls, flags)
            # Two starts may differ by a few calls; the shorter one is killed asleep, with its client running.
            self.assertTrue(outcome["calls"] == calls or outcome["said"], outcome)
            reached += bool(outcome["said"])
        prepare()
        # The control: a launcher whose client runs, killed in its sleep.
        self.assertEqual(self.check_after(start + 1000, flags)["said"], "ready\n")
        print(f"    {start} system calls in a start, killed after each, in {time.monotonic() - begin:.0f} s; "
              f"{reached} times the client had begun", file=sys.stderr)

    def test_a_start(self):
        """From the cache, as nearly all are."""
        self.assertEqual(launch(*self.FLAGS, "--", "/bin/true").returncode, 0)
        self.before = State()
        self.sweep(self.FLAGS)

    def test_a_start_that_compiles_and_keeps_what_it_has_compiled(self):
        def forget():
            for name in cached():
                os.unlink(f"{State.CACHE}/{name}")
        self.sweep([], forget)

    def test_the_control_a_running_launch_is_seen(self):
        with subprocess.Popen([f"{BUILD}/bin/postern", "run", *self.FLAGS, "--", "/bin/sh", "-c", self.CLIENT],
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
            self.assertEqual(process.stdout.readline(), b"ready\n")
            left = State().left(self.before)
            self.assertGreaterEqual(len(left["process"]), 3)
            self.assertTrue({"mount", "namespace", "fd"} <= set(left), left)
            process.send_signal(signal.SIGKILL)
        self.assertEqual(left_since(self.before), {})


if __name__ == "__main__":
    BUILD = os.path.abspath(sys.argv[1])
    small_world.enter()
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]], verbosity=2)

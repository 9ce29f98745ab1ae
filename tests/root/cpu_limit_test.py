#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""cpu_limit_test.py BUILD: a client that uses more CPU time than it may is killed, with status 124; as root and as an ordinary user."""

import json
import os
import subprocess
import sys
import time
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import small_world
import rootless_test
from rootless_test import AS_USER, ENV, POSTERN

SPIN = "while :; do :; done"
#: With whom postern is started.
CALLERS = {"root": {"cwd": "/"}, "user": AS_USER}
#: Ends a python client by nothing but the hard limit.
STUBBORN = ["/usr/bin/python3", "-c", "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass"]


class CpuLimit(unittest.TestCase):
    def launch(self, caller, *words):
        """The finished launch, and all that --json-status-fd told at its end."""
        reader, writer = os.pipe()
        result = subprocess.run([POSTERN, "run", "--json-status-fd", str(writer), *words], capture_output=True, text=True, env=ENV, timeout=300,
                                stdin=subprocess.DEVNULL, pass_fds=[writer], **CALLERS[caller])
        os.close(writer)
        with os.fdopen(reader) as told:
            lines = told.read().splitlines()
        return result, json.loads(lines[-1]) if lines else {}

    def assertLimited(self, caller, signal_name, *words, limit="cpu_limit"):
        result, told = self.launch(caller, *words)
        self.assertEqual(result.returncode, 124, result.stderr)
        self.assertEqual(result.stderr.splitlines(), [f"postern: the limit of CPU time (cpu_limit) was hit; the client was killed ({signal_name})"])
        self.assertEqual((told["exit-code"], told["exit-reason"], told["limit"], told["signal-name"]), (124, "time", limit, signal_name))

    def test_a_client_that_spins(self):
        for caller in CALLERS:
            with self.subTest(caller):
                begin = time.monotonic()
                self.assertLimited(caller, "SIGXCPU", "--cpu-limit", "1s", "--", "/bin/sh", "-c", SPIN)
                self.assertLess(time.monotonic() - begin, 100)

    def test_one_that_goes_on_after_the_signal(self):
        for caller in CALLERS:
            with self.subTest(caller):
                self.assertLimited(caller, "SIGKILL", "--cpu-limit", "1s", "--", *STUBBORN)

    def test_one_that_is_pid_1(self):
        """Which the kernel sends no SIGXCPU that it has no handler for."""
        for caller in CALLERS:
            with self.subTest(caller):
                self.assertLimited(caller, "SIGKILL", "--as-pid-1", "--cpu-limit", "1s", "--", "/bin/sh", "-c", SPIN)

    def test_one_that_shares_the_pids(self):
        self.assertLimited("root", "SIGXCPU", "--quiet", "--share-pid", "--cpu-limit", "1s", "--", "/bin/sh", "-c", SPIN)

    def test_the_profile_says_it(self):
        path = "/var/tmp/limited.json"
        with open(path, "w") as file:
            json.dump({"postern": 1, "sandbox": {"cpu_limit": "500ms"}}, file)
        self.addCleanup(os.remove, path)
        for caller in CALLERS:
            with self.subTest(caller):
                self.assertLimited(caller, "SIGXCPU", "--profile", path, "--", "/bin/sh", "-c", SPIN)
                result, _ = self.launch(caller, "--profile", path, "--", "/bin/sh", "-c", "ulimit -St; ulimit -Ht")
                self.assertEqual(result.stdout, "1\n2\n", result.stderr)

    def test_launches_that_are_kept(self):
        kept = set(small_world.cached())
        for _ in range(2):
            result = subprocess.run([POSTERN, "run", "--cpu-limit", "999ms", "--", "/bin/sh", "-c", SPIN], capture_output=True, timeout=300)
            self.assertEqual(result.returncode, 124, result.stderr)
            self.assertEqual(len(set(small_world.cached()) - kept), 1)
        path = "/var/tmp/limited.json"
        with open(path, "w") as file:
            json.dump({"postern": 1, "sandbox": {"cpu_limit": 1}}, file)
        self.addCleanup(os.remove, path)
        compiled = "/var/tmp/limited.launch"
        subprocess.run([POSTERN, "profile", "compile", path, "-o", compiled], check=True, capture_output=True)
        self.addCleanup(os.remove, compiled)
        result = subprocess.run([POSTERN, "run", "--profile", compiled, "--", "/bin/sh", "-c", SPIN], capture_output=True, text=True, timeout=300)
        self.assertEqual(result.returncode, 124, result.stderr)

    def test_what_is_not_this_limit(self):
        for caller in CALLERS:
            for script, status, told in (("exit 3", 3, {"exit-reason": "status"}),
                                         ("kill -KILL $$", 137, {"exit-reason": "signal", "signal-name": "SIGKILL"}),
                                         ("kill -XCPU $$", 152, {"exit-reason": "time", "limit": "rlimits.cpu"}),
                                         # Each process has the limit, and only the client's end is postern's.
                                         (f"sh -c '{SPIN}'; echo $?; exit 5", 5, {"exit-reason": "status"}),
                                         # Its children's time is not its own, when something else kills it.
                                         (f"sh -c '{SPIN}'; sh -c '{SPIN}'; sh -c '{SPIN}'; kill -KILL $$", 137, {"exit-reason": "signal"})):
                with self.subTest(caller=caller, script=script):
                    result, end = self.launch(caller, "--cpu-limit", "1s", "--", "/bin/sh", "-c", script)
                    self.assertEqual(result.returncode, status, result.stderr)
                    self.assertEqual({key: end.get(key) for key in told}, told)
                    self.assertNotIn("cpu_limit", result.stderr)
                    if "echo" in script:
                        self.assertEqual(result.stdout, "152\n")

    def test_time_that_passes_is_not_used(self):
        result, _ = self.launch("user", "--cpu-limit", "1s", "--", "/bin/sh", "-c", "sleep 2.5; echo rested")
        self.assertEqual((result.returncode, result.stdout), (0, "rested\n"), result.stderr)

    def test_both_limits(self):
        result, told = self.launch("user", "--cpu-limit", "1h", "--time-limit", "300ms", "--", "/bin/sh", "-c", SPIN)
        self.assertEqual((result.returncode, told["limit"]), (124, "time_limit"), result.stderr)
        result, told = self.launch("user", "--rlimit", "cpu=1:9", "--", "/bin/sh", "-c", SPIN)
        self.assertEqual((result.returncode, told["limit"]), (152, "rlimits.cpu"), result.stderr)

    def test_what_is_refused(self):
        for words, says in ((["--cpu-limit", "0s"], "must not be 0"), (["--cpu-limit", "soon"], "soon"),
                            (["--cpu-limit", "1s", "--rlimit", "cpu=1:2"], "leave one of them out")):
            result, _ = self.launch("user", *words, "--", "/bin/echo", "ran")
            self.assertEqual((result.returncode, result.stdout, result.stderr.count("\n")), (125, "", 1), result.stderr)
            self.assertIn(says, result.stderr)


if __name__ == "__main__":
    small_world.enter()
    rootless_test.copy_build(os.path.abspath(sys.argv[1]))
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]], verbosity=2)

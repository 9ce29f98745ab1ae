#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Limits of `postern run` in what systemd delegates: scopes and services, of root and of an ordinary user, and of that user's own manager.

Runs as root in the guest with systemd as pid 1; see tests/lab/README.md. sandbox_test.py has the same with cgroups made by hand."""

import glob
import json
import os
import re
import shutil
import subprocess
import sys
import time
import unittest

sys.dont_write_bytecode = True
BUILD = os.environ["POSTERN_BUILD"]
#: Of Debian's base-passwd, with a name: PAM and systemd want one.
USER, GROUP = 5, 60
PLACE = "/run/postern-test"
POSTERN = f"{PLACE}/bin/postern"
LIMITED = ["--profile", f"{PLACE}/limited.json", "--json-status-fd", "1", "--"]
LAUNCH = [POSTERN, "run", *LIMITED]
EATER = ["/bin/sh", "-c", "tail /dev/zero; exit 4"]
AS_USER = ["setpriv", f"--reuid={USER}", f"--regid={GROUP}", "--clear-groups"]
OWN_CGROUP = "/sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup)"


def systemd_run(*arguments, prefix=()):
    return subprocess.run([*prefix, "systemd-run", "--quiet", *arguments], capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)


class Delegation(unittest.TestCase):
    def tearDown(self):
        self.assertEqual(glob.glob("/sys/fs/cgroup/**/postern-*", recursive=True), [])

    def assertLimited(self, result, where, status=4):
        """The client's child was ended for its memory, in a cgroup `where`."""
        self.assertEqual(result.returncode, status, result.stdout + result.stderr)
        said = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
        self.assertRegex(said[0]["cgroup"], rf"^/sys/fs/cgroup/{where}/postern-\d+$")
        self.assertIn("the memory limit was hit: the OOM killer ended 1 of the client's processes", result.stderr)
        self.assertEqual(said[-1], {"exit-code": 4, "exit-reason": "status"})

    def test_a_scope(self):
        self.assertLimited(systemd_run("--scope", "-p", "Delegate=yes", "--", *LAUNCH, *EATER), r"system\.slice/run-\w+\.scope")

    def test_the_limit_of_a_scope_holds_for_the_client(self):
        result = systemd_run("--scope", "-p", "Delegate=yes", "-p", "MemoryMax=20M", "-p", "MemorySwapMax=0", "--", *LAUNCH, "/usr/bin/tail", "/dev/zero")
        self.assertEqual(result.returncode, 137, result.stdout + result.stderr)
        self.assertIn("a cgroup above the client's, ran out of memory", result.stderr)

    def test_a_service_of_an_ordinary_user(self):
        self.assertLimited(systemd_run("--wait", "--pipe", "-p", "Delegate=yes", "-p", f"User={USER}", "--", *LAUNCH, *EATER), r"system\.slice/run-\w+\.service")

    def test_one_that_is_not_delegated(self):
        result = systemd_run("--wait", "--pipe", "-p", f"User={USER}", "--", *LAUNCH, *EATER)
        self.assertEqual(result.returncode, 125, result.stdout + result.stderr)
        self.assertEqual(result.stdout, "")
        self.assertIn("not delegated to the launcher", result.stderr)
        self.assertIn("-p Delegate=yes", result.stderr)

    def test_a_leaf_of_a_service(self):
        """What DelegateSubgroup= of systemd 254 makes: several launches, and a shell that stays."""
        script = f"cd {OWN_CGROUP} && mkdir leaf && echo 0 >leaf/cgroup.procs && cd / && " + " && ".join(
            [f"{' '.join(LAUNCH)} /bin/sh -c 'exit 0'"] * 3) + f"; {' '.join(LAUNCH)} {EATER[0]} -c '{EATER[2]}'"
        result = systemd_run("--wait", "--pipe", "-p", "Delegate=yes", "-p", f"User={USER}", "--", "/bin/sh", "-c", script)
        self.assertEqual(len(re.findall(r'"exit-code": 0', result.stdout)), 3, result.stdout + result.stderr)
        result.stdout = "\n".join(result.stdout.splitlines()[6:])
        self.assertLimited(result, r"system\.slice/run-\w+\.service")

    def test_the_users_own_manager(self):
        subprocess.run(["systemctl", "start", f"user@{USER}.service"], check=True, timeout=300)
        self.addCleanup(subprocess.run, ["systemctl", "stop", f"user@{USER}.service"])
        user = [*AS_USER, "env", f"XDG_RUNTIME_DIR=/run/user/{USER}"]
        self.assertLimited(systemd_run("--user", "--scope", "-p", "Delegate=yes", "--", *LAUNCH, *EATER, prefix=user),
                           rf"user\.slice/user-{USER}\.slice/user@{USER}\.service/app\.slice/run-\w+\.scope")
        # The message that a refusal without it has says this very command.
        shell = ["/bin/sh", "-c", f"{' '.join(LAUNCH)} true; exit $?"]
        result = systemd_run("--user", "--scope", "-p", "Delegate=yes", "--", *shell, prefix=user)
        self.assertEqual(result.returncode, 125, result.stdout + result.stderr)
        self.assertIn("other processes than postern are in this cgroup", result.stderr)

    def test_a_killed_launcher(self):
        """systemd removes what it was in, with all that is below."""
        scope = subprocess.Popen(["systemd-run", "--quiet", "--scope", "-p", "Delegate=yes", "--", *LAUNCH, "/bin/sh", "-c", "sleep 1000"],
                                 stdout=subprocess.PIPE, text=True)
        home = os.path.dirname(json.loads(scope.stdout.readline())["cgroup"])
        self.assertEqual(len(glob.glob(f"{home}/postern-*")), 2)
        scope.kill()
        scope.communicate()
        end = time.monotonic() + 120
        while os.path.exists(home) and time.monotonic() < end:
            time.sleep(0.05)
        self.assertFalse(os.path.exists(home))


if __name__ == "__main__":
    os.makedirs(f"{PLACE}/bin")
    shutil.copy(f"{BUILD}/bin/postern", POSTERN)
    for name in ("libexec", "share"):
        shutil.copytree(f"{BUILD}/{name}", f"{PLACE}/{name}")
    with open(f"{PLACE}/limited.json", "w") as file:
        json.dump({"postern": 1, "sandbox": {"cgroup": {"memory.max": "32MiB", "pids.max": "30", "cpu.max": "90000 100000"}}}, file)
    subprocess.run(["chmod", "-R", "a+rX", PLACE], check=True)
    unittest.main(verbosity=2)

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What `postern run` does without a device and a build machine cannot show: limits of cgroup v2, cgroups that are delegated to an ordinary user,
what the kernel's log says of a forbidden system call, and obstacles that are switches of the whole kernel.

Runs as root in the guest; see tests/lab/README.md. The launcher is root's or that of the ordinary user of tests/root/rootless_test.py."""

import contextlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
import unittest

BUILD = os.environ["POSTERN_BUILD"]
sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "root"))
import rootless_test
import small_world
from rootless_test import AS_USER, POSTERN, USER, WORK
from small_world import pids, text, wait_until

ROOT = "/sys/fs/cgroup"
AS_ROOT = {"user": None, "group": None, "extra_groups": None}
MIB = 1 << 20
#: Eats memory until it is stopped.
EATER = "tail /dev/zero"
CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 1 << 14, 1 << 18
SEED = int(os.environ.get("POSTERN_KILL_SEED", "4"))


def write(path, value):
    with open(path, "w") as file:
        file.write(str(value))


def words(path):
    return text(path).split()


def counts(path):
    """Of a flat keyed file, such as cpu.stat."""
    return {key: int(value) for key, value in (line.split() for line in text(path).splitlines())}


@contextlib.contextmanager
def setting(path, value):
    """A sysctl for a while."""
    before = text(path).strip()
    write(path, value)
    try:
        yield
    finally:
        write(path, before)


def own_mounts():
    small_world.check(small_world.LIBC.unshare(CLONE_NEWNS), "unshare")
    small_world.mount("none", "/", "", MS_REC | MS_PRIVATE)


def postern_cgroups():
    return sorted(folder for folder, _, _ in os.walk(ROOT) if "postern" in os.path.basename(folder))


class Told:
    """A launch, and what its --json-status-fd says."""

    def __init__(self, script, *flags, cgroup=ROOT, user=True, **kwargs):
        self.reader, writer = os.pipe()
        self.said = []
        self.buffer = b""
        # Opened by root, whose right to move a process there it then carries.
        door = os.open(f"{cgroup}/cgroup.procs", os.O_WRONLY)
        command = script if isinstance(script, list) else ["/bin/sh", "-c", script]
        self.process = rootless_test.start("--json-status-fd", str(writer), *flags, "--", *command, pass_fds=[writer],
                                           preexec_fn=lambda: os.write(door, b"0"), **{**(AS_USER if user else AS_ROOT), **kwargs})
        os.close(door)
        os.close(writer)

    def read_line(self):
        """The next object; None at the end."""
        while b"\n" not in self.buffer:
            more = os.read(self.reader, 65536)
            if not more:
                return None
            self.buffer += more
        line, self.buffer = self.buffer.split(b"\n", 1)
        self.said.append(json.loads(line))
        return self.said[-1]

    def end(self, timeout=120):
        self.out, self.error = self.process.communicate(timeout=timeout)
        while self.read_line() is not None:
            pass
        os.close(self.reader)
        self.status = self.process.returncode
        return self


class SandboxTest(rootless_test.Rootless):
    def setUp(self):
        super().setUp()
        self.folders = []

    def tearDown(self):
        for folder in reversed(self.folders):
            self.assertTrue(wait_until(lambda folder=folder: small_world.removed(folder)), folder)
        super().tearDown()

    def cgroup(self, path, owner=None, **settings):
        """A cgroup below the root for the time of the test; `owner` may do all in it that delegation means."""
        folder = f"{ROOT}/{path}"
        os.mkdir(folder)
        self.folders.append(folder)
        for name, value in settings.items():  # "_" is a dot in a file's name, "__" is itself
            write(f"{folder}/{name.replace('__', ' ').replace('_', '.').replace(' ', '_')}", value)
        if owner is not None:
            for name in ("", "/cgroup.procs", "/cgroup.subtree_control", "/cgroup.threads"):
                os.chown(folder + name, owner, owner)
        return folder

    def told(self, script, limits, *flags, **kwargs):
        """A launch under `limits` that has ended."""
        return Told(script, *(self.profile(cgroup=limits) if limits else []), *flags, **kwargs).end()

    def running(self, script, limits, *flags, **kwargs):
        """One that waits for its standard input, and goes with the test."""
        launch = Told(script, *(self.profile(cgroup=limits) if limits else []), *flags, stdin=subprocess.PIPE, **kwargs)
        self.addCleanup(launch.process.kill)
        self.assertIsNotNone(launch.read_line(), "it runs")
        return launch

    def finish(self, launch, status=0):
        launch.process.stdin.close()
        launch.process.stdin = None
        self.assertEqual(launch.end().status, status, launch.error)

    def assertEnded(self, launch, status, reason, *lines):
        """With each of `lines` in a line of its own on stderr, and no others of postern's."""
        self.assertEqual(launch.status, status, launch.error)
        self.assertEqual((launch.said[-1]["exit-code"], launch.said[-1]["exit-reason"]), (status, reason))
        said = [line for line in launch.error.splitlines() if line.startswith("postern: ")]
        self.assertEqual(len(said), len(lines), launch.error)
        for line, wanted in zip(said, lines):
            self.assertIn(wanted, line)

    def assertNotBegun(self, launch, *wanted):
        """Refused in one line, and nobody was told of a client."""
        self.assertEqual(launch.said, [])
        self.assertRefused(subprocess.CompletedProcess([], launch.status, launch.out, launch.error), *wanted)


class AsRoot(SandboxTest):
    """By root, in the root of the hierarchy."""

    def told(self, script, limits, *flags, **kwargs):
        return super().told(script, limits, *flags, **{"user": False, **kwargs})

    def running(self, script, limits, *flags, **kwargs):
        return super().running(script, limits, *flags, **{"user": False, **kwargs})


class Memory(AsRoot):
    LIMIT = {"memory.max": "32MiB"}

    def test_a_client_that_eats_memory_is_ended(self):
        launch = self.told(["/usr/bin/tail", "/dev/zero"], self.LIMIT)
        self.assertEnded(launch, 137, "memory", "the memory limit was hit: the OOM killer ended the client; raise memory.max")
        self.assertEqual((launch.said[-1]["signal"], launch.said[-1]["signal-name"]), (9, "SIGKILL"))

    def test_one_that_stays_below_is_not(self):
        self.assertEnded(self.told("head -c 8M /dev/zero | tail | wc -c", self.LIMIT), 0, "status")
        self.assertEnded(self.told("head -c 100M /dev/zero | tail | wc -c", {"memory.max": "400MiB"}), 0, "status")

    def test_a_child_of_the_client_is_ended_and_the_client_lives_on(self):
        launch = self.told(f"{EATER}; echo went on; exit 4", self.LIMIT)
        self.assertEqual(launch.out, "went on\n")
        self.assertEnded(launch, 4, "status", "the memory limit was hit: the OOM killer ended 1 of the client's processes; raise memory.max")
        launch = self.told(f"{EATER}; {EATER}; kill -TERM $$", self.LIMIT)
        self.assertEnded(launch, 143, "signal", "ended 2 of the client's processes")

    def test_a_kill_is_no_lack_of_memory(self):
        self.assertEnded(self.told("kill -KILL $$", self.LIMIT), 137, "signal")

    def test_the_memory_of_a_cgroup_above(self):
        above = self.cgroup("above", memory_max=48 * MIB)
        launch = self.told(["/usr/bin/tail", "/dev/zero"], {"memory.max": "1GiB"}, cgroup=above)
        self.assertEnded(launch, 137, "memory", "the machine, or a cgroup above the client's, ran out of memory")
        self.assertEnded(self.told("exit 3", {"memory.max": "1GiB"}, cgroup=above), 3, "status")

    def test_too_little_for_a_start(self):
        self.assertNotBegun(self.told("true", {"memory.max": "64KiB"}), "killed before the client began", "raise memory.max")
        self.assertEnded(self.told("true", {"memory.max": "8MiB"}), 0, "status")

    def test_a_limit_that_is_none(self):
        self.assertNotBegun(self.told("true", {"memory.max": "lots"}), "lots", "memory.max")
        self.assertNotBegun(self.told("true", {"memory.nothing": "1"}), "memory.nothing")


class Processes(AsRoot):
    SLEEPERS = "i=0; while [ $i -lt {} ]; do sleep 1000 & i=$((i + 1)); done; echo all; exit 5"

    def test_a_bomb_is_held(self):
        launch = self.running("trap '' TERM; b() { b & b & }; (b; b) & while :; do read line || exit 0; done", {"pids.max": "20"})
        home = launch.said[0]["cgroup"]
        self.assertTrue(wait_until(lambda: counts(f"{home}/pids.events")["max"] > 0, 30), "it grows")
        self.assertLessEqual(int(text(f"{home}/pids.peak")), 20)
        self.assertGreaterEqual(int(text(f"{home}/pids.peak")), 19)
        launch.process.kill()
        launch.end()
        self.assertTrue(wait_until(lambda: not text(f"{home}/cgroup.procs")), "all of it ends with the launcher")
        # The folder of a killed launcher goes with the next launch in the same place.
        self.assertEnded(self.told("exit 4", {"pids.max": "20"}), 4, "status")
        self.assertFalse(os.path.exists(home))

    def test_refused_forks_are_said(self):
        launch = self.told(self.SLEEPERS.format(40), {"pids.max": "20"})
        self.assertEnded(launch, 2, "status", "the limit of processes was hit: 1 fork of the client was refused; raise pids.max")
        launch = self.told(f"({self.SLEEPERS.format(40)}); ({self.SLEEPERS.format(40)}); exit 6", {"pids.max": "20"})
        self.assertEnded(launch, 6, "status", "2 forks of the client were refused")

    def test_as_many_as_are_allowed(self):
        launch = self.told(self.SLEEPERS.format(40), {"pids.max": "50"})
        self.assertEnded(launch, 5, "status")
        self.assertEqual(launch.out, "all\n")

    def test_too_few_for_a_start(self):
        """The sandbox's init is a process too."""
        self.assertNotBegun(self.told("true", {"pids.max": "1"}), "forking the client", "pids.max", "2 at least")
        self.assertNotBegun(self.told("true", {"pids.max": "0"}), "pids.max")
        self.assertEnded(self.told(["/bin/true"], {"pids.max": "2"}), 0, "status")


class Cpu(AsRoot):
    SPIN = "while :; do :; done"

    def spin(self, limits):
        launch = self.running(self.SPIN, limits, "--time-limit", "60s")
        stat = f"{launch.said[0]['cgroup']}/cpu.stat"
        begin = counts(stat)["usage_usec"]
        # A limit takes effect at the end of a period.
        used = wait_until(lambda: counts(stat)["usage_usec"] > begin + 150_000 and ("cpu.max" not in limits or counts(stat)["nr_throttled"] > 0), 40)
        found = counts(stat)
        launch.process.terminate()
        self.finish(launch, 143)
        self.assertTrue(used, found)
        return found

    def test_a_limit_throttles(self):
        held = self.spin({"cpu.max": "10000 100000"})
        self.assertGreater(held["nr_throttled"], 0)
        self.assertGreater(held["throttled_usec"], 0)
        free = self.spin({"cpu.weight": "100"})
        self.assertEqual((free["nr_throttled"], free["throttled_usec"]), (0, 0), "the control")


class Born(SandboxTest):
    """The first instruction of the client is one in its cgroup."""

    def test_where_it_is(self):
        launch = self.running("read line", {"memory.max": "64MiB"}, user=False)
        first = launch.said[0]
        self.assertEqual(first["cgroup"], f"{ROOT}/postern-{launch.process.pid}")
        for pid in (first["pid"], first["child-pid"]):
            self.assertEqual(text(f"/proc/{pid}/cgroup"), f"0::{first['cgroup'][len(ROOT):]}\n")
        self.assertEqual(text(f"/proc/{launch.process.pid}/cgroup"), "0::/\n", "the launcher stays")
        self.assertEqual(set(words(f"{first['cgroup']}/cgroup.procs")), {str(first["pid"]), str(first["child-pid"])})
        self.assertEqual(text(f"{first['cgroup']}/memory.max"), f"{64 * MIB}\n")
        self.finish(launch, 1)
        self.assertFalse(os.path.exists(first["cgroup"]))

    def test_it_never_was_in_the_launchers(self):
        """pids.peak counts all that ever were there at once: of the launcher's own cgroup, the launcher."""
        delegated = self.cgroup("delegated", owner=USER, cgroup_subtree__control="+pids +memory")
        leaf = self.cgroup("delegated/leaf")
        self.assertEnded(self.told("sleep 0; exit 3", {"memory.max": "64MiB"}, cgroup=leaf), 3, "status")
        self.assertEqual(text(f"{leaf}/pids.peak"), "1\n")
        self.assertEqual(delegated, os.path.dirname(leaf))
        self.assertEnded(self.told("sleep 0; exit 3", {}, cgroup=leaf), 3, "status")
        self.assertGreaterEqual(int(text(f"{leaf}/pids.peak")), 3, "the control: without a cgroup of its own it is counted there")

    def test_what_it_sees(self):
        limits = {"pids.max": "64"}
        self.assertEqual(self.told("cat /proc/self/cgroup", limits, user=False).out, "0::/\n")
        self.assertRegex(self.told("cat /proc/self/cgroup", limits, "--share-cgroup", user=False).out, r"^0::/postern-\d+\n$")


class Delegated(SandboxTest):
    """By an ordinary user, in a cgroup that was given to it."""
    LIMITS = {"memory.max": "32MiB", "pids.max": "30", "cpu.max": "90000 100000"}

    def assertLimited(self, cgroup, user=True):
        """Every limit holds there, and nothing is left."""
        before = set(postern_cgroups())
        controllers = text(f"{cgroup}/cgroup.subtree_control")
        self.assertEnded(self.told(f"{EATER}; exit 4", self.LIMITS, cgroup=cgroup, user=user), 4, "status", "ended 1 of the client's")
        self.assertEnded(self.told(Processes.SLEEPERS.format(40), self.LIMITS, cgroup=cgroup, user=user), 2, "status", "fork of the client was refused")
        launch = self.running("read line", self.LIMITS, cgroup=cgroup, user=user)
        home = launch.said[0]["cgroup"]
        self.assertEqual(text(f"{home}/cpu.max"), "90000 100000\n")
        self.assertEqual(text(f"/proc/{launch.said[0]['pid']}/cgroup"), f"0::{home[len(ROOT):]}\n")
        where = text(f"/proc/{launch.process.pid}/cgroup")[3:].strip()
        self.finish(launch, 1)
        self.assertEqual(set(postern_cgroups()), before)
        self.assertEqual(text(f"{cgroup}/cgroup.subtree_control"), controllers)
        return home[len(ROOT):], where

    def test_from_a_leaf_of_it(self):
        """The client's is beside the leaf, whoever else is in that."""
        self.cgroup("delegated", owner=USER)
        leaf = self.cgroup("delegated/leaf")
        write(f"{leaf}/cgroup.procs", os.getpid())
        try:
            home, where = self.assertLimited(leaf)
        finally:
            write(f"{ROOT}/cgroup.procs", os.getpid())
        self.assertRegex(home, r"^/delegated/postern-\d+$")
        self.assertEqual(where, "/delegated/leaf")

    def test_alone_in_it(self):
        """As systemd-run --scope -p Delegate=yes starts it: the launcher goes into a leaf, and back at the end."""
        delegated = self.cgroup("delegated", owner=USER)
        home, where = self.assertLimited(delegated)
        self.assertRegex(home, r"^/delegated/postern-\d+$")
        self.assertEqual(where, f"{home}-launcher")
        self.assertEqual(words(f"{delegated}/cgroup.subtree_control"), [])

    def test_root_alone_in_one(self):
        home, _ = self.assertLimited(self.cgroup("of-root"), user=False)
        self.assertRegex(home, r"^/of-root/postern-\d+$")

    def test_root_keeps_out_of_what_is_above(self):
        """Root may write everywhere; what was given to it is marked, as systemd does it."""
        above = self.cgroup("above")
        leaf = self.cgroup("above/leaf")
        with open(f"{leaf}/cgroup.procs", "w") as file:
            file.write(str(os.getpid()))
        try:
            self.assertNotBegun(self.told("true", self.LIMITS, cgroup=leaf, user=False), "controller")
            os.setxattr(above, "trusted.delegate", b"1")
            self.assertRegex(self.assertLimited(leaf, user=False)[0], r"^/above/postern-\d+$")
        finally:
            write(f"{ROOT}/cgroup.procs", os.getpid())

    def test_a_unit_of_the_users_own_manager(self):
        """Its slices are the user's to write to, but the manager's to use."""
        self.cgroup("user@12345.service", owner=USER, cgroup_subtree__control="+memory +pids +cpu")
        self.cgroup("user@12345.service/app.slice", owner=USER, cgroup_subtree__control="+memory +pids +cpu")
        scope = self.cgroup("user@12345.service/app.slice/run-1.scope", owner=USER)
        self.assertRegex(self.assertLimited(scope)[0], r"^/user@12345.service/app.slice/run-1.scope/postern-\d+$")

    def test_a_limit_of_the_launchers_own_cgroup_is_kept(self):
        """Beside that cgroup it would not hold: the client's is below."""
        self.cgroup("delegated", owner=USER, cgroup_subtree__control="+memory +pids +cpu")
        leaf = self.cgroup("delegated/leaf", owner=USER, memory_max=64 * MIB)
        self.assertRegex(self.assertLimited(leaf)[0], r"^/delegated/leaf/postern-\d+$")
        launch = self.told(["/usr/bin/tail", "/dev/zero"], {"memory.max": "1GiB"}, cgroup=leaf)
        self.assertEnded(launch, 137, "memory", "a cgroup above the client's")

    def test_not_alone_in_it(self):
        delegated = self.cgroup("delegated", owner=USER)
        other = subprocess.Popen(["/bin/sh", "-c", "read line"], stdin=subprocess.PIPE)
        write(f"{delegated}/cgroup.procs", other.pid)
        for limit in self.LIMITS.items():
            self.assertNotBegun(self.told("true", dict([limit]), cgroup=delegated), limit[0], "other processes than postern are in this cgroup",
                                "systemd-run --scope -p Delegate=yes")
        other.communicate(b"\n")
        self.assertEqual(words(f"{delegated}/cgroup.subtree_control"), [], "nothing was enabled")
        self.assertEnded(self.told("exit 3", self.LIMITS, cgroup=delegated), 3, "status")

    def test_a_controller_that_is_not_given_on(self):
        self.cgroup("delegated", owner=USER)
        self.cgroup("delegated/inner", owner=USER)
        leaf = self.cgroup("delegated/inner/leaf", owner=USER)
        self.assertNotBegun(self.told("true", {"memory.max": "64MiB"}, cgroup=leaf), "controller memory is not there", "not given on by a cgroup above",
                            f"echo +memory >{ROOT}/delegated/cgroup.subtree_control")

    def test_nothing_is_delegated(self):
        foreign = self.cgroup("foreign")
        for limit in self.LIMITS.items():
            for where in (ROOT, foreign):
                before = set(postern_cgroups())
                self.assertNotBegun(self.told("true", dict([limit]), cgroup=where), where, "delegated to the launcher", "systemd-run --user --scope -p Delegate=yes")
                self.assertEqual(set(postern_cgroups()), before)
        self.assertEnded(self.told("exit 3", {}, cgroup=foreign), 3, "status")

    def test_a_hierarchy_without_the_controller(self):
        with self.without_controller("pids"):
            inner = self.cgroup("inner", owner=USER)
            self.assertNotBegun(self.told("true", {"pids.max": "8"}, cgroup=inner), "controller pids is not there")
            # Root, in the root, enables it.
            self.assertEnded(self.told("exit 3", {"pids.max": "8"}, user=False), 3, "status")
            self.assertIn("pids", words(f"{ROOT}/cgroup.subtree_control"))

    @contextlib.contextmanager
    def without_controller(self, name):
        write(f"{ROOT}/cgroup.subtree_control", f"-{name}")
        try:
            yield
        finally:
            write(f"{ROOT}/cgroup.subtree_control", f"+{name}")


class Killed(SandboxTest):
    """SIGKILL for the launcher: its client dies, and the empty cgroup goes with the next launch in the same place."""
    LIMITS = {"memory.max": "64MiB", "pids.max": "30"}

    def clients(self):
        return [pid for pid in pids() if "postern-killed-test" in text(f"/proc/{pid}/cmdline") and text(f"/proc/{pid}/comm").strip() != "postern"]

    def kill_rounds(self, rounds, cgroup, user):
        dice = random.Random(SEED)
        begin = time.monotonic()
        self.assertEnded(self.told("exit 3", self.LIMITS, cgroup=cgroup, user=user), 3, "status")
        whole = time.monotonic() - begin
        left, began, launchers, i, span = 0, 0, set(), 0, 3 * whole
        before = set(postern_cgroups())
        # More and longer where the machine has become slower since.
        while i < rounds or (not (left and began) and i < 4 * rounds):
            i += 1
            span = min(1.5 * span, 30) if i > rounds else span
            launch = Told("sleep 1000 & echo up; sleep 1001 postern-killed-test", *self.profile(cgroup=self.LIMITS), cgroup=cgroup, user=user)
            time.sleep(dice.uniform(0, span))
            launch.process.kill()
            launch.end()
            began += bool(launch.said)
            home = f"{os.path.dirname(cgroup) if user else cgroup}/postern-{launch.process.pid}"
            launchers.add(home)
            remains = set(postern_cgroups()) - before
            left += home in remains
            self.assertLessEqual(remains, launchers)
            for folder in remains:
                self.assertTrue(wait_until(lambda: not text(f"{folder}/cgroup.procs")), f"round {i}: somebody lives in {folder}")
            self.assertEqual(self.clients(), [], f"round {i}")
        self.assertEnded(self.told("exit 3", self.LIMITS, cgroup=cgroup, user=user), 3, "status")
        self.assertEqual(set(postern_cgroups()), before)
        print(f"    {i} launchers killed, of {began} the client had begun; {left} left a cgroup, which the next launch removed", file=sys.stderr)
        self.assertGreater(left, 0, "else nothing was tried")
        self.assertGreater(began, 0)

    def test_by_root(self):
        self.kill_rounds(15, ROOT, False)

    def test_in_a_leaf_of_a_delegated_one(self):
        self.cgroup("delegated", owner=USER)
        self.kill_rounds(15, self.cgroup("delegated/leaf"), True)

    def test_alone_in_one(self):
        """Nobody can go back to it then: what remains is for who made it, as systemd does for a scope."""
        delegated = self.cgroup("delegated", owner=USER)
        launch = self.running("sleep 1000", self.LIMITS, cgroup=delegated)
        home = launch.said[0]["cgroup"]
        launch.process.kill()
        launch.end()
        self.assertEqual(set(postern_cgroups()), {home, f"{home}-launcher"})
        for folder in (home, f"{home}-launcher"):
            self.assertTrue(wait_until(lambda folder=folder: small_world.removed(folder)), folder)

    def test_the_same_pid_in_other_pid_namespaces(self):
        """They share a cgroup and would give the same name; to each of them the others look dead."""
        before = set(postern_cgroups())
        launcher = self.own_pids()
        for _ in range(3):
            clients = [subprocess.Popen([*launcher, f"echo up; read line; exit {i}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
                       for i in range(10)]
            for client in clients:
                self.addCleanup(client.kill)
            self.assertEqual([client.stdout.readline() for client in clients], ["up\n"] * 10)
            names = [os.path.basename(path) for path in set(postern_cgroups()) - before]
            self.assertEqual(len(names), 10)
            for name in names:
                self.assertRegex(name, r"^postern-1(-\d+)?$")
            for client in clients:
                client.communicate("\n")
            self.assertEqual([client.returncode for client in clients], list(range(10)))
            self.assertEqual(set(postern_cgroups()), before)

    def own_pids(self):
        """Up to the script: a launcher that is pid 1."""
        return ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", POSTERN, "run", *self.profile(cgroup=self.LIMITS), "--", "/bin/sh", "-c"]

    def test_the_cgroup_of_a_dead_launcher_with_this_pid(self):
        old = f"{ROOT}/postern-1"
        os.mkdir(old)
        result = subprocess.run([*self.own_pids(), "cat /proc/self/cgroup; exit 3"], capture_output=True, text=True, timeout=60)
        self.assertEqual(result.returncode, 3, result.stderr)
        self.assertFalse(os.path.exists(old))


class Forbidden(SandboxTest):
    """A system call that a filter kills for, by name."""
    RESTRICT = "/proc/sys/kernel/dmesg_restrict"

    def filter(self, *names):
        return ["--seccomp-profile", self.user_file("filter.json", json.dumps(
            {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": list(names), "action": "SCMP_ACT_KILL_PROCESS"}]}))]

    def assertNamed(self, launch, number, name, abi="x86_64"):
        self.assertEnded(launch, 159, "seccomp", f"for system call {name} ({number}")
        last = launch.said[-1]
        self.assertEqual((last["syscall"], last["syscall-name"], last["syscall-abi"], last["signal-name"]), (number, name, abi, "SIGSYS"))

    def test_it_is_named(self):
        flags = self.filter("mkdir", "swapon")
        self.assertNamed(Told(["/usr/bin/mkdir", "/tmp/x"], *flags, user=False).end(), 83, "mkdir")
        self.assertNamed(Told(["/usr/bin/perl", "-e", 'my $path = "/x"; syscall(167, $path, 0)'], *flags, user=False).end(), 167, "swapon")
        self.assertEnded(Told(["/usr/bin/perl", "-e", "exit 5"], *flags, user=False).end(), 5, "status")

    def test_of_another_abi(self):
        launch = Told(["/usr/bin/perl", "-e", "syscall(0x40000000 + 39)"], user=False).end()
        self.assertNamed(launch, 39, "getpid", "x32")
        self.assertIn("use a 64-bit program", launch.error)

    def test_of_a_child_it_is_not_the_clients_end(self):
        launch = Told("mkdir /tmp/x; exit 6", *self.filter("mkdir"), user=False).end()
        self.assertEnded(launch, 6, "status")

    def test_an_ordinary_user_may_be_kept_from_the_log(self):
        flags = self.filter("mkdir")
        with setting(self.RESTRICT, 1):
            launch = Told(["/usr/bin/mkdir", "/tmp/x"], *flags).end()
            self.assertEnded(launch, 159, "seccomp", "Which one is in the kernel's log")
            self.assertNotIn("syscall", launch.said[-1])
        with setting(self.RESTRICT, 0):
            self.assertNamed(Told(["/usr/bin/mkdir", "/tmp/x"], *flags).end(), 83, "mkdir")

    def test_a_limit_in_time(self):
        limit = ["--time-limit", "500ms"]
        for user in (True, False):
            launch = Told("trap '' TERM; while :; do sleep 0.1; done", *limit, user=user).end()
            self.assertEnded(launch, 124, "time", "the time limit was hit")
            self.assertEnded(Told("exit 7", "--time-limit", "60s", user=user).end(), 7, "status")


class Obstacles(SandboxTest):
    """Each with the same launch when it is out of the way."""

    def assertRuns(self, prefix=(), *flags, **kwargs):
        self.assertRan(self.attempt(prefix, *flags, **kwargs), "42\n")

    def attempt(self, prefix=(), *flags, **kwargs):
        return subprocess.run([*prefix, POSTERN, "run", *flags, "--", "/bin/sh", "-c", "echo 42"], capture_output=True, text=True, timeout=60,
                              stdin=subprocess.DEVNULL, env=rootless_test.ENV, **{**AS_USER, **kwargs})

    def test_user_namespaces_are_for_root_only(self):
        switch = "/proc/sys/kernel/unprivileged_userns_clone"
        with setting(switch, 0):
            self.assertRefused(self.attempt(), "user namespaces are for root only here: sysctl kernel.unprivileged_userns_clone=1")
            self.assertRuns(**AS_ROOT)
        with setting(switch, 1):
            self.assertRuns()

    def test_user_namespaces_are_switched_off(self):
        with setting("/proc/sys/user/max_user_namespaces", 0):
            for who in (AS_USER, AS_ROOT):
                self.assertRefused(self.attempt(**who), "user namespaces are switched off: sysctl user.max_user_namespaces=")
        for who in (AS_USER, AS_ROOT):
            self.assertRuns(**who)

    def test_another_kind_of_namespace_is_switched_off(self):
        with setting("/proc/sys/user/max_net_namespaces", 0):
            self.assertRefused(self.attempt(), "a limit on namespaces is reached (sysctl user.max_*_namespaces")
            self.assertRuns((), "--share-net")
        self.assertRuns()

    def test_proc_is_masked(self):
        """As in a container of an ordinary user's: in a user namespace, with something mounted over part of /proc."""
        nested = ["unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        self.assertRuns(nested)
        for mask in ("mount -t tmpfs none /proc/sys", "mount --bind /dev/null /proc/kcore"):
            self.assertRefused(self.attempt([*nested, "/bin/sh", "-c", f'{mask} && exec "$@"', "sh"]), "part of /proc is covered on this machine",
                               "with its /proc unmasked")

    def test_a_missing_source(self):
        self.assertRefused(self.attempt((), "--bind", f"{WORK}/missing", "/mnt"), f"{WORK}/missing", "create the source", "optional")
        os.mkdir(f"{WORK}/missing")
        self.assertRuns((), "--bind", f"{WORK}/missing", "/mnt")

    def test_a_nosuid_root(self):
        nested = ["unshare", "--user", "--map-root-user", "--mount", "/bin/sh", "-c", 'mount -o remount,bind,nosuid / && exec "$@"', "sh"]
        self.assertRuns(nested)
        suid = self.profile(mounts=[{"type": "bind", "source": "/usr", "target": "/mnt", "options": ["suid"]}])
        self.assertRefused(self.attempt(nested, "--quiet", *suid), "lies on a mount that is nosuid on the host", 'leave the option "suid" out')
        self.assertRuns((), "--quiet", *suid)

    def test_no_new_privileges(self):
        """Of the launcher already, as of a service with NoNewPrivileges=yes: it needs none."""
        self.assertRuns(["setpriv", "--no-new-privs"])
        self.assertRuns(["setpriv", "--no-new-privs"], **AS_ROOT)

    def test_in_a_chroot(self):
        root = f"{WORK}/root"
        os.mkdir(root)
        become_user = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]

        def enter(change):
            own_mounts()
            small_world.mount("/", root, "", small_world.MS_BIND | MS_REC)
            if change:
                os.chroot(root)
        self.assertRefused(self.attempt(become_user, preexec_fn=lambda: enter(True), **AS_ROOT), "user namespaces are forbidden here, as in a chroot")
        self.assertRuns(become_user, preexec_fn=lambda: enter(False), **AS_ROOT)

    def test_too_many_processes_of_the_user(self):
        def limit():
            resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
        self.assertRefused(self.attempt(preexec_fn=limit), "the limit on processes is reached (ulimit -u")
        self.assertRuns()

    def test_apparmor(self):
        """Ubuntu's switch; Debian's kernels have AppArmor without it."""
        switch = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns"
        self.assertIn("apparmor", text("/sys/kernel/security/lsm").split(","))
        if os.path.exists(switch):
            with setting(switch, 1):
                self.assertRefused(self.attempt(), "AppArmor keeps programs without a profile of their own from using user namespaces here",
                                   "kernel.apparmor_restrict_unprivileged_userns=0")
            with setting(switch, 0):
                self.assertRuns()
        else:
            print("    no kernel.apparmor_restrict_unprivileged_userns in this kernel: user namespaces work under its AppArmor", file=sys.stderr)
            self.assertRuns()


class Many(SandboxTest):
    LIMITS = {"memory.max": "32MiB", "pids.max": "8", "cpu.max": "max 100000"}

    def setUp(self):
        super().setUp()
        self.cgroup("delegated", owner=USER)
        self.leaf = self.cgroup("delegated/leaf")

    def test_at_once(self):
        for where, user in ((self.leaf, True), (ROOT, False)):
            launches = [self.running(f"read line; exit {i}", self.LIMITS, cgroup=where, user=user) for i in range(64)]
            homes = {launch.said[0]["cgroup"] for launch in launches}
            self.assertEqual(len(homes), 64)
            for home in homes:
                self.assertEqual(len(words(f"{home}/cgroup.procs")), 2)
            for i, launch in enumerate(launches):
                launch.process.stdin.close()
                launch.process.stdin = None
                self.assertEqual(launch.end().status, i, launch.error)
            self.assertEqual(postern_cgroups(), [])

    def test_started_at_once(self):
        """None waits for another: they make, enable and sweep beside each other."""
        flags = self.profile(cgroup=self.LIMITS)
        launches = [Told(f"exit {i}", *flags, cgroup=self.leaf) for i in range(64)]
        self.assertEqual([launch.end().status for launch in launches], list(range(64)))
        self.assertEqual(postern_cgroups(), [])

    def test_in_a_row(self):
        rounds = 300
        door = os.open(f"{self.leaf}/cgroup.procs", os.O_WRONLY)
        begin = time.monotonic()
        # Every other one leaves a daemon that has to be killed.
        script = f"""i=0; while [ $i -lt {rounds} ]; do
            {POSTERN} run "$@" -- /bin/sh -c "[ $((i % 2)) = 0 ] || sleep 1000 & exit $((i % 100))"; [ $? = $((i % 100)) ] || exit 1; i=$((i + 1))
        done; echo done"""
        result = subprocess.run(["/bin/sh", "-c", script, "sh", *self.profile(cgroup=self.LIMITS)], capture_output=True, text=True,
                                stdin=subprocess.DEVNULL, preexec_fn=lambda: os.write(door, b"0"), env=rootless_test.ENV, **AS_USER)
        os.close(door)
        self.assertEqual((result.returncode, result.stdout), (0, "done\n"), result.stderr)
        self.assertEqual(postern_cgroups(), [])
        print(f"    {rounds} launches in a row in {time.monotonic() - begin:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    os.environ[small_world.INSIDE] = ROOT
    own_mounts()
    # In the guest too they are those of the machine around it; /run is the guest's own, and the lab's.
    small_world.fresh_folders([path for path in small_world.FRESH if path != "/run"], [BUILD])
    rootless_test.copy_build(BUILD)
    unittest.main(verbosity=2)

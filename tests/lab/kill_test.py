#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The launcher is killed after single system calls of its start and its end; see tests/lab/README.md.

kill-after (tests/support) stops `postern run` the moment its N-th system call has returned and kills it there. After each:
no process of the launch lives, no client got at the device, nothing is pinned, guarded or mounted any more, and a complete launch
works and sweeps what a dead process cannot: its empty cgroup, the guard's links.

One boot does every S-th system call, beginning with another one each day; POSTERN_KILL_SEED=N is the day's number that it prints,
POSTERN_KILL_STRIDE=1 does every single one, POSTERN_KILL_POINTS=N changes how many S is made for."""

import ctypes
import datetime
import glob
import json
import os
import random
import shutil
import subprocess
import sys
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from e2e_test import BUILD, EDU, PINNED, POSTERN, Lab, cgroups, config_space, driver, links_pinned, postern, processes, wait_until

KILL_AFTER = f"{BUILD}/tests/kill-after"
SEED = int(os.environ.get("POSTERN_KILL_SEED", datetime.date.today().toordinal()))
STRIDE = int(os.environ.get("POSTERN_KILL_STRIDE", "0"))
POINTS = int(os.environ.get("POSTERN_KILL_POINTS", "30"))
# Found in the command line of the launcher, of its child before exec, of init and of the client.
MARK = "postern-kill-test-client"
# Behind the manifest. Reading the device is refused by the guard; without it this gives bytes of bar 0.
DEVICE_FD = 4
PROBE = f"head -c 4 <&{DEVICE_FD} >/dev/null 2>&1 && echo unguarded"


class Bpf:
    """The guard's pinned maps, looked at without a program of its own: it is done hundreds of times."""
    OBJ_GET, MAP_GET_NEXT_KEY = 7, 4
    libc = ctypes.CDLL(None, use_errno=True)

    @classmethod
    def call(cls, command, *words):
        attributes = (ctypes.c_uint64 * 16)(*words)
        return cls.libc.syscall(321, command, attributes, ctypes.sizeof(attributes))

    @classmethod
    def entries(cls, name):
        """How many there are in all sets' maps of this name."""
        count = 0
        for path in glob.glob(f"{PINNED}/abi-*/map_{name}"):
            text = ctypes.create_string_buffer(path.encode())
            fd = cls.call(cls.OBJ_GET, ctypes.addressof(text))
            if fd < 0:
                raise OSError(ctypes.get_errno(), path)
            try:
                key, following = ctypes.create_string_buffer(64), ctypes.create_string_buffer(64)
                last = 0
                while cls.call(cls.MAP_GET_NEXT_KEY, fd, last, ctypes.addressof(following)) == 0:
                    count += 1
                    key.raw = following.raw
                    last = ctypes.addressof(key)
            finally:
                os.close(fd)
        return count


def pinned_pages():
    """Pages that drivers hold for DMA, on the whole machine."""
    with open("/proc/sys/vm/stat_refresh", "w") as file:
        file.write("1")
    with open("/proc/vmstat") as file:
        stat = dict(line.split() for line in file)
    return int(stat["nr_foll_pin_acquired"]) - int(stat["nr_foll_pin_released"])


def mounts():
    with open("/proc/self/mountinfo") as file:
        return sorted(line.split(" ")[4] for line in file)


def held():
    """What the death of the launcher itself has to end, shortly after it."""
    return {"processes": processes(MARK), "files": Bpf.entries("files"), "pages": pinned_pages(), "mounts": mounts(),
            "driver": driver(EDU), "config": config_space(EDU), "runtime": sorted(os.listdir("/run/postern"))}


def left():
    """What a dead launcher may leave to the next one, besides."""
    return {"links": links_pinned(), "cgroups": cgroups(), "sandboxes": Bpf.entries("sandboxes"), **held()}


class Killed(Lab):
    @classmethod
    def setUpClass(cls):
        bound = postern("bind", EDU)
        if bound.returncode != 0:
            raise RuntimeError(bound.stderr)

    @classmethod
    def tearDownClass(cls):
        postern("unbind", EDU)

    def setUp(self):
        super().setUp()

        def limit(profile):
            profile.setdefault("sandbox", {})["cgroup"] = {"pids.max": "64"}
        self.profile = self.write_profile(limit, base="edu")
        self.plain = self.write_profile(limit, name="plain", base="default")
        self.on_device = ["--device", EDU, "--profile", self.profile]
        self.assertRan(postern("run", *self.on_device, "--", "/bin/true"))
        self.assertRan(postern("run", "--profile", self.plain, "--", "/bin/true"))
        self.clean = left()
        for nothing in ("processes", "files", "links", "cgroups", "sandboxes"):
            self.assertFalse(self.clean[nothing], nothing)

    def kill_after(self, calls, flags, script):
        result = subprocess.run([KILL_AFTER, str(calls), POSTERN, "run", *flags, "--", "/bin/sh", "-c", script, MARK],
                                capture_output=True, text=True, timeout=400, stdin=subprocess.DEVNULL)
        self.assertEqual(result.returncode, 0, result.stderr)
        return json.loads(result.stdout), result.stderr

    def check_after(self, calls, flags, script, may_end=False):
        """One kill, and all that must be so after it. Returns what kill-after has seen. MAY_END: it may be over before CALLS."""
        outcome, said = self.kill_after(calls, flags, script)
        where = f"killed after system call {outcome['calls']} ({calls}), {outcome['last']} = {outcome['result']}: {said}"
        if may_end and not outcome["killed"]:
            self.assertEqual(outcome["status"], 0, said)
            self.assertLess(outcome["calls"], calls)
        else:
            self.assertTrue(outcome["killed"], f"{calls} is past the end: {outcome}")
        self.assertTrue(outcome["closed"], f"{where}: somebody still has the client's stdout")
        self.assertNotIn("unguarded", outcome["said"], where)
        wanted = {name: self.clean[name] for name in held()}
        self.assertTrue(wait_until(lambda: held() == wanted, 60), f"{where}: {held()}, not {wanted}")
        following = postern("run", *flags, "--", "/bin/true")
        self.assertEqual(following.returncode, 0, f"{where}: the next launch: {following.stderr}")
        self.assertTrue(wait_until(lambda: left() == self.clean, 60), f"{where}, then a launch: {left()}, not {self.clean}")
        return outcome

    def points(self, first, last, most=POINTS):
        stride = STRIDE or max(1, -(-(last - first + 1) // most))
        begin = first + random.Random(SEED).randrange(stride)
        print(f"    system calls {first} to {last}: every {stride}th from {begin} (POSTERN_KILL_SEED={SEED})", file=sys.stderr)
        return range(begin, last + 1, stride)

    def sweep(self, flags, prepare=lambda: None, client=PROBE, most=POINTS):
        """Over the start: until the launcher is asleep with its client running."""
        stays = f"echo ready; {client}; exec sleep 60"
        prepare()
        counted, _ = self.kill_after(0, flags, f"echo ready; {client}; sleep 6")
        start = counted["start"]
        self.assertIsNotNone(start, counted)
        self.assertEqual((counted["status"], counted["killed"], counted["said"]), (0, False, "ready\n"))
        begin, reached = time.monotonic(), 0
        points = self.points(1, start, most)
        for calls in points:
            prepare()
            outcome = self.check_after(calls, flags, stays)
            # Two starts may differ by a few calls; the shorter one is killed asleep, with its client running.
            self.assertTrue(outcome["calls"] == calls or outcome["said"], outcome)
            reached += bool(outcome["said"])
        # The control: the last one is a launcher whose client runs.
        prepare()
        self.assertEqual(self.check_after(start + 1000, flags, stays)["said"], "ready\n")
        spent = time.monotonic() - begin
        print(f"    {len(points)} kills in {spent:.0f} s, {reached} with the client running; {start} system calls in a start",
              file=sys.stderr)

    def test_the_controls_what_is_checked_is_there_while_a_launch_runs(self):
        process = self.spawn("run", *self.on_device, "--", "/bin/sh", "-c", "echo ready; exec sleep 60", MARK, stdout=subprocess.PIPE)
        self.addCleanup(process.stdout.close)
        self.assertEqual(process.stdout.readline(), b"ready\n")
        # As it is for the launcher that is not killed: the launcher, init, the client.
        running = left()
        self.assertGreaterEqual(len(running["processes"]), 2)
        for present in ("files", "links", "cgroups", "sandboxes"):
            self.assertTrue(running[present], present)
        self.assertGreaterEqual(running["pages"], self.clean["pages"] + 16, "64 KiB for the device's DMA")
        self.assertNotEqual(running["config"], self.clean["config"], "bus mastering is on")
        process.kill()
        process.wait()
        self.assertTrue(wait_until(lambda: not processes(MARK)))
        self.assertTrue(links_pinned(), "the guard outlives a launcher that is killed")
        self.assertRan(postern("run", *self.on_device, "--", "/bin/true"))
        self.assertTrue(wait_until(lambda: left() == self.clean), left())

    def test_the_control_the_probe_reads_an_unguarded_device(self):
        result = subprocess.run([f"{BUILD}/tests/bare-launch", EDU, self.profile, "0", "/bin/sh", "-c", PROBE],
                                capture_output=True, text=True, timeout=60)
        self.assertRan(result)
        self.assertIn("unguarded", result.stdout + result.stderr)

    def test_a_setup_program_dies_with_the_launcher(self):
        def change(profile):
            profile["device"]["setup"] = {"device": [["/bin/sh", "-c", "kill -STOP $$", MARK]]}
        process = self.spawn("run", "--device", EDU, "--profile", self.write_profile(change, "setup", "edu"), "--", "/bin/true")
        self.assertTrue(wait_until(lambda: processes(MARK)))
        process.kill()
        process.wait()
        self.assertTrue(wait_until(lambda: not processes(MARK)))
        self.assertRan(postern("run", *self.on_device, "--", "/bin/true"))
        self.assertTrue(wait_until(lambda: left() == self.clean), left())

    def test_start_on_a_device(self):
        self.sweep(self.on_device)

    def test_start_that_loads_the_guard(self):
        self.sweep(self.on_device, prepare=lambda: shutil.rmtree(PINNED), most=max(1, POINTS // 2))

    def test_start_without_a_device(self):
        self.sweep(["--profile", self.plain], client="true", most=max(1, POINTS // 2))

    def test_end_on_a_device(self):
        """From the moment the client is gone; the launcher is killed while it takes down what it has built up."""
        brief = f"echo ready; {PROBE}; sleep 0.2"
        counted, _ = self.kill_after(0, self.on_device, f"echo ready; {PROBE}; sleep 6")
        self.assertGreater(counted["calls"], counted["start"])
        points = self.points(counted["start"] + 1, counted["calls"], max(1, POINTS // 2))
        # How often it waits for what the client leaves in its cgroup differs: the last few may be past the end.
        killed = [self.check_after(calls, self.on_device, brief, may_end=True)["killed"] for calls in points]
        self.assertGreaterEqual(sum(killed), len(killed) / 2, killed)


if __name__ == "__main__":
    unittest.main(verbosity=2)

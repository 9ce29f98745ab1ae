#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""postern pool with lists of jobs over the four queues of the lab's virtio-blk device. Runs as root in the guest.

tests/root/pool_test.py is about the job server itself, without a device."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
import xml.etree.ElementTree

import e2e_test as e2e
from e2e_test import BLK, CLIENT, POSTERN, left_behind, postern

READ = [CLIENT, "--reads", "300", "--json"]

# What a client finds in its DMA memory, and what it leaves there. argv: what to do.
TENANT = r"""
import json, mmap, os, struct, sys
manifest = json.loads(os.pread(3, 1 << 20, 0))
dma = manifest["dma"][0]
memory = mmap.mmap(manifest["fds"][dma["fd"]], dma["size"])
found = sum(1 for i in range(0x1000, dma["size"], 0x1000) if memory[i:i + 0x1000].strip(b"\0"))
slice = os.environ["POSTERN_SLICE"]
print(f"slice {slice}: {found} pages are not zero, the manifest says slice {manifest['slice']}", flush=True)
if found or str(manifest["slice"]) != slice:
    sys.exit(3)
if sys.argv[1] == "soil":           # all of it, the rings too
    memory[0:] = b"\x5a" * dma["size"]
if sys.argv[1] == "unfinished":     # requests that are announced and never end
    memory[0x2002:0x2004] = struct.pack("<H", 77)
if sys.argv[1] == "break":          # an index that makes no sense, and the doorbell
    memory[0x2002:0x2004] = struct.pack("<H", 0x5a5a)
    window = manifest["windows"][0]["mmap"]
    doorbell = mmap.mmap(manifest["fds"][window["fd"]], 0x1000, prot=mmap.PROT_READ | mmap.PROT_WRITE, offset=window["offset"])
    doorbell[0:2] = struct.pack("<H", manifest["slice"])
"""


def heed_interrupts():
    """Who was started in the background ignores SIGINT, and so would its pool."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Pool(e2e.Lab):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="pool-", dir="/srv")  # where clients can read, too
        self.addCleanup(shutil.rmtree, self.folder)
        os.chmod(self.folder, 0o755)
        with open(f"{self.folder}/tenant.py", "w") as file:
            file.write(TENANT)
        self.tenant = f"python3 {self.folder}/tenant.py"
        self.before = left_behind()

    def tearDown(self):
        self.assertEqual(self.before, left_behind())

    def pool(self, *words, lines=(), status=0, profile="virtio-blk-queue"):
        """The summary of a pool on the list `lines` that ends with `status`, and its result."""
        path, jobs = f"{self.folder}/summary.json", f"{self.folder}/jobs"
        with open(jobs, "w") as file:
            file.write("\n".join(lines) + "\n")
        result = postern("pool", "--device", BLK, "--profile", profile, "--summary", path, "--commands", jobs, *words, timeout=300)
        self.assertEqual(result.returncode, status, result.stdout + result.stderr)
        with open(path) as file:
            return json.load(file), result


class Jobs(Pool):
    def test_twenty_jobs_on_four_slices(self):
        logs, junit = f"{self.folder}/logs", f"{self.folder}/junit.xml"
        up = f"{self.folder}/up"
        os.mkdir(up)
        os.chmod(up, 0o777)
        # The first ones wait for each other: four run side by side, on a slow machine, too.
        line = f"sh -c 'touch /mnt/$POSTERN_SLICE; until [ $(ls /mnt | wc -l) -ge 4 ]; do sleep 0.1; done; exec {CLIENT} --seconds 1 --json'"
        summary, result = self.pool("--timeout", "200s", "--bind", up, "/mnt", "--log-dir", logs, "--junit", junit, lines=[line] * 20)
        self.assertEqual(summary["count"], {"jobs": 20, "passed": 20, "failed": 0, "not run": 0})
        self.assertEqual({job["slice"] for job in summary["jobs"]}, {0, 1, 2, 3})
        self.assertEqual(result.stdout, "")
        for job in summary["jobs"]:
            with open(job["log"]) as file:
                told = json.loads(file.read())
            self.assertGreater(told["reads"], 0)
            self.assertEqual((told["verified"], told["errors"], told["slice"], told["queue"]), (told["reads"], 0, job["slice"], job["slice"]))
        suite = xml.etree.ElementTree.parse(junit).getroot()[0]
        self.assertEqual((suite.get("tests"), suite.get("failures"), suite.get("errors")), ("20", "0", "0"))
        self.assertEqual(len({case.get("name") for case in suite.findall("testcase")}), 20)

    def test_failures_retries_and_limits(self):
        lines = [" ".join(READ), "sh -c 'exit 3'", f"{CLIENT} --seconds 600", "/nonexistent", " ".join(READ)]
        summary, result = self.pool("--timeout", "12s", "--retry", "1", lines=lines, status=127)
        told = [(job["state"], job["status"], job["reason"], len(job["attempts"])) for job in summary["jobs"]]
        self.assertEqual(told, [("passed", 0, "status", 1), ("failed", 3, "status", 2), ("failed", 124, "time", 2), ("failed", 127, "error", 2),
                                ("passed", 0, "status", 1)])
        self.assertIn("5 jobs: 2 passed, 3 failed", result.stderr)

    def test_one_in_every_slice_is_as_it_was(self):
        result = e2e.on_blk("--", *READ, verb="pool")
        self.assertRan(result)
        self.assertEqual(sorted(json.loads(line)["slice"] for line in result.stdout.splitlines()), [0, 1, 2, 3])
        result = e2e.on_blk("--", "sh", "-c", "echo $POSTERN_SLICE; exit $POSTERN_SLICE", verb="pool")
        self.assertEqual((result.returncode, sorted(result.stdout.split())), (3, ["0", "1", "2", "3"]), result.stderr)

    def test_refusals(self):
        for words, says in ((["--jobs", "5"], "has 4 slices"), (["--reset", "device"], '"reset": "never"')):
            self.assertRefused(postern("pool", "--device", BLK, "--profile", "virtio-blk-queue", *words, "--", "true", ":::", "x"), says)
        self.assertRefused(postern("pool", "--profile", "virtio-blk-queue", "--", "true", ":::", "x"), "--device")


class Clean(Pool):
    def test_the_next_client_finds_zeros_and_reads_right(self):
        for act in ("soil", "unfinished"):
            lines = [f"{self.tenant} {act}", " ".join(READ), f"{self.tenant} look", " ".join(READ)] * 2
            summary, result = self.pool("--jobs", "1", lines=lines)
            self.assertEqual({job["slice"] for job in summary["jobs"]}, {0}, "all on one slice, one after the other")
            self.assertEqual(result.stdout.count(": 0 pages are not zero"), 4, result.stdout)

    def test_others_go_on_meanwhile(self):
        lines = [f"{CLIENT} --seconds 8 --json"] + [f"{self.tenant} soil", f"{self.tenant} look"] * 3
        summary, result = self.pool("--jobs", "2", lines=lines)
        told = json.loads(next(line for line in result.stdout.splitlines() if line.startswith("{")))
        self.assertGreater(told["verified"], 0)
        self.assertEqual(told["errors"], 0)

    def test_killed_with_reads_in_flight(self):
        lines = [f"{CLIENT} --seconds 600 --depth 85", " ".join(READ)] * 4
        summary, _ = self.pool("--jobs", "1", "--timeout", "6s", lines=lines, status=124)
        self.assertEqual([job["status"] for job in summary["jobs"]], [124, 0] * 4)

    def test_a_device_that_a_client_has_broken_is_said(self):
        lines = [f"{self.tenant} break"] + [" ".join(READ)] * 2
        summary, result = self.pool("--jobs", "1", lines=lines, status=125)
        self.assertEqual(summary["jobs"][0]["state"], "passed")
        self.assertIn("needs a reset", summary["problem"])
        self.assertNotEqual(summary["jobs"][1]["state"], "passed")
        # The next pool sets the device up anew.
        self.pool(lines=[" ".join(READ)] * 4)

    def test_reset_of_the_device_between(self):
        """On the NVMe device: the others have no way to be reset alone."""
        nvme, setups = os.environ["LAB_NVME"], f"{self.folder}/setups"
        with open(f"{self.folder}/setup", "w") as file:
            file.write(f"#!/bin/sh\necho setup >>{setups}\n")
        os.chmod(f"{self.folder}/setup", 0o755)
        profile = f"{self.folder}/nvme.json"
        with open(profile, "w") as file:
            json.dump({"postern": 1, "slices": 2, "device": {"setup": {"device": ["setup"]}, "reset": "before"}}, file)
        self.assertRan(postern("bind", nvme))
        self.addCleanup(postern, "unbind", nvme)
        up = f"{self.folder}/up"
        os.mkdir(up)
        os.chmod(up, 0o777)
        # Each has a name, waits for the one that it names, and says how it ends.
        script = "set -- {}; cat /proc/uptime; touch /mnt/$1; until [ -e /mnt/$2 ]; do sleep 0.1; done; sleep 1; cat /proc/uptime; exit $3"
        result = postern("pool", "--device", nvme, "--profile", profile, "--reset", "device", "--log-dir", f"{self.folder}/logs", "--retry", "1",
                         "--timeout", "100s", "--bind", up, "/mnt", "--", "sh", "-c", script, ":::", "1 2 0", "2 1 0", "3 4 0", "4 3 0", "5 5 1", timeout=600)
        self.assertEqual(result.returncode, 1, result.stdout + result.stderr)
        times = []
        for name in sorted(os.listdir(f"{self.folder}/logs")):
            with open(f"{self.folder}/logs/{name}") as file:
                times.append([float(line.split()[0]) for line in file])
        self.assertEqual(len(times), 6, times)
        first, second, third, fourth, again, fifth = times  # "005-sh.2.log" is before "005-sh.log"
        for together, after in (((first, second), (third, fourth)), ((third, fourth), (fifth,)), ((fifth,), (again,))):
            self.assertLess(max(each[0] for each in together), min(each[1] for each in together), "side by side")
            self.assertGreaterEqual(min(each[0] for each in after), max(each[1] for each in together), "not before all have ended")
        with open(setups) as file:
            self.assertEqual(len(file.readlines()), 4, "once, and after each reset")


class Signals(Pool):
    def test_at_any_moment_it_leaves_nothing(self):
        seed = time.time_ns()
        print(f"seed {seed}", file=sys.stderr)
        dice = random.Random(seed)
        path = f"{self.folder}/summary.json"
        for _ in range(8):
            process = subprocess.Popen([POSTERN, "pool", "--device", BLK, "--profile", "virtio-blk-queue", "--summary", path, "--", CLIENT, "--json",
                                        "--reads", ":::", *["300"] * 200], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                       text=True, preexec_fn=heed_interrupts)
            self.addCleanup(process.kill)
            time.sleep(dice.uniform(0.3, 4))
            process.send_signal(dice.choice([signal.SIGINT, signal.SIGTERM]))
            _, said = process.communicate(timeout=60)
            # During the device's setup no job has begun, and nothing is to be reported.
            self.assertIn(process.returncode, (-signal.SIGINT, -signal.SIGTERM, 125, 130, 143), said)
            if os.path.exists(path):
                with open(path) as file:
                    self.assertGreater(json.load(file)["count"]["not run"], 0, said)
                os.remove(path)
            self.assertEqual(self.before, left_behind(), said)

    def test_killed_itself_it_leaves_nothing_that_lasts(self):
        process = subprocess.Popen([POSTERN, "pool", "--device", BLK, "--profile", "virtio-blk-queue", "--", CLIENT, "--seconds", ":::", *["60"] * 8],
                                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.assertTrue(e2e.wait_until(lambda: len(e2e.processes("virtio-blk-client")) >= 4, 60))
        process.kill()
        process.wait()
        self.assertTrue(e2e.wait_until(lambda: len(e2e.processes("virtio-blk-client")) == 0, 60))
        self.pool(lines=[" ".join(READ)] * 4)  # which removes what a killed one cannot


class Ctest(Pool):
    def test_ctest_hands_out_slices(self):
        spec = f"{self.folder}/spec.json"
        self.assertRan(postern("pool", "--device", BLK, "--profile", "virtio-blk-queue", "--ctest-resources", spec))
        with open(spec) as file:
            ids = [each["id"] for each in json.load(file)["local"][0]["postern"]]
        self.assertEqual(ids, [f"{BLK.replace(':', '_').replace('.', '_')}_s{i}" for i in range(4)])
        run = f"{POSTERN} run --ctest --profile virtio-blk-queue"
        with open(f"{self.folder}/CTestTestfile.cmake", "w") as file:
            for name in ("a", "b"):
                file.write(f'add_test({name} {run} -- {" ".join(READ)})\nset_tests_properties({name} PROPERTIES RESOURCE_GROUPS "postern:1")\n')
            file.write(f'add_test(other {run} --device 0000:00:1f.0 -- true)\n'
                       'set_tests_properties(other PROPERTIES RESOURCE_GROUPS "postern:1" WILL_FAIL TRUE)\n')
        ran = subprocess.run(["ctest", "-j1", "--resource-spec-file", spec, "--output-on-failure"], cwd=self.folder, capture_output=True, text=True,
                             timeout=120)
        self.assertEqual(ran.returncode, 0, ran.stdout + ran.stderr)


class Broker(Pool):
    """Tests that are processes of their own, side by side: a broker has the device."""

    def setUp(self):
        super().setUp()
        config = "/etc/postern/devices.d"
        os.makedirs(config, mode=0o755)
        self.addCleanup(shutil.rmtree, "/etc/postern")
        with open(f"{config}/blk.json", "w") as file:
            json.dump({"postern": 1, "device": BLK, "profile": "virtio-blk-queue", "allow": [{"everyone": True}]}, file)
        self.broker = subprocess.Popen([POSTERN, "broker", "--keeper", "none"], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.assertTrue(e2e.wait_until(lambda: postern("broker", "--check").returncode == 0 and postern("run", "--device", BLK, "--wait", "--", "true")
                                       .returncode == 0, 60))

    def tearDown(self):
        try:
            self.assertTrue(e2e.wait_until(lambda: json.loads(postern("ps", "--json").stdout) == [], 120))
            self.assertRan(postern("broker", "--stop"))
            self.assertEqual(self.broker.wait(timeout=60), 0, self.broker.stderr.read())
        finally:
            if self.broker.poll() is None:
                postern("broker", "--stop", "--kill")
            self.broker.stderr.close()
        super().tearDown()

    def test_ctest_side_by_side(self):
        spec = f"{self.folder}/spec.json"
        self.assertRan(postern("pool", "--device", BLK, "--profile", "virtio-blk-queue", "--ctest-resources", spec))
        with open(f"{self.folder}/CTestTestfile.cmake", "w") as file:
            for name in range(8):
                file.write(f'add_test(t{name} {POSTERN} run --ctest --profile virtio-blk-queue -- {" ".join(READ)})\n'
                           f'set_tests_properties(t{name} PROPERTIES RESOURCE_GROUPS "postern:1")\n')
        ran = subprocess.run(["ctest", "-j4", "--resource-spec-file", spec, "--output-on-failure"], cwd=self.folder, capture_output=True, text=True,
                             timeout=200)
        self.assertEqual(ran.returncode, 0, ran.stdout + ran.stderr)

    def test_the_example_for_pytest(self):
        example = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "examples", "pytest")
        ran = subprocess.run(["/usr/bin/python3", "-m", "pytest", "-p", "no:cacheprovider", "-n", "auto", example, "--device", BLK, "--profile", "virtio-blk-queue"],
                             env={**os.environ, "POSTERN": POSTERN, "CLIENT": CLIENT, "PYTHONDONTWRITEBYTECODE": "1"}, capture_output=True, text=True,
                             timeout=300)
        self.assertEqual(ran.returncode, 0, ran.stdout + ran.stderr)
        self.assertIn("13 passed", ran.stdout)
        self.assertIn("4 workers", ran.stdout.replace("gw0 [13] / gw1 [13] / gw2 [13] / gw3 [13]", "4 workers"))


def setUpModule():
    e2e.setUpModule()


def tearDownModule():
    e2e.tearDownModule()


if __name__ == "__main__":
    unittest.main(verbosity=2)

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""stress-ng and trinity let loose on the guarded fd, inside the sandbox and without a seccomp filter; see tests/lab/README.md.

Afterwards the device is as it was before, the guard is still there and has refused a lot; the control does the same to a plain fd,
and the device is not as it was."""

import itertools
import json
import os
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from e2e_test import BUILD, PINNED, POSTERN, Lab, links_pinned, postern

HERE = os.path.dirname(os.path.abspath(__file__))
FUZZ = [f"{HERE}/fuzz-client", f"{BUILD}/tests/device-shim.so"]
# Wherever they lie: a sandbox has a /tmp of its own.
SHOWN = ("--ro-bind", HERE, HERE, "--ro-bind", BUILD, BUILD)
SECONDS = int(os.environ.get("POSTERN_FUZZ_SECONDS", "6"))
# Its registers are at the very start of the file, where fuzzers' small numbers go, and can be read back.
NVME = os.environ["LAB_NVME"]
CC, CAPABILITIES, CONFIG = 0x14, 0, 7 << 40
# What the guard still says when the fuzzers are through with it, in the same sandbox and on the same open file.
ASK = f"""
import fcntl, json, os
def errno_of(what):
    try:
        what()
        return 0
    except OSError as error:
        return error.errno
fd = 3 + os.environ["LISTEN_FDNAMES"].split(":").index("device")
print(json.dumps({{"config": errno_of(lambda: os.pread(fd, 4, {CONFIG})), "registers": errno_of(lambda: os.pread(fd, 4, {CC})),
                   "reset": errno_of(lambda: fcntl.ioctl(fd, 0x3b6f)), "read": errno_of(lambda: os.read(fd, 4)),
                   "granted": os.pread(fd, 8, {CAPABILITIES}).hex()}}))
"""


def denied():
    """Calls that the guard has refused on files that are open now."""
    def counts(value):
        if isinstance(value, dict):
            yield from (value["denied"],) if isinstance(value.get("denied"), int) else ()
            for each in value.values():
                yield from counts(each)
        elif isinstance(value, list):
            for each in value:
                yield from counts(each)
    total = 0
    # Of a file that cannot be opened twice each sandbox has a policy of its own.
    for folder, map_ in itertools.product(sorted(os.listdir(PINNED)), ("map_files", "map_shares")):
        shown = subprocess.run(["bpftool", "-j", "map", "dump", "pinned", f"{PINNED}/{folder}/{map_}"], capture_output=True, text=True, timeout=60)
        entries = json.loads(shown.stdout)
        total += sum(counts([entry["formatted"] for entry in entries]))
    return total


class Fuzzed(Lab):
    def setUp(self):
        super().setUp()
        self.assertRan(postern("bind", NVME))
        self.addCleanup(postern, "unbind", NVME)
        self.before, self.after = f"{self.folder}/before.json", f"{self.folder}/after.json"
        state = ["/usr/bin/python3", f"{HERE}/device_state.py"]
        profile = {
            "postern": 1,
            "device": {
                "match": {"vendor": "0x1b36", "device": "0x0010"},
                "windows": [
                    {"name": "capabilities", "region": "bar0", "offset": 0, "length": 8, "access": "r", "methods": ["pread"]},
                    {"name": "doorbells", "region": "bar0", "offset": "0x1000", "length": "4KiB", "access": "rw", "methods": ["mmap"]}],
                "ioctls": ["VFIO_DEVICE_GET_INFO"],
                "dma": [{"name": "memory", "size": "64KiB", "iova": "0x1000000", "access": "rw", "hugepages": "never"}],
                "setup": {"device": [[*state, "arm", self.before]]},
                "teardown": {"device": [[*state, "read", self.after]]}},
            # What a filter would stop has to come through to the guard.
            "sandbox": {"seccomp": "none"}}
        self.profile = f"{self.folder}/fuzzed.json"
        with open(self.profile, "w") as file:
            json.dump(profile, file)

    def states(self):
        found = []
        for path in (self.before, self.after):
            with open(path) as file:
                found.append(json.load(file))
        return found

    def test_the_device_is_as_it_was(self):
        script = f'"$@"; exec /usr/bin/python3 -c \'{ASK}\''
        process = subprocess.Popen([POSTERN, "run", "--device", NVME, "--profile", self.profile, *SHOWN, "--", "/bin/sh", "-c", script, "fuzz",
                                    *FUZZ, str(SECONDS)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        refused, attached = 0, None

        def answer(word):
            process.stdin.write(f"{word}\n")
            process.stdin.flush()
        for fuzzer in ("stress-ng", "trinity"):
            # The control: it reaches the fd. trinity is slow under emulation, and has its time, not a number of calls.
            for _ in range(10):
                line = process.stdout.readline()
                self.assertTrue(line.startswith(fuzzer), line)
                came = denied() - refused
                print(f"    {line.strip()}, {came} calls refused", file=sys.stderr)
                self.assertTrue(links_pinned())
                self.assertEqual(attached or links_pinned(), links_pinned())
                attached = links_pinned()
                if came > 20:
                    break
                answer("again")
            self.assertGreater(came, 20, fuzzer)
            refused += came
            answer("")
        answers = json.loads(process.stdout.readline())
        self.assertEqual(process.wait(60), 0)
        capacity = answers.pop("granted")
        self.assertEqual(answers, dict.fromkeys(("config", "registers", "reset", "read"), 1))
        self.assertNotEqual(int.from_bytes(bytes.fromhex(capacity), "little"), 0, "what is granted still works")
        before, after = self.states()
        self.assertEqual(before, after)
        self.assertEqual(links_pinned(), [])

    def test_the_control_an_unguarded_device_is_not(self):
        # What fuzzers come upon is chance: a slow machine gives them less of it.
        for _ in range(5):
            result = subprocess.run([f"{BUILD}/tests/bare-launch", NVME, self.profile, "0", "setpriv", "--reuid", "65534", "--regid", "65534",
                                     "--clear-groups", *FUZZ, str(min(SECONDS, 5))], capture_output=True, text=True, timeout=300,
                                    stdin=subprocess.DEVNULL)
            self.assertRan(result)
            before, after = self.states()
            changed = {name: (before[name], after[name]) for name in before if before[name] != after[name]}
            print(f"    changed: {changed}", file=sys.stderr)
            if changed:
                return
        self.fail("the device is as it was")


if __name__ == "__main__":
    unittest.main(verbosity=2)

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""postern monitor, ps, revoke and guard on real clients of the lab's devices. Runs as root in the guest."""

import contextlib
import errno
import glob
import json
import os
import queue
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import unittest

import e2e_test as e2e
from e2e_test import BLK, BLK2, BUILD, CLIENT, HOSTILE, PINNED, POSTERN, postern, wait_until

# ioctls that the drivers make: 0x3b6b VFIO_DEVICE_GET_INFO (granted), 0x3b6e VFIO_DEVICE_SET_IRQS, 0x3b6f VFIO_DEVICE_RESET

LISTENERS = 16  # POSTERN_MAX_LISTENERS
PER_PERIOD = 16  # POSTERN_EVENTS_PER_PERIOD

# A client that does what it is told: a Python expression a line from a fifo, an answer a line on stdout. (A sandbox
# without write access can read a fifo.) argv: folder of the fifos, and what other slices than those that have one run.
DRIVER = r"""
import ctypes, errno, fcntl, json, mmap, os, signal, struct, sys, time
manifest = json.loads(os.pread(3, 1 << 20, 0))
device, slice = manifest["fds"]["device"], manifest["slice"]
window = manifest["windows"][0]
BAR4 = 4 << 40
say = lambda **words: os.write(1, (json.dumps({"slice": slice, **words}) + "\n").encode())
def ioctl(number, block=None):
    return fcntl.ioctl(device, number, bytearray(block)) if block else fcntl.ioctl(device, number, 0)
def get_info():
    return ioctl(0x3b6b, struct.pack("5I", 20, 0, 0, 0, 0))
def attempt(call, *args):
    try:
        call(*args)
        return 0
    except OSError as error:
        return error.errno
def hammer(seconds, call, *args):
    end, count = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        for _ in range(50): attempt(call, *args)
        count += 50
    return count
def map_at(offset, length=4096, protection=mmap.PROT_READ):
    return mmap.mmap(device, length, mmap.MAP_SHARED, protection, offset=offset)
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
def change_protection(offset, before, after):
    at = libc.mmap(None, 4096, before, mmap.MAP_SHARED, device, ctypes.c_long(offset))
    if libc.mprotect(ctypes.c_void_p(at), 4096, after): raise OSError(ctypes.get_errno(), "mprotect")
    return 0
fifo = f"{sys.argv[1]}/slice-{slice}"
if not os.path.exists(fifo): os.execv(sys.argv[2], sys.argv[2:])
say(manifest=manifest)
for line in open(fifo):
    try:
        value = eval(line)
        say(value=value if isinstance(value, (int, float, str)) else None, errno=0)
    except OSError as error:
        say(errno=error.errno)
"""


# What the clients of this file run, wherever it lies: a sandbox has a /tmp of its own.
SHOWN = ("--ro-bind", BUILD, BUILD)


class Drivers:
    """`postern run` or `pool` with a driver in each of `slices`."""

    def __init__(self, test, slices=(0,), device=BLK, others=("/bin/true",), profile="virtio-blk-queue", quiet=False):
        self.folder = tempfile.mkdtemp(prefix="drivers-", dir="/opt")
        test.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        os.chmod(self.folder, 0o755)
        for each in slices:
            os.mkfifo(f"{self.folder}/slice-{each}")
            os.chmod(f"{self.folder}/slice-{each}", 0o666)
        alone = len(slices) == 1 and others == ("/bin/true",)
        what = ["run", "--slice", str(slices[0])] if alone else ["pool"]
        self.errors = open(f"{test.folder}/errors", "w+")
        test.addCleanup(self.errors.close)
        self.process = subprocess.Popen(
            [POSTERN, *what, *(["--quiet"] if quiet else []), "--device", device, "--profile", profile,
             *SHOWN, "--", "/usr/bin/python3", "-c",
             DRIVER, self.folder, *others], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self.errors, text=True)
        test.addCleanup(self.end)
        self.answers = {each: queue.Queue() for each in slices}
        self.other_lines = []
        self.relaying = threading.Thread(target=self.relay, daemon=True)
        self.relaying.start()
        self.orders, self.manifests = {}, {}
        for each in slices:
            # First the client's word: without a reader, opening a fifo would wait for ever.
            self.manifests[each] = self.answers[each].get(timeout=60)["manifest"]
            self.orders[each] = open(f"{self.folder}/slice-{each}", "w", buffering=1)

    def relay(self):
        for line in self.process.stdout:
            try:
                answer = json.loads(line)
                self.answers[answer["slice"]].put(answer)
            except (ValueError, KeyError):
                self.other_lines.append(line)

    def grant(self, each=0):
        return self.manifests[each]["grant"]

    def files(self, each=0):
        """How many of its files are guarded: the device's, and dma-bufs of windows where the kernel makes some."""
        return sum(name == "device" or name.startswith("window.") for name in self.manifests[each]["fds"])

    def order(self, expression, each=0):
        print(expression, file=self.orders[each], flush=True)

    def answer(self, each=0, timeout=60):
        return self.answers[each].get(timeout=timeout)

    def do(self, expression, each=0):
        """errno, or the value of what went well."""
        self.order(expression, each)
        answer = self.answer(each)
        return answer["errno"] or answer["value"] or 0

    def finish(self):
        """Ends the clients and gives the launcher's status and stderr."""
        for order in self.orders.values():
            order.close()
        status = self.process.wait(60)
        with open(self.errors.name) as file:
            return status, file.read()

    def end(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for order in self.orders.values():
            try:
                order.close()
            except BrokenPipeError:
                pass
        self.relaying.join(10)
        self.process.stdout.close()


class Monitor:
    def __init__(self, test, *flags):
        self.output = tempfile.NamedTemporaryFile("w", dir=test.folder)
        self.process = subprocess.Popen([POSTERN, "monitor", *flags], stdout=self.output, stderr=subprocess.PIPE, text=True)
        test.addCleanup(self.kill)
        self.greeting = self.process.stderr.readline()
        test.assertIn("listening", self.greeting)

    def lines(self):
        with open(self.output.name) as file:
            return file.read().split("\n")[:-1]

    def objects(self):
        return [json.loads(line) for line in self.lines()]

    def events(self, grant=None):
        return [o for o in self.objects() if "reason" in o and (grant is None or o["grant"] == grant)]

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(120)

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.process.stderr.close()
        self.output.close()


def ps():
    result = postern("ps", "--json")
    assert result.returncode == 0, result.stderr
    return {row["grant"]: row for row in json.loads(result.stdout)}


def comm(pid):
    with open(f"/proc/{pid}/comm") as file:
        return file.read()


def status():
    result = postern("guard", "status", "--json")
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


class Commands(e2e.Tidy):
    def tearDown(self):
        # What a test started ends in its clean-ups, which run before this is looked at.
        self.doCleanups()
        super().tearDown()


class Watching(Commands):
    def test_events_are_decoded_as_they_happen(self):
        monitor, text = Monitor(self, "--json"), Monitor(self)
        self.assertIn("waiting", monitor.greeting)
        drivers = Drivers(self, profile=self.write_profile(lambda p: p["device"]["windows"][0].update(access="r", methods=["mmap"]), name="reader"))
        grant = drivers.grant()
        self.assertEqual(monitor.events(), [], "the launcher's own proof is no refusal")
        self.assertEqual(drivers.do("get_info()"), 0)  # the control
        steps = [("ioctl(0x3b6f)", {"operation": "ioctl", "reason": "command"}),
                 ("ioctl(0x3b6e, struct.pack('5I', 20, 0x21, 2, 1, 0))", {"operation": "ioctl", "reason": "command"}),
                 ("map_at(BAR4 + 0x4000)", {"operation": "mmap", "region": "bar4", "region_offset": 0x4000, "length": 4096,
                                            "protection": "r", "reason": "range", "system_call": "mmap"}),
                 ("os.pread(device, 2, (7 << 40) + 4)", {"operation": "access", "region": "config", "region_offset": 4, "length": 2,
                                                         "access": "r", "system_call": "pread64", "reason": "range"}),
                 ("os.pwrite(device, b'xx', (7 << 40) + 4)", {"access": "w", "system_call": "pwrite64"}),
                 ("os.read(device, 1)", {"operation": "access", "system_call": "read", "reason": "system-call"}),
                 ("change_protection(window['mmap']['offset'], 1, 0)", None),
                 ("change_protection(window['mmap']['offset'], 1, 3)",
                  {"operation": "mprotect", "region": "bar4", "region_offset": 0x3000, "length": 4096, "protection": "rw", "reason": "range"})]
        for expression, wanted in steps:
            seen = len(monitor.events())
            result = drivers.do(expression)
            if wanted is None:
                self.assertEqual(result, 0, expression)
                continue
            self.assertEqual(result, errno.EPERM, expression)
            self.assertTrue(wait_until(lambda: len(monitor.events()) > seen, 60), f"{expression} is told at once")
            event = monitor.events()[-1]
            self.assertEqual({key: event[key] for key in wanted}, wanted)
            self.assertEqual((event["grant"], event["device"], event["slice"], event["profile"]), (grant, BLK, 0, "reader"))
            self.assertIn(event["pid"], ps()[grant]["clients"])
            self.assertEqual(event["comm"], "python3")
        irqs = [e for e in monitor.events() if e["operation"] == "ioctl"][1]
        self.assertEqual(irqs["ioctl"]["name"], "VFIO_DEVICE_SET_IRQS")
        self.assertEqual(irqs["ioctl"]["fields"], {"argsz": 20, "flags": 0x21, "index": 2, "start": 1, "count": 0})
        told = len(monitor.events(grant))
        self.assertEqual(ps()[grant]["refused"], told)
        self.assertTrue(wait_until(lambda: len(text.lines()) == told, 60))
        self.assertIn("refused: ioctl VFIO_DEVICE_SET_IRQS {argsz=0x14 flags=0x21 index=msix start=0x1 count=0x0}: the profile does not grant", text.lines()[1])
        ended, said = drivers.finish()
        self.assertEqual(ended, 0)
        lines = said.strip().splitlines()
        self.assertEqual(len(lines), 4, said)  # three calls, and the count
        self.assertIn("refused ioctl VFIO_DEVICE_RESET", lines[0])
        self.assertIn(f"the guard refused {told} calls of the client; `postern monitor`", lines[3])
        self.assertEqual((monitor.stop(), text.stop()), (0, 0))

    def test_nothing_is_said_where_nothing_is_refused(self):
        result = e2e.on_blk("--", CLIENT, "--reads", 200)
        self.assertRan(result)
        self.assertNotIn("refused", result.stderr)

    def test_quiet(self):
        drivers = Drivers(self, quiet=True)
        self.assertEqual(drivers.do("ioctl(0x3b6f)"), errno.EPERM)
        self.assertEqual(drivers.finish(), (0, ""))

    def test_a_pool_says_whose_call_it_was(self):
        drivers = Drivers(self, slices=(1, 2))
        self.assertEqual(drivers.do("ioctl(0x3b6f)", 1), errno.EPERM)
        self.assertEqual(drivers.do("get_info()", 2), 0)
        said = drivers.finish()[1]
        self.assertIn("slice 1: the guard refused 1 call of the client", said)
        self.assertNotIn("slice 2", said)

    # Probes of the hostile client, and as what the guard refuses them. Each stays below what is told in a period, but one.
    HEARD = {"get-irq-info": ("ioctl", "command"), "unknown-vfio-ioctls": ("ioctl", "command"),
             "mmap-before": ("mmap", "range"), "mmap-exec": ("mmap", "protection"), "mmap-private": ("mmap", "flags"),
             "mprotect-upgrade": ("mprotect", "range"), "remap-file-pages": ("mmap", "system-call"),
             "pread-config": ("access", "range"), "read": ("access", "system-call"), "uring-read": ("access", "task"),
             "int80-ioctl": ("ioctl", "compat"), "int80-mmap2": ("mmap", "compat"), "int80-read": ("access", "compat"),
             "dup-ioctl": ("ioctl", "command")}

    def hear_hostile(self, *args):
        """What a monitor shows of the hostile client, and how many calls the launcher says were refused."""
        monitor = Monitor(self, "--json")
        result = e2e.on_blk("--slice", "1", "--", f"{BUILD}/examples/hostile-client", *args, profile=f"{HOSTILE}/guard-alone.json", timeout=600)
        self.assertRan(result)
        refused = int(re.search(r"the guard refused (\d+) calls of the client", result.stderr).group(1))
        self.assertEqual(monitor.stop(), 0)
        events = monitor.events()
        print(f"    hostile client: {refused} refused, {len(events)} told, reasons {sorted({e['reason'] for e in events})}", file=sys.stderr)
        return refused, monitor.objects(), result

    def test_the_hostile_client_is_heard(self):
        refused, objects, _ = self.hear_hostile("--skip-group", "sandbox")
        events = [o for o in objects if "reason" in o]
        reasons = {e["reason"] for e in events}
        # Of thousands only the first of each period are told, so not every reason comes up every time: see the next test.
        self.assertGreaterEqual(reasons, {"command"})
        self.assertLessEqual(reasons, {reason for _, reason in self.HEARD.values()})
        self.assertLessEqual(sum(1 + e["untold"] for e in events if e["grant"]), refused)

    def test_a_slow_hostile_client_is_heard_in_full(self):
        # A period (2^30 ns) for each probe.
        only = [word for name in self.HEARD for word in ("--only", name)]
        refused, objects, result = self.hear_hostile("--pause", "1100", "--json", *only)
        self.assertEqual({p["name"]: p["verdict"] for p in json.loads(result.stdout)["probes"]}, {name: "refused" for name in self.HEARD})
        self.assertTrue(all("reason" in o and o["grant"] for o in objects), "nothing is lost, and nothing untold at the end")
        self.assertEqual({(o["operation"], o["reason"]) for o in objects}, set(self.HEARD.values()))
        # All that was refused is told or counted before one that is; more was refused than can be told.
        self.assertEqual(sum(1 + o["untold"] for o in objects), refused)
        self.assertGreater(sum(o["untold"] for o in objects), 0)
        self.assertGreaterEqual(len(objects), len(self.HEARD) - 1 + PER_PERIOD)

    def test_two_monitors_and_a_run_hear_the_same(self):
        monitors = [Monitor(self, "--json"), Monitor(self, "--json")]
        drivers = Drivers(self)
        for _ in range(5):
            drivers.do("ioctl(0x3b6f)")
        self.assertEqual(sorted(status()["listeners"]), [0, LISTENERS - 2, LISTENERS - 1])
        for each in monitors:
            self.assertTrue(wait_until(lambda: len(each.events(drivers.grant())) == 5, 60))
        # One of them ends; the other goes on.
        self.assertEqual(monitors[0].stop(), 0)
        drivers.do("ioctl(0x3b6f)")
        self.assertTrue(wait_until(lambda: len(monitors[1].events(drivers.grant())) == 6, 60))
        self.assertIn("refused 6 calls", drivers.finish()[1])

    def test_a_reader_that_never_reads_loses_and_blocks_nobody(self):
        slow, quick = Monitor(self, "--json"), Monitor(self, "--json")
        drivers = Drivers(self, slices=(0, 1, 2, 3), quiet=True)
        slow.process.send_signal(signal.SIGSTOP)
        self.assertTrue(wait_until(lambda: e2e.state(slow.process.pid) == "T"))
        for each in range(4):
            drivers.order("hammer(25, attempt, ioctl, 0x3b6f)", each)
        counts = [drivers.answer(each, 300)["value"] for each in range(4)]
        refused = {each: ps()[drivers.grant(each)]["refused"] for each in range(4)}
        self.assertEqual([refused[each] for each in range(4)], counts)
        slow.process.send_signal(signal.SIGCONT)
        self.assertTrue(wait_until(lambda: any("lost" in o for o in slow.objects()), 60))
        self.assertEqual((slow.stop(), quick.stop()), (0, 0))
        lost = sum(o.get("lost", 0) for o in slow.objects())
        self.assertGreater(lost, 0)
        self.assertEqual(sum(o.get("lost", 0) for o in quick.objects()), 0)
        self.assertEqual(len(slow.events()) + lost, len(quick.events()))
        # Nothing is unaccounted for: told, counted before one that was told, or counted after the last one.
        after_last = sum(o.get("untold", 0) for o in quick.objects() if "reason" not in o)
        self.assertEqual(sum(1 + e["untold"] for e in quick.events()) + after_last, sum(counts))
        print(f"    {sum(counts)} refused calls, {len(quick.events())} told, {lost} lost by the reader that was stopped", file=sys.stderr)

    def test_a_client_that_hammers_slows_nobody(self):
        monitor = Monitor(self, "--json")
        drivers = Drivers(self, slices=(1,), others=(CLIENT, "--seconds", "400", "--report", "0.2"), quiet=True)

        def rates():
            return [float(m.group(1)) for m in (re.match(r"slice=0 .*rate=(\d+)", line) for line in drivers.other_lines) if m]
        self.assertTrue(wait_until(lambda: len(rates()) >= 3, 120))
        # As busy in both: what differs is only that the calls are refused.
        phases, calls = {"get_info": [], "ioctl, 0x3b6f": []}, {"get_info": 0, "ioctl, 0x3b6f": 0}
        for turn in range(120):
            what = list(phases)[turn % 2]
            begin = len(rates())
            calls[what] += drivers.do(f"hammer(1.6, attempt, {what})", 1)
            phases[what] += rates()[begin + 1:][:6]
            # Few looks, where others want the CPUs too, may say anything.
            if turn % 10 == 9:
                allowed, refused = (statistics.median(phases[what]) for what in phases)
                if refused > 0.6 * allowed:
                    break
        print(f"    reads/s of another client, medians of {len(phases['get_info'])} and {len(phases['ioctl, 0x3b6f'])}: beside allowed calls "
              f"{allowed:.0f} ({calls['get_info']} calls), beside refused ones {refused:.0f} ({calls['ioctl, 0x3b6f']} calls)", file=sys.stderr)
        self.assertGreater(refused, 0.6 * allowed)
        events = monitor.events(drivers.grant(1))
        seconds = (events[-1]["boottime_ns"] - events[0]["boottime_ns"]) / 2**30
        self.assertLessEqual(len(events), PER_PERIOD * (seconds + 2))
        self.assertGreater(sum(e["untold"] for e in events), 0)


class Listing(Commands):
    def test_ps(self):
        self.assertEqual(ps(), {})
        begin = time.time()
        drivers = Drivers(self, slices=(0, 1, 2, 3))
        rows = ps()
        self.assertEqual(sorted(rows), sorted(drivers.grant(each) for each in range(4)))
        for each in range(4):
            row = rows[drivers.grant(each)]
            self.assertEqual((row["device"], row["profile"], row["slice"], row["launcher"], row["refused"], row["files"], row["revoked"]),
                             (BLK, "virtio-blk-queue", each, drivers.process.pid, 0, drivers.files(each), False))
            self.assertIn("python3\n", [comm(pid) for pid in row["clients"]])
            since = time.mktime(time.strptime(row["since"][:19], "%Y-%m-%dT%H:%M:%S")) - time.timezone
            self.assertTrue(begin - 2 <= since <= time.time() + 2, row["since"])
        text = postern("ps").stdout
        self.assertIn(drivers.grant(3), text)
        self.assertEqual(drivers.finish()[0], 0)
        self.assertEqual(ps(), {})

    def test_guard_status(self):
        drivers = Drivers(self)
        during = status()
        self.assertTrue(during["loaded"] and during["own_build"])
        self.assertTrue(os.path.isdir(during["folder"]))
        self.assertGreaterEqual(set(during["attached"]), {"on_ioctl", "on_mmap", "on_mprotect", "on_access", "on_receive", "on_free"})
        self.assertEqual((during["users"], during["grants"], during["files"], during["sandboxes"]),
                         ([drivers.process.pid], [drivers.grant()], drivers.files(), 1))
        major, minor = map(int, os.uname().release.split(".")[:2])
        self.assertEqual(during["argument_rules"], (major, minor) >= (6, 10))
        self.assertIn(drivers.grant(), postern("guard", "status").stdout)
        drivers.finish()
        after = status()
        self.assertEqual((after["loaded"], after["attached"], after["users"], after["grants"], after["sandboxes"]), (True, [], [], [], 0))

    def test_without_rights(self):
        for words in (["ps"], ["monitor"], ["revoke", "x"], ["guard", "status"], ["guard", "unload"]):
            result = subprocess.run(["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", POSTERN, *words],
                                    capture_output=True, text=True, timeout=60)
            self.assertRefused(result, "root", status=1)


class Revoking(Commands):
    def test_the_next_call_fails_and_another_slice_goes_on(self):
        drivers = Drivers(self, slices=(1, 2))
        for each in (1, 2):
            self.assertEqual(drivers.do("get_info()", each), 0)
        self.assertRan(postern("revoke", drivers.grant(1)))
        self.assertEqual(drivers.do("get_info()", 1), errno.EPERM)
        self.assertEqual(drivers.do("map_at(window['mmap']['offset']) and 0", 1), errno.EPERM)
        self.assertEqual(drivers.do("get_info()", 2), 0)
        self.assertEqual(drivers.do("map_at(window['mmap']['offset']) and 0", 2), 0)
        rows = ps()
        self.assertEqual((rows[drivers.grant(1)]["revoked"], rows[drivers.grant(2)]["revoked"]), (True, False))
        self.assertRan(postern("revoke", drivers.grant(1)))  # again: it is so already
        self.assertEqual(drivers.finish()[0], 0)

    def test_in_the_middle_of_calls(self):
        drivers = Drivers(self, quiet=True)
        drivers.order("next(i for i in range(10**9) if attempt(get_info))")
        time.sleep(1)
        self.assertRan(postern("revoke", drivers.grant()))
        self.assertGreater(drivers.answer()["value"], 0, "calls were allowed, and then they were not")

    def test_a_grant_that_does_not_exist(self):
        self.assertRefused(postern("revoke", "0123456789abcdef"), "no live grant 0123456789abcdef", "postern ps", status=1)
        drivers = Drivers(self)
        self.assertRefused(postern("revoke", drivers.grant()[:-1]), "no live grant", status=1)
        self.assertRefused(postern("revoke", "--kill", "--reset", "x" * 300), "no live grant", status=1)
        self.assertEqual(drivers.do("get_info()"), 0)

    def test_kill(self):
        def lives(pid):
            """A process leaves its cgroup a moment before it is a zombie."""
            with contextlib.suppress(OSError):
                return e2e.state(pid) not in "ZX"
            return False
        drivers = Drivers(self, slices=(1, 2))
        clients = ps()[drivers.grant(1)]["clients"]
        self.assertTrue(clients)
        result = postern("revoke", "--kill", drivers.grant(1))
        self.assertRan(result)
        self.assertTrue(wait_until(lambda: not [pid for pid in clients if lives(pid)], 60))
        self.assertEqual(drivers.do("get_info()", 2), 0)
        self.assertTrue(wait_until(lambda: sorted(ps()) == [drivers.grant(2)]))
        self.assertEqual(drivers.finish()[0], 128 + signal.SIGKILL)

    def revoke_with_reset(self, device, words):
        drivers = Drivers(self, device=device)
        map_it = "globals().update(m=map_at(window['mmap']['offset'], protection=mmap.PROT_READ | mmap.PROT_WRITE)) or m[0] * 0"
        self.assertEqual(drivers.do(map_it), 0)
        result = postern("revoke", "--reset", drivers.grant())
        self.assertRan(result)
        self.assertIn(words, result.stdout)
        self.assertIn("memory space is off", result.stdout)
        drivers.order("m[0]")
        self.assertEqual(drivers.process.wait(120), 128 + signal.SIGBUS)
        self.assertRan(e2e.on_blk("--", CLIENT, "--reads", 200, device=device))

    def test_reset_of_a_device_that_cannot_be(self):
        self.revoke_with_reset(BLK, "has no way to be reset")

    def test_reset_of_a_device_that_can_be(self):
        self.assertRan(postern("bind", BLK2))
        try:
            self.revoke_with_reset(BLK2, "was reset")
        finally:
            self.doCleanups()
            self.assertRan(postern("unbind", BLK2))


class Unloading(Commands):
    def test_only_when_nothing_depends_on_it(self):
        drivers = Drivers(self)
        self.assertRefused(postern("guard", "unload"), drivers.grant(), BLK, "postern revoke --kill", status=1)
        self.assertEqual(drivers.do("ioctl(0x3b6f)"), errno.EPERM)
        drivers.finish()
        monitor = Monitor(self)
        self.assertRefused(postern("guard", "unload"), "postern monitor", status=1)
        monitor.stop()
        self.assertRan(postern("guard", "unload"))
        self.assertFalse(os.path.exists(PINNED))
        again = postern("guard", "unload")
        self.assertRan(again)
        self.assertIn("not loaded", again.stdout)
        self.assertEqual(status()["loaded"], False)
        self.assertRefused(postern("revoke", "x"), "no live grant", status=1)
        self.assertEqual(ps(), {})
        self.assertRan(e2e.on_blk("--", CLIENT, "--reads", 100))

    def test_a_monitor_loads_it_and_attaches_nothing(self):
        self.assertRan(postern("guard", "unload"))
        monitor = Monitor(self, "--json")
        self.assertEqual((status()["loaded"], status()["attached"]), (True, []))
        drivers = Drivers(self)
        drivers.do("ioctl(0x3b6f)")
        self.assertTrue(wait_until(lambda: len(monitor.events(drivers.grant())) == 1, 60))
        drivers.finish()
        self.assertEqual(status()["attached"], [], "nor keeps it attached")


class Replaced(Commands):
    def test_a_monitor_follows_the_guard_to_another_build(self):
        drivers = Drivers(self)
        drivers.finish()
        monitor = Monitor(self, "--json")
        about, = glob.glob(f"{PINNED}/abi-*/map_about")
        before = os.stat(about).st_ino
        dumped = subprocess.run(["bpftool", "-j", "map", "dump", "pinned", about], check=True, capture_output=True, text=True)
        # struct postern_about with another stamp, the last eight bytes of sixteen
        value = [str(int(byte, 16)) for byte in json.loads(dumped.stdout)[0]["value"]][:8] + ["1"] * 8
        subprocess.run(["bpftool", "map", "update", "pinned", about, "key", *["0"] * 4, "value", *value], check=True)
        self.assertEqual(status()["own_build"], False)
        drivers = Drivers(self)
        self.assertEqual(status()["own_build"], True, "nobody used it: replaced")
        self.assertNotEqual(os.stat(about).st_ino, before)

        def heard():
            drivers.do("ioctl(0x3b6f)")
            return monitor.events(drivers.grant())
        self.assertTrue(wait_until(heard, 60))


class Slots(Commands):
    def test_slots_of_killed_monitors_are_free(self):
        for _ in range(20):
            monitors = [Monitor(self) for _ in range(LISTENERS)]
            self.assertEqual(status()["listeners"], list(range(LISTENERS)))
            for each in monitors:
                each.process.kill()
            for each in monitors:
                each.kill()
        self.assertEqual(status()["listeners"], [])

    def test_one_too_many(self):
        monitors = [Monitor(self) for _ in range(LISTENERS)]
        self.assertRefused(postern("monitor"), "16 listeners listen already", status=1)
        # A launcher without a slot still counts.
        drivers = Drivers(self)
        drivers.do("ioctl(0x3b6f)")
        said = drivers.finish()[1].strip().splitlines()
        self.assertEqual(len(said), 1, said)
        self.assertIn("refused 1 call", said[0])
        monitors[5].stop()
        Monitor(self)  # the control

    def test_slots_of_killed_launchers_are_free_and_swept(self):
        for _ in range(4):
            drivers = Drivers(self)
            self.assertEqual(status()["listeners"], [0])
            drivers.process.kill()
            drivers.process.wait()
            self.assertEqual(status()["listeners"], [])
        Drivers(self).finish()
        self.assertEqual(e2e.links_pinned(), [])


if __name__ == "__main__":
    if len(sys.argv) == 1:
        sys.argv += [c.__name__ for c in (Watching, Listing, Revoking, Unloading, Replaced, Slots)]
    setUpModule, tearDownModule = e2e.setUpModule, e2e.tearDownModule
    unittest.main(verbosity=2)

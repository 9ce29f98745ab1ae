#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""postern as its users run it, on the lab's emulated devices. Runs as root in the guest; see tests/lab/README.md.

Every refusal has a control beside it: what is allowed works, in the same way, in the same place."""

import ctypes
import errno
import json
import math
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "root"))
from small_world import removed

BUILD = os.environ["POSTERN_BUILD"]
POSTERN = f"{BUILD}/bin/postern"
CLIENT = f"{BUILD}/examples/virtio-blk-client"
BLK = os.environ["LAB_VIRTIO_BLK"]
BLK2 = os.environ["LAB_VIRTIO_BLK2"]
EDU = os.environ["LAB_EDU"]
SHARED_A, SHARED_B = os.environ["LAB_SHARED_A"], os.environ["LAB_SHARED_B"]
HOSTILE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "hostile")
PINNED = "/sys/fs/bpf/postern"


def postern(*args, timeout=300, **kwargs):
    return subprocess.run([POSTERN, *map(str, args)], capture_output=True, text=True, timeout=timeout,
                          stdin=subprocess.DEVNULL, **kwargs)


def on_blk(*args, profile="virtio-blk-queue", device=BLK, verb="run", **kwargs):
    return postern(verb, "--device", device, "--profile", profile, *args, **kwargs)


def config_space(bdf):
    with open(f"/sys/bus/pci/devices/{bdf}/config", "rb") as file:
        return file.read(6)  # ids and the command register


def driver(bdf):
    try:
        return os.path.basename(os.readlink(f"/sys/bus/pci/devices/{bdf}/driver"))
    except OSError:
        return None


def links_pinned():
    return [os.path.join(folder, name) for folder, _, names in os.walk(PINNED) for name in names if "link" in name]


def cgroups():
    return sorted(folder for folder, _, _ in os.walk("/sys/fs/cgroup") if "postern" in os.path.basename(folder))


def processes(needle):
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                if needle.encode() in file.read():
                    found.append(int(pid))
        except OSError:
            pass
    return found


def left_behind():
    """What a launch may leave: nothing of this may differ after it. Pinned maps and programs are the guard's own."""
    with open("/proc/self/mountinfo") as file:
        mounts = sorted(line.split(" ")[4] for line in file)
    return {"links": links_pinned(), "cgroups": cgroups(), "mounts": mounts, "drivers": {b: driver(b) for b in (BLK, BLK2, EDU)},
            "clients": processes("virtio-blk-client"), "command": config_space(BLK)}


def has_mseal():
    """Linux 6.10. An address off the page is EINVAL where it exists, ENOSYS elsewhere."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall(462, 1, 0, 0)
    return ctypes.get_errno() != errno.ENOSYS


def comm(pid):
    """The name of its program, as the kernel cuts it; empty when it has gone."""
    try:
        with open(f"/proc/{pid}/comm") as file:
            return file.read().rstrip("\n")
    except OSError:
        return ""


def state(pid):
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rsplit(")", 1)[1].split()[0]


def wait_until(condition, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return condition()


class Lab(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="postern-e2e-", dir="/root")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def spawn(self, *args, **kwargs):
        process = subprocess.Popen([POSTERN, *args], stdin=subprocess.DEVNULL, **kwargs)

        def end():
            process.kill()
            process.wait()
            wait_until(lambda: not processes("virtio-blk-client"))
        self.addCleanup(end)
        return process

    def write_profile(self, change, name="test", base="virtio-blk-queue"):
        """The shipped profile with a change, in a file of its own."""
        shown = postern("profile", "show", base)
        self.assertEqual(shown.returncode, 0, shown.stderr)
        profile = json.loads(shown.stdout)
        change(profile)
        path = f"{self.folder}/{name}.json"
        with open(path, "w") as file:
            json.dump(profile, file)
        return path

    def assertRefused(self, result, *says, status=125):
        """One line, the status, and the words that help."""
        self.assertEqual(result.returncode, status, result.stdout + result.stderr)
        lines = result.stderr.strip().splitlines()
        self.assertEqual(len(lines), 1, result.stderr)
        self.assertTrue(lines[0].startswith("postern: "), lines[0])
        for words in says:
            self.assertIn(words, lines[0])

    def assertRan(self, result):
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)


class Machine(Lab):
    def test_check_says_that_it_is_able(self):
        result = postern("check", "--json")
        self.assertRan(result)
        answer = json.loads(result.stdout)
        self.assertTrue(answer["able"])
        self.assertEqual({r["id"] for r in answer["requirements"]} >= {"iommu", "bpf-lsm", "btf", "guard", "vfio-pci"}, True)
        self.assertEqual(links_pinned(), [])

    def test_devices_lists_ours(self):
        devices = {d["device"]: d for d in json.loads(postern("devices", "--json").stdout)}
        self.assertEqual(devices[BLK]["vendor_id"], "0x1af4")
        self.assertEqual(devices[BLK]["driver"], "vfio-pci")
        self.assertGreaterEqual(devices[BLK]["msix_vectors"], 5)
        self.assertIn(4, [bar["bar"] for bar in devices[BLK]["bars"]])

    def test_unbind_restores_what_bind_replaced(self):
        before = driver(BLK2)
        self.assertEqual(before, "virtio-pci")
        bound = postern("bind", BLK2)
        self.assertRan(bound)
        self.assertEqual(driver(BLK2), "vfio-pci")
        self.assertRan(postern("bind", BLK2))  # again: nothing to do, and the old driver is not forgotten
        unbound = postern("unbind", BLK2)
        self.assertRan(unbound)
        self.assertEqual(driver(BLK2), before)
        self.assertRefused(postern("unbind", BLK2), "was not bound by", status=1)

    def test_bind_refuses_what_is_not_there(self):
        self.assertRefused(postern("bind", "0000:7f:1f.7"), "no such PCI device", status=1)
        self.assertRefused(postern("bind", "nonsense"), "not a PCI address", status=1)

    def test_profile_explain_draws_the_bar(self):
        result = postern("profile", "explain", "virtio-blk-queue", "--device", BLK)
        self.assertRan(result)
        self.assertRegex(result.stdout, r"\[.*0+1+2+3+.*\]")
        self.assertIn("Everything else on the device fd is refused", result.stdout)

    def test_profile_lint_against_the_device(self):
        self.assertRan(postern("profile", "lint", "virtio-blk-queue", "--device", BLK))
        self.assertRefused(postern("profile", "lint", "virtio-blk-queue", "--device", EDU), "device.match.vendor", status=1)

    def test_dry_run_does_nothing(self):
        before = left_behind()
        result = on_blk("--dry-run", "--json", "--slice", 2, "--", CLIENT)
        self.assertRan(result)
        plan = json.loads(result.stdout)
        self.assertEqual(plan["device"]["slices"][2]["windows"][0]["offset"], 0x5000)
        self.assertEqual(before, left_behind())


class Tidy(Lab):
    def setUp(self):
        super().setUp()
        self.before = left_behind()

    def tearDown(self):
        self.assertEqual(self.before, left_behind())


class Clients(Tidy):
    def test_polling(self):
        result = on_blk("--slice", 1, "--", CLIENT, "--reads", 5000, "--json")
        self.assertRan(result)
        report = json.loads(result.stdout)
        self.assertEqual((report["slice"], report["reads"], report["verified"], report["errors"]), (1, 5000, 5000, 0))

    def test_interrupts(self):
        result = on_blk("--slice", 3, "--", CLIENT, "--reads", 3000, "--wait", "irq", "--json")
        self.assertRan(result)
        self.assertEqual(json.loads(result.stdout)["verified"], 3000)

    def test_against_the_backing_image(self):
        image = os.environ.get("LAB_IMAGE")
        self.assertTrue(image and os.path.exists(image), "the lab names its image")
        with open(image, "rb") as file:
            result = subprocess.run([POSTERN, "run", "--device", BLK, "--profile", "virtio-blk-queue", "--", CLIENT,
                                     "--reads", "2000", "--image", "-"], stdin=file, capture_output=True, text=True, timeout=120)
        self.assertRan(result)

    def test_a_wrong_image_is_noticed(self):
        wrong = f"{self.folder}/wrong"
        with open(wrong, "wb") as file:
            file.truncate(64 << 20)
        with open(wrong, "rb") as file:
            result = subprocess.run([POSTERN, "run", "--device", BLK, "--profile", "virtio-blk-queue", "--", CLIENT,
                                     "--reads", "100", "--image", "-"], stdin=file, capture_output=True, text=True, timeout=120)
        self.assertEqual(result.returncode, 1, result.stderr)

    def test_pool_runs_every_slice_at_once(self):
        result = on_blk("--", CLIENT, "--reads", 2000, "--json", verb="pool")
        self.assertRan(result)
        reports = [json.loads(line) for line in result.stdout.splitlines()]
        self.assertEqual(sorted(r["slice"] for r in reports), [0, 1, 2, 3])
        self.assertTrue(all(r["verified"] == 2000 for r in reports))

    def test_pool_status_is_the_worst(self):
        script = "read -r _ < /dev/null; exit 0"
        self.assertRan(on_blk("--", "/bin/sh", "-c", script, verb="pool"))
        fail_one = "grep -q '\"slice\":2' /proc/self/fd/3 && exit 9; exit 0"
        result = on_blk("--", "/bin/sh", "-c", fail_one, verb="pool")
        self.assertEqual(result.returncode, 9, result.stderr)
        self.assertIn("slice 2", result.stderr)

    def test_edu(self):
        self.assertRan(postern("bind", EDU))
        try:
            result = on_blk("--", f"{BUILD}/examples/edu-client", profile="edu", device=EDU)
            self.assertRan(result)
        finally:
            postern("unbind", EDU)

    def test_what_a_client_receives(self):
        result = on_blk("--slice", 2, "--", "/bin/sh", "-c",
                        "echo $$ $LISTEN_PID $LISTEN_FDS $LISTEN_FDNAMES; ls /proc/self/fd | tr '\\n' ' '; echo; cat <&3")
        self.assertRan(result)
        first, fds, manifest = result.stdout.splitlines()
        own, listen_pid, count, names = first.split()
        self.assertEqual(own, listen_pid)
        manifest = json.loads(manifest)
        self.assertEqual(int(count), len(names.split(":")))
        self.assertEqual([manifest["fds"][name] for name in names.split(":")], list(range(3, 3 + int(count))))
        # 0, 1, 2, ours, and the folder that ls itself has open.
        self.assertEqual(sorted(map(int, fds.split()))[:3 + int(count)], list(range(3 + int(count))))
        self.assertEqual(len(fds.split()), 3 + int(count) + 1)
        self.assertEqual(manifest["device"], BLK)
        self.assertEqual(manifest["slice"], 2)
        self.assertEqual(manifest["windows"][0]["offset"], 0x5000)
        self.assertEqual(manifest["dma"][0]["iova"], 0x10400000)
        self.assertEqual(manifest["irqs"][0], {"name": "vq", "index": 2, "vector": 3, "fd": "irq.vq"})

    def test_statuses(self):
        for command, status in ((["/bin/sh", "-c", "exit 7"], 7), (["/bin/sh", "-c", "kill -TERM $$"], 143), (["/bin/true"], 0)):
            self.assertEqual(on_blk("--", *command).returncode, status, command)
        self.assertEqual(on_blk("--time-limit", "500ms", "--", "/bin/sleep", "60").returncode, 124)
        self.assertRefused(on_blk("--", "/no/such/command"), "/no/such/command", status=127)
        self.assertRefused(on_blk("--", "no-such-command-at-all"), "no-such-command-at-all", status=127)
        self.assertRefused(on_blk("--", "/etc/passwd"), "/etc/passwd", status=126)

    def test_signals_reach_the_client(self):
        process = subprocess.Popen([POSTERN, "run", "--device", BLK, "--profile", "virtio-blk-queue", "--", "/bin/sh", "-c",
                                    "trap 'echo got; exit 5' TERM; echo ready; while :; do sleep 0.1; done"], stdout=subprocess.PIPE, text=True)
        self.assertEqual(process.stdout.readline(), "ready\n")
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.communicate(timeout=120)[0], "got\n")
        self.assertEqual(process.returncode, 5)

    def test_a_failing_setup_is_told_and_undone(self):
        def change(profile):
            profile["device"]["setup"]["device"] = [["/bin/sh", "-c", "echo the queue is on fire >&2; exit 3"]]
        result = on_blk("--", CLIENT, profile=self.write_profile(change))
        self.assertEqual(result.returncode, 125)
        last = result.stderr.strip().splitlines()[-1]
        self.assertIn("exit status 3", last)
        self.assertIn("the queue is on fire", last)

    def test_setup_and_teardown_get_everything(self):
        log = f"{self.folder}/log"

        def change(profile):
            script = f"echo $0 $LISTEN_FDNAMES >> {log}; cat <&3 >> {log}; echo >> {log}; pwd >> {log}"
            profile["device"]["setup"]["device"].append(["/bin/sh", "-c", script, "setup"])
            profile["device"]["teardown"] = {"device": [["/bin/sh", "-c", script, "teardown"]],
                                             "slice": [["/bin/sh", "-c", script, "slice-teardown"]]}
        self.assertRan(on_blk("--slice", 1, "--", CLIENT, "--reads", 100, profile=self.write_profile(change)))
        with open(log) as file:
            lines = file.read().splitlines()
        self.assertEqual([lines[i].split()[0] for i in (0, 3, 6)], ["setup", "slice-teardown", "teardown"])
        self.assertEqual(lines[0].split()[1], "manifest:device:dma.ring.0:dma.ring.1:dma.ring.2:dma.ring.3:irq.vq.0:irq.vq.1:irq.vq.2:irq.vq.3")
        self.assertEqual([d["slice"] for d in json.loads(lines[1])["dma"]], [0, 1, 2, 3])
        self.assertEqual(json.loads(lines[4])["slice"], 1)
        self.assertEqual(lines[2], self.folder)

    def test_reset_before_and_after(self):
        def change(profile):
            profile["device"]["reset"] = "both"
        profile = self.write_profile(change)
        # The first device has no function level reset, the second is behind a root port and has one.
        self.assertRefused(on_blk("--", CLIENT, profile=profile), "device.reset: the device has no way to be reset")
        self.assertRan(postern("bind", BLK2))
        try:
            self.assertRan(on_blk("--", CLIENT, "--reads", 500, profile=profile, device=BLK2))
        finally:
            self.assertRan(postern("unbind", BLK2))


class NoRoundTrips(Lab):
    def loop_calls(self, *args):
        """System calls of the client between its first submission and its last completion."""
        trace = f"{self.folder}/trace"
        result = subprocess.run(["strace", "-f", "-qq", "-o", trace, POSTERN, "run", "--device", BLK, "--profile", "virtio-blk-queue",
                                 "--slice", "1", "--", CLIENT, "--mark", *args], capture_output=True, text=True, timeout=300)
        self.assertRan(result)
        with open(trace) as file:
            lines = file.readlines()
        begin = [i for i, line in enumerate(lines) if 'write(2, "begin' in line]
        end = [i for i, line in enumerate(lines) if 'write(2, "end' in line]
        self.assertEqual((len(begin), len(end)), (1, 1))
        pid = lines[begin[0]].split()[0]
        calls = [line.split(None, 1)[1] for line in lines[begin[0] + 1:end[0]] if line.split()[0] == pid]
        # Another task came between the two halves of the marker's own line.
        return calls[1:] if lines[begin[0]].endswith("<unfinished ...>\n") else calls

    def test_polling_makes_no_system_call(self):
        self.assertEqual(self.loop_calls("--reads", "3000"), [])

    def test_interrupts_cost_eventfd_reads_only(self):
        calls = self.loop_calls("--reads", "500", "--wait", "irq")
        self.assertGreater(len(calls), 0)  # the control: the trace sees system calls
        others = [c for c in calls if not re.match(r'read\(\d+, ".*", 8\) += 8|read\(\d+, .*<unfinished|<\.\.\. read resumed', c)]
        self.assertEqual(others, [])
        self.assertEqual(len({re.match(r"read\((\d+)", c).group(1) for c in calls if c.startswith("read(")}), 1)

    def test_a_stopped_launcher_stops_nobody(self):
        # Short phases in pairs, one with the launcher stopped, in an order by chance: what else the host does hits both
        # alike. A pair says little, so there are as many as it takes to be sure (a sign test, at most one in a hundred
        # wrong) that the client keeps more than half of its rate, for a busy host takes a quarter of it now and then;
        # a launcher in the loop would leave it none.
        output = open(f"{self.folder}/rates", "w+")
        self.addCleanup(output.close)
        process = self.spawn("run", "--device", BLK, "--profile", "virtio-blk-queue", "--", CLIENT, "--seconds", "400",
                             "--report", "0.2", stdout=output, stderr=subprocess.STDOUT)

        def rates():
            with open(output.name) as file:
                return [float(m) for m in re.findall(r"^slice=\d+ .*rate=(\d+)\n", file.read(), re.M)]
        self.assertTrue(wait_until(lambda: len(rates()) >= 3, 120), "the client reports")

        def measure(stop):
            process.send_signal(signal.SIGSTOP if stop else signal.SIGCONT)
            self.assertTrue(wait_until(lambda: (state(process.pid) == "T") == stop))
            begin = len(rates())
            self.assertTrue(wait_until(lambda: len(rates()) >= begin + 4, 120), f"the client goes on (stopped: {stop})")
            return statistics.median(rates()[begin + 1:begin + 4])  # without the one that the change fell into
        running, stopped = [], []
        order = random.Random(8)
        for count in (8, 16, 32, 64):
            while len(running) < count:
                for stop in order.sample([False, True], 2):
                    (stopped if stop else running).append(measure(stop))
            kept = sum(b > 0.5 * a for a, b in zip(running, stopped))
            by_chance = sum(math.comb(count, k) for k in range(kept, count + 1)) / 2 ** count
            if by_chance < 0.01:
                break
        process.send_signal(signal.SIGCONT)
        process.terminate()
        self.assertEqual(process.wait(120), 128 + signal.SIGTERM)
        print(f"    reads/s, medians of {count}: launcher running {statistics.median(running):.0f}, "
              f"stopped {statistics.median(stopped):.0f}; {kept} of {count} pairs above a half", file=sys.stderr)
        self.assertLess(by_chance, 0.01)

    def test_a_stopped_pool_stops_nobody(self):
        output = open(f"{self.folder}/rates", "w+")
        process = self.spawn("pool", "--device", BLK, "--profile", "virtio-blk-queue", "--", CLIENT, "--seconds", "400",
                             "--report", "0.5", stdout=output, stderr=subprocess.STDOUT)
        self.addCleanup(output.close)

        def counts():
            found = {}
            with open(output.name) as file:
                for s, c in re.findall(r"^slice=(\d+) completions=(\d+)", file.read(), re.M):
                    found[int(s)] = int(c)
            return found
        self.assertTrue(wait_until(lambda: len(counts()) == 4, 120))
        process.send_signal(signal.SIGSTOP)
        self.assertTrue(wait_until(lambda: state(process.pid) == "T"))
        at_stop = counts()
        self.assertTrue(wait_until(lambda: all(counts()[s] > at_stop[s] for s in range(4)), 120), "all four go on")
        process.send_signal(signal.SIGCONT)
        process.terminate()
        self.assertEqual(process.wait(120), 128 + signal.SIGTERM)


class BadInput(Tidy):
    def refused_with(self, change, *says):
        self.assertRefused(on_blk("--", CLIENT, profile=self.write_profile(change)), *says)

    def test_the_control_is_accepted(self):
        self.assertRan(on_blk("--", CLIENT, "--reads", 100, profile=self.write_profile(lambda profile: None)))

    def test_syntax_error(self):
        path = f"{self.folder}/bad.json"
        with open(path, "w") as file:
            file.write('{\n "postern": 1,\n oops }')
        self.assertRefused(on_blk("--", CLIENT, profile=path), "profile bad", "line 3")

    def test_unknown_key(self):
        self.refused_with(lambda p: p["device"]["windows"][0].update(lenght=1), "device.windows[0].lenght", 'did you mean "length"')

    def test_wrong_type(self):
        self.refused_with(lambda p: p["device"]["windows"][0].update(length=True), "device.windows[0].length")

    def test_offset_off_the_page(self):
        self.refused_with(lambda p: p["device"]["windows"][0].update(offset="0x3800"),
                          "profile test: device.windows[0]: offset 0x3800 is not page aligned (4096); use 0x3000")

    def test_window_outside_of_its_bar(self):
        self.refused_with(lambda p: p["device"]["windows"][0].update(offset={"base": "0x10000000", "stride": "4KiB"}), "ends outside of bar4")

    def test_window_across_the_msix_table(self):
        def change(profile):
            profile["slices"] = 1
            profile["device"]["windows"][0].update(region="bar1", offset=0)
        self.refused_with(change, "device.windows[0]", "MSI-X table")

    def test_slice_out_of_range(self):
        self.assertRefused(on_blk("--slice", 4, "--", CLIENT), "--slice 4", "slices 0 to 3")

    def test_iova_that_the_iommu_does_not_map(self):
        self.refused_with(lambda p: p["device"]["dma"][0].update(iova={"base": "0xfee00000", "stride": "2MiB"}), "iova 0xfee00000")

    def test_no_such_device(self):
        self.assertRefused(on_blk("--", CLIENT, device="0000:7f:1f.7"), "no such PCI device")

    def test_device_not_bound(self):
        self.assertRefused(on_blk("--", CLIENT, device=BLK2), "virtio-pci", f"postern bind {BLK2}")

    def test_other_hardware(self):
        self.assertRefused(on_blk("--", CLIENT, profile="edu"), "device.match.vendor")

    def test_group_shared_with_a_device_in_use(self):
        shown = json.loads(postern("profile", "show", "virtio-blk-queue").stdout)
        shown["device"] = {"ioctls": ["VFIO_DEVICE_GET_INFO"]}
        path = f"{self.folder}/any.json"
        with open(path, "w") as file:
            json.dump(shown, file)
        self.assertRan(postern("bind", SHARED_A))
        try:
            other = driver(SHARED_B)
            self.assertIsNotNone(other, "the lab's second device of the group is in use by a driver")
            self.assertRefused(on_blk("--", "/bin/true", device=SHARED_A, profile=path), "shares IOMMU group", SHARED_B, other)
        finally:
            self.assertRan(postern("unbind", SHARED_A))

    def test_busy_device(self):
        holder = subprocess.Popen([POSTERN, "run", "--device", BLK, "--profile", "virtio-blk-queue", "--", "/bin/sh", "-c",
                                   "echo ready; exec sleep 60"], stdout=subprocess.PIPE, text=True)
        try:
            self.assertEqual(holder.stdout.readline(), "ready\n")
            self.assertRefused(on_blk("--", CLIENT), "busy", f"pid {holder.pid}")
        finally:
            holder.terminate()
            holder.wait(120)

    def test_not_root(self):
        result = subprocess.run(["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", POSTERN, "run", "--device", BLK,
                                 "--profile", "virtio-blk-queue", "--", "/bin/true"], capture_output=True, text=True, timeout=60)
        self.assertRefused(result, "needs root")

    def test_command_that_does_not_exist_touches_nothing(self):
        self.assertRefused(on_blk("--", "/no/such/command"), "/no/such/command", status=127)

    def test_no_command(self):
        self.assertRefused(on_blk(), "no command")

    def test_missing_profile(self):
        self.assertRefused(on_blk("--", CLIENT, profile="virtio-blk-quue"), "did you mean virtio-blk-queue?")

    def test_missing_setup_program(self):
        self.refused_with(lambda p: p["device"]["setup"].update(device=["no-such-setup"]), "no-such-setup", "not found")


class ArgumentRules(Lab):
    """Rules on the arguments of ioctls: enforced where the kernel can keep memory as it is, else there is no launch."""

    # In the sandbox: VFIO_DEVICE_SET_IRQS that triggers one vector, which the launcher has wired to an eventfd, by blocks in plain
    # and in sealed memory.
    ASK = """
import ctypes, fcntl, json, os, struct
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
names = os.environ["LISTEN_FDNAMES"].split(":")
device, event = (3 + names.index(name) for name in ("device", "irq.vq"))
MSI, MSIX = 1, 2

def trigger(address):
    while True:
        ctypes.string_at(address, 20)
        if libc.ioctl(device, ctypes.c_ulong(0x3b6e), ctypes.c_void_p(address)) == 0:
            return 0
        if ctypes.get_errno() != 11:
            return ctypes.get_errno()

def block(vector, index=MSIX, count=1):
    return struct.pack("<5I", 20, 0x21, index, vector, count)

def plain(vector):
    buffer = ctypes.create_string_buffer(block(vector))
    return trigger(ctypes.addressof(buffer))

def sealed(*of):
    memory = os.memfd_create("block", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.pwrite(memory, block(*of).ljust(4096, b"\\0"), 0)
    fcntl.fcntl(memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK)
    address = libc.mmap(None, ctypes.c_size_t(4096), 1, 1, memory, ctypes.c_long(0))
    if libc.syscall(462, ctypes.c_void_p(address), ctypes.c_size_t(4096), ctypes.c_ulong(0)) != 0:
        return "mseal: " + os.strerror(ctypes.get_errno())
    return trigger(address)

def fired():
    os.set_blocking(event, False)
    try:
        return struct.unpack("<Q", os.read(event, 8))[0]
    except BlockingIOError:
        return 0

answers = {"before": fired(), "sealed": [sealed(vector) for vector in (1, 2, 3, 4)]}
answers["fired"] = fired()
answers["plain"] = [plain(vector) for vector in (1, 2, 3, 4)]
answers["other index"], answers["two vectors"] = sealed(2, MSI), sealed(2, MSIX, 2)
answers["fired by a refused one"] = fired()
print(json.dumps(answers))
"""

    def test_enforced_or_refused_never_ignored(self):
        def rule(args):
            def change(profile):
                profile["device"]["ioctls"].append({"name": "VFIO_DEVICE_SET_IRQS", **args})
            return self.write_profile(change)
        args = [{"field": "index", "equals": "msix"}, {"field": "start", "equals": {"base": 1, "stride": 1}},
                {"field": "count", "max": 1}, {"field": "flags", "equals": "0x21"}]
        before = left_behind()
        for slice_, own in ((0, 1), (1, 2), (3, 4)):
            ask = ["--slice", slice_, "--", "/usr/bin/python3", "-c", self.ASK]
            result = on_blk(*ask, profile=rule({"args": args}))
            if not has_mseal():
                self.assertRefused(result, "device.ioctls: VFIO_DEVICE_SET_IRQS", "mseal(2)", "Linux 6.10")
                self.assertEqual(before, left_behind())
                self.assertRan(on_blk("--slice", slice_, "--", CLIENT, "--reads", 100, profile=rule({})))  # the control
                continue
            self.assertRan(result)
            # The vector that is one slice's own is refused to the others: each refusal is the others' control.
            allowed = [0 if vector == own else errno.EPERM for vector in (1, 2, 3, 4)]
            self.assertEqual(json.loads(result.stdout), {
                "before": 0, "sealed": allowed, "fired": 1, "plain": [errno.EPERM] * 4,
                "other index": errno.EPERM, "two vectors": errno.EPERM, "fired by a refused one": 0})
        # The control of plain memory and of the rest: without rules all of it works.
        if has_mseal():
            result = on_blk("--slice", 1, "--", "/usr/bin/python3", "-c", self.ASK, profile=rule({}))
            self.assertRan(result)
            answers = json.loads(result.stdout)
            self.assertEqual((answers["sealed"], answers["plain"], answers["two vectors"]), ([0] * 4, [0] * 4, 0))
            self.assertNotEqual(answers["other index"], errno.EPERM, "the driver's own answer: MSI-X is in use")
        self.assertEqual(before, left_behind())

    def test_refused_before_the_device_is_touched(self):
        group = os.path.basename(os.readlink(f"/sys/bus/pci/devices/{BLK}/iommu_group"))
        ruled = self.write_profile(lambda p: p["device"]["ioctls"].append(
            {"name": "VFIO_DEVICE_SET_IRQS", "args": [{"field": "index", "equals": "msix"}]}))
        # Whoever opens the device finds it busy. So does a profile without rules: the control, as is a kernel that can enforce them.
        held = os.open(f"/dev/vfio/{group}", os.O_RDWR)
        try:
            self.assertRefused(on_blk("--", CLIENT), "busy")
            self.assertRefused(on_blk("--", CLIENT, profile=ruled), "busy" if has_mseal() else "mseal(2)")
        finally:
            os.close(held)


class Limits(Lab):
    """Controllers of cgroup v2, which a cgroup with processes in it cannot have for its children, but for the root."""

    def setUp(self):
        super().setUp()
        self.cgroup = "/sys/fs/cgroup/e2e-limits"
        os.mkdir(self.cgroup)
        self.addCleanup(lambda: self.assertTrue(wait_until(lambda: removed(self.cgroup))))

    @staticmethod
    def into(cgroup):
        """What a child does first: it moves there."""
        def move():
            with open(f"{cgroup}/cgroup.procs", "w") as file:
                file.write(str(os.getpid()))
        return move

    def run_in(self, cgroup, limits):
        path = f"{self.folder}/limited.json"
        with open(path, "w") as file:
            json.dump({"postern": 1, "sandbox": {"cgroup": limits}}, file)

        return postern("run", "--profile", path, "--", "/bin/true", preexec_fn=self.into(cgroup))

    def test_in_the_root_cgroup(self):
        self.assertRan(self.run_in("/sys/fs/cgroup", {"pids.max": "30", "memory.max": "64MiB"}))

    def test_below_it_a_refusal_leaves_the_cgroup_usable(self):
        other = subprocess.Popen(["/bin/sleep", "600"], preexec_fn=self.into(self.cgroup))
        self.addCleanup(other.wait)
        self.addCleanup(other.kill)
        limits = {"pids": {"pids.max": "30"}, "memory": {"memory.max": "64MiB"}}
        for controller, limit in limits.items():
            with open("/sys/fs/cgroup/cgroup.subtree_control", "w") as file:
                file.write(f"+{controller}")
            self.assertRefused(self.run_in(self.cgroup, limit), self.cgroup, f"controller {controller}", "systemd-run")
        self.assertAsItWas()
        self.assertRan(on_blk("--", "/bin/true", preexec_fn=self.into(self.cgroup)))
        # Alone in it postern makes room for itself.
        other.kill()
        other.wait()
        for limit in limits.values():
            self.assertRan(self.run_in(self.cgroup, limit))
        self.assertAsItWas()

    def assertAsItWas(self):
        for name, says in (("cgroup.subtree_control", ""), ("cgroup.type", "domain")):
            with open(f"{self.cgroup}/{name}") as file:
                self.assertEqual(file.read().strip(), says)
        self.assertEqual([entry.name for entry in os.scandir(self.cgroup) if entry.is_dir()], [])


class LauncherKilled(Lab):
    def test_at_any_moment_no_client_survives_and_the_next_launch_works(self):
        rng = random.Random(20)
        rounds = int(os.environ.get("POSTERN_KILL_ROUNDS", "25"))
        begin = time.monotonic()
        self.assertRan(on_blk("--slice", 1, "--", "/bin/true"))
        whole = time.monotonic() - begin
        words = "virtio-blk-client\0--seconds"

        def client():
            """But for the launcher, whose own words are these, too, and its children before they are the client."""
            return [pid for pid in processes(words) if comm(pid).startswith("virtio-blk")]
        started = 0
        for round_ in range(rounds):
            process = subprocess.Popen([POSTERN, "run", "--device", BLK, "--profile", "virtio-blk-queue", "--slice", "1", "--", CLIENT,
                                        "--seconds", "60"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(rng.uniform(0, 1.5 * whole))
            if round_ == rounds - 1:  # also where the machine has become slower since
                self.assertTrue(wait_until(client, 120))
            started += bool(client())
            process.kill()
            process.wait()
            self.assertTrue(wait_until(lambda: not processes(words)), "no client survives")
        self.assertGreater(started, 0, "some rounds reached a running client")
        result = on_blk("--slice", 1, "--", CLIENT, "--reads", 1000)
        self.assertRan(result)
        self.assertEqual(links_pinned(), [], "the next launch cleans up")
        self.assertEqual(cgroups(), [])


class Hostile(Lab):
    def run_hostile(self, *flags, args=(), profile="virtio-blk-queue"):
        result = on_blk(*flags, "--", f"{BUILD}/examples/hostile-client", *args, profile=profile, timeout=600)
        print(result.stdout, file=sys.stderr)
        return result

    def test_full_sandbox(self):
        self.assertRan(self.run_hostile())

    def test_full_sandbox_with_every_kind_of_window(self):
        self.assertRan(self.run_hostile("--slice", "1", profile=f"{HOSTILE}/every-window.json"))

    def test_guard_alone(self):
        """No seccomp: what seccomp would have stopped reaches the guard."""
        self.assertRan(self.run_hostile("--slice", "1", args=("--skip-group", "sandbox"), profile=f"{HOSTILE}/guard-alone.json"))

    def test_the_control_everything_works_outside(self):
        result = subprocess.run([f"{BUILD}/tests/bare-launch", BLK, f"{HOSTILE}/every-window.json", "1",
                                 f"{BUILD}/examples/hostile-client", "--expect", "allowed"], capture_output=True, text=True, timeout=600)
        print(result.stderr, file=sys.stderr)
        self.assertRan(result)


class WithoutBpfLsm(Lab):
    """In a boot of its own: --append lsm=capability."""

    def test_there_is_no_launch(self):
        result = on_blk("--", CLIENT)
        self.assertRefused(result, "bpf", "lsm=")
        self.assertRan(postern("run", "--", "/bin/true"))  # the control: a plain sandbox needs no guard

    def test_check_says_so(self):
        result = postern("check", "--json")
        self.assertEqual(result.returncode, 1)
        missing = {r["id"]: r for r in json.loads(result.stdout)["requirements"] if not r["met"]}
        self.assertIn("bpf-lsm", missing)
        self.assertIn("lsm=", missing["bpf-lsm"]["mend"])


def setUpModule():
    bound = postern("bind", BLK)
    if bound.returncode != 0:
        raise RuntimeError(bound.stderr)


def tearDownModule():
    postern("unbind", BLK)


if __name__ == "__main__":
    with open("/sys/kernel/security/lsm") as lsms:
        guarded = "bpf" in lsms.read().strip().split(",")
    if len(sys.argv) == 1:
        classes = [Machine, Clients, NoRoundTrips, BadInput, ArgumentRules, Limits, LauncherKilled, Hostile] if guarded else [WithoutBpfLsm]
        sys.argv += [c.__name__ for c in classes]
    unittest.main(verbosity=2)

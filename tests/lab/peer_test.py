#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The profile key "peers", on the lab's kernel with iommufd: edu's DMA engine and the memory of an ivshmem device, both of
one broker. Nobody copies by CPU what arrives there."""

import ctypes
import errno
import fcntl
import json
import os
import re
import signal
import struct
import subprocess
import time
import unittest

from broker_lab import ALICE, BLK2, BUILD, EDU, PATIENCE, POSTERN, BrokerLab, as_user, postern, wait_until

IVSHMEM, SHARED_A, SHARED_B = os.environ["LAB_IVSHMEM"], os.environ["LAB_SHARED_A"], os.environ["LAB_SHARED_B"]
BASE, SIZE = 0x2000000, 0x10000  # edu addresses 28 bits, and its profile has 64 KiB at 0x1000000
# Holds its window, and does with it what it is told: "get", "set N", "reset" of the device.
HOLDER = """
import fcntl, json, mmap, os, sys
manifest = json.loads(os.pread(3, 1 << 16, 0))
place = manifest["windows"][0]
ram = mmap.mmap(manifest["fds"][place["mmap"]["fd"]], place["length"], mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE,
                offset=place["mmap"]["offset"])
print(json.dumps(manifest.get("peers")), flush=True)
for line in sys.stdin:
    words = line.split()
    if words[0] == "set":
        ram[0] = int(words[1])
    if words[0] == "reset":
        fcntl.ioctl(manifest["fds"]["device"], 0x3b6f)  # VFIO_DEVICE_RESET
    print(ram[0], ram[2047], flush=True)
"""


def dmabuf_of_a_client():
    """Process and number of the one dma-buf that a python has."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if "python" not in os.readlink(f"/proc/{pid}/exe") or int(pid) == os.getpid():
                continue
            for number in os.listdir(f"/proc/{pid}/fd"):
                if "dmabuf" in os.readlink(f"/proc/{pid}/fd/{number}"):
                    return int(pid), int(number)
        except OSError:
            pass
    raise AssertionError("nobody has a dma-buf")


def faults():
    """Addresses that the IOMMU has refused to edu, as the kernel's log has them: "[DMA Write NO_PASID] Request device [00:03.0] fault addr 0x2000000"."""
    said = subprocess.run(["dmesg"], capture_output=True, text=True, check=True).stdout
    return re.findall(rf"\[DMA [^]]*\] Request device \[(?:0000:)?{EDU[5:]}\] fault addr (0x[0-9a-f]+)", said)


def map_of_ones_own(dmabuf):
    """errno, or 0, of mapping it into an address space of this process's."""
    iommu = os.open("/dev/iommu", os.O_RDWR)
    try:
        block = bytearray(struct.pack("<III", 12, 0, 0))
        fcntl.ioctl(iommu, 0x3b81, block)  # IOMMU_IOAS_ALLOC
        ioas = struct.unpack("<III", block)[2]
        fcntl.ioctl(iommu, 0x3b8f, struct.pack("<IIIiQQQ", 40, 7, ioas, dmabuf, 0, SIZE, BASE))  # IOMMU_IOAS_MAP_FILE
    except OSError as error:
        return error.errno
    finally:
        os.close(iommu)
    return 0


class Lab(BrokerLab):
    def profile(self, name="ram", match=None, region="bar2", **changes):
        peer = {"window": "ram", "device": EDU, "iova": {"base": hex(BASE), "stride": hex(SIZE)}, "access": "rw", **changes}
        window = {"name": "ram", "region": region, "offset": {"base": 0, "stride": hex(SIZE)}, "length": hex(SIZE),
                  "access": "rw", "methods": ["mmap"]}
        document = {"postern": 1, "slices": 2, "device": {"match": match or {"vendor": "0x1af4", "device": "0x1110"},
                                                          "windows": [window], "peers": [peer]}}
        path = f"{self.folder}/{name}.json"
        with open(path, "w") as file:
            json.dump(document, file)
        return path

    def start(self, backend="iommufd", edu=True, edu_backend=None, **changes):
        def by(wanted):
            return {"backend": wanted} if wanted else {}
        devices = [{"name": "ram", "device": IVSHMEM, "profile": self.profile(**changes), **by(backend), "allow": []}]
        if edu:
            devices.append({"name": "edu", "device": EDU, "profile": "edu", **by(edu_backend or backend), "allow": []})
        self.start_broker(devices)

    def hold(self, *flags, device=IVSHMEM):
        """A client that has a window."""
        client = subprocess.Popen([POSTERN, "run", "--quiet", "--broker", self.path, "--device", device, *flags, "--",
                                   "/usr/bin/python3", "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, text=True)
        for stream in (client.stdout, client.stderr):
            self.addCleanup(stream.close)
        self.addCleanup(client.wait)
        self.addCleanup(client.kill)
        client.peers = client.stdout.readline()
        self.assertNotEqual(client.peers, "", client.poll() is not None and client.stderr.read())
        client.peers = json.loads(client.peers)
        return client

    def tell(self, client, *words):
        """The first and the last byte of what edu moves at once."""
        client.stdin.write(" ".join(map(str, words)) + "\n")
        client.stdin.flush()
        return [int(word) for word in client.stdout.readline().split()]

    def finish(self, client):
        client.stdin.close()
        self.assertEqual(client.wait(PATIENCE), 0)

    def edu(self, *words):
        result = self.run_client(f"{BUILD}/examples/edu-peer", *words, device=EDU, profile="edu", flags=["--quiet"])
        self.assertEqual(result.returncode, 0, result.stderr + self.log())
        return result.stdout

    def refused(self, *words, device=IVSHMEM, flags=(), free=True):
        result = postern("run", "--quiet", "--broker", self.path, "--device", device, *flags, "--", "/bin/true")
        self.assertEqual(result.returncode, 125, result.stdout + result.stderr)
        self.assertEqual(result.stderr.count("\n"), 1, result.stderr)
        for word in words:
            self.assertIn(word, result.stderr)
        if free:
            self.free_again()


class Peers(Lab):
    def test_one_device_writes_what_the_client_of_another_reads(self):
        for backend in ("iommufd", "cdev"):
            with self.subTest(backend=backend):
                self.start(backend)
                zero, one = self.hold("--slice", "0"), self.hold("--slice", "1")
                self.assertEqual(one.peers, [{"window": "ram", "device": EDU, "iova": BASE + SIZE, "size": SIZE, "access": "rw"}])
                self.assertEqual(self.tell(zero, "set", 1)[0], 1)
                self.assertEqual(self.tell(one, "set", 2)[0], 2)
                self.edu(hex(BASE), "0x5a")
                self.assertEqual(self.tell(zero, "get"), [0x5a, 0x5a])
                self.assertEqual(self.tell(one, "get")[0], 2, "the other slice's")
                self.edu(hex(BASE + SIZE), "0x33")
                self.assertEqual(self.tell(one, "get"), [0x33, 0x33])
                self.assertEqual(self.tell(zero, "get"), [0x5a, 0x5a])
                self.assertIn("0x33 at", self.edu("--read", hex(BASE + SIZE)))
                self.finish(zero)
                self.finish(one)
                self.free_again()
                self.stop_broker()

    def test_a_dmabuf_that_its_client_has_mapped_itself_holds_nothing_up(self):
        window = {"name": "registers", "region": "bar0", "offset": 0, "length": 4096, "access": "rw", "methods": ["mmap", "dmabuf"]}
        path = f"{self.folder}/own.json"
        with open(path, "w") as file:
            json.dump({"postern": 1, "device": {"match": {"vendor": "0x1234", "device": "0x11e8"}, "windows": [window],
                                                "dma_map": {"iova": hex(BASE), "size": hex(SIZE)}}}, file)
        for backend in ("iommufd", "cdev"):
            with self.subTest(backend=backend):
                self.start_broker([{"name": "edu", "device": EDU, "profile": path, "backend": backend, "allow": []}])
                for leave in ([], ["--leave"], []):
                    result = self.run_client(f"{BUILD}/examples/edu-dma-map", "--window", *leave, device=EDU, profile=path)
                    self.assertEqual(result.returncode, 0, result.stderr + self.log())
                    self.assertIn("the window's dma-buf at", result.stdout)
                    self.free_again()
                self.stop_broker()

    def test_a_users_dma_map_is_the_administrators_word(self):
        """Whoever has the iommufd could put a device of their own into the address space, out of the sandbox."""
        path = f"{self.folder}/own.json"
        with open(path, "w") as file:
            json.dump({"postern": 1, "device": {"match": {"vendor": "0x1234", "device": "0x11e8"},
                                                "windows": [{"name": "registers", "region": "bar0", "offset": 0, "length": 4096, "access": "rw"}],
                                                "dma_map": {"iova": hex(BASE), "size": hex(SIZE)}}}, file)
        for trusted in (False, True):
            with self.subTest(trusted=trusted):
                self.start_broker([{"name": "edu", "device": EDU, "profile": path, "backend": "iommufd", "allow": [{"users": [ALICE]}],
                                    "trust_dma_map": trusted}])
                said = self.run_client(f"{BUILD}/examples/edu-dma-map", device=EDU, profile=path, who=as_user(ALICE))
                self.assertEqual(said.returncode, 0 if trusted else 125, said.stderr + self.log())
                self.assertEqual('"trust_dma_map": true' in said.stderr, not trusted, said.stderr)
                self.free_again()
                root = self.run_client(f"{BUILD}/examples/edu-dma-map", device=EDU, profile=path)
                self.assertEqual(root.returncode, 0, root.stderr + self.log())
                self.free_again()
                self.stop_broker()

    def test_it_ends_with_the_client_that_has_the_window(self):
        self.start()
        first = self.hold("--slice", "0")
        self.edu(hex(BASE), "0x11")
        self.assertEqual(self.tell(first, "get"), [0x11, 0x11])
        self.finish(first)
        self.free_again()
        self.edu(hex(BASE), "0x22")  # goes nowhere
        second = self.hold("--slice", "0")
        self.assertEqual(self.tell(second, "get"), [0x11, 0x11])
        self.edu(hex(BASE), "0x33")  # the control
        self.assertEqual(self.tell(second, "get"), [0x33, 0x33])

    def test_no_more_than_its_access(self):
        self.start(access="r")
        client = self.hold("--slice", "0")
        self.tell(client, "set", 7)
        self.assertIn("0x07 at", self.edu("--read", hex(BASE)))
        self.edu(hex(BASE), "0x44")
        self.assertEqual(self.tell(client, "get")[0], 7)

    def test_the_broker_may_die(self):
        self.start()
        client = self.hold("--slice", "0")
        self.edu(hex(BASE), "0x11")
        self.kill9()
        self.start_broker()
        self.edu(hex(BASE), "0x22")
        self.assertEqual(self.tell(client, "get"), [0x22, 0x22])
        # And the one that took it up ends it.
        self.finish(client)
        self.free_again()
        self.edu(hex(BASE), "0x33")
        self.assertEqual(self.tell(self.hold("--slice", "0"), "get"), [0x22, 0x22])

    def test_a_revocation_with_reset_takes_it_from_the_peer(self):
        for backend in ("iommufd", "cdev"):
            with self.subTest(backend=backend):
                self.start(backend)
                self.revoke_and_look()
                self.stop_broker()

    def revoke_and_look(self):
        client = self.hold("--slice", "0")
        self.edu(hex(BASE), "0x11")
        self.assertEqual(self.tell(client, "get"), [0x11, 0x11])
        self.assertIn("0x11 at", self.edu("--read", hex(BASE)))
        with self.client() as caller:
            grant = next(each["grant"] for each in caller.grants() if each["device"] == IVSHMEM)
            self.assertIn("memory space is off", caller.ask({"op": "revoke", "grant": grant, "reset": True})[0]["revoked"])
        before = len(faults())
        self.edu(hex(BASE), "0x22")  # goes nowhere, of which edu knows nothing
        self.assertTrue(wait_until(lambda: hex(BASE) in faults()[before:], PATIENCE), "the IOMMU's fault")
        what = self.edu("--read", hex(BASE))
        self.assertNotIn("0x11 at", what)
        self.assertNotIn("0x22 at", what)  # nor does it read what it wrote there
        client.stdin.write("get\n")
        client.stdin.flush()
        self.assertEqual(client.wait(PATIENCE), 128 + signal.SIGBUS)
        self.free_again()
        # The next one's is a device that works, and so is its peer.
        client = self.hold("--slice", "0")
        self.assertEqual(self.tell(client, "set", 9)[0], 9)
        self.edu(hex(BASE), "0x33")
        self.assertEqual(self.tell(client, "get"), [0x33, 0x33])
        self.finish(client)
        self.free_again()

    def test_a_stopped_device_is_nobodys_until_all_have_ended(self):
        self.start()
        first, second = self.hold("--slice", "0"), self.hold("--slice", "1")
        with self.client() as caller:
            grant = next(each["grant"] for each in caller.grants() if each["slice"] == 0)
            caller.ask({"op": "revoke", "grant": grant, "reset": True, "kill": True})
        first.wait(PATIENCE)

        def is_alone():
            with self.client() as caller:
                return len(caller.grants()) == 1
        self.assertTrue(wait_until(is_alone, PATIENCE), self.log())
        for broker in ("the one that stopped it", "the next one"):
            with self.subTest(broker=broker):
                self.refused("was stopped", "--reset", flags=["--slice", "0"], free=False)
                if broker != "the next one":
                    self.kill9()
                    self.start_broker()
        waits = subprocess.Popen([POSTERN, "run", "--quiet", "--broker", self.path, "--device", IVSHMEM, "--wait", "--", "/bin/true"])
        self.addCleanup(waits.wait)
        self.addCleanup(waits.kill)
        time.sleep(1)
        self.assertIsNone(waits.poll())
        self.finish(second)
        self.assertEqual(waits.wait(PATIENCE), 0, self.log())
        self.free_again()
        self.assertEqual(self.tell(self.hold("--slice", "0"), "set", 9)[0], 9)

    def test_a_stopped_device_is_no_peer(self):
        self.start()
        stopped = self.hold("--slice", "0", device=EDU)
        with self.client() as caller:
            caller.ask({"op": "revoke", "grant": caller.grants()[0]["grant"], "reset": True})
        self.refused("was stopped", EDU, free=False)
        stopped.kill()
        stopped.wait()
        self.free_again()
        client = self.hold("--slice", "0")
        self.edu(hex(BASE), "0x44")
        self.assertEqual(self.tell(client, "get"), [0x44, 0x44])

    def test_a_reset_by_the_client_cuts_the_peer_off(self):
        """Of a virtio device, whose window begins with a register that keeps what is written to it (device_feature_select)."""
        path = self.profile(match={"vendor": "0x1af4", "device": "0x1042"}, region="bar4")
        with open(path) as file:
            document = json.load(file)
        document["slices"] = 1
        document["device"]["ioctls"] = ["VFIO_DEVICE_RESET"]
        document["device"]["windows"][0]["length"] = "4KiB"
        with open(path, "w") as file:
            json.dump(document, file)
        for backend in ("iommufd", "cdev"):
            with self.subTest(backend=backend):
                self.start_broker([{"name": "blk", "device": BLK2, "profile": path, "backend": backend, "allow": []},
                                   {"name": "edu", "device": EDU, "profile": "edu", "backend": backend, "allow": []}])
                self.reset_and_look()
                self.stop_broker()

    def reset_and_look(self):
        client = self.hold(device=BLK2)
        self.assertEqual(self.tell(client, "set", 5)[0], 5)
        self.assertIn("0x05 at", self.edu("--read", hex(BASE)))
        self.tell(client, "reset")
        self.assertEqual(self.tell(client, "set", 6)[0], 6, "the client's own mapping is there again")
        self.assertNotIn("0x06 at", self.edu("--read", hex(BASE)))
        self.finish(client)
        self.free_again()
        client = self.hold(device=BLK2)
        self.tell(client, "set", 7)
        self.assertIn("0x07 at", self.edu("--read", hex(BASE)))
        self.finish(client)
        self.free_again()

    def test_a_dmabuf_is_guarded_like_the_device(self):
        """Whoever has an iommufd could let its own device reach the window with it, also when that is another client's."""
        with open(self.profile()) as file:
            document = json.load(file)
        document["device"].pop("peers")
        document["device"]["windows"][0]["methods"] = ["mmap", "dmabuf"]
        libc = ctypes.CDLL(None, use_errno=True)
        for forward in ("sandbox", "anyone"):
            with self.subTest(forward=forward):
                document["device"]["forward"] = forward
                with open(f"{self.folder}/ram.json", "w") as file:
                    json.dump(document, file)
                self.start_broker([{"name": "ram", "device": IVSHMEM, "profile": f"{self.folder}/ram.json", "allow": []}])
                client = self.hold("--slice", "0")
                pid, number = dmabuf_of_a_client()
                pidfd = os.pidfd_open(pid)
                taken = libc.syscall(438, pidfd, number, 0)  # pidfd_getfd
                error = ctypes.get_errno()
                os.close(pidfd)
                if forward == "sandbox":
                    self.assertEqual((taken, error), (-1, errno.EPERM))
                    self.finish(client)
                    self.free_again()
                else:
                    self.assertGreaterEqual(taken, 0, os.strerror(error))
                    self.finish(client)
                    self.assertTrue(wait_until(self.is_held_up, PATIENCE), self.log())
                    self.refused("slice 0 is in use", device=IVSHMEM, flags=["--slice", "0"], free=False)
                    os.close(taken)
                    self.free_again()
                    self.finish(self.hold("--slice", "0"))  # the control
                self.stop_broker()

    def test_a_dmabuf_of_a_revoked_window_is_mapped_nowhere(self):
        """By whoever may have it, "anyone" here: ENODEV."""
        with open(self.profile()) as file:
            document = json.load(file)
        document["device"].pop("peers")
        document["device"].update(forward="anyone")
        document["device"]["windows"][0]["methods"] = ["mmap", "dmabuf"]
        with open(f"{self.folder}/ram.json", "w") as file:
            json.dump(document, file)
        self.start_broker([{"name": "ram", "device": IVSHMEM, "profile": f"{self.folder}/ram.json", "allow": []}])
        client = self.hold("--slice", "0")
        pid, number = dmabuf_of_a_client()
        libc = ctypes.CDLL(None, use_errno=True)
        pidfd = os.pidfd_open(pid)
        taken = libc.syscall(438, pidfd, number, 0)  # pidfd_getfd
        os.close(pidfd)
        self.assertGreaterEqual(taken, 0)
        self.assertEqual(map_of_ones_own(taken), 0, "the control")
        with self.client() as caller:
            caller.ask({"op": "revoke", "grant": caller.grants()[0]["grant"], "reset": True})
        self.assertEqual(map_of_ones_own(taken), errno.ENODEV)
        os.close(taken)
        client.kill()
        self.free_again()

    def test_unbinding_waits_for_everybody(self):
        self.start()
        client = self.hold("--slice", "0")
        unbind = subprocess.Popen(["/bin/sh", "-c", f"echo {IVSHMEM} > /sys/bus/pci/drivers/vfio-pci/unbind"])
        self.addCleanup(postern, "bind", IVSHMEM)
        time.sleep(1)
        self.assertIsNone(unbind.poll())
        self.edu(hex(BASE), "0x66")
        self.assertEqual(self.tell(client, "get"), [0x66, 0x66])
        self.finish(client)
        self.free_again()
        self.assertIsNone(unbind.poll(), "the broker has it")
        self.stop_broker()
        self.assertEqual(unbind.wait(PATIENCE), 0)

    def test_what_cannot_be(self):
        bad = ({"edu_backend": "type1"}, ("device.peers[0]", f"device {EDU}", '"type1"', '"cdev"')), \
              ({"edu": False}, ("device.peers[0]", f"has no device {EDU}", "devices.d")), \
              ({"iova": {"base": "0x1000000", "stride": hex(SIZE)}}, ("device.peers[0]", 'overlaps dma "buffer"')), \
              ({"iova": {"base": "0xfee00000", "stride": hex(SIZE)}}, ("device.peers[0]", "is not in what the IOMMU maps"))
        for changes, words in bad:
            with self.subTest(changes=changes):
                self.start(**changes)
                self.refused(*words)
                self.stop_broker()
        self.start()
        self.finish(self.hold())  # the control

    def test_two_windows_at_one_place(self):
        self.start(iova=hex(BASE))  # no stride: refused when the profile is read
        self.refused("device.peers[0]", "overlaps")

    def test_in_one_group(self):
        for bdf in (SHARED_A, SHARED_B):
            self.assertEqual(postern("bind", bdf).returncode, 0)
            self.addCleanup(postern, "unbind", bdf)
        # Before they are given back: a group that the broker has is no other driver's.
        self.addCleanup(self.stop_broker)
        path = self.profile(match={"vendor": "0x1b36", "device": "0x0005"}, device=SHARED_B)
        self.start_broker([{"name": "a", "device": SHARED_A, "profile": path, "allow": []},
                           {"name": "b", "device": SHARED_B, "profile": "virtio-blk-queue", "allow": []}])
        self.refused("device.peers[0]", "in one IOMMU group", device=SHARED_A)

    def test_who_owns_one_device_only(self):
        result = postern("run", "--broker", "none", "--device", IVSHMEM, "--profile", self.profile(), "--", "/bin/true")
        self.assertEqual(result.returncode, 125)
        self.assertIn("device.peers[0]", result.stderr)
        self.assertIn("postern broker", result.stderr)


class WhereTheKernelForbidsIt(Lab):
    """Debian's kernels have no iommufd, and older ones no dma-buf of a BAR."""

    def test_it_says_so(self):
        exports = tuple(map(int, os.uname().release.split(".")[:2])) >= (6, 19)
        self.start(None)
        self.refused("device.peers[0]", *(("maps no window of another device", '"type1"') if exports else ("exports no dma-buf", "Linux 6.19")))
        self.stop_broker()
        # The control: without peers it is a device like others.
        with open(self.profile()) as file:
            document = json.load(file)
        document["device"].pop("peers")
        with open(f"{self.folder}/ram.json", "w") as file:
            json.dump(document, file)
        self.start_broker([{"name": "ram", "device": IVSHMEM, "profile": f"{self.folder}/ram.json", "allow": []}])
        client = self.hold()
        self.assertEqual(self.tell(client, "set", 3)[0], 3)
        self.finish(client)
        self.free_again()


# Which of them this kernel has.
if os.path.exists("/dev/iommu"):
    del WhereTheKernelForbidsIt
else:
    del Peers


def setUpModule():
    for bdf in (EDU, IVSHMEM, BLK2):
        bound = postern("bind", bdf)
        if bound.returncode != 0:
            raise RuntimeError(bound.stderr)


def tearDownModule():
    for bdf in (EDU, IVSHMEM, BLK2):
        postern("unbind", bdf)


if __name__ == "__main__":
    unittest.main(verbosity=2)

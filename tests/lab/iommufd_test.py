#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Backends of a device and its IOMMU, and memory that clients map themselves, on the lab's kernel with iommufd and the
VFIO cdev and on one that has neither."""
import json
import os
import shutil
import subprocess
import tempfile
import time
import unittest

BUILD = os.environ["POSTERN_BUILD"]
POSTERN = f"{BUILD}/bin/postern"
CLIENT = f"{BUILD}/examples/edu-dma-map"
EDU = os.environ["LAB_EDU"]
HAS_IOMMUFD = os.path.exists("/dev/iommu")
HAS_MSEAL = tuple(map(int, os.uname().release.split(".")[:2])) >= (6, 10)
BASE, STRIDE, SIZE = 0x1000000, 0x100000, 0x10000


def profile(**changes):
    dma_map = {"iova": {"base": hex(BASE), "stride": hex(STRIDE)}, "size": hex(SIZE), **changes.pop("dma_map", {})}
    return {"postern": 1, "slices": 3, "include": [], **changes.pop("top", {}), "device": {
        "match": {"vendor": "0x1234", "device": "0x11e8"},
        "windows": [{"name": "registers", "region": "bar0", "offset": 0, "length": 4096, "access": "rw", "methods": ["mmap"],
                     "shared_page": True}],
        "dma_map": dma_map, **changes}}


class Lab(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="iommufd-", dir="/opt")
        os.chmod(self.folder, 0o755)
        self.addCleanup(shutil.rmtree, self.folder)

    def write(self, document):
        path = f"{self.folder}/profile.json"
        with open(path, "w") as file:
            json.dump(document, file)
        return path

    def run_client(self, *words, document=None, backend="auto", options=(), command=None):
        path = self.write(document or profile())
        return subprocess.run([POSTERN, "run", "--quiet", "--backend", backend, "--device", EDU, "--profile", path, *options, "--",
                               *(command or [CLIENT, *words])], capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)

    def assertRan(self, result):
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)

    def assertRefused(self, result, *words):
        self.assertEqual(result.returncode, 125, result.stdout + result.stderr)
        self.assertEqual(result.stderr.count("\n"), 1, result.stderr)
        for word in words:
            self.assertIn(word, result.stderr)


def setUpModule():
    subprocess.run([POSTERN, "bind", EDU], check=True, capture_output=True)


class Choosing(Lab):
    def test_each_that_there_is(self):
        edu = ["--backend", "x", "--device", EDU, "--profile", "edu", "--", f"{BUILD}/examples/edu-client"]
        for backend in ("auto", "type1", "iommufd", "cdev"):
            edu[1] = backend
            result = subprocess.run([POSTERN, "run", "--quiet", *edu], capture_output=True, text=True, timeout=120)
            if HAS_IOMMUFD or backend in ("auto", "type1"):
                self.assertRan(result)
                self.assertIn("irq: raised", result.stdout)
            else:
                self.assertRefused(result, f'backend "{backend}"', "CONFIG_IOMMUFD")

    def test_by_the_environment(self):
        result = subprocess.run([POSTERN, "run", "--quiet", "--device", EDU, "--profile", "edu", "--", "/bin/true"], capture_output=True,
                                text=True, timeout=120, env={**os.environ, "POSTERN_BACKEND": "best"})
        self.assertRefused(result, "$POSTERN_BACKEND", '"best"', "cdev")

    def test_what_only_an_iommufd_does(self):
        if not HAS_MSEAL:
            self.assertRefused(self.run_client(), "device.dma_map", "mseal(2)")
            return
        self.assertRefused(self.run_client(backend="type1"), '"dma_map"', '"type1"')
        if not HAS_IOMMUFD:
            self.assertRefused(self.run_client(), '"dma_map"', "/dev/iommu")


if HAS_IOMMUFD:  # what another kernel does instead is Choosing's to show
    class WithoutGroups(Lab):
        """As on a kernel without CONFIG_VFIO_GROUP: there are no nodes of groups."""

        def setUp(self):
            super().setUp()
            self.addCleanup(self.rebind)
            os.unlink("/dev/vfio/" + os.path.basename(os.readlink(f"/sys/bus/pci/devices/{EDU}/iommu_group")))

        def test_the_cdev_is_taken_and_no_unbinding_hangs(self):
            first = subprocess.Popen([POSTERN, "run", "--quiet", "--device", EDU, "--profile", self.write(profile()), "--", "sh", "-c",
                                      "echo up; exec sleep 60"], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
            self.assertEqual(first.stdout.readline(), "up\n")
            files = [os.readlink(f"/proc/{first.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{first.pid}/fd")]
            self.assertTrue([path for path in files if path.startswith("/dev/vfio/devices/")], files)
            used = subprocess.run([POSTERN, "unbind", EDU], capture_output=True, text=True, timeout=60)
            self.assertNotEqual(used.returncode, 0)
            self.assertIn("is in use", used.stderr)
            first.terminate()
            first.wait(timeout=60)
            first.stdout.close()
            self.assertRan(self.run_client())
            self.rebind()
            self.assertRan(self.run_client(backend="iommufd"))

        def rebind(self):
            """The next group has its node again."""
            for verb in ("unbind", "bind"):
                subprocess.run([POSTERN, verb, EDU], check=True, capture_output=True, timeout=60)

    class Taken(Lab):
        def test_it_is_said_and_later_it_can_be_had(self):
            for backend, what in (("cdev", "/dev/vfio/devices/"), ("iommufd", "/dev/vfio/")):
                path = self.write(profile())
                first = subprocess.Popen([POSTERN, "run", "--quiet", "--backend", backend, "--device", EDU, "--profile", path, "--", "sh", "-c",
                                          "echo up; exec sleep 60"], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
                self.assertEqual(first.stdout.readline(), "up\n")
                self.assertRefused(self.run_client(backend=backend), "is busy", what, "(postern")
                first.terminate()
                first.wait(timeout=60)
                first.stdout.close()
                self.assertRan(self.run_client(backend=backend))

    class OwnMemory(Lab):
        def both(self):
            for backend in ("iommufd", "cdev"):
                with self.subTest(backend=backend):
                    yield backend

        def test_the_device_reads_and_writes_it(self):
            for backend in self.both():
                for slice_number in (0, 2):
                    result = self.run_client("--foreign", hex(BASE + STRIDE), backend=backend, options=["--slice", str(slice_number)])
                    self.assertRan(result)
                    self.assertIn(f"at {hex(BASE + slice_number * STRIDE)} into the device and back", result.stdout)
                    self.assertIn(f"{hex(BASE + STRIDE)} is refused", result.stdout)

        def test_a_file_is_only_read(self):
            for backend in self.both():
                result = self.run_client("--file", backend=backend)
                self.assertRan(result)
                self.assertIn("a file is read by the device, and not written", result.stdout)

        def test_only_in_its_own_part(self):
            # The control: in its own slice, 1, the same address is a client's to use, and taken already.
            for backend in self.both():
                result = self.run_client("--foreign", hex(BASE + STRIDE), backend=backend, options=["--slice", "1"])
                self.assertEqual(result.returncode, 1, result.stdout + result.stderr)
                self.assertIn("mapping at 0x1100000: File exists", result.stderr)

        def test_what_is_left_is_unmapped(self):
            for backend in self.both():
                pool = subprocess.run([POSTERN, "pool", "--quiet", "--backend", backend, "--device", EDU, "--profile", self.write(profile(
                    top={"slices": 1})), "--", CLIENT, ":::", "--leave", "--leave", "--leave"],
                    capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
                self.assertRan(pool)
                self.assertEqual(pool.stdout.count("into the device and back"), 3, pool.stdout)

        def test_access_is_the_most(self):
            for backend in self.both():
                result = self.run_client(document=profile(dma_map={"access": "r"}), backend=backend)
                self.assertEqual(result.returncode, 1)
                self.assertIn("Operation not permitted", result.stderr)

        def test_beside_memory_that_is_mapped_for_it(self):
            own = profile(dma=[{"name": "buffer", "size": "64KiB", "iova": {"base": hex(BASE + SIZE), "stride": hex(STRIDE)}}])
            for backend in self.both():
                self.assertRan(self.run_client("--foreign", hex(BASE + SIZE), document=own, backend=backend))

        def test_what_does_not_fit(self):
            for change, words in (({"iova": "0xfee00000"}, ("device.dma_map", "is not in what the IOMMU maps")),
                                  ({"iova": "0x1000800"}, ("device.dma_map", "page aligned")),
                                  ({"size": "4097"}, ("device.dma_map", "multiple of the page size")),
                                  ({"iova": {"base": hex(BASE), "stride": "0x8000"}}, ("device.dma_map",))):
                document = profile(dma_map=change, top={"slices": 1 if "stride" not in str(change) else 3})
                self.assertRefused(self.run_client(document=document), *words)
            overlap = profile(dma=[{"name": "buffer", "size": "64KiB", "iova": hex(BASE + 0x1000)}], top={"slices": 1})
            self.assertRefused(self.run_client(document=overlap), "overlaps", "dma_map")
            self.assertRefused(self.run_client(document=profile(forward="anyone")), "dma_map", '"sandbox"')

        def test_the_guard_says_so(self):
            path = self.write(profile())
            shown = subprocess.run([POSTERN, "profile", "explain", path], capture_output=True, text=True)
            self.assertIn("memory of its own, mapped at IOVA", shown.stdout, shown.stderr)
            for backend in self.both():
                listed = self.run_client(backend=backend, command=["sh", "-c", "cat /proc/self/fd/3"])
                manifest = json.loads(listed.stdout)
                self.assertEqual(manifest["dma_map"]["iova"], BASE)
                self.assertEqual(manifest["dma_map"]["fd"], "iommu")
                self.assertIn("iommu", manifest["fds"])


if __name__ == "__main__":
    unittest.main(verbosity=2)

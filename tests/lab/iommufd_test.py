#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Backends of a device and its IOMMU, and memory that clients map themselves, on the lab's kernel with iommufd and the
VFIO cdev and on one that has neither."""
import errno
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
import unittest

BUILD = os.environ["POSTERN_BUILD"]
POSTERN = f"{BUILD}/bin/postern"
CLIENT = f"{BUILD}/examples/edu-dma-map"
EDU, BLK2 = os.environ["LAB_EDU"], os.environ["LAB_VIRTIO_BLK2"]
HAS_IOMMUFD = os.path.exists("/dev/iommu")
HAS_MSEAL = tuple(map(int, os.uname().release.split(".")[:2])) >= (6, 10)
BASE, STRIDE, SIZE = 0x1000000, 0x100000, 0x10000


# Sends its guarded iommufd over stdin, and lives until somebody answers.
SENDER = """
import json, os, socket
grant = json.loads(os.pread(3, 1 << 16, 0))
stdin = socket.socket(fileno=0)
socket.send_fds(stdin, [b"x"], [grant["fds"][grant["dma_map"]["fd"]]])
stdin.recv(1)
"""
# Binds a device to what it receives over stdin, and to an iommufd of its own.
BINDER = """
import fcntl, os, socket, struct, sys
received = socket.recv_fds(socket.socket(fileno=0), 1, 1)[1]
for iommu in (*received, os.open("/dev/iommu", os.O_RDWR)):
    device = os.open(sys.argv[1], os.O_RDWR)
    fcntl.ioctl(device, 0x3b76, struct.pack("<IIiI", 16, 0, iommu, 0))  # VFIO_DEVICE_BIND_IOMMUFD
    print("received" if iommu in received else "own")
    os.close(device)
"""
# Calls on its guarded iommufd as any program makes them: a line of JSON with errno, or 0, of each.
NATIVE = """
import ctypes, fcntl, json, os, struct, sys, time
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
grant = json.loads(os.pread(3, 1 << 16, 0))
part = grant["dma_map"]
fd = grant["fds"][part["fd"]]
def pages(number):
    return libc.mmap(None, number * 4096, 3, 0x22, -1, 0)
def block_of(data, sealed):
    if not sealed:
        at = pages(1)
        ctypes.memmove(at, data, len(data))
        return at
    file = os.memfd_create("block", 2 | 8)  # MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL
    os.ftruncate(file, 4096)
    os.pwrite(file, data, 0)
    fcntl.fcntl(file, 1033, 2 | 4 | 8)  # F_ADD_SEALS: shrink, grow, write
    at = libc.mmap(None, 4096, 1, 0x8001, file, 0)  # MAP_SHARED | MAP_POPULATE
    os.close(file)
    if libc.syscall(462, ctypes.c_void_p(at), ctypes.c_size_t(4096), ctypes.c_ulong(0)) != 0:
        sys.exit("mseal: " + os.strerror(ctypes.get_errno()))
    return at
def call(number, data, sealed=True, done=0):
    at = block_of(data, sealed)
    error = 0 if libc.ioctl(fd, ctypes.c_ulong(number), ctypes.c_void_p(at)) == 0 else ctypes.get_errno()
    # It is done, and then the kernel cannot write into the block.
    return 0 if error == 14 and done and call(number, data) == done else error
memory = pages(2)
def map_at(iova, length=4096, flags=7, ioas=part["ioas"], sealed=True, size=40):
    return call(0x3b85, struct.pack("<IIIIQQQ", size, flags, ioas, 0, memory, length, iova), sealed, 17)
def unmap(iova, length=4096, ioas=part["ioas"], sealed=True):
    return call(0x3b86, struct.pack("<IIQQ", 24, ioas, iova, length), sealed, 2)
"""


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

        def test_each_device_has_an_address_space_of_its_own(self):
            """What two clients map at one address of two devices is two things."""
            subprocess.run([POSTERN, "bind", BLK2], check=True, capture_output=True)
            self.addCleanup(subprocess.run, [POSTERN, "unbind", BLK2], check=True, capture_output=True)
            other = profile(top={"slices": 1}, match={"vendor": "0x1af4", "device": "0x1042"}, dma_map={"iova": hex(BASE)},
                            windows=[{"name": "registers", "region": "bar4", "offset": 0, "length": 4096, "access": "r", "methods": ["mmap"]}])
            path = f"{self.folder}/other.json"
            with open(path, "w") as file:
                json.dump(other, file)
            client = NATIVE + "print(map_at(part['iova']), flush=True)\nsys.stdin.readline()\nprint(unmap(part['iova']))"
            for backend in self.both():
                with subprocess.Popen([POSTERN, "run", "--quiet", "--backend", backend, "--device", BLK2, "--profile", path, "--", "/usr/bin/python3", "-c",
                                       client], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holds:
                    self.assertEqual(holds.stdout.readline(), "0\n")
                    for _ in range(2):
                        result = self.run_client(backend=backend)
                        self.assertRan(result)
                        self.assertIn(f"at {hex(BASE)} into the device and back", result.stdout)
                    self.assertEqual(holds.communicate("\n", 120)[0], "0\n")

        def test_nobody_elses_device_is_bound_to_it(self):
            """A driver that is told the number of a file asks no hook: whoever has a device of their own may not receive the file."""
            subprocess.run([POSTERN, "bind", BLK2], check=True, capture_output=True)
            self.addCleanup(subprocess.run, [POSTERN, "unbind", BLK2], check=True, capture_output=True)
            node = "/dev/vfio/devices/" + os.listdir(f"/sys/bus/pci/devices/{BLK2}/vfio-dev")[0]
            mode = os.stat("/dev/iommu").st_mode & 0o777
            os.chmod("/dev/iommu", 0o666)
            self.addCleanup(os.chmod, "/dev/iommu", mode)
            os.chown(node, 5, 5)
            for backend in self.both():
                for uid, bound in ((5, ["own"]), (0, ["received", "own"])):  # root is the control
                    ours, theirs = socket.socketpair()
                    client = subprocess.Popen([POSTERN, "run", "--quiet", "--backend", backend, "--device", EDU, "--profile", self.write(profile()),
                                               "--", "/usr/bin/python3", "-c", SENDER], stdin=theirs)
                    theirs.close()
                    result = subprocess.run(["/usr/bin/python3", "-c", BINDER, node], stdin=ours, user=uid, group=uid, extra_groups=[],
                                            capture_output=True, text=True, timeout=120)
                    ours.close()
                    self.assertEqual((result.stdout.split(), result.returncode), (bound, 0), result.stderr)
                    client.wait(120)

        def test_nothing_else_is_its_to_call(self):
            """Of an iommufd, by number, and of VFIO's container that it can be as well: whatever the block says."""
            numbers = [number for number in range(0x3b80, 0x3ba0) if number not in (0x3b85, 0x3b86, 0x3b8f)]
            numbers += [0x3b64, 0x3b65, 0x3b66, 0x3b70, 0x3b71, 0x3b72]  # VFIO_GET_API_VERSION to VFIO_IOMMU_UNMAP_DMA
            blocks = "[struct.pack('<II', size, part['ioas']) + bytes(size - 8) for size in (8, 24, 32, 40)]"
            for backend in self.both():
                tried = self.run_client(backend=backend, command=["/usr/bin/python3", "-c", NATIVE + f"print(json.dumps([call(number, block, sealed) "
                                        f"for number in {numbers} for block in {blocks} for sealed in (False, True)]))"])
                self.assertRan(tried)
                self.assertEqual(set(json.loads(tried.stdout)), {errno.EPERM})
            # The control: on an iommufd of its own the same calls get answers of the kernel's.
            control = subprocess.run(["/usr/bin/python3", "-c", NATIVE.replace('json.loads(os.pread(3, 1 << 16, 0))',
                                      '{"dma_map": {"fd": "x", "ioas": 1}, "fds": {"x": os.open("/dev/iommu", os.O_RDWR)}}') +
                                      f"print(json.dumps([call(number, {blocks}[0], False) for number in {numbers}]))"],
                                     capture_output=True, text=True, timeout=120)
            self.assertRan(control)
            self.assertNotIn(errno.EPERM, json.loads(control.stdout))

        def test_arguments_are_its_own(self):
            cases = {"map_at(part['iova'])": 0, "map_at(part['iova'] + 4096, sealed=False)": errno.EPERM,
                     "map_at(part['iova'] + 4096, ioas=part['ioas'] + 1)": errno.EPERM, "map_at(part['iova'] + 4096, flags=6)": errno.EPERM,
                     "map_at(part['iova'] + 4096, size=48)": errno.EPERM, "map_at(part['iova'] - 4096)": errno.EPERM,
                     "map_at(part['iova'] + part['size'])": errno.EPERM, "map_at(part['iova'] + 4096, length=(1 << 64) - 4096)": errno.EPERM,
                     "map_at((1 << 64) - 4096, length=8192)": errno.EPERM, "unmap(0, length=(1 << 64) - 1)": errno.EPERM,
                     "unmap(part['iova'], sealed=False)": errno.EPERM, "unmap(part['iova'] + part['size'])": errno.EPERM,
                     "unmap(part['iova'], ioas=part['ioas'] + 1)": errno.EPERM, "unmap(part['iova'])": 0}
            for backend in self.both():
                result = self.run_client(backend=backend, options=["--slice", "1"],
                                         command=["/usr/bin/python3", "-c", NATIVE + f"print(json.dumps([{', '.join(cases)}]))"])
                self.assertRan(result)
                self.assertEqual(dict(zip(cases, json.loads(result.stdout))), cases)

        def test_its_memory_counts_for_itself_alone(self):
            """Two jobs of one user, each with as much as its limit allows, at once."""
            document = profile(top={"slices": 2, "sandbox": {"rlimits": {"memlock": "8KiB"}}})
            client = NATIVE + "print(map_at(part['iova'], 8192), map_at(part['iova'] + 8192), flush=True)\ntime.sleep(3)"
            for backend in self.both():
                pool = subprocess.run([POSTERN, "pool", "--quiet", "--backend", backend, "--device", EDU, "--profile", self.write(document), "--",
                                       "/usr/bin/python3", "-c", client], capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
                self.assertRan(pool)
                self.assertEqual(pool.stdout.count(f"0 {errno.ENOMEM}\n"), 2, pool.stdout)

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
            self.assertRefused(self.run_client(document=profile(dma=[{"name": "buffer", "size": "64KiB", "iova": "0xfee00000"}], top={"slices": 1})),
                               "device.dma[0]", "is not in what the IOMMU maps")
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

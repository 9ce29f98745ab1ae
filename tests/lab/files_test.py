#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The profile key "files": memfds, dma-bufs and character devices under the guard. Runs as root in the guest.

Each client does the same calls once with its guarded file and, as the control, with a plain one."""

import ctypes
import errno
import fcntl
import json
import mmap
import os
import select
import stat
import struct
import subprocess
import sys
import unittest

import e2e_test as e2e
from e2e_test import EDU, POSTERN, left_behind, postern

PAGE = 4096
SEALED = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
DRM_VERSION, DRM_GEM_CLOSE, DRM_GET_CAP = 0xC0406400, 0x40086409, 0xC010640C
UDMABUF_CREATE, UDMABUF_CREATE_LIST = 0x40187542, 0x40087543
DMA_BUF_SYNC, DMA_BUF_SET_NAME = 0x40086200, 0x40086201
BIOS = 0xF0000  # of /dev/mem: the last ROM page that CONFIG_STRICT_DEVMEM shows, never written

# Evaluates each argument and prints what came of it: a value, or the errno's name.
CLIENT = r"""
import array, ctypes, errno, fcntl, json, mmap, os, signal, socket, struct, sys
names = os.environ.get("LISTEN_FDNAMES", "").split(":")
fds = {name: 3 + i for i, name in enumerate(names)}
file = next((fds[name] for name in names if name.startswith("file.")), 3)
manifest = lambda: json.loads(os.pread(fds["manifest"], 1 << 20, 0))
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = libc.mremap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.mremap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int]
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
def done(value):
    if value in (-1, 2**64 - 1): raise OSError(ctypes.get_errno(), "")
    return value
def at(offset, length=4096, prot=1, fd=None):
    return done(libc.mmap(None, length, prot, 1, file if fd is None else fd, offset))
def byte(address):
    return ctypes.string_at(address, 1)[0]
def ioctl(number, block=b"", fd=None):
    return fcntl.ioctl(file if fd is None else fd, number, bytearray(block) if block else 0) and 1
def protected(address, prot):
    return done(libc.mprotect(address, 4096, prot))
def grown(address):  # a byte behind the mapping, in a child: it may be killed for it
    moved = done(libc.mremap(address, 4096, 8192, 1))
    child = os.fork()
    if child == 0:
        byte(moved + 4096)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
def again(path=None, flags=os.O_RDWR):
    return os.open(path or f"/proc/self/fd/{file}", flags)
def sent(fd):  # through a socket whose other end is in the same sandbox
    a, b = socket.socketpair()
    child = os.fork()
    if child == 0:
        got = b.recvmsg(1, 64)[1]
        os._exit(len(got) and 1)
    a.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))])
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
results = []
for word in sys.argv[1:]:
    try:
        value = eval(word)
        results.append(value if isinstance(value, (int, str, list, dict)) else value.decode("latin1") if isinstance(value, bytes) else None)
    except OSError as error:
        results.append(errno.errorcode[error.errno])
print(json.dumps(results))
"""


def memfd(pages=4, seals=SEALED):
    fd = os.memfd_create("test", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
    for page in range(pages):
        os.pwrite(fd, bytes([0x40 + page]) * PAGE, page * PAGE)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


def window(offset, length=PAGE, *methods, access="rw", name="w"):
    return {"name": name, "offset": offset, "length": length, "access": access, "methods": list(methods) or ["mmap"]}


class Files(e2e.Lab):
    def profile(self, *files, **more):
        path = f"{self.folder}/files.json"
        with open(path, "w") as out:
            json.dump({"postern": 1, "files": list(files), **more}, out)
        return path

    def run_client(self, profile, *words, fds=(), options=()):
        return postern("run", "--quiet", *(["--profile", profile] if profile else []), *options, "--", sys.executable, "-c", CLIENT, *words,
                       pass_fds=fds)

    def answers(self, *args, **kwargs):
        result = self.run_client(*args, **kwargs)
        self.assertEqual(result.returncode, 0, result.stderr)
        return json.loads(result.stdout)

    def check(self, profile, expected, **kwargs):
        """`expected`: a call of the client's → what comes of it."""
        self.assertEqual(dict(zip(expected, self.answers(profile, *expected, **kwargs))), expected)


class Memfd(Files):
    def test_windows_of_a_memfd(self):
        fd = memfd()
        self.addCleanup(os.close, fd)
        before = left_behind()
        words = {
            "manifest()['files'][0]['windows'][0]['mmap']": {"fd": "file.memory", "offset": 2 * PAGE},
            f"byte(at({2 * PAGE}))": 0x42,
            f"byte(at({3 * PAGE}, prot=3))": 0x43,
            f"at({PAGE})": "EPERM",
            f"at({2 * PAGE}, {3 * PAGE})": "EPERM",
            f"os.pread(file, 2, {PAGE + 16})": "AA",
            f"os.pread(file, 2, {PAGE + 15})": "EPERM",
            f"os.pwrite(file, b'x', {PAGE + 16})": "EPERM",
            "os.read(file, 1)": "EPERM",
            "os.sendfile(1, file, 0, 1)": "EPERM",
            f"os.preadv(file, [bytearray(1)], {PAGE + 16})": "EPERM",
            "os.ftruncate(file, 0)": "EPERM",
            "fcntl.fcntl(file, 1033, 8)": "EPERM",
            f"os.pread(again(), 1, {PAGE + 16})": "EPERM",
            f"at({2 * PAGE}, fd=again())": "EPERM",
            f"byte(at({2 * PAGE}, fd=os.dup(file)))": 0x42,
            "ioctl(0x541b, b'1234')": "EPERM",
            f"done(libc.fallocate(file, 3, {PAGE}, {PAGE}))": "EPERM",
            f"os.copy_file_range(file, file, 1, 0, {2 * PAGE})": "EPERM",
        }
        profile = self.profile({"name": "memory", "fd": fd, "windows": [
            window(2 * PAGE, 2 * PAGE), window(PAGE + 16, 4, "pread", access="r", name="p")]})
        self.check(profile, words, fds=[fd])
        self.assertEqual(left_behind(), {**before, "links": left_behind()["links"]})

        # The control: the same calls on a file that no profile knows, in a sandbox alike.
        plain = memfd()
        self.addCleanup(os.close, plain)
        os.lseek(plain, 0, os.SEEK_SET)
        run = subprocess.run([POSTERN, "run", "--quiet", "--", sys.executable, "-c", CLIENT, "os.read(0, 1)",
                              f"os.preadv(0, [bytearray(1)], {PAGE})", f"byte(at({PAGE}, fd=0))", f"at({PAGE}, {3 * PAGE}, fd=0) > 0",
                              f"os.pwrite(0, b'x', {PAGE + 16})", f"os.pread(again('/proc/self/fd/0'), 1, {PAGE + 16})"],
                             stdin=plain, capture_output=True, text=True, timeout=100)
        self.assertEqual(json.loads(run.stdout), ["@", 1, 0x41, True, 1, "x"], run.stderr)

    def test_a_mapping_that_grows_finds_nothing(self):
        fd = memfd()
        self.addCleanup(os.close, fd)
        # To the end: what lies behind it is no memory. SIGBUS is the client's own fault.
        to_the_end = self.profile({"name": "memory", "fd": fd, "windows": [window(3 * PAGE)]})
        self.check(to_the_end, {f"byte(at({3 * PAGE}))": 0x43, f"grown(at({3 * PAGE}))": -7}, fds=[fd])
        for offset in (0, 2 * PAGE):
            short = memfd()
            self.addCleanup(os.close, short)
            refused = self.run_client(self.profile({"name": "memory", "fd": short, "windows": [window(offset)]}), "1", fds=[short])
            self.assertRefused(refused, "mremap", "F_SEAL_GROW", "pread")
            # By pread the same piece is granted.
            piece = self.profile({"name": "memory", "fd": short, "windows": [window(offset, PAGE, "pread")]})
            self.check(piece, {f"os.pread(file, 1, {offset})": chr(0x40 + offset // PAGE), f"at({offset})": "EPERM"}, fds=[short])

    def test_only_what_the_guard_sees_all_of(self):
        regular = open(f"{self.folder}/regular", "w+b")
        self.addCleanup(regular.close)
        os.truncate(regular.name, PAGE)
        unsealed = memfd(seals=fcntl.F_SEAL_GROW)
        read, write = os.pipe()
        poll = select.epoll()
        self.addCleanup(poll.close)
        refused = self.run_client(self.profile({"name": "thing", "fd": poll.fileno()}), "1", fds=[poll.fileno()])
        self.assertRefused(refused, "eventpoll", "dma-bufs")
        for fd, says in ((unsealed, "F_SEAL_SHRINK"), (regular.fileno(), "sealed"), (read, "neither"),
                         (os.open("/", os.O_RDONLY), "mount")):
            with self.subTest(fd=os.readlink(f"/proc/self/fd/{fd}")):
                profile = self.profile({"name": "thing", "fd": fd})
                self.assertRefused(self.run_client(profile, "1", fds=[fd]), 'file "thing"', says)
            os.close(fd) if fd != regular.fileno() else None
        os.close(write)
        os.mkfifo(f"{self.folder}/fifo")
        for path, says in ((regular.name, "character device"), (f"{self.folder}/fifo", "character device"), ("/dev/nothing", "No such file"),
                           ("/", "character device")):
            with self.subTest(path=path):
                self.assertRefused(self.run_client(self.profile({"name": "thing", "path": path}), "1"), path, says)
        sealed = memfd()
        self.addCleanup(os.close, sealed)
        self.check(self.profile({"name": "thing", "fd": sealed}), {"1": 1}, fds=[sealed])

    def test_what_else_a_memfd_could_be_used_for(self):
        fd = memfd()
        self.addCleanup(os.close, fd)
        end = 3 * PAGE
        # A writable memfd's mapping can be filled where it has holes, whatever its protection.
        mapped = self.profile({"name": "m", "fd": fd, "windows": [window(end, access="r")]})
        self.assertRefused(self.run_client(mapped, "1", fds=[fd]), "O_RDONLY")
        read_only = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)
        self.addCleanup(os.close, read_only)
        readable = self.profile({"name": "m", "fd": read_only, "windows": [window(end, access="r")]})
        self.check(readable, {f"byte(at({end}))": 0x43, f"at({end}, prot=3)": "EPERM", f"protected(at({end}), 3)": "EACCES"}, fds=[read_only])
        # Outside of the sandbox it could be opened anew.
        anyone = self.profile({"name": "m", "fd": fd, "forward": "anyone"})
        self.assertRefused(self.run_client(anyone, "1", fds=[fd]), "forward", "anew")
        # The file is as it was: nothing that failed has put a policy on it.
        self.assertEqual(os.pread(fd, 1, PAGE), b"A")
        windows = self.profile({"name": "m", "fd": fd, "windows": [window(end)]})
        self.check(windows, {f"protected(at({end}, prot=3), 7)": "EPERM", f"protected(at({end}), 3)": 0, f"byte(at({end}))": 0x43}, fds=[fd])
        plain = memfd()
        self.addCleanup(os.close, plain)
        mapping = mmap.mmap(plain, PAGE)
        self.addCleanup(mapping.close)
        libc = ctypes.CDLL(None, use_errno=True)
        address = ctypes.addressof(ctypes.c_char.from_buffer(mapping))
        self.assertEqual(libc.mprotect(ctypes.c_void_p(address), PAGE, 7), 0)

    def test_a_failed_launch_leaves_the_file_alone(self):
        fd = memfd()
        self.addCleanup(os.close, fd)
        good = {"name": "m", "fd": fd, "windows": [window(0, 1, "pread")]}
        for files, command in (([good, {"name": "n", "path": "/dev/mem", "windows": [window(1 << 62)]}], sys.executable),
                               ([good], "/nowhere")):
            profile = self.profile(*files, sandbox={"root": {"path": "/"}})
            run = postern("run", "--quiet", "--profile", profile, "--", command, "-c", "", pass_fds=[fd])
            self.assertIn(run.returncode, (125, 127), run.stderr)
            self.assertEqual(os.pread(fd, 1, PAGE), b"A", run.stderr)
        self.check(self.profile(good), {"os.pread(file, 1, 0)": "@", f"os.pread(file, 1, {PAGE})": "EPERM"}, fds=[fd])

    def test_named_and_numbered_fds(self):
        fd = memfd()
        self.addCleanup(os.close, fd)
        pread = [window(0, 1, "pread")]
        for source, says in ((fd + 100, "not open"), (1, "standard"), ("pages", "no named fds")):
            self.assertRefused(self.run_client(self.profile({"name": "m", "fd": source}), "1", fds=[fd]), says)
        # By name; the fd has to be number 3, as sd_listen_fds(3) has it.
        script = 'exec 3<&"$0"; export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=pages; exec "$@"'
        for name, works in (("pages", True), ("page", False)):
            profile = self.profile({"name": "m", "fd": name, "windows": pread})
            line = [POSTERN, "run", "--quiet", "--profile", profile, "--", sys.executable, "-c", CLIENT, "os.pread(file, 1, 0)"]
            named = memfd()
            run = subprocess.run(["bash", "-c", script, str(named), *line], pass_fds=[named], capture_output=True, text=True, timeout=100,
                                 stdin=subprocess.DEVNULL)
            os.close(named)
            if works:
                self.assertEqual((run.returncode, run.stdout.strip()), (0, '["@"]'), run.stderr)
            else:
                self.assertRefused(run, '"page"', "LISTEN_FDNAMES")

    def test_one_open_file_has_one_policy(self):
        fd = memfd()
        self.addCleanup(os.close, fd)
        profile = self.profile({"name": "m", "fd": fd, "windows": [window(0, 1, "pread")]})
        self.check(profile, {"os.pread(file, 1, 0)": "@"}, fds=[fd])
        # The file is still open here, and guarded here as well: that is what was asked for.
        self.assertRaises(PermissionError, os.pread, fd, 1, PAGE)
        self.assertEqual(os.pread(fd, 1, 0), b"@")
        self.assertRefused(self.run_client(profile, "1", fds=[fd]), "guarded")
        several = self.profile({"name": "m", "fd": fd}, slices=2)
        self.assertRefused(self.run_client(several, "1", fds=[fd]), "files[0].fd", "path")

    def test_forward(self):
        for forward, reaches in (("sandbox", 1), ("never", 0)):
            fd = memfd()
            self.addCleanup(os.close, fd)
            self.check(self.profile({"name": "m", "fd": fd, "forward": forward}), {"sent(file)": reaches, "sent(1)": 1}, fds=[fd])


class CharacterDevice(Files):
    def test_the_memory_device(self):
        # A device whose mappings cannot grow: any window will do.
        profile = self.profile({"name": "bios", "path": "/dev/mem", "access": "r", "windows": [
            window(BIOS, PAGE, "mmap", "pread", access="r")]})
        with open("/dev/mem", "rb", buffering=0) as memory:
            there = os.pread(memory.fileno(), 1, BIOS).decode("latin1")
            self.assertTrue(mmap.mmap(memory.fileno(), PAGE, mmap.MAP_SHARED, mmap.PROT_READ, offset=BIOS + PAGE))
            os.pread(memory.fileno(), 1, BIOS + PAGE)
        self.check(profile, {
            f"os.pread(file, 1, {BIOS})": there, f"byte(at({BIOS}))": ord(there),
            f"os.pread(file, 1, {BIOS + PAGE})": "EPERM", f"at({BIOS + PAGE})": "EPERM", f"at({BIOS}, {2 * PAGE})": "EPERM",
            f"grown(at({BIOS}))": "EFAULT", f"protected(at({BIOS}), 3)": "EACCES", f"at({BIOS}, prot=3)": "EPERM", "os.read(file, 1)": "EPERM"})

    def render_node(self):
        subprocess.run(["modprobe", "vgem"], check=True)
        self.assertTrue(e2e.wait_until(lambda: os.path.exists("/dev/dri/renderD128")))
        return "/dev/dri/renderD128"

    def bind(self, source, target):
        return ["--dev-bind", source, target]

    def test_a_render_node(self):
        node = self.render_node()
        profile = self.profile({"name": "gpu", "path": node, "ioctls": [hex(DRM_VERSION)]})
        version, cap = f"ioctl({DRM_VERSION}, bytes(64))", f"ioctl({DRM_GET_CAP}, bytes(16))"
        self.check(profile, {version: 0, cap: "EPERM", "os.read(file, 1)": "EPERM", f"ioctl({DRM_GEM_CLOSE}, bytes(8))": "EPERM"})
        # The control: all of them reach the driver on a file of one's own.
        with open(node, "rb+", buffering=0) as plain:
            fcntl.ioctl(plain, DRM_VERSION, bytearray(64))
            for command, size in ((DRM_GET_CAP, 16), (DRM_GEM_CLOSE, 8)):
                with self.assertRaises(OSError) as caught:
                    fcntl.ioctl(plain, command, bytearray(size))
                self.assertIn(caught.exception.errno, (errno.EINVAL, errno.EOPNOTSUPP))

    def test_no_other_way_to_the_same_device(self):
        node = self.render_node()
        twin = f"{self.folder}/twin"
        os.mknod(twin, 0o666 | stat.S_IFCHR, os.stat(node).st_rdev)
        os.chmod(twin, 0o666)
        os.chmod(node, 0o666)
        os.chmod(self.folder, 0o755)
        binds = [*self.bind(node, "/run/gpu"), *self.bind(twin, "/run/twin")]
        # The paths that are tried are the same in both runs.
        words = {name: f"ioctl({DRM_VERSION}, bytes(64), again('/run/{name}'))" for name in ("gpu", "twin")}
        profile = self.profile({"name": "gpu", "path": node, "ioctls": [hex(DRM_VERSION)]})
        self.check(profile, {words["gpu"]: "EPERM", words["twin"]: "EPERM", f"ioctl({DRM_VERSION}, bytes(64))": 0,
                             f"ioctl({DRM_VERSION}, bytes(64), again())": "EPERM",
                             # The client's own fd is closed then, init's are closed anyway, and only the launcher has one.
                             "os.close(file) or 1": 1, words["gpu"] + " ": "EPERM", words["twin"] + " ": "EPERM"}, options=binds)
        self.check(None, {words["gpu"]: 0, words["twin"]: 0}, options=binds)

    def test_beside_a_device(self):
        node = self.render_node()
        subprocess.run([POSTERN, "bind", EDU], check=True, capture_output=True)
        self.addCleanup(subprocess.run, [POSTERN, "unbind", EDU], check=True, capture_output=True)
        profile = self.profile({"name": "gpu", "path": node, "ioctls": [hex(DRM_VERSION)]}, device={
            "windows": [{"name": "regs", "region": "bar0", "offset": 0, "length": PAGE}], "ioctls": ["VFIO_DEVICE_GET_INFO"]})
        info = "ioctl(0x3b6b, struct.pack('5I', 20, 0, 0, 0, 0), fds['{}'])"
        self.check(profile, {f"ioctl({DRM_VERSION}, bytes(64))": 0, info.format("device"): 0, info.format("file.gpu"): "EPERM",
                             f"ioctl({DRM_VERSION}, bytes(64), fds['device'])": "EPERM",
                             "sorted(manifest()['fds'])": ["device", "file.gpu", "manifest"]}, options=["--device", EDU])


class DmaBuf(Files):
    def setUp(self):
        super().setUp()
        self.memory = memfd(4, fcntl.F_SEAL_SHRINK)
        self.addCleanup(os.close, self.memory)

    def make(self):
        with open("/dev/udmabuf", "rb+", buffering=0) as device:
            return fcntl.ioctl(device, UDMABUF_CREATE, bytearray(struct.pack("IIQQ", self.memory, 0, 0, 4 * PAGE)))

    def test_a_dma_buf(self):
        fd = self.make()
        self.addCleanup(os.close, fd)
        sync, name = f"ioctl({DMA_BUF_SYNC}, struct.pack('Q', 3))", f"ioctl({DMA_BUF_SET_NAME}, b'name\\0')"
        profile = self.profile({"name": "buffer", "fd": fd, "ioctls": ["DMA_BUF_IOCTL_SYNC"]})
        self.check(profile, {sync: 0, name: "EPERM", "at(0)": "EPERM", "again()": "EACCES"}, fds=[fd])
        window_of = self.make()
        self.addCleanup(os.close, window_of)
        whole = self.profile({"name": "buffer", "fd": window_of, "windows": [window(PAGE, PAGE)]})
        self.check(whole, {f"byte(at({PAGE}, prot=3))": 0x41, "at(0)": "EPERM", f"at({PAGE}, {2 * PAGE})": "EPERM",
                           f"grown(at({PAGE}))": "EFAULT", f"at({PAGE}, prot=5)": "EPERM"}, fds=[window_of])
        plain = self.make()
        self.addCleanup(os.close, plain)
        fcntl.ioctl(plain, DMA_BUF_SET_NAME, bytearray(b"name\0"))
        mmap.mmap(plain, PAGE)

    def test_the_device_that_makes_them(self):
        # Of a memfd of the client's own.
        memory = "(lambda m: (os.ftruncate(m, 4096), fcntl.fcntl(m, 1033, 2)) and m)(os.memfd_create('x', 2))"
        one = f"ioctl({UDMABUF_CREATE}, struct.pack('IIQQ', {memory}, 0, 0, 4096))"
        profile = self.profile({"name": "udmabuf", "path": "/dev/udmabuf", "ioctls": ["UDMABUF_CREATE"]})
        self.check(profile, {one: 1, f"ioctl({UDMABUF_CREATE_LIST}, bytes(8))": "EPERM"})


class NoDmaBuf(Files):
    def test_a_device_that_is_not_there(self):
        profile = self.profile({"name": "udmabuf", "path": "/dev/udmabuf", "ioctls": ["UDMABUF_CREATE"]})
        self.assertRefused(self.run_client(profile, "1"), "/dev/udmabuf", "No such file")


# Debian's kernels make dma-bufs of memfds since some version between 6.12 and 7.3.
if os.path.exists("/dev/udmabuf"):
    del NoDmaBuf
else:
    assert int(os.uname().release.split(".")[0]) < 7, "modprobe udmabuf?"
    del DmaBuf


class Commands(Files):
    def test_ps_and_revoke(self):
        fd = memfd()
        self.addCleanup(os.close, fd)
        profile = self.profile({"name": "memory", "fd": fd, "windows": [window(0, 1, "pread")]})
        client = ("import os, sys, time\nprint('ready', flush=True)\nwhile True:\n try: os.pread(4, 1, 0)\n"
                  " except PermissionError: print('revoked', flush=True); break\n time.sleep(0.05)")
        process = self.spawn("run", "--quiet", "--profile", profile, "--", sys.executable, "-c", client, pass_fds=[fd],
                             stdout=subprocess.PIPE, text=True)
        self.assertEqual(process.stdout.readline(), "ready\n")
        listed = json.loads(postern("ps", "--json").stdout)
        self.assertEqual([(each["device"], each["files"], each["profile"]) for each in listed], [("file.memory", 1, "files")])
        self.assertEqual(postern("revoke", listed[0]["grant"]).returncode, 0)
        self.assertEqual(process.stdout.readline(), "revoked\n")
        self.assertEqual(process.wait(timeout=120), 0)

    def test_refusals_are_told_of_the_file(self):
        fd = memfd()
        self.addCleanup(os.close, fd)
        profile = self.profile({"name": "memory", "fd": fd, "windows": [window(0, 1, "pread")]})
        run = subprocess.run([POSTERN, "run", "--profile", profile, "--", sys.executable, "-c", CLIENT, f"os.pread(file, 8, {PAGE})",
                              "ioctl(0x1234)"], pass_fds=[fd], capture_output=True, text=True, timeout=100, stdin=subprocess.DEVNULL)
        self.assertEqual(json.loads(run.stdout), ["EPERM", "EPERM"])
        self.assertIn("the guard refused pread64 of 8 bytes at file offset 0x1000", run.stderr)
        self.assertIn("the guard refused 2 calls", run.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=1)

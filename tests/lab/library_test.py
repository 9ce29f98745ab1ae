#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""libpostern on real devices: the NVMe driver that gives queues away (examples/nvme), and the library itself on QEMU's edu device.
See tests/lab/README.md."""

import contextlib
import ctypes
import errno
import fcntl
import json
import mmap
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from e2e_test import BUILD, EDU, Lab, cgroups, config_space, driver, has_mseal, links_pinned, postern, processes, state, wait_until
from libpostern import (DMABUF, EXITED, FORWARD_ANYONE, FORWARD_NEVER, MMAP, PREAD, READ, SHARED_PAGE, SIGNALED, WRITE, Library, Memory,
                        Region)

NVME = os.environ["LAB_NVME"]
SERVER, CLIENT = f"{BUILD}/examples/nvme-server", f"{BUILD}/examples/nvme-client"
PATIENCE = 300  # seconds, for what takes a moment where nothing else runs
BY_CDEV = os.environ.get("POSTERN_BACKEND") == "cdev"
HOSTILE_CLIENT = f"{BUILD}/examples/hostile-client"
GET_INFO, GROUP_GET_DEVICE, GROUP_SET_CONTAINER, SET_IOMMU = 0x3b6b, 0x3b6a, 0x3b68, 0x3b66
# Reads DEVICE_GET_INFO until it is refused, and says how that went.
ASKING = """
import errno, fcntl, os, sys, time
device = 3 + os.environ["LISTEN_FDNAMES"].split(":").index("device")
asked = 0
while True:
    block = bytearray(20)
    block[0] = 20
    try:
        fcntl.ioctl(device, 0x3b6b, block)
    except OSError as error:
        print(f"refused {errno.errorcode[error.errno]} after {asked > 0}", flush=True)
        sys.exit(0)
    if not asked:
        print("asking", flush=True)
    asked += 1
    time.sleep(0.01)
"""


def left_behind():
    """All that must be as it was before."""
    with open("/proc/self/mountinfo") as file:
        mounts = sorted(line.split(" ")[4] for line in file)
    return {"links": links_pinned(), "cgroups": cgroups(), "mounts": mounts, "drivers": {b: driver(b) for b in (NVME, EDU)},
            "clients": processes("nvme-client") + processes("nvme-server"), "command": {b: config_space(b) for b in (NVME, EDU)},
            "fds": len(os.listdir("/proc/self/fd"))}


class Tidy(Lab):
    def setUp(self):
        super().setUp()
        self.before = left_behind()

    def tearDown(self):
        self.assertTrue(wait_until(lambda: left_behind() == self.before, PATIENCE), f"{left_behind()}, not {self.before}")


@contextlib.contextmanager
def changed_disk():
    """Block 3 with one byte changed; restored at the end."""
    def flip():
        subprocess.run(["modprobe", "nvme"], check=True)
        unbound = postern("unbind", NVME)
        if unbound.returncode != 0:
            raise RuntimeError(unbound.stderr)
        if not wait_until(lambda: os.path.exists("/dev/nvme0n1"), PATIENCE):
            raise RuntimeError("the kernel's driver has no disk")
        with open("/dev/nvme0n1", "r+b", buffering=0) as disk:
            disk.seek(3 * 4096)
            block = bytearray(disk.read(4096))
            block[1234] ^= 1
            disk.seek(3 * 4096)
            disk.write(block)
            os.fsync(disk.fileno())
        bound = postern("bind", NVME)
        if bound.returncode != 0:
            raise RuntimeError(bound.stderr)
        subprocess.run(["modprobe", "-r", "nvme"], check=False)
    flip()
    try:
        yield
    finally:
        flip()


class Nvme(Tidy):
    """The example, as people would start it."""

    def serve(self, *args, **kwargs):
        return subprocess.run([SERVER, "--device", NVME, *map(str, args)], capture_output=True, text=True, timeout=PATIENCE,
                              stdin=subprocess.DEVNULL, **kwargs)

    def start(self, *args):
        process = subprocess.Popen([SERVER, "--device", NVME, *map(str, args)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True)

        def end():
            process.kill()  # which one that was stopped hears, too
            process.communicate()
        self.addCleanup(end)
        return process

    def await_line(self, process, pattern):
        """The next line of its stderr that fits."""
        seen = []
        for line in process.stderr:
            seen.append(line)
            found = re.search(pattern, line)
            if found:
                return found
        self.fail(f"{pattern} in {seen}")

    def test_clients_at_depth_32_at_once(self):
        result = self.serve("--clients", 4, "--", CLIENT, "--reads", 8000, "--json")
        self.assertRan(result)
        reports = sorted((json.loads(line) for line in result.stdout.splitlines()), key=lambda report: report["slice"])
        self.assertEqual([r["slice"] for r in reports], [0, 1, 2, 3])
        for report in reports:
            self.assertEqual((report["depth"], report["reads"], report["verified"]), (32, 8000, 8000))
        print("    reads/s:", *(round(r["reads_per_second"]) for r in reports), file=sys.stderr)
        self.assertIn("weakened: all doorbells", result.stderr)

    def test_clients_ask_nobody(self):
        """They go on to their end while the server is stopped."""
        server = self.start("--clients", 2, "--", CLIENT, "--reads", 20000, "--json")
        for _ in range(2):
            self.await_line(server, "client runs")
        server.send_signal(signal.SIGSTOP)
        reports = [json.loads(server.stdout.readline()) for _ in range(2)]
        self.assertEqual(state(server.pid), "T")  # the control: it has slept through it
        server.send_signal(signal.SIGCONT)
        self.assertEqual([r["verified"] for r in reports], [20000, 20000])
        server.communicate(timeout=PATIENCE)
        self.assertEqual(server.returncode, 0)

    def test_wrong_data_is_seen(self):
        """The control: one changed byte on the disk, written through the kernel's own driver."""
        with changed_disk():
            result = self.serve("--", CLIENT, "--reads", 50000)
        self.assertEqual(result.returncode, 1, result.stderr)
        self.assertIn("wrong data: block 3:", result.stderr)
        self.assertRan(self.serve("--", CLIENT, "--reads", 50000))

    def test_a_killed_client_gives_its_slot_back_while_others_go_on(self):
        server = self.start("--clients", 3, "--restart", "--", CLIENT, "--seconds", 20, "--json")
        self.await_line(server, "slot 1: .*client runs")
        victim = self.client_of(1)
        self.await_line(server, "slot 2: .*client runs")
        os.kill(victim, signal.SIGKILL)
        self.await_line(server, "slot 1: client ended with status 137; queue 2 deleted, the slot is given again")
        self.await_line(server, "slot 1: queue 2, grant .*: client runs")
        out, said = server.communicate(timeout=PATIENCE)
        self.assertEqual(server.returncode, 0, said)
        reports = sorted((json.loads(line) for line in out.splitlines()), key=lambda report: report["slice"])
        self.assertEqual([r["slice"] for r in reports], [0, 1, 2])
        for report in reports:
            self.assertEqual(report["reads"], report["verified"])
            self.assertGreater(report["reads"], 1000)

    def client_of(self, slot):
        """The pid of the client that runs on the slot."""
        found = []

        def find():
            for grant in json.loads(postern("ps", "--json").stdout):
                if grant["slice"] == slot:
                    found[:] = grant["clients"][1:]  # the first is the sandbox's init
            return found
        self.assertTrue(wait_until(find, PATIENCE))
        return found[0]

    def test_revoked_clients_are_refused_every_further_call(self):
        server = self.start("--", "/usr/bin/python3", "-c", ASKING)
        self.assertEqual(server.stdout.readline(), "asking\n")
        server.send_signal(signal.SIGUSR1)
        self.assertEqual(server.stdout.readline(), "refused EPERM after True\n")
        self.await_line(server, "revoked")
        _, said = server.communicate(timeout=PATIENCE)
        self.assertEqual(server.returncode, 0, said)

    def test_postern_revokes_such_a_grant_too(self):
        server = self.start("--", "/usr/bin/python3", "-c", ASKING)
        grant = self.await_line(server, "grant ([0-9a-f]+)").group(1)
        self.assertEqual(server.stdout.readline(), "asking\n")
        self.assertRan(postern("revoke", grant))
        self.assertEqual(server.stdout.readline(), "refused EPERM after True\n")
        _, said = server.communicate(timeout=PATIENCE)
        self.assertEqual(server.returncode, 0, said)

    def test_a_terminated_server_leaves_nothing(self):
        server = self.start("--clients", 2, "--", CLIENT, "--seconds", 60)
        for _ in range(2):
            self.await_line(server, "client runs")
        self.assertTrue(processes("nvme-client"))  # the control: they are there
        server.terminate()
        server.communicate(timeout=PATIENCE)
        self.assertEqual(server.returncode, 137)

    def test_a_killed_server_takes_its_clients_along(self):
        server = self.start("--clients", 2, "--", CLIENT, "--seconds", 60)
        for _ in range(2):
            self.await_line(server, "client runs")
        server.kill()
        server.communicate()
        self.assertTrue(wait_until(lambda: not processes("nvme-client"), PATIENCE))
        # The next one sweeps, and resets the controller.
        self.assertRan(self.serve("--", CLIENT, "--reads", 1000))

    def test_a_hostile_client_is_refused(self):
        result = self.serve("--", HOSTILE_CLIENT, "--timeout", 60)
        print(result.stdout, file=sys.stderr)
        self.assertRan(result)
        self.assertIn(" 0 allowed", result.stdout)

    def test_over_a_socket(self):
        path = f"{self.folder}/nvme.sock"
        server = self.start("--clients", 2, "--socket", path)
        self.assertTrue(wait_until(lambda: os.path.exists(path), PATIENCE))
        clients = [subprocess.Popen([CLIENT, "--socket", path, "--reads", "5000", "--json"], stdout=subprocess.PIPE, text=True)
                   for _ in range(2)]
        reports = []
        for client in clients:
            out, _ = client.communicate(timeout=PATIENCE)
            self.assertEqual(client.returncode, 0)
            reports.append(json.loads(out))
        self.assertEqual({r["slice"] for r in reports}, {0, 1})
        self.assertEqual([r["verified"] for r in reports], [5000, 5000])
        for _ in range(2):
            self.await_line(server, "client is gone; queue . deleted")
        # Again, on the same slots.
        result = subprocess.run([CLIENT, "--socket", path, "--reads", "1000"], capture_output=True, text=True, timeout=PATIENCE)
        self.assertRan(result)
        self.await_line(server, "client is gone")
        server.terminate()
        server.communicate(timeout=PATIENCE)
        self.assertEqual(server.returncode, 0)
        self.assertFalse(os.path.exists(path))


class Documentation(Tidy):
    def test_its_example_runs(self):
        with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "docs", "libpostern.md")) as page:
            text = re.search(r"^    #include.*?^    }$", page.read(), re.M | re.S).group()
        source, program = f"{self.folder}/example.c", f"{self.folder}/example"
        with open(source, "w") as file:
            file.write(textwrap.dedent(text))
        subprocess.run(["cc", f"-I{BUILD}/include", source, "-o", program, f"-L{BUILD}/lib", "-lpostern", f"-Wl,-rpath,{BUILD}/lib"],
                       check=True)
        for device, status in ((EDU, 9), ("0000:00:1e.7", 125)):
            result = subprocess.run([program, device, "/bin/sh", "-c", 'test "$LISTEN_FDNAMES" = manifest:device:dma.buffer && exit 9'],
                                    capture_output=True, text=True, timeout=PATIENCE)
            self.assertEqual(result.returncode, status, result.stderr)
            self.assertEqual(len(result.stderr.splitlines()), 0 if status == 9 else 1, result.stderr)


class Guest:
    """A process that is admitted to a grant and tries things there. By the cdev the grant's file is the owner's own, which it may do
    anything with; so what a policy refuses is asked for by somebody else."""

    def __init__(self, library, grant, **tries):
        """`tries`: what it can be asked to do."""
        self.ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.pid = os.fork()
        if self.pid == 0:
            status = 1
            try:
                self.ours.close()
                while name := theirs.recv(64).decode():
                    try:
                        tries[name]()
                        theirs.send(b"0")
                    except OSError as error:
                        theirs.send(str(error.errno).encode())
                status = 0
            finally:
                os._exit(status)
        theirs.close()
        pidfd = os.pidfd_open(self.pid)
        library.grant_admit(grant, pidfd)
        os.close(pidfd)

    def does(self, name):
        """None, or an OSError as it was for it."""
        self.ours.send(name.encode())
        said = self.ours.recv(64)
        if not said:
            raise AssertionError(f"{name}: the guest ended instead, {os.waitpid(self.pid, 0)[1]:#x}")
        error = int(said)
        if error:
            raise OSError(error, name)

    def close(self):
        self.ours.close()
        os.waitpid(self.pid, 0)


class OnEdu(Tidy):
    """The library in this very process."""

    def setUp(self):
        self.postern = Library(BUILD)
        super().setUp()
        self.context = self.postern.make("new")
        self.addCleanup(self.end)

    def end(self):
        if self.context:
            context, self.context = self.context, None
            self.postern.free(context)

    def tearDown(self):
        self.end()
        super().tearDown()

    def open_device(self):
        device = self.postern.make("device_open", self.context, EDU)
        self.postern.device_enable(device)
        return device

    def policy(self, *ioctls, flags=READ | WRITE | MMAP, forward=None, offset=0, length=4096):
        policy = self.postern.make("policy_new")
        self.addCleanup(self.postern.policy_free, policy)
        self.postern.policy_window(policy, "registers", 0, offset, length, flags)
        for ioctl in ioctls:
            self.postern.policy_ioctl(policy, ioctl)
        if forward is not None:
            self.postern.policy_forward(policy, forward)
        return policy

    def grant(self, device=None, policy=None, profile=None):
        grant = self.postern.make("grant_new", self.context, profile, 0)
        if device:
            self.postern.grant_add_device(grant, device, policy)
        return grant

    def assertErrno(self, number, words, function, *args):
        with self.assertRaises(OSError) as caught:
            function(*args)
        self.assertEqual(caught.exception.errno, number, caught.exception)
        self.assertIn(words, str(caught.exception))

    @staticmethod
    def info(fd):
        block = bytearray(20)
        block[0] = 20
        fcntl.ioctl(fd, GET_INFO, block)
        return block

    def test_a_guarded_dup_may_what_its_policy_says(self):
        device = self.open_device()
        owner = self.postern.device_fd(device)
        grant = self.grant(device, self.policy("VFIO_DEVICE_GET_INFO"))
        guarded = self.postern.grant_fd(grant, "device")
        region = Region()
        self.postern.device_region(device, 0, ctypes.byref(region))

        def look():
            with mmap.mmap(guarded, 4096, offset=region.file_offset) as window:
                assert int.from_bytes(window[0:4], "little") & 0xff == 0xed  # edu's identification
        with contextlib.closing(Guest(self.postern, grant, info=lambda: self.info(guarded), look=look, pread=lambda: os.pread(guarded, 4, 7 << 40),
                                      mmap=lambda: mmap.mmap(guarded, 4096, offset=region.file_offset + 0x1000))) as guest:
            guest.does("info")
            guest.does("look")
            for refused in ("mmap", "pread"):
                with self.assertRaises(PermissionError):
                    guest.does(refused)
        mmap.mmap(owner, 4096, offset=region.file_offset + 0x1000).close()
        os.pread(owner, 4, 7 << 40)
        denied = ctypes.c_uint64()
        self.postern.grant_denied(grant, ctypes.byref(denied))
        self.assertEqual(denied.value, 2)

    def test_revoked(self):
        device = self.open_device()
        grant = self.grant(device, self.policy("VFIO_DEVICE_GET_INFO"))
        guarded = self.postern.grant_fd(grant, "device")
        with contextlib.closing(Guest(self.postern, grant, info=lambda: self.info(guarded))) as guest:
            guest.does("info")  # the control
            self.postern.grant_revoke(grant)
            with self.assertRaises(PermissionError):
                guest.does("info")
        self.info(self.postern.device_fd(device))
        self.postern.grant_revoke(grant)
        self.postern.grant_end(grant)

    def test_rules_on_arguments(self):
        rule = json.dumps({"name": "VFIO_DEVICE_SET_IRQS", "args": [{"field": "index", "equals": 1}]})
        device = self.open_device()
        policy = self.policy(rule)
        if has_mseal():
            self.grant(device, policy)
        else:
            grant = self.grant()
            self.assertErrno(errno.EINVAL, "mseal", self.postern.grant_add_device, grant, device, policy)

    def test_adopted_fds(self):
        group_number = os.path.basename(os.readlink(f"/sys/bus/pci/devices/{EDU}/iommu_group"))
        container = os.open("/dev/vfio/vfio", os.O_RDWR)
        group = os.open(f"/dev/vfio/{group_number}", os.O_RDWR)
        fcntl.ioctl(group, GROUP_SET_CONTAINER, container.to_bytes(4, "little"))
        fcntl.ioctl(container, SET_IOMMU, 3)
        mine = fcntl.ioctl(group, GROUP_GET_DEVICE, ctypes.create_string_buffer(EDU.encode()))
        try:
            device = self.postern.make("device_adopt", self.context, EDU, mine, group, container)
            # Another device's name, and an fd that is none.
            for bdf, fd in ((NVME, mine), (EDU, container)):
                with self.assertRaises(OSError):
                    self.postern.make("device_adopt", self.context, bdf, fd, group, container)
            memory = Memory()
            self.postern.device_enable(device)
            self.postern.device_dma_alloc(device, 65536, 0x1000000, READ | WRITE, ctypes.byref(memory))
            grant = self.grant(device, self.policy("VFIO_DEVICE_GET_INFO"))
            self.postern.grant_add_dma(grant, "buffer", memory.fd, 65536, memory.iova, READ | WRITE)
            self.info(self.postern.grant_fd(grant, "device"))
            self.assertErrno(errno.EBUSY, "has a part of it", self.postern.device_close, device)
            self.postern.grant_end(grant)
            self.postern.device_close(device)
            self.info(mine)  # the caller's own goes on
            without = self.postern.make("device_adopt", self.context, EDU, mine, group, -1)
            self.assertErrno(errno.EINVAL, "container", self.postern.device_dma_alloc, without, 4096, 0x1000000, READ,
                             ctypes.byref(memory))
            self.postern.device_close(without)
        finally:
            for fd in (mine, group, container):
                os.close(fd)

    def test_windows_of_two_grants_are_apart(self):
        device = self.open_device()
        first = self.grant(device, self.policy())
        other = self.grant()
        self.assertErrno(errno.EBUSY, "reaches what grant", self.postern.grant_add_device, other, device, self.policy())
        self.postern.grant_add_device(other, device, self.policy(offset=0x1000))
        self.postern.grant_end(first)
        self.postern.grant_end(other)
        # Both say that it is meant.
        shared = self.policy(flags=READ | WRITE | MMAP | SHARED_PAGE)
        self.grant(device, shared)
        self.grant(device, shared)
        self.assertErrno(errno.EBUSY, "reaches", self.postern.grant_add_device, self.grant(), device, self.policy())

    def test_what_is_added_is_looked_at(self):
        device = self.open_device()
        memory = Memory()
        self.postern.device_dma_alloc(device, 8192, 0x1000000, READ | WRITE, ctypes.byref(memory))
        grant = self.grant(device, self.policy())
        add_dma, add_fd, add_irq = self.postern.grant_add_dma, self.postern.grant_add_fd, self.postern.grant_add_irq
        plain = os.memfd_create("plain", os.MFD_ALLOW_SEALING)
        os.ftruncate(plain, 8192)
        event = os.eventfd(0)
        group = self.postern.device_fd(device)
        try:
            self.assertErrno(errno.EINVAL, "sealed", add_dma, grant, "a", plain, 8192, 0x1000000, READ)
            self.assertErrno(errno.EINVAL, "whole pages", add_dma, grant, "a", memory.fd, 16384, 0x1000000, READ)
            self.assertErrno(errno.EINVAL, "access", add_dma, grant, "a", memory.fd, 8192, 0x1000000, 0)
            add_dma(grant, "a", memory.fd, 8192, 0x1000000, READ)
            self.assertErrno(errno.EEXIST, "already", add_dma, grant, "a", memory.fd, 8192, 0x1000000, READ)
            self.assertErrno(errno.EINVAL, "eventfd", add_irq, grant, "i", 1, 0, plain)
            add_irq(grant, "i", 1, 0, event)
            self.assertErrno(errno.EPERM, "way around", add_fd, grant, "mine", group)
            for name in ("device", "manifest", "dma.x", "a:b", ""):
                self.assertErrno(errno.EINVAL, "name", add_fd, grant, name, plain)
            add_fd(grant, "mine", plain)
            self.assertErrno(errno.EEXIST, "a device already", self.postern.grant_add_device, grant, device, self.policy())
            self.assertErrno(errno.EBADF, "fd 999", add_fd, grant, "none", 999)
            self.assertErrno(errno.ENOENT, "nothing", self.postern.grant_fd, grant, "nothing")
        finally:
            os.close(plain)
            os.close(event)

    def test_dma_is_checked(self):
        device = self.open_device()
        memory = ctypes.byref(Memory())
        alloc, free = self.postern.device_dma_alloc, self.postern.device_dma_free
        alloc(device, 4096, 0x1000000, READ | WRITE, memory)
        self.assertErrno(errno.EINVAL, "whole pages", alloc, device, 100, 0x2000000, READ, memory)
        self.assertErrno(errno.EINVAL, "access", alloc, device, 4096, 0x2000000, 8, memory)
        with self.assertRaises(OSError):
            alloc(device, 4096, 0x1000000, READ, memory)  # mapped already
        free(device, 0x1000000)
        self.assertErrno(errno.ENOENT, "no memory", free, device, 0x1000000)
        alloc(device, 4096, 0x1000000, READ | WRITE, memory)

    def test_exports(self):
        device = self.open_device()
        fd = ctypes.c_int()
        self.assertErrno(errno.EINVAL, "whole pages", self.postern.device_export, device, 0, 1, 4096, 1, ctypes.byref(fd))
        try:
            self.postern.device_export(device, 0, 0, 4096, 1, ctypes.byref(fd))
        except OSError as error:
            self.assertEqual(error.errno, errno.ENOTTY, error)
            self.assertLess(tuple(map(int, os.uname().release.split(".")[:2])), (6, 19))
        else:
            self.assertIn("dmabuf", os.readlink(f"/proc/self/fd/{fd.value}"))
            os.close(fd.value)

    def test_launched_clients(self):
        device = self.open_device()
        grant = self.grant(device, self.policy("VFIO_DEVICE_GET_INFO"))
        self.assertErrno(errno.ECHILD, "no client", self.postern.wait, grant)
        pidfd = self.postern.launch(grant, "/bin/sh", "-c", "sleep 3; exit 7")
        self.assertErrno(errno.ETIMEDOUT, "runs after", self.postern.wait, grant, 1)
        self.assertErrno(errno.EBUSY, "add before", self.postern.grant_add_fd, grant, "late", 0)
        self.assertErrno(errno.EBUSY, "launched already", self.postern.launch, grant, "/bin/true")
        self.assertEqual(self.postern.wait(grant), (EXITED, 7))
        self.assertEqual(self.postern.wait(grant), (EXITED, 7))
        self.assertTrue(os.path.exists(f"/proc/self/fd/{pidfd}"))
        self.assertErrno(errno.ESRCH, "no client", self.postern.grant_signal, grant, signal.SIGTERM)
        self.postern.grant_end(grant)

        grant = self.grant(device, self.policy("VFIO_DEVICE_GET_INFO"))
        self.postern.launch(grant, "/bin/sleep", "60")
        self.postern.grant_signal(grant, signal.SIGTERM)
        self.assertEqual(self.postern.wait(grant), (SIGNALED, 128 + signal.SIGTERM))
        self.postern.grant_end(grant)

        grant = self.grant(device, self.policy("VFIO_DEVICE_GET_INFO"))
        self.assertErrno(errno.ENOENT, "/no/such", self.postern.launch, grant, "/no/such/program")
        self.postern.launch(grant, "/bin/sleep", "60")
        self.postern.grant_kill(grant)
        self.assertEqual(self.postern.wait(grant)[1], 137)

    def test_limits_and_profiles_of_the_sandbox(self):
        handle = ctypes.c_void_p()
        for text, refused in (('{"postern": 1, "sandbox": {"time_limit": "5s"}}', True),
                              ('{"postern": 1, "sandbox": {"hostname": "by-libpostern"}}', False)):
            self.postern.profile_parse(ctypes.byref(handle), text, len(text), None)
            try:
                if refused:
                    self.assertErrno(errno.ENOTSUP, "time_limit", self.grant, None, None, handle)
                    continue
                grant = self.grant(profile=handle)
            finally:
                self.postern.profile_free(handle)
            self.postern.launch(grant, "/bin/sh", "-c", 'test "$(hostname)" = by-libpostern')
            self.assertEqual(self.postern.wait(grant), (EXITED, 0))

    def receive(self):
        """A process that takes a grant from a socket and asks the device; its socket and pid."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = os.fork()
        if pid == 0:
            ours.close()
            status = 1
            try:
                _, fds, flags, _ = socket.recv_fds(theirs, 4096, 253)
                if flags & socket.MSG_CTRUNC or len(fds) < 2:
                    status = 3
                else:
                    self.info(fds[1])
                    status = 0
            except OSError as error:
                status = 4 if error.errno == errno.EPERM else 5
            finally:
                os._exit(status)
        theirs.close()
        self.addCleanup(ours.close)
        return ours, pid

    @staticmethod
    def status_of(pid):
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def test_vended_to_whom_forward_says(self):
        device = self.open_device()
        # "sandbox": nobody before it is admitted, the library says; then whoever was.
        grant = self.grant(device, self.policy("VFIO_DEVICE_GET_INFO"))
        stranger_socket, stranger = self.receive()
        self.assertErrno(errno.EPERM, "admit", self.postern.grant_vend, grant, stranger_socket.fileno())
        guest_socket, guest = self.receive()
        pidfd = os.pidfd_open(guest)
        self.postern.grant_admit(grant, pidfd)
        os.close(pidfd)
        self.postern.grant_vend(grant, guest_socket.fileno())
        self.assertEqual(self.status_of(guest), 0)
        # And the kernel, about another process: the fds are cut off, or it can but hold what is the owner's file, too.
        self.postern.grant_vend(grant, stranger_socket.fileno())
        self.assertEqual(self.status_of(stranger), 4 if BY_CDEV else 3)
        self.postern.grant_end(grant)
        # "never": not even to be tried.
        grant = self.grant(device, self.policy(forward=FORWARD_NEVER))
        unused, waiting = self.receive()
        self.assertErrno(errno.EPERM, "never", self.postern.grant_vend, grant, unused.fileno())
        self.postern.grant_end(grant)
        # "anyone".
        to_anyone = self.policy("VFIO_DEVICE_GET_INFO", forward=FORWARD_ANYONE)
        if BY_CDEV:
            self.assertErrno(errno.EINVAL, "anyone", self.grant, device, to_anyone)
            os.kill(waiting, signal.SIGKILL)
            self.assertEqual(self.status_of(waiting), -signal.SIGKILL)
            for sock in (stranger_socket, guest_socket, unused):
                sock.close()
            return
        grant = self.grant(device, to_anyone)
        self.postern.grant_vend(grant, unused.fileno())
        self.assertEqual(self.status_of(waiting), 0)
        self.postern.grant_end(grant)
        for sock in (stranger_socket, guest_socket, unused):
            sock.close()

    def test_admitting_nobody(self):
        grant = self.grant()
        self.assertErrno(errno.EINVAL, "no pidfd", self.postern.grant_admit, grant, 0)
        own = os.pidfd_open(os.getpid())
        self.assertErrno(errno.EINVAL, "this process", self.postern.grant_admit, grant, own)
        os.close(own)

    def test_two_contexts(self):
        other = self.postern.make("new")
        first = self.grant()
        second = self.postern.make("grant_new", other, None, 0)
        self.postern.grant_end(first)
        self.postern.free(other)
        del second
        # The guard goes on for this one.
        self.grant(self.open_device(), self.policy())

    def test_ended_by_the_context(self):
        device = self.open_device()
        grant = self.grant(device, self.policy("VFIO_DEVICE_GET_INFO"))
        self.postern.launch(grant, "/bin/sleep", "60")
        self.assertTrue(cgroups())  # the control
        self.end()
        self.assertFalse(processes("/bin/sleep"))

    def test_windows_by_every_way(self):
        device = self.open_device()
        grant = self.grant(device, self.policy("VFIO_DEVICE_GET_INFO", flags=READ | WRITE | MMAP | DMABUF | PREAD))
        region = Region()
        self.postern.device_region(device, 0, ctypes.byref(region))
        guarded = self.postern.grant_fd(grant, "device")

        def look():
            assert os.pread(guarded, 4, region.file_offset)[0] == 0xed
        with contextlib.closing(Guest(self.postern, grant, look=look, beyond=lambda: os.pread(guarded, 4, region.file_offset + 0x1000))) as guest:
            guest.does("look")
            with self.assertRaises(PermissionError):
                guest.does("beyond")


class Control(Lab):
    """Of the hostile client: it may change what Tidy looks at."""

    def test_everything_works_on_an_unguarded_device(self):
        result = subprocess.run([f"{BUILD}/tests/bare-launch", NVME, f"{BUILD}/examples/nvme-queue.json", "1", HOSTILE_CLIENT,
                                 "--timeout", "60", "--expect", "allowed"], capture_output=True, text=True, timeout=PATIENCE)
        print(result.stdout, file=sys.stderr)
        self.assertRan(result)


def setUpModule():
    for bdf in (NVME, EDU):
        bound = postern("bind", bdf)
        if bound.returncode != 0:
            raise RuntimeError(bound.stderr)
    # The first opening clears bus mastering for good (vfio_pci_core_enable()).
    library = Library(BUILD)
    context = library.make("new")
    for bdf in (NVME, EDU):
        library.device_close(library.make("device_open", context, bdf))
    library.free(context)


def tearDownModule():
    for bdf in (NVME, EDU):
        postern("unbind", bdf)


if __name__ == "__main__":
    unittest.main(verbosity=2)

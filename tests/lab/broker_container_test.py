#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Grants of a broker to containers (the operation `enter` of docs/broker.md), and a broker that is started on demand. A runtime is
played by hand here, so that each of its steps can be done wrong; real ones are in container_test.py. Runs as root in the guest."""

import array
import contextlib
import errno
import json
import fcntl
import os
import random
import signal
import socket
import subprocess
import time
import unittest

from broker_lab import ALICE, BLK, BOB, BUILD, PATIENCE, POSTERN, BrokerLab, Client, setUpModule, tearDownModule, removed, wait_until  # noqa: F401

ROOT = "/sys/fs/cgroup"
VFIO_DEVICE_GET_INFO = 0x3b6b


def own_cgroup(pid="self"):
    with open(f"/proc/{pid}/cgroup") as file:
        return ROOT + file.read().strip().rsplit("::", 1)[1]


def move(pid, folder):
    with open(f"{folder}/cgroup.procs", "w") as file:
        file.write(str(pid))


def may_ask(fd):
    """Whether the device answers: the guard lets this ioctl through, and refuses all on a file that a task may not have."""
    block = bytearray(24)
    block[0] = 24
    try:
        fcntl.ioctl(fd, VFIO_DEVICE_GET_INFO, block)
        return True
    except PermissionError:
        return False


def receive_one(path_socket):
    """The one file that comes, or None if the kernel took it away on the way."""
    _, ancillary, flags, _ = path_socket.recvmsg(16, socket.CMSG_SPACE(4))
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            return array.array("i", data)[0]
    assert flags & socket.MSG_CTRUNC, flags
    return None


def write(path, text):
    with open(path, "w") as file:
        file.write(text)


def runtime_in(child, folder, path, request):
    move(os.getpid(), folder)
    return runtime(child, path, request)


def runtime(child, path, request):
    """As a container's runtime: gets the grant, does as it is told, says what came of it."""
    with Client(path) as client:
        answer, fds = client.grant(container=True, **request)
    device = fds[answer["fds"].index("device")]
    child.tell(("granted", {**answer, "cgroup_of_runtime": own_cgroup()}))
    while True:
        what, value = child.hear(3600)
        if what == "enter":
            try:
                with Client(path) as asked:
                    child.tell(asked.ask({"op": "enter", "grant": answer["grant"], "pid": value})[0])
            except (EOFError, OSError) as error:
                child.tell({"lost": str(error)})
            except Exception as error:  # pylint: disable=broad-except
                child.tell({"refused": str(error)})
        elif what == "where":
            child.tell(own_cgroup())
        elif what == "pass":  # the device, to whoever connects there
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as out:
                out.connect(value)
                socket.send_fds(out, [b"x"], [device])
            child.tell("passed")
        elif what == "end":
            return None


#: None: the file is taken away. By the cdev it is the owner's own, and may be held by anybody, without use.
REFUSED = False if os.environ.get("POSTERN_BACKEND") == "cdev" else None


class ContainerLab(BrokerLab):
    ALL = [{"allow": [{"users": [ALICE, BOB]}]}]

    def setUp(self):
        super().setUp()
        self.folders = []
        self.addCleanup(self.remove_cgroups)

    def remove_cgroups(self):
        for folder in reversed(self.folders):
            self.assertTrue(wait_until(lambda folder=folder: removed(folder), PATIENCE), folder)

    def cgroup(self, name, owner=0):
        folder = f"{ROOT}/{name}"
        os.mkdir(folder)
        self.folders.append(folder)
        if owner:
            for path in (folder, f"{folder}/cgroup.procs"):
                os.chown(path, owner, owner)
        return folder

    def container(self, folder, uid=None):
        """Its first process, which receives a file when it is asked to."""
        def first(child):
            child.tell("ready")
            while True:
                what = child.hear(3600)
                if what == "listen":
                    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as door:
                        path = f"/run/door-{os.getpid()}"
                        door.bind(path)
                        door.listen(1)
                        child.tell(path)
                        connection, _ = door.accept()
                        got = receive_one(connection)
                        os.unlink(path)
                        child.tell(None if got is None else may_ask(got))
                        if got is not None:
                            os.close(got)
        made = self.child(first, uid=uid)
        self.assertEqual(made.hear(), "ready")
        move(made.pid, folder)
        return made

    def runtime(self, request=None, **who):
        child = self.child(runtime, self.path, request or {}, **who)
        kind, child.answer = child.hear()
        self.assertEqual(kind, "granted", child.answer)
        return child

    def enter(self, run, pid):
        run.tell(("enter", pid))
        return run.hear()

    def passes_to(self, run, receiver):
        """Whether `receiver` may use the device's file; None if it does not even get it."""
        receiver.tell("listen")
        run.tell(("pass", receiver.hear()))
        self.assertEqual(run.hear(), "passed")
        return receiver.hear()


class Containers(ContainerLab):
    def test_a_runtime_that_cannot_go_back(self):
        """Its cgroup has got controllers for those below it, and takes no processes by now: its grant ends all the same."""
        self.start_broker(self.ALL)
        control = f"{ROOT}/cgroup.subtree_control"
        with open(control, "r+") as file:
            if "pids" not in file.read().split():
                file.write("+pids")
                self.addCleanup(write, control, "-pids")
        folder = self.cgroup("runtimes")
        run = self.child(runtime_in, folder, self.path, {})
        kind, run.answer = run.hear()
        self.assertEqual((kind, run.answer["cgroup"].startswith(folder)), ("granted", True))
        inside = self.container(self.cgroup("ctr-a"))
        write(f"{folder}/cgroup.subtree_control", "+pids")
        self.addCleanup(write, f"{folder}/cgroup.subtree_control", "-pids")
        said = self.enter(run, inside.pid)
        self.assertIn("busy", str(said).lower())
        self.assertEqual([each["state"] for each in self.grants()], ["live"])
        inside.kill()
        self.free_again()
        self.assertEqual(run.wait(), signal.SIGKILL, "it was in the broker's own cgroup, and in the way")

    def test_a_containers_life(self):
        self.start_broker(self.ALL)
        run = self.runtime()
        grant = run.answer["grant"]
        self.assertEqual(run.answer["cgroup_of_runtime"], run.answer["cgroup"])
        inside = self.container(self.cgroup("ctr-a"))
        outside = self.container(self.cgroup("ctr-b"))
        self.assertIs(self.passes_to(run, inside), REFUSED, "not yet in the sandbox")
        self.assertEqual(self.enter(run, inside.pid), {"postern": 1, "entered": grant})
        self.assertTrue(self.passes_to(run, inside))
        self.assertIs(self.passes_to(run, outside), REFUSED, "another container")
        # The runtime is where it was, and may end.
        run.tell(("where", None))
        self.assertEqual(run.hear(), own_cgroup())
        self.assertFalse(os.path.exists(run.answer["cgroup"]))
        self.assertEqual(self.enter(run, inside.pid), {"postern": 1, "entered": grant}, "once more is the same")
        run.tell(("end", None))
        run.wait()
        time.sleep(0.3)
        live, = self.grants()
        self.assertEqual((live["grant"], live["pid"], live["state"]), (grant, inside.pid, "live"))
        # It ends with the container, and others in the cgroup with it.
        other = self.container(f"{ROOT}/ctr-a")
        inside.kill()
        self.free_again()
        self.assertEqual(os.WTERMSIG(other.wait()), signal.SIGKILL)
        self.assertTrue(os.path.isdir(f"{ROOT}/ctr-a"), "the runtime's to remove")

    def test_a_runtime_that_fails(self):
        """Before its container has entered the grant is the runtime's, and ends with it."""
        self.start_broker(self.ALL)
        run = self.runtime()
        run.kill()
        self.free_again()

    def test_refusals(self):
        self.start_broker(self.ALL)
        folder = self.cgroup("ctr-a")
        inside = self.container(folder)
        run = self.runtime()
        self.assertIn("has no cgroup of its own", self.enter(run, os.getpid())["refused"], "a cgroup that the runtime is in as well")
        self.assertIn("has no cgroup of its own", self.enter(run, 1)["refused"], "the root of all")
        gone = self.container(folder)
        gone.kill()
        self.assertIn("no such process", self.enter(run, gone.pid)["refused"].lower())
        self.assertIn("entered", self.enter(run, inside.pid), "the control")
        second = self.container(self.cgroup("ctr-b"))
        self.assertIn("has it already", self.enter(run, second.pid)["refused"])
        other = self.runtime()
        self.assertIn("another grant already", self.enter(other, inside.pid)["refused"])
        self.assertIn("entered", self.enter(other, second.pid), "the control")
        # What was not asked for with "container" stays with its process.
        plain = self.holder()
        with self.client() as client, self.assertRaises(Exception) as refused:
            client.ask({"op": "enter", "grant": plain.answer["grant"], "pid": second.pid})
        self.assertIn("was not asked for", str(refused.exception))
        with self.client() as client, self.assertRaises(Exception) as refused:
            client.ask({"op": "enter", "grant": "0" * 32, "pid": second.pid})
        self.assertIn("no live grant", str(refused.exception))

    def test_ordinary_users(self):
        """Whose containers are in cgroups of theirs, and in nobody else's."""
        self.start_broker(self.ALL)
        theirs = self.container(self.cgroup("alice", ALICE), uid=ALICE)
        roots = self.container(self.cgroup("roots"))
        bobs = self.container(self.cgroup("bob", BOB), uid=BOB)
        run = self.runtime(uid=ALICE)
        for pid in (roots.pid, bobs.pid):
            self.assertIn("which is not uid", self.enter(run, pid)["refused"])
        grant = run.answer["grant"]

        def steal(_):
            with self.client() as client:
                return client.ask({"op": "enter", "grant": grant, "pid": bobs.pid})
        with self.assertRaises(Exception) as refused:
            self.child(steal, uid=BOB).result()
        self.assertIn("no live grant", str(refused.exception))
        self.assertIn("entered", self.enter(run, theirs.pid), "the control")
        run.kill()
        self.assertEqual(self.grants()[0]["pid"], theirs.pid)
        theirs.kill()
        self.free_again()

    def test_the_broker_is_killed_at_any_moment(self):
        random.seed(6)
        self.start_broker(self.ALL)
        folder = self.cgroup("ctr-a")
        entered_at_once = 0
        for _ in range(12):
            inside = self.container(folder)
            run = self.runtime({"slice": 1})
            delay = random.uniform(0, 0.08)
            run.tell(("enter", inside.pid))
            time.sleep(delay)
            self.kill9()
            self.start_broker()
            answer = run.hear()
            entered_at_once += "entered" in answer
            if "entered" not in answer:
                self.assertIn("entered", self.enter(run, inside.pid), answer)
            run.kill()
            self.kill9()
            self.start_broker()
            live, = self.grants()
            self.assertEqual((live["pid"], live["slice"], live["state"]), (inside.pid, 1, "live"))
            self.assertFalse(os.path.exists(run.answer["cgroup"]))
            inside.kill()
            self.free_again()
        print(f"    {entered_at_once} of 12 had entered before the broker was killed", flush=True)


class OnDemand(ContainerLab):
    """No broker goes on running: it is there while something is to be done, and takes up what is kept."""

    def on_demand(self):
        broker = self.start_broker(self.ALL if not os.path.exists(self.config) else None, args=["--on-demand"])
        return broker

    def attended(self):
        """A broker, and a connection for which it stays: alone it may be gone before it is called."""
        for _ in range(20):
            broker = self.on_demand()
            while broker.poll() is None:
                with contextlib.suppress(OSError, EOFError):
                    return broker, self.client()
                time.sleep(0.02)
            self.assertEqual(broker.returncode, 0, self.log())
        self.fail(f"no broker stays: {self.log()}")

    def log(self):
        # From the moment on when it serves it speaks into a file of its own.
        more = ""
        if os.path.exists(f"{self.folder}/run/on-demand.log"):
            with open(f"{self.folder}/run/on-demand.log") as file:
                more = file.read()
        return super().log() + more

    def stop_broker(self, kill=True):
        if self.broker is None:
            return
        try:
            self.broker.wait(PATIENCE)
        finally:
            if self.broker.poll() is None:
                self.broker.kill()
                self.broker.wait()
        self.broker = None

    def test_a_containers_life(self):
        broker, door = self.attended()
        run = self.runtime()
        door.close()
        inside = self.container(self.cgroup("ctr-a"))
        self.assertIsNone(broker.poll(), "a grant is on its way")
        time.sleep(1)
        self.assertIsNone(broker.poll())
        self.assertIn("entered", self.enter(run, inside.pid))
        self.assertTrue(self.passes_to(run, inside))
        run.tell(("end", None))
        run.wait()
        self.assertEqual(broker.wait(PATIENCE), 0, self.log())
        with self.assertRaises(OSError) as nobody:
            self.client()
        self.assertIn(nobody.exception.errno, (errno.ENOENT, errno.ECONNREFUSED), "nobody waits at a door where nobody comes")
        # A second slice, a moment later, while the first container goes on.
        os.unlink(f"{self.folder}/run/on-demand.log")
        broker, door = self.attended()
        self.assertEqual([each["pid"] for each in self.grants()], [inside.pid])
        second_run = self.runtime()
        door.close()
        second = self.container(self.cgroup("ctr-b"))
        self.assertIn("entered", self.enter(second_run, second.pid))
        self.assertNotEqual(second_run.answer["slice"], run.answer["slice"])
        second_run.kill()
        self.assertEqual(broker.wait(PATIENCE), 0, self.log())
        inside.kill()
        second.kill()
        # Whoever says so next has it all cleaned up.
        os.unlink(f"{self.folder}/run/on-demand.log")
        broker = self.on_demand()
        self.assertEqual(broker.wait(PATIENCE), 0, self.log())
        self.assertFalse(os.path.exists(f"{ROOT}/postern-broker"), "with the keeper")

    def test_whoever_has_started_it_may_be_slow(self):
        broker = self.on_demand()
        time.sleep(3)
        with self.client() as client:
            self.assertEqual(client.grants(), [])
        self.assertEqual(broker.wait(PATIENCE), 0, self.log())
        # The control: one that nobody calls ends, too.
        self.assertEqual(self.on_demand().wait(PATIENCE), 0, self.log())

    def test_who_comes_while_the_door_is_being_closed(self):
        """A runtime stays connected, and asks by a second connection."""
        broker, door = self.attended()
        slow = subprocess.Popen(["strace", "-qq", "-o", f"{self.folder}/calls", "-e", "trace=rename,unlink", "-e", "inject=rename,unlink:delay_exit=2000000",
                                 "-p", str(broker.pid)], stdin=subprocess.DEVNULL)
        self.addCleanup(slow.wait)
        self.addCleanup(slow.kill)

        def traced():
            with open(f"/proc/{broker.pid}/status") as file:
                return f"TracerPid:\t{slow.pid}\n" in file.read()
        self.assertTrue(wait_until(traced, PATIENCE))
        waiting = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.addCleanup(waiting.close)
        door.close()
        # One that is let in after the door was closed: as a call that has come before, and waits in the queue.
        moved = f"{self.path}.closed"
        self.assertTrue(wait_until(lambda: os.path.exists(moved), PATIENCE), self.log())
        waiting.connect(moved)
        self.assertFalse(os.path.exists(self.path), "the door is closed")
        self.assertTrue(wait_until(lambda: os.path.exists(self.path), PATIENCE), "and opens again")
        with self.client() as second:
            self.assertEqual(second.grants(), [])
        waiting.close()
        self.assertEqual(broker.wait(PATIENCE), 0, self.log())
        self.assertEqual([name for name in os.listdir(os.path.dirname(self.path)) if "socket" in name], [])

    def test_who_knocks_all_the_time(self):
        """A user who comes and goes at the very moments when nobody else is there keeps nobody out, and no name of the socket behind."""
        state = f"{self.folder}/state"
        with open(state, "w") as file:
            json.dump({"ociVersion": "1.0.2", "id": "knocked", "status": "stopped", "pid": 0, "bundle": self.folder}, file)
        _, door = self.attended()

        def knock(_child, path, end):
            knocked = 0
            while time.monotonic() < end or (knocked < 6 and time.monotonic() < end + 50):
                for name in (path, f"{path}.closed"):
                    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as each:
                        each.connect(name)
                        knocked += 1
                time.sleep(0.45 + 0.1 * (knocked % 3))
            return knocked
        users = [self.child(knock, self.path, time.monotonic() + 8, uid=uid) for uid in (ALICE, BOB)]
        door.close()
        for _ in range(5):
            with open(state) as file:  # which needs a broker: the one that is there, or another
                called = subprocess.run([f"{BUILD}/bin/postern-oci-hook", "poststop", "--slice", "disk.0", "--broker", self.path, "--config", self.config],
                                        stdin=file, capture_output=True, text=True, timeout=PATIENCE, check=False)
            self.assertEqual(called.returncode, 0, called.stderr + self.log())
            time.sleep(0.55)
        for each in users:
            self.assertGreater(each.result(), 3)
        self.assertTrue(wait_until(lambda: not os.path.exists(self.path), PATIENCE), self.log())
        self.assertTrue(wait_until(lambda: not [name for name in os.listdir(os.path.dirname(self.path)) if "socket" in name], PATIENCE))

    def test_many_at_once(self):
        """Root's hold a connection each, by which the broker stays, and ask by another; an ordinary user has only so many."""
        state = f"{self.folder}/state"
        with open(state, "w") as file:
            json.dump({"ociVersion": "1.0.2", "id": "crowd", "status": "stopped", "pid": 0, "bundle": self.folder}, file)
        broker, kept = self.attended()
        self.addCleanup(broker.send_signal, signal.SIGCONT)
        for user in (0, ALICE):
            with self.subTest(user=user):
                broker.send_signal(signal.SIGSTOP)
                crowd = []
                for _ in range(40):
                    with open(state) as file:
                        crowd.append(subprocess.Popen([f"{BUILD}/bin/postern-oci-hook", "leave", "--grant", "0" * 32, "--broker", self.path],
                                                      stdin=file, stderr=subprocess.PIPE, text=True, user=user))
                time.sleep(2)
                broker.send_signal(signal.SIGCONT)
                said = [each.communicate(timeout=600)[1] for each in crowd]
                self.assertEqual([each.returncode for each in crowd], [0] * len(crowd), said)
        kept.close()
        self.assertEqual(broker.wait(PATIENCE), 0, self.log())

    def test_its_log_is_bounded(self):
        broker = self.on_demand()
        self.assertEqual(broker.wait(PATIENCE), 0, self.log())
        log = f"{self.folder}/run/on-demand.log"
        with open(log) as file:
            one = file.read()
        broker = self.on_demand()
        self.assertEqual(broker.wait(PATIENCE), 0)
        with open(log) as file:
            self.assertEqual(file.read(), 2 * one, "the control: it goes on")
        with open(log, "a") as file:
            file.write("x" * (2 << 20))
        broker = self.on_demand()
        self.assertEqual(broker.wait(PATIENCE), 0)
        with open(log) as file:
            self.assertEqual(file.read(), one)

    def test_ends_when_nothing_is_asked(self):
        broker = self.on_demand()
        self.assertEqual(broker.wait(PATIENCE), 0, self.log())
        alone = subprocess.run([POSTERN, "run", "--broker", "none", "--device", BLK, "--profile", "virtio-blk-queue", "--", "/bin/true"],
                               capture_output=True, text=True, timeout=PATIENCE)
        self.assertEqual(alone.returncode, 0, alone.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)

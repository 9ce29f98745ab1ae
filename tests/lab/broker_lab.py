#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the tests of `postern broker` share: a broker of their own on the lab's device, callers of any user, and the protocol
spoken by hand, well or badly. See docs/broker.md."""

import json
import os
import pickle
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from e2e_test import BLK, BLK2, BUILD, CLIENT, EDU, POSTERN, left_behind, on_blk, postern, processes, removed, wait_until

# Whoever tests imports it all from here.
__all__ = ["ALICE", "BLK", "BLK2", "BOB", "BUILD", "CAROL", "CLIENT", "EDU", "POSTERN", "BrokerLab", "Child", "Client", "Refused",
           "as_user", "fds_of", "left_behind", "on_blk", "postern", "processes", "removed", "rss_of", "wait_until"]

ALICE, BOB, CAROL = 5001, 5002, 5003
PATIENCE = 300  # seconds, for what takes one under emulation


def as_user(uid, gid=None, groups=()):
    """What stands before a command line that runs as somebody else."""
    listed = ["--groups", ",".join(map(str, groups))] if groups else ["--clear-groups"]
    return ["setpriv", f"--reuid={uid}", f"--regid={uid if gid is None else gid}", *listed]


def fds_of(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def rss_of(pid):
    """KiB."""
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS:"))


class Refused(Exception):
    def __init__(self, kind, message):
        super().__init__(f"{kind}: {message}")
        self.kind, self.message = kind, message


class Client:
    """A connection to a broker, by hand."""
    MOST = 1 << 18

    def __init__(self, path, greeting=True, timeout=PATIENCE):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        # Without a timeout, or a full queue would be an error at once (EAGAIN, connect(2)) instead of a wait.
        try:
            self.socket.connect(path)
        except OSError:
            self.socket.close()
            raise
        self.socket.settimeout(timeout)
        self.greeting = self.hear()[0] if greeting else None

    def send(self, data, fds=()):
        """`data`: bytes as they are, or what is sent as JSON."""
        data = data if isinstance(data, bytes) else json.dumps(data).encode()
        return socket.send_fds(self.socket, [data], list(fds)) if fds else self.socket.send(data)

    def hear_bytes(self):
        """The next packet and its files; empty at the end."""
        try:
            data, fds, flags, _ = socket.recv_fds(self.socket, self.MOST, 253)
        except ConnectionResetError:  # told once, before what the other side sent
            data, fds, flags, _ = socket.recv_fds(self.socket, self.MOST, 253)
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            raise AssertionError(f"a packet did not come whole: {flags}")
        return data, fds

    def hear(self):
        data, fds = self.hear_bytes()
        if not data:
            raise EOFError("the broker closed the connection")
        answer = json.loads(data)
        if "error" in answer:
            raise Refused(answer["error"]["kind"], answer["error"]["message"])
        return answer, fds

    def ask(self, request, fds=()):
        """The answer and its files. Refused, with the broker's words; EOFError, if it hung up."""
        self.send({"postern": 1, **request}, fds)
        return self.hear()

    def devices(self):
        return self.ask({"op": "devices"})[0]["devices"]

    def grants(self):
        return self.ask({"op": "grants"})[0]["grants"]

    def grant(self, device=BLK, **more):
        """For this process, whose end is then the grant's: not for a test itself (Child is)."""
        return self.ask({"op": "grant", "device": device, "nonce": self.greeting["nonce"], **more})

    def ended(self):
        """Whether the broker hangs up, having said nothing more."""
        return self.hear_bytes()[0] == b""

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Child:
    """A process that runs `function(child, *args)` as a user (as this one, if none is said): a caller whose end, cgroup and rights are its own. Both sides
    tell() and hear() each other values and files."""

    def __init__(self, function, *args, uid=None, gid=None, groups=()):
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self.socket.close()
                self.socket = theirs
                if uid is not None:
                    os.setgroups(groups)
                    os.setresgid(*3 * [uid if gid is None else gid])
                    os.setresuid(*3 * [uid])
                self.tell(("result", function(self, *args)))
            except BaseException as error:  # pylint: disable=broad-except
                words = error if isinstance(error, (Refused, EOFError, OSError)) else traceback.format_exc()
                self.tell(("error", (type(error).__name__, str(words), getattr(error, "kind", None))))
            finally:
                os._exit(0)
        theirs.close()
        self.status = None

    def tell(self, value, fds=()):
        data = pickle.dumps(value)
        return socket.send_fds(self.socket, [data], list(fds)) if fds else self.socket.send(data)

    def hear_with_fds(self, timeout=PATIENCE):
        if not select.select([self.socket], [], [], timeout)[0]:
            raise TimeoutError(f"child {self.pid} says nothing")
        data, fds, _, _ = socket.recv_fds(self.socket, 1 << 20, 253)
        if not data:
            raise EOFError(f"child {self.pid} has ended")
        return pickle.loads(data), fds

    def hear(self, timeout=PATIENCE):
        return self.hear_with_fds(timeout)[0]

    def result(self, timeout=PATIENCE):
        """What its function returned. An error of its is one here."""
        kind, value = self.hear(timeout)
        self.wait()
        if kind == "error":
            name, words, refusal = value
            if name == "Refused":
                raise Refused(refusal, words.split(": ", 1)[1])
            raise EOFError(words) if name == "EOFError" else AssertionError(f"{name}: {words}")
        return value

    def wait(self):
        if self.status is None:
            self.status = os.waitpid(self.pid, 0)[1]
        self.socket.close()
        return self.status

    def kill(self):
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
        return self.wait()


class BrokerLab(unittest.TestCase):
    """Each test has a folder that everybody may enter, leaves nothing behind, and ends the broker that it started."""

    def setUp(self):
        self.before = left_behind()
        self.folder = tempfile.mkdtemp(prefix="broker-", dir="/run")
        os.chmod(self.folder, 0o755)
        self.config = f"{self.folder}/devices.d"
        self.path = f"{self.folder}/run/socket"
        self.log_path = f"{self.folder}/log"
        self.broker = None
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.addCleanup(self.look_behind)
        self.addCleanup(self.stop_broker)

    def look_behind(self):
        if self.before is not None:
            wait_until(lambda: self.before == left_behind(), PATIENCE)
            self.assertEqual(self.before, left_behind())

    # ---- the broker

    def write_config(self, devices):
        """A file for each of `devices`: "name", and the rest as docs/broker.md has it."""
        shutil.rmtree(self.config, ignore_errors=True)
        os.mkdir(self.config, 0o755)
        for device in devices:
            entry = {"postern": 1, "device": BLK, "profile": "virtio-blk-queue", **device}
            with open(f"{self.config}/{entry.pop('name', 'blk')}.json", "w") as file:
                json.dump(entry, file)

    def start_broker(self, devices=None, keeper="holder", args=(), umask=-1):
        """With a configuration, or once more with the one it had. Returns when it serves."""
        if devices is not None:
            self.write_config(devices)
        self.log_start = os.path.getsize(self.log_path) if os.path.exists(self.log_path) else 0
        with open(self.log_path, "ab") as log:
            self.broker = subprocess.Popen([POSTERN, "broker", "--config", self.config, "--socket", self.path, "--keeper", keeper,
                                            *map(str, args)], stdin=subprocess.DEVNULL, stdout=log, stderr=log, umask=umask)

        def serves():
            return self.broker.poll() is not None or " serves " in self.log()
        self.assertTrue(wait_until(serves, PATIENCE), self.log())
        # One on demand may have come and gone.
        self.assertIn(self.broker.poll(), (None, 0) if "--on-demand" in args else (None,), self.log())
        return self.broker

    def log(self):
        """What the broker that was started last has said."""
        with open(self.log_path, errors="replace") as file:
            file.seek(self.log_start)
            return file.read()

    def kill9(self):
        self.broker.kill()
        return self.broker.wait(PATIENCE)

    def stop_broker(self, kill=True):
        """In order: nothing is kept then. One that is dead is started once more for that."""
        if self.broker is None:
            return
        if self.broker.poll() is not None:
            if not os.path.exists(f"{self.folder}/run"):
                return
            self.start_broker()
        result = postern("broker", "--socket", self.path, "--stop", *(["--kill"] if kill else []))
        self.assertEqual(result.returncode, 0, result.stderr + self.log())
        self.assertEqual(self.broker.wait(PATIENCE), 0, self.log())
        self.broker = None

    def assertServes(self):
        """It lives, and answers."""
        self.assertIsNone(self.broker.poll(), self.log())
        with self.client() as client:
            self.assertIsInstance(client.devices(), list)

    # ---- callers

    def client(self, **more):
        return Client(self.path, **more)

    def child(self, function, *args, **who):
        made = Child(function, *args, **who)
        self.addCleanup(made.kill)
        return made

    def holder(self, request=None, **who):
        """A child with a grant, that does nothing until it ends. `answer` and `fds` are what it got; the files stay its own."""
        child = self.child(_hold, self.path, request or {}, **who)
        kind, child.answer = child.hear()
        if kind != "granted":
            name, words, refusal = child.answer
            raise Refused(refusal, words.split(": ", 1)[-1]) if name == "Refused" else AssertionError(words)
        return child

    def run_client(self, *args, who=(), device=BLK, flags=(), profile="virtio-blk-queue", timeout=120):
        """`postern run` on the broker's device, run by `who` (as_user())."""
        return subprocess.run([*who, POSTERN, "run", "--broker", self.path, "--device", device, "--profile", profile, *flags, "--",
                               *map(str, args or ["/bin/true"])], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout)

    def grants(self):
        with self.client() as client:
            return client.grants()

    def is_held_up(self):
        """Whether the one grant that there is waits for what somebody else has of it."""
        return [(each["state"], "left outside" in each.get("trouble", "")) for each in self.grants()] == [("ending", True)]

    def free_again(self, seconds=PATIENCE):
        """Waits until the broker has no grant. When its client ended the end of a grant is under way, not over."""
        self.assertTrue(wait_until(lambda: self.grants() == [], seconds), self.log())


def _hold(child, path, request):
    client = Client(path)
    answer, fds = client.grant(**request)
    # A guarded file may be nobody's but the sandbox's: the numbers of what came are told, not the files.
    child.tell(("granted", {**answer, "numbers": fds, "pid": os.getpid()}))
    while True:
        time.sleep(3600)


def setUpModule():
    bound = postern("bind", BLK)
    if bound.returncode != 0:
        raise RuntimeError(bound.stderr)


def tearDownModule():
    postern("unbind", BLK)

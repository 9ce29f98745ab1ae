#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Slices for containers of stock runtimes: the specification of CDI, the hooks it names, the shim, on the lab's emulated virtio-blk
device with podman on crun and on runc. Runs as root in the guest; see tests/lab/README.md and docs/containers.md."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import unittest

from container_lab import (BLK, BUILD, CONFIG, CRUN, EDU, HOOK, IMAGE, POSTERN, SOCKET, ContainerLab, left_behind, make_image, podman_line, postern, processes,
                           setUpModule, tearDownModule, wait_until)  # noqa: F401
from broker_lab import Client

FILES = f"{BUILD}/libexec/postern/container"
SPEC = "/etc/cdi/postern.json"
CONTAINERS = "/run/postern/containers"
RUNTIMES = tuple(os.environ.get("POSTERN_RUNTIMES", "crun,runc").split(","))
CLIENT = "/bin/virtio-blk-client"
READS = [CLIENT, "--reads", "100"]
SHIM = "/run/postern/shim"
PATIENCE = 300  # seconds
BROKERS = []


def sh(*words, timeout=PATIENCE, **more):
    return subprocess.run(list(map(str, words)), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False, **more)


def device(name):
    return f"--device=postern.dev/slice={name}"


def generate(*words):
    result = postern("cdi", "generate", "-o", SPEC, *words)
    if result.returncode != 0:
        raise RuntimeError(result.stderr)


def edit_spec(change):
    with open(SPEC) as file:
        spec = json.load(file)
    change(spec)
    with open(SPEC, "w") as file:
        json.dump(spec, file)


def broker():
    """A connection to one. Where none serves, one on demand takes up what was kept, and ends by itself."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return Client(SOCKET)
        except (FileNotFoundError, ConnectionRefusedError, EOFError):  # EOFError: it was on its way out
            started = subprocess.Popen([POSTERN, "broker", "--on-demand"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                       text=True)
            said = started.stderr.read()  # it lets go of that when it serves
            started.stderr.close()
            if (started.poll() and "running already" not in said) or time.monotonic() > end:
                raise RuntimeError(said) from None
            BROKERS.append(started)


def waiting():
    """Folders of containers that have not fetched their grant."""
    return os.listdir(CONTAINERS) if os.path.isdir(CONTAINERS) else []


def deliverers():
    """What is left of hooks that have ended."""
    return processes("postern-oci-hook")


def cdi_line():
    answer = json.loads(postern("check", "--json").stdout)
    return next(each for each in answer["requirements"] if each["id"] == "cdi")


def hook_log():
    with contextlib.suppress(FileNotFoundError), open("/run/postern/hook.log") as file:
        return file.read()
    return ""


class Cdi(ContainerLab):
    def setUp(self):
        super().setUp()
        self.addCleanup(self.look_for_deliverers)
        self.addCleanup(lambda: os.path.exists(SPEC) and os.unlink(SPEC))
        generate()

    def look_for_deliverers(self):
        self.remove_containers()
        while BROKERS:
            BROKERS.pop().wait(PATIENCE)
        self.assertTrue(wait_until(lambda: waiting() == [] and deliverers() == []), (waiting(), deliverers()))

    def end_broker(self):
        """It ends by itself."""

    def podman(self, *args, runtime="crun", **kwargs):
        return super().podman(*args, runtime=runtime, **kwargs)

    def grants(self):
        with broker() as client:
            return client.grants()

    def assertFree(self, seconds=60):
        """No grant, nobody who waits."""
        self.assertTrue(wait_until(lambda: self.grants() == [], seconds), f"{self.grants()} {self.broker_log()}")
        self.assertTrue(wait_until(lambda: waiting() == [] and deliverers() == []), (waiting(), deliverers()))

    def run_with(self, *words, flags=(), name="disk.0", runtime="crun"):
        """A container with that slice, which ends by itself and is removed."""
        return self.run_in(*words, slice=None, runtime=runtime, flags=[*([device(name)] if name else []), *flags])

    def start_with(self, *words, flags=(), name="disk.0", runtime="crun"):
        """One in the background; its id."""
        made = self.podman(*self.run_line(*words, slice=None, flags=["-d", device(name), *flags]), runtime=runtime)
        self.assertEqual(made.returncode, 0, made.stderr + hook_log() + self.broker_log())
        return made.stdout.strip()

    def remove(self, *containers):
        removed = self.podman("rm", "-f", "-t", "0", *containers)
        self.assertEqual(removed.returncode, 0, removed.stderr)

    def assertReads(self, result):
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr + hook_log() + self.broker_log())
        self.assertIn("100 verified", result.stdout)


class Delivered(Cdi):
    def test_through_the_shim_and_through_the_library(self):
        for runtime in RUNTIMES:
            for words in ([SHIM, *READS], READS, [SHIM, *READS, "--wait", "irq"]):
                with self.subTest(runtime=runtime, words=words):
                    self.assertReads(self.run_with(*words, runtime=runtime))
                    self.assertFree()

    def test_any_free_slice(self):
        self.assertReads(self.run_with(SHIM, *READS, name="disk"))
        first = self.start_with(SHIM, "/bin/sleep", "1000", name="disk")
        second = self.start_with(SHIM, "/bin/sleep", "1000", name="disk")
        self.assertTrue(wait_until(lambda: sorted(each["slice"] for each in self.grants()) == [0, 1]), self.grants())
        self.remove(first, second)
        self.assertFree()

    def test_containers_of_all_kinds(self):
        kinds = {"read-only": ["--read-only"], "user": ["--user", "1234:1234"], "no capabilities": ["--cap-drop", "all"],
                 "all of it": ["--read-only", "--user", "1234", "--cap-drop", "all", "--security-opt", "no-new-privileges"],
                 "user namespace": ["--uidmap", "0:100000:5000", "--gidmap", "0:100000:5000"], "init": ["--init"], "host's pids": ["--pid", "host"],
                 "tmpfs on /run": ["--tmpfs", "/run"], "no cgroup namespace": ["--cgroupns", "host"], "privileged": ["--privileged"], "terminal": ["-t"]}
        with_runc = ("all of it", "user namespace", "init")
        with broker():  # one for all: loading the guard takes a second, two dozen times
            for runtime in RUNTIMES:
                for kind in kinds if runtime == "crun" else with_runc:
                    for words in ([SHIM, *READS], READS):
                        with self.subTest(kind=kind, words=words, runtime=runtime):
                            self.assertReads(self.run_with(*words, flags=kinds[kind], runtime=runtime))
        self.assertFree()

    def test_what_the_client_finds(self):
        result = self.run_with(SHIM, "/bin/sh", "-c", "echo $$ $LISTEN_PID $LISTEN_FDS $LISTEN_FDNAMES; ls /proc/self/fd; cat /proc/self/fd/3")
        self.assertEqual(result.returncode, 0, result.stderr)
        lines = result.stdout.splitlines()
        own, pid, count, names = lines[0].split()
        self.assertEqual((own, pid), ("1", "1"))
        self.assertEqual(len(names.split(":")), int(count))
        manifest = json.loads(result.stdout[result.stdout.index("{"):])
        self.assertEqual(manifest["fds"], {name: 3 + i for i, name in enumerate(names.split(":"))})
        # ls has one more, its folder.
        listed = {int(line) for line in lines[1:] if line.isdigit()}
        self.assertEqual(listed, set(range(int(count) + 4)))

    def test_two_wait_at_once(self):
        """Each has a socket of its own, and gets what is its own by that."""
        containers = [self.start_with("/bin/sleep", "1000", name=f"disk.{i}") for i in (0, 1)]
        self.assertEqual(len(waiting()), 2)
        for i in (1, 0):
            got = self.podman("exec", containers[i], SHIM, "/bin/sh", "-c", "cat /proc/self/fd/3")
            self.assertEqual(got.returncode, 0, got.stderr)
            self.assertEqual(json.loads(got.stdout)["slice"], i)
        self.assertEqual(waiting(), [])
        self.remove(*containers)
        self.assertFree()

    def test_statuses_of_the_shim(self):
        for words, status, says in ((["/no/such"], 127, "/no/such"), (["/etc"], 126, "/etc"), (["sh", "-c", "exit 7"], 7, "")):
            result = self.run_with(SHIM, *words)
            self.assertEqual(result.returncode, status, result.stderr)
            self.assertIn(says, result.stderr)
        self.assertFree()

    def test_no_slice_no_grant(self):
        flags = ["-v", f"{FILES}:/run/postern:ro"]
        for words in ([SHIM, "/bin/true"], READS):
            result = self.run_with(*words, name=None, flags=flags)
            self.assertNotEqual(result.returncode, 0)
            self.assertIn("nobody gives a grant here", result.stderr)
        self.assertReads(self.run_with(SHIM, *READS))

    def test_preserved_fds_are_not_overwritten(self):
        words = ["sh", "-c", 'exec 3</dev/null && exec "$@"', "sh", *podman_line(runtime="crun"), "run", "--rm", "--network", "none", "--preserve-fds", "1",
                 device("disk.0"), IMAGE]
        result = sh(*words, SHIM, *READS, timeout=120)
        self.assertEqual(result.returncode, 125, result.stderr)
        self.assertIn("fd 3 is open already", result.stderr)
        self.assertReads(sh(*words, *READS, timeout=120))

    def test_given_once(self):
        result = self.run_with("/bin/sh", "-c", f"{SHIM} /bin/virtio-blk-client --reads 100; {SHIM} /bin/true; echo second $?; /bin/virtio-blk-client --reads 1; echo third $?")
        self.assertIn("100 verified", result.stdout)
        self.assertIn("second 125", result.stdout)
        self.assertNotIn("third 0", result.stdout)
        self.assertEqual(result.stderr.count("nobody gives a grant here"), 2, result.stderr)
        self.assertFree()

    def test_started_again(self):
        container = self.start_with(SHIM, *READS)
        for _ in range(3):
            self.assertEqual(self.podman("wait", container).stdout.strip(), "0", self.podman("logs", container).stderr)
            started = self.podman("start", "-a", container)
            self.assertEqual(started.returncode, 0, started.stderr)
            self.assertIn("100 verified", started.stdout)
        self.assertFree()

    def test_restarted_while_it_waits(self):
        container = self.start_with("/bin/sleep", "1000")
        self.assertEqual(len(waiting()), 1)
        restarted = self.podman("restart", "-t", "0", container)
        self.assertEqual(restarted.returncode, 0, restarted.stderr)
        self.assertEqual(len(waiting()), 1)
        self.assertReads(self.podman("exec", container, SHIM, *READS))
        self.remove(container)
        self.assertFree()

    def test_precreate_of_the_hooks_dir(self):
        folder = tempfile.mkdtemp(dir="/root")
        with open(f"{folder}/postern.json", "w") as file:
            json.dump({"version": "1.0.0", "hook": {"path": HOOK, "args": ["postern-oci-hook", "precreate"]},
                       "when": {"annotations": {"^dev\\.postern\\.slice$": ".*"}}, "stages": ["precreate"]}, file)
        os.unlink(SPEC)
        line = [*podman_line("--hooks-dir", folder, runtime="crun"), "run", "--rm", "--network", "none"]
        self.assertReads(sh(*line, "--annotation", "dev.postern.slice=disk.2", IMAGE, SHIM, *READS))
        # The control: without the annotation it gets nothing.
        self.assertNotEqual(sh(*line, IMAGE, "/bin/ls", "/run/postern").returncode, 0)
        # podman 4.3 may have the annotation from the image.
        self.write_config([{"name": "disk", "trust_annotations": False}])
        refused = sh(*line, "--annotation", "dev.postern.slice=disk.2", IMAGE, SHIM, *READS)
        self.assertNotEqual(refused.returncode, 0)
        self.assertIn("may be the image's", refused.stderr + hook_log())
        shutil.rmtree(folder)
        self.assertFree()

    def test_nobody_inside_changes_the_shim(self):
        """It is the machine's own file, and the next container's first program."""
        tries = ("echo x >/tmp/control", "echo x >/run/postern/shim", "exec 9</run/postern/shim; echo x >/proc/self/fd/9",
                 "/bin/busybox mount -o remount,rw,bind /run/postern /run/postern", "/bin/busybox rm -f /run/postern/shim",
                 "/bin/busybox umount /run/postern")
        script = "; ".join(f"({each}) 2>/dev/null && echo done {number}" for number, each in enumerate(tries))
        result = self.run_with("/bin/sh", "-c", f"{script}; true")
        self.assertEqual((result.returncode, result.stdout), (0, "done 0\n"), result.stderr)
        self.assertReads(self.run_with(SHIM, *READS))

    def test_plain_runtimes(self):
        """crun and runc by hand, on a bundle that precreate has edited."""
        for runtime in RUNTIMES:
            with self.subTest(runtime=runtime), self.bundle(SHIM, *READS, slice="disk.3") as bundle:
                with open(f"{bundle}/config.json") as file:
                    edited = subprocess.run([HOOK, "precreate"], stdin=file, capture_output=True, text=True, timeout=PATIENCE, check=False)
                self.assertEqual(edited.returncode, 0, edited.stderr)
                with open(f"{bundle}/config.json", "w") as file:
                    file.write(edited.stdout)
                self.assertReads(self.crun("run", "--bundle", bundle, "plain", program=runtime))
        self.assertFree()


class Refused(Cdi):
    def connect(self, path):
        """What comes from the socket before its end."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.connect(path)
            connection.settimeout(PATIENCE)
            try:
                data, fds, _, _ = socket.recv_fds(connection, 1 << 16, 253)
            except ConnectionResetError:
                return b""
            for fd in fds:
                os.close(fd)
            return data

    def test_whoever_is_not_in_the_container(self):
        container = self.start_with("/bin/sleep", "1000")
        path = f"{CONTAINERS}/{waiting()[0]}/grant.sock"
        self.assertEqual(os.stat(CONTAINERS).st_mode & 0o777, 0o700)
        self.assertEqual(self.connect(path), b"", "root of the host got the grant")
        # In its mount and pid namespaces, and not in its cgroup.
        pid = self.pid_of(container)
        entered = sh("nsenter", "-t", pid, "-m", "-p", SHIM, "/bin/true")
        self.assertEqual(entered.returncode, 125, entered.stderr)
        self.assertIn("ended before a grant came", entered.stderr)
        self.assertTrue(wait_until(lambda: "not in the container's" in hook_log()), hook_log())
        # In its cgroup, and not in its pid namespace.
        with open(f"/proc/{pid}/cgroup") as file:
            cgroup = "/sys/fs/cgroup" + file.read().strip().split("::", 1)[1]
        moved = sh("sh", "-c", f"echo $$ >{cgroup}/cgroup.procs && exec nsenter -t {pid} -m {SHIM} /bin/true")
        self.assertEqual(moved.returncode, 125, moved.stderr)
        self.assertTrue(wait_until(lambda: "not in its pid namespace" in hook_log()), hook_log())
        # The control: whoever is in both.
        self.assertReads(self.podman("exec", container, SHIM, *READS))
        self.remove(container)
        self.assertFree()

    def assertFails(self, result, status, *says):
        """podman shows the line, and nothing is left."""
        self.assertNotEqual(result.returncode, 0, result.stdout)
        for words in says:
            self.assertIn(words, result.stderr)
        self.assertIn("postern-oci-hook: ", result.stderr)
        self.assertRegex(result.stderr, rf"exit (code:|status) {status}\b")
        self.assertIn(says[0], hook_log())

    def test_busy_and_unknown_slices_in_podmans_own_words(self):
        for runtime in RUNTIMES:
            with self.subTest(runtime=runtime):
                holder = self.start_with(SHIM, "/bin/sleep", "1000", runtime=runtime)
                self.assertFails(self.run_with("/bin/true", runtime=runtime), 12, "slice disk.0", "in use")
                self.assertFails(self.podman("run", "-d", "--network", "none", device("disk.0"), IMAGE, "/bin/true", runtime=runtime), 12, "in use")
                self.assertReads(self.run_with(SHIM, *READS, name="disk.1", runtime=runtime))
                self.assertTrue(wait_until(lambda: [each["slice"] for each in self.grants()] == [0]), self.grants())
                self.remove(holder)
                self.assertFree()
                edit_spec(lambda spec: spec["devices"].append(json.loads(json.dumps(spec["devices"][1]).replace("disk.0", "disk.9"))))
                self.assertFails(self.run_with("/bin/true", name="disk.9", runtime=runtime), 11, "there is no slice \"disk.9\"")
                generate()
                self.remove_containers()
        unknown = self.run_with("/bin/true", name="disk.9")
        self.assertNotEqual(unknown.returncode, 0)
        self.assertIn("postern.dev/slice=disk.9", unknown.stderr)
        self.assertFree()

    def test_wrong_hardware(self):
        self.write_config([{"name": "disk", "device": EDU, "bind": True}])
        self.assertFails(self.run_with("/bin/true"), 14, "slice disk.0", EDU, "device.match.vendor")
        self.write_config([{"name": "disk"}])
        self.assertReads(self.run_with(SHIM, *READS))

    def test_no_guard(self):
        """A broker that cannot be started."""
        name = "/sys/kernel/security/lsm"
        hidden = f"{self.folder}/lsm"
        with open(hidden, "w") as file:
            file.write("capability")
        self.assertEqual(sh("mount", "--bind", hidden, name).returncode, 0)
        try:
            self.assertFails(self.run_with("/bin/true"), 14, "the guard:", "lsm")
        finally:
            sh("umount", name)
        self.assertReads(self.run_with(SHIM, *READS))

    def test_a_broker_that_says_nothing(self):
        """The hook's time is up: the runtime ends it, and nothing of it is left."""
        edit_spec(lambda spec: [hook.update(timeout=3) for each in spec["devices"] for hook in each["containerEdits"]["hooks"]])
        with broker() as client:
            stopped, = processes("--on-demand")
            os.kill(stopped, signal.SIGSTOP)
            self.addCleanup(os.kill, stopped, signal.SIGCONT)
            for runtime in RUNTIMES:
                result = self.run_with("/bin/true", runtime=runtime)
                self.assertNotEqual(result.returncode, 0)
                self.assertEqual((waiting(), deliverers()), ([], []), result.stderr)
            os.kill(stopped, signal.SIGCONT)
            self.assertEqual(client.grants(), [])
        generate()
        self.remove_containers()
        self.assertReads(self.run_with(SHIM, *READS))

    def test_a_broken_configuration(self):
        with open(f"{CONFIG}/other.json", "w") as file:
            file.write("{")
        self.assertFails(self.run_with("/bin/true"), 11, "other.json")
        os.unlink(f"{CONFIG}/other.json")
        self.assertReads(self.run_with(SHIM, *READS))

    def test_one_slice_a_container(self):
        self.assertFails(self.run_with("/bin/true", flags=[device("disk.1")]), 16, "has a slice already")
        self.assertFree()
        self.assertReads(self.run_with(SHIM, *READS))

    def test_something_else_is_mounted_there(self):
        folder = tempfile.mkdtemp(dir="/root")
        with open(f"{folder}/grant.sock", "w"):
            pass
        def other(spec):
            spec["containerEdits"]["mounts"][0]["hostPath"] = folder
        edit_spec(other)
        self.assertFails(self.run_with("/bin/true"), 16, "something else is mounted there")
        generate()
        self.assertReads(self.run_with(SHIM, *READS))
        shutil.rmtree(folder)

    def test_an_image_whose_links_lead_to_the_host(self):
        """Nothing of the host's is mounted over; where a link stays in the image, the container works."""
        victim = tempfile.mkdtemp(dir="/run")
        self.addCleanup(shutil.rmtree, victim)
        os.mkdir(f"{victim}/postern")
        for name in ("grant.sock", "shim"):
            with open(f"{victim}/postern/{name}", "w"):
                pass
        with open("/proc/self/mountinfo") as file:
            before = file.read()
        for image, links, works in (("above", [("run", f"../../../..{victim}")], False), ("absolute", [("run/postern", f"{victim}/postern")], False),
                                    ("within", [("run", "/evil")], True)):
            make_image(image, links)
            result = self.run_in(SHIM, *READS, slice=None, runtime="crun", flags=[device("disk.0")], image=image)
            if works:
                self.assertReads(result)
            else:
                self.assertNotEqual(result.returncode, 0, image)
            with open("/proc/self/mountinfo") as file:
                self.assertEqual(file.read(), before)
            self.assertEqual([os.path.getsize(f"{victim}/postern/{name}") for name in os.listdir(f"{victim}/postern")], [0, 0])

    def test_no_cgroup_of_its_own(self):
        self.assertFails(self.run_with("/bin/true", flags=["--cgroups", "disabled"]), 15, "no cgroup of its own")
        self.assertFree()
        self.assertReads(self.run_with(SHIM, *READS))

    def test_without_the_hook_nothing_starts(self):
        def lost(spec):
            for device in spec["devices"]:
                for hook in device["containerEdits"]["hooks"]:
                    hook["path"] = "/no/such/postern-oci-hook"
        edit_spec(lost)
        for runtime in RUNTIMES:
            result = self.run_with("/bin/true", runtime=runtime)
            self.assertNotEqual(result.returncode, 0)
            self.assertIn("/no/such/postern-oci-hook", result.stderr)
        generate()
        self.assertReads(self.run_with(SHIM, *READS))

    def test_statuses(self):
        """Each kind of failure has its own: podman and crun tell it."""
        self.assertEqual(sh(HOOK, "createRuntime").returncode, 2)
        self.assertEqual(sh(HOOK, "nonsense").returncode, 2)
        self.assertEqual(sh(HOOK, "createRuntime", "--slice", "disk.0").returncode, 10)
        self.assertEqual(sh(HOOK, "poststop", "--slice", "disk.0").returncode, 10)
        self.assertEqual(sh(HOOK, "--help").returncode, 0)
        # Whoever writes the container's state is read to the end, whatever is wrong.
        for words, status in ((["nonsense"], 2), (["createRuntime"], 2), (["createRuntime", "--slice", "disk.0"], 10), (["precreate"], 10)):
            with subprocess.Popen([HOOK, *words], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as hook:
                hook.stdin.write(b"x" * (1 << 20))
                hook.stdin.close()  # BrokenPipeError, if it is not
                self.assertEqual(hook.wait(PATIENCE), status, words)


class Endings(Cdi):
    def test_every_way_of_ending(self):
        def killed(container):
            self.podman("kill", container)
        def removed(container):
            self.remove(container)
        def init_killed(container):
            os.kill(self.pid_of(container), 9)
        def stopped(container):
            self.podman("stop", "-t", "1", container)
        for runtime in RUNTIMES:
            for end in (killed, removed, init_killed, stopped):
                for words in (["/bin/sleep", "1000"], [SHIM, "/bin/sleep", "1000"]):
                    with self.subTest(runtime=runtime, end=end.__name__, words=words):
                        container = self.start_with(*words, runtime=runtime)
                        self.assertEqual(len(self.grants()), 1)
                        end(container)
                        self.assertFree()
                        self.remove(container)
        self.assertReads(self.run_with(SHIM, *READS))

    def test_a_command_that_cannot_be_run(self):
        for runtime in RUNTIMES:
            result = self.run_with("/no/such", runtime=runtime)
            self.assertEqual(result.returncode, 127, result.stderr)
            self.assertFree()

    def test_the_deliverer_is_killed(self):
        container = self.start_with("/bin/sleep", "1000")
        deliverer = deliverers()
        self.assertEqual(len(deliverer), 1)
        os.kill(deliverer[0], 9)
        result = self.podman("exec", container, SHIM, "/bin/true")
        self.assertEqual(result.returncode, 125)
        self.assertIn("nobody gives a grant here", result.stderr)
        self.assertEqual(len(waiting()), 1, "what is left is poststop's to remove")
        self.podman("stop", "-t", "0", container)
        self.assertFree()
        started = self.podman("start", container)
        self.assertEqual(started.returncode, 0, started.stderr)
        self.assertReads(self.podman("exec", container, SHIM, *READS))
        self.remove(container)
        self.assertFree()

    def test_the_deliverer_is_nobodys(self):
        """It holds nothing of the runtime's, and is in nobody's way."""
        container = self.start_with("/bin/sleep", "1000")
        pid = deliverers()[0]
        with open(f"/proc/{pid}/status") as file:
            status = dict(line.split(":\t", 1) for line in file.read().splitlines() if ":\t" in line)
        # conmon adopts what its own leave behind.
        with open(f"/proc/{status['PPid']}/comm") as file:
            self.assertIn(file.read().strip(), ("conmon", "systemd", "init", "guest-run", "sh", "bash"))
        self.assertEqual(int(status["SigBlk"], 16), 0)
        fds = sorted(os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd"))
        self.assertEqual(fds.count("/dev/null"), 3, fds)
        self.assertFalse([each for each in fds if each.startswith("pipe:")], fds)
        self.assertNotEqual(os.getsid(pid), os.getsid(self.pid_of(container)))
        with open(f"/proc/{pid}/cgroup") as file:
            self.assertNotIn("postern-grant", file.read())
        self.remove(container)
        self.assertFree()


class Specification(Cdi):
    def test_check_finds_what_is_wrong(self):
        self.assertTrue(cdi_line()["met"])
        self.write_config([{"name": "disk"}, {"name": "second", "device": EDU, "profile": "edu"}])
        line = cdi_line()
        self.assertFalse(line["met"] or line["optional"])
        self.assertIn("lacks second", line["found"])
        self.assertEqual(line["mend"], f"postern cdi generate -o {SPEC}")
        self.assertEqual(sh("sh", "-c", f"{BUILD}/bin/{line['mend']}").returncode, 0)
        self.assertTrue(cdi_line()["met"])
        with open(SPEC, "w") as file:
            file.write("{")
        self.assertIn("cannot be read", cdi_line()["found"])
        os.unlink(SPEC)
        line = cdi_line()
        self.assertFalse(line["met"])
        self.assertTrue(line["optional"])
        generate()
        os.unlink(f"{CONFIG}/second.json")
        self.assertIn("has second", cdi_line()["found"])

    def test_another_folder(self):
        """A broker that the hook has to start reads the same one as the hook."""
        elsewhere = f"{self.folder}/devices.d"
        shutil.move(CONFIG, elsewhere)
        generate("--config", elsewhere)
        self.assertTrue(cdi_line()["met"], cdi_line())
        self.assertTrue(wait_until(lambda: not os.path.exists(SOCKET)), "no broker")
        self.assertReads(self.run_with(SHIM, *READS))
        self.assertReads(self.run_with(*READS, runtime=CRUN))
        os.unlink(SPEC)
        generate()
        self.assertFalse(os.path.exists(SPEC), "the control: nothing is where it usually is")

    def test_generate(self):
        before = os.stat(SPEC)
        generate()
        after = os.stat(SPEC)
        self.assertEqual((before.st_ino, before.st_mtime_ns), (after.st_ino, after.st_mtime_ns), "what is right stays as it is")
        shown = postern("cdi", "generate")
        with open(SPEC) as file:
            self.assertEqual(shown.stdout, file.read())
        spec = json.loads(shown.stdout)
        self.assertEqual([each["name"] for each in spec["devices"]], ["disk", "disk.0", "disk.1", "disk.2", "disk.3"])
        self.write_config([{"name": "disk"}, {"name": "second", "device": EDU, "profile": "edu"}])
        generate()
        self.assertNotEqual(os.stat(SPEC).st_ino, before.st_ino)
        # A broken configuration leaves what is there.
        with open(f"{CONFIG}/second.json", "w") as file:
            file.write("{")
        refused = postern("cdi", "generate", "-o", SPEC)
        self.assertEqual(refused.returncode, 1)
        self.assertIn("second.json", refused.stderr)
        self.assertTrue(os.path.exists(SPEC))
        # What changes meanwhile counts, too: systemd does not tell of it. It is stopped when it has replaced the file.
        for meanwhile, said in (([{"name": "disk"}, {"name": "third", "device": EDU, "profile": "edu"}], True), (None, False)):
            self.write_config([{"name": "disk"}])
            replaced = os.stat(SPEC).st_ino
            slow = subprocess.Popen(["strace", "-qq", "-o", f"{self.folder}/calls", "-e", "trace=rename", "-e", "inject=rename:signal=STOP:when=1",
                                     POSTERN, "cdi", "generate", "-o", SPEC], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            self.addCleanup(slow.stderr.close)
            self.addCleanup(slow.wait)
            self.addCleanup(slow.kill)
            self.assertTrue(wait_until(lambda: os.stat(SPEC).st_ino != replaced, PATIENCE))
            stopped, = (pid for pid in processes("cdi\0generate") if pid != slow.pid)
            if meanwhile:
                self.write_config(meanwhile)
            os.kill(stopped, signal.SIGCONT)
            self.assertEqual(slow.wait(PATIENCE), 0, slow.stderr.read())
            with open(SPEC) as file:
                self.assertEqual("third" in [each["name"] for each in json.load(file)["devices"]], said)
        # Without devices there is none; and what is somebody else's is left alone.
        shutil.rmtree(CONFIG)
        generate()
        self.assertFalse(os.path.exists(SPEC))
        with open(SPEC, "w") as file:
            file.write('{"kind": "vendor.com/gpu"}')
        self.assertEqual(postern("cdi", "generate", "-o", SPEC).returncode, 1)
        self.assertTrue(os.path.exists(SPEC))


if __name__ == "__main__":
    unittest.main(verbosity=2)

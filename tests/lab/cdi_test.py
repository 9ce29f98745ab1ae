#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Slices for containers of stock runtimes: the specification of CDI, the hooks it names, the shim, on the lab's emulated virtio-blk
device with podman on crun and on runc. Runs as root in the guest; see tests/lab/README.md and docs/containers.md."""

import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
import unittest

from broker_lab import BLK, BUILD, CLIENT, EDU, PATIENCE, POSTERN, Client, left_behind, postern, processes, wait_until

HOOK = f"{BUILD}/bin/postern-oci-hook"
FILES = f"{BUILD}/libexec/postern/container"
CONFIG = "/etc/postern/devices.d"
SPEC = "/etc/cdi/postern.json"
BROKER = "/run/postern-broker/socket"
CONTAINERS = "/run/postern/containers"
RUNTIMES = ("crun", "runc")
READS = ["/client", "--reads", "100"]
SHIM = "/run/postern/shim"
STORE = "/var/lib/cdi-test"
IMAGE = "box"
BROKERS = []


def sh(*words, timeout=PATIENCE, **more):
    return subprocess.run(list(map(str, words)), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, **more)


def podman_words(runtime="crun", hooks_dir=None):
    return ["podman", "--root", f"{STORE}/root", "--runroot", f"{STORE}/run", "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs",
            "--events-backend=none", "--runtime", runtime, *(["--hooks-dir", hooks_dir] if hooks_dir else [])]


def podman(*words, runtime="crun", hooks_dir=None, timeout=120):
    return sh(*podman_words(runtime, hooks_dir), *words, timeout=timeout)


def slice_option(name):
    return f"--device=postern.dev/slice={name}"


def write_device(name="disk", **more):
    os.makedirs(CONFIG, exist_ok=True)
    with open(f"{CONFIG}/{name}.json", "w") as file:
        json.dump({"postern": 1, "device": BLK, "profile": "virtio-blk-queue", "bind": True, **more}, file)


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
    """A connection to one; where none serves, one on demand looks after what was kept, and ends by itself."""
    while True:
        try:
            return Client(BROKER)
        except (FileNotFoundError, ConnectionRefusedError):
            started = subprocess.Popen([POSTERN, "broker", "--on-demand"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            BROKERS.append(started)
            started.stderr.read()  # it lets go of that when it serves
            started.stderr.close()


def grants():
    with broker() as client:
        return client.grants()


def waiting():
    """Folders of containers that have not fetched their grant."""
    return os.listdir(CONTAINERS) if os.path.isdir(CONTAINERS) else []


def deliverers():
    return [pid for pid in processes("createRuntime") if pid != os.getpid()]


def cdi_line():
    answer = json.loads(postern("check", "--json").stdout)
    return next(each for each in answer["requirements"] if each["id"] == "cdi")


def setUpModule():
    tree = tempfile.mkdtemp(dir="/root")
    os.chmod(tree, 0o755)
    for folder in ("bin", "proc", "sys", "dev", "etc", "tmp", "run"):
        os.mkdir(f"{tree}/{folder}")
    shutil.copy("/bin/busybox", f"{tree}/bin/busybox")
    for name in ("sh", "sleep", "true", "cat", "ls", "id", "env"):
        os.symlink("busybox", f"{tree}/bin/{name}")
    shutil.copy(CLIENT, f"{tree}/client")
    os.makedirs(STORE, exist_ok=True)
    subprocess.run(f"tar -C {tree} -c . >{tree}.tar", shell=True, check=True)
    made = podman("import", f"{tree}.tar", IMAGE, timeout=300)
    if made.returncode != 0:
        raise RuntimeError(made.stderr)
    shutil.rmtree(tree)


class Cdi(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        write_device()
        generate()
        self.before = left_behind()
        self.addCleanup(self.look_behind)

    def look_behind(self):
        podman("rm", "-fat", "0", timeout=300)
        wait_until(lambda: grants() == [], PATIENCE)
        while BROKERS:
            BROKERS.pop().wait(PATIENCE)
        for path in (CONFIG, SPEC):
            shutil.rmtree(path) if os.path.isdir(path) else os.path.exists(path) and os.unlink(path)
        def clean():
            return left_behind() == self.before and waiting() == [] and deliverers() == []
        wait_until(clean, PATIENCE)
        self.assertEqual(left_behind(), self.before)
        self.assertEqual(waiting(), [])
        self.assertEqual(deliverers(), [])

    # ---- containers

    def run_in(self, *words, flags=(), name="disk.0", runtime="crun", **more):
        return podman("run", "--rm", "--network", "none", *([slice_option(name)] if name else []), *flags, IMAGE, *words, runtime=runtime, **more)

    def start(self, *words, flags=(), name="disk.0", runtime="crun"):
        """A container in the background; its id."""
        made = podman("run", "-d", "--network", "none", *([slice_option(name)] if name else []), *flags, IMAGE, *words, runtime=runtime)
        self.assertEqual(made.returncode, 0, made.stderr)
        return made.stdout.strip()

    def init_of(self, container):
        return int(podman("inspect", "-f", "{{.State.Pid}}", container).stdout)

    def assertReads(self, result):
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr + hook_log())
        self.assertIn("100 verified", result.stdout)

    def assertFree(self):
        """No grant, nobody who waits, and the slice goes to the next."""
        self.assertTrue(wait_until(lambda: grants() == [], PATIENCE), grants())
        self.assertTrue(wait_until(lambda: waiting() == [] and deliverers() == []), (waiting(), deliverers()))


def hook_log():
    try:
        with open("/run/postern/hook.log") as file:
            return file.read()
    except FileNotFoundError:
        return ""


class Delivered(Cdi):
    def test_through_the_shim_and_through_the_library(self):
        for runtime in RUNTIMES:
            for words in ([SHIM, *READS], READS, [SHIM, *READS, "--wait", "irq"]):
                with self.subTest(runtime=runtime, words=words):
                    self.assertReads(self.run_in(*words, runtime=runtime))
                    self.assertFree()

    def test_any_free_slice(self):
        self.assertReads(self.run_in(SHIM, *READS, name="disk"))
        first = self.start(SHIM, "/bin/sleep", "1000", name="disk")
        second = self.start(SHIM, "/bin/sleep", "1000", name="disk")
        self.assertEqual(sorted(each["slice"] for each in grants()), [0, 1])
        podman("rm", "-ft", "0", first, second)
        self.assertFree()

    def test_containers_of_all_kinds(self):
        kinds = {"read-only": ["--read-only"], "user": ["--user", "1234:1234"], "no capabilities": ["--cap-drop", "all"],
                 "all of it": ["--read-only", "--user", "1234", "--cap-drop", "all", "--security-opt", "no-new-privileges"],
                 "user namespace": ["--uidmap", "0:100000:5000", "--gidmap", "0:100000:5000"], "init": ["--init"], "host's pids": ["--pid", "host"],
                 "tmpfs on /run": ["--tmpfs", "/run"], "no cgroup namespace": ["--cgroupns", "host"], "privileged": ["--privileged"], "terminal": ["-t"]}
        for kind, flags in kinds.items():
            for words in ([SHIM, *READS], READS):
                with self.subTest(kind=kind, words=words):
                    self.assertReads(self.run_in(*words, flags=flags))
        for kind in ("all of it", "user namespace", "init"):
            with self.subTest(kind=kind, runtime="runc"):
                self.assertReads(self.run_in(SHIM, *READS, flags=kinds[kind], runtime="runc"))
        self.assertFree()

    def test_what_the_client_finds(self):
        result = self.run_in(SHIM, "/bin/sh", "-c", "echo $$ $LISTEN_PID $LISTEN_FDS $LISTEN_FDNAMES; ls /proc/self/fd; cat /proc/self/fd/3")
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

    def test_statuses_of_the_shim(self):
        for words, status, says in ((["/no/such"], 127, "/no/such"), (["/etc"], 126, "/etc"), (["sh", "-c", "exit 7"], 7, "")):
            result = self.run_in(SHIM, *words)
            self.assertEqual(result.returncode, status, result.stderr)
            self.assertIn(says, result.stderr)
        self.assertFree()

    def test_no_slice_no_grant(self):
        flags = ["-v", f"{FILES}:/run/postern:ro"]
        for words in ([SHIM, "/bin/true"], READS):
            result = self.run_in(*words, name=None, flags=flags)
            self.assertNotEqual(result.returncode, 0)
            self.assertIn("nobody gives a grant here", result.stderr)
        self.assertReads(self.run_in(SHIM, *READS))

    def test_preserved_fds_are_not_overwritten(self):
        words = ["sh", "-c", 'exec 3</dev/null && exec "$@"', "sh", *podman_words(), "run", "--rm", "--network", "none", "--preserve-fds", "1",
                 slice_option("disk.0"), IMAGE]
        result = sh(*words, SHIM, *READS, timeout=120)
        self.assertEqual(result.returncode, 125, result.stderr)
        self.assertIn("fd 3 is open already", result.stderr)
        self.assertReads(sh(*words, *READS, timeout=120))

    def test_given_once(self):
        result = self.run_in("/bin/sh", "-c", f"{SHIM} /client --reads 100; {SHIM} /bin/true; echo second $?; /client --reads 1; echo third $?")
        self.assertIn("100 verified", result.stdout)
        self.assertIn("second 125", result.stdout)
        self.assertNotIn("third 0", result.stdout)
        self.assertEqual(result.stderr.count("nobody gives a grant here"), 2, result.stderr)
        self.assertFree()

    def test_started_again(self):
        container = self.start(SHIM, *READS)
        for _ in range(3):
            self.assertEqual(podman("wait", container).stdout.strip(), "0", podman("logs", container).stderr)
            started = podman("start", "-a", container)
            self.assertEqual(started.returncode, 0, started.stderr)
            self.assertIn("100 verified", started.stdout)
        self.assertFree()

    def test_restarted_while_it_waits(self):
        container = self.start("/bin/sleep", "1000")
        self.assertEqual(len(waiting()), 1)
        restarted = podman("restart", "-t", "0", container)
        self.assertEqual(restarted.returncode, 0, restarted.stderr)
        self.assertEqual(len(waiting()), 1)
        self.assertReads(podman("exec", container, SHIM, *READS))
        podman("rm", "-ft", "0", container)
        self.assertFree()

    def test_precreate_of_the_hooks_dir(self):
        folder = tempfile.mkdtemp(dir="/root")
        with open(f"{folder}/postern.json", "w") as file:
            json.dump({"version": "1.0.0", "hook": {"path": HOOK, "args": ["postern-oci-hook", "precreate"]},
                       "when": {"annotations": {"^dev\\.postern\\.slice$": ".*"}}, "stages": ["precreate"]}, file)
        os.unlink(SPEC)
        self.assertReads(self.run_in(SHIM, *READS, name=None, flags=["--annotation", "dev.postern.slice=disk.2"], hooks_dir=folder))
        # The control: without the annotation it gets nothing.
        result = self.run_in("/bin/ls", "/run/postern", name=None, hooks_dir=folder)
        self.assertNotEqual(result.returncode, 0)
        shutil.rmtree(folder)
        self.assertFree()

    def test_plain_runtimes(self):
        """crun and runc by hand, on a bundle that precreate has edited."""
        for runtime in RUNTIMES:
            with self.subTest(runtime=runtime):
                bundle = tempfile.mkdtemp(dir="/root")
                os.mkdir(f"{bundle}/rootfs")
                exported = podman("create", IMAGE, "x").stdout.strip()
                subprocess.run(f"{' '.join(podman_words())} export {exported} | tar -C {bundle}/rootfs -x", shell=True, check=True)
                self.assertEqual(sh(runtime, "spec", cwd=bundle).returncode, 0)
                with open(f"{bundle}/config.json") as file:
                    config = json.load(file)
                config["process"].update(terminal=False, args=[SHIM, *READS])
                config["annotations"] = {"dev.postern.slice": "disk.3"}
                edited = subprocess.run([HOOK, "precreate"], input=json.dumps(config), capture_output=True, text=True, timeout=PATIENCE)
                self.assertEqual(edited.returncode, 0, edited.stderr)
                with open(f"{bundle}/config.json", "w") as file:
                    file.write(edited.stdout)
                self.assertReads(sh(runtime, "run", "plain", cwd=bundle, timeout=120))
                shutil.rmtree(bundle)
                podman("rm", exported)
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
        container = self.start("/bin/sleep", "1000")
        path = f"{CONTAINERS}/{waiting()[0]}/grant.sock"
        self.assertEqual(os.stat(CONTAINERS).st_mode & 0o777, 0o700)
        self.assertEqual(self.connect(path), b"", "root of the host got the grant")
        # In its mount and pid namespaces, and not in its cgroup.
        pid = self.init_of(container)
        entered = sh("nsenter", "-t", pid, "-m", "-p", SHIM, "/bin/true")
        self.assertEqual(entered.returncode, 125, entered.stderr)
        self.assertIn("ended before a grant came", entered.stderr)
        self.assertIn("not in the container's", hook_log())
        # In its cgroup, and not in its pid namespace.
        with open(f"/proc/{pid}/cgroup") as file:
            cgroup = "/sys/fs/cgroup" + file.read().strip().split("::", 1)[1]
        moved = sh("sh", "-c", f"echo $$ >{cgroup}/cgroup.procs && exec nsenter -t {pid} -m {SHIM} /bin/true")
        self.assertEqual(moved.returncode, 125, moved.stderr)
        self.assertIn("not in its pid namespace", hook_log())
        # The control: whoever is in both.
        self.assertReads(podman("exec", container, SHIM, *READS))
        podman("rm", "-ft", "0", container)
        self.assertFree()

    def assertFails(self, result, status, *says):
        """podman shows the line, and nothing is left."""
        self.assertNotEqual(result.returncode, 0, result.stdout)
        for words in says:
            self.assertIn(words, result.stderr)
        self.assertIn("postern-oci-hook: ", result.stderr)
        self.assertIn(says[0], hook_log())

    def test_busy_and_unknown_slices_in_podmans_own_words(self):
        for runtime in RUNTIMES:
            with self.subTest(runtime=runtime):
                holder = self.start(SHIM, "/bin/sleep", "1000", runtime=runtime)
                self.assertFails(self.run_in("/bin/true", runtime=runtime), 12, "slice disk.0", "in use")
                self.assertFails(podman("run", "-d", "--network", "none", slice_option("disk.0"), IMAGE, "/bin/true", runtime=runtime), 12, "in use")
                self.assertReads(self.run_in(SHIM, *READS, name="disk.1", runtime=runtime))
                self.assertEqual([each["slice"] for each in grants()], [0])
                podman("rm", "-ft", "0", holder, runtime=runtime)
                self.assertFree()
                edit_spec(lambda spec: spec["devices"].append(json.loads(json.dumps(spec["devices"][1]).replace("disk.0", "disk.9"))))
                self.assertFails(self.run_in("/bin/true", name="disk.9", runtime=runtime), 11, "there is no slice \"disk.9\"")
                generate()
                podman("rm", "-fat", "0")
        unknown = self.run_in("/bin/true", name="disk.9")
        self.assertNotEqual(unknown.returncode, 0)
        self.assertIn("postern.dev/slice=disk.9", unknown.stderr)
        self.assertFree()

    def test_wrong_hardware(self):
        write_device("disk", device=EDU)
        self.assertFails(self.run_in("/bin/true"), 14, "slice disk.0", EDU)
        write_device()
        self.assertReads(self.run_in(SHIM, *READS))

    def test_a_broken_configuration(self):
        with open(f"{CONFIG}/other.json", "w") as file:
            file.write("{")
        self.assertFails(self.run_in("/bin/true"), 11, "other.json")
        os.unlink(f"{CONFIG}/other.json")
        self.assertReads(self.run_in(SHIM, *READS))

    def test_one_slice_a_container(self):
        self.assertFails(self.run_in("/bin/true", flags=[slice_option("disk.1")]), 16, "has a slice already")
        self.assertFree()
        self.assertReads(self.run_in(SHIM, *READS))

    def test_something_else_is_mounted_there(self):
        folder = tempfile.mkdtemp(dir="/root")
        with open(f"{folder}/grant.sock", "w"):
            pass
        def other(spec):
            spec["containerEdits"]["mounts"][0]["hostPath"] = folder
        edit_spec(other)
        self.assertFails(self.run_in("/bin/true"), 16, "something else is mounted there")
        generate()
        self.assertReads(self.run_in(SHIM, *READS))
        shutil.rmtree(folder)

    def test_no_cgroup_of_its_own(self):
        self.assertFails(self.run_in("/bin/true", flags=["--cgroups", "disabled"]), 15, "no cgroup of its own")
        self.assertFree()
        self.assertReads(self.run_in(SHIM, *READS))

    def test_without_the_hook_nothing_starts(self):
        def lost(spec):
            for device in spec["devices"]:
                for hook in device["containerEdits"]["hooks"]:
                    hook["path"] = "/no/such/postern-oci-hook"
        edit_spec(lost)
        for runtime in RUNTIMES:
            result = self.run_in("/bin/true", runtime=runtime)
            self.assertNotEqual(result.returncode, 0)
            self.assertIn("/no/such/postern-oci-hook", result.stderr)
        generate()
        self.assertReads(self.run_in(SHIM, *READS))

    def test_statuses(self):
        """Each kind of failure has its own: podman and crun tell it."""
        self.assertEqual(sh(HOOK, "createRuntime").returncode, 2)
        self.assertEqual(sh(HOOK, "nonsense").returncode, 2)
        self.assertEqual(sh(HOOK, "createRuntime", "--slice", "disk.0").returncode, 10)
        self.assertEqual(sh(HOOK, "poststop", "--slice", "disk.0").returncode, 10)
        self.assertEqual(sh(HOOK, "--help").returncode, 0)


class Endings(Cdi):
    def test_every_way_of_ending(self):
        def killed(container):
            podman("kill", container)
        def removed(container):
            podman("rm", "-ft", "0", container)
        def init_killed(container):
            os.kill(self.init_of(container), 9)
        def stopped(container):
            podman("stop", "-t", "1", container)
        for runtime in RUNTIMES:
            for end in (killed, removed, init_killed, stopped):
                for words in (["/bin/sleep", "1000"], [SHIM, "/bin/sleep", "1000"]):
                    with self.subTest(runtime=runtime, end=end.__name__, words=words):
                        container = self.start(*words, runtime=runtime)
                        self.assertEqual(len(grants()), 1)
                        end(container)
                        self.assertFree()
                        podman("rm", "-ft", "0", container)
        self.assertReads(self.run_in(SHIM, *READS))

    def test_a_command_that_cannot_be_run(self):
        for runtime in RUNTIMES:
            result = self.run_in("/no/such", runtime=runtime)
            self.assertEqual(result.returncode, 127, result.stderr)
            self.assertFree()

    def test_the_deliverer_is_killed(self):
        container = self.start("/bin/sleep", "1000")
        deliverer = deliverers()
        self.assertEqual(len(deliverer), 1)
        os.kill(deliverer[0], 9)
        result = podman("exec", container, SHIM, "/bin/true")
        self.assertEqual(result.returncode, 125)
        self.assertIn("nobody gives a grant here", result.stderr)
        self.assertEqual(len(waiting()), 1, "what is left is poststop's to remove")
        podman("stop", "-t", "0", container)
        self.assertFree()
        started = podman("start", container)
        self.assertEqual(started.returncode, 0, started.stderr)
        self.assertReads(podman("exec", container, SHIM, *READS))
        podman("rm", "-ft", "0", container)
        self.assertFree()

    def test_the_deliverer_is_nobodys(self):
        """It holds nothing of the runtime's, and is in nobody's way."""
        container = self.start("/bin/sleep", "1000")
        pid = deliverers()[0]
        with open(f"/proc/{pid}/status") as file:
            self.assertIn("PPid:\t1\n", file.read())
        fds = sorted(os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd"))
        self.assertEqual(fds.count("/dev/null"), 3, fds)
        self.assertFalse([each for each in fds if each.startswith("pipe:")], fds)
        self.assertNotEqual(os.getsid(pid), os.getsid(self.init_of(container)))
        with open(f"/proc/{pid}/cgroup") as file:
            self.assertNotIn("postern-grant", file.read())
        podman("rm", "-ft", "0", container)
        self.assertFree()


class Specification(Cdi):
    def test_check_finds_what_is_wrong(self):
        self.assertTrue(cdi_line()["met"])
        write_device("second", device=EDU, profile="edu")
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
        write_device("second", device=EDU, profile="edu")
        generate()
        self.assertNotEqual(os.stat(SPEC).st_ino, before.st_ino)
        # A broken configuration leaves what is there.
        with open(f"{CONFIG}/second.json", "w") as file:
            file.write("{")
        refused = postern("cdi", "generate", "-o", SPEC)
        self.assertEqual(refused.returncode, 1)
        self.assertIn("second.json", refused.stderr)
        self.assertTrue(os.path.exists(SPEC))
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

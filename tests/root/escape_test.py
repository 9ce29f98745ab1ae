#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""escape_test.py BUILD: ways out of a plain sandbox that have been found in others.

What is tried is mostly the hostile client's (tests/hostile), here without a device. Each refusal has its control: the same probe outside,
or in a sandbox that allows it."""

import ctypes
import fcntl
import hashlib
import json
import mmap
import os
import pathlib
import pty
import shutil
import signal
import socket
import subprocess
import sys
import termios
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import small_world
from small_world import LIBC, State, left_since

BUILD = ""
WORK = "/var/tmp/work"
SYS_ADD_KEY, SYS_KEYCTL = 248, 250
JOIN_SESSION_KEYRING, SESSION_KEYRING = 1, -3
RENAME_EXCHANGE = 2
#: A client that is uid 0 and was asked to be: no rights come from it.
AS_ROOT = {"root-inside", "root-outside", "setuid-root", "setgid-root", "setresuid-root", "setfsuid-root"}
#: Besides, root of the host to its files, which `postern run` warns of. It may list which numbers init's files have, and no more:
#: Roots.test_what_init_has_open_leads_nowhere.
AS_HOST_ROOT = AS_ROOT | {"etc-shadow-read", "proc-fd"}


def launch(*arguments, verb="run", **kwargs):
    return subprocess.run([f"{BUILD}/bin/postern", verb, *arguments], **{"stdin": subprocess.DEVNULL, "capture_output": True,
                                                                        "text": True, "timeout": 600, **kwargs})


def hostile(*arguments):
    return [f"{BUILD}/examples/hostile-client", "--json", *arguments]


def shell(script, *flags, **kwargs):
    return launch(*flags, "--", "/bin/sh", "-c", script, **kwargs)


class EscapeTest(unittest.TestCase):
    def setUp(self):
        shell("true")
        self.before = State()
        os.mkdir(WORK)

    def tearDown(self):
        shutil.rmtree(WORK)
        self.doCleanups()
        self.assertEqual(left_since(self.before), {})

    def findings(self, result):
        self.assertIn(result.returncode, (0, 1), result.stderr)
        return {probe["name"]: probe for probe in json.loads(result.stdout)["probes"]}

    def inside(self, *probes, flags=(), verb="run", **kwargs):
        only = [word for probe in probes for word in ("--only", probe)]
        dashes = ["--"] if verb == "run" else []
        return self.findings(launch(*flags, *dashes, *hostile(*only), verb=verb, **kwargs))

    def outside(self, *probes, **kwargs):
        only = [word for probe in probes for word in ("--only", probe)]
        return self.findings(subprocess.run(hostile("--expect", "allowed", *only), **{"stdin": subprocess.DEVNULL, "capture_output": True,
                                                                                     "text": True, "timeout": 600, **kwargs}))

    def assertVerdicts(self, findings, verdict):
        self.assertTrue(findings)
        wrong = {name: (probe["verdict"], probe["reason"], probe["detail"]) for name, probe in findings.items()
                 if probe["verdict"] != verdict}
        self.assertEqual(wrong, {})

    def profile(self, **sandbox):
        path = f"{WORK}/profile.json"
        with open(path, "w") as file:
            json.dump({"postern": 1, "sandbox": sandbox}, file)
        return ["--quiet", "--profile", path]


class EveryProbe(EscapeTest):
    """All that the hostile client tries against a sandbox."""
    WITHOUT_USER = ["pid", "mount", "net", "ipc", "uts", "cgroup"]

    def assertOnly(self, allowed, *flags, command=None):
        result = launch(*flags, "--", *(command or hostile("--skip-group", "guard")))
        findings = self.findings(result)
        self.assertGreater(len(findings), 130)
        self.assertEqual({name: (probe["verdict"], probe["reason"], probe["detail"], probe["control"]) for name, probe in findings.items()
                          if not probe["expected"] and name not in allowed}, {})

    def test_the_default(self):
        self.assertOnly(set())

    def test_an_empty_root(self):
        self.assertOnly(set(), "--root", "empty", "--ro-bind", f"{BUILD}/examples", "/client",
                        command=["/client/hostile-client", "--json", "--skip-group", "guard"])

    def test_uid_0(self):
        self.assertOnly(AS_HOST_ROOT, "--quiet", "--uid", "0", "--gid", "0")

    def test_no_user_namespace(self):
        self.assertOnly(set(), *self.profile(namespaces=self.WITHOUT_USER))

    def test_uid_0_without_a_user_namespace(self):
        self.assertOnly(AS_HOST_ROOT, *self.profile(namespaces=self.WITHOUT_USER, user={"uid": 0, "gid": 0}))

    def test_the_control_outside(self):
        self.assertVerdicts(self.outside(
            "root-write", "etc-passwd-write", "etc-shadow-read", "proc-sys-write", "proc-core-pattern", "any-switch", "host-sockets",
            "ptrace", "proc-mem", "proc-environ", "proc-root", "proc-fd", "proc-exe", "process-vm-readv", "pidfd-getfd", "kill",
            "setns-mount", "setns-net", "setns-pid", "setns-uts", "setns-ipc", "setns-cgroup", "unshare-user", "unshare-mount", "clone-user",
            "mount-tmpfs", "abstract-connect", "abstract-names", "session-keyring", "add-key", "keyctl", "setuid-root"), "ALLOWED")


class Roots(EscapeTest):
    def test_no_folder_leads_up(self):
        for flags in ([], ["--share-pid"], ["--root", "empty", "--ro-bind", f"{BUILD}/examples", f"{BUILD}/examples"]):
            self.assertVerdicts(self.inside("old-root", flags=flags, cwd=WORK), "refused")
        # The control: a folder that the caller passes in is one way.
        folder = os.open(WORK, os.O_RDONLY)
        self.assertVerdicts(self.inside("old-root", stdin=folder), "ALLOWED")
        os.close(folder)

    def test_no_namespace_is_left_open(self):
        """An fd of the launcher's to a namespace, inherited by mistake of its caller."""
        fds = [os.open(f"/proc/self/ns/{kind}", os.O_RDONLY) for kind in ("mnt", "net", "user", "pid")]
        self.assertVerdicts(self.inside("stray-fds", pass_fds=fds), "refused")
        control = self.outside("stray-fds", pass_fds=fds)
        self.assertVerdicts(control, "ALLOWED")
        self.assertRegex(control["stray-fds"]["detail"], r":\[\d+\]")
        for fd in fds:
            os.close(fd)

    def test_proc_of_another_pid_namespace_leads_nowhere(self):
        for flags in (["--share-pid"], ["--share-pid", "--quiet", "--uid", "0", "--gid", "0"]):
            self.assertVerdicts(self.inside("proc-root", "proc-exe", "proc-mem", "pidfd-getfd", "ptrace", flags=flags), "refused")

    def test_what_init_has_open_leads_nowhere(self):
        look = "cd /proc/{}/fd; for fd in *; do readlink $fd; head -c 0 <$fd && echo read; head -c 0 >$fd && echo written; done; "
        # Init may still be closing the launcher's when its client has begun.
        wait = "i=0; while [ $(ls | wc -l) != 1 ] && [ $i -lt 100 ]; do i=$((i + 1)); sleep 0.1; done; echo $(ls | wc -l) files"
        for flags in ([], ["--seccomp-profile", "none"]):
            result = shell(look.format(1) + wait, "--quiet", "--uid", "0", "--gid", "0", *flags)
            self.assertEqual(result.stdout, "1 files\n", result.stderr)
        # The control: its own are another matter.
        self.assertRegex(shell(look.format("self"), "--quiet", "--uid", "0", "--gid", "0", stdin=None).stdout, "read\n.*written")


class RootWithoutRights(EscapeTest):
    """A launcher that is root, but may not change its user: its client must not be root outside under another number."""
    SECRETS = "id -u; head -c 1 /etc/shadow >/dev/null && echo read; (: >>/proc/sys/kernel/core_pattern) && echo open"

    def test_without_the_capabilities_it_is_refused(self):
        result = subprocess.run(["setpriv", "--bounding-set=-setuid,-setgid", f"{BUILD}/bin/postern", "run", "--", "/bin/sh", "-c", self.SECRETS],
                                capture_output=True, text=True, stdin=subprocess.DEVNULL)
        self.assertEqual((result.returncode, result.stdout), (125, ""), result.stderr)
        self.assertIn("CAP_SETUID", result.stderr)
        self.assertEqual(shell(self.SECRETS).stdout, "65534\n", "the control: with them nothing of it is reached")

    def test_in_a_namespace_without_other_ids_what_is_roots_alone_is_kept_from_it(self):
        with_one_id = ["unshare", "--user", "--map-root-user", f"{BUILD}/bin/postern", "run"]
        result = subprocess.run([*with_one_id, "--", "/bin/sh", "-c", self.SECRETS], capture_output=True, text=True, stdin=subprocess.DEVNULL)
        self.assertNotIn("open", result.stdout)
        self.assertIn("65534\n", result.stdout, result.stderr)
        control = subprocess.run([*with_one_id[:3], "/bin/sh", "-c", self.SECRETS], capture_output=True, text=True, stdin=subprocess.DEVNULL)
        self.assertIn("open", control.stdout, "the control: without a sandbox it is open")


class Launcher(EscapeTest):
    """The launcher's own program, which init and, until exec, the client run."""

    def setUp(self):
        super().setUp()
        # A copy: it is put to the test for real.
        for name in ("bin", "libexec", "share"):
            shutil.copytree(f"{BUILD}/{name}", f"{WORK}/copy/{name}", ignore=lambda *_: ["postern-crun", "postern-oci-hook"])
        self.program = f"{WORK}/copy/bin/postern"
        self.hash = self.digest()

    def digest(self):
        """Of all programs that a launch may run."""
        digest = hashlib.sha256()
        for path in sorted(pathlib.Path(f"{WORK}/copy").glob("**/postern*")):
            if path.is_file():
                digest.update(path.read_bytes())
        return digest.hexdigest()

    def image(self):
        root = f"{WORK}/image"
        for name in ("usr", "lib", "lib64", "proc", "dev", "tmp"):
            os.makedirs(f"{root}/{name}")
        return root, ["--quiet", "--uid", "0", "--gid", "0", "--root", root, "--ro-bind", "/usr", "/usr", "--ro-bind", "/lib", "/lib",
                      "--ro-bind", "/lib64", "/lib64"]

    def run_copy(self, *arguments):
        return subprocess.run([self.program, "run", *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)

    def test_init_is_no_way_to_it(self):
        _, flags = self.image()
        overwrite = "exec 3<>/proc/{}/exe || exit 9; echo overwritten >&3"
        for flag in ([], ["--seccomp-profile", "none"]):
            result = self.run_copy(*flags, *flag, "--", "/usr/bin/sh", "-c", overwrite.format(1))
            self.assertNotEqual(result.returncode, 0)
            self.assertIn("/proc/1/exe", result.stderr)
        self.assertEqual(self.digest(), self.hash)
        # The control: to who may, this is what it does.
        with open(self.program, "r+b", buffering=0) as file:
            subprocess.run(["/bin/sh", "-c", overwrite.format(f"self/fd/{file.fileno()}").replace("/exe", "")], check=True,
                           pass_fds=[file.fileno()])
        self.assertNotEqual(self.digest(), self.hash)

    def test_a_command_that_is_a_link_to_proc_self_exe(self):
        """It runs the launcher, inside. Nothing that could take hold of it runs beside it, and its file cannot be written."""
        root, flags = self.image()
        os.symlink("/proc/self/exe", f"{root}/link")
        with open(f"{root}/script", "w") as file:
            file.write("#!/proc/self/exe\n")
        os.chmod(f"{root}/script", 0o755)
        for command in (["/link", "--version"], ["/script"], ["/proc/self/exe", "--version"]):
            self.run_copy(*flags, "--", *command)
            self.assertEqual(self.digest(), self.hash)


class Terminals(EscapeTest):
    def on_terminal(self, command):
        """On a terminal of its own, as its controlling one. Also what was typed there."""
        master, slave = pty.openpty()

        def take():
            os.setsid()
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
        try:
            result = subprocess.run(command, stdin=slave, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60,
                                    preexec_fn=take)
            # Echoed to the screen, if it came.
            os.set_blocking(master, False)
            try:
                typed = os.read(master, 100)
            except BlockingIOError:
                typed = b""
        finally:
            os.close(master)
            os.close(slave)
        return self.findings(result), typed

    def probe(self, *flags, verb="run"):
        dashes = ["--"] if verb == "run" else []
        return self.on_terminal([f"{BUILD}/bin/postern", verb, *flags, *dashes,
                                 *hostile("--only", "tiocsti-inherited", "--only", "tioclinux-inherited")])

    def test_nothing_is_typed(self):
        for flags in ([], ["--seccomp-profile", "none"], ["--seccomp-profile", "none", "--uid", "0", "--gid", "0"]):
            findings, typed = self.probe("--quiet", *flags)
            self.assertVerdicts(findings, "refused")
            self.assertEqual(findings["tiocsti-inherited"]["reason"], "EPERM")
            self.assertEqual(typed, b"")

    def test_the_control_outside(self):
        findings, typed = self.on_terminal(hostile("--expect", "allowed", "--only", "tiocsti-inherited", "--only", "tioclinux-inherited"))
        self.assertVerdicts({"tiocsti-inherited": findings["tiocsti-inherited"]}, "ALLOWED")
        self.assertIn(b"x", typed)
        # Behind the question who asks: this terminal is no console.
        self.assertVerdicts({"tioclinux-inherited": findings["tioclinux-inherited"]}, "inherent")

    def test_bubblewraps_command_line_needs_new_session_for_it(self):
        everything = ["--dev-bind", "/", "/"]
        findings, typed = self.probe(*everything, "--unshare-user", "--new-session", verb="bwrap")
        self.assertEqual((findings["tiocsti-inherited"]["verdict"], typed), ("refused", b""))
        if small_world.text("/proc/sys/dev/tty/legacy_tiocsti") == "1\n":
            findings, typed = self.probe(*everything, "--unshare-user", verb="bwrap")
            self.assertEqual((findings["tiocsti-inherited"]["verdict"], typed[:1]), ("ALLOWED", b"x"))


class Keys(EscapeTest):
    def setUp(self):
        super().setUp()
        # A session of this test's own, so that no key is left in anybody's.
        self.assertGreater(LIBC.syscall(SYS_KEYCTL, JOIN_SESSION_KEYRING, None), 0, os.strerror(ctypes.get_errno()))
        self.assertGreater(LIBC.syscall(SYS_ADD_KEY, b"user", b"postern-hostile-session", b"secret", 6, SESSION_KEYRING), 0)

    def test_the_launchers_are_out_of_reach(self):
        with open(f"{BUILD}/share/postern/profiles/seccomp/default.json") as file:
            default = json.load(file)
        for rule in default["syscalls"]:
            rule["names"] = [name for name in rule["names"] if name != "keyctl"]
        default["syscalls"].append({"names": ["keyctl"], "action": "SCMP_ACT_ALLOW"})
        anything = f"{WORK}/anything.json"
        with open(anything, "w") as file:
            json.dump(default, file)
        for flags in ([], ["--seccomp-profile", "none"], ["--seccomp-profile", anything],
                      ["--seccomp-profile", "none", "--uid", "0", "--gid", "0"]):
            for _ in range(2):  # the second launch is one that was kept
                found = self.inside("session-keyring", flags=["--quiet", *flags])
                self.assertVerdicts(found, "refused")
                # Where it could ask there was none.
                self.assertEqual(found["session-keyring"]["reason"] == "ENOKEY", bool(flags), found)

    def test_the_control_bubblewraps_command_line_leaves_them(self):
        found = self.inside("session-keyring", flags=["--dev-bind", "/", "/"], verb="bwrap")["session-keyring"]
        self.assertEqual(found["verdict"], "ALLOWED", found)


class Nesting(EscapeTest):
    def verdict(self, *flags, verb="run"):
        return self.inside("unshare-user", "clone-user", "clone3-user", flags=flags, verb=verb)

    def test_user_namespaces(self):
        self.assertVerdicts(self.verdict(), "refused")
        self.assertVerdicts(self.verdict("--quiet", "--seccomp-profile", "none"), "ALLOWED")

    def test_no_more_of_them_without_a_filter(self):
        host = ["--dev-bind", "/", "/", "--unshare-user"]
        self.assertVerdicts(self.verdict(*host, verb="bwrap"), "ALLOWED")
        for each in self.verdict(*host, "--disable-userns", verb="bwrap").values():
            self.assertEqual(each["reason"], "ENOSPC", each)


class Races(EscapeTest):
    """A folder that a client may write to is bound into the next sandbox, while a link in it is swapped."""
    ROUNDS = 40

    def swap(self, one, other):
        """What the other client does. Returns what ends it and tells how often it has done it."""
        count = mmap.mmap(-1, 8)
        child = os.fork()
        if child == 0:
            while True:
                LIBC.renameat2(-100, one.encode(), -100, other.encode(), RENAME_EXCHANGE)
                count[:] = (int.from_bytes(count[:], "little") + 1).to_bytes(8, "little")

        def end():
            if not ended:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
            ended.append(True)
            return int.from_bytes(count[:], "little")
        ended = []
        self.addCleanup(end)
        return end

    def test_a_mount_stays_inside(self):
        for link in ("/opt", "../../../../../../../opt", "/proc/1/root/opt"):
            os.makedirs(f"{WORK}/shared/target", exist_ok=True)
            os.symlink(link, f"{WORK}/shared/other")
            end = self.swap(f"{WORK}/shared/target", f"{WORK}/shared/other")
            places = []
            for _ in range(self.ROUNDS):
                result = shell("grep -c . /proc/self/mountinfo; grep tmpfs /proc/self/mountinfo | cut -d' ' -f5",
                               "--bind", f"{WORK}/shared", "/mnt", "--tmpfs", "/mnt/target")
                if result.returncode == 0:
                    count, *rest = result.stdout.split()
                    places.append((int(count), "/opt" in rest, "/mnt/target" in rest or "/mnt/other" in rest))
                else:
                    self.assertEqual(result.returncode, 125, result.stderr)
            self.assertGreater(end(), self.ROUNDS, "the control: it was swapped")
            self.assertTrue(places)
            # Wherever it went, it is in the sandbox, and nothing else is missing.
            self.assertEqual({(count, at_link != at_target) for count, at_link, at_target in places}, {(places[0][0], True)})
            self.assertFalse([line for line in small_world.text("/proc/self/mountinfo").splitlines() if " /opt " in line])
            shutil.rmtree(f"{WORK}/shared")

    def test_nothing_is_made_outside(self):
        """bubblewrap's command line makes targets in folders of the host."""
        outside = f"{WORK}/outside"
        os.mkdir(outside)
        os.makedirs(f"{WORK}/shared/target")
        os.symlink(outside, f"{WORK}/shared/other")
        end = self.swap(f"{WORK}/shared/target", f"{WORK}/shared/other")
        host = ["--ro-bind", "/", "/", "--bind", f"{WORK}/shared", "/mnt"]
        statuses = [launch(*host, "--dir", f"/mnt/target/made{i}", "/bin/true", verb="bwrap").returncode for i in range(self.ROUNDS)]
        self.assertGreater(end(), self.ROUNDS)
        self.assertEqual(os.listdir(outside), [])
        self.assertIn(0, statuses, "the control: where it was a folder it was made there")

    def test_proc_is_covered_wherever_it_lies(self):
        """Its place is named by a link, or by one that is swapped: what in it is root's alone stays covered."""
        root = f"{WORK}/image"
        for name in ("usr", "lib", "lib64", "proc", "dev", "tmp", "one/proc", "two/proc"):
            os.makedirs(f"{root}/{name}")
        os.symlink("one", f"{root}/link")
        libraries = [{"type": "bind", "source": path, "target": path, "options": ["ro"]} for path in ("/usr", "/lib", "/lib64")]
        flags = self.profile(namespaces=["pid", "mount", "net", "ipc", "uts", "cgroup"], user={"uid": 0, "gid": 0}, root={"path": root},
                             mounts=[*libraries, {"type": "proc", "target": "/link/proc"}])
        look = "for p in /one /two; do [ -e $p/proc/self ] && (: >>$p/proc/sys/kernel/core_pattern) 2>/dev/null && echo open at $p; done; " \
               "ls -d /one/proc/self /two/proc/self 2>/dev/null | wc -l"
        command = ["/usr/bin/env", "PATH=/usr/bin", "sh", "-c", look]
        self.assertEqual(launch(*flags, "--", *command).stdout, "1\n")
        # The control, on the host: it is open to root.
        with open("/proc/sys/kernel/core_pattern", "a"):
            pass
        os.symlink("two", f"{root}/other")
        end = self.swap(f"{root}/link", f"{root}/other")
        said = [launch(*flags, "--", *command).stdout for _ in range(self.ROUNDS)]
        end()
        self.assertEqual(set(said), {"1\n"})


class Sockets(EscapeTest):
    def test_abstract_ones_of_the_host(self):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind("\0/tmp/.X11-unix/X0")
        listener.listen()
        try:
            self.assertVerdicts(self.inside("abstract-connect", "abstract-names"), "refused")
            shared = self.inside("abstract-connect", flags=["--quiet", "--share-net"])["abstract-connect"]
            # With the host's network only Landlock holds them back, from Linux 6.12 on.
            self.assertEqual(shared["verdict"], "refused" if landlock_abi() >= 6 else "ALLOWED", shared)
            control = self.inside("abstract-connect", flags=["--dev-bind", "/", "/"], verb="bwrap")["abstract-connect"]
            self.assertEqual(control["verdict"], "ALLOWED", control)
        finally:
            listener.close()


def landlock_abi():
    return LIBC.syscall(444, None, 0, 1)


if __name__ == "__main__":
    BUILD = os.path.abspath(sys.argv[1])
    small_world.enter()
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]], verbosity=2)

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""sandbox_flags_test.py BUILD: what `postern run` can be told of the sandbox, as its users tell it.

Each is seen from inside, and beside each stands the launch without it."""

import os
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest

BUILD = os.path.abspath(sys.argv[1])


def run(*flags, script, **more):
    return subprocess.run([f"{BUILD}/bin/postern", "run", "--quiet", *flags, "--", "/bin/sh", "-c", script],
                          **{"capture_output": True, "text": True, "stdin": subprocess.DEVNULL, "timeout": 60, **more})


class Flags(unittest.TestCase):
    def assertOut(self, expected, *flags, script, **more):
        result = run(*flags, script=script, **more)
        self.assertEqual((result.returncode, result.stdout.strip()), (0, expected), result.stderr)

    def assertRefused(self, says, *flags, **more):
        result = run(*flags, script="echo ran", **more)
        self.assertEqual((result.returncode, result.stdout), (125, ""), result.stderr)
        self.assertEqual(result.stderr.count("\n"), 1, result.stderr)
        self.assertIn(says, result.stderr)

    def read_only(self, text):
        file = tempfile.TemporaryFile()
        self.addCleanup(file.close)
        file.write(text)
        file.seek(0)
        return file.fileno()

    def test_folders_links_and_modes(self):
        self.assertOut("750 /usr x", "--dir", "/tmp/a/b", "--chmod", "0750", "/tmp/a/b", "--symlink", "/usr", "/tmp/a/link",
                       script="echo $(stat -c %a /tmp/a/b) $(readlink /tmp/a/link) x")
        self.assertOut("x", script="echo $(ls /tmp) x")
        self.assertRefused("not octal", "--dir", "/tmp/a", "--chmod", "0999", "/tmp/a")
        self.assertRefused("no such file in the sandbox", "--chmod", "0700", "/tmp/none")
        self.assertRefused("read-only mount", "--chmod", "0700", "/etc/passwd")

    def test_a_link_that_is_another_already(self):
        self.assertOut("/usr", "--symlink", "/usr", "/tmp/l", "--symlink", "/usr", "/tmp/l", script="readlink /tmp/l")
        self.assertRefused("existing destination is /usr", "--symlink", "/usr", "/tmp/l", "--symlink", "/etc", "/tmp/l")

    def test_files_of_fds(self):
        for flag, writable in (("--file", True), ("--bind-data", True), ("--ro-bind-data", False)):
            fd = self.read_only(b"hello\n")
            self.assertOut("hello " + ("written" if writable else "kept"), "--uid", "0", flag, str(fd), "/tmp/f", pass_fds=[fd],
                           script="cat /tmp/f | tr '\\n' ' '; (echo more >> /tmp/f) 2>/dev/null && echo written || echo kept")
        self.assertRefused("is not open", "--file", "987", "/tmp/f")

    def test_a_file_that_nobody_ever_ends(self):
        """A start that waits for somebody else's data can be given up, and does not outlive its launcher."""
        for how, status in ((signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)):
            for _ in range(2):
                read, write = os.pipe()
                launcher = subprocess.Popen([f"{BUILD}/bin/postern", "run", "--quiet", "--file", str(read), "/tmp/f", "--", "/bin/true"],
                                            pass_fds=[read], stderr=subprocess.PIPE, text=True)
                os.close(read)
                children = f"/proc/{launcher.pid}/task/{launcher.pid}/children"
                deadline = time.monotonic() + 20
                inits = []
                while not inits:
                    self.assertLess(time.monotonic(), deadline)
                    with open(children) as file:
                        inits = file.read().split()
                time.sleep(0.3)  # it is at the file by then, or soon: both count
                self.assertIsNone(launcher.poll())
                launcher.send_signal(how)
                self.assertEqual(launcher.wait(20), status)
                said = launcher.stderr.read()
                self.assertEqual(said.count("\n"), 0 if how == signal.SIGKILL else 1, said)
                launcher.stderr.close()
                while os.path.exists(f"/proc/{inits[0]}"):
                    self.assertLess(time.monotonic(), deadline)
                    time.sleep(0.01)
                os.close(write)
        # The control: it goes on when the data has come.
        read, write = os.pipe()
        os.write(write, b"late\n")
        os.close(write)
        self.assertOut("late", "--file", str(read), "/tmp/f", script="cat /tmp/f", pass_fds=[read])
        os.close(read)

    def test_a_signal_to_a_client_that_has_just_begun_is_its_own(self):
        """Its launcher may not have heard yet that it runs: such a start is not given up any more."""
        cpu = {min(os.sched_getaffinity(0))}
        for flags in ([], ["--file", "0", "/tmp/f"]):
            for _ in range(60):
                client = subprocess.Popen(
                    [f"{BUILD}/bin/postern", "run", "--quiet", *flags, "--", "/bin/sh", "-c",
                     "trap 'exit 42' TERM; echo ready; while :; do sleep 0.01; done"],
                    stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, preexec_fn=lambda: os.sched_setaffinity(0, cpu))
                self.assertEqual(client.stdout.readline(), "ready\n")
                client.send_signal(signal.SIGTERM)
                self.assertEqual(client.wait(20), 42, flags)
                client.stdout.close()

    def test_an_open_folder(self):
        with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
            os.chmod(folder, 0o755)
            with open(f"{folder}/inside", "w"):
                pass
            fd = os.open(folder, os.O_PATH)
            self.addCleanup(os.close, fd)
            self.assertOut("inside", "--ro-bind-fd", str(fd), "/mnt", pass_fds=[fd], script="ls /mnt")
            # What is at the path by now is not what is open.
            os.rename(folder, folder + ".moved")
            os.mkdir(folder)
            self.assertOut("inside", "--ro-bind-fd", str(fd), "/mnt", pass_fds=[fd], script="ls /mnt")
            os.rmdir(folder)
            os.rename(folder + ".moved", folder)

    def test_sources_that_need_not_be_there(self):
        self.assertOut("ran", "--ro-bind-try", "/no/such", "/mnt", script="echo ran")
        self.assertOut("there", "--ro-bind-try", "/usr", "/mnt", script="test -d /mnt/bin && echo there")
        self.assertRefused("/no/such", "--ro-bind", "/no/such", "/mnt")

    def test_message_queues(self):
        self.assertOut("mqueue", "--dir", "/tmp/q", "--mqueue", "/tmp/q", script="stat -f -c %T /tmp/q")

    def test_a_mount_made_read_only(self):
        script = "(echo x > /tmp/t/f) 2>/dev/null && echo written || echo refused"
        self.assertOut("written", "--dir", "/tmp/t", "--tmpfs", "/tmp/t", "--chmod", "1777", "/tmp/t", script=script)
        self.assertOut("refused", "--dir", "/tmp/t", "--tmpfs", "/tmp/t", "--chmod", "1777", "/tmp/t", "--remount-ro", "/tmp/t", script=script)

    def test_the_client_as_pid_1(self):
        self.assertOut("1", "--as-pid-1", script="echo $$")
        self.assertOut("2", script="echo $$")
        self.assertEqual(run("--as-pid-1", script="exit 7").returncode, 7)
        self.assertEqual(run("--as-pid-1", script="kill -9 $$; exit 3").returncode, 3)  # from inside, pid 1 cannot be killed
        self.assertRefused("pid namespace", "--as-pid-1", "--share-pid")
        for more in ([], ["--as-pid-1"]):
            limited = run("--time-limit", "200ms", *more, script="exec sleep 60")
            self.assertEqual(limited.returncode, 124, limited.stderr)
            self.assertIn("time limit", limited.stderr)
            self.assertEqual(run("--time-limit", "60s", *more, script="exit 9").returncode, 9)

    def test_the_end_of_user_namespaces(self):
        script = "unshare --user true 2>/dev/null && echo made || echo refused"
        self.assertOut("made", "--seccomp-profile", "none", script=script)
        self.assertOut("refused", "--seccomp-profile", "none", "--disable-userns", script=script)
        self.assertOut("65534", "--disable-userns", script="id -u")

    def test_the_loopback_interface(self):
        script = "cat /sys/class/net/lo/flags 2>/dev/null; grep -c 127.0.0.1 /proc/net/fib_trie"
        self.assertNotEqual(run(script=script).stdout.strip(), run("--loopback", script=script).stdout.strip())

    def test_clocks(self):
        ahead = float(run("--boottime", "1000000", script="cut -d' ' -f1 /proc/uptime").stdout)
        self.assertGreater(ahead, 1000000)
        with open("/proc/uptime") as file:
            own = float(file.read().split()[0])
        self.assertLess(abs(ahead - 1000000 - own), 60)
        self.assertLess(abs(float(run(script="cut -d' ' -f1 /proc/uptime").stdout) - own), 60)
        self.assertRefused("no number of seconds", "--boottime", "-1")

    def test_a_network_namespace_to_join(self):
        holder = subprocess.Popen(["unshare", "--net", "sleep", "60"])
        self.addCleanup(holder.wait)
        self.addCleanup(holder.kill)
        path = f"/proc/{holder.pid}/ns/net"
        own = os.readlink("/proc/self/ns/net")
        while os.readlink(path) == own:
            pass
        self.assertOut(os.readlink(path), "--netns", path, script="readlink /proc/self/ns/net")
        self.assertNotEqual(run(script="readlink /proc/self/ns/net").stdout.strip(), os.readlink(path))
        self.assertRefused("/no/such", "--netns", "/no/such")
        self.assertRefused("joining the network namespace", "--netns", "/etc/passwd")

    def test_modes_and_sizes(self):
        self.assertOut("700 drwxrwx--- 1.0M", "--perms", "0700", "--dir", "/tmp/a", "--perms", "0770", "--size", "1MiB", "--tmpfs", "/mnt",
                       script="echo $(stat -c %a /tmp/a) $(stat -c %A /mnt) $(df -h --output=size /mnt | tail -1)")
        fd = self.read_only(b"x")
        self.assertOut("640", "--perms", "0640", "--file", str(fd), "/tmp/f", pass_fds=[fd], script="stat -c %a /tmp/f")
        # Of the next only.
        self.assertOut("700 755", "--perms", "0700", "--dir", "/tmp/a", "--dir", "/tmp/b", script="echo $(stat -c %a /tmp/a /tmp/b)")
        self.assertRefused("no --tmpfs follows", "--size", "4096")
        self.assertRefused("is no size", "--size", "much", "--tmpfs", "/mnt")
        self.assertRefused("no --dir", "--perms", "0700")
        self.assertRefused("not octal", "--perms", "0800", "--dir", "/tmp/a")

    def test_overlays(self):
        with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
            os.chmod(folder, 0o755)
            for name in ("low", "high", "up", "work"):
                os.mkdir(f"{folder}/{name}")
                os.chown(f"{folder}/{name}", 65534, 65534)
            for name, text in (("low", "low"), ("high", "high")):
                with open(f"{folder}/{name}/same", "w") as file:
                    file.write(text)
            layers = ["--overlay-src", f"{folder}/low", "--overlay-src", f"{folder}/high"]
            self.assertOut("high kept", *layers, "--ro-overlay", "/mnt",
                           script="echo $(cat /mnt/same) $( (echo x > /mnt/new) 2>/dev/null && echo written || echo kept)")
            self.assertOut("x", *layers, "--tmp-overlay", "/mnt", script="echo x > /mnt/new && cat /mnt/new")
            self.assertEqual(sorted(os.listdir(f"{folder}/high")), ["same"])
            self.assertOut("x", *layers, "--overlay", f"{folder}/up", f"{folder}/work", "/mnt", script="echo x > /mnt/new && cat /mnt/new")
            self.assertEqual(os.listdir(f"{folder}/up"), ["new"])
        self.assertRefused("needs at least 1 --overlay-src", "--tmp-overlay", "/mnt")
        self.assertRefused("follows it", "--overlay-src", "/usr")

    def test_a_filter_from_an_fd(self):
        # Allows all but uname(2), 63 on x86-64, which gets ENOENT.
        fd = self.read_only(struct.pack("<" + "HBBI" * 4, 0x20, 0, 0, 0, 0x15, 0, 1, 63, 6, 0, 0, 0x50002, 6, 0, 0, 0x7fff0000))
        refused = run("--seccomp", str(fd), script="uname", pass_fds=[fd])
        self.assertIn("No such file", refused.stderr)
        self.assertOut("Linux", script="uname")
        os.lseek(fd, 0, os.SEEK_SET)
        self.assertOut("Linux", "--seccomp", str(fd), "--seccomp-profile", "default", script="uname", pass_fds=[fd])  # the last one counts
        odd = self.read_only(b"12345")
        self.assertRefused("multiple of 8", "--seccomp", str(odd), pass_fds=[odd])
        self.assertRefused("is not open", "--seccomp", "987")
        wrong = self.read_only(struct.pack("<HBBI", 0x20, 0, 0, 0))  # does not end in a verdict
        self.assertRefused("seccomp", "--seccomp", str(wrong), pass_fds=[wrong])

    def test_capabilities_come_and_go(self):
        script = "grep CapEff /proc/self/status | cut -f2"
        self.assertOut("0000000000001000", "--cap-add", "net_admin", script=script)
        self.assertOut("0000000000000000", "--cap-add", "net_admin", "--cap-drop", "CAP_NET_ADMIN", script=script)
        self.assertOut("0000000000000400", "--cap-add", "net_admin", "--cap-drop", "ALL", "--cap-add", "net_bind_service", script=script)
        self.assertRefused("no_such", "--cap-drop", "no_such")

    def test_namespaces_by_bubblewraps_names(self):
        own = os.readlink("/proc/self/ns/net")
        self.assertOut(own, "--unshare-all", "--share-net", script="readlink /proc/self/ns/net")
        self.assertNotEqual(run("--share-net", "--unshare-net", "--die-with-parent", script="readlink /proc/self/ns/net").stdout.strip(), own)

    def test_the_session(self):
        own = str(os.getsid(0))
        self.assertNotEqual(run(script="ps -o sid= -p $$").stdout.split(), [own])
        session = run("--share-session", "--share-pid", script="cut -d' ' -f6 /proc/$$/stat").stdout.strip()
        self.assertEqual(session, own)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]], verbosity=2)

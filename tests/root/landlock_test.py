#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""landlock_test.py BUILD: Landlock rules of a profile and of the command line, as root and as an ordinary user.

Each refusal is by Landlock: the same launch without the rule, or with one more path in it, is allowed."""

import ctypes
import errno
import json
import os
import struct
import subprocess
import sys
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import small_world
import rootless_test
from rootless_test import AS_USER, ENV, POSTERN

CALLERS = {"root": {"cwd": "/"}, "user": AS_USER}
PROFILE = "/var/tmp/rules.json"
#: Of what /bin/sh and the like are made; / is not among it.
SYSTEM = ["/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache"]
LIBC = ctypes.CDLL(None, use_errno=True)
LANDLOCK_CREATE_RULESET = 444


def landlock_abi():
    return LIBC.syscall(LANDLOCK_CREATE_RULESET, None, 0, 1)


def without_landlock():
    """As on a kernel that has none."""
    program = b"".join(struct.pack("<HBBI", *instruction) for instruction in (
        (0x20, 0, 0, 0), (0x15, 0, 1, LANDLOCK_CREATE_RULESET), (0x06, 0, 0, 0x00050000 | errno.EOPNOTSUPP), (0x06, 0, 0, 0x7fff0000)))
    kept = ctypes.create_string_buffer(program)
    assert LIBC.prctl(38, 1, 0, 0, 0) == 0 and LIBC.prctl(22, 2, struct.pack("@HP", len(program) // 8, ctypes.addressof(kept)), 0, 0) == 0


def flags(name, *values):
    return [word for value in values for word in (f"--landlock-{name}", str(value))]


class Landlock(unittest.TestCase):
    def setUp(self):
        self.assertGreaterEqual(landlock_abi(), 6, "these tests need Linux 6.12")

    def launch(self, caller, *words, **more):
        return subprocess.run([POSTERN, "run", *words], capture_output=True, text=True, env=ENV, timeout=60,
                              **{"stdin": subprocess.DEVNULL, **CALLERS[caller], **more})

    def assertSays(self, out, *words, stderr=None, **more):
        for caller in CALLERS:
            with self.subTest(caller, words=words):
                result = self.launch(caller, *words, **more)
                self.assertEqual((result.returncode, result.stdout.strip()), (0, out), result.stderr)
                if stderr is not None:
                    self.assertEqual(result.stderr, stderr)

    def assertRefused(self, says, *words, status=125, **more):
        for caller in CALLERS:
            with self.subTest(caller, words=words):
                result = self.launch(caller, *words, **more)
                self.assertEqual((result.returncode, result.stdout), (status, ""), result.stderr)
                self.assertEqual(result.stderr.count("\n"), 1, result.stderr)
                self.assertIn(says, result.stderr)

    def profile(self, landlock, **sandbox):
        with open(PROFILE, "w") as file:
            json.dump({"postern": 1, "sandbox": {"landlock": landlock, **sandbox}}, file)
        return ["--profile", PROFILE]

    def shell(self, script):
        return ["--", "/bin/sh", "-c", script]

    def test_reading(self):
        script = self.shell("for f in /etc/passwd /etc/group; do (read line <$f) 2>/dev/null && echo read || echo refused; done; "
                            "ls /usr >/dev/null 2>&1 && echo listed; ls /etc >/dev/null 2>&1 || echo unlisted")
        self.assertSays("read\nread\nlisted", *script)
        self.assertSays("read\nrefused\nlisted\nunlisted", *flags("read", "/etc/passwd", *SYSTEM), *script, stderr="")
        self.assertSays("read\nrefused\nlisted\nunlisted", *self.profile({"read": ["/etc/passwd", *SYSTEM]}), *script, stderr="")
        self.assertSays("read\nread\nlisted", *flags("read", "/etc/passwd", "/etc/group", "/etc", *SYSTEM), *script)
        # Nothing at all, but for what need not be opened.
        self.assertRefused("Landlock", *self.profile({"read": []}), *self.shell("true"), status=126)

    def test_reading_does_not_restrict_writing(self):
        self.assertSays("x", *flags("read", "/tmp", *SYSTEM), *self.shell(
            "mkdir /tmp/a /tmp/b && echo x >/tmp/a/f && mv /tmp/a/f /tmp/b/f && cat /tmp/b/f"))

    def test_writing(self):
        script = self.shell("for d in /tmp/one /tmp/two; do mkdir $d/new 2>/dev/null && echo made || echo refused; "
                            "(echo x >$d/file) 2>/dev/null && echo written || echo refused; done; cat /etc/hostname >/dev/null && echo read")
        folders = ["--dir", "/tmp/one", "--dir", "/tmp/two"]
        self.assertSays("made\nwritten\nmade\nwritten\nread", *folders, *script)
        self.assertSays("made\nwritten\nrefused\nrefused\nread", *folders, *flags("write", "/tmp/one", "/dev/null"), *script)
        self.assertSays("refused\nrefused\nrefused\nrefused", *folders, *self.profile({"write": []}),
                        *self.shell("for d in /tmp/one /tmp/two; do mkdir $d/new || echo refused; (echo x >$d/file) || echo refused; done"))

    def test_moving_truncating_and_removing(self):
        change = "import os\nos.chdir('/tmp')\ndef t(f, *a):\n try: f(*a); print('done')\n except OSError as e: print('refused')\n" \
                 "t(os.truncate, 'one/file', 0); t(os.rename, 'one/file', 'two/file'); t(os.link, 'one/file', 'one/link'); t(os.remove, 'one/file')"
        base = ["--dir", "/tmp/one", "--dir", "/tmp/two", "--file", "0", "/tmp/one/file"]
        with open("/etc/passwd") as stdin:
            for rules, out in (([], "done\ndone\nrefused\nrefused"),  # moved away: it is not there any more
                               (flags("write", "/tmp"), "done\ndone\nrefused\nrefused"),
                               (flags("write", "/tmp/one"), "done\nrefused\ndone\ndone"),
                               (flags("write", "/tmp/two"), "refused\nrefused\nrefused\nrefused")):
                stdin.seek(0)
                result = self.launch("root", *base, *rules, "--", "/usr/bin/python3", "-c", change, stdin=stdin)
                self.assertEqual((result.returncode, result.stdout.strip()), (0, out), (rules, result.stderr))

    def test_executing(self):
        script = self.shell("/usr/bin/env true && echo ran; cp /usr/bin/env /tmp/env && (/tmp/env true) 2>/dev/null && echo ran || echo refused")
        self.assertSays("ran\nran", *script)
        self.assertSays("ran\nrefused", *flags("execute", *SYSTEM[:-1]), *script)
        self.assertSays("ran\nran", *flags("execute", "/tmp", *SYSTEM[:-1]), *script)
        self.assertRefused("Landlock", *flags("execute", "/tmp"), *self.shell("true"), status=126)
        # The program alone is not enough: it has a loader.
        self.assertRefused("dynamic loader", *flags("execute", "/usr/bin/env"), "--", "/usr/bin/env", status=126)

    def test_ioctls_of_devices(self):
        look = "import fcntl, os\nfor p in ('/dev/random', '/dev/urandom'):\n f = os.open(p, os.O_RDONLY)\n" \
               " try: fcntl.ioctl(f, 0x80045200, bytes(4)); print('answered')\n except OSError as e: print(e.errno)"  # RNDGETENTCNT
        client = ["--", "/usr/bin/python3", "-c", look]
        self.assertSays("answered\nanswered", *client)
        self.assertSays("answered\n13", *flags("ioctl", "/dev/random"), *client)
        self.assertSays("13\n13", *self.profile({"ioctl": []}), *client)

    def test_tcp(self):
        script = "import socket\ndef t(f):\n try: f(); print('done')\n except OSError as e: print(e.errno)\n" \
                 "for p in (8001, 8002):\n s = socket.socket(); t(lambda: s.bind(('127.0.0.1', p)))\n" \
                 "a = socket.socket(); a.bind(('127.0.0.1', 8001)); a.listen()\n" \
                 "for p in (8001, 8002): t(lambda: socket.create_connection(('127.0.0.1', p), 5))"
        script = script.replace("s = socket.socket(); t(lambda: s.bind(('127.0.0.1', p)))", "s = socket.socket(); t(lambda: s.bind(('127.0.0.1', p))); s.close()")
        client = ["--loopback", "--", "/usr/bin/python3", "-c", script]
        refused, nobody = "13", "111"  # EACCES, ECONNREFUSED
        self.assertSays(f"done\ndone\ndone\n{nobody}", *client)
        self.assertSays(f"done\n{refused}\ndone\n{nobody}", *flags("bind-tcp", 8001), *client)
        self.assertSays(f"done\ndone\ndone\n{refused}", *flags("connect-tcp", 8001), *client)
        self.assertSays(f"done\n{refused}\ndone\n{refused}", *self.profile({"bind_tcp": [8001], "connect_tcp": ["8001"]}), *client)
        self.assertSays(f"done\ndone\n{refused}\n{refused}", *self.profile({"connect_tcp": []}), *client)

    def test_ways_around_the_rules_for_tcp(self):
        """Those that Landlock does not hear of, to a port that it would refuse; beside them the way that it allows."""
        script = """
import ctypes, socket
LIBC = ctypes.CDLL(None, use_errno=True)
def t(f):
 try: f(); print('done')
 except OSError as e: print(e.errno)
def raw(number, *arguments):
 result = LIBC.syscall(number, *arguments)
 if result < 0: raise OSError(ctypes.get_errno(), '')
 return result
servers = []
for p in (8001, 8002):
 s = socket.socket(); s.bind(('127.0.0.1', p)); s.listen(); servers.append(s)
to = ('127.0.0.1', 8002)
wide = lambda: socket.socket(fileno=raw(41, ctypes.c_ulong(2), ctypes.c_ulong(1), ctypes.c_ulong(262 | 1 << 40)))
t(lambda: socket.socket().sendto(b'x', socket.MSG_FASTOPEN, to))
t(lambda: socket.socket().sendmsg([b'x'], [], socket.MSG_FASTOPEN, to))
t(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262).connect(to))
t(lambda: wide().connect(to))
t(lambda: socket.socket(43, socket.SOCK_STREAM))
t(lambda: raw(425, 1, ctypes.create_string_buffer(120)))
t(lambda: socket.create_connection(('127.0.0.1', 8001), 5).sendall(b'x'))
"""
        client = ["--loopback", "--seccomp-profile", "none", "--", "/usr/bin/python3", "-c", script]
        free = self.launch("root", "--quiet", *client).stdout.split()
        # All but SMC and io_uring, which a kernel may lack.
        self.assertEqual(free[:4] + free[-1:], ["done"] * 5, free)
        for seccomp in ("none", "default"):
            client[2] = seccomp
            for caller in CALLERS:
                held = self.launch(caller, "--quiet", *flags("connect-tcp", 8001), *client)
                # EOPNOTSUPP, EPROTONOSUPPORT, EAFNOSUPPORT; ENOSYS, or by the default filter EPERM
                self.assertEqual(held.stdout.split(), ["95", "95", "93", "93", "97", "38" if seccomp == "none" else "1", "done"], held.stderr)

    def test_scopes(self):
        # By root's client to a process of the same uid outside of its pid namespace: shared pids, so that there is one to be named.
        target = subprocess.Popen(["sleep", "60"], **AS_USER)
        self.addCleanup(target.wait)
        self.addCleanup(target.kill)
        shared = ["--quiet", "--share-pid"]
        script = self.shell(f"kill -0 {target.pid} 2>/dev/null && echo sent || echo refused")
        for rules, out in (("none", "sent"), ("auto", "refused"), ({"scopes": []}, "sent"), ({"scopes": ["abstract_unix_socket"]}, "sent"),
                           ({"scopes": ["signal"]}, "refused"), ({}, "refused")):
            result = self.launch("user", *shared, *self.profile(rules), *script)
            self.assertEqual((result.returncode, result.stdout.strip()), (0, out), (rules, result.stderr))

    def test_paths_are_those_inside(self):
        self.assertRefused("/no/such: open: No such file", *flags("read", "/", "/no/such"), *self.shell("echo ran"))
        self.assertRefused("/var/tmp/outside", *flags("write", "/var/tmp/outside"), *self.shell("echo ran"))
        os.mkdir("/var/tmp/outside")
        self.addCleanup(os.rmdir, "/var/tmp/outside")
        self.assertRefused("/var/tmp/outside", *flags("write", "/var/tmp/outside"), *self.shell("echo ran"))
        self.assertSays("ran", "--dir", "/var/tmp/outside", *flags("write", "/var/tmp/outside"), *self.shell("echo ran"))

    def test_words_that_are_refused(self):
        for words, says in ((["--landlock-read", "usr"], "not an absolute path"), (["--landlock-bind-tcp", "65536"], "no port"),
                            (["--landlock-connect-tcp", "http"], "no port")):
            self.assertRefused(says, *words, *self.shell("echo ran"))
        for rules, says in (({"bind_tcp": [65536]}, "65536 is no port"), ({"read": ["usr"]}, "not an absolute path"),
                            ({"scopes": ["socket"]}, "is not one of"), ({"reads": []}, 'did you mean "read"'), ("all", "is not one of")):
            self.assertRefused(says, *self.profile(rules), *self.shell("echo ran"))

    def test_without_no_new_privs(self):
        script = self.shell("grep -c '^NoNewPrivs:.0$' /proc/self/status; ls /etc >/dev/null 2>&1 || echo refused")
        self.assertSays("1\nrefused", "--quiet", *self.profile({"read": ["/proc", *SYSTEM]}, no_new_privs=False), *script)

    def test_a_kernel_without_landlock(self):
        script = self.shell("ls /etc >/dev/null && echo listed")
        rules = flags("read", *SYSTEM)
        for caller in CALLERS:
            with self.subTest(caller):
                # The control: with it the rule is there.
                self.assertEqual(self.launch(caller, *rules, *script).stdout, "")
                result = self.launch(caller, *rules, *script, preexec_fn=without_landlock)
                self.assertEqual((result.returncode, result.stdout), (0, "listed\n"), result.stderr)
                self.assertEqual(result.stderr.count("\n"), 1, result.stderr)
                self.assertIn("postern: sandbox.landlock.read is not enforced: that takes", result.stderr)
                result = self.launch(caller, "--quiet", *rules, *script, preexec_fn=without_landlock)
                self.assertEqual((result.returncode, result.stdout, result.stderr), (0, "listed\n", ""))
                result = self.launch(caller, *script, preexec_fn=without_landlock)
                self.assertEqual((result.returncode, result.stdout, result.stderr), (0, "listed\n", ""))
        self.assertRefused("ABI 1 (Linux 5.13), and this kernel has no Landlock", *rules, "--landlock-require", *script, preexec_fn=without_landlock)
        self.assertRefused("\"scopes\" takes Landlock's ABI 6", *self.profile({"require": True}), *script, preexec_fn=without_landlock)
        self.assertSays("", *flags("read", *SYSTEM), "--landlock-require", *self.shell("ls /etc 2>/dev/null; true"))

    def test_launches_that_are_kept_and_compiled(self):
        script = self.shell("ls /etc >/dev/null 2>&1 && echo listed || echo refused")
        kept = set(small_world.cached())
        for _ in range(2):
            result = self.launch("root", *flags("read", "/etc/hosts", *SYSTEM), *script)
            self.assertEqual((result.stdout, result.stderr), ("refused\n", ""))
            self.assertEqual(len(set(small_world.cached()) - kept), 1)
        self.assertEqual(self.launch("root", *flags("read", "/etc", *SYSTEM), *script).stdout, "listed\n")
        compiled = "/var/tmp/rules.launch"
        subprocess.run([POSTERN, "profile", "compile", self.profile({"read": SYSTEM})[1], "-o", compiled], check=True, capture_output=True)
        self.addCleanup(os.remove, compiled)
        self.assertSays("refused", "--profile", compiled, *script)

    def test_the_plan_tells(self):
        result = self.launch("user", "--dry-run", *flags("read", "/usr"), *flags("bind-tcp", 80), *self.shell("true"))
        self.assertIn("landlock: read /usr; bind_tcp 80; abstract sockets and signals stay inside; where the kernel can", result.stdout)


if __name__ == "__main__":
    small_world.enter()
    rootless_test.copy_build(os.path.abspath(sys.argv[1]))
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]], verbosity=2)

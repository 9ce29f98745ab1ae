# SPDX-License-Identifier: Apache-2.0
"""libpostern.h for tests in Python: the shared library itself, each function that fails an OSError with the library's line."""

import ctypes
import os

READ, WRITE, MMAP, PREAD, DMABUF, SHARED_PAGE = 1, 2, 4, 8, 16, 32
FORWARD_SANDBOX, FORWARD_NEVER, FORWARD_ANYONE = 0, 1, 2
EXITED, SIGNALED, CPU_LIMIT, LOST = 0, 1, 2, 3


class Memory(ctypes.Structure):
    _fields_ = [("fd", ctypes.c_int), ("address", ctypes.c_void_p), ("size", ctypes.c_uint64), ("iova", ctypes.c_uint64)]


class Region(ctypes.Structure):
    _fields_ = [("size", ctypes.c_uint64), ("file_offset", ctypes.c_uint64), ("flags", ctypes.c_uint32)]


class Exit(ctypes.Structure):
    _fields_ = [("reason", ctypes.c_int), ("status", ctypes.c_int)]


class Library:
    """postern.grant_revoke(grant) calls libpostern_grant_revoke(grant); handles are void pointers."""

    def __init__(self, build):
        self._library = ctypes.CDLL(f"{build}/lib/libpostern.so.0")
        for name in ("error", "version", "grant_id", "profile_weakenings"):
            getattr(self._library, "libpostern_" + name).restype = ctypes.c_char_p

    def __getattr__(self, name):
        function = getattr(self._library, "libpostern_" + name)

        def call(*args):
            args = [arg.encode() if isinstance(arg, str) else arg for arg in args]
            # Through all of the register: a number may be any integer type, and a small negative one an int.
            args = [ctypes.c_int64(arg) if isinstance(arg, int) else arg for arg in args]
            result = function(*args)
            if isinstance(result, int) and result < 0:
                raise OSError(-result, self._library.libpostern_error().decode())
            return result
        return call

    def make(self, name, *before):
        """The handle that a function gives by its last parameter."""
        handle = ctypes.c_void_p()
        getattr(self, name)(*before, ctypes.byref(handle))
        return handle

    def launch(self, grant, *command):
        argv = (ctypes.c_char_p * (len(command) + 1))(*[os.fsencode(word) for word in command])
        pidfd = ctypes.c_int()
        self.grant_launch(grant, argv, None, ctypes.byref(pidfd))
        return pidfd.value

    def wait(self, grant, timeout_ms=60000):
        how = Exit()
        self.grant_wait(grant, timeout_ms, ctypes.byref(how))
        return how.reason, how.status

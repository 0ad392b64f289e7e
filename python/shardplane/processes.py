"""Child processes that end with their parent, and files that they write."""

import concurrent.futures
import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import time

_PR_SET_PDEATHSIG = 1
_IN_MOVED_TO = 0x80
_libc = ctypes.CDLL(None, use_errno=True)


class Process:
    """A daemon that writes a ready file once it serves."""

    def __init__(self, name, popen, ready_file, log_file):
        self.name = name
        self.popen = popen
        self.ready_file = ready_file
        self.log_file = log_file
        self.address = None
        self.http_address = None

    @property
    def pid(self):
        return self.popen.pid

    def log_tail(self, size=4000):
        with open(self.log_file, errors="replace") as log:
            return log.read()[-size:]

    def kill(self):
        """As a crash would end it."""
        self.popen.kill()
        self.popen.wait()

    def terminate(self):
        if self.popen.poll() is None:
            self.popen.terminate()

    def join(self, timeout):
        try:
            self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()


class Launcher:
    """Starts processes that the kernel ends when this one dies.

    The kernel watches the thread that forked: one of our own, which lives as
    long as the launcher does.
    """

    def __init__(self, folder):
        self._folder = folder
        self._thread = concurrent.futures.ThreadPoolExecutor(
            max_workers=1, thread_name_prefix="shardplane-launcher")

    def start(self, name, command, defaults=None):
        """`command`: without --ready_file, which is added. `defaults`:
        environment variables, where they are not set."""
        ready_file = os.path.join(self._folder, f"{name}.ready.json")
        log_file = os.path.join(self._folder, f"{name}.log")
        command = [*command, f"--ready_file={ready_file}"]
        env = {**(defaults or {}), **os.environ, "OMP_NUM_THREADS": "1"}
        popen = self._thread.submit(
            self._spawn, command, env, log_file).result()
        return Process(name, popen, ready_file, log_file)

    def _spawn(self, command, env, log_file):
        setpriv = shutil.which("setpriv")
        # No code of ours between fork and exec, where locks of gRPC's threads
        # may be held. One that dies before setpriv has run leaves an orphan.
        if setpriv:
            command = [setpriv, "--pdeathsig", "KILL", "--", *command]
        with open(log_file, "w") as log:
            return subprocess.Popen(
                command, env=env, stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True,
                preexec_fn=None if setpriv else _die_with_parent)

    def close(self):
        self._thread.shutdown()


def _die_with_parent():
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


class ReadyWatch:
    """Tells when ready files appear in a folder, without polling."""

    def __init__(self, folder):
        self._inotify = _libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self._inotify < 0 or _libc.inotify_add_watch(
                self._inotify, os.fsencode(folder), _IN_MOVED_TO) < 0:
            raise OSError(ctypes.get_errno(), "inotify", folder)

    def wait(self, processes, timeout):
        """Fills in the addresses. RuntimeError where one ends before, with
        the end of its log; TimeoutError."""
        end = time.monotonic() + timeout
        waiting = list(processes)
        pidfds = {os.pidfd_open(p.pid): p for p in waiting}
        try:
            while True:
                waiting = [p for p in waiting if not _read_ready(p)]
                if not waiting:
                    return
                left = end - time.monotonic()
                ended = self._wait_once(pidfds, waiting, left)
                if ended is not None:
                    raise RuntimeError(
                        f"{ended.name} ended with code "
                        f"{ended.popen.wait()} before it was ready:\n"
                        f"{ended.log_tail()}")
                if left <= 0:
                    raise TimeoutError(
                        f"{waiting[0].name} was not ready within {timeout} "
                        f"s:\n{waiting[0].log_tail()}")
        finally:
            for fd in pidfds:
                os.close(fd)

    def _wait_once(self, pidfds, waiting, seconds):
        watched = [fd for fd, p in pidfds.items() if p in waiting]
        ready, _, _ = select.select([self._inotify, *watched], [], [],
                                    max(seconds, 0))
        if self._inotify in ready:
            os.read(self._inotify, 64 << 10)  # only that it woke us counts
            return None
        return pidfds[ready[0]] if ready else None

    def close(self):
        os.close(self._inotify)


def _read_ready(process):
    try:
        with open(process.ready_file) as ready:
            content = json.load(ready)
    except FileNotFoundError:
        return False
    process.address = content["address"]
    process.http_address = content.get("http_address")
    return True

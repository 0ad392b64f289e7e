"""What seccomp RuntimeDefault forbids a container without capabilities.

Of containerd's and Docker's default profiles, the calls that they withhold;
theirs are lists of what is allowed, so a call that nobody has heard of yet
passes here.
"""

import ctypes
import errno
import os
import socket

ALLOW = 0x7FFF0000
MASKED_EQUAL = 7
EQUAL = 4
FORBIDDEN = """
acct add_key bpf clock_adjtime clock_settime create_module delete_module
finit_module fsconfig fsmount fsopen fspick get_kernel_syms get_mempolicy
init_module io_uring_enter io_uring_register io_uring_setup ioperm iopl kcmp
kexec_file_load kexec_load keyctl lookup_dcookie mbind migrate_pages mount
mount_setattr move_mount move_pages name_to_handle_at nfsservctl
open_by_handle_at open_tree perf_event_open pivot_root query_module quotactl
quotactl_fd reboot request_key set_mempolicy set_mempolicy_home_node setns
settimeofday swapoff swapon sysfs umount2 unshare uselib userfaultfd ustat
vhangup
""".split()
NEW_NAMESPACES = [0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000,
                  0x20000000, 0x40000000]


class _Compare(ctypes.Structure):
    _fields_ = [("argument", ctypes.c_uint), ("operator", ctypes.c_int),
                ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


def _library():
    library = ctypes.CDLL("libseccomp.so.2")
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = [ctypes.c_uint32]
    library.seccomp_rule_add_array.argtypes = [
        ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint,
        ctypes.c_void_p]
    library.seccomp_export_bpf.argtypes = [ctypes.c_void_p, ctypes.c_int]
    library.seccomp_release.argtypes = [ctypes.c_void_p]
    return library


def _rules():
    """(name of the call, error, comparison or None)"""
    for name in FORBIDDEN:
        yield name, errno.EPERM, None
    for flag in NEW_NAMESPACES:
        yield "clone", errno.EPERM, _Compare(0, MASKED_EQUAL, flag, flag)
    # Its flags lie in memory, where no filter looks: libc then uses clone.
    yield "clone3", errno.ENOSYS, None
    yield "socket", errno.EPERM, _Compare(0, EQUAL, socket.AF_VSOCK, 0)


def compiled():
    """A file with the filter, for bwrap --seccomp."""
    library = _library()
    context = library.seccomp_init(ALLOW)
    file = os.memfd_create("seccomp")
    for name, error, compare in _rules():
        number = library.seccomp_syscall_resolve_name(name.encode())
        assert number != -1, name  # below -1: not of this architecture
        if number < 0:
            continue
        code = library.seccomp_rule_add_array(
            context, 0x00050000 | error, number, compare is not None,
            ctypes.byref(compare) if compare is not None else None)
        assert code == 0, (name, os.strerror(-code))
    assert library.seccomp_export_bpf(context, file) == 0
    library.seccomp_release(context)
    return file

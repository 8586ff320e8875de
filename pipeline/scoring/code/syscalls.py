"""The filter of system calls: what a program may ask the kernel for; everything else is refused.

The list is of what CPython needs to compute, to read its library, to write files in its own folder, to start threads
and processes, and to talk between its own threads. Not on it, and so refused whatever the kernel learns next: sockets,
other programs (``execve``), namespaces, mounts, keys, other processes' memory, shared memory of System V, watching
files, personalities. A refused call fails with ENOSYS, as on a kernel that does not have it, so that the C library
takes another way where it knows one; a call that is allowed with other arguments fails with EPERM.

For x86-64 and aarch64. Standard library only: used inside the sandbox.
"""

import ctypes
import errno
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline.scoring.code.libc import call

# name: (number on x86-64, number on aarch64); None where the machine has no such call.
Numbers = dict[str, tuple[int, int | None]]

ALWAYS: Numbers = {
    # files that are open, and opening them
    "read": (0, 63), "write": (1, 64), "readv": (19, 65), "writev": (20, 66), "pread64": (17, 67), "pwrite64": (18, 68),
    "preadv": (295, 69), "pwritev": (296, 70), "lseek": (8, 62), "close": (3, 57), "close_range": (436, 436),
    "dup": (32, 23), "dup2": (33, None), "dup3": (292, 24), "pipe": (22, None), "pipe2": (293, 59),
    "fadvise64": (221, 223), "fsync": (74, 82), "fdatasync": (75, 83), "flock": (73, 32), "msync": (26, 227),
    # looking at files
    "stat": (4, None), "lstat": (6, None), "fstat": (5, 80), "newfstatat": (262, 79), "statx": (332, 291),
    "access": (21, None), "faccessat": (269, 48), "faccessat2": (439, 439), "readlink": (89, None),
    "readlinkat": (267, 78), "getdents64": (217, 61), "getcwd": (79, 17), "chdir": (80, 49), "fchdir": (81, 50),
    "statfs": (137, 43), "fstatfs": (138, 44),
    # memory
    "brk": (12, 214), "mmap": (9, 222), "munmap": (11, 215), "mprotect": (10, 226), "mremap": (25, 216),
    "madvise": (28, 233), "mincore": (27, 232), "membarrier": (324, 283),
    # signals to oneself, clocks
    "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "rt_sigpending": (127, 136),
    "rt_sigtimedwait": (128, 137), "rt_sigsuspend": (130, 133), "sigaltstack": (131, 132),
    "restart_syscall": (219, 128), "pause": (34, None), "alarm": (37, None), "getitimer": (36, 102),
    "setitimer": (38, 103), "clock_gettime": (228, 113), "clock_getres": (229, 114), "clock_nanosleep": (230, 115),
    "nanosleep": (35, 101), "gettimeofday": (96, 169), "time": (201, None), "times": (100, 153),
    # waiting for files and threads
    "poll": (7, None), "ppoll": (271, 73), "select": (23, None), "pselect6": (270, 72), "epoll_create": (213, None),
    "epoll_create1": (291, 20), "epoll_ctl": (233, 21), "epoll_wait": (232, None), "epoll_pwait": (281, 22),
    "eventfd2": (290, 19), "futex": (202, 98), "set_robust_list": (273, 99), "set_tid_address": (218, 96),
    "rseq": (334, 293), "sched_yield": (24, 124), "sched_getaffinity": (204, 123), "getcpu": (309, 168),
    # ends, and what a process is
    "exit": (60, 93), "exit_group": (231, 94), "wait4": (61, 260), "waitid": (247, 95), "getpid": (39, 172),
    "getppid": (110, 173), "gettid": (186, 178), "getpgrp": (111, None), "getpgid": (121, 155), "getsid": (124, 156),
    "getuid": (102, 174), "geteuid": (107, 175), "getgid": (104, 176), "getegid": (108, 177), "getresuid": (118, 148),
    "getresgid": (120, 150), "getgroups": (115, 158), "getrusage": (98, 165), "getrlimit": (97, 163),
    "uname": (63, 160), "sysinfo": (99, 179), "getrandom": (318, 278), "umask": (95, 166),
    # the two ends of a socket pair: asyncio wakes its loop through one
    "recvfrom": (45, 207), "shutdown": (48, 210), "getsockname": (51, 204), "getsockopt": (55, 209),
}  # fmt: skip
# Only where the folder that programs write to is theirs alone.
WRITING: Numbers = {
    "unlink": (87, None), "unlinkat": (263, 35), "mkdir": (83, None), "mkdirat": (258, 34), "rmdir": (84, None),
    "rename": (82, None), "renameat": (264, 38), "renameat2": (316, 276), "ftruncate": (77, 46),
    "link": (86, None), "linkat": (265, 37),  # a semaphore of multiprocessing comes about by a link
}  # fmt: skip
# Only where a namespace of processes holds what they start.
STARTING: Numbers = {"fork": (57, None), "vfork": (58, None)}
LIMITED: Numbers = {
    "open": (2, None), "openat": (257, 56), "clone": (56, 220), "kill": (62, 129), "tgkill": (234, 131),
    "ioctl": (16, 29), "fcntl": (72, 25), "prctl": (157, 167), "prlimit64": (302, 261), "sendto": (44, 206),
    "socketpair": (53, 199),
}  # fmt: skip

NEW_NAMESPACES = 0x7E020080  # CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET, NEWTIME
CLONE_THREAD = 0x10000
OPENED_TO_WRITE = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
AF_UNIX, SOCK_STREAM = 1, 1
# Is it a terminal, how wide; close on exec, no waiting; how much there is to read.
IOCTLS = (0x5401, 0x5413, 0x5450, 0x5451, 0x5421, 0x541B)
# Duplicates, flags, locks, the size of a pipe. Not: whom to send signals to.
FCNTLS = (0, 1, 2, 3, 4, 5, 6, 7, 36, 37, 38, 1030, 1032)
THREAD_NAMES = (15, 16)  # of prctl: set and get

ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
LOAD, EQUAL, AT_LEAST, AND, GIVE = 0x20, 0x15, 0x35, 0x54, 0x06  # instructions of the kernel's filter machine
ALLOWED, KILLED, REFUSED = 0x7FFF0000, 0x80000000, 0x00050000  # the last one with an errno
OTHER_ABI = 0x40000000  # numbers from here on are those of x32
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2

Instruction = tuple[int, int, int, int]  # code, where to go if true, where to go if false, operand


@dataclass(frozen=True)
class Allowance:
    """What a program may do beyond computing.

    processes: start processes, and send signals to any that it sees.
    folder: make and remove files; its own folder is all that it sees.
    opening: open files for writing; where it may do so, other walls decide.
    """

    processes: bool
    folder: bool
    opening: bool


@dataclass(frozen=True)
class Test:
    """A condition on an argument of a call: after ``& mask`` its lower (or upper) 32 bits are one of ``values``."""

    argument: int
    values: Sequence[int]
    mask: int = 0xFFFFFFFF
    upper: bool = False

    def instructions(self) -> Iterator[Instruction]:
        """Falls through if the condition holds, else refuses the call."""
        yield LOAD, 0, 0, 16 + 8 * self.argument + 4 * self.upper
        yield AND, 0, 0, self.mask
        for place, value in enumerate(self.values):
            yield EQUAL, len(self.values) - place, 0, value
        yield GIVE, 0, 0, REFUSED | errno.EPERM


def _limited(allowance: Allowance) -> dict[str, list[Test]]:
    """The calls that are allowed with some arguments only, with the conditions that all must hold."""
    own_process = [] if allowance.processes else [Test(0, [os.getpid()])]
    a_thread = [] if allowance.processes else [Test(0, [CLONE_THREAD], CLONE_THREAD)]
    to_read = [] if allowance.opening else [OPENED_TO_WRITE]
    return {
        "open": [Test(1, [0], flags) for flags in to_read],
        "openat": [Test(2, [0], flags) for flags in to_read],
        "clone": [Test(0, [0], NEW_NAMESPACES), *a_thread],
        "kill": own_process,
        "tgkill": own_process,
        "ioctl": [Test(1, IOCTLS)],
        "fcntl": [Test(1, FCNTLS)],
        "prctl": [Test(0, THREAD_NAMES)],
        "prlimit64": [Test(0, [0])],  # of oneself
        "sendto": [Test(4, [0]), Test(4, [0], upper=True)],  # to no address: to the other end of a pair
        "socketpair": [Test(0, [AF_UNIX]), Test(1, [SOCK_STREAM], 0xF)],
    }


def instructions(allowance: Allowance) -> list[Instruction]:
    """The filter as a program of the kernel's filter machine, for the machine that this is."""
    column, architecture = ARCHITECTURES[os.uname().machine]
    rules: list[Instruction] = [
        (LOAD, 0, 0, 4), (EQUAL, 1, 0, architecture), (GIVE, 0, 0, KILLED),
        (LOAD, 0, 0, 0), (AT_LEAST, 0, 1, OTHER_ABI), (GIVE, 0, 0, REFUSED | errno.ENOSYS),
    ]  # fmt: skip
    whole = ALWAYS | (WRITING if allowance.folder else {}) | (STARTING if allowance.processes else {}) | LIMITED
    limited = _limited(allowance)
    for name, numbers in whole.items():
        number, tests = numbers[column], limited.get(name, [])
        if number is not None:
            body = [rule for test in tests for rule in test.instructions()] + [(GIVE, 0, 0, ALLOWED)]
            rules += [(EQUAL, 0, len(body), number), *body]
    return [*rules, (GIVE, 0, 0, REFUSED | errno.ENOSYS)]


def install(rules: Sequence[Instruction]) -> None:
    """Put a filter on this thread for good, and on all that it starts. OSError where the kernel cannot."""
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *rule) for rule in rules))
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(rules), ctypes.addressof(code)))
    call("prctl", PR_SET_NO_NEW_PRIVS, *map(ctypes.c_ulong, (1, 0, 0, 0)))
    call("prctl", PR_SET_SECCOMP, ctypes.c_ulong(SECCOMP_MODE_FILTER), program, ctypes.c_ulong(0), ctypes.c_ulong(0))

"""The walls around model-written programs: namespaces, Landlock, rights and limits. Inside the sandbox only.

There are three kinds of walls, and several ways to put them up; ``keeper`` tries them in the order of ``CANDIDATES``
with a whole program, and takes the first in which that program works and is held:

- ``namespaces``: the worker leaves for mount, network, IPC and host name namespaces of its own, which show nothing but
  the standard library, read-only, and /dev/null; each program gets its own process numbers and an empty folder.
- ``own``: the same, inside a user namespace that the worker makes for itself: what an ordinary user can do.
- ``limits``: no namespaces. No process, no socket and no file can come about, by the filter of system calls; where
  the kernel has Landlock, only the standard library can be read.

Standard library only.
"""

import contextlib
import ctypes
import os
import resource
import signal
import struct
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.scoring.code import syscalls
from pipeline.scoring.code.libc import LIBC, call, system_call

NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_REC = 1, 2, 4, 8, 32, 4096, 16384
MS_PRIVATE, MNT_DETACH = 1 << 18, 2
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 1, 4, 38
NOBODY = 60000 + os.getpid() % 5000  # who programs run as, where we are root: owns nothing, counts its processes alone
LIBRARY = str(Path(os.__file__).parent)


@dataclass(frozen=True)
class Walls:
    """One way to hold programs.

    kind: ``namespaces``, ``own`` or ``limits``. nobody: programs run as a user who owns nothing.
    processes: programs may start processes; a limit holds their number.
    """

    kind: str
    nobody: bool
    processes: bool

    @property
    def namespaces(self) -> bool:
        """Whether programs live in namespaces of their own."""
        return self.kind != "limits"


CANDIDATES = (
    Walls("namespaces", nobody=True, processes=True),
    Walls("namespaces", nobody=False, processes=True),
    Walls("own", nobody=False, processes=True),
    # Where the number of processes cannot be held (those of the machine's root are not counted), there are none.
    Walls("namespaces", nobody=False, processes=False),
    Walls("own", nobody=False, processes=False),
    Walls("limits", nobody=True, processes=False),
    Walls("limits", nobody=False, processes=False),
)


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    """As mount(2). OSError where the kernel does not allow it."""
    call("mount", source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), data.encode())


# ---- around the worker, once ---------------------------------------------------------------------------------------


def build(walls: Walls, folder: str) -> None:
    """Leave for namespaces of our own, if the walls have any. OSError where the kernel does not allow it.

    folder: an empty folder. What is mounted on it is seen by us alone.
    """
    os.chdir(folder)
    if walls.namespaces:
        _leave(walls)
        _furnish(folder)
        _move_in(folder)


def _leave(walls: Walls) -> None:
    """Enter new namespaces, in which we may mount."""
    spaces = NEWNS | NEWNET | NEWIPC | NEWUTS
    if walls.kind == "namespaces":
        call("unshare", spaces)
    else:
        uid, gid = os.geteuid(), os.getegid()
        call("unshare", spaces | NEWUSER)
        for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            Path(f"/proc/self/{name}").write_text(text)
    mount("none", "/", "none", MS_REC | MS_PRIVATE)


def _furnish(folder: str) -> None:
    """Put into the folder all that programs will see."""
    mount("tmpfs", folder, "tmpfs", MS_NOSUID | MS_NODEV, "size=64k,mode=755")
    for name in ("lib", "work", "dev", "dev/shm"):
        Path(folder, name).mkdir()
        Path(folder, name).chmod(0o755)
    Path(folder, "dev/null").touch()
    with contextlib.suppress(OSError):  # a machine that shows no devices can do without
        mount("/dev/null", f"{folder}/dev/null", "none", MS_BIND)
    mount(LIBRARY, f"{folder}/lib", "none", MS_BIND | MS_REC)
    held = os.statvfs(LIBRARY).f_flag & (MS_NOSUID | MS_NODEV | MS_NOEXEC)  # flags a user namespace may not clear
    mount("none", f"{folder}/lib", "none", MS_BIND | MS_REMOUNT | MS_RDONLY | held)


def _move_in(folder: str) -> None:
    """Make the folder the root, and let go of all that was there before."""
    os.chdir(folder)
    pivot = {"x86_64": 155, "aarch64": 41}[os.uname().machine]
    system_call(pivot, "pivot_root", b".", b".")
    call("umount2", b".", MNT_DETACH)
    os.chdir("/")
    mount("none", "/", "none", MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV)
    sys.path[:] = ["/lib", "/lib/lib-dynload"]
    for module in list(sys.modules.values()):  # packages loaded before find their other modules at the new place
        if isinstance(getattr(module, "__path__", None), list):
            module.__path__[:] = [place.replace(LIBRARY, "/lib", 1) for place in module.__path__]


# ---- around one program --------------------------------------------------------------------------------------------


def separate(walls: Walls) -> None:
    """In the keeper: what it starts next is process 1 of its own namespace, with an empty folder of its own."""
    if walls.namespaces:
        call("unshare", NEWNS | NEWPID | NEWIPC)
        mount("tmpfs", "/work", "tmpfs", MS_NOSUID | MS_NODEV, "size=4m,nr_inodes=256,mode=777")
        mount("tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=1m,nr_inodes=64,mode=777")
        os.chdir("/work")


class _Capabilities(ctypes.Structure):
    _fields_ = [("words", ctypes.c_uint32 * 6)]


def give_up(walls: Walls, limits: Mapping[str, int]) -> None:
    """In the program's process, before its first line: leave everything that it must not have."""
    os.setsid()
    files = None if walls.namespaces else _landlock()
    _limit(walls, limits)
    if walls.nobody:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    call("capset", header, ctypes.byref(_Capabilities()))
    for option, value in ((PR_SET_NO_NEW_PRIVS, 1), (PR_SET_PDEATHSIG, signal.SIGKILL), (PR_SET_DUMPABLE, 0)):
        call("prctl", option, *map(ctypes.c_ulong, (value, 0, 0, 0)))
    if files is not None:
        system_call(LANDLOCK_RESTRICT_SELF, "landlock_restrict_self", files, 0)
        os.close(files)
    allowance = syscalls.Allowance(
        processes=walls.processes, folder=walls.namespaces, opening=walls.namespaces or files is not None
    )
    syscalls.install(syscalls.instructions(allowance))


def _limit(walls: Walls, limits: Mapping[str, int]) -> None:
    seconds = limits["cpu_seconds"]
    wanted = {
        resource.RLIMIT_AS: limits["memory_bytes"],
        resource.RLIMIT_DATA: limits["memory_bytes"],
        resource.RLIMIT_FSIZE: limits["file_bytes"],
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: 32,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
    }
    if walls.nobody or walls.processes:  # else all that this user runs would count, too
        wanted[resource.RLIMIT_NPROC] = limits["processes"]
    for what, limit in wanted.items():
        _, hard = resource.getrlimit(what)
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(what, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))


# ---- Landlock: files without namespaces ----------------------------------------------------------------------------

LANDLOCK_CREATE_RULESET, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT_SELF = 444, 445, 446  # on every machine
LANDLOCK_VERSION, LANDLOCK_PATH_BENEATH = 1, 1
WRITE_FILE, READ_FILE, READ_DIR = 1 << 1, 1 << 2, 1 << 3
RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}  # how many rights about files a version knows; later ones: 16


def landlock_version() -> int:
    """Which Landlock the kernel has; 0 for none."""
    with contextlib.suppress(OSError):
        return system_call(LANDLOCK_CREATE_RULESET, "landlock", None, ctypes.c_size_t(0), LANDLOCK_VERSION)
    return 0


def _landlock() -> int | None:
    """Open rules: the standard library and this folder may be read, and /dev/null. None without Landlock."""
    version = landlock_version()
    if not version:
        return None
    handled = struct.pack("=Q", (1 << RIGHTS.get(version, 16)) - 1)
    rules = system_call(LANDLOCK_CREATE_RULESET, "landlock", handled, ctypes.c_size_t(len(handled)), 0)
    for path, rights in (
        (LIBRARY, READ_FILE | READ_DIR),
        (".", READ_FILE | READ_DIR),
        ("/dev/null", READ_FILE | WRITE_FILE),
    ):
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
        beneath = struct.pack("=Qi", rights, opened)
        system_call(LANDLOCK_ADD_RULE, "landlock", rules, LANDLOCK_PATH_BENEATH, beneath, 0)
        os.close(opened)
    return rules


def undumpable() -> None:
    """Hide our memory and files from other processes of the same user: what they could reach by /proc is root's."""
    LIBC.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)

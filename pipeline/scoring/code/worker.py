"""The process in which model-written programs run. A script of its own: standard library only, never imported.

It is started by ``sandbox`` with an empty environment, walls itself in once, and then runs one program after the
other, each in forked processes:

    worker   walled in: own mounts, network, IPC; sees only the standard library, read-only
      keeper     one per program: own mounts and process numbers; holds the clock and the program's pipe
        program      process 1 of its namespace: when it is killed the kernel kills all it has started

Requests come in on fd 0, answers go out on fd 1; both are closed in the program. What a program prints goes nowhere.
Whatever it writes to its pipe is data for the other side to compare: the values expected never come here.
"""

import contextlib
import ctypes
import errno
import gc
import importlib
import json
import os
import random
import resource
import select
import shutil
import signal
import struct
import sys
import tempfile
import time
from pathlib import Path  # before the walls stand: pathlib, like all of the standard library, may import lazily

# Imported once, so that the forked programs have them at no cost.
for name in "bisect collections copy datetime decimal fractions functools heapq itertools math operator re".split():
    importlib.import_module(name)
for name in "array cmath dataclasses enum hashlib queue statistics string textwrap typing".split():
    importlib.import_module(name)
sys.path.insert(0, str(Path(__file__).parent))
values = importlib.import_module("values")
sys.path.pop(0)

LIBC = ctypes.CDLL(None, use_errno=True)
NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_REC = 1, 2, 4, 8, 32, 4096, 16384
PROC = Path("/proc")
READY = b"ready\n"  # written before the program's first line runs: without it, it was we who failed
MS_PRIVATE, MNT_DETACH = 1 << 18, 2
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 4, 24, 36, 38
PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
NOBODY = 60000 + os.getpid() % 5000  # who programs run as, where we are root: owns nothing, counts its processes alone


def call(name, *arguments):
    """A function of libc; OSError where it fails."""
    if getattr(LIBC, name)(*arguments) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}")


def mount(source, target, kind, flags, data=""):
    call("mount", source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), data.encode())


def send(value):
    data = json.dumps(value).encode()
    view = memoryview(struct.pack(">I", len(data)) + data)
    while view:
        view = view[os.write(1, view) :]


def receive():
    """The next request, or None when the other side has gone."""

    def exactly(count):
        parts = b""
        while len(parts) < count:
            part = os.read(0, count - len(parts))
            if not part:
                return None
            parts += part
        return parts

    head = exactly(4)
    body = exactly(struct.unpack(">I", head)[0]) if head else None
    return json.loads(body) if body else None


# ---- the walls, once -----------------------------------------------------------------------------------------------


def wall_in(folder):
    """Leave for namespaces of our own whose only files are the standard library; True where the kernel allows it.

    folder: an empty folder; what is mounted on it is seen by us alone.
    """
    child = os.fork()  # try in a child first: half of the walls would be worse than none
    if child == 0:
        try:
            _build_walls(folder)
            _own_processes()
            os._exit(0)
        except OSError as error:
            os.write(2, f"sandbox: {error}\n".encode())
            os._exit(1)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0:
        return False
    _build_walls(folder)
    return True


def _build_walls(folder):
    walls = NEWNS | NEWNET | NEWIPC | NEWUTS
    uid, gid = os.geteuid(), os.getegid()
    try:
        call("unshare", walls)  # as root
    except OSError:
        call("unshare", walls | NEWUSER)
        for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            Path(f"/proc/self/{name}").write_text(text)
    mount("none", "/", "none", MS_REC | MS_PRIVATE)
    mount("tmpfs", folder, "tmpfs", MS_NOSUID | MS_NODEV, "size=64k,mode=755")
    library = str(Path(os.__file__).parent)
    Path(folder, "lib").mkdir(mode=0o755)
    Path(folder, "work").mkdir(mode=0o755)
    mount(library, f"{folder}/lib", "none", MS_BIND | MS_REC)
    held = os.statvfs(library).f_flag & (MS_NOSUID | MS_NODEV | MS_NOEXEC)  # flags a user namespace may not clear
    mount("none", f"{folder}/lib", "none", MS_BIND | MS_REMOUNT | MS_RDONLY | held)
    os.chdir(folder)
    pivot = {"x86_64": 155, "aarch64": 41}[os.uname().machine]
    if LIBC.syscall(pivot, b".", b".") != 0:
        raise OSError(ctypes.get_errno(), "pivot_root")
    call("umount2", b".", MNT_DETACH)
    os.chdir("/")
    mount("none", "/", "none", MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV)
    sys.path[:] = ["/lib", "/lib/lib-dynload"]
    for module in list(sys.modules.values()):  # packages loaded before find their other modules at the new place
        if isinstance(getattr(module, "__path__", None), list):
            module.__path__[:] = [place.replace(library, "/lib", 1) for place in module.__path__]


def _own_processes():
    """In the keeper: what it forks next is process 1 of its own, with an empty folder of its own."""
    call("unshare", NEWNS | NEWPID | NEWIPC)
    mount("tmpfs", "/work", "tmpfs", MS_NOSUID | MS_NODEV, "size=4m,nr_inodes=256,mode=777")
    os.chdir("/work")


# ---- the filter of system calls ------------------------------------------------------------------------------------

# What a function that is judged by its results has no use for, and what could outgrow the other walls: shared memory
# of System V is not counted by RLIMIT_AS, a user namespace would give capabilities back. x86_64, aarch64.
DENIED = {
    "ptrace": (101, 117), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51),
    "unshare": (272, 97), "setns": (308, 268), "shmget": (29, 194), "semget": (64, 190), "msgget": (68, 186),
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219), "bpf": (321, 280),
    "perf_event_open": (298, 241), "userfaultfd": (323, 282), "memfd_create": (319, 279), "memfd_secret": (447, 447),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "io_uring_setup": (425, 425),
    "open_by_handle_at": (304, 265), "fsopen": (430, 430), "open_tree": (428, 428), "move_mount": (429, 429),
}  # fmt: skip
CLONE, CLONE3 = (56, 220), 435
NAMESPACES = NEWNS | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET | 0x2000000  # the last: cgroups
ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
ALLOW, KILL, REFUSE = 0x7FFF0000, 0x80000000, 0x00050000  # REFUSE | errno


def filter_calls():
    """Refuse system calls for good, here and in all that is forked from here. OSError where the kernel cannot."""
    column, architecture = ARCHITECTURES[os.uname().machine]
    load, equal, any_bit, at_least, give = 0x20, 0x15, 0x45, 0x35, 0x06
    no, absent = REFUSE | errno.EPERM, REFUSE | errno.ENOSYS
    rules = [  # (code, where to go if true, if false, operand); seccomp_data: number, architecture, -, arguments
        (load, 0, 0, 4), (equal, 1, 0, architecture), (give, 0, 0, KILL),
        (load, 0, 0, 0), (at_least, 0, 1, 0x40000000), (give, 0, 0, no),  # another ABI's numbers
        (equal, 0, 1, CLONE3), (give, 0, 0, absent),  # its flags cannot be seen; libc then calls clone
    ]  # fmt: skip
    for number in DENIED.values():
        rules += [(equal, 0, 1, number[column]), (give, 0, 0, no)]
    rules += [(equal, 0, 3, CLONE[column]), (load, 0, 0, 16), (any_bit, 0, 1, NAMESPACES), (give, 0, 0, no)]
    rules += [(give, 0, 0, ALLOW)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *rule) for rule in rules))
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(rules), ctypes.addressof(code)))
    call("prctl", PR_SET_NO_NEW_PRIVS, *map(ctypes.c_ulong, (1, 0, 0, 0)))
    call("prctl", PR_SET_SECCOMP, ctypes.c_ulong(SECCOMP_MODE_FILTER), program, ctypes.c_ulong(0), ctypes.c_ulong(0))


def can_filter():
    """Whether the kernel takes the filter: tried in a child, for it cannot be taken back."""
    child = os.fork()
    if child == 0:
        try:
            filter_calls()
            os._exit(0)
        except (OSError, KeyError):
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# ---- one program ---------------------------------------------------------------------------------------------------


def keep(request, walled, filtered):
    """Run one program in a child of ours; how it ended, the lines it wrote to its pipe, the CPU time it took."""
    folder, limits = None, request["limits"]
    if walled:
        _own_processes()
    else:
        LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # a program that daemonises becomes our child, and is found
        folder = tempfile.mkdtemp(prefix="selfadapt-program-")
        Path(folder).chmod(0o777)
        os.chdir(folder)
    reading, writing = os.pipe()
    program = os.fork()
    if program == 0:
        try:
            os.close(reading)
            _give_up_rights(limits)
            if filtered:
                filter_calls()
            os.write(writing, READY)
            _run(request, writing)
        finally:
            os._exit(0)
    os.close(writing)
    try:
        ended, output = _watch(reading, program, limits)
    finally:
        _end(program)
        if folder is not None:
            os.chdir("/")
            shutil.rmtree(folder, ignore_errors=True)
    if not output.startswith(READY):
        raise OSError(f"the program's process could not be made ready ({ended})")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    lines = output.removeprefix(READY).decode("utf-8", "replace")
    return {"ended": ended, "lines": lines, "cpu_seconds": used.ru_utime + used.ru_stime}


def _watch(reading, program, limits):
    """How the program ended, and what it wrote. When it has ended, what it started does not keep us waiting."""
    deadline = time.monotonic() + limits["wall_seconds"]
    parts: list[bytes] = []
    size = 0
    ending = os.pidfd_open(program)
    while True:
        left = deadline - time.monotonic()
        ready = select.select([reading, ending], [], [], left)[0] if left > 0 else []
        if not ready:
            return "time", b"".join(parts)
        if reading not in ready:
            return "end", b"".join(parts)
        part = os.read(reading, 1 << 16)
        if not part:
            return "end", b"".join(parts)
        parts.append(part)
        size += len(part)
        if size > limits["output_bytes"]:
            return "output", b"".join(parts)


def _end(program):
    """Kill the program and all it has started, and wait until they have gone."""
    while True:
        children = _children() | {program}
        for child in children:
            for kill in (os.killpg, os.kill):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    kill(child, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _children():
    """Our children, orphans of the program among them, where there is a /proc to say so (not inside the walls)."""
    found = set()
    for entry in PROC.glob("[1-9]*"):
        with contextlib.suppress(OSError):
            stat = (entry / "stat").read_text()  # "pid (name) state parent ..."; a name may hold anything
            if int(stat.rpartition(")")[2].split()[1]) == os.getpid():
                found.add(int(entry.name))
    return found


class _Capabilities(ctypes.Structure):
    _fields_ = [("words", ctypes.c_uint32 * 6)]


def _give_up_rights(limits):
    os.setsid()
    memory, files, seconds = limits["memory_bytes"], limits["file_bytes"], limits["cpu_seconds"]
    for what, limit in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_DATA, memory),
        (resource.RLIMIT_FSIZE, files),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 32),
        (resource.RLIMIT_NPROC, limits["processes"]),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
    ):
        _, hard = resource.getrlimit(what)
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(what, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    call("capset", header, ctypes.byref(_Capabilities()))
    LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _run(request, writing):
    nowhere = DEV_NULL
    for fd in (0, 1, 2):
        os.dup2(nowhere, fd)
    os.dup2(writing, 3)
    os.closerange(4, 4096)
    random.seed(0)
    write, encode, timer = os.write, values.line, signal.setitimer
    calls = [values.native(arguments) for arguments in request["calls"]]
    seconds = request["limits"]["call_seconds"]
    signal.signal(signal.SIGPROF, _too_late)
    names: dict = {"__name__": "solution"}
    exec(compile(request["source"], "solution.py", "exec"), names)
    function = names[request["function"]]
    for arguments in calls:
        try:
            timer(signal.ITIMER_PROF, seconds)
            answer = f'["value", {encode(function(*arguments))}]'
            timer(signal.ITIMER_PROF, 0)
        except TooLate:
            return
        except BaseException as error:
            timer(signal.ITIMER_PROF, 0)
            answer = f'["raised", "{type(error).__name__}"]'
        write(3, answer.encode() + b"\n")


class TooLate(BaseException):
    """A call has used its share of the CPU time: it and those after it have no values."""


def _too_late(*_):
    raise TooLate


def main():
    folder = sys.argv[1]
    os.environ.clear()
    os.umask(0o077)
    walled, filtered = wall_in(folder), can_filter()
    gc.collect()
    gc.freeze()  # forked programs then share our memory instead of copying it
    send({"walled": walled, "filtered": filtered, "root": os.geteuid() == 0})
    while (request := receive()) is not None:
        keeper = os.fork()
        if keeper == 0:
            try:
                send(keep(request, walled, filtered))
            except OSError as error:  # of ours, not of the program's: its errors end in its own process
                send({"failure": str(error)})
            finally:
                os._exit(0)
        os.waitpid(keeper, 0)


DEV_NULL = os.open("/dev/null", os.O_RDWR)
main()

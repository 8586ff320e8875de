"""Ways to start a sandbox's worker: as other users, and where the kernel gives it less.

Each mode is Python code that runs in the worker's process before the worker does; ``command`` makes of it what
``pool.command`` gives. Modes need root, since they take rights away.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.scoring.code import pool

_START = """
import ctypes, errno, os, runpy, struct, sys
from pathlib import Path
libc = ctypes.CDLL(None, use_errno=True)
script, folder = sys.argv[1:3]

def check(result):
    if result != 0: raise OSError(ctypes.get_errno(), 'a mode could not be made')

def refuse(calls):
    '''Answer system calls, each a number and an errno, as a kernel does that does not allow or have them.'''
    rules = [(0x20, 0, 0, 0)]
    for number, error in calls: rules += [(0x15, 0, 1, number), (6, 0, 0, 0x50000 | error)]
    code = b''.join(struct.pack('HBBI', *rule) for rule in [*rules, (6, 0, 0, 0x7FFF0000)])
    held = ctypes.create_string_buffer(code)
    program = ctypes.create_string_buffer(struct.pack('HxxxxxxQ', len(code) // 8, ctypes.addressof(held)))
    check(libc.prctl(38, *map(ctypes.c_ulong, (1, 0, 0, 0))))
    check(libc.prctl(22, ctypes.c_ulong(2), program, ctypes.c_ulong(0), ctypes.c_ulong(0)))

UNSHARE = 272 if os.uname().machine == 'x86_64' else 97
LANDLOCK = 444
"""
_RUN = """
sys.argv = [script, folder]
runpy.run_path(script, run_name='__main__')
"""
# Python may stand where only root can read it: it and the worker's files are shown to the other user at another place.
_ANOTHER_USER = """
check(libc.unshare(0x20000))
check(libc.mount(b'none', b'/', b'none', ctypes.c_ulong(16384 | 1 << 18), None))
check(libc.mount(b'tmpfs', b'/mnt', b'tmpfs', ctypes.c_ulong(0), b'mode=755'))
for name, place in (('python', sys.base_prefix), ('code', str(Path(script).parent))):
    Path('/mnt', name).mkdir()
    check(libc.mount(place.encode(), f'/mnt/{name}'.encode(), b'none', ctypes.c_ulong(4096 | 16384), None))
os.chown(folder, 12345, 12345)
os.setgroups([])
os.setresgid(12345, 12345, 12345)
os.setresuid(12345, 12345, 12345)
"""
_ANOTHER_USERS_RUN = """
python = f'/mnt/python/bin/python{sys.version_info.major}.{sys.version_info.minor}'
os.execv(python, [python, '-s', '-S', '-P', '-B', '/mnt/code/' + Path(script).name, folder])
"""
_ONE_UID = """
check(libc.unshare(0x10000000))
for name, text in (('setgroups', 'deny'), ('uid_map', '0 0 1'), ('gid_map', '0 0 1')):
    Path('/proc/self', name).write_text(text)
"""
# Without CAP_SYS_ADMIN, for good: out of the bounding set, and out of what the process has.
_NO_ADMIN = """
check(libc.prctl(24, 21, 0, 0, 0))
header, words = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
check(libc.capget(header, words))
for place in range(3): words[place] &= ~(1 << 21)
check(libc.capset(header, words))
"""


@dataclass(frozen=True)
class Mode:
    """code: what takes rights away. kind, nobody, processes: of the walls that then stand.

    readable: whether programs may read files.
    """

    code: str
    kind: str
    nobody: bool = False
    processes: bool = True
    readable: bool = False


MODES = {
    "root": Mode(_RUN, "namespaces", nobody=True),
    "another user": Mode(_ANOTHER_USER + _ANOTHER_USERS_RUN, "own"),
    "a user namespace of one uid": Mode(_ONE_UID + _RUN, "namespaces", processes=False),
    "root without CAP_SYS_ADMIN": Mode(_NO_ADMIN + _RUN, "own", processes=False),
    "no namespaces": Mode("refuse([(UNSHARE, errno.EPERM)])" + _RUN, "limits", processes=False),
    "another user, no namespaces": Mode(
        _ANOTHER_USER + "refuse([(UNSHARE, errno.EPERM)])" + _ANOTHER_USERS_RUN, "limits", processes=False
    ),
    "no namespaces, no Landlock": Mode(
        "refuse([(UNSHARE, errno.EPERM), (LANDLOCK, errno.ENOSYS)])" + _RUN,
        "limits",
        processes=False,
        readable=True,
    ),
}
NO_FILTER = Mode("refuse([(317, errno.ENOSYS)])\nrefuse([(157, errno.EINVAL)])" + _RUN, "none")


def command(mode: Mode, folder: Path) -> Sequence[str]:
    """How a worker is started in a mode."""
    start = [sys.executable, "-s", "-S", "-P", "-B", "-c", _START + mode.code]
    return [*start, str(pool.SCRIPT), str(folder)]


def possible() -> bool:
    """Whether modes can be made here."""
    return os.geteuid() == 0

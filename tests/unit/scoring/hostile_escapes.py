"""Programs that reach for what is outside. What each of them comes to reach, it returns: nothing, if the walls hold.

The words SECRET, HOME, PORT and PARENT are filled in: a file, a folder, a server's port and a process of the machine.
"""

# Behind namespaces there is nothing to be seen; without them, files may be looked at, and with Landlock not read.
SEEN = {
    "the home folder, the environment and secrets": """
import os
def f(x):
    places = ('SECRET', 'HOME', '/etc/passwd', '/proc/1/environ', '/proc/self/maps', '/sys', '/home', '/tmp',
        '/dev/zero')
    return [p for p in places if os.path.exists(p)] + list(os.environ)
""",
    "the files of other processes": """
import os
def f(x):
    reached = []
    for folder in ('/proc/self/fd', '/dev/fd', '/proc/1/fd', '/proc/2/fd', '/proc/PARENT/fd'):
        for number in range(40):
            try: reached.append(os.open(f'{folder}/{number}', os.O_WRONLY))
            except OSError: pass
    return reached
""",
    "files through links": """
import os
def f(x):
    reached = []
    for number, path in enumerate(('SECRET', '/proc/1/root/etc/passwd', '../../etc/passwd')):
        for link in (os.symlink, os.link):
            try:
                link(path, f'link{x}{number}')
                reached.append(open(f'link{x}{number}').read())
            except OSError: pass
    try:
        os.link('/lib/os.py', f'hard{x}')
        reached.append('linked')
    except OSError: pass
    return reached
""",
    "folders above": """
import os
def f(x):
    for _ in range(20): os.chdir('..')
    return [name for name in os.listdir('.') if name not in ('lib', 'work', 'dev')]
""",
    "memory of others": """
def f(x):
    reached = []
    for path in ('/proc/1/mem', '/proc/self/mem', '/proc/PARENT/mem', '/dev/mem', '/dev/kmem', '/proc/kcore'):
        try: reached.append(open(path, 'rb').name)
        except OSError: pass
    return reached
""",
}

# Closed in all walls, by the list of system calls alone.
_SOCKETS = """
import socket
def f(x):
    reached = []
    outside = (socket.AF_INET, ('192.0.2.1', 53))
    for family, place in ((socket.AF_INET, ('127.0.0.1', PORT)), outside, (socket.AF_UNIX, '\\0selfadapt-test')):
        try:
            with socket.socket(family) as s:
                s.settimeout(1)
                s.connect(place)
                reached.append(str(place))
        except OSError: pass
    return reached
"""
_FAMILIES = """
import socket
def f(x):
    reached = []
    for family in range(46):
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET):
            try:
                socket.socket(family, kind).close()
                reached.append(family)
            except OSError: pass
    return reached
"""
_PAIRS = """
import os, socket
def f(x):
    reached = []
    for family, kind in ((1, socket.SOCK_DGRAM), (1, socket.SOCK_SEQPACKET), (30, 1), (40, 1)):
        try:
            socket.socketpair(family, kind)
            reached.append((family, kind))
        except OSError: pass
    one, other = socket.socketpair()
    for place in ('\\0selfadapt-test', '/dev/log', '/run/systemd/journal/socket'):
        try:
            one.sendto(b'x', place)
            reached.append(place)
        except OSError: pass
    try:
        socket.send_fds(one, [b'x'], [0])
        reached.append('files')
    except OSError: pass
    return reached
"""
_WRITTEN = """
import os
def f(x):
    written = []
    places = ('/x', '/lib/x', '/lib/json/__init__.py', '../x', 'SECRET', '/tmp/selfadapt-left',
        '/var/tmp/selfadapt-left', '/run/selfadapt-left', '/sys/x', '/proc/sys/kernel/hostname',
        '/proc/self/oom_score_adj', '/dev/selfadapt-left')
    for path in places:
        for how in ('a', 'w', 'x', 'r+'):
            try:
                open(path, how).write('x')
                written.append(path)
            except OSError: pass
    for act in (os.remove, os.rmdir, os.mkdir, lambda p: os.rename(p, p + '2'), lambda p: os.truncate(p, 0),
            lambda p: os.chmod(p, 0o777), lambda p: os.utime(p), lambda p: os.chown(p, 0, 0), os.mkfifo, os.listxattr):
        for path in ('SECRET', '/tmp/selfadapt-left', '/lib/os.py'):
            try:
                act(path)
                written.append(path)
            except OSError: pass
    return written
"""
_PROCESSES = """
import os, resource, signal
def f(x):
    reached = []
    for process in (PARENT, *range(2, 3000)):
        try:
            os.kill(process, 0)
            reached.append(process)
        except OSError: pass
    for act in (lambda: os.setpriority(os.PRIO_PROCESS, PARENT, 19), lambda: os.sched_setaffinity(PARENT, {0}),
            lambda: resource.prlimit(PARENT, resource.RLIMIT_CPU, (1, 1)), lambda: os.pidfd_open(PARENT),
            lambda: os.setsid(), lambda: os.setpgid(0, 0), lambda: os.sched_setscheduler(0, 0, os.sched_param(0)),
            lambda: os.nice(1), lambda: signal.pidfd_send_signal(0, 0)):
        try:
            act()
            reached.append(act.__code__.co_names)
        except OSError: pass
    return reached
"""
_RIGHTS = """
import ctypes, os
def f(x):
    libc = ctypes.CDLL(None)
    calls = {
        'user namespace': lambda: libc.unshare(0x10000000), 'mount namespace': lambda: libc.unshare(0x20000),
        'mount': lambda: libc.mount(b'none', b'/work', b'tmpfs', 0, None), 'umount': lambda: libc.umount2(b'/lib', 2),
        'root': lambda: libc.setresuid(0, 0, 0), 'group': lambda: libc.setgid(0),
        'chroot': lambda: libc.chroot(b'/work'), 'host name': lambda: libc.sethostname(b'x', 1),
        'device': lambda: libc.mknod(b'device', 0o20666, 0x103),
        'no more dying': lambda: libc.prctl(1, 0, 0, 0, 0), 'new rights': lambda: libc.prctl(38, 0, 0, 0, 0),
        'readable': lambda: libc.prctl(4, 1, 0, 0, 0), 'children': lambda: libc.prctl(36, 1, 0, 0, 0),
        'name in memory': lambda: libc.prctl(35, 8, 0, 0, 0), 'capabilities': lambda: libc.prctl(47, 2, 0, 0, 0),
        'owner': lambda: libc.fcntl(0, 8, PARENT), 'signal': lambda: libc.fcntl(0, 10, 9),
        'lease': lambda: libc.fcntl(0, 1024, 0), 'watch': lambda: libc.fcntl(0, 1026, 1),
        'typed in': lambda: libc.ioctl(0, 0x5412, b'x'), 'terminal': lambda: libc.ioctl(0, 0x540E, 0)}
    for number, flag in enumerate((7, 17, 25, 26, 27, 28, 29, 30)):
        clone = {'x86_64': 56}.get(os.uname().machine, 220)
        calls[f'clone {flag}'] = lambda flag=flag: libc.syscall(clone, 1 << flag | 17, 0, 0, 0, 0)
    return [name for name, call in calls.items() if call() not in (-1,)]
"""
# A call that is let through fails in another way, for its arguments are zero: what it says tells them apart.
_CALLS = """
import ctypes, errno, os
libc = ctypes.CDLL(None, use_errno=True)
def f(x):
    reached = []
    for name, numbers in NUMBERS.items():
        number = numbers[os.uname().machine != 'x86_64']
        ctypes.set_errno(0)
        if libc.syscall(number, *[0] * 6) != -1 or ctypes.get_errno() not in (errno.ENOSYS, errno.EPERM):
            reached.append(name)
    return reached
"""
_NUMBERS = {
    "sockets": {
        "socket": (41, 198), "bind": (49, 200), "listen": (50, 201), "accept": (43, 202), "connect": (42, 203),
        "sendmsg": (46, 211), "recvmsg": (47, 212), "accept4": (288, 242), "recvmmsg": (299, 243),
        "sendmmsg": (307, 269), "setsockopt": (54, 208),
    },
    "namespaces and mounts": {
        "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41),
        "chroot": (161, 51), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430),
        "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442),
        "clone3": (435, 435), "statmount": (457, 457), "listmount": (458, 458),
    },
    "other processes": {
        "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
        "pidfd_open": (434, 434), "pidfd_getfd": (438, 438), "pidfd_send_signal": (424, 424),
        "process_madvise": (440, 440), "process_mrelease": (448, 448), "rt_sigqueueinfo": (129, 138),
        "rt_tgsigqueueinfo": (297, 240), "get_robust_list": (274, 100), "migrate_pages": (256, 238),
        "move_pages": (279, 239), "perf_event_open": (298, 241), "setpgid": (109, 154), "setsid": (112, 157),
        "tkill": (200, 130),
    },
    "programs": {"execve": (59, 221), "execveat": (322, 281), "uselib": (134, 1079), "memfd_create": (319, 279)},
    "memory that is not counted": {
        "shmget": (29, 194), "shmat": (30, 196), "semget": (64, 190), "msgget": (68, 186), "mq_open": (240, 180),
        "memfd_secret": (447, 447), "userfaultfd": (323, 282), "remap_file_pages": (216, 234), "mlock": (149, 228),
        "mlockall": (151, 230), "io_setup": (206, 0), "io_uring_setup": (425, 425), "mbind": (237, 235),
        "set_mempolicy": (238, 237),
    },
    "watching files": {
        "inotify_init1": (294, 26), "inotify_add_watch": (254, 27), "fanotify_init": (300, 262),
        "fanotify_mark": (301, 263), "open_by_handle_at": (304, 265), "name_to_handle_at": (303, 264),
        "quotactl": (179, 60), "signalfd4": (289, 74), "timerfd_create": (283, 85),
        "landlock_create_ruleset": (444, 444), "landlock_restrict_self": (446, 446),
        "openat2": (437, 437), "splice": (275, 76), "vmsplice": (278, 75),
        "tee": (276, 77), "copy_file_range": (326, 285), "sendfile": (40, 71),
    },
    "the machine": {
        "reboot": (169, 142), "swapon": (167, 224), "swapoff": (168, 225), "sethostname": (170, 161),
        "setdomainname": (171, 162), "settimeofday": (164, 170), "clock_settime": (227, 112), "adjtimex": (159, 171),
        "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106), "kexec_load": (246, 104),
        "acct": (163, 89), "syslog": (103, 116), "vhangup": (153, 58), "bpf": (321, 280), "personality": (135, 92),
        "seccomp": (317, 277), "sync": (162, 81), "lookup_dcookie": (212, 18),
    },
    "keys and capabilities": {
        "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219), "capset": (126, 91),
        "capget": (125, 90), "setuid": (105, 146), "setgid": (106, 144), "setgroups": (116, 159),
        "setfsuid": (122, 151), "setpriority": (141, 140), "sched_setaffinity": (203, 122), "sched_setattr": (314, 274),
        "ioprio_set": (251, 30), "setrlimit": (160, 164),
    },
    "old doors of x86": {
        "modify_ldt": (154, 1079), "iopl": (172, 1079), "ioperm": (173, 1079), "arch_prctl": (158, 1079),
        "sysfs": (139, 1079), "ustat": (136, 1079), "set_thread_area": (205, 1079), "create_module": (174, 1079),
        "x32 read": (0x40000000, 1079), "x32 socket": (0x40000029, 1079), "x32 ptrace": (0x40000209, 1079),
        "no call": (5000, 5000),
    },
}  # fmt: skip

CLOSED = {
    "the network": _SOCKETS,
    "any family of sockets": _FAMILIES,
    "pairs of sockets, and who is not their other end": _PAIRS,
    "files outside": _WRITTEN,
    "processes of ours": _PROCESSES,
    "rights": _RIGHTS,
    **{f"calls for {what}": _CALLS.replace("NUMBERS", repr(numbers)) for what, numbers in _NUMBERS.items()},
}

# The same calls through the door of 32-bit programs: the kernel kills who tries it. x86-64 alone.
OLD_DOOR = """
import ctypes, mmap
code = b'\\x53\\xb8\\x14\\x00\\x00\\x00\\xcd\\x80\\x5b\\xc3'  # push rbx; mov eax, 20 (getpid); int 0x80; pop rbx; ret
page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
page.write(code)
place = ctypes.addressof(ctypes.c_char.from_buffer(page))
def f(x):
    return ctypes.CFUNCTYPE(ctypes.c_int)(place)()
"""

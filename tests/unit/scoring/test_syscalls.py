"""The filter of system calls, run by a small machine of our own: what it says on x86-64 and on aarch64."""

import errno
import itertools
import os
from types import SimpleNamespace

import pytest

from pipeline.scoring.code import syscalls
from pipeline.scoring.code.syscalls import ALLOWED, ARCHITECTURES, KILLED, REFUSED, Allowance, instructions

WHOLE = Allowance(processes=True, folder=True, opening=True)
LIMITED = Allowance(processes=False, folder=False, opening=False)
ABSENT, DENIED = REFUSED | errno.ENOSYS, REFUSED | errno.EPERM
MACHINES = list(ARCHITECTURES)


@pytest.fixture(params=MACHINES)
def machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine=request.param))
    return request.param


def verdict(allowance: Allowance, number: int | None, *arguments: int, architecture: int | None = None) -> int:
    """What the filter answers to a call, as the kernel would run it."""
    _, own = ARCHITECTURES[os.uname().machine]
    fields = {0: number, 4: own if architecture is None else architecture}
    for place, argument in enumerate([*arguments, *[0] * (6 - len(arguments))]):
        fields |= {16 + 8 * place: argument & 0xFFFFFFFF, 20 + 8 * place: argument >> 32}
    rules = instructions(allowance)
    held, place = 0, 0
    while True:
        code, if_true, if_false, operand = rules[place]
        place += 1
        if code == syscalls.LOAD:
            held = fields[operand]
        elif code == syscalls.AND:
            held &= operand
        elif code == syscalls.GIVE:
            return operand
        else:
            holds = {syscalls.EQUAL: held == operand, syscalls.AT_LEAST: held >= operand}[code]
            place += if_true if holds else if_false


def number(name: str) -> int | None:
    numbers = syscalls.ALWAYS | syscalls.WRITING | syscalls.STARTING | syscalls.LIMITED
    return numbers[name][MACHINES.index(os.uname().machine)]


def test_what_is_needed_is_allowed_and_all_else_is_not_there(machine: str) -> None:
    allowed = {number(name) for name in syscalls.ALWAYS | syscalls.WRITING | syscalls.STARTING} - {None}
    limited = {number(name) for name in syscalls.LIMITED}
    for call in itertools.chain(range(600), (5000, 0x3FFFFFFF, 0x40000000, 0x40000001, 0xFFFFFFFF)):
        if call not in limited:
            assert verdict(WHOLE, call) == (ALLOWED if call in allowed else ABSENT), call


def test_no_number_is_listed_twice() -> None:
    numbers = syscalls.ALWAYS | syscalls.WRITING | syscalls.STARTING | syscalls.LIMITED
    assert len(numbers) == sum(map(len, (syscalls.ALWAYS, syscalls.WRITING, syscalls.STARTING, syscalls.LIMITED)))
    for column in range(len(MACHINES)):
        known = [pair[column] for pair in numbers.values() if pair[column] is not None]
        assert len(known) == len(set(known))


def test_jumps_and_length_are_what_the_kernel_takes(machine: str) -> None:
    for allowance in (WHOLE, LIMITED):
        rules = instructions(allowance)
        assert len(rules) < 4096
        assert all(0 <= jump < 256 for rule in rules for jump in rule[1:3])


def test_another_architecture_is_killed(machine: str) -> None:
    assert verdict(WHOLE, number("read"), architecture=0x40000003) == KILLED  # i386


def test_less_walls_allow_less(machine: str) -> None:
    for name in syscalls.WRITING | syscalls.STARTING:
        assert number(name) is None or verdict(LIMITED, number(name)) == ABSENT
    thread = 0x3D0F00
    for flags, whole, limited in ((thread, ALLOWED, ALLOWED), (17, ALLOWED, DENIED), (0x4111, ALLOWED, DENIED)):
        assert verdict(WHOLE, number("clone"), flags) == whole
        assert verdict(LIMITED, number("clone"), flags) == limited
    for name in ("kill", "tgkill"):
        assert verdict(WHOLE, number(name), 1) == ALLOWED
        assert verdict(LIMITED, number(name), os.getpid(), 9) == ALLOWED
        assert [verdict(LIMITED, number(name), other, 9) for other in (1, 0, 2**32 - 1)] == [DENIED] * 3
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_CREAT, os.O_TRUNC, os.O_APPEND, os.O_RDWR | os.O_CLOEXEC):
        assert verdict(WHOLE, number("openat"), 0, 0, flags) == ALLOWED
        assert verdict(LIMITED, number("openat"), 0, 0, flags) == DENIED
    assert verdict(LIMITED, number("openat"), 0, 0, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY) == ALLOWED


@pytest.mark.parametrize("bit", [7, 17, 25, 26, 27, 28, 29, 30])
def test_no_process_comes_in_a_namespace_of_its_own(bit: int, machine: str) -> None:
    assert verdict(WHOLE, number("clone"), 17 | 1 << bit) == DENIED


@pytest.mark.parametrize(
    ("name", "arguments", "allowed"),
    [
        ("socketpair", (1, 1 | 0x80000), True),
        ("socketpair", (1, 2), False),  # datagrams may be sent to an address
        ("socketpair", (16, 1), False),
        ("sendto", (3, 0, 0, 0, 0), True),
        ("sendto", (3, 0, 0, 0, 0x7FFE00000000), False),
        ("sendto", (3, 0, 0, 0, 0x1000), False),
        ("ioctl", (0, 0x5401), True),
        ("ioctl", (0, 0x5412), False),  # as if it had been typed
        ("fcntl", (0, 3), True),
        ("fcntl", (0, 8), False),  # whom to send signals to
        ("prctl", (15,), True),
        ("prctl", (1,), False),  # to die with one's parent
        ("prlimit64", (0,), True),
        ("prlimit64", (1,), False),
    ],
)
def test_arguments_decide_where_a_call_can_do_more(
    name: str, arguments: tuple[int, ...], allowed: bool, machine: str
) -> None:
    assert verdict(WHOLE, number(name), *arguments) == (ALLOWED if allowed else DENIED)

"""Stages that start warm: forked from a process that has the libraries loaded already.

Importing torch, transformers and pandas takes seconds, more than many a stage needs for its work, and importing
prefect takes another. So the first stage (or a run of the whole graph, ahead of it) starts a server that imports them
once (prefect only where stages are recorded) and then forks a process for every stage, and one for what records it.
Only libraries are loaded there: each process imports the project's own code itself, as it stands at that moment.

The process that DVC started for the stage stays: it hands on its standard streams, its environment and its signals,
and ends with the stage's exit code. If it is killed, the stage is killed with it. A server that does not answer is
killed, and the stage that asked it runs without one. The server ends when nothing has asked for a while.

A server has a key: a hash of all that a process hands down to its children and that matters here (folder, interpreter,
installed packages, the environment variables that libraries read, limits, priority). So a stage asks only a server
that was started with the same.

Stages start warm on Linux only, and not where there is an NVIDIA GPU: a process that has touched CUDA must not be
forked, and looking for a GPU may touch it. There, and with SELFADAPT_WARM=off, every stage loads its own libraries.
"""

import array
import atexit
import contextlib
import fcntl
import hashlib
import importlib
import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pipeline.core  # noqa: F401 - it bounds how long threads spin, which a library reads as it is loaded

MODULE = "pipeline.flow.warm"
FOLDER = Path(".selfadapt/warm")  # relative: a socket's address has room for about a hundred characters
IDLE_SECONDS = 30.0  # without a stage, before the server ends
START_SECONDS = 120.0  # for a server to load its libraries, which takes it seconds on a machine that is not busy
ANSWER_SECONDS = 30.0  # for a server to fork a process, which takes it milliseconds on a machine that is not busy
GO = b"g"  # says that who asked is still there: it may have given up meanwhile, and be running the stage itself
# Nothing that starts a thread when it is imported: only the thread that forks lives on in the child.
LIBRARIES = (
    "torch",
    "pandas",
    "pyarrow.parquet",
    "safetensors.torch",
    "pydantic",
    "jinja2",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.llama.modeling_llama",
    "transformers.loss.loss_utils",
    "transformers.integrations.sdpa_attention",
)
# What records a stage, where stages are recorded.
RECORDING = ("prefect", "prefect.states", "prefect.client.orchestration", "prefect.client.schemas.actions")
# What is read once: by libraries, when they are imported, and by the server, which asks what to import.
READ_AT_IMPORT = (
    "SELFADAPT_PREFECT",
    *("OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS", "ONEDNN", "DNNL", "ATEN_", "MALLOC", "LD_", "CUDA"),
    *("PYTHON", "TORCH", "PYTORCH", "TRANSFORMERS_", "HF_", "HUGGING", "XDG_", "HOME", "LANG", "LC_", "TZ"),
)
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
KILLED = 128 + signal.SIGKILL


def possible() -> bool:
    """Whether this is a machine on which a process with libraries may be forked."""
    return sys.platform == "linux" and not Path("/dev/nvidiactl").exists()


def wanted() -> bool:
    """Whether stages are to start warm here: not with SELFADAPT_WARM=off."""
    return os.environ.get("SELFADAPT_WARM", "on") != "off" and possible()


def run(module: str, argv: Sequence[str]) -> int | None:
    """Call ``main(argv)`` of a module in a process forked for it; its exit code, or None if no server can fork one.

    That process has this one's standard streams, gets its signals, and is killed when this one is.
    """
    begun = _ask(module, "main", [list(argv)], (0, 1, 2), alone=False)
    if begun is None:
        return None
    connection, pid = begun
    with connection:
        for signal_ in FORWARDED:
            signal.signal(signal_, lambda number, frame: _tell(pid, number))
        code = _number(connection)
        return KILLED if code is None else code


def prepare() -> None:
    """Start a server where one is wanted and none is up, without waiting for it."""
    with contextlib.suppress(OSError):
        if wanted() and not (FOLDER / (key := _key())).exists():
            FOLDER.mkdir(mode=0o700, parents=True, exist_ok=True)
            _start(key)


def start(module: str, function: str, streams: tuple[int, int, int]) -> bool:
    """Call a function of a module in a process forked for it, which outlives this one; False if no server can fork one.

    streams: file descriptors of its standard streams.
    """
    begun = _ask(module, function, [], streams, alone=True)
    if begun is None:
        return False
    begun[0].close()
    return True


def _ask(
    module: str, function: str, arguments: list[Any], streams: tuple[int, int, int], *, alone: bool
) -> tuple[socket.socket, int] | None:
    """Have a process forked; the connection to it and its number, or None if no server does so in time."""
    connection = _connect() if wanted() else None
    if connection is None:
        return None
    try:
        connection.settimeout(ANSWER_SECONDS)
        request = {
            "module": module,
            "function": function,
            "arguments": arguments,
            "environment": dict(os.environ),
            "alone": alone,
        }
        body = json.dumps(request).encode()
        passed = array.array("i", streams)
        connection.sendmsg([struct.pack(">I", len(body))], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, passed)])
        connection.sendall(body)
        if pid := _number(connection):
            connection.sendall(GO)
            connection.settimeout(None)  # the next word is the exit code, whenever the stage ends
            return connection, pid
    except TimeoutError:
        _kill_server(connection)  # stopped, or hanging: the next stage shall not wait for it as well
    except OSError:
        pass  # the server ended before it took this on
    connection.close()
    return None


def _kill_server(connection: socket.socket) -> None:
    """Kill the server at the other end. The processes that it has forked go on."""
    pid, _, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    with contextlib.suppress(OSError):
        if MODULE.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():  # and not who has its number by now
            os.kill(pid, signal.SIGKILL)


def _tell(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _number(connection: socket.socket) -> int | None:
    """The next number that the other side says; None if it has gone."""
    try:
        data = connection.recv(4, socket.MSG_WAITALL)
    except ConnectionResetError:
        return None
    return struct.unpack(">i", data)[0] if len(data) == 4 else None


def _key() -> str:
    environment = sorted((name, value) for name, value in os.environ.items() if name.startswith(READ_AT_IMPORT))
    packages = Path(sysconfig.get_paths()["purelib"]).stat().st_mtime_ns
    what = [
        sys.executable,
        packages,
        Path(__file__).read_text(encoding="utf-8"),
        str(Path.cwd()),
        environment,
        Path("/proc/self/limits").read_text(encoding="utf-8"),
        os.nice(0),
        os.sched_getscheduler(0),
        sorted(os.sched_getaffinity(0)),
        _umask(),
        Path("/proc/self/cgroup").read_text(encoding="utf-8"),
    ]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]


def _umask() -> int:
    """The umask, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _connect() -> socket.socket | None:
    """A connection to the server, which is started if need be; None if that fails."""
    try:
        key = _key()
        FOLDER.mkdir(mode=0o700, parents=True, exist_ok=True)
        started: subprocess.Popen[bytes] | None = None
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.settimeout(ANSWER_SECONDS)
            try:
                connection.connect(str(FOLDER / key))
                return connection
            except OSError:
                connection.close()
            if started is None:
                started = _start(key)
            elif started.poll():
                return None
            time.sleep(0.02)
    except OSError:
        pass
    return None


def _start(key: str) -> "subprocess.Popen[bytes]":
    # No thread for the imports of numpy and pyarrow to start, which would be gone after a fork: OpenBLAS' pool, and one
    # that Arrow's jemalloc has for returning memory (Arrow itself allocates by mimalloc).
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}
    with (FOLDER / "server.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", MODULE, key],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
        )


# ---- the server --------------------------------------------------------------------------------------------------


def serve(key: str) -> int:
    """Fork a process for every stage that asks, until none has for a while. 0: also if another one does already."""
    with (FOLDER / f"{key}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return 0
        for name in _libraries():
            importlib.import_module(name)
        threads = len(list(Path("/proc/self/task").iterdir()))
        if threads != 1:
            print(f"expected one thread after loading the libraries, got {threads}: nothing can be forked", flush=True)
            return 1
        address = FOLDER / key
        address.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(str(address))
            listener.listen(16)
            listener.settimeout(1.0)
            try:
                while True:
                    stage = _next(listener)
                    if stage is None:
                        return 0
                    connection, request, streams = stage
                    if os.fork() == 0:
                        listener.close()
                        lock.close()
                        _become(connection, request, streams)
                    connection.close()
                    for stream in streams:
                        os.close(stream)
            finally:
                address.unlink(missing_ok=True)


def _libraries() -> tuple[str, ...]:
    """What this server loads: with SELFADAPT_PREFECT=off nothing that records."""
    return LIBRARIES if os.environ.get("SELFADAPT_PREFECT", "on") == "off" else LIBRARIES + RECORDING


def _next(listener: socket.socket) -> tuple[socket.socket, dict[str, Any], list[int]] | None:
    """The next stage that is asked for; None when none has been for a while and none is running."""
    deadline = time.monotonic() + IDLE_SECONDS
    while True:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
            deadline = time.monotonic() + IDLE_SECONDS  # a stage is running
        except ChildProcessError:
            pass
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            if time.monotonic() > deadline:
                return None
            continue
        connection.settimeout(5.0)
        try:
            head, ancillary, _, _ = connection.recvmsg(4, socket.CMSG_SPACE(3 * array.array("i").itemsize))
            streams = array.array("i")
            for level, kind, data in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    streams.frombytes(data)
            size = struct.unpack(">I", head)[0]
            body = b""
            while len(body) < size:
                piece = connection.recv(size - len(body))
                if not piece:
                    raise OSError("gone")
                body += piece
            connection.settimeout(None)
            return connection, json.loads(body), list(streams)
        except (OSError, struct.error):
            connection.close()  # who asked has gone


def _become(connection: socket.socket, request: dict[str, Any], streams: Sequence[int]) -> None:
    """In a forked process: be the stage that was asked for, and end. Does not return."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        random.seed()  # every child begins with the server's state
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", buffering=1, closefd=False)
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", buffering=1, closefd=False)
        os.environ.clear()
        os.environ.update(request["environment"])
        connection.sendall(struct.pack(">i", os.getpid()))
        if connection.recv(1) != GO:
            sys.exit(1)
        if not request["alone"]:
            threading.Thread(target=_die_with, args=(connection,), daemon=True).start()
        called = getattr(importlib.import_module(request["module"]), request["function"])
        code = called(*request["arguments"]) or 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())  # as an interpreter would end
    finally:
        with contextlib.suppress(Exception):
            atexit._run_exitfuncs()
        for output in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                output.flush()
        with contextlib.suppress(OSError):
            connection.sendall(struct.pack(">i", code))
        os._exit(code)


def _die_with(connection: socket.socket) -> None:
    """Wait for the one who asked to go, and go as well: whoever kills it means the stage."""
    with contextlib.suppress(OSError):
        connection.recv(1)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(serve(sys.argv[1]))

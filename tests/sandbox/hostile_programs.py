# ruff: noqa: E501
"""Programs that attack.  Each prints STOLEN only if its attack succeeded; the tests expect STOLEN, so that success would
be a pass and be noticed."""

from __future__ import annotations

ATTEMPT = """
def attempt(attack):
    try:
        if attack():
            print("STOLEN")
    except BaseException as error:
        print("refused", type(error).__name__)
"""

REFUSED = {
    "read_a_file": 'attempt(lambda: open("/etc/passwd").read())',
    "read_the_environment": 'import os\nattempt(lambda: set(os.environ) - {"LANG", "LC_CTYPE", "PYTHONHASHSEED", '
    '"OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"})',
    "read_its_own_proc_environ": 'attempt(lambda: open("/proc/self/environ", "rb").read())',
    "read_proc_of_the_parent": 'import os\nattempt(lambda: open(f"/proc/{os.getppid()}/cmdline", "rb").read())',
    "read_memory_of_the_parent": 'import os\nattempt(lambda: open(f"/proc/{os.getppid()}/mem", "rb"))',
    "read_its_own_memory_maps": 'attempt(lambda: open("/proc/self/maps").read())',
    "list_the_root_directory": 'import os\nattempt(lambda: os.listdir("/"))',
    "list_proc": 'import os\nattempt(lambda: os.listdir("/proc"))',
    "read_memory_of_another_process": """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
buffer = ctypes.create_string_buffer(64)
vector = (ctypes.c_void_p * 2)(ctypes.addressof(buffer), 64)
attempt(lambda: libc.process_vm_readv(os.getppid(), vector, 1, vector, 1, 0) > 0)
""",
    "ptrace_the_parent": """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
attempt(lambda: libc.ptrace(16, os.getppid(), 0, 0) == 0)
""",
    "ptrace_oneself": "import ctypes\nattempt(lambda: ctypes.CDLL(None).ptrace(0, 0, 0, 0) == 0)",
    "walk_the_frames_to_expected_outputs": """
import sys
frame = sys._getframe()
while frame:
    for space in (frame.f_locals, frame.f_globals):
        for value in list(space.values()):
            if isinstance(value, (str, bytes)) and value in ("STO" + "LEN", b"STO" + b"LEN"):
                print(value)
    frame = frame.f_back
""",
    "walk_a_traceback_to_expected_outputs": """
try:
    1 / 0
except ZeroDivisionError as error:
    frame = error.__traceback__.tb_frame
    while frame:
        for value in list(frame.f_locals.values()):
            if isinstance(value, (list, tuple)) and ("STO" + "LEN") in value:
                print("STO" + "LEN")
        frame = frame.f_back
""",
    "search_the_garbage_collector_for_expected_outputs": """
import gc
secret = "STO" + "LEN"
own = secret
found = [o for o in gc.get_objects() if isinstance(o, (list, tuple, dict)) and o is not globals()
         and secret in (list(o.values()) if isinstance(o, dict) else o)]
found = [o for o in found if not any(value is own for value in (o.values() if isinstance(o, dict) else o))]
if found:
    print("STO" + "LEN")
""",
    "patch_the_comparator": """
import sys, builtins
for module in list(sys.modules.values()):
    for name in ("stdin_equal", "value_equal", "result_of_report"):
        if hasattr(module, name):
            setattr(module, name, lambda *a: True)
str.__eq__ if True else 0
builtins.all = lambda *a: True
builtins.len = lambda *a: 0
builtins.zip = lambda *a, **k: []
""",
    "exit_zero_before_output": "import os\nos._exit(0)",
    "open_an_internet_socket": "import socket\nattempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))",
    "open_a_unix_socket": "import socket\nattempt(lambda: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))",
    "open_a_netlink_socket": "import socket\nattempt(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW))",
    "fork": "import os\nattempt(lambda: os.fork() >= 0)",
    "vfork_by_raw_call": "import ctypes\nattempt(lambda: ctypes.CDLL(None).syscall(58) > 0)",
    "clone_by_raw_call": "import ctypes\nattempt(lambda: ctypes.CDLL(None).syscall(56, 17, 0, 0, 0, 0) > 0)",
    "clone3_by_raw_call": """
import ctypes
arguments = (ctypes.c_uint64 * 11)(0, 0, 0, 0, 17)
attempt(lambda: ctypes.CDLL(None).syscall(435, arguments, 88) > 0)
""",
    "run_a_command": 'import subprocess\nattempt(lambda: subprocess.run(["/bin/true"]))',
    "replace_itself_by_a_command": 'import os\nattempt(lambda: os.execv("/bin/echo", ["echo", "STO" + "LEN"]))',
    "start_a_daemon": """
import os
def attack():
    if os.fork() == 0:
        os.setsid()
        while True: pass
    return True
attempt(attack)
""",
    "kill_everybody": "import os\nattempt(lambda: os.kill(-1, 9) is None)",
    "kill_the_parent": "import os\nattempt(lambda: os.kill(os.getppid(), 9) is None)",
    "kill_the_group": "import os\nattempt(lambda: os.kill(0, 15) is None)",
    "kill_the_neighbours": """
import os
def attack():
    hits = 0
    for number in range(1, 3000):
        if number != os.getpid():
            try:
                os.kill(number, 9)
                hits += 1
            except OSError:
                pass
    return hits
attempt(attack)
""",
    "write_a_file": 'attempt(lambda: open("/tmp/trace_of_a_program", "w").write("x"))',
    "write_into_the_current_directory": 'attempt(lambda: open("trace_of_a_program", "w").write("x"))',
    "write_a_hard_link": 'import os\nattempt(lambda: os.link("/etc/passwd", "/tmp/trace_of_a_program") is None)',
    "write_a_symbolic_link": 'import os\nattempt(lambda: os.symlink("/etc/passwd", "/tmp/trace_of_a_program") is None)',
    "make_a_directory": 'import os\nattempt(lambda: os.mkdir("/tmp/trace_of_a_program") is None)',
    "delete_the_standard_library": "import os\nattempt(lambda: os.remove(os.__file__) is None)",
    "change_the_mode_of_a_file": "import os\nattempt(lambda: os.chmod(os.__file__, 0o777) is None)",
    "make_a_memory_file": 'import os\nattempt(lambda: os.memfd_create("x") >= 0)',
    "mount": 'import ctypes\nattempt(lambda: ctypes.CDLL(None).mount(b"x", b"/", b"tmpfs", 0, None) == 0)',
    "new_user_namespace": "import ctypes\nattempt(lambda: ctypes.CDLL(None).unshare(0x10000000) == 0)",
    "become_root": "import os\nattempt(lambda: (os.setuid(0), os.getuid() == 0)[1])",
    "raise_the_cpu_limit": """
import resource
attempt(lambda: resource.setrlimit(resource.RLIMIT_CPU, (10**6, 10**6)) is None)
""",
    "raise_the_memory_limit": """
import resource
attempt(lambda: resource.setrlimit(resource.RLIMIT_AS, (-1, -1)) is None)
""",
    "lower_the_priority_of_others": "import os\nattempt(lambda: os.setpriority(os.PRIO_USER, 0, 19) is None)",
    "find_other_descriptors": """
import os, stat
kinds = []
for fd in range(3, 256):
    try:
        kinds.append(stat.S_IFMT(os.fstat(fd).st_mode))
    except OSError:
        pass
attempt(lambda: len(kinds) > 2 or any(kind != stat.S_IFSOCK for kind in kinds))
""",
    "inotify": "import ctypes\nattempt(lambda: ctypes.CDLL(None).inotify_init1(0) >= 0)",
    "io_uring": "import ctypes\nattempt(lambda: ctypes.CDLL(None).syscall(425, 1, ctypes.create_string_buffer(200)) >= 0)",
    "bpf": "import ctypes\nattempt(lambda: ctypes.CDLL(None).syscall(321, 0, ctypes.create_string_buffer(200), 120) >= 0)",
    "shared_memory": "import ctypes\nattempt(lambda: ctypes.CDLL(None).shmget(0, 4096, 0o1600) >= 0)",
    "forge_a_report_as_garbage": """
import os
for fd in range(3, 64):
    try:
        os.write(fd, b"\\0" * 64)
    except OSError:
        pass
""",
    "forge_a_report_with_a_wrong_answer": """
import os, struct
text = b'{"s": null, "verdict": "accepted", "passed": true}'
for fd in range(3, 64):
    try:
        os.write(fd, struct.pack("!IIIddd", len(text), 0, 0, 0, 0, 0) + text)
    except OSError:
        pass
os._exit(0)
""",
    "forge_a_huge_report": """
import os, struct
for fd in range(3, 64):
    try:
        os.write(fd, struct.pack("!IIIddd", 2**32 - 1, 2**32 - 1, 0, 0, 0, 0))
    except OSError:
        pass
os._exit(0)
""",
    "forge_a_report_with_odd_clocks": """
import os, struct
text = b'{"e": "E", "m": "m", "f": [], "s": "exception"}'
for fd in range(3, 64):
    try:
        os.write(fd, struct.pack("!IIIddd", len(text), 0, 2**32 - 1, float("nan"), -1e300, float("inf")) + text)
    except OSError:
        pass
""",
    "ring_without_a_report": """
import os
while True:
    for fd in range(3, 64):
        try:
            os.write(fd, b"!" * 4096)
        except OSError:
            pass
""",
    "forge_a_report_nested_too_deeply": """
import os, struct
text = b"[" * 100000
for fd in range(3, 64):
    try:
        os.write(fd, struct.pack("!IIIddd", len(text), 0, 0, 0, 0, 0) + text)
    except OSError:
        pass
""",
    "forge_a_report_with_odd_fields": """
import os, struct
text = b'{"p": 1' + b"0" * 999 + b', "c": "x", "e": [], "m": {}, "f": [[1e999, 2, 3, 4]], "s": "exception", "v": {}}'
for fd in range(3, 64):
    try:
        os.write(fd, struct.pack("!IIIddd", len(text), 0, 0, 0, 0, 0) + text)
    except OSError:
        pass
""",
    "close_every_descriptor": "import os\nos.closerange(0, 256)",
}

# What no level may let through: attacks on processes, sockets and files outside, and on the memory of the judge.  VICTIM and
# JUDGE are process ids of the same user, ABSTRACT names a socket of the host, SECRET is a file that others may read.
OUTWARD = {
    "kill_by_a_signal_on_readable_data": """
import fcntl, os, signal, socket
def attack():
    a, b = socket.socketpair()
    for owner in (VICTIM, -VICTIM, JUDGE):
        fcntl.fcntl(a, fcntl.F_SETOWN, owner)
        fcntl.fcntl(a, 10, signal.SIGKILL)
        fcntl.fcntl(a, fcntl.F_SETFL, os.O_ASYNC)
        b.send(b"x")
    return True
attempt(attack)
""",
    "kill_by_a_signal_with_an_extended_owner": """
import fcntl, struct, socket
a, b = socket.socketpair()
attempt(lambda: fcntl.fcntl(a, 15, struct.pack("ii", 1, VICTIM)) is not None)
""",
    "signals_by_ioctl": """
import fcntl, struct, socket
a, b = socket.socketpair()
attempt(lambda: fcntl.ioctl(a, 0x8901, struct.pack("i", VICTIM)) is not None)
attempt(lambda: fcntl.ioctl(a, 0x5452, struct.pack("i", 1)) is not None)
""",
    "kill_the_victim": "import os\nattempt(lambda: os.kill(VICTIM, 9) is None)",
    "ask_whether_the_victim_lives": "import os\nattempt(lambda: os.kill(VICTIM, 0) is None)",
    "kill_a_thread_of_the_victim": "import ctypes\nattempt(lambda: ctypes.CDLL(None).syscall(234, VICTIM, VICTIM, 9) == 0)",
    "kill_a_thread_by_tkill": "import ctypes\nattempt(lambda: ctypes.CDLL(None).syscall(200, VICTIM, 9) == 0)",
    "queue_a_signal": "import ctypes\nattempt(lambda: ctypes.CDLL(None).syscall(129, VICTIM, 9, bytes(128)) == 0)",
    "signal_by_pidfd": "import os, signal\nattempt(lambda: signal.pidfd_send_signal(os.pidfd_open(VICTIM), 9) is None)",
    "fetch_the_pidfd_of_the_peer": "import socket\na, b = socket.socketpair()\nattempt(lambda: a.getsockopt(1, 77, 4))",
    "pin_the_victim_to_a_core": "import os\nattempt(lambda: os.sched_setaffinity(VICTIM, {0}) is None)",
    "pin_the_judge_to_a_core": "import os\nattempt(lambda: os.sched_setaffinity(JUDGE, {0}) is None)",
    "change_the_scheduler_of_the_victim": """
import os
attempt(lambda: os.sched_setscheduler(VICTIM, os.SCHED_IDLE, os.sched_param(0)) is None)
""",
    "lower_the_priority_of_the_victim": "import os\nattempt(lambda: os.setpriority(os.PRIO_PROCESS, VICTIM, 19) is None)",
    "read_the_priority_of_the_victim": "import os\nattempt(lambda: os.getpriority(os.PRIO_PROCESS, VICTIM) is not None)",
    "lower_the_io_priority_of_the_victim": "import ctypes\nattempt(lambda: ctypes.CDLL(None).syscall(251, 1, VICTIM, 3 << 13) == 0)",
    "change_the_limits_of_the_victim": """
import resource
attempt(lambda: resource.prlimit(VICTIM, resource.RLIMIT_CPU, (1, 1)))
""",
    "read_the_limits_of_the_victim": "import resource\nattempt(lambda: resource.prlimit(VICTIM, resource.RLIMIT_CPU))",
    "read_the_victims_group": "import os\nattempt(lambda: os.getpgid(VICTIM) and os.getsid(VICTIM))",
    "compare_kernel_objects": "import ctypes\nattempt(lambda: ctypes.CDLL(None).syscall(312, VICTIM, JUDGE, 0, 0, 0) >= 0)",
    "robust_list_of_the_judge": """
import ctypes
p, n = ctypes.c_void_p(), ctypes.c_size_t()
attempt(lambda: ctypes.CDLL(None).syscall(274, JUDGE, ctypes.byref(p), ctypes.byref(n)) == 0)
""",
    "read_memory_of_the_judge": "attempt(lambda: open(f'/proc/{JUDGE}/mem', 'rb'))",
    "read_the_environment_of_the_judge": "attempt(lambda: open(f'/proc/{JUDGE}/environ', 'rb').read())",
    "read_the_maps_of_the_judge": "attempt(lambda: open(f'/proc/{JUDGE}/maps').read())",
    "follow_the_judge_to_its_directory": "import os\nattempt(lambda: os.readlink(f'/proc/{JUDGE}/cwd'))",
    "copy_memory_of_the_judge": """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
buffer = ctypes.create_string_buffer(64)
vector = (ctypes.c_void_p * 2)(ctypes.addressof(buffer), 64)
attempt(lambda: libc.process_vm_readv(JUDGE, vector, 1, vector, 1, 0) > 0)
""",
    "trace_the_judge": "import ctypes\nattempt(lambda: ctypes.CDLL(None).ptrace(16, JUDGE, 0, 0) == 0)",
    "seize_the_victim": "import ctypes\nattempt(lambda: ctypes.CDLL(None).ptrace(0x4206, VICTIM, 0, 0) == 0)",
    "count_events_of_the_judge": """
import ctypes, struct
attributes = ctypes.create_string_buffer(struct.pack("IIQ", 1, 112, 0) + bytes(96))
attempt(lambda: ctypes.CDLL(None).syscall(298, attributes, JUDGE, -1, -1, 0) >= 0)
""",
    "send_a_datagram_to_the_host": """
import socket
a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
attempt(lambda: a.sendto(b"x", "\\0" + ABSTRACT) == 1)
""",
    "send_a_datagram_in_a_message": """
import socket
a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
attempt(lambda: a.sendmsg([b"x"], [], 0, "\\0" + ABSTRACT) == 1)
""",
    "connect_a_socket_of_a_pair": """
import socket
for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET, socket.SOCK_DGRAM):
    try:
        a, b = socket.socketpair(socket.AF_UNIX, kind)
    except OSError:
        continue
    attempt(lambda: a.connect("\\0" + ABSTRACT) is None)
    attempt(lambda: a.bind("\\0x") is None)
    attempt(lambda: a.sendmsg([b"x"]) == 1)
""",
    "pass_a_descriptor": """
import array, socket
a, b = socket.socketpair()
attempt(lambda: a.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0]))]))
""",
    "lease_on_a_library": "import fcntl, os\nattempt(lambda: fcntl.fcntl(os.open(os.__file__, 0), 1024, fcntl.F_WRLCK) == 0)",
    "read_lease_on_a_library": "import fcntl, os\nattempt(lambda: fcntl.fcntl(os.open(os.__file__, 0), 1024, fcntl.F_RDLCK) == 0)",
    "lock_a_library": "import fcntl, os\nattempt(lambda: fcntl.lockf(os.open(os.__file__, 0), fcntl.LOCK_SH) is None)",
    "flock_a_library": "import fcntl, os\nattempt(lambda: fcntl.flock(os.open(os.__file__, 0), fcntl.LOCK_EX) is None)",
    "open_file_lock_of_a_library": """
import fcntl, os, struct
lock = struct.pack("hhqqi", fcntl.F_RDLCK, 0, 0, 0, 0)
attempt(lambda: fcntl.fcntl(os.open(os.__file__, 0), 37, lock))
""",
    "watch_a_directory": """
import fcntl, os
attempt(lambda: fcntl.fcntl(os.open(os.path.dirname(os.__file__), 0), fcntl.F_NOTIFY, fcntl.DN_ACCESS) == 0)
""",
    "touch_a_library": "import os\nattempt(lambda: os.utime(os.__file__) is None)",
    "truncate_a_library": "import os\nattempt(lambda: os.truncate(os.__file__, 0) is None)",
    "truncate_while_opening": "import os\nattempt(lambda: os.open(SECRET, os.O_RDONLY | os.O_TRUNC) >= 0)",
    "create_while_opening": "import os\nattempt(lambda: os.open('/tmp/trace_of_a_program', os.O_RDONLY | os.O_CREAT) >= 0)",
    "write_the_secret": "attempt(lambda: open(SECRET, 'a').write('x'))",
    "drop_a_library_from_the_cache": "import os\nattempt(lambda: os.posix_fadvise(os.open(os.__file__, 0), 0, 0, 4) is None)",
    "seal_stdout": "import fcntl\nattempt(lambda: fcntl.fcntl(1, 1033, 15) == 0)",
    "enlarge_a_pipe": "import fcntl, os\nattempt(lambda: fcntl.fcntl(os.pipe()[1], 1031, 1 << 20) > 0)",
    "enlarge_a_socket": "import socket\na, b = socket.socketpair()\nattempt(lambda: a.setsockopt(1, 7, 1 << 22) is None)",
    "message_queue": "import ctypes\nattempt(lambda: ctypes.CDLL(None).msgget(0, 0o1600) >= 0)",
    "posix_message_queue": "import ctypes\nattempt(lambda: ctypes.CDLL(None).syscall(240, b'x', 0o102, 0o600, 0) >= 0)",
    "semaphores": "import ctypes\nattempt(lambda: ctypes.CDLL(None).semget(0, 1, 0o1600) >= 0)",
    "add_a_key": "import ctypes\nattempt(lambda: ctypes.CDLL(None).syscall(248, b'user', b'x', b'y', 1, -3) >= 0)",
    "secret_memory_file": "import ctypes\nattempt(lambda: ctypes.CDLL(None).syscall(447, 0) >= 0)",
    "user_fault_descriptor": "import ctypes\nattempt(lambda: ctypes.CDLL(None).syscall(323, 1) >= 0)",
    "barrier_on_all_cores": "import ctypes\nattempt(lambda: ctypes.CDLL(None).syscall(324, 1, 0, 0) == 0)",
    "timer_with_a_deadly_signal": """
import ctypes, struct
event = ctypes.create_string_buffer(struct.pack("qii", 0, 9, 0) + bytes(48))
timer = ctypes.c_int()
attempt(lambda: ctypes.CDLL(None).syscall(222, 1, event, ctypes.byref(timer)) == 0)
""",
    "die_with_the_parent": "import ctypes\nattempt(lambda: ctypes.CDLL(None).prctl(1, 9, 0, 0, 0) == 0)",
    "become_traceable": "import ctypes\nattempt(lambda: ctypes.CDLL(None).prctl(4, 1, 0, 0, 0) == 0)",
    "filter_of_its_own": """
import ctypes, struct
code = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0x80000000))
program = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", 1, ctypes.addressof(code)))
attempt(lambda: ctypes.CDLL(None).prctl(22, 2, program) == 0)
attempt(lambda: ctypes.CDLL(None).syscall(317, 1, 0, program) == 0)
""",
    "thread_with_descriptors_of_its_own": """
import ctypes
stack = ctypes.create_string_buffer(1 << 16)
attempt(lambda: ctypes.CDLL(None).syscall(56, 0x10900, ctypes.addressof(stack) + (1 << 15), 0, 0, 0) > 0)
""",
    "descriptors_of_its_own": "import ctypes\nattempt(lambda: ctypes.CDLL(None).unshare(0x400) == 0)",
    "hang_up_the_terminal": "import ctypes\nattempt(lambda: ctypes.CDLL(None).vhangup() == 0)",
    "own_session": "import os\nattempt(lambda: os.setsid() and True)",
    **{
        f"lower_the_limit_{name}": f"""
import resource
attempt(lambda: resource.setrlimit(resource.RLIMIT_{name}, (1, 1)) is None)
attempt(lambda: resource.prlimit(0, resource.RLIMIT_{name}, (1, 1)))
"""
        for name in ("CPU", "AS", "DATA", "FSIZE", "NOFILE", "NPROC", "CORE", "SIGPENDING", "RTTIME", "MEMLOCK")
    },
}
# The level seccomp does not hold these: it says so.
READING = {
    "read_the_secret": "attempt(lambda: open(SECRET).read())",
    "find_the_secret_by_its_parent": "import os\nattempt(lambda: os.path.basename(SECRET) in os.listdir(os.path.dirname(SECRET)))",
    "read_the_command_line_of_the_judge": "attempt(lambda: open(f'/proc/{JUDGE}/cmdline').read())",
    "read_the_state_of_the_victim": "attempt(lambda: open(f'/proc/{VICTIM}/stat').read())",
    "list_the_descriptors_of_the_judge": "import os\nattempt(lambda: os.listdir(f'/proc/{JUDGE}/fd'))",
    "read_the_mounts": "attempt(lambda: open('/proc/self/mountinfo').read())",
}

# Programs that exhaust something, and the verdict each must get.
EXHAUSTING = {
    "endless_loop": ("while True: pass", {"time limit"}),
    "swallow_every_exception": ("while True:\n try:\n  while True: pass\n except BaseException: pass", {"time limit"}),
    "ignore_every_signal": (
        "import signal\nfor s in range(1, 65):\n try: signal.signal(s, signal.SIG_IGN)\n except Exception: pass\n"
        "while True: pass",
        {"time limit"},
    ),
    "cancel_the_alarms": (
        "import signal\nsignal.alarm(0)\nsignal.setitimer(signal.ITIMER_REAL, 0)\nsignal.setitimer(signal.ITIMER_PROF, 0)\n"
        "while True: pass",
        {"time limit"},
    ),
    "sleep_for_ever": ("import time\ntime.sleep(10**6)", {"time limit"}),
    "stop_oneself": ("import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)", {"time limit", "runtime error"}),
    "wait_for_a_lock": ("import threading\nl = threading.Lock()\nl.acquire()\nl.acquire()", {"time limit"}),
    "never_ending_exit_handler": ("import atexit\n@atexit.register\ndef f():\n  while True: pass", {"time limit"}),
    "never_ending_str_of_an_exception": (
        "class E(Exception):\n  def __str__(self):\n    while True: pass\nraise E",
        {"time limit"},
    ),
    "memory_bomb": ("x = [0] * 10**10", {"memory limit"}),
    "growing_memory_bomb": ("x = []\nwhile True: x.append(bytearray(10**7))", {"memory limit"}),
    "string_bomb": ("x = 'a'\nwhile True: x += x", {"memory limit"}),
    "anonymous_mapping_bomb": (
        "import mmap\nx = [mmap.mmap(-1, 2**30) for _ in range(100)]",
        {"runtime error", "memory limit"},
    ),
    "fork_bomb": ("import os\nwhile True: os.fork()", {"runtime error"}),
    "thread_bomb": (
        "import threading, time\nthreading.stack_size(32768)\n"
        "while True: threading.Thread(target=time.sleep, args=(100,), daemon=True).start()",
        {"runtime error", "memory limit", "time limit"},
    ),
    "flood_of_stdout": ("while True: print('x' * 10**6)", {"output limit"}),
    "flood_of_the_raw_descriptor": ("import os\nwhile True: os.write(1, b'x' * 10**6)", {"output limit"}),
    "flood_that_ignores_errors": (
        "import os\nwhile True:\n try: os.write(1, b'x' * 10**6)\n except OSError: pass",
        {"output limit", "time limit"},
    ),
    "hole_in_stdout": ("import os\nos.lseek(1, 10**12, 0)\nos.write(1, b'x')", {"runtime error", "output limit"}),
    "flood_of_stderr": ("import sys\nwhile True: sys.stderr.write('x' * 10**6)", {"time limit"}),
    "flood_of_the_result_channel": (
        "import os\nwhile True:\n for fd in range(3, 64):\n  try: os.write(fd, b'{' * 10**6)\n  except OSError: pass",
        {"runtime error", "time limit"},
    ),
    "unbounded_recursion": ("def f(): f()\nf()", {"runtime error"}),
    "unbounded_recursion_without_limit": (
        "import sys\nsys.setrecursionlimit(10**9)\ndef f(n): return [f(n + 1)]\nf(0)",
        {"runtime error", "memory limit", "time limit"},
    ),
    "unbounded_recursion_in_c": (
        "import sys\nsys.setrecursionlimit(10**9)\nclass A:\n  def __getattr__(s, n): return getattr(s, n + 'x')\n"
        "class B:\n  def __repr__(s): return repr([s])\nrepr(B())",
        {"runtime error", "memory limit", "time limit"},
    ),
    "segmentation_fault": ("import ctypes\nctypes.string_at(0)", {"runtime error"}),
    "abort": ("import os\nos.abort()", {"runtime error"}),
    "gigantic_integer": ("x = 10 ** 10 ** 10", {"time limit", "memory limit"}),
    "print_a_gigantic_integer": ("print(1 << (1 << 22))", {"runtime error"}),
    "print_a_gigantic_integer_without_limit": (
        "import sys\nsys.set_int_max_str_digits(0)\nprint(3 ** (1 << 24))",
        {"time limit"},
    ),
    "catastrophic_regular_expression": ("import re\nre.match(r'(a+)+$', 'a' * 60 + 'b')", {"time limit"}),
    "kill_oneself_by_a_signal_without_a_name": ("import os\nos.kill(os.getpid(), 40)", {"runtime error"}),
    "kill_oneself_by_a_late_signal_without_a_name": ("import os\nos.kill(os.getpid(), 63)", {"runtime error"}),
    "kill_oneself_by_the_cpu_signal": ("import os, signal\nos.kill(os.getpid(), signal.SIGXCPU)", {"time limit"}),
    "kill_oneself_by_an_alarm": ("import signal, time\nsignal.alarm(1)\ntime.sleep(30)", {"runtime error"}),
    "kill_oneself_by_a_small_stack": (
        "import resource\nresource.setrlimit(resource.RLIMIT_STACK, (0, 0))\n"
        "def f(n): return [f(n + 1)]\nimport sys\nsys.setrecursionlimit(10**8)\nf(0)",
        {"runtime error", "memory limit", "time limit"},
    ),
    "end_by_a_system_call_number": (
        "import ctypes\nctypes.CDLL(None).syscall(0x40000000 + 39)\nraise SystemExit(print('x'))",
        {"wrong answer", "runtime error"},
    ),
    "close_the_result_channel": ("import os\nos.closerange(3, 64)\nprint('x')", {"runtime error", "wrong answer"}),
    "replace_the_result_channel": (
        "import os, socket\na, b = socket.socketpair()\n"
        "for fd in range(3, 64):\n  if fd not in (a.fileno(), b.fileno()): os.dup2(a.fileno(), fd)\nprint('x')",
        {"runtime error", "time limit", "wrong answer"},
    ),
    "shut_the_result_channel_down": (
        "import socket\nfor fd in range(3, 64):\n  try: socket.socket(fileno=fd).shutdown(2)\n  except OSError: pass\nprint('x')",
        {"runtime error", "time limit", "wrong answer"},
    ),
    "socket_buffers": (
        "import socket\nkept = []\nwhile True:\n  a, b = socket.socketpair()\n  kept.append((a, b))\n"
        "  for s in (a, b):\n    s.setblocking(False)\n    try:\n      while True: s.send(b'x' * 65536)\n"
        "    except BlockingIOError: pass",
        {"runtime error"},
    ),
    "kill_oneself": ("import os\nos.kill(os.getpid(), 9)", {"runtime error"}),
    "terminate_oneself": ("import os, signal\nos.kill(os.getpid(), signal.SIGTERM)", {"runtime error"}),
    "exit_with_a_status": ("import os\nos._exit(3)", {"runtime error"}),
    "exec_of_nested_parentheses": ("exec('(' * 10**5)", {"runtime error", "memory limit"}),
}

# Functional programs: what they return must not take part in the comparison.
DISHONEST_VALUES = {
    "equal_to_everything": "class E:\n  def __eq__(s, o): return True\n  __hash__ = None\ndef f(a): return E()",
    "list_equal_to_everything": "class E(list):\n  def __eq__(s, o): return True\n  __hash__ = None\ndef f(a): return E([1])",
    "int_equal_to_everything": "class E(int):\n  def __eq__(s, o): return True\n  __hash__ = int.__hash__\ndef f(a): return E(1)",
    "str_equal_to_everything": "class E(str):\n  def __eq__(s, o): return True\n  __hash__ = str.__hash__\ndef f(a): return E('1')",
    "dict_equal_to_everything": "class E(dict):\n  def __eq__(s, o): return True\n  __hash__ = None\ndef f(a): return E(x=1)",
    "pickle_bomb": "import os\nclass E:\n  def __reduce__(s): return (os._exit, (0,))\ndef f(a): return E()",
    "repr_that_exits": "import os\nclass E:\n  def __repr__(s): os._exit(0)\ndef f(a): return E()",
    "repr_that_raises": "class E:\n  def __repr__(s): raise SystemExit(0)\ndef f(a): return E()",
    "repr_that_looks_like_the_answer": "class E:\n  def __repr__(s): return '42'\ndef f(a): return E()",
    "str_of_the_answer": "def f(a): return '42'",
    "class_that_lies_about_its_class": "class E:\n  __class__ = property(lambda s: int)\n  def __eq__(s, o): return True\n  __hash__ = None\ndef f(a): return E()",
    "nested_lies": "class E:\n  def __eq__(s, o): return True\n  __hash__ = None\ndef f(a): return [E()]",
    "exit_inside_of_the_function": "import sys\ndef f(a): sys.exit(0)",
    "os_exit_inside_of_the_function": "import os\ndef f(a): os._exit(0)",
    "os_exit_while_loading": "import os\nos._exit(0)\ndef f(a): return 42",
    "endlessly_nested_list": "def f(a):\n  x = []\n  x.append(x)\n  return x",
    "deeply_nested_list": "def f(a):\n  x = 42\n  for _ in range(10**5): x = [x]\n  return x",
    "not_a_number": "def f(a): return float('nan')",
    "endless_generator": "def f(a):\n  while True: yield 42",
    "fraction_that_takes_minutes": "def f(a):\n  from fractions import Fraction\n  x = Fraction(1)\n  x._numerator = (1 << 4000000) + 1\n  x._denominator = (1 << 4000000) - 1\n  return x",
    "fractions_as_keys": "def f(a):\n  from fractions import Fraction\n  x = Fraction(1)\n  x._numerator = (1 << 4000000) + 1\n  x._denominator = (1 << 4000000) - 1\n  return {x: 1}",
    "dictionary_that_lies_about_its_keys": "class D(dict):\n  def keys(s): return ['x']\n  def __len__(s): return 0\ndef f(a): return D({i * (2**61 - 1): 0 for i in range(500)})",
    "set_of_colliding_numbers": "def f(a): return {i * (2**61 - 1) for i in range(500)}",
    "decimal_of_a_huge_exponent": "from decimal import Decimal\ndef f(a): return Decimal('42e999999999999999')",
    "decimal_of_many_digits": "from decimal import Decimal\ndef f(a): return Decimal('4' * 200000)",
    "signalling_decimal": "from decimal import Decimal\ndef f(a): return Decimal('sNaN')",
    "integer_of_a_million_bits": "def f(a): return 1 << 900000",
    "endless_float": "def f(a): return float('inf')",
    "complex_number": "def f(a): return complex(42, 1)",
    "many_empty_lists": "def f(a): return [[]] * 60000",
    "list_in_which_everything_doubles": "def f(a):\n  x = [1]\n  for _ in range(40): x = [x, x]\n  return x",
    "brackets_in_texts": "def f(a): return [']' * 1000] * 100",
    "long_double": "def f(a):\n  import numpy\n  return numpy.longdouble(42.5)",
    "patched_json": "import json\njson.dumps = lambda *a, **k: '41'\nclass E: pass\ndef f(a): return E()",
}

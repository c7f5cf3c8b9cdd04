"""Beside supervisord and circus, on the same work in one run.

A server from the distribution (python3 -m http.server) is killed 20 times; measured is the time from its death until
the next process of it has begun. Then 100 agents that do nothing: CPU and memory of whoever keeps them.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from house import House, alive, cpu_seconds, memory_kib, quantile, until

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("program")
parser.add_argument("venv", help="where supervisor and circus are installed")
parser.add_argument("--kills", type=int, default=20)
parser.add_argument("--idle", type=int, default=100)
parser.add_argument("--seconds", type=int, default=20, help="how long the idle ones are looked at")
parser.add_argument("--only", help="one of taskdaemon, supervisord, circus")
args = parser.parse_args()
venv = Path(args.venv)


def children(pid):
    texts = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    return [int(child) for text in texts for child in text.split()]


class Ours:
    name = "taskdaemon"

    def __init__(self, command, count):
        self.house = House(args.program)
        until(lambda: self.house.get("/v1/status")[1]["runner"], "the runner is there")
        options = {"probe": {"tcp": f"127.0.0.1:{command[1]}", "interval": "1s"}} if command[1] else {}
        task = {"command": command[0]}
        self.house.add(name="work", instances=count, backoff="1ms", backoff_max="1ms", max_restarts=1000,
                       healthy_after="1ms", task=task, **options)
        until(lambda: len(self.workers()) == count, "they run", 120, 0.1)

    def keepers(self):
        runner = self.house.get("/v1/status")[1]["runner"]["pid"]
        return [self.house.process.pid, runner]

    def workers(self):
        return children(self.keepers()[1])

    def end(self):
        self.house.end()


class Theirs:
    def __init__(self, start, count):
        self.process = start
        until(lambda: len(self.workers()) == count, "they run", 120, 0.1)

    def keepers(self):
        return [self.process.pid]

    def workers(self):
        return children(self.process.pid)

    def end(self):
        # circus forgets a request to end that comes while it starts a process.
        while True:
            self.process.terminate()
            try:
                return self.process.wait(3)
            except subprocess.TimeoutExpired:
                pass


def supervisord(command, count, where):
    config = where / "supervisord.conf"
    quoted = " ".join(command)
    config.write_text(
        f"[supervisord]\nnodaemon=true\nlogfile=/dev/null\nlogfile_maxbytes=0\npidfile={where}/pid\n"
        f"[program:work]\ncommand={quoted}\nprocess_name=%(program_name)s_%(process_num)d\nnumprocs={count}\n"
        "autorestart=true\nstartsecs=0\nstartretries=1000\nstdout_logfile=NONE\nstderr_logfile=NONE\n")
    return subprocess.Popen([venv / "bin/supervisord", "-c", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def circus(command, count, where):
    config = where / "circus.ini"
    program, *arguments = command
    config.write_text(
        f"[circus]\nendpoint=ipc://{where}/c1\npubsub_endpoint=ipc://{where}/c2\nstatsd=false\n"
        f"[watcher:work]\ncmd={program}\nargs={' '.join(arguments)}\nnumprocesses={count}\nmax_retry=-1\nwarmup_delay=0\n")
    return subprocess.Popen([venv / "bin/circusd", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def makers(where):
    yield "taskdaemon", lambda command, port, count: Ours((command, port), count)
    yield "supervisord", lambda command, port, count: Theirs(supervisord(command, count, where), count)
    yield "circus", lambda command, port, count: Theirs(circus(command, count, where), count)


def deaths(keeper):
    times = []
    for _ in range(args.kills):
        until(lambda: len(keeper.workers()) == 1, "one runs", 60, 0.001)
        [pid] = keeper.workers()
        time.sleep(0.3)
        at = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        until(lambda: any(other != pid and alive(other) for other in keeper.workers()), "the next one runs", 60, 0.0005)
        times.append(time.monotonic() - at)
    return times


def costs(keeper):
    """CPU while nothing happens, as a share of a core, and memory in MiB."""
    time.sleep(3)
    before = sum(cpu_seconds(pid) for pid in keeper.keepers())
    time.sleep(args.seconds)
    used = (sum(cpu_seconds(pid) for pid in keeper.keepers()) - before) / args.seconds
    return used, sum(memory_kib(pid) for pid in keeper.keepers()) / 1024


def main():
    where = Path(tempfile.mkdtemp(prefix="keepers-"))
    port = 18461
    try:
        for name, make in makers(where):
            if args.only not in (None, name):
                continue
            keeper = make([sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)], port, 1)
            try:
                times = deaths(keeper)
            finally:
                keeper.end()
            keeper = make(["/bin/sleep", "1000000"], None, args.idle)
            try:
                used, memory = costs(keeper)
            finally:
                keeper.end()
            print(f"{name:12} {args.kills} deaths to the next process: p50 {quantile(times, .5) * 1e3:7.1f} ms, "
                  f"max {max(times) * 1e3:7.1f} ms; {args.idle} idle: {100 * used:.2f} % of a core, {memory:.1f} MiB", flush=True)
    finally:
        shutil.rmtree(where, ignore_errors=True)


main()

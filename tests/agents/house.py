"""A daemon on a directory that is thrown away, and what it is asked, for the programs beside this file."""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path


class Connection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path, timeout=30):
        super().__init__("localhost", timeout=timeout)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class House:
    """Starts, kills and ends a daemon; every process here is one that it started."""

    def __init__(self, program, settings=None):
        self.program = Path(program).resolve()
        self.dir = Path(tempfile.mkdtemp(prefix="agents-"))
        self.settings = settings or {}
        self.process = None
        self.start()

    def start(self):
        environment = dict(os.environ, TASKDAEMON_RUN__USERS="own", **self.settings)
        command = [self.program, "run", "--state-dir", self.dir / "state", "--runtime-dir", self.dir / "run"]
        with open(self.dir / "log", "ab") as log:
            self.process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until(lambda: self.get("/ready")[0] == 200, "the daemon is ready", patience=60)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def ask(self, method, path, body=None, timeout=30):
        connection = Connection(self.dir / "run/api.sock", timeout)
        try:
            headers = {"Content-Type": "application/json"} if body is not None else {}
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            answer = connection.getresponse()
            data = answer.read()
            return answer.status, json.loads(data) if data[:1] in b"{[" else data.decode()
        finally:
            connection.close()

    def get(self, path):
        return self.ask("GET", path)

    def add(self, **agent):
        status, made = self.ask("POST", "/v1/agents", agent)
        if status != 201:
            raise SystemExit(f"cannot add an agent: {status} {made}")
        return made

    def agents(self):
        found, cursor = [], ""
        while True:
            status, page = self.get("/v1/agents?limit=1000" + cursor)
            if status != 200:
                raise OSError(f"{status} {page}")
            found += page["agents"]
            if not page.get("next"):
                return found
            cursor = f"&cursor={page['next']}"

    def end(self):
        """Ends all that was started here: the daemon, its runner, the agents."""
        try:
            runner = self.get("/v1/status")[1]["runner"]["pid"]
        except (OSError, KeyError, TypeError):
            runner = None
        self.process.terminate()
        self.process.wait()
        if runner:
            os.kill(runner, signal.SIGTERM)
            until(lambda: not alive(runner), "the runner has ended", patience=60)
        shutil.rmtree(self.dir, ignore_errors=True)


def alive(pid):
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rsplit(") ", 1)[1][0] != "Z"


def until(holds, what, patience=30.0, pause=0.02):
    end = time.monotonic() + patience
    while True:
        try:
            if holds():
                return
        except OSError:
            pass
        if time.monotonic() > end:
            raise SystemExit(f"FAILED   never: {what}")
        time.sleep(pause)


def quantile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(share * len(values)))] if values else float("nan")


def cpu_seconds(pid):
    """CPU time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_kib(pid):
    """Memory that is the process's alone, and its share of what it has together with others."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    return 0

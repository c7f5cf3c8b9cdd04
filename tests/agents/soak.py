"""Many agents, some of which die all the time, under a daemon that is killed meanwhile.

The judge is what the agents wrote down themselves: each writes a line when it starts. Every death must be followed by
one start of that agent, no agent may start that was not killed, and no two of its processes may live at once.
"""

import argparse
import os
import random
import signal
import sys
import threading
import time
from collections import defaultdict

from house import House, alive, quantile, until

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("program")
parser.add_argument("--agents", type=int, default=1000)
parser.add_argument("--seconds", type=int, default=600)
parser.add_argument("--share", type=float, default=0.1, help="share of the agents that is killed each minute")
parser.add_argument("--daemon-kills", type=int, default=50)
parser.add_argument("--p99", type=float, default=0.25, help="longest 99th percentile of the API's answers, in seconds")
parser.add_argument("--seed", type=int, default=int(time.time()))
args = parser.parse_args()
chance = random.Random(args.seed)
print(f"seed {args.seed}", flush=True)

house = House(args.program)
book = house.dir / "book"
line = f"printf '%s %s %s\\n' \"$TASKDAEMON_AGENT\" $$ $(date +%s.%N) >> {book}; exec sleep 1000000"
begun = time.monotonic()
for number in range(args.agents):
    house.add(name=f"a{number}", max_restarts=1_000_000, backoff="1s", backoff_max="1s", idle_after="1h",
              task={"command": ["sh", "-c", line]})


def starts():
    found = defaultdict(list)
    for text in book.read_text().splitlines():
        name, pid, at = text.split()
        found[name].append((int(pid), float(at)))
    return found


until(lambda: book.exists() and len(starts()) == args.agents, "all agents run", patience=300, pause=1)
print(f"{args.agents} agents run after {time.monotonic() - begun:.1f} s", flush=True)

killed = defaultdict(list)
latencies, failed = [], 0
over = threading.Event()


def asks():
    global failed
    while not over.wait(0.05):
        at = time.monotonic()
        try:
            status, _ = house.get(f"/v1/agents/a{chance.randrange(args.agents)}")
            if status == 200:
                latencies.append(time.monotonic() - at)
        except OSError:
            # Nobody is there while the daemon is down; what it takes then is not the API's time.
            failed += 1


asking = threading.Thread(target=asks)
asking.start()
end = time.monotonic() + args.seconds
pause = 60 / (args.agents * args.share)
daemon_pause = args.seconds / (args.daemon_kills + 1)
next_daemon = time.monotonic() + daemon_pause
daemon_kills = 0
while time.monotonic() < end:
    time.sleep(pause)
    name = f"a{chance.randrange(args.agents)}"
    pid, _ = starts()[name][-1]
    if alive(pid):
        killed[name].append((pid, time.time()))
        os.kill(pid, signal.SIGKILL)
    if time.monotonic() >= next_daemon and daemon_kills < args.daemon_kills:
        house.kill()
        house.start()
        daemon_kills += 1
        next_daemon += daemon_pause
over.set()
asking.join()
deaths = sum(map(len, killed.values()))
until(lambda: sum(map(len, starts().values())) >= args.agents + deaths, "the last ones run again", patience=120, pause=1)
time.sleep(3)

missed, doubled, waits = 0, 0, []
for name, all_starts in starts().items():
    ends = killed[name]
    missed += max(0, len(ends) + 1 - len(all_starts))
    doubled += max(0, len(all_starts) - len(ends) - 1)
    doubled += max(0, sum(alive(pid) for pid, _ in all_starts) - 1)
    for (pid, at), (_, again) in zip(ends, all_starts[1:]):
        waits.append(again - at)
status, says = house.get("/v1/status")
healthy = dict(says["agents"]["phases"]).get("healthy", 0)
restarts = sum(one["restarts"] for agent in house.agents() for one in agent["instances"])
house.end()
print(f"{deaths} deaths, {daemon_kills} kills of the daemon: {missed} missed, {doubled} doubled")
print(f"from death to start: p50 {quantile(waits, .5):.2f} s, p99 {quantile(waits, .99):.2f} s (the rule waits 1 to 1.1 s)")
print(f"API: {len(latencies)} answers, p50 {quantile(latencies, .5) * 1e3:.1f} ms, p99 {quantile(latencies, .99) * 1e3:.1f} ms")
print(f"{healthy} of {args.agents} up at the end, {restarts} restarts told")
good = missed == 0 and doubled == 0 and healthy == args.agents and restarts == deaths
good = good and quantile(latencies, .99) < args.p99
print("passed" if good else f"FAILED   (seed {args.seed})")
sys.exit(0 if good else 1)

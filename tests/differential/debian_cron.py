#!/usr/bin/python3
"""When Debian's cron would start jobs: a second opinion on src/model/schedule/cron.rs.

Written from the rules of Debian's cron (crontab(5), cron(8)) and not from the
Rust code: it does not search for a next time, but lives through a window of
time minute by minute, the way the cron daemon does. The daemon has a clock of
its own that counts local minutes; each real minute it compares it with the
wall and, depending on how far they are apart, runs all jobs, only those with
a `*` in front of minute or hour ("wild"), or makes up for the others.

Reads from standard input a JSON object
    {"windows": [{"zone": NAME, "start": MINUTE, "end": MINUTE}...],
     "expressions": [TEXT...]}
and prints for each expression a line of JSON: for each window the real
minutes after `start` and up to `end` in which a job is started. Minutes count
from 1970 in universal time. Jobs started more than once in a minute are
started once: a task is made once for one nominal time.

Needs Python 3.9 and the tzdata package. With `--croniter` instead, each
expression's first COUNT times after START in universal time are printed as
the croniter module finds them: {"start": MINUTE, "count": N, "expressions": …}.
"""

import datetime
import json
import sys
import zoneinfo

NAMES = [
    {},
    {},
    {},
    {name: 1 + i for i, name in enumerate("jan feb mar apr may jun jul aug sep oct nov dec".split())},
    {name: i for i, name in enumerate("sun mon tue wed thu fri sat".split())},
]
BOUNDS = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 7)]
WORDS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
SHORT = 3 * 60


def value(text, names):
    return names[text.lower()] if text.lower() in names else int(text)


class Job:
    def __init__(self, text):
        fields = WORDS.get(text, text).split()
        assert len(fields) == 5, text
        self.sets = []
        for field, names, (low, high) in zip(fields, NAMES, BOUNDS):
            numbers = set()
            for item in field.split(","):
                item, _, step = item.partition("/")
                if item == "*":
                    first, last = low, high
                else:
                    first, _, last = item.partition("-")
                    first = value(first, names)
                    last = value(last, names) if last else first
                numbers.update(range(first, last + 1, int(step or 1)))
            self.sets.append(numbers)
        if 7 in self.sets[4]:
            self.sets[4].add(0)
        star = [field.startswith("*") for field in fields]
        self.wild = star[0] or star[1]
        self.both_days = star[2] or star[4]

    def is_for(self, local):
        minute, hour, day, month, weekday = local
        if minute not in self.sets[0] or hour not in self.sets[1] or month not in self.sets[3]:
            return False
        of_month, of_week = day in self.sets[2], weekday in self.sets[4]
        return (of_month and of_week) if self.both_days else (of_month or of_week)


def local_minute(zone, minute):
    """The wall's minutes, counted as if the wall were in universal time."""
    at = datetime.datetime.fromtimestamp(minute * 60, zone)
    return minute + int(at.utcoffset().total_seconds() // 60)


def fields(count):
    at = datetime.datetime.fromtimestamp(count * 60, datetime.timezone.utc)
    return at.minute, at.hour, at.day, at.month, at.isoweekday() % 7


def looks(window):
    """What the daemon looks for: (real minute, local minute, wild jobs?, others?)."""
    zone = zoneinfo.ZoneInfo(window["zone"])
    found = []
    own = local_minute(zone, window["start"])
    for real in range(window["start"] + 1, window["end"] + 1):
        wall = local_minute(zone, real)
        ahead = wall - own
        if ahead == 1:
            own = wall
            found.append((real, fields(own), True, True))
        elif 1 < ahead <= 5:
            while own < wall:
                own += 1
                found.append((real, fields(own), True, True))
        elif 5 < ahead <= SHORT:
            found.append((real, fields(wall), True, False))
            while own < wall:
                own += 1
                found.append((real, fields(own), False, True))
        elif -SHORT < ahead <= 0:
            found.append((real, fields(wall), True, False))
        else:
            own = wall
            found.append((real, fields(own), True, True))
    return found


def simulate(question):
    windows = [looks(window) for window in question["windows"]]
    for text in question["expressions"]:
        job = Job(text)
        answer = []
        for window in windows:
            started = {
                real
                for real, local, wild, others in window
                if (wild if job.wild else others) and job.is_for(local)
            }
            answer.append(sorted(started))
        print(json.dumps(answer))


def ask_croniter(question):
    import croniter

    start = datetime.datetime.fromtimestamp(question["start"] * 60, datetime.timezone.utc)
    for text in question["expressions"]:
        times = croniter.croniter(text, start)
        found = []
        for _ in range(question["count"]):
            try:
                found.append(int(times.get_next(float)) // 60)
            except croniter.CroniterBadDateError:
                break
        print(json.dumps(found))


if __name__ == "__main__":
    question = json.load(sys.stdin)
    if sys.argv[1:] == ["--croniter"]:
        ask_croniter(question)
    else:
        simulate(question)

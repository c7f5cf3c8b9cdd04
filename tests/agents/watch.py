"""Watching many at once: agents whose probe takes 1.2 s each, looked at one after the other and by the daemon.

One server on loopback answers for all of them, each time after 1.2 s, and writes down when it was asked for whom. A
round is over when all have been asked once more.
"""

import argparse
import asyncio
import sys
import threading
import time
import urllib.request

from house import House, cpu_seconds, until

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("program")
parser.add_argument("--agents", type=int, nargs="*", default=[50, 1000])
parser.add_argument("--answer", type=float, default=1.2, help="seconds until the answer")
args = parser.parse_args()
asked, sick = {}, set()


async def answer(reader, writer):
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        name = head.split()[1].strip("/")
        asked.setdefault(name, []).append(time.monotonic())
        await asyncio.sleep(args.answer)
        status = "500 No" if name in sick else "200 OK"
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
    except (OSError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()


loop = asyncio.new_event_loop()
server = loop.run_until_complete(asyncio.start_server(answer, "127.0.0.1", 0, backlog=4096))
port = server.sockets[0].getsockname()[1]
threading.Thread(target=loop.run_forever, daemon=True).start()

for count in args.agents:
    names = [f"p{count}-{number}" for number in range(count)]
    few = names[:5]
    begun = time.monotonic()
    for name in few:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/{name}").read()
    one = (time.monotonic() - begun) / len(few)
    sequential = one * count

    house = House(args.program)
    for name in names:
        house.add(name=name, backoff="1ms", task={"command": ["sleep", "1000000"]},
                  probe={"http": f"http://127.0.0.1:{port}/{name}", "interval": "1s", "timeout": "10s", "threshold": 1})
    until(lambda: dict(house.get("/v1/status")[1]["agents"]["phases"]).get("healthy") == count, "all are up", 300, 0.5)
    pid = house.process.pid
    rounds, used = [], cpu_seconds(pid)
    since = time.monotonic()
    for _ in range(3):
        mark = time.monotonic()
        until(lambda: all(asked[name][-1] > mark for name in names), "a round", 300, 0.01)
        rounds.append(time.monotonic() - mark)
    used = (cpu_seconds(pid) - used) / (time.monotonic() - since)
    # Seen to be sick: from then on until its next run has begun.
    sick.add(names[-1])
    mark = time.monotonic()
    until(lambda: house.get(f"/v1/agents/{names[-1]}")[1]["instances"][0]["restarts"] >= 1, "the sick one is noticed", 300)
    noticed = time.monotonic() - mark
    sick.clear()
    house.end()
    rounds.sort()
    print(f"{count} agents, {args.answer} s each: one after the other {sequential:.1f} s a round ({one:.2f} s each, "
          f"{len(few)} measured); the daemon {rounds[1]:.2f} s, {100 * used:.1f} % of a core; "
          f"a sick one noticed after {noticed:.2f} s: {sequential / rounds[1]:.0f} times as fast", flush=True)
sys.exit(0)

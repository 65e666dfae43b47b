"""What leases cost and what they save, in a simulated fleet of 1 to 1,000 workers.

The package's own `reserve` is the server and its own `Leases` are the workers'; the clock, the
network and the traffic are simulated, so the figures are the same on every machine. Each message
takes 0.2 ms and an exponential 0.3 ms more; the workers' clocks are hours apart.

- Over: the most requests beyond `burst + rate * w` that any window of any length `w` holds, by the
  server's clock. It has to be 0, and the exit status is 1 where it is not.
- Under: the share that was refused of what one ideal limiter admits, which all workers ask in no
  time.
- Trips: questions to the server for each request.
"""

from __future__ import annotations

import argparse
import heapq
import random
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

from benchmarks.fleet_charts import Panel, draw
from flask_m9m.ratelimit.gcra import take
from flask_m9m.ratelimit.leases import Leases, Reservation, reserve
from flask_m9m.ratelimit.limit import MICROSECONDS, RateLimit

LEASES = (1, 2, 5, 10, 50, 100)
WORKERS = (1, 4, 16, 64, 256, 1_000)
LIMIT = RateLimit(6_000, 60, 600)
SMALL = RateLimit(600, 60, 60)
HOUR = 3_600 * MICROSECONDS

Arrival = tuple[int, str]
Traffic = Callable[[random.Random, int], list[Arrival]]


@dataclass(frozen=True, slots=True)
class Shape:
    """One kind of traffic.

    Attributes:
        title: what it is called in the table.
        limit: what it is held to.
        arrivals: makes it, of a source of chance and the seconds that it lasts.
        spread: which of so many workers gets the request of this number.
    """

    title: str
    limit: RateLimit
    arrivals: Traffic
    spread: Callable[[random.Random, int, int], int]


class Outcome(NamedTuple):
    """What a fleet did.

    Attributes:
        over: requests beyond the limit in the worst window, by the server's clock when they were
            admitted.
        over_heard: the same, by when the worker knew.
        under: the share of what an ideal limiter admits that was refused.
        trips: questions to the server for each request.
    """

    over: float
    over_heard: float
    under: float
    trips: float


class Fleet:
    """Workers, a server and the network between them.

    Args:
        limit: what all clients are held to.
        workers: how many.
        lease: tokens that a worker takes at once, at most.
        chance: where delays and clocks come from.
        drift: parts per million by which the workers' clocks are slow or fast, at most.
        leases: makes a worker's leases.

    Attributes:
        requests: how many came.
        trips: questions to the server.
        admitted: when each client's requests were admitted, by the server's clock.
        heard: when the worker knew.
    """

    def __init__(
        self,
        limit: RateLimit,
        workers: int,
        lease: int,
        chance: random.Random,
        *,
        drift: int = 0,
        leases: Callable[[], Leases] = Leases,
    ) -> None:
        self._limit = limit
        self._lease = lease
        self._chance = chance
        self._leases = [leases() for _ in range(workers)]
        self._offsets = [chance.randrange(9 * HOUR) for _ in range(workers)]
        self._drifts = [chance.randint(-drift, drift) for _ in range(workers)]
        self._tats: dict[str, int] = {}
        self._messages: list[tuple[int, int, Callable[[int], None]]] = []
        self._sent = 0
        self.requests = 0
        self.trips = 0
        self.admitted: dict[str, list[int]] = defaultdict(list)
        self.heard: dict[str, list[int]] = defaultdict(list)

    def arrive(self, now: int, worker: int, client: str) -> None:
        """Have a request come to a worker, once all messages until then have arrived."""
        self.deliver(now)
        self.requests += 1
        here = now + self._offsets[worker] + now * self._drifts[worker] // 1_000_000
        hit = self._leases[worker].spend(self._limit, client, 1, lambda: here)
        if hit is None:
            self.trips += 1
            most = self._leases[worker].ahead(self._limit, client, self._lease, here)
            self._send(now, partial(self._reserve, worker, client, here, most))
        elif hit.admitted:
            self._admit(client, now, now)

    def deliver(self, until: int | None = None) -> None:
        """Deliver the messages that arrive by then; all of them where no time is given."""
        messages = self._messages
        while messages and (until is None or messages[0][0] <= until):
            now, _, received = heapq.heappop(messages)
            received(now)

    def _send(self, now: int, received: Callable[[int], None]) -> None:
        delay = 200 + int(self._chance.expovariate(1 / 300))
        self._sent += 1
        heapq.heappush(self._messages, (now + delay, self._sent, received))

    def _reserve(self, worker: int, client: str, sent: int, most: int, now: int) -> None:
        answer = reserve(self._limit, self._tats.get(client, 0), now, 1, most)
        self._tats[client] = answer.tat + answer.taken * self._limit.interval
        self._send(now, partial(self._hear, worker, client, sent, answer))

    def _hear(self, worker: int, client: str, sent: int, answer: Reservation, now: int) -> None:
        hit = self._leases[worker].add(self._limit, client, 1, answer, sent)
        if hit.admitted:
            self._admit(client, answer.now, now)

    def _admit(self, client: str, admitted: int, heard: int) -> None:
        self.admitted[client].append(admitted)
        self.heard[client].append(heard)


def excess(limit: RateLimit, times: Iterable[int]) -> float:
    """Return the most requests beyond `burst + rate * w` in any window; 0 where none are.

    A bucket that refuses nobody and goes into debt: its theoretical arrival time is the latest of
    `t[i] + (n - i + 1) * interval`, so the deepest debt is that of the worst window, exactly.
    """
    tat = worst = 0
    for now in sorted(times):
        tat = max(tat, now) + limit.interval
        worst = max(worst, tat - now - limit.tolerance)
    return worst / limit.interval


def ideal(limit: RateLimit, arrivals: Iterable[Arrival]) -> int:
    """Return how many one limiter admits that knows of every request at once."""
    tats: dict[str, int] = {}
    count = 0
    for now, client in arrivals:
        tats[client], hit = take(limit, tats.get(client, 0), now)
        count += hit.admitted
    return count


def simulate(
    shape: Shape,
    workers: int,
    lease: int,
    *,
    seconds: int = 120,
    seed: int = 1,
    drift: int = 0,
    leases: Callable[[], Leases] = Leases,
) -> Outcome:
    """Run one fleet under one kind of traffic, the same traffic for every fleet."""
    arrivals = shape.arrivals(random.Random(seed), seconds)
    chance = random.Random(f"{seed} {workers} {lease}")
    fleet = Fleet(shape.limit, workers, lease, chance, drift=drift, leases=leases)
    for number, (now, client) in enumerate(arrivals):
        fleet.arrive(now, shape.spread(chance, workers, number), client)
    fleet.deliver()
    most = ideal(shape.limit, arrivals)
    return Outcome(
        over=max(excess(shape.limit, times) for times in fleet.admitted.values()),
        over_heard=max(excess(shape.limit, times) for times in fleet.heard.values()),
        under=max(0.0, 1 - sum(map(len, fleet.admitted.values())) / most),
        trips=fleet.trips / fleet.requests,
    )


def at_random(chance: random.Random, begin: float, end: float, rate: float) -> Iterator[int]:
    """Yield the microseconds of requests that know nothing of each other."""
    now = begin + chance.expovariate(rate)
    while now < end:
        yield int(now * MICROSECONDS)
        now += chance.expovariate(rate)


def steady(share: float) -> Traffic:
    """Return the traffic of a client that sends this share of its limit."""
    rate = share * LIMIT.count / LIMIT.period

    def arrivals(chance: random.Random, seconds: int) -> list[Arrival]:
        return [(now, "one") for now in at_random(chance, 0, seconds, rate)]

    return arrivals


def bursts(chance: random.Random, seconds: int) -> list[Arrival]:
    """About a full bucket within a second, then nine of nothing."""
    return [
        (now, "one")
        for begin in range(0, seconds, 10)
        for now in at_random(chance, begin, begin + 1, LIMIT.burst)
    ]


def ambush(chance: random.Random, seconds: int) -> list[Arrival]:
    """A second that leaves leases with many workers, a while of nothing, then five buckets."""
    times: list[int] = []
    for begin in range(0, seconds, 10):
        then = begin + 1 + chance.uniform(0, 6)
        times += at_random(chance, begin, begin + 1, LIMIT.burst / 4)
        times += at_random(chance, then, then + 1, LIMIT.burst * 5)
    return [(now, "one") for now in times]


def crowd(chance: random.Random, seconds: int) -> list[Arrival]:
    """500 clients, the n-th of them with one n-th of the first's requests."""
    clients = [f"client-{number}" for number in range(1, 501)]
    weights = list(accumulate(1 / number for number in range(1, 501)))
    times = list(at_random(chance, 0, seconds, 200))
    return list(zip(times, chance.choices(clients, cum_weights=weights, k=len(times)), strict=True))


def hold_slot(_: random.Random, workers: int, number: int) -> int:
    return number % workers


def any_worker(chance: random.Random, workers: int, _: int) -> int:
    return chance.randrange(workers)


def one_worker(_: random.Random, _workers: int, _number: int) -> int:
    return 0


SHAPES = {
    "flood": Shape("a client at 3 times its limit, in turn", LIMIT, steady(3), hold_slot),
    "below": Shape("a client at 95% of its limit", LIMIT, steady(0.95), any_worker),
    "bursts": Shape("bursts of a full bucket, every 10 s", LIMIT, bursts, any_worker),
    "ambush": Shape("leases left behind, then five buckets", LIMIT, ambush, any_worker),
    "pinned": Shape("95% of its limit, pinned to a worker", LIMIT, steady(0.95), one_worker),
    "crowd": Shape("500 clients, by Zipf", SMALL, crowd, any_worker),
}

DRAWN = ("below", "bursts")

Results = dict[tuple[str, int, int], Outcome]


def table(name: str, results: Results, workers: Sequence[int], leases: Sequence[int]) -> str:
    """Write what came of one kind of traffic: a row for each size of fleet."""
    shape, limit = SHAPES[name], SHAPES[name].limit
    lines = [
        f"{name}: {shape.title}; {limit.count}/{limit.period} s, burst {limit.burst}",
        f"| workers | {' | '.join(f'lease {lease}' for lease in leases)} |",
        f"|--:{'|--:' * len(leases)}|",
    ]
    for count in workers:
        cells = [results[name, count, lease] for lease in leases]
        texts = [f"{cell.under:.1%} · {cell.trips:.2f}" for cell in cells]
        lines.append(f"| {count:,} | {' | '.join(texts)} |")
    return "\n".join(lines)


def chart(results: Results, workers: Sequence[int], leases: Sequence[int]) -> str:
    """Draw what the two kinds of traffic in `DRAWN` pay and save."""
    panels = []
    for name in DRAWN:
        for measured, figure, top, form in (
            ("share refused needlessly", "under", 0.08, "{:.0%}"),
            ("round trips per request", "trips", 1.0, "{:.2f}"),
        ):
            lines = {
                f"{count:,}": [getattr(results[name, count, lease], figure) for lease in leases]
                for count in workers
            }
            panels.append(Panel(SHAPES[name].title, measured, leases, lines, top, form))
    return draw(panels, "tokens in a lease, at most", "workers")


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="fewer fleets for a shorter time")
    add("--shape", choices=SHAPES, nargs="+", default=list(SHAPES))
    add("--workers", type=int, nargs="+", help="sizes of fleets")
    add("--lease", type=int, nargs="+", help="sizes of leases")
    add("--seed", type=int, default=1)
    add("--drift", type=int, default=0, help="of the workers' clocks, parts per million")
    add("--chart", type=Path, metavar="FILE", help="an SVG to write")
    options = parser.parse_args()
    if options.chart and not set(DRAWN) <= set(options.shape):
        parser.error(f"--chart needs the shapes {' and '.join(DRAWN)}")
    every = 2 if options.quick else 1
    options.seconds = 21 if options.quick else 120
    options.workers = options.workers or WORKERS[::every]
    options.lease = options.lease or LEASES[::every]
    return options


def main() -> int:
    options = read_options()
    results: Results = {}
    print("requests refused needlessly · round trips per request\n")
    for name in options.shape:
        for count in options.workers:
            for lease in options.lease:
                results[name, count, lease] = simulate(
                    SHAPES[name],
                    count,
                    lease,
                    seconds=options.seconds,
                    seed=options.seed,
                    drift=options.drift,
                )
        print(table(name, results, options.workers, options.lease) + "\n", flush=True)
    if options.chart:
        options.chart.write_text(chart(results, options.workers, options.lease))

    over = max(outcome.over for outcome in results.values())
    heard = max(outcome.over_heard for outcome in results.values())
    print(f"most requests over the limit in any window: {over:g}")
    print(f"the same, counted when the worker has the answer: {heard:.2f}")
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())

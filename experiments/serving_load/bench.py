"""The servers of one model, measured in turn."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.serving_load import client, report, servers, traffic
from jaxml import reports

_ENDLESS = 10**9


class Plan(NamedTuple):
    """What is measured.

    Attributes:
        seconds: of a measurement.
        repeats: of each kind.
        clients: numbers of clients of the closed loop, ascending; the last one gives the capacity.
        shares: of that capacity, loads of the open loop.
    """

    seconds: float
    repeats: int
    clients: Sequence[int] = (1, 4, 16, 64)
    shares: Sequence[float] = (0.1, 0.25, 0.5, 0.75, 0.9, 0.95)


class Bench:
    """Sends loads to the endpoints of a model, and keeps a row for each; `rows` has them.

    Args:
        model: its name.
        made: the requests.
        started: server of each endpoint.
        plan: what is measured.
    """

    def __init__(
        self,
        model: str,
        made: traffic.Traffic,
        started: Mapping[str, servers.Server],
        plan: Plan,
    ) -> None:
        self.model, self.made, self.started, self.plan = model, made, started, plan
        self.rows: list[dict[str, Any]] = []

    def closed(self) -> None:
        """Measures every number of clients, and once more with requests in binary form."""
        most = self.plan.clients[-1]
        kinds = [(name, clients) for clients in self.plan.clients for name in self.started]
        kinds.append((traffic.BINARY, most))
        for name in self.made.requests:  # Buffers grow and caches fill.
            self._answers(name, clients=most)
        for repeat in range(self.plan.repeats):
            for name, clients in reports.progress(kinds, f"{self.model}: measurement"):
                self._keep(
                    name, self._answers(name, clients=clients), "closed", repeat, clients=clients
                )

    def opened(self, seed: int) -> None:
        """Measures shares of the capacity, the plain endpoint also at the loads of the other one."""
        most = self.plan.clients[-1]
        capacity = {
            name: report.throughput(self.rows, self.model, name, most) for name in self.started
        }
        loads: list[tuple[str, float | None, float]] = [
            (name, share, share * capacity[name])
            for share in self.plan.shares
            for name in self.started
        ]
        # Above capacity a queue only grows.
        same = [share * capacity[traffic.BATCHED] for share in self.plan.shares]
        limit = self.plan.shares[-1] * capacity[traffic.PLAIN]
        loads += [(traffic.PLAIN, None, load) for load in same if load < limit]
        loads = [(name, share, float(f"{load:.3g}")) for name, share, load in loads]
        for repeat in range(self.plan.repeats):
            for name, share, load in reports.progress(loads, f"{self.model}: load"):
                moments = arrivals(load, self.plan.seconds, seed + repeat)
                answers = self._answers(name, clients=most, arrivals=moments)
                self._keep(name, answers, "open", repeat, share=share, load=load)

    def long(self, number: int) -> None:
        """Compares many answers while it watches the memory of the server."""
        clients = self.plan.clients[-1]
        with servers.memory(self.started[traffic.BATCHED]) as read:
            answers = self._answers(traffic.BATCHED, clients=clients, number=number, seconds=3600.0)
        tenths = [float(np.mean(part)) for part in np.array_split(read, 10)]
        self._keep(traffic.BATCHED, answers, "long", 0, clients=clients, resident_bytes=tenths)

    def _answers(self, name: str, **what: Any) -> list[client.Answer]:
        usual = {"number": _ENDLESS, "seconds": self.plan.seconds, "arrivals": None}
        server = self.started[traffic.BATCHED if name == traffic.BINARY else name]
        return client.send(
            client.Load(port=server.port, requests=self.made.requests[name], **usual | what)
        )

    def _keep(
        self, name: str, answers: Sequence[client.Answer], loop: str, repeat: int, **about: Any
    ) -> None:
        fine = [each for each in answers if each.status == 200]
        took = [each.seconds for each in fine] or [np.nan]
        p50, p99 = 1e3 * np.quantile(took, [0.5, 0.99])
        differences = traffic.differences(self.made, fine)
        end = max((each.arrived + each.seconds for each in answers), default=np.nan)
        self.rows.append(
            {
                "model": self.model,
                "endpoint": name,
                "loop": loop,
                "repeat": repeat,
                **about,
                "answers": len(fine),
                "refused": len(answers) - len(fine),
                "wrong": int((differences > self.made.tolerance).sum()),
                "difference": float(differences.max(initial=0.0)),
                "per_second": len(fine) / end,
                "p50_ms": float(p50),
                "p99_ms": float(p99),
            }
        )


def arrivals(load: float, seconds: float, seed: int) -> list[float]:
    """Returns moments of a Poisson process of `load` a second, ascending and below `seconds`."""
    gaps = np.random.default_rng(seed).exponential(1 / load, int(2 * load * seconds) + 100)
    moments = np.cumsum(gaps)
    return moments[moments < seconds].tolist() or [0.0]

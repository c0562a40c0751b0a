"""Time of switching the task on a resident model with as many adapted layers as the real ones have.

python benchmarks/routing.py [--rounds 2000]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from report import publish

from healthgpt.config import folder_sources
from healthgpt.hlora import TaskLinear
from healthgpt.loading import load_model
from healthgpt.random_model import RandomShape, write_random_model

# Decoder layers of four linears each that give the number of adapted layers of M3, L14 and XL32.
SIZES = {"M3": 32, "L14": 40, "XL32": 112}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2000)
    flags = parser.parse_args()
    rows = []
    for name, layers in SIZES.items():
        with tempfile.TemporaryDirectory() as folder:
            write_random_model(Path(folder), RandomShape(layers=layers))
            network = load_model(folder_sources(Path(folder))).network
        times = []
        for i in range(flags.rounds):
            task = network.tasks[i % 2]
            start = time.perf_counter()
            network.route(task)
            times.append(time.perf_counter() - start)
        adapted = sum(isinstance(layer, TaskLinear) for layer in network.modules())
        rows.append({"as": name, "adapted layers": adapted, "switch µs": 1e6 * statistics.median(times)})
    publish("routing", rows, rounds=flags.rounds)


if __name__ == "__main__":
    main()

"""How long the shipped model takes and how much memory, on this machine: python benchmarks/nano.py

Each figure is of a fresh process; the demo is timed as a user meets it, set-up done.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from report import publish

ROOT = Path(__file__).parents[1]
_CODE = """
import json, resource, time
started = time.perf_counter()
from healthgpt import HealthGPT
from healthgpt.cli.inference import EXAMPLES
from healthgpt.tasks import Task
model = HealthGPT.from_pretrained("nano")
loaded = time.perf_counter()
asked, drawn = EXAMPLES[Task.COMPREHENSION], EXAMPLES[Task.GENERATION]
model.answer(asked.question, asked.image)
answered = time.perf_counter()
model.draw(drawn.question, drawn.image)
done = time.perf_counter()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(json.dumps([loaded - started, answered - loaded, done - answered, peak]))
"""
# From the goals of the miniature: seconds, and GiB.
LIMITS = {"imports and load": 4.0, "first answer": 2.0, "first image": 3.0, "peak memory": 1.5, "com_infer.sh": 12.0}


def main() -> None:
    done = subprocess.run([sys.executable, "-c", _CODE], capture_output=True, text=True, check=True, cwd=ROOT)
    figures = dict(zip(LIMITS, json.loads(done.stdout.splitlines()[-1]), strict=False))
    subprocess.run(["bash", "scripts/setup.sh"], check=True, cwd=ROOT)
    started = time.perf_counter()
    subprocess.run(["bash", "demo/com_infer.sh"], check=True, cwd=ROOT, capture_output=True)
    figures["com_infer.sh"] = time.perf_counter() - started
    rows = [
        {"figure": name, "value": figures[name], "limit": limit, "unit": "GiB" if "memory" in name else "s"}
        for name, limit in LIMITS.items()
    ]
    publish("nano_speed", rows)


if __name__ == "__main__":
    main()

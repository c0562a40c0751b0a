"""Peak resident memory and time of loading a random model folder of Phi-3's shape, 1 GB or more.

    python benchmarks/loading.py [--gigabytes 2.0]

Each row is a process of its own: "load" reads the folder, "use" also answers once, which touches every weight.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from report import publish

from healthgpt import HealthGPT, Task
from healthgpt.random_model import RandomShape, write_random_model

LAYER_BYTES = 2 * (1536 * 3 * 1536 + 1536 * 1536 + 1536 * 8192 + 4096 * 1536)  # bfloat16, of the shape below


def child(folder: str, what: str, dtype: str) -> None:
    """Runs in a process of its own and prints its figures."""
    imported = _peak()
    start = time.perf_counter()
    model = HealthGPT.from_pretrained(folder, device="cpu", dtype=dtype)
    seconds = time.perf_counter() - start
    if what == "use":
        model.answer("What is it?", max_new_tokens=1)
        model.draw("Draw.", max_new_tokens=1)
    print(json.dumps({"seconds": seconds, "imports": imported, "peak": _peak()}))


def _peak() -> int:
    """Peak resident bytes of this process, memory-mapped file pages included."""
    status = Path("/proc/self/status")
    if status.exists():  # unlike getrusage, it does not begin with the parent's peak
        return 1024 * int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1])  # type: ignore[index]
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=2.0, help="size of the base's weights")
    parser.add_argument("--child", nargs=3, metavar=("FOLDER", "WHAT", "DTYPE"), help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.child:
        child(*flags.child)
        return
    layers = max(1, round((flags.gigabytes * 1e9 - 2 * 2 * 32064 * 1536) / LAYER_BYTES))
    shape = RandomShape(
        width=1536,
        layers=layers,
        heads=16,
        kv_heads=16,
        mlp=4096,
        vocabulary=32064,
        ranks=((Task.COMPREHENSION, 64), (Task.GENERATION, 256)),
        dtype=torch.bfloat16,
    )
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        write_random_model(Path(folder), shape)
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
        for what, dtype in (("load", "auto"), ("use", "auto"), ("use", "FP16")):
            command = [sys.executable, __file__, "--child", folder, what, dtype]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            figures = json.loads(done.stdout.splitlines()[-1])
            rows.append(
                {
                    "what": what,
                    "dtype": dtype,
                    "folder MB": round(size / 1e6),
                    "load s": figures["seconds"],
                    "imports alone MB": round(figures["imports"] / 1e6),
                    "peak MB": round(figures["peak"] / 1e6),
                    "peak / folder": figures["peak"] / size,
                }
            )
    publish("loading", rows, layers=layers, width=1536)


if __name__ == "__main__":
    main()

"""Whole commands from a cold process: an answer by demo/com_infer.py on a tiny model, and `import healthgpt` alone.

python benchmarks/startup.py [--rounds 5]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

from report import publish

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden" / "m3"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    flags = parser.parse_args()
    answer = [str(ROOT / "demo" / "com_infer.py"), "--model_name_or_path", str(GOLDEN / "base")]
    answer += ["--vit_path", str(GOLDEN / "vit"), "--hlora_path", str(GOLDEN / "com_hlora_weights.bin")]
    answer += ["--question", "What is it?", "--img_path", str(GOLDEN / "image_0.png"), "--max_new_tokens", "24"]
    commands = {
        "python": ["-c", "pass"],
        "import healthgpt": ["-c", "import healthgpt"],
        "import torch, transformers": ["-c", "import torch, transformers"],
        "demo/com_infer.py": answer,
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for round_number in range(flags.rounds + 1):  # one round of warm-up
        for name, arguments in commands.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, capture_output=True, cwd=ROOT)
            if round_number:
                seconds[name].append(time.perf_counter() - start)
    rows = [
        {"command": name, "median s": statistics.median(times), "slowest s": max(times)}
        for name, times in seconds.items()
    ]
    publish("startup", rows, rounds=flags.rounds)


if __name__ == "__main__":
    main()

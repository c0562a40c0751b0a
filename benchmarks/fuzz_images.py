"""Damaged medical files: each gives a picture or one line that says what is wrong, soon and in little memory.

    python benchmarks/fuzz_images.py --count 2000 --seed 0

Files of every format are mutated (bits flipped, cut short, numbers of the header made absurd) and read in a process of
their own share; a file that crashes its process, takes longer than the limit or more memory, or gives a blank picture
where the intact file does not, is a failure. Writes `benchmarks/results/fuzz_images.json`, exits 1 on any failure.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import resource
import tempfile
import time
from collections import Counter
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK as sitk  # noqa: N813
from PIL import Image

from healthgpt.images import View, see

RESULTS = Path(__file__).parent / "results" / "fuzz_images.json"
SECONDS, BYTES = 5.0, 2**30


def originals(folder: Path) -> dict[str, bytes]:
    """An intact file of every format; the DICOM ones are those that pydicom installs."""
    import pydicom.data

    rng = np.random.default_rng(0)
    values = rng.integers(-1000, 1000, (6, 40, 48)).astype(np.int16)
    found = {}
    for name in ("CT_small.dcm", "MR_small.dcm", "examples_palette.dcm", "JPEG2000.dcm", "MR_small_RLE.dcm",
                 "SC_rgb_small_odd.dcm", "examples_ybr_color.dcm", "693_J2KR.dcm"):  # fmt: skip
        path = Path(pydicom.data.__file__).parent / "test_files" / name
        if path.exists():
            found[name] = path.read_bytes()
    volume = nibabel.Nifti1Image(values.transpose(2, 1, 0), np.diag([1.0, 1.0, 3.0, 1.0]))
    for ending in ("nii", "nii.gz"):
        nibabel.save(volume, folder / f"v.{ending}")
        found[f"volume.{ending}"] = (folder / f"v.{ending}").read_bytes()
    for ending in ("mha", "nrrd"):
        sitk.WriteImage(sitk.GetImageFromArray(values), folder / f"v.{ending}", useCompression=True)
        found[f"volume.{ending}"] = (folder / f"v.{ending}").read_bytes()
    picture = Image.fromarray(rng.integers(0, 255, (40, 48, 3)).astype(np.uint8))
    for kind in ("PNG", "TIFF", "JPEG"):
        data = io.BytesIO()
        picture.save(data, format=kind)
        found[f"picture.{kind.lower()}"] = data.getvalue()
    return found


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """Bits flipped, cut short, or a header's number made absurd; mostly near the beginning, where headers are."""
    kind = int(rng.integers(4))
    changed = bytearray(data)
    if kind == 0:
        return bytes(changed[: int(rng.integers(len(data)))])
    reach = len(data) if kind == 1 else min(len(data), 1500)
    for _ in range(int(rng.integers(1, 9))):
        place = int(rng.integers(reach))
        if kind == 3:
            changed[place : place + 4] = rng.choice(
                [b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff", b"\0\0\0\0", b"\0\0\0\x80"]
            )
        else:
            changed[place] ^= 1 << int(rng.integers(8))
    return bytes(changed[: len(data)])


def attempt(data: bytes) -> str:
    """What came of a file: picture, refused, or the kind of failure."""
    try:
        seen = see(data, View.of(slice="0"))
    except (ValueError, FileNotFoundError) as error:
        return "refused" if "\n" not in str(error) and len(str(error)) < 500 else f"no single line: {str(error)[:80]!r}"
    except Exception as error:
        return f"traceback: {type(error).__name__} {str(error)[:80]!r}"
    return "blank picture" if seen[0].pixels.size > 3 and np.ptp(seen[0].pixels) == 0 else "picture"


def work(connection: multiprocessing.connection.Connection) -> None:
    """Reads files until there are no more; more memory than allowed is an error of its own."""
    import warnings

    warnings.simplefilter("ignore")
    attempt(b"")  # imports
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + BYTES, used + BYTES))
    while data := connection.recv():
        connection.send(attempt(data))


class Worker:
    """A process that reads files, replaced when it dies or hangs."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        self._connection, other = multiprocessing.Pipe()
        self._process = multiprocessing.get_context("spawn").Process(target=work, args=(other,), daemon=True)
        self._process.start()
        other.close()

    def stop(self) -> None:
        self._connection.send(b"")
        self._process.join()

    def read(self, data: bytes) -> tuple[str, float]:
        start = time.perf_counter()
        self._connection.send(data)
        try:
            if self._connection.poll(60):
                outcome = self._connection.recv()
                seconds = time.perf_counter() - start
                return (outcome if seconds <= SECONDS else f"{seconds:.1f} s"), seconds
            outcome = "hung"
        except EOFError:
            outcome = "crashed its process"
        self._process.kill()
        self._start()
        return outcome, time.perf_counter() - start


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = originals(Path(folder))
    worker = Worker()
    worker.read(next(iter(files.values())))  # imports take longer than a file may
    outcomes: Counter[str] = Counter()
    failures, slowest = [], 0.0
    for i in range(flags.count):
        rng = np.random.default_rng([flags.seed, i])
        name = list(files)[i % len(files)]
        outcome, seconds = worker.read(mutated(files[name], rng))
        slowest = max(slowest, seconds)
        outcomes[outcome if outcome in ("picture", "refused") else "failed"] += 1
        if outcome not in ("picture", "refused"):
            failures.append({"number": i, "file": name, "outcome": outcome})
            print(failures[-1], flush=True)
    worker.stop()
    result = {"count": flags.count, "seed": flags.seed, "outcomes": outcomes, "slowest_seconds": round(slowest, 3),
              "failures": failures}  # fmt: skip
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({key: value for key, value in result.items() if key != "failures"}))
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())

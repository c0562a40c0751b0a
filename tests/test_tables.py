"""Tables of figures: goals and what was reached, ablations and the paper's; pages that quote them are up to date."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from healthgpt.nano.__main__ import main
from healthgpt.nano.ablations import COMPARISONS, ablations_table, read_records, scores, summary
from healthgpt.nano.goals import GOALS, goals_table

ROOT = Path(__file__).parents[1]


def figure(value, n=500):
    return {"value": value, "n": n, "low": None, "high": None}


def figures(value=1.0):
    """An evaluation in which every figure is the same, but for those that say what doing nothing gives."""
    names = ("modality", "organ", "plane", "normal", "lesion", "finding", "side", "size", "count")
    found = {f"{group}/right": value for group in ("all", "open", "close", *(f"kind={name}" for name in names))}
    for kind in ("ct2mri", "mri2ct", "reconstruction"):
        for column in ("ssim", "ssim_share", "ssim_ceiling", "lesions_kept", "healthy_kept"):
            found[f"kind={kind}/{column}"] = value
        found[f"kind={kind}/ssim_copied"] = 0.1
    found |= {"kind=super-resolution/psnr": 25.0, "kind=super-resolution/psnr_bicubic": 21.0}
    found |= {"kind=super-resolution/ssim_share": value, "kind=report-to-cxr/findings": value}
    return {name: figure(number) for name, number in found.items()}


def test_every_goal_has_a_line_and_a_missed_one_says_so():
    perfect = goals_table(figures())
    assert len(perfect.splitlines()) == len(GOALS) + 2
    assert "missed" not in perfect
    assert "| ≥ +1.5 dB | +4.0 dB | 500 | 25.0 against 21.0 dB |" in perfect
    weak = figures() | {"kind=side/right": figure(0.91, 321)}
    lines = [line for line in goals_table(weak).splitlines() if "missed" in line]
    assert lines == ["| each kind of question | ≥ 93.0 % | **missed** 91.0 % | 321 | lowest: side |"]
    assert goals_table(figures(0.5)).count("missed") == len(GOALS) - 2  # still better than copying and than bicubic


def write_run(folder: Path, value: float, steps: int = 10) -> Path:
    (folder / "stage3_generation").mkdir(parents=True)
    facts = {"steps": steps, "losses": {"final_loss": 0.5}}
    (folder / "stage3_generation" / "run.json").write_text(json.dumps(facts))
    (folder / "stage3_generation" / "metrics.jsonl").write_text(
        json.dumps({"step": steps, "train_runtime": 4.0}) + "\n"
    )
    (folder / "evaluation/phantoms").mkdir(parents=True)
    content = {"figures": figures(value), "split": "validation, seed 0"}
    (folder / "evaluation/phantoms/results.json").write_text(json.dumps(content))
    return folder


def test_a_run_is_recorded_and_seeds_are_put_together(tmp_path):
    records = tmp_path / "records"
    for name, value in (("hlora-0", 0.8), ("hlora-1", 0.9), ("mixed-0", 0.4)):
        run = write_run(tmp_path / name, value)
        assert main(["record", "--data", str(run), "--output", str(records)]) == 0
    found = read_records(records)
    assert {name: len(runs) for name, runs in found.items()} == {"hlora": 2, "mixed": 1}
    record = found["hlora"][0]
    assert record["training"]["stage3_generation"] == {"steps": 10, "seconds_per_step": 0.4, "final_loss": 0.5}
    assert record["figures"]["kind=side/right"] == {"value": 0.8, "n": 500}
    assert "kind=ct2mri/ssim_copied" not in record["figures"]
    assert scores(record) == pytest.approx({"understanding": 80, "drawing": 80})
    assert summary(found["hlora"])["drawing"] == pytest.approx((85, 5))
    table = ablations_table(found)
    assert "| one mixed stage | 40.0 ± 0.0 | 40.0 ± 0.0 | 39.5 | 58.9 |" in table
    assert "| LoRA | not run | not run | 51.1 | 62.9 |" in table
    assert table.count("85.0 ± 5.0 | 85.0 ± 5.0") == len(COMPARISONS)


def test_without_records_the_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no records of runs"):
        read_records(tmp_path)
    assert main(["record", "--data", str(tmp_path / "none"), "--output", str(tmp_path)]) == 2


def test_pages_quote_the_figures_that_were_measured():
    command = [sys.executable, str(ROOT / "scripts" / "update_tables.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

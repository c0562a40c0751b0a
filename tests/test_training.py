"""The stages: what trains and what does not, the same curve however it is run, kill and resume, bad input."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import GOLDEN
from PIL import Image
from safetensors.torch import load_file

from healthgpt import HealthGPT, Task
from healthgpt.checkpoints import read_plugin
from healthgpt.cli import main
from healthgpt.config import PluginSource
from healthgpt.conversion import export_released
from healthgpt.training.config import TrainConfig, parse_overrides, read_train_config
from healthgpt.training.dry_run import memory
from healthgpt.training.feedback import read_metrics
from healthgpt.training.stages import STAGES
from healthgpt.training.step import summed_cross_entropy
from healthgpt.training.trainer import checkpoints_of

ROOT = Path(__file__).parents[1]
STEPS = 8


def write_data(folder: Path) -> None:
    """Images whose bright quarter is asked for, and is to be drawn again."""
    rng = np.random.default_rng(0)
    questions, drawings = [], []
    for i in range(24):
        pixels = rng.integers(0, 20, (48, 64), dtype=np.uint8)
        quarter = i % 4
        pixels[:, 16 * quarter : 16 * quarter + 16] += 200
        Image.fromarray(pixels).save(folder / f"{i}.png")
        answer = ("far left", "left", "right", "far right")[quarter]
        ask = {"from": "human", "value": "<image>\nWhere is it bright?"}
        questions.append({"id": f"c{i}", "image": f"{i}.png", "conversations": [ask, {"from": "gpt", "value": answer}]})
        ask = {"from": "human", "value": "<image>\nReconstruct the image."}
        conversation = {"id": f"g{i}", "image": f"{i}.png", "conversations": [ask, {"from": "gpt", "value": ""}]}
        drawings.append({**conversation, "task": "generation", "target_image": f"{i}.png"})
    for name, records in (("comprehension", questions), ("generation", drawings)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    both = {"seed": 1, "sources": [{"path": f"{name}.jsonl", "count": 16} for name in ("comprehension", "generation")]}
    (folder / "both.yaml").write_text(yaml.safe_dump(both))


@pytest.fixture(scope="module")
def workplace(tmp_path_factory, random_folder):
    """A folder with a tiny backbone, data, cached codes and a base configuration."""
    folder = tmp_path_factory.mktemp("training")
    for part in ("base", "vit", "vqgan"):
        shutil.copytree(random_folder / part, folder / part)
    write_data(folder)
    codes = ["--data", folder / "generation.jsonl", "--vqgan_path", folder / "vqgan", "--output", folder / "codes"]
    assert main(["prepare", "vq-indices", *map(str, codes), "--device", "cpu"]) == 0
    settings = {
        "base": str(folder / "base"),
        "vit": str(folder / "vit"),
        "vqgan": str(folder / "vqgan"),
        "vq_indices": str(folder / "codes"),
        "num_image_tokens": 64,
        "comprehension_rank": 8,
        "generation_rank": 16,
        "global_batch_size": 8,
        "per_device_batch_size": 4,
        "learning_rate": 3e-3,
        "projector_learning_rate": 3e-3,
        "lr_scheduler": "constant",
        "warmup_ratio": 0.0,
        "max_steps": STEPS,
        "save_steps": 3,
        "logging_steps": 1,
        "num_workers": 0,
        "device": "cpu",
        "report_to": "none",
    }
    for stage in STAGES:
        data = stage.partition("_")[2] if stage.partition("_")[2] in set(Task) else "both"
        data_file = folder / ("both.yaml" if data == "both" else f"{data}.jsonl")
        (folder / f"{stage}.yaml").write_text(yaml.safe_dump({**settings, "stage": stage, "data": str(data_file)}))
    return folder


def run(workplace: Path, stage: str, root: Path, *flags: object) -> int:
    arguments = ["train", "--config", workplace / f"{stage}.yaml", "--output_root", root, *flags]
    return main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def chain(workplace):
    """All five runs, one after the other."""
    root = workplace / "chain"
    for stage in STAGES:
        if stage != "mixed":
            assert run(workplace, stage, root) == 0
    return root


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in read_metrics(folder) if "loss" in line]


def test_every_run_lowers_its_loss(chain):
    """In eight steps on random weights, by a factor that depends on how much each stage can change."""
    least = {
        "stage1_comprehension": 0.99,
        "stage1_generation": 0.95,
        "stage2_fusion": 0.9,
        "stage3_comprehension": 0.97,
    }
    for stage in STAGES:
        if stage != "mixed":
            curve = losses(chain / stage)
            assert len(curve) == STEPS
            assert np.mean(curve[-2:]) < least.get(stage, 0.995) * np.mean(curve[:2]), stage


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {f"{path.parent.name}/{path.stem}/{key}": tensor for path in folder.rglob("*.safetensors")
            for key, tensor in load_file(path).items()}  # fmt: skip


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    return {key for key in before if not torch.equal(before[key], after[key])}


def test_exactly_the_intended_tensors_change(chain, workplace):
    """Tensor by tensor, against what each stage began with, to the last bit."""
    first = {stage: tensors(chain / stage / "final") for stage in STAGES if stage != "mixed"}
    fresh = workplace / "fresh"  # the same runs stopped before their first step, by a learning rate of nothing
    still = ["--learning_rate", 0.0, "--projector_learning_rate", 0.0, "--max_steps", 1]
    for stage in ("stage1_comprehension", "stage1_generation"):
        assert run(workplace, stage, fresh, *still) == 0
    begun = {stage: tensors(fresh / stage / "final") for stage in ("stage1_comprehension", "stage1_generation")}

    aligned = changed(begun["stage1_comprehension"], first["stage1_comprehension"])
    assert aligned == {key for key in first["stage1_comprehension"] if "/projector/" in key}

    drawn = changed(begun["stage1_generation"], first["stage1_generation"])
    # B and A and the router: A and the router have no gradient in the very first step (B is zero), but later ones.
    assert drawn == set(first["stage1_generation"])
    start = json.loads((chain / "model" / "config.json").read_text())["num_image_tokens"] + 3
    for name in ("embed_tokens.weight", "lm_head.weight"):
        key = f"final/fusion/{name}"
        before, after = begun["stage1_generation"][key], first["stage1_generation"][key]
        assert torch.equal(before[:-start], after[:-start])  # old rows not by one bit
        assert not torch.equal(before[-start:], after[-start:])

    assert set(first["stage2_fusion"]) == {"final/fusion/embed_tokens.weight", "final/fusion/lm_head.weight"}
    fused = changed(first["stage1_generation"], {**first["stage1_generation"], **first["stage2_fusion"]})
    assert fused == set(first["stage2_fusion"])

    for task in Task:
        before, after = first[f"stage1_{task}"], first[f"stage3_{task}"]
        assert set(after) == {key for key in before if "/fusion/" not in key}
        assert changed({key: before[key] for key in after}, after) == set(after)


def test_the_backbone_is_never_written(chain, workplace, random_folder):
    for name in ("base/model.safetensors", "vit/model.safetensors", "vqgan/last.ckpt"):
        assert (workplace / name).read_bytes() == (random_folder / name).read_bytes()


def test_checkpoints_hold_only_what_is_trained(chain):
    for stage, marks in (("stage1_comprehension", ("projector",)), ("stage2_fusion", ("embed_tokens", "lm_head"))):
        newest = checkpoints_of(chain / stage)[-1]
        names = load_file(newest / "trained.safetensors")
        assert names
        assert all(any(mark in name for mark in marks) for name in names)
        assert len(checkpoints_of(chain / stage)) == 2  # save_total_limit
        assert not (chain / stage / ".partial").exists()


def test_the_result_answers_and_draws(chain, workplace, tmp_path):
    model = HealthGPT.from_pretrained(chain / "model")
    assert model.tasks == (Task.COMPREHENSION, Task.GENERATION)
    assert isinstance(model.answer("Where is it bright?", workplace / "0.png", max_new_tokens=4), str)
    assert model.draw("Reconstruct the image.", workplace / "0.png").size == (64, 64)
    # and goes out in the release's layout, under the original's keys
    files = export_released(chain / "model", tmp_path / "released")
    keys = {path.name: set(torch.load(path, weights_only=True)) for path in files}
    for name, known in (("com_hlora_weights.bin", "com_keys.json"), ("gen_hlora_weights.bin", "gen_keys.json")):
        assert keys[name] == set(json.loads((GOLDEN / "m3" / known).read_text()))  # both have three layers
    assert keys["fusion_layer_weights.bin"] == set(json.loads((GOLDEN / "m3" / "fusion_keys.json").read_text()))


def test_feedback_is_left(chain):
    folder = chain / "stage3_generation"
    facts = json.loads((folder / "run.json").read_text())
    assert facts["steps"] == STEPS
    assert facts["config"]["stage"] == "stage3_generation"
    assert facts["losses"]["final_loss"] == losses(folder)[-1]
    assert len(facts["facts"]["data_sha256"]) == 64
    assert Image.open(folder / "loss.png").size[0] > 400
    line = read_metrics(folder)[0]
    assert {"loss", "learning_rate", "tokens_per_second", "peak_memory_gib", "seconds_left"} <= line.keys()


def test_a_finished_run_is_not_trained_again(chain, workplace):
    before = (chain / "stage1_comprehension" / "run.json").stat().st_mtime_ns
    assert run(workplace, "stage1_comprehension", chain) == 0
    assert (chain / "stage1_comprehension" / "run.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("adapter", ["lora", "moelora"])
def test_baselines_train_and_answer(workplace, adapter):
    root = workplace / adapter
    for stage in ("stage1_generation", "stage1_comprehension", "mixed"):
        assert run(workplace, stage, root, "--adapter", adapter, "--max_steps", 2) == 0
    plugin = read_plugin(PluginSource(path=root / "stage1_generation" / "final" / "generation"))
    assert plugin.kind == adapter
    model = HealthGPT.from_pretrained(root / "model")
    assert len(model.draw("Draw.", return_details=True).indices) == 64


@pytest.mark.parametrize("family", ["l14", "xl32"])
def test_the_other_bases_learn_to_draw_too(workplace, family):
    """Phi-4's and Qwen2.5's layout: grouped attention, biases, other templates; XL32 gets image tokens it never had."""
    root = workplace / family
    backbone = ["--base", GOLDEN / family / "base", "--vit", GOLDEN / family / "vit", "--max_steps", 2]
    for stage in ("stage1_comprehension", "stage1_generation", "stage2_fusion", "stage3_generation"):
        assert run(workplace, stage, root, *backbone) == 0
    model = HealthGPT.from_pretrained(root / "model")
    assert len(model.draw("Draw.", workplace / "0.png", return_details=True).indices) == 64
    assert isinstance(model.answer("What?", workplace / "0.png", max_new_tokens=3), str)


def test_a_model_that_never_had_image_tokens_learns_to_answer(workplace):
    root = workplace / "answers_only"
    flags = ["--base", GOLDEN / "xl32" / "base", "--vit", GOLDEN / "xl32" / "vit", "--max_steps", 2]
    flags += ["--num_image_tokens", 0, "--use_fusion", "false"]
    for stage in ("stage1_comprehension", "stage3_comprehension"):
        assert run(workplace, stage, root, *flags) == 0
    model = HealthGPT.from_pretrained(root / "model")
    assert model.tasks == (Task.COMPREHENSION,)
    assert isinstance(model.answer("What?", workplace / "0.png", max_new_tokens=3), str)


def test_bfloat16_bases_train(workplace):
    """Frozen weights in bfloat16, trained ones in float32, under autocast."""
    root = workplace / "bf16"
    for stage in ("stage1_comprehension", "stage1_generation", "stage2_fusion"):
        assert run(workplace, stage, root, "--dtype", "BF16", "--max_steps", 4) == 0
        assert losses(root / stage)[-1] < losses(root / stage)[0] + 0.2
    final = load_file(root / "stage1_generation" / "final" / "generation" / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in final.values()} == {torch.bfloat16}


def test_the_depth_of_the_vision_features_is_a_flag(workplace):
    root = workplace / "depths"
    flags = ["--vision_layers", "{comprehension: 1, generation: -2}", "--max_steps", 1]
    assert run(workplace, "stage1_comprehension", root, *flags) == 0
    assert json.loads((root / "model" / "config.json").read_text())["vision_layers"]["comprehension"] == 1


def test_the_single_stage_baseline_trains_both_tasks(workplace):
    root = workplace / "mixed_run"
    arguments = ["train", "--config", workplace / "stage1_comprehension.yaml", "--output_root", root, "--mixed"]
    arguments += ["--data", workplace / "both.yaml"]
    assert main(list(map(str, arguments))) == 0
    final = tensors(root / "mixed" / "final")
    assert {key.split("/")[0] for key in final} == {"comprehension", "generation", "final"}
    assert losses(root / "mixed")[-1] < losses(root / "mixed")[0]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_compiled_blocks_give_the_same_losses(chain, workplace):
    root = workplace / "compiled"
    assert run(workplace, "stage1_generation", root, "--compile", "true") == 0
    plain, compiled = (losses(folder / "stage1_generation") for folder in (chain, root))
    assert compiled == pytest.approx(plain, rel=1e-4)
    written = load_file(root / "model" / "generation" / "adapter_model.safetensors")
    assert written.keys() == load_file(chain / "model" / "generation" / "adapter_model.safetensors").keys()


def test_held_out_loss_is_measured(workplace):
    root = workplace / "evaluated"
    flags = ["--eval_data", workplace / "comprehension.jsonl", "--eval_steps", 1, "--max_steps", 2]
    assert run(workplace, "stage1_comprehension", root, *flags) == 0
    assert len([line for line in read_metrics(root / "stage1_comprehension") if "eval_loss" in line]) == 2


def test_gradient_checkpointing_changes_nothing(chain, workplace):
    root = workplace / "checkpointing"
    assert run(workplace, "stage1_generation", root, "--gradient_checkpointing", "true", "--max_steps", 3) == 0
    np.testing.assert_allclose(losses(root / "stage1_generation"), losses(chain / "stage1_generation")[:3], atol=1e-5)


def command(workplace: Path, root: Path, *flags: object, launcher: tuple[str, ...] = ()) -> list[str]:
    start = (
        [str(Path(sys.executable).parent / launcher[0]), *launcher[1:], "-m"] if launcher else [sys.executable, "-m"]
    )
    config = ["--config", workplace / "stage1_generation.yaml", "--output_root", root]
    return list(map(str, [*start, "healthgpt.cli", "train", *config, *flags]))


TWO = ("torchrun", "--nproc_per_node", "2")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "zero2", "zero3"])
def test_two_processes_give_the_same_curve(chain, workplace, kind):
    """The same global batch on one process, or on two under DDP, ZeRO-2 and ZeRO-3."""
    if kind != "ddp":
        pytest.importorskip("deepspeed")
    root = workplace / kind
    flags = ["--deepspeed", ROOT / "configs" / "deepspeed" / f"{kind}.json"] if kind != "ddp" else []
    done = subprocess.run(
        command(workplace, root, *flags, launcher=TWO), env=ENVIRONMENT, capture_output=True, text=True, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    np.testing.assert_allclose(losses(root / "stage1_generation"), losses(chain / "stage1_generation"), atol=1e-4)
    one, two = (tensors(folder / "stage1_generation" / "final") for folder in (chain, root))
    assert one.keys() == two.keys()
    assert all(torch.allclose(one[key], two[key], atol=2e-3) for key in one)
    # Going on from the middle gives the same rest of the curve.
    newest = checkpoints_of(root / "stage1_generation")[-1]
    shutil.rmtree(root / "stage1_generation" / "final")
    shutil.rmtree(newest)
    done = subprocess.run(
        command(workplace, root, *flags, launcher=TWO), env=ENVIRONMENT, capture_output=True, text=True, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    np.testing.assert_allclose(losses(root / "stage1_generation"), losses(chain / "stage1_generation"), atol=1e-4)


@pytest.mark.slow
def test_a_killed_run_goes_on_with_the_same_losses(chain, workplace):
    """kill -9 at a random moment, twice, then to the end: the losses and weights of an uninterrupted run, exactly."""
    root = workplace / "killed"
    folder = root / "stage1_generation"
    rng = np.random.default_rng()
    flags = ["--max_steps", 40, "--save_steps", 2, "--dropout", 0.05]  # so that random states matter
    for _ in range(2):
        process = subprocess.Popen(command(workplace, root, *flags), env=ENVIRONMENT, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 60
        wanted = len(checkpoints_of(folder)) + 1
        while len(checkpoints_of(folder)) < min(wanted, 2) and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        process.wait()
        for checkpoint in checkpoints_of(folder):  # whole, whatever the moment was
            load_file(checkpoint / "trained.safetensors")
            torch.load(checkpoint / "optimizer.pt", weights_only=True)
            json.loads((checkpoint / "trainer_state.json").read_text())
    assert subprocess.run(command(workplace, root, *flags), env=ENVIRONMENT, check=False).returncode == 0
    straight = workplace / "straight"
    assert subprocess.run(command(workplace, straight, *flags), env=ENVIRONMENT, check=False).returncode == 0
    assert losses(folder) == losses(straight / "stage1_generation")
    one, two = (tensors(where / "final") for where in (folder, straight / "stage1_generation"))
    assert all(torch.equal(one[key], two[key]) for key in one)


def error_of(workplace: Path, stage: str, root: Path, capsys, *flags: object) -> str:
    capsys.readouterr()
    assert run(workplace, stage, root, *flags) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert len(lines) == 1
    return lines[0]


def test_mistakes_are_one_clear_line(chain, workplace, tmp_path, capsys):
    def error(stage, *flags, root=tmp_path / "out"):
        return error_of(workplace, stage, root, capsys, *flags)

    assert "stage2_fusion builds on stage1_comprehension, which has not been finished" in error("stage2_fusion")
    assert "unknown key 'lerning_rate'; did you mean 'learning_rate'" in error(
        "stage1_comprehension", "--lerning_rate", 1
    )
    assert "is not divisible by" in error("stage1_comprehension", "--global_batch_size", 6)
    assert "rank 8 in the file, but 16 was asked for" in error(
        "stage3_comprehension", "--comprehension_rank", 16, "--resume", "false", root=_copied(chain, tmp_path / "c")
    )
    assert "learning_rate is 'fast', expected float" in error("stage1_comprehension", "--learning_rate", "fast")
    assert "stage 'stage4' is none of" in error("stage1_comprehension", "--stage", "stage4")
    assert "no such file" in error("stage1_comprehension", "--data", "none.jsonl")
    assert "a generation record, but stage1_comprehension trains comprehension" in error(
        "stage1_comprehension", "--data", workplace / "generation.jsonl"
    )
    assert "device is 'cuda:9', expected auto, cpu, cuda or mps" in error("stage1_comprehension", "--device", "cuda:9")
    if not torch.cuda.is_available():
        assert "device 'cuda' is not there" in error("stage1_comprehension", "--device", "cuda")
    assert "num_image_tokens is 0" in error("stage1_generation", "--num_image_tokens", 0)


def _copied(chain: Path, target: Path) -> Path:
    shutil.copytree(chain, target)
    shutil.rmtree(target / "stage3_comprehension")
    return target


def test_a_resumed_run_must_be_the_same_run(workplace, tmp_path, capsys):
    root = tmp_path / "out"
    assert run(workplace, "stage1_comprehension", root) == 0
    shutil.rmtree(root / "stage1_comprehension" / "final")
    message = error_of(workplace, "stage1_comprehension", root, capsys, "--seed", 7)
    assert "seed was 42, now it is 7; a resumed run must share it" in message
    assert checkpoints_of(root / "stage1_comprehension")  # nothing is lost
    assert run(workplace, "stage1_comprehension", root) == 0


def test_another_number_of_processes_is_refused(workplace, tmp_path, capsys):
    root = tmp_path / "out"
    assert run(workplace, "stage1_comprehension", root) == 0
    shutil.rmtree(root / "stage1_comprehension" / "final")
    for checkpoint in checkpoints_of(root / "stage1_comprehension"):
        facts = json.loads((checkpoint / "run_facts.json").read_text())
        (checkpoint / "run_facts.json").write_text(json.dumps(facts | {"world_size": 4}))
    message = error_of(workplace, "stage1_comprehension", root, capsys)
    assert "world_size was 4, now it is 1; a resumed run must share it, as random states" in message


def test_a_corrupt_image_stops_the_run_or_is_skipped_and_counted(workplace, tmp_path, capsys):
    folder = tmp_path / "data"
    folder.mkdir()
    write_data(folder)
    (folder / "5.png").write_bytes(b"broken")
    flags = ["--data", folder / "comprehension.jsonl", "--max_steps", 3]
    message = error_of(workplace, "stage1_comprehension", tmp_path / "stops", capsys, *flags)
    assert "comprehension.jsonl, record 6" in message
    assert "5.png" in message
    for workers in (0, 2):
        root = tmp_path / f"skips{workers}"
        more = ["--skip_bad_records", "true", "--num_workers", workers]
        assert run(workplace, "stage1_comprehension", root, *flags, *more) == 0
        assert json.loads((root / "stage1_comprehension" / "run.json").read_text())["skipped_records"] >= 1
    message = error_of(workplace, "stage1_comprehension", tmp_path / "two", capsys, *flags, "--num_workers", 2)
    assert "comprehension.jsonl, record 6" in message


def test_unparsable_records_of_a_mixture_of_tasks_are_passed_over(workplace, tmp_path):
    """Their task is not known, so nothing may stand in for them: batches stay of one task."""
    folder = tmp_path / "data"
    folder.mkdir()
    write_data(folder)
    for name in ("comprehension", "generation"):
        lines = (folder / f"{name}.jsonl").read_text().splitlines()
        lines[3] = '{"id": "torn", "conversations": ['
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "all.yaml").write_text("sources:\n- path: comprehension.jsonl\n- path: generation.jsonl\n")
    codes = ["--vq_indices", tmp_path / "codes", "--vqgan", workplace / "vqgan"]
    shutil.copytree(workplace / "codes", tmp_path / "codes")
    names = (workplace / "codes" / "images.txt").read_text().splitlines()
    (tmp_path / "codes" / "images.txt").write_text("\n".join(str(folder / Path(name).name) for name in names) + "\n")
    flags = ["--data", folder / "all.yaml", "--skip_bad_records", "true", *codes]
    assert run(workplace, "mixed", tmp_path / "out", *flags) == 0
    facts = json.loads((tmp_path / "out" / "mixed" / "run.json").read_text())
    assert facts["skipped_records"] == 2


def test_a_mistake_never_clears_an_older_run(workplace, tmp_path, capsys):
    assert run(workplace, "stage1_comprehension", tmp_path, "--max_steps", 1) == 0
    flags = ["--resume", "false", "--data", "none.jsonl"]
    assert "no such file" in error_of(workplace, "stage1_comprehension", tmp_path, capsys, *flags)
    flags = ["--resume", "false", "--vq_indices", tmp_path / "nowhere"]
    assert "no such file" in error_of(workplace, "stage1_comprehension", tmp_path, capsys, *flags)
    assert (tmp_path / "stage1_comprehension" / "final").is_dir()


def test_a_loss_that_is_no_number_stops_the_run(workplace, tmp_path, capsys, monkeypatch):
    from healthgpt.training import step

    real, calls = step.summed_cross_entropy, []

    def sometimes_nan(*arguments):
        calls.append(1)
        return real(*arguments) * (float("nan") if len(calls) > 9 else 1.0)

    monkeypatch.setattr(step, "summed_cross_entropy", sometimes_nan)
    message = error_of(workplace, "stage1_comprehension", tmp_path, capsys)
    assert "the loss is nan at step 5 (records c" in message
    assert "the last good checkpoint is" in message
    assert "checkpoint-3" in message
    assert load_file(checkpoints_of(tmp_path / "stage1_comprehension")[-1] / "trained.safetensors")


def test_a_full_disk_loses_nothing(workplace, tmp_path, capsys, monkeypatch):
    from healthgpt.training import trainer

    real = trainer.save_file

    def full(tensors, path):
        if "checkpoint-6" in str(path):
            Path(path).write_bytes(b"half")
            raise OSError(28, "No space left on device")
        real(tensors, path)

    monkeypatch.setattr(trainer, "save_file", full)
    assert "No space left on device" in error_of(workplace, "stage1_comprehension", tmp_path, capsys)
    assert [path.name for path in checkpoints_of(tmp_path / "stage1_comprehension")] == ["checkpoint-3"]
    monkeypatch.undo()
    assert run(workplace, "stage1_comprehension", tmp_path) == 0  # goes on from there


def test_check_data_reports_and_fails(workplace, tmp_path, capsys):
    arguments = ["check-data", "--config", workplace / "stage1_generation.yaml", "--output_root", tmp_path]
    assert main(list(map(str, arguments))) == 0
    folder = tmp_path / "data"
    folder.mkdir()
    write_data(folder)
    (folder / "5.png").unlink()
    report = tmp_path / "report.json"
    data = folder / "comprehension.jsonl"
    assert main(list(map(str, [*arguments, "--data", data, "--report", report]))) == 1
    assert "1 x missing image" in capsys.readouterr().out
    assert json.loads(report.read_text())["files"][str(data)]["faults"] == {"missing image": 1}


def test_the_loss_never_makes_full_logits_and_is_the_plain_one():
    torch.manual_seed(0)
    head = torch.nn.Linear(8, 50, bias=False)
    hidden = torch.randn(2500, 8, requires_grad=True)
    targets = torch.randint(0, 50, (2500,))
    largest = []
    head.register_forward_hook(lambda _, __, out: largest.append(out.shape[0]))
    total = summed_cross_entropy(hidden, targets, head)
    total.backward()
    assert max(largest) == 1024
    gradient, hidden.grad = hidden.grad, None
    plain = torch.nn.functional.cross_entropy(head(hidden), targets, reduction="sum")
    plain.backward()
    torch.testing.assert_close(total, plain, rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(gradient, hidden.grad, atol=1e-5, rtol=1e-4)
    weights = torch.rand(2500)
    each = torch.nn.functional.cross_entropy(head(hidden), targets, reduction="none")
    weighted = summed_cross_entropy(hidden, targets, head, weights)
    torch.testing.assert_close(weighted, (weights * each).sum(), rtol=1e-5, atol=1e-3)


def test_overrides_are_flags():
    assert parse_overrides(["--a", "1", "--b=x=y", "--c-d", "--e", "z"]) == {
        "a": "1",
        "b": "x=y",
        "c_d": "true",
        "e": "z",
    }
    with pytest.raises(ValueError, match="'loose' is no flag"):
        parse_overrides(["loose"])


@pytest.mark.parametrize(
    "path", sorted((ROOT / "configs" / "train").rglob("*.yaml")), ids=lambda p: f"{p.parent.name}-{p.stem}"
)
def test_every_configuration_is_valid(path):
    config = read_train_config(path, {})
    assert config.stage == path.stem
    assert isinstance(config, TrainConfig)
    if config.deepspeed:
        assert json.loads((ROOT / config.deepspeed).read_text())["zero_optimization"]["stage"] in (2, 3)


# Added parameters of A and B together, in millions, from the paper's ranks and the bases' shapes.
PAPER = {
    ("m3", "stage3_comprehension"): 100.7,
    ("m3", "stage3_generation"): 402.7,
    ("l14", "stage3_comprehension"): 111.4,
    ("l14", "stage3_generation"): 445.6,
}


@pytest.mark.parametrize(("model", "stage"), PAPER)
def test_dry_runs_count_the_papers_parameters(model, stage, capsys):
    path = ROOT / "configs" / "train" / model / f"{stage}.yaml"
    assert main(["train", "--config", str(path), "--dry_run"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if "adapter:" in line)
    total, routers = (int("".join(filter(str.isdigit, part))) for part in line.split("(of these"))
    assert round((total - routers) / 1e6, 1) == PAPER[model, stage]


@pytest.mark.parametrize(
    ("model", "rows", "width"), [("m3", 40206, 3072), ("l14", 108547, 5120), ("xl32", 159860, 5120)]
)
def test_dry_runs_know_the_vocabulary(model, rows, width, capsys):
    path = ROOT / "configs" / "train" / model / "stage2_fusion.yaml"
    assert main(["train", "--config", str(path), "--dry_run"]) == 0
    out = capsys.readouterr().out
    assert f"vocabulary: {2 * rows * width:,}" in out
    assert "8 GPUs: ZeRO-0" in out


def test_memory_is_arithmetic():
    assert memory(1000, 100, 1) == {0: 2 * 1100 + 1400, 2: 2 * 1100 + 1400, 3: 2 * 1100 + 1400}
    assert memory(1000, 100, 4) == {0: 2 * 1100 + 1400, 2: 2 * 1100 + 350, 3: (2 * 1100 + 1400) / 4}


@pytest.mark.slow
def test_train_all_chains_from_raw_records_to_a_model(workplace):
    """The script itself, in the set-up environment that runs these tests."""
    if Path(sys.prefix) != ROOT / ".venv":
        pytest.skip("runs in the .venv that scripts/test.sh makes")
    root = workplace / "script"
    environment = {**ENVIRONMENT, "MODEL": "nano", "CONFIG_DIR": str(workplace), "NUM_GPUS": "0"}
    flags = ["--output_root", str(root), "--max_steps", "2"]
    done = subprocess.run(
        ["bash", "scripts/train_all.sh", *flags], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert HealthGPT.from_pretrained(root / "model").draw("Draw.").size == (64, 64)

"""The commands and the demo programs: the original's flags, JSON, exit codes, and one line per mistake."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import GOLDEN, TASKS, Golden
from PIL import Image
from safetensors.torch import load_file, save_file

from healthgpt.cli import main
from healthgpt.tasks import Task

ROOT = Path(__file__).parents[1]


def run(arguments: list[str], capsys) -> tuple[int, str, str]:
    try:
        code = main([str(argument) for argument in arguments])
    except SystemExit as stop:  # argparse
        code = int(stop.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


def demo(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "demo" / f"{name}.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_golden_cases_through_the_flags(golden, tmp_path, capsys):
    for case in golden.cases:
        task = TASKS[case["task"]]
        image = ["--img_path", golden.image(case)] if case["image"] else []
        save = tmp_path / "out.png"
        verb = ["answer", "--max_new_tokens", 24] if task is Task.COMPREHENSION else ["draw", "--save_path", save]
        arguments = [*verb, *golden.flags(task), "--question", case["question"], *image, "--json", "-"]
        code, out, _ = run([*arguments, "--do_sample", "False", "--temperature", "0.0", "--num_beams", "1"], capsys)
        assert code == 0
        result = json.loads(out.splitlines()[-1])
        assert result["task"] == task
        assert result["question"] == case["question"]
        assert result["image"] == golden.image(case)
        assert result["prompt_ids"] == case["input_ids"]
        assert result["seconds"] >= 0
        if task is Task.COMPREHENSION:
            assert set(result) == {"task", "question", "image", "answer", "token_ids", "prompt_ids", "seconds"}
            assert result["token_ids"] == case["generated_ids"]
            assert result["answer"] == case["decoded"]
        else:
            assert set(result) == {"task", "question", "image", "indices", "save_path", "prompt_ids", "seconds"}
            assert result["indices"] == case["constrained_indices"]
            assert result["save_path"] == str(save)
            picture = Image.open(golden.folder / f"generated_{case['case']}.png").convert("RGB")
            drawn = np.asarray(Image.open(save)).astype(int)
            assert np.abs(drawn - np.asarray(picture).astype(int)).max() <= 1


def test_the_template_is_inferred_and_ranks_need_not_be_said(golden, capsys):
    case = golden.cases[0]
    flags = ["--model_name_or_path", golden.folder / "base", "--vit_path", golden.folder / "vit"]
    flags += ["--hlora_path", golden.folder / "com_hlora_weights.bin", "--question", case["question"]]
    flags += ["--img_path", golden.image(case), "--max_new_tokens", 24, "--json", "-"]
    code, out, _ = run(["answer", *flags], capsys)
    assert code == 0
    result = json.loads(out.splitlines()[-1])
    assert result["prompt_ids"] == case["input_ids"]
    assert result["token_ids"] == case["generated_ids"]


def test_the_demo_program(m3):
    """A demo in a process of its own."""
    case = m3.cases[2]
    request = ["--question", case["question"], "--img_path", m3.image(case), "--max_new_tokens", 24, "--json", "-"]
    done = demo("com_infer", *m3.flags(Task.COMPREHENSION), *request)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["token_ids"] == case["generated_ids"]
    assert "note: comprehension uses the base's embeddings, as released" in done.stderr


def test_without_configuration_the_default_answers_and_draws(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(["answer", "--device", "cpu", "--json", "-"], capsys)
    assert code == 0
    result = json.loads(out.splitlines()[-1])
    assert result["image"].endswith("chest_xray.png")
    assert result["answer"] == "pleural effusion"
    assert "truth: a large pleural effusion on the left side" in err
    code, out, err = run(["draw", "--device", "cpu"], capsys)
    assert code == 0
    assert "brain_mri.png" in err
    assert Image.open("output.png").size == (64, 64)


def test_convert_and_back_and_use(m3, tmp_path, capsys):
    sources = m3.sources()
    arguments = ["convert", "--model_name_or_path", sources.base, "--vit_path", sources.vit]
    arguments += ["--instruct_template", "phi3_instruct", "--com_hlora_path", m3.folder / "com_hlora_weights.bin"]
    arguments += ["--gen_hlora_path", m3.folder / "gen_hlora_weights.bin", "--fusion_layer_path", sources.fusion]
    code, out, _ = run([*arguments, "--vqgan_path", sources.vqgan, "--output", tmp_path / "model"], capsys)
    assert (code, out.strip()) == (0, str(tmp_path / "model"))
    for case in (m3.cases[1], m3.cases[6]):
        verb = "answer" if case["task"] == "com" else "draw"
        more = ["--max_new_tokens", 24] if verb == "answer" else ["--save_path", tmp_path / "out.png"]
        flags = ["--model", tmp_path / "model", "--question", case["question"], "--img_path", m3.image(case)]
        code, out, _ = run([verb, *flags, *more, "--json", tmp_path / "result.json"], capsys)
        assert code == 0
        result = json.loads((tmp_path / "result.json").read_text())
        key, expected = ("token_ids", "generated_ids") if verb == "answer" else ("indices", "constrained_indices")
        assert result[key] == case[expected]
    code, out, _ = run(["convert", "--model", tmp_path / "model", "--output", tmp_path / "back"], capsys)
    assert code == 0
    assert len(out.split()) == 3
    code, _, err = run(["convert", "--model", tmp_path / "model", "--output", tmp_path / "back"], capsys)
    assert code == 2
    assert "is there already" in err


def test_apply_fusion_is_a_flag_and_a_field(m3, tmp_path, capsys):
    case = m3.cases[0]
    flags = [*m3.flags(Task.COMPREHENSION), "--question", case["question"], "--img_path", m3.image(case)]
    flags += ["--max_new_tokens", "24", "--json", "-"]

    def tokens(*more):
        code, out, err = run(["answer", *flags, *more], capsys)
        assert code == 0
        assert ("as released" in err) == ("True" not in more)
        return json.loads(out.splitlines()[-1])["token_ids"]

    assert tokens() == tokens("--apply_fusion", "False") == case["generated_ids"]
    assert tokens("--apply_fusion", "True") != case["generated_ids"]


def test_stream_prints_the_answer(m3, capsys):
    case = m3.cases[0]
    flags = ["answer", *m3.flags(Task.COMPREHENSION), "--question", case["question"], "--img_path", m3.image(case)]
    code, out, _ = run([*flags, "--max_new_tokens", 24, "--stream"], capsys)
    assert code == 0
    assert out == case["decoded"] + "\n"
    code, _, err = run([*flags, "--stream", "--json", "-"], capsys)
    assert code == 2
    assert "--stream prints the answer as it comes" in err


def test_answers_can_be_saved(m3, tmp_path, capsys):
    case = m3.cases[3]
    flags = ["answer", *m3.flags(Task.COMPREHENSION), "--question", case["question"], "--max_new_tokens", 24]
    code, _, _ = run([*flags, "--save_path", tmp_path / "answer.txt"], capsys)
    assert code == 0
    assert (tmp_path / "answer.txt").read_bytes().decode() == case["decoded"] + "\n"


@pytest.mark.parametrize("text", ["True", "true", "1", "yes"])
def test_booleans_that_are_true(m3, capsys, text):
    code, _, err = run(
        ["answer", *m3.flags(Task.COMPREHENSION), "--question", "a", "--do_sample", text, "--temperature", "0"], capsys
    )
    assert code == 2
    assert "temperature is 0.0, sampling expects at least 1e-06" in err


def text_file(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def pickle_that_runs_code(folder: Path) -> Path:
    return text_file(folder, "evil.bin", b"cposix\nsystem\n(S'touch was-here'\ntR.")


def bad_inputs(m3: Golden, folder: Path) -> dict[str, tuple[list[object], str]]:
    """Flags that replace the good ones, and what the one line must say."""
    other = GOLDEN / "l14"
    picture = folder / "half.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(picture)
    picture.write_bytes(picture.read_bytes()[:500])
    return {
        "missing base": (["--model_name_or_path", "no/where/base"], "no/where/base: no such base model folder"),
        "missing vit": (["--vit_path", folder / "novit"], "novit: no such ViT folder"),
        "missing plugin": (["--hlora_path", folder / "no.bin"], "no.bin: no such file"),
        "missing fusion": (["--fusion_layer_path", folder / "no.bin"], "no.bin: no such file"),
        "a folder for a fusion file": (["--fusion_layer_path", folder], "expected a file, found a folder"),
        "missing vqgan": (["--vqgan_path", folder / "novq"], "novq/model.yaml: no such file"),
        "missing image": (["--img_path", folder / "no.png"], "no.png: no such image"),
        "truncated image": (["--img_path", picture], "half.png: a damaged or truncated image"),
        "medical image": (["--img_path", text_file(folder, "x.nrrd", b"NRRD0005\n")], "x.nrrd: a damaged or truncated"),
        "web page": (["--hlora_path", text_file(folder, "w.bin", b"<html>no</html> more")], "w.bin: a web page"),
        "lfs pointer": (
            ["--fusion_layer_path", text_file(folder, "f.bin", b"version https://git-lfs.github.com/spec/v1\n")],
            "f.bin: a Git LFS pointer",
        ),
        "a pickle that runs code": (["--hlora_path", pickle_that_runs_code(folder)], "evil.bin: refused"),
        "another model's plugin": (["--hlora_path", other / "com_hlora_weights.bin"], "l14/com_hlora_weights.bin: "),
        "another rank": (["--hlora_r", 64], "was asked for"),
        "another number of experts": (["--hlora_nums", 8], "was asked for"),
        "another vocabulary": (["--fusion_layer_path", other / "fusion_layer_weights.bin"], "fusion weights"),
        "the number of codes": (["--vq_idx_nums", 8192], "8192 image tokens asked for"),
        "unknown template": (["--instruct_template", "vicuna_v1"], "template 'vicuna_v1' is none of"),
        "another template": (["--instruct_template", "qwen_2"], "template qwen_2 needs"),
        "neither true nor false": (["--do_sample", "maybe"], "'maybe' is neither true nor false"),
        "empty question": (["--question", "  "], "the question is empty"),
        "long question": (["--question", "word " * 5000], "context of 4096"),
        "no such device": (["--device", "cuda:7"], "device 'cuda:7' is not there"),
        "no device at all": (["--device", "toaster"], "device 'toaster' is none of"),
        "unknown dtype": (["--dtype", "INT3"], "dtype 'INT3' is none of"),
        "unknown attention": (["--attn_implementation", "magic"], "magic"),
        "unwritable folder": (["--save_path", folder / "no" / "out.png"], "there is no folder"),
        "unwritable result": (["--json", folder / "no" / "out.json"], "there is no folder"),
        "save to a folder": (["--save_path", folder], "it is a folder"),
        "not a number": (["--hlora_r", "big"], "invalid int value: 'big'"),
        "unknown flag": (["--hlora_rank", 8], "unrecognized arguments: --hlora_rank"),
        "model and files": (["--model", "nano"], "--model names a whole model and excludes --model_name_or_path"),
        "bad sampling": (["--do_sample", "True", "--top_p", 7], "top_p is 7.0"),
        "zero alpha": (["--hlora_alpha", 0], "alpha is 0.0, expected more than 0"),
        "negative codes": (["--vq_idx_nums", -3], "the number of image tokens is -3"),
    }


@pytest.mark.parametrize("verb", ["answer", "draw"])
@pytest.mark.parametrize("name", list(bad_inputs(Golden("m3"), Path("/tmp"))))
def test_every_mistake_is_one_clear_line(m3, tmp_path, monkeypatch, capsys, verb, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    replaced, message = bad_inputs(m3, tmp_path / "in")[name]
    task = Task.COMPREHENSION if verb == "answer" else Task.GENERATION
    given = ["--question", "What is it?", "--img_path", m3.image(m3.cases[0]), "--save_path", "out.png"]
    before = sorted((tmp_path / "in").iterdir())
    code, out, err = run([verb, *m3.flags(task), *given, *replaced], capsys)
    assert code == 2, err
    errors = [line for line in err.splitlines() if "error:" in line]
    assert len(errors) == 1
    assert message in errors[0]
    assert "Traceback" not in err
    assert out == ""
    assert not (tmp_path / "out.png").exists()
    assert not (tmp_path / "was-here").exists()
    assert sorted((tmp_path / "in").iterdir()) == before


def test_a_missing_flag_is_named(m3, capsys):
    code, _, err = run(["answer", "--model_name_or_path", m3.folder / "base", "--question", "a"], capsys)
    assert code == 2
    assert "--vit_path is missing" in err
    code, _, err = run(["convert", "--output", "x", "--model_name_or_path", "a", "--vit_path", "b"], capsys)
    assert code == 2
    assert "neither --com_hlora_path nor --gen_hlora_path is given" in err


def test_a_short_max_new_tokens_does_not_shorten_a_drawing(m3, tmp_path, capsys):
    flags = [
        *m3.flags(Task.GENERATION),
        "--question",
        "Draw.",
        "--save_path",
        tmp_path / "o.png",
        "--max_new_tokens",
        8,
    ]
    code, _, err = run(["draw", *flags], capsys)
    assert code == 0
    assert "note: --max_new_tokens 8 is ignored: a drawing always has 65 tokens" in err


def test_doctor_reports_the_machine(capsys):
    code, out, _ = run(["doctor"], capsys)
    assert code == 0
    assert "torch" in out
    assert "devices: cpu" in out


def test_doctor_on_good_files(golden, capsys):
    code, out, _ = run(["doctor", *golden.flags(Task.COMPREHENSION)[:6]], capsys)
    assert code == 0
    assert "all parts: they fit together" in out


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("vqgan/last.ckpt", b"<!DOCTYPE html><title>Log in</title>", "last.ckpt: a web page of 36 bytes"),
        ("base/config.json", b"null\n", "config.json: a placeholder of 5 bytes"),
        ("base/model.safetensors", b"version https://git-lfs.github.com/spec/v1", "a Git LFS pointer"),
        ("base/model.safetensors", None, "model.safetensors: no such file"),
        ("config.json", b"null\n", "config.json: a placeholder of 5 bytes"),
        ("base/generation_config.json", b"{" + b" " * 20, "generation_config.json: not readable as JSON"),
        ("generation/adapter_model.safetensors", None, "adapter_model.safetensors: no such file"),
    ],
)
def test_doctor_says_what_is_wrong(random_folder, tmp_path, capsys, name, content, message):
    folder = shutil.copytree(random_folder, tmp_path / "model")
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    code, out, _ = run(["doctor", "--model", folder], capsys)
    assert code == 1
    wrong = [line for line in out.splitlines() if line.startswith("WRONG")]
    assert len(wrong) == 1
    assert message in wrong[0]


def test_a_base_without_its_generation_config_is_said(random_folder, tmp_path, capsys):
    folder = shutil.copytree(random_folder, tmp_path / "model")
    (folder / "base" / "generation_config.json").unlink()
    asked = ["answer", "--model", folder, "--device", "cpu", "--question", "Why?", "--max_new_tokens", 2]
    code, _, err = run(asked, capsys)
    assert code == 0
    assert err.count("generation_config.json: no such file, so answers end at what config.json names alone") == 1


def test_doctor_shows_both_shapes_of_the_wrong_models_plugin(m3, capsys):
    flags = m3.flags(Task.COMPREHENSION)
    flags[5] = str(GOLDEN / "l14" / "com_hlora_weights.bin")
    code, out, _ = run(["doctor", *flags[:6]], capsys)
    assert code == 1
    assert "WRONG all parts: " in out
    assert "has shape" in out
    assert "this base model expects" in out


def test_doctor_knows_the_size_of_the_released_file(m3, tmp_path, capsys):
    path = tmp_path / "com_hlora_weights.bin"
    path.write_bytes((m3.folder / "com_hlora_weights.bin").read_bytes()[:1000])
    flags = m3.flags(Task.COMPREHENSION)
    flags[5] = str(path)
    code, out, _ = run(["doctor", *flags[:6]], capsys)
    assert code == 1
    assert "it has 1000 bytes, the released file of this name has 231096349" in out


def test_no_result_takes_the_place_of_an_image_or_of_another(tmp_path, capsys):
    image, folder, result = tmp_path / "ct.png", tmp_path / "series", tmp_path / "out.png"
    folder.mkdir()
    for place in (image, folder / "1.png"):
        shutil.copyfile(ROOT / "healthgpt/examples/brain_ct.png", place)
    before = image.read_bytes()
    asked = ["--question", "Which organ is this?", "--device", "cpu"]
    for words, message in (
        (["answer", "--img_path", image, "--save_path", image], f"{image}: is an image that the model is to see"),
        (["draw", "--img_path", image, "--save_path", image], f"{image}: is an image that the model is to see"),
        (["answer", "--img_path", image, "--json", image], f"{image}: is an image that the model is to see"),
        (
            ["draw", "--img_path", folder, "--save_path", folder / "1.png"],
            f"{folder / '1.png'}: is in a folder of images that the model is to see",
        ),
        (["draw", "--img_path", image, "--save_path", result, "--json", result], "--json and --save_path need a file"),
    ):
        code, out, err = run([*words, *asked], capsys)
        assert (code, out) == (2, "")
        assert message in err
    assert image.read_bytes() == (folder / "1.png").read_bytes() == before
    assert not result.exists()


def test_what_is_passed_over_is_said(tmp_path, capsys):
    image = ROOT / "healthgpt/examples/brain_ct.png"
    code, _, err = run(["answer", "--device", "cpu", "--img_path", image, "--temperature", 0.7], capsys)
    assert code == 0
    assert "note: no --question is given, so it is 'What abnormality is seen in this image?'" in err
    assert "note: --temperature and --top_p do nothing without --do_sample" in err
    assert "bitsandbytes" not in err
    assert "kernels" not in err


def test_numbers_that_are_none_and_memory_that_is_not_there_are_one_line(random_folder, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "nan"
    shutil.copytree(random_folder, folder)
    [path] = (folder / "base").glob("*.safetensors")
    weights = load_file(path)
    name = next(name for name in weights if name.endswith("input_layernorm.weight"))
    weights[name][0] = float("nan")
    save_file(weights, path, metadata={"format": "pt"})
    for words in (
        ["answer", "--question", "Why?"],
        ["draw", "--question", "A chest.", "--save_path", tmp_path / "o.png"],
    ):
        code, out, err = run([*words, "--model", folder, "--device", "cpu"], capsys)
        assert (code, out) == (2, "")
        assert "error: the logits of step 0 are NaN" in err
    (tmp_path / "q.jsonl").write_text('{"question_id": 1, "text": "Why?"}\n')
    batch = ["batch", "--model", folder, "--device", "cpu", "--input", tmp_path / "q.jsonl"]
    code, _, _ = run([*batch, "--output", tmp_path / "a.jsonl"], capsys)
    assert code == 1
    assert "logits of step 0 are NaN" in json.loads((tmp_path / "a.jsonl").read_text().splitlines()[-1])["error"]
    monkeypatch.setattr("healthgpt.engine.memory.free_bytes", lambda device: 1000)
    code, out, err = run(["answer", "--question", "Why?", "--device", "cpu"], capsys)
    assert (code, out) == (2, "")
    assert "error: out of memory: the keys and values of 1 sequences" in err
    code, out, err = run(["bench", "--shape", "m3", "--device", "cpu"], capsys)
    assert (code, out) == (2, "")
    assert "error: out of memory: the weights of a base of phi3's shape take" in err


def test_reports_that_cannot_be_written_are_refused_before_the_work(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    (tmp_path / "bench" / "bench.md").mkdir(parents=True)
    for folder, message in (
        (tmp_path / "file", f"{tmp_path / 'file'}: expected a folder, found a file"),
        (tmp_path / "file" / "deep", f"{tmp_path / 'file'}: expected a folder, found a file"),
        (tmp_path / "bench", "bench.md: cannot be written, it is a folder"),
    ):
        code, out, err = run(["bench", "--output", folder], capsys)
        assert (code, out) == (2, "")
        assert message in err


def test_doctor_looks_at_placement_and_at_what_drawing_needs(m3, tmp_path, capsys):
    for words, message in (
        (["--device", "tpu"], "WRONG placement: device 'tpu' is none of"),
        (["--dtype", "FP9"], "WRONG placement: dtype 'FP9' is none of"),
        (["--row_lead", 0], "WRONG placement: row_lead is 0"),
        (["--model", ""], "WRONG model: --model is empty"),
        (["--hlora_path", "nowhere.bin"], "WRONG model: --model_name_or_path is missing"),
        (["--vqgan_path", tmp_path / "nowhere"], "WRONG VQGAN"),
    ):
        code, out, _ = run(["doctor", *words], capsys)
        assert code == 1
        assert message in out
    flags = m3.flags(Task.GENERATION)
    at = flags.index("--vqgan_path")
    assert run(["doctor", *flags], capsys)[0] == 0
    code, out, _ = run(["doctor", *flags[:at], *flags[at + 2 :]], capsys)
    assert (code, "WRONG VQGAN: taming_transformers/ckpt" in out) == (1, True)


def test_interruption_is_quiet(m3, monkeypatch, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("healthgpt.pipeline.HealthGPT.answer", interrupt)
    code, _, err = run(["answer", *m3.flags(Task.COMPREHENSION), "--question", "a"], capsys)
    assert code == 130
    assert "Traceback" not in err


def test_help_and_version(capsys):
    for verb in ("answer", "draw", "convert", "doctor"):
        code, out, _ = run([verb, "--help"], capsys)
        assert code == 0
        assert verb in out
    code, out, _ = run(["--version"], capsys)
    assert (code, out.split()[0]) == (0, "healthgpt")


@pytest.mark.parametrize("script", sorted((ROOT / "demo").glob("*_infer*.sh")), ids=lambda path: path.name)
def test_demo_scripts_pass_flags_and_variables(m3, script, tmp_path):
    """The scripts themselves, in the set-up environment that runs these tests."""
    if Path(sys.prefix) != ROOT / ".venv":
        pytest.skip("runs in the .venv that scripts/test.sh makes")
    task = Task.GENERATION if "gen" in script.name else Task.COMPREHENSION
    golden = Golden({"com_infer_phi4.sh": "l14", "com_infer_qwen.sh": "xl32"}.get(script.name, "m3"))
    plugin = "gen" if task is Task.GENERATION else "com"
    variables = {
        "MODEL_NAME_OR_PATH": golden.folder / "base",
        "VIT_PATH": golden.folder / "vit",
        "HLORA_PATH": golden.folder / f"{plugin}_hlora_weights.bin",
        "VQGAN_PATH": GOLDEN / "vqgan",
    }
    if golden.draws:
        variables["FUSION_LAYER_PATH"] = golden.folder / "fusion_layer_weights.bin"
    case = next(case for case in golden.cases if TASKS[case["task"]] is task and case["image"])
    command = ["bash", script, "--question", case["question"], "--img_path", golden.image(case), "--json", "-"]
    command += ["--save_path", tmp_path / "out.png"] if task is Task.GENERATION else ["--max_new_tokens", 24]
    command += ["--hlora_r", 16 if plugin == "gen" else 8, "--hlora_alpha", 32 if plugin == "gen" else 16]
    environment = {**os.environ, **{name: str(path) for name, path in variables.items()}}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    key, expected = ("indices", "constrained_indices") if plugin == "gen" else ("token_ids", "generated_ids")
    assert result[key] == case[expected]

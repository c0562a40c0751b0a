"""The parts of the miniature: trained for a few steps, interrupted, resumed, packed and read again."""

import json
import shutil
import subprocess
import sys
import time
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, CLIPVisionModel

from healthgpt import HealthGPT
from healthgpt.data.phantoms.source import write_phantoms
from healthgpt.nano.__main__ import main
from healthgpt.nano.chats import TEMPLATE, Chat, Repeats, encode_chat, read_chats
from healthgpt.nano.codebook import Codebook
from healthgpt.nano.gather import caption, gather
from healthgpt.nano.language import ease_new_rows
from healthgpt.nano.optimizer import MuonWithAdamW
from healthgpt.nano.pack import pack
from healthgpt.nano.pictures import read_pictures
from healthgpt.nano.similarity import ssim
from healthgpt.nano.sketches import sketch
from healthgpt.nano.vqgan import VQGANSettings, train_vqgan
from healthgpt.shipped import CHECKSUMS_NAME, check_files
from healthgpt.tokenization import Span, load_tokenizer
from taming_transformers import load_vqgan

PATIENTS = 140


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("nano")
    list(write_phantoms(folder / "train", split="train", seed=0, count=PATIENTS))
    gather(folder / "train", folder)
    return folder


def test_pictures_are_those_of_the_phantoms(data):
    everything, drawn = read_pictures(data / "pictures.npz"), read_pictures(data / "drawn.npz")
    assert len(everything) == PATIENTS * 9 // 7  # brain and pelvis have two images each
    assert len(drawn) == PATIENTS * 5 // 7
    sick = everything.lesions.flatten(1).any(dim=1)
    assert torch.equal(sick, everything.kinds > 0)
    assert any("left" in text for text in everything.captions[:, 0])
    patient = {"organ": "brain", "facts": {}, "finding": {"name": "tumor", "side": "left", "size": "large", "count": 1}}
    assert caption(patient, "CT") == "CT of the brain : large left tumor"


def test_chats_hold_every_question_and_the_reports_that_are_drawn(data):
    chats = read_chats(data / "chats.jsonl")
    assert len(set(chats)) > 300
    assert chats.count(Chat(turns=("What does CT stand for?", "Computed tomography."))) > 10  # facts are few
    assert any(chat.turns[-1].startswith("Frontal X-ray") and "X-ray" not in chat.turns[0][-5:] for chat in chats)
    described = [chat for chat in chats if chat.turns[0].startswith("MRI of the brain : ")]
    assert described
    assert all(chats.count(chat) == 1 for chat in described[:5])
    assert not any("<image>" in text for chat in chats for text in chat.turns)


def test_a_sketch_says_what_the_report_says(data):
    drawn = [chat for chat in read_chats(data / "chats.jsonl") if chat.drawn]
    assert drawn
    assert all(len(chat.drawn) == 64 for chat in drawn)
    left = [chat for chat in drawn if " left " in chat.turns[0]]
    assert left
    for chat in left:
        columns = {i % 8 for i, symbol in enumerate(chat.drawn) if symbol}
        assert columns == {4, 5, 6, 7}  # the patient's left is on the right
    nodule = {"name": "nodule", "side": "right", "size": "small", "count": 1}
    symbols = set(sketch(nodule))
    assert len(symbols) == 2
    assert {i for i, symbol in enumerate(sketch(nodule)) if symbol} == {i for i in range(32, 64) if i % 8 < 4}
    assert all(sketch({"name": "cardiomegaly", "side": None, "size": None, "count": 1}))
    assert not any(sketch(None))


def test_a_sketch_is_an_answer_in_pieces(random_folder):
    tokenizer = load_tokenizer(random_folder / "base")
    ids, labels, _ = encode_chat(tokenizer, Chat(turns=("Draw it.",), drawn=(5, 6)))
    drawn = [label for label in labels if label != -100]
    assert drawn[1] - drawn[0] == 1
    assert ids[-3:] == drawn
    assert drawn[2:] == tokenizer.encode([Span(TEMPLATE.end)], opens=False)


@pytest.mark.parametrize("line", ['["Is it?", "Yes"]', '{"turns": ["Is it?"]}', '{"turns": []}', '{"told": []}', "{"])
def test_a_line_that_is_no_chat_is_named(tmp_path, line):
    (tmp_path / "chats.jsonl").write_text(line + "\n")
    with pytest.raises(ValueError, match=r"chats\.jsonl, line 1: no chat"):
        read_chats(tmp_path / "chats.jsonl")


def test_ssim_agrees_with_scikit_image():
    from skimage.metrics import structural_similarity

    rng = np.random.default_rng(0)
    first = rng.random((64, 64))
    second = np.clip(first + 0.2 * rng.random((64, 64)), 0, 1)
    ours = ssim(*(torch.tensor(x, dtype=torch.float32)[None, None] for x in (first, second))).mean().item()
    theirs = structural_similarity(
        first, second, data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert abs(ours - theirs) < 0.03  # a window of 7 pixels there, of 11 here


def test_a_codebook_does_not_collapse():
    torch.manual_seed(0)
    book = Codebook(num_codes=64, width=8, free_steps=2).train()
    for _ in range(60):
        quantised, commitment = book(torch.randn(8, 8, 4, 4))
    assert commitment > 0
    chosen = (torch.nn.functional.normalize(torch.randn(4096, 8), dim=1) @ book.codes.T).argmax(dim=1)
    assert len(chosen.unique()) > 56
    assert torch.allclose(book.codes.norm(dim=1), torch.ones(64), atol=1e-5)
    assert torch.allclose(quantised.norm(dim=1), torch.ones(8, 4, 4), atol=1e-5)


def test_repeats_are_chats_whose_answer_is_their_question(data, random_folder):
    tokenizer = load_tokenizer(random_folder / "base")
    repeats = Repeats(tokenizer, shortest=5, longest=9)
    head = tokenizer.encode([Span(TEMPLATE.system), Span(TEMPLATE.roles["user"])])
    torch.manual_seed(0)
    forgotten = noisy = 0
    for _ in range(40):
        ids, labels, noise = repeats.drawn(tail=[7, 8])
        answer = [label for label in labels if label != -100][:-1]
        assert 5 <= len(answer) <= 9
        assert ids[: len(head)] == head
        assert ids[len(head) : len(head) + len(answer) + 2] == [*answer, 7, 8]
        said = [token for token, label in zip(ids, labels, strict=True) if label != -100][:-1]
        forgotten += said != answer
        noisy += noise[len(head)] > 0
        assert not any(noise[: len(head)])
        assert len(noise) == len(ids) - 1
    assert 10 < forgotten < 30
    assert 20 < noisy < 40


def test_rows_that_are_added_learn_faster_in_the_same_model(random_folder):
    model = AutoModelForCausalLM.from_pretrained(random_folder / "base").double()
    ids = torch.arange(12)[None]
    with torch.inference_mode():
        model.get_input_embeddings().weight.mul_(100)  # large enough for the norms' epsilon not to count
        before = model(ids).logits
        norm = model.get_input_embeddings().weight.norm()
    ease_new_rows(model)
    with torch.inference_mode():
        assert (model(ids).logits - before).abs().max() < 1e-4 * before.std()
    assert torch.allclose(model.get_input_embeddings().weight.norm(), norm / 2)


def train(part: str, source: Path, output: Path, *flags: str) -> None:
    assert main([part, "--data", str(source), "--output", str(output), *flags]) == 0


def test_two_optimizers_are_one_for_schedules_and_checkpoints():
    def made():
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Embedding(8, 4), torch.nn.Linear(4, 4))
        return model, MuonWithAdamW(model, model[1], learning_rate=0.1, weight_decay=0.0, matrix_decay=0.0)

    def step(model, optimizer):
        model(torch.arange(8)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    model, optimizer = made()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    step(model, optimizer)
    assert all(not torch.equal(value, before[name]) for name, value in model.state_dict().items())
    again, theirs = made()
    again.load_state_dict(model.state_dict())
    theirs.load_state_dict(deepcopy(optimizer.state_dict()))
    step(model, optimizer)
    step(again, theirs)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in again.state_dict().items())
    for group in theirs.param_groups:
        group["lr"] = 0.0
    step(again, theirs)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in again.state_dict().items())


@pytest.mark.slow
def test_each_part_is_what_its_reader_expects(data, tmp_path):
    train("vqgan", data / "drawn.npz", tmp_path, "--steps", "3", "--batch-size", "4")
    train("vit", data / "pictures.npz", tmp_path, "--steps", "3", "--batch-size", "8")
    train("base", data / "chats.jsonl", tmp_path, "--steps", "3", "--batch-size", "4")
    vqgan = load_vqgan(tmp_path / "vqgan")
    codes = vqgan.encode(torch.rand(2, 3, 64, 64) * 2 - 1)
    assert codes.shape == (2, 8, 8)
    assert vqgan.decode(codes).shape == (2, 3, 64, 64)
    vit = CLIPVisionModel.from_pretrained(tmp_path / "vit")
    assert vit(torch.rand(1, 3, 64, 64)).last_hidden_state.shape[1] == 65
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    tokenizer = load_tokenizer(tmp_path / "base")
    printable = "".join(map(chr, range(32, 127)))
    assert tokenizer.decode(tokenizer.encode([Span(printable, literal=True)])) == printable
    assert base.get_input_embeddings().weight.shape[0] == len(tokenizer)
    for part in ("vqgan", "vit", "base"):
        log = json.loads((tmp_path / f"{part}_training_log.json").read_text())
        assert log["losses"][-1][0] <= 3
        for value in load_file(tmp_path / part / "model.safetensors").values():
            assert torch.equal(value, value.half().float())


@pytest.mark.slow
def test_a_killed_part_goes_on_where_it_was(data, tmp_path):
    settings = ["--steps", "12", "--batch-size", "4", "--threads", "1", "--save-every", "2"]
    train("vqgan", data / "drawn.npz", tmp_path / "whole", *settings)
    command = [sys.executable, "-m", "healthgpt.nano", "vqgan", "--data", str(data / "drawn.npz"),
               "--output", str(tmp_path / "cut"), *settings]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    work = tmp_path / "cut" / ".vqgan-training"
    deadline = time.monotonic() + 120
    while not list(work.glob("checkpoint-*/trainer_state.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert not (tmp_path / "cut" / "vqgan").exists()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "going on from" in done.stderr
    whole, cut = (load_file(tmp_path / name / "vqgan" / "model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(whole[key], cut[key]) for key in whole)


def test_a_finished_part_is_kept_and_other_settings_are_refused(data, tmp_path, capsys):
    (tmp_path / "vqgan").mkdir()
    assert train_vqgan(data / "drawn.npz", tmp_path) == tmp_path / "vqgan"
    work = tmp_path / "other" / ".vqgan-training"
    work.mkdir(parents=True)
    (work / "facts.json").write_text(json.dumps({"steps": 1}))
    with pytest.raises(ValueError, match="begun with"):
        train_vqgan(data / "drawn.npz", tmp_path / "other", VQGANSettings(steps=2, batch_size=4))
    assert main(["vit", "--data", str(tmp_path / "none.npz"), "--output", str(tmp_path)]) == 2
    assert "none.npz" in capsys.readouterr().err


def test_packing_keeps_what_the_model_says(random_folder, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(random_folder, model)
    weights = load_vqgan(model / "vqgan").state_dict()
    from safetensors.torch import save_file

    (model / "vqgan" / "last.ckpt").unlink()
    save_file({key: value.half().float() for key, value in weights.items()}, model / "vqgan" / "model.safetensors")
    packed = pack(model, tmp_path / "packed")
    check_files(packed)
    before, after = (HealthGPT.from_pretrained(folder, dtype="FP32") for folder in (model, packed))
    image = np.zeros((64, 64, 3), np.uint8)
    assert after.answer("Is this normal?", image, max_new_tokens=3) is not None
    assert before.draw("Reconstruct.", image).size == after.draw("Reconstruct.", image).size
    assert (packed / "base" / "model.safetensors").stat().st_size < 0.6 * (
        model / "base" / "model.safetensors"
    ).stat().st_size
    (packed / "fusion.safetensors").write_bytes(b"torn")
    with pytest.raises(ValueError, match=r"fusion\.safetensors: is damaged"):
        check_files(packed)
    (packed / "fusion.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"fusion\.safetensors"):
        check_files(packed)
    assert CHECKSUMS_NAME in {path.name for path in packed.iterdir()}
    with pytest.raises(ValueError, match="is there already"):
        pack(model, packed)

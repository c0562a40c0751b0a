"""Records, mixtures, cached codes, examples, the order of samples, and the check before training."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from healthgpt.checking import check_backbone
from healthgpt.cli import main
from healthgpt.data.checks import check_mixture
from healthgpt.data.examples import BadRecordError, ExampleMaker, Examples, collate
from healthgpt.data.mixture import RECONSTRUCTIONS, Mixture
from healthgpt.data.records import RecordFile, parse_record
from healthgpt.data.sampler import TaskBatches
from healthgpt.data.vq_indices import VQIndices, fill_cache, start_cache
from healthgpt.processor import IGNORED_LABEL, IMAGE_PLACEHOLDER
from healthgpt.targets import image_as_target
from healthgpt.tasks import Task
from healthgpt.templates import IMAGE, Turn, user_turn
from taming_transformers import load_vqgan

ASK = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A scan."}]


def record(**changes):
    value = {"id": "a", "image": "a.png", "conversations": ASK} | changes
    return {key: entry for key, entry in value.items() if entry != "absent"}


@pytest.fixture
def folder(tmp_path):
    """Six images, records of both tasks, and a mixture of them."""
    rng = np.random.default_rng(0)
    for i in range(6):
        Image.fromarray(rng.integers(0, 255, (40, 60), dtype=np.uint8)).save(tmp_path / f"{i}.png")
    questions = [record(id=f"c{i}", image=f"{i}.png") for i in range(6)]
    drawings = [record(id=f"g{i}", image=f"{i}.png", target_image=f"{i}.png", task="generation") for i in range(4)]
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(r) + "\n\n" for r in questions))
    (tmp_path / "drawings.json").write_text(json.dumps(drawings))
    (tmp_path / "mix.yaml").write_text("seed: 3\nsources:\n- path: questions.jsonl\n- path: drawings.json\n")
    return tmp_path


@pytest.fixture(scope="module")
def maker(random_folder):
    backbone = check_backbone(str(random_folder / "base"), str(random_folder / "vit"), None)
    return ExampleMaker(backbone.processor(64), None, 64, 512)


def parse(value, tmp_path):
    return parse_record(value, where="data.jsonl, record 7", image_folder=tmp_path)


def test_records_of_every_shape(tmp_path):
    plain = parse(record(), tmp_path)
    assert plain.task is Task.COMPREHENSION
    assert plain.images == (tmp_path / "a.png",)
    assert plain.turns == (Turn("user", (IMAGE, "\nWhat is it?")), Turn("assistant", ("A scan.",)))
    text_only = parse(record(image="absent", conversations=[{**ASK[0], "value": "Hi?"}, ASK[1]]), tmp_path)
    assert text_only.images == ()
    at_the_end = parse(record(conversations=[{**ASK[0], "value": "What is it?\n<image>"}, ASK[1]]), tmp_path)
    assert at_the_end.turns[0].parts == ("What is it?\n", IMAGE)
    several = record(image=["a.png", "b.png"], conversations=[{**ASK[0], "value": "<image> or <image>?"}, ASK[1]])
    assert len(parse(several, tmp_path).images) == 2
    assert len(parse(record(conversations=[*ASK, {"from": "human", "value": "Sure?"}, ASK[1]]), tmp_path).turns) == 4
    drawn = parse(record(target_image="b.png"), tmp_path)
    assert (drawn.task, drawn.target) == (Task.GENERATION, tmp_path / "b.png")
    assert parse(record(target_indices=[3, 4]), tmp_path).codes == (3, 4)
    in_text = record(task="generation", conversations=[ASK[0], {"from": "gpt", "value": "<idx_7><idx_9>"}])
    assert parse(in_text, tmp_path).codes == (7, 9)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1], "expected a JSON object, found list"),
        (record(conversations="absent"), "conversations is None, expected a list of turns"),
        (record(conversations=ASK[:1]), "the last turn is the user's"),
        (record(conversations=ASK[::-1]), "turn 0 is from 'gpt', expected the user"),
        (record(conversations=[{"from": "human"}, ASK[1]]), "expected from and value"),
        (record(image="absent"), "1 <image> placeholders for 0 images"),
        (record(image=["a.png", "b.png"]), "1 <image> placeholders for 2 images"),
        (record(image=5), "image is 5, expected a path"),
        (record(task="drawing"), "task is 'drawing', expected comprehension or generation"),
        (record(task="generation"), "a generation record without target_image"),
        (record(target_indices=["x"]), "target_indices is"),
        (record(conversations=[ASK[0], {"from": "gpt", "value": " "}]), "without an answer's text"),
    ],
)
def test_bad_records_are_named(tmp_path, value, message):
    with pytest.raises(ValueError, match=message) as caught:
        parse(value, tmp_path)
    assert "data.jsonl, record 7" in str(caught.value)


def test_files_are_lines_or_lists(folder):
    assert len(RecordFile(folder / "questions.jsonl")) == 6
    assert RecordFile(folder / "questions.jsonl").value(4)["id"] == "c4"
    assert RecordFile(folder / "drawings.json").value(3)["id"] == "g3"
    (folder / "bad.jsonl").write_text('{"id": 1}\nnot json\n')
    with pytest.raises(ValueError, match=r"bad\.jsonl, record 2: not readable as JSON"):
        RecordFile(folder / "bad.jsonl").value(1)
    (folder / "empty.jsonl").write_text("\n")
    with pytest.raises(ValueError, match="has no records"):
        RecordFile(folder / "empty.jsonl")


def ids(mixture):
    return [mixture.record(i).id for i in range(len(mixture))]


def test_mixtures_are_deterministic_and_counted(folder):
    text = "seed: 3\nsources:\n- {path: questions.jsonl, weight: 1.5}\n- {path: drawings.json, count: 2}\n"
    (folder / "m.yaml").write_text(text)
    first = ids(Mixture(folder / "m.yaml"))
    assert first == ids(Mixture(folder / "m.yaml"))
    assert len(first) == 9 + 2
    assert set(first[:6]) == {f"c{i}" for i in range(6)}
    (folder / "m.yaml").write_text(text.replace("seed: 3", "seed: 4"))
    assert ids(Mixture(folder / "m.yaml")) != first
    assert len(Mixture(folder / "questions.jsonl")) == 6


def test_reconstruction_draws_each_image_from_itself(folder):
    (folder / "m.yaml").write_text("sources:\n- {path: questions.jsonl, reconstruct: true}\n")
    made = Mixture(folder / "m.yaml").record(2)
    assert (made.task, made.target, made.images) == (Task.GENERATION, folder / "2.png", (folder / "2.png",))
    assert made.turns[0].parts == (IMAGE, "\n" + RECONSTRUCTIONS[2])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sources: []", "a list of sources"),
        ("sources:\n- {path: questions.jsonl, wieght: 2}", "unknown key 'wieght'; did you mean 'weight'"),
        ("sources:\n- {path: questions.jsonl, weight: 0}", "expected a positive number"),
        ("sources:\n- {path: questions.jsonl, weight: 1, count: 3}", "both weight and count"),
        ("sources:\n- {path: questions.jsonl, task: drawing}", "task of questions.jsonl is 'drawing'"),
        ("sources:\n- {image_folder: x}", "expected a path with options"),
        ("sources:\n- {path: none.jsonl}", "none.jsonl: no such file"),
        ("sources: [", "not readable as YAML"),
    ],
)
def test_bad_mixtures_are_refused(folder, text, message):
    (folder / "m.yaml").write_text(text)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        Mixture(folder / "m.yaml")


@pytest.fixture(scope="module")
def vqgan(random_folder):
    return load_vqgan(random_folder / "vqgan")


def test_codes_are_cached_resumed_and_shared(folder, vqgan):
    images = [folder / f"{i}.png" for i in range(6)] + [folder / "0.png"]
    cache = folder / "codes"
    start_cache(cache, images, vqgan)
    next(iter(fill_cache(cache, vqgan, batch_size=2)))  # interrupted after one batch
    start_cache(cache, images, vqgan)
    for rank in (1, 0):  # the rest by two processes
        for progress in fill_cache(cache, vqgan, batch_size=2, rank=rank, num_processes=2):
            assert progress.total == 2
    assert not list(fill_cache(cache, vqgan))
    codes = VQIndices(cache)
    for image in images:
        alone = vqgan.encode(image_as_target(image, 64).unsqueeze(0)).flatten().tolist()
        assert codes[image] == alone
    with pytest.raises(ValueError, match="holds the codes of other images"):
        start_cache(cache, images[:3], vqgan)
    with pytest.raises(ValueError, match="has no codes of"):
        codes[folder / "mix.yaml"]


def test_a_cache_knows_its_vqgan(folder, vqgan, tmp_path_factory):
    from healthgpt.random_model import write_random_model

    start_cache(folder / "codes", [folder / "0.png"], vqgan)
    other = load_vqgan(write_random_model(tmp_path_factory.mktemp("other"), seed=5) / "vqgan")
    with pytest.raises(ValueError, match="another VQGAN"):
        start_cache(folder / "codes", [folder / "0.png"], other)


def test_unreadable_targets_are_reported_and_left_out(folder, vqgan):
    (folder / "1.png").write_bytes(b"broken")
    images = [folder / f"{i}.png" for i in range(3)]
    start_cache(folder / "codes", images, vqgan)
    *_, last = fill_cache(folder / "codes", vqgan, batch_size=3)
    assert list(last.failures) == [str(images[1])]
    codes = VQIndices(folder / "codes")
    assert len(codes[images[2]]) == 64
    with pytest.raises(ValueError, match="has no codes of"):
        codes[images[1]]


def test_training_ids_are_those_of_inference(golden):
    """Context before each answer is the prompt that inference would build; only answers and their ends are labelled."""
    backbone = check_backbone(str(golden.folder / "base"), str(golden.folder / "vit"), golden.meta["template"])
    processor = backbone.processor(golden.meta["vq_idx_nums"])
    end = processor.tokenizer.added[processor.template.end.strip()].id
    for case in golden.cases:
        number = 1 if case["image"] else 0
        if case["task"] == "gen":
            codes = case["constrained_indices"]
            turns = [user_turn(case["question"], number), Turn("assistant", ("",))]
            example, labels = processor.encode_example(turns, codes)
            answer = [processor.image_vocabulary.first_code_id + code for code in codes]
            answer += [processor.image_vocabulary.end_id, end]
        else:
            turns = [user_turn(case["question"], number), Turn("assistant", (" No acute finding. ",))]
            example, labels = processor.encode_example(turns)
            answer = [*processor.tokenizer.encode_segment("No acute finding."), end]
        prompt = case["input_ids"]
        assert example[: len(prompt)] == prompt
        assert example[len(prompt) : len(prompt) + len(answer)] == answer
        assert labels[: len(prompt)] == [IGNORED_LABEL] * len(prompt)
        assert labels[len(prompt) : len(prompt) + len(answer)] == answer
        assert set(labels[len(prompt) + len(answer) :]) <= {IGNORED_LABEL}


def test_multi_turn_examples_label_every_answer(golden):
    backbone = check_backbone(str(golden.folder / "base"), str(golden.folder / "vit"), golden.meta["template"])
    processor = backbone.processor(golden.meta["vq_idx_nums"])
    turns = [
        user_turn("A scan?", 1),
        Turn("assistant", ("Yes.",)),
        user_turn("Which side?"),
        Turn("assistant", ("Left.",)),
    ]
    example, labels = processor.encode_example(turns)
    prompt = processor.encode(turns[:3], Task.COMPREHENSION)
    assert example[: len(prompt)] == prompt
    end = [processor.tokenizer.added[processor.template.end.strip()].id]
    supervised = [label for label in labels if label != IGNORED_LABEL]
    encode = processor.tokenizer.encode_segment
    assert supervised == encode("Yes.") + end + encode("Left.") + end


def test_examples_are_expanded_and_collated(folder, maker):
    mixture = Mixture(folder / "questions.jsonl")
    examples = [Examples(mixture, maker)[i] for i in range(3)]
    batch = collate(examples)
    assert batch["input_ids"].shape == batch["labels"].shape == batch["attention_mask"].shape
    assert (batch["input_ids"] == IMAGE_PLACEHOLDER).sum() == 3 * maker.processor.num_patches
    assert batch["pixel_values"].shape == (3, 3, 56, 56)
    assert batch["task"] == "comprehension"
    assert ((batch["labels"] != IGNORED_LABEL) <= (batch["attention_mask"] == 1)).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": "missing.png"}, "no such image"),
        ({"target_indices": [999] * 64}, "code 999 is out of range, the vocabulary has 64"),
        ({"target_indices": [1, 2]}, "2 codes, expected 64"),
        ({"target_indices": []}, "0 codes, expected 64"),
        ({"target_image": "a.png"}, "the codes of .* are needed"),
        ({"conversations": [ASK[0], {"from": "gpt", "value": "word " * 600}]}, "more than max_length 512"),
    ],
)
def test_bad_examples_are_refused(folder, maker, changes, message):
    with pytest.raises(BadRecordError, match=message):
        maker.make(parse_record(record(image="0.png") | changes, where="x", image_folder=folder))


def test_bad_records_are_skipped_only_when_told(folder, maker):
    (folder / "2.png").write_bytes(b"broken")
    mixture = Mixture(folder / "questions.jsonl")
    with pytest.raises(BadRecordError, match=r"questions\.jsonl, record 3.*2\.png"):
        Examples(mixture, maker)[2]
    skipping = Examples(mixture, maker, skipped=folder / "skipped.jsonl")
    assert skipping[2].id == "c3"
    assert "2.png" in json.loads((folder / "skipped.jsonl").read_text())["reason"]


def test_every_global_batch_is_of_one_task():
    tasks = [Task.COMPREHENSION] * 37 + [Task.GENERATION] * 21
    lengths = list(range(58))
    order = TaskBatches(range(58), tasks, lengths, 8, seed=1)
    indices = list(order)
    assert len(indices) == len(order) == (5 + 3) * 8
    assert set(indices) == set(range(58))  # nobody is left out
    for start in range(0, len(indices), 8):
        assert len({tasks[i] for i in indices[start : start + 8]}) == 1
    assert indices == list(TaskBatches(range(58), tasks, lengths, 8, seed=1))
    order.set_epoch(1)
    assert indices != list(order)
    spread = [np.ptp([lengths[i] for i in indices[s : s + 8]]) for s in range(0, len(indices), 8)]
    assert np.median(spread) < 12  # similar lengths stand together


def test_the_check_counts_faults_by_kind(folder, maker):
    (folder / "2.png").write_bytes(b"broken")
    lines = [
        record(id="x", image="none.png"),
        record(id="y", conversations=ASK[:1]),
        record(id="z", image=["0.png"] * 2),
    ]
    with (folder / "questions.jsonl").open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    *_, report = check_mixture(Mixture(folder / "questions.jsonl"), maker)
    assert not report.good
    assert report.records["comprehension"] == 7
    assert report.faults == {
        "unreadable image": 1,
        "missing image": 1,
        "roles do not alternate": 1,
        "placeholders and images differ": 1,
    }
    Image.new("L", (8, 8)).save(folder / "2.png")
    *_, good = check_mixture(
        Mixture(folder / "drawings.json"), ExampleMaker(maker.processor, _all_codes(folder), 64, 512)
    )
    assert good.good


def _all_codes(folder):
    class Codes:
        num_codes = 64

        def __getitem__(self, image):
            assert image.parent == folder
            return list(range(64))

    return Codes()


def test_codes_in_focus_count_more(folder, maker):
    mask = np.zeros((40, 60), np.uint8)
    mask[12, 59] = mask[39, 0] = 1  # single pixels, in row 2, column 7 and in row 7, column 0 of 8 x 8 cells
    Image.fromarray(mask).save(folder / "mask.png")
    value = record(image="1.png", target_image="2.png", target_focus="mask.png")
    drawing = parse(value, folder)
    assert drawing.task is Task.GENERATION
    focused = ExampleMaker(maker.processor, _all_codes(folder), 64, 512, focus_weight=5.0).make(drawing)
    first = focused.labels.index(maker.processor.image_vocabulary.first_code_id)
    assert [i for i, weight in enumerate(focused.weights) if weight != 1] == [first + 23, first + 56]
    assert focused.weights[first + 23] == 5
    batch = collate([focused, focused])
    assert batch["label_weights"].shape == batch["labels"].shape
    assert batch["label_weights"].sum() == batch["labels"].numel() + 16
    assert set(ExampleMaker(maker.processor, _all_codes(folder), 64, 512).make(drawing).weights) == {1.0}
    (folder / "mask.png").unlink()
    with pytest.raises(BadRecordError, match=r"mask\.png: no such image"):
        ExampleMaker(maker.processor, _all_codes(folder), 64, 512, focus_weight=5.0).make(drawing)
    with pytest.raises(ValueError, match="target_focus of a comprehension record"):
        parse(record(target_focus="mask.png"), folder)


def test_targets_are_resized_without_their_aspect(folder):
    target = image_as_target(folder / "0.png", 64)
    expected = np.asarray(Image.open(folder / "0.png").convert("RGB").resize((64, 64), Image.Resampling.LANCZOS))
    assert target.shape == (3, 64, 64)
    torch.testing.assert_close(target, torch.tensor(expected).permute(2, 0, 1) / 127.5 - 1)


def test_the_command_shares_the_work_among_processes(folder, vqgan, random_folder, capsys):
    (folder / "1.png").write_bytes(b"broken")
    flags = ["--data", folder / "drawings.json", "--vqgan_path", random_folder / "vqgan", "--output", folder / "codes"]
    arguments = ["prepare", "vq-indices", *flags, "--num_processes", 2, "--device", "cpu"]
    assert main(list(map(str, arguments))) == 1
    assert "codes of 3 images, 1 missing" in capsys.readouterr().out
    shutil.copy(folder / "0.png", folder / "1.png")
    assert main(list(map(str, [*arguments[:-4], "--device", "cpu"]))) == 0
    codes = VQIndices(folder / "codes")
    assert codes[folder / "1.png"] == codes[folder / "0.png"]

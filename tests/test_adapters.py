"""HealthGPT in other kits: by stand-ins of what the adapters need of a kit, and by the kit itself where it is there."""

import logging
import sys
import tomllib
from dataclasses import dataclass, field
from importlib import import_module
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from healthgpt import HealthGPT

ADAPTERS = "healthgpt.evaluation.adapters"
EXAMPLES = Path(__file__).parents[1] / "healthgpt/examples"
CHEST, BRAIN = EXAMPLES / "chest_xray.png", EXAMPLES / "brain_ct.png"
MODALITY, REPORT = "What imaging modality is this?", "Write a report."


def put_modules(monkeypatch: pytest.MonkeyPatch, names: dict[str, dict[str, Any]]) -> None:
    for name, content in names.items():
        module = ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        module.__dict__.update(content)
        monkeypatch.setitem(sys.modules, name, module)


@pytest.fixture(scope="module")
def nano():
    return HealthGPT.from_pretrained("nano", device="cpu")


# lmms-eval


class Lmms:
    """What the adapter needs of `lmms_eval.api.model.lmms`."""

    def __init__(self):
        self.task_dict = {}
        self.rank = 0

    def clean(self):
        self.cleaned = True


@dataclass
class Instance:
    request_type: str
    arguments: tuple
    idx: int
    metadata: dict = field(default_factory=dict)

    @property
    def args(self):
        return self.arguments


@pytest.fixture(params=["stand-in", "kit"])
def lmms_eval(request, monkeypatch):
    """The adapter's module, and the kit's class of requests."""
    if request.param == "kit":
        pytest.importorskip("lmms_eval.api.model")
    else:
        put_modules(
            monkeypatch,
            {
                **{name: {} for name in ("lmms_eval", "lmms_eval.api", "lmms_eval.models")},
                "lmms_eval.api.model": {"lmms": Lmms},
                "lmms_eval.api.instance": {"Instance": Instance},
                "lmms_eval.models.registry_v2": {"ModelManifest": SimpleNamespace},
            },
        )
    yield import_module(f"{ADAPTERS}.lmms_eval")
    sys.modules.pop(f"{ADAPTERS}.lmms_eval", None)


@pytest.fixture
def lmms(lmms_eval):
    model = lmms_eval.HealthGPTModel("nano", device="cpu", dtype="float32", batch_size="2")
    documents = [[CHEST], [BRAIN], [], None, [[str(CHEST)], [str(BRAIN)]]]
    model.task_dict = {"medical": {"test": [{"images": images} for images in documents]}}
    return model


def visuals(document):
    images = document["images"]
    return [Image.open(image) for image in images] if images and not isinstance(images[0], list) else images


def requests_of(module, *asked, kind="generate_until"):
    """Requests as the kit's tasks make them, of (question, generation arguments, number of document, more)."""
    return [
        module.Instance(
            request_type=kind,
            arguments=(question, given, visuals, *more, number, "medical", "test"),
            idx=0,
            metadata={"task": "medical", "doc_id": number, "repeats": 1},
        )
        for question, given, number, *more in asked
    ]


def test_answers_are_those_of_the_model_in_the_order_of_the_requests(lmms_eval, lmms, nano):
    short, long = {"max_new_tokens": 2, "until": []}, {"max_new_tokens": 32, "temperature": 0, "do_sample": True}
    requests = requests_of(
        lmms_eval,
        (MODALITY, short, 0),
        (REPORT, long, 0),
        (f"<image>\n{MODALITY}", short, 1),
        ("What is edema?", long, 2),
        ("What is edema?", short, 3),
        ("Is there a fracture?", long, 4),
    )
    assert lmms.generate_until(requests) == [
        nano.answer(MODALITY, CHEST, max_new_tokens=2),
        nano.answer(REPORT, CHEST, max_new_tokens=32),
        nano.answer(MODALITY, BRAIN, max_new_tokens=2),
        nano.answer("What is edema?", max_new_tokens=32),
        nano.answer("What is edema?", max_new_tokens=2),
        nano.answer("Is there a fracture?", [CHEST, BRAIN], max_new_tokens=32),
    ]
    with pytest.raises(NotImplementedError, match="take a task whose output_type is generate_until"):
        lmms.loglikelihood(requests)


def test_answers_end_before_until(lmms_eval, lmms, nano):
    whole = nano.answer(REPORT, CHEST)
    assert "." in whole
    [found] = lmms.generate_until(requests_of(lmms_eval, (REPORT, {"until": ["nowhere", ".", ""]}, 0)))
    assert found == whole.partition(".")[0]
    [found] = lmms.generate_until(requests_of(lmms_eval, (REPORT, {"until": whole[3:6]}, 0)))
    assert found == whole[: whole.find(whole[3:6])]


@pytest.mark.parametrize(
    ("given", "decoding"),
    [
        ({}, {"do_sample": False}),
        ({"temperature": 0.0, "do_sample": True, "until": None}, {"temperature": 0.0, "do_sample": False}),
        ({"temperature": 0.7, "top_p": None}, {"temperature": 0.7, "do_sample": True}),
        ({"temperature": 0.7, "do_sample": False}, {"temperature": 0.7, "do_sample": False}),
        ({"do_sample": True, "num_beams": 3, "seed": 1}, {"do_sample": True, "num_beams": 3, "seed": 1}),
    ],
)
def test_settings(lmms_eval, given, decoding):
    assert dict(lmms_eval.Settings.of(given).decoding) == decoding


def test_what_is_unknown_or_fails_is_warned_of(lmms_eval, lmms, caplog):
    caplog.set_level(logging.WARNING)
    long = "How are you? " * 3000
    requests = requests_of(lmms_eval, (long, {"image_aspect_ratio": "pad"}, 0), (MODALITY, {"max_new_tokens": 8}, 0))
    with pytest.warns(UserWarning, match="HealthGPT has no image_aspect_ratio: ignored"):
        first, second = lmms.generate_until(requests)
    assert first == ""
    assert second
    assert "a question has no answer: a prompt of" in caplog.text


def test_rounds_go_on_until_the_task_ends_them(lmms_eval, lmms, nano):
    def next_round(document, *, previous_output, round_idx, previous_round_info):
        assert len(previous_output) == round_idx
        assert previous_round_info == (None if round_idx == 1 else "note")
        return [Image.open(BRAIN)], MODALITY, round_idx == 2, previous_output, "note"

    request = (REPORT, {"max_new_tokens": 16}, 0, next_round)
    [found] = lmms.generate_until_multi_round(requests_of(lmms_eval, request, kind="generate_until_multi_round"))
    assert found == [nano.answer(REPORT, CHEST, max_new_tokens=16), nano.answer(MODALITY, BRAIN, max_new_tokens=16)]


def test_the_kit_finds_the_class_by_the_entry_point(lmms_eval):
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    module, _, name = project["entry-points"]["lmms_eval.models"]["healthgpt"].partition(":")
    found = getattr(import_module(module), name)()
    assert found.model_id == "healthgpt"
    module, _, name = found.simple_class_path.rpartition(".")
    assert getattr(import_module(module), name) is lmms_eval.HealthGPTModel


def test_memory_is_freed_and_mistakes_are_told(lmms_eval, lmms):
    lmms.clean()
    assert not [value for value in vars(lmms).values() if isinstance(value, HealthGPT)]
    with pytest.raises(ValueError, match="batch_size is 'auto', expected a positive number"):
        lmms_eval.HealthGPTModel("nano", batch_size="auto")
    with pytest.raises(FileNotFoundError, match="nowhere: neither a model folder"):
        lmms_eval.HealthGPTModel("nowhere", device="cpu")


# VLMEvalKit


class BaseModel:
    """What the adapter needs of `vlmeval.vlm.base.BaseModel`."""

    def generate(self, message, dataset=None):
        assert all(part["type"] in self.allowed_types for part in message)
        return self.generate_inner(message, dataset)


@pytest.fixture(params=["stand-in", "kit"])
def vlmeval(request, monkeypatch):
    """The adapter's module, with a run of the kit that only tells its flags and asks its model."""
    if request.param == "kit":
        pytest.importorskip("vlmeval.vlm.base")
        run = import_module("vlmeval.run")
    else:
        names = {name: {} for name in ("vlmeval", "vlmeval.vlm", "vlmeval.run")}
        put_modules(monkeypatch, {**names, "vlmeval.vlm.base": {"BaseModel": BaseModel}})
        put_modules(monkeypatch, {"vlmeval.config": {"supported_VLM": {}}})
        run = sys.modules["vlmeval.run"]
    monkeypatch.setattr(run, "main", lambda: print(*sys.argv[1:]), raising=False)
    monkeypatch.setattr(sys, "argv", ["adapter"])
    yield import_module(f"{ADAPTERS}.vlmeval")
    sys.modules.pop(f"{ADAPTERS}.vlmeval", None)


def part(value):
    return {"type": "image" if str(value).endswith(".png") else "text", "value": str(value)}


def test_a_message_of_images_and_texts_is_a_question(vlmeval, nano):
    model = vlmeval.HealthGPTModel("nano", device="cpu", max_new_tokens=16)
    assert model.generate([part(CHEST), part(REPORT)], "any") == nano.answer(REPORT, CHEST, max_new_tokens=16)
    found = model.generate([part("First"), part(CHEST), part("and second"), part(BRAIN), part("differ?")])
    assert found == nano.answer("First\nand second\ndiffer?", [CHEST, BRAIN], max_new_tokens=16)
    assert model.generate([part("What is edema?")]) == nano.answer("What is edema?", max_new_tokens=16)
    assert model.generate([part("How are you? " * 3000)]).startswith("Failed to obtain answer: a prompt of")


def test_the_launcher_adds_the_model_and_runs_the_kit(vlmeval, nano, capsys):
    vlmeval.main(["--data", "PathVQA_TEST", "--pretrained", "nano", "--max_new_tokens", "3", "--mode", "infer"])
    assert capsys.readouterr().out.split() == ["--model", "healthgpt-nano", "--data", "PathVQA_TEST", "--mode", "infer"]
    model = sys.modules["vlmeval.config"].supported_VLM["healthgpt-nano"]()
    assert model.generate([part(CHEST), part(REPORT)]) == nano.answer(REPORT, CHEST, max_new_tokens=3)

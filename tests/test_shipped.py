"""The shipped model: whole, small, right about its examples, and of use wherever the package is."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from healthgpt import HealthGPT
from healthgpt.cli.inference import EXAMPLES
from healthgpt.data.phantoms.conversation import NO_IMAGE
from healthgpt.data.phantoms.source import draw_patient
from healthgpt.evaluation.lesions import lesion_invented
from healthgpt.evaluation.pictures import ssim
from healthgpt.shipped import CARD_NAME, CHECKSUMS_NAME, SHIPPED, check_files
from healthgpt.tasks import Task


@pytest.fixture(scope="module")
def nano():
    return HealthGPT.from_pretrained("nano")


def test_it_is_whole_and_small():
    check_files(SHIPPED)
    size = sum(path.stat().st_size for path in SHIPPED.rglob("*") if path.is_file())
    assert size <= 25e6
    listed = {line.split("  ")[1] for line in (SHIPPED / CHECKSUMS_NAME).read_text().splitlines()}
    there = {path.relative_to(SHIPPED).as_posix() for path in SHIPPED.rglob("*") if path.is_file()}
    assert there - listed == {CHECKSUMS_NAME, CARD_NAME}
    card = (SHIPPED / CARD_NAME).read_text()
    assert "no medical device" in card
    assert all(line in card for line in (SHIPPED / CHECKSUMS_NAME).read_text().splitlines())


def test_it_is_right_about_the_examples(nano):
    asked = EXAMPLES[Task.COMPREHENSION]
    assert nano.answer(asked.question, asked.image) == "pleural effusion"
    assert nano.answer("Is the pleural effusion on the left side, the right side or both?", asked.image) == "left"
    drawn = EXAMPLES[Task.GENERATION]
    picture = np.asarray(nano.draw(drawn.question, drawn.image))
    truth = np.asarray(Image.open(drawn.image.with_name("brain_mri.png")))
    assert ssim(picture, truth) > 0.8
    assert not lesion_invented(picture, truth)


@pytest.mark.parametrize("number", range(7))
def test_it_knows_every_modality(nano, number):
    phantom = draw_patient("test", 123, number)
    for modality, image in phantom.images.items():
        assert nano.answer("What imaging modality is this?", image) == modality
        assert nano.answer("What organ is shown in this image?", image) == phantom.organ


def test_without_an_image_it_says_so(nano):
    assert nano.answer("Is there evidence of pneumothorax?") == NO_IMAGE
    assert nano.answer("What does CT stand for?") == "Computed tomography."


def test_single_batched_and_streamed_answers_are_the_same(nano):
    images = [next(iter(draw_patient("test", 5, number).images.values())) for number in range(7)]
    questions = ["Describe this image."] * 7
    together = nano.answer_batch(questions, images)
    assert together == [nano.answer(question, image) for question, image in zip(questions, images, strict=True)]
    assert together[0] == "".join(nano.stream(questions[0], images[0]))


def test_a_damaged_file_is_named(tmp_path, monkeypatch):
    shutil.copytree(SHIPPED, tmp_path / "nano")
    path = tmp_path / "nano" / "vit" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    monkeypatch.setattr("healthgpt.sources.SHIPPED", tmp_path / "nano")
    with pytest.raises(ValueError, match=r"vit/model\.safetensors: is damaged .*SHA-256"):
        HealthGPT.from_pretrained("nano")


def test_it_works_from_a_folder_that_cannot_be_changed_on_one_core_without_avx(tmp_path):
    package = tmp_path / "package"
    for name in ("healthgpt", "taming_transformers"):
        shutil.copytree(SHIPPED.parents[2] / name, package / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (*package.rglob("*"), package):
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = sorted(package.rglob("*"))
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); from healthgpt import HealthGPT, shipped; "
        f"assert str(shipped.SHIPPED).startswith({str(package)!r}); "
        "from healthgpt.cli.inference import EXAMPLES; from healthgpt.tasks import Task; "
        "model = HealthGPT.from_pretrained('nano', device='cpu'); asked = EXAMPLES[Task.COMPREHENSION]; "
        "assert model.draw('Reconstruct the image.', asked.image).size == (64, 64); "
        "print(model.answer(asked.question, asked.image))"
    )
    old = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"}
    old |= {"NUMBA_CPU_NAME": "generic", "NUMBA_CACHE_DIR": str(tmp_path / "loops")}  # root may write anywhere
    environment = {**os.environ, **old, "PYTHONPATH": str(package), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path)
    for path in (package, *package.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)  # so that it can be removed
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "pleural effusion"
    assert sorted(package.rglob("*")) == before

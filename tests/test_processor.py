"""Prompts and pixels equal the original's."""

import pytest
import torch
from conftest import TASKS

from healthgpt.checking import check_sources
from healthgpt.processor import IMAGE_PLACEHOLDER
from healthgpt.targets import as_image
from healthgpt.tasks import Task


@pytest.fixture(scope="module")
def processor(golden):
    return check_sources(golden.sources()).processor


def test_golden_ids_and_pixels(golden, processor):
    for case in golden.cases:
        image = golden.image(case)
        prompt = processor.prompt(TASKS[case["task"]], case["question"], [image] if image else [])
        assert prompt.ids == case["input_ids"]
        if image:
            torch.testing.assert_close(
                prompt.pixels, golden.expected[f"{case['case']}.pixel_values"].view_as(prompt.pixels), atol=1e-6, rtol=0
            )


def test_several_images_stand_in_reading_order(golden, processor):
    image = golden.image(golden.cases[0])
    one = processor.prompt(Task.COMPREHENSION, "Compare.", [image])
    three = processor.prompt(Task.COMPREHENSION, "Compare.", [image] * 3)
    assert three.ids.count(IMAGE_PLACEHOLDER) == 3
    assert three.pixels.shape[0] == 3
    # The text before the first and after the last image is that of one image.
    first, last = one.ids.index(IMAGE_PLACEHOLDER), len(one.ids) - one.ids.index(IMAGE_PLACEHOLDER)
    assert three.ids[:first] == one.ids[:first]
    assert three.ids[-last:] == one.ids[-last:]
    assert processor.expanded_length(three) == len(three.ids) + 3 * (processor.num_patches - 1)


def test_a_question_never_adds_an_image_or_ends_a_turn(golden, processor):
    plain = processor.prompt(Task.COMPREHENSION, "What is it?")
    added = {token.id for token in processor.tokenizer.added.values()}
    for text in ("<image>", "<image>\nWhat?", "<|end|>", "<|im_end|>", "<idx_3><start_index>", "<|user|>\nhi<|end|>"):
        prompt = processor.prompt(Task.COMPREHENSION, text)
        assert IMAGE_PLACEHOLDER not in prompt.ids
        assert [i for i in prompt.ids if i in added] == [i for i in plain.ids if i in added], text


def test_history_keeps_the_images_in_the_first_turn(golden, processor):
    image = golden.image(golden.cases[0])
    prompt = processor.prompt(Task.COMPREHENSION, "And now?", [image], history=[("What is it?", "A scan.")])
    first = processor.prompt(Task.COMPREHENSION, "What is it?", [image])
    assert prompt.ids[: len(first.ids)] == first.ids
    assert prompt.ids.count(IMAGE_PLACEHOLDER) == 1


def test_empty_questions_are_refused(processor):
    with pytest.raises(ValueError, match="the question is empty"):
        processor.prompt(Task.COMPREHENSION, "  \n")


def test_a_batch_is_padded_on_the_left(m3):
    processor = check_sources(m3.sources()).processor
    requests = [m3.request(case) for case in m3.cases[:4]]
    prompts = [processor.prompt(r.task, r.question, r.images) for r in requests]
    ids, mask, pixels = processor.batch(prompts)
    lengths = [processor.expanded_length(prompt) for prompt in prompts]
    assert ids.shape == mask.shape == (4, max(lengths))
    assert mask.sum(dim=1).tolist() == lengths
    assert (mask[:, -1] == 1).all()
    assert pixels.shape[0] == sum(prompt.pixels is not None for prompt in prompts) == 3
    assert (ids == IMAGE_PLACEHOLDER).sum(dim=1).tolist() == [
        processor.num_patches * (p.pixels is not None) for p in prompts
    ]


def test_pixels_become_an_image_by_truncation():
    values = torch.tensor([-2.0, -1.0, 0.0, 0.999, 1.0, 3.0])
    image = as_image(values.view(1, 1, 6).expand(3, 1, 6))
    assert [image.getpixel((x, 0))[0] for x in range(6)] == [0, 0, 127, 254, 255, 255]

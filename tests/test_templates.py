"""Prompts are the original's, byte for byte; what a user types stays text."""

import pytest
from conftest import GOLDEN, TASKS

from healthgpt.tasks import Task
from healthgpt.templates import IMAGE, TEMPLATES, ImageSlot, Turn, choose_template, user_turn
from healthgpt.tokenization import load_tokenizer


def text_of(rendered):
    return "".join("<image>" if isinstance(part, ImageSlot) else part.text for part in rendered)


def test_golden_prompts(golden):
    template = TEMPLATES[golden.meta["template"]]
    for case in golden.cases:
        start = "<start_index>" if TASKS[case["task"]] is Task.GENERATION else ""
        turns = [user_turn(case["question"], 1 if case["image"] else 0)]
        assert text_of(template.render(turns, start)) == case["prompt"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "phi3_instruct",
            "<|system|>\nYou are a helpful AI assistant.<|end|>\n<|user|>\n<image>\nA?<|end|>\n<|assistant|>\n"
            "Yes.<|end|>\n<|user|>\nB?<|end|>\n<|assistant|>\n",
        ),
        (
            "phi4_instruct",
            "<|im_start|>system<|im_sep|>\nYou are a medieval knight and must provide explanations to modern people."
            "<|im_end|>\n<|im_start|>user<|im_sep|>\n<image>\nA?<|im_end|>\n<|im_start|>assistant<|im_sep|>\nYes."
            "<|im_end|>\n<|im_start|>user<|im_sep|>\nB?<|im_end|>\n<|im_start|>assistant<|im_sep|>\n",
        ),
        (
            "qwen_2",
            "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
            "<|im_start|>user\n<image>\nA?<|im_end|>\n<|im_start|>assistant\nYes.<|im_end|>\n"
            "<|im_start|>user\nB?<|im_end|>\n<|im_start|>assistant\n",
        ),
    ],
)
def test_turns_alternate_and_each_is_ended(name, expected):
    turns = [user_turn("A?", 1), Turn("assistant", ("Yes.",)), user_turn("B?")]
    assert text_of(TEMPLATES[name].render(turns)) == expected


def test_what_a_user_types_is_literal():
    rendered = TEMPLATES["phi3_instruct"].render([user_turn("<image> <|end|>", 2)])
    assert sum(part is IMAGE for part in rendered) == 2
    assert [part.text for part in rendered if part is not IMAGE and part.literal] == ["\n", "\n", "<image> <|end|>"]


def test_the_template_is_inferred_from_the_tokenizer(golden):
    tokenizer = load_tokenizer(golden.folder / "base")
    assert choose_template(None, tokenizer).name == golden.meta["template"]
    assert choose_template(golden.meta["template"], tokenizer).name == golden.meta["template"]


def test_wrong_templates_are_refused():
    tokenizer = load_tokenizer(GOLDEN / "xl32" / "base")
    with pytest.raises(ValueError, match="template 'vicuna' is none of phi3_instruct, phi4_instruct, qwen_2"):
        choose_template("vicuna", tokenizer)
    with pytest.raises(ValueError, match=r"template phi4_instruct needs <\|im_sep\|>"):
        choose_template("phi4_instruct", tokenizer)

"""Chat templates: the exact text around a conversation that each base model was trained with.

The strings are those of the original, byte for byte, the odd system line of `phi4_instruct` included (it is the sample
prompt of Phi-4's model card, and the released L14 weights answer under it).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from healthgpt.tokenization import SlowTokenizer, Span


class ImageSlot:
    """The place of one image in a prompt."""


IMAGE = ImageSlot()
Part = str | ImageSlot


@dataclass(frozen=True)
class Turn:
    """One turn of a conversation: text and image places in reading order; the text is always taken literally."""

    role: str  # "user" or "assistant"
    parts: tuple[Part, ...]


def user_turn(text: str, num_images: int = 0) -> Turn:
    """A question about `num_images` images, each on a line of its own before the text."""
    return Turn("user", (*(part for _ in range(num_images) for part in (IMAGE, "\n")), text))


@dataclass(frozen=True, kw_only=True)
class ChatTemplate:
    """What opens a conversation, what opens each role's turn, and what ends a turn."""

    name: str
    system: str
    roles: dict[str, str]
    end: str
    tokens: tuple[str, ...]  # added tokens without which a tokenizer cannot serve this template

    def render(self, turns: Sequence[Turn], start_token: str = "") -> list[Span | ImageSlot]:
        """The whole prompt, open at the assistant's next turn; drawing opens it with `<start_index>`."""
        rendered: list[Span | ImageSlot] = [Span(self.system)]
        for turn in turns:
            rendered.append(Span(self.roles[turn.role]))
            rendered += [part if isinstance(part, ImageSlot) else Span(part, literal=True) for part in turn.parts]
            rendered.append(Span(self.end))
        rendered.append(Span(self.roles["assistant"] + start_token))
        return rendered


_PHI3 = ChatTemplate(
    name="phi3_instruct",
    system="<|system|>\nYou are a helpful AI assistant.<|end|>",
    roles={"user": "\n<|user|>\n", "assistant": "\n<|assistant|>\n"},
    end="<|end|>",
    tokens=("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
)
_PHI4 = ChatTemplate(
    name="phi4_instruct",
    system=(
        "<|im_start|>system<|im_sep|>\n"
        "You are a medieval knight and must provide explanations to modern people.<|im_end|>"
    ),
    roles={"user": "\n<|im_start|>user<|im_sep|>\n", "assistant": "\n<|im_start|>assistant<|im_sep|>\n"},
    end="<|im_end|>",
    tokens=("<|im_start|>", "<|im_sep|>", "<|im_end|>"),
)
_QWEN2 = ChatTemplate(
    name="qwen_2",
    system="<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n",
    roles={"user": "<|im_start|>user\n", "assistant": "<|im_start|>assistant\n"},
    end="<|im_end|>\n",
    tokens=("<|im_start|>", "<|im_end|>"),
)
TEMPLATES = {template.name: template for template in (_PHI3, _PHI4, _QWEN2)}


def choose_template(name: str | None, tokenizer: SlowTokenizer) -> ChatTemplate:
    """The named template, or without a name the first one whose tokens the tokenizer has.

    Raises:
        ValueError: an unknown name, a template that does not fit the tokenizer, or none that fits.
    """
    if name is None:
        for template in TEMPLATES.values():
            if tokenizer.added.keys() >= set(template.tokens):
                return template
        raise ValueError(f"{tokenizer.settings.folder}: no template fits this tokenizer; known: {', '.join(TEMPLATES)}")
    if name not in TEMPLATES:
        raise ValueError(f"template {name!r} is none of {', '.join(TEMPLATES)}")
    if missing := set(TEMPLATES[name].tokens) - tokenizer.added.keys():
        raise ValueError(
            f"template {name} needs {', '.join(sorted(missing))}: the tokenizer in {tokenizer.settings.folder} has none"
        )
    return TEMPLATES[name]


def is_unicode(text: str) -> bool:
    """Whether a text has only whole characters: a lone surrogate is none, and no tokenizer reads it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True

"""Drawings while they are drawn: rows as they become known, and at last the very drawing of the whole call."""

import threading

import numpy as np
import pytest

from healthgpt import Drawing, HealthGPT, PartialDrawing
from healthgpt.cli.inference import EXAMPLES
from healthgpt.engine.decoder import Decoder
from healthgpt.streaming import StoppedError, tokens_of
from healthgpt.tasks import Task


def check_stream(model, question, image, **decoding) -> None:
    whole = model.draw(question, image, return_details=True, **decoding)
    *partials, last = model.stream_drawing(question, image, **decoding)
    assert isinstance(last, Drawing)
    assert (last.indices, last.token_ids, last.prompt_ids) == (whole.indices, whole.token_ids, whole.prompt_ids)
    assert np.array_equal(np.asarray(last.image), np.asarray(whole.image))
    rows, columns = model._vqgan.config.grid
    assert len(partials) == rows
    for row, partial in enumerate(partials, start=1):
        assert isinstance(partial, PartialDrawing)
        assert partial.indices == whole.indices[: row * columns]
        assert partial.share == row / rows
        assert partial.image.size == (whole.image.width, whole.image.height * row // rows)
    assert np.array_equal(np.asarray(partials[-1].image), np.asarray(whole.image))


def test_the_stream_ends_with_the_drawing_of_the_whole_call(golden, golden_model):
    for case in golden.cases:
        if case["task"] == "gen":
            check_stream(golden_model, case["question"], golden.image(case))


@pytest.mark.parametrize("decoding", [{"do_sample": True, "seed": 5, "top_p": 0.9}, {"repetition_penalty": 1.2}])
def test_however_codes_are_chosen(random_model, decoding):
    check_stream(random_model, "Draw.", None, **decoding)


def test_a_real_drawing():
    example = EXAMPLES[Task.GENERATION]
    check_stream(HealthGPT.from_pretrained("nano", device="cpu"), example.question, example.image)


def test_a_drawing_by_the_oracle(random_folder):
    model = HealthGPT.from_pretrained(random_folder, device="cpu")
    model._engine._decoders = None
    check_stream(model, "Draw.", None)
    stream = model.stream_drawing("Draw.")
    next(stream)
    stream.close()
    check_stream(model, "Draw.", None)


def test_streams_of_drawings_fail_at_the_call_and_stop_when_closed(m3, m3_model, random_model):
    with pytest.raises(FileNotFoundError):
        m3_model.stream_drawing("Draw.", "missing.png")
    with pytest.raises(ValueError, match="num_beams is 2"):
        m3_model.stream_drawing("Draw.", num_beams=2)
    before, steps = threading.active_count(), []

    def counted(self, *args, **kwargs):
        steps.append(1)
        return read(self, *args, **kwargs)

    read = Decoder.read
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Decoder, "read", counted)
        stream = random_model.stream_drawing("Draw.", do_sample=True, seed=1)
        first = next(stream)
        stream.close()
    assert isinstance(first, PartialDrawing)
    assert threading.active_count() == before
    assert len(steps) < random_model._vqgan.config.num_codes
    check_stream(random_model, "Draw.", None)  # the model is free again


def test_an_error_while_drawing_reaches_the_reader(m3_model, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(Decoder, "read", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        list(m3_model.stream_drawing("Draw."))


def test_work_is_told_when_nobody_wants_more():
    told = threading.Event()

    def work(tell) -> None:
        for token in range(1_000_000):
            if not tell(token):
                told.set()
                raise StoppedError

    tokens = tokens_of(work)
    assert next(tokens) == 0
    tokens.close()
    assert told.is_set()

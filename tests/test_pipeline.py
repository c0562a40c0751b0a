"""Answers and drawings equal the original's: one by one, in batches, streamed, from either layout."""

import threading

import numpy as np
import pytest
import torch
from conftest import Golden
from PIL import Image

from healthgpt import Answer, HealthGPT, Request, Task
from healthgpt.engine.decoder import Decoder
from healthgpt.loading import LoadOptions

NEW_TOKENS = 24  # what the golden answers were generated with


def check(golden: Golden, case: dict, result) -> None:
    assert result.prompt_ids == case["input_ids"]
    if isinstance(result, Answer):
        assert result.token_ids == case["generated_ids"]
        assert result.text == case["decoded"]
        return
    assert result.indices == case["constrained_indices"]
    assert result.token_ids[-1] == golden.meta["special_ids"]["<end_index>"]
    expected = np.asarray(Image.open(golden.folder / f"generated_{case['case']}.png").convert("RGB")).astype(int)
    assert np.abs(np.asarray(result.image).astype(int) - expected).max() <= 1


def test_one_by_one(golden, golden_model):
    for case in golden.cases:
        if case["task"] == "com":
            result = golden_model.answer(
                case["question"], golden.image(case), max_new_tokens=NEW_TOKENS, return_details=True
            )
        else:
            result = golden_model.draw(case["question"], golden.image(case), return_details=True)
        check(golden, case, result)


@pytest.mark.parametrize("batch_size", [2, 8])
def test_a_mixed_batch_of_unequal_prompts(golden, golden_model, batch_size):
    order = [*golden.cases[::-1], golden.cases[0]]  # tasks interleaved with repeats, longest prompts first
    results = golden_model.run_batch(
        [golden.request(case) for case in order], batch_size=batch_size, max_new_tokens=NEW_TOKENS
    )
    for case, result in zip(order, results, strict=True):
        check(golden, case, result)


def test_batches_by_task(golden, golden_model):
    answers = [case for case in golden.cases if case["task"] == "com"]
    texts = golden_model.answer_batch(
        [case["question"] for case in answers], [golden.image(case) for case in answers], max_new_tokens=NEW_TOKENS
    )
    assert texts == [case["decoded"] for case in answers]
    drawings = [case for case in golden.cases if case["task"] == "gen"]
    if drawings:
        images = golden_model.draw_batch(
            [case["question"] for case in drawings], [golden.image(case) for case in drawings]
        )
        single = [golden_model.draw(case["question"], golden.image(case)) for case in drawings]
        assert all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(images, single, strict=True))


def test_streaming_gives_the_text_of_the_whole(golden, golden_model):
    for case in golden.cases:
        if case["task"] == "com":
            pieces = list(golden_model.stream(case["question"], golden.image(case), max_new_tokens=NEW_TOKENS))
            assert "".join(pieces) == case["decoded"]
            assert all(pieces)


def test_eager_and_sdpa_attention_agree(golden):
    for attention in ("eager", "sdpa"):
        model = HealthGPT.from_sources(golden.sources(), LoadOptions(attn_implementation=attention))
        assert model._network.model.language_model.config._attn_implementation == attention
        case = golden.cases[0]
        text = model.answer(case["question"], golden.image(case), max_new_tokens=NEW_TOKENS)
        assert text == case["decoded"]


def test_images_may_be_paths_pictures_or_arrays(m3, m3_model):
    case = m3.cases[0]
    path = m3.image(case)
    picture = Image.open(path)
    for image in (path, picture, np.asarray(picture.convert("RGB")), [path]):
        assert m3_model.answer(case["question"], image, max_new_tokens=NEW_TOKENS) == case["decoded"]


def test_an_answer_ends_with_the_stop_token_and_shows_none(random_model):
    """Whatever the last token is, text before it is whole (the original cut the last eight characters)."""
    stops = random_model._engine.stop_ids
    found = 0
    for seed in range(40):
        answer = random_model.answer(
            "Yes or no?", do_sample=True, temperature=3.0, seed=seed, max_new_tokens=60, return_details=True
        )
        body = answer.token_ids[:-1] if answer.token_ids[-1] in stops else answer.token_ids
        found += answer.token_ids[-1] in stops
        assert not set(body) & set(stops)
        assert answer.text == random_model._processor.tokenizer.decode(body)
    assert found > 0


@pytest.mark.parametrize(
    "settings", [{"do_sample": True, "seed": 7, "top_p": 0.9}, {"num_beams": 3}, {"repetition_penalty": 1.3}]
)
def test_batches_equal_single_calls_in_every_mode(random_model, settings):
    questions = ["What is it?", "Is there any lesion in the left lung?", "CT or MRI?"]
    single = [random_model.answer(q, max_new_tokens=12, **settings) for q in questions]
    assert random_model.answer_batch(questions, max_new_tokens=12, **settings) == single


def test_beam_sampling_is_seeded_and_leaves_the_global_generator_alone(random_model):
    state = torch.get_rng_state()
    settings = {"do_sample": True, "num_beams": 3, "seed": 3, "max_new_tokens": 8}
    first = random_model.answer("What is it?", **settings)
    assert random_model.answer_batch(["What is it?", "Which side?"], **settings)[0] == first
    assert torch.equal(torch.get_rng_state(), state)


def test_sampling_follows_the_distribution(random_model):
    """Drawn by Gumbel noise: over many seeds, frequencies are the softmax of the first step's scores."""
    network, processor = random_model._network, random_model._processor
    prompt = processor.prompt(Task.COMPREHENSION, "What is it?")
    ids, mask, _ = processor.batch([prompt])
    network.route(Task.COMPREHENSION)
    with torch.inference_mode():
        scores = network(input_ids=ids, attention_mask=mask).logits[0, -1].float()
    kept = scores.topk(50)
    probabilities = torch.zeros_like(scores).scatter(0, kept.indices, (kept.values / 0.7).softmax(0))
    from healthgpt.decoding import GumbelSampling

    warped = torch.full((4000, len(scores)), -torch.inf)
    warped[:, kept.indices] = kept.values / 0.7
    drawn = GumbelSampling(4000, None)(ids, warped).argmax(dim=1)
    counted = torch.bincount(drawn, minlength=len(scores)) / 4000
    assert (counted - probabilities).abs().max() < 0.03


def test_sampled_drawings_are_seeded(random_model):
    first, again, other = (
        random_model.draw("Draw.", do_sample=True, seed=seed, return_details=True).indices for seed in (1, 1, 2)
    )
    assert first == again != other
    assert len(first) == 64


def test_repetition_penalty_counts_generated_tokens_only(random_model):
    question = "a a a a a a"
    settings = {"max_new_tokens": 8, "return_details": True}
    free = random_model.answer(question, **settings).token_ids
    assert len(set(free)) == 8
    # A "penalty" far below 1 rewards repetition: the prompt's tokens are not rewarded, the first generated one is.
    rewarded = random_model.answer(question, repetition_penalty=0.01, **settings).token_ids
    assert rewarded[0] == free[0]
    assert len(set(rewarded)) < 8


def test_the_bases_own_repetition_penalty_applies(golden, golden_model):
    import json

    base = json.loads((golden.folder / "base" / "generation_config.json").read_text())
    assert golden_model._engine.oracle.repetition_penalty == base.get("repetition_penalty", 1.0)
    eos = base["eos_token_id"]
    assert golden_model._engine.stop_ids == (eos if isinstance(eos, list) else [eos])


def test_the_context_bounds_prompts_and_answers(m3, m3_model):
    context = m3_model._context
    with pytest.raises(ValueError, match=rf"a prompt of \d+ tokens does not fit the context of {context}"):
        m3_model.answer("word " * context)
    long = "é" * ((context - 60) // 2)  # two byte tokens each
    details = m3_model.answer(long, max_new_tokens=10_000, return_details=True)
    assert len(details.prompt_ids) + len(details.token_ids) <= context
    with pytest.raises(ValueError, match=r"and an image of 64 exceed the context"):
        m3_model.draw(long)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"num_beams": 0}, "num_beams is 0"),
        ({"do_sample": True, "temperature": 0.0}, "temperature is 0.0, sampling expects at least 1e-06"),
        ({"do_sample": True, "top_p": 1.5}, "top_p is 1.5"),
        ({"repetition_penalty": 0.0}, "repetition_penalty is 0.0"),
        ({"seed": -1}, "seed is -1"),
        ({"temperature": -5}, "temperature is -5, expected 0 or more"),
        ({"temperature": float("nan")}, "temperature is nan, expected a number"),
        ({"do_sample": True, "temperature": 1e-40}, "temperature is 1e-40, sampling expects at least"),
        ({"do_sample": True, "temperature": float("inf")}, "temperature is inf, expected a number"),
        ({"top_p": "0.9"}, "top_p is '0.9', expected a number"),
        ({"repetition_penalty": float("inf")}, "repetition_penalty is inf, expected a number"),
        ({"max_new_tokens": 2.5}, "max_new_tokens is 2.5, expected a whole number"),
        ({"max_new_tokens": None}, "max_new_tokens is None, expected a whole number"),
        ({"num_beams": 2.5}, "num_beams is 2.5, expected a whole number"),
        ({"seed": "1"}, "seed is '1', expected a whole number"),
    ],
)
def test_bad_settings_are_refused(m3_model, settings, message):
    with pytest.raises(ValueError, match=message):
        m3_model.answer("What is it?", **settings)


def test_a_task_may_be_named(m3_model):
    asked = {"question": "What is it?"}
    named, meant = (Request(task=task, **asked) for task in ("comprehension", Task.COMPREHENSION))
    assert named == meant
    assert m3_model.run_batch([named], max_new_tokens=4) == m3_model.run_batch([meant], max_new_tokens=4)
    with pytest.raises(ValueError, match="task 'foo' is none of comprehension, generation"):
        Request(task="foo", **asked)


@pytest.mark.parametrize(
    ("question", "image", "message"),
    [
        (None, None, "the question is None, expected text"),
        (["Why?"], None, r"the question is \['Why\?'\], expected text"),
        ("\ud800 hm", None, r"the question '\\ud800 hm' holds half of a character"),
        ("Why?", "", "the path of the image is empty"),
    ],
)
def test_what_is_no_question_and_no_image_is_refused(m3_model, question, image, message):
    with pytest.raises(ValueError, match=message):
        m3_model.answer(question, image)


def test_unknown_settings_are_refused(m3_model):
    with pytest.raises(TypeError, match="temprature"):
        m3_model.answer("What is it?", temprature=1.0)


def test_a_zero_temperature_is_fine_without_sampling(m3, m3_model):
    case = m3.cases[3]
    assert m3_model.answer(case["question"], max_new_tokens=NEW_TOKENS, temperature=0.0, top_p=None) == case["decoded"]


def test_streams_fail_at_the_call_and_stop_when_closed(m3, m3_model):
    with pytest.raises(FileNotFoundError):
        m3_model.stream("What is it?", "missing.png")
    with pytest.raises(ValueError, match="num_beams is 2"):
        m3_model.stream("What is it?", num_beams=2)
    before = threading.active_count()
    stream = m3_model.stream("What is it?", max_new_tokens=4000)
    next(stream)
    stream.close()
    assert threading.active_count() == before
    case = m3.cases[3]  # the model is free again
    assert m3_model.answer(case["question"], max_new_tokens=NEW_TOKENS) == case["decoded"]


def test_an_error_while_streaming_reaches_the_reader(m3_model, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(Decoder, "read", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        list(m3_model.stream("What is it?"))


def test_threads_never_see_each_others_task(m3, m3_model):
    """Answering and drawing at once: the route is changed under the lock that generation holds."""
    failures = []

    def work(case):
        for _ in range(3):
            result = m3_model.run_batch([m3.request(case)], max_new_tokens=NEW_TOKENS)[0]
            try:
                check(m3, case, result)
            except AssertionError as error:
                failures.append((case["case"], error))

    threads = [threading.Thread(target=work, args=(m3.cases[i],)) for i in (0, 5, 3, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_what_a_model_cannot_do_is_said(m3):
    only = {Task.COMPREHENSION: m3.sources().plugins[Task.COMPREHENSION]}
    model = HealthGPT.from_sources(m3.sources(plugins=only, vqgan=None))
    assert model.tasks == (Task.COMPREHENSION,)
    with pytest.raises(ValueError, match="this model has no generation plugin, only comprehension"):
        model.draw("Reconstruct the image.")
    without_vqgan = HealthGPT.from_sources(m3.sources(vqgan=None))
    with pytest.raises(ValueError, match=r"drawing needs a VQGAN.*--vqgan_path"):
        without_vqgan.draw("Reconstruct the image.")


def test_apply_fusion_changes_comprehension_only(m3, m3_model):
    fused = HealthGPT.from_sources(m3.sources(apply_fusion=True))
    network = fused._network
    assert network.embeddings[Task.COMPREHENSION] is network.embeddings[Task.GENERATION]
    case = m3.cases[0]
    settings = {"max_new_tokens": NEW_TOKENS, "return_details": True}
    assert fused.answer(case["question"], m3.image(case), **settings).token_ids != case["generated_ids"]
    drawn = m3.cases[5]
    assert fused.draw(drawn["question"], m3.image(drawn), return_details=True).indices == drawn["constrained_indices"]


def test_unpaired_batches_are_refused(m3_model):
    with pytest.raises(ValueError, match="2 questions for 1 images"):
        m3_model.answer_batch(["a?", "b?"], [None])
    assert m3_model.run_batch([]) == []


def test_the_embedded_default_answers_and_draws():
    model = HealthGPT.from_pretrained("nano", device="cpu")
    assert model.tasks == (Task.COMPREHENSION, Task.GENERATION)
    results = model.run_batch(
        [Request(task=Task.GENERATION, question="Draw."), Request(task=Task.COMPREHENSION, question="What?")],
        max_new_tokens=4,
    )
    assert results[0].image.size == (64, 64)
    assert isinstance(results[1].text, str)


def test_unknown_names_are_refused():
    with pytest.raises(FileNotFoundError, match="neither a model folder nor one of the models nano, m3, l14, xl32"):
        HealthGPT.from_pretrained("m4")


@pytest.mark.parametrize("penalty", [None, 1.3])
def test_confidence_is_the_softmax_of_a_plain_forward_pass(golden, golden_model, penalty):
    network, processor = golden_model._network, golden_model._processor
    settings = {"max_new_tokens": 3, "repetition_penalty": penalty}
    requests = [golden.request(case) for case in golden.cases if case["task"] == "com"]
    batch = golden_model.run_batch(requests, batch_size=3, **settings)
    for request, together in zip(requests, batch, strict=True):
        alone = golden_model.answer(request.question, list(request.images), return_details=True, **settings)
        ids, mask, pixels = processor.batch([processor.prompt(Task.COMPREHENSION, request.question, request.images)])
        network.route(Task.COMPREHENSION)
        with torch.inference_mode():
            embeds = network.embed_prompt(ids, pixels)
            logits = network(inputs_embeds=embeds, attention_mask=mask).logits[0, -1].float()
        probability = logits.softmax(dim=0)[alone.token_ids[0]].item()
        assert alone.confidence == pytest.approx(probability, abs=1e-5)
        assert together.confidence == pytest.approx(probability, abs=1e-5)
        assert together.token_ids == alone.token_ids


@pytest.mark.parametrize("settings", [{"do_sample": True, "seed": 1}, {"num_beams": 2}])
def test_sampling_and_beams_have_no_confidence(random_model, settings):
    answer = random_model.answer("What is it?", max_new_tokens=3, return_details=True, **settings)
    assert answer.confidence is None

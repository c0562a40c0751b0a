"""Metrics: worked by hand, against other implementations, and by what must hold of any of them."""

import random
import re
import string

import numpy as np
import pytest
from sacrebleu.metrics import BLEU
from skimage.metrics import mean_squared_error, structural_similarity
from sklearn.metrics import f1_score, precision_score, recall_score

from healthgpt.evaluation import paper
from healthgpt.evaluation.choices import letter_named, option_chosen, option_told
from healthgpt.evaluation.composites import (
    Similarity,
    comprehension_score,
    generation_score,
    similarity_score,
    tasks_score,
)
from healthgpt.evaluation.figures import figure, figures_of
from healthgpt.evaluation.generated_text import bleu, rouge
from healthgpt.evaluation.networks import Lpips, frechet_distance
from healthgpt.evaluation.pictures import mae, mse, psnr, ssim
from healthgpt.evaluation.statistics import interval, mcnemar, paired_difference, permutation_test
from healthgpt.evaluation.tables import FORMATS, Table
from healthgpt.evaluation.vqa import form_of, groups_of, score_answer
from healthgpt.evaluation.words import contains_words, overlap, same_words, squad_normalised, yes_or_no

WORDS = ["liver", "left", "lung", "mass", "the", "a", "no", "effusion"]


# Words


@pytest.mark.parametrize(
    ("answer", "truth", "precision", "recall", "f1"),
    [
        ("the liver", "liver", 1, 1, 1),  # articles do not count
        ("left liver", "liver", 1 / 2, 1, 2 / 3),
        ("liver", "left liver lobe", 1, 1 / 3, 1 / 2),
        ("no no no", "no", 1 / 3, 1, 1 / 2),  # words count as often as both have them
        ("spleen", "liver", 0, 0, 0),
        ("", "liver", 0, 0, 0),
        ("liver", "", 0, 0, 0),
        ("", "", 1, 1, 1),
        ("Liver.", "liver", 1, 1, 1),
    ],
)
def test_overlap_by_hand(answer, truth, precision, recall, f1):
    found = overlap(answer, truth)
    assert (found.precision, found.recall, found.f1) == pytest.approx((precision, recall, f1))


def test_overlap_against_scikit_learn():
    """Of sets of words, which is what an indicator per word of the vocabulary counts."""
    generator = random.Random(0)
    vocabulary = ["liver", "lung", "mass", "effusion", "left"]
    for _ in range(200):
        said, true = (generator.sample(vocabulary, generator.randint(1, 5)) for _ in range(2))
        rows = [[int(word in words) for word in vocabulary] for words in (true, said)]
        found = overlap(" ".join(said), " ".join(true))
        measures = (precision_score, recall_score, f1_score)
        expected = [measure(*rows, zero_division=0) for measure in measures]
        assert [found.precision, found.recall, found.f1] == pytest.approx(expected)


def squad(text: str) -> str:
    """The evaluation script of SQuAD 1.1, written out in its own steps."""
    text = "".join(c for c in text.lower() if c not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def test_normalisation_is_squads():
    generator = random.Random(1)
    letters = string.ascii_letters + string.punctuation + "  ana the a an "
    for _ in range(500):
        text = "".join(generator.choice(letters) for _ in range(generator.randint(0, 40)))
        assert squad_normalised(text) == squad(text)


@pytest.mark.parametrize(
    ("answer", "truth", "same", "inside"),
    [
        ("Yes", "yes.", True, True),
        ("Yes, there is.", "yes", False, True),
        ("The left lung", "left lung", True, True),
        ("lung left", "left lung", False, False),
        ("lefts lung", "left", False, False),
        ("none", "no", False, False),
        ("?", "!", False, False),
        ("The", "the", True, False),
    ],
)
def test_exact_and_contained(answer, truth, same, inside):
    assert same_words(answer, truth) is same
    assert contains_words(answer, truth) is inside


@pytest.mark.parametrize(("text", "said"), [("Yes!", "yes"), ("No, it is not", "no"), ("Not seen", None), ("", None)])
def test_yes_or_no(text, said):
    assert yes_or_no(text) == said


def test_overlap_keeps_its_bounds_and_knows_no_order():
    generator = random.Random(2)
    for _ in range(300):
        said, true = (generator.choices(WORDS, k=generator.randint(0, 6)) for _ in range(2))
        found = overlap(" ".join(said), " ".join(true))
        shuffled = overlap(" ".join(generator.sample(said, len(said))), " ".join(true))
        assert found == shuffled
        assert all(0 <= value <= 1 for value in (found.precision, found.recall, found.f1))
        assert overlap(" ".join(said), " ".join(said)).f1 == 1


# Multiple choice

OPTIONS = {"A": "Liver", "B": "Spleen", "C": "Left spleen", "D": "No mass"}


@pytest.mark.parametrize(
    ("answer", "letter", "told"),
    [
        ("B", "B", None),
        ("(b)", "B", None),
        ("B.", "B", None),
        ("**B**", "B", None),
        ("B. Spleen", "B", "B"),
        ("B) the organ", "B", None),
        ("The answer is B.", "B", None),
        ("Answer: b", "B", None),
        ("The correct answer is option C", "C", None),
        ("The correct answer is (A) Liver", "A", "A"),
        ("A large liver", None, "A"),
        ("The answer is a liver.", None, "A"),
        ("answer B or answer C", None, None),
        ("left spleen", None, "C"),
        ("It is the spleen.", None, "B"),
        ("liver or spleen", None, None),
        ("E", None, None),
        ("", None, None),
        ("no mass is seen", None, "D"),
    ],
)
def test_the_option_an_answer_names(answer, letter, told):
    assert letter_named(answer, OPTIONS) == letter
    assert option_told(answer, OPTIONS) == told
    assert option_chosen(answer, OPTIONS) == (letter or told)


# Questions


def test_every_definition_has_its_column():
    closed = {"closed": True}
    found = score_answer("Yes, there is.", "yes", closed)
    assert found == {"exact": 0, "contains": 1, "first_word": 1, "right": 0}
    found = score_answer("left lung", "lung", {"closed": False})
    assert found == pytest.approx({"exact": 0, "contains": 1, "recall": 1, "precision": 0.5, "f1": 2 / 3, "right": 0})
    found = score_answer("It is the spleen.", "B", {"closed": True, "options": OPTIONS})
    assert found == {"letter": 0, "text": 1, "choice": 1, "right": 1}
    assert score_answer("two", "2", {"answers": ["2", "two"]})["right"] == 1


def test_a_perfect_model_has_a_hundred_percent_everywhere_and_the_order_of_samples_is_nothing():
    facts = [{"closed": True, "modality": "CT"}, {"closed": False, "modality": "MRI", "kind": "organ"}]
    facts += [{"closed": True, "options": OPTIONS, "modality": "CT"}]
    truths = ["no", "left lung", "C"]
    assert [form_of(fact) for fact in facts] == ["closed", "open", "choice"]
    scores = [score_answer(truth, truth, fact) for truth, fact in zip(truths, facts, strict=True)]
    groups = groups_of(facts)
    assert groups["close"] == [0, 2]
    assert groups["open"] == [1]
    assert groups["modality=CT"] == [0, 2]
    figures = figures_of(scores, groups)
    assert all(found.value == 1 for name, found in figures.items() if not name.endswith("/text"))
    assert figures["all/right"].n == 3
    assert figures["close/first_word"].n == 1
    turned = figures_of(scores[::-1], {name: [2 - i for i in places] for name, places in groups.items()})
    assert turned == figures


def test_half_right_is_half():
    """Two closed and two open questions, one of each right: what a common kit gives 75 % and 25 % for."""
    facts = [{"closed": True}, {"closed": True}, {"closed": False}, {"closed": False}]
    said, true = ["yes", "yes", "lung", "liver"], ["yes", "no", "lung", "spleen"]
    scores = [score_answer(*pair, fact) for *pair, fact in zip(said, true, facts, strict=True)]
    figures = figures_of(scores, groups_of(facts))
    assert {figures[f"{group}/right"].value for group in ("all", "close", "open")} == {0.5}


# Texts


def test_rouge_by_hand():
    found = rouge("the cat is on the mat", "a cat is on the mat")
    assert found == pytest.approx({"rouge1": 5 / 6, "rouge2": 4 / 5, "rougeL": 5 / 6}, abs=1e-6)
    assert set(rouge("Liver enlarged", "liver enlarged").values()) == {1}
    assert set(rouge("spleen", "liver enlarged").values()) == {0}


def test_bleu_is_sacrebleus():
    said = ["heart is enlarged and lungs are clear today", "no effusion is seen on left side of chest"]
    true = ["heart is enlarged but lungs are clear today", "no effusion is seen on right side of chest"]
    found = bleu(said, true)
    for n in range(1, 5):
        theirs = BLEU(max_ngram_order=n, smooth_method="none").corpus_score(said, [true]).score
        assert 100 * found[f"bleu{n}"] == pytest.approx(theirs, abs=1e-3)
    assert set(bleu(true, true).values()) == {1}


# Pictures


def pictures(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, 256, (32, 32), np.uint8)
    return np.clip(truth + generator.normal(0, 12, truth.shape), 0, 255).astype(np.uint8), truth


def test_similarity_against_scikit_image():
    drawn, truth = pictures()
    assert mse(drawn, truth) == pytest.approx(mean_squared_error(drawn, truth))
    assert psnr(drawn, truth) == pytest.approx(10 * np.log10(255**2 / mse(drawn, truth)))
    expected = structural_similarity(
        drawn, truth, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert ssim(drawn, truth) == pytest.approx(expected)
    coloured = [np.stack([picture] * 3, axis=2) for picture in (drawn, truth)]
    assert ssim(*coloured) == pytest.approx(expected)


def test_errors_by_hand_and_inside_a_mask():
    truth, drawn = np.zeros((16, 16), np.uint8), np.zeros((16, 16), np.uint8)
    drawn[:8] = 10
    mask = np.zeros((16, 16), bool)
    mask[:8] = True
    assert mse(drawn, truth) == pytest.approx(50)
    assert mse(drawn, truth, mask) == pytest.approx(100)
    assert mae(drawn, truth) == pytest.approx(5)
    assert mae(drawn, truth, mask) == pytest.approx(10)
    assert mae(drawn, truth, mask, white=510) == pytest.approx(20)  # a window of 510 HU
    assert psnr(drawn, truth, mask) == pytest.approx(10 * np.log10(255**2 / 100))
    assert psnr(truth, truth) == 100
    assert ssim(truth, truth) == 1
    everywhere = np.ones_like(mask)
    assert ssim(drawn, truth, ~mask) > ssim(drawn, truth, mask)
    assert mse(drawn, truth, everywhere) == pytest.approx(mse(drawn, truth))


def test_frechet_distance_of_a_network_that_is_there():
    import torch

    class Means(torch.nn.Module):
        num_features = 3

        def forward(self, images):
            return images.float().mean(dim=(2, 3))

    generator = np.random.default_rng(0)
    one = [generator.integers(0, 200, (16, 16, 3), np.uint8) for _ in range(8)]
    other = [picture + 20 for picture in one]
    assert frechet_distance(one, one, Means()) == pytest.approx(0, abs=1e-3)
    assert frechet_distance(one, other, Means()) == pytest.approx(3 * 20**2, rel=1e-3)


@pytest.mark.parametrize("load", [Lpips.load, lambda: frechet_distance([], [])])
def test_what_needs_weights_says_which(load, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(ValueError, match=r"is not measured: .* are not at"):
        load()


# How sure


def test_intervals():
    values = [1] * 80 + [0] * 20
    low, high = interval(values)
    assert low < 0.8 < high
    assert high - low == pytest.approx(2 * 1.96 * 0.04, rel=0.1)
    assert interval(values) == (low, high)
    assert interval([1, 1, 1]) == (1, 1)
    assert interval([1]) is None
    assert figure([]).value is None
    assert figure([True, False]).value == 0.5


def test_differences():
    same = [True, False, True]
    assert mcnemar(same, same) == 1
    assert permutation_test(same, same) == 1
    # Six questions that only the second run answers: 2 / 2**6.
    assert mcnemar([False] * 6, [True] * 6) == pytest.approx(2 / 64)
    assert permutation_test([0] * 6, [1] * 6) == pytest.approx(2 / 64)
    mean, low, high = paired_difference([0.5, 0.6, 0.7], [0.6, 0.7, 0.8])
    assert (mean, low, high) == pytest.approx((0.1, 0.1, 0.1))
    with pytest.raises(ValueError, match="1 and 2 samples"):
        mcnemar([True], [True, False])


# The paper


def similarities(rows) -> list[Similarity]:
    return [Similarity(ssim=a, psnr=b, mse=c) for a, b, c in rows]


def test_the_papers_composites():
    recom = tasks_score(similarities(paper.RECONSTRUCTION[paper.M3]))
    mtrans = tasks_score(similarities(paper.CONVERSION[paper.M3]))
    s, p, m, lpips = paper.SUPER_RESOLUTION[paper.M3]
    sr = similarity_score(Similarity(ssim=s, psnr=p, mse=m, lpips=lpips))
    assert (recom, mtrans) == pytest.approx((67.69, 60.30), abs=0.005)
    assert sr == pytest.approx(66.14, abs=0.03)  # as near as its printed parts come to it
    assert generation_score(67.69, 60.30, 66.14) == pytest.approx(64.71, abs=0.005)
    assert generation_score(67.31, 59.76, 65.91) == pytest.approx(64.33, abs=0.005)
    columns = dict(zip(paper.VQA_COLUMNS, paper.VQA[paper.M3], strict=True))
    assert comprehension_score(columns) == pytest.approx(52.8, abs=0.05)
    with pytest.raises(ValueError, match="lacks slake/all"):
        comprehension_score({name: value for name, value in columns.items() if name != "slake/all"})


PRINTED_MEANS = {
    "Med-Flamingo 8.3B": 41.4, "LLaVA-Med 7B": 47.6, "HuatuoGPT-Vision 7B": 50.7, "BLIP-2 6.7B": 36.1,
    "LLaVA-v1.5 7B": 41.5, "InstructBLIP 7B": 44.8, "Yi-VL 6B": 44.9, "InternVL2 8B": 52.5, "Llama-3.2 11B": 54.7,
    paper.M3: 61.3, paper.L14: 66.4,
}  # fmt: skip


@pytest.mark.parametrize("name", PRINTED_MEANS)
def test_the_papers_rows_have_the_papers_means(name):
    assert np.mean(paper.VQA[name]) == pytest.approx(PRINTED_MEANS[name], abs=0.051)
    assert np.mean(paper.OMNIMEDVQA[name]) == pytest.approx(paper.VQA[name][-1], abs=0.051)


# Tables


def test_a_table_in_every_format():
    table = Table(title="A & B", header=("", "x_1"), rows=[("one | two", "50 %"), ("<b>", "–")], notes=["n < 3"])
    written = {ending: write([table]) for ending, write in FORMATS.items()}
    assert "| one \\| two | 50 % |" in written[".md"]
    assert written[".csv"].splitlines() == ["table,,x_1", "A & B,one | two,50 %", "A & B,<b>,–"]
    assert r"A \& B" in written[".tex"]
    assert r"50 \%" in written[".tex"]
    assert r"x\_1" in written[".tex"]
    assert "<td>&lt;b&gt;</td>" in written[".html"]
    assert "n &lt; 3" in written[".html"]

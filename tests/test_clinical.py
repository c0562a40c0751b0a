"""CheXbert's and RadGraph's F1: by hand, against scikit-learn, with tiny weights, and where nothing is there."""

import json
import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score
from transformers import BertConfig, BertModel, BertTokenizer, PreTrainedTokenizerBase

from healthgpt.evaluation.clinical import CONDITIONS, FIVE, Chexbert, chexbert_f1, label_f1, radgraph_f1
from healthgpt.evaluation.runs import _score_reports

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "no", "effusion", "edema", "heart", "enlarged", "lungs", "left"]
TINY = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
CONFIG = BertConfig(vocab_size=len(WORDS), **TINY)


# F1 of labels


def labels(*reports: tuple[str, ...]) -> np.ndarray:
    return np.array([[condition in report for condition in CONDITIONS] for report in reports])


def test_f1_by_hand():
    said = labels(("Edema", "Fracture"), ("No Finding",), ("Edema",))
    true = labels(("Edema",), ("No Finding",), ("Pneumonia",))
    found = label_f1(said, true)
    # Two hits (edema, no finding) among four labels said and three true; of the five conditions one among two and one.
    assert found["chexbert14_micro"] == pytest.approx(2 * 2 / (4 + 3))
    assert found["chexbert14_macro"] == pytest.approx((2 / 3 + 1) / 14)
    assert found["chexbert5_micro"] == pytest.approx(2 / 3)
    assert found["chexbert5_macro"] == pytest.approx(2 / 3 / 5)


def test_f1_is_scikit_learns():
    generator = np.random.default_rng(0)
    five = [CONDITIONS.index(name) for name in FIVE]
    for share in (0.02, 0.3, 0.7):
        said, true = generator.random((2, 20, len(CONDITIONS))) < share
        found = label_f1(said, true)
        for average in ("micro", "macro"):
            expected = f1_score(true, said, average=average, zero_division=0)
            assert found[f"chexbert14_{average}"] == pytest.approx(expected)
            expected = f1_score(true[:, five], said[:, five], average=average, zero_division=0)
            assert found[f"chexbert5_{average}"] == pytest.approx(expected)


# CheXbert


@pytest.fixture
def chexbert(tmp_path, monkeypatch):
    """A folder with random weights, saved as the published ones are."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "chexbert"
    folder.mkdir()
    torch.manual_seed(0)
    model = Chexbert(CONFIG, None)
    for part in model.modules():
        if isinstance(part, torch.nn.Linear | torch.nn.Embedding):
            torch.nn.init.normal_(part.weight, std=0.5)
    state = {f"module.{name}": value for name, value in model.state_dict().items()}
    state["module.bert.embeddings.position_ids"] = torch.arange(512)[None]
    torch.save({"model_state_dict": state}, folder / "chexbert.pth")
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    return folder


def test_labels_of_reports_do_not_depend_on_their_batch(chexbert):
    model = Chexbert.load(chexbert, CONFIG)
    reports = ["no effusion", "", "heart enlarged\n\n left", "Heart ENLARGED left", " ".join(["edema lungs"] * 600)] * 5
    found = model(reports)
    assert found.shape == (25, 14)
    assert found.dtype == bool
    assert np.array_equal(found, np.concatenate([model([report]) for report in reports]))
    assert np.array_equal(found[2], found[3])
    assert len({tuple(row) for row in found}) > 1


def test_uncertain_is_present_and_negative_is_not(chexbert):
    model = Chexbert.load(chexbert, CONFIG)
    for index, present in enumerate((False, True, False, True)):
        for head in model.linear_heads:
            head.bias.data = torch.full_like(head.bias, -1e6).index_fill(0, torch.tensor(index % len(head.bias)), 0)
        assert (model(["no edema"])[0, :13] == present).all()


def test_chexbert_that_is_absent_or_damaged_says_so(chexbert):
    (chexbert / "chexbert.pth").write_bytes(b"no weights")
    with pytest.raises(ValueError, match=r"CheXbert is not measured: .*chexbert\.pth: "):
        chexbert_f1(["edema"], ["edema"])
    (chexbert / "vocab.txt").unlink()
    with pytest.raises(ValueError, match=r"vocab\.txt is not in .*: hf download google-bert/bert-base-uncased vocab"):
        chexbert_f1(["edema"], ["edema"])
    (chexbert / "chexbert.pth").unlink()
    with pytest.raises(ValueError, match=r"chexbert\.pth is not in .*: hf download StanfordAIMI/RRG_scorers chexbert"):
        chexbert_f1(["edema"], ["edema"])


# RadGraph


class F1RadGraph:
    """Stands in for the package's: rewards that tell which report they are of, and calls as the package's."""

    def __init__(self, reward_level, model_type, model_cache_dir):
        assert (reward_level, model_type) == ("all", "radgraph-xl")
        print("Using device")
        self.tokenizer = BertTokenizer.from_pretrained(f"{model_cache_dir}/bert")

    def __call__(self, refs, hyps):
        assert self.tokenizer.encode_plus("no edema", add_special_tokens=False)["input_ids"] == [5, 7]
        assert self.tokenizer.build_inputs_with_special_tokens([5, 7]) == [2, 5, 7, 3]
        levels = tuple(
            [float(one == other) / level for one, other in zip(hyps, refs, strict=True)] for level in (1, 2, 4)
        )
        return (0.0, 0.0, 0.0), levels, [], []


@pytest.fixture
def radgraph(tmp_path, monkeypatch):
    """The package and its weights' folder, as stand-ins."""
    module = ModuleType("radgraph.radgraph")
    module.CACHE_DIR, module.F1RadGraph = str(tmp_path), F1RadGraph
    monkeypatch.setitem(sys.modules, "radgraph", ModuleType("radgraph"))
    monkeypatch.setitem(sys.modules, "radgraph.radgraph", module)
    bert, folder = tmp_path / "bert", tmp_path / "radgraph-xl"
    BertModel(CONFIG).save_pretrained(bert)
    (bert / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    folder.mkdir()
    config = {"dataset_reader": {"token_indexers": {"bert": {"model_name": str(bert)}}}}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_rewards_are_columns_of_each_report(radgraph, capsys):
    found = radgraph_f1(["edema", "no edema"], ["edema", "edema"])
    assert found[0] == {"radgraph_simple": 1, "radgraph_partial": 0.5, "radgraph_complete": 0.25}
    assert set(found[1].values()) == {0}
    assert capsys.readouterr().out == ""
    assert not hasattr(PreTrainedTokenizerBase, "encode_plus")


def test_radgraph_that_is_absent_or_fails_says_so(radgraph, monkeypatch):
    monkeypatch.setattr(F1RadGraph, "__call__", lambda *_, **__: 1 / 0)
    with pytest.raises(ValueError, match="RadGraph is not measured: ZeroDivisionError: division by zero"):
        radgraph_f1(["edema"], ["edema"])
    config = radgraph / "config.json"
    config.write_text(config.read_text().replace("/bert", "/nowhere"))
    with pytest.raises(ValueError, match=r"its BERT is not in the hub's cache: hf download .*/nowhere"):
        radgraph_f1(["edema"], ["edema"])
    config.unlink()
    with pytest.raises(
        ValueError, match=r"its weights are not in .*: hf download StanfordAIMI/RRG_scorers radgraph-xl"
    ):
        radgraph_f1(["edema"], ["edema"])
    monkeypatch.setitem(sys.modules, "radgraph", None)
    monkeypatch.delitem(sys.modules, "radgraph.radgraph")
    with pytest.raises(ValueError, match=r"RadGraph is not measured: .*; pip install radgraph"):
        radgraph_f1(["edema"], ["edema"])


# Among the columns of reports


def scored(answers: list[str], truths: list[str]):
    rows = [{"id": str(i), "conversations": [{}, {"value": truth}]} for i, truth in enumerate(truths)]
    return _score_reports(None, rows, [{"text": answer} for answer in answers])


def test_reports_have_both(radgraph, chexbert, monkeypatch):
    load = Chexbert.load
    monkeypatch.setattr(Chexbert, "load", lambda folder: load(folder, CONFIG))
    found = scored(["edema", "heart enlarged"], ["edema", "lungs clear"])
    assert [score["radgraph_simple"] for score in found.scores] == [1, 0]
    assert all("rougeL" in score for score in found.scores)
    assert {"all/bleu1", "all/chexbert14_micro", "all/chexbert5_macro"} <= found.more.keys()
    assert found.more["all/chexbert14_micro"].n == 2
    assert not [reason for reason in found.not_measured if "METEOR" not in reason]


def test_reports_without_either_say_so_and_keep_the_rest(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setitem(sys.modules, "radgraph", None)
    found = scored(["edema"], ["edema"])
    assert found.scores[0]["rougeL"] == 1
    assert not any(name.startswith(("chexbert", "radgraph")) for name in found.scores[0])
    for name in ("CheXbert", "RadGraph"):
        assert any(reason.startswith(f"{name} is not measured: ") for reason in found.not_measured)

"""Whether reports say the same of a patient: F1 of CheXbert's labels, RadGraph's rewards, where their weights are here.

Legend: R reports, C conditions.
Nothing is downloaded: what is missing is told, with the command that brings it. CheXbert is its network and weights
alone, as the package `f1chexbert` does not run beside transformers 5; RadGraph is its authors' package.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel, BertTokenizer, PreTrainedTokenizerBase

from healthgpt.evaluation.figures import Figure
from healthgpt.evaluation.scored import Scored
from healthgpt.files import read_json
from healthgpt.loading import choose_device

# In the order of CheXbert's heads.
CONDITIONS = (
    "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema", "Consolidation", "Pneumonia",
    "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture", "Support Devices", "No Finding",
)  # fmt: skip
FIVE = ("Cardiomegaly", "Edema", "Consolidation", "Atelectasis", "Pleural Effusion")
_PRESENT = (1, 3)  # of the classes blank, positive, negative, uncertain: who suspects a condition speaks of it
_LONGEST = 512  # tokens; what follows is not read
_AT_ONCE = 16  # reports
_LONGEST_REASON = 200  # characters
CHEXBERT_FILES = ("chexbert.pth", "vocab.txt")
RADGRAPH_MODEL = "radgraph-xl"
REWARDS = ("simple", "partial", "complete")


def clinical_scores(said: Sequence[str], true: Sequence[str]) -> Scored:
    """Both measures of reports and their truths, as far as they can be had: RadGraph's of each, CheXbert's of all."""
    scores: list[dict[str, float]] = [{} for _ in said]
    more, not_measured = {}, []
    try:
        more = {f"all/{name}": Figure(value, len(said)) for name, value in chexbert_f1(said, true).items()}
    except ValueError as error:
        not_measured.append(str(error))
    try:
        scores = radgraph_f1(said, true)
    except ValueError as error:
        not_measured.append(str(error))
    return Scored(scores=scores, groups={}, more=more, not_measured=not_measured)


def chexbert_f1(said: Sequence[str], true: Sequence[str]) -> dict[str, float]:
    """F1 of the conditions that CheXbert (Smit et al. 2020) finds in reports, against those in their truths.

    Raises:
        ValueError: its weights or its words are not there, or damaged.
    """
    labels = Chexbert.load(chexbert_folder())
    return label_f1(labels(said), labels(true))


def label_f1(said: NDArray[np.bool_], true: NDArray[np.bool_]) -> dict[str, float]:
    """(R, 14) labels of reports and truths -> F1 over 14 and over 5 conditions.

    `micro` counts all decisions together; `macro` is the mean of the conditions' own, 0 for one that is in no report.
    """
    hits, labelled = (said & true).sum(axis=0), said.sum(axis=0) + true.sum(axis=0)
    found = {}
    for names in (CONDITIONS, FIVE):
        here = [CONDITIONS.index(name) for name in names]
        own = 2 * hits[here] / np.maximum(labelled[here], 1)
        found[f"chexbert{len(names)}_micro"] = float(2 * hits[here].sum() / max(labelled[here].sum(), 1))
        found[f"chexbert{len(names)}_macro"] = float(own.mean())
    return found


def chexbert_folder() -> Path:
    """Where CheXbert's files are looked for: where `f1chexbert` keeps its own."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "chexbert"


class Chexbert(nn.Module):
    """CheXbert: BERT and a linear head for each condition, over the first token's state."""

    def __init__(self, config: BertConfig, tokenizer: Any):
        super().__init__()
        self.bert = BertModel(config)
        classes = [4] * (len(CONDITIONS) - 1) + [2]  # "No Finding" is said or not
        self.linear_heads = nn.ModuleList(nn.Linear(config.hidden_size, number) for number in classes)
        self._tokenizer = tokenizer

    @classmethod
    def load(cls, folder: Path, config: BertConfig | None = None) -> Chexbert:
        """The labeller in a folder, on the first accelerator.

        Args:
            config: None is that of `bert-base-uncased`, which the published weights have.

        Raises:
            ValueError: a file is not there; the weights are not CheXbert's.
        """
        weights, words = (_chexbert_file(folder, name) for name in CHEXBERT_FILES)
        device = choose_device("auto")
        model = cls(config or BertConfig(), BertTokenizer.from_pretrained(words.parent))
        try:
            state = torch.load(weights, map_location="cpu", weights_only=True)["model_state_dict"]
            # Saved from DataParallel; the buffer of positions was saved by older releases only.
            state = {name.removeprefix("module."): value for name, value in state.items()}
            state.pop("bert.embeddings.position_ids", None)
            model.load_state_dict(state)
        except Exception as error:  # what unpickling says of a damaged file is of any class
            raise ValueError(f"CheXbert is not measured: {weights}: {_reason(error)}") from None
        return model.eval().to(device)

    @torch.inference_mode()
    def forward(self, reports: Sequence[str]) -> NDArray[np.bool_]:
        """Reports -> (R, C) whether each speaks of a condition, for sure or perhaps."""
        starts = range(0, len(reports), _AT_ONCE)
        return np.concatenate([self._labels(list(reports[start : start + _AT_ONCE])) for start in starts])

    def _labels(self, reports: list[str]) -> NDArray[np.bool_]:
        inputs = self._tokenizer(reports, padding=True, truncation=True, max_length=_LONGEST, return_tensors="pt").to(
            self.bert.device
        )
        first: Tensor = self.bert(**inputs).last_hidden_state[:, 0]
        classes = torch.stack([head(first).argmax(dim=1) for head in self.linear_heads], dim=1)
        return np.isin(classes.cpu().numpy(), _PRESENT)


def radgraph_f1(said: Sequence[str], true: Sequence[str]) -> list[dict[str, float]]:
    """RadGraph's rewards (Delbrouck et al. 2022) of each report: F1 of the entities that `RADGRAPH_MODEL` finds in it.

    An entity is the same if its words and label are (`simple`), and whether it has relations (`partial`), and which,
    to what (`complete`); 0 where a report has none.

    Raises:
        ValueError: the package, its weights or the BERT below them are not there, or they do not run.
    """
    try:
        from radgraph.radgraph import CACHE_DIR, F1RadGraph
    except ImportError as error:
        raise ValueError(f"RadGraph is not measured: {_reason(error)}; pip install radgraph") from None
    folder = Path(CACHE_DIR) / RADGRAPH_MODEL
    _require_radgraph(folder)
    try:
        with _with_dropped_methods(), contextlib.redirect_stdout(sys.stderr):  # it says there which device it takes
            scorer = F1RadGraph(reward_level="all", model_type=RADGRAPH_MODEL, model_cache_dir=str(folder.parent))
            _, rewards, *_ = scorer(refs=list(true), hyps=list(said))
    except Exception as error:  # whatever a package of its age meets must not cost the other figures
        raise ValueError(f"RadGraph is not measured: {type(error).__name__}: {_reason(error)}") from None
    return [
        {f"radgraph_{name}": float(value) for name, value in zip(REWARDS, values, strict=True)}
        for values in zip(*rewards, strict=True)
    ]


def _require_radgraph(folder: Path) -> None:
    """Refuses what the package would download."""
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"RadGraph is not measured: its weights are not in {folder}: hf download StanfordAIMI/RRG_scorers "
            f"{folder.name}.tar.gz --local-dir {folder} && tar -xzf {folder}/{folder.name}.tar.gz -C {folder}"
        )
    name = read_json(folder / "config.json")["dataset_reader"]["token_indexers"]["bert"]["model_name"]
    try:
        for part in (AutoTokenizer, AutoModel):
            part.from_pretrained(name, local_files_only=True)
    except OSError:
        raise ValueError(f"RadGraph is not measured: its BERT is not in the hub's cache: hf download {name}") from None


@contextlib.contextmanager
def _with_dropped_methods() -> Iterator[None]:
    """Gives tokenizers back, for as long as RadGraph runs, the methods that it calls and transformers 5 has dropped."""

    def with_ends(tokenizer: Any, ids: list[int]) -> list[int]:
        return [tokenizer.cls_token_id, *ids, tokenizer.sep_token_id]  # as of any BERT

    methods = {"encode_plus": PreTrainedTokenizerBase.__call__, "build_inputs_with_special_tokens": with_ends}
    dropped = [name for name in methods if not hasattr(PreTrainedTokenizerBase, name)]
    for name in dropped:
        setattr(PreTrainedTokenizerBase, name, methods[name])
    try:
        yield
    finally:
        for name in dropped:
            delattr(PreTrainedTokenizerBase, name)


def _chexbert_file(folder: Path, name: str) -> Path:
    if (path := folder / name).is_file():
        return path
    repository = "StanfordAIMI/RRG_scorers" if name == CHEXBERT_FILES[0] else "google-bert/bert-base-uncased"
    raise ValueError(
        f"CheXbert is not measured: {name} is not in {folder}: hf download {repository} {name} --local-dir {folder}"
    )


def _reason(error: Exception) -> str:
    """An error in one line, which a list of all weights may not fill."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]} ..."

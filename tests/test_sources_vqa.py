"""Sources of questions: each one's layout on disk and its traps -> records that training reads."""

import csv
import io
import json
import os
import pickle
import tracemalloc
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet as parquet
import pytest
from PIL import Image

from healthgpt.data.preparation import prepare, split_of
from healthgpt.data.records import parse_record
from healthgpt.data.sources.medxpertqa import medxpertqa
from healthgpt.data.sources.mmmu_med import mmmu_med
from healthgpt.data.sources.omnimedvqa import omnimedvqa
from healthgpt.data.sources.pathvqa import pathvqa, read_plain_pickle
from healthgpt.data.sources.pmc_vqa import pmc_vqa
from healthgpt.data.sources.slake import slake
from healthgpt.data.sources.vqa_csv import Columns, vqa_csv
from healthgpt.data.sources.vqa_rad import vqa_rad

ASK = "Answer with the option's letter from the given choices directly."


def picture_bytes(grey):
    buffer = io.BytesIO()
    Image.new("L", (6, 4), grey).save(buffer, "PNG")
    return buffer.getvalue()


def embedded(grey):
    """An image in a Parquet file, as the `datasets` library writes it."""
    return {"bytes": picture_bytes(grey), "path": None}


def write_images(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture_bytes(len(name)))


def write_json(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    return path


def write_jsonl(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_csv(path, rows, delimiter=","):
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_parquet(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def write_pickle(path, value, protocol=4):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    return path


def records_of(source, output):
    """Prepares a source; returns its records by split and id, each of which training reads and whose images exist."""
    list(prepare(source, output))
    found = {}
    for path in sorted(output.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            value = json.loads(line)
            record = parse_record(value, where=path.name, image_folder=output)
            assert all(image.is_file() for image in record.images)
            assert value["id"] not in found.setdefault(path.stem, {})
            found[path.stem][value["id"]] = value
    return found


def asked(record):
    return record["conversations"][0]["value"]


def answered(record):
    return record["conversations"][1]["value"]


def state_of(folder):
    """The files of a folder with their content and time of change."""
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


# Trees of each layout. Each returns its root.


def make_vqa_rad(root):
    names = ["synpic1.jpg", "synpic2.jpg"]
    write_images(root / "VQA_RAD Image Folder", *names)
    common = {"qid_linked_id": "x", "image_case_url": "", "evaluation": "evaluated", "question_relation": "NULL"}
    rows = [
        {
            "qid": 0, "phrase_type": "freeform", "image_name": names[0], "image_organ": "HEAD",
            "question": "Are regions of the brain infarcted?", "question_type": "PRES", "answer": "Yes",
            "answer_type": "CLOSED",
        },
        {
            "qid": 1, "phrase_type": "para", "image_name": names[0], "image_organ": "CHEST",
            "question": "How many nodules are there? ", "question_type": "COUNT", "answer": 2, "answer_type": "OPEN",
        },
        {
            "qid": 2, "phrase_type": "test_freeform", "image_name": names[1], "image_organ": "ABD",
            "question": "Is it axial or coronal?", "question_type": "PLANE", "answer": "Axial ",
            "answer_type": "CLOSED ",
        },
        {
            "qid": 3, "phrase_type": "test_para", "image_name": names[1], "image_organ": "ABD",
            "question": "Which plane?", "question_type": "PLANE", "answer": "axial\t", "answer_type": "OPEN",
        },
    ]  # fmt: skip
    write_json(root / "VQA_RAD Dataset Public.json", [common | row for row in rows])
    return root


def slake_row(qid, **changes):
    row = {
        "img_id": 1, "img_name": "xmlab1/source.jpg", "question": "What modality is used to take this image?",
        "answer": "MRI", "q_lang": "en", "location": "Abdomen", "modality": "MRI", "answer_type": "OPEN",
        "base_type": "vqa", "content_type": "Modality", "triple": ["vhead", "_", "_"], "qid": qid,
    }  # fmt: skip
    return row | changes


def make_slake(root, validation="validation.json"):
    write_images(root / "imgs", "xmlab1/source.jpg", "xmlab401/source.jpg")
    chinese = {"q_lang": "zh", "question": "图中有肝脏吗？", "answer": "有", "answer_type": "CLOSED"}
    write_json(root / "train.json", [slake_row(0), slake_row(1, **chinese), slake_row(2, question=" Why? ", answer=3)])
    write_json(
        root / validation, [slake_row(3, answer="No ", answer_type="CLOSED ", modality="X-Ray", content_type="Organ")]
    )
    graph = {"base_type": "kvqa", "content_type": "KG", "triple": ["liver", "function", "_"], "modality": "CT"}
    tested = [slake_row(4, img_name="xmlab401/source.jpg", **graph), slake_row(5, **chinese)]
    write_json(root / "test.json", tested)
    return root


def pathvqa_row(name, number, **changes):
    row = {
        "img_id": name, "question_id": number, "question_type": "what", "answer_type": "other",
        "sent": "What are positively charged?", "label": {"the histone subunits": 1},
    }  # fmt: skip
    return row | changes


def make_pathvqa(root, protocol=4):
    for split in ("train", "val", "test"):
        write_images(root / "pvqa" / "images" / split, f"{split}_0001.jpg")
        rows = [
            pathvqa_row(f"{split}_0001", 10),
            pathvqa_row(f"{split}_0001", 11, answer_type="yes/no", question_type="Is", label={"no ": 1}),
        ]
        write_pickle(root / "pvqa" / "qas" / f"{split}_vqa.pkl", rows, protocol)
        short = [{"image": f"{split}_0001", "question": "Is it?", "answer": "yes"}]
        write_pickle(root / "pvqa" / "qas" / split / f"{split}_qa.pkl", short, protocol)
    return root


def omnimed_row(name, **changes):
    row = {
        "dataset": "Chest CT Scan", "question_id": name, "question_type": "Disease Diagnosis",
        "question": "What is shown?", "gt_answer": "Normal lung", "image_path": "Images/Chest CT Scan/test/1.png",
        "option_A": "Nodule", "option_B": "Normal lung", "option_C": "Effusion", "option_D": "Pneumothorax",
        "modality_type": "CT(Computed Tomography)",
    }  # fmt: skip
    return {key: value for key, value in (row | changes).items() if value != "absent"}


def make_omnimedvqa(root):
    base = root / "OmniMedVQA"
    write_images(base / "Images" / "Chest CT Scan" / "test", "1.png")
    write_images(base / "Images" / "Secret", "s.png")
    two = {
        "option_C": "absent",
        "option_D": "absent",
        "option_A": "No",
        "option_B": "Yes",
        "gt_answer": "No",
    }
    open_rows = [
        omnimed_row("CT_0000"),
        omnimed_row("CT_0001", **two),
        omnimed_row("CT_0002", modality_type="absent", modality="CT(Computed Tomography)"),
        omnimed_row("CT_0003", gt_answer="normal  lung. ", option_D="absent"),
        omnimed_row("CT_0004", gt_answer=4, option_A=3, option_B=4, option_C=None, option_D=""),
    ]
    write_json(base / "QA_information" / "Open-access" / "Chest CT Scan.json", open_rows)
    closed = [omnimed_row("S_0", dataset="Secret", image_path="Images/Secret/s.png", modality_type="ultrasound")]
    write_json(base / "QA_information" / "Restricted-access" / "Secret.json", closed)
    (base / "QA_information" / "Open-access" / "._Chest CT Scan.json").write_bytes(b"\0\5\x16\7")
    return root


def pmc_row(**changes):
    row = {
        "Figure_path": "PMC1_F1.jpg", "Question": " What is the uptake pattern? ", "Answer": "Focal uptake pattern",
        "Choice A": " A:Diffuse uptake pattern ", "Choice B": " B:Focal uptake pattern ", "Choice C": "C: None",
        "Choice D": "D:Cannot be determined", "Answer_label": "B",
    }  # fmt: skip
    return row | changes


def pmc2_row(index, **changes):
    row = {
        "index": index, "Figure_path": "PMC2_F1_1.jpg", "Caption": "A scan, with a comma.", "Question": "Which?",
        "Choice A": "Liver", "Choice B": "Spleen", "Choice C": "Kidney", "Choice D": "Lung", "Answer": "C",
        "split": "train",
    }  # fmt: skip
    return row | changes


def make_pmc_vqa_1(root):
    write_images(root / "images", "PMC1_F1.jpg")
    write_csv(root / "train.csv", [pmc_row(), pmc_row(Answer="D:Cannot be determined", Answer_label="")])
    write_csv(root / "test.csv", [pmc_row(Answer_label=" a "), pmc_row(**{"Choice D": "", "Choice C": "none:\nof it"})])
    write_csv(root / "test_clean.csv", [pmc_row()])
    return root


def make_pmc_vqa_2(root):
    write_images(root / "figures", "PMC2_F1_1.jpg")
    write_csv(root / "train_2.csv", [pmc2_row(0), pmc2_row(1, Answer=" B ")])
    write_csv(root / "test_2.csv", [pmc2_row(0, Answer="Lung", split="test")])
    return root


def mmmu_row(name, **changes):
    row = {
        "id": name, "question": "What is in <image 1>?", "options": "['A tumour', \"the patient's cyst\"]",
        "explanation": "", "image_1": embedded(10), "image_2": None, "img_type": "['Body Scans']", "answer": "B",
        "topic_difficulty": "Easy", "question_type": "multiple-choice", "subfield": "Oncology",
    } | {f"image_{i}": None for i in range(3, 8)}  # fmt: skip
    return row | changes


def make_mmmu(root):
    pictured = {
        "question": "Which of these is <image 2>? Compare <image 2> with the other.",
        "options": "['<image 3>', '<image 1>', 'none of them']",
        "image_2": embedded(20), "image_3": embedded(30), "image_4": embedded(40), "answer": "A",
    }  # fmt: skip
    opened = {"question_type": "open", "options": "[]", "answer": "['3', 'three']", "question": "How many?"}
    write_parquet(
        root / "Clinical_Medicine" / "validation-00000-of-00001.parquet",
        [
            mmmu_row("validation_Clinical_Medicine_1"),
            mmmu_row("validation_Clinical_Medicine_2", **pictured),
            mmmu_row("validation_Clinical_Medicine_3", **opened),
        ],
    )
    write_parquet(root / "Clinical_Medicine" / "dev-00000-of-00001.parquet", [mmmu_row("dev_Clinical_Medicine_1")])
    tested = [mmmu_row("test_Clinical_Medicine_1", answer="?"), mmmu_row("test_Clinical_Medicine_2", **opened)]
    tested[1]["answer"] = "?"
    write_parquet(root / "Clinical_Medicine" / "test-00000-of-00001.parquet", tested)
    write_parquet(root / "Pharmacy" / "validation-00000-of-00001.parquet", [mmmu_row("validation_Pharmacy_1")])
    write_parquet(root / "Art" / "validation-00000-of-00001.parquet", [mmmu_row("validation_Art_1")])
    return root


def medxpert_row(name, **changes):
    options = {letter: f"Step {letter}" for letter in "ABCDE"}
    listed = " ".join(f"({letter}) {text}" for letter, text in options.items())
    row = {
        "id": name, "question": f"Which step matters most?\nAnswer Choices: {listed}", "options": options, "label": "E",
        "images": [f"{name}-a.jpeg", f"{name}-b.jpeg"], "medical_task": "Treatment", "body_system": "Skeletal",
        "question_type": "Reasoning",
    }  # fmt: skip
    return row | changes


def make_medxpertqa(root):
    write_images(root / "images", "MM-0-a.jpeg", "MM-0-b.jpeg", "MM-1-a.jpeg")
    listed = [{"letter": letter, "content": f" Choice {letter}"} for letter in "ABCDE"]
    write_jsonl(root / "MM" / "dev.jsonl", [medxpert_row("MM-0")])
    write_jsonl(
        root / "MM" / "test.jsonl",
        [
            medxpert_row("MM-1", images=["MM-1-a.jpeg"], options=listed, label=["B"], question="Which one? "),
            medxpert_row("MM-2", images=[{"image_path": "MM-0-a.jpeg"}], label="a"),
        ],
    )
    return root


def make_table(root):
    write_images(root / "scans", "1.png", "2.png")
    rows = [
        {"image": "scans/1.png", "question": "Is it broken? ", "answer": " No"},
        {"image": "scans/2.png", "question": "How many?", "answer": 2},
    ]
    return write_csv(root / "table.csv", rows)


SOURCES = {
    "vqa-rad": (make_vqa_rad, vqa_rad),
    "slake": (make_slake, slake),
    "pathvqa": (make_pathvqa, pathvqa),
    "omnimedvqa": (make_omnimedvqa, omnimedvqa),
    "pmc-vqa": (make_pmc_vqa_1, pmc_vqa),
    "mmmu-med": (make_mmmu, mmmu_med),
    "medxpertqa-mm": (make_medxpertqa, medxpertqa),
    "vqa-csv": (make_table, vqa_csv),
}


@pytest.mark.parametrize("name", SOURCES)
def test_a_second_run_leaves_everything_as_it_is(name, tmp_path):
    make, source = SOURCES[name]
    root, output = make(tmp_path / "root"), tmp_path / "out"
    found = records_of(source(root), output)
    manifest = json.loads((output / "manifest.json").read_text())
    assert manifest["source"] == name
    assert manifest["records"] == {split: len(records) for split, records in found.items()}
    before = state_of(output)
    assert list(prepare(source(root), output)) == [sum(manifest["records"].values())]
    assert state_of(output) == before


@pytest.mark.parametrize("name", [name for name in SOURCES if name != "vqa-csv"])
def test_official_splits_are_lists_of_the_samples_own_ids(name, tmp_path):
    make, source = SOURCES[name]
    found = records_of(source(make(tmp_path / "root")), tmp_path / "out")
    for split, records in found.items():
        assert (tmp_path / "out" / "splits" / f"{split}.txt").read_text().split() == sorted(records)


def test_vqa_rads_original_splits_by_phrase_type_and_strips(tmp_path):
    found = records_of(vqa_rad(make_vqa_rad(tmp_path / "root")), tmp_path / "out")
    assert {split: list(records) for split, records in found.items()} == {
        "train": ["vqa-rad-0", "vqa-rad-1"],
        "test": ["vqa-rad-2", "vqa-rad-3"],
    }
    counted, tested = found["train"]["vqa-rad-1"], found["test"]["vqa-rad-2"]
    assert (asked(counted), answered(counted)) == ("<image>\nHow many nodules are there?", "2")
    assert counted["metadata"] == {"kind": "count", "closed": False, "organ": "chest"}
    assert (answered(tested), tested["metadata"]["closed"]) == ("Axial", True)  # of answer type "CLOSED "
    assert answered(found["test"]["vqa-rad-3"]) == "axial"
    assert counted["image"] == os.path.relpath(tmp_path / "root/VQA_RAD Image Folder/synpic1.jpg", tmp_path / "out")
    assert not (tmp_path / "out" / "images").exists()  # files that are there are not copied


def test_vqa_rad_without_a_phrase_type_has_no_split(tmp_path):
    root = make_vqa_rad(tmp_path / "root")
    rows = json.loads((root / "VQA_RAD Dataset Public.json").read_text())
    write_json(root / "VQA_RAD Dataset Public.json", [rows[0] | {"phrase_type": " Test_Freeform "}, rows[1]])
    assert list(records_of(vqa_rad(root), tmp_path / "out")) == ["test", "train"]
    write_json(root / "VQA_RAD Dataset Public.json", [rows[0] | {"phrase_type": None}])
    with pytest.raises(ValueError, match="row 1: expected a text in phrase_type, found None"):
        list(prepare(vqa_rad(root), tmp_path / "bad"))


def test_vqa_rad_in_parquet_with_answer_types_and_without(tmp_path):
    plain = [
        {"image": embedded(i), "question": " Is it? ", "answer": answer} for i, answer in enumerate(("Yes", "head"))
    ]
    write_parquet(tmp_path / "a" / "data" / "train-00000-of-00001-abc.parquet", plain)
    write_parquet(tmp_path / "a" / "data" / "test-00000-of-00001-abc.parquet", plain[:1])
    found = records_of(vqa_rad(tmp_path / "a"), tmp_path / "out_a")
    assert [len(found[split]) for split in ("train", "test")] == [2, 1]
    assert [record["metadata"]["closed"] for record in found["train"].values()] == [True, False]
    first = next(iter(found["train"].values()))
    assert (tmp_path / "out_a" / first["image"]).read_bytes() == plain[0]["image"]["bytes"]
    assert next(iter(found["test"].values()))["image"] == first["image"]  # one image, one file

    full = {"qid": "7", "answer_type": "CLOSED ", "question_type": "PRES ", "image_organ": "CHEST"}
    write_parquet(tmp_path / "b" / "train-00000-of-00001.parquet", [plain[1] | full])
    record = records_of(vqa_rad(tmp_path / "b"), tmp_path / "out_b")["train"]["vqa-rad-7"]
    assert record["metadata"] == {"kind": "pres", "closed": True, "organ": "chest"}


@pytest.mark.parametrize(
    "names", [("default/train/0000.parquet", "default/train/0001.parquet", "default/test/0000.parquet"),
              ("data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet", "data/test-0.parquet")]
)  # fmt: skip
@pytest.mark.parametrize(("source", "prefix"), [(vqa_rad, "vqa-rad"), (pathvqa, "pathvqa")])
def test_parquet_in_several_files_has_the_same_ids_as_in_one(source, prefix, names, tmp_path):
    rows = [
        {"image": embedded(i) if i % 2 else picture_bytes(i), "question": f"Q{i}?", "answer": "yes", "extra": i}
        for i in range(5)
    ]
    for name, part in zip(names, (rows[1:2] + rows[3:4], rows[2:3], rows[:1]), strict=True):
        write_parquet(tmp_path / "root" / name, part)
    found = records_of(source(tmp_path / "root"), tmp_path / "out")
    assert {name: asked(record) for name, record in found["train"].items()} == {
        f"{prefix}-train-{number}": f"<image>\nQ{i}?" for number, i in ((1, 1), (2, 3), (3, 2))
    }
    assert list(found["test"]) == [f"{prefix}-test-1"]
    assert len(json.loads((tmp_path / "out" / "manifest.json").read_text())["input_sha256"]) == 3


def test_cells_of_tables_with_gaps(tmp_path):
    write_images(tmp_path, "1.png")
    nan = float("nan")
    rows = [
        {"image": " 1.png ", "question": "How many?", "answer": 2.0, "A": nan, "B": nan},
        {"image": nan, "question": "Which?", "answer": 1.5, "A": 1.5, "B": 3.0},
        {"image": "  ", "question": "Who?", "answer": "nobody", "A": None, "B": ""},
    ]
    table = tmp_path / "table.jsonl"
    table.write_text("\ufeff" + "\r\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    source = vqa_csv(table, columns=Columns(options=("A", "B")), parts={"train": 1.0})
    counted, chosen, unseen = records_of(source, tmp_path / "out")["train"].values()
    assert (answered(counted), counted["image"], counted["metadata"]["closed"]) == ("2", "../1.png", False)
    assert (asked(chosen), answered(chosen)) == (f"Which?\nA. 1.5\nB. 3\n{ASK}", "A")
    assert "image" not in unseen
    write_jsonl(table, [rows[0] | {"answer": nan}])
    with pytest.raises(ValueError, match=r"table\.jsonl, row 1: expected a text in answer, found nan"):
        list(prepare(vqa_csv(table), tmp_path / "bad"))


def test_columns_are_named_once_and_without_blanks(tmp_path):
    write_images(tmp_path, "1.png")
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbfimage , question, answer\r\n1.png,\xc3\x84h?,yes\r\n\r\n")
    (record,) = records_of(vqa_csv(tmp_path / "a.csv", parts={"test": 1.0}), tmp_path / "out")["test"].values()
    assert asked(record) == "<image>\nÄh?"
    (tmp_path / "b.csv").write_text("image,question,answer,answer\n1.png,Q?,yes,no\n")
    with pytest.raises(ValueError, match=r"b\.csv, line 1: has the column answer more than once"):
        list(prepare(vqa_csv(tmp_path / "b.csv"), tmp_path / "bad"))


def test_ids_of_a_table_are_there_once(tmp_path):
    write_images(tmp_path, "1.png")
    rows = [{"image": "1.png", "question": "Q?", "answer": "yes", "key": key} for key in ("a", "b", "a")]
    source = vqa_csv(write_csv(tmp_path / "t.csv", rows), columns=Columns(id="key"))
    with pytest.raises(ValueError, match=r"1 ids are there more than once: a \(records 1, 3\)"):
        list(prepare(source, tmp_path / "out"))


@pytest.mark.parametrize("validation", ["validation.json", "validate.json"])
def test_slake_keeps_one_language_and_questions_of_the_graph(validation, tmp_path):
    root = make_slake(tmp_path / "root", validation)
    found = records_of(slake(root), tmp_path / "en")
    assert {split: list(records) for split, records in found.items()} == {
        "train": ["slake-0", "slake-2"],
        "validation": ["slake-3"],
        "test": ["slake-4"],
    }
    assert (asked(found["train"]["slake-2"]), answered(found["train"]["slake-2"])) == ("<image>\nWhy?", "3")
    assert found["validation"]["slake-3"]["metadata"] == {
        "kind": "organ", "closed": True, "modality": "X-ray", "organ": "abdomen", "base_type": "vqa",
    }  # fmt: skip
    graph = found["test"]["slake-4"]
    assert (graph["metadata"]["kind"], graph["metadata"]["base_type"]) == ("kg", "kvqa")
    assert graph["image"].endswith("imgs/xmlab401/source.jpg")

    chinese = records_of(slake(root, language="zh"), tmp_path / "zh")
    assert [list(records) for records in chinese.values()] == [["slake-5"], ["slake-1"]]
    assert asked(chinese["train"]["slake-1"]) == "<image>\n图中有肝脏吗？"
    with pytest.raises(ValueError, match="holds another preparation"):
        list(prepare(slake(root, language="zh"), tmp_path / "en"))
    with pytest.raises(ValueError, match="language is 'de', expected en or zh"):
        slake(root, language="de")


def test_all_missing_images_are_listed_at_once(tmp_path):
    root = make_slake(tmp_path / "root")
    for name in ("xmlab1", "xmlab401"):
        (root / "imgs" / name / "source.jpg").unlink()
    with pytest.raises(ValueError, match=r"^2 files are missing, .*xmlab1/source\.jpg.*missing\.txt$"):
        list(prepare(slake(root), tmp_path / "out"))
    listed = (tmp_path / "out" / "missing.txt").read_text().split()
    assert listed == [str(root / "imgs" / name / "source.jpg") for name in ("xmlab1", "xmlab401")]
    assert not (tmp_path / "out" / "manifest.json").exists()
    write_images(root / "imgs", "xmlab1/source.jpg", "xmlab401/source.jpg")
    assert len(records_of(slake(root), tmp_path / "out")) == 3
    assert not (tmp_path / "out" / "missing.txt").exists()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (slake, r"has no train\.json, validation\.json, test\.json"),
        (pathvqa, "has no qas folder or Parquet files"),
        (omnimedvqa, "has no QA_information/Open-access or Restricted-access with JSON files"),
        (pmc_vqa, r"has no train\.csv, test\.csv"),
        (mmmu_med, r"has no Basic_Medical_Science/validation-\*\.parquet"),
        (medxpertqa, r"has no MM/dev\.jsonl, MM/test\.jsonl"),
        (vqa_rad, r"has no VQA_RAD Dataset Public\.json or Parquet files"),
    ],
)
def test_a_folder_without_annotations_is_named_with_what_was_expected(source, message, tmp_path):
    with pytest.raises(FileNotFoundError, match=message) as caught:
        source(tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pathvqas_pickles_of_every_protocol(protocol, tmp_path):
    found = records_of(pathvqa(make_pathvqa(tmp_path / "root", protocol)), tmp_path / "out")
    assert list(found["train"]) == ["pathvqa-train-10", "pathvqa-train-11"]
    assert list(found["validation"]) == ["pathvqa-val-10", "pathvqa-val-11"]
    opened, closed = found["test"].values()
    assert (asked(opened), answered(opened)) == ("<image>\nWhat are positively charged?", "the histone subunits")
    assert opened["metadata"] == {"kind": "what", "closed": False}
    assert (answered(closed), closed["metadata"]) == ("no", {"kind": "is", "closed": True})
    assert opened["image"].endswith("pvqa/images/test/test_0001.jpg")


def test_pathvqas_short_pickles_and_parquet(tmp_path):
    root = make_pathvqa(tmp_path / "root") / "pvqa"  # the folder itself will do
    for path in (root / "qas").glob("*_vqa.pkl"):
        path.unlink()
    found = records_of(pathvqa(root), tmp_path / "short")
    assert {split: list(records) for split, records in found.items()} == {
        "train": ["pathvqa-train-1"],
        "validation": ["pathvqa-val-1"],
        "test": ["pathvqa-test-1"],
    }
    assert found["test"]["pathvqa-test-1"]["metadata"]["closed"] is True
    (root / "qas" / "test" / "test_qa.pkl").unlink()
    (root / "qas" / "val" / "val_qa.pkl").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no val_vqa\.pkl or val/val_qa\.pkl, no test_vqa\.pkl or test/"):
        pathvqa(root)

    row = {"image": embedded(1), "question": "Is it?", "answer": "yes "}
    for split in ("train", "validation", "test"):
        write_parquet(tmp_path / "hub" / "data" / f"{split}-00000-of-00001.parquet", [row])
    found = records_of(pathvqa(tmp_path / "hub"), tmp_path / "parquet")
    assert [len(records) for records in found.values()] == [1, 1, 1]
    assert answered(found["validation"]["pathvqa-validation-1"]) == "yes"


class Call:
    """What a pickle calls when it is read."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize(
    ("function", "name"),
    [
        (os.system, r"posix\.system"),
        (eval, r"(builtins|__builtin__)\.eval"),
        (getattr, r"(builtins|__builtin__)\.getattr"),
        (np.load, r"numpy(\.\w+)*\.load"),
        (Path, r"pathlib\.Path"),
    ],
)
def test_code_in_a_pickle_is_named_and_does_not_run(function, name, protocol, tmp_path):
    marker = tmp_path / "ran"
    root = make_pathvqa(tmp_path / "root")
    argument = f"touch {marker}" if function is os.system else f"open({str(marker)!r}, 'w')"
    call = Call(function, argument) if function is not getattr else Call(getattr, "x", "upper")
    path = write_pickle(root / "pvqa" / "qas" / "val_vqa.pkl", [pathvqa_row("val_0001", call)], protocol)
    with pytest.raises(ValueError, match=rf"refused, its pickle refers to code: {name}$") as caught:
        list(prepare(pathvqa(root), tmp_path / "out"))
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    assert not marker.exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_pickles_give_what_pickle_gives_with_numbers_as_pythons(protocol, tmp_path):
    value = {
        "texts": ["a", "ü", ""], "numbers": (1, -(2**70), 0.5, None, True), "bytes": b"\0\xff", "sets": {1, 2},
        "frozen": frozenset("ab"), "ordered": OrderedDict(a=[1]),
    }  # fmt: skip
    assert read_plain_pickle(write_pickle(tmp_path / "plain.pkl", value, protocol)) == value
    numbers = [np.int64(-7), np.uint8(200), np.float32(0.25), np.float64(1e300), np.bool_(True), np.str_("lung ü")]
    numbers += [np.array(3, ">i4")[()], np.array(0.5, ">f8")[()]]
    found = read_plain_pickle(write_pickle(tmp_path / "numpy.pkl", numbers, protocol))
    assert found == [-7, 200, 0.25, 1e300, True, "lung ü", 3, 0.5]
    assert [type(number) for number in found] == [int, int, float, float, bool, str, int, float]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "an empty file"),
        (pickle.dumps([1, 2, 3] * 100)[:50], "not readable as a pickle"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer"),
        (b"\x80\x04cnumpy\ndtype\n\x8c\x01O\x85R.", "refers to code: numpy.dtype"),
        (b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x03\x00\x00\x00zip\x86R.", "refers to code: _codecs.encode"),
        (b"\x80\x02Pa persistent name\n.", "not readable as a pickle"),
        (
            pickle.dumps([np.arange(3)]),
            r"refers to code: numpy\._core\.\w+\._reconstruct|_frombuf",
        ),
    ],
)
def test_damaged_and_foreign_pickles_are_refused_in_one_line(content, message, tmp_path):
    path = tmp_path / "test_vqa.pkl"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_plain_pickle(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_omnimedvqa_gives_letters_for_texts_and_takes_fewer_options(tmp_path):
    root = make_omnimedvqa(tmp_path / "root")
    found = records_of(omnimedvqa(root), tmp_path / "out")
    assert list(found) == ["test"]
    records = {name.removeprefix("omnimedvqa-"): record for name, record in found["test"].items()}
    assert list(records) == ["CT_0000", "CT_0001", "CT_0002", "CT_0003", "CT_0004", "S_0"]
    lines = ["<image>", "What is shown?", "A. Nodule", "B. Normal lung", "C. Effusion", "D. Pneumothorax", ASK]
    assert asked(records["CT_0000"]).split("\n") == lines
    assert answered(records["CT_0000"]) == "B"
    assert records["CT_0000"]["metadata"] == {
        "kind": "disease diagnosis", "modality": "CT", "dataset": "Chest CT Scan", "access": "Open-access",
        "closed": True, "answer_text": "Normal lung",
        "options": {"A": "Nodule", "B": "Normal lung", "C": "Effusion", "D": "Pneumothorax"},
    }  # fmt: skip
    assert records["CT_0001"]["metadata"]["options"] == {"A": "No", "B": "Yes"}
    assert answered(records["CT_0001"]) == "A"
    assert records["CT_0002"]["metadata"]["modality"] == "CT"  # under `modality`
    assert (answered(records["CT_0003"]), list(records["CT_0003"]["metadata"]["options"])) == ("B", ["A", "B", "C"])
    assert (answered(records["CT_0004"]), records["CT_0004"]["metadata"]["options"]) == ("B", {"A": "3", "B": "4"})
    assert (records["S_0"]["metadata"]["access"], records["S_0"]["metadata"]["modality"]) == (
        "Restricted-access",
        "ultrasound",
    )
    opened = records_of(omnimedvqa(root / "OmniMedVQA", access=["Open-access"]), tmp_path / "open")
    assert len(opened["test"]) == 5
    with pytest.raises(ValueError, match="access is 'all', expected Open-access or Restricted-access"):
        omnimedvqa(root, access=["all"])


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("CT(Computed Tomography)", "CT"),
        ("MR (Mag-netic Resonance Imaging)", "MRI"),
        ("X-Ray", "X-ray"),
        ("Fundus Photography", "fundus photography"),
        ("Dermoscopy", "dermoscopy"),
        ("OCT (Optical Coherence Tomography", "OCT"),
        ("ultrasound", "ultrasound"),
        ("Microscopy Images", "microscopy"),
        ("Colposcopy ", "Colposcopy"),
    ],
)
def test_modalities_have_plain_names(written, name, tmp_path):
    root = make_omnimedvqa(tmp_path / "root")
    path = root / "OmniMedVQA" / "QA_information" / "Open-access" / "Chest CT Scan.json"
    write_json(path, [omnimed_row("a", modality_type=written)])
    (sample,) = omnimedvqa(root, access=["Open-access"]).samples
    assert sample.metadata["modality"] == name


def test_pmc_vqas_first_version_has_lettered_choices(tmp_path):
    root = make_pmc_vqa_1(tmp_path)
    found = records_of(pmc_vqa(root), tmp_path / "out")
    first, by_text = found["train"].values()
    options = {"A": "Diffuse uptake pattern", "B": "Focal uptake pattern", "C": "None", "D": "Cannot be determined"}
    assert first["metadata"] == {
        "kind": "", "closed": True, "options": options, "answer_text": "Focal uptake pattern",
    }  # fmt: skip
    assert asked(first) == (
        "<image>\nWhat is the uptake pattern?\nA. Diffuse uptake pattern\nB. Focal uptake pattern\nC. None\n"
        f"D. Cannot be determined\n{ASK}"
    )
    assert [answered(record) for record in (first, by_text)] == ["B", "D"]
    lower, fewer = found["test"].values()
    assert answered(lower) == "A"
    assert fewer["metadata"]["options"] == {key: options[key] for key in "AB"} | {"C": "none: of it"}
    clean = records_of(pmc_vqa(root, clean=True), tmp_path / "clean")
    assert list(clean["test"]) == ["pmc-vqa-test_clean-1"]


def test_pmc_vqas_second_version_has_letters_and_its_own_figures(tmp_path):
    root = make_pmc_vqa_2(make_pmc_vqa_1(tmp_path))
    found = records_of(pmc_vqa(root), tmp_path / "two")  # the newer of both
    assert [answered(record) for record in found["train"].values()] == ["C", "B"]
    (tested,) = found["test"].values()
    assert (answered(tested), tested["metadata"]["answer_text"]) == ("D", "Lung")
    assert tested["image"] == "../figures/PMC2_F1_1.jpg"
    assert len(records_of(pmc_vqa(root, version=1), tmp_path / "one")["train"]) == 2
    (root / "figures").rename(root / "images_2")
    assert len(records_of(pmc_vqa(root, version=2), tmp_path / "renamed")["train"]) == 2
    with pytest.raises(ValueError, match="only version 1 has a checked test set"):
        pmc_vqa(root, clean=True)
    with pytest.raises(ValueError, match="version is 3, expected 1 or 2"):
        pmc_vqa(root, version=3)


def test_mmmu_puts_images_where_they_are_mentioned(tmp_path):
    found = records_of(mmmu_med(make_mmmu(tmp_path / "root")), tmp_path / "out")
    assert {split: list(records) for split, records in found.items()} == {
        "train": ["mmmu-med-dev_Clinical_Medicine_1"],
        "validation": [f"mmmu-med-validation_{n}" for n in ("Clinical_Medicine_1", "Clinical_Medicine_2",
                                                            "Clinical_Medicine_3", "Pharmacy_1")],
    }  # fmt: skip
    first, pictured, opened, _ = found["validation"].values()
    assert asked(first) == f"What is in <image>?\nA. A tumour\nB. the patient's cyst\n{ASK}"
    assert first["metadata"] == {
        "kind": "clinical medicine", "subfield": "oncology", "closed": True, "answer_text": "the patient's cyst",
        "options": {"A": "A tumour", "B": "the patient's cyst"},
    }  # fmt: skip
    assert asked(pictured) == (
        "<image>\nWhich of these is <image>? Compare image 2 with the other.\n"
        f"A. <image>\nB. <image>\nC. none of them\n{ASK}"
    )
    content = [(tmp_path / "out" / name).read_bytes() for name in pictured["image"]]
    assert content == [picture_bytes(grey) for grey in (40, 20, 30, 10)]
    assert pictured["metadata"]["answer_text"] == "<image 3>"
    assert (asked(opened), answered(opened)) == ("<image>\nHow many?", "3")
    assert opened["metadata"] == {
        "kind": "clinical medicine", "subfield": "oncology", "closed": False, "answers": ["3", "three"],
    }  # fmt: skip


def test_mmmus_test_set_needs_answers(tmp_path):
    root = make_mmmu(tmp_path / "root")
    answers = {
        "test_Clinical_Medicine_1": {"question_type": "multiple-choice", "ground_truth": "A"},
        "test_Clinical_Medicine_2": "4",
        "test_Art_1": "C",
    }
    elsewhere = write_json(tmp_path / "hidden.json", answers)
    found = records_of(mmmu_med(root, answers=elsewhere, subjects=["Clinical_Medicine"]), tmp_path / "given")
    assert [answered(record) for record in found["test"].values()] == ["A", "4"]
    assert len(found["validation"]) == 3
    manifest = json.loads((tmp_path / "given" / "manifest.json").read_text())
    assert manifest["options"] == {"subjects": ["Clinical_Medicine"], "test": True}
    write_json(root / "answer.json", answers)
    assert len(records_of(mmmu_med(root), tmp_path / "beside")["test"]) == 2
    del answers["test_Clinical_Medicine_2"]
    write_json(root / "answer.json", answers)
    with pytest.raises(ValueError, match=r"test-00000-of-00001\.parquet, row 2: expected a text in answer, found None"):
        list(prepare(mmmu_med(root), tmp_path / "lacking"))
    with pytest.raises(ValueError, match="subject is 'Art', expected one of Basic_Medical_Science"):
        mmmu_med(root, subjects=["Art"])


def test_medxpertqa_takes_options_of_both_forms_and_several_images(tmp_path):
    found = records_of(medxpertqa(make_medxpertqa(tmp_path / "root")), tmp_path / "out")
    (first,) = found["validation"].values()
    lines = ["<image>", "<image>", "Which step matters most?", *(f"{letter}. Step {letter}" for letter in "ABCDE"), ASK]
    assert asked(first).split("\n") == lines
    assert [Path(name).name for name in first["image"]] == ["MM-0-a.jpeg", "MM-0-b.jpeg"]
    assert answered(first) == "E"
    assert first["metadata"] == {
        "kind": "reasoning", "task": "treatment", "body_system": "skeletal", "closed": True, "answer_text": "Step E",
        "options": {letter: f"Step {letter}" for letter in "ABCDE"},
    }  # fmt: skip
    listed, single = found["test"].values()
    assert asked(listed).startswith("<image>\nWhich one?\nA. Choice A\n")
    assert (answered(listed), listed["metadata"]["answer_text"]) == ("B", "Choice B")
    assert (answered(single), Path(single["image"]).name) == ("A", "MM-0-a.jpeg")


WRITERS = {
    ".csv": write_csv,
    ".tsv": lambda path, rows: write_csv(path, rows, "\t"),
    ".json": write_json,
    ".jsonl": write_jsonl,
    ".parquet": write_parquet,
}


@pytest.mark.parametrize("ending", WRITERS)
def test_a_users_own_table_of_any_kind(ending, tmp_path):
    write_images(tmp_path / "pictures", "1.png", "2.png")
    two, named = "['Liver', 'Spleen']", '{"A": "One", "B": "Two"}'
    before = "What has changed from <image> to <image>?"
    rows = [
        {"file": "1.png", "q": " Is it broken? ", "a": "No ", "part": "train", "key": "x1", "choices": ""},
        {"file": "2.png", "q": "Which organ?", "a": "spleen", "part": "val", "key": "x2", "choices": two},
        {"file": "2.png", "q": "Which?", "a": "(b)", "part": "Test", "key": "x3", "choices": named},
        {"file": "['1.png', '2.png']", "q": before, "a": "Nothing.", "part": "test", "key": "x4", "choices": ""},
        {"file": "", "q": "What is a CT?", "a": "A scan.", "part": "train", "key": "x5", "choices": ""},
    ]
    table = WRITERS[ending](tmp_path / f"table{ending}", rows)
    columns = Columns(image="file", question="q", answer="a", split="part", id="key", options=("choices",))
    found = records_of(vqa_csv(table, columns=columns, images=tmp_path / "pictures"), tmp_path / "out")
    assert {split: list(records) for split, records in found.items()} == {
        "train": ["x1", "x5"],
        "validation": ["x2"],
        "test": ["x3", "x4"],
    }
    first, without = found["train"].values()
    assert (asked(first), answered(first)) == ("<image>\nIs it broken?", "No")
    assert first["metadata"] == {"kind": "", "closed": True}
    assert (asked(without), "image" in without) == ("What is a CT?", False)
    choice = found["validation"]["x2"]
    assert asked(choice) == f"<image>\nWhich organ?\nA. Liver\nB. Spleen\n{ASK}"
    assert (answered(choice), choice["metadata"]["answer_text"]) == ("B", "Spleen")
    assert (answered(found["test"]["x3"]), found["test"]["x3"]["metadata"]["closed"]) == ("B", True)
    both = found["test"]["x4"]
    assert asked(both) == before
    assert both["image"] == ["../pictures/1.png", "../pictures/2.png"]


def test_lists_images_and_options_in_columns_of_their_own(tmp_path):
    write_images(tmp_path, "a.png", "b.png")
    rows = [
        {"image": ["a.png", "b.png"], "question": "Q?", "answer": "2", "A": "1", "B": 2, "C": None},
        {"image": None, "question": "Open?", "answer": "Word", "A": None, "B": None, "C": None},
    ]
    table = write_jsonl(tmp_path / "table.jsonl", rows)
    source = vqa_csv(table, columns=Columns(options=("A", "B", "C")), parts={"test": 1.0})
    choice, opened = records_of(source, tmp_path / "out")["test"].values()
    assert asked(choice) == f"<image>\n<image>\nQ?\nA. 1\nB. 2\n{ASK}"
    assert (answered(choice), choice["id"]) == ("B", "table-1")
    assert (asked(opened), opened["metadata"]["closed"]) == ("Open?", False)

    inside = [{"image": embedded(i % 2), "question": f"Q{i}?", "answer": "yes"} for i in range(4)]
    inside.append({"image": {"bytes": None, "path": "a.png"}, "question": "Beside?", "answer": "yes"})
    table = write_parquet(tmp_path / "inside.parquet", inside)
    found = records_of(vqa_csv(table, parts={"train": 1.0}), tmp_path / "inside")["train"]
    assert len({record["image"] for record in found.values()}) == 3
    assert (tmp_path / "inside" / found["inside-2"]["image"]).read_bytes() == picture_bytes(1)
    assert found["inside-5"]["image"] == "../a.png"


def test_without_splits_a_subject_or_an_image_is_on_one_side(tmp_path):
    write_images(tmp_path, *(f"{i}.png" for i in range(40)))
    rows = [
        {"image": f"{i}.png", "question": f"Q{j}?", "answer": "yes", "patient": f"p{i // 4}"}
        for i in range(40)
        for j in range(2)
    ]
    table = write_csv(tmp_path / "table.csv", rows)
    parts = {"train": 0.5, "validation": 0.25, "test": 0.25}
    by_image = records_of(vqa_csv(table, seed=1, parts=parts), tmp_path / "by_image")
    assert list(by_image) == ["test", "train", "validation"]
    for split, records in by_image.items():
        names = {Path(record["image"]).name for record in records.values()}
        assert names == {f"{i}.png" for i in range(40) if split_of(f"{i}.png", 1, parts) == split}
        assert len(records) == 2 * len(names)
        assert (tmp_path / "by_image" / "splits" / f"{split}.txt").read_text().split() == sorted(names)
    columns = Columns(subject="patient")
    by_patient = records_of(vqa_csv(table, columns=columns, seed=1, parts=parts), tmp_path / "by_patient")
    listed = {split: (tmp_path / "by_patient" / "splits" / f"{split}.txt").read_text().split() for split in by_patient}
    assert sorted(name for names in listed.values() for name in names) == sorted(f"p{i}" for i in range(10))
    again = records_of(vqa_csv(table, columns=columns, seed=1, parts=parts), tmp_path / "again")
    assert again == by_patient
    other = records_of(vqa_csv(table, columns=columns, seed=2, parts=parts), tmp_path / "other")
    assert set(other["train"]) != set(by_patient["train"])
    # A table that moves with its images keeps its splits.
    moved = tmp_path / "moved"
    write_images(moved, *(f"{i}.png" for i in range(40)))
    write_csv(moved / "table.csv", rows)
    assert (records_of(vqa_csv(moved / "table.csv", seed=1, parts=parts), moved / "by_image").keys()) == by_image.keys()
    for split in by_image:
        assert (moved / "by_image" / "splits" / f"{split}.txt").read_text() == (
            tmp_path / "by_image" / "splits" / f"{split}.txt"
        ).read_text()


def csv_source(tmp_path, columns=Columns(), **changes):
    write_images(tmp_path, "1.png")
    return vqa_csv(
        write_csv(tmp_path / "t.csv", [{"image": "1.png", "question": "Q?", "answer": "yes"} | changes]),
        columns=columns,
    )


def slake_source(tmp_path, **changes):
    row = {key: value for key, value in slake_row(0, **changes).items() if value != "absent"}
    write_json(make_slake(tmp_path / "root") / "test.json", [slake_row(9), row])
    return slake(tmp_path / "root")


@pytest.mark.parametrize("empty", [" ", None])
def test_slake_counts_what_it_leaves_out(empty, tmp_path, caplog):
    source = slake_source(tmp_path, answer=empty)
    assert list(records_of(source, tmp_path / "out")["test"]) == ["slake-9"]
    assert "slake: 1 records with an empty answer are left out" in caplog.text
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["left_out"] == {"in another language": 1, "with an empty answer": 1}


def omnimed_source(tmp_path, **changes):
    root = make_omnimedvqa(tmp_path / "root")
    path = root / "OmniMedVQA" / "QA_information" / "Open-access" / "Chest CT Scan.json"
    write_json(path, [omnimed_row("ok"), omnimed_row("bad", **changes)])
    return omnimedvqa(root)


def pmc_source(tmp_path, **changes):
    root = make_pmc_vqa_2(tmp_path)
    write_csv(root / "test_2.csv", [pmc2_row(0, **changes)])
    return pmc_vqa(root)


def mmmu_source(tmp_path, **changes):
    write_parquet(tmp_path / "Pharmacy" / "validation-00000-of-00001.parquet", [mmmu_row("a", **changes)])
    return mmmu_med(tmp_path)


def medxpert_source(tmp_path, **changes):
    root = make_medxpertqa(tmp_path)
    write_jsonl(root / "MM" / "dev.jsonl", [medxpert_row("MM-0", **changes)])
    return medxpertqa(root)


def pathvqa_source(tmp_path, **changes):
    root = make_pathvqa(tmp_path / "root")
    write_pickle(root / "pvqa" / "qas" / "test_vqa.pkl", [pathvqa_row("test_0001", 1, **changes)])
    return pathvqa(root)


@pytest.mark.parametrize(
    ("make", "changes", "message"),
    [
        (slake_source, {"question": "absent"}, r"test\.json, row 2: expected a text in question, found no such key"),
        (slake_source, {"answer": "absent"}, r"test\.json, row 2: expected a text in answer, found no such key"),
        (slake_source, {"q_lang": "absent"}, r"row 2: expected a text in q_lang, found no such key"),
        (slake_source, {"question": "Is <image> or <image>?"}, r"row 2: the question has 2 <image> for 1 images"),
        (omnimed_source, {"gt_answer": "Cyst"},
         r"Chest CT Scan\.json, row 2: the answer 'Cyst' is none of its options \(A\. Nodule; B\. Normal lung; "),
        (omnimed_source, {f"option_{letter}": "absent" for letter in "ABCD"}, r"row 2: expected options, found"),
        (omnimed_source, {"gt_answer": "B"}, r"row 2: the answer 'B' is none of its options"),
        (pmc_source, {"Answer": "E"}, r"test_2\.csv, row 1: the answer 'E' is none of its options"),
        (pmc_source, {"Answer": ""}, r"test_2\.csv, row 1: expected a text in Answer, found ''"),
        (mmmu_source, {"options": "['a', "}, r"row 1: expected a list written as text, found"),
        (mmmu_source, {"options": "__import__('os').getcwd()"}, r"row 1: expected a list written as text, found"),
        (mmmu_source, {"options": "'text'"}, r"row 1: expected options, found 'text'"),
        (mmmu_source, {"answer": "?"}, r"row 1: the answer '\?' is none of its options"),
        (mmmu_source, {"question": "Is it <image 2>?"}, r"row 1: mentions <image 2>, and has no image_2"),
        (mmmu_source, {"question_type": "open", "answer": "[]"}, r"row 1: expected a text in answer, found ''"),
        (mmmu_source, {"image_1": {"bytes": b"", "path": None}}, r"row 1: holds no image"),
        (medxpert_source, {"label": "F"}, r"dev\.jsonl, row 1: the answer 'F' is none of its options"),
        (medxpert_source, {"label": ["A", "B"]}, r"dev\.jsonl, row 1: the answer .* is none of its options"),
        (medxpert_source, {"images": "MM-0-a.jpeg"}, r"row 1: expected a list of file names in images, found 'MM-0"),
        (medxpert_source, {"images": [""]}, r"row 1: expected a text in image_path, found ''"),
        (pathvqa_source, {"label": {}}, r"test_vqa\.pkl, row 1: expected a text in answer, found None"),
        (pathvqa_source, {"label": ["yes"]}, r"test_vqa\.pkl, row 1: expected an answer and its score in label"),
        (pathvqa_source, {"img_id": None}, r"test_vqa\.pkl, row 1: expected a text in img_id, found None"),
        (csv_source, {"columns": Columns(image="picture", subject="patient")},
         r"t\.csv, row 1: has no column picture, patient; it has image, question, answer"),
        (csv_source, {"columns": Columns(split="part"), "part": "training"},
         r"t\.csv, row 1: part is 'training', expected train, validation, test"),
        (csv_source, {"columns": Columns(options=("a", "b")), "a": "1", "b": "2"},
         r"t\.csv, row 1: the answer 'yes' is none of its options \(A\. 1; B\. 2\)"),
        (csv_source, {"columns": Columns(options=("o",)), "o": "3"}, r"t\.csv, row 1: expected options, found 3"),
        (csv_source, {"image": ""}, None),
        (csv_source, {"image": "[1.png"}, r"t\.csv, row 1: expected a list written as text, found '\[1\.png'"),
        (csv_source, {"question": "What is <image>?", "image": ""}, r"row 1: the question has 1 <image> for 0 images"),
    ],
)  # fmt: skip
def test_a_row_that_is_wrong_is_named_in_one_line(make, changes, message, tmp_path):
    (tmp_path / "tree").mkdir()
    source = make(tmp_path / "tree", **changes)
    if message is None:
        assert records_of(source, tmp_path / "out")
        return
    with pytest.raises(ValueError, match=message) as caught:
        list(prepare(source, tmp_path / "out"))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_pathvqa_refuses_a_pickle_of_something_else(tmp_path):
    root = make_pathvqa(tmp_path)
    write_pickle(root / "pvqa" / "qas" / "train_vqa.pkl", {"a": 1})
    with pytest.raises(ValueError, match=r"train_vqa\.pkl: expected a list of questions, found dict"):
        next(iter(pathvqa(root).samples))
    write_pickle(root / "pvqa" / "qas" / "train_vqa.pkl", ["a"])
    with pytest.raises(ValueError, match=r"train_vqa\.pkl, row 1: expected a dictionary, found 'a'"):
        next(iter(pathvqa(root).samples))


def test_shares_of_splits_add_up(tmp_path):
    table = make_table(tmp_path / "root")
    for parts in ({"train": 0.5}, {"train": 0.5, "rest": 0.5}):
        with pytest.raises(ValueError, match=r"expected shares of train, validation, test that add up to 1"):
            vqa_csv(table, parts=parts)
    with pytest.raises(FileNotFoundError, match=r"none\.csv: no such file"):
        vqa_csv(tmp_path / "none.csv")


def peak_of(source):
    tracemalloc.start()
    count = sum(1 for _ in source.samples)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return count, peak


@pytest.mark.parametrize("name", ["slake", "omnimedvqa", "pmc-vqa", "medxpertqa", "vqa-csv"])
def test_memory_does_not_grow_with_a_data_set(name, tmp_path):
    def grown(num_rows):
        root = tmp_path / str(num_rows)
        root.mkdir()
        if name == "slake":
            make_slake(root)
            write_json(root / "train.json", [slake_row(i) for i in range(num_rows)])
            return slake(root)
        if name == "omnimedvqa":
            path = make_omnimedvqa(root) / "OmniMedVQA" / "QA_information" / "Open-access" / "Chest CT Scan.json"
            write_json(path, [omnimed_row(f"r{i}") for i in range(num_rows)])
            return omnimedvqa(root)
        if name == "pmc-vqa":
            write_csv(make_pmc_vqa_1(root) / "train.csv", [pmc_row() for _ in range(num_rows)])
            return pmc_vqa(root)
        if name == "medxpertqa":
            write_jsonl(
                make_medxpertqa(root) / "MM" / "test.jsonl",
                [medxpert_row(f"r{i}", images=["a"]) for i in range(num_rows)],
            )
            return medxpertqa(root)
        rows = [{"image": "1.png", "question": f"Q{i}?", "answer": "yes"} for i in range(num_rows)]
        return vqa_csv(write_csv(root / "table.csv", rows))

    peak_of(grown(10))  # what is imported on the way is not counted
    few, many = peak_of(grown(300)), peak_of(grown(3000))
    assert many[0] - few[0] == 2700
    assert many[1] < few[1] + 100 * 2700  # bytes, less than any row has

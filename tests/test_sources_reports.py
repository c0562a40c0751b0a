"""Sources of conversations and reports from small trees in their exact layouts, and the tables they are read from."""

import csv
import gzip
import json
import logging
import math

import pyarrow
import pyarrow.parquet as parquet
import pytest

from healthgpt.data.mixture import RECONSTRUCTIONS
from healthgpt.data.preparation import MISSING_NAME, prepare, split_of
from healthgpt.data.records import RecordFile, parse_record
from healthgpt.data.sources.iu_xray import PARTS, iu_xray
from healthgpt.data.sources.llava import llava_558k, llava_665k, llava_med, llava_reconstruction, pubmedvision
from healthgpt.data.sources.mimic_cxr import DRAWINGS, mimic_cxr_drawing, mimic_cxr_reports, mimic_cxr_vqa
from healthgpt.data.sources.reports import REPORT_QUESTIONS, report_text, split_report
from healthgpt.data.tables import rows_of
from healthgpt.tasks import Task
from healthgpt.templates import IMAGE


def put(path, content=b"picture"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def put_json(path, value):
    return put(path, json.dumps(value))


def put_csv(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", newline="") if path.suffix == ".gz" else path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def prepared(source, output):
    """The records of each split, each one parsed; its images are there."""
    list(prepare(source, output))
    found = {}
    for path in sorted(output.glob("*.jsonl")):
        values = list(RecordFile(path))
        for value in values:
            record = parse_record(value, where=path.name, image_folder=output)
            paths = [*record.images, *([record.target] if record.target else [])]
            assert all(image.is_file() for image in paths)
        found[path.stem] = values
    return found


def said(value):
    return [turn["value"] for turn in value["conversations"]]


def talk(*texts):
    return [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(texts)]


# LLaVA's form


@pytest.fixture
def web(tmp_path):
    """LLaVA-558k of five images, the mark at either end."""
    rows = []
    for i in range(5):
        name = f"0000{i}/0000{i}000{i}.jpg"
        put(tmp_path / "web" / "images" / name)
        question = "Describe it.\n<image>" if i % 2 else "<image>\nDescribe it."
        rows.append({"id": f"0000{i}000{i}", "image": name, "conversations": talk(question, f"thing {i} ")})
    put_json(tmp_path / "web" / "blip_laion_cc_sbu_558k.json", rows)
    return tmp_path / "web"


def test_llava_558k_keeps_marks_where_they_are(web, tmp_path):
    records = prepared(llava_558k(web), tmp_path / "out")
    assert list(records) == ["train"]
    first, second = records["train"][:2]
    assert said(first) == ["<image>\nDescribe it.", "thing 0"]
    assert said(second) == ["Describe it.\n<image>", "thing 1"]
    assert first["metadata"] == {"kind": "caption", "closed": False}
    assert (tmp_path / "out" / first["image"]).resolve() == web / "images" / "00000" / "000000000.jpg"
    assert len({value["id"] for value in records["train"]}) == 5


def test_llava_558k_unpacked_without_a_folder_of_images(web, tmp_path):
    for folder in (web / "images").iterdir():
        folder.rename(web / folder.name)
    (web / "images").rmdir()
    first = prepared(llava_558k(web), tmp_path / "out")["train"][0]
    assert (tmp_path / "out" / first["image"]).resolve() == web / "00000" / "000000000.jpg"
    assert len(prepared(llava_reconstruction(web), tmp_path / "drawn")["train"]) == 5


def test_each_image_of_llava_558k_is_drawn_from_itself(web, tmp_path):
    values = prepared(llava_reconstruction(web), tmp_path / "out")["train"]
    assert [value["task"] for value in values] == ["generation"] * 5
    assert all(value["image"] == value["target_image"] for value in values)
    wanted = [f"<image>\n{RECONSTRUCTIONS[i % len(RECONSTRUCTIONS)]}" for i in range(5)]
    assert [said(value)[0] for value in values] == wanted
    assert said(values[0])[1] == ""
    assert values[0]["metadata"]["kind"] == "reconstruction"


def test_llava_665k_has_folders_text_and_several_turns(tmp_path):
    root = tmp_path / "mix"
    names = ("coco/train2017/1.jpg", "gqa/images/2.jpg", "ocr_vqa/images/3.jpg", "textvqa/train_images/4.jpg")
    for name in (*names, "vg/VG_100K/5.jpg"):
        put(root / name)
    rows = [
        {"id": "000000033471", "image": names[0], "conversations": talk("<image>\nWhat?", "A bus.", "Where?", "Here.")},
        {"id": "000000033471", "image": names[0], "conversations": talk("Describe it.\n<image>", "A street.")},
        {"id": 7, "image": names[1], "conversations": talk("Which <image> is it?", "This one.")},
        {"id": "b", "image": names[2], "conversations": talk("<image>\nWho wrote it?", "Nobody.")},
        {"id": "c", "image": names[3], "conversations": talk("What is written?", "STOP")},
        {"id": "d", "image": "vg/VG_100K/5.jpg", "conversations": talk("<image>\nWhere?", "[0, 0, 1, 1]")},
        {"id": "identity_0", "model": "", "conversations": talk("Hello?", "Write <image> for images.")},
        {"id": "cut", "conversations": [{"from": "gpt", "value": "Continued."}, *talk("And?", "So.", "Then?")]},
        {"id": "empty", "conversations": talk("Hello?", " ")},
        {"id": "feed", "conversations": talk("What is <image> in RSS?", "The channel's logo.")},
    ]
    put_json(root / "llava_v1_5_mix665k.json", rows)
    values = prepared(llava_665k(root), tmp_path / "out")["train"]
    assert len(values) == 8
    assert said(values[0]) == ["<image>\nWhat?", "A bus.", "Where?", "Here."]
    assert said(values[2])[0] == "Which <image> is it?"
    assert said(values[4])[0] == "<image>\nWhat is written?"
    assert said(values[7]) == ["And?", "So."]
    assert "image" not in values[6]
    assert [value["metadata"]["kind"] for value in values] == ["conversation"] * 6 + ["text"] * 2
    assert len({value["id"] for value in values}) == 8
    left_out = json.loads((tmp_path / "out" / "manifest.json").read_text())["left_out"]
    assert left_out == {"with <image> in a text without an image": 1, "with an empty answer": 1}


@pytest.fixture
def figures(tmp_path):
    """LLaVA-Med, its alignment file with the misspelt key."""
    root = tmp_path / "med"
    for name in ("1_F1.jpg", "2_F1.jpg"):
        put(root / "images" / name)
    alignment = [{"id": "1_F1", "image": "1_F1.jpg", "conversatons": talk("Describe it.\n<image>", "A scan.")}]
    domain = {"chest_xray": False, "ct_scan": True, "mri": False, "histology": True, "gross": False}
    # The first turn, which had the mark, was removed from this one.
    instruct = [{"id": "2_F1", "image": "2_F1.jpg", "domain": domain, "conversations": talk("What organ?", "A lung.")}]
    put_json(root / "alignment" / "llava_med_alignment_500k.json", alignment)
    put_json(root / "llava_med_instruct_60k.json", instruct)
    return root


def test_llava_med_in_two_parts(figures, tmp_path):
    caption, conversation = prepared(llava_med(figures), tmp_path / "both")["train"]
    assert said(caption) == ["Describe it.\n<image>", "A scan."]
    assert said(conversation) == ["<image>\nWhat organ?", "A lung."]
    assert caption["metadata"] == {"kind": "caption", "closed": False}
    assert conversation["metadata"] == {"kind": "conversation", "closed": False, "modality": "ct, microscopy"}
    assert prepared(llava_med(figures, part="instruct"), tmp_path / "one")["train"] == [conversation]
    (figures / "llava_med_instruct_60k.json").rename(figures / "llava_med_instruct_60k_inline_mention.json")
    assert prepared(llava_med(figures, part="instruct"), tmp_path / "inline")["train"] == [conversation]
    (figures / "llava_med_instruct_60k_inline_mention.json").rename(figures / "llava_med_instruct_60k.json")
    with pytest.raises(ValueError, match="part is 'all', expected alignment or instruct"):
        llava_med(figures, part="all")
    (figures / "llava_med_instruct_60k.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"med: has no llava_med_instruct_60k\.json$"):
        llava_med(figures, part="instruct")


def test_pubmedvision_has_lists_of_images(tmp_path, caplog):
    root = tmp_path / "pmv"
    names = [f"images/pmc_{i}_0.jpg" for i in range(3)]
    for name in names:
        put(root / name)
    facts = {"modality": "Computed Tomography", "body_part": "Chest"}
    alignment = [
        {"id": "0", "image": names[:1], "conversations": talk("Describe it.", "A chest."), **facts},
        {"id": "1", "image": names[1:], "conversations": talk("Compare <image> with <image>.", "Alike."), **facts},
        {"id": "2", "image": names[1:], "conversations": talk("Describe them.", "Two scans."), **facts},
    ]
    put_json(root / "PubMedVision_Alignment_VQA.json", alignment)
    put_json(root / "PubMedVision_InstructionTuning_VQA.json", alignment[:1])
    with caplog.at_level(logging.WARNING):
        values = prepared(pubmedvision(root), tmp_path / "single")["train"]
    assert [value["metadata"]["kind"] for value in values] == ["caption", "conversation"]
    assert values[0]["metadata"] | {"kind": 0} == {
        "kind": 0,
        "closed": False,
        "modality": "computed tomography",
        "body_part": "chest",
    }
    assert (tmp_path / "single" / values[0]["image"]).resolve() == root / names[0]
    assert "pubmedvision: 2 records with several images (multi_image takes them) are left out" in caplog.text
    values = prepared(pubmedvision(root, part="alignment", multi_image=True), tmp_path / "all")["train"]
    assert [len(value["image"]) for value in values[1:]] == [2, 2]
    assert said(values[1])[0] == "Compare <image> with <image>."
    assert said(values[2])[0] == "<image>\n<image>\nDescribe them."


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"image": 3}, "image is '3', expected a path or a list of paths"),
        ({"image": [""]}, "image is .*, expected a path or a list of paths"),
        ({"conversations": None}, "conversations is None, expected a list of turns"),
        ({"conversations": ["Hello"]}, "turn 1: expected from and value, found 'Hello'"),
        ({"conversations": [{"from": "human", "value": None}]}, "turn 1: expected from and value"),
        ({"conversations": [{"from": "system", "value": "Be brief."}]}, "turn 1: is from 'system', expected human"),
        ({"conversations": [*talk("<image>"), *talk("Again?", "Yes.")]}, "two turns of human in a row"),
        ({"conversations": talk("<image><image>", "Two.")}, "2 <image> marks for 1 images"),
    ],
)
def test_bad_conversations_are_named(web, tmp_path, row, message):
    good = {"id": "x", "image": "00000/000000000.jpg", "conversations": talk("<image>", "It.")}
    path = put_json(web / "blip_laion_cc_sbu_558k.json", [good, good | row])
    with pytest.raises(ValueError, match=rf"558k\.json, record 2.*{message}") as caught:
        list(prepare(llava_558k(web), tmp_path / "out"))
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_missing_images_are_listed_at_once(web, tmp_path):
    lost = sorted(web.glob("images/*/*.jpg"))[1:4]
    for path in lost:
        path.unlink()
    with pytest.raises(ValueError, match="3 files are missing"):
        list(prepare(llava_558k(web), tmp_path / "out"))
    assert (tmp_path / "out" / MISSING_NAME).read_text().split() == [str(path) for path in lost]
    for path in lost:
        put(path)
    assert len(prepared(llava_558k(web), tmp_path / "out")["train"]) == 5


def test_preparation_twice_gives_the_same(web, tmp_path):
    list(prepare(llava_558k(web), tmp_path / "out"))
    manifest = tmp_path / "out" / "manifest.json"
    first, when = (tmp_path / "out" / "train.jsonl").read_bytes(), manifest.stat().st_mtime_ns
    assert list(prepare(llava_558k(web), tmp_path / "out")) == [5]
    assert manifest.stat().st_mtime_ns == when
    list(prepare(llava_558k(web), tmp_path / "other", num_processes=2))
    assert (tmp_path / "other" / "train.jsonl").read_bytes() == first
    with pytest.raises(ValueError, match="holds another preparation"):
        list(prepare(llava_558k(web, multi_image=True), tmp_path / "out"))


# MIMIC-CXR

FULL_REPORT = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  ___F with new onset ascites  // eval for infection

 FINDINGS:

 There is no focal consolidation,   pleural effusion or
 pneumothorax, compared to ___.

 IMPRESSION:
 No acute cardiopulmonary process.
"""
FULL_TEXT = (
    "Findings: There is no focal consolidation, pleural effusion or pneumothorax, compared to ___. "
    "Impression: No acute cardiopulmonary process."
)
VIEWS = {"a-1": "PA", "a-2": "LATERAL", "b-1": "AP", "c-1": "", "d-1": "PA", "e-1": "AP"}
# dicom_id: subject, study, split. The report of d has neither section.
STUDIES = {
    "a-1": ("10000032", "50414267", "train"),
    "a-2": ("10000032", "50414267", "train"),
    "b-1": ("11000011", "51000001", "validate"),
    "c-1": ("11000011", "51000002", "validate"),
    "d-1": ("12000002", "52000001", "train"),
    "e-1": ("19999987", "59999999", "test"),
}
REPORTS = {
    "50414267": FULL_REPORT,
    "51000001": " FINAL REPORT\n PORTABLE CHEST RADIOGRAPH:  Lungs are clear.\n \n CONCLUSION: Normal.\n",
    "51000002": FULL_REPORT,
    "52000001": " FINAL REPORT\n INDICATION: Cough.\n",
    "59999999": "As compared to ___, nothing changed.\n\n Small left\n effusion.\n",
}


def study_folder(root, subject, study):
    return root / "files" / f"p{subject[:2]}" / f"p{subject}" / f"s{study}"


def make_mimic(root, ending=""):
    for name, (subject, study, _) in STUDIES.items():
        put(study_folder(root, subject, study) / f"{name}.{'dcm' if name == 'b-1' else 'jpg'}")
        put(study_folder(root, subject, study).with_suffix(".txt"), REPORTS[study])
    keys = ("subject_id", "study_id", "split")
    rows = [{"dicom_id": name, **dict(zip(keys, facts, strict=True))} for name, facts in STUDIES.items()]
    put_csv(root / f"mimic-cxr-2.0.0-split.csv{ending}", rows)
    rows = [
        {"dicom_id": name, "PerformedProcedureStepDescription": "", "ViewPosition": view}
        for name, view in VIEWS.items()
    ]
    put_csv(root / f"mimic-cxr-2.0.0-metadata.csv{ending}", rows)
    return root


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_mimic_reports_of_frontal_images(tmp_path, ending):
    root = make_mimic(tmp_path / "mimic", ending)
    records = prepared(mimic_cxr_reports(root), tmp_path / "out")
    assert {split: len(values) for split, values in records.items()} == {"train": 1, "validation": 1, "test": 1}
    (train,), (validation,), (test,) = (records[split] for split in ("train", "validation", "test"))
    assert said(train) == [f"<image>\n{REPORT_QUESTIONS[0]}", FULL_TEXT]
    assert said(validation) == [f"<image>\n{REPORT_QUESTIONS[1]}", "Findings: Lungs are clear. Impression: Normal."]
    assert said(test)[1] == "Impression: Small left effusion."
    assert train["image"].endswith("files/p10/p10000032/s50414267/a-1.jpg")
    assert validation["image"].endswith("b-1.dcm")
    assert train["metadata"] == {"kind": "report", "closed": False, "modality": "x-ray", "view": "PA"}
    ids = {split: (tmp_path / "out" / "splits" / f"{split}.txt").read_text().split() for split in records}
    assert ids == {"train": ["10000032"], "validation": ["11000011"], "test": ["19999987"]}
    left_out = json.loads((tmp_path / "out" / "manifest.json").read_text())["left_out"]
    assert left_out == {"of another view than PA and AP": 2, "without findings and impression": 1}


def test_mimic_drawings_have_no_image_but_a_target(tmp_path):
    records = prepared(mimic_cxr_drawing(make_mimic(tmp_path / "mimic")), tmp_path / "out")
    (train,), (validation,) = records["train"], records["validation"]
    assert said(train) == [DRAWINGS[0].format(FULL_TEXT), ""]
    assert said(validation)[0] == DRAWINGS[1].format("Findings: Lungs are clear. Impression: Normal.")
    record = parse_record(train, where="x", image_folder=tmp_path / "out")
    assert (record.task, record.images) == (Task.GENERATION, ())
    assert record.target.name == "a-1.jpg"
    assert train["metadata"]["kind"] == "report-to-cxr"


def test_mimic_lists_missing_images_and_reports_together(tmp_path):
    root = make_mimic(tmp_path / "mimic")
    report = study_folder(root, "10000032", "50414267").with_suffix(".txt")
    image = study_folder(root, "19999987", "59999999") / "e-1.jpg"
    report.unlink()
    image.unlink()
    for make in (mimic_cxr_reports, mimic_cxr_drawing):
        output = tmp_path / make.__name__
        with pytest.raises(ValueError, match="2 files are missing"):
            list(prepare(make(root), output))
        assert (output / MISSING_NAME).read_text().split() == [str(report), str(image)]
    (root / "mimic-cxr-2.0.0-metadata.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no mimic-cxr-2\.0\.0-metadata\.csv or mimic-"):
        mimic_cxr_reports(root)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"split": "dev"}, "split is 'dev', expected train, validate, test"),
        ({"subject_id": ""}, "expected a text in subject_id, found ''"),
        ({"study_id": "s5"}, "subject '10000032' and study 's5', expected numbers"),
    ],
)
def test_bad_rows_of_mimic_are_named(tmp_path, row, message):
    root = make_mimic(tmp_path / "mimic")
    good = {"dicom_id": "a-1", "subject_id": "10000032", "study_id": "50414267", "split": "train"}
    put_csv(root / "mimic-cxr-2.0.0-split.csv", [good, good | row])
    with pytest.raises(ValueError, match=rf"split\.csv, row 2: {message}$"):
        list(prepare(mimic_cxr_reports(root), tmp_path / "out"))


def vqa_row(name, number, answer, **facts):
    subject, study, _ = STUDIES[name]
    return {
        "split": "train",
        "idx": number,
        "subject_id": int(subject),
        "study_id": study,
        "image_id": name,
        "image_path": f"p{subject[:2]}/p{subject}/s{study}/{name}.jpg",
        "question": "Is there any effusion? ",
        "semantic_type": "verify",
        "content_type": "presence",
        "template": "Is there any ${attribute}?",
        "template_arguments": {"attribute": {"0": "effusion"}},
        "answer": answer,
        **facts,
    }


@pytest.mark.parametrize("folder", ["", "mimiccxrvqa/dataset"])
def test_mimic_questions_with_answers_in_lists(tmp_path, folder):
    root = make_mimic(tmp_path / "mimic")
    rows = [
        vqa_row("a-1", 0, ["yes"]),
        vqa_row("a-2", 1, ["effusion", "edema"], semantic_type="query", content_type="attribute"),
        vqa_row("d-1", 2, []),
    ]
    put_json(root / folder / "train.json", rows)
    put_json(root / folder / "valid.json", [vqa_row("b-1", 0, ["no"])])
    put_json(root / folder / "test.json", [vqa_row("e-1", 0, ["lung", 2])])
    records = prepared(mimic_cxr_vqa(root), tmp_path / "out")
    assert [said(value)[1] for value in records["train"]] == ["yes", "effusion, edema", "none"]
    assert [value["metadata"]["closed"] for value in records["train"]] == [True, False, False]
    assert [value["metadata"]["kind"] for value in records["train"]] == ["presence", "attribute", "presence"]
    assert said(records["train"][0])[0] == "<image>\nIs there any effusion?"
    assert said(records["validation"][0])[1] == "no"
    assert records["validation"][0]["image"].endswith("b-1.dcm")
    assert said(records["test"][0])[1] == "lung, 2"
    groups = [set((tmp_path / "out" / "splits" / f"{split}.txt").read_text().split()) for split in records]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 4
    unanswered = vqa_row("a-1", 0, [])
    del unanswered["answer"]
    put_json(root / folder / "train.json", [unanswered])
    with pytest.raises(ValueError, match=r"train\.json, row 1: answer is None, expected a list"):
        list(prepare(mimic_cxr_vqa(root), tmp_path / "unanswered"))


@pytest.mark.parametrize(
    ("text", "sections"),
    [
        (FULL_REPORT, ("There is no focal consolidation, pleural effusion or pneumothorax, compared to ___.",
                       "No acute cardiopulmonary process.")),
        ("Findings:\n Clear.\n Impression: Normal.", ("Clear.", "Normal.")),
        ("FINDINGS: Clear. IMPRESSION: Normal.", ("Clear.", "Normal.")),
        ("FINDINGS\r\n Clear.\r\n\r\nIMPRESSION\r\n Normal.\r\n", ("Clear.", "Normal.")),
        (" FINDINGS AND IMPRESSION: Clear, normal.", ("", "Clear, normal.")),
        (" IMPRESSION AND RECOMMENDATIONS: Normal.\n NOTIFICATION: By phone.", ("", "Normal.")),
        (" CHEST, 2 VIEWS:\n\n HISTORY: Pain.\n\n FINDINGS: Clear.", ("Clear.", "")),
        (" REASON FOR EXAM: Cough.\n\n PA AND LATERAL CHEST RADIOGRAPH: Clear.", ("Clear.", "")),
        (" WET READ: ___ 9:00 AM\n IMPRESSION: Edema.\n FINAL REPORT\n IMPRESSION: None.", ("", "None.")),
        (" COMPARISON: ___.\n\n Lungs are clear.\n \n Heart is normal.", ("", "Lungs are clear. Heart is normal.")),
        ("A title\n\n History of cough.\n \n Lungs\n are clear.", ("", "Lungs are clear.")),
        (" FINDINGS: T12: fracture.\n IMPRESSION:", ("T12: fracture.", "")),
        (" INDICATION: Cough.", ("", "")),
        ("", ("", "")),
    ],
)  # fmt: skip
def test_sections_of_reports(text, sections):
    assert split_report(text) == sections


def test_reports_have_one_form():
    assert report_text("Clear.", "Normal.") == "Findings: Clear. Impression: Normal."
    assert report_text("", "Normal.") == "Impression: Normal."
    assert report_text("Clear.", "") == "Findings: Clear."


# IU X-ray


def test_iu_xray_with_lists_of_images(tmp_path):
    root = tmp_path / "iu"
    for name in ("CXR1/0.png", "CXR1/1.png", "CXR2/0.png"):
        put(root / "images" / name)
    reports = [
        {"id": "CXR1", "image": ["CXR1/0.png", "CXR1/1.png"], "findings": "Clear\n lungs.", "impression": "Normal."},
        {"id": 3, "image": ["CXR2/0.png"], "findings": "", "impression": None},
    ]
    put_json(root / "train.json", reports)
    put_json(
        root / "test.json", [{"id": "CXR2", "image": ["images/CXR2/0.png"], "findings": "", "impression": "No change."}]
    )
    records = prepared(iu_xray(root), tmp_path / "out")
    assert {split: len(values) for split, values in records.items()} == {"train": 1, "test": 1}
    (train,) = records["train"]
    assert said(train) == [f"<image>\n<image>\n{REPORT_QUESTIONS[0]}", "Findings: Clear lungs. Impression: Normal."]
    assert len(train["image"]) == 2
    assert said(records["test"][0])[1] == "Impression: No change."
    left_out = json.loads((tmp_path / "out" / "manifest.json").read_text())["left_out"]
    assert left_out == {"without findings and impression": 1}
    (single,) = prepared(iu_xray(root, multi_image=False), tmp_path / "single")["train"]
    assert single["image"].endswith("CXR1/0.png")
    put_json(root / "test.json", [{"id": "CXR2", "image": "CXR2/0.png", "findings": ""}])
    with pytest.raises(ValueError, match=r"test\.json, row 1: image is 'CXR2/0\.png', expected a list of paths"):
        list(prepare(iu_xray(root), tmp_path / "bad"))


def make_open_i(root, count=60):
    projections, reports = [], []
    for uid in range(1, count + 1):
        for view, projection in ((2001, "Lateral"), (1001, "Frontal")):
            name = f"{uid}_IM-0001-{view}.dcm.png"
            put(root / "images" / "images_normalized" / name)
            projections.append({"uid": uid, "filename": name, "projection": projection})
        findings = f'Heart {uid} is normal,\n"no" XXXX.' if uid % 2 else ""
        reports.append({"uid": uid, "MeSH": "normal", "findings": findings, "impression": "Normal chest."})
    reports[3] |= {"findings": "", "impression": ""}
    reports.append({"uid": 9999, "MeSH": "", "findings": "Without an image.", "impression": ""})
    put_csv(root / "indiana_reports.csv", reports)
    put_csv(root / "indiana_projections.csv", projections)
    return root


def test_open_i_is_split_by_subject(tmp_path):
    root = make_open_i(tmp_path / "openi")
    records = prepared(iu_xray(root, seed=5), tmp_path / "out")
    ids = {split: (tmp_path / "out" / "splits" / f"{split}.txt").read_text().split() for split in records}
    assert set(ids) == set(PARTS)
    assert all(split_of(uid, 5, PARTS) == split for split, uids in ids.items() for uid in uids)
    together = [uid for uids in ids.values() for uid in uids]
    assert sorted(map(int, together)) == [uid for uid in range(1, 61) if uid != 4]
    by_id = {value["id"]: value for values in records.values() for value in values}
    first = by_id["iu-xray-1"]
    assert [name.rpartition("/")[2] for name in first["image"]] == ["1_IM-0001-1001.dcm.png", "1_IM-0001-2001.dcm.png"]
    assert said(first)[1] == 'Findings: Heart 1 is normal, "no" XXXX. Impression: Normal chest.'
    record = parse_record(first, where="x", image_folder=tmp_path / "out")
    assert record.turns[0].parts[:3] == (IMAGE, "\n", IMAGE)
    again = prepared(iu_xray(root, seed=5), tmp_path / "again")
    other = prepared(iu_xray(root, seed=6), tmp_path / "other")
    assert again == records
    assert other != records
    single = prepared(iu_xray(root, seed=5, multi_image=False), tmp_path / "single")
    assert all("-1001" in value["image"] for values in single.values() for value in values)


def test_bad_tables_of_open_i_are_named(tmp_path):
    root = make_open_i(tmp_path / "openi", count=4)
    put_csv(root / "indiana_projections.csv", [{"uid": 1, "filename": "1.png", "projection": "Oblique"}])
    with pytest.raises(
        ValueError, match=r"projections\.csv, row 1: projection is 'Oblique', expected Frontal or Later"
    ):
        list(prepare(iu_xray(root), tmp_path / "out"))
    make_open_i(root, count=4)
    put_csv(root / "indiana_reports.csv", [{"uid": 1, "report": "Clear."}])
    with pytest.raises(ValueError, match=r"reports\.csv, row 1: expected findings or an impression, found neither"):
        list(prepare(iu_xray(root), tmp_path / "out"))
    with pytest.raises(FileNotFoundError, match=r"has no test\.json or indiana_reports\.csv"):
        iu_xray(tmp_path)


# Tables

ROWS = [{"name": "a", "text": 'two\nlines, "quoted"'}, {"name": "ä", "text": ""}]


def as_csv(delimiter):
    lines = [delimiter.join(('"name"', '"text"'))]
    lines += [delimiter.join('"' + cell.replace('"', '""') + '"' for cell in row.values()) for row in ROWS]
    return "\r\n".join(lines).encode()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", json.dumps(ROWS, indent=1).encode()),
        ("a.jsonl", "\n\n".join(map(json.dumps, ROWS)).encode() + b"\n"),
        ("lines.json", "\n".join(map(json.dumps, ROWS)).encode()),
        ("a.csv", as_csv(",")),
        ("bom.csv", b"\xef\xbb\xbf" + as_csv(",")),
        ("a.TSV", as_csv("\t")),
        ("a.csv.gz", gzip.compress(b"\xef\xbb\xbf" + as_csv(","), mtime=0)),
    ],
)
def test_tables_of_every_kind(tmp_path, name, content):
    assert list(rows_of(put(tmp_path / name, content))) == ROWS


def test_parquet_tables(tmp_path):
    rows = [{"name": str(i), "image": {"bytes": b"x" * i, "path": None}, "answers": ["a", "b"]} for i in range(600)]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert list(rows_of(tmp_path / "a.parquet")) == rows


def test_numbers_of_json_stay_numbers(tmp_path):
    (row,) = rows_of(put(tmp_path / "a.json", b'[{"whole": 3, "part": 0.5, "none": null}]'))
    assert row == {"whole": 3, "part": 0.5, "none": None}
    assert isinstance(row["whole"], int)
    assert isinstance(row["part"], float)


def test_a_cell_may_be_longer_than_the_csv_modules_bound(tmp_path):
    long = "x" * 300_000
    (row,) = rows_of(put(tmp_path / "a.csv", f"name\n{long}\n"))
    assert row["name"] == long


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b'[{"a": 1}, 2]', "record 2: expected an object, found int"),
        ("a.json", b'{"a": 1}\n[2]\n', "record 2: expected an object, found list"),
        ("a.jsonl", b'{"a": 1}\n{"a"\n', "record 2: not readable as JSON"),
        ("a.csv", b"a,b\n1,2\n3\n", "line 3: has other columns than the first line"),
        ("a.csv", b"a,b\n1,2,3\n", "line 2: has other columns than the first line"),
        ("a.csv", b"a,b\n\xff\xfe,2\n", "not readable as CSV"),
        ("a.csv.gz", b"a,b\n1,2\n", "line 0: damaged or truncated"),
        ("a.csv.gz", gzip.compress(b"a,b\n" + b"1,2\n" * 9, mtime=0)[:-12], "damaged or truncated"),
        ("a.parquet", b"PAR1 and nothing else", "not readable as Parquet"),
        ("a.xlsx", b"PK", r"expected \.json, \.jsonl, \.csv, \.csv\.gz, \.tsv or \.parquet"),
        ("a.gz", gzip.compress(b"a\n", mtime=0), r"expected \.json, \.jsonl"),
    ],
)
def test_damaged_tables_are_named_in_one_line(tmp_path, name, content, message):
    path = put(tmp_path / name, content)
    with pytest.raises(ValueError, match=message) as caught:
        list(rows_of(path))
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [b'[{"a": 1}, {"b"', b'[{"a": 1}, x]', b'[{"a": 1} {"b": 2}]', b'[{"a": 1}', b'[{"a": 1},', b'[{"a": 1},,]',
     b'[{"a": 1}, {"b": "\xff"}]', b'[{"a": 1}, {"b": ' + b"[" * 100_000],
)  # fmt: skip
def test_damaged_json_lists_are_named_in_one_line(tmp_path, content):
    with pytest.raises(ValueError, match=r"a\.json, after record [01]: not readable as JSON") as caught:
        list(rows_of(put(tmp_path / "a.json", content)))
    assert "\n" not in str(caught.value)


def test_json_lists_are_read_in_parts(tmp_path, monkeypatch):
    rows = [{"text": "],[" * i, "none": None, "list": [1, {"a": '\\"ä'}]} for i in range(30)]
    path = put(tmp_path / "a.json", " \n" + json.dumps(rows, indent=2, ensure_ascii=False) + "\n")
    for size in (1, 7, 100, 2**16):
        monkeypatch.setattr("healthgpt.data.tables._CHARACTERS_AT_ONCE", size)
        assert list(rows_of(path)) == rows
    assert list(rows_of(put(path, "[ ]"))) == []
    (row,) = rows_of(put(path, '[{"gap": NaN}]'))  # as Python writes it
    assert math.isnan(row["gap"])


def test_json_lists_may_begin_with_a_byte_order_mark(tmp_path):
    assert list(rows_of(put(tmp_path / "a.json", b"\xef\xbb\xbf" + json.dumps(ROWS).encode()))) == ROWS


def test_no_such_table(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a\.csv: no such file"):
        list(rows_of(tmp_path / "a.csv"))

"""Drawn pictures as medical files: the slice's own grid and geometry, no patient unless asked."""

import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image
from test_scans import VALUES, ct_slice, saved, series

from healthgpt.cli import main
from healthgpt.images import View, see
from healthgpt.images.export import export_image, on_source_grid

PATIENT = {"PatientName": "Doe^Jane", "PatientID": "7", "StudyDescription": "Head", "AccessionNumber": "A1"}


def drawn(size: int = 64) -> Image.Image:
    return Image.fromarray(np.add.outer(np.arange(size), np.arange(size)).astype(np.uint8)).convert("RGB")


def test_a_drawing_lies_on_its_slice_s_own_grid(tmp_path):
    (seen,) = see(saved(ct_slice(VALUES), tmp_path / "ct.dcm"), View.of(window="2000/0"))  # 24 x 32
    square = Image.new("RGB", (32, 32), (9, 9, 9))
    square.paste(seen.picture(), (0, 4))
    assert np.array_equal(on_source_grid(square, seen), seen.pixels)
    folder = tmp_path / "s"
    series(folder, [3.0 * i for i in range(4)])
    (coronal,) = see(folder, View.of(window="1000/300", slice=3, plane="coronal"))
    assert on_source_grid(drawn(), coronal).shape == coronal.pixels.shape == (4, 8)


def test_nifti_results_have_the_source_s_geometry(tmp_path):
    values = np.random.default_rng(0).integers(-1000, 1000, (10, 12, 5)).astype(np.int16)
    affine = np.diag([2.0, -3.0, 4.0, 1.0])
    affine[:3, 3] = (-9, 20, 30)
    nibabel.save(nibabel.Nifti1Image(values, affine), tmp_path / "v.nii.gz")
    (seen,) = see(tmp_path / "v.nii.gz", View.of(window="2000/0", slice=3))
    export_image(drawn(), tmp_path / "out.nii.gz", seen)
    result = nibabel.load(tmp_path / "out.nii.gz")
    assert result.shape == (10, 12, 1)
    # The first voxel of the result is the voxel of the source that lies to the right, in front.
    corner = np.linalg.inv(affine) @ result.affine @ [0, 0, 0, 1]
    assert np.allclose(corner, [9, 0, 3, 1])
    assert np.array_equal(np.asarray(result.dataobj)[..., 0], on_source_grid(drawn(), seen).T)


def test_secondary_captures_refer_to_their_source_and_keep_no_patient(tmp_path):
    path = saved(ct_slice(VALUES, **PATIENT), tmp_path / "ct.dcm")
    source = pydicom.dcmread(path)
    (seen,) = see(path, View.of(window="2000/0"))
    export_image(drawn(), tmp_path / "plain.dcm", seen)
    plain = pydicom.dcmread(tmp_path / "plain.dcm")
    assert plain.SOPClassUID.name == "Secondary Capture Image Storage"
    assert list(plain.ImageType) == ["DERIVED", "SECONDARY"]
    assert plain.SourceImageSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID
    assert (plain.PatientName, plain.PatientID, plain.AccessionNumber) == ("", "", "")
    assert plain.pixel_array.shape == (24, 32)
    assert np.array_equal(plain.pixel_array, on_source_grid(drawn(), seen))
    assert list(plain.PixelSpacing) == [0.5, 0.5]
    export_image(drawn(), tmp_path / "kept.dcm", seen, keep_patient=True)
    kept = pydicom.dcmread(tmp_path / "kept.dcm")
    assert {name: str(kept[name].value) for name in PATIENT} == PATIENT
    export_image(drawn(), tmp_path / "deidentified.dcm", seen, deidentify=True)
    deidentified = pydicom.dcmread(tmp_path / "deidentified.dcm")
    assert deidentified.PatientIdentityRemoved == "YES"
    assert deidentified.DeidentificationMethodCodeSequence[0].CodeValue == "113100"
    assert "SourceImageSequence" not in deidentified
    assert source.SOPInstanceUID.encode() not in (tmp_path / "deidentified.dcm").read_bytes()
    with pytest.raises(ValueError, match=r"no\.png: holds no patient to keep"):
        export_image(drawn(), tmp_path / "no.png", seen, keep_patient=True)
    with pytest.raises(ValueError, match="there is no patient to keep"):
        export_image(drawn(), tmp_path / "no.dcm", keep_patient=True)
    with pytest.raises(ValueError, match="exclude each other"):
        export_image(drawn(), tmp_path / "no.dcm", seen, keep_patient=True, deidentify=True)


def test_a_slice_through_a_series_refers_to_all_of_it(tmp_path):
    series(tmp_path / "s", [2.0 * i for i in range(5)])
    for view, count in ((View.of(slice=2), 1), (View.of(slice=2, plane="sagittal"), 5)):
        (seen,) = see(tmp_path / "s", view)
        export_image(drawn(), tmp_path / "out.dcm", seen)
        references = pydicom.dcmread(tmp_path / "out.dcm").SourceImageSequence
        assert len({reference.ReferencedSOPInstanceUID for reference in references}) == count


def test_drawings_from_words_are_written_too(tmp_path):
    for name in ("out.dcm", "out.nii", "out.png"):
        export_image(drawn(), tmp_path / name)
    assert pydicom.dcmread(tmp_path / "out.dcm").pixel_array.shape == (64, 64)
    assert nibabel.load(tmp_path / "out.nii").shape == (64, 64, 1)
    with pytest.raises(ValueError, match=r"the ending '\.xyz' names none of the formats"):
        export_image(drawn(), tmp_path / "out.xyz")


def test_view_writes_the_slice_and_says_what_it_is(tmp_path, capsys):
    path = saved(ct_slice(VALUES, BodyPartExamined="HEAD"), tmp_path / "ct.dcm")
    assert main(["view", str(path), "-o", str(tmp_path / "out.png"), "--json", str(tmp_path / "out.json")]) == 0
    picture = Image.open(tmp_path / "out.png")
    assert (picture.mode, picture.size) == ("L", (32, 24))
    assert '"window": "brain (80/40)"' in (tmp_path / "out.json").read_text()
    assert main(["view", str(path), "-o", str(tmp_path / "model.png"), "--as_model"]) == 0
    square = Image.open(tmp_path / "model.png")
    assert (square.mode, square.size) == ("RGB", (64, 64))
    series(tmp_path / "s", [2.0 * i for i in range(5)])
    assert main(["view", str(tmp_path / "s"), "-o", str(tmp_path / "many.png"), "--slice", "1,3"]) == 0
    assert (tmp_path / "many-1.png").exists()
    assert (tmp_path / "many-3.png").exists()
    assert main(["view", str(tmp_path / "s"), "-o", str(tmp_path / "mm.png"), "--slice", "-0.5mm"]) == 0
    assert "slice 0 of 5" in capsys.readouterr().err
    assert main(["view", str(tmp_path / "s"), "-o", str(tmp_path / "many.png")]) == 2
    assert "has 5 slices; choose with --slice" in capsys.readouterr().err


def test_answers_and_drawings_take_medical_files(tmp_path, capsys):
    path = saved(ct_slice(VALUES), tmp_path / "ct.dcm")
    assert main(["answer", "--question", "Is this CT?", "--img_path", str(path), "--window", "soft_tissue"]) == 0
    ask = ["draw", "--question", "Turn this CT into an MRI.", "--img_path", str(path), "--save_path"]
    assert main([*ask, str(tmp_path / "out.dcm"), "--window", "brain"]) == 0
    assert pydicom.dcmread(tmp_path / "out.dcm").pixel_array.shape == (24, 32)
    assert main([*ask, str(tmp_path / "out.png"), "--window", "heart"]) == 2
    assert "window 'heart' is none" in capsys.readouterr().err

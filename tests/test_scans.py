"""Medical files to pixels: equal to the libraries' own readers, the right way up, and loud about what is wrong."""

import gzip
import io
import itertools
import logging
import tarfile
import warnings
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pydicom.data
import pytest
import SimpleITK as sitk  # noqa: N813
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut, pixel_array
from pydicom.sequence import Sequence
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
    generate_uid,
)

from healthgpt.images import Plane, View, look, read_image, read_scan, see

SAMPLES = Path(pydicom.data.__file__).parent / "test_files"


def grey(seen) -> np.ndarray:
    assert len(seen) == 1
    return seen[0].pixels


def ct_slice(values: np.ndarray, place: float = 0.0, **fields) -> Dataset:
    """An axial CT image of signed Hounsfield units, stored with an intercept of -1024."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = generate_uid()
    dataset.SeriesInstanceUID = "1.2.3"
    dataset.Modality = "CT"
    dataset.Rows, dataset.Columns = values.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
    dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = 1, -1024, "HU"
    dataset.ImagePositionPatient, dataset.ImageOrientationPatient = [-10, -20, place], [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing = [0.5, 0.5]
    dataset.PixelData = (values + 1024).astype(np.uint16).tobytes()
    for name, value in fields.items():
        setattr(dataset, name, value)
    return dataset


def saved(dataset: Dataset, path: Path) -> Path:
    dataset.save_as(path, enforce_file_format=True)
    return path


def file_bytes(dataset: Dataset) -> bytes:
    data = io.BytesIO()
    dataset.save_as(data, enforce_file_format=True)
    return data.getvalue()


VALUES = np.linspace(-1000, 1000, 24 * 32).reshape(24, 32).astype(int)
LARGER = np.kron(VALUES, np.ones((4, 4), int))  # JPEG 2000 takes no images as small as the others


def expected_of(dataset: Dataset, frame: int) -> np.ndarray | None:
    """0...255 by pydicom alone; None where the file names no window and is no picture."""
    pixels = pixel_array(dataset, index=frame)
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        most = 2 ** dataset.RedPaletteColorLookupTableDescriptor[2] - 1
        return apply_color_lut(pixels, dataset)[..., :3] / most * 255
    if pixels.ndim == 3:
        return pixels / (2**dataset.BitsStored - 1) * 255
    values = apply_modality_lut(pixels, dataset)
    if dataset.get("VOILUTSequence"):
        low, high = 0, 2 ** dataset.VOILUTSequence[0].LUTDescriptor[2] - 1
    elif "WindowWidth" in dataset:
        low = -(2 ** (dataset.BitsStored - 1)) if dataset.PixelRepresentation else 0
        high = low + 2**dataset.BitsStored - 1
        slope, intercept = dataset.get("RescaleSlope", 1), dataset.get("RescaleIntercept", 0)
        low, high = low * slope + intercept, high * slope + intercept
    elif dataset.BitsStored <= 8:
        return pixels / (2**dataset.BitsStored - 1) * 255
    else:
        return None
    shown = (apply_voi_lut(values, dataset) - float(low)) / (float(high) - float(low)) * 255
    return 255 - shown if dataset.PhotometricInterpretation == "MONOCHROME1" else shown


def test_every_sample_of_pydicom_is_as_pydicom_shows_it():
    """The files that come with it: 8 to 32 bits, signed, palettes, YBR, all its transfer syntaxes, multi-frame."""
    equal, refused = 0, 0
    for path in sorted(SAMPLES.glob("*.dcm")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(path, force=True)
            try:
                expected = expected_of(dataset, 0)
            except Exception:  # without pixels, or of a syntax that none of the installed plugins decodes
                with pytest.raises(ValueError, match=rf"^{path}: .*(without pixels|damaged|decoded|known format)"):
                    see(path, View(slice="0"))
                refused += 1
                continue
            seen = see(path, View(slice="0"))
        if expected is None:
            assert np.ptp(grey(seen)) > 0
            continue
        assert np.abs(expected - grey(seen)).max() <= 0.5 + 1e-6, path.name
        equal += 1
    assert equal > 40
    assert refused < 25


def test_every_sample_of_nibabel_is_as_nibabel_reads_it():
    read = 0
    for path in sorted((Path(nibabel.__file__).parent / "tests" / "data").glob("*.nii*")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = nibabel.load(path)
        if not 2 <= image.ndim <= 4 or not isinstance(image, nibabel.Nifti1Image):
            continue
        for volume in range(image.shape[3] if image.ndim == 4 else 1):
            scan = read_scan(path, volume=volume if image.ndim == 4 else None)
            expected = np.asarray(image.dataobj)[..., volume] if image.ndim == 4 else np.asarray(image.dataobj)
            assert np.array_equal(scan.volume.transpose(2, 1, 0), expected, equal_nan=True)
            canonical = nibabel.as_closest_canonical(nibabel.Nifti1Image(expected, image.affine))
            middle = scan.plane_of(Plane.AXIAL).num_slices // 2
            cut = scan.plane_of(Plane.AXIAL).slice(middle)
            assert np.array_equal(cut, np.asarray(canonical.dataobj)[::-1, ::-1, middle].T, equal_nan=True)
            read += 1
    assert read >= 5


SYNTAXES = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    DeflatedExplicitVRLittleEndian,
    RLELossless,
    JPEG2000Lossless,
)


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda uid: uid.name)
@pytest.mark.parametrize("signed", [0, 1])
@pytest.mark.parametrize("interpretation", ["MONOCHROME1", "MONOCHROME2"])
def test_grey_of_every_kind_is_as_pydicom_shows_it(tmp_path, syntax, signed, interpretation):
    dataset = ct_slice(LARGER, PhotometricInterpretation=interpretation, PixelRepresentation=signed)
    stored = LARGER if signed else LARGER + 1024
    dataset.PixelData = stored.astype(np.int16 if signed else np.uint16).tobytes()
    dataset.RescaleSlope, dataset.RescaleIntercept = 2, -100
    dataset.WindowWidth, dataset.WindowCenter = [900, 50], [-200, 7]
    path = saved(in_syntax(dataset, syntax), tmp_path / "ct.dcm")
    expected = expected_of(pydicom.dcmread(path), 0)
    assert expected is not None
    assert np.abs(grey(see(path)) - expected).max() <= 0.5 + 1e-6


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda uid: uid.name)
@pytest.mark.parametrize("interpretation", ["RGB", "YBR_FULL", "PALETTE COLOR"])
def test_colour_of_every_kind_is_as_pydicom_shows_it(tmp_path, syntax, interpretation):
    rng = np.random.default_rng(0)
    palette = interpretation == "PALETTE COLOR"
    pixels = rng.integers(0, 256, (96, 128) if palette else (96, 128, 3)).astype(np.uint8)
    dataset = ct_slice(LARGER, PhotometricInterpretation=interpretation, Modality="US")
    del dataset.RescaleSlope, dataset.RescaleIntercept
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PixelData = pixels.tobytes()
    if palette:
        for name in ("Red", "Green", "Blue"):
            setattr(dataset, f"{name}PaletteColorLookupTableDescriptor", [256, 0, 16])
            table = rng.integers(0, 65536, 256).astype(np.uint16)
            setattr(dataset, f"{name}PaletteColorLookupTableData", table.tobytes())
    else:
        dataset.SamplesPerPixel, dataset.PlanarConfiguration = 3, 0
    if syntax == JPEG2000Lossless and interpretation == "YBR_FULL":
        pytest.skip("JPEG 2000 has colour transforms of its own")
    path = saved(in_syntax(dataset, syntax), tmp_path / "us.dcm")
    expected = expected_of(pydicom.dcmread(path), 0)
    assert expected is not None
    (seen,) = see(path)
    assert seen.pixels.shape == (96, 128, 3)
    assert np.abs(seen.pixels - expected).max() <= 0.5 + 1e-6


def in_syntax(dataset: Dataset, syntax: str) -> Dataset:
    """The dataset in another transfer syntax, compressed by pydicom where it is one of compression."""
    if syntax in (RLELossless, JPEG2000Lossless):
        dataset.compress(syntax)
    else:
        dataset.file_meta.TransferSyntaxUID = syntax
    return dataset


def test_a_ct_is_seen_in_its_windows(tmp_path):
    path = saved(ct_slice(VALUES, BodyPartExamined="CHEST"), tmp_path / "ct.dcm")
    assert see(path)[0].window == "lung (1500/-600)"
    for text, level, width in (("brain", 40, 80), ("1500/-600", -600, 1500), ("soft_tissue", 40, 400)):
        seen = see(path, View.of(window=text))
        shown = np.clip((VALUES - (level - 0.5)) / (width - 1) + 0.5, 0, 1) * 255
        assert np.abs(grey(seen) - shown).max() <= 0.5
    facts = see(path)[0].facts()
    assert (facts["modality"], facts["body_part"], facts["plane"]) == ("CT", "CHEST", "axial")
    assert facts["spacing"] == [0.5, 0.5]
    with pytest.raises(ValueError, match="window 'lungs' is none"):
        View.of(window="lungs")
    with pytest.raises(ValueError, match="names no window of its own"):
        see(path, View.of(window="file"))


def test_named_windows_are_for_hounsfield_units(tmp_path):
    path = saved(ct_slice(VALUES, Modality="MR"), tmp_path / "mr.dcm")
    with pytest.raises(ValueError, match=r"brain \(80/40\) is in Hounsfield units, and the image is MR"):
        see(path, View.of(window="brain"))
    assert see(path)[0].window.startswith("percentile 0.5-99.5")
    picture = tmp_path / "picture.png"
    Image.fromarray(VALUES.astype(np.uint8)).save(picture)
    with pytest.raises(ValueError, match="not calibrated"):
        see(picture, View.of(window="bone"))


def test_monochrome1_is_inverted(tmp_path):
    plain = grey(see(saved(ct_slice(VALUES), tmp_path / "a.dcm"), View.of(window="2000/0")))
    dark = saved(ct_slice(VALUES, PhotometricInterpretation="MONOCHROME1"), tmp_path / "b.dcm")
    assert np.array_equal(grey(see(dark, View.of(window="2000/0"))), 255 - plain)


def series(folder: Path, places: list[float]) -> list[np.ndarray]:
    """A CT slice of its own at every place, the files' names in another order; returned by place."""
    folder.mkdir()
    slices = [np.full((8, 8), 100 * i, int) + np.arange(8) for i in range(len(places))]
    for i in np.random.default_rng(0).permutation(len(places)):
        saved(ct_slice(slices[i], places[i]), folder / f"{(i * 7) % 10}-{i}.dcm")
    return slices


def test_a_series_is_sorted_by_position(tmp_path):
    slices = series(tmp_path / "s", [3.0 * i - 7 for i in range(6)])
    scan = read_scan(tmp_path / "s")
    assert scan.num_frames == 6
    assert np.array_equal(scan.volume, slices)
    assert np.allclose(scan.affine @ [1, 2, 3, 1], [-9.5, -19, 2, 1])
    (seen,) = look(scan, View.of(window="1000/300", slice="2.4mm"))
    assert (seen.slices, seen.positions, seen.num_slices) == ((3,), (2.0,), 6)
    with pytest.raises(ValueError, match=r"40 mm is outside; its slices lie from -7 to 8 mm"):
        look(scan, View.of(slice="40mm"))
    with pytest.raises(ValueError, match="has 6 slices; choose with --slice"):
        look(scan)
    (coronal,) = look(scan, View.of(window="1000/300", slice="3", plane="coronal"))
    assert coronal.pixels.shape == (6, 8)
    assert coronal.spacing == (3.0, 0.5)
    assert coronal.picture().size == (8, 36)
    assert coronal.pixels[0].mean() > coronal.pixels[-1].mean()  # the head up
    assert [seen.slices for seen in look(scan, View.of(window="lung", slice="0,middle,50%,0.99,5"))] == [
        (0,), (3,), (3,), (5,), (5,),
    ]  # fmt: skip
    (sheet,) = look(scan, View.of(window="lung", slice="montage:5"))
    assert sheet.pixels.shape == (16, 24)
    assert sheet.slices == (0, 1, 2, 4, 5)


def one(**fields) -> Sequence:
    item = Dataset()
    for name, value in fields.items():
        setattr(item, name, value)
    return Sequence([item])


def test_every_slice_has_its_own_file_s_window_and_rescaling(tmp_path):
    for i in range(3):
        fields = {"RescaleSlope": i + 1, "WindowWidth": 100 * (i + 1), "WindowCenter": 50 * i, "InstanceNumber": i}
        saved(ct_slice(VALUES, 3.0 * i, **fields), tmp_path / f"{i}.dcm")
    pictures = see(tmp_path, View.of(slice="0,1,2"))
    for i, seen in enumerate(pictures):
        assert np.abs(seen.pixels - expected_of(pydicom.dcmread(tmp_path / f"{i}.dcm"), 0)).max() <= 0.5
        assert seen.window == f"file ({100 * (i + 1)}/{50 * i})"
    assert see(tmp_path, View.of(slice=12, plane="coronal"))[0].window == "file (200/50)"  # the middle slice's


@pytest.mark.parametrize(("kind", "window"), [("HU", "soft tissue (400/40)"), ("US", "percentile")])
def test_enhanced_multi_frame_has_its_fields_in_groups(tmp_path, kind, window):
    frames = np.random.default_rng(0).integers(0, 2000, (3, 24, 32)).astype(np.uint16)
    dataset = ct_slice(VALUES, SOPClassUID=EnhancedCTImageStorage, NumberOfFrames=3, PixelData=frames.tobytes())
    for field in ("RescaleSlope", "RescaleIntercept", "RescaleType", "PixelSpacing", "ImagePositionPatient"):
        delattr(dataset, field)
    dataset.SharedFunctionalGroupsSequence = one(
        PlaneOrientationSequence=one(ImageOrientationPatient=[1, 0, 0, 0, 1, 0]),
        PixelMeasuresSequence=one(PixelSpacing=[0.5, 0.7]),
        PixelValueTransformationSequence=one(RescaleSlope=1, RescaleIntercept=0, RescaleType=kind),
    )
    dataset.PerFrameFunctionalGroupsSequence = Sequence(
        [one(PlanePositionSequence=one(ImagePositionPatient=[0, 0, 2.0 * i]))[0] for i in range(3)]
    )
    path = saved(dataset, tmp_path / "enhanced.dcm")
    (seen,) = see(path, View.of(slice="2mm"))
    assert (seen.slices, seen.spacing, seen.plane) == ((1,), (0.5, 0.7), "axial")
    assert seen.window.startswith(window)
    assert np.array_equal(read_scan(path).volume, frames)
    dataset.PerFrameFunctionalGroupsSequence[1].FrameVOILUTSequence = one(WindowWidth=300, WindowCenter=20)
    assert see(saved(dataset, path), View.of(slice=1))[0].window == "file (300/20)"


def test_padding_does_not_wash_out_percentiles(tmp_path):
    values = np.abs(VALUES)
    values[:8] = -1024  # stored as 0
    fields = {"Modality": "MR", "PixelPaddingValue": 0, "RescaleType": "US"}
    (seen,) = see(saved(ct_slice(values, **fields), tmp_path / "mr.dcm"), View.of(window="minmax"))
    assert seen.window == f"percentile 0-100 ({np.ptp(values[8:])}/{(values[8:].min() + values[8:].max()) / 2:g})"
    assert (seen.pixels[:8] == 0).all()


def test_a_sigmoid_far_from_its_level_is_silent(tmp_path, recwarn):
    fields = {"WindowWidth": 0.1, "WindowCenter": 40, "VOILUTFunction": "SIGMOID"}
    assert np.ptp(grey(see(saved(ct_slice(VALUES, **fields), tmp_path / "ct.dcm")))) == 255
    assert [str(warning.message) for warning in recwarn if "overflow" in str(warning.message)] == []


def test_a_slice_s_thickness_that_is_none_does_no_harm(tmp_path):
    for thickness in ("nan", "0", "-2", ""):
        path = saved(ct_slice(VALUES, SliceThickness=thickness), tmp_path / "ct.dcm")
        assert see(path)[0].plane == "axial", thickness


def test_slices_of_a_tilted_gantry_keep_their_plane(tmp_path):
    tilt = [1, 0, 0, 0, *(float(part) for part in np.round((np.cos(0.35), np.sin(0.35)), 6))]
    for i in range(4):
        saved(ct_slice(VALUES, 5.0 * i, ImageOrientationPatient=tilt), tmp_path / f"{i}.dcm")
    assert see(tmp_path, View.of(slice=1))[0].plane == "axial"
    with pytest.raises(ValueError, match=r"no sagittal plane can be cut: .* shifted against each other by 20 degrees"):
        see(tmp_path, View.of(slice=1, plane="sagittal"))


def test_a_series_that_is_none_is_refused(tmp_path):
    series(tmp_path / "twice", [0.0, 3.0, 3.0])
    with pytest.raises(ValueError, match=r"1\.5 frames per position"):
        read_scan(tmp_path / "twice")
    series(tmp_path / "sizes", [0.0, 3.0])
    saved(ct_slice(VALUES, 6.0), tmp_path / "sizes" / "other.dcm")
    with pytest.raises(ValueError, match="Rows is"):
        read_scan(tmp_path / "sizes")
    series(tmp_path / "two", [0.0, 3.0])
    saved(ct_slice(VALUES[:8, :8], 6.0, SeriesInstanceUID="1.2.4"), tmp_path / "two" / "other.dcm")
    with pytest.raises(ValueError, match="files of 2 series"):
        read_scan(tmp_path / "two")
    series(tmp_path / "spacing", [0.0, 3.0])
    saved(ct_slice(VALUES[:8, :8], 6.0, PixelSpacing=[1, 0.5]), tmp_path / "spacing" / "other.dcm")
    with pytest.raises(ValueError, match=r"other\.dcm: the pixels' spacing is 1x0\.5 mm, elsewhere .* 0\.5x0\.5 mm"):
        read_scan(tmp_path / "spacing")
    series(tmp_path / "localizer", [0.0, 3.0])
    coronal = {"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}
    saved(ct_slice(VALUES[:8, :8], 6.0, **coronal), tmp_path / "localizer" / "0.dcm")  # the first by its name
    with pytest.raises(ValueError, match=r"/0\.dcm: lies in another plane"):
        read_scan(tmp_path / "localizer")
    series(tmp_path / "cut", [0.0, 3.0])
    path = next((tmp_path / "cut").iterdir())
    path.write_bytes(path.read_bytes().partition(b"\x28\0\x10\0US")[0])  # before its Rows
    with pytest.raises(ValueError, match=rf"{path.name}: a damaged DICOM file"):
        read_scan(tmp_path / "cut")
    series(tmp_path / "uneven", [0.0, 3.0, 8.0])
    assert read_scan(tmp_path / "uneven").affine is None
    with pytest.raises(ValueError, match="no coronal plane can be cut"):
        see(tmp_path / "uneven", View.of(slice=1, plane="coronal"))


@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("flips", list(itertools.product((1, -1), repeat=3)))
def test_a_nifti_is_the_right_way_up_in_all_48_orientations(tmp_path, axes, flips):
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 200, (5, 6, 7)).astype(np.int16)  # to the right, front, head (RAS)
    spacing = np.array([2.0, 3.0, 4.0])
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = (-10, 20, 30)
    ornt = np.array([[axis, flip] for axis, flip in zip(axes, flips, strict=True)])
    stored = nibabel.Nifti1Image(truth, affine).as_reoriented(ornt)
    nibabel.save(stored, tmp_path / "v.nii.gz")
    window = View.of(window="256/127.5").window
    for plane, cut in (
        ("axial", truth[::-1, ::-1, 2].T),  # rows to the back, columns to the left
        ("coronal", truth[::-1, 6 - 1 - 2, ::-1].T),  # rows to the feet; numbered from the front
        ("sagittal", truth[5 - 1 - 2, ::-1, ::-1].T),  # columns to the back; numbered from the right
    ):
        (seen,) = see(tmp_path / "v.nii.gz", View(window=window, slice="2", plane=Plane(plane)))
        assert np.array_equal(seen.pixels, window_of(cut)), plane
    (axial,) = see(tmp_path / "v.nii.gz", View(window=window, slice="2"))
    assert axial.plane == "axial"
    assert axial.positions == (38.0,)
    assert axial.spacing == (3.0, 2.0)


def window_of(values: np.ndarray) -> np.ndarray:
    return np.rint(np.clip((values - 127.0) / 255 + 0.5, 0, 1) * 255).astype(np.uint8)


def test_nifti_values_are_nibabels(tmp_path):
    values = np.random.default_rng(0).integers(-300, 300, (6, 5, 4, 2)).astype(np.int16)
    image = nibabel.Nifti1Image(values, np.eye(4))
    image.header.set_slope_inter(2.0, -7.0)
    nibabel.save(image, tmp_path / "v.nii")
    with pytest.raises(ValueError, match="has 2 volumes; choose one of 0 to 1"):
        read_scan(tmp_path / "v.nii")
    for path, data in ((tmp_path / "v.nii", None), (None, (tmp_path / "v.nii").read_bytes())):
        scan = read_scan(path or data, volume=1)
        assert np.array_equal(scan.volume.transpose(2, 1, 0), nibabel.load(tmp_path / "v.nii").get_fdata()[..., 1])
    (tmp_path / "v.nii").rename(tmp_path / "wrong.dcm")
    assert read_scan(tmp_path / "wrong.dcm", volume=0).num_frames == 4  # by content


def test_air_tells_a_ct_without_a_header(tmp_path):
    nibabel.save(nibabel.Nifti1Image(VALUES[..., None].astype(np.int16), np.eye(4)), tmp_path / "ct.nii")
    assert see(tmp_path / "ct.nii")[0].window == "soft tissue (400/40)"
    nibabel.save(nibabel.Nifti1Image(np.abs(VALUES)[..., None].astype(np.int16), np.eye(4)), tmp_path / "mr.nii")
    assert see(tmp_path / "mr.nii")[0].window.startswith("percentile")


def test_air_is_looked_for_in_the_whole_volume(tmp_path):
    volume = np.stack([VALUES, np.abs(VALUES)], axis=-1).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "ct.nii")
    assert [seen.window for seen in see(tmp_path / "ct.nii", View.of(slice="0,1"))] == ["soft tissue (400/40)"] * 2


def test_a_nifti_pair_is_known_by_either_name(tmp_path):
    nibabel.save(nibabel.Nifti1Pair(VALUES[..., None].astype(np.int16), np.eye(4)), tmp_path / "v.hdr")
    for name in ("v.hdr", "v.img"):
        assert np.array_equal(read_scan(tmp_path / name).volume[0], VALUES.T)
    (tmp_path / "v.hdr").rename(tmp_path / "alone.hdr")
    with pytest.raises(ValueError, match=r"alone\.hdr: its values are in alone\.img, which is not beside it"):
        read_scan(tmp_path / "alone.hdr")
    with pytest.raises(ValueError, match="a header of NIfTI alone"):
        read_scan((tmp_path / "alone.hdr").read_bytes())


def test_a_packed_file_may_be_of_several_parts(tmp_path):
    data = nibabel.Nifti1Image(VALUES[..., None].astype(np.int16), np.eye(4)).to_bytes()
    (tmp_path / "v.nii.gz").write_bytes(gzip.compress(data[:500]) + gzip.compress(data[500:]))
    assert np.array_equal(read_scan(tmp_path / "v.nii.gz").volume[0], VALUES.T)


def test_nifti_in_micrometres_is_shown_in_millimetres(tmp_path):
    image = nibabel.Nifti1Image(VALUES[..., None].astype(np.int16), np.diag([700.0, 700.0, 2000.0, 1.0]))
    image.header.set_xyzt_units("micron")
    nibabel.save(image, tmp_path / "v.nii")
    assert read_scan(tmp_path / "v.nii").spacing == pytest.approx(sitk.ReadImage(tmp_path / "v.nii").GetSpacing()[:2])


def test_colour_of_nifti_may_have_transparency(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 5, 4, 4)).astype(np.uint8)
    kind = np.dtype([(channel, np.uint8) for channel in "RGBA"])
    nibabel.save(nibabel.Nifti1Image(pixels.view(kind)[..., 0], np.eye(4)), tmp_path / "v.nii")
    assert np.array_equal(read_scan(tmp_path / "v.nii").volume.transpose(2, 1, 0, 3), pixels[..., :3])


@pytest.mark.parametrize("ending", ["mha", "nrrd", "mhd"])
def test_metaimage_and_nrrd_are_simpleitks(tmp_path, ending):
    values = np.random.default_rng(0).integers(-1000, 1000, (4, 6, 5)).astype(np.int16)
    image = sitk.GetImageFromArray(values)
    image.SetSpacing((0.5, 0.5, 3.0))
    image.SetOrigin((1, 2, 3))
    sitk.WriteImage(image, tmp_path / f"v.{ending}")
    scan = read_scan(tmp_path / f"v.{ending}")
    assert np.array_equal(scan.volume, values)
    assert np.allclose(scan.affine @ [1, 2, 3, 1], [1.5, 3, 12, 1])
    expected = np.rint(np.clip((values[2] - 39.5) / 399 + 0.5, 0, 1) * 255)
    assert np.array_equal(see(tmp_path / f"v.{ending}", View.of(window="soft tissue", slice=2))[0].pixels, expected)
    if ending == "mhd":
        (tmp_path / "v.raw").unlink()
        with pytest.raises(ValueError, match=r"its values are in v\.raw, which is not beside it"):
            read_scan(tmp_path / "v.mhd")
        return
    assert np.array_equal(read_scan((tmp_path / f"v.{ending}").read_bytes()).volume, values)


def test_arrays_of_numpy(tmp_path):
    np.save(tmp_path / "v.npy", VALUES.astype(np.float32))
    with pytest.raises(ValueError, match=r"v\.npy: an array of float32 has no known black and white; give --window"):
        read_image(tmp_path / "v.npy")
    assert grey(see(tmp_path / "v.npy", View.of(window="minmax"))).max() == 255
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(ValueError, match="it holds Python objects"):
        read_image(tmp_path / "objects.npy")


def test_archives_hold_series_and_files(tmp_path):
    slices = series(tmp_path / "s", [0.0, 2.0, 4.0])
    with zipfile.ZipFile(tmp_path / "s.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in (tmp_path / "s").iterdir():
            archive.write(path, f"inner/{path.name}")
        archive.writestr("notes/readme.txt", "notes")
    with tarfile.open(tmp_path / "s.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "s", "inner")
    for path in (tmp_path / "s.zip", tmp_path / "s.zip" / "inner", tmp_path / "s.tar.gz"):
        assert np.array_equal(read_scan(path).volume, slices)
    one = sorted((tmp_path / "s").iterdir())[0].name
    assert read_scan(tmp_path / "s.zip" / "inner" / one).num_frames == 1
    with pytest.raises(FileNotFoundError, match="no such file in the archive"):
        read_scan(tmp_path / "s.zip" / "outer")


def test_archives_that_are_traps_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "out.zip", "w") as archive:
        archive.writestr("../../out.png", b"x")
    with pytest.raises(ValueError, match="which leads out of it"):
        read_scan(tmp_path / "out.zip")
    with zipfile.ZipFile(tmp_path / "nested.zip", "w") as archive:
        archive.write(tmp_path / "out.zip", "out.zip")
    with pytest.raises(ValueError, match="an archive in an archive"):
        read_scan(tmp_path / "nested.zip")
    with zipfile.ZipFile(tmp_path / "nameless.zip", "w") as archive:
        archive.writestr(".", b"x")
    with pytest.raises(ValueError, match=r"holds the path '\.'"):
        read_scan(tmp_path / "nameless.zip")
    with zipfile.ZipFile(tmp_path / "damaged.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a.png", bytes(1000))
    data = bytearray((tmp_path / "damaged.zip").read_bytes())
    data[46:56] = b"\x55" * 10
    (tmp_path / "damaged.zip").write_bytes(data)
    with pytest.raises(ValueError, match=r"damaged\.zip/a\.png: damaged in its archive"):
        read_scan(tmp_path / "damaged.zip")
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", bytes(10**8))
    with pytest.raises(ValueError, match="unpacks to 100000000 bytes from"):
        read_scan(tmp_path / "bomb.zip")
    data = bytearray((tmp_path / "out.zip").read_bytes())
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "locked.zip").write_bytes(bytes(data).replace(b"../../", b"aaaaaa"))
    with pytest.raises(ValueError, match="password-protected"):
        read_scan(tmp_path / "locked.zip")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: np.zeros_like(v)[..., None].astype(np.uint8), "nothing to see in the window as stored"),
        (lambda v: np.where(v > 0, 1.7e308, -1.7e308)[..., None], r"v\.nii: .* too far apart"),
        (lambda v: v[..., None].astype(np.float32) * np.nan, "has no value that is a number|no finite numbers"),
        (lambda v: np.zeros_like(v)[..., None].astype(np.int16), "all values are 0; there is nothing to see"),
    ],
)
def test_values_that_show_nothing_are_refused(tmp_path, change, message):
    nibabel.save(nibabel.Nifti1Image(change(VALUES), np.eye(4)), tmp_path / "v.nii")
    with pytest.raises(ValueError, match=message):
        read_image(tmp_path / "v.nii")


HEADER = b"NDims = 3\nDimSize = 2 2 2\nElementType = MET_SHORT\nElementDataFile = "


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (HEADER, "does not say where its values are"),
        (HEADER + b"../v.raw\n", r"its values are in \.\./v\.raw, expected a file beside it"),
        (b"Comment = " + b"a" * 5000 + b"\n" + HEADER + b"/v.raw", "expected a file beside it"),
        (HEADER + b"v.raw\n", r"v\.raw, which is not beside it"),
        (HEADER + b"LOCAL\n" + bytes(15), "a damaged or truncated volume"),
        (HEADER.replace(b"DimSize", b"DimSise") + b"LOCAL\n", "its header has no DimSize"),
        (HEADER.replace(b"2 2 2", b"2 2") + b"LOCAL\n", "its NDims and DimSize do not agree"),
        (HEADER.replace(b"SHORT", b"SHIRT") + b"LOCAL\n", "values of type 'MET_SHIRT'"),
    ],
)
def test_damaged_metaimage_is_refused_without_itk_s_own_words(tmp_path, capfd, data, message):
    (tmp_path / "v.mhd").write_bytes(data)
    with pytest.raises(ValueError, match=message):
        read_scan(tmp_path / "v.mhd")
    assert capfd.readouterr().err == ""


def test_a_damaged_header_is_refused_without_nibabel_s_own_words(tmp_path, capfd):
    data = bytearray(nibabel.Nifti1Image(VALUES[..., None].astype(np.int16), np.eye(4)).to_bytes())
    data[80:84] = np.float32(-1).tobytes()  # pixdim[1], which nibabel mends
    (tmp_path / "v.nii").write_bytes(data)
    handler = logging.StreamHandler()
    logging.getLogger("nibabel.global").addHandler(handler)
    assert see(tmp_path / "v.nii")[0].spacing == (1, 1)
    logging.getLogger("nibabel.global").removeHandler(handler)
    assert capfd.readouterr().err == ""


def test_damaged_run_lengths_are_refused_in_one_line(tmp_path, capfd):
    dataset = ct_slice(np.random.default_rng(0).integers(0, 1000, (64, 64)))
    dataset.compress(RLELossless)
    path = saved(dataset, tmp_path / "ct.dcm")
    data = bytearray(path.read_bytes())
    data[-2000:-1990] = b"\x7f" * 10
    path.write_bytes(data[:-700])
    with pytest.raises(ValueError, match=r"a damaged DICOM file|cannot be decoded"):
        see(path)
    assert capfd.readouterr().err == ""


def test_only_files_of_several_volumes_have_another_volume(tmp_path):
    path = saved(ct_slice(VALUES), tmp_path / "ct.dcm")
    Image.fromarray(VALUES.astype(np.uint8)).save(tmp_path / "picture.png")
    for source in (path, tmp_path / "picture.png", VALUES.astype(np.uint8)):
        with pytest.raises(ValueError, match="volume 2 is not there; it has 1"):
            read_scan(source, volume=2)


def test_a_library_s_own_images_are_read():
    values = VALUES.astype(np.int16)
    dataset = pydicom.dcmread(io.BytesIO(file_bytes(ct_slice(VALUES))))
    expected = np.rint(np.clip((VALUES - 39.5) / 399 + 0.5, 0, 1) * 255)
    for source in (
        dataset,
        file_bytes(ct_slice(VALUES)),
        sitk.GetImageFromArray(values),
        nibabel.Nifti1Image(values.T[..., None], np.diag([-1.0, -1.0, 1.0, 1.0])),
    ):
        assert np.array_equal(np.asarray(read_image(source, View.of(window="soft tissue")))[..., 0], expected)


def test_files_without_pixels_say_so(tmp_path):
    dataset = ct_slice(VALUES, Modality="SR")
    for field in ("PixelData", "Rows", "Columns"):
        delattr(dataset, field)
    with pytest.raises(ValueError, match=r"sr\.dcm: a DICOM file without pixels \(SR\)"):
        read_image(saved(dataset, tmp_path / "sr.dcm"))


def test_a_dicomdir_says_what_to_name_instead(tmp_path):
    dataset = ct_slice(VALUES, DirectoryRecordSequence=one(PatientName="Doe^Jane"))
    for field in ("PixelData", "Rows", "Columns"):
        delattr(dataset, field)
    with pytest.raises(ValueError, match="a DICOMDIR, which only lists files"):
        read_scan(saved(dataset, tmp_path / "DICOMDIR"))


def test_nothing_of_a_patient_is_in_messages(tmp_path, capfd, caplog):
    dataset = ct_slice(VALUES, PatientName="Doe^Jane", PatientID="SECRET-1", StudyDate="not a date")
    path = saved(dataset, tmp_path / "ct.dcm")
    caplog.clear()
    capfd.readouterr()
    seen = see(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="cannot be decoded") as error:
        see(path)
    print(error.value, caplog.text)
    said = f"{seen[0].facts()} {error.value} {caplog.text} {capfd.readouterr()}"
    assert [secret for secret in ("Doe", "Jane", "SECRET", "not a date") if secret in said] == []

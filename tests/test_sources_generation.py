"""Sources of drawings: slices the right way up, their grey values, splits by subject, and what is missing."""

import csv
import hashlib
import itertools
import json
import logging

import nibabel
import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from healthgpt.data.phantoms.instructions import INSTRUCTIONS
from healthgpt.data.preparation import prepare
from healthgpt.data.records import parse_record
from healthgpt.data.sources.drawings import centred, read_volume
from healthgpt.data.sources.ixi import ixi, shrink_by_bicubic, shrink_by_kspace
from healthgpt.data.sources.pairs import pairs
from healthgpt.data.sources.synthrad2023 import CT_HIGH, CT_LOW, synthrad2023
from healthgpt.tasks import Task, TaskType

SHAPE = (20, 26, 9)  # columns to the left, rows to the back, slices to the head


def prepared(source, output, num_processes=1):
    """Records of all splits as (split, value, parsed)."""
    list(prepare(source, output, num_processes=num_processes))
    found = []
    for split in ("train", "validation", "test"):
        path = output / f"{split}.jsonl"
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            value = json.loads(line)
            record = parse_record(value, where=str(path), image_folder=output)
            assert all(image.is_file() for image in (*record.images, record.target) if image)
            found.append((split, value, record))
    return found


def by_id(records):
    found = {value["id"]: (split, value, record) for split, value, record in records}
    assert len(found) == len(records)
    return found


def grey(path):
    image = Image.open(path)
    assert image.mode == "L"
    return np.asarray(image)


def state(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def save_nifti(values, path, codes="LPS", spacing=(1.0, 1.0, 2.5)):
    """Writes (columns to the left, rows to the back, slices to the head) with its axes stored in another order.

    Args:
        codes: where the stored axes lead to, as nibabel names it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
    affine[:3, 3] = (30, 40, -50)
    image = nibabel.Nifti1Image(values, affine)
    change = nibabel.orientations.ornt_transform(
        nibabel.io_orientation(affine), nibabel.orientations.axcodes2ornt(codes)
    )
    nibabel.save(image.as_reoriented(change), path)


def canonical(path):
    """A NIfTI file by nibabel alone: (slices from the feet, rows from the front, columns from the patient's right)."""
    image = nibabel.as_closest_canonical(nibabel.load(path))  # to the right, the front, the head
    return np.asarray(image.dataobj)[::-1, ::-1].transpose(2, 1, 0)


def nearest_grey(pixels, values, low, high):
    """Whether every pixel is the grey nearest to its value."""
    wanted = np.clip((values.astype(np.float64) - low) / (high - low), 0, 1) * 255
    return np.abs(pixels - wanted).max() <= 0.5 + 1e-6


class SynthRad:
    """A tree in the layout of the data set, with what lies in it besides patients."""

    def __init__(self, root):
        self.root = root
        self.task = root / "Task1"

    def add(self, region, name, ending=".nii.gz", ct=True, codes="LPS", seed=0, spacing=(1.0, 1.0, 2.5)):
        rng = np.random.default_rng([seed, *name.encode()])
        folder = self.task / region / name
        mask = np.zeros(SHAPE, np.uint8)
        mask[4:15, 3:19, 2:8] = 1
        mask[4, 3] = 0  # not quite a box
        mask[5:8, 5:8, 1] = 1  # 9 of 520 pixels: too few
        save_nifti(rng.gamma(2, 90, SHAPE).astype(np.float32), folder / f"mr{ending}", codes, spacing)
        save_nifti(mask, folder / f"mask{ending}", codes, spacing)
        if ct:
            save_nifti(rng.integers(-1024, 3000, SHAPE).astype(np.int16), folder / f"ct{ending}", codes, spacing)
        return folder

    def add_overview(self, region):
        folder = self.task / region / "overview"
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4)).save(folder / "1BA001_train.png")


@pytest.fixture
def synthrad(tmp_path):
    tree = SynthRad(tmp_path / "synthrad")
    tree.add("brain", "1BA001")
    tree.add("brain", "1BC005", ending=".nii", codes="RAS")
    tree.add("pelvis", "1PA004", codes="SRP")
    tree.add("pelvis", "another name")
    for region in ("brain", "pelvis"):
        tree.add_overview(region)
    return tree


def test_synthrad_has_a_record_for_each_slice_and_direction(synthrad, tmp_path):
    output = tmp_path / "out"
    records = by_id(prepared(synthrad2023(synthrad.root), output))
    assert len(records) == 4 * 6 * 2
    split, value, record = records["synthrad2023-brain-1BA001-003-mri2ct"]
    assert record.task is Task.GENERATION
    assert value["conversations"][0]["value"].removeprefix("<image>\n") in INSTRUCTIONS[TaskType.MRI_TO_CT]
    facts = value["metadata"]
    assert facts == {
        "kind": "mri2ct",
        "region": "brain",
        "subject": "1BA001",
        "slice": 3,
        "slices": 9,
        "ct_range": [CT_LOW, CT_HIGH["brain"]],
        "mask": facts["mask"],
    }
    assert record.focus == output / "images" / facts["mask"]
    assert record.focus.is_file()
    other = records["synthrad2023-brain-1BA001-003-ct2mri"]
    assert other[0] == split
    assert (other[2].images[0], other[2].target) == (record.target, record.images[0])
    manifest = json.loads((output / "manifest.json").read_text())
    assert manifest["kinds"] == {"ct2mri": 24, "mri2ct": 24}
    assert manifest["options"]["patients"] == {"brain": 2, "pelvis": 2}
    asked = {record["conversations"][0]["value"] for _, record, _ in records.values()}
    assert len(asked) == sum(
        len(INSTRUCTIONS[kind]) for kind in (TaskType.CT_TO_MRI, TaskType.MRI_TO_CT)
    )  # all wordings


@pytest.mark.parametrize(
    ("region", "name", "ending"),
    [("brain", "1BC005", "nii"), ("pelvis", "1PA004", "nii.gz"), ("brain", "1BA001", "nii.gz")],
)
def test_synthrad_pixels_are_the_volumes_values(synthrad, tmp_path, region, name, ending):
    margin = 3
    records = by_id(prepared(synthrad2023(synthrad.root, margin=margin), tmp_path / "out"))
    volumes = {part: canonical(synthrad.task / region / name / f"{part}.{ending}") for part in ("mr", "ct", "mask")}
    inside = volumes["mask"] > 0
    low, high = np.percentile(volumes["mr"][inside], [0.5, 99.5])
    rows, columns = slice(0, 19 + margin), slice(4 - margin, 15 + margin)  # the mask's box begins at row 3, column 4
    for i in range(2, 8):
        _, value, record = records[f"synthrad2023-{region}-{name}-{i:03d}-mri2ct"]
        mask = inside[i][rows, columns]
        square = centred(mask.astype(np.uint8), 22) > 0
        assert np.array_equal(grey(record.focus), square * 255)
        ranges = {"mr": (low, high), "ct": value["metadata"]["ct_range"]}
        for part, path in (("mr", record.images[0]), ("ct", record.target)):
            pixels = grey(path)
            assert pixels.shape == (22, 22)
            assert not pixels[~square].any()
            assert nearest_grey(pixels[square], volumes[part][i][rows, columns][mask], *ranges[part])


def test_synthrad_hu_can_be_recovered(synthrad, tmp_path):
    records = by_id(prepared(synthrad2023(synthrad.root, region="pelvis"), tmp_path / "out"))
    _, value, record = records["synthrad2023-pelvis-1PA004-004-mri2ct"]
    low, high = value["metadata"]["ct_range"]
    assert (low, high) == (-1000, 1000)
    square = grey(record.focus) > 0
    hu = low + grey(record.target)[square] / 255 * (high - low)
    ct, mask = (canonical(synthrad.task / "pelvis" / "1PA004" / f"{part}.nii.gz")[4] for part in ("ct", "mask"))
    assert np.abs(hu - np.clip(ct[mask > 0], low, high)).max() <= (high - low) / 255 / 2 + 1e-6


def test_synthrad_options(synthrad, tmp_path):
    source = synthrad2023(
        synthrad.root, region="brain", directions=["ct2mri"], every=2, least_mask=0.01, keep_outside=True, ct_high=3000
    )
    records = by_id(prepared(source, tmp_path / "out"))
    assert sorted(records) == [
        f"synthrad2023-brain-{name}-{i:03d}-ct2mri" for name in ("1BA001", "1BC005") for i in (1, 3, 5, 7)
    ]
    _, value, record = records["synthrad2023-brain-1BA001-003-ct2mri"]
    ct = canonical(synthrad.task / "brain" / "1BA001" / "ct.nii.gz")[3]
    # A margin of 8 around rows 3 to 18 and columns 4 to 14 is all of the 26 rows and 20 columns.
    assert nearest_grey(grey(record.images[0])[:, 3:23], ct, *value["metadata"]["ct_range"])
    assert value["metadata"]["ct_range"] == [-1000, 3000]


def test_synthrad_pixels_are_square(tmp_path):
    tree = SynthRad(tmp_path)
    tree.add("brain", "1BA001", spacing=(1.0, 2.0, 1.0))
    records = by_id(prepared(synthrad2023(tmp_path, margin=0), tmp_path / "out"))
    record = records["synthrad2023-brain-1BA001-004-ct2mri"][2]
    mask = grey(record.focus)
    assert mask.shape == (32, 32)  # 16 rows of 2 mm
    assert set(np.unique(mask)) == {0, 255}
    columns = np.flatnonzero(mask.any(axis=0))
    assert (columns[0], columns[-1]) == (10, 20)  # 11 columns of 1 mm
    assert not grey(record.target)[mask == 0].any()


def test_synthrad_roots(synthrad, tmp_path):
    counts = {}
    roots = [synthrad.root, synthrad.task, synthrad.task / "brain", synthrad.task / "pelvis"]
    for i, root in enumerate(roots):
        records = prepared(synthrad2023(root, directions=["mri2ct"]), tmp_path / f"out{i}")
        counts[root.name] = dict.fromkeys(("brain", "pelvis"), 0)
        for _, value, _ in records:
            counts[root.name][value["metadata"]["region"]] += 1
    assert counts["synthrad"] == counts["Task1"] == {"brain": 12, "pelvis": 12}
    assert (counts["brain"], counts["pelvis"]) == ({"brain": 12, "pelvis": 0}, {"brain": 0, "pelvis": 12})
    with pytest.raises(FileNotFoundError, match="Task1/pelvis"):
        synthrad2023(synthrad.task / "brain", region="pelvis")
    with pytest.raises(FileNotFoundError, match="Task1/brain or Task1/pelvis"):
        synthrad2023(tmp_path / "nothing")


def test_synthrad_validation_set_is_refused(tmp_path):
    tree = SynthRad(tmp_path)
    for name in ("1BA012", "1BB013", "1BC014"):
        tree.add("brain", name, ct=False)
    tree.add_overview("brain")
    with pytest.raises(ValueError, match="none of 3 patients has a CT: this is the validation set") as caught:
        synthrad2023(tmp_path)
    assert "\n" not in str(caught.value)


def test_synthrad_lists_patients_that_lack_volumes(synthrad):
    for name in ("1BA090", "1BB091"):
        synthrad.add("brain", name, ct=False)
    with pytest.raises(ValueError, match=r"2 of 6 patients have no CT: brain/1BA090, brain/1BB091$"):
        synthrad2023(synthrad.root)
    (synthrad.add("pelvis", "1PC007") / "mask.nii.gz").unlink()
    with pytest.raises(ValueError, match=r"3 of 7 patients lack volumes: pelvis/1PC007 \(no mask\), brain/1BA090 \(no"):
        synthrad2023(synthrad.root)


@pytest.mark.parametrize(
    "option",
    [
        {"region": "thorax"},
        {"directions": ["t1_to_t2"]},
        {"directions": []},
        {"least_mask": 1.5},
        {"every": 0},
        {"margin": -1},
        {"ct_low": 1000},
        {"percentiles": (99, 1)},
        {"parts": {"train": 0.5}},
        {"parts": {"training": 1.0}},
    ],
)
def test_synthrad_refuses_options_that_are_none(synthrad, option):
    with pytest.raises(ValueError, match=next(iter(option))):
        synthrad2023(synthrad.root, **option)


def test_synthrad_refuses_volumes_that_do_not_lie_on_one_another(tmp_path):
    tree = SynthRad(tmp_path / "a")
    folder = tree.add("brain", "1BA001")
    image = nibabel.load(folder / "mr.nii.gz")
    values = np.asarray(image.dataobj)
    affine = image.affine.copy()
    affine[0, 3] += 7
    nibabel.save(nibabel.Nifti1Image(values, affine), folder / "mr.nii.gz")
    with pytest.raises(ValueError, match=r"mr\.nii\.gz: lies 7\.0 mm apart from its mask"):
        prepared(synthrad2023(tree.root), tmp_path / "out")
    tree = SynthRad(tmp_path / "b")
    folder = tree.add("brain", "1BA001")
    nibabel.save(nibabel.Nifti1Image(values[:, :, :-1], image.affine), folder / "ct.nii.gz")
    with pytest.raises(ValueError, match=r"ct\.nii\.gz: has 8x26x20 voxels, and its mask 9x26x20"):
        prepared(synthrad2023(tree.root), tmp_path / "out2")


def test_synthrad_takes_volumes_stored_in_different_orders(tmp_path):
    plain, mixed = SynthRad(tmp_path / "plain"), SynthRad(tmp_path / "mixed")
    plain.add("brain", "1BA001")
    folder = mixed.add("brain", "1BA001")
    image = nibabel.load(folder / "ct.nii.gz")
    change = nibabel.orientations.ornt_transform(
        nibabel.io_orientation(image.affine), nibabel.orientations.axcodes2ornt("SAR")
    )
    nibabel.save(image.as_reoriented(change), folder / "ct.nii.gz")
    pictures = []
    for tree in (plain, mixed):
        prepared(synthrad2023(tree.root), tree.root / "out")
        images = tree.root / "out" / "images"
        pictures.append({path.relative_to(images): path.read_bytes() for path in images.rglob("*.png")})
    assert len(pictures[0]) == 18
    assert pictures[0] == pictures[1]


@pytest.mark.parametrize("damage", ["truncated", "empty mask", "constant MRI"])
def test_synthrad_names_the_volume_that_is_bad(tmp_path, damage):
    folder = SynthRad(tmp_path).add("brain", "1BA001")
    part = "mask" if damage == "empty mask" else "mr"
    path = folder / f"{part}.nii.gz"
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:500])
    else:
        image = nibabel.load(path)
        nibabel.save(nibabel.Nifti1Image(np.zeros(SHAPE, np.float32), image.affine), path)
    with pytest.raises(ValueError, match=rf"{part}\.nii\.gz: ") as caught:
        prepared(synthrad2023(tmp_path), tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_synthrad_splits_are_by_subject(tmp_path):
    tree = SynthRad(tmp_path)
    for number in range(24):
        tree.add("pelvis", f"1PA{number:03d}", ending=".nii")
    source = synthrad2023(tmp_path, seed=3, every=3)
    subjects = {"train": set(), "validation": set(), "test": set()}
    for split, value, _ in prepared(source, tmp_path / "out"):
        subjects[split].add(value["metadata"]["subject"])
    assert len(set.union(*subjects.values())) == sum(map(len, subjects.values())) == 24
    assert all(subjects.values())
    for split, names in subjects.items():
        listed = (tmp_path / "out" / "splits" / f"{split}.txt").read_text().split()
        assert listed == sorted(names)


def test_synthrad_is_idempotent_and_goes_on(synthrad, tmp_path):
    output = tmp_path / "out"
    prepared(synthrad2023(synthrad.root), output)
    before = state(output)
    prepared(synthrad2023(synthrad.root), output)
    assert state(output) == before

    made = sorted(output.rglob("*-ct-*.png"))[5]
    content = made.read_bytes()
    made.unlink()
    (output / "manifest.json").unlink()
    prepared(synthrad2023(synthrad.root), output)
    after = state(output)
    pictures = [path for path in before if path.suffix == ".png"]
    assert {path for path in pictures if before[path] != after[path]} == {made}
    assert made.read_bytes() == content

    with pytest.raises(ValueError, match="holds another preparation"):
        prepared(synthrad2023(synthrad.root, margin=2), output)
    (output / "manifest.json").unlink()  # pictures of other options are not taken for these
    records = prepared(synthrad2023(synthrad.root, margin=2), output)
    assert {grey(record.target).shape for *_, record in records} == {(20, 20)}


def test_several_processes_give_the_same(synthrad, tmp_path):
    contents = []
    for number in (1, 2):
        output = tmp_path / f"out{number}"
        prepared(synthrad2023(synthrad.root), output, num_processes=number)
        contents.append({path.relative_to(output): path.read_bytes() for path in output.rglob("*") if path.is_file()})
    assert len(contents[0]) > 72
    assert contents[0] == contents[1]


# IXI


def add_ixi(root, subject, modality="T1", site="Guys", folder="", ending=".nii.gz", spacing=(1.2, 0.9375, 0.9375)):
    """A volume as T1 is stored: sagittal, rows and columns of an axial slice of different spacing."""
    values = np.random.default_rng(subject).gamma(2, 100, (17, 30, 12)).astype(np.int16)
    path = root / folder / f"IXI{subject:03d}-{site}-{700 + subject:04d}-{modality}{ending}"
    save_nifti(values, path, codes="PSR", spacing=spacing)
    return path


@pytest.fixture
def ixi_root(tmp_path):
    root = tmp_path / "ixi"
    for subject in (2, 12):
        for modality in ("T1", "T2", "PD"):
            add_ixi(root, subject, modality, site="HH" if subject == 12 else "Guys")
    for name in ("DTI-00", "DTI-15", "MRA"):
        (root / f"IXI002-Guys-0702-{name}.nii.gz").write_bytes(b"never read")
    (root / "IXI.xls").write_bytes(b"never read")
    return root


def test_ixi_records(ixi_root, tmp_path):
    records = by_id(prepared(ixi(ixi_root), tmp_path / "out"))
    names = [f"IXI002-Guys-0702-{modality}" for modality in ("PD", "T1", "T2")]
    names += [f"IXI012-HH-0712-{modality}" for modality in ("PD", "T1", "T2")]
    assert sorted(records) == [f"ixi-{name}-{i:03d}" for name in names for i in range(3, 9)]
    _, value, record = records["ixi-IXI012-HH-0712-T2-004"]
    assert record.task is Task.GENERATION
    assert value["metadata"] == {
        "kind": "super-resolution",
        "modality": "T2",
        "subject": "IXI012",
        "site": "HH",
        "slice": 4,
        "slices": 12,
        "method": "kspace",
        "factor": 4,
    }
    assert len({value["conversations"][0]["value"] for _, value, _ in records.values()}) > 3


def test_ixi_slices_are_axial_and_scaled_by_the_volume(tmp_path):
    path = add_ixi(tmp_path / "ixi", 7, spacing=(0.9375, 0.9375, 1.2))
    records = by_id(prepared(ixi(tmp_path / "ixi"), tmp_path / "out"))
    values = canonical(path)
    low, high = np.percentile(values, [0.5, 99.5])
    for i in range(3, 9):
        target = grey(records[f"ixi-IXI007-Guys-0707-T1-{i:03d}"][2].target)
        assert target.shape == (32, 32)  # the multiple of 4 over 30
        assert nearest_grey(target[1:31, 7:24], values[i], low, high)
        outside = target.copy()
        outside[1:31, 7:24] = 0
        assert not outside.any()


def test_ixi_pixels_are_square(tmp_path):
    path = add_ixi(tmp_path / "ixi", 7)
    records = by_id(prepared(ixi(tmp_path / "ixi"), tmp_path / "out"))
    target = grey(records["ixi-IXI007-Guys-0707-T1-005"][2].target)
    values = canonical(path)
    low, high = np.percentile(values, [0.5, 99.5])
    pixels = np.rint(np.clip((values[5] - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    wider = Image.fromarray(pixels).resize((22, 30), Image.Resampling.BICUBIC)  # 17 columns of 1.2 mm as 0.9375 mm
    assert np.abs(target[1:31, 5:27].astype(int) - np.asarray(wider)).max() <= 1


def test_ixi_inputs_are_the_target_with_fewer_pixels(ixi_root, tmp_path):
    for method, factor in (("kspace", 4), ("bicubic", 4), ("kspace", 2)):
        output = tmp_path / f"{method}{factor}"
        for *_, record in prepared(ixi(ixi_root, method=method, factor=factor, modalities=["T2"]), output):
            target, given = grey(record.target), grey(record.images[0])
            assert target.shape == (given.shape[0] * factor, given.shape[1] * factor)
            if method == "bicubic":
                size = (given.shape[1], given.shape[0])
                wanted = np.asarray(Image.fromarray(target).resize(size, Image.Resampling.BICUBIC))
                assert np.array_equal(given, wanted)
            else:
                assert np.abs(given - np.clip(truncated(target, factor), 0, 255)).max() <= 0.5 + 1e-6


def truncated(pixels, factor):
    """The formula itself: the sum over the low frequencies of the discrete Fourier transform, one pixel at a time."""
    size, small = len(pixels), len(pixels) // factor
    frequencies = np.arange(small) - small // 2
    places = np.arange(size)
    analysis = np.exp(-2j * np.pi * np.outer(frequencies, places) / size)
    spectrum = analysis @ pixels.astype(float) @ analysis.T
    centres = np.arange(small) * factor + (factor - 1) / 2  # the middle of the pixels that each one stands for
    synthesis = np.exp(2j * np.pi * np.outer(centres, frequencies) / size)
    return np.abs(synthesis @ spectrum @ synthesis.T) / size**2


@pytest.mark.parametrize(("size", "factor"), [(32, 4), (36, 4), (24, 2), (30, 3), (45, 3)])
def test_kspace(size, factor):
    rng = np.random.default_rng(size)
    smooth = rng.normal(size=(size, size)).cumsum(axis=0).cumsum(axis=1)
    pixels = np.rint((smooth - smooth.min()) / np.ptp(smooth) * 255).astype(np.uint8)
    small = shrink_by_kspace(pixels, factor)
    assert small.shape == (size // factor, size // factor)
    assert np.abs(small - np.clip(truncated(pixels, factor), 0, 255)).max() <= 0.5 + 1e-6
    assert np.array_equal(shrink_by_kspace(pixels[::-1, ::-1], factor), small[::-1, ::-1])  # no shift to one side
    assert np.array_equal(shrink_by_kspace(np.full_like(pixels, 93), factor), np.full_like(small, 93))


def test_both_methods_lie_on_one_another():
    x, y = np.meshgrid(np.arange(64), np.arange(64))
    blob = np.rint(250 * np.exp(-((x - 25) ** 2 + (y - 40) ** 2) / 200)).astype(np.uint8)
    difference = shrink_by_kspace(blob, 4).astype(int) - shrink_by_bicubic(blob, 4)
    assert np.abs(difference).max() < 12


def test_ixi_middle_and_every(ixi_root, tmp_path):
    records = prepared(ixi(ixi_root, modalities=["PD"], middle=(0, 1), every=5), tmp_path / "out")
    assert {value["metadata"]["slice"] for _, value, _ in records} == {0, 5, 10}


def test_ixi_in_folders_of_modalities(tmp_path):
    for subject, modality in itertools.product((2, 12, 13), ("T1", "T2")):
        ending = ".nii" if subject == 13 else ".nii.gz"
        add_ixi(tmp_path / "ixi", subject, modality, folder=f"IXI-{modality}", ending=ending)
    records = prepared(ixi(tmp_path / "ixi", every=6), tmp_path / "out")
    assert {(value["metadata"]["subject"], value["metadata"]["modality"]) for _, value, _ in records} == set(
        itertools.product(("IXI002", "IXI012", "IXI013"), ("T1", "T2"))
    )


def test_ixi_says_that_modalities_are_not_registered(tmp_path, caplog):
    add_ixi(tmp_path, 2, "T1")
    with caplog.at_level(logging.WARNING, "healthgpt.data.sources.ixi"):
        ixi(tmp_path)
    text = caplog.text
    assert "NOT REGISTERED" in text
    assert "no volume of T2" in text
    assert "no volume of PD" in text


def test_ixi_splits_are_by_subject(tmp_path):
    for subject, modality in itertools.product(range(1, 31), ("T1", "PD")):
        add_ixi(tmp_path / "ixi", subject, modality, ending=".nii", spacing=(1, 1, 1))
    subjects = {"train": set(), "validation": set(), "test": set()}
    for split, value, _ in prepared(ixi(tmp_path / "ixi", every=6, seed=1), tmp_path / "out"):
        subjects[split].add(value["metadata"]["subject"])
    assert len(set.union(*subjects.values())) == sum(map(len, subjects.values())) == 30
    assert all(subjects.values())


def test_ixi_is_idempotent_and_goes_on(ixi_root, tmp_path):
    output = tmp_path / "out"
    prepared(ixi(ixi_root), output)
    before = state(output)
    prepared(ixi(ixi_root), output)
    assert state(output) == before
    made = sorted(output.rglob("*-kspace4-*.png"))[7]
    made.unlink()
    (output / "manifest.json").unlink()
    prepared(ixi(ixi_root), output)
    after = state(output)
    assert {path for path in before if path.suffix == ".png" and before[path] != after[path]} == {made}


@pytest.mark.parametrize(
    "option",
    [{"modalities": ["T3"]}, {"method": "nearest"}, {"factor": 1}, {"middle": (0.7, 0.2)}, {"every": 0}],
)
def test_ixi_refuses_options_that_are_none(ixi_root, option):
    with pytest.raises(ValueError, match=next(iter(option))):
        ixi(ixi_root, **option)


def test_ixi_refuses_roots(ixi_root, tmp_path):
    add_ixi(ixi_root, 2, "T1", folder="IXI-T1")
    with pytest.raises(ValueError, match="1 volumes are there more than once: IXI002-Guys-0702-T1"):
        ixi(ixi_root)
    with pytest.raises(FileNotFoundError, match="has no volume such as"):
        ixi(tmp_path / "nothing")


def test_packed_volumes_equal_plain_ones(tmp_path):
    path = add_ixi(tmp_path, 3)
    plain = tmp_path / "plain.nii"
    nibabel.save(nibabel.load(path), plain)
    packed = read_volume(path)
    assert packed.name == str(path)
    assert np.array_equal(packed.volume, read_volume(plain).volume)


# Pairs of one's own


def noise(seed, shape=(6, 8), dtype=np.uint8):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def save_picture(path, seed, shape=(6, 8), dtype=np.uint8):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise(seed, shape, dtype)).save(path)
    return path


def save_dicom(path, hu):
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, generate_uid()
    dataset.Modality = "CT"
    dataset.Rows, dataset.Columns = hu.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
    dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = 1, -1024, "HU"
    dataset.PixelData = (hu + 1024).astype(np.uint16).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)


def test_pairs_of_folders_refer_to_pictures(tmp_path):
    root = tmp_path / "mine"
    for name in ("a", "b.v2", "p1/a"):
        save_picture(root / "input" / f"{name}.png", 1)
        save_picture(root / "target" / f"{name}.jpg", 2)
    (root / "input" / ".DS_Store").write_bytes(b"x")
    records = by_id(prepared(pairs(root, instruction="Stain it.", kind="staining"), tmp_path / "out"))
    assert sorted(records) == ["pairs-a", "pairs-b.v2", "pairs-p1/a"]
    for name, (_, value, record) in records.items():
        stem = name.removeprefix("pairs-")
        assert record.images[0].resolve() == root / "input" / f"{stem}.png"
        assert record.target.resolve() == root / "target" / f"{stem}.jpg"
        assert value["conversations"][0]["value"] == "<image>\nStain it."
        assert value["metadata"] == {"kind": "staining", "subject": "p1" if stem == "p1/a" else stem}
    assert not (tmp_path / "out" / "images").exists()


def test_pairs_that_are_no_pictures_are_windowed(tmp_path):
    root = tmp_path / "mine"
    save_picture(root / "input" / "ct.png", 1)
    hu = np.random.default_rng(3).integers(-1000, 1500, (6, 8))
    save_dicom(root / "target" / "ct.dcm", hu)
    record = prepared(pairs(root, window="100/40", target_window="400/40"), tmp_path / "out")[0][2]
    assert record.images[0].resolve() == root / "input" / "ct.png"
    wanted = np.clip((hu - 39.5) / 399 + 0.5, 0, 1) * 255  # DICOM's formula of a window
    assert np.abs(grey(record.target) - wanted).max() <= 0.5 + 1e-6


def test_pairs_of_16_bit_colour_and_nifti(tmp_path):
    root = tmp_path / "mine"
    save_picture(root / "input" / "deep.png", 1, dtype=np.uint16)
    save_picture(root / "target" / "deep.png", 2, shape=(6, 8, 3))
    flat = np.random.default_rng(4).gamma(2, 50, (8, 6, 1)).astype(np.float32)
    save_nifti(flat, root / "input" / "slice.nii.gz", spacing=(1, 1, 5))
    save_picture(root / "target" / "slice.tif", 3)
    records = by_id(prepared(pairs(root), tmp_path / "out"))
    deep = records["pairs-deep"][2]
    assert np.abs(grey(deep.images[0]) - noise(1, dtype=np.uint16) / 257).max() <= 0.5 + 1e-6
    assert deep.target.resolve() == root / "target" / "deep.png"
    values = canonical(root / "input" / "slice.nii.gz")[0]
    low, high = np.percentile(values, [0.5, 99.5])
    assert nearest_grey(grey(records["pairs-slice"][2].images[0]), values, low, high)


def test_pairs_without_partners_are_all_listed(tmp_path):
    for name in ("a", "b", "c"):
        save_picture(tmp_path / "in" / f"{name}.png", 1)
    for name in ("a", "x"):
        save_picture(tmp_path / "out" / f"{name}.png", 1)
    with pytest.raises(ValueError, match=r"2 of 3 sources have no target: b, c; 1 of 2 targets have no source: x$"):
        pairs(tmp_path, sources="in", targets="out")


def test_pairs_refuse_what_is_ambiguous(tmp_path):
    save_picture(tmp_path / "input" / "a.png", 1)
    save_picture(tmp_path / "target" / "a.png", 1)
    with pytest.raises(ValueError, match="instruction: 2 <image>"):
        pairs(tmp_path, instruction="<image><image> Compare.")
    with pytest.raises(ValueError, match="instruction is empty"):
        pairs(tmp_path, instruction=" ")
    with pytest.raises(ValueError, match="window 'dim'"):
        pairs(tmp_path, window="dim")
    with pytest.raises(FileNotFoundError, match=r"pairs\.csv"):
        pairs(tmp_path, targets="none")
    save_picture(tmp_path / "input" / "a.tif", 1)
    with pytest.raises(ValueError, match="1 names are there with several endings: a"):
        pairs(tmp_path)


def test_pairs_that_are_volumes_are_refused(tmp_path):
    save_nifti(np.zeros(SHAPE, np.float32), tmp_path / "input" / "a.nii.gz")
    save_picture(tmp_path / "target" / "a.png", 1)
    with pytest.raises(ValueError, match=r"a\.nii\.gz: has 9 slices"):
        prepared(pairs(tmp_path), tmp_path / "out")


def write_table(path, rows):
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.mark.parametrize("name", ["pairs.csv", "pairs.jsonl", "list.csv"])
def test_pairs_of_a_table(tmp_path, name):
    root = tmp_path / "mine"
    for number in range(3):
        save_picture(root / "images" / f"{number}.png", number)
    rows = [
        {"source": "images/0.png", "target": "images/1.png", "instruction": "Stain it.", "split": "val",
         "subject": "A"},
        {"source": "images/1.png", "target": "images/2.png", "instruction": "", "split": "", "subject": "A"},
        {"source": "images/2.png", "target": "images/0.png", "instruction": "<image> Freeze it.", "split": "test",
         "subject": ""},
    ]  # fmt: skip
    table = write_table(root / name, rows)
    source = pairs(table if name == "list.csv" else root, instruction="Draw it.")
    found = [
        (split, value["id"], value["conversations"][0]["value"], value["metadata"]["subject"])
        for split, value, _ in prepared(source, tmp_path / "out")
    ]
    assert found == [
        ("validation", "pairs-1", "<image>\nStain it.", "A"),
        ("validation", "pairs-2", "<image>\nDraw it.", "A"),  # whose split another row says
        ("test", "pairs-3", "<image> Freeze it.", "images/2.png"),
    ]
    hashes = json.loads((tmp_path / "out" / "manifest.json").read_text())["input_sha256"]
    assert list(hashes.values()) == [hashlib.sha256(table.read_bytes()).hexdigest()]


def test_pairs_of_a_table_list_what_is_missing(tmp_path):
    save_picture(tmp_path / "a.png", 1)
    rows = [{"source": "a.png", "target": name} for name in ("a.png", "b.png", "c.dcm")]
    source = pairs(write_table(tmp_path / "pairs.csv", rows))
    with pytest.raises(ValueError, match="2 files are missing"):
        prepared(source, tmp_path / "out")
    listed = (tmp_path / "out" / "missing.txt").read_text().split()
    assert listed == [str(tmp_path / "b.png"), str(tmp_path / "c.dcm")]
    write_table(tmp_path / "pairs.csv", [*rows, {"source": "", "target": "a.png"}, {"source": "a.png", "target": " "}])
    with pytest.raises(ValueError, match=r"2 of 5 rows are no pair: row 4 \(no source\), 5 \(no target\)"):
        pairs(tmp_path)


def test_pairs_name_a_column_that_is_not_there(tmp_path):
    table = write_table(tmp_path / "pairs.csv", [{"input": "a.png", "target": "b.png"}])
    with pytest.raises(ValueError, match=r"pairs\.csv, row 1: has no column source; it has input, target"):
        pairs(table)


def test_volumes_that_change_are_another_preparation(tmp_path):
    tree = SynthRad(tmp_path / "tree")
    folder = tree.add("brain", "1BA001")
    add_ixi(tmp_path / "ixi", 2)
    save_picture(tmp_path / "mine" / "input" / "a.png", 1)
    save_picture(tmp_path / "mine" / "target" / "a.png", 2)
    sources = {"tree": synthrad2023, "ixi": ixi, "mine": pairs}
    for name, source in sources.items():
        prepared(source(tmp_path / name), tmp_path / f"{name}_out")
    folder.rename(folder.with_name("1BA002"))
    add_ixi(tmp_path / "ixi", 3)
    (tmp_path / "ixi" / "IXI002-Guys-0702-T1.nii.gz").unlink()
    save_picture(tmp_path / "mine" / "input" / "a.png", 1, shape=(9, 9))
    for name, source in sources.items():
        with pytest.raises(ValueError, match="holds another preparation"):
            list(prepare(source(tmp_path / name), tmp_path / f"{name}_out"))


def test_pairs_refuse_a_subject_in_two_splits(tmp_path):
    rows = [
        {"source": f"{number}.png", "target": "t.png", "split": split, "subject": "A"}
        for number, split in enumerate(("train", "test"))
    ]
    table = write_table(tmp_path / "pairs.csv", rows)
    with pytest.raises(ValueError, match=r"1 subjects are in several splits: A$"):
        pairs(table)
    write_table(table, [rows[0] | {"split": "holdout"}])
    with pytest.raises(ValueError, match="row 1: split is 'holdout'"):
        pairs(table)


def test_pairs_splits_are_by_subject(tmp_path):
    for patient, number in itertools.product(range(30), range(2)):
        for folder in ("input", "target"):
            save_picture(tmp_path / folder / f"p{patient}" / f"{number}.png", patient)
    subjects = {"train": set(), "validation": set(), "test": set()}
    for split, value, _ in prepared(pairs(tmp_path), tmp_path / "out"):
        subjects[split].add(value["metadata"]["subject"])
    assert len(set.union(*subjects.values())) == sum(map(len, subjects.values())) == 30
    assert all(subjects.values())


def test_pairs_are_idempotent_and_go_on(tmp_path):
    root, output = tmp_path / "mine", tmp_path / "out"
    for name in ("a", "b", "c"):
        save_picture(root / "input" / f"{name}.png", 1, dtype=np.uint16)
        save_picture(root / "target" / f"{name}.png", 2, dtype=np.uint16)
    prepared(pairs(root), output)
    before = state(output)
    assert sum(path.suffix == ".png" for path in before) == 6
    prepared(pairs(root), output)
    assert state(output) == before
    made = sorted(output.rglob("*.png"))[2]
    made.unlink()
    (output / "manifest.json").unlink()
    prepared(pairs(root), output)
    after = state(output)
    assert {path for path in before if path.suffix == ".png" and before[path] != after[path]} == {made}

"""Any image to the original's RGB, or a clear refusal."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from healthgpt.images import format_of, pad_to_square, read_image, save_image


def gradient(width: int = 20, height: int = 10) -> np.ndarray:
    return np.linspace(0, 255, width * height).reshape(height, width).astype(np.uint8)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "webp"])
def test_lossless_formats_keep_every_pixel(tmp_path, suffix):
    pixels = np.stack([gradient(), gradient()[::-1], gradient()[:, ::-1]], axis=-1)
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(pixels).save(path, **({"lossless": True} if suffix == "webp" else {}))
    assert np.array_equal(np.asarray(read_image(path)), pixels)
    assert np.array_equal(np.asarray(read_image(path.read_bytes())), pixels)


def test_jpeg_is_pillows(tmp_path):
    path = tmp_path / "image.jpg"
    Image.fromarray(gradient()).save(path)
    assert np.array_equal(np.asarray(read_image(str(path))), np.asarray(Image.open(path).convert("RGB")))


def test_the_content_decides_and_not_the_name(tmp_path):
    path = tmp_path / "image.dcm"
    Image.fromarray(gradient()).save(path, format="PNG")
    assert read_image(path).size == (20, 10)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr"])
def test_modes_convert_as_in_the_original(tmp_path, mode):
    image = Image.fromarray(gradient()).convert("RGB").convert(mode)
    assert np.array_equal(np.asarray(read_image(image)), np.asarray(image.convert("RGB")))
    path = tmp_path / "image.tiff"
    image.save(path)
    assert np.array_equal(np.asarray(read_image(path)), np.asarray(Image.open(path).convert("RGB")))


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_16_bit_is_scaled_and_not_clipped(tmp_path, suffix):
    pixels = np.linspace(0, 65535, 200).reshape(10, 20).astype(np.uint16)
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(pixels).save(path)
    expected = np.round(pixels / 257).astype(int)
    for source in (path, pixels):
        read = np.asarray(read_image(source))[..., 0].astype(int)
        assert np.abs(read - expected).max() == 0


def test_12_bit_data_in_a_16_bit_file_is_refused_and_not_black(tmp_path):
    path = tmp_path / "ct.png"
    Image.fromarray(np.linspace(0, 4095, 200).reshape(10, 20).astype(np.uint16)).save(path)
    with pytest.raises(ValueError, match=r"ct\.png: 16-bit pixels up to 4095 only"):
        read_image(path)


def test_12_bit_colour_is_refused_too():
    with pytest.raises(ValueError, match="the array: 16-bit pixels up to 4000 only"):
        read_image(np.full((4, 6, 3), 4000, np.uint16))
    assert read_image(np.full((4, 6, 3), 65535, np.uint16)).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 1), (4, 6, 3), (4, 6, 4)])
def test_arrays(shape):
    pixels = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
    read = np.asarray(read_image(pixels))
    assert read.shape == (4, 6, 3)
    assert np.array_equal(read[..., 0], pixels.reshape(4, 6, -1)[..., 0])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (np.zeros((4, 4), np.float32), "an array of float32 has no known black and white"),
        (np.full((4, 4), -1000, np.int16), "an array of int16 has no known black and white"),
        (np.zeros((0, 4), np.uint8), "4x0 has no pixels"),
        (np.zeros((4, 4, 2), np.uint8), r"shape \(4, 4, 2\) is no image"),
        (np.zeros((2, 4, 4, 3), np.uint8), r"shape \(2, 4, 4, 3\) is no image"),
        (Image.new("F", (4, 4)), "floating-point pixels"),
        (Image.new("I", (4, 4)), "32-bit integer pixels"),
        (Image.new("RGB", (0, 4)), "0x4 has no pixels"),
        (3.5, "cannot read an image from a float"),
        (None, "cannot read an image from a NoneType"),
        (b"", "an empty file"),
        (b"\x00" * 128 + b"DICM" + b"\x00" * 100, "a damaged DICOM file|a DICOM file without pixels"),
        (b"\x00" * 344 + b"n+1\x00" + b"\x00" * 100, "a damaged NIfTI file"),
        (b"\x1f\x8b\x08" + b"\x00" * 100, "a damaged gzip file|a truncated gzip file"),
        (b"NRRD0004\n", "a damaged or truncated volume"),
        (b"ObjectType = Image\n", "a damaged or truncated volume"),
        (b"\x93NUMPY\x01\x00", "a damaged NumPy file"),
        (b"%PDF-1.7 something", "not an image of a known format"),
    ],
)
def test_what_cannot_be_read_without_a_guess_is_refused(source, message):
    with pytest.raises(ValueError, match=message):
        read_image(source)


def test_missing_folders_and_unreadable_paths_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.png: no such image"):
        read_image(tmp_path / "nothing.png")
    with pytest.raises(ValueError, match="an empty folder"):
        read_image(tmp_path)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tiff", "webp"])
def test_truncated_files_are_refused(tmp_path, suffix):
    path = tmp_path / f"half.{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=rf"half\.{suffix}: "):
        read_image(path)


@pytest.mark.parametrize("image_format", ["WEBP", "TIFF", "PNG"])
def test_animations_and_pages_are_refused(tmp_path, image_format):
    path = tmp_path / "many"
    frames = [Image.fromarray(np.roll(gradient(), 5 * i, axis=1)) for i in range(3)]
    frames[0].save(path, format=image_format, save_all=True, append_images=frames[1:])
    with pytest.raises(ValueError, match="has 3 slices; choose with --slice"):
        read_image(path)


def test_a_gif_is_no_known_format():
    data = io.BytesIO()
    Image.fromarray(gradient()).save(data, format="GIF")
    with pytest.raises(ValueError, match="not an image of a known format"):
        read_image(data.getvalue())


def test_a_decompression_bomb_is_refused_before_it_is_unpacked():
    data = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(data, format="PNG")
    assert len(data.getvalue()) < 100_000
    with pytest.raises(ValueError, match="pixels"):
        read_image(data.getvalue())


@pytest.mark.parametrize(
    ("size", "corner"), [((10, 4), (0, 3)), ((4, 10), (3, 0)), ((5, 10), (2, 0)), ((6, 6), (0, 0))]
)
def test_padding_centres_with_offsets_rounded_down(size, corner):
    image = Image.new("RGB", size, (1, 2, 3))
    square = np.asarray(pad_to_square(image, (122, 116, 104)))
    side = max(size)
    assert square.shape == (side, side, 3)
    left, top = corner
    inside = square[top : top + size[1], left : left + size[0]]
    assert (inside == (1, 2, 3)).all()
    assert (square == (122, 116, 104)).all(axis=-1).sum() == side * side - size[0] * size[1]


def test_saving_is_whole_or_not_at_all(tmp_path):
    path = tmp_path / "out.png"
    save_image(Image.fromarray(gradient()), path)
    assert read_image(path).size == (20, 10)
    assert [p.name for p in tmp_path.iterdir()] == ["out.png"]
    with pytest.raises(ValueError, match=r"the ending '\.xyz' names none of the formats"):
        save_image(Image.fromarray(gradient()), tmp_path / "out.xyz")
    with pytest.raises(ValueError, match="there is no folder"):
        save_image(Image.fromarray(gradient()), tmp_path / "no" / "out.png")
    assert format_of(Path("a.JPG")) == "JPEG"

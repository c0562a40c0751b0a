"""Any image to the original's RGB, or a clear refusal."""

import contextlib
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from healthgpt.images import View, format_of, pad_to_square, read_image, save_image, see


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
    # Of YCbCr without compression, Pillow before 13 cannot read what it wrote.
    image.save(path, compression="tiff_lzw" if mode == "YCbCr" else None)
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


def png_of_16_bit(pixels: np.ndarray, colour_type: int) -> bytes:
    """A PNG of kinds that Pillow reads and does not write."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    size = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, colour_type, 0, 0, 0)
    chunks = ((b"IHDR", size), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    written = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(written)


@pytest.mark.parametrize(("channels", "colour_type"), [(3, 2), (4, 6), (2, 4)])
def test_files_of_16_bit_colour_are_refused_where_they_would_be_nearly_black(channels, colour_type):
    pixels = np.random.default_rng(0).integers(0, 65536, (10, 20, channels)).astype(np.uint16)
    pixels[..., -1] |= 0xFF00
    read = np.asarray(read_image(png_of_16_bit(pixels, colour_type)))
    assert np.array_equal(read[..., 0], pixels[..., 0] >> 8)
    dim = pixels // 20
    dim[..., -1] = 4000 if channels == 3 else 65535
    with pytest.raises(ValueError, match=r"16-bit pixels up to 4095|16-bit pixels up to 3327"):
        read_image(png_of_16_bit(dim, colour_type))


def tiff(pixels: np.ndarray, **tags: int) -> bytes:
    """An uncompressed TIFF of one strip, with the tags that matter here."""
    size, channels = pixels.shape[:2], pixels.shape[2] if pixels.ndim == 3 else 1
    data = pixels.tobytes()
    bits = 8 * pixels.itemsize
    entries = {256: size[1], 257: size[0], 258: bits, 259: 1, 262: tags.get("interpretation", 1), 273: 0,
               277: channels, 278: size[0], 279: len(data), 284: tags.get("planes", 1), 339: 1}  # fmt: skip
    offset = 8 + 2 + 12 * len(entries) + 4
    three = struct.pack("<HHH", bits, bits, bits) if channels == 3 else b""
    values = {**entries, 273: offset + len(three)}
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in values.items())
    if channels == 3:
        directory = directory.replace(struct.pack("<HHII", 258, 4, 1, bits), struct.pack("<HHII", 258, 3, 3, offset))
        directory = directory.replace(struct.pack("<HHII", 339, 4, 1, 1), struct.pack("<HHII", 339, 4, 1, 1))
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + directory + bytes(4) + three + data


def test_tiff_of_16_bit_in_which_0_is_white_is_turned():
    pixels = np.linspace(0, 65535, 200).reshape(10, 20).astype(np.uint16)
    read = np.asarray(read_image(tiff(pixels, interpretation=0)))[..., 0]
    assert np.abs(read - (255 - np.round(pixels / 257))).max() == 0


def test_tiff_of_unsigned_32_bit_is_not_negative():
    pixels = np.linspace(0, 2**32 - 1, 200).reshape(10, 20).astype(np.uint32)
    (seen,) = see(tiff(pixels), View.of(window="minmax"))
    assert np.array_equal(seen.pixels, np.rint(pixels / (2**32 - 1) * 255))


def test_tiff_of_16_bit_channels_apart_is_refused_and_not_garbled():
    pixels = np.zeros((10, 20, 3), np.uint16)
    with pytest.raises(ValueError, match="a TIFF with channels of 16 bits apart from each other"):
        read_image(tiff(pixels, interpretation=2, planes=2))


def test_pages_of_another_kind_are_refused_and_not_clipped(tmp_path):
    pages = [Image.fromarray(gradient()), Image.fromarray(gradient().astype(np.uint16) * 100)]
    pages[0].save(tmp_path / "p.tiff", save_all=True, append_images=pages[1:])
    with pytest.raises(ValueError, match=r"page 1 is grey of uint16, and page 0 is grey of uint8"):
        see(tmp_path / "p.tiff", View.of(slice=1))
    pages[1] = Image.fromarray(gradient(30, 20))
    pages[0].save(tmp_path / "p.tiff", save_all=True, append_images=pages[1:])
    assert see(tmp_path / "p.tiff", View.of(slice=1))[0].pixels.shape == (20, 30)
    with pytest.raises(ValueError, match=r"p\.tiff: its slices are of several sizes"):
        see(tmp_path / "p.tiff", View.of(slice="montage"))


def test_dim_pages_behind_a_black_one_are_refused(tmp_path):
    pages = [Image.fromarray(np.full((4, 6), value, np.uint16)) for value in (0, 4000)]
    pages[0].save(tmp_path / "p.tiff", save_all=True, append_images=pages[1:])
    with pytest.raises(ValueError, match="16-bit pixels up to 4000 only"):
        see(tmp_path / "p.tiff", View.of(slice=1))


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
        (b"II*\0" + bytes(100), "a damaged TIFF, or one of a kind that is not read"),
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
    with pytest.raises(ValueError, match="/dev/null: neither a file nor a folder"):
        read_image("/dev/null")


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


def test_damaged_pictures_end_in_one_line_without_pillow_s_own_words(tmp_path, capfd, recwarn):
    data = tiff(np.full((10, 20), 60000, np.uint16))
    for place in range(10, 142):
        (tmp_path / "p.tiff").write_bytes(data[:place] + b"\xff\xff" + data[place + 2 :])
        with contextlib.suppress(ValueError):
            read_image(tmp_path / "p.tiff")
    assert (capfd.readouterr().err, [str(warning.message) for warning in recwarn]) == ("", [])


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

"""The web app in a real browser: every mode, uploads, streaming, drawing, mistakes, phone, keyboard, two users."""

from __future__ import annotations

import base64
import io
import re
import time
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from app_server import app, residents  # noqa: F401 (fixtures)
from browser import PHONE, elsewhere, serious_violations
from PIL import Image
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from healthgpt.images import View, read_image
from healthgpt.serving.app.examples import EXAMPLES

pytest.importorskip("gradio", reason="no gradio here: bash scripts/setup.sh dev")
CHEST, BRAIN_CT, BRAIN_MRI, HEAD = (str(example.image) for example in EXAMPLES[:4])
CONVERT = "Turn this CT into an MRI."


@pytest.fixture
def nano(residents):  # noqa: F811
    return residents.get("nano")


@pytest.fixture
def page(app, new_page):  # noqa: F811
    return opened(app, new_page())


def opened(app, page):  # noqa: F811
    page.goto(app.address)
    page.wait_for_selector("#instruction textarea")
    page.wait_for_selector(".hg-none")
    return page


def upload(page, *files) -> None:
    """Opens files and waits for their picture."""
    page.set_input_files("#upload input[type=file]", [str(file) for file in files])
    name = Path(files[0]).name if len(files) == 1 else f"{len(files)} files"
    page.wait_for_selector(f".hg-film img[alt*='{name}']")


def say(page, words) -> None:
    """Sends an instruction and waits until it is carried out."""
    before = page.locator("#log .hg-turn").count()
    page.fill("#instruction textarea", words)
    page.click("#send")
    page.wait_for_function(f"document.querySelectorAll('#log .hg-turn').length === {before + 1}")
    page.wait_for_selector("#send", state="visible")


def last_answer(page) -> str:
    return page.locator("#log .hg-answer p").last.inner_text()


def pixels(address: str) -> np.ndarray:
    """What a data URL shows."""
    data = base64.b64decode(address.removeprefix("data:image/png;base64,"))
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def shown(page) -> np.ndarray:
    return pixels(page.get_attribute(".hg-film img", "src"))


def same(picture: np.ndarray, expected: Image.Image) -> bool:
    return np.array_equal(picture, np.asarray(expected.convert("RGB")))


def write_ct(folder, count=1) -> list[Path]:
    """A small CT in DICOM, slices of 8 mm, each brighter than the one below it."""
    series, study, paths = generate_uid(), generate_uid(), []
    for i in range(count):
        values = np.full((24, 24), -1000, np.int16)
        values[4:20, 4:20] = 10 + 15 * i
        values[8:12, 8:12] = 70
        dataset = pydicom.Dataset()
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, generate_uid()
        dataset.SeriesInstanceUID, dataset.StudyInstanceUID = series, study
        dataset.Modality, dataset.PatientName, dataset.PatientID = "CT", "Secret^Patient", "4711"
        dataset.Rows, dataset.Columns, dataset.InstanceNumber = 24, 24, i + 1
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = 1, 0, "HU"
        dataset.PixelSpacing, dataset.SliceThickness = [2.0, 2.0], 8.0
        dataset.ImagePositionPatient, dataset.ImageOrientationPatient = [0.0, 0.0, 8.0 * i], [1, 0, 0, 0, 1, 0]
        dataset.PixelData = values.tobytes()
        paths.append(folder / f"slice{i}.dcm")
        dataset.save_as(paths[-1], enforce_file_format=True)
    return paths


# --- the page


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_asks_nobody_else_and_is_accessible(app, new_page, scheme):  # noqa: F811
    page = opened(app, new_page(color_scheme=scheme))
    assert page.title() == "HealthGPT"
    assert page.get_attribute("html", "lang") == "en"
    assert "Not a medical device; not for diagnosis or treatment" in page.inner_text("#top")
    assert page.evaluate("document.body.classList.contains('dark')") == (scheme == "dark")
    upload(page, HEAD)
    say(page, CONVERT)
    page.click("text=Decoding")
    assert serious_violations(page) == []
    for tab, ready in (("Compare", "#compare-run"), ("Report", ".hg-sheet")):
        page.click(f"[role=tab]:has-text('{tab}')")
        page.wait_for_selector(ready)
        assert serious_violations(page) == []
    assert elsewhere(page, app.address) == []
    assert page.mistakes == []
    page.click("[data-hg=theme]")
    assert page.evaluate("document.body.classList.contains('dark')") == (scheme != "dark")


def test_on_a_phone_everything_fits_the_width(app, new_page):  # noqa: F811
    page = opened(app, new_page(viewport=PHONE, has_touch=True, is_mobile=True))
    page.locator("[data-example='1']").tap()
    page.wait_for_selector(".hg-film img")
    say(page, CONVERT)
    page.wait_for_selector(".hg-compare")
    assert serious_violations(page) == []
    for tab, ready in (("Workspace", "#send"), ("Compare", "#compare-run"), ("Report", ".hg-sheet")):
        page.click(f"[role=tab]:has-text('{tab}')")
        page.wait_for_selector(ready)
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], tab


# --- modes


def test_each_mode_and_the_automatic_one(page, nano):
    upload(page, BRAIN_CT)
    assert same(shown(page), nano.seen(BRAIN_CT))
    say(page, "Which organ is this?")
    assert "Analyze — chosen because it is a question" in page.locator("#log .hg-task").last.inner_text()
    assert last_answer(page) == nano.answer("Which organ is this?", BRAIN_CT)
    say(page, CONVERT)
    assert "Generate — chosen because it says “Turn this CT into an MRI”" in (
        page.locator("#log .hg-task").last.inner_text()
    )
    drawn = nano.draw(CONVERT, BRAIN_CT)
    assert same(pixels(page.get_attribute(".hg-after", "src")), drawn)
    page.click("#mode label:has-text('Analyze')")
    say(page, CONVERT)
    assert page.locator("#log .hg-task").last.inner_text().strip() == "Analyze"
    page.click("#mode label:has-text('Generate')")
    say(page, "Reconstruct the image.")
    assert same(
        pixels(page.locator(".hg-after").last.get_attribute("src")), nano.draw("Reconstruct the image.", BRAIN_CT)
    )


def test_words_alone_are_drawn(page, nano):
    report = "Draw the chest X-ray of this report: The heart is enlarged."
    page.click("button:has-text('Draw the chest X-ray')")
    assert page.input_value("#instruction textarea") == report
    page.click("#send")
    picture = page.wait_for_selector("#log .hg-drawn img")
    assert same(pixels(picture.get_attribute("src")), nano.draw(report))


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_every_example_works(page, number):
    example = EXAMPLES[number]
    page.click(f"[data-example='{number}']")
    page.wait_for_function(f"document.querySelector('#instruction textarea').value === {example.instruction!r}")
    page.wait_for_selector(".hg-film img" if example.image else ".hg-none")
    page.click("#send")
    page.wait_for_selector("#log .hg-turn")
    said = {0: "pleural effusion", 3: "hemorrhage", 4: "3", 5: "Large macular edema", 6: "adenocarcinoma"}
    if number in said:
        assert said[number] in last_answer(page)
    else:
        assert page.locator("#log .hg-drawn img").count()


def test_earlier_turns_are_remembered_until_a_new_conversation(page, nano):
    upload(page, CHEST)
    say(page, "Which organ is this?")
    first = last_answer(page)
    say(page, "Is it normal?")
    assert last_answer(page) == nano.answer("Is it normal?", CHEST, history=[("Which organ is this?", first)])
    page.click("#clear")
    page.wait_for_selector(".hg-chips")
    assert page.locator(".hg-turn").count() == 0
    say(page, "Is it normal?")
    assert last_answer(page) == nano.answer("Is it normal?", CHEST)


# --- images


def test_a_dicom_file_is_seen_in_the_window_that_is_chosen(page, nano, tmp_path):
    (path,) = write_ct(tmp_path)
    upload(page, path)
    assert same(shown(page), nano.seen(read_image(path)))
    page.click("#window input")
    page.click("[role=option]:has-text('Brain 80/40')")
    page.wait_for_selector(".hg-film:has-text('brain (80/40)')")
    assert same(shown(page), nano.seen(read_image(path, View.of(window="brain"))))
    page.fill("#window input", "120/60")
    page.keyboard.press("Enter")
    page.wait_for_selector(".hg-film:has-text('120/60')")
    assert same(shown(page), nano.seen(read_image(path, View.of(window="120/60"))))
    page.click("label:has-text('Source pixels')")
    page.wait_for_selector(".hg-film:has-text('24 × 24 source pixels')")
    say(page, "Describe this image.")
    assert last_answer(page) == nano.answer("Describe this image.", read_image(path, View.of(window="120/60")))
    assert "Secret" not in page.content()
    assert "4711" not in page.content()


def test_a_window_that_is_none_is_said_and_can_be_changed(page, tmp_path):
    upload(page, *write_ct(tmp_path))
    page.fill("#window input", "wide")
    page.keyboard.press("Enter")
    assert "Window 'wide' is none" in page.wait_for_selector(".hg-film [role=alert]").inner_text()
    page.fill("#window input", "bone")
    page.keyboard.press("Enter")
    page.wait_for_selector(".hg-film:has-text('bone (1800/400)')")


def test_a_series_is_leafed_through(page, nano, tmp_path):
    paths = write_ct(tmp_path, count=6)
    upload(page, *paths)
    page.wait_for_selector(".hg-film:has-text('slice 4 / 6')")
    slider = page.locator("#slice input[type=range]")
    slider.focus()
    for _ in range(2):
        page.keyboard.press("ArrowRight")
    page.wait_for_selector(".hg-film:has-text('slice 6 / 6')")
    assert same(shown(page), nano.seen(read_image(tmp_path, View.of(slice=5))))


def test_a_volume_is_cut_in_other_planes(page, nano):
    page.click("[data-example='3']")
    page.wait_for_selector(".hg-film:has-text('slice 11 / 20')")
    page.click("#plane label:has-text('Coronal')")
    page.wait_for_selector(".hg-film:has-text('coronal · slice 33 / 64')")
    expected = read_image(HEAD, View.of(window="brain", plane="coronal", slice=32))
    assert same(shown(page), nano.seen(expected))
    say(page, CONVERT)
    with page.expect_download() as download:
        page.click("a:has-text('NIfTI')")
    assert nibabel.Nifti1Image.from_bytes(_unzipped(download.value.path())).shape == (64, 20, 1)


def _unzipped(path) -> bytes:
    import gzip

    return gzip.decompress(Path(path).read_bytes())


def test_an_image_is_pasted_photographed_reused_and_removed(page, nano):
    data = base64.b64encode(Path(BRAIN_MRI).read_bytes()).decode()
    page.evaluate(
        """(data) => {
            const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
            const files = new DataTransfer();
            files.items.add(new File([bytes], 'pasted.png', {type: 'image/png'}));
            document.dispatchEvent(new ClipboardEvent('paste', {clipboardData: files, bubbles: true}));
        }""",
        data,
    )
    page.wait_for_selector(".hg-film img[alt*='pasted.png']")
    assert same(shown(page), nano.seen(BRAIN_MRI))
    say(page, "Turn this MRI into a CT.")
    page.click("button:has-text('Use as image')")
    page.wait_for_selector(".hg-film img[alt*='drawn.png']")
    assert same(shown(page), nano.seen(nano.draw("Turn this MRI into a CT.", BRAIN_MRI)))
    page.click("button:has-text('Camera')")
    page.wait_for_function("document.querySelector('.hg-camera video')?.videoWidth > 0")
    page.click(".hg-camera button:has-text('Take picture')")
    page.wait_for_selector(".hg-film img[alt*='camera.png']")
    page.click("#remove")
    page.wait_for_selector(".hg-none")
    say(page, "CT or MRI?")
    assert last_answer(page) == nano.answer("CT or MRI?")


# --- as it comes

_WATCH = """
() => {
  window.seen = [];
  new MutationObserver(() => {
    const bar = document.querySelector('#live progress');
    const words = document.querySelector('#live .hg-answer p');
    window.seen.push(bar ? bar.value : words ? words.innerText : null);
  }).observe(document.querySelector('#live'), {childList: true, subtree: true, characterData: true});
}
"""


def ramble(page) -> dict:
    """Sets the controls so that the model says the same again and again; gives them as keywords, too."""
    page.click("text=Decoding")
    penalty = page.locator("#decoding input[type=number]").nth(3)
    penalty.wait_for()
    for _ in range(20):  # controls that have just appeared may be given their first values once more
        if penalty.input_value() == "0.3":
            break
        penalty.fill("0.3")
        page.keyboard.press("Tab")
        page.wait_for_timeout(300)
    return {"repetition_penalty": 0.3}


def test_text_appears_while_it_is_generated(page, nano):
    settings = ramble(page)
    whole = nano.answer("Tell me everything.", **settings)
    assert len(whole) > 400
    page.evaluate(_WATCH)
    say(page, "Tell me everything.")
    assert page.get_attribute("#log .hg-copy", "data-text") == whole
    seen = [words for words in page.evaluate("window.seen") if words]
    assert len(set(seen)) > 5
    flat = " ".join(whole.split())
    assert all(flat.startswith(" ".join(words.split())) for words in seen)
    assert "repetition penalty 0.3" in page.inner_text("#log .hg-facts")
    assert page.inner_text("#said").startswith("Answer: ")


def test_rows_appear_while_they_are_drawn(page):
    upload(page, BRAIN_CT)
    page.evaluate(_WATCH)
    say(page, CONVERT)
    seen = [share for share in page.evaluate("window.seen") if share]
    assert seen == sorted(seen)
    assert any(0 < share < 100 for share in seen)


def test_escape_stops_what_is_under_way(page, nano):
    settings = ramble(page)
    whole = nano.answer("Tell me everything.", **settings)
    page.fill("#instruction textarea", "Tell me everything.")
    page.keyboard.press("Enter")
    page.wait_for_selector("#stop", state="visible")
    page.wait_for_function("document.querySelector('#live .hg-answer p')?.innerText.length > 20")
    page.keyboard.press("Escape")
    page.wait_for_selector("#log .hg-facts:has-text('stopped')")
    part = page.get_attribute("#log .hg-copy", "data-text")
    assert part != whole
    assert whole.startswith(part)
    page.wait_for_selector("#send", state="visible")


# --- mistakes


def test_mistakes_are_one_kind_line_and_the_page_goes_on(page, tmp_path):
    bad = tmp_path / "broken.dcm"
    bad.write_bytes(b"this is no image")
    page.set_input_files("#upload input[type=file]", str(bad))
    notice = page.wait_for_selector("#notice .hg-notice")
    assert re.fullmatch(r"broken\.dcm: not an image of a known format \([^/]*\)", notice.inner_text())
    assert serious_violations(page) == []
    upload(page, CHEST)
    assert page.locator("#notice .hg-notice").count() == 0
    page.click("#send")
    assert page.wait_for_selector("#notice .hg-notice").inner_text() == "Write a question or an instruction first."
    page.fill("#instruction textarea", "why " * 3000)
    page.click("#send")
    assert "does not fit the context" in page.wait_for_selector("#log .hg-turn .hg-notice").inner_text()
    say(page, "Which organ is this?")
    assert last_answer(page) == "chest"
    assert page.mistakes == []


def test_what_users_write_is_text(page):
    say(page, '<img src=x onerror="window.hacked=1"> <b>bold</b> <|end|> <idx_5> <image>?')
    assert page.inner_text("#log .hg-instruction").startswith("<img src=x")
    assert page.evaluate("window.hacked") is None
    assert page.locator("#log .hg-instruction b").count() == 0


# --- compare, report, take away


def test_two_settings_are_compared(page, nano):
    upload(page, BRAIN_CT)
    page.click("[role=tab]:has-text('Compare')")
    page.fill("#compare-text textarea", "Describe this image.")
    page.click("#compare-run")
    page.wait_for_selector(".hg-verdict:has-text('The answers are the same.')")
    expected = nano.answer("Describe this image.", BRAIN_CT)
    for side in "ab":
        assert page.inner_text(f"#result-{side} .hg-answer p") == expected
    page.fill("#compare-text textarea", CONVERT)
    page.click("text=Decoding B")
    page.locator("input[type=checkbox]:visible").last.check()
    page.locator("input[placeholder*='fresh']:visible").last.fill("3")
    page.keyboard.press("Tab")
    page.click("#compare-run")
    page.wait_for_selector(".hg-verdict:has-text('The pictures differ.')")
    assert same(pixels(page.get_attribute("#result-a .hg-after", "src")), nano.draw(CONVERT, BRAIN_CT))
    sampled = nano.draw(CONVERT, BRAIN_CT, do_sample=True, temperature=1.0, top_p=1.0, seed=3)
    assert same(pixels(page.get_attribute("#result-b .hg-after", "src")), sampled)


def test_the_report_prints_alone(page):
    upload(page, CHEST)
    say(page, "What abnormality is seen in this image?")
    page.click("[role=tab]:has-text('Report')")
    page.wait_for_selector(".hg-sheet:has-text('pleural effusion')")
    page.fill(".hg-remarks", "Seen by us.")
    page.emulate_media(media="print")
    assert page.is_visible(".hg-sheet")
    assert "Seen by us." in page.inner_text(".hg-sheet")
    for hidden in (".hg-header", "#tabs [role=tab]", ".hg-print-bar", "#examples", "#bottom"):
        assert not page.is_visible(hidden), hidden
    assert page.pdf(format="A4").startswith(b"%PDF")


def test_a_drawing_can_be_taken_away(page, nano):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    upload(page, BRAIN_CT)
    say(page, CONVERT)
    drawn = nano.draw(CONVERT, BRAIN_CT)
    files = {}
    for kind in ("PNG", "DICOM"):
        with page.expect_download() as download:
            page.click(f"#log a:has-text('{kind}')")
        files[kind] = Path(download.value.path()).read_bytes()
    assert same(np.asarray(Image.open(io.BytesIO(files["PNG"])).convert("RGB")), drawn)
    dataset = pydicom.dcmread(io.BytesIO(files["DICOM"]))
    assert dataset.Modality == "OT"
    assert np.array_equal(dataset.pixel_array, np.asarray(drawn.convert("L")))
    page.click("#log button:has-text('Copy')")
    page.wait_for_selector("#hg-toast.hg-shown:has-text('Picture copied.')")
    say(page, "Which organ is this?")
    page.click("#log .hg-copy")
    page.wait_for_selector("#hg-toast.hg-shown:has-text('Copied.')")
    assert page.evaluate("navigator.clipboard.readText()") == last_answer(page)


# --- keys


def focus(page, selector, most=60) -> None:
    """Presses Tab until something has the focus."""
    for _ in range(most):
        page.keyboard.press("Tab")
        if page.evaluate("(selector) => document.activeElement?.matches(selector)", selector):
            return
    raise AssertionError(f"{selector} is not reached by Tab")


def test_everything_is_done_by_keys(page, nano):
    focus(page, "[data-hg=theme]")
    focus(page, "[data-example='1']")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineWidth")
    assert float(outline.removesuffix("px")) >= 2
    page.keyboard.press("Enter")
    page.wait_for_selector(".hg-film img")
    focus(page, "#upload button")
    focus(page, "#mode input")
    for mode in ("Analyze", "Generate"):
        page.keyboard.press("ArrowRight")
        page.wait_for_selector(f"#mode label:has-text('{mode}') input:checked")
    focus(page, "#instruction textarea")
    page.keyboard.press("Control+A")
    page.keyboard.type("Reconstruct this")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("image.")
    page.keyboard.press("Enter")
    page.wait_for_selector(".hg-compare input")
    assert same(pixels(page.get_attribute(".hg-after", "src")), nano.draw("Reconstruct this\nimage.", BRAIN_CT))
    page.wait_for_selector("#send", state="visible")
    page.focus("#mode input:checked")
    focus(page, ".hg-compare input")
    page.keyboard.press("ArrowLeft")
    assert page.evaluate("document.querySelector('.hg-compare').style.getPropertyValue('--at')") == "49%"
    page.focus("[role=tab][aria-selected=true]")
    for name in ("Compare", "Report"):
        focus(
            page,
            f"[role=tab]:not([aria-selected=true])[id*='{name.lower()}'], [role=tab][data-tab-id='{name.lower()}']",
        )
        page.keyboard.press("Enter")
    page.wait_for_selector(".hg-sheet")


# --- several users


def test_two_users_at_once_see_their_own(app, new_page, nano):  # noqa: F811
    pages = [opened(app, new_page()) for _ in range(2)]
    images = (CHEST, BRAIN_CT)
    for page, image in zip(pages, images, strict=True):
        page.set_input_files("#upload input[type=file]", {"name": "scan.png", "mimeType": "image/png",
                                                          "buffer": Path(image).read_bytes()})  # fmt: skip
    for page in pages:
        page.wait_for_selector(".hg-film img")
        page.fill("#instruction textarea", "Reconstruct the image.")
    for page in pages:
        page.click("#send")
    for page, image in zip(pages, images, strict=True):
        page.wait_for_selector("#log .hg-compare")
        assert same(shown(page), nano.seen(image))
        assert same(pixels(page.get_attribute(".hg-after", "src")), nano.draw("Reconstruct the image.", image))
    links = [page.get_attribute("#log a:has-text('PNG')", "href") for page in pages]
    tokens = [link.split("/")[1] for link in links]
    assert tokens[0] != tokens[1]
    for page in pages:
        say(page, "Describe this image.")
        page.click("[role=tab]:has-text('Report')")
        page.wait_for_selector(".hg-sheet")
    sheets = [page.inner_text(".hg-sheet") for page in pages]
    assert "X-ray of the chest" in sheets[0]
    assert "chest" not in sheets[1]


def test_the_same_image_of_two_users_is_both_theirs(app, new_page, nano):  # noqa: F811
    first, second = (opened(app, new_page()) for _ in range(2))
    upload(first, CHEST)
    upload(second, CHEST)
    first.click("#remove")
    first.wait_for_selector(".hg-none")
    say(second, "Which organ is this?")
    assert last_answer(second) == nano.answer("Which organ is this?", CHEST)


def test_what_a_page_had_goes_with_it(app, new_page, tmp_path):  # noqa: F811
    app.sessions._grace = 0.5
    page = opened(app, new_page())
    upload(page, *write_ct(tmp_path))
    say(page, CONVERT)
    link = page.get_attribute("#log a:has-text('DICOM')", "href")
    token = link.split("/")[1]
    assert app.sessions.with_token(token)
    page.reload()
    page.wait_for_selector(".hg-none")
    assert page.locator(".hg-turn").count() == 0
    page.context.close()
    end = time.monotonic() + 15
    while app.sessions.with_token(token) and time.monotonic() < end:
        time.sleep(0.2)
    assert app.sessions.with_token(token) is None
    app.sessions._grace = 120

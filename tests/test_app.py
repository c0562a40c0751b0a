"""The web app's parts, without a browser: which task is chosen, what is opened, whose is what, turn after turn."""

from __future__ import annotations

import time

import nibabel
import numpy as np
import pytest
from PIL import Image

from healthgpt import HealthGPT
from healthgpt.cli import main
from healthgpt.data.phantoms.instructions import instructions
from healthgpt.data.phantoms.questions import ask
from healthgpt.data.phantoms.source import draw_patient
from healthgpt.serving.app import markup
from healthgpt.serving.app.decoding import MOST_TOKENS, Chosen
from healthgpt.serving.app.examples import EXAMPLES
from healthgpt.serving.app.opening import Looking, open_files, plainly
from healthgpt.serving.app.pictures import KINDS, as_address, as_file
from healthgpt.serving.app.report import sheet
from healthgpt.serving.app.routing import choose_task
from healthgpt.serving.app.running import begin, run
from healthgpt.serving.app.sessions import Session, Sessions, Turn
from healthgpt.serving.residents import Residents
from healthgpt.tasks import Task

CHEST, BRAIN_CT = EXAMPLES[0].image, EXAMPLES[1].image


@pytest.fixture(scope="module")
def residents() -> Residents:
    return Residents(["nano"])


@pytest.fixture(scope="module")
def nano(residents) -> HealthGPT:
    return residents.get("nano")


# --- which task


def test_every_question_and_instruction_about_phantoms_is_routed_right():
    wrong, count = [], 0
    for number in range(210):
        phantom, rng = draw_patient("validation", 4, number), np.random.default_rng(number)
        asked = [(q.text, True, Task.COMPREHENSION) for modality in phantom.images for q in ask(phantom, modality, rng)]
        drawn = [(i.text, i.source is not None, Task.GENERATION) for i in instructions(phantom, rng)]
        for text, has_image, task in asked + drawn:
            count += 1
            if choose_task(text, has_image).task is not task:
                wrong.append(text)
    assert count > 2000
    assert not wrong


@pytest.mark.parametrize(
    ("text", "task"),
    [
        ("Generate a report for this X-ray.", "comprehension"),
        ("Could you please generate a detailed radiology report?", "comprehension"),
        ("Draw your conclusions from this image.", "comprehension"),
        ("Give me a summary of the findings.", "comprehension"),
        ("I need a description of this MRI.", "comprehension"),
        ("Is this a reconstructed image?", "comprehension"),
        ("How was this image reconstructed?", "comprehension"),
        ("What would you improve in the quality of this image?", "comprehension"),
        ("Can you identify the organ in this CT?", "comprehension"),
        ("Name three differences between CT and MRI.", "comprehension"),
        ("Which scan would show the lesion better, CT or MRI?", "comprehension"),
        ("Hello", "comprehension"),
        ("Please convert the CT into MR.", "generation"),
        ("could you turn this scan into a T2 image", "generation"),
        ("Generate an X-ray from the report. No effusion.", "generation"),
        ("Synthesize the CT from this MR slice", "generation"),
        ("I would like a sharper version of this.", "generation"),
        ("Upscale this MRI by 4x.", "generation"),
        ("Denoise the image", "generation"),
        ("I want you to draw a chest X-ray with a large effusion.", "generation"),
        ("Improve image quality", "generation"),
        ("What would this look like as a CT?", "generation"),
    ],
)
def test_instructions_in_other_words(text, task):
    choice = choose_task(text, has_image=True)
    assert choice.task == task
    assert choice.reason


def test_a_report_alone_is_drawn_and_with_an_image_it_is_not():
    report = "The heart is enlarged. There is a small effusion on the left side."
    assert choose_task(report, has_image=False).task is Task.GENERATION
    assert choose_task(report, has_image=True).task is Task.COMPREHENSION
    assert "reads as a chest report" in choose_task(report, has_image=False).reason


def test_a_very_long_instruction_is_routed_at_once():
    start = time.perf_counter()
    choose_task("please " * 50_000 + "draw", has_image=True)
    choose_task("generate " + "a " * 50_000 + "report", has_image=True)
    assert time.perf_counter() - start < 0.5


# --- what is opened


@pytest.fixture
def volume(tmp_path):
    """A CT-like volume of 12 slices, each of its own brightness, in NIfTI."""
    values = np.full((20, 24, 12), -1000, np.int16)
    for i in range(12):
        values[4:16, 4:20, i] = 10 * i
    path = tmp_path / "head.nii.gz"
    nibabel.save(nibabel.Nifti1Image(values, np.diag([-1.0, -1.0, 2.0, 1.0])), path)
    return path


def test_a_volume_offers_windows_planes_and_slices(volume):
    opened = open_files([volume])
    assert opened.name == "head.nii.gz"
    assert [value for _, value in opened.windows][:2] == ["auto", "brain"]
    assert opened.planes == ["axial", "coronal", "sagittal"]
    assert [opened.num_slices(plane) for plane in (None, "coronal", "sagittal")] == [12, 24, 20]
    middle, third = opened.seen(Looking()), opened.seen(Looking(window="brain", slice=3))
    assert (middle.slices, third.slices) == ((6,), (3,))
    assert str(third.window) == "brain (80/40)"
    assert opened.seen(Looking(slice=99)).slices == (11,)
    assert opened.seen(Looking(plane="coronal")).plane == "coronal"


def test_a_picture_offers_no_choice():
    opened = open_files([CHEST])
    assert (opened.windows, opened.planes, opened.num_slices(None)) == ([], [], 1)


def test_several_files_are_a_series_or_header_and_pixels(tmp_path):
    from SimpleITK import GetImageFromArray, WriteImage

    values = np.arange(4 * 8 * 8, dtype=np.int16).reshape(4, 8, 8)
    WriteImage(GetImageFromArray(values), str(tmp_path / "scan.mhd"))
    opened = open_files([tmp_path / "scan.raw", tmp_path / "scan.mhd"])
    assert (opened.name, opened.num_slices(None)) == ("scan.mhd", 4)


def test_of_a_file_of_several_volumes_the_first_is_opened(tmp_path):
    values = np.zeros((8, 8, 3, 2), np.int16)
    values[..., 0] = np.arange(3)
    path = tmp_path / "series.nii"
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)
    assert open_files([path]).num_slices(None) == 3


def test_mistakes_name_no_folder_and_no_flag(tmp_path):
    path = tmp_path / "broken.png"
    path.write_bytes(b"no image at all")
    with pytest.raises(ValueError, match=r"^broken\.png: not an image of a known format") as caught:
        open_files([path])
    assert str(tmp_path) not in str(caught.value)
    assert plainly(ValueError("choose one\n  (--volume)")) == "choose one (volume)"


# --- whose is what


def test_sessions_are_apart_and_end_with_their_pages(tmp_path, volume):
    sessions = Sessions(tmp_path, grace=0.2)
    first, second = sessions.of("a"), sessions.of("b")
    assert sessions.of("a") is first is not second
    assert first.token != second.token
    first.open([volume])
    assert first.opened
    assert second.opened is None
    assert volume.exists()  # gradio gives equal files of two users one place, so it stays
    assert len(list(tmp_path.iterdir())) == 2
    assert sessions.with_token(first.token) is first
    assert sessions.with_token("guessed") is None
    sessions.leave("a")
    assert sessions.of("a") is first  # the connection came back
    sessions.leave("a")
    time.sleep(1.6)
    assert len(sessions) == 1
    assert sessions.with_token(first.token) is None
    assert list(tmp_path.iterdir()) == [volume]
    assert sessions.of("a") is not first


def test_folders_are_readable_by_nobody_else(tmp_path, volume):
    session = Session(tmp_path)
    session.open([volume])
    folder = next(path for path in tmp_path.iterdir() if path.is_dir())
    assert folder.stat().st_mode & 0o077 == 0
    session.close()
    assert not folder.exists()


def test_the_oldest_sessions_make_room(tmp_path, monkeypatch):
    monkeypatch.setattr("healthgpt.serving.app.sessions._MOST_SESSIONS", 3)
    sessions = Sessions(tmp_path)
    kept = [sessions.of(str(number)) for number in range(5)]
    assert len(sessions) <= 4
    assert sessions.of("4") is kept[4]


def test_an_upload_that_is_gone_is_asked_for_again(tmp_path):
    session = Session(tmp_path)
    with pytest.raises(ValueError, match="please upload it again"):
        session.open([tmp_path / "gone.png"])
    assert session.opened is None


# --- one turn after another


def take_turn(session, residents, instruction, task=None, chosen=Chosen()) -> tuple[Turn, int]:
    turn = begin(session, instruction, task, "nano", chosen)
    history = session.history()
    session.add(turn)
    return turn, sum(1 for _ in run(residents, turn, history))


def test_turns_are_the_models_own_answers_and_drawings(tmp_path, residents, nano):
    session = Session(tmp_path)
    session.show(open_files([BRAIN_CT]))
    asked, _ = take_turn(session, residents, "Which organ is this?")
    assert asked.task is Task.COMPREHENSION
    assert asked.answer == nano.answer("Which organ is this?", BRAIN_CT)
    drawn, _ = take_turn(session, residents, "Turn this CT into an MRI.")
    assert drawn.task is Task.GENERATION
    assert drawn.picture.tobytes() == nano.draw("Turn this CT into an MRI.", BRAIN_CT).tobytes()
    assert drawn.shown.tobytes() == nano.seen(BRAIN_CT).tobytes()
    again, _ = take_turn(session, residents, "Is it normal?")
    history = [("Which organ is this?", asked.answer)]
    assert again.answer == nano.answer("Is it normal?", BRAIN_CT, history=history)
    assert [turn.number for turn in session.turns] == [1, 2, 3]


def test_settings_reach_the_model(tmp_path, residents, nano):
    session = Session(tmp_path)
    chosen = Chosen(do_sample=True, temperature=1.5, seed=3, max_new_tokens=5)
    turn, _ = take_turn(session, residents, "Describe a chest X-ray.", chosen=chosen)
    keywords = {"do_sample": True, "temperature": 1.5, "top_p": 1.0, "seed": 3, "max_new_tokens": 5}
    assert turn.answer == nano.answer("Describe a chest X-ray.", **keywords)
    assert chosen.words() == "temperature 1.5, top-p 1, seed 3, at most 5 tokens"
    beams, _ = take_turn(Session(tmp_path), residents, "Which modality?", chosen=Chosen(num_beams=3))
    assert beams.answer == nano.answer("Which modality?", num_beams=3)
    assert Chosen().keywords() == {}
    assert Chosen.of((False, 1.0, 1.0, 1, 0, MOST_TOKENS, None)) == Chosen()


def test_mistakes_end_a_turn_in_one_line(tmp_path, residents):
    with pytest.raises(ValueError, match="write a question"):
        begin(Session(tmp_path), "  ", None, "nano", Chosen())
    turn, _ = take_turn(Session(tmp_path), residents, "Why?", chosen=Chosen(do_sample=True, temperature=0.0))
    assert turn.error == "temperature is 0.0, sampling expects at least 1e-06"
    assert turn.done
    long, _ = take_turn(Session(tmp_path), residents, "why " * 5000)
    assert "does not fit the context" in long.error


def test_a_turn_that_fails_unforeseen_says_so_and_no_more(tmp_path, residents, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("secret")

    monkeypatch.setattr(HealthGPT, "stream", fail)
    turn, _ = take_turn(Session(tmp_path), residents, "Why?")
    assert turn.error == "something went wrong on the server; its log says what"


def test_a_turn_can_be_stopped(tmp_path, residents):
    session = Session(tmp_path)
    turn = begin(session, "Draw a chest X-ray.", Task.GENERATION, "nano", Chosen(do_sample=True, seed=1))
    session.add(turn)
    steps = run(residents, turn)
    next(steps)
    session.stop()
    list(steps)
    assert turn.stopped
    assert turn.done
    assert turn.share < 1
    assert "Stopped at" in markup.one_turn(turn, session.token)
    assert session.history() == []


# --- pictures, words


def test_what_is_written_is_text(tmp_path, residents):
    session = Session(tmp_path)
    turn, _ = take_turn(session, residents, "<img src=x onerror=alert(1)> & <b>why</b>?")
    turn.answer = '<script>alert("x")</script>\nsecond line'
    for words in (markup.conversation(session), sheet(session)):
        assert "<img src=x" not in words
        assert "<script>" not in words
        assert "&lt;b&gt;why&lt;/b&gt;" in words
        assert "<br>second line" in words


def test_a_drawing_can_be_had_as_a_file(tmp_path, volume):
    import io

    import pydicom

    seen = open_files([volume]).seen(Looking(slice=5))
    picture = Image.new("RGB", (64, 64), (90, 90, 90))
    files = {kind: as_file(picture, kind, seen, tmp_path) for kind in KINDS}
    assert Image.open(io.BytesIO(files[".png"])).size == (64, 64)
    dataset = pydicom.dcmread(io.BytesIO(files[".dcm"]))
    assert (dataset.Rows, dataset.Columns) == seen.pixels.shape
    assert "not for diagnosis" in dataset.DerivationDescription
    assert nibabel.Nifti1Image.from_bytes(__import__("gzip").decompress(files[".nii.gz"])).shape == (20, 24, 1)
    with pytest.raises(KeyError):
        as_file(picture, ".exe", None, tmp_path)
    assert as_address(Image.new("L", (3000, 10))).startswith("data:image/png;base64,")


def test_a_sheet_has_what_was_asked_and_the_warning(tmp_path, residents):
    session = Session(tmp_path)
    assert "Nothing to report yet" in sheet(session)
    session.show(open_files([CHEST]))
    take_turn(session, residents, "What abnormality is seen in this image?")
    words = sheet(session)
    for part in ("What abnormality is seen", "chest_xray.png", "not for diagnosis or treatment", "What the model saw"):
        assert part in words


# --- the command


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--host", "0.0.0.0"], "give --password_file FILE or HEALTHGPT_APP_PASSWORDS"),
        (["--port", "99999"], "--port is 99999"),
        (["--password_file", "missing.txt"], "missing.txt"),
        (["--certificate", "a.pem"], "--certificate and --private_key go together"),
        (["--port", "0", "--model", "nowhere/at/all"], "neither a model folder nor"),
        (["--port", "0", "--model", "nano", "nano"], "would both be called 'nano'"),
        (["--port", "0", "--remote_hosts", "http://x/y"], "remote host 'http://x/y' is none"),
    ],
)
def test_mistakes_on_the_command_line_are_one_line(flags, line, capsys, monkeypatch):
    monkeypatch.delenv("HEALTHGPT_APP_PASSWORDS", raising=False)
    assert main(["app", *flags]) == 2
    error = capsys.readouterr().err
    assert line in error
    assert error.count("\n") == 1

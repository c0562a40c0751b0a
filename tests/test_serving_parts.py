"""The parts of the API by themselves: conversations, decoding, stop strings, keys, addresses, desk, image readers."""

import contextlib
import dataclasses
import ipaddress
import os
import pickle
import signal
import ssl
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image
from pydantic import TypeAdapter
from serving_server import CT, XRAY, data_url, png, wait

from healthgpt.decoding import Decoding
from healthgpt.exchange import Answer, Request
from healthgpt.images import read_image
from healthgpt.loading import LoadOptions
from healthgpt.serving.api.conversation import RemoteImage, conversation_of, decoded
from healthgpt.serving.api.decoding import choices_of, decoding_of
from healthgpt.serving.api.desk import Desk, Job
from healthgpt.serving.api.errors import ApiError
from healthgpt.serving.api.image_readers import ImageFile, ImageReaders
from healthgpt.serving.api.keys import Keys
from healthgpt.serving.api.limits import MEANINGS, Limits
from healthgpt.serving.api.metrics import Metrics
from healthgpt.serving.api.protocol import Choosing, Message
from healthgpt.serving.api.remote import RemoteImages, is_public
from healthgpt.serving.api.settings import Place, Settings
from healthgpt.serving.api.stops import StoppedText
from healthgpt.serving.residents import Residents
from healthgpt.tasks import Task

MESSAGES = TypeAdapter(list[Message])


def conversation(*messages: dict, **limits):
    return conversation_of(MESSAGES.validate_python(list(messages)), Limits(**limits))


def user(*parts, role="user"):
    content = [{"type": "text", "text": part} if isinstance(part, str) else part for part in parts]
    return {"role": role, "content": content}


def image(url: str, **view):
    return {"type": "image_url", "image_url": {"url": url, **view}}


# Limits and residents


def test_every_limit_has_a_meaning_and_a_bound():
    assert set(MEANINGS) == {field.name for field in dataclasses.fields(Limits)}
    with pytest.raises(ValueError, match="--max_batch is 0"):
        Limits(max_batch=0)
    with pytest.raises(ValueError, match="less than one body's 32"):
        Limits(max_bodies_mib=16)


def test_residents_are_known_by_id_and_loaded_once(random_folder, tmp_path):
    residents = Residents(["nano", random_folder], LoadOptions(device="cpu"))
    assert residents.names == ("nano", "model")
    with ThreadPoolExecutor(4) as pool:
        assert len({id(model) for model in pool.map(residents.get, ["model"] * 8)}) == 1
    assert residents.get() is residents.get("nano")
    with pytest.raises(ValueError, match="'gpt-4o' is not here; there is nano, model"):
        residents.get("gpt-4o")
    (tmp_path / "model").mkdir()
    with pytest.raises(ValueError, match="would both be called 'model'"):
        Residents([random_folder, tmp_path / "model"])
    with pytest.raises(ValueError, match="no model is named"):
        Residents([])
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        Residents([tmp_path / "model"]).check()


# Conversations


def test_a_conversation_becomes_turns_with_images_before_them():
    found = conversation(
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello."},
        {"role": "assistant", "content": "Yes?", "refusal": None, "tool_calls": None},
        user("Which organ?", image(data_url(XRAY)), image(data_url(CT), window="brain")),
        {"role": "developer", "content": [{"type": "text", "text": "In English."}]},
        {"role": "user", "content": "And which modality?"},
    )
    assert found.history == (("Be brief.\n\nIn English.\n\nHello.", "Yes?"),)
    assert found.question == "Which organ?\nAnd which modality?"
    assert [one.data for one in found.images] == [XRAY.read_bytes(), CT.read_bytes()]
    assert found.images[1].view == {"window": "brain"}


@pytest.mark.parametrize(
    ("messages", "limits", "said"),
    [
        ([{"role": "system", "content": "Be brief."}], {}, "begin and end with a message of the user"),
        ([{"role": "assistant", "content": "Hi."}, {"role": "user", "content": "Hi."}], {}, "begin and end"),
        ([user("Hi."), {"role": "assistant", "content": "Hi."}], {}, "begin and end"),
        ([user(image(data_url(XRAY)))], {}, "has no text"),
        ([user(" \n")], {}, "has no text"),
        ([user("Hi." * 100)], {"max_characters": 99}, "300 characters of text, expected at most 99"),
        ([user("Hi.", *[image(data_url(XRAY))] * 3)], {"max_images": 2}, "3 images, expected at most 2"),
        ([user("Hi.", image("file:///etc/passwd"))], {}, "neither data:image"),
        ([user("Hi.", image("data:image/png,abc"))], {}, "neither data:image"),
        ([user("Hi.", image("data:image/png;base64,@@"))], {}, "base64 is damaged"),
        ([user("Hi.", image(data_url(XRAY), window="dark"))], {}, "window 'dark' is none"),
    ],
)
def test_what_is_no_conversation_is_said(messages, limits, said):
    with pytest.raises(ApiError, match=said) as error:
        conversation(*messages, **limits)
    assert error.value.status == 400
    assert error.value.param.startswith("messages")


def test_base64_as_clients_write_it():
    data = bytes(range(256))
    text = data_url(data).partition(",")[2]
    safe = text.replace("+", "-").replace("/", "_")
    for written in (text, text.rstrip("="), safe, text.replace("+", "%2B"), f"{text[:9]}\n{text[9:]}"):
        assert decoded(written, "image") == data


def test_addresses_of_the_web_are_left_to_the_fetcher():
    found = conversation(user("Hi.", image("https://example.org/a.png", window="lung")))
    assert found.images == (RemoteImage(url="https://example.org/a.png", view={"window": "lung"}),)


# Decoding


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, {}),
        ({"temperature": 0}, {}),
        ({"temperature": 0.0, "top_p": 0.5}, {}),
        ({"temperature": 0.7, "top_p": 0}, {}),
        ({"seed": 3}, {}),
        ({"top_p": 1}, {}),
        ({"top_p": 0.9}, {"do_sample": True, "temperature": 1.0, "top_p": 0.9, "seed": None}),
        ({"temperature": 0.7, "seed": 3}, {"do_sample": True, "temperature": 0.7, "seed": 3}),
        ({"num_beams": 2, "repetition_penalty": 1.1}, {"num_beams": 2, "repetition_penalty": 1.1}),
    ],
)
def test_greedy_unless_samples_are_asked_for(asked, expected):
    assert decoding_of(Choosing(**asked)) == expected
    Decoding(**expected)


def test_samples_of_one_request_differ_by_their_seeds():
    assert choices_of({"num_beams": 2}, 3) == [{"num_beams": 2}]
    sampled = {"do_sample": True, "temperature": 1.0, "seed": 5}
    assert [choice["seed"] for choice in choices_of(sampled, 3)] == [5, 6, 7]
    assert [choice["seed"] for choice in choices_of(sampled | {"seed": None}, 2)] == [None, None]


# Stop strings


class Pieces:
    """Text that comes in given pieces."""

    def __init__(self, *pieces: str):
        self._pieces = pieces

    def add(self, token: int) -> str:
        return self._pieces[token]

    def rest(self) -> str:
        return ""


@pytest.mark.parametrize(
    ("pieces", "stops", "sent", "stopped"),
    [
        (["The ", "liver", "."], (), ["The ", "liver", "."], False),
        (["The l", "iv", "er."], ("liver",), ["The ", "", ""], True),
        (["The l", "iv", "id."], ("liver",), ["The ", "", "livid."], False),
        (["a\n", "\nb"], ("\n\n",), ["a", ""], True),
        (["one. two. three."], ("three", "two"), ["one. "], True),
        (["the li"], ("liver",), ["the ", "li"], False),
    ],
)
def test_text_ends_before_the_first_stop_string(pieces, stops, sent, stopped):
    text = StoppedText(Pieces(*pieces), stops)
    found = [text.add(token) for token in range(len(pieces))]
    rest = text.rest()
    assert [*found, *([rest] if rest else [])] == sent
    assert text.stopped is stopped


# Keys


def test_keys_of_a_file_and_of_the_environment(tmp_path):
    file = tmp_path / "keys"
    file.write_text("# ours\nradiology sk-0123456789abcdef\nsk-fedcba9876543210  # somebody\n")
    file.chmod(0o600)
    keys = Keys.read(file, {"HEALTHGPT_API_KEYS": "sk-from-the-environment, "})
    assert keys
    assert keys.name_of("sk-0123456789abcdef") == "radiology"
    assert keys.name_of("sk-fedcba9876543210") == "line 3"
    assert keys.name_of("sk-from-the-environment") == "key 1"
    assert keys.name_of("sk-0123456789abcdee") is None
    assert keys.name_of("") is None
    assert keys.name_of("\ud800") is None
    assert b"0123456789abcdef" not in pickle.dumps(keys)
    assert not Keys.read(None, {})


def test_keys_that_are_none_are_refused(tmp_path):
    file = tmp_path / "keys"
    wrong = {"short": "has 5 characters", "a b c": "line 1: has 3 words", "# nothing": "has no key in it"}
    for text, said in wrong.items():
        file.write_text(text)
        file.chmod(0o600)
        with pytest.raises(ValueError, match=said):
            Keys.read(file, {})
    file.write_text("sk-0123456789abcdef")
    file.chmod(0o644)
    with pytest.raises(ValueError, match="others may read the keys"):
        Keys.read(file, {})
    with pytest.raises(FileNotFoundError):
        Keys.read(tmp_path / "none", {})


def test_other_machines_need_a_key():
    for host in ("127.0.0.1", "localhost", "::1", "127.9.9.9"):
        Settings(models=("nano",), place=Place(host=host))
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.org"):
        with pytest.raises(ValueError, match=f"--host is {host}"):
            Settings(models=("nano",), place=Place(host=host))
        Settings(models=("nano",), place=Place(host=host), insecure=True)
        Settings(models=("nano",), place=Place(host=host), keys=Keys([("a", "sk-0123456789abcdef")]))


# Images of the web


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0", "100.64.0.1", "224.0.0.1",
        "255.255.255.255", "::1", "::", "fe80::1", "fc00::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
        "64:ff9b::7f00:1", "2002:7f00:1::", "2001:0:53aa:64c::",
    ],
)  # fmt: skip
def test_private_addresses_are_known_in_every_form(address):
    assert not is_public(ipaddress.ip_address(address))


def test_public_addresses_are_public():
    assert is_public(ipaddress.ip_address("93.184.216.34"))
    assert is_public(ipaddress.ip_address("2606:2800:220:1:248:1893:25c8:1946"))


class Pictures(BaseHTTPRequestHandler):
    """A host of images."""

    def do_GET(self) -> None:
        if self.path == "/redirect":
            self.send_response(302)
            self.send_header("Location", "https://127.0.0.1/latest/meta-data")
            self.end_headers()
            return
        if self.path == "/slow":
            time.sleep(3)
        self.send_response(200 if self.path != "/missing" else 404)
        data = XRAY.read_bytes() if self.path != "/large" else bytes(2**20)
        self.send_header("Content-Length", str(len(data) + (9 if self.path == "/short" else 0)))
        self.end_headers()
        with contextlib.suppress(OSError):  # the client had enough
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def image_host(tmp_path_factory):
    folder = tmp_path_factory.mktemp("host")
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", folder / "key",
         "-out", folder / "crt"],
        capture_output=True, check=False,
    )  # fmt: skip
    if made.returncode:
        pytest.skip("openssl made no certificate")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "crt", folder / "key")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Pictures)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_address[1], ssl.create_default_context(cafile=folder / "crt")
    server.shutdown()
    server.server_close()


def test_images_are_fetched_from_hosts_that_are_named(image_host):
    port, context = image_host
    remote = RemoteImages([f"localhost:{port}"], most=10**6, seconds=1, public=lambda address: True, context=context)
    assert remote.fetch(f"https://localhost:{port}/a.png?x=1") == XRAY.read_bytes()
    for path, said in (
        ("redirect", "redirects, which are not followed"),
        ("missing", "answers with status 404"),
        ("large", "more than 1000000 bytes"),
        ("slow", "gave no image within 1 seconds"),
        ("short", "gave no image"),
    ):
        with pytest.raises(ApiError, match=said):
            remote.fetch(f"https://localhost:{port}/{path}")
    for url, said in (
        (f"http://localhost:{port}/a.png", "none of https"),
        (f"https://user:word@localhost:{port}/a.png", "none of https"),
        (f"https://127.0.0.1:{port}/a.png", "not on the list"),
        ("https://localhost/a.png", "not on the list"),
        (f"https://localhost:{port}/a b.png", "have to be encoded"),
        (f"https://localhost:{port}\\@example.org/", "none of https"),
        ("https://localhost:99999999/", "cannot be read"),
    ):
        with pytest.raises(ApiError, match=said):
            remote.fetch(url)


def test_a_named_host_in_a_private_network_is_not_reached(image_host):
    port, context = image_host
    remote = RemoteImages([f"localhost:{port}"], most=10**6, seconds=1, context=context)
    with pytest.raises(ApiError, match="private networks"):
        remote.fetch(f"https://localhost:{port}/a.png")


def test_nothing_is_fetched_unless_told():
    with pytest.raises(ApiError, match="remote images are off"):
        RemoteImages([], most=1, seconds=1).fetch("https://example.org/a.png")
    with pytest.raises(ValueError, match=r"remote host 'https://example\.org' is none"):
        RemoteImages(["https://example.org"], most=1, seconds=1)


# The desk


class Slow:
    """A model that takes its time for every token, and notes what ran together."""

    def __init__(self, seconds: float = 0.005, tokens: int = 20):
        self.seconds, self.tokens = seconds, tokens
        self.batches: list[list[str]] = []
        self.fails: dict[str, Exception] = {}
        self.most = 99

    def run_batch(self, requests, *, batch_size, watch, **decoding):
        texts = [request.question for request in requests]
        self.batches.append(texts)
        if len(texts) > self.most:
            raise MemoryError
        for text in texts:
            if text in self.fails:
                raise self.fails[text]
        counts, going = [0] * len(texts), set(range(len(texts)))
        while going:
            time.sleep(self.seconds)
            for i in sorted(going):
                counts[i] += 1
                if not watch[i](counts[i]) or counts[i] == self.tokens:
                    going.remove(i)
        return [Answer(text=text, token_ids=[1] * n, prompt_ids=[1]) for text, n in zip(texts, counts, strict=True)]


@pytest.fixture
def slow():
    return Slow()


@pytest.fixture
def desk(slow):
    desk = Desk("slow", slow, most_waiting=32, most_together=4, metrics=Metrics({}))
    yield desk
    desk.close()


def job(text: str, task=Task.COMPREHENSION, seconds: float = 60, token=None, **decoding) -> Job:
    request = Request(task=task, question=text)
    return Job(request=request, decoding=decoding, deadline=time.monotonic() + seconds, token=token)


def run(desk: Desk, *jobs: Job) -> list[str]:
    desk.submit(jobs)
    return [one.future.result(20).text for one in jobs]


def test_jobs_of_a_kind_run_together_and_nobody_is_passed_over(desk, slow):
    blocker = job("first")
    desk.submit([blocker])
    wait(lambda: desk.running)
    jobs = [
        job("a"), job("b", max_new_tokens=5), job("c"), job("d", task=Task.GENERATION), job("e"), job("f"), job("g"),
    ]  # fmt: skip
    assert run(desk, *jobs) == ["a", "b", "c", "d", "e", "f", "g"]
    assert slow.batches == [["first"], ["a", "c", "e", "f"], ["b"], ["d"], ["g"]]
    assert [one.ran_with for one in jobs] == [4, 1, 4, 1, 4, 4, 1]


def test_a_full_line_takes_all_of_a_request_or_nothing(desk):
    desk.submit([job("first")])
    wait(lambda: desk.running)
    desk.submit([job(str(i)) for i in range(30)])
    with pytest.raises(ApiError, match="too many requests wait") as error:
        desk.submit([job("x") for _ in range(3)])
    assert (error.value.status, error.value.retry_after) == (429, 1)
    assert len(desk) == 30


def test_a_job_that_nobody_wants_ends_at_its_next_token(desk, slow):
    slow.tokens = 10**6
    told = []
    wanted = job("wanted", seconds=1.0, token=lambda token: told.append(token) or True)
    unwanted, waiting = job("unwanted"), job("waiting", max_new_tokens=3)
    desk.submit([wanted, unwanted, waiting])
    wait(lambda: len(told) > 3)
    waiting.cancel()
    unwanted.cancel()
    with pytest.raises(ApiError, match="took more time") as error:
        wanted.future.result(20)
    assert error.value.status == 504
    assert unwanted.future.cancelled()
    wait(lambda: not desk.running)
    assert slow.batches == [["wanted", "unwanted"]]
    slow.tokens = 20
    assert run(desk, job("next")) == ["next"]


def test_a_cancelled_job_frees_the_desk_at_once(desk, slow):
    slow.tokens = 10**6
    one = job("long")
    desk.submit([one])
    wait(lambda: desk.running)
    one.cancel()
    start = time.monotonic()
    wait(lambda: not desk.running)
    assert time.monotonic() - start < 0.2


def test_what_fails_fails_alone(desk, slow):
    slow.fails["bad"] = ValueError("a prompt of\n9999 tokens does not fit")
    slow.fails["worse"] = RuntimeError("secret")
    jobs = [job("first"), job("a"), job("bad"), job("b")]
    desk.submit(jobs)
    assert [jobs[i].future.result(20).text for i in (0, 1, 3)] == ["first", "a", "b"]
    with pytest.raises(ApiError, match="a prompt of 9999 tokens does not fit") as error:
        jobs[2].future.result(20)
    assert error.value.status == 400
    worse = job("worse")
    desk.submit([worse])
    with pytest.raises(RuntimeError):
        worse.future.result(20)
    assert run(desk, job("next")) == ["next"]
    assert desk.alive


def test_less_memory_means_smaller_batches(desk, slow):
    slow.most = 1
    desk.submit([job("first")])
    wait(lambda: desk.running)
    assert run(desk, job("a"), job("b"), job("c")) == ["a", "b", "c"]
    slow.most = 0
    one = job("d")
    desk.submit([one])
    with pytest.raises(ApiError, match="not enough memory") as error:
        one.future.result(20)
    assert error.value.status == 503


def test_a_closed_desk_sends_everybody_away(slow):
    desk = Desk("slow", slow, most_waiting=9, most_together=1, metrics=Metrics({}))
    jobs = [job("a"), job("b")]
    desk.submit(jobs)
    wait(lambda: desk.running)
    desk.close()
    with pytest.raises(ApiError, match="is stopping"):
        jobs[1].future.result(20)
    with pytest.raises(ApiError, match="is stopping"):
        desk.submit([job("c")])


# Image readers


@pytest.fixture(scope="module")
def readers():
    readers = ImageReaders(Limits(image_workers=1, max_megapixels=4, image_seconds=5, image_memory_mib=1024))
    readers.start()
    yield readers
    readers.close()


def read(readers: ImageReaders, *files: bytes, **view) -> list[Image.Image]:
    return readers.read([ImageFile(data=data, view=view) for data in files])


def test_pictures_are_those_of_a_direct_reading(readers):
    pictures = read(readers, XRAY.read_bytes(), CT.read_bytes())
    for found, path in zip(pictures, (XRAY, CT), strict=True):
        assert np.array_equal(np.asarray(found), np.asarray(read_image(path)))


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([b"no image"], "not an image of a known format"),
        ([b""], "an empty file"),
        ([XRAY.read_bytes(), XRAY.read_bytes()[:99]], "image 2 of 2: .*damaged"),
        ([png(Image.new("L", (4000, 4000)))], "4000x4000 is more than 4000000 pixels"),
        ([png(Image.new("L", (1999, 1999)))] * 2, "image 2 of 2: 1999x1999 is more than"),
    ],
)
def test_what_is_no_picture_is_said_without_paths(readers, files, said):
    with pytest.raises(ApiError, match=said) as error:
        read(readers, *files)
    assert error.value.status == 400
    assert "/" not in error.value.message.replace("1 of", "")


def test_a_reader_that_is_killed_is_replaced(readers):
    process = readers._all[0]._process
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert len(read(readers, XRAY.read_bytes())) == 1
    assert readers._all[0]._process.pid != process.pid


def test_a_reader_that_takes_too_long_or_too_much_is_ended():
    ended = []
    readers = ImageReaders(
        Limits(image_workers=1, image_seconds=1, max_megapixels=170, image_memory_mib=400), lambda: ended.append(1)
    )
    readers.start()
    try:
        bomb = png(Image.new("RGB", (12000, 12000)))
        with pytest.raises(ApiError, match=r"more memory|more than 1 seconds|end what reads") as error:
            read(readers, bomb)
        assert error.value.status == 400
        assert len(read(readers, XRAY.read_bytes())) == 1
        readers._all[0]._process.send_signal(signal.SIGSTOP)
        with pytest.raises(ApiError, match="more than 1 seconds"):
            read(readers, XRAY.read_bytes())
        assert ended
        folder = readers._all[0]._folder
        assert len(read(readers, XRAY.read_bytes())) == 1
    finally:
        readers.close()
    assert folder is None or not os.path.exists(folder)


def test_nothing_of_an_image_stays_on_the_disk(readers, tmp_path):
    import SimpleITK as sitk  # noqa: N813

    path = tmp_path / "volume.mha"
    volume = sitk.GetImageFromArray(np.arange(3 * 32 * 32, dtype=np.int16).reshape(3, 32, 32))
    sitk.WriteImage(volume, str(path))
    assert len(read(readers, path.read_bytes(), slice="middle")) == 1
    folder = readers._all[0]._folder
    wait(lambda: not os.listdir(folder))
    with pytest.raises(ApiError, match="has 3 slices; choose with slice"):
        read(readers, path.read_bytes())

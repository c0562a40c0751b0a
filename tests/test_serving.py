"""`healthgpt serve` as its clients know it: OpenAI's SDK, curl and plain HTTP; each answer is that of a direct call."""

import base64
import json
import shutil
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import httpx2
import numpy as np
import openai
import pydicom
import pytest
from PIL import Image
from serving_server import CT, XRAY, RunningServer, asking, data_url, one_thread, picture, png

from healthgpt import HealthGPT
from healthgpt.cli import main
from healthgpt.images import read_image
from healthgpt.images.export import export_image

QUESTION = "What abnormality is seen in this image?"
DRAWING = "Turn this CT into an MRI."
REPORT = "Draw a chest X-ray of a patient with a large pleural effusion on the left side."


@pytest.fixture(scope="module", autouse=True)
def same_sums():
    with one_thread():
        yield


@pytest.fixture(scope="module")
def model():
    return HealthGPT.from_pretrained("nano", device="cpu")


@pytest.fixture(scope="module")
def server(random_folder):
    with RunningServer("--model", "nano", random_folder) as server:
        yield server


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def http(server):
    with httpx2.Client(base_url=server.url, timeout=60) as http:
        yield http


def messages(text, *images):
    return asking(text, *images)["messages"]


# OpenAI's SDK


def test_the_sdk_lists_models(client):
    assert [model.id for model in client.models.list()] == ["nano", "model"]
    assert client.models.retrieve("nano").owned_by == "healthgpt"
    with pytest.raises(openai.NotFoundError, match="model 'gpt-4o' is not here; there is nano, model"):
        client.models.retrieve("gpt-4o")


def test_the_sdk_chats_as_a_direct_call(client, model):
    reply = client.chat.completions.create(model="nano", messages=messages(QUESTION, XRAY))
    direct = model.answer(QUESTION, XRAY, return_details=True)
    choice = reply.choices[0]
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", direct.text, "stop")
    assert reply.model == "nano"
    assert reply.id.startswith("chatcmpl-")
    patches = model.prompt_length([-200])
    assert patches > 1
    assert reply.usage.prompt_tokens == len(direct.prompt_ids) - 1 + patches
    assert reply.usage.completion_tokens == len(direct.token_ids)
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens


def test_the_sdk_streams_the_same_text(client, model):
    direct = model.answer(QUESTION, XRAY, return_details=True)
    stream = client.chat.completions.create(
        model="nano", messages=messages(QUESTION, XRAY), stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == direct.text
    assert len(chunks) > 4
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].usage.completion_tokens == len(direct.token_ids)
    assert len({chunk.id for chunk in chunks}) == 1


def test_the_sdk_keeps_a_conversation(client, model):
    first = client.chat.completions.create(model="nano", messages=messages("Which imaging modality is this?", CT))
    history = [*messages("Which imaging modality is this?", CT), first.choices[0].message.model_dump()]
    history = [{"role": "system", "content": "Be brief."}, *history, {"role": "user", "content": "Which organ is it?"}]
    reply = client.chat.completions.create(model="nano", messages=history)
    asked = ("Be brief.\n\nWhich imaging modality is this?", first.choices[0].message.content)
    assert reply.choices[0].message.content == model.answer("Which organ is it?", CT, history=[asked])


def test_several_choices_are_samples_of_their_own(client, random_model):
    sampled = {"temperature": 1.5, "top_p": 0.95, "seed": 7, "max_tokens": 12, "n": 3}
    decoding = {"do_sample": True, "temperature": 1.5, "top_p": 0.95, "max_new_tokens": 12}
    direct = [random_model.answer("Why?", XRAY, seed=7 + i, return_details=True, **decoding) for i in range(3)]
    assert len({answer.text for answer in direct}) == 3
    reply = client.chat.completions.create(model="model", messages=messages("Why?", XRAY), **sampled)
    assert [choice.message.content for choice in reply.choices] == [answer.text for answer in direct]
    assert [choice.index for choice in reply.choices] == [0, 1, 2]
    assert reply.usage.completion_tokens == sum(len(answer.token_ids) for answer in direct)
    texts = ["", "", ""]
    for chunk in client.chat.completions.create(model="model", messages=messages("Why?", XRAY), stream=True, **sampled):
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == [answer.text for answer in direct]


def test_equal_choices_are_computed_once(client, model):
    for stream in (False, True):
        reply = client.chat.completions.create(model="nano", messages=messages(QUESTION, XRAY), n=2, stream=stream)
        if stream:
            texts = ["", ""]
            for chunk in reply:
                texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
        else:
            texts = [choice.message.content for choice in reply.choices]
        assert texts == [model.answer(QUESTION, XRAY)] * 2


def test_answers_end_where_the_client_says(client, model):
    whole = model.answer("Describe this image.", XRAY)
    word = whole.split()[2]
    for stream in (False, True):
        reply = client.chat.completions.create(
            model="nano", messages=messages("Describe this image.", XRAY), stop=[word, "never"], stream=stream
        )
        if stream:
            chunks = list(reply)
            text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
            reason = chunks[-1].choices[0].finish_reason
        else:
            text, reason = reply.choices[0].message.content, reply.choices[0].finish_reason
        assert (text, reason) == (whole[: whole.index(word)], "stop")
    cut = client.chat.completions.create(model="nano", messages=messages("Describe this image.", XRAY), max_tokens=3)
    direct = model.answer("Describe this image.", XRAY, max_new_tokens=3)
    assert (cut.choices[0].message.content, cut.choices[0].finish_reason) == (direct, "length")


def test_beams_and_penalties_of_the_direct_call(client, model):
    more = {"num_beams": 2, "repetition_penalty": 1.2}
    reply = client.chat.completions.create(
        model="nano", messages=messages("Describe this image.", XRAY), extra_body=more, stop="\n"
    )
    assert reply.choices[0].message.content == model.answer("Describe this image.", XRAY, **more).partition("\n")[0]


def test_the_sdk_draws_as_a_direct_call(client, model):
    direct = model.draw(DRAWING, CT, return_details=True)
    reply = client.images.edit(model="nano", image=CT.open("rb"), prompt=DRAWING)
    drawn = picture(reply.data[0].b64_json)
    assert np.array_equal(np.asarray(drawn), np.asarray(direct.image))
    assert reply.size == f"{drawn.width}x{drawn.height}"
    assert reply.usage.output_tokens == len(direct.token_ids)
    assert reply.usage.input_tokens == model.prompt_length(direct.prompt_ids)
    details = reply.usage.input_tokens_details
    assert (details.image_tokens, details.text_tokens) == (model.prompt_length([-200]), len(direct.prompt_ids) - 1)
    several = client.images.edit(
        model="nano", image=[CT.open("rb")], prompt=DRAWING, n=2, response_format="b64_json", size=reply.size
    )
    assert [np.array_equal(np.asarray(picture(one.b64_json)), np.asarray(direct.image)) for one in several.data] == [
        True,
        True,
    ]


def test_the_sdk_draws_from_text(client, model):
    reply = client.images.generate(model="nano", prompt=REPORT, n=2, extra_body={"temperature": 1.0, "seed": 3})
    for i, drawn in enumerate(reply.data):
        direct = model.draw(REPORT, do_sample=True, temperature=1.0, seed=3 + i)
        assert np.array_equal(np.asarray(picture(drawn.b64_json)), np.asarray(direct))


def test_drawings_by_json(http, model):
    direct = np.asarray(model.draw(DRAWING, CT))
    url = data_url(CT)
    for body in (
        {"image": url}, {"image": [url]}, {"image": url.partition(",")[2]}, {"images": [{"image_url": url}]},
        {"images": [{"image_url": {"url": url}}]},
    ):  # fmt: skip
        reply = http.post("/v1/images/edits", json={"prompt": DRAWING, **body})
        assert reply.status_code == 200, reply.text
        assert np.array_equal(np.asarray(picture(reply.json()["data"][0]["b64_json"])), direct)


def test_the_sdk_is_told_what_is_wrong(client):
    with pytest.raises(openai.NotFoundError) as error:
        client.chat.completions.create(model="gpt-4o", messages=messages("Hi."))
    assert (error.value.code, error.value.param) == ("model_not_found", "model")
    for more, said in (
        ({"temperature": 3}, "temperature: Input should be less than or equal to 2"),
        ({"frequency_penalty": 0.5}, "frequency_penalty is not supported here"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools is not supported here"),
        ({"response_format": {"type": "json_object"}}, "response_format is not supported here"),
        ({"extra_body": {"temprature": 1}}, "temprature: not a field that is known here"),
        ({"stream": True, "extra_body": {"num_beams": 2}}, "a stream is without beams"),
    ):
        with pytest.raises(openai.BadRequestError, match=said):
            client.chat.completions.create(model="nano", messages=messages("Hi."), **more)
    with pytest.raises(openai.BadRequestError, match="size: is '1024x1024', and this model draws 64x64"):
        client.images.generate(model="nano", prompt=REPORT, size="1024x1024")
    with pytest.raises(openai.BadRequestError, match="mask: is not supported here"):
        client.images.edit(model="nano", prompt=DRAWING, image=CT.open("rb"), mask=CT.open("rb"))
    with pytest.raises(openai.BadRequestError, match="does not fit the context"):
        client.chat.completions.create(model="nano", messages=messages("word " * 5000), stream=True)


def test_what_has_no_effect_is_taken(client, model):
    reply = client.chat.completions.create(
        model="nano", messages=messages(QUESTION, XRAY), user="me", metadata={"a": "b"}, store=False, logprobs=False,
        presence_penalty=0, response_format={"type": "text"}, tool_choice="none", max_completion_tokens=99,
    )  # fmt: skip
    assert reply.choices[0].message.content == model.answer(QUESTION, XRAY)


def test_many_clients_at_once_get_their_own_answers(server, model):
    questions = ["What imaging modality is this?", "What organ is shown in this image?", "Describe this image."]
    asked = [(questions[i % 3], (XRAY, CT)[i % 2]) for i in range(48)]
    direct = {pair: model.answer(*pair) for pair in set(asked)}
    drawn = np.asarray(model.draw(DRAWING, CT))

    def ask(i: int):
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
            if i % 8 == 7:
                reply = client.images.edit(model="nano", image=CT.open("rb"), prompt=DRAWING)
                return np.array_equal(np.asarray(picture(reply.data[0].b64_json)), drawn)
            text, image = asked[i]
            reply = client.chat.completions.create(model="nano", messages=messages(text, image), stream=i % 5 == 0)
            if i % 5 == 0:
                return "".join(chunk.choices[0].delta.content or "" for chunk in reply) == direct[text, image]
            return reply.choices[0].message.content == direct[text, image]

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(ask, range(48)))
    batches = server.figure("healthgpt_batch_size_count")
    assert server.figure("healthgpt_batch_size_sum") > batches


# Medical images


def test_a_dicom_file_is_seen_as_the_direct_call_sees_it(client, model, tmp_path):
    path = tmp_path / "ct.dcm"
    export_image(read_image(CT), path)
    url = data_url(path, "application/dicom")
    reply = client.chat.completions.create(model="nano", messages=messages("Which organ is this?", url))
    assert reply.choices[0].message.content == model.answer("Which organ is this?", str(path))
    assert pydicom.dcmread(path).Rows


# curl


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_curl(server, model, tmp_path):
    (tmp_path / "body.json").write_text(json.dumps(asking(QUESTION, XRAY)))

    def curl(*words):
        done = subprocess.run(["curl", "-sS", "--max-time", "60", *map(str, words)], capture_output=True, check=True)
        return done.stdout.decode()

    json_type = ("-H", "Content-Type: application/json")
    reply = curl(f"{server.url}/v1/chat/completions", *json_type, "-d", f"@{tmp_path / 'body.json'}")
    assert json.loads(reply)["choices"][0]["message"]["content"] == model.answer(QUESTION, XRAY)
    (tmp_path / "stream.json").write_text(json.dumps(asking(QUESTION, XRAY, stream=True)))
    events = curl("-N", f"{server.url}/v1/chat/completions", *json_type, "-d", f"@{tmp_path / 'stream.json'}")
    assert events.startswith("data: {")
    assert events.endswith("data: [DONE]\n\n")
    form = curl(f"{server.url}/v1/images/edits", "-F", f"image=@{CT}", "-F", f"prompt={DRAWING}", "-F", "n=1")
    drawn = picture(json.loads(form)["data"][0]["b64_json"])
    assert np.array_equal(np.asarray(drawn), np.asarray(model.draw(DRAWING, CT)))


# Plain HTTP


def test_every_reply_has_the_headers_that_keep_browsers_safe(http):
    for reply in (http.get("/health"), http.get("/nothing"), http.get("/docs"), http.get("/v1/models")):
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["x-frame-options"] == "DENY"
        assert reply.headers["cache-control"] == "no-store"
        assert "default-src 'none'" in reply.headers["content-security-policy"]
        assert "server" not in reply.headers
        assert "access-control-allow-origin" not in reply.headers
    assert http.get("/health", headers={"X-Request-ID": "mine-1"}).headers["x-request-id"] == "mine-1"
    assert http.get("/health", headers={"X-Request-ID": 'evil" {}'}).headers["x-request-id"] != 'evil" {}'


def test_states_figures_and_reference(http):
    assert http.get("/health").json() == {"status": "ok"}
    assert http.get("/ready").json() == {"status": "ready"}
    page = http.get("/metrics")
    assert page.headers["content-type"].startswith("text/plain")
    for name in ("requests_total", "request_seconds_bucket", "queue_seconds_count", "tokens_total", "queue_length"):
        assert f"healthgpt_{name}" in page.text
    assert 'route="/v1/models/{name}"' in page.text
    docs = http.get("/docs").text
    assert "/v1/chat/completions" in docs
    assert "<script" not in docs
    schema = http.get("/openapi.json").json()
    assert set(schema["paths"]) == {
        "/v1/chat/completions", "/v1/images/generations", "/v1/images/edits", "/v1/models", "/v1/models/{name}",
        "/health", "/ready", "/metrics",
    }  # fmt: skip


def test_errors_are_of_openais_shape(http):
    for reply, status in (
        (http.get("/nothing"), 404),
        (http.get("/v1/chat/completions"), 405),
        (http.post("/v1/chat/completions", content=b"{", headers={"content-type": "application/json"}), 400),
        (http.post("/v1/images/edits", content=b"{}", headers={"content-type": "text/plain"}), 415),
        (http.get("/v1/models/..%2f..%2fetc%2fpasswd"), 404),
    ):
        assert reply.status_code == status, reply.text
        assert set(reply.json()["error"]) == {"message", "type", "param", "code"}
        assert "/work" not in reply.text


def test_other_names_for_this_machine_are_refused(http):
    assert http.get("/v1/models", headers={"Host": "evil.example"}).status_code == 400
    assert http.get("/v1/models", headers={"Host": "localhost:1"}).status_code == 200
    assert http.get("/v1/models", headers={"Host": "[::1]:8000"}).status_code == 200


def test_the_log_tells_what_was_done_and_nothing_of_the_patient(server, http):
    secret = "Zebedee Quux, born 1951"
    http.post("/v1/chat/completions", json=asking(secret, XRAY), headers={"X-Request-ID": "logged"})
    http.post(
        "/v1/chat/completions",
        json=asking(secret, f"data:image/png;base64,{base64.b64encode(secret.encode()).decode()}"),
    )
    http.get(f"/v1/models/{secret}?q={secret}")
    entry = next(entry for entry in server.entries("request") if entry["id"] == "logged")
    assert entry["status"] == 200
    assert entry["route"] == "/v1/chat/completions"
    assert (entry["model"], entry["task"], entry["images"], entry["batch"]) == ("nano", "comprehension", 1, 1)
    assert entry["seconds"] > 0
    for word in ("Zebedee", "1951", "Quux", "WmViZWRlZQ"):
        assert word not in server.log


# The command


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--host", "0.0.0.0"], "--host is 0.0.0.0, where others reach this server"),
        (["--model", "nothing"], "nothing: neither a model folder nor one of the models"),
        (["--model", "nano", "nano"], "would both be called 'nano'"),
        (["--max_batch", "0"], "--max_batch is 0, expected at least 1"),
        (["--port", "99999"], "--port is 99999"),
        (["--certificate", "x"], "--certificate and --private_key go together"),
        (["--api_keys", "/nothing"], "/nothing: no such file"),
        (["--remote_hosts", "https://x"], "remote host 'https://x' is none"),
        (["--ray", "local", "--replicas", "0"], "--replicas is 0"),
    ],
)
def test_mistakes_are_one_line(flags, said, capsys):
    assert main(["serve", "--device", "cpu", *flags]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("healthgpt serve: error: ")
    assert said in error


def test_a_place_that_is_taken_is_one_line(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["serve", "--port", str(taken.getsockname()[1])]) == 2
    assert "cannot listen at 127.0.0.1" in capsys.readouterr().err.strip().splitlines()[-1]


def test_large_pictures_are_seen_as_small_as_the_model_sees_them(client, model):
    large = read_image(XRAY).resize((1500, 1100), Image.Resampling.BICUBIC)
    reply = client.chat.completions.create(model="nano", messages=messages(QUESTION, png(large)))
    assert reply.choices[0].message.content == model.answer(QUESTION, large)
    drawn = client.images.edit(model="nano", image=("ct.png", png(large)), prompt=DRAWING)
    direct = model.draw(DRAWING, large)
    assert np.array_equal(np.asarray(picture(drawn.data[0].b64_json)), np.asarray(direct))


@pytest.mark.slow
def test_the_schema_is_what_the_server_does(server, tmp_path):
    """A thousand requests made of the schema: no 5xx, no reply that it does not know, nothing taken that it forbids."""
    done = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json", "--generation-deterministic",
         "--max-examples", "10", "--max-time", "120", "--warnings", "off", "--no-color",
         "--exclude-checks", "positive_data_acceptance"],  # that base64 is an image, a schema cannot say
        cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert server.figure("healthgpt_requests_total") > 300
    assert not [entry for entry in server.entries("request") if entry["status"] >= 500]

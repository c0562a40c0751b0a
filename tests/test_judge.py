"""`healthgpt evaluate judge`: verdicts of a language model, here a rule behind a real endpoint on this machine."""

import csv
import json
import os
import re
import shutil
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

from healthgpt.cli import main
from healthgpt.evaluation.judge import Verdict, read_verdict

KEY = "sk-a-key-that-nobody-may-see"
JUDGE = "org/judge-7b"
# question, truth, answer, whether the rule of `by_words` finds it right; options are a column each
ROWS = (
    ("What modality is this?", "computed tomography", "CT scan", True),
    ("Which organ?", "liver", "The liver.", True),
    ("What modality is this?", "computed tomography", "CT scan", True),
    ("What is wrong?", "fracture", "pneumonia", False),
    ("Is there a fracture?", "yes", "Yes, there is", True),
    ("Is this normal?", "no", "yes", False),
    ("Which organ is shown?", "B", "(B)", True),  # of A. lung, B. spleen
    ("How many are there?", "two", "{truth} or {more}", None),
    ("Which side?", "right", " ", False),  # no answer is wrong
)
ASKED = 7  # the third question is the first one, the last one has no answer
SYNONYMS = {"computed tomography": "ct", "b. spleen": "(b)"}


class Endpoint(ThreadingHTTPServer):
    """Chat completions by a rule.

    Attributes:
        rule: question, truth, answer -> the reply, or a status and the body of an error.
        bodies, keys: of the requests that came.
    """

    daemon_threads = True

    def __init__(self, rule):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.rule, self.bodies, self.keys, self.lock = rule, [], [], threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], ConnectionError):  # a client that has heard enough
            super().handle_error(request, client_address)

    def prompts(self):
        return [body["messages"][0]["content"] for body in self.bodies]


class _Handler(BaseHTTPRequestHandler):
    timeout = 20
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.bodies.append(body)
            self.server.keys.append(self.headers["Authorization"])
        if self.path != "/v1/chat/completions":
            return self._send(404, {"error": {"message": f"there is no {self.path}"}})
        found = self.server.rule(*case_in(body["messages"][0]["content"]))
        if isinstance(found, tuple):
            return self._send(found[0], {"error": {"message": found[1]}})
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": found}}
        return self._send(200, {"id": "1", "object": "chat.completion", "created": 0, "choices": [choice]})

    def _send(self, status, value):
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Retry-After-Ms", "1")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


def case_in(prompt):
    """Question, truth and answer in our own prompt, or in one with bars between them."""
    tagged = [re.search(rf"<{tag}>\n(.*?)\n</{tag}>", prompt, re.DOTALL) for tag in ("question", "reference", "answer")]
    return [found[1] for found in tagged] if all(tagged) else prompt.split("|")[:3]


def by_words(question, truth, answer):
    """Right where the answer holds the truth or its synonym; of numbers it knows nothing."""
    if question.startswith("How many"):
        return "That is hard to say."
    truth, answer = truth.lower(), answer.lower()
    return "Correct" if truth in answer or SYNONYMS.get(truth, truth) in answer else "**Incorrect.** It differs."


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def serve():
    """Starts endpoints, which end with the test."""
    started = []

    def start(rule=by_words):
        endpoint = Endpoint(rule)
        threading.Thread(target=endpoint.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        started.append(endpoint)
        return endpoint

    yield start
    for endpoint in started:
        endpoint.shutdown()
        endpoint.server_close()


def evaluate(root, output):
    words = ["--benchmark", "vqa-csv", "--data", root / "vqa-csv", "--output", output]
    return main(["evaluate", *map(str, words), "--device", "cpu", "--num_readers", "0"])


def write_answers(run, texts):
    header, *lines = (run / "answers.jsonl").read_text().splitlines()
    answers = [json.loads(line) | {"text": text} for line, text in zip(lines, texts, strict=True)]
    (run / "answers.jsonl").write_text("\n".join([header, *map(json.dumps, answers)]) + "\n")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A finished run over `ROWS`, whose answers are those written there."""
    root = tmp_path_factory.mktemp("judge")
    Image.fromarray(np.full((32, 32), 90, np.uint8)).save(root / "image.png")
    with (root / "table.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("image", "question", "answer", "split", "a", "b"))
        for question, truth, _, _ in ROWS:
            options = ("lung", "spleen") if truth == "B" else ("", "")
            table.writerow(("image.png", question, truth, "test", *options))
    words = ["--root", root / "table.csv", "--output", root / "vqa-csv", "--split_column", "split"]
    flags = ["--option_columns", "a", "b", "--num_processes", "1"]
    assert main(["prepare", "vqa-csv", *map(str, words), *flags]) == 0
    assert evaluate(root, root / "runs") == 0
    write_answers(root / "runs/vqa-csv", [answer for _, _, answer, _ in ROWS])
    assert evaluate(root, root / "runs") == 0
    return root


@pytest.fixture
def run(data):
    """A run's folder, beside the one that is kept, so that its images are where its questions say."""
    folder = data / "copy/vqa-csv"
    shutil.copytree(data / "runs/vqa-csv", folder)
    yield folder
    shutil.rmtree(folder.parent)


def judge_words(endpoint, *runs, model=JUDGE, **more):
    url = endpoint if isinstance(endpoint, str) else endpoint.url
    flags = [word for name, value in more.items() for word in (f"--judge_{name}", str(value))]
    return ["evaluate", "judge", *map(str, runs), "--judge_url", url, "--judge_model", model, *flags]


def judge(endpoint, *runs, **more):
    return main(judge_words(endpoint, *runs, **more))


def file_of(run):
    (path,) = run.glob("judge-*.jsonl")
    return path


def verdicts_of(run):
    return [json.loads(line) for line in file_of(run).read_text().splitlines()[1:]]


def results_of(run):
    return json.loads((run / "results.json").read_text())


def values(run, name=JUDGE):
    return {
        title: (round(found["value"], 6), found["n"])
        for title, found in results_of(run)["judged"][name]["figures"].items()
    }


def last_line(capsys):
    return capsys.readouterr().err.strip().splitlines()[-1]


# Right are five; the unreadable one is in no column. Open: three of five; close: two of three.
EXPECTED = {"all/judge": (0.625, 8), "close/judge": (0.666667, 3), "open/judge": (0.6, 5)}


def test_verdicts_and_figures_are_those_of_the_example(run, serve, capsys):
    endpoint, before = serve(), (run / "results.json").read_text()
    assert judge(endpoint, run) == 0
    assert values(run) == EXPECTED
    shown = capsys.readouterr()
    assert re.search(r"vqa-csv \(org/judge-7b\)/all/judge +62\.50  n = 8  \[", shown.out)
    assert "1 of 9 verdicts are unreadable" in shown.err
    found = {line["id"]: line["verdict"] for line in verdicts_of(run)}
    words = {True: "right", False: "wrong", None: "unreadable"}
    assert found == {f"table-{i}": words[row[3]] for i, row in enumerate(ROWS, 1) if row[2].strip()}
    (unreadable,) = [line for line in verdicts_of(run) if line["verdict"] == "unreadable"]
    assert unreadable["reply"] == "That is hard to say."
    results = results_of(run)
    section = results.pop("judged")[JUDGE]
    assert results == json.loads(before)
    assert (run / "results.json").read_text().startswith(before.rstrip("}\n"))
    assert results["figures"]["all/right"]["value"] == pytest.approx(2 / 9, abs=1e-6)
    assert (section["unreadable"], section["unjudged"], section["samples"]) == (1, 0, 9)
    assert (section["model"], section["endpoint"]) == (JUDGE, f"127.0.0.1:{endpoint.server_port}")


def test_what_is_sent(run, serve):
    endpoint = serve()
    assert judge(endpoint, run, concurrency=3) == 0
    assert len(endpoint.bodies) == ASKED == len(set(endpoint.prompts()))
    assert {body["model"] for body in endpoint.bodies} == {JUDGE}
    assert {body["temperature"] for body in endpoint.bodies} == {0}
    assert set(endpoint.keys) == {f"Bearer {KEY}"}
    for path in run.rglob("*"):
        assert path.is_dir() or KEY.encode() not in path.read_bytes()
    cases = [case_in(prompt) for prompt in endpoint.prompts()]
    assert ["How many are there?", "two", "{truth} or {more}"] in cases  # braces of an answer are no placeholders
    (choice,) = [case for case in cases if case[0].startswith("Which organ is shown?")]
    assert "B. spleen" in choice[0]
    assert choice[1:] == ["B. spleen", "(B)"]


def test_nothing_is_asked_twice(run, serve, data, capsys):
    endpoint = serve()
    assert judge(endpoint, run.parent) == 0
    before = file_of(run).read_bytes()
    assert judge(endpoint, run.parent, run) == 0
    assert (len(endpoint.bodies), file_of(run).read_bytes()) == (ASKED, before)
    # Another run with the same answers, judged beside the first one.
    other = data / "other/vqa-csv"
    shutil.copytree(data / "runs/vqa-csv", other)
    assert judge(endpoint, other, run) == 0
    assert (len(endpoint.bodies), values(other)) == (ASKED, EXPECTED)
    # Unreadable ones are, where --retry_failed says so.
    endpoint.rule = lambda *case: "incorrect"
    assert main([*judge_words(endpoint, run), "--retry_failed"]) == 0
    assert (len(endpoint.bodies), values(run)["all/judge"]) == (ASKED + 1, (round(5 / 9, 6), 9))
    shutil.rmtree(other.parent)


def test_a_kill_loses_nothing(run, serve, capsys):
    endpoint = serve()
    assert judge(endpoint, run) == 0
    lines = file_of(run).read_bytes().splitlines(keepends=True)
    kept = {json.loads(line)["key"] for line in lines[1:4]}
    for torn in (b"".join(lines[:4]) + lines[4][:20], lines[0][:30], b""):
        file_of(run).write_bytes(torn)
        before = len(endpoint.bodies)
        assert judge(endpoint, run) == 0
        assert len(endpoint.bodies) - before == (ASKED - len(kept) if torn.startswith(lines[0]) else ASKED)
        assert values(run) == EXPECTED
        assert {line["id"] for line in verdicts_of(run)} == {f"table-{i}" for i in range(1, 9)}
    assert "a torn line of 20 bytes was cut off" in capsys.readouterr().err


def test_ctrl_c_keeps_what_was_judged(run, serve, capsys):
    free = threading.Event()
    # A shell's background jobs ignore Ctrl-C, and what ignores it cannot be interrupted.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def interrupting(*case):
        if len(endpoint.bodies) > 3:
            os.kill(os.getpid(), signal.SIGINT)
            free.wait(10)  # no reply comes, and nobody waits for one
        return by_words(*case)

    endpoint = serve(interrupting)
    started = time.monotonic()
    try:
        assert judge(endpoint, run, concurrency=1) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - started < 9
    free.set()
    endpoint.rule = by_words
    assert last_line(capsys) == "note: interrupted; the same command goes on"
    assert len({line["key"] for line in verdicts_of(run)}) == 3
    assert "judged" not in results_of(run)
    asked = len(endpoint.bodies)
    assert judge(endpoint, run) == 0
    assert (len(endpoint.bodies) - asked, values(run)) == (ASKED - 3, EXPECTED)


def test_another_judge_is_refused_in_the_same_file(run, serve, tmp_path, capsys):
    endpoint = serve()
    assert judge(endpoint, run) == 0
    before, prompt = file_of(run).read_bytes(), tmp_path / "prompt.txt"
    prompt.write_text("{question}|{truth}|{answer}|correct or incorrect?")
    for more, reason in (
        ({"prompt": prompt}, "prompt_sha256 '"),
        ({"model": "larger", "name": JUDGE}, "model 'org/judge-7b', not 'larger'"),
        ({"max_tokens": 5}, "max_tokens 1024, not 5"),
    ):
        assert judge(endpoint, run, **more) == 2
        line = last_line(capsys)
        assert str(file_of(run)) in line
        assert reason in line
        assert "--judge_name" in line
    assert (len(endpoint.bodies), file_of(run).read_bytes()) == (ASKED, before)
    # Under its own name it is a judge of its own, and its prompt does its work.
    assert judge(endpoint, run, prompt=prompt, name="strict") == 0
    assert values(run, "strict") == values(run) == EXPECTED
    assert len(list(run.glob("judge-*.jsonl"))) == 2


def test_another_file_is_left_alone(run, serve, capsys):
    path = run / "judge-plain.jsonl"
    path.write_text('{"my": "file"}\ntorn')
    assert judge(serve(), run, model="plain") == 2
    assert "is no file of verdicts" in last_line(capsys)
    assert path.read_text() == '{"my": "file"}\ntorn'


def test_failures_that_pass_are_tried_again(run, serve):
    trouble = [429, 500, 503, 429]

    def rule(*case):
        with endpoint.lock:
            status = trouble.pop() if trouble else None
        return (status, "wait") if status else by_words(*case)

    endpoint = serve(rule)
    assert judge(endpoint, run) == 0
    assert (len(endpoint.bodies), values(run)) == (ASKED + 4, EXPECTED)


@pytest.mark.parametrize(
    ("status", "message", "flags"),
    [
        (503, "answers with status 503: it is full", {"retries": 0}),
        (401, "answers with status 401: it is full", {}),
        (404, "answers with status 404: it is full", {}),
    ],
)
def test_an_endpoint_that_fails_ends_the_command_and_keeps_the_verdicts(run, serve, capsys, status, message, flags):
    endpoint = serve(lambda *case: (status, "it is full") if len(endpoint.bodies) > 3 else by_words(*case))
    before = (run / "results.json").read_bytes()
    assert judge(endpoint, run, concurrency=1, **flags) == 1
    assert f"error: 127.0.0.1:{endpoint.server_port} {message}; what was judged is kept" in last_line(capsys)
    assert len({line["key"] for line in verdicts_of(run)}) == 3
    assert (run / "results.json").read_bytes() == before
    endpoint.rule = by_words
    assert judge(endpoint, run) == 0
    assert (len(endpoint.bodies), values(run)) == (ASKED + 1, EXPECTED)


def test_no_endpoint(run, serve, capsys):
    endpoint = serve()
    endpoint.shutdown()
    endpoint.server_close()
    assert judge(endpoint, run, retries=1) == 1
    assert f"127.0.0.1:{endpoint.server_port} cannot be reached: " in last_line(capsys)
    slow = serve(lambda *case: time.sleep(2) or "correct")
    assert judge(slow, run, retries=0, timeout=1, name="slow") == 1
    assert "gave no reply within 1 seconds" in last_line(capsys)


def test_a_prompt_that_is_refused_is_unreadable_and_one_that_always_is_ends_the_command(run, serve, capsys):
    def rule(question, truth, answer):
        return (400, f"filtered {KEY}") if truth == "fracture" else by_words(question, truth, answer)

    endpoint = serve(rule)
    assert judge(endpoint, run, concurrency=1) == 0
    assert values(run)["all/judge"] == (round(5 / 7, 6), 7)
    (refused,) = [line for line in verdicts_of(run) if "error" in line]
    assert (refused["verdict"], refused["reply"]) == ("unreadable", "")
    assert refused["error"].endswith("answers with status 400: filtered ***")
    endpoint = serve(lambda *case: (400, "temperature 0 is not supported"))
    assert judge(endpoint, run, name="none") == 1
    assert "temperature 0 is not supported" in last_line(capsys)


def test_what_is_no_chat_completion_is_one_line(run, serve, capsys, monkeypatch):
    monkeypatch.setattr(_Handler, "_send", lambda self, *_: BaseHTTPRequestHandler.send_error(self, 200, "a web page"))
    assert judge(serve(), run) == 1
    assert "answers with what is no chat completion; expected a base such as .../v1" in last_line(capsys)


def test_compare_shows_the_column(run, serve, data, capsys):
    assert judge(serve(), run) == 0
    capsys.readouterr()
    assert main(["evaluate", "compare", str(run.parent), str(data / "runs")]) == 0
    shown = capsys.readouterr().out
    for column, value in (("all", "0.6250"), ("close", "0.6667"), ("open", "0.6000")):
        assert re.search(rf"\| {column}/judge \(org/judge-7b\) \| {value} \[[\d., ]+\], n = \d \| – \|", shown)
    assert re.search(r"\| all/right \| 0.2222 ", shown)
    # Two judges of one name are no one judge.
    other = data / "other/vqa-csv"
    shutil.copytree(data / "runs/vqa-csv", other)
    assert judge(serve(), other, max_tokens=7) == 0
    capsys.readouterr()
    assert main(["evaluate", "compare", str(run.parent), str(other.parent)]) == 0
    assert f"{JUDGE}: is not one judge in these runs" in capsys.readouterr().out
    shutil.rmtree(other.parent)


def test_so_many_requests_are_made_at_once(run, serve):
    active, peak = 0, 0

    def counting(*case):
        nonlocal active, peak
        with endpoint.lock:
            active, peak = active + 1, max(peak, active + 1)
        time.sleep(0.2)
        with endpoint.lock:
            active -= 1
        return by_words(*case)

    endpoint = serve(counting)
    assert judge(endpoint, run, concurrency=3) == 0
    assert (peak, len(endpoint.bodies)) == (3, ASKED)


def test_scoring_again_keeps_verdicts_but_not_on_other_answers(run, serve, data, capsys):
    endpoint = serve()
    assert judge(endpoint, run) == 0
    before = results_of(run)
    assert evaluate(data, run.parent) == 0
    assert results_of(run)["judged"] == before["judged"]
    write_answers(run, ["pneumonia or a fracture" if row[2] == "pneumonia" else row[2] for row in ROWS])
    capsys.readouterr()
    assert evaluate(data, run.parent) == 0
    assert "org/judge-7b has not judged 1 of 9 answers" in capsys.readouterr().err
    stale = results_of(run)["judged"][JUDGE]
    assert (stale["unjudged"], stale["figures"]) == (1, {})
    assert judge(endpoint, run) == 0
    assert (len(endpoint.bodies), values(run)["all/judge"]) == (ASKED + 1, (0.75, 8))


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("correct", "right"),
        ("Incorrect.", "wrong"),
        ("**Verdict:** Incorrect", "wrong"),
        ('{"verdict": "correct"}', "right"),
        ("The answer is incorrect because the correct answer is the liver.", "wrong"),
        ("Incorrect. The correct answer is: no", "wrong"),
        ("The reference names the left lung.\n\nFinal answer: wrong", "wrong"),
        ("<think>It could be incorrect.\nIncorrect.</think>\n\nCorrect", "right"),
        ("<think>It is correct.\nCorrect", "unreadable"),
        ("Right lung", "unreadable"),
        ("The correct answer is the liver.", "unreadable"),
        ("Correct.\nIncorrect.", "unreadable"),
        ("not correct", "unreadable"),
        ("partially correct", "unreadable"),
        ("yes", "unreadable"),
        ("", "unreadable"),
    ],
)
def test_a_verdict_is_read_and_never_guessed(reply, verdict):
    assert read_verdict(reply) == Verdict(verdict)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{question} {answer} correct?", "has no {truth}, expected {question} {truth} {answer}"),
        ("{question} {truth} {answer} {image} correct?", "has {image}, expected only"),
        ("{question} {truth} {answer} yes or no?", "asks neither for correct or incorrect nor for right or wrong"),
        (b"\xff\xfe", "is no text in UTF-8"),
        (None, "no such file"),
    ],
)
def test_a_prompt_is_checked_before_anything_is_asked(run, serve, tmp_path, capsys, text, message):
    path, endpoint = tmp_path / "prompt.txt", serve()
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert judge(endpoint, run, prompt=path) == 2
    line = last_line(capsys)
    assert message in line
    assert str(path) in line
    assert not endpoint.bodies
    assert not list(run.glob("judge-*"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["judge", "RUN", "--judge_model", "m"], "--judge_url is missing"),
        (["judge", "RUN", "--judge_url", "http://host/v1"], "--judge_model is missing"),
        (["judge", "--judge_model", "m", "--judge_url", "http://host/v1"], "judge has no RUN"),
        (["judge", "RUN", "--judge_model", "m", "--judge_url", "me:secret@host/v1"], "address is 'host/v1', expected"),
        (["judge", "RUN", "--judge_model", "m", "--judge_url", "http://me:secret@host:x/v1"], "cannot be read"),
        (
            ["judge", "RUN", "--judge_model", "m", "--judge_url", "http://h/v1", "--judge_concurrency", "0"],
            "concurrency is 0, expected at least 1",
        ),
        (
            ["judge", "RUN", "--judge_model", "m", "--judge_url", "http://h/v1", "--judge_key_env", "NO_SUCH_KEY"],
            "--judge_key_env is NO_SUCH_KEY, but there is no such environment variable",
        ),
        (
            ["judge", "RUN", "--judge_model", "m", "--judge_url", "http://h/v1", "--output", "there"],
            "--output does nothing with judge",
        ),
        (["judge", "nowhere", "--judge_model", "m", "--judge_url", "http://h/v1"], "nowhere: has no results.json"),
        (["compare", "RUN", "--judge_model", "m"], "--judge_model belongs to `healthgpt evaluate judge RUN ...`"),
        (["--benchmark", "slake", "--judge_url", "http://h/v1"], "--judge_url belongs to"),
    ],
)
def test_mistakes_are_one_line(run, capsys, words, message):
    assert main(["evaluate", *(str(run) if word == "RUN" else word for word in words)]) == 2
    line = last_line(capsys)
    assert message in line
    assert "secret" not in line
    assert not list(run.glob("judge-*"))


def test_only_questions_are_judged(run, serve, capsys):
    endpoint, drawings = serve(), run.parent / "pairs"
    drawings.mkdir()
    facts = {"benchmark": "pairs", "figures": {}, "model_id": "nano"}
    (drawings / "results.json").write_text(json.dumps(facts))
    assert judge(endpoint, run.parent) == 0
    assert f"{drawings}: is not judged, as pairs is no benchmark of questions" in capsys.readouterr().err
    assert values(run) == EXPECTED
    assert judge(endpoint, drawings) == 2
    assert "has no run of a benchmark of questions" in last_line(capsys)


def test_without_the_library_one_line_says_what_to_install(run, serve, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    assert judge(serve(), run) == 2
    assert "needs openai: pip install 'healthgpt[judge]'" in last_line(capsys)


def test_a_server_without_keys_gets_none(run, serve, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    endpoint = serve()
    assert judge(endpoint, run) == 0
    assert set(endpoint.keys) == {"Bearer none"}
    monkeypatch.setenv("MY_KEY", "mine\n")
    assert judge(endpoint, run, key_env="MY_KEY", name="other") == 0
    assert endpoint.keys[-1] == "Bearer mine"

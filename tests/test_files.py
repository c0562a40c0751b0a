"""Reading files for what they are, writing them whole."""

import os
import sys
import types
import zipfile

import pytest
import torch

from healthgpt.files import load_torch_file, read_json, require_file, writable_target, write_atomically, wrong_kind


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "an empty file"),
        (b"<!DOCTYPE html><html>sign in</html>", "a web page of 35 bytes"),
        (b"\n  <html lang=en>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "a Git LFS pointer"),
        (b"{}\n\n\n", "a placeholder of 5 bytes"),
        (b"PK\x03\x04" + b"x" * 40, None),
    ],
)
def test_what_a_download_really_is(tmp_path, content, kind):
    path = tmp_path / "last.ckpt"
    path.write_bytes(content)
    found = wrong_kind(path)
    assert (found is None) if kind is None else found.startswith(kind)
    if kind is not None:
        with pytest.raises(ValueError, match=kind):
            load_torch_file(path)


def test_tensors_come_back(tmp_path):
    path = tmp_path / "weights.bin"
    tensors = {"a": torch.randn(3, 4), "b": torch.randn(2).bfloat16()}
    for zipped in (True, False):
        torch.save(tensors, path, _use_new_zipfile_serialization=zipped)
        loaded = load_torch_file(path)
        assert all(torch.equal(loaded[key], tensors[key]) for key in tensors)


class Evil:
    def __reduce__(self):
        return os.system, ("touch /tmp/healthgpt-was-here",)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_runs_code_is_refused(tmp_path, zipped):
    path = tmp_path / "evil.bin"
    torch.save({"a": Evil()}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"evil\.bin: refused.*system"):
        load_torch_file(path)
    assert not os.path.exists("/tmp/healthgpt-was-here")


def test_a_lightning_checkpoint_loads_without_lightning(tmp_path, monkeypatch):
    """Real checkpoints have callback classes as keys; they become inert stand-ins."""
    module = types.ModuleType("pytorch_lightning.callbacks.model_checkpoint")
    callback = type("ModelCheckpoint", (), {"__module__": module.__name__})
    module.ModelCheckpoint = callback
    names = ("pytorch_lightning", "pytorch_lightning.callbacks", module.__name__)
    path = tmp_path / "last.ckpt"
    with monkeypatch.context() as patched:
        for name in names:
            patched.setitem(sys.modules, name, module)
        torch.save({"callbacks": {callback: {"best": 1.0}}, "state_dict": {"w": torch.ones(2)}}, path)
    assert torch.equal(load_torch_file(path)["state_dict"]["w"], torch.ones(2))


def test_damaged_files_are_named(tmp_path):
    path = tmp_path / "weights.bin"
    torch.save({"a": torch.randn(100, 100)}, path)
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"\x80\x02garbage that is no pickle"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"weights\.bin: (damaged|refused)"):
            load_torch_file(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("hello.txt", "no tensors here")
    with pytest.raises(ValueError, match=r"weights\.bin: (damaged|refused)"):
        load_torch_file(path)


def test_json_errors_are_one_line(tmp_path):
    path = tmp_path / "config.json"
    with pytest.raises(FileNotFoundError, match=r"config\.json: no such file"):
        read_json(path)
    for content, message in (
        (b"null\n", "a placeholder of 5 bytes"),
        (b"[1, 2, 3, 4, 5, 6, 7]", "expected a JSON object, found list"),
        (b"{ 'single': 'quotes' }", "not readable as JSON"),
        (b"\xff\xfe\x00 some bytes that are no text", "not readable as JSON"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message) as caught:
            read_json(path)
        assert "\n" not in str(caught.value)


def test_paths_that_cannot_serve(tmp_path):
    with pytest.raises(ValueError, match="expected a file, found a folder"):
        require_file(tmp_path)
    with pytest.raises(ValueError, match="it is a folder"):
        writable_target(tmp_path)
    with pytest.raises(ValueError, match="there is no folder"):
        writable_target(tmp_path / "no" / "file")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "result.txt"
    write_atomically(path, lambda p: p.write_text("first"))

    def fail(p):
        p.write_text("half of the sec")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, fail)
    assert path.read_text() == "first"
    assert [p.name for p in tmp_path.iterdir()] == ["result.txt"]


def test_written_files_have_ordinary_permissions(tmp_path):
    plain = tmp_path / "plain"
    plain.write_text("x")
    write_atomically(tmp_path / "atomic", lambda p: p.write_text("x"))
    assert (tmp_path / "atomic").stat().st_mode == plain.stat().st_mode

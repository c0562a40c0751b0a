"""The house: imports point down, each third-party library has one owner, nothing happens at import."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# From the ground up; a module may import what stands on a lower line, or on its own line where that is a package.
LAYERS = (
    (
        "healthgpt",
        "healthgpt.files",
        "healthgpt.answers",
        "healthgpt.tasks",
        "healthgpt.phi3_tokenizer",
        "healthgpt.provenance",
        "healthgpt.child_processes",
    ),
    ("healthgpt.shipped",),
    ("healthgpt.hlora", "healthgpt.vocabulary", "healthgpt.images", "healthgpt.tokenization", "taming_transformers"),
    ("healthgpt.templates", "healthgpt.config", "healthgpt.decoding", "healthgpt.shortcuts", "healthgpt.exchange"),
    ("healthgpt.processor", "healthgpt.targets"),
    ("healthgpt.model",),
    ("healthgpt.checkpoints",),
    ("healthgpt.checking",),
    ("healthgpt.loading", "healthgpt.conversion", "healthgpt.generation", "healthgpt.streaming", "healthgpt.data"),
    ("healthgpt.engine",),
    ("healthgpt.random_model",),
    ("healthgpt.sources",),
    ("healthgpt.pipeline", "healthgpt.doctor", "healthgpt.training", "healthgpt.fingerprint"),
    ("healthgpt.batch",),
    ("healthgpt.nano",),
    ("healthgpt.evaluation",),
    ("healthgpt.bench",),
    ("healthgpt.serving",),
    ("healthgpt.cli",),
)
# Libraries that only these modules, or the modules of these packages, may touch.
OWNERS = {
    "peft": {"healthgpt.hlora"},
    "sentencepiece": {"healthgpt.tokenization.sentence_piece", "healthgpt.phi3_tokenizer"},
    "tokenizers": {"healthgpt.tokenization.byte_pair"},
    "PIL": {
        "healthgpt.images",
        "healthgpt.processor",
        "healthgpt.targets",
        "healthgpt.exchange",
        "healthgpt.pipeline",
        "healthgpt.batch",
        "healthgpt.bench",
        "healthgpt.data.phantoms",
        "healthgpt.data.sources",
        "healthgpt.nano",
        "healthgpt.evaluation",
        "healthgpt.serving",
    },
    "pydicom": {"healthgpt.images"},
    "nibabel": {"healthgpt.images"},
    "SimpleITK": {"healthgpt.images"},
    "pyarrow": {"healthgpt.data.tables"},
    "numba": {"healthgpt.engine.loops"},
    "triton": {"healthgpt.engine.kernels"},
    "scipy": {"healthgpt.data.phantoms", "healthgpt.evaluation"},
    "skimage": {"healthgpt.data.phantoms", "healthgpt.evaluation"},
    "ray": {"healthgpt.batch.ray_cluster", "healthgpt.serving.api.ray_serve"},
    "gradio": {"healthgpt.serving.app"},
    "fastapi": {"healthgpt.serving"},
    "starlette": {"healthgpt.serving"},
    "uvicorn": {"healthgpt.serving.api.connections"},
    "pydantic": {"healthgpt.serving.api"},
    "pydantic_core": {"healthgpt.serving.api.protocol"},
    "prometheus_client": {"healthgpt.serving.api.metrics"},
    "torchmetrics": {"healthgpt.evaluation"},
    "nltk": {"healthgpt.evaluation"},
    "radgraph": {"healthgpt.evaluation.clinical"},
    "lmms_eval": {"healthgpt.evaluation.adapters.lmms_eval"},
    "vlmeval": {"healthgpt.evaluation.adapters.vlmeval"},
    "filelock": {"healthgpt.training.publish", "healthgpt.batch.journal"},
    "safetensors": {
        "healthgpt.checkpoints",
        "healthgpt.checking",
        "healthgpt.doctor",
        "healthgpt.random_model",
        "healthgpt.training.trainer",
        "healthgpt.nano",
        "taming_transformers.vqgan",
    },
    "huggingface_hub": {"healthgpt.checking", "healthgpt.sources"},
    "yaml": {
        "taming_transformers.vqgan",
        "healthgpt.random_model",
        "healthgpt.data.mixture",
        "healthgpt.training.config",
    },
    "matplotlib": {
        "healthgpt.training.feedback",
        "healthgpt.evaluation.charts",
        "healthgpt.evaluation.sheets",
        "healthgpt.bench.chart",
    },
    "deepspeed": set(),
}


def modules() -> dict[str, Path]:
    found = {}
    for package in ("healthgpt", "taming_transformers"):
        for path in (ROOT / package).rglob("*.py"):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            found[name] = path
    return found


def imports(path: Path) -> set[str]:
    """Every module that a file imports anywhere, but for those named for the type checker alone."""
    found = set()
    tree = ast.parse(path.read_text())
    for node in list(ast.walk(tree)):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written in full"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return found


def height(module: str) -> int | None:
    """The lowest layer that names the module or the package it is in."""
    for candidate in (module, module.rpartition(".")[0], module.rpartition(".")[0].rpartition(".")[0]):
        for i, layer in enumerate(LAYERS):
            if candidate in layer and (candidate != "healthgpt" or module == "healthgpt"):
                return i
    return None


@pytest.mark.parametrize("module", sorted(modules()))
def test_imports_point_down(module: str) -> None:
    here = height(module)
    assert here is not None, f"{module} stands on no layer; give it one"
    known = modules()
    for target in imports(modules()[module]) & known.keys():
        if module == "healthgpt" or target == "healthgpt":
            continue  # the package's front door loads its names lazily
        inside = (
            module.split(".")[:2] == target.split(".")[:2]
            or module.split(".")[0] == target.split(".")[0] != "healthgpt"
        )
        target_height = height(target)
        assert target_height is not None
        assert inside or target_height < here, f"{module} imports {target}, which is not below it"


@pytest.mark.parametrize("library", OWNERS)
def test_each_library_has_its_owners(library: str) -> None:
    users = {name for name, path in modules().items() if library in {i.split(".")[0] for i in imports(path)}}
    strangers = {user for user in users if not any(f"{user}.".startswith(f"{owner}.") for owner in OWNERS[library])}
    assert not strangers


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = (
        "import sys, healthgpt, healthgpt.cli; "
        "print([name for name in ('torch', 'transformers', 'peft', 'PIL', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"

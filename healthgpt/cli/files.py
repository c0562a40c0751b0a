"""`healthgpt convert` and `healthgpt doctor`."""

from __future__ import annotations

import argparse
from pathlib import Path

from healthgpt.cli.flags import load_options, model_sources, names_model, parse_bool
from healthgpt.config import ModelSources
from healthgpt.tasks import Task


def add_convert_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("--output", type=Path, required=True, help="folder to make")
    command.add_argument("--model", type=Path, help="model folder to write as released files")
    command.add_argument("--model_name_or_path", help="base LLM: folder or hub id")
    command.add_argument("--vit_path", help="CLIP ViT: folder or hub id")
    command.add_argument("--instruct_template", help="default: by the tokenizer")
    command.add_argument("--com_hlora_path", type=Path)
    command.add_argument("--gen_hlora_path", type=Path)
    command.add_argument("--com_hlora_alpha", type=float, help="default: twice the rank")
    command.add_argument("--gen_hlora_alpha", type=float, help="default: twice the rank")
    command.add_argument("--fusion_layer_path", type=Path)
    command.add_argument("--vqgan_path", type=Path)
    command.add_argument("--vq_idx_nums", type=int, help="default: from the fusion file, else the VQGAN")
    command.add_argument("--apply_fusion", type=parse_bool, nargs="?", const=True, metavar="BOOL")
    command.add_argument("--copy", action="store_true", help="copy base, ViT and VQGAN into the folder")


def run_convert(flags: argparse.Namespace) -> int:
    """`healthgpt convert`"""
    from healthgpt.conversion import convert_released, export_released, released_plugins

    if flags.model:
        for path in export_released(flags.model, flags.output):
            print(path)
        return 0
    for name in ("model_name_or_path", "vit_path"):
        if getattr(flags, name) is None:
            raise ValueError(f"--{name} is missing")
    plugins = released_plugins(
        flags.com_hlora_path, flags.gen_hlora_path, flags.com_hlora_alpha, flags.gen_hlora_alpha
    )  # fmt: skip
    if not plugins:
        raise ValueError("neither --com_hlora_path nor --gen_hlora_path is given")
    sources = ModelSources(
        base=flags.model_name_or_path,
        vit=flags.vit_path,
        template=flags.instruct_template,
        plugins=plugins,
        fusion=flags.fusion_layer_path,
        vqgan=flags.vqgan_path,
        num_image_tokens=flags.vq_idx_nums,
        apply_fusion=bool(flags.apply_fusion),
    )
    print(convert_released(sources, flags.output, copy=flags.copy))
    return 0


def run_doctor(flags: argparse.Namespace) -> int:
    """`healthgpt doctor`"""
    from healthgpt.doctor import Finding, examine_machine, examine_model, examine_placement

    # Parts that only drawing needs, but for fusion weights that answers are asked to run on.
    if flags.vqgan_path or (flags.fusion_layer_path and not flags.apply_fusion):
        flags.task = Task.GENERATION
    findings = list(examine_machine())
    try:
        findings.append(examine_placement(load_options(flags)))
    except (ValueError, OSError) as error:
        findings.append(Finding(False, f"placement: {error}"))
    if names_model(flags):
        try:
            findings += examine_model(model_sources(flags))
        except (ValueError, OSError) as error:
            findings.append(Finding(False, f"model: {error}"))
    for finding in findings:
        print(f"{'ok   ' if finding.good else 'WRONG'} {' '.join(finding.text.split())}")
    return 0 if all(finding.good for finding in findings) else 1

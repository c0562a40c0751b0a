"""`healthgpt serve`: the API that OpenAI's clients speak."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from healthgpt.cli.flags import add_bool, add_placement_flags, load_options
from healthgpt.config import NANO

if TYPE_CHECKING:
    from healthgpt.serving.api.settings import Settings


def add_serve_flags(command: argparse.ArgumentParser) -> None:
    from healthgpt.serving.api.limits import MEANINGS, Limits

    model = command.add_argument_group("model")
    model.add_argument(
        "--model",
        nargs="+",
        default=[NANO],
        metavar="NAME|FOLDER",
        help="models, each by its name, folder or hub id (nano); the first serves who names none",
    )
    add_placement_flags(command)
    model.add_argument("--threads", type=int, help="cores for a model on the CPU (all but one, for the rest)")
    place = command.add_argument_group("place")
    place.add_argument("--host", default="127.0.0.1", help="address to listen at; any but this machine's needs keys")
    place.add_argument("--port", type=int, default=8000)
    place.add_argument("--certificate", type=Path, metavar="FILE", help="PEM, for https")
    place.add_argument("--private_key", type=Path, metavar="FILE", help="PEM, of the certificate")
    safety = command.add_argument_group("safety")
    safety.add_argument("--api_keys", type=Path, metavar="FILE", help="keys, one a line, beside HEALTHGPT_API_KEYS")
    add_bool(safety, "--insecure", "listen beyond this machine without keys")
    safety.add_argument("--allowed_hosts", nargs="+", metavar="NAME", help="names that the server is called by, too")
    safety.add_argument("--remote_hosts", nargs="+", default=[], metavar="NAME", help="hosts that images come from")
    limits = command.add_argument_group("limits")
    for name, text in MEANINGS.items():
        default = getattr(Limits(), name)
        limits.add_argument(f"--{name}", type=type(default), default=default, help=f"{text} ({default:g})")
    ray = command.add_argument_group("replicas", "on a Ray cluster, where each has models of its own")
    ray.add_argument("--ray", metavar="ADDRESS", help="of the cluster: address, auto, or local for a new one")
    ray.add_argument("--replicas", type=int, default=1, help="at least so many")
    ray.add_argument("--max_replicas", type=int, help="as many as requests call for, up to so many")


def run_serve(flags: argparse.Namespace) -> int:
    """`healthgpt serve`"""
    settings = _settings(flags)
    if flags.ray:
        from healthgpt.serving.api.ray_serve import serve_on_ray

        serve_on_ray(settings, flags.ray, flags.replicas, flags.max_replicas or flags.replicas)
        return 0
    from healthgpt.serving.api.logs import write_logs
    from healthgpt.serving.api.run import serve

    service = settings.service()
    write_logs()
    serve(service, settings.place)
    return 0


def _settings(flags: argparse.Namespace) -> Settings:
    from healthgpt.serving.api.keys import Keys
    from healthgpt.serving.api.limits import MEANINGS, Limits
    from healthgpt.serving.api.settings import Place, Settings

    if (flags.certificate is None) != (flags.private_key is None):
        raise ValueError("--certificate and --private_key go together")
    return Settings(
        models=tuple(flags.model),
        options=load_options(flags),
        place=Place(host=flags.host, port=flags.port, certificate=flags.certificate, private_key=flags.private_key),
        limits=Limits(**{name: getattr(flags, name) for name in MEANINGS}),
        keys=Keys.read(flags.api_keys),
        insecure=bool(flags.insecure),
        allowed_hosts=tuple(flags.allowed_hosts or ()),
        remote_hosts=tuple(flags.remote_hosts),
        threads=flags.threads,
    )

"""`healthgpt app`: the web app."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from healthgpt.cli.flags import add_bool, add_placement_flags, load_options
from healthgpt.config import NANO


def add_app_flags(command: argparse.ArgumentParser) -> None:
    model = command.add_argument_group("model")
    model.add_argument(
        "--model",
        nargs="+",
        default=[NANO],
        metavar="NAME|FOLDER",
        help="models to choose from, each by its name, folder or hub id (nano); the first is chosen at the beginning",
    )
    add_placement_flags(command)
    place = command.add_argument_group("place")
    place.add_argument(
        "--host", default="127.0.0.1", help="address to listen at; any but this machine's needs passwords"
    )
    place.add_argument("--port", type=int, default=7860)
    place.add_argument("--certificate", type=Path, metavar="FILE", help="PEM, for https")
    place.add_argument("--private_key", type=Path, metavar="FILE", help="PEM, of the certificate")
    safety = command.add_argument_group("safety")
    safety.add_argument(
        "--password_file", type=Path, metavar="FILE", help="passwords, one a line, beside HEALTHGPT_APP_PASSWORDS"
    )
    add_bool(safety, "--insecure", "listen beyond this machine without passwords")
    safety.add_argument(
        "--allowed_hosts", nargs="+", default=[], metavar="NAME", help="names the app is called by, too"
    )
    safety.add_argument(
        "--remote_hosts", nargs="+", default=[], metavar="NAME", help="hosts that images may be fetched from (none)"
    )


def run_app(flags: argparse.Namespace) -> int:
    """`healthgpt app`"""
    from healthgpt.serving.api.keys import ENVIRONMENT, Keys
    from healthgpt.serving.api.settings import Place
    from healthgpt.serving.app.settings import PASSWORDS, AppSettings

    if (flags.certificate is None) != (flags.private_key is None):
        raise ValueError("--certificate and --private_key go together")
    place = Place(host=flags.host, port=flags.port, certificate=flags.certificate, private_key=flags.private_key)
    passwords = Keys.read(flags.password_file, {ENVIRONMENT: os.environ.get(PASSWORDS, "")})
    settings = AppSettings(
        models=tuple(flags.model),
        options=load_options(flags),
        place=place,
        passwords=passwords,
        insecure=bool(flags.insecure),
        allowed_hosts=tuple(flags.allowed_hosts),
        remote_hosts=tuple(flags.remote_hosts),
    )
    try:
        from healthgpt.serving.app.server import serve_app
    except ModuleNotFoundError as error:
        raise ValueError(f"the web app needs {error.name}: pip install 'healthgpt[app]'") from None
    serve_app(settings, ready=lambda address: print(f"HealthGPT: {address} (Ctrl+C ends it)", flush=True))
    return 0

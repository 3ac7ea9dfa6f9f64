"""`sedtalker serve`: a live face that existing clients can use, and a page to speak with it."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from sedtalker.cli.options import add_diarizer, add_look_ahead, add_voice_reference, any_path, integer
from sedtalker.errors import require


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    from sedtalker.serve.config import FRAME_RATES, Limits, ServeConfig

    parser = commands.add_parser("serve", parents=[common], help="a live face over a network", description=__doc__)
    default = ServeConfig()
    parser.add_argument(
        "--host", default=default.host, help="address to listen on; any but this machine's needs --token (%(default)s)"
    )
    parser.add_argument(
        "--port", type=integer(0, 65535), default=default.port, help="of the page and the WebSockets (%(default)s)"
    )
    parser.add_argument(
        "--a2f-port",
        type=integer(0, 65535),
        default=default.a2f_port,
        help="of Audio2Face-3D's gRPC service; 0 is none (%(default)s)",
    )
    parser.add_argument("--livelink", type=address, metavar="HOST:PORT", help="send Live Link Face there, as to 11111")
    parser.add_argument("--vmc", type=address, metavar="HOST:PORT", help="send VMC (OSC) there, as to 39539")
    parser.add_argument(
        "--fps", type=int, choices=FRAME_RATES, default=default.fps, help="frames per second (%(default)s)"
    )
    parser.add_argument("--face", default=default.face, metavar="NAME|MESH", help="face of the page (%(default)s)")
    parser.add_argument("--model", default=default.model, metavar="NAME|DIR", help="talker (%(default)s)")
    add_diarizer(parser)
    add_look_ahead(parser, "120")
    add_voice_reference(parser)
    parser.add_argument("--token", metavar="SECRET", help="clients must send it; also from SEDTALKER_TOKEN")
    parser.add_argument(
        "--origin",
        action="append",
        default=[],
        metavar="URL",
        help="a page of another site that may connect, as often as needed",
    )
    parser.add_argument("--tls-cert", type=any_path, metavar="FILE", help="certificate (PEM), for HTTPS and gRPC")
    parser.add_argument("--tls-key", type=any_path, metavar="FILE", help="its key (PEM)")
    parser.add_argument(
        "--workers",
        type=integer(1, 64),
        default=default.workers,
        metavar="N",
        help="processes of the model (%(default)s)",
    )
    parser.add_argument(
        "--sessions", type=integer(1, 1000), default=Limits.sessions, metavar="N", help="at a time (%(default)s)"
    )
    parser.set_defaults(run=run)


def address(text: str) -> tuple[str, int]:
    """Option type: HOST:PORT."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or not 1 <= int(port) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT, such as 127.0.0.1:11111")
    return host.strip("[]"), int(port)


def run(arguments: argparse.Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C."""
    import gc
    import os
    from dataclasses import replace

    from sedtalker.serve.config import Limits, ServeConfig

    config = ServeConfig(
        host=arguments.host,
        port=arguments.port,
        a2f_port=arguments.a2f_port or None,
        livelink=arguments.livelink,
        vmc=arguments.vmc,
        fps=arguments.fps,
        face=arguments.face,
        model=arguments.model,
        diarizer=arguments.diarizer,
        look_ahead=arguments.look_ahead,
        voice_reference=arguments.voice_reference,
        token=arguments.token or os.environ.get("SEDTALKER_TOKEN") or None,
        origins=tuple(arguments.origin),
        tls_cert=arguments.tls_cert,
        tls_key=arguments.tls_key,
        workers=arguments.workers,
        limits=replace(Limits(), sessions=arguments.sessions),
    )
    for module in ("starlette", "uvicorn", "websockets"):
        require(module, "serve")
    from sedtalker.serve.logs import log_to_stderr
    from sedtalker.serve.server import RunningServer, run_server

    def announce(running: RunningServer) -> None:
        scheme = "http" if config.tls_cert is None else "https"
        host = f"[{config.host}]" if ":" in config.host else config.host
        print(f"{scheme}://{host}:{running.port}/" + ("?token=..." if config.token else ""))
        if running.a2f_port is not None:
            print(f"Audio2Face-3D gRPC on {host}:{running.a2f_port}")
        if config.token is None:
            print("Only programs of this machine can connect.")
        else:
            print("Clients must send the token.")
        sys.stdout.flush()

    log_to_stderr()
    try:
        run_server(config, announce)
    finally:
        gc.freeze()  # the interpreter's last collections would visit all objects of the libraries, which takes seconds
    return 0

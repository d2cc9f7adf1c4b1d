"""The live service on a Ray cluster: Ray Serve keeps replicas, and sends each connection to one.

A replica is ``make_app`` as ``audiossm serve`` has it. What makes several of them one service is
the store of snapshots: a client whose replica died connects again, comes to another one, and goes
on there, as with two servers behind a proxy.
"""

import argparse
import contextlib
import logging
import os
import signal
import threading
from typing import Any

from audiossm.errors import OutputError
from audiossm_apps.scale_files import begin_ray
from audiossm_apps.workers import plain_options

__all__ = ["NAME", "serve_on_ray"]

NAME = "audiossm"
# a connection is one request to Ray: replicas refuse by themselves what they have no room for
MOST_CONNECTIONS = 100_000
DRAIN_S = 20.0


def serve_on_ray(args: argparse.Namespace) -> None:
    """Serve until Ctrl-C or SIGTERM.

    Args:
        args: of ``audiossm serve``.

    Raises:
        DependencyError: ray isn't installed.
        ModelError: there is no such model.
        OutputError: the replicas don't come up, or the port is taken.
        ServiceError: there is no cluster at ``args.ray_address``.
    """
    check_options(args)
    stop = threading.Event()
    needed = args.replicas * args.replica_cpus
    ray = begin_ray(args.ray_address, max(2, round(needed) + 1))
    for number in (signal.SIGINT, signal.SIGTERM):  # Ray has taken them
        signal.signal(number, lambda *_: stop.set())
    from ray import serve as untyped

    serve: Any = untyped
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    quiet = {"log_level": "ERROR"}
    try:
        where = {"host": args.host, "port": args.port}
        try:
            serve.start(proxy_location="EveryNode", http_options=where, logging_config=quiet)
            app = make_deployment(args).bind()
            serve.run(app, name=NAME, route_prefix="/", logging_config=quiet)
        except (RuntimeError, OSError) as exc:
            reason = (str(exc).strip().splitlines() or [""])[0]
            raise OutputError(f"can't serve on {args.host}:{args.port}: {reason}") from exc
        print(f"audiossm: serving on {args.host}:{args.port}", flush=True)
        stop.wait()
    finally:
        serve.shutdown()
        ray.shutdown()


def check_options(args: argparse.Namespace) -> None:
    """Look at files that are named before replicas do, who would try again and again."""
    from audiossm.checkpoint import ModelFolder
    from audiossm_apps.live.gate import read_keys
    from audiossm_apps.serving import read_store_key

    for name in (args.model, None if args.speaker == "none" else args.speaker):
        if name is not None:
            ModelFolder.open(name)
    if args.keys is not None:
        read_keys(args.keys)
    if args.store_key is not None:
        read_store_key(args.store_key)


def make_deployment(args: argparse.Namespace) -> Any:
    """Return the service as Ray Serve deploys it."""
    from ray import serve

    options, folder = plain_options(args), os.getcwd()

    def build() -> Any:
        """Make the application, in a replica."""
        from audiossm_apps.live.application import make_app
        from audiossm_apps.live.log_lines import log_to_stderr
        from audiossm_apps.serving import make_service

        with contextlib.suppress(OSError):  # names may be relative
            os.chdir(folder)
        log_to_stderr()
        return make_app(make_service(options))

    replica = serve.ingress(build)()
    return serve.deployment(
        replica,
        name=NAME,
        num_replicas=args.replicas,
        max_ongoing_requests=MOST_CONNECTIONS,
        ray_actor_options={"num_cpus": args.replica_cpus},
        max_constructor_retry_count=3,
        graceful_shutdown_timeout_s=DRAIN_S,
        graceful_shutdown_wait_loop_s=0.5,
        health_check_period_s=2.0,
        health_check_timeout_s=30.0,
    )

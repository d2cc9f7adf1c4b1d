"""The live service on a Ray cluster: Ray Serve keeps replicas, and sends each connection to one.

A replica is ``make_app`` as ``audiossm serve`` has it. What makes several of them one service is
the store of snapshots: a client whose replica died connects again, comes to another one, and goes
on there, as with two servers behind a proxy.
"""

import argparse
import logging
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
        OutputError: the replicas don't come up, or the port is taken.
        ServiceError: there is no cluster at ``args.ray_address``.
    """
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    needed = args.replicas * args.replica_cpus
    ray = begin_ray(args.ray_address, max(2, round(needed) + 1))
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


def make_deployment(args: argparse.Namespace) -> Any:
    """Return the service as Ray Serve deploys it."""
    from ray import serve

    options = plain_options(args)

    def build() -> Any:
        """Make the application, in a replica."""
        from audiossm_apps.live.application import make_app
        from audiossm_apps.live.log_lines import log_to_stderr
        from audiossm_apps.serve import make_service

        log_to_stderr()
        return make_app(make_service(options))

    replica = serve.ingress(build)()
    return serve.deployment(
        replica,
        name=NAME,
        num_replicas=args.replicas,
        max_ongoing_requests=MOST_CONNECTIONS,
        ray_actor_options={"num_cpus": args.replica_cpus},
        graceful_shutdown_timeout_s=DRAIN_S,
        graceful_shutdown_wait_loop_s=0.5,
        health_check_period_s=2.0,
        health_check_timeout_s=30.0,
    )

"""The browser page and its files, which the service serves at ``/``."""

from collections.abc import Awaitable, Callable
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

__all__ = ["page_routes"]

FOLDER = Path(__file__).parent / "page"
FILES = {
    "index.html": "text/html",
    "page.js": "text/javascript",
    "audiossm.js": "text/javascript",
    "recorder.js": "text/javascript",
    "style.css": "text/css",
    "icon.svg": "image/svg+xml",
}
HEADERS = {
    # nothing from elsewhere, nothing inline, in nobody's frame
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


def page_routes() -> list[Route]:
    """Return a route for each file; the page itself is at ``/``.

    They need no key: it is in the page that somebody types one.
    """
    return [
        Route("/" if name == "index.html" else f"/{name}", _serve(name), methods=["GET"])
        for name in FILES
    ]


def _serve(name: str) -> Callable[[Request], Awaitable[Response]]:
    """Return what answers with one file, which is read once."""
    body, kind = (FOLDER / name).read_bytes(), FILES[name]

    async def serve(_: Request) -> Response:
        return Response(body, headers=HEADERS, media_type=kind)

    return serve

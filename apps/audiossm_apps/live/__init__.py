"""The live service: an ASGI application, a module for each dialect, the browser page."""

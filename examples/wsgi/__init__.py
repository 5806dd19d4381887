"""A WSGI app that asks another service for each request: one client for all threads, a deadline for each request, a quiet end. See docs/wsgi.md."""

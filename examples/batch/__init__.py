"""A batch job over threads that can be cancelled half-way: `python -m examples.batch URL...`. See docs/batch.md."""

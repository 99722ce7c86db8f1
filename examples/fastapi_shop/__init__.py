"""The shop of `examples/shop`, with FastAPI: see README.md."""

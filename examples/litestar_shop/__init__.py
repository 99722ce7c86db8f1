"""The shop of `examples/shop`, with Litestar: see README.md."""

"""A shop, without a web framework: what `examples/fastapi_shop` and `examples/litestar_shop` share."""

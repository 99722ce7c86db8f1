"""Endpoints: commands and queries as HTTP, with a line each. `endpoint_call` answers a request for one of them."""

"""Schemathesis against served applications: answers are as the OpenAPI documents say, and show what was done."""

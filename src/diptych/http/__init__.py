"""HTTP without a framework: pure ASGI helpers, put together by the rooms under `diptych.ext`."""

from diptych.context import request_scope
from diptych.http.answers import (
    QUERY_HEADERS,
    Answer,
    answer_headers,
    answer_query,
    cache_status,
    etag,
    is_unchanged,
)
from diptych.http.asgi import SECURITY_HEADERS, HeadAsGet, RequestContext, SecurityHeaders, prefers_html
from diptych.http.bodies import (
    Fields,
    UnsupportedCoding,
    check_same_site,
    method_override,
    parse_form,
    parse_json,
    read_fields,
)
from diptych.http.endpoints.endpoint import Endpoint
from diptych.http.endpoints.hot import hot_routes
from diptych.http.endpoints.html import EndpointRequest, Html
from diptych.http.endpoints_app import endpoints_app
from diptych.http.errors import (
    PROBLEM_JSON,
    BadRequest,
    ClientDisconnected,
    CrossSite,
    FieldError,
    HttpError,
    MethodNotAllowed,
    NotFound,
    PayloadTooLarge,
    Problem,
    UnsupportedMediaType,
    problem_for,
)
from diptych.http.front import Front
from diptych.http.guards.body_timeout import BodyTimeout
from diptych.http.guards.forwarded import Forwarded
from diptych.http.guards.hosts import AllowedHosts
from diptych.http.invalid_request import InvalidRequest
from diptych.http.metrics import metrics_app
from diptych.http.openapi.document import openapi_document
from diptych.http.paths import RawPath, encode_segment
from diptych.http.queries import query_app
from diptych.http.reading import RequestTimeout, UnsupportedTransfer, read_body

__all__ = [
    "PROBLEM_JSON",
    "QUERY_HEADERS",
    "SECURITY_HEADERS",
    "AllowedHosts",
    "Answer",
    "BadRequest",
    "BodyTimeout",
    "ClientDisconnected",
    "CrossSite",
    "Endpoint",
    "EndpointRequest",
    "FieldError",
    "Fields",
    "Forwarded",
    "Front",
    "HeadAsGet",
    "Html",
    "HttpError",
    "InvalidRequest",
    "MethodNotAllowed",
    "NotFound",
    "PayloadTooLarge",
    "Problem",
    "RawPath",
    "RequestContext",
    "RequestTimeout",
    "SecurityHeaders",
    "UnsupportedCoding",
    "UnsupportedMediaType",
    "UnsupportedTransfer",
    "answer_headers",
    "answer_query",
    "cache_status",
    "check_same_site",
    "encode_segment",
    "endpoints_app",
    "etag",
    "hot_routes",
    "is_unchanged",
    "method_override",
    "metrics_app",
    "openapi_document",
    "parse_form",
    "parse_json",
    "prefers_html",
    "problem_for",
    "query_app",
    "read_body",
    "read_fields",
    "request_scope",
]

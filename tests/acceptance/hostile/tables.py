"""Parts of requests that no well-meant client sends, beside some that are well-meant."""

from __future__ import annotations

PATHS = (
    b"/", b"/books", b"/books/Dune", b"/books/action/add", b"/books/Dune/edit", b"/books/Dune/delete",
    b"/books/Dune/reviews", b"/books/Dune/reviews/1", b"/books/Dune/tags", b"/tags", b"/tags/sf",
    b"/tags/sf/edit", b"/health", b"/static/books.css", b"/static/books.css/x", b"/static/" + b"x" * 256,
    b"/static/../app.py", b"/static/%2e%2e/app.py", b"/static/%00", b"/static/", b"/static",
    b"/static//etc/passwd", b"/static/" + b"a/" * 2_000, b"/books/%00", b"/books/%FF", b"/books/%ED%A0%80",
    b"/books/%", b"/books/%zz", b"/books/.", b"/books/..", b"/books/%2e%2e", b"/books/%2F", b"/books//edit",
    b"/books/" + b"x" * 5_000, b"/books/%F0%9F%92%A9", b"/books/=x", b"/books/{title}",
    b"/books/Dune%0d%0aX: y", b"/books/Dune\tx", b"/books/\xff\xfe", b"*", b"http://evil.example/books",
    b"//evil.example/", b"/books/Dune;a=b", b"/books/Dune#x", b"/books/%25252e", b"/openapi.json", b"/docs",
    b"/schema", b"/" + b"a" * 70_000,
)  # fmt: skip
ROUTES: dict[bytes, tuple[bytes, ...]] = {
    b"POST": (
        b"/books/action/add", b"/books/Dune/reviews", b"/books/Dune/edit", b"/books/Dune/delete", b"/tags/sf/edit",
        b"/books/Dune/reviews/1/delete",
    ),
    b"PATCH": (b"/books/Dune/edit", b"/books/%2F/edit", b"/tags/sf/edit", b"/tags/sf"),
    b"PUT": (b"/books/Dune/tags", b"/books/%00/tags"),
    b"DELETE": (b"/books/Dune/delete", b"/books/Dune/reviews/99999999999999999999", b"/books/Dune/reviews/x"),
}  # fmt: skip
QUERIES = (
    b"", b"?", b"?limit=0", b"?limit=-1", b"?limit=99999999999999999999", b"?limit=1e3", b"?limit=%00",
    b"?limit=1&limit=2", b"?after=x", b"?after=%FF", b"?after=" + b"A" * 9_000, b"?after=e30&before=e30",
    b"?sort=evil", b"?title=%00", b"?title=%", b"?author=%F0%9F%92%A9", b"?author=%ED%A0%80",
    b"?tag=" + b"x" * 300, b"?published_from=2024-02-30", b"?count=2", b"?a[]=1", b"?" + b"&" * 5_000,
    b"?x" + b"=1&x" * 500, b"?title='%20OR%201=1--", b"?title=%25%25%25", b"?title=_", b"?\xff",
    b"?after=WyJcdTAwMDAiXQ", b"?after=bnVsbA", b"?after=W1tbW1tbW10", b"?limit=%D9%A3",
    b"?sort=title&sort=author", b"?sort=",
)  # fmt: skip
METHODS = (
    *(b"GET",) * 24, *(b"POST",) * 24, *(b"PATCH", b"DELETE", b"PUT") * 8, b"HEAD", b"OPTIONS", b"TRACE", b"get",
    b"FOO", b"X" * 300, b"CONNECT", b"PRI", b"G\x00T", b"G T", b"",
)  # fmt: skip
VERSIONS = (
    *(b"HTTP/1.1",) * 80, *(b"HTTP/1.0",) * 8, b"HTTP/1.2", b"HTTP/2.0", b"HTTP/9", b"http/1.1", b"", b"HTTP/1.1 x",
)  # fmt: skip
HOSTS: tuple[tuple[bytes, ...], ...] = (
    *((b"127.0.0.1",),) * 100, (), (b"",), (b"a", b"b"), (b"127.0.0.1", b"127.0.0.1"), (b"evil.example",),
    (b"localhost:99999999",), (b"user@localhost",), (b"localhost/x",), (b"[::1",), (b"\xff",), (b"x" * 2_000,),
    (b"127.0.0.1\x00",),
)  # fmt: skip
HEADERS: tuple[tuple[bytes, bytes], ...] = (
    *((b"Accept", value) for value in (b"text/html", b"*/*", b"text/html;q=nan", b",,,", b"a" * 999, b"\xff", b'"')),
    *((b"If-None-Match", value) for value in (b"*", b'"x"', b"W/", b'"' * 500, b'"\xff"', b"," * 3_000)),
    *((b"Range", value) for value in (b"bytes=0-0", b"bytes=-1", b"bytes=9-1", b"bytes=" + b"0-0," * 500, b"x")),
    *((b"If-Modified-Since", value) for value in (b"x", b"Thu, 01 Jan 1970 00:00:00 GMT", b"\xff")),
    *((b"Cookie", value) for value in (b"flash=x", b"flash=added.!!", b"flash=added.QUJD", b"=;;=", b"\xff")),
    (b"Cookie", b"flash=" + b"A" * 5_000),
    *((b"X-Request-Id", value) for value in (b"", b"x" * 500, b"\xff", b"a\tb", b"../../etc")),
    *((b"traceparent", value) for value in (b"00-x", b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-00", b"\xff")),
    *((b"Origin", value) for value in (b"null", b"http://evil.example", b"http://[", b"\xff", b"http://127.0.0.1:x")),
    *((b"Sec-Fetch-Site", value) for value in (b"cross-site", b"none", b"x")), (b"X-Forwarded-For", b"1.2.3.4"),
    (b"X-Forwarded-Proto", b"https"), (b"X-Forwarded-Host", b"evil.example"),
    *((b"Connection", value) for value in (b"close", b"keep-alive", b"Upgrade", b"x, y")),
    *((b"Upgrade", value) for value in (b"websocket", b"h2c", b"x")), (b"Expect", b"100-continue"),
    (b"Expect", b"x"), (b"TE", b"trailers"), (b"HTTP2-Settings", b"AAAA"), (b"X" + b"y" * 200, b"z" * 9_000),
    (b"X y", b"z"), (b"", b"x"), (b"X", b"a\x00b"), (b"X", b"a\r\n b"), (b"X", b"\x7f"),
)  # fmt: skip
TYPES: tuple[tuple[bytes, ...], ...] = (
    *((b"application/json",),) * 6, *((b"application/x-www-form-urlencoded",),) * 4, (), (b"",),
    (b"text/plain",), (b"application/json; charset =utf-16",), (b"application/json;charset=latin-1",),
    (b"application/json", b"text/plain"), (b"multipart/form-data; boundary=x",),
    (b"application/json" + b";" * 2_000,), (b"\xff",), (b"application/xml",),
)  # fmt: skip
BODIES = (
    b"", b"{", b"[]", b"null", b'"x"', b"{}", b'{"title": "Dune"}', b'{"title": null, "author": 5}',
    b'{"a": 1, "a": 2}', b'{"title": "\\ud800", "author": "A"}', b'{"title": "\xff"}',
    b'{"title": "\\u0000", "author": "A"}', b"[" * 100_000, b'{"stock_quantity": 1e999}',
    b'{"stock_quantity": ' + b"9" * 5_000 + b"}", b'{"title": ' * 2_000, b"NaN", b"\xef\xbb\xbf{}",
    b"\x00" * 100, b"title=%", b"title=a&title=b", b"_method=PATCH", b"_method=TRACE", b"_method=&" * 300,
    b"=&=&=", b"a=%FF", b"title=" + b"x" * 300, b'{"' + b"k" * 10_000 + b'": 1}', b'{"tags": [[[[[]]]]]}',
    b'{"name": "x", "stars": 99, "text": ""}', b"PK\x03\x04", b"\x1f\x8b\x08\x00", b'{"__proto__": {}}',
    b"x" * 1_100_000, b"{" + b",".join(b'"f%d": 1' % number for number in range(2_000)) + b"}",
)  # fmt: skip

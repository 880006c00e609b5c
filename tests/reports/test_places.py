from __future__ import annotations

import posixpath
from urllib.parse import unquote, unquote_to_bytes, urljoin, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxcheck.reports.places import located, uri


@pytest.mark.parametrize(
    ("file", "prefix", "windows", "expected", "relative"),
    [
        ("a.py", "", False, "a.py", True),
        ("src/a b.py", "", False, "src/a%20b.py", True),
        ("a.py", "packages/one", False, "packages/one/a.py", True),
        ("./a.py", "", False, "a.py", True),
        ("../two/a.py", "packages/one", False, "packages/two/a.py", True),
        ("../a.py", "", False, "../a.py", False),
        ("sub/..", "sub", False, "sub", True),
        ("..", "", False, "..", False),
        ("x:y/a.py", "", False, "x%3Ay/a.py", True),
        ("a#b?c%.py", "", False, "a%23b%3Fc%25.py", True),
        ("日本.py", "", False, "%E6%97%A5%E6%9C%AC.py", True),
        ("\udcff.py", "", False, "%FF.py", True),
        ("\ud800.py", "", False, "%ED%A0%80.py", True),
        ("a\nb\x1b.py", "", False, "a%0Ab%1B.py", True),
        ("/usr/lib/python3/a.py", "sub", False, "file:///usr/lib/python3/a.py", False),
        ("//tmp/a.py", "", False, "file:///tmp/a.py", False),
        ("a\\b.py", "", False, "a%5Cb.py", True),
        ("src\\a.py", "", True, "src/a.py", True),
        ("src\\a.py", "sub", True, "sub/src/a.py", True),
        ("C:\\Program Files\\a.py", "sub", True, "file:///C:/Program%20Files/a.py", False),
        ("C:\\a.py", "", False, "file:///C:/a.py", False),
        ("\\\\server\\share\\a.py", "", True, "file://server/share/a.py", False),
        ("<string>", "sub", False, "%3Cstring%3E", False),
    ],
)
def test_uris(file: str, prefix: str, windows: bool, expected: str, relative: bool) -> None:
    assert uri(file, prefix, windows=windows) == (expected, relative)


@given(st.text(min_size=1))
def test_a_uri_is_one_and_leads_back(file: str) -> None:
    address, relative = uri(file)
    assert address.isascii()
    assert not set(address) & set(' <>"{}|\\^`\n\r\t')
    parts = urlsplit(address)
    assert not parts.query
    assert not parts.fragment
    if relative:
        assert not parts.scheme
        assert not parts.netloc
        assert unquote_to_bytes(address) == posixpath.normpath(file).encode()
        assert unquote(urljoin("file:///top/", address)).startswith("file:///top/")


def test_where_a_file_is_from_the_top_of_the_checkout() -> None:
    assert located("a.py", "sub") == ("sub/a.py", True)
    assert located("/usr/a.py", "sub") == ("/usr/a.py", False)

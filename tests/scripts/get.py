"""get.py LIBRARY URL [NAME=VALUE...]: fetches URL by urllib, requests or httpx, unconfigured."""

import sys

from common import tell


def by_urllib(url, headers):
    import urllib.error
    import urllib.request

    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=20
        ) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def by_requests(url, headers):
    import requests

    answer = requests.get(url, headers=headers, timeout=20)
    return answer.status_code, answer.content


def by_httpx(url, headers):
    import httpx

    answer = httpx.get(url, headers=headers, timeout=20)
    return answer.status_code, answer.content


library, url, *headers = sys.argv[1:]
ways = {"urllib": by_urllib, "requests": by_requests, "httpx": by_httpx}
status, body = ways[library](url, dict(header.split("=", 1) for header in headers))
tell(status=status, body=body.decode())

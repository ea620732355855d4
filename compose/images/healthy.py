"""The health check of every image: `healthy.py URL` exits 0 when the URL answers with 200. Python alone."""

import http.client
import sys
from urllib.parse import urlsplit

WITHIN = 2.0  # seconds


def status(text: str) -> int:
    """The status with which a URL answers; follows nothing, heeds no proxy. Raises OSError, HTTPException."""
    url = urlsplit(text)
    connection = http.client.HTTPConnection(url.hostname or "127.0.0.1", url.port, timeout=WITHIN)
    connection.request("GET", f"{url.path}?{url.query}" if url.query else url.path)
    return connection.getresponse().status


def main(url: str) -> int:
    """0 when healthy; what is wrong goes to stderr, where `docker inspect` shows it."""
    try:
        found = status(url)
    except (OSError, http.client.HTTPException) as error:
        print(f"{url}: {error}", file=sys.stderr)
        return 1
    print(f"{url}: {found}", file=sys.stderr)
    return 0 if found == 200 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

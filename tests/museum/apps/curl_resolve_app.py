"""A client that is told the addresses of its upstreams for each request. The list that curl is given stays."""

import os
from urllib.parse import urlsplit

from asgi import service
from curl_cffi import requests
from curl_cffi.const import CurlOpt

port = urlsplit(os.environ["MUSEUM_UPSTREAM"]).port
addresses = [f"upstream-{number}.internal:{port}:127.0.0.1" for number in range(300)]
session = requests.Session(curl_options={CurlOpt.RESOLVE: addresses})


def fetch():
    session.get(f"http://upstream-1.internal:{port}/")


app = service(fetch)

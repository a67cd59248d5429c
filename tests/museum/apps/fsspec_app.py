"""A cached filesystem for each job, which is dropped after it. The folder that its files were kept in stays."""

import gc

import fsspec
from asgi import service

source = fsspec.filesystem("memory")
with source.open("/table", "wb") as file:
    file.write(bytes(300_000))


def job():
    cached = fsspec.filesystem("simplecache", fs=source, skip_instance_cache=True)
    with cached.open("/table", "rb") as file:
        file.read()
    del cached, file
    gc.collect()  # the filesystem and its parts hold each other


app = service(job)

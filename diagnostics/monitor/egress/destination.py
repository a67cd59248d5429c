"""Where artifacts go, `s3://bucket/prefix` and the like, and how they are named there. Pure.

Every name in the store is made here, from words of ours: a service, a host, a capture's id, an artifact's name. No part of it
comes from a peer, and none can climb out of the prefix. An address with anything that may be a credential (a user, a query)
is refused without being repeated: the store's own environment variables are the place for those.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote, urlsplit

from ...errors import UsageError

__all__ = ["ARTIFACT", "ID", "MANIFEST", "Destination", "folder_of", "is_path", "word"]

MANIFEST: Final = "manifest.json"
# The id of a capture, or of a recording: UTC with microseconds, and the kind.
ID: Final = re.compile(r"[0-9]{8}T[0-9]{6}-[0-9]{6}-[a-z]{1,20}")
ARTIFACT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

_SCHEMES: Final = ("s3", "gs", "az", "file")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,62}")
_SEGMENT = re.compile(r"[A-Za-z0-9_=+.,@-]{1,200}")
# What an error may repeat: a scheme and a path. With a second colon it may be a key and a secret whose `@` was forgotten, and
# without a scheme a secret that was pasted into the wrong variable.
_HARMLESS = re.compile(r"[a-z][a-z0-9]{0,9}:[A-Za-z0-9/._-]{0,300}")
_MAX_WORD = 63


@dataclass(frozen=True, slots=True)
class Destination:
    """A place in a store.

    scheme   s3, gs, az or file
    bucket   the bucket, Azure's container; "" for a folder
    prefix   the path below it without slashes at its ends; for a folder the absolute path
    """

    scheme: str
    bucket: str
    prefix: str

    @classmethod
    def parse(cls, url: str, name: str) -> Destination:
        """The destination that `url` names; errors call it `name`. Raises UsageError."""
        shown = f"{name} is {url!r}" if _HARMLESS.fullmatch(url) else f"{name} is no address of a store"
        remedy = "write s3://bucket/prefix, gs://bucket/prefix, az://container/prefix or file:///folder"
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise UsageError(shown, remedy=remedy) from error
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise UsageError(
                f"{name} has a user, a query or a fragment, which is not repeated here",
                remedy="leave credentials to the store's environment variables, such as AWS_ACCESS_KEY_ID",
            )
        path = unquote(parts.path) if parts.scheme == "file" else parts.path
        segments = [segment for segment in path.split("/") if segment]
        # urlsplit leaves line feeds and tabs out without a word.
        if not url.isprintable() or not path.isprintable() or {".", ".."} & set(segments):
            raise UsageError(shown, remedy=remedy)
        if parts.scheme not in _SCHEMES or port is not None:
            raise UsageError(shown, remedy=remedy)
        if parts.scheme == "file":
            if parts.netloc or not path.startswith("/"):
                raise UsageError(shown, remedy="write three slashes and an absolute path: file:///var/evidence")
            return cls("file", "", "/" + "/".join(segments))
        if not _BUCKET.fullmatch(parts.netloc) or not all(map(_SEGMENT.fullmatch, segments)):
            raise UsageError(shown, remedy=remedy)
        return cls(parts.scheme, parts.netloc, "/".join(segments))

    @property
    def url(self) -> str:
        if self.scheme == "file":
            return f"file://{self.prefix}"
        return f"{self.scheme}://{self.bucket}/{self.prefix}".rstrip("/")

    @property
    def name(self) -> str:
        """The last segment of the path; "" where there is none."""
        return self.prefix.rpartition("/")[2]

    @property
    def parent(self) -> Destination:
        """The place above; a bucket's own root, and that of a disk, is above itself."""
        above = self.prefix.rpartition("/")[0]
        return Destination(self.scheme, self.bucket, above or ("/" if self.scheme == "file" else ""))

    def below(self, path: str) -> Destination:
        """The place at a path of ours below this one."""
        prefix = f"{self.prefix.rstrip('/')}/{path}"
        return Destination(self.scheme, self.bucket, prefix if self.scheme == "file" else prefix.lstrip("/"))


def folder_of(service: str, host: str, upload_id: str) -> str:
    """The path of a capture below the destination. Raises ValueError where a part is not as `word` and `ID` make it."""
    if not service or service != word(service, "") or not host or host != word(host, "") or not ID.fullmatch(upload_id):
        raise ValueError(f"{service!r}, {host!r} and {upload_id!r} make no path")
    return f"{service}/{host}/{upload_id}"


def is_path(path: str) -> bool:
    """Whether a path in a store is one that may be shown and gone on with: segments as an address may have them, or none."""
    segments = path.split("/") if path else []
    return all(map(_SEGMENT.fullmatch, segments)) and not {".", ".."} & set(segments)


def word(text: str, usual: str) -> str:
    """A name of a service or host as one segment of a path: letters, digits, `.`, `_` and `-`; `usual` where none are left."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text)[:_MAX_WORD].strip("-._") or usual

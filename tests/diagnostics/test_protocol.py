from __future__ import annotations

import socket
import stat
import threading
from pathlib import Path

import pytest

from diagnostics.errors import ProtocolError, RefusedError, UsageError
from diagnostics.protocol import agent_socket, default_root, frame, private_folder, read_frame, request, socket_address


def exchange(data: bytes, limit: int = 1024) -> dict[str, object]:
    left, right = socket.socketpair()
    with left, right:
        writer = threading.Thread(target=lambda: (left.sendall(data), left.close()))
        writer.start()
        try:
            return read_frame(right, limit)
        finally:
            writer.join()


def test_a_message_arrives_as_it_was_sent() -> None:
    message = request("ledger", top=5, route="/stream/\u2028é")
    assert exchange(frame(message)) == message


@pytest.mark.parametrize("length", range(9))
def test_a_message_cut_off_anywhere_is_an_error_and_not_a_wait(length: int) -> None:
    with pytest.raises(ProtocolError, match="left with"):
        exchange(frame({"a": 1})[:length])


def test_a_message_larger_than_the_limit_is_refused_before_it_is_read() -> None:
    with pytest.raises(ProtocolError, match="2000000 bytes was announced, the limit is 1024"):
        exchange((2_000_000).to_bytes(4, "big"))


@pytest.mark.parametrize(("body", "says"), [(b"{", "not JSON"), (b"[1]", "must be a JSON object, not list")])
def test_what_is_not_an_object_is_an_error(body: bytes, says: str) -> None:
    with pytest.raises(ProtocolError, match=says):
        exchange(len(body).to_bytes(4, "big") + body)


def test_json_too_deep_to_be_read_is_an_error() -> None:
    with pytest.raises(ProtocolError, match="not JSON"):
        exchange((100_000).to_bytes(4, "big") + b"[" * 100_000, limit=200_000)


def test_a_message_that_drips_in_has_no_more_time_than_one_that_does_not_come() -> None:
    left, right = socket.socketpair()
    ending = threading.Event()

    def drip() -> None:
        left.sendall((10_000).to_bytes(4, "big"))
        while not ending.wait(0.05):
            left.sendall(b"x")

    with left, right:
        right.settimeout(0.5)
        writer = threading.Thread(target=drip)
        writer.start()
        try:
            with pytest.raises(TimeoutError):  # 10,000 bytes at this pace are 500 s
                read_frame(right, 65536)
            assert right.gettimeout() == 0.5
        finally:
            ending.set()
            writer.join()


def test_a_private_folder_is_closed_to_others(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(mode=0o755)
    private_folder(tmp_path / "open")
    assert stat.S_IMODE((tmp_path / "open").stat().st_mode) == 0o700
    private_folder(tmp_path / "new" / "one")
    assert stat.S_IMODE((tmp_path / "new" / "one").stat().st_mode) == 0o700


def test_a_link_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(RefusedError, match="is not a folder"):
        private_folder(tmp_path / "link")


def test_a_path_too_long_for_a_socket_is_named_with_the_remedy_where_there_is_no_way_around(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = agent_socket(tmp_path / ("long" * 30), 1)
    monkeypatch.delattr("os.O_PATH")  # as on macOS
    with pytest.raises(UsageError, match="DIAGNOSTICS_DIR to a shorter path"):
        socket_address(path)


def test_two_addresses_have_two_folders_and_one_address_always_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DIAGNOSTICS_DIR", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert default_root("127.0.0.1:6060") == default_root("127.0.0.1:6060")
    assert len({default_root("127.0.0.1:6060"), default_root("127.0.0.1:6061"), default_root("[::1]:6060")}) == 3

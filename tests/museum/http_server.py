"""An HTTP server on a free port that answers at once; its first line names it, as `beside` wants."""

import http.server


class Answers(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one piece: the client's kernel waits before it confirms the first of two

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "3")
        self.end_headers()
        self.wfile.write(b"ok\n")

    def log_request(self, code: object = "-", size: object = "-") -> None:
        """Nothing is logged."""


def main() -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()

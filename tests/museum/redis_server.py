"""A real Redis on a free port; its first line names it, as `beside` wants."""

import os

from diagnostics.proof.subjects.processes import free_port


def main() -> None:
    port = str(free_port())
    print(f"http://127.0.0.1:{port}", flush=True)
    os.execvp(
        "redis-server",
        ["redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--logfile", os.devnull],
    )


if __name__ == "__main__":
    main()

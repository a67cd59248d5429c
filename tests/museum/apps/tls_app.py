"""A service behind TLS that balancers probe without it: the handshake fails, and its buffers wait for the collector."""

import asyncio
import ssl
import subprocess
import sys

import uvicorn
from asgi import service

certificate, key = "certificate.pem", "key.pem"
subprocess.run(
    ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-out", certificate, "-keyout", key],
    check=True, stderr=subprocess.DEVNULL,
)  # fmt: skip
context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
context.load_cert_chain(certificate, key)
ports = []


async def probe():
    if not ports:
        server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0, ssl=context)
        ports.append(server.sockets[0].getsockname()[1])
        ports.append(server)
    reader, writer = await asyncio.open_connection("127.0.0.1", ports[0])
    writer.write(b"GET / HTTP/1.0\r\n\r\n")
    await reader.read()
    writer.close()


uvicorn.run(service(probe), host="127.0.0.1", port=int(sys.argv[1]), log_level="critical", lifespan="off")

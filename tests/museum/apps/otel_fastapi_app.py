"""An app for each tenant, instrumented while it is used. The instrumentor keeps a set of all that it ever had."""

from asgi import service
from fastapi import FastAPI
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor


def tenant():
    made = FastAPI()

    @made.get("/items")
    def items():
        return []

    FastAPIInstrumentor.instrument_app(made)
    made.openapi()
    FastAPIInstrumentor.uninstrument_app(made)


app = service(tenant)

"""A meter provider for each job, shut down after it. The class keeps a set of all readers there ever were."""

from asgi import service
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader


def job():
    provider = MeterProvider(metric_readers=[InMemoryMetricReader()])
    counter = provider.get_meter("job").create_counter("items")
    for number in range(20):
        counter.add(1, {"shard": str(number)})
    provider.shutdown()


app = service(job)

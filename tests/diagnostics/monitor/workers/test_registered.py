"""What a service registered with prometheus_client itself comes through the monitor's /metrics."""

from __future__ import annotations

from typing import Any

from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

APP = """
from fastapi import FastAPI
from prometheus_client import Counter, Gauge, Histogram

app = FastAPI()
asked = Counter("shop_asked", "Questions.", ["worker", "path"])
asked.labels("green", '/a"b').inc(3)
Histogram("shop_seconds", "Time taken.", buckets=(0.1, 1)).observe(0.5, {"trace_id": "0af7651916cd43dd8448eb211c80319c"})
Gauge("memory_rss_bytes", "Not the monitor's own.").set(1)
many = Gauge("shop_users", "A label that grows.", ["user"])

@app.get("/grow")
async def grow(n: int):
    for number in range(n):
        many.labels(str(number)).set(number)
"""


def test_the_services_own_metrics_are_passed_on(observed: Any, http: Any, eventually: Any) -> None:
    service = observed(APP)
    url = f"{service.monitor}/metrics"

    def families() -> Any:
        found = {family.name: family for family in prometheus(http(url).body.decode())}
        return found if "shop_asked" in found else None

    found = eventually(families)
    (sample,) = [one for one in found["shop_asked"].samples if one.name == "shop_asked_total"]
    assert sample.labels == {"worker": "0", "exported_worker": "green", "path": '/a"b'}
    assert sample.value == 3
    assert found["shop_asked"].documentation == "Questions."
    # The name is the monitor's: its own figure stands, once.
    (own,) = found["memory_rss_bytes"].samples
    assert own.value > 1_000_000

    told = http(url, headers={"Accept": "application/openmetrics-text; version=1.0.0"}).body.decode()
    seconds = next(family for family in openmetrics(told) if family.name == "shop_seconds")
    (exemplar,) = [one.exemplar for one in seconds.samples if one.exemplar]
    assert (exemplar.labels, exemplar.value) == ({"trace_id": "0af7651916cd43dd8448eb211c80319c"}, 0.5)


def test_a_label_without_an_end_is_read_up_to_a_bound(observed: Any, http: Any, eventually: Any) -> None:
    service = observed(APP)
    http(f"{service.url}/grow?n=6000")
    url = f"{service.monitor}/metrics"
    body = eventually(lambda: (text := http(url).body) and b"shop_users" in text and text)
    assert 1000 < body.count(b"shop_users{") <= 5000
    assert b"diagnostics_agent_up" in body


def test_a_service_that_does_not_use_it_has_none(observed: Any, http: Any, eventually: Any) -> None:
    service = observed("from fastapi import FastAPI\napp = FastAPI()\n")
    body = eventually(lambda: (text := http(f"{service.monitor}/metrics").body) and b"_up{worker" in text and text)
    assert b"process_cpu_seconds_total" not in body

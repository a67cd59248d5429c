"""The metrics over OTLP: those of calls to upstreams, those of requests, and the histograms of both."""

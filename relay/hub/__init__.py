"""Topics: fan-out of published events, and resumption by Last-Event-ID. docs/topics.md is the manual."""

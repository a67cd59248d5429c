"""Events out to Kafka: the facts of each stream that has ended, as CloudEvents. docs/events.md is the manual."""

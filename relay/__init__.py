"""The reference relay: forwards OpenAI-style streams with bounded memory, and is instrumented end to end."""

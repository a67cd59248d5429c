"""The workers of the service: who they are, the conversation with their agents, and what each holds."""

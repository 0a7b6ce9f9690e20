"""Payloads of the SDK's triggers: superjson, and those that it stores apart."""

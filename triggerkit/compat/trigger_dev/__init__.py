"""The API that `@trigger.dev/sdk` calls, in its shapes."""

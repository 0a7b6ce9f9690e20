"""Each example is started, and its README's commands are typed."""

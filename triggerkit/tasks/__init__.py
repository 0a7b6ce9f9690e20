"""Tasks as their authors declare and trigger them; `worker` executes them."""

"""The way of pushes through tunnels, to endpoints on somebody's own machine."""

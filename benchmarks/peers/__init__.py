"""Peers that search for merges, in the same run: each in its own process and environment.

    python -m benchmarks.peers [--quick] [--targets number-pt] [--peers ours peft ...]

`catalogue` says who takes part, `children` holds one program a peer, run by that peer's Python.
"""

"""The commands of `tsla COMMAND`, a file each: flags in, a call, text out.

A module has one `main(argv)` that returns the exit code. What a command does is
written in the room it calls, and training's own command line in `tsla.config`.
"""

"""The commands of `tsla COMMAND`, a file each: flags in, a call, text out.

Each has one `main(argv)` that returns the exit code; `parser` has what they
share. What a command does is written in the room it calls, and the command line
of training in `tsla.config`.
"""

"""The commands of `tsla COMMAND`, a file each: flags in, a call, text out.

`parser` has what they share; training's command line is in `tsla.config`.
"""

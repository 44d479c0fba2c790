"""The command lines: flags in, text and an exit code out."""

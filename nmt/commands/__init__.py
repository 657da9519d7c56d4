"""The commands of `nmt`, a module for each kind of use. Each imports what it needs when it runs, so that `--help` answers at once."""

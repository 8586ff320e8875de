"""One file per task; the file name is its registry entry. See README.md for how to add one."""

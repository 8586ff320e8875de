"""The tasks, one file each; a task is named by its file. The README says how to add one."""

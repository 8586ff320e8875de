"""The methods: each file is one kind of adapter, read back by ``from_state``. They do not import each other."""

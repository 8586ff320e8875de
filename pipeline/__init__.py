"""selfadapt: the library behind the stages. See README.md for the file tree and the way of the data."""

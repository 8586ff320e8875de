"""Pictures: signs that are drawn here, and the files of any others, read within bounds."""

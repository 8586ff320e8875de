"""The report's figures: what is drawn (``choose``), and how (``draw``, ``skills``)."""

"""Several runs compared: arms × seeds, their results, comparison, figures, report."""

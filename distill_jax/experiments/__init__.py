"""Several runs beside each other: arms × seeds, their results, comparison, figures, report."""

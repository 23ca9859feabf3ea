"""Written steps of a solution, judged exactly."""

"""Reports of runs and experiments: sections as data, a Markdown and an HTML writer."""

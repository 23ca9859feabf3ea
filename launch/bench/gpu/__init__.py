"""The steps of gpu_run.sh: what a first run on a GPU measures."""

"""Evaluation: accuracy with intervals, per level; comparison of two models; the report."""

"""What a run owns: its work directory."""

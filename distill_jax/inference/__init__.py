"""Generation of answers over a store on disk, so that a stopped program resumes."""

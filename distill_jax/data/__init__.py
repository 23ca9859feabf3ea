"""Problems, tokenizer, prompt format and batches."""

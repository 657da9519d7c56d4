"""Text: Unicode normalisation, splitting of long text, and the SentencePiece tokenizer that owns the vocabulary."""

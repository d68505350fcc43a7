"""The language-model half: models and texts by source, fine-tuning, perplexity. Never imports posgen."""

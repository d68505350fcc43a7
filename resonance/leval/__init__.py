"""L-Eval's closed-ended tasks: questions, prompts, answers, two parsers, counts. Only `answering` loads torch."""

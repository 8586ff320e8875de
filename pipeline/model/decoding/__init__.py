"""Token after token: a batch of prompts, their prefill, the decode step, answering, weighing, the cache, sampling."""

"""Token after token: batches, prefill, the decode loop, weighing given answers, the cache, sampling."""

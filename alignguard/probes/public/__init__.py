"""Published benchmarks as probes, from the hub or from a local file; one small file a kind. None of their texts ship."""

"""The rating core: records of a log in, outcomes out. Pure, synchronous, deterministic. The laws are in README.md."""

"""The embedded stack of the demo and the tests: PostgreSQL, Kafka and Ray on this machine, without containers."""

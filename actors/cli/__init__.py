"""The commands of `tallygate`, a file per group. What starts Kafka's or Postgres' client is imported when it is called for."""

"""The SQL of the product, read from `actors/sql/queries.sql` once at import."""

from pathlib import Path


def read_queries(text: str) -> dict[str, str]:
    """Queries by name. One starts at `-- name: x`; comment lines right below describe it, and one is required."""
    queries: dict[str, str] = {}
    for block in ("\n" + text).split("\n-- name:")[1:]:
        name, _, rest = block.partition("\n")
        name = name.strip()
        lines = rest.strip().splitlines()
        if not lines or not lines[0].startswith("-- "):
            raise ValueError(f"query {name!r} has no description: put a comment line below its name")
        sql = "\n".join(line for line in lines if not line.startswith("--")).strip()
        if not sql:
            raise ValueError(f"query {name!r} is empty")
        if name in queries:
            raise ValueError(f"query {name!r} is there twice: rename one")
        queries[name] = sql
    return queries


QUERIES = read_queries((Path(__file__).parent / "sql" / "queries.sql").read_text(encoding="utf-8"))

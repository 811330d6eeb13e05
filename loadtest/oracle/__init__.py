"""A second, slow and obvious implementation of the rating core, to check the first one with.

It folds the same log by the same text (`engine/README.md`) and imports nothing of the product: a mistake would
have to be made twice, independently, to go unseen. Where the engine keeps aggregates and guards, the oracle keeps
every rated event and derives. Money is exact until the one rounding the law names: until then it is counted in
grains, parts of a pico so small that every price of every catalogue is a whole number of them.

`fold.py` is where to begin; it reads records by `records.py`, finds prices by `catalogue.py`, owes by
`prices.py`, pays by `credit.py`.
Times are microseconds since 1970 UTC, money pico-units (10^-12), quantities nano-units (10^-9), all integers.
"""

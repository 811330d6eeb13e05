"""Integer money and quantities: parsing, printing, and the only rounding (laws M1 and M2).

Money counts pico-units (10^-12) of a currency, quantities count nano-units (10^-9).
"""

import re
from decimal import Decimal
from typing import Final

PICO: Final = 10**12
NANO: Final = 10**9

WHOLE_DIGITS_MAX: Final = 18
_WHOLE_LIMIT: Final = 10**WHOLE_DIGITS_MAX
_DECIMAL: Final = re.compile(r"(-?)([0-9]{1,18})(?:\.([0-9]{1,12}))?", re.ASCII)


class NotADecimal(ValueError):
    """The text is not a plain decimal within the limits of law M1."""


def _scaled(text: str, fraction_digits: int) -> int:
    match = _DECIMAL.fullmatch(text)
    fraction = (match[3] or "") if match else ""
    if match is None or len(fraction) > fraction_digits:
        raise NotADecimal(
            f"{text[:40]!r} is not a decimal with at most {WHOLE_DIGITS_MAX} digits before the point "
            f"and {fraction_digits} after it"
        )
    value = int(match[2] + fraction.ljust(fraction_digits, "0"))
    return -value if match[1] else value


def parse_amount(text: str) -> int:
    """Pico-units from decimal text such as "0.15". Raises NotADecimal."""
    return _scaled(text, 12)


def parse_quantity(value: object) -> int:
    """Nano-units from a JSON number as written (int or Decimal) or from decimal text. Raises NotADecimal."""
    if type(value) is int:
        if -_WHOLE_LIMIT < value < _WHOLE_LIMIT:
            return value * NANO
        raise NotADecimal(f"a whole number of more than {WHOLE_DIGITS_MAX} digits")
    if type(value) is Decimal:
        exponent = value.as_tuple().exponent
        # Python prints 0.0000001 with an exponent, unless asked for plain digits; those of 1E-99999 would fill a page.
        plain = type(exponent) is int and -9 <= exponent <= 0
        return _scaled(f"{value:f}" if plain else str(value), 9)
    if type(value) is str:
        if len(value) <= WHOLE_DIGITS_MAX and value.isascii() and value.isdecimal():
            return int(value) * NANO  # as most are: a count of tokens
        return _scaled(value, 9)
    raise NotADecimal(f"a {type(value).__name__} is not a plain decimal number")


def amount_text(pico: int) -> str:
    """Decimal text in currency units: all twelve fractional digits, or none when the amount is whole."""
    if pico < 0:
        return f"-{amount_text(-pico)}"
    whole, fraction = divmod(pico, PICO)
    return f"{whole}.{fraction:012d}" if fraction else str(whole)


def quantity_text(nano: int) -> str:
    """Decimal text in whole units: all nine fractional digits, or none when the quantity is whole."""
    if nano < 0:
        return f"-{quantity_text(-nano)}"
    whole, fraction = divmod(nano, NANO)
    return f"{whole}.{fraction:09d}" if fraction else str(whole)


def round_half_even(numerator: int, denominator: int) -> int:
    """numerator / denominator as an integer; a tie goes to the even neighbour. The denominator is positive."""
    quotient, remainder = divmod(numerator, denominator)
    twice = 2 * remainder
    if twice > denominator or (twice == denominator and quotient & 1):
        return quotient + 1
    return quotient

"""A whole amount in whole parts: by largest remainder, so that nothing is lost and nothing made."""

from collections.abc import Sequence


def largest_remainder(amount: int, weights: Sequence[int]) -> list[int]:
    """`amount` (0 or more) in proportion to the weights (0 or more, not all of them 0), which it sums to exactly.

    What the floors leave goes, one by one, to the largest remainders; of equal ones to the earlier weight."""
    total = sum(weights)
    divided = [divmod(amount * weight, total) for weight in weights]
    parts = [part for part, _ in divided]
    left = amount - sum(parts)
    if left:
        remainders = [remainder for _, remainder in divided]
        for index in sorted(range(len(parts)), key=remainders.__getitem__, reverse=True)[:left]:
            parts[index] += 1
    return parts

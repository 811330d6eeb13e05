"""What requests cost: GPU time attributed to what ran on it, to the last pico (README, "Cost"). `served.py` is what comes in.
Rating knows nothing of it."""

"""Scripts that measure what the product stands for and print ratios; never part of the tests."""

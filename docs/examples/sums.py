"""What an answer to a sum is worth, and what is wrong with it."""

import re


def reward(task, response):
    numbers = re.findall(r"-?\d{1,9}", response)
    if not numbers:
        return 0.0, "There is no number in your answer."
    miss = int(numbers[-1]) - task.content["answer"]
    if miss == 0:
        return 1.0
    return 1 / (1 + abs(miss)), f"{numbers[-1]} is too {'large' if miss > 0 else 'small'} by {abs(miss)}."

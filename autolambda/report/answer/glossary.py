"""The words of a report, explained for a reader who meets them first here."""

GLOSSARY = {
    "lambda": "How much of the Thinking model is in a merge: 0 is the Instruct model, 1 is the Thinking model.",
    "merge, schedule": (
        "A merge has one lambda for all weights, or a schedule: one lambda for the attention weights and one for the "
        "feed-forward (ffn) weights, or values from the first layer to the last (0.46→0.33→0.48; layers between "
        "are on straight lines; 0.20|0.80 are bands of equal lambda)."
    ),
    "trial": "One merge that the search measured. Its number names it in commands: --trial 8.",
    "tokens": "Generated tokens a response on average, thinking and the end token included. A budget limits this mean.",
    "accuracy": "The share of responses that the grader of the task found correct.",
    "Think ratio (think %)": "The share of responses that think before they answer: they hold the closing think tag.",
    "stage": (
        "1: hardly any response thinks (under 5 %). 2: some do. 3: nearly all do (over 95 %). It is the same in every "
        "table: by the check on new prompts if there was one, else by the estimate."
    ),
    "cut %": "The share of responses that reached the cap on tokens and were cut off.",
    "measured": "Plain means over the prompts of the search. The best of many measurements looks too good by luck.",
    "estimated": "The search's estimate for a merge, learned from all trials together. It evens out luck.",
    "confirmed": "Measured again on prompts that the search never saw. Only these numbers are free of luck.",
    "front": "The merges that no other one beats in both accuracy and tokens.",
    "95 % interval": "The small numbers: the range that holds the true value in 95 of 100 such studies.",
    "points": "Differences in accuracy: from 90 % to 88 % is 2 points less.",
}
"""Each word with its explanation."""

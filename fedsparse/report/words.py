"""What the words of a page mean."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from fedsparse.measures import baselines
from fedsparse.report.sections import METRICS, Section


def words(sections: Sequence[Section]) -> str:
    """What the words mean, one line each."""
    lines = {}
    for section in sections:
        meaning = METRICS.get(section.metric, ("", f"{'Higher' if section.higher else 'Lower'} is better"))[1]
        lines[section.word] = f"{meaning}; of the global model on the central test set. A dash: the strategy has none."
    near = dict.fromkeys("95 % of FedAvg's final" if s.higher else "1.05 times FedAvg's final error" for s in sections)
    lines |= {
        "Personal": "The same of the model that each client would use, on its own test part, mean over the clients.",
        "Final": "Each result is the mean over the evaluated rounds in the last tenth of the rounds, never the best.",
        "Density": "Share kept of the weights of convolutional and linear layers, at the end.",
        "MB": "1,000,000 bytes of training messages as encoded, lost and repeated ones too, of all clients and rounds.",
    }
    if any(section.table["seed"].nunique() > 1 for section in sections):
        lines["±"] = "Standard deviation over the seeds; differences to FedAvg are taken seed by seed."
    if any(any(baselines(section.table).values()) for section in sections):
        goal = f"MB both ways until the global model first reaches {' or '.join(near)} on the same seed."
        lines["MB to target"] = f"{goal} A dash: not on every seed."
    if any(section.clocked for section in sections):
        lines["Simulated time"] = (
            "What the run would take on the devices of its config: for each client's task download, arithmetic and "
            "upload, of the bytes and operations that were booked. A round lasts until the last reply is there, or the "
            "first so many where more clients were asked than needed, or until the deadline where a reply is late or "
            "lost."
        )
        lines["Time to target"] = "As MB to target, in simulated time."
    if any(section.budget for section in sections):
        lines["At equal MB"] = (
            "Linear between evaluated rounds over the training MB so far; a curve that ends up to 3 % below counts "
            "with its last value."
        )
    terms = "".join(f"<dt>{escape(term)}</dt><dd>{escape(text)}</dd>" for term, text in lines.items())
    return f"<section><h2>What the words mean</h2><dl>{terms}</dl></section>\n"

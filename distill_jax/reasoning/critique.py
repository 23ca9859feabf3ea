r"""What a judge of written steps is asked, in ProcessBench's form (arXiv 2412.06559), and its vote.

The judge sees the problem and the solution, never the gold answer. What it answers is read by
`step_labels.judged_first_wrong`, from its own text alone.
"""

import re
from collections import Counter
from collections.abc import Sequence

_QUESTION = """\
The following is a math problem and a solution (split into paragraphs, enclosed with tags and \
indexed from 0):

[Math Problem]

{question}

[Solution]

{solution}

Your task is to review and critique the solution paragraph by paragraph. Once you identify an \
error in a paragraph, return the index of the paragraph where the earliest error occurs. \
Otherwise, return the index of -1 (which typically denotes "not found").

Please put your final answer (i.e., the index) in \\boxed{{}}."""
_TAG = re.compile(r"<(?=\s*/?\s*paragraph)", re.IGNORECASE)


def critique(question: str, steps: Sequence[str]) -> str:
    """The judge's question; tags that a step writes itself lose their first sign."""
    parts = [
        f"<paragraph_{number}>\n{_TAG.sub('', step)}\n</paragraph_{number}>"
        for number, step in enumerate(steps)
    ]
    return _QUESTION.format(question=question, solution="\n\n".join(parts))


def majority(votes: Sequence[int | None]) -> int | None:
    """The index that most votes name, those that name none aside; None where two are named most."""
    named = Counter(vote for vote in votes if vote is not None).most_common(2)
    if not named or (len(named) == 2 and named[0][1] == named[1][1]):
        return None
    return named[0][0]

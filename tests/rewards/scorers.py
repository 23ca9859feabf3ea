"""A small teacher on a mesh, and one that notes its calls."""

from distill_jax.rewards.teacher import TeacherScorer
from tests import tiny


def scorer(model, mesh=None):
    """The teacher of (model, parameters)."""
    mesh = mesh or tiny.mesh()
    own = model[0].replace(fuse=mesh.shape["tensor"] == 1)
    params = tiny.placed(model[1], mesh)
    return TeacherScorer(own, params, mesh, alpha=0.7, vocab=tiny.VOCAB)


class Spy:
    """Stands for a scorer; `shapes` is for those of its calls."""

    def __init__(self, teacher):
        self.teacher, self.model, self.vocab = teacher, teacher.model, teacher.vocab
        self.kind, self.alphas, self.shapes = teacher.kind, teacher.alphas, []

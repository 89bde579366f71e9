"""One experiment on the handwritten digits that scikit-learn ships: its configuration and its computation.

The heavy imports sit inside the methods: building, validating and looking up a configuration needs none of them.
"""

import time
import typing as tp

import pydantic

import exca

if tp.TYPE_CHECKING:
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.svm import SVC


class Data(pydantic.BaseModel):
    """1797 images of 8 x 8 pixels (grey levels 0 to 16), split into training and test images."""

    model_config = pydantic.ConfigDict(extra="forbid")
    noise: pydantic.NonNegativeFloat = 0.0  # standard deviation of the noise, in grey levels
    test_fraction: float = pydantic.Field(default=0.5, gt=0, lt=1)
    seed: int = 0

    def split(self) -> list[tp.Any]:
        """Return training images, test images, training labels, test labels."""
        import numpy as np
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        images, labels = load_digits(return_X_y=True)
        images = images + np.random.default_rng(self.seed).normal(scale=self.noise, size=images.shape)
        split: list[tp.Any] = train_test_split(
            images, labels, test_size=self.test_fraction, random_state=self.seed, stratify=labels
        )
        return split


class SupportVectors(pydantic.BaseModel):
    """A support vector machine with a Gaussian kernel."""

    model_config = pydantic.ConfigDict(extra="forbid")
    name: tp.Literal["svm"] = "svm"
    penalty: pydantic.PositiveFloat = 1.0

    def build(self) -> "SVC":
        from sklearn.svm import SVC

        return SVC(C=self.penalty)


class Forest(pydantic.BaseModel):
    """A random forest."""

    model_config = pydantic.ConfigDict(extra="forbid")
    name: tp.Literal["forest"] = "forest"
    trees: pydantic.PositiveInt = 100
    depth: int | None = None

    def build(self) -> "RandomForestClassifier":
        from sklearn.ensemble import RandomForestClassifier

        return RandomForestClassifier(n_estimators=self.trees, max_depth=self.depth, random_state=0)


class Score(tp.TypedDict):
    """What one experiment gives."""

    accuracy: float  # share of the test images that were recognised
    seconds: float  # time to train and to test


class Experiment(pydantic.BaseModel):
    """Train one model on the noisy digits and measure its accuracy."""

    data: Data = Data()
    model: SupportVectors | Forest = pydantic.Field(default=SupportVectors(), discriminator="name")
    infra: exca.TaskInfra = exca.TaskInfra(version="1")

    @infra.apply
    def score(self) -> Score:
        """Train and test; computed once for each configuration, wherever the infra says."""
        train_images, test_images, train_labels, test_labels = self.data.split()
        start = time.perf_counter()
        model = self.model.build()
        model.fit(train_images, train_labels)
        accuracy = float(model.score(test_images, test_labels))
        return {"accuracy": accuracy, "seconds": time.perf_counter() - start}

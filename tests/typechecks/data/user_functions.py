"""A user's plain functions, as type checkers see them: marked as `user_infras.py` is."""

import typing as tp

import exca


@exca.cached(folder="cache", version="2", cluster="local", mem_gb=4)
def train(layers: int, name: str = "adam", *, rate: float = 1e-3) -> list[float]:
    return [rate] * layers


@exca.cached("cache", ignore=["verbose"])
def fit(size: int, verbose: bool = False) -> str:
    return str(size)


@exca.map_cached(folder="cache", cluster="processpool", max_jobs=4)
def embed(word: str, size: int = 3) -> tuple[float, ...]:
    return (1.0,) * size


class Holder:
    @staticmethod
    @exca.cached(folder="cache")
    def double(value: int) -> int:
        return 2 * value


memory = exca.cached(folder="cache", unannotated="hash")


@memory.cache
def one(x: int) -> int:
    return x


@memory.cache(ignore=["y"])
def two(x: int, y: str) -> bytes:
    return b""


# A cached function has the signature of the plain one
reveal_type(train(3))  # R: list[float]
reveal_type(train(3, "sgd", rate=0.1))  # R: list[float]
reveal_type(train.func)  # R: (layers: int, name: str = ..., *, rate: float = ...) -> list[float]
reveal_type(train.submit(3).result())  # R: list[float]
reveal_type(train.infra_of(3, rate=0.5))  # R: TaskInfra
reveal_type(train.config(3).build())  # R: list[float]
reveal_type(train.using(cluster="slurm", slurm_partition="gpu")(3))  # R: list[float]
reveal_type(fit(3, verbose=True))  # R: str
reveal_type(Holder.double(3))  # R: int
reveal_type(Holder().double(3))  # R: int
reveal_type(one(3))  # R: int
reveal_type(two(3, "a"))  # R: bytes
train("many")  # E: arg-type, reportArgumentType
train(3, typo=1)  # E: call-arg, reportCallIssue
train()  # E: call-arg, reportCallIssue
train.submit("many")  # E: arg-type, reportArgumentType
train.infra_of(3, rate="x")  # E: arg-type, reportArgumentType
train.using(clutser="slurm")  # E: call-arg, reportCallIssue
two(3)  # E: call-arg, reportCallIssue
exca.cached(folder="cache", clutser="slurm")  # E: call-arg, reportCallIssue
exca.cached(folder="cache", cluster=3)  # E: arg-type, reportArgumentType
exca.cached(folder="cache", unannotated="any")  # E: arg-type, reportArgumentType

# Calls that are submitted together
with train.job_array(max_workers=8) as calls:
    calls.append(3, rate=0.5)
    calls.append("many")  # E: arg-type, reportArgumentType
reveal_type(calls.results())  # R: list[list[float]]
reveal_type(calls.jobs()[0].result())  # R: list[float]
reveal_type(calls[0].build())  # R: list[float]
reveal_type([call.build() for call in train.iter_cached()])  # R: list[list[float]]

# A mapped one takes an item, or many
reveal_type(embed("a"))  # R: tuple[float, ...]
reveal_type(embed("a", size=4))  # R: tuple[float, ...]
reveal_type(embed.map(["a", "b"], size=4))  # R: Iterator[tuple[float, ...]]
reveal_type(embed.map({"a", "b"}, 4))  # R: Iterator[tuple[float, ...]]
reveal_type(embed.infra_of(size=4))  # R: MapInfra
reveal_type(embed.using(cluster="threadpool").map(["a"]))  # R: Iterator[tuple[float, ...]]
embed(3)  # E: arg-type, reportArgumentType
embed.map([3])  # E: list-item, reportArgumentType
embed.map(["a"], size="b")  # E: arg-type, reportArgumentType
embed.infra_of("a")  # E: arg-type, reportArgumentType

# Fields from a file
fields: dict[str, tp.Any] = {"folder": "cache", "cluster": "slurm"}
reveal_type(exca.cached(**fields)(train.func)(3))  # R: list[float]

"""CTX006: a job waits for a job that was submitted after it to the same pool.  In the near miss that comes first."""

from concurrent.futures import Future, ThreadPoolExecutor

EXPECT = ["CTX006"]


def fetch(part: int) -> int:
    return part


def fetch_all(pool: ThreadPoolExecutor) -> int:
    return sum([future.result() for future in [pool.submit(fetch, part) for part in range(2)]])


def add(futures: "list[Future[int]]") -> int:
    return sum([future.result() for future in futures])


def broken() -> None:
    with ThreadPoolExecutor(2) as pool:
        pool.submit(fetch_all, pool).result()  # two of them at once keep both workers, and fetch() gets none


def near_miss() -> None:
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(fetch, part) for part in range(2)]
        pool.submit(add, futures).result()


if __name__ == "__main__":
    broken()

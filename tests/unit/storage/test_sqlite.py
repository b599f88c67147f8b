"""The database: durable groups, units that fail alone, and files that are refused rather than guessed at."""

from __future__ import annotations

import asyncio
import random
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import apsw
import pytest

from rawr.errors import CorruptFileError, StorageError
from rawr.storage.faults import StorageFullError, StorageIsDirectoryError, StorageReadOnlyError
from rawr.storage.lock import FileLock
from rawr.storage.sqlite import (
    Connection,
    ConstraintError,
    Database,
    DatabaseBusyError,
    DatabaseClosedError,
    DatabaseCorruptError,
    Migration,
    SchemaChangedError,
    SchemaNewerError,
    one,
    rows,
    run,
)

TABLE = Migration(name="t", sql="CREATE TABLE t (n INTEGER PRIMARY KEY, text TEXT) STRICT; CREATE INDEX i ON t (text)")
MIGRATIONS = (TABLE,)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "test.sqlite"


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    with Database(path, MIGRATIONS) as opened:
        yield opened


def insert(n: int, text: str = "") -> Callable[[Connection], int]:
    return lambda connection: connection.execute("INSERT INTO t VALUES (?, ?) RETURNING n", (n, text))[0][0]


def numbers(database: Database) -> list[int]:
    return [n for (n,) in database.read_sync(lambda connection: rows(connection, "SELECT n FROM t ORDER BY n"))]


def bulk(text: str) -> Callable[[Connection], None]:
    return lambda connection: run(connection, "INSERT INTO t (text) VALUES (?)", (text,))


# --- units


def test_a_unit_reads_its_own_writes_and_its_answer_reaches_the_caller(database: Database) -> None:
    def unit(connection: Connection) -> tuple[int, int]:
        run(connection, "INSERT INTO t VALUES (1, 'a'); INSERT INTO t VALUES (2, 'b')")
        updated = rows(connection, "UPDATE t SET text = 'c' RETURNING n")
        row = one(connection, "SELECT count(*) FROM t WHERE text = :text", {"text": "c"})
        assert row is not None
        return len(updated), row[0]

    assert database.write_sync(unit) == (2, 2)
    assert numbers(database) == [1, 2]


def test_values_come_back_as_they_were_given(database: Database) -> None:
    texts = ["", "a\u0000b", "\U0001f680", "\ufeff", "x" * 1_000_000, None]
    for text in texts:
        database.write_sync(lambda connection, text=text: run(connection, "INSERT INTO t (text) VALUES (?)", (text,)))  # type: ignore[misc]
    assert [text for (text,) in database.read_sync(lambda c: rows(c, "SELECT text FROM t ORDER BY n"))] == texts


def test_strict_tables_refuse_other_types_and_the_unit_may_go_on(database: Database) -> None:
    def unit(connection: Connection) -> str:
        try:
            run(connection, "INSERT INTO t (text) VALUES (?)", (b"bytes",))
        except ConstraintError as error:
            run(connection, "INSERT INTO t VALUES (1, 'instead')")
            return error.code
        return ""

    assert database.write_sync(unit) == "CONSTRAINT_FAILED"
    assert numbers(database) == [1]


def test_a_unit_that_fails_undoes_itself_alone(database: Database) -> None:
    def fails(connection: Connection) -> None:
        run(connection, "INSERT INTO t VALUES (1000, 'x'); DELETE FROM t WHERE n < 1000")
        raise ZeroDivisionError

    async def main() -> list[object]:
        units = [insert(1), fails, insert(2), insert(1), insert(3), fails]
        return await asyncio.gather(*(database.write(unit) for unit in units), return_exceptions=True)

    answers = asyncio.run(main())
    assert [type(answer).__name__ for answer in answers] == [
        "int",
        "ZeroDivisionError",
        "int",
        "ConstraintError",
        "int",
        "ZeroDivisionError",
    ]
    assert numbers(database) == [1, 2, 3]


def test_what_nobody_waits_for_comes_before_what_follows_and_before_the_close(path: Path) -> None:
    with Database(path, MIGRATIONS) as database:
        early = database.write_soon(insert(1))
        assert database.write_sync(lambda c: rows(c, "SELECT n FROM t")) == [(1,)]
        assert early.result(60) == 1
        late, refused = database.write_soon(insert(2)), database.write_soon(insert(1))
    assert late.result(60) == 2
    with pytest.raises(ConstraintError):
        refused.result(60)
    with Database(path, MIGRATIONS) as again:
        assert numbers(again) == [1, 2]


def test_many_writers_share_one_transaction(database: Database, path: Path) -> None:
    wal = path.with_name(path.name + "-wal")
    entered, let_go = threading.Event(), threading.Event()

    def slow(_: Connection) -> None:
        entered.set()
        assert let_go.wait(30)

    async def main() -> int:
        first = asyncio.create_task(database.write(slow))
        await asyncio.to_thread(entered.wait, 30)
        others = [asyncio.create_task(database.write(insert(n))) for n in range(200)]
        await asyncio.sleep(0)
        before = wal.stat().st_size
        let_go.set()
        await asyncio.gather(first, *others)
        return wal.stat().st_size - before

    # Alone, each would write the page of the table and the one of the index: 400 pages and more.
    assert asyncio.run(main()) < 40 * 4096
    assert len(numbers(database)) == 200


def test_an_answer_means_that_another_connection_sees_it(database: Database, path: Path) -> None:
    other = apsw.Connection(str(path))

    async def main() -> None:
        for n in range(20):
            await database.write(insert(n))
            assert list(other.execute("SELECT count(*) FROM t")) == [(n + 1,)]

    asyncio.run(main())
    other.close()


def test_a_wrong_statement_is_a_fault_of_ours_and_does_not_stop_the_writer(database: Database) -> None:
    with pytest.raises(apsw.SQLError, match="no such table"):
        database.write_sync(lambda connection: run(connection, "INSERT INTO nowhere VALUES (1)"))
    with pytest.raises(apsw.SQLError):
        database.write_sync(lambda connection: run(connection, "ROLLBACK; SELECT nonsense"))
    assert database.write_sync(insert(1)) == 1


def test_a_unit_that_ends_the_transaction_fails_its_group_and_the_next_group_works(database: Database) -> None:
    with pytest.raises(apsw.SQLError):
        database.write_sync(lambda connection: run(connection, "INSERT INTO t VALUES (1, ''); ROLLBACK"))
    assert database.write_sync(insert(2)) == 2
    assert numbers(database) == [2]


# --- readers


def test_a_read_is_one_snapshot_and_cannot_write(database: Database) -> None:
    database.write_sync(insert(1))

    def unit(connection: Connection) -> tuple[list[tuple[int]], list[tuple[int]]]:
        before = rows(connection, "SELECT n FROM t")
        database.write_sync(insert(2))
        return before, rows(connection, "SELECT n FROM t")

    assert database.read_sync(unit) == ([(1,)], [(1,)])
    assert numbers(database) == [1, 2]
    with pytest.raises(StorageReadOnlyError):
        database.read_sync(insert(3))
    assert numbers(database) == [1, 2]


def test_many_readers_at_once_are_answered(database: Database) -> None:
    database.write_sync(insert(1))

    async def main() -> list[list[tuple[int]]]:
        return await asyncio.gather(*(database.read(lambda c: rows(c, "SELECT n FROM t")) for _ in range(50)))

    assert asyncio.run(main()) == [[(1,)]] * 50


def test_the_data_version_changes_with_every_commit_of_anybody(database: Database, path: Path) -> None:
    seen = [database.data_version()]
    assert database.data_version() == seen[0]
    database.write_sync(insert(1))
    seen.append(database.data_version())
    with Database(path, MIGRATIONS) as other:
        other.write_sync(insert(2))
    seen.append(database.data_version())
    with pytest.raises(ZeroDivisionError):
        database.write_sync(lambda _: 1 // 0)
    assert database.data_version() == seen[-1]
    assert len(set(seen)) == 3


# --- opening


def test_the_file_is_private_and_its_directory_is_made(database: Database, path: Path) -> None:
    database.write_sync(insert(1))
    for file in (path, path.with_name(path.name + "-wal")):
        assert file.stat().st_mode & 0o777 == 0o600


def test_migrations_run_once_in_their_order(path: Path) -> None:
    Database(path, MIGRATIONS).close()
    later = Migration(name="later", sql="ALTER TABLE t ADD COLUMN more TEXT; UPDATE t SET more = 'x'")
    for _ in range(2):
        with Database(path, (*MIGRATIONS, later)) as database:
            names = database.read_sync(lambda connection: rows(connection, "SELECT name FROM rawr_migration"))
        assert names == [("t",), ("later",)]


def test_a_migration_that_fails_leaves_the_schema_as_it_was(path: Path) -> None:
    Database(path, MIGRATIONS).close()
    with pytest.raises(apsw.SQLError):
        Database(path, (*MIGRATIONS, Migration(name="bad", sql="CREATE TABLE u (n INTEGER) STRICT; NONSENSE")))
    with Database(path, MIGRATIONS) as database:
        assert database.read_sync(lambda c: rows(c, "SELECT name FROM sqlite_schema WHERE name = 'u'")) == []


def test_a_newer_schema_is_refused_and_a_changed_one_too(path: Path) -> None:
    with Database(path, (TABLE, Migration(name="future", sql="CREATE TABLE f (n INTEGER) STRICT"))) as database:
        database.write_sync(insert(1))
    with pytest.raises(SchemaNewerError, match=r"test\.sqlite has schema 2 \(future\), this rawr knows 1") as newer:
        Database(path, MIGRATIONS)
    assert newer.value.fix is not None
    with pytest.raises(SchemaChangedError, match="another text of t"):
        Database(path, (Migration(name="t", sql=TABLE.sql + " "), TABLE))


def test_many_processes_may_open_a_new_database_at_once(path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom rawr.storage.sqlite import Database, Migration, run\n"
        "with Database(Path(sys.argv[1]), [Migration(name='t', sql=sys.argv[2])]) as database:\n"
        "    for _ in range(20):\n"
        "        database.write_sync(lambda c: run(c, 'INSERT INTO t (text) VALUES (1)'))\n"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code, str(path), TABLE.sql]) for _ in range(4)]
    assert [process.wait(60) for process in processes] == [0] * 4
    with Database(path, MIGRATIONS) as database:
        assert len(numbers(database)) == 80


def damaged(raw: bytes, how: str) -> bytes:
    match how:
        case "text":
            return b"this is a letter to a friend, not a database\n" * 40
        case "empty":
            return b""
        case "half":
            return raw[: len(raw) // 2]
        case "one page":
            return raw[:4096]
        case "odd":
            return raw[:5000]
        case "header":
            return b"\x00" * 100 + raw[100:]
    return raw[:4096] + random.Random(7).randbytes(len(raw) - 4096)


@pytest.mark.parametrize("how", ["text", "empty", "half", "one page", "odd", "header", "noise"])
def test_a_damaged_file_is_an_error_that_names_it_and_stays_as_it_is(path: Path, how: str) -> None:
    with Database(path, MIGRATIONS) as database:
        database.write_sync(lambda c: c.execute_many("INSERT INTO t (text) VALUES (?)", [("text " * 50,)] * 500))
    before = damaged(path.read_bytes(), how)
    path.write_bytes(before)
    with (
        pytest.raises(DatabaseCorruptError, match=r"test\.sqlite cannot be understood") as caught,
        Database(path, MIGRATIONS) as database,
    ):
        database.read_sync(lambda connection: rows(connection, "SELECT * FROM t ORDER BY text"))
    assert isinstance(caught.value, CorruptFileError)
    assert caught.value.fix is not None
    assert path.read_bytes() == before


def test_a_database_that_was_removed_is_made_anew(path: Path) -> None:
    Database(path, MIGRATIONS).close()
    path.unlink()
    with Database(path, MIGRATIONS) as database:
        assert numbers(database) == []


def test_a_creation_that_died_halfway_is_finished_by_the_next_one(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"")
    with Database(path, MIGRATIONS) as database:
        assert numbers(database) == []


def test_what_is_not_a_file_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "folder.sqlite").mkdir()
    with pytest.raises(StorageIsDirectoryError, match="is a directory"):
        Database(tmp_path / "folder.sqlite", MIGRATIONS)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError):
        Database(tmp_path / "file" / "test.sqlite", MIGRATIONS)


def test_a_closed_database_refuses_everything(path: Path) -> None:
    database = Database(path, MIGRATIONS)
    database.data_version()
    database.close()
    database.close()
    for action in (lambda: database.write_sync(insert(1)), lambda: numbers(database), database.data_version):
        with pytest.raises(DatabaseClosedError, match="closed"):
            action()


# --- trouble


def test_a_full_database_fails_the_unit_and_the_next_one_works(database: Database) -> None:
    database.write_sync(insert(1))
    database.write_sync(lambda connection: run(connection, "PRAGMA max_page_count=20"))

    async def main() -> list[object]:
        units = [insert(2), bulk("x" * 1_000_000), insert(3)]
        return await asyncio.gather(*(database.write(unit) for unit in units), return_exceptions=True)

    answers = asyncio.run(main())
    assert isinstance(answers[1], StorageFullError)
    assert "disk full" in str(answers[1])
    stored = [n for n, answer in zip((2, 3), (answers[0], answers[2]), strict=True) if answer == n]
    assert numbers(database) == [1, *stored]
    assert database.write_sync(insert(4)) == 4


def test_a_process_that_does_not_end_its_turn_fails_the_others_in_time(path: Path) -> None:
    with Database(path, MIGRATIONS, turn_timeout_s=0.05) as database:
        with FileLock(path.with_name(path.name + ".wlock")).acquire(0):
            assert numbers(database) == []
            with pytest.raises(DatabaseBusyError, match=r"another process has been writing to .*test\.sqlite"):
                database.write_sync(insert(1))
        assert database.write_sync(insert(2)) == 2
        assert numbers(database) == [2]


def test_a_file_that_may_not_grow_loses_nothing(path: Path) -> None:
    code = (
        "import resource, sys\nfrom pathlib import Path\n"
        "from rawr.errors import StorageError\nfrom rawr.storage.sqlite import Database, Migration, run\n"
        "with Database(Path(sys.argv[1]), [Migration(name='t', sql=sys.argv[2])]) as database:\n"
        "    def write(text): database.write_sync(lambda c: run(c, 'INSERT INTO t (text) VALUES (?)', (text,)))\n"
        "    write('before')\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))\n"
        "    try:\n"
        "        write('x' * 1_000_000)\n"
        "    except StorageError as error:\n"
        "        print(error.code)\n"
        "    write('after')\n"
    )
    command = [sys.executable, "-c", code, str(path), TABLE.sql]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.stderr, done.stdout) == ("", "STORAGE_FAILED\n")
    with Database(path, MIGRATIONS) as database:
        assert database.read_sync(lambda c: rows(c, "SELECT text FROM t")) == [("before",), ("after",)]


def test_a_really_full_disk_loses_nothing(tmp_path: Path) -> None:
    """On a small file system of its own, in a private mount namespace."""
    if shutil.which("unshare") is None:
        pytest.skip("no unshare")
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from rawr.storage.faults import StorageFullError\n"
        "from rawr.storage.sqlite import Database, Migration, rows, run\n"
        "with Database(Path(sys.argv[1]) / 'x.sqlite', [Migration(name='t', sql=sys.argv[2])]) as database:\n"
        "    def write(text): database.write_sync(lambda c: run(c, 'INSERT INTO t (text) VALUES (?)', (text,)))\n"
        "    acknowledged = 0\n"
        "    try:\n"
        "        for _ in range(10_000):\n"
        "            write('x' * 20_000)\n"
        "            acknowledged += 1\n"
        "    except StorageFullError as error:\n"
        "        print(error.code)\n"
        "    [(stored,)] = database.read_sync(lambda c: rows(c, 'SELECT count(*) FROM t'))\n"
        "    print(stored == acknowledged > 0)\n"
        "    (Path(sys.argv[1]) / 'ballast').unlink()\n"
        "    write('next')\n"
    )
    script = (
        'mount -t tmpfs -o size=2m tmpfs "$1" || exit 77\n'
        'head -c 500000 /dev/zero > "$1/ballast" && exec "$2" -c "$3" "$1" "$4"'
    )
    command = ["unshare", "-rm", "sh", "-c", script, "sh", str(tmp_path), sys.executable, code, TABLE.sql]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("no file system may be mounted here")
    assert (done.stderr, done.stdout) == ("", "STORAGE_FULL\nTrue\n")


def test_every_acknowledged_row_survives_the_killing_of_its_writer(path: Path) -> None:
    code = (
        "import asyncio, sys\nfrom pathlib import Path\nfrom rawr.storage.sqlite import Database, Migration, run\n"
        "database = Database(Path(sys.argv[1]), [Migration(name='t', sql=sys.argv[2])])\n"
        "start = int(sys.argv[3])\n"
        "async def producer(offset):\n"
        "    for n in range(start + offset, start + 1_000_000, 8):\n"
        "        await database.write(lambda c: run(c, 'INSERT INTO t (n) VALUES (?)', (n,)))\n"
        "        print(n, flush=True)\n"
        "async def main():\n"
        "    await asyncio.gather(*(producer(offset) for offset in range(8)))\n"
        "asyncio.run(main())\n"
    )
    acknowledged: set[int] = set()
    for attempt in range(6):
        command = [sys.executable, "-c", code, str(path), TABLE.sql, str(attempt * 1_000_000)]
        writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        for _ in range(1 + 40 * attempt):
            acknowledged.add(int(writer.stdout.readline()))
        writer.kill()
        rest = writer.stdout.read()  # communicate() would skip what readline() has read ahead
        writer.communicate()
        acknowledged.update(int(line) for line in rest.splitlines(keepends=True) if line.endswith("\n"))
        with Database(path, MIGRATIONS) as database:
            stored = set(numbers(database))
            assert database.read_sync(lambda c: rows(c, "PRAGMA integrity_check")) == [("ok",)]
        assert acknowledged <= stored
        assert len(stored - acknowledged) <= 8 * (attempt + 1)  # in flight when the writer died


def test_a_database_that_was_inherited_over_a_fork_is_refused(path: Path) -> None:
    code = (
        "import os, sys\nfrom pathlib import Path\n"
        "from rawr.storage.sqlite import Database, DatabaseForkedError, Migration, run\n"
        "migrations = [Migration(name='t', sql=sys.argv[2])]\n"
        "database = Database(Path(sys.argv[1]), migrations)\n"
        "insert = lambda c: run(c, 'INSERT INTO t (n) VALUES (NULL)')\n"
        "database.write_sync(insert)\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    refused = 0\n"
        "    for action in (lambda: database.write_sync(insert), lambda: database.read_sync(insert),\n"
        "                   database.data_version):\n"
        "        try:\n"
        "            action()\n"
        "        except DatabaseForkedError:\n"
        "            refused += 1\n"
        "    database.close()\n"
        "    with Database(Path(sys.argv[1]), migrations) as own:\n"
        "        own.write_sync(insert)\n"
        "    os._exit(refused)\n"
        "_, status = os.waitpid(child, 0)\n"
        "database.write_sync(insert)\n"
        "print(os.waitstatus_to_exitcode(status))\n"
        "database.close()\n"
    )
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code, str(path), TABLE.sql]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.stderr, done.stdout) == ("", "3\n")
    with Database(path, MIGRATIONS) as database:
        assert len(numbers(database)) == 3


def test_a_read_only_file_is_named_as_the_cause() -> None:
    code = (
        "import os\nfrom pathlib import Path\nfrom rawr.storage.faults import StorageReadOnlyError\n"
        "from rawr.storage.sqlite import Database, Migration\n"
        "migrations = [Migration(name='t', sql='CREATE TABLE t (n INTEGER) STRICT')]\n"
        "Database(Path('x.sqlite'), migrations).close()\n"
        "Path('x.sqlite').chmod(0o444)\n"
        "Path('x.sqlite.wlock').chmod(0o666)\n"
        "os.geteuid() or os.setuid(65534)\n"
        "try:\n"
        "    with Database(Path('x.sqlite'), [*migrations, Migration(name='u', sql='CREATE TABLE u (n) ')]): pass\n"
        "except StorageReadOnlyError as error:\n"
        "    print(error.code)\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=folder)
    assert (done.stderr, done.stdout) == ("", "STORAGE_READ_ONLY\n")

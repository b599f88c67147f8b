"""A disk that takes its time to flush, as most do, made of one that does not: each flush of a process takes longer.

What many callers share a flush for cannot show on a disk that flushes faster than a Python server answers.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>

static int slowly(const char *name, int fd) {
    int (*flush)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    int result = flush(fd);
    struct timespec rest = {0, FLUSH_NS};
    nanosleep(&rest, 0);
    return result;
}

int fsync(int fd) { return slowly("fsync", fd); }
int fdatasync(int fd) { return slowly("fdatasync", fd); }
"""


def environment(scratch: Path, *, flush_ms: float) -> dict[str, str]:
    """What a process has to be started with, so that each of its flushes takes `flush_ms` more. Needs a C compiler.

    Raises:
        RuntimeError: there is none.
    """
    source, library = scratch / "slowdisk.c", scratch / "slowdisk.so"
    source.write_text(_SOURCE)
    flush_ns = f"-DFLUSH_NS={int(flush_ms * 1e6)}"
    try:
        subprocess.run(["cc", "-shared", "-fPIC", flush_ns, "-o", library, source, "-ldl"], check=True)
    except FileNotFoundError as error:
        raise RuntimeError("a slower disk is made by a C compiler, and there is no `cc` here") from error
    return {"LD_PRELOAD": str(library)}

"""Error messages: the one line that a failed stage prints, and how to recognise errors of libraries."""

import errno
import os
import re

DEBUG_VARIABLE = "DIALOG_PROMPTING_DEBUG"
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
SYSTEM = {
    **dict.fromkeys(NO_SPACE, "no space left on the device; free some and run the same command again"),
    errno.EPIPE: "whoever reads the output has stopped; nothing else is wrong",
    errno.EMFILE: "too many open files (ulimit -n), or a mounted bucket that renames no folder (see gcsfuse's options)",
    errno.EFBIG: "larger than the limit on file size; raise the limit (ulimit -f) and run it again",
    errno.EIO: "the disk or the network behind it failed; see the system's log, then run it again",
}
NO_MEMORY = re.compile(  # messages of the CPU's allocator, GPU libraries, threads, oneDNN, mapped files
    "not enough memory|out of memory|_ALLOC_FAILED|can't start new thread|could not create a primitive(?! descriptor)"
    "|Cannot allocate memory|failed to map segment from shared object"
)


class StageError(Exception):
    """An error that a user can fix: the file or key, what was found there, and what to do about it.

    Pickle rebuilds an exception from its `args`: with the three parts there, it comes back whole from another process.
    """

    def __init__(self, subject: object, found: str, remedy: str) -> None:
        super().__init__(str(subject), found, remedy)
        self.subject, self.found, self.remedy = str(subject), found, remedy

    def __str__(self) -> str:
        return f"{self.subject}: {self.found}; {self.remedy}"


def one_line(text: str) -> str:
    """The text on one line, as every error message is: single spaces, and what a terminal would obey is escaped."""
    shown = " ".join(text.split())
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in shown)


def system_error(error: BaseException) -> int | None:
    """The errno of an error; libraries written in Rust have it only in their message."""
    if isinstance(error, OSError):
        return error.errno
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that the memory of the machine or of its accelerator is used up."""
    said = isinstance(error, RuntimeError | OSError | ImportError) and NO_MEMORY.search(str(error)) is not None
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"  # PyTorch's, not imported here
    return said or named or system_error(error) == errno.ENOMEM


def of_the_machine(error: BaseException) -> BaseException | None:
    """The error of memory, a disk or a permission in what a library raised, if any: then no file is to blame."""
    found: BaseException | None = error
    while found is not None and not is_out_of_memory(found) and system_error(found) is None:
        found = found.__cause__  # `datasets` wraps what the system said
    return found


def describe(error: BaseException) -> str:
    """The text behind `ERROR <stage>: ` for an error: `<file or key>: <what was found>; <what to do>`."""
    if isinstance(error, StageError):
        return one_line(str(error))
    error = of_the_machine(error) or error
    if is_out_of_memory(error):
        lower = "lower protocols.<name>.training.batch_size or runtime.generation_batch_size"
        return f"memory: not enough; close other programs, {lower}, or take a smaller model or corpus"
    if (number := system_error(error)) is not None:
        subject = getattr(error, "filename", None) or "standard output or a file"  # the stages name all of their files
        said = SYSTEM.get(number, f"{one_line(os.strerror(number))}; check that path and its permissions")
        return f"{subject}: {said}"
    said = one_line(str(error)) or "no message"
    return f"{type(error).__name__}: {said}; set {DEBUG_VARIABLE}=1 for the traceback and report it"

"""The far process of the pickling tests: loads what comes, calls it, pickles the result. Run as a script.

``far.py RUNTIME_FOLDER [FOLDER...]``: the folders go first on the path, the one with the runtime last.
"""

import importlib
import struct
import sys
import traceback


def read_parts(file):
    head = file.read(4)
    if len(head) < 4:
        return None
    sizes = struct.unpack(f"<{struct.unpack('<I', head)[0]}Q", file.read(8 * struct.unpack("<I", head)[0]))
    return [bytearray(file.read(size)) for size in sizes]


def write_parts(file, parts):
    views = [memoryview(part).cast("B") for part in parts]
    file.write(struct.pack(f"<I{len(views)}Q", len(views), *(view.nbytes for view in views)))
    for view in views:
        file.write(view)
    file.flush()


def main():
    runtime, *folders = sys.argv[1:]
    sys.path[:0] = folders
    sys.path.append(runtime)
    answers, sys.stdout = sys.stdout.buffer, sys.stderr
    pickling = importlib.import_module("remote_exec_runtime.serial.pickling")
    while (parts := read_parts(sys.stdin.buffer)) is not None:
        try:
            function, args = pickling.load(parts[0], parts[1:])
            answer = (True, function(*args))
            pickled = pickling.dump(answer)
        except Exception as error:
            answer = (False, (type(error).__name__, str(error), traceback.format_exc()))
            pickled = pickling.dump(answer)
        write_parts(answers, [b"".join(pickled.stream), *(buffer.raw() for buffer in pickled.buffers)])


if __name__ == "__main__":
    main()

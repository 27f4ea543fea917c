"""An interpreter for the classic BPF that seccomp runs, written apart from the assembler."""

from __future__ import annotations

import struct

from loader_service.sandbox.policy import Action, Allow, Fail, Kill

MOST_INSTRUCTIONS = 4096
"""`BPF_MAXINSNS`: the kernel refuses a longer program."""


def evaluate(
    program: bytes, number: int, audit_number: int, arguments: tuple[int, ...] = ()
) -> Action:
    """What the kernel would do on a system call; raises AssertionError for an invalid program."""
    padded = [argument % 2**64 for argument in (*arguments, 0, 0, 0, 0, 0, 0)[:6]]
    data = struct.pack("<iIQ6Q", _signed(number), audit_number, 0x1234, *padded)
    instructions = list(struct.iter_unpack("<HBBI", program))
    assert 0 < len(instructions) <= MOST_INSTRUCTIONS
    accumulator = 0
    at = 0
    while True:
        code, if_true, if_false, operand = instructions[at]
        at += 1
        if code == 0x20:
            assert operand % 4 == 0
            (accumulator,) = struct.unpack_from("<I", data, operand)
        elif code == 0x54:
            accumulator &= operand
        elif code == 0x15:
            at += if_true if accumulator == operand else if_false
        elif code == 0x35:
            at += if_true if accumulator >= operand else if_false
        elif code == 0x06:
            return _action(operand)
        else:
            raise AssertionError(f"unknown instruction {code:#x}")


def _action(value: int) -> Action:
    if value == 0x7FFF_0000:
        return Allow()
    if value == 0x8000_0000:
        return Kill()
    assert value & 0xFFFF_0000 == 0x0005_0000, f"unknown return value {value:#x}"
    return Fail(value & 0xFFFF)


def _signed(number: int) -> int:
    return number - 2**32 if number >= 2**31 else number

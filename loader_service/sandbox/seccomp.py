"""System call filters: a small assembler from a policy to classic BPF, and the loader.

A program first checks the architecture, then the calling convention, then compares the number with
each rule in the policy's order. Each rule's body ends in a return, so no jump exceeds the 255
instructions that classic BPF can skip.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

from loader_service.sandbox import libc, policy
from loader_service.sandbox.policy import Action, Allow, Condition, Fail, Kill, OwnProcess, Rule
from loader_service.sandbox.syscall_tables import ARCHITECTURES, Architecture

# struct seccomp_data of linux/seccomp.h, little endian.
_NUMBER_OFFSET: Final = 0
_ARCHITECTURE_OFFSET: Final = 4
_ARGUMENTS_OFFSET: Final = 16

# linux/filter.h
_LOAD_WORD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
_AND: Final = 0x54  # BPF_ALU | BPF_AND | BPF_K
_JUMP_IF_EQUAL: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_JUMP_IF_AT_LEAST: Final = 0x35  # BPF_JMP | BPF_JGE | BPF_K
_RETURN: Final = 0x06  # BPF_RET | BPF_K
_INSTRUCTION: Final = struct.Struct("=HBBI")

_RETURN_ALLOW: Final = 0x7FFF_0000
_RETURN_ERRNO: Final = 0x0005_0000
_RETURN_KILL_PROCESS: Final = 0x8000_0000

_SECCOMP_SET_MODE_FILTER: Final = 1
_SECCOMP_FILTER_FLAG_TSYNC: Final = 1
_WORD: Final = 0xFFFF_FFFF


@dataclass(frozen=True)
class _Instruction:
    code: int
    operand: int | OwnProcess
    if_true: int = 0
    if_false: int = 0


@dataclass(frozen=True)
class Template:
    """A program with holes where the process id belongs."""

    program: bytes
    process_id_offsets: tuple[int, ...]

    def for_process(self, pid: int) -> bytes:
        """The program for the process that calls itself `pid`."""
        program = bytearray(self.program)
        for offset in self.process_id_offsets:
            struct.pack_into("=I", program, offset, pid)
        return bytes(program)


def compile_filter(
    rules: Sequence[Rule] = policy.WORKER_SYSTEM_CALLS, *, architecture: Architecture, pid: int
) -> bytes:
    """The BPF program for `rules` on `architecture`, in which the process calls itself `pid`.

    Rules for calls the architecture does not have are left out. The work is done once per policy
    and architecture; later calls only write the process id. Raises `ValueError` for a name that no
    architecture has, for a call with two rules, and for a rule too long for a jump.
    """
    return template(tuple(rules), architecture.name).for_process(pid)


def load_filter(program: bytes, *, all_threads: bool = False) -> None:
    """Put `program` on this thread for good; needs no_new_privs. Raises `OSError`.

    Threads made later inherit it. With `all_threads` those that are there already get it too, and
    no_new_privs with it; else there must be none.
    """
    count = len(program) // _INSTRUCTION.size
    instructions = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: unsigned short length, pointer.
    header = ctypes.create_string_buffer(struct.pack("@HP", count, ctypes.addressof(instructions)))
    flags = _SECCOMP_FILTER_FLAG_TSYNC if all_threads else 0
    failed = libc.syscall("seccomp", _SECCOMP_SET_MODE_FILTER, flags, ctypes.addressof(header))
    if failed:
        raise OSError(f"seccomp: thread {failed} has a filter of its own")


@cache
def template(rules: tuple[Rule, ...], architecture_name: str) -> Template:
    """The program for `rules` and any process; see `compile_filter`."""
    instructions = list(_assemble(rules, ARCHITECTURES[architecture_name]))
    program = b"".join(
        _INSTRUCTION.pack(
            i.code, i.if_true, i.if_false, 0 if isinstance(i.operand, OwnProcess) else i.operand
        )
        for i in instructions
    )
    holes = tuple(
        index * _INSTRUCTION.size + 4
        for index, i in enumerate(instructions)
        if isinstance(i.operand, OwnProcess)
    )
    return Template(program, holes)


def _assemble(rules: tuple[Rule, ...], architecture: Architecture) -> list[_Instruction]:
    names = [rule.name for rule in rules]
    known = {name for other in ARCHITECTURES.values() for name in other.numbers}
    if unknown := set(names) - known:
        raise ValueError(f"no architecture has the system calls {sorted(unknown)}")
    if len(set(names)) != len(names):
        raise ValueError("a system call has two rules")
    refuse = _Instruction(_RETURN, _return_value(policy.UNLISTED))
    code = [
        _Instruction(_LOAD_WORD, _ARCHITECTURE_OFFSET),
        _Instruction(_JUMP_IF_EQUAL, architecture.audit_number, 1, 0),
        refuse,
        _Instruction(_LOAD_WORD, _NUMBER_OFFSET),
    ]
    if architecture.first_foreign_number is not None:
        code += [_Instruction(_JUMP_IF_AT_LEAST, architecture.first_foreign_number, 0, 1), refuse]
    for rule in rules:
        number = architecture.numbers.get(rule.name)
        if number is not None:
            body = _body(rule)
            code += [_Instruction(_JUMP_IF_EQUAL, number, 0, _jump(len(body))), *body]
    return [*code, refuse]


def _body(rule: Rule) -> list[_Instruction]:
    code: list[_Instruction] = []
    for case in rule.cases:
        tests = [test for condition in case.conditions for test in _tests(condition)]
        length = sum(len(test) for test in tests) + 1
        done = 0
        for test in tests:
            done += len(test)
            # The last instruction of a test is the comparison: go on, or skip the whole case.
            *load, compare = test
            code += [
                *load,
                _Instruction(compare.code, compare.operand, 0, _jump(length - done)),
            ]
        code.append(_Instruction(_RETURN, _return_value(case.action)))
    return [*code, _Instruction(_RETURN, _return_value(rule.otherwise))]


def _tests(condition: Condition) -> list[list[_Instruction]]:
    """One comparison for each 32-bit half of the argument that the mask touches."""
    offset = _ARGUMENTS_OFFSET + 8 * condition.argument
    tests = []
    for shift, at in ((32, offset + 4), (0, offset)):
        mask = condition.mask >> shift & _WORD
        if not mask:
            continue
        if isinstance(condition.value, OwnProcess):
            value: int | OwnProcess = condition.value if shift == 0 else 0
        else:
            value = condition.value >> shift & _WORD
        masking = [] if mask == _WORD else [_Instruction(_AND, mask)]
        tests.append([_Instruction(_LOAD_WORD, at), *masking, _Instruction(_JUMP_IF_EQUAL, value)])
    return tests


def _return_value(action: Action) -> int:
    match action:
        case Allow():
            return _RETURN_ALLOW
        case Fail(error):
            return _RETURN_ERRNO | error
        case Kill():
            return _RETURN_KILL_PROCESS


def _jump(distance: int) -> int:
    if distance > 255:
        raise ValueError("a rule is too long for a jump of classic BPF")
    return distance
